"""``kin exclude`` and ``kin conflicts --keep | --drop``, between two devices."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from protocol.errors import UserError
from simulations.processes import Cluster, Device, tree_of
from tests.e2e.kit import agents, ask, assert_no_tracebacks, folder_of, reasons, run, settle, start_agent, until


class World(NamedTuple):
    cluster: Cluster
    a: Device
    b: Device
    one: Path
    two: Path

    def settle(self) -> None:
        settle(self.a, self.b)

    def exclude(self, path: str, *, remove: bool = False, free: bool = False) -> Any:
        """On the second device, through its agent."""
        return ask(self.b, "exclude", path=str(self.two / path), remove=remove, free=free)

    def excluded(self) -> list[str]:
        return [row["path"] for row in ask(self.b, "exclude", path=None, remove=False, free=False)["exclusions"]]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with Cluster(tmp_path_factory.mktemp("exclude") / "cluster") as cluster:
        a = cluster.first_device("laptop")
        a.add(cluster.root / "one", "work")
        b = cluster.link_device(a, "desktop")
        a.sync()
        b.get("work", cluster.root / "two")
        with agents(cluster.root, a, b):
            settle(a, b)
            yield World(cluster, a, b, cluster.root / "one", cluster.root / "two")
        assert_no_tracebacks(cluster)


@pytest.fixture
def clean(world: World) -> Iterator[World]:
    """Each test begins and ends with an empty folder and nothing excluded."""
    yield world
    for path in world.excluded():
        world.exclude(path, remove=True)
    for root in (world.one, world.two):  # in the second one lies what was on that device alone
        for name in os.listdir(root):
            if name != ".kinfolder":
                remove(root / name)
        world.settle()
    assert not dict(tree_of(world.one))
    assert not dict(tree_of(world.two))


def remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()


def fill(root: Path, **files: str) -> None:
    for name, text in files.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def texts(root: Path) -> dict[str, str]:
    return {path: data.decode() for path, data in tree_of(root) if data != b"<dir>"}


def test_what_is_excluded_lives_on_its_own_here_and_comes_together_again(clean: World) -> None:
    w = clean
    fill(w.one, D__same="same", D__edited="first", D__removed="r", D__theirs="t0", D__both="b0", beside="beside")
    w.settle()
    w.exclude("D")
    assert w.excluded() == ["D"]
    # Neither way: edits, new files and removals here; edits and new files elsewhere.
    (w.two / "D" / "edited").write_text("edited here")
    (w.two / "D" / "removed").unlink()
    (w.two / "D" / "both").write_text("both alike")
    fill(w.two, D__sub__mine="mine", beside="beside 2")
    fill(w.one, D__theirs="t1", D__both="both alike", D__new="new elsewhere")
    w.settle()
    assert ask(w.b)["in_sync"]
    assert folder_of(ask(w.b), "work")["excluded"] == ["D"]
    assert (w.one / "beside").read_text() == "beside 2"
    assert texts(w.one / "D") == {
        "same": "same",
        "edited": "first",
        "removed": "r",
        "theirs": "t1",
        "both": "both alike",
        "new": "new elsewhere",
    }
    assert texts(w.two / "D") == {
        "same": "same",
        "edited": "edited here",
        "theirs": "t0",
        "both": "both alike",
        "sub/mine": "mine",
    }
    w.exclude("D", remove=True)
    w.settle()
    one, two = texts(w.one), texts(w.two)
    assert one == two
    assert {path: one[path] for path in ("D/same", "D/removed", "D/theirs", "D/both", "D/sub/mine", "D/new")} == {
        "D/same": "same",
        "D/removed": "r",
        "D/theirs": "t1",
        "D/both": "both alike",
        "D/sub/mine": "mine",
        "D/new": "new elsewhere",
    }
    # What differs is kept twice, and the folder's own has the name.
    assert one["D/edited"] == "first"
    assert sorted(text for path, text in one.items() if path.startswith("D/edited")) == ["edited here", "first"]
    assert len(one) == 9
    (w.two / "D" / "sub" / "mine").write_text("edited afterwards")
    until(lambda: (w.one / "D" / "sub" / "mine").read_text() == "edited afterwards", "it is watched now")


def test_freed_room_is_no_removal_and_comes_back(clean: World) -> None:
    w = clean
    fill(w.one, D__f="f", D__sub__g="g" * 5000, D__empty="", keep="keep")
    w.settle()
    freed = w.exclude("D", free=True)["freed"]
    assert freed == {"files": 3, "bytes": 5001, "left": []}
    assert not (w.two / "D").exists()
    fill(w.one, D__later="later")
    w.settle()
    assert set(texts(w.one)) == {"D/f", "D/sub/g", "D/empty", "D/later", "keep"}
    assert set(texts(w.two)) == {"keep"}
    assert ask(w.b)["in_sync"]
    # Not even when the directory above it is removed here.
    w.exclude("D", remove=True)
    w.settle()
    assert texts(w.two) == texts(w.one)


def test_what_is_not_safe_yet_is_named_and_nothing_is_freed(clean: World) -> None:
    w = clean
    fill(w.one, D__f="f")
    w.settle()
    ask(w.b, "offline")
    try:
        fill(w.two, D__new="only here so far")
        until(lambda: "D/new" in reasons(w.b, "work"), "it is seen")
        with pytest.raises(
            UserError, match=r"D/new (was changed on this device|is on its way|is not confirmed by the coordinator yet)"
        ):
            w.exclude("D", free=True)
        assert texts(w.two) == {"D/f": "f", "D/new": "only here so far"}
        assert w.excluded() == []
    finally:
        ask(w.b, "online")
    w.settle()
    w.exclude("D")
    fill(w.two, D__f="written while excluded")
    with pytest.raises(UserError, match="D/f is on this device alone: it was written while it was excluded"):
        w.exclude("D", free=True)
    fill(w.two, D__f="f")
    assert w.exclude("D", free=True)["freed"]["files"] == 2
    # There is nothing to free where nothing is; what was freed already is another matter.
    for nothing in ("nothere", "D/nothere"):
        with pytest.raises(UserError, match=f"there is no {nothing} in work"):
            w.exclude(nothing, free=True)
    assert w.excluded() == ["D"]
    assert w.exclude("D", free=True)["freed"]["files"] == 0
    w.settle()
    assert texts(w.one) == {"D/f": "f", "D/new": "only here so far"}


def test_an_exclusion_follows_what_it_is_about(clean: World) -> None:
    w = clean
    fill(w.one, P__D__f="f", P__g="g", X__h="h")
    w.settle()
    w.exclude("P/D")
    fill(w.two, P__D__f="edited here")
    # The directory above it is renamed elsewhere, then here.
    (w.one / "P").rename(w.one / "Q")
    w.settle()
    assert texts(w.two) == {"Q/D/f": "edited here", "Q/g": "g", "X/h": "h"}
    assert w.excluded() == ["Q/D"]
    (w.two / "Q").rename(w.two / "R")
    w.settle()
    assert texts(w.one) == {"R/D/f": "f", "R/g": "g", "X/h": "h"}
    assert texts(w.two) == {"R/D/f": "edited here", "R/g": "g", "X/h": "h"}
    assert w.excluded() == ["R/D"]
    # It is renamed elsewhere itself: what lies here stays, its new name stays off this device, and so does what is new.
    (w.one / "R" / "D").rename(w.one / "E")
    fill(w.one, E__new="new")
    w.settle()
    assert ask(w.b)["in_sync"]
    assert texts(w.two) == {"R/D/f": "edited here", "R/g": "g", "X/h": "h"}
    assert w.excluded() == ["E", "R/D"]
    # What is moved into it leaves this device, what is moved out of it comes.
    (w.one / "X").rename(w.one / "E" / "X")
    (w.one / "E" / "new").rename(w.one / "out")
    w.settle()
    assert texts(w.two) == {"R/D/f": "edited here", "R/g": "g", "out": "new"}
    assert texts(w.one) == {"E/X/h": "h", "E/f": "f", "R/g": "g", "out": "new"}
    # Removing here what is around it removes nothing in it.
    shutil.rmtree(w.two / "R")
    w.exclude("E", free=True)
    w.settle()
    assert texts(w.one) == {"E/X/h": "h", "E/f": "f", "out": "new"}
    w.exclude("E", remove=True)
    w.settle()
    assert texts(w.two) == texts(w.one)


def test_a_renamed_exclusion_without_bytes_here_leaves_no_old_name_behind(clean: World) -> None:
    w = clean
    fill(w.one, P__D__f="f", P__g="g")
    w.settle()
    w.exclude("P/D", free=True)
    (w.one / "P" / "D").rename(w.one / "P" / "E")
    w.settle()
    assert w.excluded() == ["P/E"]
    # The directory around it goes here; what this device had not stays elsewhere.
    shutil.rmtree(w.two / "P")
    w.settle()
    assert texts(w.one) == {"P/E/f": "f"}
    assert texts(w.two) == {}


def test_what_cannot_be_excluded_is_told(clean: World) -> None:
    w = clean
    w.exclude("E/never")
    for path, remove, why in (
        (w.two, False, "whole folder"),
        (w.two / ".kinfolder" / "x", False, "Kinfolder's own"),
        (w.cluster.root, False, "lies in no folder"),
        (w.two / "E", True, "is not excluded"),
        (w.two / "E" / "never" / "x", True, "is excluded with E/never"),
    ):
        with pytest.raises(UserError, match=why):
            ask(w.b, "exclude", path=str(path), remove=remove, free=False)
    with pytest.raises(UserError, match="give one of them"):
        ask(w.b, "exclude", path=str(w.two / "x"), remove=True, free=True)
    assert "1 path kept off this device" in run(w.b, "status").out


def test_without_an_agent(clean: World) -> None:
    w = clean
    fill(w.one, D__f="f", E__g="g")
    w.settle()
    w.b.stop()
    try:
        assert "D is not on this device any more" in run(w.b, "exclude", "--free", str(w.two / "D")).out
        assert not (w.two / "D").exists()
        assert run(w.b, "exclude", str(w.two / "E" / "never")).code == 0
        listed = json.loads(run(w.b, "exclude", "--json").out)
        assert listed["exclusions"] == [{"folder": "work", "path": path} for path in ("D", "E/never")]
        fill(w.one, E__never__x="x")
        settle(w.a)
        assert run(w.b, "sync").code == 0
        assert texts(w.two) == {"E/g": "g"}
        assert run(w.b, "exclude", "--remove", str(w.two / "D")).code == 0
        assert run(w.b, "sync").code == 0
        assert texts(w.two) == {"D/f": "f", "E/g": "g"}
    finally:
        start_agent(w.b, w.cluster.root)
    w.settle()


# --- Conflict copies


def make_conflict(w: World, name: str, before: str | None) -> tuple[str, str, str]:
    """Return the path of the copy, the bytes of the file and those of the copy."""
    if before is not None:
        fill(w.one, **{name: before})
        w.settle()
    ask(w.b, "offline")
    fill(w.two, **{name: f"{name} of the desktop"})
    until(lambda: reasons(w.b, "work"), "it is seen")
    fill(w.one, **{name: f"{name} of the laptop"})
    settle(w.a)
    ask(w.b, "online")
    w.settle()
    (row,) = [row for row in ask(w.b, "conflicts")["conflicts"] if row["path"] == name]
    assert folder_of(ask(w.b), "work")["conflicts"] == 1
    copy = row["copy"]
    return copy, (w.one / name).read_text(), (w.one / copy).read_text()


ODD = "odd\x1b[31m\u202ename.txt"
"""A name that would colour a terminal and turn what follows it."""


@pytest.mark.parametrize("before", ["edited on both", None], ids=["edited", "created"])
def test_a_copy_becomes_the_file_or_goes(clean: World, before: str | None) -> None:
    w = clean
    copy, main_text, copy_text = make_conflict(w, ODD, before)
    with pytest.raises(UserError, match="no conflict copy"):
        ask(w.a, "resolve", copy="another", path="/another", keep=True)
    shown = run(w.a, "conflicts").out + run(w.a, "conflicts", "--keep", copy).out
    assert "odd\\x1b[31m\\u202ename (conflict, desktop" in shown
    assert not {"\x1b", "\u202e"} & set(shown)
    w.settle()
    assert texts(w.one) == texts(w.two) == {ODD: copy_text} != {ODD: main_text}
    assert ask(w.a, "conflicts")["conflicts"] == []
    copy, main_text, copy_text = make_conflict(w, "dropped.txt", before)
    (id,) = [row["id"] for row in ask(w.b, "conflicts")["conflicts"]]
    ask(w.b, "resolve", copy=id, path="/nowhere", keep=False)
    w.settle()
    assert texts(w.one) == texts(w.two) == {ODD: texts(w.one)[ODD], "dropped.txt": main_text}
    assert main_text != copy_text
    assert ask(w.b, "conflicts")["conflicts"] == []


def test_a_copy_is_decided_about_without_an_agent(clean: World) -> None:
    w = clean
    copy, _, copy_text = make_conflict(w, "kept.txt", "before")
    w.b.stop()
    try:
        assert run(w.b, "conflicts", "--keep", copy).code == 0
        assert run(w.b, "sync").code == 0
    finally:
        start_agent(w.b, w.cluster.root)
    w.settle()
    assert texts(w.one) == texts(w.two) == {"kept.txt": copy_text}
