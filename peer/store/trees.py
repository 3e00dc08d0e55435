"""The local and the synced tree as rows, and the set of items in which two trees may differ."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Collection, Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Any, Final

import msgspec

from peer.core.observations import Fingerprint
from peer.core.remembered import RememberedTree
from peer.core.tree import Content, Item, ItemId, Member
from peer.store.lookups import together
from protocol.codec import encode
from protocol.ids import NodeId

INODE_MASK: Final = (1 << 63) - 1
"""SQLite's integers have a sign."""

DECODED_MAX: Final = 4_096
"""Values of a kind that are remembered decoded: rows are read again and again while their item changes."""
read_content: Final = lru_cache(DECODED_MAX)(msgspec.msgpack.Decoder(Content).decode)
read_members: Final = lru_cache(DECODED_MAX)(msgspec.msgpack.Decoder(tuple[Member, ...]).decode)
_fingerprint: Final = lru_cache(DECODED_MAX)(msgspec.msgpack.Decoder(Fingerprint).decode)


def _name(raw: bytes) -> str:
    return os.fsdecode(raw)


class _Rows:
    """Lookups that both trees share."""

    _table: str
    _columns: str

    def __init__(self, connection: sqlite3.Connection, folder: int) -> None:
        self._db = connection
        self._folder = folder

    def _item(self, row: tuple[Any, ...]) -> Item:
        raise NotImplementedError

    def item(self, id: ItemId) -> Item | None:
        """Return the item, or None."""
        row = self._db.execute(
            f"SELECT id, parent, name, {self._columns} FROM {self._table} WHERE folder = ? AND id = ?",
            (self._folder, id),
        ).fetchone()
        return None if row is None else self._item(row)

    def many(self, ids: Sequence[ItemId]) -> dict[ItemId, Item]:
        """Return those of these items that are there."""
        query = f"SELECT id, parent, name, {self._columns} FROM {self._table} WHERE folder = ? AND id IN"
        found = (self._item(row) for row in together(self._db, query, (self._folder,), ids))
        return {item.id: item for item in found}

    def child(self, parent: ItemId, name: str) -> Item | None:
        """Return the item of exactly this name in a directory, or None."""
        row = self._db.execute(
            f"SELECT id, parent, name, {self._columns} FROM {self._table} WHERE folder = ? AND parent = ? AND name = ?",
            (self._folder, parent, os.fsencode(name)),
        ).fetchone()
        return None if row is None else self._item(row)

    def children(self, parent: ItemId) -> Iterator[Item]:
        """Yield the items of a directory, by name."""
        rows = self._db.execute(
            f"SELECT id, parent, name, {self._columns} FROM {self._table} WHERE folder = ? AND parent = ? ORDER BY name",
            (self._folder, parent),
        ).fetchall()
        for row in rows:
            yield self._item(row)

    def count(self) -> int:
        """Return how many items there are."""
        found: int = self._db.execute(
            f"SELECT count(*) FROM {self._table} WHERE folder = ?", (self._folder,)
        ).fetchone()[0]
        return found

    def is_empty(self) -> bool:
        """Tell whether there is no item."""
        query = f"SELECT 1 FROM {self._table} WHERE folder = ? LIMIT 1"
        return self._db.execute(query, (self._folder,)).fetchone() is None

    def drop(self, id: ItemId) -> None:
        """Remove an item; what stands under it stays."""
        self.drop_all((id,))

    def drop_all(self, ids: Collection[ItemId]) -> None:
        """Remove items; what stands under them stays."""
        if ids:
            rows = [(self._folder, id) for id in ids]
            self._db.executemany(f"DELETE FROM {self._table} WHERE folder = ? AND id = ?", rows)
            mark_dirty(self._db, self._folder, ids)

    def all(self) -> Iterator[Item]:
        """Yield every item."""
        rows = self._db.execute(
            f"SELECT id, parent, name, {self._columns} FROM {self._table} WHERE folder = ?", (self._folder,)
        )
        for row in rows:
            yield self._item(row)


class LocalTree(_Rows):
    """What the last scan saw. Each write marks its item dirty."""

    _table = "local_item"
    _columns = "content, fingerprint"

    def _item(self, row: tuple[Any, ...]) -> Item:
        return Item(NodeId(row[0]), NodeId(row[1]), _name(row[2]), read_content(row[3]))

    def rows(self, parent: ItemId) -> Iterator[tuple[Item, Fingerprint]]:
        """Yield the items of a directory with how they looked when they were hashed, by name."""
        found = self._db.execute(
            "SELECT id, parent, name, content, fingerprint FROM local_item WHERE folder = ? AND parent = ? ORDER BY name",
            (self._folder, parent),
        ).fetchall()
        for row in found:
            yield self._item(row), _fingerprint(row[4])

    def seen(self, ids: Sequence[ItemId]) -> Iterator[tuple[Item, Fingerprint]]:
        """Yield those of these items that are there, with how they looked when they were hashed."""
        query = "SELECT id, parent, name, content, fingerprint FROM local_item WHERE folder = ? AND id IN"
        for row in together(self._db, query, (self._folder,), ids):
            yield self._item(row), _fingerprint(row[4])

    def holders(self, device: int, inode: int) -> Iterator[tuple[Item, Fingerprint]]:
        """Yield the rows that were seen with this inode."""
        found = self._db.execute(
            "SELECT id, parent, name, content, fingerprint FROM local_item WHERE folder = ? AND inode = ?",
            (self._folder, inode & INODE_MASK),
        ).fetchall()
        for row in found:
            seen = _fingerprint(row[4])
            if (seen.device, seen.inode) == (device, inode):
                yield self._item(row), seen

    def fingerprint(self, id: ItemId) -> Fingerprint | None:
        """Return how an item looked when it was hashed."""
        row = self._db.execute(
            "SELECT fingerprint FROM local_item WHERE folder = ? AND id = ?", (self._folder, id)
        ).fetchone()
        return None if row is None else _fingerprint(row[0])

    def doubt(self, ids: Sequence[ItemId]) -> None:
        """Have the bytes of these items read again when they are looked at next, however they look."""
        for item, seen in [*self.seen(ids)]:
            self.put(item, seen.doubted())

    def put(self, item: Item, fingerprint: Fingerprint) -> None:
        """Add an item or replace the one with its id."""
        self._db.execute(
            "INSERT OR REPLACE INTO local_item VALUES (?, ?, ?, ?, ?, ?, ?)",
            (
                self._folder,
                item.id,
                item.parent,
                os.fsencode(item.name),
                encode(item.content),
                encode(fingerprint),
                fingerprint.inode & INODE_MASK,
            ),
        )
        mark_dirty(self._db, self._folder, (item.id,))


class SyncedTree(_Rows):
    """What the disk held when this device and the log last agreed. Each write marks its item dirty."""

    _table = "synced_item"
    _columns = "content, members"

    def _item(self, row: tuple[Any, ...]) -> Item:
        return Item(NodeId(row[0]), NodeId(row[1]), _name(row[2]), read_content(row[3]), read_members(row[4]))

    def put(self, item: Item) -> None:
        """Add an item or replace the one with its id."""
        self._db.execute(
            "INSERT OR REPLACE INTO synced_item VALUES (?, ?, ?, ?, ?, ?)",
            (self._folder, item.id, item.parent, os.fsencode(item.name), encode(item.content), encode(item.members)),
        )
        mark_dirty(self._db, self._folder, (item.id,))

    def brought_by(self, entries: Collection[tuple[int, int]]) -> set[ItemId]:
        """Return the items that show a value of one of these entries, each by its device's number and its own."""
        return {
            item.id
            for item in self.all()
            if any((dot.device, dot.seq) in entries for one in item.members for dot in (*one.content, *one.place))
        }


def remembered(tree: LocalTree | SyncedTree, ids: Sequence[ItemId]) -> RememberedTree:
    """Return a tree for the length of one decision about these items, which are read together."""
    decided = RememberedTree(tree)
    decided.remember(ids, tree.many(ids))
    return decided


def mark_dirty(connection: sqlite3.Connection, folder: int, ids: Iterable[ItemId]) -> None:
    """Have the next planning look at these items."""
    rows = [(folder, id) for id in ids]
    if rows:
        connection.executemany("INSERT OR IGNORE INTO dirty VALUES (?, ?)", rows)


def mark_all_dirty(connection: sqlite3.Connection, folder: int) -> None:
    """Have the next planning look at everything."""
    for table in ("local_item", "synced_item", "fold_item"):
        connection.execute(f"INSERT OR IGNORE INTO dirty SELECT folder, id FROM {table} WHERE folder = ?", (folder,))


def dirty(connection: sqlite3.Connection, folder: int, most: int, *, after: bytes = b"") -> list[ItemId]:
    """Return up to ``most`` items to look at, by id, beyond ``after``."""
    rows = connection.execute(
        "SELECT id FROM dirty WHERE folder = ? AND id > ? ORDER BY id LIMIT ?", (folder, after, most)
    )
    return [NodeId(row[0]) for row in rows]


def clean(connection: sqlite3.Connection, folder: int, ids: Collection[ItemId]) -> None:
    """Take items off the set: their three trees agree."""
    if ids:
        connection.executemany("DELETE FROM dirty WHERE folder = ? AND id = ?", [(folder, id) for id in ids])


def rekey(db: sqlite3.Connection, folder: int, old: ItemId, new: ItemId) -> None:
    """Give the rows of one item, in local and in synced, another id; what stands under it follows."""
    for table in ("local_item", "synced_item"):
        if db.execute(f"SELECT 1 FROM {table} WHERE folder = ? AND id = ?", (folder, old)).fetchone():
            db.execute(f"DELETE FROM {table} WHERE folder = ? AND id = ?", (folder, new))
        db.execute(f"UPDATE {table} SET id = ? WHERE folder = ? AND id = ?", (new, folder, old))
        children = db.execute(f"SELECT id FROM {table} WHERE folder = ? AND parent = ?", (folder, old)).fetchall()
        db.execute(f"UPDATE {table} SET parent = ? WHERE folder = ? AND parent = ?", (new, folder, old))
        mark_dirty(db, folder, [row[0] for row in children])
    db.execute("UPDATE OR REPLACE held SET id = ? WHERE folder = ? AND id = ?", (new, folder, old))
    mark_dirty(db, folder, [old, new])
