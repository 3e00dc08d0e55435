"""Exchanges: what each side gets of the other's head and body, wherever it is cut."""

from __future__ import annotations

import asyncio

import pytest

from protocol.effects import CLOSE_BROKEN, ChannelClosedError
from simulations.delays import NEAR
from simulations.exchanges import PIECE_BYTES_MAX, Exchange, ask
from simulations.loop import Schedule, SimLoop
from simulations.network import Network

BODY = bytes(range(256)) * 8
LARGE = BODY * 5
"""More than waits for what follows."""


class Storage:
    """A server that answers with what it was sent, and notes it."""

    closes = True

    def __init__(self, seed=1, **options):
        self.loop = SimLoop(seed, **options)
        self.network = Network(self.loop, NEAR)
        self.heads, self.bodies, self.codes = [], [], []

    async def serve(self, end):
        exchange = Exchange(end)
        try:
            self.heads.append(await exchange.head())
            body = bytearray()
            self.bodies.append(body)
            while piece := await exchange.read():
                body += piece
            await exchange.send_all(b"reply", bytes(body))
        except ChannelClosedError as error:
            self.codes.append(error.code)

    def run(self, main):
        async def whole():
            self.network.listen(self.loop.host("node"), "node", self.serve, closes=self.closes)
            phone = self.loop.host("phone")
            await self.loop.spawn(phone, main(await ask(self.network, phone, "node")))
            await asyncio.sleep(1)

        self.loop.run(whole())


@pytest.mark.parametrize("schedule", Schedule)
@pytest.mark.parametrize("size", [0, 1, PIECE_BYTES_MAX, 3 * PIECE_BYTES_MAX + 1])
def test_both_bodies_arrive_whole(size, schedule):
    async def main(exchange):
        await exchange.send_all(b"put", bytes(size))
        assert await exchange.head() == b"reply"
        assert await exchange.read_all() == bytes(size)
        assert await exchange.read() == b""

    storage = Storage(schedule=schedule)
    storage.run(main)
    assert (storage.heads, [len(body) for body in storage.bodies]) == ([b"put"], [size])


def test_a_body_may_come_in_pieces_while_it_is_made():
    async def pieces():
        for start in range(0, len(BODY), 100):
            await asyncio.sleep(0.01)
            yield BODY[start : start + 100]

    async def main(exchange):
        await exchange.send_all(b"put", pieces())
        assert await exchange.read_all() == BODY

    Storage().run(main)


def test_a_reply_may_be_cut_at_each_of_its_bytes_and_all_before_it_arrives():
    reply_bytes = 5 + len(b"reply") + 20
    for cut in range(reply_bytes):
        got = bytearray()

        storage = Storage()

        async def main(exchange, cut=cut, got=got, storage=storage):
            storage.network.cut_after("node", "phone", cut)
            await exchange.send_all(b"get", BODY[:20])
            with pytest.raises(ChannelClosedError):
                await exchange.head()
                while piece := await exchange.read():
                    got += piece

        storage.run(main)
        assert bytes(got) == BODY[: max(0, cut - 10)]


def test_a_request_that_is_cut_reaches_the_node_as_far_as_it_came():
    async def main(exchange):
        storage.network.cut_after("phone", "node", 100)
        await exchange.send_all(b"put", BODY)
        with pytest.raises(ChannelClosedError):
            await exchange.head()

    storage = Storage()
    storage.run(main)
    assert storage.bodies == [BODY[: 100 - 5 - len(b"put")]]


@pytest.mark.parametrize("how", [Exchange.abort, Exchange.close])
def test_a_side_that_leaves_early_leaves_a_body_that_is_too_short(how):
    async def main(exchange):
        await exchange.send(LARGE, head=b"put")
        await asyncio.sleep(1)
        left = how(exchange)
        if left is not None:
            await left

    storage = Storage()
    storage.run(main)
    assert (storage.bodies, storage.codes) == ([LARGE], [CLOSE_BROKEN])


def test_small_pieces_that_are_sent_without_a_pause_go_as_one():
    sizes: list[int] = []

    def note(data):
        sizes.append(len(data))
        return [data]

    async def main(exchange):
        storage.network.link("phone", "node").alter = note
        await exchange.send(head=b"put")
        await exchange.send(BODY[:100])
        await asyncio.sleep(1)
        await exchange.send(BODY[100:200])
        await exchange.send(BODY[200:300], last=True)
        await exchange.head()

    storage = Storage()
    storage.run(main)
    assert sizes == [5 + 3 + 100, 5 + 200]
    assert storage.bodies == [BODY[:300]]


def test_what_waits_goes_before_an_end():
    async def main(exchange):
        await exchange.send(BODY[:100], head=b"put")
        await exchange.close()

    storage = Storage()
    storage.run(main)
    assert (storage.heads, storage.bodies) == ([b"put"], [BODY[:100]])


class Keeping(Storage):
    """A server that would keep connections: it closes none."""

    closes = False

    async def serve(self, end):
        exchange = Exchange(end)
        await exchange.head()
        done = [exchange.is_done]
        await exchange.send_all(b"reply", await exchange.read_all())
        assert [*done, exchange.is_done] == [False, True]
        exchange.part()


@pytest.mark.parametrize("schedule", Schedule)
def test_an_exchange_that_is_done_ends_without_a_word(schedule):
    async def main(exchange):
        await exchange.send_all(b"put", BODY)
        assert await exchange.head() == b"reply"
        assert exchange.is_done
        carried = [link.carried_bytes for link in storage.network.between("phone", "node")]
        assert storage.network.open_from("phone", "")
        exchange.part()
        await asyncio.sleep(1)
        assert carried == [link.carried_bytes for link in storage.network.between("phone", "node")]
        assert not storage.network.open_from("phone", "")

    storage = Keeping(schedule=schedule)
    storage.run(main)
