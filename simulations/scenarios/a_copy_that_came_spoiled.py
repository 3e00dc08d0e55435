"""A storage node that was to copy chunks from another was given other bytes, and nobody asked for the copy again.

The coordinator had heard an answer to its order, and did not look at what was missing in it.
"""

from __future__ import annotations

import asyncio
from random import Random
from typing import Final

from simulations.checks.storage import check_reachability
from simulations.history.liars import NodeLies
from simulations.loop import Schedule
from simulations.world import World

SCHEDULE: Final = Schedule.FIFO


async def story(world: World) -> None:
    """Store something while a node is away, and have the others serve it other bytes once it is back."""
    one, *_ = world.devices
    late, *others = world.nodes
    await late.stop()
    one.user.write(one.path("a.txt"), b"one" * 1_000)
    await one.sync()
    links = [world.network.link(other.name, late.name) for other in others]
    for link in links:
        link.alter = NodeLies(Random(0), 1.0)
    await late.start()
    await asyncio.sleep(60)
    for link in links:
        link.alter = None
    await asyncio.sleep(120)
    check_reachability(world, 3)
