"""What the device tells people and scripts: the JSON objects of the contract.

Rule 1: keys are added, never renamed or removed.
Rule 2: every item that is not in sync is listed with a reason of the contract and a line that says what it means.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from peer.api.backend import Json
from peer.core.keys import open_device_name
from peer.core.tree import Item, path_of
from peer.lan import switch
from peer.store import folders as store
from peer.store.fold_store import SqliteState
from peer.store.keyfile import Lock
from peer.store.trees import LocalTree, SyncedTree, dirty
from protocol import limits
from protocol import messages as m
from protocol.chains import Role
from protocol.errors import KinfolderError
from protocol.ids import ROOT

if TYPE_CHECKING:
    from peer.device import Device
    from peer.engine.folder import FolderEngine

NOT_LOOKED_AT: Final = "was not looked at yet: 'kin sync' or 'kin run' does"
NEVER_FOLLOWED: Final = "was never compared with the coordinator"
ROWS_MAX: Final = 1_000
LOOK_S: Final = 2.0
"""How long a report waits for a coordinator that may be there, before it tells what this device knows."""
COUNTED_MAX: Final = 1_000_000

TEXTS: Final = {
    "changing": "is being written just now; it follows when it comes to rest",
    "queued": "waits for its turn",
    "transferring": "is on its way",
    "no_coordinator": "waits for the coordinator, which cannot be reached",
    "no_quorum": "waits for storage: too few storage nodes are there",
    "offline": "waits until network use is resumed with 'kin online'",
    "no_source": "waits for a storage node that has its bytes",
    "unreadable": "cannot be read: check its permissions",
    "name": "has a name that cannot be used here, or is neither file, directory nor link",
    "disk_full": "waits for room on this disk: free some space",
    "locked": "is in use by another program",
    "held": "is part of a mass change that waits for 'kin approve'",
    "frozen": "waits: a check of the folder's history failed",
    "read_only": "cannot be written: check permissions of its directory",
    "quota": "is beyond the quota of its owner",
    "spool_full": "waits for room in the spool",
    "error": "failed; the log says why",
}


def _span(seconds: float) -> str:
    for size, unit in ((365 * 86_400, "years"), (86_400, "days"), (3_600, "hours")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds / 60:.0f} minutes"


def time_text(ms: int) -> str:
    """Return a time as RFC 3339 in UTC with milliseconds."""
    try:
        moment = datetime.fromtimestamp(ms / 1000, UTC)
    except (ValueError, OverflowError, OSError):
        moment = datetime.max.replace(tzinfo=UTC)  # whoever wrote it has a clock far beyond what a calendar holds
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


async def status(device: Device, *, everything: bool) -> Json:
    """Return the object of ``kin status --json``."""
    if device.coordinator.is_up:
        with contextlib.suppress(KinfolderError):
            device.storage = await device.coordinator.ask(m.GetStorage(), m.Storage, timeout_s=5)
    storage = device.storage
    rows = [await _folder(device, engine, everything=everything) for engine in device.engines.values()]
    network = "offline" if device.record.offline else "online" if device.coordinator.is_up else "unreachable"
    if not device.watching and not device.record.offline and not device.coordinator.is_up:
        network = "online"  # a single command has not asked; it makes no statement about the coordinator
    warnings = []
    skew_s = abs(device.coordinator.clock_ahead_ms) / 1000
    if skew_s > limits.CLOCK_SKEW_S_MAX:
        warnings.append(
            f"the clocks of this device and of the coordinator are {_span(skew_s)} apart: set the wrong one"
        )
    if device.keys.lock is Lock.NOTHING:
        warnings.append("the keys of this device are protected by no passphrase and no keyring")
    if storage is not None and storage.replicas == 1:
        warnings.append("there is 1 copy of everything: another storage node would make it safe")
    return {
        "version": 1,
        "device": {"id": device.record.device.hex(), "name": device.record.name},
        "user": device.record.user,
        "agent": "running" if device.watching else "stopped",
        "network": network,
        "coordinator": device.record.url,
        "lan": switch.state(device),
        "storage": {
            "nodes": 0 if storage is None else len(storage.nodes),
            "reachable": 0 if storage is None else sum(node.online for node in storage.nodes),
            "replicas": 0 if storage is None else storage.replicas,
            "quorum": 0 if storage is None else storage.quorum,
        },
        "in_sync": all(row["state"] == "in_sync" for row in rows),
        "folders": rows,
        "warnings": warnings,
    }


async def _folder(device: Device, engine: FolderEngine, *, everything: bool) -> Json:
    most = COUNTED_MAX if everything else ROWS_MAX
    if not device.watching:
        await engine.observer.check()
    facts = await device.context.database.run(lambda db: _facts(db, device, engine, most))
    state, text = _state(device, engine, facts)
    return {
        "id": engine.record.id.hex(),
        "name": engine.record.name,
        "path": store_path(engine),
        "role": _role(device, engine),
        "state": state,
        "text": text,
        "position": {"applied": engine.record.position, "head": max(engine.follower.head, engine.record.position)},
        "files": facts["files"],
        "bytes": facts["bytes"],
        "upload": {
            "files": engine.upload.files - engine.upload.files_done,
            "bytes": engine.upload.bytes - engine.upload.bytes_done,
        },
        "download": {
            "files": engine.download.files - engine.download.files_done,
            "bytes": engine.download.bytes - engine.download.bytes_done,
        },
        "conflicts": facts["conflicts"],
        "held": None,
        "unsynced_total": facts["total"],
        "unsynced": facts["rows"],
    }


def store_path(engine: FolderEngine) -> str:
    """Return a folder's root as text."""
    return os.fsdecode(engine.record.path)


def _role(device: Device, engine: FolderEngine) -> str:
    control = engine.follower.control
    role = None if control is None else control.role_of(device.record.account)
    return {Role.READER: "reader", Role.WRITER: "writer", Role.ADMIN: "admin"}.get(role or Role.READER, "reader")


def _state(device: Device, engine: FolderEngine, facts: Json) -> tuple[str, str]:
    if engine.record.frozen:
        return "frozen", engine.record.frozen
    if engine.observer.missing:
        return "missing", engine.observer.missing
    if engine.failed:
        return "stopped", engine.failed
    if not engine.record.looked:
        return ("working", "") if device.watching else ("waiting", NOT_LOOKED_AT)
    if engine.record.checkpoint is None and not engine.trouble:
        return ("working", "") if device.coordinator.is_up else ("waiting", NEVER_FOLLOWED)
    if facts["total"] == 0 and not engine.trouble and (engine.is_settled or not device.watching):
        kept = facts["kept"]
        return "in_sync", f"{kept} removed directories stay here: what is not synced lies in them" if kept else ""
    if facts["total"] and all(row["reason"] in ("unreadable", "name") for row in facts["rows"]) and engine.is_settled:
        return "waiting", f"{facts['total']} of its items need a person"
    if not device.is_online or not device.coordinator.is_up or engine.is_waiting:
        return "waiting", engine.trouble or _why_waiting(device)
    return "working", ""


def _why_waiting(device: Device) -> str:
    if not device.is_online:
        return "network use is stopped: 'kin online' resumes it"
    if not device.coordinator.was_tried:
        return ""  # a single command that has not asked makes no statement about the coordinator
    return "" if device.coordinator.is_up else f"the coordinator at {device.record.url} cannot be reached"


def _facts(db: sqlite3.Connection, device: Device, engine: FolderEngine, most: int) -> Json:
    key = engine.record.key
    local, synced = LocalTree(db, key), SyncedTree(db, key)
    remote = engine.follower.remote(db).tree
    rows: list[Json] = []
    total = kept = 0
    for id in dirty(db, key, COUNTED_MAX):
        here, base, want = local.item(id), synced.item(id), remote.item(id)
        if here is None and base is None and want is None:
            continue
        if engine.is_kept(id):
            kept += 1
            continue
        total += 1
        if len(rows) < most:
            rows.append(_row(engine, here, base, want, (local, remote)))
    shown = {row["path"] for row in rows}
    for row in _unordered(db, device, engine):
        if row["path"] in shown:
            continue
        total += 1
        shown.add(row["path"])
        if len(rows) < most:
            rows.append(row)
    for raw, reason in db.execute("SELECT path, reason FROM problem WHERE folder = ?", (key,)):
        path = os.fsdecode(raw)
        if path in shown:
            continue
        total += 1
        if len(rows) < most:
            rows.append(_line(path, "up", reason, 0))
    files, size, conflicts = counts(db, key)
    rows.sort(key=lambda row: str(row["path"]))
    return {"rows": rows, "total": total, "kept": kept, "files": files, "bytes": size, "conflicts": conflicts}


def _unordered(db: sqlite3.Connection, device: Device, engine: FolderEngine) -> Iterator[Json]:
    """Yield a row for each item that an entry of this device is about which the coordinator has not ordered yet."""
    after = engine.follower.remote(db).tree
    before = SqliteState(db, engine.record.key).tree
    nodes = {change.node for entry, _ in store.tail(db, engine.record.key) for change in entry.header.changes}
    link = device.coordinator
    reason = "offline" if not engine.online else "no_coordinator" if link.was_tried and not link.is_up else "queued"
    for node in sorted(nodes):
        tree = after if after.item(node) is not None else before
        item, place = tree.item(node), path_of(tree, node)
        if item is not None and place is not None:
            yield _line(place, "up", reason, 0)


def _row(engine: FolderEngine, here: Item | None, base: Item | None, want: Item | None, trees: tuple[Any, Any]) -> Json:
    changed_here = (here is None) != (base is None) or (
        here is not None
        and base is not None
        and ((here.parent, here.name) != (base.parent, base.name) or not here.content.same(base.content))
    )
    shown = (here or base if changed_here else want or base) or here or want
    assert shown is not None
    tree = trees[0] if changed_here and here is not None else trees[1]
    above = "" if shown.parent == ROOT else path_of(tree, shown.parent)
    path = shown.name if not above else f"{above}/{shown.name}"
    reason = engine.reason_for(shown.id)
    return _line(path, "up" if changed_here else "down", reason, shown.content.size)


def _line(path: str, direction: str, reason: str, size: int) -> Json:
    return {
        "path": path,
        "direction": direction,
        "reason": reason,
        "text": TEXTS.get(reason, TEXTS["error"]),
        "bytes": size,
        "done": 0,
    }


def counts(db: sqlite3.Connection, key: int) -> tuple[int, int, int]:
    """Return files, bytes and conflict copies of a folder as this disk holds it."""
    files = size = conflicts = 0
    for item in SyncedTree(db, key).all():
        if not item.is_directory:
            files += 1
            size += item.content.size
        if any(member.copy is not None for member in item.members):
            conflicts += 1
    return files, size, conflicts


async def folders(device: Device) -> Json:
    """Return the object of ``kin folders --json``."""
    from peer.folder_commands import remote_folders

    rows: list[Json] = []
    for engine in device.engines.values():
        facts = await device.context.database.run(lambda db, engine=engine: _facts(db, device, engine, 0))  # type: ignore[misc]
        control = engine.follower.control
        rows.append(
            {
                "id": engine.record.id.hex(),
                "name": engine.record.name,
                "path": store_path(engine),
                "role": _role(device, engine),
                "members": 1 if control is None else len(control.members),
                "state": _state(device, engine, facts)[0],
            }
        )
    here = {row["id"] for row in rows}
    try:
        await device.need_link(LOOK_S)
        for remote in await remote_folders(device):
            if remote.info.folder.hex() not in here:
                role = remote.control.role_of(device.record.account) or Role.READER
                rows.append(
                    {
                        "id": remote.info.folder.hex(),
                        "name": remote.name,
                        "path": None,
                        "role": role.name.lower(),
                        "members": len(remote.control.members),
                        "state": "stopped",
                    }
                )
    except KinfolderError:
        pass  # what this device has is shown all the same
    return {"version": 1, "folders": sorted(rows, key=lambda row: (row["name"], row["id"]))}


async def conflicts(device: Device) -> Json:
    """Return the object of ``kin conflicts --json``."""
    rows: list[Json] = []
    for engine in device.engines.values():
        rows += await device.context.database.run(lambda db, engine=engine: _conflicts(db, device, engine))  # type: ignore[misc]
    return {"version": 1, "conflicts": rows}


def _conflicts(db: sqlite3.Connection, device: Device, engine: FolderEngine) -> list[Json]:
    synced = SyncedTree(db, engine.record.key)
    state = engine.follower.remote(db)
    rows = []
    for item in synced.all():
        for member in item.members:
            if member.copy is None:
                continue
            main = synced.item(member.node)
            found = state.content(member.node, member.copy)
            rows.append(
                {
                    "id": item.id.hex(),
                    "folder": engine.record.name,
                    "path": "" if main is None else path_of(synced, main.id),
                    "copy": path_of(synced, item.id),
                    "device": "" if found is None else found.entry.label,
                    "user": device.record.user,
                    "time": time_text(0 if found is None else found.entry.time_ms),
                    "size": item.content.size,
                }
            )
    return rows


async def devices(device: Device) -> Json:
    """Return the object of ``kin devices --json``."""
    seen: dict[bytes, m.DeviceSeen] = {}
    try:
        await device.need_link(LOOK_S)
        await device.accounts.refresh(device.record.account)
        seen = {one.device: one for one in (await device.coordinator.ask(m.GetDevices(), m.Devices)).devices}
    except KinfolderError:
        pass  # the names are known without the coordinator; when they were seen is not
    state = device.accounts(device.record.account)
    links = await device.context.database.run(lambda db: store.account_links(db, device.record.account))
    from protocol.chains import parse_account_link

    times = [parse_account_link(link).time_ms for link in links]
    rows = []
    for id, record in state.devices.items():
        one = seen.get(id)
        rows.append(
            {
                "id": id.hex(),
                "name": open_device_name(record.keys, device.context.account_keys),
                "this": id == device.record.device,
                "added": time_text(times[record.added_seq]),
                "last_seen": None if one is None or not one.last_seen_ms else time_text(one.last_seen_ms),
                "online": id == device.record.device and device.coordinator.is_up if one is None else one.online,
                "revoked": None if record.revoked_seq is None else time_text(times[record.revoked_seq]),
            }
        )
    return {"version": 1, "devices": rows}
