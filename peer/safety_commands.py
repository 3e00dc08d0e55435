"""What a person says about a mass change: ``approve`` and ``undo``.

Rule 1: both take effect on this device at once, with or without the network; what has to be fetched comes when it can.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from peer.api.backend import Json
from peer.folder_commands import find
from protocol.errors import UnavailableError, UserError

if TYPE_CHECKING:
    from peer.device import Device
    from peer.engine.folder import FolderEngine


async def approve(device: Device, folder: str) -> Json:
    """Let the mass change of a folder that waits pass, and just that one.

    Raises:
        UserError: Nothing waits.
    """
    engine = find(device, folder)
    files = await engine.approve()
    if not files:
        raise UserError(f"no change of {engine.record.name} waits to be approved", code="nothing_held")
    return {"id": engine.record.id.hex(), "name": engine.record.name, "files": files}


async def undo(device: Device, folder: str) -> Json:
    """Drop the mass change of a folder that waits; if none does, bring back what its newest one removed or rewrote.

    Raises:
        UserError: There is neither.
        UnavailableError: What is needed for it cannot be had now.
    """
    engine = find(device, folder)
    taken = await engine.take_back()
    result = {
        "id": engine.record.id.hex(),
        "name": engine.record.name,
        "held": True,
        "files": taken.removed + taken.rewritten,
        "place": os.path.join(os.fsdecode(engine.record.path), taken.place) if taken.place else "",
        "note": "",
    }
    if not result["files"]:
        raise UserError(f"{engine.record.name} had no mass change that could be undone", code="nothing_to_undo")
    return result | {"note": await _bring(device, engine)}


async def _bring(device: Device, engine: FolderEngine) -> str:
    """Wait until what comes back is here; return why it is not."""
    try:
        await device.need_link()
    except (UnavailableError, UserError) as error:
        return f"they come back as soon as they can be fetched: {error}"
    device.start_engine(engine.record.key)
    engine.retry_all()
    await engine.quiet()
    if engine.is_waiting or engine.observer.missing:
        return f"not all of them are back yet: {engine.trouble or engine.observer.missing or 'kin status says why'}"
    return ""
