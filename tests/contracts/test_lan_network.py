"""Devices on a LAN: one suite for TCP, TLS and zeroconf, for a LAN in memory, and for the simulated one."""

from __future__ import annotations

import asyncio
import hashlib
import os

import pytest

from peer.core.lan import SERVICE_TYPE, LanDevice
from peer.lan.doors import Announced, LanNetwork, Met
from peer.lan.network import SystemLan
from protocol.errors import KinfolderError, UnavailableError
from protocol.ids import AccountId
from protocol.lan import End, Greeting
from simulations.delays import NEAR
from simulations.lan import Segment, SimLan
from simulations.loop import Schedule, SimLoop
from simulations.network import Network
from tests.contracts.memory_lan import Switch
from tests.peer.core.key_world import RealAccount

ADDRESS = "127.0.0.1"
BLOCK = os.urandom(300_000)


SIMULATED = {f"simulated, {schedule.value}": schedule for schedule in Schedule}


def networks(kind: str) -> list[LanNetwork]:
    if kind == "real":
        return [SystemLan() for _ in "abc"]
    if kind == "memory":
        switch = Switch()
        return [switch.network(ADDRESS) for _ in "abc"]
    loop = asyncio.get_running_loop()
    assert isinstance(loop, SimLoop)
    network, segment = Network(loop, NEAR), Segment()
    return [SimLan(loop, network, loop.host(name), segment, ADDRESS) for name in "abc"]


class World:
    """Three devices, two of which know each other; the first listens."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.networks = networks(kind)
        account = RealAccount("anna")
        self.secrets = [account.device, account.add("desktop"), RealAccount("eve").device]
        self.devices = [LanDevice(AccountId(b"a" * 32), one.id, one.certificate) for one in self.secrets]
        self.listening = self.networks[0].listen(ADDRESS, 0)

    def trust(self, number: int, *allowed: int):
        certificates = {
            hashlib.sha256(one.certificate).digest(): one for one in (self.devices[other] for other in allowed)
        }
        return self.networks[number].trust(self.secrets[number], certificates)

    def dial(self, number: int, *allowed: int) -> asyncio.Task[Met]:
        work = self.networks[number].dial(ADDRESS, self.listening.port, self.trust(number, *allowed))
        return asyncio.create_task(work)

    async def meet(self):
        dialling = self.dial(1, 0)
        knock = await self.listening.accept()
        met = await knock.open(self.trust(0, 1))
        return met, await dialling


@pytest.fixture(params=["real", "memory", *SIMULATED])
def check(request):
    """Run an asynchronous check in a world of each kind."""

    def run(test) -> None:
        async def main() -> None:
            async with asyncio.timeout(20):
                world = World(request.param)
                try:
                    await test(world)
                finally:
                    world.listening.close()

        if request.param in SIMULATED:
            SimLoop(1, schedule=SIMULATED[request.param]).run(main())
        else:
            asyncio.run(main())

    return run


def test_each_side_learns_who_the_other_is(check):
    async def test(world):
        (ours, desktop), (theirs, laptop) = await world.meet()
        assert (desktop, laptop) == (world.devices[1], world.devices[0])
        ours.close()
        theirs.close()

    check(test)


def test_frames_and_bytes_arrive_in_order_both_ways(check):
    async def test(world):
        (ours, _), (theirs, _) = await world.meet()
        for here, there in ((ours, theirs), (theirs, ours)):
            before = there.received_bytes

            async def send(stream=here):
                for number in range(20):
                    await stream.write_frame(number, Greeting(number))
                    await stream.write(BLOCK)
                    await stream.write(memoryview(b"xyz")[:1])
                await stream.write_frame(99, End())

            sending = asyncio.create_task(send())
            await there.wait_readable()
            for number in range(20):
                frame = await there.read_frame()
                assert (frame.id, frame.body) == (number, Greeting(number))
                data = bytearray(len(BLOCK) + 1)
                await there.read_into(memoryview(data))
                assert data == BLOCK + b"x"
            assert (await there.read_frame()).body == End()
            await sending
            assert there.received_bytes - before > 20 * len(BLOCK)
        ours.close()

    check(test)


@pytest.mark.parametrize("how", ["ours", "theirs"])
def test_the_end_of_a_connection_is_told_to_who_waits(check, how):
    async def test(world):
        (ours, _), (theirs, _) = await world.meet()
        waiting = [asyncio.create_task(one.wait_readable()) for one in (ours, theirs)]
        await asyncio.sleep(0)
        (ours if how == "ours" else theirs).close()
        for work in (*waiting, ours.read_frame(), theirs.read_into(memoryview(bytearray(9)))):
            with pytest.raises(UnavailableError):
                await work
        for one in (ours, theirs):
            with pytest.raises(UnavailableError):
                await one.write(b"x")

    check(test)


def test_who_does_not_read_makes_who_writes_wait(check):
    async def test(world):
        (ours, _), (theirs, _) = await world.meet()
        sent = 0

        async def flood():
            nonlocal sent
            while True:
                await ours.write(BLOCK)
                sent += 1
                await asyncio.sleep(0)  # a connection that broke is seen by who waits

        task = asyncio.create_task(flood())
        before = -1
        while sent != before:
            before = sent
            await asyncio.wait([task], timeout=0.2)
        assert not task.done()
        block = bytearray(len(BLOCK))
        for _ in range(sent + 1):
            await theirs.read_into(memoryview(block))
            assert block == BLOCK
        theirs.close()
        with pytest.raises(UnavailableError):
            await task

    check(test)


def test_who_is_not_trusted_by_who_listens_is_not_let_in(check):
    async def test(world):
        dialling = world.dial(2, 0)
        knock = await world.listening.accept()
        with pytest.raises((KinfolderError, OSError)):
            await knock.open(world.trust(0, 1))
        with pytest.raises((KinfolderError, OSError)):
            # TLS 1.3 tells whoever dials only when he reads.
            await (await dialling).stream.read_frame()

    check(test)


def test_who_listens_and_is_not_trusted_is_left(check):
    async def test(world):
        dialling = world.dial(1, 2)
        knock = await world.listening.accept()
        opening = asyncio.ensure_future(knock.open(world.trust(0, 1)))
        with pytest.raises((KinfolderError, OSError)):
            await dialling
        with pytest.raises((KinfolderError, OSError)):
            await (await opening).stream.read_frame()

    check(test)


def test_who_is_sent_away_gets_nothing(check):
    async def test(world):
        dialling = world.dial(1, 0)
        (await world.listening.accept()).close()
        with pytest.raises((KinfolderError, OSError)):
            await dialling

    check(test)


def test_where_nobody_listens_nobody_answers(check):
    async def test(world):
        world.listening.close()
        with pytest.raises(OSError):
            await world.dial(1, 0)

    check(test)


def test_an_address_that_is_taken_cannot_be_listened_on(check):
    async def test(world):
        with pytest.raises(OSError):
            world.networks[0].listen(ADDRESS, world.listening.port)

    check(test)


def test_interfaces_are_those_that_are_asked_for(check):
    async def test(world):
        (found,) = world.networks[0].interfaces([ADDRESS])
        assert found.address == ADDRESS
        assert world.networks[0].interfaces(["192.0.2.1"]) == []

    check(test)


class Ear:
    """What one device hears."""

    def __init__(self, network: LanNetwork) -> None:
        self.heard: dict[str, Announced] = {}
        self.gone: list[str] = []
        self.discovery = network.discovery([ADDRESS], self._on_found, self.gone.append)

    def _on_found(self, announced: Announced) -> None:
        self.heard[announced.name] = announced

    async def until(self, holds) -> None:
        while not holds(self):  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.01)


def test_what_is_announced_is_heard_changed_and_taken_back(check):
    async def test(world):
        one, two = (Ear(network) for network in world.networks[:2])
        names = [os.urandom(8).hex() for _ in range(3)]
        labels = [f"{name}.{SERVICE_TYPE}" for name in names]
        await one.discovery.start()
        await one.discovery.announce(names[0], 4001, b"tagtagta")
        await two.discovery.start()
        await two.discovery.announce(names[1], 4002, b"tagtagta")
        await one.until(lambda ear: labels[1] in ear.heard)
        await two.until(lambda ear: labels[0] in ear.heard)
        assert two.heard[labels[0]] == Announced(labels[0], (ADDRESS,), 4001, b"tagtagta")
        await one.discovery.announce(names[2], 4001, b"othertag")
        await two.until(lambda ear: labels[2] in ear.heard and labels[0] in ear.gone)
        assert two.heard[labels[2]].tags == b"othertag"
        await one.discovery.close()
        await two.until(lambda ear: labels[2] in ear.gone)
        await two.discovery.close()

    check(test)
