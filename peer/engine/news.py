"""What the coordinator tells of a folder's log without being asked, and whether the log must be asked for by that.

Rule 1: nothing is asked for that was followed already: of what a device hands in itself it is told, too.
Rule 2: whether something was followed is judged only once the loop comes to it: what is being followed just then counts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from protocol import messages as m
from protocol.history import Checkpoint

if TYPE_CHECKING:
    from peer.engine.follower import Follower


class News:
    """One folder's."""

    def __init__(self, follower: Follower) -> None:
        self._follower = follower
        self._told: Checkpoint | None = None

    def hear(self, head: m.FolderHead) -> None:
        """The coordinator tells of a head, and up to where entries are registered."""
        self._told = head.checkpoint.checkpoint
        self._follower.registered.newest = head.registered

    @property
    def is_open(self) -> bool:
        """Whether something was told that nobody looked at since."""
        return self._told is not None

    def take(self) -> bool:
        """Look at what was told; tell whether the log must be asked for."""
        told, self._told = self._told, None
        return told is not None and (not self.has_followed(told) or self._follower.registered.is_behind)

    def has_followed(self, head: Checkpoint | None) -> bool:
        """Tell whether just this head was followed, and nothing was left of it; when it was signed does not matter."""
        record = self._follower.record
        if head is None or record.checkpoint is None or not self._follower.has_caught_up:
            return False
        known = record.checkpoint.checkpoint
        return record.position == head.position and msgspec.structs.replace(known, time_ms=head.time_ms) == head
