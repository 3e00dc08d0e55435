"""The way from whoever asks a storage node to whoever answers: HTTP, the one in memory and the simulated one."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from peer.net.http_nodes import HttpNodes as DeviceNodes
from protocol.chunk_api import GET_PATH, PUT_PATH, decode_proof
from protocol.effects import (
    ChunkAnswer,
    ChunkCall,
    ChunkListener,
    ChunkNodes,
    ChunkRequest,
)
from protocol.errors import UnavailableError, UserError
from protocol.grants import Signed
from protocol.messages import NodeAddress
from simulations.delays import NEAR
from simulations.loop import Schedule, SimLoop
from simulations.network import Network
from simulations.nodes import SimListener, SimNodes
from storage_node.config import Settings
from storage_node.http_nodes import HttpNodes as NodeNodes
from storage_node.listener import HttpListener
from tests.contracts.memory import MemoryListener, MemoryNodes

GRANT, STATEMENT = Signed(b"grant", b"g" * 64), Signed(b"statement", b"s" * 64)
URL = "http://127.0.0.1:1"
MANY = bytes(300_000)
SIMULATED = {f"simulated, {schedule.value}": schedule for schedule in Schedule}


class World:
    """A node, and the way to it."""

    def __init__(self, nodes: ChunkNodes, listener: ChunkListener) -> None:
        self.nodes = nodes
        self.listener = listener
        self.url = ""
        self.answer = self.echo

    async def echo(self, call: ChunkCall) -> ChunkAnswer | None:
        return ChunkAnswer(200, await whole(call))

    async def _answer(self, call: ChunkCall) -> ChunkAnswer | None:
        return await self.answer(call)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        self.url = await self.listener.start(self._answer, certificate=b"", key_pem=b"")
        try:
            yield
        finally:
            await self.nodes.close()
            await self.listener.stop()

    def ask(self, body, path=PUT_PATH, *, forward=False, silent_s: float | None = 10.0):
        node = NodeAddress(b"n" * 32, b"s" * 32, self.url, b"", "z", "o", True)  # type: ignore[arg-type]
        request = ChunkRequest(path, GRANT, STATEMENT, body, forward)
        return self.nodes.ask(node, request, connect_s=5.0, silent_s=silent_s)


def make(kind: str, directory) -> World:
    if kind in SIMULATED:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, SimLoop)
        network = Network(loop, NEAR)
        return World(SimNodes(network, loop.host("phone")), SimListener(network, loop.host("node"), URL))
    if kind == "memory":
        nodes = MemoryNodes()
        return World(nodes, MemoryListener(nodes, URL))
    settings = Settings(directory, "127.0.0.1", 0, "", "", None, "", "", None)
    return World(DeviceNodes() if kind == "device" else NodeNodes(), HttpListener(settings))


@pytest.fixture(params=["device", "node", "memory", *SIMULATED])
def check(request, tmp_path):
    """Run an asynchronous check in a world of each kind."""

    def run(test) -> None:
        async def main() -> None:
            world = make(request.param, tmp_path)
            async with asyncio.timeout(20), world.running():
                await test(world)

        if request.param in SIMULATED:
            SimLoop(1, schedule=SIMULATED[request.param]).run(main())
        else:
            asyncio.run(main())

    return run


async def whole(side) -> bytes:
    data = bytearray()
    while piece := await side.read():
        data += piece
    return bytes(data)


async def pieces(*parts):
    for part in parts:
        yield part


def test_a_request_arrives_as_it_was_sent(check):
    async def test(world):
        calls = []

        async def answer(call):
            calls.append(call)
            assert (call.path, call.forward) == (PUT_PATH, len(calls) > 1)
            assert (decode_proof(call.grant), decode_proof(call.statement)) == (GRANT, STATEMENT)
            return ChunkAnswer(200, await whole(call))

        world.answer = answer
        async with world.ask(b"abc") as reply:
            assert calls[0].body_bytes == 3
            assert (reply.status, await whole(reply), await reply.read()) == (200, b"abc", b"")
        async with world.ask(pieces(b"a", bytearray(MANY), b"z"), forward=True) as reply:
            assert (reply.status, await whole(reply)) == (200, b"a" + MANY + b"z")

    check(test)


@pytest.mark.parametrize("status", [200, 400, 503, 507])
def test_a_reply_has_its_status(check, status):
    async def test(world):
        async def answer(call):
            await whole(call)
            return ChunkAnswer(status, b"so")

        world.answer = answer
        async with world.ask(b"abc") as reply:
            assert (reply.status, await whole(reply)) == (status, b"so")

    check(test)


def test_an_answer_may_come_before_the_body_is_over(check):
    async def test(world):
        async def answer(call):
            return ChunkAnswer(403, b"no")

        async def endless():
            while True:
                yield MANY
                await asyncio.sleep(0)

        world.answer = answer
        async with world.ask(endless()) as reply:
            assert (reply.status, await whole(reply)) == (403, b"no")
        async with world.ask(b"next") as reply:
            assert reply.status == 403

    check(test)


def test_a_reply_comes_in_pieces(check):
    async def test(world):
        seen = asyncio.Event()

        async def answer(call):
            await whole(call)
            await call.begin()
            await call.write(b"first")
            await seen.wait()
            await call.write(memoryview(MANY))
            await call.write(b"last")
            await call.end()

        world.answer = answer
        async with world.ask(b"ids", GET_PATH) as reply:
            assert await reply.read() == b"first"
            seen.set()
            assert await whole(reply) == MANY + b"last"

    check(test)


def test_all_that_came_of_a_reply_that_was_cut_is_read_before_it_fails(check):
    async def test(world):
        async def answer(call):
            await whole(call)
            await call.begin()
            await call.write(b"first")
            seen.set()
            await cut.wait()
            call.abort()
            raise ConnectionAbortedError

        seen, cut = asyncio.Event(), asyncio.Event()

        async def quietly(call):
            with contextlib.suppress(ConnectionError):
                await answer(call)
            return ChunkAnswer(503, b"")

        world.answer = quietly
        async with world.ask(b"ids", GET_PATH) as reply:
            await seen.wait()
            await asyncio.sleep(0)
            cut.set()
            assert await reply.read() == b"first"
            for _ in range(2):
                with pytest.raises(UnavailableError):
                    await reply.read()

    check(test)


def test_who_leaves_a_body_in_its_middle_stops_who_reads_it(check):
    async def test(world):
        began, told = asyncio.Event(), asyncio.Event()

        async def answer(call):
            began.set()
            with pytest.raises(ConnectionError):
                await whole(call)
            told.set()
            return ChunkAnswer(400, b"")

        world.answer = answer
        asking = asyncio.create_task(enter(world.ask(pieces_and_wait(b"some"))))
        await began.wait()
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        await told.wait()

    check(test)


async def enter(asking) -> None:
    async with asking as reply:
        await whole(reply)


async def pieces_and_wait(part):
    yield part
    await asyncio.Event().wait()


def test_who_leaves_a_reply_stops_who_sends_it(check):
    async def test(world):
        told = asyncio.Event()

        async def answer(call):
            await whole(call)
            await call.begin()
            with pytest.raises(ConnectionError):
                while True:
                    await call.write(MANY)
            told.set()
            return ChunkAnswer(503, b"")

        world.answer = answer
        with contextlib.suppress(LookupError):
            async with world.ask(b"ids", GET_PATH) as reply:
                assert await reply.read()
                raise LookupError
        await told.wait()

    check(test)


def test_who_does_not_read_makes_who_sends_wait(check):
    async def test(world):
        sent = 0

        async def answer(call):
            nonlocal sent
            await whole(call)
            await call.begin()
            for _ in range(300):
                await call.write(MANY)
                sent += 1
            await call.end()

        world.answer = answer
        async with world.ask(b"ids", GET_PATH) as reply:
            before = -1
            while sent != before:
                before = sent
                await asyncio.sleep(0.1)
            assert sent < 300
            assert len(await whole(reply)) == 300 * len(MANY)

    check(test)


def test_a_body_that_is_paused_waits(check):
    async def test(world):
        given = 0
        paused, go_on = asyncio.Event(), asyncio.Event()

        async def answer(call):
            call.pause()
            paused.set()
            await go_on.wait()
            call.resume()
            await call.go_on()
            return ChunkAnswer(200, b"%d" % len(await whole(call)))

        async def body():
            nonlocal given
            yield b"begin"
            await paused.wait()
            for _ in range(300):
                yield MANY
                given += 1

        world.answer = answer
        asking = asyncio.create_task(read_of(world.ask(body())))
        before = -1
        while given != before:
            before = given
            await asyncio.sleep(0.1)
        assert given < 300
        go_on.set()
        assert await asking == b"%d" % (5 + 300 * len(MANY))

    check(test)


async def read_of(asking) -> bytes:
    async with asking as reply:
        return await whole(reply)


@pytest.mark.parametrize("begins", [True, False])
def test_a_node_that_falls_silent_is_left(check, begins):
    async def test(world):
        async def answer(call):
            await whole(call)
            if begins:
                await call.begin()
                await call.write(b"some")
            await over.wait()

        over = asyncio.Event()
        world.answer = answer
        with pytest.raises(UnavailableError):
            async with world.ask(b"ids", GET_PATH, silent_s=0.2) as reply:
                assert await reply.read() == b"some"
                await reply.read()
        over.set()

    check(test)


def test_where_nobody_listens_nothing_can_be_reached(check):
    async def test(world):
        await world.listener.stop()
        with pytest.raises(UnavailableError, match="cannot be reached"):
            async with world.ask(b"x"):
                pass

    check(test)


def test_an_address_that_is_taken_is_refused_in_one_line(check):
    async def test(world):
        other: ChunkListener
        if isinstance(world.nodes, MemoryNodes):
            other = MemoryListener(world.nodes, URL)
        elif isinstance(world.listener, SimListener):
            other = SimListener(world.listener._network, world.listener._host, URL)
        else:
            port = int(world.url.rpartition(":")[2])
            settings = Settings(world.listener._settings.data, "127.0.0.1", port, "", "", None, "", "", None)
            other = HttpListener(settings)
        with pytest.raises(UserError, match=r"cannot listen on .*"):
            await other.start(world.echo, certificate=b"", key_pem=b"")
        await other.stop()

    check(test)
