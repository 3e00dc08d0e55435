"""A disk that became full while a large file arrived let all the rest of it be fetched, and thrown away."""

from __future__ import annotations

from random import Random
from typing import Final

from protocol.limits import MIB
from simulations.disk_hooks import Call
from simulations.loop import Schedule
from simulations.world import World

SCHEDULE: Final = Schedule.FIFO
SIZE: Final = 96 * MIB
STEP: Final = 100_000


async def story(world: World) -> None:
    """Fill the disk of a device as soon as it writes what it received."""
    one, two, _ = world.devices
    disk, after = two.disk, two.disk.hooks.after
    capacity_bytes = disk.capacity_bytes

    def fill(call: Call) -> None:
        if after is not None:
            after(call)
        if call.call == "write" and len(call.data) > STEP and disk.capacity_bytes == capacity_bytes:
            disk.capacity_bytes = disk.used_bytes

    data = Random(SIZE).randbytes(SIZE)
    disk.hooks.after = fill
    one.user.write(one.path("large"), data)
    await one.sync()
    await two.sync(5.0)
    [folder] = (await two.call("status", all=True))["folders"]
    assert [(row["path"], row["reason"]) for row in folder["unsynced"]] == [("large", "disk_full")]
    sources = [machine.name for machine in (*world.nodes, one)]
    fetched = sum(world.network.link(name, two.name).carried_bytes for name in sources)
    assert fetched < SIZE * 3 / 4  # what was under way at each of a few attempts
    disk.hooks.after, disk.capacity_bytes = after, capacity_bytes
    await world.settle()
    assert two.user.read(two.path("large")) == data
