"""Fetch contents: segments first, then chunks, into staged files that the applier can put in place.

Rule 1: bytes reach a stage only after every check of :mod:`peer.core.chunk_sealing`.
Rule 2: what a stage or this disk holds already is not fetched: a half-received file goes on where it stopped, and the
    chunks of the file that is about to be replaced are taken from there.
Rule 3: at most :data:`BATCHES_AHEAD` batches, and the rows of :data:`SEGMENTS_TOGETHER` segments, are in memory,
    whatever the size of the file.
Rule 4: a row is its author's word. It counts as stored only once its chunk was opened here, a content only once all of its
    chunks were; and what is wrong with one file's rows fails that file alone, whatever it shares with others.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from bisect import bisect_left
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from typing import Final

import msgspec
from blake3 import blake3

from peer.core.chunk_sealing import Row, open_chunk
from peer.core.chunking import Chunker, cut_stream
from peer.core.segments import open_segment
from peer.core.tree import Item, ItemId
from peer.disk.roots import Root, RootGuard, RootMissing
from peer.disk.stages import Stage, Staged
from peer.disk.walk import DiskError, opened, split
from peer.engine.context import Context
from peer.engine.nearby import Nearby
from peer.engine.tasks import run_bounded
from peer.engine.uploader import Stored
from peer.store.folders import FolderRecord
from peer.store.places import drop_received, note_lists, note_places, note_received
from peer.store.stored import known_rows, note_contents, note_rows
from protocol import limits
from protocol.effects import Access, Handle
from protocol.entries import SegmentKey
from protocol.errors import CorruptChunkError, KinfolderError, NoSourceError, ProtocolError, UnavailableError
from protocol.ids import ChunkId, Dot, NodeId
from protocol.lan import Wanted

BATCH_BYTES: Final = 8 * limits.MIB
BATCH_CHUNKS: Final = 256
BATCHES_AHEAD: Final = 2
SEGMENTS_TOGETHER: Final = 8
REUSE_BYTES_MIN: Final = limits.MIB
"""From this size on, the file that is replaced is searched for chunks that stayed."""


class ToFetch(msgspec.Struct, frozen=True):
    """A file that is to stand on this disk."""

    item: Item
    stored: Stored
    old_path: str
    """Where a file of mostly the same bytes may stand; "" for none."""
    is_stored: bool = True
    """Whether storage nodes can have it: not where its entry waits for just that."""


class Piece(msgspec.Struct, frozen=True):
    """One row at its place in one file."""

    file: int
    offset: int
    row: Row


class Span(msgspec.Struct, frozen=True):
    """Some rows of one segment that stand in one file."""

    file: int
    key: SegmentKey
    first: int
    count: int


class Downloader:
    """Fetches one folder's contents."""

    def __init__(
        self, context: Context, record: Callable[[], FolderRecord], guard: RootGuard, nearby: Nearby | None = None
    ) -> None:
        self._context = context
        self._record = record
        self._guard = guard
        self._nearby = nearby

    async def fetch(
        self, files: Sequence[ToFetch], progress: Callable[[int], None]
    ) -> tuple[dict[ItemId, Staged], dict[ItemId, str]]:
        """Stage files; return the finished stages, and reasons for files that could not be fetched.

        Raises:
            UnavailableError: The coordinator or the root is away; try the whole job again later.
        """
        problems: dict[int, str] = {}
        unproven: set[int] = set()
        root = await self._context.processor.run(self._guard.open)
        if isinstance(root, RootMissing):
            raise UnavailableError(root.text)
        stages: dict[int, Stage] = {}
        old: dict[int, OldFile] = {}
        try:
            for index, file in enumerate(files):
                try:
                    stages[index] = await self._context.processor.run(Stage, root, file.item)
                except DiskError as error:
                    problems[index] = error.code
            ends = dict.fromkeys(stages, 0)
            for window in _windows(files):
                pieces = await self._pieces(files, window, ends, problems)
                missing = await self._take_what_is_here(root, files, stages, old, pieces, unproven, progress)
                await self._fetch_pieces(stages, missing, problems, unproven, progress)
                await self._note_places(files, pieces)
            for index, end in ends.items():
                if end != files[index].item.content.size:
                    problems.setdefault(index, "error")  # its author signed rows that do not make the file
            staged, failed = await self._context.processor.run(_finish, files, stages, problems)
            proven = [file.item for index, file in enumerate(files) if index not in unproven and file.item.id in staged]
            await self._note_contents(proven)
            return staged, failed
        finally:
            for each in old.values():
                each.close()
            for stage in stages.values():
                stage.close()
            root.close()

    async def _note_contents(self, items: Sequence[Item]) -> None:
        """Remember contents all of whose chunks were opened here: a copy of them needs to send nothing."""
        found: list[tuple[bytes, NodeId, Dot]] = []
        for item in items:
            member = next(iter(item.members), None)
            if member is not None and member.content and item.content.size:
                found.append((item.content.hash, member.node, member.content[0]))
        if found:
            await self._context.database.run(lambda db: note_contents(db, self._record().key, found))

    async def _note_places(self, files: Sequence[ToFetch], pieces: Sequence[Piece]) -> None:
        """Remember where these chunks will stand once their files are in place, so that others can be given them."""
        found = [(piece.row.raw_hash, files[piece.file].item.id, piece.offset) for piece in pieces]
        await self._context.database.run(lambda db: note_places(db, self._record().key, found))

    # --- Rows

    async def _pieces(
        self, files: Sequence[ToFetch], window: Sequence[Span], ends: dict[int, int], problems: dict[int, str]
    ) -> list[Piece]:
        """Return the rows of some spans at their places; ``ends`` moves on to where each file's next piece goes."""
        far = {span.key.id for span in window if files[span.file].is_stored}
        segments = await self._segments(dict.fromkeys(span.key for span in window), far)
        pieces: list[Piece] = []
        for span in window:
            if span.file in problems:
                continue
            rows = segments.get(span.key, "no_source")
            if isinstance(rows, str):
                problems[span.file] = rows
                continue
            for row in rows[span.first : span.first + span.count]:
                if ends[span.file] + row.raw_length > files[span.file].item.content.size:
                    problems[span.file] = "error"  # as above: more rows than the file has bytes
                    break
                pieces.append(Piece(span.file, ends[span.file], row))
                ends[span.file] += row.raw_length
        return pieces

    async def _segments(
        self, keys: Collection[SegmentKey], far: Collection[ChunkId]
    ) -> dict[SegmentKey, tuple[Row, ...] | str]:
        """Return the rows of segments, or why they cannot be read; those that no node gives are left out.

        Storage nodes are asked only for those of ``far``. One id can be asked for under several keys: whoever can write may name an honest segment with a false opener.
        """
        by_id: dict[ChunkId, list[SegmentKey]] = {}
        for key in keys:
            by_id.setdefault(key.id, []).append(key)
        found: dict[SegmentKey, tuple[Row, ...] | str] = {}
        lists: dict[ChunkId, tuple[Row, ...]] = {}
        with contextlib.suppress(NoSourceError):
            async with contextlib.aclosing(self._sealed_segments(list(by_id), far)) as sealed:
                async for id, data in sealed:
                    for key in by_id[id]:
                        try:
                            found[key] = lists[id] = open_segment(data, key)
                        except (CorruptChunkError, ProtocolError):
                            found[key] = "error"  # the bytes are those of the id: sealed or named so by its author
        await self._context.database.run(lambda db: note_lists(db, self._record().key, lists.items()))
        return found

    async def _sealed_segments(
        self, ids: Sequence[ChunkId], far: Collection[ChunkId]
    ) -> AsyncGenerator[tuple[ChunkId, bytes | bytearray], None]:
        """Yield segments, from near by where they are there.

        Raises:
            NoSourceError: Nobody gives some of them; the others were yielded.
        """
        missing = dict.fromkeys(ids)
        if self._nearby is not None:
            async with contextlib.aclosing(self._nearby.segments(ids)) as near:
                async for id, data in near:
                    del missing[id]
                    yield id, data
        asked = [id for id in missing if id in far]
        if asked:
            async with contextlib.aclosing(self._context.chunks.get(self._record().id, asked)) as found:
                async for id, stored in found:
                    yield id, stored

    # --- What is on this disk already

    async def _take_what_is_here(
        self,
        root: Root,
        files: Sequence[ToFetch],
        stages: Mapping[int, Stage],
        old: dict[int, OldFile],
        pieces: Sequence[Piece],
        unproven: set[int],
        progress: Callable[[int], None],
    ) -> list[Piece]:
        missing: list[Piece] = []
        by_file: dict[int, list[Piece]] = {}
        for piece in pieces:
            by_file.setdefault(piece.file, []).append(piece)
        for index, mine in by_file.items():
            file, stage = files[index], stages[index]
            if stage.resumed or (file.old_path and file.item.content.size >= REUSE_BYTES_MIN):
                if index not in old:
                    chunker = self._context.folder_keys(self._record().key).chunker
                    old[index] = await self._context.processor.run(OldFile, root, file.old_path, chunker)
                rest = await self._context.processor.run(_reuse, stage, old[index], mine)
                progress(sum(p.row.raw_length for p in mine) - sum(p.row.raw_length for p in rest))
                missing += rest
                if not await self._were_opened(set(mine).difference(rest)):
                    unproven.add(index)
            else:
                missing += mine
        return missing

    async def _were_opened(self, pieces: Collection[Piece]) -> bool:
        """Tell whether the chunks of pieces whose bytes were here already are known to hold them."""
        rows = {piece.row.raw_hash: piece.row for piece in pieces}
        known = await self._context.database.run(lambda db: known_rows(db, self._record().key, rows))
        return all(known.get(piece.row.raw_hash) == piece.row for piece in pieces)

    # --- Chunks

    async def _fetch_pieces(
        self,
        stages: Mapping[int, Stage],
        pieces: Sequence[Piece],
        problems: dict[int, str],
        unproven: set[int],
        progress: Callable[[int], None],
    ) -> None:
        locks = {index: asyncio.Lock() for index in stages}
        await run_bounded(
            (self._fetch_batch(stages, locks, batch, problems, unproven, progress) for batch in _batches(pieces)),
            BATCHES_AHEAD,
        )

    async def _fetch_batch(
        self,
        stages: Mapping[int, Stage],
        locks: Mapping[int, asyncio.Lock],
        batch: Sequence[Piece],
        problems: dict[int, str],
        unproven: set[int],
        progress: Callable[[int], None],
    ) -> None:
        wanted: dict[Row, list[Piece]] = {}
        for piece in batch:
            if problems.get(piece.file, "no_source") == "no_source":  # what cannot be written is not fetched, either
                wanted.setdefault(piece.row, []).append(piece)
        if not wanted:
            return

        async def put(row: Row, raw: bytes) -> None:
            for piece in wanted[row]:
                # Where another batch found no source, this one is not in vain: the stage goes on from it.
                if problems.get(piece.file, "no_source") != "no_source":
                    continue
                try:
                    async with locks[piece.file]:
                        await self._context.processor.run(stages[piece.file].write, piece.offset, raw)
                except DiskError as error:
                    problems[piece.file] = error.code
                progress(row.raw_length)

        near = await self._fetch_near(list(wanted), put)
        far = await self._fetch_far([row for row in wanted if row not in near], put)
        for row, pieces in wanted.items():
            if row not in near and row not in far:
                for piece in pieces:
                    problems.setdefault(piece.file, "no_source")
        unknown = await self._context.database.run(lambda db: self._note_rows(db, near, far))
        unproven.update(piece.file for row in unknown for piece in wanted[row])

    def _note_rows(self, db: sqlite3.Connection, near: Collection[Row], far: Collection[Row]) -> list[Row]:
        """Note what was fetched; return the rows of which nobody but their author says that storage nodes hold them."""
        folder = self._record().key
        note_rows(db, folder, list(far))
        drop_received(db, folder, [row.raw_hash for row in far])
        known = known_rows(db, folder, [row.raw_hash for row in near])
        note_received(db, folder, [row for row in near if row.raw_hash not in known])
        return [row for row in near if known.get(row.raw_hash) != row]

    async def _fetch_near(self, rows: Sequence[Row], put: Callable[[Row, bytes], Awaitable[None]]) -> set[Row]:
        """Take what this disk or the LAN gives; return the rows whose bytes were put."""
        done: set[Row] = set()
        if self._nearby is None:
            return done
        wanted: dict[Wanted, list[Row]] = {}
        for row in rows:
            wanted.setdefault(Wanted(row.raw_hash, row.raw_length), []).append(row)
        async with contextlib.aclosing(self._nearby.chunks(list(wanted))) as found:
            async for one, raw in found:
                for row in wanted[one]:
                    await put(row, bytes(raw))
                    done.add(row)
        return done

    async def _fetch_far(self, rows: Sequence[Row], put: Callable[[Row, bytes], Awaitable[None]]) -> set[Row]:
        """Get chunks from storage nodes, and open them; return the rows whose bytes were put."""
        done: set[Row] = set()
        if not rows:
            return done
        by_id: dict[ChunkId, list[Row]] = {}
        for row in rows:
            by_id.setdefault(row.id, []).append(row)
        bases = await self._open_bases(dict.fromkeys(row.base for row in rows if row.base is not None))
        with contextlib.suppress(NoSourceError):
            async with contextlib.aclosing(self._context.chunks.get(self._record().id, list(by_id))) as found:
                async for id, data in found:
                    for row in by_id[id]:
                        try:
                            raw = await self._open(data, row, bases)
                        except CorruptChunkError:
                            continue  # sealed or described so by its author: no source has better
                        done.add(row)
                        await put(row, raw)
        return done

    async def _open_bases(self, rows: Collection[Row]) -> dict[Row, bytes]:
        """Return the raw bytes of those bases that can be had; a row without its base cannot be opened."""
        by_id: dict[ChunkId, list[Row]] = {}
        for row in rows:
            by_id.setdefault(row.id, []).append(row)
        opened: dict[Row, bytes] = {}
        if not by_id:
            return opened
        try:
            async with contextlib.aclosing(self._context.chunks.get(self._record().id, sorted(by_id))) as found:
                async for id, data in found:
                    for row in by_id[id]:
                        try:
                            opened[row] = await self._open(data, row, {})
                        except CorruptChunkError:
                            continue
        except NoSourceError:
            pass
        return opened

    async def _open(self, data: bytes, row: Row, bases: Mapping[Row, bytes]) -> bytes:
        base = None
        if row.base is not None:
            base = bases.get(row.base)
            if base is None:
                raise CorruptChunkError("the base of a chunk is missing")
        return bytes(await self._context.processor.run(lambda: open_chunk(data, row, base=base)))


def _windows(files: Sequence[ToFetch]) -> Iterator[list[Span]]:
    """Yield the spans of all files, in order, in parts of few segments."""
    window: list[Span] = []
    segments: set[SegmentKey] = set()
    rows = 0
    for index, file in enumerate(files):
        for key, first, count in file.stored.spans:
            is_full = key not in segments and len(segments) == SEGMENTS_TOGETHER
            # A content may name one segment over and over.
            if window and (is_full or rows + count > SEGMENTS_TOGETHER * limits.SEGMENT_ROWS_MAX):
                yield window
                window, segments, rows = [], set(), 0
            segments.add(key)
            rows += count
            window.append(Span(index, key, first, count))
    if window:
        yield window


def _batches(pieces: Sequence[Piece]) -> Iterator[list[Piece]]:
    batch: list[Piece] = []
    size = 0
    for piece in pieces:
        base = piece.row.base
        needed = piece.row.length + (0 if base is None else base.length + base.raw_length)
        if batch and (size + needed > BATCH_BYTES or len(batch) == BATCH_CHUNKS):
            yield batch
            batch, size = [], 0
        batch.append(piece)
        size += needed
    if batch:
        yield batch


class OldFile:
    """Finds chunks in the file that is about to be replaced. It is cut once; then each is looked up and read again.

    Takes some fifty bytes of memory for each chunk. Runs in the pool, as all that follows.
    """

    def __init__(self, root: Root, path: str, chunker: Chunker) -> None:
        self._root = root
        self._handle: Handle | None = None
        self._marks: list[int] = []
        """Sorted: the first bytes of a chunk's hash, and where it begins."""
        if not path:
            return
        directory, name = split(path)
        try:
            with opened(root.fs, root.handle, directory) as parent:
                self._handle = root.fs.open_file(parent, name, Access.READ)
            offset = 0
            for data in cut_stream(_reader(root, self._handle), chunker):
                self._marks.append(_mark(blake3(data).digest()) | offset)
                offset += len(data)
        except OSError:
            pass  # what it does not give is fetched
        self._marks.sort()

    def find(self, raw_hash: bytes, length: int) -> bytes | None:
        """Return the bytes of this hash, checked, or None."""
        mark = _mark(raw_hash)
        at = bisect_left(self._marks, mark)
        if self._handle is None or at == len(self._marks) or self._marks[at] >> _OFFSET_BITS != mark >> _OFFSET_BITS:
            return None
        buffer = bytearray(length)
        done, start = 0, self._marks[at] & ((1 << _OFFSET_BITS) - 1)
        try:
            while done < length:
                count = self._root.fs.read(self._handle, memoryview(buffer)[done:], start + done)
                if not count:
                    return None
                done += count
        except OSError:
            return None
        return bytes(buffer) if blake3(buffer).digest() == raw_hash else None

    def close(self) -> None:
        """Close the file."""
        if self._handle is not None:
            self._root.fs.close(self._handle)
            self._handle = None


_OFFSET_BITS: Final = 56


def _mark(raw_hash: bytes) -> int:
    return int.from_bytes(raw_hash[:8], "big") << _OFFSET_BITS


def _reuse(stage: Stage, old: OldFile, pieces: Sequence[Piece]) -> list[Piece]:
    """Fill a stage with what it or the old file holds; return the pieces that are still missing."""
    missing: list[Piece] = []
    for piece in pieces:
        row = piece.row
        if stage.holds(piece.offset, row.raw_length, row.raw_hash):
            continue
        data = old.find(row.raw_hash, row.raw_length)
        try:
            if data is None:
                missing.append(piece)
            else:
                stage.write(piece.offset, data)
        except DiskError:
            missing.append(piece)  # and the disk will say so again
    return missing


def _reader(root: Root, handle: Handle) -> Callable[[memoryview], int]:
    offset = 0

    def read(into: memoryview) -> int:
        nonlocal offset
        count = root.fs.read(handle, into, offset)
        offset += count
        return count

    return read


def _finish(
    files: Sequence[ToFetch], stages: Mapping[int, Stage], problems: Mapping[int, str]
) -> tuple[dict[ItemId, Staged], dict[ItemId, str]]:
    staged: dict[ItemId, Staged] = {}
    failed = {files[index].item.id: reason for index, reason in problems.items()}
    for index, stage in stages.items():
        id = files[index].item.id
        if id in failed:
            continue
        try:
            # One whole chunk or many: the stage hashes all of it once more, since rows are their author's word.
            staged[id] = stage.finish()
        except CorruptChunkError:
            failed[id] = "error"
        except KinfolderError as error:
            failed[id] = error.code
    return staged, failed
