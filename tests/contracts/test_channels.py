"""Channels between devices, storage nodes and a coordinator: WebSockets, those in memory and the simulated ones."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from coordinator.config import Config
from coordinator.websocket import WebSocketAcceptor
from peer.net.websocket import WebSocketDialer as DeviceDialer
from protocol import limits
from protocol.effects import (
    CLOSE_BROKEN,
    CLOSE_GOING,
    CLOSE_NORMAL,
    AcceptedChannel,
    Acceptor,
    Channel,
    ChannelClosedError,
    Dialer,
    Patience,
)
from protocol.errors import UnavailableError, UserError
from simulations.delays import NEAR
from simulations.loop import Schedule, SimLoop
from simulations.network import Network, SimAcceptor, SimDialer
from storage_node.websocket import WebSocketDialer as NodeDialer
from tests.contracts.memory import TOO_BIG, MemoryAcceptor, MemoryNetwork

PATIENCE = Patience(5.0, 60.0, 30.0)
URL = "ws://127.0.0.1:1"
FLOOD = bytes(500_000)
SIMULATED = {f"simulated, {schedule.value}": schedule for schedule in Schedule}


class World:
    """An acceptor, a dialer, and both ends of the channels between them."""

    def __init__(self, dialer: Dialer, acceptor: Acceptor) -> None:
        self.dialer = dialer
        self.acceptor = acceptor
        self.url = ""
        self.ended: list[AcceptedChannel] = []
        self._accepted: asyncio.Queue[AcceptedChannel] = asyncio.Queue()
        self._over: dict[AcceptedChannel, asyncio.Event] = {}

    async def serve(self, channel: AcceptedChannel) -> None:
        over = self._over[channel] = asyncio.Event()
        self._accepted.put_nowait(channel)
        await over.wait()
        self.ended.append(channel)

    def serve_no_more(self, channel: AcceptedChannel) -> None:
        self._over[channel].set()

    async def open(self) -> tuple[Channel, AcceptedChannel]:
        channel, certificate = await self.dialer.dial(self.url, pin=b"", patience=PATIENCE)
        assert certificate == bytes(32)
        return channel, await self._accepted.get()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        self.url = await self.acceptor.start(self.serve)
        try:
            yield
        finally:
            for over in self._over.values():
                over.set()
            await self.acceptor.stop()


def make(kind: str) -> World:
    if kind in SIMULATED:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, SimLoop)
        simulated = Network(loop, NEAR)
        machine = loop.host("127.0.0.1")
        return World(SimDialer(simulated, machine), SimAcceptor(simulated, machine, URL))
    if kind == "memory":
        network = MemoryNetwork()
        return World(network, MemoryAcceptor(network, URL))
    acceptor = WebSocketAcceptor(Config(data="", host="127.0.0.1", port=0), None)
    return World(DeviceDialer() if kind == "device" else NodeDialer(), acceptor)


@pytest.fixture(params=["device", "node", "memory", *SIMULATED])
def check(request):
    """Run an asynchronous check in a world of each kind."""

    def run(test) -> None:
        async def main() -> None:
            world = make(request.param)
            async with asyncio.timeout(20), world.running():
                await test(world)

        if request.param in SIMULATED:
            SimLoop(1, schedule=SIMULATED[request.param]).run(main())
        else:
            asyncio.run(main())

    return run


async def fails(work) -> ChannelClosedError:
    with pytest.raises(ChannelClosedError) as caught:
        await work
    return caught.value


def test_messages_arrive_whole_and_in_order_both_ways(check):
    async def test(world):
        ours, theirs = await world.open()
        theirs.allow(limits.MESSAGE_BYTES_MAX)
        for here, there in ((ours, theirs), (theirs, ours)):
            messages = [b"", b"x", bytes(limits.FRAME_BYTES_MAX), bytes(limits.MESSAGE_BYTES_MAX)]
            messages += [b"%d" % number for number in range(20)]
            sending = asyncio.create_task(send_all(here, messages))
            assert [await there.receive() for _ in messages] == messages
            await sending

    check(test)


async def send_all(channel, messages):
    for message in messages:
        await channel.send(message)


def test_several_may_send_at_once(check):
    async def test(world):
        ours, theirs = await world.open()
        theirs.allow(limits.MESSAGE_BYTES_MAX)
        messages = [bytes([number]) * 100_000 for number in range(16)]
        sending = asyncio.gather(*(ours.send(message) for message in messages))
        assert sorted([await theirs.receive() for _ in messages]) == messages
        await sending

    check(test)


def test_each_end_knows_where_the_other_is(check):
    async def test(world):
        ours, theirs = await world.open()
        assert ours.peer
        assert theirs.peer == "127.0.0.1"
        assert theirs.dialled == world.url

    check(test)


@pytest.mark.parametrize("is_client", [True, False])
def test_what_was_sent_before_the_end_still_arrives(check, is_client):
    async def test(world):
        ours, theirs = await world.open()
        here, there = (ours, theirs) if is_client else (theirs, ours)
        await here.send(b"first")
        await here.send(b"last")
        closing = asyncio.create_task(here.close(4000, "why not"))
        assert [await there.receive(), await there.receive()] == [b"first", b"last"]
        for work in (there.receive(), there.receive(), there.send(b"x")):
            error = await fails(work)
            assert (error.code, error.reason) == (4000, "why not")
        await closing

    check(test)


@pytest.mark.parametrize("is_client", [True, False])
def test_who_closed_neither_sends_nor_receives_any_more(check, is_client):
    async def test(world):
        ours, theirs = await world.open()
        here = ours if is_client else theirs
        waiting = asyncio.create_task(here.receive())
        await asyncio.sleep(0)
        await here.close()
        for work in (waiting, here.receive(), here.send(b"x")):
            assert (await fails(work)).code == CLOSE_NORMAL
        await here.close(4001, "again")

    check(test)


class Flood:
    """Sends for as long as the other end takes it."""

    def __init__(self, channel: Channel) -> None:
        self.sent = 0
        self.task = asyncio.create_task(self._run(channel))

    async def _run(self, channel: Channel) -> None:
        while True:
            await channel.send(FLOOD)
            self.sent += 1

    async def until_stuck(self) -> None:
        before = -1
        while self.sent != before:
            before = self.sent
            done, _ = await asyncio.wait([self.task], timeout=0.2)
            assert not done


def test_the_end_of_a_channel_wakes_who_waits_for_room(check):
    async def test(world):
        ours, theirs = await world.open()
        theirs.allow(limits.MESSAGE_BYTES_MAX)
        flood = Flood(ours)
        await flood.until_stuck()
        theirs.abort()
        assert (await fails(flood.task)).code == CLOSE_BROKEN

    check(test)


def test_who_does_not_read_makes_who_sends_wait(check):
    async def test(world):
        ours, theirs = await world.open()
        theirs.allow(limits.MESSAGE_BYTES_MAX)
        flood = Flood(ours)
        await flood.until_stuck()
        for _ in range(flood.sent + 1):
            assert await theirs.receive() == FLOOD
        theirs.abort()
        await fails(flood.task)

    check(test)


def test_a_channel_that_breaks_says_so_at_both_ends(check):
    async def test(world):
        ours, theirs = await world.open()
        theirs.abort()
        for end in (ours, theirs):
            assert (await fails(end.receive())).code == CLOSE_BROKEN
            assert (await fails(end.send(b"x"))).code == CLOSE_BROKEN
        await fails(theirs.ping())

    check(test)


def test_a_new_channel_takes_few_bytes_and_more_once_it_is_allowed(check):
    async def test(world):
        ours, theirs = await world.open()
        await ours.send(bytes(limits.UNAUTHENTICATED_BYTES_MAX))
        assert len(await theirs.receive()) == limits.UNAUTHENTICATED_BYTES_MAX
        ours2, theirs2 = await world.open()
        theirs2.allow(limits.MESSAGE_BYTES_MAX)
        await ours2.send(bytes(limits.UNAUTHENTICATED_BYTES_MAX + 1))
        assert len(await theirs2.receive()) == limits.UNAUTHENTICATED_BYTES_MAX + 1
        with contextlib.suppress(ChannelClosedError):
            await ours.send(bytes(limits.UNAUTHENTICATED_BYTES_MAX + 1))
        await fails(theirs.receive())
        assert (await fails(ours.receive())).code == TOO_BIG

    check(test)


def test_a_cancelled_receive_loses_no_message(check):
    async def test(world):
        ours, theirs = await world.open()
        for number in range(20):
            waiting = asyncio.create_task(theirs.receive())
            await asyncio.sleep(0)
            sending = asyncio.create_task(ours.send(b"%d" % number))
            for _ in range(number):
                await asyncio.sleep(0)
            waiting.cancel()
            await asyncio.wait([waiting])
            received = await theirs.receive() if waiting.cancelled() else waiting.result()
            assert received == b"%d" % number
            await sending

    check(test)


def test_a_ping_is_answered(check):
    async def test(world):
        ours, theirs = await world.open()
        reading = asyncio.create_task(ours.receive())
        await theirs.ping()
        assert not reading.done()
        await ours.close()
        await fails(reading)
        await fails(theirs.ping())

    check(test)


def test_a_channel_that_nobody_serves_any_more_is_closed(check):
    async def test(world):
        ours, theirs = await world.open()
        world.serve_no_more(theirs)
        assert (await fails(ours.receive())).code == CLOSE_NORMAL

    check(test)


def test_stopping_closes_every_channel_and_waits_for_who_serves_it(check):
    async def test(world):
        pairs = [await world.open() for _ in range(3)]
        stopping = asyncio.create_task(world.acceptor.stop())
        for ours, theirs in pairs:
            assert (await fails(ours.receive())).code == CLOSE_GOING
            await fails(theirs.receive())
        assert not stopping.done()
        for _, theirs in pairs:
            world.serve_no_more(theirs)
        await stopping
        assert len(world.ended) == 3
        with pytest.raises(UnavailableError):
            await world.open()

    check(test)


def test_where_nobody_listens_nothing_can_be_reached(check):
    async def test(world):
        with pytest.raises(UnavailableError) as caught:
            await world.dialer.dial(URL, pin=b"", patience=PATIENCE)
        if "memory" not in type(world.dialer).__module__:
            assert str(caught.value).endswith(f"{URL} cannot be reached: nothing listens there")

    async def first(world):
        await world.acceptor.stop()
        await test(world)

    check(first)


class _HearsTheEndFirst(asyncio.SelectorEventLoop):
    """A loop so slow that a connection has ended before anything is sent on it."""

    async def create_connection(self, *args: Any, **options: Any) -> Any:
        transport, protocol = await super().create_connection(*args, **options)
        while not transport.is_closing():  # noqa: ASYNC110 - the transport has nothing to wait for
            await asyncio.sleep(0)
        return transport, protocol


@pytest.mark.parametrize("make_loop", [None, _HearsTheEndFirst])
@pytest.mark.parametrize("dialer", [DeviceDialer(), NodeDialer()], ids=["device", "node"])
def test_who_breaks_off_at_once_cannot_be_reached(dialer, make_loop):
    async def main():
        async with await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0) as server:
            url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            with pytest.raises(UnavailableError, match=f"{url} cannot be reached: (it broke off|what answers there)"):
                await dialer.dial(url, pin=b"", patience=PATIENCE)

    with asyncio.Runner(loop_factory=make_loop) as runner:
        runner.run(main())


def test_an_address_that_is_taken_is_refused_in_one_line(check):
    async def test(world):
        other: Acceptor
        if isinstance(world.acceptor, MemoryAcceptor):
            other = MemoryAcceptor(world.dialer, URL)
        elif isinstance(world.acceptor, SimAcceptor):
            other = SimAcceptor(world.dialer._network, world.dialer._host, URL)
        else:
            config = Config(data="", host="127.0.0.1", port=world.acceptor.port)
            other = WebSocketAcceptor(config, None)
        with pytest.raises(UserError, match=r"cannot listen on .*"):
            await other.start(world.serve)

    check(test)
