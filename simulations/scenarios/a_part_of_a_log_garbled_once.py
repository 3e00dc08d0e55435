"""A garbled reply that did not reach the head was kept before anything proved it, and nothing ever followed on it again.

The folder stayed ``history`` for good, though the coordinator showed what it had signed ever after.
"""

from __future__ import annotations

from typing import Final

import msgspec

from protocol import messages as m
from simulations.loop import Schedule
from simulations.world import World

SCHEDULE: Final = Schedule.FIFO


async def story(world: World) -> None:
    """Have one device be shown the first of several new entries alone, as of another time."""
    one, two, _ = world.devices
    link = world.network.link(world.coordinator.name, two.name)
    garbled: list[m.Pulled] = []

    def garble(data: bytes) -> list[bytes]:
        frame = m.decode_frame(data)
        if not isinstance(frame.body, m.Pulled) or len(frame.body.items) < 2:
            return [data]
        link.alter = None
        first = frame.body.items[0]
        garbled.append(
            msgspec.structs.replace(frame.body, items=(msgspec.structs.replace(first, time_ms=first.time_ms + 1),))
        )
        return [m.encode_frame(frame.id, garbled[0], reply=frame.reply)]

    world.network.go_offline(two.name)
    for name in ("a.txt", "b.txt", "c.txt"):
        one.user.write(one.path(name), name.encode())
        await one.sync()
    link.alter = garble
    world.may_log("stopped", two.name)
    world.network.go_online(two.name)
    await world.settle()
    assert garbled
    assert two.user.read(two.path("c.txt")) == b"c.txt"
