"""What the device tells people and scripts: the JSON objects of the contract.

Rule 1: keys are added, never renamed or removed.
Rule 2: every item that is not in sync is listed with a reason of the contract and a line that says what it means.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Collection, Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from peer.api.backend import Json
from peer.core.brake import Waiting
from peer.core.exclusions import Apart
from peer.core.fold_state import FoldState
from peer.core.keys import open_device_name
from peer.core.resolving import MARK, main_of
from peer.core.tree import Item, ItemId, Tree, path_of
from peer.engine.waiting import DISK_FULL
from peer.lan import switch
from peer.net.coordinator_link import TAKEN_OUT
from peer.reasons import Reasons, text_of
from peer.store import folders as store
from peer.store import held as waiting
from peer.store.fold_store import SqliteState
from peer.store.keyfile import Lock
from peer.store.spool import spooled
from peer.store.trees import LocalTree, SyncedTree, dirty
from protocol import limits
from protocol import messages as m
from protocol.chains import Role
from protocol.errors import KinfolderError, RevokedError, SecurityError
from protocol.ids import ROOT, NodeId

if TYPE_CHECKING:
    from peer.device import Device
    from peer.engine.folder import FolderEngine

NOT_LOOKED_AT: Final = "was not looked at yet: 'kin sync' or 'kin run' does"
LAST_LOOK: Final = "when last looked at: no agent runs, and what was changed since is found by 'kin sync' or 'kin run'"
NEVER_FOLLOWED: Final = "was never compared with the coordinator"
ROWS_MAX: Final = 1_000
LOOK_S: Final = 2.0
"""How long a report waits for a coordinator that may be there, before it tells what this device knows."""
CHECK_S: Final = 5.0
"""How long a checkup waits for the coordinator."""
TOLD_MS: Final = 7 * 86_400_000
"""For how long a person is told that the coordinator was set back."""
OFFER_MS: Final = 7 * 24 * 3_600_000
"""How long status offers to undo a mass removal."""
COUNTED_MAX: Final = 1_000_000

OUT_TEXT: Final = "is not synced any more: this device was taken out of the account"


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


def local_text(ms: int, *, seconds: bool = False) -> str:
    """Return a time as people are shown it everywhere: local, to the minute or to the second."""
    try:
        moment = datetime.fromtimestamp(ms / 1000, UTC).astimezone()
    except (ValueError, OverflowError, OSError):
        return time_text(ms)  # no calendar has it
    return moment.strftime("%Y-%m-%d %H:%M:%S" if seconds else "%Y-%m-%d %H:%M")


async def status(device: Device, *, everything: bool) -> Json:
    """Return the object of ``kin status --json``."""
    if device.coordinator.is_up:
        with contextlib.suppress(KinfolderError):
            device.storage = await device.coordinator.ask(m.GetStorage(), m.Storage, timeout_s=5)
    storage, reachable = device.storage, await _reachable(device)
    rows = await folder_rows(device, everything=everything)
    network = "offline" if device.record.offline else "online" if device.coordinator.is_up else "unreachable"
    if not device.watching and not device.record.offline and not device.coordinator.is_up:
        network = "online"  # a single command has not asked; it makes no statement about the coordinator
    warnings = [TAKEN_OUT] if device.is_taken_out else []
    skew_s = abs(device.coordinator.clock_ahead_ms) / 1000
    if skew_s > limits.CLOCK_SKEW_S_MAX:
        warnings.append(
            f"the clocks of this device and of the coordinator are {_span(skew_s)} apart: set the wrong one"
        )
    if device.keys.lock is Lock.NOTHING:
        warnings.append("the keys of this device are protected by no passphrase and no keyring")
    if storage is not None and storage.replicas == 1:
        warnings.append("there is 1 copy of everything: another storage node would make it safe")
    warnings += await device.context.database.run(lambda db: list(_set_back(db, device)))
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
            "reachable": reachable,
            "replicas": 0 if storage is None else storage.replicas,
            "quorum": 0 if storage is None else storage.quorum,
        },
        "in_sync": all(row["state"] == "in_sync" for row in rows),
        "folders": rows,
        "taken_out": device.is_taken_out,
        "warnings": warnings,
    }


async def folder_rows(device: Device, *, everything: bool) -> list[Json]:
    """Return what ``kin status --json`` tells of each folder."""
    return [await _folder(device, engine, everything=everything) for engine in device.engines.values()]


async def _reachable(device: Device) -> int:
    """Return how many storage nodes are there: as the coordinator says, or while it is away as they answer themselves."""
    storage = device.storage
    if storage is None or not device.is_online:
        return 0
    if device.coordinator.is_up:
        return sum(node.online for node in storage.nodes)
    return await device.chunks.answering(storage.nodes)


def _set_back(db: sqlite3.Connection, device: Device) -> Iterator[str]:
    """Yield a line for each folder whose log this device lately found shorter than the coordinator once had it."""
    for engine in device.engines.values():
        found = store.set_back(db, engine.record.id)
        if found is not None and device.context.clock.now_ms() - found.time_ms < TOLD_MS:
            yield (
                f"the coordinator was set back on {time_text(found.time_ms)[:10]}, as by a backup: it had lost the last"
                f" {found.missing} changes of {engine.record.name}, and gets back those that devices still have"
            )


async def _folder(device: Device, engine: FolderEngine, *, everything: bool) -> Json:
    most = COUNTED_MAX if everything else ROWS_MAX
    missing = await engine.observer.check()
    facts = await device.context.database.run(lambda db: _facts(db, device, engine, most))
    state, text = _state(device, engine, facts, missing)
    for row in facts["rows"]:
        row["text"] = _text(device, engine, row)
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
        "held": facts["held"],
        "excluded": [each.path for each in engine.observer.apart.exclusions],
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


def _state(device: Device, engine: FolderEngine, facts: Json, missing: str = "") -> tuple[str, str]:
    if engine.record.frozen:
        return "frozen", engine.record.frozen
    if missing or engine.observer.missing:
        return "missing", missing or engine.observer.missing
    if engine.failed:
        return "stopped", engine.failed
    if device.is_taken_out:
        return "stopped", "this device was taken out of the account"
    if facts["held"] is not None:
        return "held", _held_text(engine, facts["held"])
    if not engine.record.looked:
        return ("working", "") if device.watching else ("waiting", NOT_LOOKED_AT)
    if engine.record.checkpoint is None and not engine.outlook.trouble:
        return ("working", "") if device.coordinator.is_up else ("waiting", NEVER_FOLLOWED)
    # What others changed is not known to an agent that cannot ask; a single command says that it only tells of its last look.
    can_ask = not device.watching or device.coordinator.is_up
    if can_ask and facts["total"] == 0 and not engine.outlook.trouble and (engine.is_settled or not device.watching):
        kept = facts["kept"]
        text = f"{kept} removed directories stay here: what is not synced lies in them" if kept else ""
        text = text or _offer(device, engine)
        if not device.watching and not engine.observer.has_looked:
            text = f"{LAST_LOOK}; {text}" if text else LAST_LOOK
        return "in_sync", text
    if facts["total"] and all(row["reason"] in ("unreadable", "name") for row in facts["rows"]) and engine.is_settled:
        return "waiting", f"{facts['total']} of its items need a person"
    if not device.is_online or not device.coordinator.is_up or engine.outlook.is_waiting:
        return "waiting", engine.outlook.trouble or _why_waiting(device)
    return "working", ""


def _offer(device: Device, engine: FolderEngine) -> str:
    """Return how to undo a mass removal that passed not long ago, "" if there was none."""
    files, time_ms = engine.record.removed
    if not files or device.context.clock.now_ms() - time_ms > OFFER_MS:
        return ""
    return f"{files:,} files were removed at once: 'kin undo {engine.record.name}' brings them back"


def _held_text(engine: FolderEngine, found: Json) -> str:
    files, name = found["files"], engine.record.name
    what = (
        f"{files:,} of its files were found missing"
        if found["kind"] == "deletions"
        else f"{files:,} of its files were found rewritten"
    )
    return f"{what}: nobody is told until 'kin approve {name}' lets that pass or 'kin undo {name}' brings them back"


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
    apart = engine.observer.apart
    reasons = Reasons(db, key, engine.outlook, engine.observer.is_ignored, local, remote)
    ordered = SqliteState(db, key).tree
    counted: set[ItemId] = set()
    held = _held(db, key)
    for id in dirty(db, key, COUNTED_MAX):
        here, base, want = local.item(id), synced.item(id), remote.item(id)
        if here is None and base is None and want is None:
            continue
        if here is None and apart and _is_apart(apart, (remote, want), (synced, base)):
            continue
        if base is not None and reasons.is_kept(base):
            kept += 1
            continue
        if held is not None and engine.brake.waits(db, id):
            continue  # listed below
        if engine.follower.is_mixed and not engine.outlook.is_in_job(id) and _is_ahead(here, base, ordered.item(id)):
            continue
        total += 1
        counted.add(id)
        if len(rows) < most:
            row = _row(engine, here, base, want, (local, remote), reasons)
            if (
                held is not None
                and row["reason"] == "queued"
                and here is None
                and engine.brake.is_under_held(db, remote, id)
            ):
                row = _line(row["path"], row["direction"], "held", row["bytes"])
            rows.append(row)
    shown = {row["path"] for row in rows}
    for row in _unordered(db, device, engine, counted):
        if row["path"] in shown:
            continue
        total += 1
        shown.add(row["path"])
        if len(rows) < most:
            rows.append(row)
    for raw, reason in db.execute("SELECT path, reason FROM problem WHERE folder = ?", (key,)):
        path = os.fsdecode(raw)
        if path in shown or apart.covers(path):
            continue
        total += 1
        if len(rows) < most:
            rows.append(_line(path, "up", reason, 0))
    if held is not None:
        total += held["files"]
        for id in waiting.files(db, key, most=most - len(rows)):
            item = synced.item(id)
            if item is not None:
                rows.append(_line(path_of(synced, id) or item.name, "up", "held", item.content.size))
    files, size, conflicts = counts(db, key, engine.follower.remote(db))
    rows.sort(key=lambda row: str(row["path"]))
    if device.is_taken_out:
        for row in rows:
            row["text"] = OUT_TEXT
    found = {"rows": rows, "total": total, "kept": kept, "files": files, "bytes": size, "conflicts": conflicts}
    return found | {"held": held}


def _text(device: Device, engine: FolderEngine, row: Json) -> str:
    """Return what a row says, in the words of who refused, if somebody did and said why."""
    refused = engine.outlook.trouble_of(row["reason"])
    if not refused or (row["reason"] == "no_coordinator" and not device.coordinator.is_up):
        return str(row["text"])
    if row["reason"] == DISK_FULL and any(why.reason == DISK_FULL for why in engine.outlook.blocked.values()):
        return str(row["text"])  # it is the folder's disk
    what = {"no_coordinator": "waits for the coordinator", "no_quorum": "waits for storage", DISK_FULL: "waits"}
    return f"{what[row['reason']]}: {refused}" if row["reason"] in what else str(row["text"])


def _held(db: sqlite3.Connection, key: int) -> Json | None:
    removed = waiting.count(db, key, Waiting.REMOVAL)
    if removed:
        return {"kind": "deletions", "files": removed}
    rewritten = sum(waiting.count(db, key, what) for what in (Waiting.REWRITE, Waiting.RETURN))
    return {"kind": "rewrites", "files": rewritten} if rewritten else None


def _is_apart(apart: Apart, *places: tuple[Tree, Item | None]) -> bool:
    """Whether what is not on this disk is not to be on it."""
    return any(item is not None and apart.holds(tree, item) for tree, item in places)


def _is_ahead(here: Item | None, base: Item | None, ordered: Item | None) -> bool:
    """Whether the disk holds all that is ordered of an item, and only entries that are not ordered yet go further."""
    if here is None or base is None:
        return here is None and base is None and ordered is None
    is_same = (here.parent, here.name) == (base.parent, base.name) and here.content.same(base.content)
    return is_same and ordered == base


def _unordered(
    db: sqlite3.Connection, device: Device, engine: FolderEngine, counted: Collection[ItemId]
) -> Iterator[Json]:
    """Yield a row for each item, beyond those counted, that an unordered entry of this device is about."""
    after = engine.follower.remote(db).tree
    before = SqliteState(db, engine.record.key).tree
    key, reason = engine.record.key, _reason_unordered(device, engine)
    nodes: dict[NodeId, str] = {}
    for entry, _ in store.tail(db, key):
        waits = any(spooled(db, key, id) is not None for id in entry.header.pins) if not reason else False
        for change in entry.header.changes:
            nodes[change.node] = reason or (engine.outlook.spool_reason if waits else nodes.get(change.node, "queued"))
    for node, why in sorted(nodes.items()):
        if node in counted:
            continue
        tree = after if after.item(node) is not None else before
        item, place = tree.item(node), path_of(tree, node)
        if item is not None and place is not None:
            yield _line(place, "up", why, 0)


def _reason_unordered(device: Device, engine: FolderEngine) -> str:
    """Return why the coordinator cannot order what this device signed; "" if nothing is in the way."""
    if engine.record.frozen:
        return "frozen"
    if not engine.outlook.online:
        return "offline"
    link = device.coordinator
    if engine.outlook.is_out_of_room:
        return DISK_FULL
    is_away = (link.was_tried and not link.is_up) or engine.outlook.trouble_of("no_coordinator")
    return "no_coordinator" if is_away else ""


def _row(
    engine: FolderEngine,
    here: Item | None,
    base: Item | None,
    want: Item | None,
    trees: tuple[Any, Any],
    reasons: Reasons,
) -> Json:
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
    reason = (engine.outlook.reason_for(shown.id), "") if changed_here else reasons.coming(base, want)
    return _line(path, "up" if changed_here else "down", reason[0], shown.content.size, text_of(reason))


def _line(path: str, direction: str, reason: str, size: int, text: str = "") -> Json:
    return {
        "path": path,
        "direction": direction,
        "reason": reason,
        "text": text or text_of((reason, "")),
        "bytes": size,
        "done": 0,
    }


def counts(db: sqlite3.Connection, key: int, state: FoldState) -> tuple[int, int, int]:
    """Return files, bytes and conflict copies of a folder as this disk holds it."""
    files = size = conflicts = 0
    synced = SyncedTree(db, key)
    for item in synced.all():
        if not item.is_directory:
            files += 1
            size += item.content.size
        if _copied(item, synced, state)[0]:
            conflicts += 1
    return files, size, conflicts


async def checkup(device: Device) -> Json:
    """Return what ``kin doctor`` asks of an open device: its status, the coordinator just asked, directories to watch."""
    told = {"state": "up", "text": ""}
    try:
        await device.need_link(CHECK_S)
    except RevokedError as error:
        told = {"state": error.code, "text": str(error)}
    except SecurityError as error:
        told = {"state": "security", "text": str(error)}
    except KinfolderError as error:
        told = {"state": error.code, "text": str(error)}
    state = await status(device, everything=False)
    return {
        "version": 1,
        "status": state,
        "coordinator": {**told, "skew_ms": device.coordinator.clock_ahead_ms if told["state"] == "up" else 0},
        "directories": await device.context.database.run(_directories),
        "spool_damaged": {engine.record.name: await engine.damaged() for engine in list(device.engines.values())},
        "degraded": device.watching and any(engine.observer.is_degraded for engine in device.engines.values()),
    }


def _directories(db: sqlite3.Connection) -> int:
    """Return how many directories the folders have in which something stands."""
    return int(db.execute("SELECT count(*) FROM (SELECT DISTINCT folder, parent FROM local_item)").fetchone()[0])


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
        rows += await device.context.database.run(lambda db, engine=engine: conflicts_of(db, device, engine))  # type: ignore[misc]
    return {"version": 1, "conflicts": rows}


def conflicts_of(db: sqlite3.Connection, device: Device, engine: FolderEngine) -> list[Json]:
    """Return a folder's conflict copies, as rows of ``kin conflicts --json``."""
    synced = SyncedTree(db, engine.record.key)
    state = engine.follower.remote(db)
    rows = []
    for item in synced.all():
        is_copy, main = _copied(item, synced, state)
        if not is_copy:
            continue
        member = item.members[0]
        found = state.content(member.node, member.copy or member.content[0])
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


def _copied(item: Item, synced: SyncedTree, state: FoldState) -> tuple[bool, Item | None]:
    """Return whether an item is a conflict copy, and what of."""
    if item.is_directory or (MARK not in item.name and all(member.copy is None for member in item.members)):
        return False, None  # the name is only what is quick to see: all of a folder is asked
    main = main_of(item, synced, state.nodes)
    return main is not None or any(member.copy is not None for member in item.members), main


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
