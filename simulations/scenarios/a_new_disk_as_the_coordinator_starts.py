"""A storage node got a new disk while the coordinator was off, and copied more than it had lost in the coordinator's first look.

It was counted for what it held before that look, or for what came to it since the start, but not for both: it stored as much.
"""

from __future__ import annotations

import asyncio
from typing import Final

from simulations.checks.storage import check_reachability
from simulations.loop import Schedule
from simulations.world import World

SCHEDULE: Final = Schedule.FIFO


async def story(world: World) -> None:
    """Store something, give a node a new disk while the coordinator is off, and store more while the node is."""
    one, *_ = world.devices
    one.user.write(one.path("a.txt"), b"one" * 1_000)
    await world.settle()
    node, coordinator = world.nodes[1], world.coordinator
    await coordinator.stop()
    await node.stop()
    node.wipe()
    await coordinator.start()
    one.user.write(one.path("b.txt"), b"other" * 4_000)
    await one.sync()
    await node.start()
    await world.settle()
    await asyncio.sleep(300)
    check_reachability(world, 3)
