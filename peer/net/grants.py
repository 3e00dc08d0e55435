"""Grants at hand: one per folder and use, renewed before it runs out of time or of bytes.

A grant is asked for seldom and used for many batches; each batch is bound to this device by a signed statement.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

import msgspec

from peer.net.coordinator_link import CoordinatorLink
from protocol import limits
from protocol import messages as m
from protocol.grants import ChunkRef, Grant, Operation, Signed, Statement, batch_root, open_signed, sign_body
from protocol.ids import FolderId, StorageNodeId

BYTES_WANTED: Final = 4 * limits.GIB
CHUNKS_WANTED: Final = 65_536
RENEW_BEFORE_MS: Final = 60_000


class Allowance(msgspec.Struct):
    """A grant in use, and where to use it."""

    grant: Signed
    body: Grant
    granted: m.Granted
    bytes_left: int
    chunks_left: int


class Grants:
    """Keeps the grants of one device."""

    def __init__(self, link: CoordinatorLink, sign_seed: bytes) -> None:
        self._link = link
        self._sign_seed = sign_seed
        self._held: dict[tuple[FolderId, Operation], Allowance] = {}
        self._locks: dict[tuple[FolderId, Operation], asyncio.Lock] = {}

    async def get(self, folder: FolderId, operation: Operation, *, size: int, chunks: int) -> Allowance:
        """Return a grant that still covers this much, and take it off what is left.

        Raises:
            UnavailableError: The coordinator cannot be asked.
            AccessDeniedError: It does not grant this.
        """
        key = (folder, operation)
        async with self._locks.setdefault(key, asyncio.Lock()):
            held = self._held.get(key)
            if held is None or not self._covers(held, size, chunks):
                granted = await self._link.ask(
                    m.GetGrant(folder, operation, max(size, BYTES_WANTED), max(chunks, CHUNKS_WANTED)), m.Granted
                )
                body = open_signed(granted.grant, Grant, self._link.address.token_key)
                held = Allowance(granted.grant, body, granted, body.bytes_max, body.chunks_max)
                self._held[key] = held
            held.bytes_left -= size
            held.chunks_left -= chunks
            return held

    def forget(self, folder: FolderId) -> None:
        """Drop what is held for a folder: nodes changed, or one refused it."""
        for key in [key for key in self._held if key[0] == folder]:
            del self._held[key]

    def forget_all(self) -> None:
        """Drop everything that is held."""
        self._held.clear()

    def state(
        self, allowance: Allowance, operation: Operation, nodes: Sequence[StorageNodeId], chunks: Sequence[ChunkRef]
    ) -> Signed:
        """Return this device's statement for one batch."""
        return sign_body(
            Statement(
                grant=allowance.body.id,
                operation=operation,
                nodes=tuple(nodes),
                root=batch_root(chunks),
                count=len(chunks),
                bytes=sum(c.length for c in chunks),
                time_ms=self._link.now_ms(),
            ),
            self._sign_seed,
        )

    def _covers(self, held: Allowance, size: int, chunks: int) -> bool:
        return (
            held.bytes_left >= size
            and held.chunks_left >= chunks
            # One of a coordinator whose clock was ahead holds good later: a node takes none of that before.
            and held.body.not_before_ms <= self._link.now_ms() + limits.CLOCK_SKEW_S_MAX * 1000
            and self._link.now_ms() < held.body.expires_ms - RENEW_BEFORE_MS
        )
