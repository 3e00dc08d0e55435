"""Decide about conflict copies: one's bytes become the file, or it is removed."""

from __future__ import annotations

import os
import sqlite3
from functools import partial
from typing import TYPE_CHECKING, Final

from peer import reports
from peer.api.backend import Json
from peer.core.resolving import main_of
from peer.core.tree import ItemId
from peer.store.trees import SyncedTree
from protocol.errors import UserError
from protocol.ids import NodeId

if TYPE_CHECKING:
    from peer.device import Device
    from peer.engine.folder import FolderEngine

ID_DIGITS_MIN: Final = 8


async def resolve(device: Device, copy: str, path: str, *, keep: bool) -> Json:
    """Record a decision about a conflict copy.

    Args:
        device: The open device.
        copy: As ``kin conflicts`` prints it: its path in the folder, with or without the folder's name, or its id.
        path: The same as an absolute path, if it was meant as a path on this disk.
        keep: Its bytes become the file; else it is removed.

    Raises:
        UserError: There is no such copy, or more than one.
        UnavailableError: This device needs the coordinator before it may write.
    """
    found = []
    for engine in device.engines.values():
        root = os.fsdecode(engine.record.path)
        rows = await device.context.database.run(partial(_rows, device, engine))
        for row in rows:
            names = {row["copy"], f"{row['folder']}/{row['copy']}"}
            is_id = len(copy) >= ID_DIGITS_MIN and row["id"].startswith(copy.lower())
            if copy in names or is_id or os.path.realpath(path) == os.path.join(root, str(row["copy"])):
                found.append((engine, row))
    if not found:
        raise UserError(f"there is no conflict copy {copy}: 'kin conflicts' shows them")
    if len(found) > 1:
        ids = ", ".join(str(row["id"])[:12] for _, row in found)
        raise UserError(f"there are several conflict copies {copy}: name one by its id ({ids})")
    engine, row = found[0]
    if engine.record.frozen or engine.failed:
        raise UserError(f"the folder {engine.record.name} stands still: 'kin status' says why")
    if not engine.record.number:
        await device.need_link()
        await engine.recorder.enrol()
    id = NodeId(bytes.fromhex(str(row["id"])))
    async with engine.deciding():
        # A person decides by what the disk shows; what changed there may not have been looked at yet.
        about = await device.context.database.run(partial(_about, engine, id))
        if not await engine.observer.stands_as_seen(about):
            raise UserError("it was changed on this device just now: try again once 'kin wait' is done")
        await engine.recorder.resolve(id, keep=keep)
    return {"version": 1, "folder": row["folder"], "path": row["path"], "copy": row["copy"], "kept": keep}


def _about(engine: FolderEngine, id: NodeId, db: sqlite3.Connection) -> list[ItemId]:
    """Return the copy and the file that it is a copy of."""
    synced = SyncedTree(db, engine.record.key)
    copy = synced.item(id)
    main = None if copy is None else main_of(copy, synced, engine.follower.remote(db).nodes)
    return [item.id for item in (copy, main) if item is not None]


def _rows(device: Device, engine: FolderEngine, db: sqlite3.Connection) -> list[Json]:
    return reports.conflicts_of(db, device, engine)
