"""A storage node got a new disk, and was believed for ever to hold what had been on the old one.

Of what it had held one copy too few was left, and nobody made another: to the coordinator all of them were there.
"""

from __future__ import annotations

import asyncio
from typing import Final

from simulations.checks.storage import check_reachability
from simulations.loop import Schedule
from simulations.world import World

SCHEDULE: Final = Schedule.FIFO


async def story(world: World) -> None:
    """Store something, give a node a new disk, and store more than it held before."""
    one, *_ = world.devices
    one.user.write(one.path("a.txt"), b"one" * 1_000)
    await world.settle()
    await asyncio.sleep(120)
    check_reachability(world, 3)
    node = world.nodes[1]
    await node.stop()
    node.wipe()
    await node.start()
    one.user.write(one.path("b.txt"), b"other" * 4_000)
    await world.settle()
    await asyncio.sleep(300)
    check_reachability(world, 3)
