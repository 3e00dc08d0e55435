"""A disk that takes two names for one, and shows all names decomposed, was taken for one that somebody had just written on.

So the second of two names that differ in case alone was tried again for ever, and never told as one that this disk refuses.
"""

from __future__ import annotations

from typing import Final

from simulations.loop import Schedule
from simulations.personalities import PERSONALITIES as KINDS
from simulations.world import World

SCHEDULE: Final = Schedule.FIFO
PERSONALITIES: Final = (KINDS["plain"], KINDS["old-mac"], KINDS["plain"])


async def story(world: World) -> None:
    """Write two files whose names differ in case alone, one after the other."""
    one, two, _ = world.devices
    one.user.write(one.path("a.txt"), b"one")
    await world.settle()
    one.user.write(one.path("A.TXT"), b"other")
    await one.sync()
    await two.sync()
    [folder] = (await two.call("status", all=True))["folders"]
    assert [(row["path"], row["reason"]) for row in folder["unsynced"]] == [("A.TXT", "name")]
    assert sorted(two.tree()) == ["a.txt"]
