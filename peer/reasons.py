"""Why an item is not in sync, as a reason of the contract, and the line that says what it means and what to do.

Rule 1: what waits for another thing tells that one's reason: a file in a directory, a file whose bytes are to stand in a
    conflict copy first, what is to have a name that another still has.
Rule 2: what has not been tried by this process is told by what the last one found.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from functools import cached_property
from typing import Final

from peer.core.planner import missing_copies
from peer.core.tree import Item, ItemId, Tree, path_of
from peer.engine.outlook import Outlook
from peer.engine.stepper import KEPT
from peer.store.obstacles import obstacle
from protocol import limits

TEXTS: Final = {
    "changing": "is being written just now; it follows when it comes to rest",
    "queued": "waits for its turn",
    "transferring": "is on its way",
    "no_coordinator": "waits for the coordinator, which cannot be reached",
    "no_quorum": "waits for storage: too few storage nodes are there",
    "offline": "waits until network use is resumed with 'kin online'",
    "no_source": "waits for a storage node that has its bytes",
    "unreadable": "cannot be read: check its permissions",
    "name": "has a name that cannot be used here, or is neither file, directory nor link",
    "disk_full": "waits for room on this disk: free some space",
    "locked": "is in use by another program",
    "held": "is part of a mass change that waits for 'kin approve'",
    "frozen": "waits: a check of the folder's history failed",
    "read_only": "cannot be written: check permissions of its directory",
    "quota": "is beyond the quota of its owner",
    "spool_full": "waits for storage, and has no room on this disk until then: free some space",
    "error": "failed; the log says why",
}
IGNORED_TEXT: Final = "waits for its name, which something has that a rule leaves out here: move or rename that"

Reason = tuple[str, str]
"""The code, and the line; an empty line stands for that of the code."""
_QUEUED: Final[Reason] = ("queued", "")
_CHANGING: Final[Reason] = ("changing", "")


def text_of(reason: Reason) -> str:
    """Return the line of a reason."""
    code, text = reason
    return text or TEXTS.get(code, TEXTS["error"])


class Reasons:
    """Why items of one folder wait.

    Args:
        db: The database.
        folder: The folder's key.
        outlook: What its engine knows.
        is_ignored: Tells whether a rule leaves a path out, as a directory or not.
        local: What stands on this device.
        remote: What the folder holds.
    """

    def __init__(
        self,
        db: sqlite3.Connection,
        folder: int,
        outlook: Outlook,
        is_ignored: Callable[[str, bool], bool],
        local: Tree,
        remote: Tree,
    ) -> None:
        self._db = db
        self._folder = folder
        self._outlook = outlook
        self._is_ignored = is_ignored
        self._local = local
        self._remote = remote

    def is_kept(self, item: Item) -> bool:
        """Whether this is a directory that only stays for what is in it: that is counted itself, if it is to be."""
        if self._outlook.is_kept(item.id):
            return True
        is_gone = item.is_directory and self._remote.item(item.id) is None
        return is_gone and obstacle(self._db, self._folder, item.id) == KEPT

    def coming(self, base: Item | None, want: Item | None) -> Reason:
        """Return why what the folder has of an item is not on this disk.

        Args:
            base: As synced.
            want: As the folder has it now.
        """
        item = want or base
        assert item is not None
        reason = self._above(item, is_wanted=want is not None)
        return self._beside(base, want) if reason == _QUEUED else reason

    def _above(self, item: Item, *, is_wanted: bool = True) -> Reason:
        """Return why an item waits, or the nearest directory above that is held up: what is in such a one waits for it."""
        reason: Reason = (self._outlook.reason_for(item.id), "")
        here: Item | None = item
        for _ in range(limits.DEPTH_MAX):
            if here is None:
                break
            if is_wanted and reason in (_QUEUED, _CHANGING):
                reason = self._in_the_way(here, reason)
            if reason != _QUEUED:
                return reason
            if here.id in self._outlook.blocked:
                return self._outlook.reason_for(here.id), ""
            code = obstacle(self._db, self._folder, here.id)
            if code and code != KEPT:
                return code, ""
            here = self._remote.item(here.parent)
        return reason

    def _beside(self, base: Item | None, want: Item | None) -> Reason:
        """Return why a file waits whose bytes are to stand in conflict copies first: as long as one of them does."""
        for copy in missing_copies(base, want, local=self._local, remote=self._remote):
            reason = self._above(copy)
            if reason != _QUEUED:
                return reason[0], f"waits for its conflict copy, which {text_of(reason)}"
        return _QUEUED

    def _in_the_way(self, want: Item, reason: Reason) -> Reason:
        """Return why what has an item's name here still has it, if that is known and says more than is known of the item."""
        there = self._local.child(want.parent, want.name)
        if there is not None:
            code = "" if there.id == want.id else self._holding.get(there.id, "")
        else:
            code = self._problem(want) if self._has_problems else ""
        if code:
            return code, f"waits for what has its name here, which {text_of((code, ''))}"
        is_left_out = there is None and reason == _CHANGING and self._is_left_out(want)
        return ("name", IGNORED_TEXT) if is_left_out else reason

    def _problem(self, want: Item) -> str:
        """Return why a scan could not take what stands where an item is to stand; empty if it could."""
        query, path = "SELECT reason FROM problem WHERE folder = ? AND path = ?", self._path_here(want)
        row = None if path is None else self._db.execute(query, (self._folder, os.fsencode(path))).fetchone()
        return "" if row is None else str(row[0])

    def _is_left_out(self, want: Item) -> bool:
        path = self._path_here(want)
        return path is not None and self._is_ignored(path, not want.is_directory)

    def _path_here(self, want: Item) -> str | None:
        above = path_of(self._local, want.parent)
        return f"{above}/{want.name}" if above else None if above is None else want.name

    @cached_property
    def _has_problems(self) -> bool:
        query = "SELECT 1 FROM problem WHERE folder = ? LIMIT 1"
        return self._db.execute(query, (self._folder,)).fetchone() is not None

    @cached_property
    def _holding(self) -> dict[ItemId, str]:
        """By item that stands here, why it or something in it does not leave its place."""
        found: dict[ItemId, str] = {}
        for id in sorted(self._outlook.blocked):
            code, here = self._outlook.reason_for(id), self._local.item(id)
            while code != "queued" and here is not None and here.id not in found:
                found[here.id] = code
                here = self._local.item(here.parent)
        return found
