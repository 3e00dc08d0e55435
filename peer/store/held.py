"""What waits for a person, as rows: the files that :mod:`peer.core.brake` held back, and the directories above them."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator

from peer.core.brake import Waiting
from peer.core.tree import ItemId
from peer.store.trees import mark_dirty
from protocol.ids import NodeId


def waiting(db: sqlite3.Connection, folder: int, id: ItemId) -> Waiting | None:
    """Return for what an item waits, if it does."""
    row = db.execute("SELECT waiting FROM held WHERE folder = ? AND id = ?", (folder, id)).fetchone()
    return None if row is None else Waiting(row[0])


def hold(db: sqlite3.Connection, folder: int, rows: Iterable[tuple[ItemId, Waiting, bool]]) -> None:
    """Have items wait: each with what it waits for, and whether it is a file."""
    db.executemany(
        "INSERT OR REPLACE INTO held VALUES (?, ?, ?, ?)",
        [(folder, id, int(what), is_file) for id, what, is_file in rows],
    )


def change(db: sqlite3.Connection, folder: int, old: Waiting, new: Waiting) -> None:
    """Have all that waits for one thing wait for another."""
    db.execute("UPDATE held SET waiting = ? WHERE folder = ? AND waiting = ?", (int(new), folder, int(old)))


def count(db: sqlite3.Connection, folder: int, what: Waiting) -> int:
    """Return how many files wait for this."""
    found: int = db.execute(
        "SELECT count(*) FROM held WHERE folder = ? AND is_file = 1 AND waiting = ?", (folder, int(what))
    ).fetchone()[0]
    return found


def files(db: sqlite3.Connection, folder: int, what: Waiting | None = None, most: int = -1) -> Iterator[ItemId]:
    """Yield the files that wait, by id; at most so many."""
    rows = db.execute(
        "SELECT id FROM held WHERE folder = ? AND is_file = 1 AND (?2 IS NULL OR waiting = ?2) ORDER BY id LIMIT ?3",
        (folder, None if what is None else int(what), most),
    ).fetchall()
    yield from (NodeId(row[0]) for row in rows)


def is_any(db: sqlite3.Connection, folder: int) -> bool:
    """Tell whether any file waits."""
    return db.execute("SELECT 1 FROM held WHERE folder = ? AND is_file = 1 LIMIT 1", (folder,)).fetchone() is not None


def release(db: sqlite3.Connection, folder: int, ids: Iterable[ItemId]) -> None:
    """Let items go on; with the last file, also the directories."""
    gone = list(ids)
    if not gone:
        return
    db.executemany("DELETE FROM held WHERE folder = ? AND id = ?", [(folder, id) for id in gone])
    mark_dirty(db, folder, gone)
    if not is_any(db, folder):
        release_all(db, folder)


def release_all(db: sqlite3.Connection, folder: int) -> None:
    """Let everything go on."""
    db.execute("INSERT OR IGNORE INTO dirty SELECT folder, id FROM held WHERE folder = ?", (folder,))
    # What was to come to stand under a directory that waited goes on with it.
    db.execute(
        "INSERT OR IGNORE INTO dirty SELECT i.folder, i.id FROM fold_item i JOIN held h"
        " ON h.folder = i.folder AND h.id = i.parent WHERE h.folder = ?",
        (folder,),
    )
    db.execute("DELETE FROM held WHERE folder = ?", (folder,))
