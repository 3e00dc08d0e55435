"""Random histories of devices that act through the real authoring: what a fold must hold in each of them.

Each history is checked as it goes (the disk shows what its user did, and so does the fold) and at its end: nothing is
lost, invented, shown twice or brought back, all devices show the same, and every order keeps the same contents.
``KIN_FOLD_WORLDS`` sets how many are played, ``KIN_FOLD_SEED`` the first of them.
"""

from __future__ import annotations

import os
import random
from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from peer.core.fold import fold
from peer.core.fold_state import FoldState
from peer.core.memory_state import MemoryState, OverlayState
from peer.core.tree import Item, ItemId
from tests.peer.core.devices import walk
from tests.peer.core.worlds import Action, World, history, play, refold, shuffled

WORLDS = int(os.environ.get("KIN_FOLD_WORLDS", "300"))
FIRST = int(os.environ.get("KIN_FOLD_SEED", "0"))
CHUNKS = 6

KINDS = ["user"] * 6 + ["lan", "lan", "push", "push", "pull", "pull", "apply", "tree", "sync"]
actions = st.builds(Action, st.sampled_from(KINDS), st.integers(0, 3), st.integers(0, 1 << 30))
SEARCH = settings(
    max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)


def log_of(count, acts):
    """Return everything that was written in a history, in some order that needs allow."""
    world = World(count)
    for act in acts:
        world.step(act)
    world.settle()
    return world.log.ordered


def rows_of(state: FoldState, entries):
    """Return all that the state holds of the nodes and values of these entries."""
    rows = []
    for each in entries:
        for index, change in enumerate(each.header.changes):
            dot = each.dot(index)
            node = state.nodes.get(change.node)
            named = None if node is None or node.listed is None else state.names.get(node.listed)
            rows.append((node, named, state.places.get(dot), state.contents.get(dot), state.removed.get(dot)))
    return rows


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_what_holds_in_every_history(chunk):
    """No history breaks an invariant, and together they reach what is hard."""
    reached: Counter[str] = Counter()
    for seed in range(FIRST + chunk, FIRST + WORLDS, CHUNKS):
        try:
            reached += play(*history(seed)).reached
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {error}") from error
    if WORLDS // CHUNKS >= 40:
        for what in (
            "copies or suffixes",
            "merged paths",
            "act on a copy or a merged path",
            "kept by a concurrent move",
        ):
            assert reached[what], f"no history reached: {what}"


@SEARCH
@given(st.integers(2, 4), st.lists(actions, max_size=40))
def test_devices_converge_without_loss(count, acts):
    """As above, on histories that are made smaller when one fails."""
    play(count, acts)


@SEARCH
@given(st.integers(2, 3), st.lists(actions, max_size=30), st.integers(0, 1 << 30))
def test_one_by_one_is_all_at_once(count, acts, seed):
    """Folding entry by entry, in pieces, or all in one call gives the same rows and the same tree."""
    order = shuffled(log_of(count, acts), random.Random(seed))
    whole, steps = MemoryState(), MemoryState()
    reported = fold(whole, order, position=1)
    seen: set[ItemId] = set()
    for position, each in enumerate(order, start=1):
        seen |= fold(steps, [each], position=position)
    assert list(walk(whole.tree)) == list(walk(steps.tree))
    assert rows_of(whole, order) == rows_of(steps, order)
    assert reported <= seen
    assert reported == {item.id for item in walk(whole.tree)}


@SEARCH
@given(st.integers(2, 3), st.lists(actions, max_size=30), st.integers(0, 1 << 30))
def test_a_tail_on_an_overlay_is_as_if_it_were_ordered(count, acts, seed):
    """Any split into log and tail shows the tree of the whole sequence; the overlay can be stacked."""
    entries = log_of(count, acts)
    state, order = refold(entries, random.Random(seed))
    whole = MemoryState()
    fold(whole, order, position=1)
    assert list(walk(state.tree)) == list(walk(whole.tree))
    base, overlay = MemoryState(), None
    for position, each in enumerate(order, start=1):
        fold(overlay or base, [each], position=position)
        if position % 7 == 3:
            overlay = OverlayState(overlay or base)
    assert list(walk((overlay or base).tree)) == list(walk(whole.tree))


@SEARCH
@given(st.integers(2, 3), st.lists(actions, max_size=30), st.integers(0, 1 << 30))
def test_reported_changes_are_exact(count, acts, seed):
    """An item is reported if and only if it is not as it was."""
    order = shuffled(log_of(count, acts), random.Random(seed))
    state = MemoryState()
    before: dict[ItemId, Item] = {}
    for position, each in enumerate(order, start=1):
        changed = fold(state, [each], position=position)
        after = {item.id: item for item in walk(state.tree)}
        assert changed == {id for id in before.keys() | after.keys() if before.get(id) != after.get(id)}
        before = after
