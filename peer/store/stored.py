"""What this device knows to be stored: rows, segments and contents that a write quorum holds, by its own experience."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterable, Sequence
from typing import Final

import msgspec

from peer.core.chunk_sealing import Row
from protocol.codec import encode
from protocol.ids import ChunkId, Dot, NodeId

_row: Final = msgspec.msgpack.Decoder(Row)


def known_rows(db: sqlite3.Connection, folder: int, raw_hashes: Collection[bytes]) -> dict[bytes, Row]:
    """Return the rows of pieces that are stored already, by the hash of their raw bytes."""
    found = {}
    for raw_hash in raw_hashes:
        row = db.execute("SELECT row FROM chunk WHERE folder = ? AND raw_hash = ?", (folder, raw_hash)).fetchone()
        if row is not None:
            found[raw_hash] = _row.decode(row[0])
    return found


def note_rows(db: sqlite3.Connection, folder: int, rows: Sequence[Row]) -> None:
    """Remember rows of full chunks that this device put on storage nodes, or fetched from there and opened.

    The first stays: nobody's later row replaces one that is known to hold its bytes.
    """
    db.executemany(
        "INSERT OR IGNORE INTO chunk VALUES (?, ?, ?)",
        [(folder, row.raw_hash, encode(row)) for row in rows if row.base is None],
    )


def note_contents(db: sqlite3.Connection, folder: int, contents: Iterable[tuple[bytes, NodeId, Dot]]) -> None:
    """Remember contents, by the hash of all their bytes, whose chunks this device put or opened, every one.

    The first stays: where this device holds that file, a copy of it takes its bytes from there.
    """
    db.executemany(
        "INSERT OR IGNORE INTO known_content VALUES (?, ?, ?, ?)",
        [(folder, hash, node, encode(dot)) for hash, node, dot in contents],
    )


def known_segments(db: sqlite3.Connection, folder: int, ids: Collection[ChunkId]) -> set[ChunkId]:
    """Return which segments this device stored and declared already."""
    return {
        id for id in ids if db.execute("SELECT 1 FROM segment WHERE folder = ? AND id = ?", (folder, id)).fetchone()
    }


def note_segments(db: sqlite3.Connection, folder: int, ids: Collection[ChunkId]) -> None:
    """Remember segments that this device put on storage nodes and declared: what others declared is their word."""
    db.executemany("INSERT OR IGNORE INTO segment VALUES (?, ?)", [(folder, id) for id in ids])
