"""Folding one entry costs the same after 100 entries and after 100,000: counted in rows looked up and written."""

from __future__ import annotations

import dataclasses
from collections import Counter

import pytest

from peer.core.fold import fold
from peer.core.fold_state import FoldState
from peer.core.memory_state import MemoryState
from protocol.ids import ROOT, Dot, NodeId
from tests.peer.core.entries import content, create, directory, entry, place, removal

FEW, MANY, FILES = 100, 100_000, 10_000
DIRECTORY, HOT = NodeId(b"directory".ljust(16)), NodeId(b"hot".ljust(16))


class Counted:
    """A table or the tree of a state, with every row that goes in or out counted."""

    def __init__(self, inner, counts):
        self._inner, self._counts = inner, counts

    def __getattr__(self, name):
        call = getattr(self._inner, name)

        def counted(*arguments):
            found = call(*arguments)
            if name in ("under", "children"):
                found = list(found)
                self._counts["read"] += 1 + len(found)
            else:
                self._counts["written" if name in ("put", "drop") else "read"] += 1
            return found

        return counted


def cost_of(state: FoldState, made, position) -> Counter[str]:
    """Fold one entry and return how many rows that took."""
    counts: Counter[str] = Counter()
    tables = {field.name: Counted(getattr(state, field.name), counts) for field in dataclasses.fields(FoldState)}
    changed = fold(FoldState(**tables), [made], position=position)
    assert changed
    return counts


def node(number: int) -> NodeId:
    return NodeId(number.to_bytes(16, "big"))


def folder_of(files: int) -> FoldState:
    """Return a folder with a directory of 10,000 files, a hot file, and this many other files."""
    state = MemoryState()
    made = [
        entry(1, 1, place(DIRECTORY, ROOT, "d"), directory(DIRECTORY)),
        entry(1, 2, place(HOT, ROOT, "hot"), content(HOT, "0")),
    ]
    made += [create(2, 1 + i, node(1 + i), f"f{i}", "x", DIRECTORY) for i in range(min(files, FILES))]
    made += [create(3, 1 + i, node(FILES + 1 + i), f"g{i}", "y") for i in range(files - min(files, FILES))]
    for start in range(0, len(made), 1000):
        fold(state, made[start : start + 1000], position=1 + start)
    return state


def edit_hot(state: FoldState, first: int, edits: int, base: Dot) -> Dot:
    """Edit the hot file again and again; return the last value."""
    for start in range(0, edits, 1000):
        made = []
        for i in range(start, min(start + 1000, edits)):
            made.append(entry(4, first + i, content(HOT, str(i + 1), base)))
            base = Dot(4, first + i, 0)
        fold(state, made, position=1_000_000 + first + start)
    return base


@pytest.fixture(scope="module")
def folders():
    """A folder after few entries and one after many, with the last value of each one's hot file."""
    made = []
    for entries in (FEW, MANY):
        files, edits = entries * 6 // 10, entries * 4 // 10
        state = folder_of(files)
        first = edit_hot(state, 1, 1, Dot(1, 2, 1))
        copy = entry(5, 1, content(HOT, "copy", Dot(1, 2, 1)))
        fold(state, [copy], position=1_500_000)
        last = edit_hot(state, 2, edits, first)
        made.append((state, last))
    return made


def steps(state: FoldState, last: Dot):
    """Yield what is done, and its cost: each act touches one thing, whatever else there is."""
    new = node(1 << 40)
    position = 9_000_000
    for name, made in [
        ("create a file", create(6, 1, new, "new", "n")),
        ("create a file in the large directory", create(6, 2, node(1 << 41), "new", "n", DIRECTORY)),
        ("edit a file", entry(6, 3, content(new, "m", Dot(6, 1, 1)))),
        ("rename the large directory", entry(6, 4, place(DIRECTORY, ROOT, "e", Dot(1, 1, 0)))),
        (
            "move the large directory",
            entry(6, 5, place(new, ROOT, "x", Dot(6, 1, 0)), place(DIRECTORY, ROOT, "f", Dot(6, 4, 0))),
        ),
        ("rename a file of it", entry(6, 6, place(node(7), DIRECTORY, "other", Dot(2, 7, 0)))),
        ("remove a file of it", entry(6, 7, removal(node(8), DIRECTORY, "f7", [Dot(2, 8, 1)], Dot(2, 8, 0)))),
        ("edit the hot file, beside a copy from long ago", entry(6, 8, content(HOT, "end", last))),
        ("remove the hot file", entry(6, 9, removal(HOT, ROOT, "hot", [Dot(6, 8, 0)], Dot(1, 2, 0)))),
    ]:
        position += 1
        yield name, cost_of(state, made, position)


def test_cost_does_not_grow(folders):
    """Finding where two long lines part may take a few steps more, by the logarithm; nothing else may."""
    few, many = (dict(steps(state, last)) for state, last in folders)
    for name, cost in many.items():
        extra = 120 if "hot" in name else 0
        assert cost["written"] <= few[name]["written"], f"{name}: {few[name]} then {cost}"
        assert cost["read"] <= few[name]["read"] + extra, f"{name}: {few[name]} then {cost}"
        assert cost["written"] <= 20, f"{name}: {cost}"
