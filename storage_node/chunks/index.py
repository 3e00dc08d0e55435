"""Where each chunk lies: a SQLite table that is only a cache of the packs.

Rule 1: whatever stands here can be made again from the packs; a damaged index is thrown away, never trusted.
Rule 2: rows of a pack and how far it was read are one transaction, so a restart reads on from there.
Rule 3: one look-up by (id, pseudonym) answers alike, and by the same way, for foreign and for unknown chunks.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final, NamedTuple

from protocol.grants import ChunkRef
from protocol.ids import ChunkId, Pseudonym
from storage_node.chunks.records import Kind, Record

OpenDatabase = Callable[[bool], sqlite3.Connection]
"""The door to the database: opens it, or with True makes it anew and empty."""

_VERSION: Final = 1
_SCHEMA: Final = """
CREATE TABLE pseudonyms (number INTEGER PRIMARY KEY, pseudonym BLOB NOT NULL UNIQUE);
CREATE TABLE held (
    id BLOB NOT NULL, reader INTEGER NOT NULL, pack INTEGER NOT NULL, offset INTEGER NOT NULL, length INTEGER NOT NULL,
    PRIMARY KEY (id, reader)
) WITHOUT ROWID;
CREATE TABLE lost (id BLOB NOT NULL, reader INTEGER NOT NULL, PRIMARY KEY (id, reader)) WITHOUT ROWID;
CREATE TABLE packs (number INTEGER PRIMARY KEY, indexed_bytes INTEGER NOT NULL);
"""


class Place(NamedTuple):
    """Where a chunk's record is."""

    pack: int
    offset: int
    length: int


class Index:
    """The table; its methods block and may be called from any thread.

    Raises ``sqlite3.DatabaseError`` from every method; one that :func:`is_damage` calls for a new index.

    Args:
        open_database: See :data:`OpenDatabase`.
    """

    def __init__(self, open_database: OpenDatabase) -> None:
        self._open = open_database
        self._lock = threading.RLock()
        self._numbers: dict[Pseudonym, int] = {}
        self.is_new = False
        """Whether the table was empty, and has to be made from the packs."""
        self._database = open_database(False)
        try:
            if self._version() != _VERSION:
                self.renew()
            else:
                self._load()
        except sqlite3.DatabaseError as error:
            if not is_damage(error):
                raise
            self.renew()

    def renew(self) -> None:
        """Throw everything away."""
        with self._lock:
            self._database.close()
            self._database = self._open(True)
            self._database.executescript(_SCHEMA)
            self._database.execute(f"PRAGMA user_version = {_VERSION}")
            self._numbers = {}
            self._lost_count = 0
            self.is_new = True

    def alone(self) -> threading.RLock:
        """Return a context in which other threads wait: nobody may take a half-made table for the whole."""
        return self._lock

    def close(self) -> None:
        """Close the database."""
        with self._lock:
            self._database.close()

    def find(self, id: ChunkId) -> Place | None:
        """Return where a chunk lies, whoever may read it."""
        with self._lock:
            row = self._database.execute("SELECT pack, offset, length FROM held WHERE id = ? LIMIT 1", (id,)).fetchone()
        return None if row is None else Place(*row)

    def find_for(self, pseudonym: Pseudonym, ids: Sequence[ChunkId]) -> list[Place | None]:
        """Return where those chunks lie that a pseudonym may read."""
        with self._lock:
            # Number -1 is nobody's: an unknown pseudonym takes the same way as a known one.
            reader = self._numbers.get(pseudonym, -1)
            query = "SELECT pack, offset, length FROM held WHERE id = ? AND reader = ?"
            rows = [self._database.execute(query, (id, reader)).fetchone() for id in ids]
        return [None if row is None else Place(*row) for row in rows]

    def indexed_bytes(self) -> dict[int, int]:
        """Return how far each pack stands in the index."""
        with self._lock:
            return dict(self._database.execute("SELECT number, indexed_bytes FROM packs"))

    def add(self, pack: int, records: Iterable[Record], indexed_bytes: int, *, scanned: bool = False) -> None:
        """Take in records of a pack, in their order, and how far the pack was read with them.

        ``scanned``: they were found in a pack, where a second copy of a chunk may follow one that was damaged.
        """
        with self._transaction() as database:
            for record in records:
                self._add(database, pack, record, scanned)
            database.execute(
                "INSERT INTO packs VALUES (?, ?) ON CONFLICT DO UPDATE SET indexed_bytes = excluded.indexed_bytes",
                (pack, indexed_bytes),
            )

    def lose(self, id: ChunkId, place: Place) -> bool:
        """Note that what lies at a place is not that chunk; tell whether it was still said to be."""
        with self._transaction() as database:
            here = "id = ? AND pack = ? AND offset = ?"
            key = (id, place.pack, place.offset)
            database.execute(f"INSERT OR IGNORE INTO lost SELECT id, reader FROM held WHERE {here}", key)  # noqa: S608 - a constant
            gone = database.execute(f"DELETE FROM held WHERE {here}", key).rowcount  # noqa: S608 - a constant
            self._lost_count += gone
        return gone > 0

    def lose_pack(self, pack: int, beyond: int) -> int:
        """Note that a pack ends earlier than the index says; return how many rows were lost."""
        with self._transaction() as database:
            there = "FROM held WHERE pack = ? AND offset >= ?"
            database.execute(f"INSERT OR IGNORE INTO lost SELECT id, reader {there}", (pack, beyond))
            gone = database.execute(f"DELETE {there}", (pack, beyond)).rowcount
            database.execute("UPDATE packs SET indexed_bytes = min(indexed_bytes, ?) WHERE number = ?", (beyond, pack))
            self._lost_count += gone
        return gone

    def note_lost(self, id: ChunkId, pseudonym: Pseudonym) -> None:
        """Note that a record's bytes are damaged, unless the chunk is held elsewhere."""
        with self._transaction() as database:
            if database.execute("SELECT 1 FROM held WHERE id = ?", (id,)).fetchone() is None:
                database.execute("INSERT OR IGNORE INTO lost VALUES (?, ?)", (id, self._number(database, pseudonym)))
                self._lost_count += 1

    def lost(self) -> tuple[ChunkId, ...]:
        """Return the chunks that are lost."""
        with self._lock:
            return tuple(ChunkId(row[0]) for row in self._database.execute("SELECT DISTINCT id FROM lost ORDER BY id"))

    def iterate(self, after: ChunkId | None, count: int) -> tuple[ChunkRef, ...]:
        """Return the next chunks in the order of their ids."""
        query = "SELECT DISTINCT id, length FROM held WHERE id > ? ORDER BY id LIMIT ?"
        with self._lock:
            return tuple(
                ChunkRef(ChunkId(id), length) for id, length in self._database.execute(query, (after or b"", count))
            )

    def _add(self, database: sqlite3.Connection, pack: int, record: Record, scanned: bool) -> None:  # noqa: FBT001
        reader = self._number(database, record.pseudonym)
        match record.kind:
            case Kind.CHUNK:
                # A second copy is only ever written when the first was found damaged: all its readers move.
                at = (pack, record.offset, record.length)
                inserted = database.execute(
                    "INSERT OR IGNORE INTO held VALUES (?, ?, ?, ?, ?)", (record.id, reader, *at)
                ).rowcount
                if scanned or not inserted or self._lost_count:
                    database.execute("UPDATE held SET pack = ?, offset = ?, length = ? WHERE id = ?", (*at, record.id))
                    self._find_again(database, record.id, at)
            case Kind.READER:
                place = "SELECT id, ?, pack, offset, length FROM held WHERE id = ? LIMIT 1"
                database.execute(f"INSERT OR IGNORE INTO held {place}", (reader, record.id))
                if self._lost_count:
                    # Of a damaged chunk: it is this reader's loss too, and its gain when the bytes come back.
                    loss = "SELECT id, ? FROM lost WHERE id = ? LIMIT 1"
                    self._lost_count += database.execute(
                        f"INSERT OR IGNORE INTO lost {loss}", (reader, record.id)
                    ).rowcount
            case Kind.DELETED:
                for table in ("held", "lost"):
                    database.execute(f"DELETE FROM {table} WHERE id = ? AND reader = ?", (record.id, reader))  # noqa: S608 - a constant

    def _find_again(self, database: sqlite3.Connection, id: ChunkId, place: tuple[int, int, int]) -> None:
        database.execute("INSERT OR IGNORE INTO held SELECT id, reader, ?, ?, ? FROM lost WHERE id = ?", (*place, id))
        database.execute("DELETE FROM lost WHERE id = ?", (id,))

    def _number(self, database: sqlite3.Connection, pseudonym: Pseudonym) -> int:
        number = self._numbers.get(pseudonym)
        if number is None:
            number = database.execute("INSERT INTO pseudonyms (pseudonym) VALUES (?)", (pseudonym,)).lastrowid
            assert number is not None
            self._numbers[pseudonym] = number
        return number

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield self._database
                self._database.execute("COMMIT")
            except BaseException:
                if self._database.in_transaction:
                    self._database.execute("ROLLBACK")
                # Numbers given in what was rolled back are not there.
                self._load()
                raise

    def _version(self) -> int:
        return int(self._database.execute("PRAGMA user_version").fetchone()[0])

    def _load(self) -> None:
        rows = self._database.execute("SELECT pseudonym, number FROM pseudonyms")
        self._numbers = {Pseudonym(pseudonym): number for pseudonym, number in rows}
        self._lost_count = int(self._database.execute("SELECT count(*) FROM lost").fetchone()[0])


def is_damage(error: sqlite3.Error) -> bool:
    """Whether an error means that the database file is not one, or no longer."""
    code = getattr(error, "sqlite_errorcode", None)
    damaged = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FORMAT, sqlite3.SQLITE_IOERR_SHORT_READ)
    return code is not None and (code & 0xFF in damaged or code in damaged)


def is_full(error: sqlite3.Error) -> bool:
    """Whether an error means that the disk has no room."""
    return getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL
