"""What of the folder this disk could not take when it was last tried, as rows: whoever only reports has tried nothing.

Rule 1: a row tells a person why; nothing is planned or left out because of it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping

from peer.core.tree import ItemId
from protocol.ids import NodeId


def obstacle(db: sqlite3.Connection, folder: int, id: ItemId) -> str:
    """Return why an item could not be placed, as a reason code of the contract; empty if nothing is known.

    Of a directory that is to go and stays for what is not synced in it: ``kept``.
    """
    row = db.execute("SELECT reason FROM obstacle WHERE folder = ? AND id = ?", (folder, id)).fetchone()
    return "" if row is None else str(row[0])


def put_obstacles(db: sqlite3.Connection, folder: int, reasons: Mapping[ItemId, str]) -> None:
    """Have just these be known; what is so already is not written again."""
    known = {
        NodeId(id): reason for id, reason in db.execute("SELECT id, reason FROM obstacle WHERE folder = ?", (folder,))
    }
    gone = [(folder, id) for id in known if id not in reasons]
    new = [(folder, id, reason) for id, reason in reasons.items() if known.get(NodeId(id)) != reason]
    if gone:
        db.executemany("DELETE FROM obstacle WHERE folder = ? AND id = ?", gone)
    if new:
        db.executemany("INSERT OR REPLACE INTO obstacle VALUES (?, ?, ?)", new)
