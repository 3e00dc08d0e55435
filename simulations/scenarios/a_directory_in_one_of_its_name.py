"""A directory that was moved into a new one of its own name in other letters never moved on a disk that takes both for one.

The new one could not be made, since the old one stood there, and that waited for the new one.
"""

from __future__ import annotations

from typing import Final

from simulations.loop import Schedule
from simulations.personalities import PERSONALITIES as KINDS
from simulations.world import World

SCHEDULE: Final = Schedule.FIFO
PERSONALITIES: Final = (KINDS["plain"], KINDS["mac"], KINDS["plain"])


async def story(world: World) -> None:
    """Move a directory into one of its name."""
    one, two, _ = world.devices
    one.user.write(one.path("DIR/a.txt"), b"one", parents=True)
    await world.settle()
    one.user.rename(one.path("DIR"), one.path("away"))
    one.user.make_directory(one.path("dir"))
    one.user.rename(one.path("away"), one.path("dir/DIR"))
    await world.settle()
    assert two.user.read(two.path("dir/DIR/a.txt")) == b"one"
