"""``doctor``: look at this device from all sides, and say what is wrong and what to do."""

from __future__ import annotations

import os
import platform
import sqlite3
import stat
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from peer.api.backend import Json
from peer.commands.session import Session
from peer.config import load_settings, resolve_home
from peer.core.diagnosis import Facts, FileFacts, Finding, Grade, Room, diagnose, exit_code
from peer.store.home import DATABASE
from peer.store.keyfile import PLAIN_NAME, SEALED_NAME
from protocol.errors import EXIT_DONE, KinfolderError

WATCHES: Final = Path("/proc/sys/fs/inotify/max_user_watches")
MARKS: Final = {Grade.WELL: "good", Grade.NOTE: "attention", Grade.PERSON: "attention", Grade.WRONG: "bad"}
WORDS: Final = {Grade.WELL: "ok", Grade.NOTE: "note", Grade.PERSON: "needs you", Grade.WRONG: "wrong"}


def doctor(session: Session, *, home: str | None, version: str) -> int:
    """Check this device; return 0, or 1 if something is wrong, or 4 if something waits for a person."""
    found = diagnose(_gather(session, resolve_home(home), version))
    code = exit_code(found)
    if session.terminal.as_json:
        rows = [{"check": f.check, "state": str(f.grade), "text": f.text, "advice": f.advice} for f in found]
        session.terminal.print_json({"version": 1, "ok": code == EXIT_DONE, "exit": code, "checks": rows})
    else:
        _show(session, found)
    return code


def _show(session: Session, found: list[Finding]) -> None:
    for finding in found:
        session.terminal.say(f"{WORDS[finding.grade]:9}  {finding.check}: {finding.text}", MARKS[finding.grade])
        if finding.advice:
            session.terminal.say(f"           {finding.advice}")


def _gather(session: Session, home: Path, version: str) -> Facts:
    settings_problem = _settings_problem(home)
    device: Json | None = None
    problem = "the settings keep it from being opened"
    if not settings_problem:
        try:
            device = session.call("doctor")
        except KinfolderError as error:
            problem = str(error) or error.code
    roots = [] if device is None else [str(folder["path"]) for folder in device["status"]["folders"]]
    return Facts(
        versions=f"kin {version}, Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}, {platform.system()}",
        home=_file(Path(os.path.realpath(home))),  # whoever names it by a link is let in by what it points to
        database=_file(home / DATABASE),
        database_problem=_database_problem(home / DATABASE),
        keys=_keys(home),
        settings_problem=settings_problem,
        device=device,
        device_problem=problem,
        now_ms=time.time_ns() // 1_000_000,
        watches_max=_watches_max(),
        rooms=list(_rooms([str(home), *roots])),
    )


def _file(path: Path) -> FileFacts:
    try:
        found = os.lstat(path)
    except OSError:
        return FileFacts(str(path), None)
    return FileFacts(str(path), stat.S_IMODE(found.st_mode), found.st_uid == os.geteuid())


def _keys(home: Path) -> FileFacts:
    sealed = _file(home / SEALED_NAME)
    return sealed if sealed.mode is not None else _file(home / PLAIN_NAME)


def _settings_problem(home: Path) -> str:
    try:
        load_settings(home)
    except KinfolderError as error:
        return str(error)
    return ""


def _database_problem(path: Path) -> str:
    """Return what SQLite finds wrong, reading alone; an agent may be at work."""
    if not path.exists():
        return ""
    try:
        connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=10)
        try:
            found = connection.execute("PRAGMA integrity_check(1)").fetchone()[0]
        finally:
            connection.close()
    except sqlite3.Error as error:
        return f"cannot be read ({error})"
    return "" if found == "ok" else "is damaged"


def _watches_max() -> int | None:
    try:
        return int(WATCHES.read_text())
    except (OSError, ValueError):
        return None


def _rooms(paths: Iterable[str]) -> Iterable[Room]:
    seen = set()
    for path in paths:
        try:
            device, found = os.stat(path).st_dev, os.statvfs(path)
        except OSError:
            continue  # that it is not there is found elsewhere
        if device not in seen:
            seen.add(device)
            yield Room(path, found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize)
