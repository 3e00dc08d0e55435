"""Of a file whose name something else has on a device, and keeps, `status` said that it waits for its turn, or is being written.

Neither says what a person can do about it.
"""

from __future__ import annotations

import asyncio
from typing import Final

from simulations.devices import DeviceMachine
from simulations.loop import Schedule
from simulations.world import World

SCHEDULE: Final = Schedule.FIFO
EXPECTED: Final = {
    "cache": ("name", "waits for its name, which something has that a rule leaves out here"),
    "open": ("locked", "waits for what has its name here, which is in use by another program"),
    "pipe": ("name", "waits for what has its name here, which has a name that cannot be used here, or is neither file"),
    "open/new": ("locked", "waits for what has its name here, which is in use by another program"),
}


async def story(world: World) -> None:
    """Have something in the way of three things, and then no more."""
    one, two, _ = world.devices
    one.user.write(one.path(".kinignore"), b"cache/\n")
    one.user.write(one.path("open"), b"before")
    await world.settle()
    two.user.make_fifo(two.path("pipe"))
    two.user.make_directory(two.path("cache"))
    two.user.write(two.path("cache/own"), b"of two alone")
    program = two.user.open(two.path("open"))
    one.user.write(one.path("pipe"), b"a file")
    one.user.write(one.path("cache"), b"a file, too")
    one.user.remove(one.path("open"))
    one.user.make_directory(one.path("open"))
    one.user.write(one.path("open/new"), b"in a directory")
    await one.sync()
    await asyncio.sleep(200)
    told = await _told(two)
    assert {"cache", "open", "pipe"} <= told.keys() <= EXPECTED.keys()
    for path, rows in told.items():
        reason, text = EXPECTED[path]
        assert any(one == reason and said.startswith(text) for one, said in rows)
    assert two.user.read(two.path("cache/own")) == b"of two alone"
    program.close()
    two.user.remove(two.path("pipe"))
    two.user.rename(two.path("cache"), two.path("elsewhere"))
    await world.settle()
    assert two.user.read(two.path("open/new")) == b"in a directory"
    assert two.user.read(two.path("cache")) == b"a file, too"
    assert one.user.read(one.path("elsewhere/own")) == b"of two alone"


async def _told(device: DeviceMachine) -> dict[str, list[tuple[str, str]]]:
    """Return the reasons and texts by path: what has a name there, and is to go, has a row of its own."""
    (folder,) = (await device.call("status", all=True))["folders"]
    told: dict[str, list[tuple[str, str]]] = {}
    for row in folder["unsynced"]:
        if row["direction"] == "down":
            told.setdefault(row["path"], []).append((row["reason"], row["text"]))
    return told
