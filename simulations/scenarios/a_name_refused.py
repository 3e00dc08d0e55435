"""A device whose disk takes two names for one kept for ever what it had meant to put at the second.

At its next start that could have been taken for what stands at the first one.
"""

from __future__ import annotations

import asyncio
from typing import Final

from simulations.loop import Schedule
from simulations.personalities import PERSONALITIES as KINDS
from simulations.world import World

SCHEDULE: Final = Schedule.FIFO
PERSONALITIES: Final = (KINDS["plain"], KINDS["mac"], KINDS["plain"])


async def story(world: World) -> None:
    """Write two files whose names differ in case alone, one after the other."""
    one, two, _ = world.devices
    one.user.write(one.path("a.txt"), b"one")
    await world.settle()
    one.user.write(one.path("A.TXT"), b"other")
    await one.sync()
    await asyncio.sleep(60)
    assert sorted(two.tree()) == ["a.txt"]
    assert two.rows("SELECT count(*) FROM intent") == [(0,)]
