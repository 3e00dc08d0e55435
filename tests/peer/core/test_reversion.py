"""Laying an older state over what a disk holds: the steps bring just that, and touch nothing else."""

from __future__ import annotations

import itertools
import random

import pytest
from msgspec.structs import replace

from peer.core.operations import Delete, Place, Rename, Replace, SetAttributes
from peer.core.planner import plan
from peer.core.reversion import Frame, LaidOut, OldTree, lay_out
from peer.core.tree import MemoryTree, find, path_of
from protocol.ids import ROOT, NodeId
from tests.peer.core.trees import node, show, tree


def ids():
    numbers = itertools.count(1)
    return lambda: NodeId(b"new" + next(numbers).to_bytes(13, "big"))


def laid_out(
    local: MemoryTree, old: MemoryTree, path: str, target: str | None = None
) -> tuple[LaidOut, Frame, list[NodeId]]:
    """Lay out what stood at a path; at its own place unless another one is named."""
    target = path if target is None else target
    top = find(old, path) if path else None
    here = find(local, target) if target else None
    frame = Frame(local, ROOT if not target else None if here is None else here.id)
    above, _, name = target.rpartition("/")
    parent = find(local, above) if above else None
    pairs = lay_out(OldTree(old, top), frame, parent.id if parent else ROOT, name, ids())
    laid = MemoryTree({item.id: item for item, _ in pairs})
    return LaidOut(laid, frame), frame, sorted({*(item.id for item in laid.items()), *frame.ids()})


def bring_back(local: MemoryTree, old: MemoryTree, path: str, target: str | None = None) -> list[str]:
    """Do it on the local tree, step by step; return the names of the steps."""
    done: list[str] = []
    for _ in range(20):
        shall, _, dirty = laid_out(local, old, path, target)
        steps = plan(local=local, synced=local, remote=shall, dirty=dirty).steps
        if not steps:
            return done
        for step in steps:
            done.append(type(step).__name__)
            match step:
                case Delete(expected):
                    assert not list(local.children(expected.id))
                    local.drop(expected.id)
                case Rename(expected, item, aside, _):
                    if aside:
                        local.put(replace(expected, parent=node("aside"), name=expected.id.hex()))
                    else:
                        assert local.child(item.parent, item.name) is None
                        local.put(replace(item, members=()))
                case Place(item) | Replace(item=item) | SetAttributes(item=item):
                    there = local.child(item.parent, item.name)
                    assert there is None or there.id == item.id
                    local.put(replace(item, members=()))
                case _:
                    raise AssertionError(step)
    raise AssertionError("it does not come to rest")


def local_of(spec: dict[str, tuple[str, str]]) -> MemoryTree:
    return MemoryTree({item.id: replace(item, members=()) for item in tree(spec).items()})


def paths(one: MemoryTree) -> dict[str, object]:
    return {path_of(one, item.id) or "": item.content for item in one.items()}


CASES = {
    "an edit": ({"f": ("f", "new")}, {"f": ("f", "old")}, "f", ["Replace"]),
    "nothing to do": ({"f": ("f", "same")}, {"f": ("f", "same")}, "f", []),
    "a removed file": ({}, {"f": ("f", "old")}, "f", ["Place"]),
    "another file at its name keeps its identity": ({"g": ("f", "new")}, {"f": ("f", "old")}, "f", ["Replace"]),
    "a rename within": ({"d": ("d", "/"), "f": ("d/b", "x")}, {"d": ("d", "/"), "f": ("d/a", "x")}, "d", ["Rename"]),
    "moved out since: it stays there and comes anew": (
        {"d": ("d", "/"), "f": ("b", "x")},
        {"d": ("d", "/"), "f": ("d/a", "x")},
        "d",
        ["Place"],
    ),
    "made since": ({"d": ("d", "/"), "f": ("d/f", "x")}, {"d": ("d", "/")}, "d", ["Delete"]),
    "a directory where a file was": ({"d": ("p", "/"), "f": ("p/f", "x")}, {"p": ("p", "old")}, "p", None),
    "a file where a directory was": ({"p": ("p", "x")}, {"d": ("p", "/"), "f": ("p/f", "x")}, "p", None),
    "names that were swapped": ({"f": ("a", "1"), "g": ("b", "2")}, {"f": ("b", "1"), "g": ("a", "2")}, "", None),
}


@pytest.mark.parametrize("case", CASES)
def test_what_is_done(case):
    now, then, path, steps = CASES[case]
    local, old = local_of(now), tree(then)
    done = bring_back(local, old, path)
    assert steps is None or done == steps
    wanted = {p: c for p, c in paths(old).items() if not path or p == path or p.startswith(path + "/")}
    got = {p: c for p, c in paths(local).items() if not path or p == path or p.startswith(path + "/")}
    assert got == wanted


def test_what_keeps_its_place_keeps_its_id():
    local = local_of({"d": ("d", "/"), "f": ("d/f", "new"), "o": ("o", "other")})
    bring_back(local, tree({"d": ("d", "/"), "f": ("d/f", "old")}), "d")
    assert {item.id for item in local.items()} == {node("d"), node("f"), node("o")}


def test_random_trees_come_back_and_nothing_else_is_touched():
    for seed in range(300):
        chance = random.Random(seed)
        old = random_tree(chance)
        local = MemoryTree({item.id: replace(item, members=()) for item in random_tree(chance).items()})
        directories = [path for path in paths(old) if is_directory(old, path)]
        path = chance.choice(["", *directories, *paths(old)])
        above = path.rpartition("/")[0]
        if above and not is_directory(local, above):
            path = ""
        within = lambda p, path=path: not path or p == path or p.startswith(path + "/")  # noqa: E731 - one line says it
        outside = {p: c for p, c in paths(local).items() if not within(p)}
        bring_back(local, old, path)
        after = paths(local)
        assert {p: c for p, c in after.items() if within(p)} == {p: c for p, c in paths(old).items() if within(p)}, seed
        assert {p: c for p, c in after.items() if not within(p)} == outside, seed


def is_directory(one: MemoryTree, path: str) -> bool:
    item = find(one, path)
    return item is not None and item.is_directory


def random_tree(chance: random.Random) -> MemoryTree:
    """Return a tree over a few ids and names, so that two of them have much in common."""
    spec: dict[str, tuple[str, str]] = {}
    folders = [""]
    taken = set()
    for id in chance.sample([f"i{number}" for number in range(10)], chance.randrange(1, 9)):
        above = chance.choice(folders)
        path = f"{above}/{chance.choice('abcd')}".lstrip("/")
        if path in taken or path.count("/") > 3:
            continue
        taken.add(path)
        if chance.random() < 0.5:
            folders.append(path)
            spec[id] = (path, "/")
        else:
            spec[id] = (path, chance.choice(["x", "y", "z"]))
    made = tree(spec)
    assert len(show(made)) == len(spec)
    return made
