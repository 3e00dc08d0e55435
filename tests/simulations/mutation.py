"""Break one function of the product for a while, and see which check notices, and how soon.

Rule 1: what fails in a product that is whole, too, says nothing: it does not count as caught.
"""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum
from functools import cache
from typing import Any, Final, NamedTuple

from simulations.history.runs import live, live_twice, prepare
from simulations.plan import runner
from simulations.plan.checkers import Violation

SEEDS: Final = 60
"""So many histories of whole worlds are lived through where nothing else is said."""
DETERMINISM: Final = 28


class Tier(Enum):
    """What plays a seed."""

    RUN = "run"
    HISTORY = "plan history"
    TRIPLE = "plan triple"


class Mutant(NamedTuple):
    """One broken function."""

    what: str
    function: Callable[..., Any]
    old: str
    new: str
    invariants: tuple[int, ...]
    """One of these catches it; the first is the one that it is about."""
    seeds: int = SEEDS
    """It is caught within so many."""
    first: int = 0
    """From this one."""
    tier: Tier = Tier.RUN
    is_quick: bool = False
    """Whether it is played with all other tests."""


class Found(NamedTuple):
    """What came of playing a mutant."""

    invariant: int
    """By which it was caught: 0 where the product itself failed, -1 if it was not."""
    seeds: int
    """After how many."""
    text: str = ""
    """What was said."""


@contextmanager
def mutated(function: Callable[..., Any], old: str, new: str) -> Iterator[None]:
    """Let a function run with ``new`` where its source says ``old``, whoever has imported it under whatever name."""
    source = textwrap.dedent(inspect.getsource(function))
    assert source.count(old) >= 1, f"{function.__qualname__} does not say {old!r} any more"
    made: dict[str, Any] = {}
    body = source[min(at for at in (source.find("async def "), source.find("def ")) if at >= 0) :]
    exec(compile(body.replace(old, new), f"<mutant of {function.__qualname__}>", "exec"), function.__globals__, made)
    before = function.__code__
    function.__code__ = made[function.__name__].__code__
    try:
        yield
    finally:
        function.__code__ = before


def caught(mutant: Mutant) -> Found:
    """Play a mutant until it is caught."""
    for number in range(mutant.seeds):
        seed = mutant.first + number
        if mutant.tier is Tier.RUN:
            prepare([seed])  # by the product as it is
        with mutated(mutant.function, mutant.old, mutant.new):
            invariant, text = _play(mutant.tier, seed, twice=DETERMINISM in mutant.invariants)
        if text and holds(mutant.tier, seed):
            return Found(invariant, number + 1, text)
    return Found(-1, mutant.seeds)


@cache
def holds(tier: Tier, seed: int) -> bool:
    """Tell whether a seed holds with the product as it is."""
    return not _play(tier, seed)[1]


def _play(tier: Tier, seed: int, *, twice: bool = False) -> tuple[int, str]:
    """Return the invariant that does not hold and what was said; nothing said if all do."""
    try:
        if tier is Tier.RUN:
            result = (live_twice if twice else live)(seed)
            return result.invariant, result.failure.split("\n")[0]
        runner.play(runner.HISTORY if tier is Tier.HISTORY else runner.TRIPLE, seed)
    except Violation as found:
        return found.invariant, str(found).split("\n")[0]
    except Exception as error:  # noqa: BLE001 - a broken product may raise anything
        return 0, f"{type(error).__name__}: {error}"
    return 0, ""
