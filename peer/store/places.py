"""What this device can give to others: where chunks stand in its own files, and what segments list.

Rule 1: a place is a hint. Whoever reads there compares the hash, so a stale one costs a read and is wrong about nothing.
Rule 2: chunks are named by the first 8 bytes of their hashes, so that a chunk costs some 40 bytes.
Rule 3: a chunk of two files has one place, the newest; there are never more places than chunks.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterable, Sequence
from typing import Final, NamedTuple

import msgspec

from peer.core.chunk_sealing import Row
from peer.core.tree import ItemId
from protocol.codec import encode
from protocol.ids import ChunkId, NodeId

MARK_BYTES: Final = 8
_row = msgspec.msgpack.Decoder(Row)


class Place(NamedTuple):
    """Where a chunk may stand."""

    item: ItemId
    offset: int


def mark_of(hash: bytes) -> int:
    """Return what stands for a hash in the table: 8 bytes with a sign, as SQLite has them."""
    return int.from_bytes(hash[:MARK_BYTES], "big", signed=True)


def note_places(db: sqlite3.Connection, folder: int, found: Iterable[tuple[bytes, ItemId, int]]) -> None:
    """Remember where chunks stand: (hash of the raw bytes, item, offset in its file)."""
    db.executemany(
        "INSERT OR REPLACE INTO place VALUES (?, ?, ?, ?)",
        [(folder, mark_of(hash), item, offset) for hash, item, offset in found],
    )


def places(db: sqlite3.Connection, folder: int, hashes: Collection[bytes]) -> dict[bytes, Place]:
    """Return where these chunks may stand."""
    found = {}
    for hash in hashes:
        row = db.execute(
            "SELECT item, offset FROM place WHERE folder = ? AND mark = ?", (folder, mark_of(hash))
        ).fetchone()
        if row is not None:
            found[hash] = Place(NodeId(row[0]), row[1])
    return found


def note_received(db: sqlite3.Connection, folder: int, rows: Iterable[Row]) -> None:
    """Remember rows whose bytes came from somewhere else than a storage node."""
    db.executemany(
        "INSERT OR IGNORE INTO received_chunk VALUES (?, ?, ?)",
        [(folder, row.raw_hash, encode(row)) for row in rows if row.base is None],
    )


def received_rows(db: sqlite3.Connection, folder: int, hashes: Collection[bytes]) -> dict[bytes, Row]:
    """Return the rows of chunks of which only their author says that storage nodes hold them."""
    found = {}
    for hash in hashes:
        row = db.execute("SELECT row FROM received_chunk WHERE folder = ? AND raw_hash = ?", (folder, hash)).fetchone()
        if row is not None:
            found[hash] = _row.decode(row[0])
    return found


def drop_received(db: sqlite3.Connection, folder: int, hashes: Iterable[bytes]) -> None:
    """Forget what was received of chunks that storage nodes are now known to hold."""
    db.executemany("DELETE FROM received_chunk WHERE folder = ? AND raw_hash = ?", [(folder, hash) for hash in hashes])


def note_lists(db: sqlite3.Connection, folder: int, lists: Iterable[tuple[ChunkId, Sequence[Row]]]) -> None:
    """Remember what segments list."""
    db.executemany(
        "INSERT OR IGNORE INTO segment_list VALUES (?, ?, ?)",
        [(folder, id, b"".join(row.raw_hash[:MARK_BYTES] for row in rows)) for id, rows in lists],
    )


def listed_rows(db: sqlite3.Connection, folder: int, id: ChunkId) -> tuple[Row, ...] | None:
    """Return the rows that a segment lists, as far as this device can know them; None if one is missing.

    Seal them and compare the id: two rows may begin with the same 8 bytes, or be of two authors.
    """
    found = db.execute("SELECT marks FROM segment_list WHERE folder = ? AND id = ?", (folder, id)).fetchone()
    if found is None:
        return None
    rows = []
    for start in range(0, len(found[0]), MARK_BYTES):
        row = _row_at(db, folder, found[0][start : start + MARK_BYTES])
        if row is None:
            return None
        rows.append(row)
    return tuple(rows)


def _row_at(db: sqlite3.Connection, folder: int, mark: bytes) -> Row | None:
    for table, column in (("chunk", "row"), ("received_chunk", "row"), ("spool", "what")):
        row = db.execute(
            f"SELECT {column} FROM {table} WHERE folder = ? AND raw_hash >= ? AND raw_hash <= ? LIMIT 1",
            (folder, mark, mark + b"\xff" * (32 - MARK_BYTES)),
        ).fetchone()
        if row is not None:
            return _row.decode(row[0])
    return None


def doubt_all(db: sqlite3.Connection, folder: int) -> None:
    """Believe of no chunk that storage nodes hold it: each is asked for before it is used again."""
    db.execute("INSERT OR IGNORE INTO received_chunk SELECT * FROM chunk WHERE folder = ?", (folder,))
    for table in ("chunk", "segment", "known_content"):
        db.execute(f"DELETE FROM {table} WHERE folder = ?", (folder,))
