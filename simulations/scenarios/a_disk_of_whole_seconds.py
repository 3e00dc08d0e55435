"""On a disk that keeps times by the second, a file that was written twice in one second never arrived as it was left.

Its device had read it between the two; after the second it looked as it did then, also where it had just come from others.
"""

from __future__ import annotations

import asyncio
from typing import Final

from simulations.loop import Schedule
from simulations.personalities import PERSONALITIES as KINDS
from simulations.world import World

SCHEDULE: Final = Schedule.FIFO
PERSONALITIES: Final = (KINDS["plain"], KINDS["old-mac"], KINDS["plain"])
SECOND_NS: Final = 1_000_000_000
LOOK_S: Final = 0.25
"""After it a file was read, and the second it was written in is not over."""


async def story(world: World) -> None:
    """Write a file twice in a second, where it was made and where it came to."""
    one, two, _ = world.devices
    await _begin_a_second(world)
    two.user.write(two.path("own"), b"first")
    await asyncio.sleep(LOOK_S)
    two.user.write(two.path("own"), b"other")
    await _begin_a_second(world)
    one.user.write(one.path("came"), b"first")
    while "came" not in two.tree():  # noqa: ASYNC110 - a disk has no event for it
        await asyncio.sleep(0.01)
    await asyncio.sleep(LOOK_S)
    two.user.write(two.path("came"), b"other")
    await world.settle()
    assert {name: node.data for name, node in one.tree().items()} == {"own": b"other", "came": b"other"}


async def _begin_a_second(world: World) -> None:
    await asyncio.sleep(-world.loop.now_ns % SECOND_NS / SECOND_NS)
