"""Directories in which Kinfolder keeps things of its own: a folder in or around one would feed on itself.

Rule 1: a place is known by the files that its owner makes there, so that moved and foreign ones are known too.
Rule 2: the looking is bounded: the directory, all above it, and a limited number of those in its first two levels.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Final

from protocol.errors import UserError

LEVELS_BELOW: Final = 2
LOOKED_AT_MAX: Final = 2_000
"""Directories below that are looked at; one with more of them is somebody's files, not a server's data."""
_SIGNS: Final = (
    ("a coordinator's data", "coordinator.sqlite", "server.keys"),
    ("a storage node's data", "packs", "node.json"),
    ("a home server's data", "host.json", "host.lock"),
    ("a device's state", "state.db", "lock"),
)


def kept_in(directory: str) -> str:
    """Return what Kinfolder keeps in exactly this directory, in words; empty if nothing."""
    for what, *names in _SIGNS:
        if all(os.path.lexists(os.path.join(directory, name)) for name in names):
            return what
    return ""


def refuse_kept_place(real: str) -> None:
    """Refuse a directory, existing or not, that is, lies in, or holds one in which Kinfolder keeps things of its own.

    Raises:
        UserError: It does; the text names the other directory.
    """
    for each in _around(real):
        if what := kept_in(each):
            shown = os.fsencode(real).decode(errors="replace")
            where = "is" if each == real else "lies in" if real.startswith(each) else "holds"
            which = "" if each == real else f" {os.fsencode(each).decode(errors='replace')},"
            raise UserError(f"{shown} {where}{which} the place of {what}: choose another directory")


def _around(real: str) -> Iterator[str]:
    yield real
    above = os.path.dirname(real)
    while above != os.path.dirname(above):
        yield above
        above = os.path.dirname(above)
    level, left = [real], LOOKED_AT_MAX
    for _ in range(LEVELS_BELOW):
        below: list[str] = []
        for each in level:
            below += _directories(each, left - len(below))
        yield from below
        level, left = below, left - len(below)


def _directories(path: str, most: int) -> list[str]:
    found: list[str] = []
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                if len(found) >= most:
                    break
                if entry.is_dir(follow_symlinks=False):
                    found.append(entry.path)
    except OSError:
        return found  # what cannot be read is not synced either
    return found
