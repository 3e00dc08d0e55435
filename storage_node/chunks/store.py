"""The interface of a chunk store: what a storage node needs of whatever keeps its chunks.

Rule 1: a chunk is held once, with the pseudonyms that may read it; only bytes make a pseudonym a reader, never an id.
Rule 2: `put` returns when its chunks are durable; what it did not return for may be there or not.
Rule 3: what a pseudonym may not read and what is not there are one answer, found by one way.
Rule 4: bytes that are not what their id says are never handed out: that chunk is lost, and the store goes on.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol, TypeAlias

from protocol.grants import ChunkRef
from protocol.ids import ChunkId, Pseudonym

Data: TypeAlias = bytes | bytearray
"""A chunk's bytes as they were read; nobody changes them."""


class Stats(NamedTuple):
    """How full a store is."""

    stored_bytes: int
    """What the store takes up, its own records included."""
    free_bytes: int
    """What it would still take."""


class ChunkStore(Protocol):
    """Keeps sealed chunks; safe to use from many tasks of one event loop."""

    async def put(self, pseudonym: Pseudonym, chunks: Sequence[tuple[ChunkId, bytes]]) -> None:
        """Make chunks durable and the pseudonym their reader.

        Raises:
            CorruptChunkError: Bytes do not have their id; nothing of this call was stored.
            FullError: There is no room; nothing of this call was stored.
            UnavailableError: The disk failed.
        """

    async def have(self, pseudonym: Pseudonym, ids: Sequence[ChunkId]) -> tuple[ChunkRef, ...]:
        """Return those of the ids that the pseudonym may read, in the order asked."""

    async def get(self, pseudonym: Pseudonym, ids: Sequence[ChunkId]) -> tuple[Data | None, ...]:
        """Return the bytes for each id, or None; the caller bounds how many it asks for at once."""

    async def delete(self, pseudonym: Pseudonym, ids: Sequence[ChunkId]) -> None:
        """Let the pseudonym read these no more, durably; a chunk without readers is held no more."""

    async def iterate(self, after: ChunkId | None, count: int) -> tuple[ChunkRef, ...]:
        """Return the next chunks held by anybody, in the order of their ids."""

    async def verify(self, ids: Sequence[ChunkId]) -> tuple[ChunkId, ...]:
        """Read chunks again and return those that are lost now."""

    async def lost(self) -> tuple[ChunkId, ...]:
        """Return what was durable here and no longer is; a put of its bytes takes a chunk off this list."""

    async def stats(self) -> Stats:
        """Return how full the store is."""

    async def close(self) -> None:
        """Finish what runs and let go of the disk."""
