"""What happens in a history, as a list that can be written down, shortened and played again.

Rule 1: each event has its own source of chance, named by its number: what is left out changes nobody else's draws.
Rule 2: a history is drawn with kinds of events, and written down with what came of them: who did what.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from random import Random
from typing import Any, Final, NamedTuple

from simulations.history.options import PAUSES_S, Options
from simulations.loop import Schedule

VERSION: Final = 1
THEN: Final = "+"
SPARE_S: Final = 0.5
"""By so much the pause after a spare deed is longer than after the one before."""


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
            last = len(self.events)
            for more in range(self.options.actions):
                event = _drawn(self.options, What.DEED, last + more)
                yield event._replace(pause_s=event.pause_s + more * SPARE_S)

    def source(self, purpose: str, number: int) -> Random:
        """Return the chance of an event."""
        return Random(f"{self.options.seed}/{purpose}/{number}")


class BadScriptError(Exception):
    """A file is no history; the text says why."""


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


def write(script: Script) -> str:
    """Return a history as JSON, an event a line."""
    options = {**script.options._asdict(), "schedule": script.options.schedule.value}
    events = ",\n".join(json.dumps(event._asdict()) for event in script.events)
    return f'{{"version": {VERSION},\n"is_drawn": {json.dumps(script.is_drawn)},\n"options": {json.dumps(options)},\n"events": [\n{events}\n]}}\n'


def read(path: Path) -> Script:
    """Read a history.

    Raises:
        BadScriptError: There is none, or it is one of another version.
    """
    try:
        found: Any = json.loads(path.read_text(encoding="utf-8"))
        if found["version"] != VERSION:
            raise BadScriptError(f"{path} is a history of version {found['version']}; this is version {VERSION}")
        options = found["options"]
        for name in ("deeds", "troubles"):
            options[name] = tuple((kind, int(weight)) for kind, weight in options[name])
        options |= {name: tuple(options[name]) for name in ("personalities", "lans")}
        options |= {"schedule": Schedule(options["schedule"])}
        events = [Event(**{**event, "what": What(event["what"])}) for event in found["events"]]
        return Script(Options(**options), tuple(events), bool(found["is_drawn"]))
    except OSError as error:
        raise BadScriptError(f"cannot read {path}: {error.strerror or error}") from None
    except (ValueError, KeyError, TypeError) as error:
        raise BadScriptError(f"{path} is no history: {error}") from None
