"""Storage nodes as the coordinator knows them, and devices whose grants nodes must no longer honour."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache

import msgspec
from sqlalchemy import Connection, bindparam, delete, func, select, update

from coordinator.store.schema import REVOCATIONS, STORAGE_NODES
from coordinator.store.statements import Prepared, insert, upsert
from protocol.ids import DeviceId, Pseudonym, StorageNodeId


class StorageNode(msgspec.Struct, frozen=True):
    """A storage node."""

    node: StorageNodeId
    number: int
    """Its short number in this database."""
    sign: bytes
    url: str
    certificate: bytes
    zone: str
    operator: str
    online: bool
    """As last written; what holds while the server runs is who is connected."""
    last_seen_ms: int
    free_bytes: int
    stored_bytes: int


_DELETE_REVOCATIONS = Prepared(delete(REVOCATIONS).where(REVOCATIONS.c.time_ms < bindparam("since_ms")))
_SELECT_REVOCATIONS = Prepared(
    select(REVOCATIONS.c.device, REVOCATIONS.c.pseudonym).order_by(REVOCATIONS.c.device, REVOCATIONS.c.pseudonym)
)
_SELECT_ALL = Prepared(
    select(*(STORAGE_NODES.c[name] for name in StorageNode.__struct_fields__)).order_by(STORAGE_NODES.c.number)
)


@cache
def _update(*names: str) -> Prepared:
    """Return the statement that changes these columns of a node."""
    change = update(STORAGE_NODES).where(STORAGE_NODES.c.node == bindparam("key_node"))
    return Prepared(change.values({name: bindparam(f"new_{name}") for name in names}))


class Nodes:
    """Access to storage nodes in one transaction."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def all(self) -> list[StorageNode]:
        """Return all nodes by their numbers."""
        rows = _SELECT_ALL.run(self._connection, {})
        found = (StorageNode(*row) for row in rows)
        return [msgspec.structs.replace(one, online=bool(one.online)) for one in found]

    def next_number(self) -> int:
        """Return the number that a new node would get."""
        highest: int | None = self._connection.execute(select(func.max(STORAGE_NODES.c.number))).scalar_one()
        return (highest or 0) + 1

    def add(self, node: StorageNode) -> None:
        """Add a node."""
        insert(self._connection, STORAGE_NODES, [msgspec.structs.asdict(node) | {"online": int(node.online)}])

    def change(self, node: StorageNodeId, **values: object) -> None:
        """Change some columns of a node."""
        new = {f"new_{name}": value for name, value in values.items()}
        _update(*values).run(self._connection, {"key_node": node, **new})

    def all_offline(self) -> None:
        """Note that no node is connected: the server has just started, or has stopped."""
        self._connection.execute(update(STORAGE_NODES).values(online=0))

    def revoke(self, pairs: Iterable[tuple[DeviceId, Pseudonym]], now_ms: int) -> None:
        """Note that a device may no longer use grants for a folder."""
        rows = [{"device": device, "pseudonym": pseudonym, "time_ms": now_ms} for device, pseudonym in pairs]
        upsert(self._connection, REVOCATIONS, rows)

    def revoked(self, since_ms: int) -> list[tuple[DeviceId, Pseudonym]]:
        """Return what was revoked since a time, and forget what is older."""
        _DELETE_REVOCATIONS.run(self._connection, {"since_ms": since_ms})
        rows = _SELECT_REVOCATIONS.run(self._connection, {})
        return [(DeviceId(device), Pseudonym(pseudonym)) for device, pseudonym in rows]
