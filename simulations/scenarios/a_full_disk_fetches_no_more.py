"""A disk that became full while a large file arrived let the rest of it be fetched, at each try, and thrown away.

Once there was room again, what waited did so for up to a minute more.
"""

from __future__ import annotations

import asyncio
from random import Random
from typing import Final

from protocol.limits import MIB
from simulations.disk_hooks import Call
from simulations.loop import Schedule
from simulations.world import World

SCHEDULE: Final = Schedule.FIFO
SIZE: Final = 96 * MIB
STEP: Final = 100_000
FULL_S: Final = 200.0
"""Long enough for many tries."""
SOON_S: Final = 20.0


async def story(world: World) -> None:
    """Fill the disk of a device as soon as it writes what it received, and free it much later."""
    one, two, _ = world.devices
    disk, after = two.disk, two.disk.hooks.after
    capacity_bytes = disk.capacity_bytes

    def fill(call: Call) -> None:
        if after is not None:
            after(call)
        if call.call == "write" and len(call.data) > STEP and disk.capacity_bytes == capacity_bytes:
            disk.capacity_bytes = disk.used_bytes

    def fetched() -> int:
        return sum(world.network.link(name, two.name).carried_bytes for name in sources)

    sources = [machine.name for machine in (*world.nodes, one)]
    data = Random(SIZE).randbytes(SIZE)
    disk.hooks.after = fill
    one.user.write(one.path("large"), data)
    await one.sync()
    await two.sync(5.0)
    [folder] = (await two.call("status", all=True))["folders"]
    assert [(row["path"], row["reason"]) for row in folder["unsynced"]] == [("large", "disk_full")]
    at_once = fetched()
    assert at_once < SIZE * 3 / 4  # what was under way
    await asyncio.sleep(FULL_S)
    assert fetched() - at_once < MIB  # what is needed to know what is missing
    disk.hooks.after, disk.capacity_bytes = after, capacity_bytes
    await asyncio.sleep(SOON_S)
    assert two.user.read(two.path("large")) == data
    await world.settle()
