"""A person exchanged the names of a file and its conflict copy, and decided for the copy before anybody had looked at that.

What the copy had been before became the file, and the version that he meant to keep was removed.
"""

from __future__ import annotations

from typing import Final

from protocol.errors import UserError
from simulations.loop import Schedule
from simulations.world import World

SCHEDULE: Final = Schedule.FIFO


async def story(world: World) -> None:
    """Make a conflict, exchange the names, decide at once, and once more when that was looked at."""
    one, two, _ = world.devices
    for device in (one, two):
        device.user.write(device.path("a.txt"), device.name.encode())
    await world.settle()
    (copy,) = (path for path in one.tree() if path != "a.txt")
    chosen = one.user.read(one.path("a.txt"))
    one.user.exchange(one.path("a.txt"), one.path(copy))
    refused = ""
    try:
        await one.call("resolve", copy=copy, path=one.path(copy), keep=True)
    except UserError as error:
        refused = str(error)
    assert "changed on this device just now" in refused
    await world.settle()
    assert one.user.read(one.path(copy)) == chosen
    assert two.user.read(two.path(copy)) == chosen
