"""Logs that are given back in parts: what waits for its last part, bounded for each session and altogether.

Rule 1: nothing is kept that does not follow what the folder has, item by item, up to the checkpoint.
Rule 2: a session gives back one folder at a time; one that has fallen silent makes room for the next.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Final

import msgspec

from protocol import limits
from protocol.errors import LimitExceededError, ProtocolError, UnavailableError
from protocol.history import LogItem, check_item
from protocol.ids import FolderId

ITEMS_A_MESSAGE_MAX: Final = limits.PULL_ITEMS_MAX
ITEMS_MAX: Final = 262_144
BYTES_MAX: Final = 64 * limits.MIB
TOTAL_BYTES_MAX: Final = 256 * limits.MIB
ITEM_BYTES: Final = 200
"""What an item takes beside its data."""
SILENT_S: Final = 60.0


class _Staged(msgspec.Struct):
    folder: FolderId
    at_s: float
    items: list[LogItem] = msgspec.field(default_factory=list)
    size: int = 0


class Staging:
    """What all sessions have given back so far; the caller has checked that each may."""

    def __init__(self) -> None:
        self._staged: dict[int, _Staged] = {}
        self.size = 0

    def add(
        self, session: int, folder: FolderId, items: Sequence[LogItem], *, after: int, end: int, now_s: float
    ) -> list[LogItem] | None:
        """Add a part; return all items once they reach the end, None before that.

        Args:
            session: Whose.
            folder: Of which folder.
            items: The part; what the folder has already is passed over.
            after: The position that the folder's log has reached.
            end: The checkpoint's position.
            now_s: Of a monotonic clock.

        Raises:
            ProtocolError: The items have a gap, lie beyond the checkpoint, or have numbers out of range.
            LimitExceededError: There are too many, or too large ones.
            UnavailableError: The session is giving back another folder, or others give back too much just now.
        """
        if len(items) > ITEMS_A_MESSAGE_MAX:
            raise LimitExceededError("items of a log in a message", ITEMS_A_MESSAGE_MAX)
        for item in items:
            check_item(item)
        fresh = [item for item in items if item.position > after]
        if not fresh:
            return [] if end <= after else None
        if end - after > ITEMS_MAX:
            raise LimitExceededError("items of a log that is given back", ITEMS_MAX)
        if any(two.position != one.position + 1 for one, two in pairwise(fresh)):
            raise ProtocolError("the items have a gap")
        if fresh[-1].position > end:
            raise ProtocolError("there are items beyond the checkpoint")
        if fresh[0].position == after + 1 and fresh[-1].position == end:
            self._drop_of(session, folder)
            return fresh
        staged = self._place(session, folder, now_s, is_first=fresh[0].position == after + 1)
        last = staged.items[-1].position if staged.items else after
        fresh = [item for item in fresh if item.position > last]
        try:
            if fresh and fresh[0].position != last + 1:
                raise ProtocolError("the items have a gap")
            self._grow(staged, sum(len(item.data) + ITEM_BYTES for item in fresh))
        except (ProtocolError, LimitExceededError, UnavailableError):
            self.drop(session)
            raise
        staged.items += fresh
        if staged.items[-1].position < end:
            return None
        self.drop(session)
        return staged.items

    def drop(self, session: int) -> None:
        """Forget what a session has given back."""
        staged = self._staged.pop(session, None)
        if staged is not None:
            self.size -= staged.size

    def _drop_of(self, session: int, folder: FolderId) -> None:
        staged = self._staged.get(session)
        if staged is not None and staged.folder == folder:
            self.drop(session)

    def _place(self, session: int, folder: FolderId, now_s: float, *, is_first: bool) -> _Staged:
        staged = self._staged.get(session)
        if staged is not None and staged.folder != folder and now_s - staged.at_s < SILENT_S:
            raise UnavailableError("another folder is being given back: one after the other")
        if staged is None or staged.folder != folder or is_first:
            self.drop(session)
            staged = self._staged[session] = _Staged(folder, now_s)
        staged.at_s = now_s
        return staged

    def _grow(self, staged: _Staged, size: int) -> None:
        if staged.size + size > BYTES_MAX:
            raise LimitExceededError("bytes of a log that is given back", BYTES_MAX)
        if self.size + size > TOTAL_BYTES_MAX:
            raise UnavailableError("too much is being given back just now")
        staged.size += size
        self.size += size
