"""Tell a coordinator again where contents lie, after it was set back and forgot.

What this device put on storage nodes after the coordinator's backup is there still, but the coordinator knows nothing of
it: an entry that uses it would wait for ever. The nodes are asked again; their receipts are handed in, and what they hold
no more is put there again, from another node or from this disk.

So it is done, too, for a device that left the LAN before its spool was sent, and may never come back: who took over what it
wrote has the bytes, and builds on it. And for this device's own entries of an earlier number: where it went back to before it
sent what they bring, and that is nowhere else, they are given up, or everybody would wait for them for ever.

Rule 1: entries are looked at that were handed in and stay unordered, each once in a session, and those that were given back,
    however often this device ends meanwhile.
Rule 2: one segment is in memory at a time, and one batch of what it lists.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import structlog

from peer.core.chunk_sealing import Row
from peer.core.entry_sealing import open_entry
from peer.core.segments import chunk_refs, open_segment
from peer.engine.context import Context
from peer.engine.follower import Follower
from peer.engine.holdings import Holdings
from peer.engine.incarnations import earlier_entries, is_set_back
from peer.engine.renewal import renew
from peer.engine.spool import remade
from peer.store import folders
from peer.store.places import doubt_all
from peer.store.spool import spooled
from protocol import limits
from protocol import messages as m
from protocol.chains import Role
from protocol.entries import Entry, SegmentKey, parse_entry
from protocol.errors import CorruptChunkError, KinfolderError, NoSourceError, ProtocolError
from protocol.grants import ChunkRef
from protocol.history import ItemKind
from protocol.ids import ChunkId, EntryHash
from protocol.lan import Wanted

ITEMS_TOGETHER: Final = 64
AGAIN_S: Final = 300.0
"""After so long, at the next news, what could not be given up is looked for again."""
log = structlog.get_logger("reassurance")


class Reassurer:
    """One folder's."""

    def __init__(self, context: Context, follower: Follower, holdings: Holdings) -> None:
        self._context = context
        self._follower = follower
        self._holdings = holdings
        self._told: set[EntryHash] = set()
        """Also those of others that this device stood in for."""
        self._settled_as: int | None = None
        """This device's number when it last looked for entries of earlier ones; None: not in this session."""
        self._again_s = 0.0
        """When to look again where not all nodes could be asked."""
        self._knows_itself = False
        """Whether it asked in this session what it wrote under its number."""

    @property
    def is_wanted(self) -> bool:
        """Whether this device has not yet looked for entries of its earlier numbers, and knows them all."""
        if not self._follower.has_caught_up or self._settled_as == self._follower.record.number:
            return False
        return self._context.clock.monotonic_s() >= self._again_s

    def forget(self) -> None:
        """A session began: what was told in the one before may be lost."""
        self._told.clear()
        self._settled_as, self._again_s = None, 0.0
        self._knows_itself = False

    def retry(self) -> None:
        """Somebody asks for a pass now: what could not be done is tried again, and what was told is told again."""
        self._told.clear()
        self._again_s = 0.0

    async def follow(self) -> bool:
        """Follow the log, and begin anew if this device went back to a backup, once in a session; tell whether anything is new.

        Whoever has nothing to hand in would not learn it otherwise, and all others wait for what he has lost.

        Raises:
            UnavailableError: The coordinator cannot be asked.
            SecurityError: What it says does not hold.
        """
        news = await self._follower.follow()
        if self._knows_itself or not self._follower.has_caught_up or not self._follower.record.number:
            return news
        found = await is_set_back(self._context, self._follower)
        self._knows_itself = True
        return (found and await self._follower.follow()) or found or news

    async def follow_up(self, *, is_sent: bool) -> bool:
        """Do what is due once the log was followed: renew an outdated key, else tell of what waits; tell whether it was renewed.

        Args:
            is_sent: Whether the tail was handed in.

        Raises:
            UnavailableError: The coordinator cannot be reached.
        """
        is_renewed = await renew(self._context, self._follower)
        if is_sent and not is_renewed:
            await self.run()
        return is_renewed

    async def run(self) -> None:
        """Tell of what waits, now that everything was handed in.

        Raises:
            UnavailableError: The coordinator cannot be reached.
        """
        for entry in await self._context.database.run(self._waiting):
            if await self._tell(entry):
                self._told.add(entry.hash)
        while (after := self._follower.record.lost_after) is not None:
            items = await self._context.database.run(
                lambda db, after=after: folders.log_items(db, self._follower.record.key, after, ITEMS_TOGETHER)  # type: ignore[misc]
            )
            for item in items:
                if item.kind is ItemKind.ENTRY and not await self._tell(parse_entry(item.data)):
                    return  # later: some node does not tell what it holds
            rest = items[-1].position if items else None
            await self._context.database.run(lambda db, rest=rest: self._follower.put_record(db, lost_after=rest))  # type: ignore[misc]

    async def stand_in(self) -> None:
        """Send what waits for its contents and nobody else may send, as far as this disk holds it.

        That is what this device wrote under an earlier number, and what devices wrote that are not near.

        Raises:
            UnavailableError: The storage or the coordinator is away.
        """
        await self._settle_earlier()
        if not self._follower.is_mixed or not self._may_write:
            return
        for entry in await self._context.database.run(lambda db: folders.foreign_tail(db, self._follower.record.key)):
            if not entry.header.pins or entry.hash in self._told or self._is_near(entry):
                continue
            try:
                for segment in self._segments_of(entry):
                    await self._tell_of(segment)
            except (NoSourceError, CorruptChunkError, ProtocolError) as error:
                log.info("contents of another device are not here", entry=entry.hash[:8].hex(), code=error.code)
                continue
            self._told.add(entry.hash)

    async def _settle_earlier(self) -> None:
        """Send what this device wrote under earlier numbers and nobody ordered; give up what is nowhere."""
        record = self._follower.record
        if not self.is_wanted or not self._may_write:
            return
        self._again_s = self._context.clock.monotonic_s() + AGAIN_S
        lost: set[EntryHash] = set()
        for entry in await earlier_entries(self._context, self._follower):
            try:
                for segment in self._segments_of(entry):
                    await self._tell_of(segment)
            except (NoSourceError, CorruptChunkError, ProtocolError) as error:
                if not await self._is_nowhere(entry):
                    return
                log.warning("contents of an entry are lost", entry=entry.hash[:8].hex(), code=error.code)
                lost.add(entry.hash)
        given_up = sorted(lost)
        for start in range(0, len(given_up), ITEMS_TOGETHER):
            await self._context.link.ask(m.GiveUp(record.id, tuple(given_up[start : start + ITEMS_TOGETHER])), m.Ok)
        if lost and any(e.hash in lost for e in await earlier_entries(self._context, self._follower)):
            return  # a node is away, or is known to hold it after all
        self._settled_as = record.number

    @property
    def _may_write(self) -> bool:
        control = self._follower.control
        return control is not None and (control.role_of(self._context.account) or 0) >= Role.WRITER

    def _is_near(self, entry: Entry) -> bool:
        """Whether the author of an entry sends its contents himself, as far as this device can see."""
        lan, control = self._context.lan, self._follower.control
        enrolment = None if control is None else control.enrolment(entry.header.device)
        if lan is None or control is None or enrolment is None or enrolment.device not in lan.near():
            return False
        # Who began anew, under another number, has nothing any more of what he wrote before.
        return control.number_of(enrolment.device) == entry.header.device

    def _waiting(self, db: sqlite3.Connection) -> list[Entry]:
        key = self._follower.record.key
        waiting = [e for e, _ in folders.tail(db, key) if e.header.pins and e.hash not in self._told]
        # What is still to be sent is told of when it is.
        return [e for e in waiting if not any(spooled(db, key, id) is not None for id in e.header.pins)]

    async def _tell(self, entry: Entry) -> bool:
        """Hand in where the contents of an entry lie; tell whether all is known that can be."""
        for segment in self._segments_of(entry):
            try:
                await self._tell_of(segment)
            except (NoSourceError, CorruptChunkError, ProtocolError) as error:
                if not await self._is_nowhere(entry):
                    return False
                log.error("contents of an entry are nowhere", entry=entry.hash[:8].hex(), code=error.code)  # noqa: TRY400
                await self._context.database.run(lambda db: doubt_all(db, self._follower.record.key))
        return True

    async def _is_nowhere(self, entry: Entry) -> bool:
        """Tell whether contents that were not found are on no node: each of them can be asked."""
        segments = [ChunkRef(key.id, 0) for key in self._segments_of(entry)]
        return await self._context.chunks.all_tell(self._follower.record.id, segments[: limits.BATCH_CHUNKS_MAX])

    def _segments_of(self, entry: Entry) -> Sequence[SegmentKey]:
        if not entry.header.pins:
            return ()
        key = self._context.folder_keys(self._follower.record.key).entry_key(entry.header.epoch)
        try:
            return open_entry(entry, key).segments
        except KinfolderError:
            return ()  # it counts as an entry without changes, on every device alike

    async def _tell_of(self, key: SegmentKey) -> None:
        """Hand in where a segment lies and what it lists.

        Raises:
            NoSourceError: Something of it is nowhere.
        """
        data = await self._segment(key)
        rows = {row.id: row for row in open_segment(data, key)}
        listed, folder = chunk_refs(rows.values()), self._follower.record.id
        own = ChunkRef(key.id, len(data))
        for part in _batches([own, *listed]):
            receipts, there = await self._context.chunks.have(folder, part)
            if receipts:
                await self._context.link.ask(m.AddReceipts(folder, receipts), m.Ok)
            for ref in part:
                if ref.id not in there:
                    await self._put(ref, data if ref.id == key.id else await self._chunk(ref, rows))
        await self._context.link.ask(m.PinSegments(folder, (m.PinnedSegment(own, listed),)), m.Ok)

    async def _put(self, ref: ChunkRef, data: bytes | bytearray) -> None:
        folder = self._follower.record.id
        receipts = await self._context.chunks.put(folder, [(ref, data)])
        await self._context.link.ask(m.AddReceipts(folder, receipts), m.Ok)

    async def _segment(self, key: SegmentKey) -> bytes:
        async for _, data in self._holdings.segments([key.id]):
            return data
        return await self._fetch(key.id)

    async def _chunk(self, ref: ChunkRef, rows: Mapping[ChunkId, Row]) -> bytes | bytearray:
        row = rows.get(ref.id)
        if row is not None:
            epochs = self._context.folder_keys(self._follower.record.key).epochs
            keys = [epochs[number].chunk for number in sorted(epochs, reverse=True)]
            wanted = [Wanted(row.raw_hash, row.raw_length)]
            async with contextlib.aclosing(self._holdings.chunks(wanted)) as groups:
                async for group in groups:
                    for _, raw in group:  # none where a file holds something else by now
                        sealed = await self._context.processor.run(remade, raw, row, keys)
                        if sealed is not None:
                            return sealed
        return await self._fetch(ref.id)

    async def _fetch(self, id: ChunkId) -> bytes:
        async for _, data in self._context.chunks.get(self._follower.record.id, [id]):
            return data
        raise NoSourceError("a chunk is on no storage node that can be reached")


def _batches(refs: Sequence[ChunkRef]) -> Iterator[Sequence[ChunkRef]]:
    for start in range(0, len(refs), limits.BATCH_CHUNKS_MAX):
        yield refs[start : start + limits.BATCH_CHUNKS_MAX]
