"""Make a failing history smaller: leave out actions, faults and oddities for as long as the same thing fails.

Rule 1: a smaller history must break the same invariant, or it is another failure.
Rule 2: it takes a bounded time, and what it comes to can be played from a file.
"""

from __future__ import annotations

import time
from typing import Final, NamedTuple

from simulations.history.runs import Result, outcome
from simulations.history.script import Event, Script
from simulations.loop import Schedule
from simulations.shrinking import minimise

DEVICES_MIN: Final = 2
PLAIN: Final = "plain"
FINE: Final = "fine"


class Smaller(NamedTuple):
    """A history of which less is left, and what comes of it."""

    history: Script
    result: Result
    tries: int


def shrink(history: Script, result: Result, *, seconds: float) -> Smaller:
    """Return a history that fails in the same way and of which nothing can be left out, or not in that time.

    Args:
        history: That fails.
        result: What came of it.
        seconds: How long it may take; one more history may be lived through after that.
    """
    search = _Search(history._replace(events=result.played, is_drawn=False), result, time.monotonic() + seconds)
    if not search.accepts(search.best):  # what was drawn and could not be done mattered, too
        search.best = history
    search.leave_out()
    for simplify in _SIMPLER:
        simpler = simplify(search.best)
        if simpler != search.best:
            search.accepts(simpler)
    search.leave_out()
    return Smaller(search.best, search.result, search.tries)


class _Search:
    def __init__(self, history: Script, result: Result, until_s: float) -> None:
        self.best = history
        self.result = result
        self.tries = 0
        self._kind = result.kind
        self._until_s = until_s

    def accepts(self, history: Script) -> bool:
        """Tell whether a history fails in the same way, and if so, keep it as the best."""
        if time.monotonic() >= self._until_s:
            return False
        self.tries += 1
        result = outcome(history)
        if not result.failure or result.kind != self._kind:
            return False
        self.best, self.result = history, result
        return True

    def leave_out(self) -> None:
        """Leave events out."""

        def is_enough(events: list[Event]) -> bool:
            return self.accepts(self.best._replace(events=tuple(events)))

        minimise(list(self.best.events), is_enough)


def _fewer_devices(history: Script) -> Script:
    """Leave out devices whose users do nothing."""
    options = history.options
    needed = max([DEVICES_MIN, *(event.who + 1 for event in history.events)])
    devices = min(options.devices, needed)
    personalities, lans = options.personalities[:devices], options.lans[:devices]
    return history._replace(options=options._replace(devices=devices, personalities=personalities, lans=lans))


def _plain_disks(history: Script) -> Script:
    options = history.options
    return history._replace(options=options._replace(personalities=(PLAIN,) * options.devices))


def _fine_watchers(history: Script) -> Script:
    return history._replace(options=history.options._replace(weather=FINE))


def _no_restart(history: Script) -> Script:
    return history._replace(options=history.options._replace(restarts=False))


def _in_order(history: Script) -> Script:
    return history._replace(options=history.options._replace(schedule=Schedule.FIFO))


_SIMPLER: Final = (_fewer_devices, _plain_disks, _fine_watchers, _in_order, _no_restart)
