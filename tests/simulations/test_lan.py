"""The simulated LAN: who is heard, and how long, when devices crash, move, or cannot be reached."""

from __future__ import annotations

import asyncio

from simulations.delays import NEAR
from simulations.lan import ANNOUNCE_S, GONE_S, Segment, SimLan
from simulations.loop import SimLoop
from simulations.network import Network


class World:
    """A phone that is announced, and a laptop that hears."""

    def __init__(self):
        self.loop = SimLoop(1)
        self.network = Network(self.loop, NEAR)
        self.segment = Segment()
        self.phone, self.laptop = (
            SimLan(self.loop, self.network, self.loop.host(name), self.segment, f"10.0.0.{number}")
            for number, name in enumerate(("phone", "laptop"), 1)
        )
        self.heard: list[str] = []

    async def start(self):
        self.ear = self.laptop.discovery(
            [self.laptop.address], lambda found: self.heard.append("found"), lambda name: self.heard.append("gone")
        )
        self.voice = self.phone.discovery([self.phone.address], lambda _: None, lambda _: None)
        await self.ear.start()
        await self.voice.start()
        await self.voice.announce("phone", 4000, b"tags")

    def run(self, main):
        self.loop.run(main(self))


def test_a_device_that_crashed_is_gone_after_some_time_and_one_that_stays_is_not():
    async def main(world):
        await world.start()
        await asyncio.sleep(10 * GONE_S)
        assert world.heard == ["found"]
        world.loop.crash(world.phone.host)
        await asyncio.sleep(GONE_S - ANNOUNCE_S - 1)
        assert world.heard == ["found"]
        await asyncio.sleep(2 * ANNOUNCE_S)
        assert world.heard == ["found", "gone"]

    World().run(main)


def test_what_is_announced_over_a_blocked_link_is_lost_and_the_next_time_makes_up_for_it():
    async def main(world):
        world.network.cut("phone", "laptop")
        await world.start()
        await asyncio.sleep(1)
        world.network.heal("phone", "laptop")
        await asyncio.sleep(ANNOUNCE_S - 10)
        assert world.heard == []
        await asyncio.sleep(20)
        assert world.heard == ["found"]

    World().run(main)


def test_a_device_that_is_plugged_in_elsewhere_is_heard_no_more_and_has_another_address():
    async def main(world):
        await world.start()
        await asyncio.sleep(1)
        world.phone.segment, world.phone.address = Segment(), "192.168.7.2"
        assert [found.address for found in world.phone.interfaces(None)] == ["192.168.7.2"]
        await asyncio.sleep(2 * GONE_S)
        assert world.heard == ["found", "gone"]
        world.phone.address = ""
        assert world.phone.interfaces(None) == []

    World().run(main)
