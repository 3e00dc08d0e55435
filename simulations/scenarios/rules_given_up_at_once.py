"""What a rule kept away while it was still being written never came, if the rule was gone before it had come to rest.

A name stays where it is as long as the old or the new rules say so; the old ones were in force again, and nothing told.
"""

from __future__ import annotations

import asyncio
from typing import Final

from simulations.loop import Schedule
from simulations.world import World

SCHEDULE: Final = Schedule.FIFO
_RULE: Final = b"/a.txt\n"


async def story(world: World) -> None:
    """Write a file, and on another device a rule that is still being written when the file would come, then no rule."""
    one, two, three = world.devices
    rules = two.path(".kinignore")
    await world.settle()  # the rules that a first look finds are in force at once
    two.user.write(rules, _RULE)
    one.user.write(one.path("a.txt"), b"one")
    two.user.write(two.path("b.txt"), b"two")
    for _ in range(12):  # it changes more often than it would have to rest
        await asyncio.sleep(0.4)
        two.user.append(rules, _RULE)
    assert (three.user.read(three.path("a.txt")), two.user.exists(two.path("a.txt"))) == (b"one", False)
    two.user.remove(rules)
    await world.settle()
    await asyncio.sleep(60)
    assert two.user.read(two.path("a.txt")) == b"one"
