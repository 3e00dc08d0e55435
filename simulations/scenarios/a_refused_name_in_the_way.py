"""A file whose new name a device's disk takes for another's kept the old one, though another file had that name by then.

The other one never came to that device.
"""

from __future__ import annotations

import asyncio
from typing import Final

from simulations.devices import DeviceMachine
from simulations.loop import Schedule
from simulations.personalities import PERSONALITIES as KINDS
from simulations.world import World

SCHEDULE: Final = Schedule.FIFO
PERSONALITIES: Final = (KINDS["plain"], KINDS["mac"], KINDS["plain"])


async def story(world: World) -> None:
    """Rename a file to what counts as another's name; then give its old name to a new one."""
    one, two, _ = world.devices
    one.user.write(one.path("a.txt"), b"one")
    one.user.write(one.path("b.txt"), b"two")
    await world.settle()
    one.user.rename(one.path("b.txt"), one.path("A.TXT"))
    await _pass(one)
    assert two.user.read(two.path("b.txt")) == b"two"
    one.user.write(one.path("b.txt"), b"three")
    await _pass(one)
    assert sorted(two.tree()) == ["a.txt", "b.txt"]
    assert two.user.read(two.path("b.txt")) == b"three"
    one.user.rename(one.path("A.TXT"), one.path("c.txt"))
    await world.settle()
    assert two.user.read(two.path("c.txt")) == b"two"


async def _pass(one: DeviceMachine) -> None:
    """Give the others time; on one of them a name is refused for good."""
    await one.sync()
    await asyncio.sleep(120)
