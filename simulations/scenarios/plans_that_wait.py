"""A folder whose plans wait for the coordinator span: single items could be tried again sooner than planning could.

Neither device has a number in the folder yet, so nothing can be recorded while the coordinator is away: planning waits for
it, and so does each file by itself, with a time of its own.
"""

from __future__ import annotations

import asyncio
from typing import Final

from simulations.loop import Schedule
from simulations.world import World

SCHEDULE: Final = Schedule.FIFO


async def story(world: World) -> None:
    """Write while the coordinator is away, for as long as pauses grow."""
    one, two, _ = world.devices
    world.network.go_offline(world.coordinator.name)
    for number in range(6):
        one.user.write(one.path(f"{number}.txt"), b"one %d" % number)
        one.user.make_directory(one.path(f"D{number}"))
        await asyncio.sleep(3)
    await asyncio.sleep(150)
    await world.settle()
    assert two.user.read(two.path("5.txt")) == b"one 5"
