"""The fold's state as rows of the local database.

Each table of :class:`peer.core.fold_state.FoldState` is a table of (folder, key, row); the remote tree has columns for
parent and name, so that a directory is listed by an index.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from struct import Struct
from typing import Any, Final, Generic, TypeVar

import msgspec

from peer.core.fold_state import ContentRow, EntryRow, FoldState, NameRow, NodeRow, PlaceRow
from peer.core.tree import Item, ItemId
from peer.store.lookups import together
from peer.store.trees import read_content, read_members
from protocol.entries import AdmittedEntry
from protocol.ids import Dot, NodeId

K = TypeVar("K")
S = TypeVar("S")
V = TypeVar("V")

_SINGLE: Final = ("places", "contents", "nodes", "removed", "voids", "entries", "batches")
_PAIRS: Final = ("names", "acts", "parts")

FOLD_SCHEMA: Final = (
    "".join(
        f"CREATE TABLE IF NOT EXISTS fold_{name} "
        "(folder INTEGER NOT NULL, id BLOB NOT NULL, row BLOB NOT NULL, PRIMARY KEY (folder, id)) WITHOUT ROWID;\n"
        for name in _SINGLE
    )
    + "".join(
        f"CREATE TABLE IF NOT EXISTS fold_{name} (folder INTEGER NOT NULL, first BLOB NOT NULL, second BLOB NOT NULL, "
        "row BLOB NOT NULL, PRIMARY KEY (folder, first, second)) WITHOUT ROWID;\n"
        for name in _PAIRS
    )
    + "CREATE TABLE IF NOT EXISTS fold_item (folder INTEGER NOT NULL, id BLOB NOT NULL, parent BLOB NOT NULL, "
    "name BLOB NOT NULL, content BLOB NOT NULL, members BLOB NOT NULL, PRIMARY KEY (folder, id)) WITHOUT ROWID;\n"
    "CREATE INDEX IF NOT EXISTS fold_child ON fold_item (folder, parent, name);\n"
)

_encode = msgspec.msgpack.Encoder().encode
_pack_dot = Struct(">HQI").pack


def _dot_key(dot: Dot) -> bytes:
    return _pack_dot(dot.device, dot.seq, dot.index)


def _pair_key(pair: tuple[int, int]) -> bytes:
    return pair[0].to_bytes(2, "big") + pair[1].to_bytes(8, "big")


def _bytes_key(key: bytes) -> bytes:
    return key


def _int_key(key: int) -> bytes:
    return key.to_bytes(4, "big")


def _run_each(db: sqlite3.Connection, *statements: tuple[str, Sequence[tuple[Any, ...]]]) -> None:
    """Run each statement for each of its rows; most have none, and to begin one costs as much as a row."""
    for text, rows in statements:
        if rows:
            db.executemany(text, rows)


class KeyTable(Generic[K, V]):
    """Rows by key."""

    def __init__(self, db: sqlite3.Connection, folder: int, name: str, key: Callable[[K], bytes], kind: Any) -> None:
        self._db = db
        self._folder = folder
        self._key = key
        self._decode = msgspec.msgpack.Decoder(kind).decode
        self._get = f"SELECT row FROM fold_{name} WHERE folder = ? AND id = ?"
        self._many = f"SELECT id, row FROM fold_{name} WHERE folder = ? AND id IN"
        self._put = f"INSERT OR REPLACE INTO fold_{name} VALUES (?, ?, ?)"
        self._drop = f"DELETE FROM fold_{name} WHERE folder = ? AND id = ?"

    def get(self, key: K, /) -> V | None:
        """Return the row, or None."""
        row = self._db.execute(self._get, (self._folder, self._key(key))).fetchone()
        return None if row is None else self._decode(row[0])

    def put(self, key: K, row: V, /) -> None:
        """Add or replace the row."""
        self._db.execute(self._put, (self._folder, self._key(key), _encode(row)))

    def drop(self, key: K, /) -> None:
        """Remove the row, if it is there."""
        self._db.execute(self._drop, (self._folder, self._key(key)))

    def many(self, keys: Sequence[K]) -> Iterator[tuple[K, V]]:
        """Yield those of these rows that are there, with their keys."""
        named = {self._key(key): key for key in keys}
        for id, row in together(self._db, self._many, (self._folder,), list(named)):
            yield named[id], self._decode(row)

    def write(self, rows: Mapping[K, V | None]) -> None:
        """Add or replace these rows; drop those that are None."""
        key, folder = self._key, self._folder
        gone = [(folder, key(each)) for each, row in rows.items() if row is None]
        kept = [(folder, key(each), _encode(row)) for each, row in rows.items() if row is not None]
        _run_each(self._db, (self._drop, gone), (self._put, kept))


class PairTable(Generic[S, V]):
    """Rows by a key of two parts."""

    def __init__(
        self,
        db: sqlite3.Connection,
        folder: int,
        name: str,
        key: Callable[[S], bytes],
        read_key: Callable[[bytes], S],
        kind: Any,
    ) -> None:
        self._db = db
        self._folder = folder
        self._key = key
        self._read_key = read_key
        self._decode = msgspec.msgpack.Decoder(kind).decode
        self._get = f"SELECT row FROM fold_{name} WHERE folder = ? AND first = ? AND second = ?"
        self._many = f"SELECT second, row FROM fold_{name} WHERE folder = ? AND first = ? AND second IN"
        self._put = f"INSERT OR REPLACE INTO fold_{name} VALUES (?, ?, ?, ?)"
        self._drop = f"DELETE FROM fold_{name} WHERE folder = ? AND first = ? AND second = ?"
        self._under = f"SELECT second, row FROM fold_{name} WHERE folder = ? AND first = ? ORDER BY second"

    def get(self, key: tuple[bytes, S], /) -> V | None:
        """Return the row, or None."""
        row = self._db.execute(self._get, (self._folder, key[0], self._key(key[1]))).fetchone()
        return None if row is None else self._decode(row[0])

    def put(self, key: tuple[bytes, S], row: V, /) -> None:
        """Add or replace the row."""
        self._db.execute(self._put, (self._folder, key[0], self._key(key[1]), _encode(row)))

    def drop(self, key: tuple[bytes, S], /) -> None:
        """Remove the row, if it is there."""
        self._db.execute(self._drop, (self._folder, key[0], self._key(key[1])))

    def many(self, first: bytes, seconds: Sequence[S]) -> Iterator[tuple[S, V]]:
        """Yield those of these rows that are there, with their second parts."""
        keys = [self._key(second) for second in seconds]
        for key, row in together(self._db, self._many, (self._folder, first), keys):
            yield self._read_key(key), self._decode(row)

    def write(self, rows: Mapping[tuple[bytes, S], V | None]) -> None:
        """Add or replace these rows; drop those that are None."""
        key, folder = self._key, self._folder
        gone = [(folder, first, key(second)) for (first, second), row in rows.items() if row is None]
        kept = [(folder, first, key(second), _encode(row)) for (first, second), row in rows.items() if row is not None]
        _run_each(self._db, (self._drop, gone), (self._put, kept))

    def under(self, first: bytes, /) -> Iterator[tuple[S, V]]:
        """Yield second part and row of every row with this first part, by second part."""
        for second, row in self._db.execute(self._under, (self._folder, first)).fetchall():
            yield self._read_key(second), self._decode(row)


class ItemTable:
    """The remote tree."""

    def __init__(self, db: sqlite3.Connection, folder: int) -> None:
        self._db = db
        self._folder = folder

    def _item(self, row: tuple[bytes, bytes, bytes, bytes, bytes]) -> Item:
        return Item(NodeId(row[0]), NodeId(row[1]), os.fsdecode(row[2]), read_content(row[3]), read_members(row[4]))

    def item(self, id: ItemId) -> Item | None:
        """Return the item, or None."""
        row = self._db.execute(
            "SELECT id, parent, name, content, members FROM fold_item WHERE folder = ? AND id = ?", (self._folder, id)
        ).fetchone()
        return None if row is None else self._item(row)

    def child(self, parent: ItemId, name: str) -> Item | None:
        """Return the item of exactly this name in a directory, or None."""
        row = self._db.execute(
            "SELECT id, parent, name, content, members FROM fold_item WHERE folder = ? AND parent = ? AND name = ?",
            (self._folder, parent, os.fsencode(name)),
        ).fetchone()
        return None if row is None else self._item(row)

    def children(self, parent: ItemId) -> Iterator[Item]:
        """Yield the items of a directory, by name."""
        rows = self._db.execute(
            "SELECT id, parent, name, content, members FROM fold_item WHERE folder = ? AND parent = ?",
            (self._folder, parent),
        ).fetchall()
        yield from sorted((self._item(row) for row in rows), key=lambda item: item.name)

    def put(self, item: Item) -> None:
        """Add an item, or replace the one with its id."""
        self.write({item.id: item})

    def drop(self, id: ItemId) -> None:
        """Remove the item, if it is there; what stands under it stays."""
        self.write({id: None})

    def many(self, ids: Sequence[ItemId]) -> Iterator[Item]:
        """Yield those of these items that are there."""
        query = "SELECT id, parent, name, content, members FROM fold_item WHERE folder = ? AND id IN"
        for row in together(self._db, query, (self._folder,), ids):
            yield self._item(row)

    def write(self, items: Mapping[ItemId, Item | None]) -> None:
        """Add or replace these items; drop those that are None."""
        folder = self._folder
        gone = [(folder, id) for id, item in items.items() if item is None]
        kept = [
            (folder, i.id, i.parent, os.fsencode(i.name), _encode(i.content), _encode(i.members))
            for i in items.values()
            if i is not None
        ]
        _run_each(
            self._db,
            ("DELETE FROM fold_item WHERE folder = ? AND id = ?", gone),
            ("INSERT OR REPLACE INTO fold_item VALUES (?, ?, ?, ?, ?, ?)", kept),
        )


def places_named(db: sqlite3.Connection, folder: int, names: Sequence[bytes]) -> Iterator[PlaceRow]:
    """Yield the ordered values of place registers in whose row one of these names occurs, and perhaps some more."""
    decode = msgspec.msgpack.Decoder(PlaceRow).decode
    found = " OR ".join("instr(row, ?)" for _ in names)
    for (row,) in db.execute(f"SELECT row FROM fold_places WHERE folder = ? AND ({found})", (folder, *names)):
        yield decode(row)


class SqliteState(FoldState):
    """The state of one folder in the local database; every call runs in the database's thread."""

    def __init__(self, db: sqlite3.Connection, folder: int) -> None:
        dots = tuple[Dot, ...]
        super().__init__(
            places=KeyTable(db, folder, "places", _dot_key, PlaceRow),
            contents=KeyTable(db, folder, "contents", _dot_key, ContentRow),
            nodes=KeyTable(db, folder, "nodes", _bytes_key, NodeRow),
            names=PairTable(db, folder, "names", _bytes_key, _bytes_key, NameRow),
            removed=KeyTable(db, folder, "removed", _dot_key, dots),
            acts=PairTable(db, folder, "acts", _bytes_key, NodeId, dots),
            voids=KeyTable(db, folder, "voids", _dot_key, dots),
            entries=KeyTable(db, folder, "entries", _pair_key, EntryRow),
            parts=PairTable(db, folder, "parts", _int_key, lambda raw: int.from_bytes(raw, "big"), AdmittedEntry),
            batches=KeyTable(db, folder, "batches", _bytes_key, int),
            tree=ItemTable(db, folder),
        )
