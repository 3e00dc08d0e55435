"""What a person says about a mass change (``approve``, ``undo``), or asks before anything changes (``sync --dry-run``).

Rule 1: the first two take effect on this device at once, with or without the network; what has to be fetched comes when it can.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from peer.api.backend import Json
from peer.core.previews import PlannedLine
from peer.engine.previewer import Preview
from peer.engine.safety import Reverted
from peer.folder_commands import find
from peer.reports import time_text
from protocol.errors import EXIT_NEEDS_PERSON, UnavailableError, UserError

if TYPE_CHECKING:
    from peer.device import Device
    from peer.engine.folder import FolderEngine


async def approve(device: Device, folder: str) -> Json:
    """Let the mass change of a folder that waits pass, and just that one.

    Raises:
        UserError: Nothing waits.
    """
    engine = find(device, folder)
    files = await engine.safety.approve()
    if not files:
        raise UserError(f"no change of {engine.record.name} waits to be approved", code="nothing_held")
    return {"id": engine.record.id.hex(), "name": engine.record.name, "files": files}


async def undo(device: Device, folder: str) -> Json:
    """Drop the mass change of a folder that waits; if none does, bring back what its newest one removed or rewrote.

    Raises:
        UserError: There is neither.
        UserError: This disk has no room for all of it; what fits is back.
        UnavailableError: What is needed for it cannot be had now.
    """
    engine = find(device, folder)
    taken = await engine.safety.take_back()
    if taken.removed or taken.rewritten:
        result = _result(engine, files=taken.removed + taken.rewritten, place=taken.place)
    else:
        await device.need_link()
        await _look(device, engine)
        reverted = await engine.safety.revert()
        if reverted is None:
            raise UserError(f"{engine.record.name} had no mass change that could be undone", code="nothing_to_undo")
        if reverted.is_full:
            await _bring(device, engine)  # what did come back is recorded at once
            raise _no_room(engine, reverted)
        if not reverted.files and reverted.failed:
            raise UnavailableError(
                f"{engine.record.name}: what was there before cannot be fetched now: try again later"
            )
        result = _result(engine, files=reverted.files, time=time_text(reverted.time_ms), failed=reverted.failed)
    note = await _bring(device, engine)
    if result["failed"]:
        note = f"{result['failed']:,} files could not be brought back now: 'kin undo {engine.record.name}' tries again"
    return result | {"note": note}


def _no_room(engine: FolderEngine, reverted: Reverted) -> UserError:
    name = engine.record.name
    return UserError(
        f"{name}: {reverted.files:,} files came back, {reverted.failed:,} did not for want of room on this disk:"
        f" free some space and run 'kin undo {name}' again",
        code="disk_full",
        exit_code=EXIT_NEEDS_PERSON,
    )


async def preview(device: Device) -> Json:
    """Return what a pass over all folders would do. Nothing is signed or sent, and no name of a user changes.

    Raises:
        UnavailableError: The coordinator cannot be asked.
    """
    if not device.watching:
        await device.need_link()
    rows: list[Json] = []
    for engine in device.engines.values():
        if not device.watching:
            await engine.look()
        found = await engine.safety.preview() if engine.may_plan else Preview()
        text = engine.observer.missing or engine.record.frozen or engine.failed
        rows.append(
            {
                "id": engine.record.id.hex(),
                "name": engine.record.name,
                "text": text,
                "total": found.total,
                "plan": [_line(line) for line in found.lines],
            }
        )
    return {"version": 1, "dry_run": True, "folders": rows}


def _line(line: PlannedLine) -> Json:
    return {
        "path": line.path,
        "action": line.action,
        "direction": line.direction,
        "to": line.to or None,
        "bytes": line.bytes,
    }


def _result(engine: FolderEngine, *, files: int, place: str = "", time: str | None = None, failed: int = 0) -> Json:
    root = os.fsdecode(engine.record.path)
    return {
        "id": engine.record.id.hex(),
        "name": engine.record.name,
        "held": time is None,
        "time": time,
        "files": files,
        "failed": failed,
        "place": os.path.join(root, place) if place else "",
    }


async def _look(device: Device, engine: FolderEngine) -> None:
    """Have the disk and the log looked at first, so that nothing is brought back over what came since."""
    device.start_engine(engine.record.key)
    engine.observer.look_everywhere()
    engine.retry_all()
    await engine.quiet()
    if engine.observer.missing:
        raise UnavailableError(engine.observer.missing)
    if engine.record.frozen:
        raise UserError(engine.record.frozen, code="frozen")


async def _bring(device: Device, engine: FolderEngine) -> str:
    """Wait until what comes back is here; return why it is not."""
    try:
        await device.need_link()
    except (UnavailableError, UserError) as error:
        return f"they come back as soon as they can be fetched: {error}"
    device.start_engine(engine.record.key)
    engine.retry_all()
    await engine.quiet()
    if engine.outlook.is_waiting or engine.observer.missing:
        return f"not all of them are back yet: {engine.outlook.trouble or engine.observer.missing or 'kin status says why'}"
    return ""
