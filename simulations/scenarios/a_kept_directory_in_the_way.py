"""A file that was to take the name of a removed directory waited for ever, for a lock that a program had left in it."""

from __future__ import annotations

from typing import Final

from simulations.loop import Schedule
from simulations.world import World

SCHEDULE: Final = Schedule.FIFO


async def story(world: World) -> None:
    """Make a file of a directory in which another device has a lock; then let the lock go."""
    one, two, _ = world.devices
    one.user.make_directory(one.path("D"))
    one.user.make_directory(one.path("D/E"))
    one.user.write(one.path("D/E/f"), b"one")
    await world.settle()
    lock = "D/E/.~lock.f#"
    two.user.write(two.path(lock), b"two is at it")
    one.user.remove_tree(one.path("D"))
    one.user.write(one.path("D"), b"a file")
    await world.settle()
    assert two.user.read(two.path("D")) == b"a file"
    (kept,) = (path for path in two.tree() if path.startswith("D (kept, ") and path.endswith(")"))
    assert two.user.read(two.path(lock.replace("D", kept, 1))) == b"two is at it"
    assert sorted(one.tree()) == ["D"]
    two.user.remove(two.path(lock.replace("D", kept, 1)))
    await world.settle()
    assert sorted(two.tree()) == ["D"]
