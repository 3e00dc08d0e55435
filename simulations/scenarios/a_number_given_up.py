"""A device that was put back signed under a number of its own once more, and took the later one of the two for the ordered one.

What it had signed before it learned of that came to nothing, but its hash stayed: whatever built on the entry that is in
the log named the other one, which nobody will ever order, and waited for it.
"""

from __future__ import annotations

import asyncio
from typing import Final

from simulations.loop import Schedule
from simulations.world import World

SCHEDULE: Final = Schedule.FIFO


async def story(world: World) -> None:
    """Sign twice under one number, once before and once after a backup comes back; then go on from the first."""
    one, two, _ = world.devices
    one.user.make_directory(one.path("A"))
    await world.settle()
    earlier = one.image()
    one.user.make_directory(one.path("B"))
    await world.settle()
    await one.stop()
    one.restore(earlier, files=False)
    one.user.remove_tree(one.path("B"))
    world.network.go_offline(one.name)
    await one.start()
    one.user.make_directory(one.path("C"))
    await asyncio.sleep(5)
    world.may_log("two entries under one number")
    await world.settle()
    one.user.rename(one.path("B"), one.path("D"))
    await world.settle()
    assert sorted(two.tree()) == ["A", "C", "D"]
