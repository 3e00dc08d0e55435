"""Kinfolder's own data is known by its files, in a bounded look around a directory."""

from __future__ import annotations

from pathlib import Path

import pytest

from peer.disk import kept_places
from peer.disk.kept_places import refuse_kept_place
from protocol.errors import UserError


@pytest.mark.parametrize(
    ("what", "names"),
    [
        ("coordinator", ("coordinator.sqlite", "server.keys")),
        ("storage node", ("packs", "node.json")),
        ("home server", ("host.json", "host.lock")),
        ("device", ("state.db", "lock")),
    ],
)
def test_it_is_known_from_within_from_above_and_itself(tmp_path: Path, what: str, names: tuple[str, ...]) -> None:
    kept = tmp_path / "a" / "b"
    kept.mkdir(parents=True)
    for name in names:
        (kept / name).touch()
    for place in (kept, kept / "c" / "d", tmp_path / "a", tmp_path):
        with pytest.raises(UserError, match=what):
            refuse_kept_place(str(place))
    refuse_kept_place(str(tmp_path / "a" / "bc"))


def test_one_of_the_files_alone_is_somebodys_own(tmp_path: Path) -> None:
    for name in ("lock", "host.json", "node.json", "server.keys"):
        (tmp_path / name).touch()
    refuse_kept_place(str(tmp_path))


def test_the_look_below_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_places, "LOOKED_AT_MAX", 5)
    for number in range(10):
        (tmp_path / str(number) / "x").mkdir(parents=True)
    around = list(kept_places._around(str(tmp_path)))
    assert len(around) <= 5 + len(tmp_path.parts)
