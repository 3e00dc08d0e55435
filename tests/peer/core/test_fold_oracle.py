"""The real fold against the executable model, entry by entry: same items, same nodes and values behind them, same names.

The model lies beside the checkout (see :mod:`tests.peer.core.oracle`). ``KIN_FOLD_HISTORIES`` sets how many of its
random histories are compared, ``KIN_FOLD_SEED`` the first of them.
"""

from __future__ import annotations

import os
import random
from typing import Any

import pytest

from tests.peer.core import oracle

HISTORIES = int(os.environ.get("KIN_FOLD_HISTORIES", "300"))
FIRST = int(os.environ.get("KIN_FOLD_SEED", "0"))
CHUNKS = 6
CASE_ORDERS = 4

pytestmark = pytest.mark.skipif(not oracle.MODEL.is_dir(), reason="the fold's model is not beside this checkout")


@pytest.fixture(scope="module")
def model():
    return oracle.load_model()


def reordered(entries, chance):
    left = sorted(entries, key=lambda entry: entry.id)
    order: list[Any] = []
    known: set[Any] = set()
    while left:
        entry = chance.choice([each for each in left if each.needs <= known])
        left.remove(entry)
        known.add(entry.id)
        order.append(entry)
    return order


def compare(model, log, seed):
    """Fold the log as it is, and twice in another order with a tail, cut into pieces: all must be as the model says."""
    try:
        translation = oracle.Translation(log)
    except oracle.UntranslatableError:
        return
    chance = random.Random(seed)
    for attempt in range(3):
        order = reordered(log, chance) if attempt else list(log)
        end = chance.randint(0, len(order)) if attempt else len(order)
        cuts = [chance.randint(0, end) for _ in range(chance.choice([0, 2, end]))]
        state = oracle.real_fold(translation, order[:end], order[end:], cuts=cuts)
        with oracle.ties_broken_by(model, translation):
            wanted = oracle.model_tree(translation, model["fold"].Fold(order[:end], order[end:]))
        assert oracle.real_tree(state) == wanted, f"seed {seed}, attempt {attempt}, {end} of {len(order)}, cuts {cuts}"


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_random_histories(model, chunk):
    """Whatever a few devices did, in whatever order it arrives, the fold is what the model says."""
    for seed in range(FIRST + chunk, FIRST + HISTORIES, CHUNKS):
        count, actions = model["check"].history(seed)
        _, world = model["check"].play(count, actions)
        compare(model, world.log, seed)


def test_fixed_cases(model):
    """The model's own cases, each in several orders."""
    cases = model["cases"]
    logs: list[Any] = []

    make_world = cases.World

    def recorded(count):
        world = make_world(count)
        logs.append(world.log)
        return world

    cases.World = recorded
    for name, case in cases.CASES.items():
        for seed in range(CASE_ORDERS):
            assert not cases.run(case, seed), name
    assert len(logs) == CASE_ORDERS * len(cases.CASES)
    for seed, log in enumerate(logs):
        compare(model, log, seed)
