"""A file waits for a conflict copy that a disk refuses, and status says why; before, it waited for its turn for ever.

Two edits of one file, the name of which has just enough room on one of the disks: the copy's, which is longer, has not.
"""

from __future__ import annotations

from typing import Final

from simulations.loop import Schedule
from simulations.personalities import PERSONALITIES as KINDS
from simulations.personalities import Personality
from simulations.world import World

SCHEDULE: Final = Schedule.FIFO
PERSONALITIES: Final = (KINDS["plain"], Personality(path_chars_max=120), KINDS["plain"])
NAME: Final = "n" * 90 + ".txt"


async def story(world: World) -> None:
    """Edit a file on two devices at once, then again on the one whose edit got the name."""
    one, two, three = world.devices
    one.user.write(one.path(NAME), b"base")
    await world.settle()
    await two.call("offline")
    two.user.write(two.path(NAME), b"two")
    one.user.write(one.path(NAME), b"one")
    await one.sync()
    await two.call("online")
    await two.sync()
    await one.sync()
    await two.sync()
    held = {two.user.read(two.path(name)) for name in two.tree()}
    assert b"two" in held
    assert sorted(three.tree()) != [NAME]
    [folder] = (await two.call("status", all=True))["folders"]
    waiting = {row["path"]: (row["reason"], row["text"]) for row in folder["unsynced"]}
    assert {reason for reason, _ in waiting.values()} == {"name"}, waiting
    assert waiting[NAME][1].startswith("waits for its conflict copy, which has a name"), waiting
