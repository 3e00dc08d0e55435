"""A device had its entry registered and went back to a backup before it sent what the entry brings: it waited for ever.

So did everybody who had heard of it on the LAN.
"""

from __future__ import annotations

import asyncio
from typing import Final

from simulations.loop import Schedule
from simulations.world import World

SCHEDULE: Final = Schedule.FIFO


async def story(world: World) -> None:
    """Write while no storage node can be reached, have the coordinator hear of it, and put the device back."""
    one, two, three = world.devices
    await world.settle()
    await one.stop()
    image = one.image()
    await one.start()
    for device in world.devices:
        for node in world.nodes:
            world.network.cut(device.name, node.name)
    for other in (two, three):
        world.network.cut(one.name, other.name)
    one.user.write(one.path("a.txt"), b"one")
    await asyncio.sleep(60)
    assert world.coordinator.rows("SELECT count(*) FROM pending") == [(1,)]
    world.may_log("two entries under one number", one.name)
    one.kill()
    one.restore(image)
    await world.settle()
    await asyncio.sleep(60)
    assert world.coordinator.rows("SELECT count(*) FROM pending") == [(0,)]
    one.user.write(one.path("b.txt"), b"two")
    await world.settle()
    assert [sorted(device.tree()) for device in world.devices] == [["b.txt"]] * 3
