"""Storage nodes that are taken out of service, and how far that is."""

from __future__ import annotations

import msgspec
from sqlalchemy import Connection, select, update

from coordinator.core.retirement import Left
from coordinator.store.schema import RETIREMENTS
from coordinator.store.statements import Prepared, insert
from protocol.ids import StorageNodeId


class Retirement(msgspec.Struct, frozen=True):
    """How far one node's retirement is."""

    node: StorageNodeId
    asked_ms: int
    ended_ms: int
    """When nothing depended on it any more; 0: it goes on."""
    counted_ms: int
    """When the server last counted what is left; 0: never yet."""
    chunks_left: int
    bytes_left: int
    chunks_alone: int
    """Chunks that are left and that no node which is up can give."""

    @property
    def is_over(self) -> bool:
        """Whether the node is out of service."""
        return self.ended_ms > 0


_SELECT_ALL = Prepared(
    select(*(RETIREMENTS.c[name] for name in Retirement.__struct_fields__)).order_by(
        RETIREMENTS.c.asked_ms, RETIREMENTS.c.node
    )
)


class Retirements:
    """Access to retirements in one transaction."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def all(self) -> dict[StorageNodeId, Retirement]:
        """Return all retirements by their nodes."""
        rows = _SELECT_ALL.run(self._connection, {})
        return {one.node: one for one in (Retirement(*row) for row in rows)}

    def begin(self, node: StorageNodeId, now_ms: int) -> None:
        """Note that a node is to go out of service; one that goes already must not be given."""
        insert(self._connection, RETIREMENTS, [msgspec.structs.asdict(Retirement(node, now_ms, 0, 0, 0, 0, 0))])

    def count(self, node: StorageNodeId, left: Left, now_ms: int) -> None:
        """Note what is left."""
        self._change(node, chunks_left=left.chunks, bytes_left=left.bytes, chunks_alone=left.alone, counted_ms=now_ms)

    def end(self, node: StorageNodeId, now_ms: int) -> None:
        """Note that nothing depends on a node any more."""
        self._change(node, chunks_left=0, bytes_left=0, chunks_alone=0, counted_ms=now_ms, ended_ms=now_ms)

    def _change(self, node: StorageNodeId, **values: int) -> None:
        self._connection.execute(update(RETIREMENTS).where(RETIREMENTS.c.node == node).values(values))
