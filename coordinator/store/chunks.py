"""Segments that folders pin, and which storage node holds which chunk."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from typing import Any, Final, NamedTuple

from sqlalchemy import Connection, bindparam, func, select, tuple_

from coordinator.core.ordering import Wait
from coordinator.core.retirement import Holding, depends
from coordinator.store.schema import CHUNKS, FOLDERS, SEGMENTS, WAITS
from coordinator.store.statements import KEYS, Prepared, groups, insert, upsert
from protocol.errors import ProtocolError
from protocol.grants import ChunkRef
from protocol.ids import ChunkId, FolderId, Pseudonym
from protocol.messages import PinnedSegment

_REF_BYTES: Final = 36
_SELECT_NODES = Prepared(
    select(CHUNKS.c.chunk, CHUNKS.c.nodes).where(
        CHUNKS.c.pseudonym == bindparam("pseudonym"), CHUNKS.c.chunk.in_([KEYS])
    )
)

_SELECT_SEGMENTS = Prepared(
    select(SEGMENTS.c.segment, SEGMENTS.c.length, SEGMENTS.c.chunks).where(
        SEGMENTS.c.folder == bindparam("folder"), SEGMENTS.c.segment.in_([KEYS])
    )
)


class Location(NamedTuple):
    """A chunk of a folder and the numbers of the nodes that hold it."""

    pseudonym: Pseudonym
    chunk: ChunkId
    length: int
    nodes: tuple[int, ...]


class Added(NamedTuple):
    """What came of noting that a node holds chunks."""

    counts: dict[ChunkId, int]
    """How many nodes now hold each."""
    bytes: int
    """Of those that it was not known to hold."""


def pack_numbers(numbers: Iterable[int]) -> bytes:
    """Return node numbers as they stand in the database: two bytes each, sorted."""
    return b"".join(number.to_bytes(2, "big") for number in sorted(numbers))


def unpack_numbers(data: bytes) -> tuple[int, ...]:
    """Return the node numbers that :func:`pack_numbers` packed."""
    numbers = array("H", data)
    if array("H", b"\x00\x01")[0] != 1:
        numbers.byteswap()
    return tuple(numbers)


def _pack_refs(refs: Iterable[ChunkRef]) -> bytes:
    return b"".join(ref.id + ref.length.to_bytes(4, "big") for ref in refs)


class Chunks:
    """Access to segments and chunks in one transaction."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def counts(self, pseudonym: Pseudonym, chunks: Iterable[ChunkId]) -> dict[ChunkId, int]:
        """Return how many nodes hold each of these chunks; those held by none may be left out."""
        found: dict[ChunkId, int] = {}
        for group in groups(chunks):
            rows = _SELECT_NODES.run_for(self._connection, group, {"pseudonym": pseudonym})
            found.update((ChunkId(chunk), len(nodes) // 2) for chunk, nodes in rows)
        return found

    def declare(
        self, folder: FolderId, pseudonym: Pseudonym, segments: Sequence[PinnedSegment], quorum: int
    ) -> list[ChunkId]:
        """Add segments that are not known yet; return those of them that are durable already.

        For each other one, what it waits for is noted.

        Raises:
            ProtocolError: A known segment is declared with other chunks.
        """
        fresh = {segment.segment.id: segment for segment in segments}
        for group in groups(list(fresh)):
            rows = _SELECT_SEGMENTS.run_for(self._connection, group, {"folder": folder})
            for id, length, chunks in rows:
                known = fresh.pop(ChunkId(id))
                if known.segment.length != length or _pack_refs(known.chunks) != chunks:
                    raise ProtocolError("a segment is declared with other chunks than before")
        wanted = {ref.id for one in fresh.values() for ref in (one.segment, *one.chunks)}
        counts = self.counts(pseudonym, wanted)
        durable: list[ChunkId] = []
        rows_new = []
        waits = []
        for id, one in fresh.items():
            missing = {ref.id for ref in (one.segment, *one.chunks) if counts.get(ref.id, 0) < quorum}
            if not missing:
                durable.append(id)
            waits += [{"folder": folder, "kind": int(Wait.CHUNK), "target": chunk, "waiter": id} for chunk in missing]
            rows_new.append(
                {
                    "folder": folder,
                    "segment": id,
                    "length": one.segment.length,
                    "durable": int(not missing),
                    "chunks": _pack_refs(one.chunks),
                }
            )
        insert(self._connection, SEGMENTS, rows_new)
        upsert(self._connection, WAITS, waits)
        return durable

    def add_locations(self, pseudonym: Pseudonym, chunks: Sequence[ChunkRef], node: int) -> Added:
        """Note that a node holds these chunks."""
        lengths = {ref.id: ref.length for ref in chunks}
        held: dict[ChunkId, tuple[int, ...]] = {}
        for group in groups(list(lengths)):
            rows = _SELECT_NODES.run_for(self._connection, group, {"pseudonym": pseudonym})
            held.update((ChunkId(chunk), unpack_numbers(nodes)) for chunk, nodes in rows)
        counts: dict[ChunkId, int] = {}
        changed: list[dict[str, Any]] = []
        for id, length in lengths.items():
            nodes = held.get(id, ())
            if node not in nodes:
                nodes = (*nodes, node)
                changed.append({"pseudonym": pseudonym, "chunk": id, "length": length, "nodes": pack_numbers(nodes)})
            counts[id] = len(nodes)
        upsert(self._connection, CHUNKS, changed)
        return Added(counts, sum(lengths[row["chunk"]] for row in changed))

    def remove_locations(self, places: Iterable[tuple[Pseudonym, ChunkId]], node: int) -> None:
        """Note that a node does not hold these chunks any more."""
        for group in groups(places):
            changed = [
                {"pseudonym": pseudonym, "chunk": chunk, "length": length, "nodes": pack_numbers(set(nodes) - {node})}
                for pseudonym, chunk, length, nodes in self._select(
                    tuple_(CHUNKS.c.pseudonym, CHUNKS.c.chunk).in_(group)
                )
                if node in nodes
            ]
            upsert(self._connection, CHUNKS, changed)

    def release(
        self, places: Iterable[tuple[Pseudonym, ChunkId]], node: int, others: Collection[int], replicas: int
    ) -> None:
        """Forget that a node that leaves holds these chunks, but for those that depend on it after all."""
        for group in groups(places):
            changed = [
                {"pseudonym": pseudonym, "chunk": chunk, "length": length, "nodes": pack_numbers(set(nodes) - {node})}
                for pseudonym, chunk, length, nodes in self._select(
                    tuple_(CHUNKS.c.pseudonym, CHUNKS.c.chunk).in_(group)
                )
                if node in nodes and not depends(nodes, node, others, replicas)
            ]
            upsert(self._connection, CHUNKS, changed)

    def holdings(self) -> list[Holding]:
        """Count all chunks by the nodes that hold them; it looks through the whole table."""
        rows = self._connection.execute(
            select(CHUNKS.c.nodes, func.count(), func.sum(CHUNKS.c.length)).group_by(CHUNKS.c.nodes)
        )
        return [Holding(unpack_numbers(nodes), chunks, int(size)) for nodes, chunks, size in rows]

    def by_folder(self, held: Sequence[tuple[int, ...]], limit: int) -> list[tuple[FolderId, int]]:
        """Return folders with most chunks that just these nodes hold, and how many; it looks through the whole table.

        Args:
            held: The sets of nodes, in any number.
            limit: Of folders.
        """
        found: Counter[FolderId] = Counter()
        for group in groups(held):
            rows = self._connection.execute(
                select(FOLDERS.c.folder, func.count())
                .join(CHUNKS, CHUNKS.c.pseudonym == FOLDERS.c.pseudonym)
                .where(CHUNKS.c.nodes.in_([pack_numbers(nodes) for nodes in group]))
                .group_by(FOLDERS.c.folder)
            )
            for folder, count in rows:
                found[FolderId(folder)] += count
        return found.most_common(limit)

    def held_by(
        self, held: Sequence[tuple[int, ...]], after: tuple[bytes, bytes], limit: int
    ) -> list[tuple[Pseudonym, ChunkId]]:
        """Return chunks that just these nodes hold, by rising (pseudonym, id), after one of them.

        Args:
            held: The sets of nodes; no more than KEYS_A_QUERY_MAX.
            after: The chunk to begin after.
            limit: Of chunks.
        """
        key = tuple_(CHUNKS.c.pseudonym, CHUNKS.c.chunk)
        found = self._select((key > after) & CHUNKS.c.nodes.in_([pack_numbers(nodes) for nodes in held]), limit)
        return [(one.pseudonym, one.chunk) for one in found]

    def where(self, chunks: Iterable[ChunkId]) -> list[Location]:
        """Return these chunks in whichever folder they are; it looks through the whole table."""
        found: list[Location] = []
        for group in groups(chunks):
            found += self._select(CHUNKS.c.chunk.in_(group))
        return found

    def page(self, after: tuple[bytes, bytes], limit: int) -> list[Location]:
        """Return chunks by rising (pseudonym, id), after one of them."""
        key = tuple_(CHUNKS.c.pseudonym, CHUNKS.c.chunk)
        return self._select(key > after, limit)

    def find(self, pseudonym: Pseudonym, chunk: ChunkId) -> Location | None:
        """Return where one chunk of a folder is."""
        found = self._select((CHUNKS.c.pseudonym == pseudonym) & (CHUNKS.c.chunk == chunk))
        return found[0] if found else None

    def _select(self, condition: object, limit: int | None = None) -> list[Location]:
        rows = self._connection.execute(
            select(CHUNKS.c.pseudonym, CHUNKS.c.chunk, CHUNKS.c.length, CHUNKS.c.nodes)
            .where(condition)  # type: ignore[arg-type]  # a clause of whichever kind
            .order_by(CHUNKS.c.pseudonym, CHUNKS.c.chunk)
            .limit(limit)
        )
        return [
            Location(Pseudonym(pseudonym), ChunkId(chunk), length, unpack_numbers(nodes))
            for pseudonym, chunk, length, nodes in rows
        ]

    def waiting_folders(self) -> list[FolderId]:
        """Return the folders in which something waits for copies of chunks."""
        rows = self._connection.execute(select(WAITS.c.folder).distinct().where(WAITS.c.kind == int(Wait.CHUNK)))
        return [FolderId(folder) for (folder,) in rows]

    def waited_for(self, folder: FolderId) -> list[ChunkId]:
        """Return the chunks of a folder whose copies something waits for."""
        rows = self._connection.execute(
            select(WAITS.c.target).distinct().where(WAITS.c.folder == folder, WAITS.c.kind == int(Wait.CHUNK))
        )
        return [ChunkId(chunk) for (chunk,) in rows]

    def segment_chunks(self, folder: FolderId, segment: ChunkId) -> tuple[ChunkRef, ...] | None:
        """Return the chunks that a declared segment lists, None if it was not declared."""
        data: bytes | None = self._connection.execute(
            select(SEGMENTS.c.chunks).where(SEGMENTS.c.folder == folder, SEGMENTS.c.segment == segment)
        ).scalar_one_or_none()
        if data is None:
            return None
        return tuple(
            ChunkRef(ChunkId(data[at : at + 32]), int.from_bytes(data[at + 32 : at + 36], "big"))
            for at in range(0, len(data), _REF_BYTES)
        )
