"""The snapshots of each folder, so that they are found without opening the whole log.

Rule 1: a snapshot means what its author's device held when it signed: all entries up to the position that it had seen, and
    its own entries before this one.
"""

from __future__ import annotations

import sqlite3

import msgspec

from protocol.entries import AdmittedEntry
from protocol.ids import EntryHash


class Snapshot(msgspec.Struct, frozen=True):
    """One named state of a folder."""

    hash: EntryHash
    name: str
    device: int
    """Number of the device that made it."""
    seq: int
    seen: int
    """Up to here its author had followed the log."""
    time_ms: int
    """By the coordinator, once it is ordered."""
    position: int
    """0: not ordered yet."""


_COLUMNS = "hash, name, device, seq, seen, time_ms, position"


def note_snapshot(db: sqlite3.Connection, folder: int, entry: AdmittedEntry, position: int, time_ms: int) -> None:
    """Remember the snapshot that an entry makes, if it makes one; an ordered one replaces what was known of it before."""
    if not entry.payload.snapshot:
        return
    header, payload = entry.header, entry.payload
    db.execute(
        "INSERT OR REPLACE INTO snapshot VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (folder, entry.hash, payload.snapshot, header.device, header.seq, payload.seen.position, time_ms, position),
    )


def drop_snapshot(db: sqlite3.Connection, folder: int, hash: EntryHash) -> None:
    """Forget the snapshot of an entry that can never be ordered."""
    db.execute("DELETE FROM snapshot WHERE folder = ? AND hash = ?", (folder, hash))


def all_snapshots(db: sqlite3.Connection, folder: int) -> list[Snapshot]:
    """Return a folder's snapshots, the newest first; those that are not ordered yet before all others."""
    rows = db.execute(f"SELECT {_COLUMNS} FROM snapshot WHERE folder = ?", (folder,)).fetchall()
    found = [Snapshot(EntryHash(row[0]), *row[1:]) for row in rows]
    return sorted(found, key=lambda one: (one.position == 0, one.position, one.seq), reverse=True)
