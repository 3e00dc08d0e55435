"""A chunk store in memory: for tests and the simulator, and the shortest statement of what a store does."""

from __future__ import annotations

from collections.abc import Sequence

from blake3 import blake3

from protocol.errors import CorruptChunkError, FullError
from protocol.grants import ChunkRef
from protocol.ids import ChunkId, Pseudonym
from storage_node.chunks.store import Data, Stats


class MemoryStore:
    """Keeps chunks in a dictionary.

    Args:
        limit_bytes: What it may hold.
    """

    def __init__(self, limit_bytes: int = 1 << 40) -> None:
        self.chunks: dict[ChunkId, bytes] = {}
        """What is kept; a test may spoil it."""
        self._readers: dict[ChunkId, set[Pseudonym]] = {}
        self._lost: dict[ChunkId, set[Pseudonym]] = {}
        self._limit_bytes = limit_bytes
        self._stored_bytes = 0

    async def put(self, pseudonym: Pseudonym, chunks: Sequence[tuple[ChunkId, bytes]]) -> None:
        """Keep chunks: see :class:`storage_node.chunks.store.ChunkStore`."""
        if any(blake3(data).digest() != id for id, data in chunks):
            raise CorruptChunkError("a chunk is not what its id says")
        new = {id: bytes(data) for id, data in chunks if not self._is_good(id)}
        if self._stored_bytes + sum(map(len, new.values())) > self._limit_bytes:
            raise FullError("the store is full")
        for id, data in new.items():
            self._stored_bytes += len(data) - len(self.chunks.get(id, b""))
            self.chunks[id] = data
            self._readers.setdefault(id, set()).update(self._lost.pop(id, ()))
        for id, _ in chunks:
            self._readers[id].add(pseudonym)

    async def have(self, pseudonym: Pseudonym, ids: Sequence[ChunkId]) -> tuple[ChunkRef, ...]:
        """Return what the pseudonym may read."""
        return tuple(ChunkRef(id, len(self.chunks[id])) for id in ids if pseudonym in self._readers.get(id, ()))

    async def get(self, pseudonym: Pseudonym, ids: Sequence[ChunkId]) -> tuple[Data | None, ...]:
        """Return bytes or None for each id."""
        await self.verify([id for id in ids if pseudonym in self._readers.get(id, ())])
        return tuple(self.chunks[id] if pseudonym in self._readers.get(id, ()) else None for id in ids)

    async def delete(self, pseudonym: Pseudonym, ids: Sequence[ChunkId]) -> None:
        """Take a reader away."""
        for id in ids:
            readers = self._readers.get(id, set())
            readers.discard(pseudonym)
            self._lost.get(id, set()).discard(pseudonym)
            if id in self.chunks and not readers:
                self._drop(id)

    async def iterate(self, after: ChunkId | None, count: int) -> tuple[ChunkRef, ...]:
        """Return the next chunks by id."""
        ids = sorted(id for id in self.chunks if after is None or id > after)[:count]
        return tuple(ChunkRef(id, len(self.chunks[id])) for id in ids)

    async def verify(self, ids: Sequence[ChunkId]) -> tuple[ChunkId, ...]:
        """Hash chunks again."""
        lost = tuple(id for id in ids if id in self.chunks and not self._is_good(id))
        for id in lost:
            self._lost[id] = set(self._readers[id])
            self._drop(id)
        return lost

    async def lost(self) -> tuple[ChunkId, ...]:
        """Return what was spoilt."""
        return tuple(sorted(id for id, readers in self._lost.items() if readers))

    async def stats(self) -> Stats:
        """Return how full it is."""
        return Stats(self._stored_bytes, max(0, self._limit_bytes - self._stored_bytes))

    async def close(self) -> None:
        """There is nothing to let go of."""

    def _is_good(self, id: ChunkId) -> bool:
        return id in self.chunks and blake3(self.chunks[id]).digest() == id

    def _drop(self, id: ChunkId) -> None:
        self._stored_bytes -= len(self.chunks.pop(id))
        self._readers.pop(id, None)
