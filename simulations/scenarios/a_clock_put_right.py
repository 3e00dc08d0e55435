"""A coordinator's wall clock was put right while everybody was connected, and nothing could be stored any more.

Devices and storage nodes judge grants by what that clock showed when they logged in, and went by it for as long as their
connections lasted.
"""

from __future__ import annotations

import asyncio
from typing import Final

from simulations.loop import SECOND_NS, Schedule
from simulations.world import World

SCHEDULE: Final = Schedule.FIFO
DAY_NS: Final = 86_400 * SECOND_NS


async def story(world: World) -> None:
    """Begin with a coordinator that is a day behind, and put its clock right."""
    one, two, _ = world.devices
    await world.coordinator.stop()
    world.coordinator.time.jump(-DAY_NS)
    await world.coordinator.start()
    one.user.write(one.path("a.txt"), b"one")
    await world.settle()
    world.coordinator.time.jump(DAY_NS)
    one.user.write(one.path("b.txt"), b"another")
    await world.settle()
    assert two.user.read(two.path("b.txt")) == b"another"
    two.kill()
    world.coordinator.time.jump(DAY_NS)  # for a moment, in which somebody logs in
    await two.start()
    await asyncio.sleep(2)
    world.coordinator.time.jump(-DAY_NS)
    two.user.write(two.path("c.txt"), b"a third")
    await world.settle()
    assert one.user.read(one.path("c.txt")) == b"a third"
