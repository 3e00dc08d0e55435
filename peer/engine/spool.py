"""One folder's part of the spool: keep sealed chunks and segments that storage does not take now, and send them on later.

Rule 1: what :meth:`Spool.keep` was given is durable on this disk when it returns.
Rule 2: a row leaves the spool only after a write quorum holds its bytes, and the coordinator has the receipts and knows
    what the segments list; a cut transfer repeats no more than the batches that were on the way.
Rule 3: at most :data:`BATCHES_AHEAD` batches are on the way, each within the steps that :class:`Context` allows.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Final, NamedTuple

import structlog

from peer.core.chunk_sealing import Row, open_chunk, reseal_chunk
from peer.engine.context import Context
from peer.engine.tasks import end, some_done, to_its_end
from peer.store.folders import FolderRecord
from peer.store.places import drop_received
from peer.store.spool import Spooled, drop_spooled, is_spooled, next_spooled, put_spooled, spooled, spooled_piece
from peer.store.stored import note_rows, note_segments
from protocol import limits
from protocol import messages as m
from protocol.chunks import check_chunk
from protocol.effects import Entropy
from protocol.errors import CorruptChunkError, KinfolderError
from protocol.grants import ChunkRef
from protocol.ids import ChunkId
from protocol.lan import Wanted

BATCH_BYTES: Final = 8 * limits.MIB
CHECKED_BYTES_MAX: Final = 512 * limits.MIB
"""Of what waits, how much a checkup reads."""
BATCHES_AHEAD: Final = 2
REFS_PER_MESSAGE_MAX: Final = 8_000

log = structlog.get_logger("spool")

Remake = Callable[[Spooled], Awaitable[bytes | None]]


class Sealed(NamedTuple):
    """A sealed chunk with its row, or a segment with what it lists."""

    ref: ChunkRef
    data: bytes | bytearray
    what: Row | m.PinnedSegment


class Spool:
    """One folder's."""

    def __init__(self, context: Context, record: Callable[[], FolderRecord]) -> None:
        self._context = context
        self._record = record
        self._files = context.spool
        self.on_kept: Callable[[], None] = lambda: None
        """Called when there is more to send."""

    # --- Room and keeping

    async def reserve(self, size: int) -> bool:
        """Keep room for this many bytes, if there is so much."""
        return await self._context.processor.run(self._files.reserve, size)

    def release(self, size: int) -> None:
        """Give back what was reserved."""
        self._files.release(size)

    async def keep(self, sealed: Sequence[Sealed]) -> None:
        """Make chunks and segments durable on this disk.

        Raises:
            SpoolFullError: The disk does not take them.
        """
        if not sealed:
            return
        # Who is cancelled waits for it: a file goes once no row names it, and these rows would be written after that.
        await to_its_end(self._keep(sealed))
        self.on_kept()

    async def _keep(self, sealed: Sequence[Sealed]) -> None:
        folder = self._record().key
        spots = await self._context.processor.run(self._files.append, [each.data for each in sealed])
        items = [(each.ref.id, each.what) for each in sealed]
        try:
            await self._context.database.run(lambda db: put_spooled(db, folder, items, spots))
        finally:
            self._files.named(spots)

    # --- Reading back

    async def piece(self, wanted: Wanted) -> bytes | None:
        """Return a raw chunk that is in the spool, checked."""
        folder = self._record().key
        one = await self._context.database.run(lambda db: spooled_piece(db, folder, wanted.hash))
        if one is None or not isinstance(one.what, Row) or one.what.raw_length != wanted.length:
            return None
        return await self._context.processor.run(self._open, one, one.what)

    async def sealed(self, id: ChunkId) -> bytes | None:
        """Return a chunk or a segment that is in the spool, checked."""
        folder = self._record().key
        one = await self._context.database.run(lambda db: spooled(db, folder, id))
        return None if one is None else await self._context.processor.run(self._read, one)

    def _read(self, one: Spooled) -> bytes | None:
        data = self._files.read(one.spot)
        try:
            if data is not None:
                check_chunk(data, one.id)
        except CorruptChunkError:
            return None
        return data

    def _open(self, one: Spooled, row: Row) -> bytes | None:
        data = self._read(one)
        try:
            return None if data is None else bytes(open_chunk(data, row))
        except CorruptChunkError:
            return None

    # --- Sending

    async def is_empty(self) -> bool:
        """Tell whether nothing waits here."""
        folder = self._record().key
        return not await self._context.database.run(lambda db: is_spooled(db, folder))

    async def damaged(self, remake: Remake) -> int:
        """Return how many things that wait here cannot be read, nor made again; of much, the first CHECKED_BYTES_MAX are.

        Args:
            remake: As :meth:`drain` takes it.
        """
        folder, after, size, count = self._record().key, 0, 0, 0
        while size < CHECKED_BYTES_MAX:
            start = after
            batch = await self._context.database.run(
                lambda db, start=start: next_spooled(  # type: ignore[misc]
                    db, folder, start, size=BATCH_BYTES, count=limits.BATCH_CHUNKS_MAX
                )
            )
            if not batch:
                break
            after, size = batch[-1].number, size + sum(one.spot.length for one in batch)
            lost: list[Spooled] = []
            await self._read_batch(batch, remake, lost)
            for one in lost:  # unless it was sent meanwhile
                if await self._context.database.run(lambda db, id=one.id: spooled(db, folder, id)):  # type: ignore[misc]
                    count += 1
        return count

    async def drain(self, remake: Remake) -> None:
        """Send all that waits here.

        Args:
            remake: Makes a damaged chunk or segment again from what else this disk holds, if that can be done.

        Raises:
            NoQuorumError, UnavailableError: The storage or the coordinator is away; what was sent before counts.
            KinfolderError: Some of it is damaged; all else was sent.
        """
        running: set[asyncio.Task[None]] = set()
        lost: list[Spooled] = []
        folder, after = self._record().key, 0
        try:
            while True:
                start = after
                batch = await self._context.database.run(
                    lambda db, start=start: next_spooled(  # type: ignore[misc]
                        db, folder, start, size=BATCH_BYTES, count=limits.BATCH_CHUNKS_MAX
                    )
                )
                if not batch:
                    break
                after = batch[-1].number
                while len(running) >= BATCHES_AHEAD:
                    running = await some_done(running)
                running.add(asyncio.create_task(self._send(batch, remake, lost)))
            while running:
                running = await some_done(running)
        finally:
            await end(running)
        if lost:
            raise KinfolderError(f"{len(lost)} chunks in the spool of this device are damaged: see 'kin doctor'")

    async def _send(self, batch: Sequence[Spooled], remake: Remake, lost: list[Spooled]) -> None:
        async with self._context.steps:
            good = await self._read_batch(batch, remake, lost)
            if not good:
                return
            chunks = shuffled(self._context.entropy, [(one.ref, data) for one, data in good])
            receipts = await self._context.chunks.put(self._record().id, chunks)
            del chunks
            done = [one for one, _ in good]
            del good
        await self._context.link.ask(m.AddReceipts(self._record().id, receipts), m.Ok)
        for part in pin_messages([one.what for one in done if isinstance(one.what, m.PinnedSegment)]):
            await self._context.link.ask(m.PinSegments(self._record().id, part), m.Ok)
        going = await self._context.database.run(lambda db: self._note_sent(db, done))
        await self._context.processor.run(self._files.drop, going)

    def _note_sent(self, db: sqlite3.Connection, done: Sequence[Spooled]) -> list[int]:
        folder = self._record().key
        rows = [one.what for one in done if isinstance(one.what, Row)]
        note_rows(db, folder, rows)
        drop_received(db, folder, [row.raw_hash for row in rows])
        note_segments(db, folder, [one.id for one in done if isinstance(one.what, m.PinnedSegment)])
        return self._files.retire(drop_spooled(db, folder, [one.number for one in done]))

    async def _read_batch(
        self, batch: Sequence[Spooled], remake: Remake, lost: list[Spooled]
    ) -> list[tuple[Spooled, bytes]]:
        read = await self._context.processor.run(lambda: [self._read(one) for one in batch])
        good: list[tuple[Spooled, bytes]] = []
        for one, data in zip(batch, read, strict=True):
            sound = await remake(one) if data is None else data
            if sound is None:
                log.error("a spooled chunk is damaged", chunk=one.id.hex()[:12])
                lost.append(one)
            else:
                good.append((one, sound))
        return good


def remade(raw: bytes, row: Row, keys: Sequence[bytes]) -> bytes | None:
    """Return a chunk sealed again under one of the keys, None if none gives these very bytes; runs in the pool."""
    for key in keys:
        made = reseal_chunk(raw, row, key)
        if made is not None:
            return bytes(made.data)
    return None


def shuffled(
    entropy: Entropy, chunks: Sequence[tuple[ChunkRef, bytes | bytearray]]
) -> list[tuple[ChunkRef, bytes | bytearray]]:
    """Return chunks in a fresh order: what was next to what in a file is nobody's business (security 3.6)."""
    order = entropy(4 * len(chunks))
    return [chunks[i] for i in sorted(range(len(chunks)), key=lambda i: order[4 * i : 4 * i + 4])]


def pin_messages(segments: Sequence[m.PinnedSegment]) -> Iterator[tuple[m.PinnedSegment, ...]]:
    """Yield segments with what they list, in parts that fit a message."""
    part: list[m.PinnedSegment] = []
    count = 0
    for segment in segments:
        if part and count + len(segment.chunks) > REFS_PER_MESSAGE_MAX:
            yield tuple(part)
            part, count = [], 0
        part.append(segment)
        count += len(segment.chunks)
    if part:
        yield tuple(part)
