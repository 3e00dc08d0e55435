"""History, restore and snapshots: what a path was, and how it comes back.

Rule 1: what this device knows of the log is enough to look back; only bytes that are not here need anybody else.
Rule 2: a restore is recorded like anything that a user does; nothing of the log is ever taken back.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import sqlite3
from datetime import datetime
from typing import TYPE_CHECKING, Final

from peer.api.backend import Json, Report
from peer.core import tree
from peer.core.keys import check_label
from peer.engine.exporter import Exporter
from peer.engine.past import Moment
from peer.engine.restorer import Outcome, Progress, Restorer
from peer.engine.versions import Version, Versions
from peer.folder_commands import find
from peer.reports import LOOK_S, local_text, store_path, time_text
from peer.store import folders
from peer.store.snapshots import Snapshot, all_snapshots
from peer.store.trees import LocalTree
from protocol import messages as m
from protocol.entries import Kind
from protocol.errors import KinfolderError, UserError
from protocol.ids import DeviceId, EntryHash

if TYPE_CHECKING:
    from peer.device import Device
    from peer.engine.folder import FolderEngine

RECORD_S: Final = 10.0
"""How long a command waits until what it did is signed and sent; after that the loop goes on by itself."""
TIDY_S: Final = 2.0
"""How long a command without an agent may empty the trash for."""
COPIES_ASKED: Final = 4_096
"""Segments that the coordinator is asked for at once."""
NAMED_MAX: Final = 20
"""Items named in a result."""
_UNORDERED: Final = re.compile(r"~[0-9a-f]{12}")
_KINDS: Final = {Kind.FILE: "file", Kind.DIRECTORY: "dir", Kind.LINK: "link"}


def locate(device: Device, path: str) -> tuple[FolderEngine, str]:
    """Return the folder that an absolute path lies in, and its way from the root; the path need not exist.

    Raises:
        UserError: It lies in no folder of this device.
    """
    if "\0" in path or not os.path.isabs(path):
        raise UserError("a path is absolute and has no zero bytes")
    plain = os.path.normpath(path)
    parent, name = os.path.split(plain)
    for shown in (plain, os.path.join(os.path.realpath(parent), name), os.path.realpath(plain)):
        for engine in device.engines.values():
            root = store_path(engine)
            if shown == root or shown.startswith(root + "/"):
                return engine, shown[len(root) :].strip("/")
    known = ", ".join(sorted(store_path(engine) for engine in device.engines.values())) or "none"
    raise UserError(f"{path} is in no folder of this device; their directories: {known}")


# --- History


async def history(device: Device, path: str) -> Json:
    """Return the object of ``kin history --json``."""
    engine, inside = locate(device, path)
    run = device.context.database.run
    found = await run(lambda db: Versions(db, engine.follower, inside))
    while await run(lambda _: found.step()):
        pass
    versions = found.newest_first()
    if not versions and inside:
        raise UserError(_no_history(engine, inside), code="no_history")
    copies = await _copies(device, engine, versions)
    users = await _users(device)
    rows = [_row(version, copies, users) for version in versions]
    if rows and (found.is_there or rows[0]["change"] == "removed"):
        rows[0]["current"] = True
    return {"version": 1, "folder": engine.record.name, "path": inside, "versions": rows}


def _no_history(engine: FolderEngine, inside: str) -> str:
    here = os.path.lexists(os.path.join(store_path(engine), inside))
    why = "was not recorded yet: 'kin sync' or 'kin run' does" if here else "was never there"
    return f"{inside} {why}"


def _row(version: Version, copies: dict[bytes, int], users: dict[DeviceId, str]) -> Json:
    event = version.event
    content = event.content
    is_file = content is not None and event.kind is Kind.FILE
    held = [copies[segment] for segment in version.segments if segment in copies]
    return {
        "id": version.id,
        "time": time_text(version.time_ms),
        "device": version.label,
        "user": "" if version.author is None else users.get(version.author, ""),
        "change": event.change,
        "path": event.path,
        "kind": _KINDS[event.kind],
        "size": content.value.size if is_file and content is not None else None,
        "copies": min(held) if held else copies[b""] if version.segments else int(version.is_ordered),
        "ordered": version.is_ordered,
        "current": False,
        "items": version.items,
    }


async def _copies(device: Device, engine: FolderEngine, versions: list[Version]) -> dict[bytes, int]:
    """Return how many storage nodes hold contents, by segment; as far as the coordinator can be asked.

    Under ``b""`` stands what is known of all others: a write quorum took each before it was signed.
    """
    segments = sorted({segment for version in versions for segment in version.segments})
    found: dict[bytes, int] = {b"": 1}
    try:
        if segments and device.is_online:
            await device.need_link(LOOK_S)
            if device.storage is None:
                device.storage = await device.coordinator.ask(m.GetStorage(), m.Storage, timeout_s=LOOK_S)
            for start in range(0, len(segments), COPIES_ASKED):
                asked = tuple(segments[start : start + COPIES_ASKED])
                reply = await device.coordinator.ask(m.GetCopies(engine.record.id, asked), m.Copies)
                found.update(zip(asked, reply.counts, strict=False))
    except KinfolderError:
        pass  # the versions are told all the same
    if device.storage is not None:
        found[b""] = device.storage.quorum
    return found


async def _users(device: Device) -> dict[DeviceId, str]:
    """Return whose device each one is."""
    names = await device.context.database.run(lambda db: dict(db.execute("SELECT id, user FROM account").fetchall()))
    names[bytes(device.record.account)] = device.record.user
    return {id: names.get(bytes(state.id), "") for state in device.accounts.known() for id in state.devices}


# --- Moments


def _find_moment(db: sqlite3.Connection, engine: FolderEngine, params: Json, now_ms: int) -> Moment:
    """Return the state that a restore asks for.

    Raises:
        UserError: There is none.
    """
    if params["version"] is not None:
        return _moment_of_version(db, engine, params["version"])
    if params["snapshot"] is not None:
        return _moment_of_snapshot(db, engine, params["snapshot"])
    time_ms = params["at_ms"] if params["at_ms"] is not None else now_ms - params["ago_ms"]
    key = engine.record.key
    position = folders.position_at(db, key, time_ms)
    if position:
        return Moment(position)
    first = folders.first_entry(db, key)
    asked, begun = _shown(time_ms, first)
    since = "it has none yet" if first is None else f"that was at {begun}"
    raise UserError(f"{asked} is before the first version of {engine.record.name}: {since}", code="no_version")


def _shown(time_ms: int, first: tuple[int, int] | None) -> tuple[str, str]:
    """Return the moment that was asked for and that of the first version as people read them, told apart."""
    asked, begun = local_text(time_ms), "" if first is None else local_text(first[1])
    if first is not None and asked == begun:
        return local_text(time_ms, seconds=True), local_text(first[1], seconds=True)
    return asked, begun


def _moment_of_version(db: sqlite3.Connection, engine: FolderEngine, version: str) -> Moment:
    key, last = engine.record.key, engine.record.position
    if version.isascii() and version.isdecimal() and len(version) < 19:
        first = folders.first_entry(db, key)
        if first is not None and first[0] <= int(version) <= last:  # before it, there was no folder to go back to
            return Moment(int(version))
    if _UNORDERED.fullmatch(version):
        beginning = bytes.fromhex(version[1:])
        for _, entry in engine.follower.tail(db):
            if entry.hash.startswith(beginning):
                return Moment(last, tail=entry.hash)
        position = folders.position_of_entry(db, key, beginning)
        if position:
            return Moment(position)
    raise UserError(f"{engine.record.name} has no version {version}: 'kin history' shows them", code="no_version")


def _moment_of_snapshot(db: sqlite3.Connection, engine: FolderEngine, name: str) -> Moment:
    found = all_snapshots(db, engine.record.key)
    for one in found:
        if one.name == name:
            seen = min(one.seen, one.position or engine.record.position)
            return Moment(seen, own=(one.device, one.seq))
    known = ", ".join(sorted({one.name for one in found})) or "none"
    raise UserError(f"{engine.record.name} has no snapshot {name}; it has: {known}", code="no_snapshot")


# --- Restore


async def restore(device: Device, params: Json, report: Report) -> Json:
    """Bring an older state of a path back, to its place or elsewhere, and tell what it replaced."""
    engine, inside = locate(device, params["path"])
    target = await _target(device, engine, params["to"])
    record = engine.record
    now_ms = device.coordinator.now_ms()
    await device.context.database.run(lambda db: _find_moment(db, engine, params, now_ms))
    await _be_ready(device, engine)
    restorer = Restorer(device.context, engine)
    await restorer.record_what_is_there()
    moment = await device.context.database.run(lambda db: _find_moment(db, engine, params, now_ms))
    before, was_there = await device.context.database.run(lambda db: (_newest(db, engine), _stands(db, engine, inside)))
    progress = _progress(report, record.name)
    if target is None:
        outcome = await restorer.restore(moment, inside, inside, progress)
    elif target[0] is engine:
        outcome = await restorer.restore(moment, inside, target[1], progress)
    else:
        outcome = await Exporter(device.context, engine, restorer).export(moment, inside, params["to"], progress)
    if target is None or target[0] is engine:
        await _be_recorded(engine)
        if not device.watching:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(TIDY_S):
                    await engine.tidy_now()
    return {"folder": record.name, "path": inside, "replaced": before, "was_there": was_there, **_told(outcome)}


async def _be_ready(device: Device, engine: FolderEngine) -> None:
    """Let the folder's loop run, with the coordinator if it can be had."""
    if device.is_online:
        with contextlib.suppress(KinfolderError):
            await device.need_link()
    device.start_engine(engine.record.key)


async def _be_recorded(engine: FolderEngine) -> None:
    """Give the loop the time to record what was done; what takes longer it does by itself, or the next pass does."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(RECORD_S):
            await engine.quiet()


async def _target(device: Device, engine: FolderEngine, to: str | None) -> tuple[FolderEngine | None, str] | None:
    """Return where ``--to`` leads: into a folder of this device, or out of all of them; None without it.

    Raises:
        UserError: Something stands there.
    """
    if to is None:
        return None
    if os.path.lexists(to):
        raise UserError(f"{to} is there already: choose another place for --to")
    try:
        other, inside = locate(device, to)
    except UserError:
        return None, to
    if other is not engine:
        return None, to
    if inside.split("/")[0] == ".kinfolder":
        raise UserError(f"{to} lies in a directory that Kinfolder keeps for itself")
    return other, inside


def _progress(report: Report, folder: str) -> Progress:
    def tell(done: int, size: int, files: int, count: int) -> None:
        report(
            {
                "phase": "download",
                "folder": folder,
                "bytes_done": done,
                "bytes_total": size,
                "files_done": files,
                "files_total": count,
            }
        )

    return tell


def _newest(db: sqlite3.Connection, engine: FolderEngine) -> str:
    """Return the version that names the folder's state as it is recorded now."""
    unordered = engine.follower.tail(db)
    return f"~{unordered[-1][1].hash.hex()[:12]}" if unordered else str(engine.record.position)


def _stands(db: sqlite3.Connection, engine: FolderEngine, inside: str) -> bool:
    """Tell whether something stands at a path; the folder itself always does."""
    return not inside or tree.find(LocalTree(db, engine.record.key), inside) is not None


def _told(outcome: Outcome) -> Json:
    return {
        "files": outcome.files,
        "directories": outcome.directories,
        "attributes": outcome.attributes,
        "moved": outcome.moved,
        "removed": outcome.removed,
        "kept": outcome.kept[:NAMED_MAX],
        "left_total": len(outcome.left),
        "left": sorted(set(outcome.left.values()))[:NAMED_MAX],
    }


# --- Snapshots


async def create_snapshot(device: Device, folder: str, name: str | None) -> Json:
    """Name the state of a folder as it is on this device."""
    engine = find(device, folder)
    name = name or _default_name(device.context.clock.now_ms())
    check_label(name)
    if any(
        one.name == name for one in await device.context.database.run(lambda db: all_snapshots(db, engine.record.key))
    ):
        raise UserError(f"{engine.record.name} has a snapshot {name} already: choose another name")
    await _be_ready(device, engine)
    left = await Restorer(device.context, engine).record_what_is_there()
    recorder = engine.hands.recorder
    async with engine.hands.disk:
        if not engine.record.number:
            await recorder.enrol()
        entry = await recorder.record_snapshot(name)
    engine.changed_here()
    await _be_recorded(engine)
    found = await device.context.database.run(lambda db: all_snapshots(db, engine.record.key))
    made = next(_snapshot(one) for one in found if one.hash == entry.hash)
    return {"folder": engine.record.name, "snapshot": made, "left_out": left}


async def list_snapshots(device: Device, folder: str) -> Json:
    """Return a folder's snapshots, the newest first."""
    engine = find(device, folder)
    found = await device.context.database.run(lambda db: all_snapshots(db, engine.record.key))
    return {"version": 1, "folder": engine.record.name, "snapshots": [_snapshot(one) for one in found]}


def _default_name(now_ms: int) -> str:
    return datetime.fromtimestamp(now_ms / 1000).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def _snapshot(one: Snapshot) -> Json:
    return {
        "name": one.name,
        "id": str(one.position) if one.position else _id(one.hash),
        "time": time_text(one.time_ms),
        "ordered": one.position > 0,
    }


def _id(hash: EntryHash) -> str:
    return f"~{hash.hex()[:12]}"
