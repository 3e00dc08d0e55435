"""A file that was to take the name of a removed directory waited for ever, for a lock that a program had left in it."""

from __future__ import annotations

from typing import Final

from simulations.loop import Schedule
from simulations.world import World

SCHEDULE: Final = Schedule.FIFO


async def story(world: World) -> None:
    """Make a file of a directory in which another device has what it alone is to have; then let that go."""
    one, two, _ = world.devices
    one.user.write(one.path(".kinignore"), b"/D/E/secret\n")
    one.user.make_directory(one.path("D"))
    one.user.make_directory(one.path("D/E"))
    one.user.write(one.path("D/E/f"), b"one")
    await world.settle()
    own = {"E/.~lock.f#": b"two is at it", "E/secret": b"of two alone"}
    for path, data in own.items():
        two.user.write(two.path(f"D/{path}"), data)
    one.user.remove_tree(one.path("D"))
    one.user.write(one.path("D"), b"a file")
    await world.settle()
    assert two.user.read(two.path("D")) == b"a file"
    (kept,) = (path for path in two.tree() if path.startswith("D (kept, ") and path.endswith(")"))
    for path, data in own.items():
        assert two.user.read(two.path(f"{kept}/{path}")) == data
    assert sorted(one.tree()) == [".kinignore", "D"]
    for path in own:
        two.user.remove(two.path(f"{kept}/{path}"))
    await world.settle()
    assert sorted(two.tree()) == [".kinignore", "D"]
