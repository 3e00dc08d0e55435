"""A device gave a coordinator its log back, and ended before it had told where the contents lie: nobody ever did.

The coordinator did not know what the segments consist of that its entries name, so none of that was copied anew when a
node lost it.
"""

from __future__ import annotations

import asyncio
from typing import Final

from simulations.checks.storage import check_reachability
from simulations.loop import Schedule
from simulations.world import World

SCHEDULE: Final = Schedule.FIFO


async def story(world: World) -> None:
    """Put the coordinator back, and end the device that gives it its log back as soon as that is there."""
    one, two, three = world.devices
    backup = world.coordinator.backup()
    one.user.write(one.path("a.txt"), b"one" * 1_000)
    await world.settle()
    await two.stop()
    await three.stop()
    world.coordinator.kill()
    world.coordinator.restore(backup)
    await world.coordinator.start()
    while not world.coordinator.rows("SELECT 1 FROM log WHERE kind = 1"):  # noqa: ASYNC110 - it looks at each moment
        await asyncio.sleep(0.001)
    one.kill()
    await world.settle()
    await asyncio.sleep(300)
    check_reachability(world, 3)
