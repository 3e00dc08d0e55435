"""Entries of other devices that the coordinator has registered and not ordered yet, while their authors are near.

They are folded as a provisional tail after the log, so that a file reaches the LAN before it reaches the storage nodes.

Rule 1: an entry is taken only while its author's device is connected on the LAN: nobody else has its bytes yet. Once
    taken, it stays until it is ordered or void, since the disk may have followed it.
Rule 2: it is checked as an ordered one is, by the newest control state known; what does not hold is left alone, and
    judged again if it is ever ordered.
Rule 3: at most :data:`protocol.limits.FOREIGN_TAIL_ENTRIES_MAX` are kept; the others wait for their order.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import TYPE_CHECKING

import structlog

from peer.core.entry_sealing import open_entry
from peer.engine.context import Context
from peer.store import folders
from protocol import limits
from protocol import messages as m
from protocol.entries import Entry, parse_entry
from protocol.errors import KinfolderError, ProtocolError, UnavailableError
from protocol.history import ItemKind, LogItem
from protocol.ids import DeviceId
from protocol.signing import verify

if TYPE_CHECKING:
    from peer.engine.follower import Follower, Received

log = structlog.get_logger("registered")


class Registered:
    """One folder's.

    Args:
        context: Shared by all folders.
        follower: The folder's view of the log; it folds what is taken here.
        judge: Judges an author's rights; raises if he has none.
    """

    def __init__(self, context: Context, follower: Follower, judge: Callable[[LogItem], Awaitable[Received]]) -> None:
        self._context = context
        self._follower = follower
        self._judge = judge
        self.newest: int | None = None
        """The highest registration counter of an unordered entry, as the coordinator told; None: it did not yet."""
        self._looked = 0
        self._looks = 0
        """How often all of them were to be looked at again."""

    def look_again(self) -> None:
        """Look at all of them: the coordinator was not heard for a while, or another device came near."""
        self._looked, self.newest = 0, None
        self._looks += 1

    @property
    def is_behind(self) -> bool:
        """Whether there may be something new of devices that are near."""
        return bool(self._near()) and (self.newest is None or self.newest > self._looked)

    def _near(self) -> Collection[DeviceId]:
        lan = self._context.lan
        return () if lan is None else lan.near()

    async def follow(self) -> bool:
        """Take what is new of devices that are near; tell whether there was anything.

        Raises:
            UnavailableError: The coordinator cannot be asked.
        """
        near = self._near()
        if not self.is_behind:
            return False
        newest, looks = self.newest or 0, self._looks
        try:
            received, looked = await self._pull(near)
            checked = await self._context.processor.run(_check_each, received)
            taken = await self._context.database.run(lambda db: self._take(db, checked))
        except UnavailableError:
            raise
        except KinfolderError as error:
            log.warning("registered entries cannot be followed", code=error.code)
            return False
        if looks == self._looks:  # else a device came near meanwhile, whose entries were passed over
            self._looked = max(looked, newest)
        return taken > 0

    async def _pull(self, near: Collection[DeviceId]) -> tuple[list[Received], int]:
        """Return entries of devices that are near, and up to which counter these are all."""
        received: list[Received] = []
        after, size = self._looked, 0
        while True:
            reply = await self._context.link.ask(m.PullRegistered(self._follower.record.id, after), m.Registered)
            for counter, data in reply.entries:
                if counter <= after:
                    raise ProtocolError("the coordinator counts registered entries backwards")
                after = counter
                found = await self._receive(data, near)
                if found is not None:
                    received.append(found)
                    size += len(data)
            is_enough = len(received) >= limits.FOREIGN_TAIL_ENTRIES_MAX or size > limits.FOREIGN_TAIL_BYTES_MAX
            if not reply.more or not reply.entries or is_enough:
                return received, after

    async def _receive(self, data: bytes, near: Collection[DeviceId]) -> Received | None:
        """Judge an entry's author; None: it is not for the tail."""
        try:
            header = parse_entry(data).header
            control = self._follower.control
            enrolment = None if control is None else control.enrolment(header.device)
            if enrolment is None or enrolment.device not in near or header.expect:
                return None
            if not self._context.accounts(enrolment.account).is_active(enrolment.device):
                return None
            return await self._judge(LogItem(0, ItemKind.ENTRY, 0, data))
        except UnavailableError:
            raise
        except KinfolderError as error:
            log.info("a registered entry is left alone", code=error.code)
            return None

    def _take(self, db: sqlite3.Connection, checked: Sequence[tuple[Entry, bytes]]) -> int:
        """Keep entries, as far as there is room, and fold them; return how many are new."""
        key = self._follower.record.key
        self._follower.remote(db)  # what the tail shows now is looked at again where it will show something else
        count, size = folders.foreign_size(db, key)
        taken = 0
        for entry, data in checked:
            if count >= limits.FOREIGN_TAIL_ENTRIES_MAX or size + len(data) > limits.FOREIGN_TAIL_BYTES_MAX:
                break
            if not _follows(db, key, entry):
                continue
            folders.put_foreign(db, key, entry, data)
            taken, count, size = taken + 1, count + 1, size + len(data)
        if taken:
            self._follower.rebuild(db)
        return taken


def _follows(db: sqlite3.Connection, key: int, entry: Entry) -> bool:
    """Tell whether an entry is new, and fits what is known of its device's chain."""
    header = entry.header
    if folders.entry_hash_of(db, key, header.device, header.seq) is not None:
        return False  # it is known, or another one is under its number
    before = folders.entry_hash_of(db, key, header.device, header.seq - 1)
    return before is None or before[0] == header.previous


def _check_each(received: Sequence[Received]) -> list[tuple[Entry, bytes]]:
    """Return the entries whose signature and payload hold; runs in the pool."""
    good = []
    for each in received:
        entry = each.entry
        if entry is None:
            continue
        try:
            verify("entry", entry.header_bytes + entry.payload, entry.signature, each.author_key)
            open_entry(entry, each.payload_key)
        except KinfolderError as error:
            log.info("a registered entry does not hold", code=error.code)
            continue
        good.append((entry, each.item.data))
    return good
