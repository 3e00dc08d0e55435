"""Notice that a folder's disk has more room than when it last refused something, so that what waits is tried at once.

Rule 1: the disk is asked only while something waits for room on it.
Rule 2: a little that comes and goes is no news: what waits is tried by the clock all the same (:mod:`peer.engine.waiting`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from peer.core.tree import ItemId
from peer.disk.roots import RootGuard, RootMissing
from peer.engine.waiting import DISK_FULL, Blocked
from protocol import limits
from protocol.effects import Processor

LOOK_S: Final = 3.0
"""Between two looks at how much room there is."""
GROWN_BYTES: Final = limits.MIB
"""So much more is news; where there was less, twice as much."""


class Room:
    """One folder's disk."""

    def __init__(self, processor: Processor, guard: RootGuard) -> None:
        self._processor = processor
        self._guard = guard
        self._refused_at: int | None = None
        """How many bytes were free when something was refused last; None: to be seen."""
        self._look_s = 0.0

    def refused(self, reason: str) -> None:
        """Something waits, for this reason: if it is room, how much there is has to be seen now."""
        if reason == DISK_FULL:
            self._refused_at, self._look_s = None, 0.0

    def moments(self, blocked: Mapping[ItemId, Blocked]) -> list[float]:
        """Return when to look next, by the monotonic clock; none where nothing waits for room."""
        return [self._look_s] if any(why.reason == DISK_FULL for why in blocked.values()) else []

    async def has_grown(self, blocked: Mapping[ItemId, Blocked], now_s: float) -> bool:
        """Look how much room there is if that is due; tell whether it is worth a try by now."""
        if not any(moment <= now_s for moment in self.moments(blocked)):
            return False
        self._look_s = now_s + LOOK_S
        free = await self._processor.run(self._free_bytes)
        before, self._refused_at = self._refused_at, free if self._refused_at is None else self._refused_at
        if free is None or before is None or free - before < min(GROWN_BYTES, max(before, 1)):
            return False
        self._refused_at = free
        return True

    def _free_bytes(self) -> int | None:
        root = self._guard.open()
        if isinstance(root, RootMissing):
            return None
        with root:
            try:
                return root.fs.free_bytes(root.handle)
            except OSError:
                return None
