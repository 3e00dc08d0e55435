"""A conflict copy was made the file, and went from a device before that had its bytes under the file's name.

Where storage nodes were away just then, it had them nowhere, and its user saw neither.
"""

from __future__ import annotations

import asyncio
from typing import Final

from simulations.loop import Schedule
from simulations.world import World

SCHEDULE: Final = Schedule.FIFO


async def story(world: World) -> None:
    """Let two write one name, decide for the copy, and let all who have bytes be away while a third device hears of that."""
    one, two, three = world.devices
    for device in (one, two):
        world.network.go_offline(device.name)
        device.user.write(device.path("a.txt"), device.name.encode())
    await asyncio.sleep(5)
    for device in (one, two):
        world.network.go_online(device.name)
    await world.settle()
    (copy,) = [path for path in one.tree() if "conflict" in path]
    chosen = one.user.read(one.path(copy))
    world.network.go_offline(three.name)
    await one.call("resolve", copy=copy, path=one.path(copy), keep=True)
    await one.sync()
    for machine in (one, two, *world.nodes):
        machine.kill()
    world.network.go_online(three.name)
    await asyncio.sleep(60)
    assert chosen in [three.user.read(three.path(path)) for path in three.tree()]
    await world.settle()
    assert three.tree().keys() == {"a.txt"}
    assert three.user.read(three.path("a.txt")) == chosen
