"""What a device knows of its one folder, read and spoilt behind its back: the runner's hand in a device's database.

Rule 1: only while no process works on the home.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
from collections.abc import Callable, Sequence
from typing import Any, Final

_ROOT: Final = bytes(16)
_ROWS_MAX: Final = 1_000_000


def _key(connection: sqlite3.Connection) -> int:
    found = connection.execute("SELECT key FROM folder ORDER BY key DESC LIMIT 1").fetchone()
    return int(found[0]) if found else -1


def head(database: sqlite3.Connection) -> int:
    """Return the highest position of the folder's log that the device has, the sum of several; 0 if it has none."""
    keys = [row[0] for row in database.execute("SELECT key FROM folder")]
    heads = (database.execute("SELECT max(position) FROM log WHERE folder = ?", (key,)).fetchone() for key in keys)
    return sum(int(found[0] or 0) for found in heads)


def rows_digest(database: sqlite3.Connection) -> str:
    """Return a digest of all rows of the device's state."""
    hashing = hashlib.sha256()
    for statement in database.iterdump():
        hashing.update(statement.encode("utf-8", "surrogateescape"))
    return hashing.hexdigest()


def versions(database: sqlite3.Connection) -> dict[tuple[int, int], bytes]:
    """Return the hash of each entry that the device knows, by its author's number and counter."""
    rows = database.execute("SELECT device, seq, hash FROM entry WHERE folder = ?", (_key(database),))
    return {(int(device), int(seq)): bytes(hash) for device, seq, hash in rows}


def stale_paths(database: sqlite3.Connection, is_there: Callable[[str], bool]) -> list[str]:
    """Return the paths of rows for what does not stand on the disk."""
    key = _key(database)
    tables = [
        {id: (parent, name) for id, parent, name in database.execute(statement, (key,))}
        for statement in (
            "SELECT id, parent, name FROM local_item WHERE folder = ?",
            "SELECT id, parent, name FROM synced_item WHERE folder = ?",
        )
    ]
    paths = {_path(table, id) for table in tables for id in table}
    return sorted(path for path in paths if path and not is_there(path))


def _path(table: dict[bytes, tuple[bytes, bytes]], id: bytes) -> str:
    parts: list[str] = []
    while id in table and len(parts) < 1000:
        id, name = table[id]
        parts.append(os.fsdecode(name))
    return "/".join(reversed([part for part in parts if part]))


def drop_and_add_rows(database: sqlite3.Connection, drop: int, add: int) -> None:
    """Take the rows of some files out of what the device saw and agreed on, and put in some of files that never were."""
    key = _key(database)
    tables = ("local_item", "synced_item")
    ids = [_files(database, table, key) for table in tables]
    both = [id for id in ids[0] if id in set(ids[1])]
    for table in tables:
        for number in range(add):
            _copy_row(database, table, key, both[-1], number)
        for id in both[:drop]:
            database.execute(f"DELETE FROM {table} WHERE folder = ? AND id = ?", (key, id))  # noqa: S608 - ours


def _files(connection: sqlite3.Connection, table: str, key: int) -> Sequence[bytes]:
    statement = f"SELECT id FROM {table} WHERE folder = ? AND id != ? ORDER BY name LIMIT {_ROWS_MAX}"  # noqa: S608 - ours
    return [bytes(row[0]) for row in connection.execute(statement, (key, _ROOT))]


def _copy_row(connection: sqlite3.Connection, table: str, key: int, id: bytes, number: int) -> None:
    cursor = connection.execute(f"SELECT * FROM {table} WHERE folder = ? AND id = ?", (key, id))  # noqa: S608 - ours
    names = [column[0] for column in cursor.description]
    row: dict[str, Any] = dict(zip(names, cursor.fetchone(), strict=True))
    row["id"] = hashlib.sha256(b"%d" % number + id).digest()[: len(id)]
    row["name"] = b"never-was-%d" % number if isinstance(row["name"], bytes) else f"never-was-{number}"
    if "inode" in row:
        row["inode"] = 0
    marks = ",".join("?" * len(names))
    connection.execute(f"INSERT INTO {table} VALUES ({marks})", [row[name] for name in names])  # noqa: S608 - ours
