"""Send contents: read files once, cut, seal and store what storage nodes do not hold yet, describe it in segments.

A job is one large file or many small ones. Its chunks are durable on a write quorum, and the coordinator has the
receipts, before the contents are used in an entry; so an entry never waits for its bytes.

Rule 1: a content is published only if all of the file was read as one state: its hash is the one that was observed.
Rule 2: at most :data:`BATCHES_AHEAD` batches of a job are sealed and on the way, and of all jobs of the device together
    as many steps as :class:`Context` allows; a file of any size passes through that.
Rule 3: a chunk is noted as stored only after its receipts were handed in, so a cut transfer repeats no more than these.
    A content counts as stored only if its chunks were put or opened here; a row in another's segment is his word.
Rule 4: of a large file only the rows of the segment in work are in memory; those of the segments before are stored.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping, Sequence
from typing import Final

import msgspec
from blake3 import blake3

from peer.core.chunk_sealing import Row, SealedChunk, reseal_chunk, seal_chunk
from peer.core.chunking import Chunker, cut_stream
from peer.core.segments import cut_segments, ends_segment, lay_out, pinned, seal_segment
from peer.core.tree import Content, ItemId
from peer.disk.roots import Root, RootGuard, RootMissing
from peer.disk.walk import opened, split
from peer.engine.context import Context
from peer.engine.tasks import end, some_done
from peer.store.folders import FolderRecord
from peer.store.places import drop_received, note_lists, note_places, received_rows
from protocol import limits
from protocol import messages as m
from protocol.codec import encode
from protocol.effects import Access, Handle
from protocol.entries import SegmentKey
from protocol.grants import ChunkRef, ReceiptFor
from protocol.ids import ChunkId, Dot, NodeId

READ_BYTES: Final = 8 * limits.MIB
READ_CHUNKS: Final = 256
BATCHES_AHEAD: Final = 2
REFS_PER_MESSAGE_MAX: Final = 8_000
ROWS_PENDING_MAX: Final = limits.SEGMENT_ROWS_MAX
"""From this many rows of one file on, the segments that are complete are stored while the rest is still read."""

_row = msgspec.msgpack.Decoder(Row)


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


def _take_all(pending: list[RawChunk]) -> list[RawChunk]:
    taken = list(pending)
    pending.clear()
    return taken


class Uploader:
    """Sends one folder's contents."""

    def __init__(self, context: Context, record: Callable[[], FolderRecord], guard: RootGuard) -> None:
        self._context = context
        self._record = record
        self._guard = guard

    async def send(
        self, files: Sequence[ToSend], progress: Callable[[int], None]
    ) -> tuple[dict[ItemId, Stored], dict[ItemId, str]]:
        """Make the bytes of files durable; return where they lie, and reasons for those that could not be sent.

        Args:
            files: One large file, or small ones of together a few dozen MiB.
            progress: Told the raw bytes that are done, as they are.

        Raises:
            NoQuorumError, UnavailableError: The storage or the coordinator is away; try the whole job again later.
        """
        if max((file.content.size for file in files), default=0) <= READ_BYTES:
            return await self._send(files, progress)
        async with self._context.large_uploads:
            return await self._send(files, progress)

    async def _send(
        self, files: Sequence[ToSend], progress: Callable[[int], None]
    ) -> tuple[dict[ItemId, Stored], dict[ItemId, str]]:
        source = _Source(self._guard, files, self._context.folder_keys(self._record().key).chunker)
        rows: list[list[Row]] = [[] for _ in files]
        spans: list[list[tuple[SegmentKey, int, int]]] = [[] for _ in files]
        puts: set[asyncio.Task[None]] = set()
        try:
            while (index := await self._take_step(source, rows, puts, progress)) is not None:
                if len(rows[index]) >= ROWS_PENDING_MAX:
                    complete, rows[index] = _complete_segments(rows[index])
                    spans[index] += await self._store_whole_segments(complete)
            while puts:
                puts = await some_done(puts)
        finally:
            await end(puts)
            source.close()
        good = [i for i in range(len(files)) if i not in source.problems]
        stored: dict[ItemId, Stored] = {}
        for i in [i for i in good if spans[i]]:
            spans[i] += await self._store_whole_segments(cut_segments(rows[i]))
            stored[files[i].id] = Stored(tuple(spans[i]))
        stored |= await self._describe([(files[i].id, rows[i]) for i in good if not spans[i]])
        return stored, {files[i].id: reason for i, reason in source.problems.items()}

    async def _take_step(
        self, source: _Source, rows: list[list[Row]], puts: set[asyncio.Task[None]], progress: Callable[[int], None]
    ) -> int | None:
        """Read and seal the next pieces and begin to store them; return which file the last is of, None at the end.

        Nothing of them is held by the caller, so that whoever waits for his turn holds no memory.
        """
        await self._context.steps.acquire()
        put = None
        try:
            step = await self._context.processor.run(source.step)
            if step is None:
                return None
            made, new, held = await self._seal_missing(step)
            found = [(raw.hash, source.file(raw.file).id, raw.offset) for raw in step]
            for raw in step:
                rows[raw.file].append(made[raw.hash])
            while len(puts) >= BATCHES_AHEAD:
                puts.intersection_update(await some_done(puts))
            put = asyncio.create_task(self._store(new, held, found, sum(len(raw.data) for raw in step), progress))
            put.add_done_callback(lambda _: self._context.steps.release())
            puts.add(put)
            return step[-1].file
        finally:
            if put is None:
                self._context.steps.release()

    async def _seal_missing(self, step: Sequence[RawChunk]) -> tuple[dict[bytes, Row], list[SealedChunk], list[Row]]:
        """Return rows of all pieces, by raw hash; sealed chunks that no node holds yet; rows that turned out stored."""
        by_hash = {raw.hash: raw.data for raw in step}
        folder = self._record().key
        known = await self._context.database.run(lambda db: known_rows(db, folder, by_hash))
        missing = [raw_hash for raw_hash in by_hash if raw_hash not in known]
        held = await self._find_received({raw_hash: by_hash[raw_hash] for raw_hash in missing}) if missing else {}
        missing = [raw_hash for raw_hash in missing if raw_hash not in held]
        key = self._context.folder_keys(folder).chunk_key
        sealed: list[SealedChunk] = []
        halves = [missing[::2], missing[1::2]]
        for part in await asyncio.gather(
            *(self._context.processor.run(_seal_some, [(by_hash[h], h) for h in half], key) for half in halves if half)
        ):
            sealed += part
        rows = known | held | {chunk.row.raw_hash: chunk.row for chunk in sealed}
        return rows, sealed, list(held.values())

    async def _store(
        self,
        chunks: Sequence[SealedChunk],
        held: Sequence[Row],
        found: Sequence[tuple[bytes, ItemId, int]],
        raw_bytes: int,
        progress: Callable[[int], None],
    ) -> None:
        """Put chunks on a write quorum, hand the receipts in, and note the rows and where the chunks stand."""
        if chunks:
            await self._put([(chunk.ref, chunk.data) for chunk in chunks])
        folder = self._record().key
        rows = [*(chunk.row for chunk in chunks), *held]

        def note(db: sqlite3.Connection) -> None:
            note_rows(db, folder, rows)
            drop_received(db, folder, [row.raw_hash for row in rows])
            note_places(db, folder, found)

        await self._context.database.run(note)
        progress(raw_bytes)

    async def _find_received(self, pieces: Mapping[bytes, bytes]) -> dict[bytes, Row]:
        """Return, by raw hash, the rows of pieces that came over the LAN and that a write quorum turns out to hold.

        This device never saw them there. Sealing them again proves their rows, and the nodes' receipts that they are stored.
        """
        folder = self._record().key
        claimed = await self._context.database.run(lambda db: received_rows(db, folder, pieces))
        if not claimed:
            return {}
        epochs = self._context.folder_keys(folder).epochs
        keys = [epochs[number].chunk for number in sorted(epochs, reverse=True)]
        made = await self._context.processor.run(_seal_again, [(pieces[h], row) for h, row in claimed.items()], keys)
        there = await self._find_stored(made)
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
        # A fresh order for each batch: what was next to what in a file is nobody's business (security 3.6).
        order = self._context.entropy(4 * len(chunks))
        shuffled = [chunks[i] for i in sorted(range(len(chunks)), key=lambda i: order[4 * i : 4 * i + 4])]
        batch: list[tuple[ChunkRef, bytes | bytearray]] = []
        size = 0
        for chunk in shuffled:
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

    # --- Segments

    async def _describe(self, contents: Sequence[tuple[ItemId, list[Row]]]) -> dict[ItemId, Stored]:
        """Seal the rows of contents into segments, store those and tell the coordinator what they list."""
        layout = lay_out([rows for _, rows in contents])
        keys = await self._store_segments(layout.segments)
        return {
            id: Stored(tuple((keys[span.segment], span.start, span.count) for span in spans))
            for (id, _), spans in zip(contents, layout.spans, strict=True)
        }

    async def _store_whole_segments(self, groups: Sequence[Sequence[Row]]) -> list[tuple[SegmentKey, int, int]]:
        keys = await self._store_segments(groups)
        return [(key, 0, len(rows)) for key, rows in zip(keys, groups, strict=True)]

    async def _store_segments(self, groups: Sequence[Sequence[Row]]) -> list[SegmentKey]:
        chunk_key = self._context.folder_keys(self._record().key).chunk_key
        sealed = await self._context.processor.run(lambda: [seal_segment(rows, chunk_key) for rows in groups])
        known = await self._context.database.run(
            lambda db: known_segments(db, self._record().key, [s.key.id for s in sealed])
        )
        new = {s.key.id: (s, rows) for s, rows in zip(sealed, groups, strict=True) if s.key.id not in known}
        await self._put([(segment.ref, segment.data) for segment, _ in new.values()])
        for part in _pin_messages([pinned(segment, rows) for segment, rows in new.values()]):
            await self._context.link.ask(m.PinSegments(self._record().id, part), m.Ok)

        def note(db: sqlite3.Connection) -> None:
            note_segments(db, self._record().key, list(new))
            note_lists(db, self._record().key, [(s.key.id, rows) for s, rows in zip(sealed, groups, strict=True)])

        await self._context.database.run(note)
        return [segment.key for segment in sealed]


def _complete_segments(rows: Sequence[Row]) -> tuple[tuple[tuple[Row, ...], ...], list[Row]]:
    """Return the segments that later rows of the file cannot change, and the rows of the one that they can."""
    segments = cut_segments(rows)
    last = segments[-1]
    if ends_segment(last[-1]) or len(last) == limits.SEGMENT_ROWS_MAX:
        return segments, []
    return segments[:-1], list(last)


def _pin_messages(segments: Sequence[m.PinnedSegment]) -> Iterator[tuple[m.PinnedSegment, ...]]:
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


def _seal_some(pieces: Sequence[tuple[bytes, bytes]], key: bytes) -> list[SealedChunk]:
    return [seal_chunk(data, key, raw_hash=raw_hash) for data, raw_hash in pieces]


def _seal_again(pieces: Sequence[tuple[bytes, Row]], keys: Sequence[bytes]) -> list[Row]:
    """Return the rows that are true: sealing the piece again under one of the keys gives this very chunk."""
    return [row for data, row in pieces if any(reseal_chunk(data, row, key) is not None for key in keys)]


# --- What is known to be stored


def known_rows(db: sqlite3.Connection, folder: int, raw_hashes: Collection[bytes]) -> dict[bytes, Row]:
    """Return the rows of pieces that are stored already, by the hash of their raw bytes."""
    found = {}
    for raw_hash in raw_hashes:
        row = db.execute("SELECT row FROM chunk WHERE folder = ? AND raw_hash = ?", (folder, raw_hash)).fetchone()
        if row is not None:
            found[raw_hash] = _row.decode(row[0])
    return found


def note_rows(db: sqlite3.Connection, folder: int, rows: Sequence[Row]) -> None:
    """Remember rows of full chunks that this device put on storage nodes, or fetched from there and opened.

    The first stays: nobody's later row replaces one that is known to hold its bytes.
    """
    db.executemany(
        "INSERT OR IGNORE INTO chunk VALUES (?, ?, ?)",
        [(folder, row.raw_hash, encode(row)) for row in rows if row.base is None],
    )


def note_contents(db: sqlite3.Connection, folder: int, contents: Iterable[tuple[bytes, NodeId, Dot]]) -> None:
    """Remember contents, by the hash of all their bytes, whose chunks this device put or opened, every one.

    The first stays: where this device holds that file, a copy of it takes its bytes from there.
    """
    db.executemany(
        "INSERT OR IGNORE INTO known_content VALUES (?, ?, ?, ?)",
        [(folder, hash, node, encode(dot)) for hash, node, dot in contents],
    )


def known_segments(db: sqlite3.Connection, folder: int, ids: Collection[ChunkId]) -> set[ChunkId]:
    """Return which segments this device stored and declared already."""
    return {
        id for id in ids if db.execute("SELECT 1 FROM segment WHERE folder = ? AND id = ?", (folder, id)).fetchone()
    }


def note_segments(db: sqlite3.Connection, folder: int, ids: Collection[ChunkId]) -> None:
    """Remember segments that this device put on storage nodes and declared: what others declared is their word."""
    db.executemany("INSERT OR IGNORE INTO segment VALUES (?, ?)", [(folder, id) for id in ids])
