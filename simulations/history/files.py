"""Histories as files: written down to be played again, perhaps by somebody else, and by a later version.

Rule 1: whatever a file says that no history can be is told in a line, with where it stands, before anything is played.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, Final, get_type_hints

import msgspec

from simulations.history import repertoire
from simulations.history.options import PAUSES_S, WEATHERS, Options
from simulations.history.script import THEN, Event, Script, What
from simulations.personalities import PERSONALITIES

VERSION: Final = 1
DEVICES_MAX: Final = 16
ACTIONS_MAX: Final = 10_000
PAUSE_S_MAX: Final = 86_400.0 * 366


def _shape(of: type) -> Any:
    """Return what has the fields of a named tuple, to be read from an object."""
    defaults: dict[str, Any] = getattr(of, "_field_defaults")  # noqa: B009  # which no type but the tuple itself is known to have
    fields = [
        (name, kind, *([defaults[name]] if name in defaults else [])) for name, kind in get_type_hints(of).items()
    ]
    return msgspec.defstruct(of.__name__, fields, forbid_unknown_fields=True)


_EVENT: Final[Any] = _shape(Event)
_FILE: Final[Any] = msgspec.defstruct(
    "_FILE",
    [("version", int), ("is_drawn", bool), ("options", _shape(Options)), ("events", list[_EVENT])],
    forbid_unknown_fields=True,
)


class BadHistoryError(Exception):
    """A file is no history; the text says why."""


def write(script: Script) -> str:
    """Return a history as JSON, an event a line."""
    options = {**script.options._asdict(), "schedule": script.options.schedule.value}
    events = ",\n".join(json.dumps(event._asdict()) for event in script.events)
    return f'{{"version": {VERSION},\n"is_drawn": {json.dumps(script.is_drawn)},\n"options": {json.dumps(options)},\n"events": [\n{events}\n]}}\n'


def read(path: Path) -> Script:
    """Read a history.

    Raises:
        BadHistoryError: There is none, or it is one of another version.
    """
    try:
        found: Any = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadHistoryError(f"cannot read {path}: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:
        raise BadHistoryError(f"{path} is no JSON: {error}") from None
    version = found.get("version") if isinstance(found, dict) else None
    if version is None:
        raise BadHistoryError(f"{path} is no history: it tells no version")
    if version != VERSION:
        raise BadHistoryError(f"{path} is a history of version {version!r}; this is version {VERSION}")
    try:
        script = _script(found)
    except msgspec.ValidationError as error:
        raise BadHistoryError(f"{path} is no history: {error}") from None
    if wrong := _wrong(script):
        raise BadHistoryError(f"{path} is no history: {wrong}")
    return script


def _script(found: Any) -> Script:
    file = msgspec.convert(found, _FILE)
    events = tuple(Event(*msgspec.structs.astuple(event)) for event in file.events)
    return Script(Options(*msgspec.structs.astuple(file.options)), events, file.is_drawn)


def _wrong(script: Script) -> str:
    """Return what no history can be, in words; "" for nothing."""
    if wrong := _wrong_options(script.options):
        return wrong
    seen: set[int] = set()
    for event in script.events:
        if wrong := _wrong_event(script, event):
            return wrong
        if event.number in seen or event.number < 0:
            return f"event {event.number} stands there twice, or its number is below 0"
        seen.add(event.number)
    return ""


def _wrong_options(options: Options) -> str:
    for name, value, least, most in (
        ("seed", options.seed, 0, 1 << 63),
        ("devices", options.devices, 2, DEVICES_MAX),
        ("actions", options.actions, 0, ACTIONS_MAX),
        ("faults", options.faults, 0, ACTIONS_MAX),
    ):
        if not least <= value <= most:
            return f"{value} as its {name}: they are from {least} to {most:,}"
    for name, given, known in (
        ("weather", [options.weather], WEATHERS),
        ("pauses", [options.pauses], PAUSES_S),
        ("personalities", options.personalities, PERSONALITIES),
        ("deeds", [name for name, _ in options.deeds], repertoire.DEEDS),
        ("troubles", [name for name, _ in options.troubles], repertoire.TROUBLES),
    ):
        if unknown := [one for one in given if one not in known]:
            return f"{unknown[0]!r} in its {name}: there are {', '.join(known)}"
    for name, each in (("personalities", options.personalities), ("lans", options.lans)):
        if len(each) < options.devices:
            return f"{len(each)} {name} for {options.devices} devices"
    if any(weight < 1 for _, weight in (*options.deeds, *options.troubles)):
        return "a kind of action or of fault with a weight below 1"
    return ""


def _wrong_event(script: Script, event: Event) -> str:
    where = f"event {event.number}"
    kinds = {What.DEED: repertoire.DEEDS, What.TROUBLE: repertoire.TROUBLES}.get(event.what, {})
    drawn = {What.DEED: script.options.deeds, What.TROUBLE: script.options.troubles}.get(event.what, ("",))
    unknown = [name for name in event.name.split(THEN) if event.name and name not in kinds]
    if unknown:
        return f"{where} is {unknown[0]!r}, and no {event.what.value} is called so"
    if not (event.name or drawn):
        return f"{where} is to be drawn, and its options name no {event.what.value}"
    if not (math.isfinite(event.pause_s) and 0 <= event.pause_s <= PAUSE_S_MAX):
        return f"{where} has a pause of {event.pause_s} s: they are from 0 to {PAUSE_S_MAX:,.0f}"
    if not -1 <= event.who < script.options.devices:
        return f"{where} is of user {event.who}, and there are {script.options.devices} devices"
    return ""
