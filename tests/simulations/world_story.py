"""What happens in a small world: people write at the same time, machines crash, and at the end everybody has everything.

As a program it prints the digest of a run, for a test that compares it over processes.
"""

from __future__ import annotations

import asyncio
import sys

from simulations.loop import Schedule
from simulations.preparation import prepared
from simulations.world import World


async def story(world: World) -> None:
    """Edit at the same time, offline, through a kill and a power cut; then come to rest."""
    one, two, three = world.devices
    chance = world.loop.chance("story").random
    for number, device in enumerate(world.devices):
        device.user.write(device.path("shared.txt"), f"from {number}".encode())
        device.user.write(device.path(f"own/{number}.txt"), bytes([number]) * 40_000, parents=True)
        await asyncio.sleep(chance() / 10)
    await one.sync()
    world.network.go_offline(three.name)
    three.user.append(three.path("shared.txt"), b" and more, offline")
    three.user.rename(three.path("own"), three.path("mine"))
    two.user.write(two.path("late.txt"), b"late" * 20_000)
    await asyncio.sleep(0.3 + chance())
    two.kill()
    two.user.write(two.path("while-down.txt"), b"nobody watched")
    one.user.write(one.path("last.txt"), b"before the cut")
    await asyncio.sleep(chance() / 2)
    one.cut_power()
    await asyncio.sleep(5)
    await two.start()
    await asyncio.sleep(chance() * 20)
    await world.settle()


def run(seed: int, schedule: Schedule) -> World:
    """Run it."""
    world = World(seed, prepared(), schedule=schedule)
    world.run(story)
    return world


if __name__ == "__main__":
    for chosen in Schedule:
        print(run(int(sys.argv[1]), chosen).loop.trace.digest())
