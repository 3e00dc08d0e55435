"""The folders of a device: ``add``, ``get``, ``remove``, ``folders``, ``exclude``, ``conflicts``."""

from __future__ import annotations

import os
from typing import Final

from peer.api.backend import Json
from peer.commands.session import Session
from peer.commands.tables import moment, write_table
from peer.commands.terminal import Terminal
from peer.progress import count, size
from protocol.errors import EXIT_USAGE, UserError

LEFT_SHOWN_MAX: Final = 10
STATES = {
    "in_sync": "in sync",
    "working": "syncing",
    "waiting": "waiting",
    "held": "held: needs you",
    "frozen": "frozen: needs you",
    "stopped": "stopped",
    "missing": "its directory is missing",
}


def absolute(path: str) -> str:
    """Return a path as the agent, which stands elsewhere, understands it; symbolic links stay.

    Raises:
        UserError: It is empty: the working directory is meant only where somebody writes it.
    """
    if not path:
        raise UserError("PATH is empty: name a directory", exit_code=EXIT_USAGE)
    return os.path.abspath(os.path.expanduser(path))


def folder_reference(folder: str) -> str:
    """Return what names a folder: a name or an id as it is, a path made absolute.

    A word with a separator, or one that begins as only a path does, is a path.

    Raises:
        UserError: It is empty.
    """
    if not folder:
        raise UserError("FOLDER is empty: give a folder's name, its id, or a path in it", exit_code=EXIT_USAGE)
    is_path = "/" in folder or folder in {".", "..", "~"}
    return absolute(folder) if is_path else folder


def add(session: Session, *, path: str, name: str | None) -> None:
    """Make a directory a folder of the account."""
    if name == "":
        raise UserError("--name is empty: leave it out, or give the folder a name", exit_code=EXIT_USAGE)
    result = session.call("add", path=absolute(path), name=name)
    session.terminal.say(f"{result['path']} is the folder {result['name']}")
    if note := result.get("note"):
        session.terminal.note(str(note))


def get(session: Session, *, folder: str, path: str) -> None:
    """Bring a folder of the account to this device."""
    result = session.call("get", folder=folder_reference(folder), path=absolute(path))
    session.terminal.say(f"{result.get('path', absolute(path))} is the folder {result.get('name', folder)}")
    if note := result.get("note"):
        session.terminal.note(str(note))


def remove(session: Session, *, folder: str, everywhere: bool) -> None:
    """Have this device, or everybody, forget a folder."""
    result = session.call("remove", folder=folder_reference(folder), everywhere=everywhere)
    where = "Everybody is told to forget" if everywhere else "This device has forgotten"
    session.terminal.say(f"{where} the folder {result.get('name', folder)}; its files stay where they are")
    if note := result.get("note"):
        session.terminal.note(str(note))


def folders(session: Session) -> None:
    """Show the folders of the account and those shared with it."""
    result = session.call("folders")
    terminal = session.terminal
    if terminal.as_json:
        terminal.print_json(result)
        return
    if not result["folders"]:
        terminal.say("No folders yet; kin add PATH makes one")
        return
    rows = []
    for folder in result["folders"]:
        here = folder["path"] is not None
        rows.append(
            (
                folder["name"],
                folder["path"] if here else "not on this device",
                STATES.get(folder["state"], folder["state"]) if here else f"kin get {folder['name']} PATH",
                folder["role"],
                count(folder["members"], "member"),
            )
        )
    write_table(terminal, rows)


def approve(session: Session, *, folder: str) -> None:
    """Let a held mass change pass."""
    result = session.call("approve", folder=folder_reference(folder))
    session.terminal.say(f"{result['name']}: the change of {count(result['files'], 'file')} passes")


def undo(session: Session, *, folder: str) -> None:
    """Drop a held mass change, or revert the newest one."""
    result = session.call("undo", folder=folder_reference(folder))
    what = (
        "the change that waited is dropped" if result["held"] else f"the change of {moment(result['time'])} is undone"
    )
    come = "come" if result["note"] else "came"
    session.terminal.say(f"{result['name']}: {what}; {count(result['files'], 'file')} {come} back")
    if result["place"]:
        session.terminal.say(
            f"  what had been written instead lies in {result['place']}; delete it when you need it no more"
        )
    if result["note"]:
        session.terminal.note(result["note"])


def exclude(session: Session, *, path: str | None, remove: bool, free: bool) -> None:
    """Keep a path off this device, bring it back, or list what is excluded."""
    if path is None and (remove or free):
        raise UserError("name the path that --remove or --free is about", exit_code=EXIT_USAGE)
    result = session.call("exclude", path=None if path is None else absolute(path), remove=remove, free=free)
    terminal = session.terminal
    if terminal.as_json:
        terminal.print_json({key: value for key, value in result.items() if key != "watching"})
    elif path is None:
        for row in result["exclusions"] or ():
            terminal.say(f"{row['folder']}/{row['path']}")
        if not result["exclusions"]:
            terminal.say("Nothing is excluded on this device")
    else:
        _tell_exclusion(terminal, result)


def _tell_exclusion(terminal: Terminal, result: Json) -> None:
    where = f"{result['folder']}/{result['path']}"
    if not result["excluded"]:
        when = "now" if result["watching"] else "with the next kin sync or kin run"
        terminal.say(f"{where} is on this device again: it comes {when}")
        return
    terminal.say(f"{where} is not on this device any more, and stays everywhere else")
    if freed := result["freed"]:
        terminal.say(f"  {count(freed['files'], 'file')}, {size(freed['bytes'])} taken off this disk")
        for left in freed["left"][:LEFT_SHOWN_MAX]:
            terminal.note(f"  stays: {left} (in use, changed meanwhile, or not synced)")
        if len(freed["left"]) > LEFT_SHOWN_MAX:
            terminal.note(f"  and {len(freed['left']) - LEFT_SHOWN_MAX:,} more stay")
    elif result["note"]:
        terminal.note(f"  {result['note']}")
    else:
        terminal.say("  what lies here stays on this disk and is not synced; --free takes it off")


def conflicts(session: Session, *, keep: str | None = None, drop: str | None = None) -> None:
    """Show every conflict copy, or decide about one."""
    if keep is not None and drop is not None:
        raise UserError("give one of --keep and --drop", exit_code=EXIT_USAGE)
    copy = drop if keep is None else keep
    if copy is not None:
        _resolve(session, copy, keep=keep is not None)
        return
    result = session.call("conflicts")
    terminal = session.terminal
    if terminal.as_json:
        terminal.print_json(result)
        return
    if not result["conflicts"]:
        terminal.say("No conflicts")
    for conflict in result["conflicts"]:
        terminal.say(f"{conflict['folder']}/{conflict['path']}")
        who = f"{conflict['user']} on {conflict['device']}, {moment(conflict['time'])}, {size(conflict['size'])}"
        terminal.say(f"  also as {conflict['copy']} ({who})")


def _resolve(session: Session, copy: str, *, keep: bool) -> None:
    result = session.call("resolve", copy=copy, path=absolute(copy), keep=keep)
    terminal = session.terminal
    if terminal.as_json:
        terminal.print_json(result)
    elif keep:
        terminal.say(f"{result['folder']}/{result['path']} has the bytes of {result['copy']} from now on")
    else:
        terminal.say(f"{result['folder']}/{result['copy']} is removed, on all devices")
