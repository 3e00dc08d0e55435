"""Looking back and bringing back: ``history``, ``restore``, ``snapshot``."""

from __future__ import annotations

import re
import shlex
from datetime import UTC, datetime
from typing import Final

from peer.api.backend import Json
from peer.commands.folders import absolute, folder_reference
from peer.commands.session import Session
from peer.commands.tables import moment, write_table
from peer.progress import count, size
from protocol.errors import EXIT_DONE, EXIT_FAILED, EXIT_USAGE, UserError

_AGO: Final = re.compile(r"([0-9]{1,9})([smhdw])")
_UNITS_MS: Final = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}
_DATE: Final = re.compile(r"\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:\.\d{1,9})?)?(?:[Zz]|[+-]\d\d:\d\d)?)?", re.ASCII)
_WORDS: Final = {"created": "created", "attributes": "time or mode"}


def history(session: Session, *, path: str) -> None:
    """Show the versions of a path, the newest first."""
    result = session.call("history", path=absolute(path))
    terminal = session.terminal
    if terminal.as_json:
        terminal.print_json(result)
        return
    shown = f"{result['folder']}/{result['path']}".rstrip("/")
    if not result["versions"]:
        terminal.say(f"{shown} has no versions yet")
        return
    terminal.say(shown)
    write_table(terminal, [_line(version, result["path"]) for version in result["versions"]], indent="  ")


def _line(version: Json, path: str) -> tuple[str, ...]:
    more = f" and {count(version['items'] - 1, 'more', 'more')}" if version.get("items", 1) > 1 else ""
    where = "" if version["path"] == path and not more else f"{version['path']}{more}"
    notes = [where, "" if version["ordered"] else "not sent yet", "<- now" if version["current"] else ""]
    return (
        str(version["id"]),
        moment(version["time"]),
        str(_WORDS.get(version["change"], version["change"])),
        "" if version["size"] is None else size(version["size"]),
        f"{version['user']} on {version['device']}",
        "  ".join(note for note in notes if note),
    )


def restore(
    session: Session, *, path: str, version: str | None, at: str | None, snapshot: str | None, to: str | None
) -> int:
    """Bring a version back, and say what it replaced."""
    if sum(each is not None for each in (version, at, snapshot)) != 1:
        raise UserError("give one of --version ID, --at TIME and --snapshot NAME", exit_code=EXIT_USAGE, code="usage")
    at_ms, ago_ms = (None, None) if at is None else parse_moment(at)
    result = session.call(
        "restore",
        path=absolute(path),
        version=version,
        at_ms=at_ms,
        ago_ms=ago_ms,
        snapshot=snapshot,
        to=None if to is None else absolute(to),
    )
    terminal = session.terminal
    terminal.say(f"{_what(result)}{'' if to is None else f' in {absolute(to)}'}")
    if to is None and not result["was_there"]:
        terminal.say("Nothing stood there before.")
    elif to is None and _changed(result):
        again = f"kin restore {shlex.quote(path)} --version {result['replaced']}"
        terminal.say(f"What was there before is version {result['replaced']}: {again}")
    for name in result["kept"]:
        terminal.note(f"could not be recorded and stands beside: {name}")
    if not result["left_total"]:
        return EXIT_DONE
    terminal.warn(f"{count(result['left_total'], 'item')} could not be brought back: {'; '.join(result['left'])}")
    return EXIT_FAILED


def _changed(result: Json) -> int:
    return int(sum(result[each] for each in ("files", "directories", "attributes", "moved", "removed")))


def _what(result: Json) -> str:
    shown = f"{result['folder']}/{result['path']}".rstrip("/")
    if not _changed(result):
        return f"{shown} is as it was then already"
    parts = [
        count(result["files"], "file") + " restored" if result["files"] else "",
        count(result["directories"], "directory", "directories") + " made" if result["directories"] else "",
        f"{result['attributes']} with their time or mode of then" if result["attributes"] else "",
        f"{result['moved']} moved back" if result["moved"] else "",
        f"{result['removed']} removed that were not there then" if result["removed"] else "",
    ]
    return f"{shown}: {', '.join(part for part in parts if part)}"


def parse_moment(text: str) -> tuple[int | None, int | None]:
    """Return a moment in ms since 1970, or how many ms ago it was.

    Raises:
        UserError: It is neither RFC 3339, nor a local date with or without a time, nor a span like 2h.
    """
    ago = _AGO.fullmatch(text.strip())
    if ago is not None:
        return None, int(ago[1]) * _UNITS_MS[ago[2]]
    try:
        if _DATE.fullmatch(text) is None:
            raise ValueError
        found = datetime.fromisoformat(text.upper())
        return round(found.astimezone(UTC).timestamp() * 1000), None
    except (ValueError, OverflowError, OSError):
        known = "2026-05-01T12:00:00Z, '2026-05-01 12:00', 2026-05-01, 2h or 3d"
        raise UserError(f"--at {text}: no time; write it as {known}", exit_code=EXIT_USAGE, code="usage") from None


def snapshot(session: Session, *, action: str, folder: str, name: str | None) -> None:
    """Name a state of a folder, or show the names."""
    if action == "create":
        _create(session, folder, name)
    elif action == "list" and name is None:
        _list(session, folder)
    else:
        text = "write: kin snapshot create FOLDER [NAME], or: kin snapshot list FOLDER"
        raise UserError(text, exit_code=EXIT_USAGE, code="usage")


def _create(session: Session, folder: str, name: str | None) -> None:
    result = session.call("snapshot", folder=folder_reference(folder), name=name)
    if session.terminal.as_json:
        session.terminal.print_json({"version": 1, **result})
        return
    made = result["snapshot"]
    waits = "" if made["ordered"] else "; it is sent once the coordinator is there"
    session.terminal.say(f"{result['folder']}: snapshot {made['name']} is version {made['id']}{waits}")
    if result["left_out"]:
        text = f"{count(result['left_out'], 'item')} could not be recorded yet and left out of it; kin status says why"
        session.terminal.warn(text)


def _list(session: Session, folder: str) -> None:
    result = session.call("snapshots", folder=folder_reference(folder))
    terminal = session.terminal
    if terminal.as_json:
        terminal.print_json(result)
        return
    if not result["snapshots"]:
        terminal.say(f"{result['folder']} has no snapshots; kin snapshot create {result['folder']} NAME makes one")
        return
    write_table(terminal, [(one["name"], one["id"], moment(one["time"])) for one in result["snapshots"]])
