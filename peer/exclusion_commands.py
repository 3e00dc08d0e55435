"""Keep paths off this device, and bring them back.

Rule 1: an exclusion is a matter of this device alone; nothing of it reaches the folder.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from peer.api.backend import Json
from peer.disk.walk import CONTROL
from protocol import limits
from protocol.errors import EXIT_USAGE, UserError

if TYPE_CHECKING:
    from peer.device import Device
    from peer.engine.folder import FolderEngine


async def exclude(device: Device, path: str | None, *, remove: bool, free: bool) -> Json:
    """Exclude a path, bring it back, or list what is excluded (no path).

    Args:
        device: The open device.
        path: Absolute; nothing needs to be there.
        remove: Bring it back.
        free: Take what lies there off this disk, if all of it is in the folder.

    Raises:
        UserError: It is no path in a folder of this device, or cannot be freed yet; the text says what it waits for.
    """
    if path is None:
        return {"version": 1, "exclusions": [row for engine in device.engines.values() for row in _rows(engine)]}
    if remove and free:
        raise UserError(
            "--remove brings a path back, --free takes it off the disk: give one of them", exit_code=EXIT_USAGE
        )
    engine, inside = _place(device, path)
    note, freed = "", None
    above = engine.observer.apart.above(inside)
    if remove:
        async with engine.deciding():
            await engine.exclusions.remove(inside)
    elif free:
        freed = await _free(engine, inside)
    elif above is not None:
        note = "it was excluded already" if above == inside else f"it was excluded already, with {above}"
    else:
        async with engine.deciding():
            await engine.exclusions.add(inside)
    return {
        "version": 1,
        "folder": engine.record.name,
        "path": inside,
        "excluded": not remove,
        "freed": freed,
        "note": note,
        "watching": device.watching,
    }


async def _free(engine: FolderEngine, inside: str) -> Json:
    if engine.record.frozen or engine.failed:
        raise UserError(f"nothing was freed: the folder {engine.record.name} stands still, 'kin status' says why")
    async with engine.deciding():
        freed = await engine.freer.free(inside, engine.outlook.is_in_job)
    await engine.tidy_now()
    return {"files": freed.files, "bytes": freed.bytes, "left": freed.left}


def _rows(engine: FolderEngine) -> list[Json]:
    return [{"folder": engine.record.name, "path": each.path} for each in engine.observer.apart.exclusions]


def _place(device: Device, path: str) -> tuple[FolderEngine, str]:
    """Return the folder that a path is in, and the path from its root; a link at its end is not followed."""
    if "\0" in path or not os.path.isabs(path):
        raise UserError(f"{path!r} is no path")
    directory, name = os.path.split(os.path.normpath(path))
    real = os.path.join(os.path.realpath(directory), name)
    roots = {os.fsdecode(engine.record.path): engine for engine in device.engines.values()}
    if os.path.realpath(path) in roots:
        raise UserError("this is a whole folder: 'kin remove' takes it off this device")
    root = next((each for each in roots if real.startswith(each + "/")), None)
    if root is None:
        known = ", ".join(sorted(roots)) or "none"
        raise UserError(f"{path} lies in no folder of this device; there are: {known}")
    inside = real[len(root) + 1 :]
    if inside.split("/")[0] == CONTROL:
        raise UserError(f"{CONTROL} is Kinfolder's own, and never leaves a device")
    if len(os.fsencode(inside)) > limits.PATH_BYTES_MAX:
        raise UserError("no folder holds a path that is so long")
    return roots[root], inside
