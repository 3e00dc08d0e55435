"""What a folder's loop tells of what waits: why, and whether it may still mend itself."""

from __future__ import annotations

from collections.abc import Callable, Collection

from peer.core.tree import ItemId
from peer.engine.drainer import PART as DRAIN
from peer.engine.jobs import Jobs
from peer.engine.stepper import KEPT, OCCUPIED
from peer.engine.waiting import CODES, DISK_FULL, OF_NETWORK, REASONS, Blocked, Waits
from peer.store.folders import FolderRecord
from protocol.errors import HistoryError, SpoolFullError


class Outlook:
    """The part of a folder's engine that others read.

    Args:
        record: Gives the folder's record as it is now.
        is_draining: Tells whether the spool is being sent.
    """

    def __init__(self, record: Callable[[], FolderRecord], is_draining: Callable[[], bool]) -> None:
        self._record = record
        self._is_draining = is_draining
        self.online = True
        self.jobs = Jobs()
        self.blocked: dict[ItemId, Blocked] = {}
        self.parts: dict[str, Blocked] = {}
        """The parts of the engine's work that wait."""

    def is_in_job(self, id: ItemId) -> bool:
        """Whether a transfer works on an item, or soon will."""
        return id in self.jobs

    def try_again(self, reasons: Collection[str]) -> None:
        """Let what waits for one of these reasons be tried at once."""
        for why in self.blocked.values():
            if why.reason in reasons:
                why.until_s = 0.0

    def waits(self, now_s: float) -> Waits:
        """Return what a plan must know of what waits."""
        busy = frozenset(self.jobs)
        waiting = {id for id, why in self.blocked.items() if not why.is_due(now_s)}
        names = {id for id, why in self.blocked.items() if why.reason == "name"} - busy
        kept = frozenset(id for id, why in self.blocked.items() if why.reason == KEPT)
        return Waits(busy | waiting, frozenset(names - waiting), frozenset(names & waiting), kept)

    def try_all_again(self) -> None:
        """Let all that waits be tried at once."""
        for why in self.blocked.values():
            why.until_s = 0.0

    @property
    def is_waiting(self) -> bool:
        """Whether a part of the work waits for another party."""
        return bool(self.parts) or bool(self.blocked)

    @property
    def trouble(self) -> str:
        """What keeps the folder as a whole from going on, in words; empty if nothing does."""
        return next((why.text for _, why in sorted(self.parts.items())), "")

    def trouble_of(self, reason: str) -> str:
        """What failed, in words, where the folder as a whole waits for this reason code; empty if it does not."""
        found = (why for _, why in sorted(self.parts.items()) if CODES.get(why.reason, why.reason) == reason)
        return next((why.text for why in found), "")

    @property
    def is_out_of_room(self) -> bool:
        """Whether the disk that holds this device's state takes nothing more."""
        return bool(self.trouble_of(DISK_FULL))

    @property
    def is_deceived(self) -> bool:
        """Whether what the coordinator shows of the history does not hold, so that asking again at once is no use."""
        why = self.parts.get("pull")
        return why is not None and why.reason == HistoryError.code

    def is_kept(self, id: ItemId) -> bool:
        """Whether this is a directory that only stays for what is in it: that is counted itself, if it is to be."""
        why = self.blocked.get(id)
        return why is not None and why.reason in (KEPT, OCCUPIED)

    def reason_for(self, id: ItemId) -> str:
        """Return why an item is not in sync yet, as a reason code of the contract."""
        if id in self.jobs:
            return "transferring" if self.jobs.is_moving(id) else "queued"
        if self._record().frozen:
            return "frozen"
        why = self.blocked.get(id)
        if not self.online and (why is None or (why.reason in OF_NETWORK and why.reason != SpoolFullError.code)):
            return "offline"
        if why is not None:
            return CODES.get(why.reason, why.reason if why.reason in REASONS else "error")
        if self.is_out_of_room:
            return DISK_FULL
        return "no_coordinator" if {"push", "pull"} & self.parts.keys() else "queued"

    @property
    def spool_reason(self) -> str:
        """Why what is signed and spooled is not on storage nodes yet, as a reason code of the contract."""
        why = self.parts.get(DRAIN)
        if self._is_draining():
            return "transferring"
        return "queued" if why is None else CODES.get(why.reason, why.reason if why.reason in REASONS else "error")
