"""What a device knows of its one folder, read and spoilt behind its back: the runner's hand in a device's database.

Rule 1: only while no process works on the home.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

_ROOT: Final = bytes(16)
_ROWS_MAX: Final = 1_000_000


@contextlib.contextmanager
def _open(home: Path, mode: str = "ro") -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(f"file:{home / 'state.db'}?mode={mode}", uri=True)
    try:
        yield connection
        connection.commit()
    finally:
        connection.close()


def _key(connection: sqlite3.Connection) -> int:
    found = connection.execute("SELECT key FROM folder ORDER BY key DESC LIMIT 1").fetchone()
    return int(found[0]) if found else -1


def head(home: Path) -> int:
    """Return the highest position of the folder's log that the device has; 0 if it has none."""
    with _open(home) as connection:
        found = connection.execute("SELECT max(position) FROM log WHERE folder = ?", (_key(connection),)).fetchone()
        return int(found[0] or 0)


def rows_digest(home: Path) -> str:
    """Return a digest of all rows of the device's state."""
    hashing = hashlib.sha256()
    with _open(home) as connection:
        for statement in connection.iterdump():
            hashing.update(statement.encode("utf-8", "surrogateescape"))
    return hashing.hexdigest()


def versions(home: Path) -> dict[tuple[int, int], bytes]:
    """Return the hash of each entry that the device knows, by its author's number and counter."""
    with _open(home) as connection:
        rows = connection.execute("SELECT device, seq, hash FROM entry WHERE folder = ?", (_key(connection),))
        return {(int(device), int(seq)): bytes(hash) for device, seq, hash in rows}


def stale_paths(home: Path, root: Path) -> list[str]:
    """Return the paths of rows for what does not stand on the disk."""
    with _open(home) as connection:
        key = _key(connection)
        tables = [
            {id: (parent, name) for id, parent, name in connection.execute(statement, (key,))}
            for statement in (
                "SELECT id, parent, name FROM local_item WHERE folder = ?",
                "SELECT id, parent, name FROM synced_item WHERE folder = ?",
            )
        ]
    return sorted(
        {
            path
            for table in tables
            for path in (_path(table, id) for id in table)
            if path and not os.path.lexists(root / path)
        }
    )


def _path(table: dict[bytes, tuple[bytes, bytes]], id: bytes) -> str:
    parts: list[str] = []
    while id in table and len(parts) < 1000:
        id, name = table[id]
        parts.append(os.fsdecode(name))
    return "/".join(reversed([part for part in parts if part]))


def drop_and_add_rows(home: Path, drop: int, add: int) -> None:
    """Take the rows of some files out of what the device saw and agreed on, and put in some of files that never were."""
    with _open(home, "rw") as connection:
        key = _key(connection)
        tables = ("local_item", "synced_item")
        ids = [_files(connection, table, key) for table in tables]
        both = [id for id in ids[0] if id in set(ids[1])]
        for table in tables:
            for number in range(add):
                _copy_row(connection, table, key, both[-1], number)
            for id in both[:drop]:
                connection.execute(f"DELETE FROM {table} WHERE folder = ? AND id = ?", (key, id))  # noqa: S608 - ours


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
