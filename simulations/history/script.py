"""What happens in a history, as a list that can be written down, shortened and played again.

Rule 1: each event has its own source of chance, named by its number: what is left out changes nobody else's draws.
Rule 2: a history is drawn with kinds of events, and written down with what came of them: who did what.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from random import Random
from typing import Final, NamedTuple

from simulations.history.options import PAUSES_S, Options

THEN: Final = "+"
SPARE_S: Final = 0.5
"""By so much the pause after a spare deed is longer than after the one before."""
SPARE_TROUBLES: Final = 12
SPARE_DRAWN: Final = 4
"""So many of these are drawn as others are."""
SURE: Final = ("cut_power", "kill")
"""Troubles that take effect if only a machine runs."""


class What(StrEnum):
    """Kinds of events."""

    DEED = "deed"
    TROUBLE = "trouble"
    REST = "rest"
    """All come to rest, and a snapshot is made."""
    WAIT = "wait"
    """Whoever is at something comes to an end."""


class Event(NamedTuple):
    """One event."""

    number: int
    what: What
    pause_s: float
    """After it."""
    name: str = ""
    """In the repertoire; empty: it is drawn. Several, with :data:`THEN` between them, are tried one after the other."""
    who: int = -1
    """Whose deed it is; -1: it is drawn, or nobody's."""


class Script(NamedTuple):
    """One history."""

    options: Options
    events: tuple[Event, ...]
    is_drawn: bool = False
    """Whether it is made up for what nobody could do."""

    def spare(self) -> Iterator[Event]:
        """Yield deeds instead of those that nobody could do, after longer and longer pauses: machines may be off for a while."""
        if self.is_drawn:
            first = len(self.events) + SPARE_TROUBLES
            for more in range(self.options.actions):
                event = _drawn(self.options, What.DEED, first + more)
                yield event._replace(pause_s=event.pause_s + more * SPARE_S)

    def spare_troubles(self) -> Iterator[Event]:
        """Yield troubles instead of those that took no effect; the last ones are such as always do."""
        if self.is_drawn:
            first = len(self.events)
            for more in range(SPARE_TROUBLES):
                event = _drawn(self.options, What.TROUBLE, first + more)
                yield event if more < SPARE_DRAWN else event._replace(name=THEN.join(SURE), pause_s=SPARE_S)

    def source(self, purpose: str, number: int) -> Random:
        """Return the chance of an event."""
        return Random(f"{self.options.seed}/{purpose}/{number}")


def drawn(options: Options, deeds: int) -> Script:
    """Return what a history of these options is to be.

    Args:
        options: Of the history.
        deeds: How many come to its actions, among which its troubles are spread.
    """
    chance = Random(f"{options.seed}/course")
    whats = [What.DEED] * deeds + [What.TROUBLE] * options.faults
    chance.shuffle(whats)
    if options.rests:
        whats.insert(chance.randrange(len(whats)), What.REST)
    return Script(options, tuple(_drawn(options, what, number) for number, what in enumerate(whats)), is_drawn=True)


def _drawn(options: Options, what: What, number: int) -> Event:
    chance = Random(f"{options.seed}/pause/{number}")
    return Event(number, what, chance.random() * chance.choice(PAUSES_S[options.pauses]))
