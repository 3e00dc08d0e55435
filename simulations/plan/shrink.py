"""Make a failing history smaller by leaving out actions.

Rule 1: a smaller history must break the same invariant, or it is another failure.
Rule 2: an action keeps its seed, so those that stay do what they did as far as that is still possible.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from peer.core.tree import ItemId
from simulations.plan import triples
from simulations.plan.checkers import Violation
from simulations.plan.history import Action, Options, play
from simulations.shrinking import minimise

TRIES_MAX: Final = 2_000
"""Histories that are played to make one smaller: some seconds."""


def fails(options: Options, actions: Sequence[Action], invariant: int) -> bool:
    """Tell whether a history breaks an invariant."""
    try:
        play(options, actions)
    except Violation as found:
        return found.invariant == invariant
    return False


def shrink(options: Options, actions: Sequence[Action], invariant: int) -> tuple[Options, list[Action]]:
    """Return a history that breaks the same invariant and of which nothing can be left out.

    Args:
        options: Of the history that fails.
        actions: What happens in it.
        invariant: The number of the invariant that it breaks.
    """
    tries = TRIES_MAX

    def still(some: Sequence[Action], chosen: Options) -> bool:
        nonlocal tries
        tries -= 1
        return tries > 0 and fails(chosen, some, invariant)

    left = minimise(list(actions), lambda some: still(some, options))
    for simpler in _simpler(options):
        if still(left, simpler):
            options = simpler
    return options, minimise(left, lambda some: still(some, options))


def shrink_triple(seed: int, invariant: int) -> list[ItemId]:
    """Return the items that can be left out of a seed's triple, and the same invariant still breaks."""

    def still(some: list[ItemId]) -> bool:
        try:
            triples.play(seed, [id for id in triples.IDS if id not in some])
        except Violation as found:
            return found.invariant == invariant
        return False

    needed = minimise(list(triples.IDS), still)
    return [id for id in triples.IDS if id not in needed]


def _simpler(options: Options) -> list[Options]:
    found = [options._replace(folding=())]
    found += [
        options._replace(devices=devices, folding=tuple(n for n in options.folding if n <= devices))
        for devices in range(options.devices - 1, 1, -1)
    ]
    return found
