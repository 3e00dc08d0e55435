"""Which changes wait for a person: a table of sizes, and what holds for every look."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peer.core.brake import (
    FILES_MAX,
    FOLDER_FILES_MIN,
    Found,
    Waiting,
    files_that_matter,
    is_held,
    is_mass,
    waiting_removals,
    waiting_rewrites,
)
from peer.core.operations import Act, Create, Edit, Move, Remove, Touch
from peer.core.planner import plan
from peer.core.tree import Item
from protocol.ids import ROOT
from tests.peer.core.trees import file, names, node, tree

SIZES = [
    ("nothing of nothing", 0, 0, False),
    ("all of seven: too small a folder to ask", 7, 7, False),
    ("half of eight", 4, 8, False),
    ("more than half of eight", 5, 8, True),
    ("all of eight", 8, 8, True),
    ("half of a thousand", 500, 1_000, False),
    ("more than half of a thousand", 501, 1_000, True),
    ("a thousand of very many", 1_000, 100_000, False),
    ("more than a thousand of very many", 1_001, 100_000, True),
]


@pytest.mark.parametrize(("what", "files", "of", "mass"), SIZES, ids=[row[0] for row in SIZES])
def test_what_is_a_mass(what, files, of, mass):
    assert is_mass(files, of) is mass, what


def found(files, *, seen=0, directories=0):
    """So many files, of which the watcher saw some go, and directories that it did not."""
    some = [Found(node(f"f{n}"), is_file=True, was_seen=n < seen) for n in range(files)]
    return some + [Found(node(f"d{n}"), is_file=False, was_seen=False) for n in range(directories)]


LOOKS = [
    ("a mass that nobody saw waits, its directories too", found(6, directories=2), 0, 10, 8),
    ("what the watcher saw passes, however much", found(6, seen=6), 0, 10, 0),
    ("only what was not seen counts", found(6, seen=1), 0, 10, 0),
    ("what was seen passes beside a mass that was not", found(8, seen=2), 0, 10, 6),
    ("a few pass", found(5), 0, 10, 0),
    ("a few more beside what waits already wait, too", found(1), 6, 10, 1),
    ("directories alone are no files", found(0, directories=9), 0, 10, 0),
]


@pytest.mark.parametrize(("what", "look", "held", "of", "waits"), LOOKS, ids=[row[0] for row in LOOKS])
def test_which_removals_wait(what, look, held, of, waits):
    assert len(waiting_removals(look, held=held, of=of)) == waits, what


def test_rewrites_wait_by_the_same_measure_but_a_few_go_on_beside_them():
    assert len(waiting_rewrites(found(6), of=10)) == 6
    assert not waiting_rewrites(found(6, seen=1), of=10)
    assert not waiting_rewrites(found(1), of=10)


looks = st.lists(
    st.builds(Found, st.binary(min_size=16, max_size=16), st.booleans(), st.booleans()),
    max_size=30,
    unique_by=lambda f: f.id,
)


@given(looks, st.integers(0, 30), st.integers(0, 40))
def test_what_waits_was_not_seen_and_was_much(look, held, of):
    unseen = [one for one in look if not one.was_seen]
    files = sum(one.is_file for one in unseen)
    waits = set(waiting_removals(look, held=held, of=of))
    assert waits in (set(), {one.id for one in unseen})  # all of it or nothing: no look is cut in two
    assert bool(waits) == (files > 0 and (held > 0 or is_mass(files, of)))
    assert set(waiting_rewrites(look, of=of)) in (set(), {one.id for one in unseen if one.is_file})


@given(st.integers(0, 3 * FILES_MAX), st.integers(0, 10 * FILES_MAX))
def test_no_more_files_need_be_counted_than_matter(files, of):
    assert is_mass(files, of) == is_mass(files, min(of, files_that_matter(files)))
    assert not is_mass(0, of)
    assert not is_mass(files, of) or is_mass(files + 1, of)
    assert is_mass(of, of) == (of >= FOLDER_FILES_MIN)


# --- In a plan

BEFORE = {"D": ("D", "/"), "f": ("D/f", "1"), "g": ("g", "1"), "h": ("h", "1")}
PLANS = [
    ("nothing waits", {}, {}, ["Remove D f", "Remove g"]),
    ("a removal waits, with the directory above it", {}, {"D": 1, "f": 1}, ["Remove g"]),
    ("what waits is left out of its directory's removal", {}, {"f": 1}, ["Remove D", "Remove g"]),
    ("a rewrite waits", {**BEFORE, "g": ("g", "22")}, {"g": 2}, []),
    ("a rewritten file moves all the same", {**BEFORE, "g": ("i", "22")}, {"g": 2}, ["Move g -> i"]),
    ("nothing is sent of what goes aside", {**BEFORE, "g": ("g", "22")}, {"g": 3}, []),
    ("nor is its absence", {**{k: v for k, v in BEFORE.items() if k != "g"}}, {"g": 3}, []),
    ("waiting for one thing holds up no other", {**BEFORE, "g": ("g", "22")}, {"g": 1}, ["Edit g"]),
]


@pytest.mark.parametrize(("what", "local", "held", "acts"), PLANS, ids=[row[0] for row in PLANS])
def test_what_waits_is_no_act(what, local, held, acts):
    here = {**local, "h": BEFORE["h"]}
    three: dict[str, Any] = {"local": tree(here, dots=None), "synced": tree(BEFORE), "remote": tree(BEFORE)}
    waiting = {node(id): Waiting(what) for id, what in held.items()}
    made = plan(**three, dirty=[node(id) for id in BEFORE], held=waiting.get)
    assert names(made.acts) == acts, what
    assert not made.steps
    for act in made.acts:
        if isinstance(act, Remove):
            assert not {item.id for item in act.subtree} & {
                id for id, what in waiting.items() if what is not Waiting.REWRITE
            }


def test_an_act_that_was_planned_before_it_waited_is_held_too():
    base, other = Item(node("f"), ROOT, "f", file("1")), Item(node("g"), ROOT, "g", file("1"))
    acts: list[Act] = [
        Remove(other, (other, base)),
        Edit(base, file("2")),
        Create(base),
        Move(base, ROOT, "x"),
        Touch(base, file("1")),
    ]
    held = {what: [is_held(act, {node("f"): what}.get) for act in acts] for what in Waiting}
    assert held == {
        Waiting.REMOVAL: [True, False, False, False, False],
        Waiting.REWRITE: [False, True, False, False, False],
        Waiting.RETURN: [True, True, True, False, False],
    }
