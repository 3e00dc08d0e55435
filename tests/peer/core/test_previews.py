"""What a plan would do, in lines that a person can read."""

from __future__ import annotations

from typing import Any

import pytest

from peer.core.planner import plan
from peer.core.previews import preview
from tests.peer.core.trees import tree

D = ("D", "/")
BEFORE = {"D": D, "f": ("D/f", "1"), "g": ("g", "1")}
LINES = [
    ("nothing", BEFORE, BEFORE, []),
    ("made here", {**BEFORE, "h": ("h", "333")}, BEFORE, ["up send h 3"]),
    ("made there", BEFORE, {**BEFORE, "h": ("h", "333"), "E": ("E", "/")}, ["down fetch h 3", "down make E 0"]),
    ("written here", {**BEFORE, "g": ("g", "22")}, BEFORE, ["up send g 2"]),
    ("written there", BEFORE, {**BEFORE, "g": ("g", "22")}, ["down fetch g 2"]),
    ("written on both sides", {**BEFORE, "g": ("g", "22")}, {**BEFORE, "g": ("g", "333")}, ["up conflict g 2"]),
    ("written alike on both sides", {**BEFORE, "g": ("g", "22")}, {**BEFORE, "g": ("g", "22")}, []),
    (
        "made on both sides",
        {**BEFORE, "h": ("h", "22")},
        {**BEFORE, "i": ("h", "333")},
        ["up conflict h 2"],
    ),
    ("a directory renamed here", {**BEFORE, "D": ("E", "/"), "f": ("E/f", "1")}, BEFORE, ["up rename D -> E 0"]),
    ("renamed and written there", BEFORE, {**BEFORE, "g": ("h", "22")}, ["down fetch h 2", "down rename g -> h 0"]),
    ("a directory removed here", {"g": ("g", "1")}, BEFORE, ["up remove D 0", "up remove D/f 0"]),
    ("a directory removed there", BEFORE, {"g": ("g", "1")}, ["down remove D 0", "down remove D/f 0"]),
]


@pytest.mark.parametrize(("what", "local", "remote", "lines"), LINES, ids=[row[0] for row in LINES])
def test_what_would_be_done(what, local, remote, lines):
    three: dict[str, Any] = {"local": tree(local, dots=None), "synced": tree(BEFORE), "remote": tree(remote)}
    dirty = {item.id for each in three.values() for item in each.items()}
    found = preview(plan(**three, dirty=dirty), **three, travels=lambda _: True)
    shown = [
        " ".join([one.direction, one.action, one.path, *(["->", one.to] if one.to else []), str(one.bytes)])
        for one in found
    ]
    assert sorted(shown) == lines, what


def test_bytes_that_are_there_already_do_not_travel():
    three: dict[str, Any] = {
        "local": tree({**BEFORE, "h": ("h", "333")}, dots=None),
        "synced": tree(BEFORE),
        "remote": tree(BEFORE),
    }
    (line,) = preview(plan(**three, dirty={three["local"].child(bytes(16), "h").id}), **three, travels=lambda _: False)
    assert (line.action, line.bytes) == ("send", 0)
