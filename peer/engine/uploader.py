"""Send contents: read files once, cut, seal and store what storage nodes do not hold yet, describe it in segments.

A job is one large file or many small ones. Before its contents are used in an entry, each chunk is durable on a write
quorum, or in the spool of this device: while puts keep up with the reading, nothing is written there; where they lag
behind, or storage is away, reading goes on at the speed of the disk, and the spool is sent behind.

Rule 1: a content is published only if all of the file was read as one state: its hash is the one that was observed.
Rule 2: at most :data:`BATCHES_AHEAD` batches of a job are sealed and on the way, and of all jobs of the device together
    as many steps as :class:`Context` allows; a file of any size passes through that.
Rule 3: a chunk is noted as stored only after its receipts were handed in, so a cut transfer repeats no more than these.
    A content counts as stored only if its chunks were put or opened here; a row in another's segment is his word.
    What is spooled counts as stored once the spool was sent.
Rule 4: of a large file only the rows of the segment in work are in memory; those of the segments before are stored.
    What is read in one step goes to the nodes together with the segments that list it: one put, and one report of receipts.
Rule 5: a job uses the spool only if there is room for all of it; one that finds none waits for storage, and its contents
    for their entry.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

import msgspec
from blake3 import blake3

from peer.core.chunk_sealing import Row, SealedChunk, reseal_chunk, seal_chunk
from peer.core.chunking import Chunker, cut_stream
from peer.core.segments import cut_segments, ends_segment, lay_out, pinned, seal_segment
from peer.core.tree import Content, ItemId
from peer.disk.roots import Root, RootGuard, RootMissing
from peer.disk.walk import opened, split
from peer.engine.context import Context
from peer.engine.spool import Sealed, Spool, pin_messages, shuffled
from peer.engine.tasks import end
from peer.store.folders import FolderRecord
from peer.store.places import drop_received, note_lists, note_places, received_rows
from peer.store.spool import is_spooled, spooled, spooled_rows
from peer.store.stored import known_rows, known_segments, note_rows, note_segments
from protocol import limits
from protocol import messages as m
from protocol.effects import Access, Handle
from protocol.entries import SegmentKey
from protocol.errors import SpoolFullError, UnavailableError
from protocol.grants import ChunkRef, ReceiptFor
from protocol.ids import ChunkId

READ_BYTES: Final = 8 * limits.MIB
READ_CHUNKS: Final = 256
BATCHES_AHEAD: Final = 2
LAG_S: Final = 1.0
"""How long nothing that is on its way may arrive, before what waits is spooled."""
ROWS_PENDING_MAX: Final = limits.SEGMENT_ROWS_MAX
"""From this many rows of one file on, the segments that are complete are stored while the rest is still read."""


class ToSend(msgspec.Struct, frozen=True):
    """A file whose bytes are to be durable."""

    id: ItemId
    path: str
    content: Content
    """As observed; bytes that differ are not sent."""


class Stored(msgspec.Struct, frozen=True):
    """Where a content's rows lie."""

    spans: tuple[tuple[SegmentKey, int, int], ...]
    """(segment, first row, number of rows), in the order of the file."""


class RawChunk(msgspec.Struct, frozen=True):
    """A piece of a file before it is sealed."""

    file: int
    offset: int
    data: bytes
    hash: bytes


class _Source:
    """Reads a job's files in the pool, a bounded step at a time."""

    def __init__(self, guard: RootGuard, files: Sequence[ToSend], chunker: Chunker) -> None:
        self._guard = guard
        self._files = files
        self._chunker = chunker
        self._steps = self._read_all()
        self.problems: dict[int, str] = {}
        self.is_at_end = False
        """Whether the newest pieces are the last, and all problems are known."""

    def step(self) -> list[RawChunk] | None:
        """Return the next pieces, None at the end; call it from one thread at a time."""
        return next(self._steps, None)

    def file(self, index: int) -> ToSend:
        """Return one of the files."""
        return self._files[index]

    def close(self) -> None:
        """Close what is open."""
        self._steps.close()

    def _read_all(self) -> Generator[list[RawChunk], None, None]:
        root = self._guard.open()
        if isinstance(root, RootMissing):
            self.problems = dict.fromkeys(range(len(self._files)), "error")
            return
        with root:
            pending: list[RawChunk] = []
            size = 0
            for index in range(len(self._files)):
                for chunk in self._read_one(root, index):
                    pending.append(chunk)
                    size += len(chunk.data)
                    del chunk  # nothing is held while the next step is not wanted yet
                    if size >= READ_BYTES or len(pending) >= READ_CHUNKS:
                        yield _take_all(pending)
                        size = 0
            self.is_at_end = True
            if pending:
                yield _take_all(pending)

    def _read_one(self, root: Root, index: int) -> Iterator[RawChunk]:
        file = self._files[index]
        directory, name = split(file.path)
        try:
            with opened(root.fs, root.handle, directory) as parent:
                handle = root.fs.open_file(parent, name, Access.READ)
        except OSError:
            self.problems[index] = "changing"
            return
        try:
            whole = blake3()
            offset = 0
            for data in self._cut(root, handle, file.content.size, self._chunker):
                whole.update(data)
                yield RawChunk(index, offset, data, blake3(data).digest())
                offset += len(data)
            if whole.digest() != file.content.hash:
                self.problems[index] = "changing"
        except OSError:
            self.problems[index] = "unreadable"
        finally:
            root.fs.close(handle)

    @staticmethod
    def _cut(root: Root, handle: Handle, size: int, chunker: Chunker) -> Iterator[bytes]:
        if size <= limits.CHUNK_BYTES_MIN:
            # One byte more than expected is asked for, so a file that grew is noticed by its hash.
            buffer = memoryview(bytearray(size + 1))
            yield bytes(buffer[: root.fs.read(handle, buffer, 0)])
            return
        offset = 0

        def read(into: memoryview) -> int:
            nonlocal offset  # a file that grows as fast as it is read would have no end
            count = root.fs.read(handle, into[: size + 1 - offset], offset)
            offset += count
            return count

        yield from cut_stream(read, chunker)


class _Batch(NamedTuple):
    """Pieces of a job's files that were sealed together."""

    chunks: Sequence[SealedChunk]
    """Those that nobody holds yet."""
    held: Sequence[Row]
    """Rows that turned out to be stored."""
    found: Sequence[tuple[bytes, ItemId, int]]
    """Where the pieces stand: (hash of the raw bytes, item, offset)."""
    raw_bytes: int


class _Job:
    """One call of :meth:`Uploader.send`."""

    def __init__(self, source: _Source, files: Sequence[ToSend], progress: Callable[[int], None]) -> None:
        self.source = source
        self.files = files
        self.progress = progress
        self.rows: list[list[Row]] = [[] for _ in files]
        self.spans: list[list[tuple[SegmentKey, int, int]]] = [[] for _ in files]
        self.puts: dict[asyncio.Task[None], _Batch] = {}
        self.is_begun = False
        """Whether some of its pieces were read."""
        self.whole: _Batch | None = None
        """All of its pieces, where they are so few that they are put together with the segments that list them."""
        self.keeps_turn = False
        """Whether it has kept its turn with them, to its end."""
        self.room = 0
        """Bytes of the spool that are kept for this job."""
        self.is_refused = False
        """Whether the spool has no room for it."""

    def spool_bytes(self) -> int:
        """Return how much its contents may take, sealed and padded, with their segments."""
        return sum(
            f.content.size * 9 // 8 + (f.content.size // limits.CHUNK_BYTES_MIN + 2) * _CHUNK_COST for f in self.files
        )


_CHUNK_COST: Final = limits.CHUNK_PADDED_BYTES_MIN + limits.KIB


def _take_all(pending: list[RawChunk]) -> list[RawChunk]:
    taken = list(pending)
    pending.clear()
    return taken


class Uploader:
    """Sends one folder's contents."""

    def __init__(self, context: Context, record: Callable[[], FolderRecord], guard: RootGuard, spool: Spool) -> None:
        self._context = context
        self._record = record
        self._guard = guard
        self.spool = spool

    async def send(
        self, files: Sequence[ToSend], progress: Callable[[int], None]
    ) -> tuple[dict[ItemId, Stored], dict[ItemId, str]]:
        """Make the bytes of files durable; return where they lie, and reasons for those that could not be sent.

        Args:
            files: One large file, or small ones of together a few dozen MiB.
            progress: Told the raw bytes that are done, as they are.

        Raises:
            SpoolFullError: The storage is away, and the spool has no room; try the whole job again later.
            UnavailableError: Likewise, where something else than their bytes cannot be asked for.
        """
        if max((file.content.size for file in files), default=0) <= READ_BYTES:
            return await self._send(files, progress)
        async with self._context.large_uploads:
            return await self._send(files, progress)

    async def _send(
        self, files: Sequence[ToSend], progress: Callable[[int], None]
    ) -> tuple[dict[ItemId, Stored], dict[ItemId, str]]:
        source = _Source(self._guard, files, self._context.folder_keys(self._record().key).chunker)
        job = _Job(source, files, progress)
        try:
            while job.whole is None and (index := await self._take_step(job)) is not None:
                if len(job.rows[index]) >= ROWS_PENDING_MAX:
                    complete, job.rows[index] = _complete_segments(job.rows[index])
                    job.spans[index] += await self._store_whole_segments(job, complete)
            while job.puts:
                await self._await_put(job)
            stored = await self._describe_all(job)
            await self._put_whole(job)
            return stored
        except UnavailableError as error:
            if job.is_refused and not isinstance(error, SpoolFullError):
                raise SpoolFullError("storage is away, and the spool of this device is full") from error
            raise
        finally:
            await end(job.puts)
            if job.keeps_turn:
                self._context.steps.release()
            source.close()
            self.spool.release(job.room)

    async def _describe_all(self, job: _Job) -> tuple[dict[ItemId, Stored], dict[ItemId, str]]:
        """Store the segments that are left; return where all contents lie."""
        files, problems = job.files, job.source.problems
        good = [i for i in range(len(files)) if i not in problems]
        stored: dict[ItemId, Stored] = {}
        for i in [i for i in good if job.spans[i]]:
            job.spans[i] += await self._store_whole_segments(job, cut_segments(job.rows[i]))
            stored[files[i].id] = Stored(tuple(job.spans[i]))
        stored |= await self._describe(job, [(files[i].id, job.rows[i]) for i in good if not job.spans[i]])
        return stored, {files[i].id: reason for i, reason in problems.items()}

    async def _take_step(self, job: _Job) -> int | None:
        """Read and seal the next pieces and begin to store them; return which file the last is of, None at the end.

        Nothing of them is held by the caller, so that whoever waits for his turn holds no memory.
        """
        await self._context.steps.acquire()
        is_kept = False
        try:
            step = await self._context.processor.run(job.source.step)
            if step is None:
                return None
            made, new, held, is_behind = await self._seal_missing(step)
            found = [(raw.hash, job.source.file(raw.file).id, raw.offset) for raw in step]
            for raw in step:
                job.rows[raw.file].append(made[raw.hash])
            batch = _Batch(new, held, found, sum(len(raw.data) for raw in step))
            is_begun, job.is_begun = job.is_begun, True
            if job.source.is_at_end and not (is_begun or is_behind):
                job.whole = batch
                job.keeps_turn = is_kept = True
                return step[-1].file
            while len(job.puts) >= BATCHES_AHEAD:
                is_behind |= await self._await_put(job)
            if is_behind and await self._may_spool(job):
                await self._spool_batch(job, batch)
                return step[-1].file
            put = asyncio.create_task(self._store(batch))
            put.add_done_callback(lambda _: self._context.steps.release())
            job.puts[put], is_kept = batch, True
            return step[-1].file
        finally:
            if not is_kept:
                self._context.steps.release()

    async def _seal_missing(
        self, step: Sequence[RawChunk]
    ) -> tuple[dict[bytes, Row], list[SealedChunk], list[Row], bool]:
        """Return rows of all pieces, by raw hash; sealed chunks that nobody holds yet; rows that turned out stored.

        And whether the spool is not empty: then what is sealed now goes there, behind what is.
        """
        by_hash = {raw.hash: raw.data for raw in step}
        folder = self._record().key

        def look(db: sqlite3.Connection) -> tuple[dict[bytes, Row], bool]:
            rows, is_behind = known_rows(db, folder, by_hash), is_spooled(db, folder)
            return (spooled_rows(db, folder, by_hash) | rows if is_behind else rows), is_behind

        known, is_behind = await self._context.database.run(look)
        missing = [raw_hash for raw_hash in by_hash if raw_hash not in known]
        held: dict[bytes, Row] = {}
        if missing and not is_behind:
            held = await self._find_received({raw_hash: by_hash[raw_hash] for raw_hash in missing})
        missing = [raw_hash for raw_hash in missing if raw_hash not in held]
        key = self._context.folder_keys(folder).chunk_key
        sealed: list[SealedChunk] = []
        halves = [missing[::2], missing[1::2]]
        for part in await asyncio.gather(
            *(self._context.processor.run(_seal_some, [(by_hash[h], h) for h in half], key) for half in halves if half)
        ):
            sealed += part
        rows = known | held | {chunk.row.raw_hash: chunk.row for chunk in sealed}
        return rows, sealed, list(held.values()), is_behind

    async def _store(self, batch: _Batch) -> None:
        """Put chunks on a write quorum, hand the receipts in, and note the rows and where the chunks stand."""
        if batch.chunks:
            await self._put([(chunk.ref, chunk.data) for chunk in batch.chunks])
        await self._note(batch, [*(chunk.row for chunk in batch.chunks), *batch.held])

    async def _put_whole(self, job: _Job) -> None:
        """Put the pieces of a job that was to put them with its segments, where all of these were stored already."""
        if job.whole is not None:
            put = asyncio.create_task(self._store(job.whole))
            job.puts[put], job.whole = job.whole, None
            while job.puts:
                await self._await_put(job)

    async def _note(self, batch: _Batch, rows: Sequence[Row]) -> None:
        await self._context.database.run(lambda db: self._note_pieces(db, batch, rows))

    def _note_pieces(self, db: sqlite3.Connection, batch: _Batch, rows: Sequence[Row]) -> None:
        folder = self._record().key
        note_rows(db, folder, rows)
        drop_received(db, folder, [row.raw_hash for row in rows])
        note_places(db, folder, batch.found)

    async def _find_received(self, pieces: Mapping[bytes, bytes]) -> dict[bytes, Row]:
        """Return, by raw hash, the rows of pieces that came over the LAN and that a write quorum turns out to hold.

        This device never saw them there. Sealing them again proves their rows, and the nodes' receipts that they are
        stored. Where the nodes do not answer soon, nothing is taken to be there.
        """
        folder = self._record().key
        claimed = await self._context.database.run(lambda db: received_rows(db, folder, pieces))
        if not claimed:
            return {}
        epochs = self._context.folder_keys(folder).epochs
        keys = [epochs[number].chunk for number in sorted(epochs, reverse=True)]
        made = await self._context.processor.run(_seal_again, [(pieces[h], row) for h, row in claimed.items()], keys)
        try:
            async with asyncio.timeout(LAG_S):
                there = await self._find_stored(made)
        except (TimeoutError, UnavailableError):
            return {}
        return {row.raw_hash: row for row in made if row.id in there}

    async def _find_stored(self, rows: Sequence[Row]) -> set[ChunkId]:
        """Return which of these chunks a write quorum holds, as its receipts say, which are handed in."""
        there: set[ChunkId] = set()
        for start in range(0, len(rows), limits.BATCH_CHUNKS_MAX):
            part = [ChunkRef(row.id, row.length) for row in rows[start : start + limits.BATCH_CHUNKS_MAX]]
            receipts, held = await self._context.chunks.have(self._record().id, part)
            if receipts:
                await self._context.link.ask(m.AddReceipts(self._record().id, receipts), m.Ok)
            there |= held
        return there

    async def _put(self, chunks: Sequence[tuple[ChunkRef, bytes | bytearray]]) -> None:
        batch: list[tuple[ChunkRef, bytes | bytearray]] = []
        size = 0
        for chunk in shuffled(self._context.entropy, chunks):
            if batch and (size + chunk[0].length > limits.BATCH_BYTES_MAX or len(batch) == limits.BATCH_CHUNKS_MAX):
                await self._put_batch(batch)
                batch, size = [], 0
            batch.append(chunk)
            size += chunk[0].length
        if batch:
            await self._put_batch(batch)

    async def _put_batch(self, batch: Sequence[tuple[ChunkRef, bytes | bytearray]]) -> None:
        receipts: tuple[ReceiptFor, ...] = await self._context.chunks.put(self._record().id, batch)
        await self._context.link.ask(m.AddReceipts(self._record().id, receipts), m.Ok)

    # --- Where storage lags behind

    async def _may_spool(self, job: _Job) -> bool:
        """Tell whether there is room in the spool for all of a job; it is kept from then on."""
        if not job.room and not job.is_refused:
            size = job.spool_bytes()
            if await self.spool.reserve(size):
                job.room = size
            else:
                job.is_refused = True
        return not job.is_refused

    async def _arrivals(self, job: _Job, puts: Collection[asyncio.Task[None]]) -> set[asyncio.Task[None]]:
        """Wait for puts, and return those that have ended; none of them: they lag behind, and may be spooled."""
        done, _ = await asyncio.wait(puts, timeout=LAG_S, return_when=asyncio.FIRST_COMPLETED)
        if not done and not await self._may_spool(job):
            done, _ = await asyncio.wait(puts, return_when=asyncio.FIRST_COMPLETED)
        return done

    async def _await_put(self, job: _Job) -> bool:
        """Wait until a batch is put, or has to be spooled with all others; tell whether that was so."""
        done = await self._arrivals(job, job.puts)
        late = not done
        for put in done or list(job.puts):
            batch = job.puts.pop(put)
            if await self._is_put(job, put):
                job.progress(batch.raw_bytes)
            else:
                await self._spool_batch(job, batch)
                late = True
        return late

    async def _is_put(self, job: _Job, put: asyncio.Task[None]) -> bool:
        """Tell whether a put has come to its end, which it does now or not at all; if not, it may be spooled.

        Raises:
            KinfolderError: It failed otherwise than by an absence that the spool makes up for.
        """
        await end([] if put.done() else [put])
        if put.cancelled():
            return False
        error = put.exception()
        if error is None:
            return True
        if isinstance(error, UnavailableError) and await self._may_spool(job):
            return False
        raise error

    async def _spool_batch(self, job: _Job, batch: _Batch) -> None:
        await self.spool.keep([Sealed(chunk.ref, chunk.data, chunk.row) for chunk in batch.chunks])
        await self._note(batch, batch.held)
        job.progress(batch.raw_bytes)

    # --- Segments

    async def _describe(self, job: _Job, contents: Sequence[tuple[ItemId, list[Row]]]) -> dict[ItemId, Stored]:
        """Seal the rows of contents into segments, store those and tell the coordinator what they list."""
        layout = lay_out([rows for _, rows in contents])
        keys = await self._store_segments(job, layout.segments)
        return {
            id: Stored(tuple((keys[span.segment], span.start, span.count) for span in spans))
            for (id, _), spans in zip(contents, layout.spans, strict=True)
        }

    async def _store_whole_segments(
        self, job: _Job, groups: Sequence[Sequence[Row]]
    ) -> list[tuple[SegmentKey, int, int]]:
        keys = await self._store_segments(job, groups)
        return [(key, 0, len(rows)) for key, rows in zip(keys, groups, strict=True)]

    async def _store_segments(self, job: _Job, groups: Sequence[Sequence[Row]]) -> list[SegmentKey]:
        folder = self._record().key
        chunk_key = self._context.folder_keys(folder).chunk_key
        sealed = await self._context.processor.run(lambda: [seal_segment(rows, chunk_key) for rows in groups])

        def look(db: sqlite3.Connection) -> tuple[set[ChunkId], bool]:
            ids = [segment.key.id for segment in sealed]
            waiting = {id for id in ids if spooled(db, folder, id) is not None}
            return known_segments(db, folder, ids) | waiting, is_spooled(db, folder)

        known, is_behind = await self._context.database.run(look)
        new = {
            s.key.id: Sealed(s.ref, s.data, pinned(s, rows))
            for s, rows in zip(sealed, groups, strict=True)
            if s.key.id not in known
        }
        if new:
            lists = [(s.key.id, rows) for s, rows in zip(sealed, groups, strict=True) if s.key.id in new]
            await self._store_new_segments(job, list(new.values()), lists, is_behind=is_behind)
        return [segment.key for segment in sealed]

    async def _store_new_segments(
        self, job: _Job, new: Sequence[Sealed], lists: Sequence[tuple[ChunkId, Sequence[Row]]], *, is_behind: bool
    ) -> None:
        whole, job.whole = job.whole, None
        if not (is_behind and await self._may_spool(job)):
            put = asyncio.create_task(self._put_segments(new, lists, whole))
            try:
                await self._arrivals(job, [put])
                if await self._is_put(job, put):
                    job.progress(0 if whole is None else whole.raw_bytes)
                    return
            finally:
                await end([put])
        if whole is not None:
            await self._spool_batch(job, whole)
        await self._context.database.run(lambda db: note_lists(db, self._record().key, lists))
        await self.spool.keep(new)

    async def _put_segments(
        self, new: Sequence[Sealed], lists: Sequence[tuple[ChunkId, Sequence[Row]]], whole: _Batch | None
    ) -> None:
        """Put segments, with all pieces that they list where a job has few, and tell the coordinator what they list."""
        pieces = () if whole is None else whole.chunks
        await self._put([*((chunk.ref, chunk.data) for chunk in pieces), *((each.ref, each.data) for each in new)])
        for part in pin_messages([each.what for each in new if isinstance(each.what, m.PinnedSegment)]):
            await self._context.link.ask(m.PinSegments(self._record().id, part), m.Ok)
        folder = self._record().key

        def note(db: sqlite3.Connection) -> None:
            if whole is not None:
                self._note_pieces(db, whole, [*(chunk.row for chunk in whole.chunks), *whole.held])
            note_segments(db, folder, [each.ref.id for each in new])
            note_lists(db, folder, lists)

        await self._context.database.run(note)


def _complete_segments(rows: Sequence[Row]) -> tuple[tuple[tuple[Row, ...], ...], list[Row]]:
    """Return the segments that later rows of the file cannot change, and the rows of the one that they can."""
    segments = cut_segments(rows)
    last = segments[-1]
    if ends_segment(last[-1]) or len(last) == limits.SEGMENT_ROWS_MAX:
        return segments, []
    return segments[:-1], list(last)


def _seal_some(pieces: Sequence[tuple[bytes, bytes]], key: bytes) -> list[SealedChunk]:
    return [seal_chunk(data, key, raw_hash=raw_hash) for data, raw_hash in pieces]


def _seal_again(pieces: Sequence[tuple[bytes, Row]], keys: Sequence[bytes]) -> list[Row]:
    """Return the rows that are true: sealing the piece again under one of the keys gives this very chunk."""
    return [row for data, row in pieces if any(reseal_chunk(data, row, key) is not None for key in keys)]
