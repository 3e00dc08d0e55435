"""A disk refused a file's new name, took it away for what has its old one, and failed before that was recorded.

Its absence counted as its user's removal, and the file was gone on every device.
"""

from __future__ import annotations

import asyncio
import errno
from typing import Final

from simulations.devices import DeviceMachine
from simulations.disk_hooks import Call, Fault
from simulations.inodes import Directory
from simulations.loop import Schedule
from simulations.personalities import PERSONALITIES as KINDS
from simulations.world import World

SCHEDULE: Final = Schedule.FIFO
PERSONALITIES: Final = (KINDS["plain"], KINDS["plain"], KINDS["plain"])
_SYNCED: Final = "SELECT count(*) FROM synced_item WHERE name = CAST('b.txt' AS BLOB)"


async def story(world: World) -> None:
    """Rename a file, to a name that a disk refuses for a while, and give its old name to a directory."""
    one, two, three = world.devices
    one.user.write(one.path("b.txt"), b"two")
    await world.settle()
    synced = _refuse(two)
    one.user.rename(one.path("b.txt"), one.path("A.TXT"))
    one.user.write(one.path("b.txt/d.txt"), b"three", parents=True)
    await one.sync()
    await asyncio.sleep(120)
    assert two.disk.hooks.fault is None, "it took nothing away"
    assert synced == [0], "whatever comes in between, it counts as removed here"
    two.user.write(two.path("other.txt"), b"four")
    await world.settle()
    for device in (one, two, three):
        assert device.user.read(device.path("A.TXT")) == b"two"
        assert device.user.read(device.path("b.txt/d.txt")) == b"three"


def _refuse(device: DeviceMachine) -> list[int]:
    """Let a disk refuse a name until something is taken away, and fail once when that is to be durable.

    Returns:
        Whether what it takes away counts as synced just then, of each.
    """
    taken: list[int] = []

    def fault(call: Call) -> Fault | None:
        if "/trash/" in call.to_path():
            taken.append(device.rows(_SYNCED)[0][0])
        if call.call == "sync" and taken and isinstance(call.inode, Directory):
            device.disk.hooks.fault = None
            return Fault(errno.ENOSPC)
        return Fault(errno.EINVAL) if call.to_path().endswith("/A.TXT") else None

    device.disk.hooks.fault = fault
    return taken
