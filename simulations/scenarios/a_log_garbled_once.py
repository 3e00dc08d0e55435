"""A coordinator that garbled one reply was taken for one that has two histories, and the folder was frozen for good.

Nobody had signed what it showed: once it showed what it had signed, there was nothing left to complain of.
"""

from __future__ import annotations

from typing import Final

import msgspec

from protocol import messages as m
from simulations.loop import Schedule
from simulations.world import World

SCHEDULE: Final = Schedule.FIFO


async def story(world: World) -> None:
    """Have one device be shown an entry as of another time."""
    one, two, _ = world.devices
    link = world.network.link(world.coordinator.name, two.name)
    garbled: list[m.Pulled] = []

    def garble(data: bytes) -> list[bytes]:
        frame = m.decode_frame(data)
        if not isinstance(frame.body, m.Pulled) or not frame.body.items:
            return [data]
        link.alter = None
        first, *others = frame.body.items
        later = msgspec.structs.replace(first, time_ms=first.time_ms + 1)
        garbled.append(msgspec.structs.replace(frame.body, items=(later, *others)))
        return [m.encode_frame(frame.id, garbled[0], reply=frame.reply)]

    link.alter = garble
    world.may_log("stopped", two.name)
    one.user.write(one.path("a.txt"), b"one")
    await world.settle()
    assert garbled
    assert two.user.read(two.path("a.txt")) == b"one"
