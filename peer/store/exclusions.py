"""What a person keeps off this device, and which synced items no scan sees; both as rows."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable

import msgspec

from peer.core.exclusions import Exclusion
from peer.core.tree import ItemId
from protocol.codec import encode
from protocol.ids import NodeId

_nodes = msgspec.msgpack.Decoder(tuple[NodeId, ...])


def exclusions(connection: sqlite3.Connection, folder: int) -> tuple[Exclusion, ...]:
    """Return a folder's exclusions, by path."""
    rows = connection.execute("SELECT path, parent, nodes FROM exclusion WHERE folder = ? ORDER BY path", (folder,))
    return tuple(
        Exclusion(os.fsdecode(path), None if parent is None else NodeId(parent), _nodes.decode(nodes))
        for path, parent, nodes in rows
    )


def put_exclusions(connection: sqlite3.Connection, folder: int, rows: Iterable[Exclusion]) -> None:
    """Replace a folder's exclusions."""
    connection.execute("DELETE FROM exclusion WHERE folder = ?", (folder,))
    connection.executemany(
        "INSERT INTO exclusion VALUES (?, ?, ?, ?)",
        [(folder, os.fsencode(each.path), each.parent, encode(each.nodes)) for each in rows],
    )


class Unseen:
    """The synced items of one folder whose absence from the disk proves no removal."""

    def __init__(self, connection: sqlite3.Connection, folder: int) -> None:
        self._db = connection
        self._folder = folder
        self._any = (
            connection.execute("SELECT 1 FROM unseen WHERE folder = ? LIMIT 1", (folder,)).fetchone() is not None
        )

    def why(self, id: ItemId) -> bool | None:
        """Return whether a person excluded an item (else it is ignored by a rule); None if it was not left alone."""
        if not self._any:
            return None
        row = self._db.execute("SELECT apart FROM unseen WHERE folder = ? AND id = ?", (self._folder, id)).fetchone()
        return None if row is None else bool(row[0])

    def missing(self, first: ItemId, last: ItemId) -> list[ItemId]:
        """Return the dirty items from one id to another that are synced and that the last scan did not see."""
        rows = self._db.execute(
            "SELECT d.id FROM dirty d JOIN synced_item s ON s.folder = d.folder AND s.id = d.id"
            " WHERE d.folder = ? AND d.id BETWEEN ? AND ?"
            " AND NOT EXISTS (SELECT 1 FROM local_item l WHERE l.folder = d.folder AND l.id = d.id)",
            (self._folder, first, last),
        )
        return [NodeId(row[0]) for row in rows.fetchall()]

    def known(self, first: ItemId, last: ItemId) -> list[ItemId]:
        """Return the dirty items from one id to another that were left alone."""
        if not self._any:
            return []
        rows = self._db.execute(
            "SELECT id FROM unseen u WHERE folder = ? AND id BETWEEN ? AND ?"
            " AND EXISTS (SELECT 1 FROM dirty d WHERE d.folder = u.folder AND d.id = u.id)",
            (self._folder, first, last),
        )
        return [NodeId(row[0]) for row in rows.fetchall()]

    def put(self, id: ItemId, *, apart: bool) -> None:
        """Note that no scan sees an item from now on."""
        self._any = True
        self._db.execute("INSERT OR REPLACE INTO unseen VALUES (?, ?, ?)", (self._folder, id, apart))

    def drop(self, id: ItemId) -> None:
        """Note that scans tell the truth of an item again."""
        self._db.execute("DELETE FROM unseen WHERE folder = ? AND id = ?", (self._folder, id))
