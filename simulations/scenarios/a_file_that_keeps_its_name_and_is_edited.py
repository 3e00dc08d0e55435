"""A file that keeps its old name where the new one is refused did not get what others wrote to it.

It waited as one that somebody writes just now: its bytes were brought to the name that it could not have.
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
    """Rename a file to what a disk takes for another's name, and edit it."""
    one, two, _ = world.devices
    one.user.write(one.path("a.txt"), b"one")
    one.user.write(one.path("b.txt"), b"two")
    await world.settle()
    one.user.rename(one.path("b.txt"), one.path("A.TXT"))
    await one.sync()
    await asyncio.sleep(120)
    one.user.write(one.path("A.TXT"), b"three")
    await one.sync()
    await asyncio.sleep(300)
    assert two.user.read(two.path("b.txt")) == b"three"
    (waiting,) = (await two.call("status", all=True))["folders"][0]["unsynced"]
    assert (waiting["path"], waiting["reason"]) == ("A.TXT", "name")
    two.user.write(two.path("b.txt"), b"four")
    await two.sync()
    await one.sync()
    assert one.user.read(one.path("A.TXT")) == b"four"
    one.user.rename(one.path("A.TXT"), one.path("c.txt"))
    await world.settle()
    assert two.user.read(two.path("c.txt")) == b"four"
