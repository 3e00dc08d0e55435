"""The simulated network: order, room, and each way in which a channel or a dial can go wrong, as either end sees it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from protocol.effects import CLOSE_BROKEN, ChannelClosedError, Patience
from simulations.channels import GIVES_UP_S
from simulations.delays import INSTANT, Delay
from simulations.hosts import HostCrashed
from simulations.links import WINDOW_BYTES, Trouble
from simulations.loop import SECOND_NS, Schedule, SimLoop
from simulations.network import DIAL_S, Network

MS = 1_000_000
QUICK = Delay(10 * MS, 5 * MS, 100 * MS)
PATIENCE = Patience(connect_s=10, ping_s=20, pong_s=15)


class Pair:
    """Two hosts with one channel, and what each end received and how it ended."""

    def __init__(self, loop):
        self.loop = loop
        self.network = Network(loop, QUICK)
        self.a, self.b = loop.host("a"), loop.host("b")
        self.got: dict[str, list[bytes]] = {"a": [], "b": []}
        self.ended: dict[str, tuple[int, str]] = {}
        self.ended_at_s: dict[str, int] = {}
        self.reads = True

    async def open(self):
        accepted = self.loop.create_future()

        async def serve(end):
            accepted.set_result(end)
            await asyncio.Event().wait()

        self.network.listen(self.b, "b:1", serve)
        self.near = await self.loop.spawn(self.a, self.network.dial(self.a, "b:1"))
        self.far = await accepted
        if self.reads:
            self.read(self.near)
            self.read(self.far)
        return self

    def read(self, end):
        self.loop.spawn(end.host, self._read(end))

    async def _read(self, end):
        try:
            while True:
                self.got[end.host.name].append(await end.receive())
        except ChannelClosedError as error:
            self.ended[end.host.name] = (error.code, error.reason)
            self.ended_at_s[end.host.name] = self.loop.now_ns // SECOND_NS


def play(main, *, reads=True, **options):
    loop = SimLoop(3, **options)

    async def whole():
        pair = Pair(loop)
        pair.reads = reads
        await pair.open()
        await main(pair)
        return pair

    return loop.run(whole())


# What a channel does.


@pytest.mark.parametrize("schedule", Schedule)
def test_messages_arrive_whole_and_in_order_both_ways_after_a_delay(schedule):
    async def main(pair):
        begin_ns = pair.loop.now_ns
        for number in range(50):
            await pair.near.send(b"to b %d" % number)
            await pair.far.send(b"to a %d" % number)
        assert pair.got == {"a": [], "b": []}
        assert pair.loop.now_ns == begin_ns
        await asyncio.sleep(1)
        assert pair.got == {name: [b"to %s %d" % (name.encode(), n) for n in range(50)] for name in "ab"}
        assert (pair.near.peer, pair.far.peer, pair.far.dialled) == ("b:1", "a", "b:1")

    play(main, schedule=schedule)


def test_a_close_arrives_behind_what_was_sent_and_waits_until_it_is_known():
    async def main(pair):
        await pair.near.send(b"last")
        await pair.near.close(4000, "enough")
        assert pair.got["b"] == [b"last"]
        assert pair.ended == {"b": (4000, "enough")}
        await asyncio.sleep(0)
        assert pair.ended["a"] == (4000, "enough")
        for end in (pair.near, pair.far):
            with pytest.raises(ChannelClosedError):
                await end.send(b"more")
            await end.close()

    play(main)


def test_who_sends_more_than_the_other_reads_waits_and_loses_nothing():
    async def main(pair):
        sent = []

        async def send():
            for number in range(40):
                await pair.near.send(bytes([number]) * (WINDOW_BYTES // 8))
                sent.append(number)

        pair.loop.spawn(pair.a, send())
        await asyncio.sleep(60)
        assert len(sent) == 8
        pair.read(pair.far)
        await asyncio.sleep(60)
        assert [data[0] for data in pair.got["b"]] == sent == list(range(40))

    play(main, reads=False)


def test_a_message_greater_than_all_room_goes_alone_and_one_greater_than_allowed_ends_the_channel():
    async def main(pair):
        await pair.near.send(bytes(2 * WINDOW_BYTES))
        await asyncio.sleep(1)
        assert [len(data) for data in pair.got["b"]] == [2 * WINDOW_BYTES]
        pair.far.allow(100)
        await pair.near.send(bytes(101))
        await asyncio.sleep(1)
        assert {name: code for name, (code, _) in pair.ended.items()} == {"a": 1009, "b": 1009}

    play(main)


def test_a_ping_is_answered_by_a_process_that_runs_and_by_no_other():
    async def main(pair):
        await pair.near.ping()
        pair.loop.suspend(pair.b)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(30):
                await pair.near.ping()
        pair.loop.resume(pair.b)
        async with asyncio.timeout(1):
            await pair.near.ping()

    play(main)


def test_a_large_message_takes_as_long_as_the_link_needs_for_it():
    async def main(pair):
        link = pair.network.link("a", "b")
        link.bytes_per_s, link.delay = 1000, INSTANT
        await pair.near.send(bytes(5000))
        await asyncio.sleep(5)
        assert not pair.got["b"]
        await asyncio.sleep(0.1)
        assert pair.got["b"]

    play(main)


# What goes wrong. Each row: a fault, then messages both ways, then time; what arrives, and how and when each end knows.


def reset(pair):
    assert pair.network.reset("a", "b") == 1


def cut_one_way(pair):
    pair.network.cut("a", "b")


def clog_one_way(pair):
    pair.network.clog("a", "b")


def half_open(pair):
    assert pair.network.half_open(gone="a", left="b") == 1


def offline(pair):
    pair.network.go_offline("b")


def power_cut(pair):
    pair.loop.crash(pair.b)
    pair.network.power_cut(pair.b)


def killed(pair):
    pair.loop.crash(pair.b)
    pair.network.process_ended(pair.b)


def suspended(pair):
    pair.loop.suspend(pair.b)


NO, GIVEN_UP = None, GIVES_UP_S
FAULTS: list[tuple[Any, ...]] = [
    # fault, what b gets, what a gets, when a and b know it (seconds; None: never)
    (reset, [], [], 0, 0),
    (cut_one_way, [], [b"pong"], GIVEN_UP, GIVEN_UP),  # b's word arrives, but not the word of that
    (clog_one_way, [], [b"pong"], NO, NO),
    (half_open, [], [], 0, GIVEN_UP),
    (offline, [], [], GIVEN_UP, GIVEN_UP),
    (power_cut, [], [], GIVEN_UP, NO),
    (killed, [], [], 0, NO),
    (suspended, [], [b"pong"], NO, NO),
]


@pytest.mark.parametrize(
    ("fault", "at_b", "at_a", "a_knows_s", "b_knows_s"), FAULTS, ids=lambda v: getattr(v, "__name__", "")
)
def test_each_end_learns_of_a_fault_what_reaches_it(fault, at_b, at_a, a_knows_s, b_knows_s):
    async def main(pair):
        fault(pair)
        for end, data in ((pair.near, b"ping"), (pair.far, b"pong")):
            try:
                await end.send(data)
            except (ChannelClosedError, HostCrashed):
                assert fault in (reset, half_open, killed, power_cut)
        await asyncio.sleep(GIVES_UP_S + 5)
        assert pair.got == {"a": at_a, "b": at_b}
        known = {name: at_s - at_s % 10 for name, at_s in pair.ended_at_s.items()}
        assert known == {name: at_s for name, at_s in (("a", a_knows_s), ("b", b_knows_s)) if at_s is not None}
        assert all(code == CLOSE_BROKEN for code, _ in pair.ended.values())

    play(main)


def test_a_reset_takes_what_is_under_way():
    async def main(pair):
        await pair.near.send(b"lost")
        pair.network.reset("b", "a")
        await asyncio.sleep(1)
        assert pair.got["b"] == []

    play(main)


HEALINGS = [
    (lambda n: n.cut("a", "b"), lambda n: n.heal("a", "b")),
    (lambda n: n.clog("a", "b"), lambda n: n.unclog("a", "b")),
    (lambda n: n.go_offline("a"), lambda n: n.go_online("a")),
    (lambda n: (n.go_offline("a"), n.go_offline("b"), n.go_online("b")), lambda n: n.go_online("a")),
    (lambda n: (n.cut("a", "b"), n.clog("a", "b"), n.heal("a", "b")), lambda n: n.unclog("a", "b")),
]


@pytest.mark.parametrize(("break_it", "heal"), HEALINGS)
def test_what_was_held_back_arrives_in_order_once_nothing_is_in_the_way(break_it, heal):
    async def main(pair):
        await pair.near.send(b"under way")
        break_it(pair.network)
        for number in range(5):
            await pair.near.send(b"%d" % number)
        await asyncio.sleep(GIVES_UP_S - 1)
        assert pair.got["b"] == []
        heal(pair.network)
        await pair.near.send(b"after")
        await asyncio.sleep(GIVES_UP_S + 1)
        assert pair.got["b"] == [b"under way", *(b"%d" % n for n in range(5)), b"after"]
        assert pair.ended == {}

    play(main)


def test_what_is_held_back_stays_so_if_the_link_is_blocked_again_at_once():
    async def main(pair):
        pair.network.cut("a", "b")
        await pair.near.send(b"held")
        await asyncio.sleep(1)
        pair.network.heal("a", "b")
        pair.network.clog("a", "b")
        await pair.near.send(b"later")
        await asyncio.sleep(100)
        assert pair.got["b"] == []
        pair.network.unclog("a", "b")
        await asyncio.sleep(1)
        assert pair.got["b"] == [b"held", b"later"]

    play(main)


def test_room_is_not_made_while_the_way_back_is_blocked():
    async def main(pair):
        pair.network.clog("b", "a")
        sent = []

        async def send():
            for number in range(20):
                await pair.near.send(bytes(WINDOW_BYTES // 4))
                sent.append(number)

        pair.loop.spawn(pair.a, send())
        await asyncio.sleep(10)
        assert len(sent) == len(pair.got["b"]) == 4
        pair.network.unclog("b", "a")
        await asyncio.sleep(10)
        assert len(sent) == 20

    play(main)


def test_a_machine_that_comes_back_says_that_it_knows_no_such_channel():
    async def main(pair):
        power_cut(pair)
        await pair.near.send(b"hello?")
        await asyncio.sleep(100)
        assert pair.ended == {}
        pair.network.power_on("b")
        await asyncio.sleep(1)
        assert pair.ended == {"a": (CLOSE_BROKEN, "reset by the other end")}

    play(main)


def test_what_a_killed_process_had_sent_may_still_arrive_and_its_end_is_told_in_either_way():
    seen = set()
    for seed in range(12):
        loop = SimLoop(seed)

        async def main(loop=loop):
            pair = await Pair(loop).open()
            await pair.far.send(b"last words")
            killed(pair)
            await asyncio.sleep(1)
            seen.add((bool(pair.got["a"]), pair.ended["a"]))

        loop.run(main())
    assert seen == {(True, (CLOSE_BROKEN, "")), (False, (CLOSE_BROKEN, "reset by the other end"))}


def test_whoever_asks_for_pongs_finds_a_silent_channel_broken_before_the_machine_does():
    async def main(pair):
        pair.near.keep_asking(PATIENCE)
        await asyncio.sleep(1000)
        assert pair.ended == {}
        pair.network.half_open(gone="b", left="a")
        await asyncio.sleep(PATIENCE.ping_s + PATIENCE.pong_s + 1)
        assert pair.ended["a"] == (CLOSE_BROKEN, "no pong in time")

    play(main)


# Dialling.


async def _refused(loop, network, listener):
    network.refuse("b:1", 1)


async def _nobody_listens(loop, network, listener):
    listener.close()


async def _cut_there(loop, network, listener):
    network.cut("a", "b")


async def _cut_back(loop, network, listener):
    network.cut("b", "a")


async def _is_offline(loop, network, listener):
    network.go_offline("a")


async def _is_off(loop, network, listener):
    loop.crash(listener.host)
    network.power_cut(listener.host)


async def _is_killed(loop, network, listener):
    loop.crash(listener.host)
    network.process_ended(listener.host)


DIALS = [
    (_refused, ConnectionRefusedError, 0),
    (_nobody_listens, ConnectionRefusedError, 0),
    (_cut_there, TimeoutError, DIAL_S),
    (_cut_back, TimeoutError, DIAL_S),
    (_is_off, TimeoutError, DIAL_S),
    (_is_offline, OSError, 0),
    (_is_killed, ConnectionRefusedError, 0),
]


@pytest.mark.parametrize(("fault", "error", "after_s"), DIALS, ids=lambda v: getattr(v, "__name__", ""))
def test_a_dial_fails_as_the_machine_there_lets_it(fault, error, after_s):
    loop = SimLoop(1)
    network = Network(loop, QUICK)
    served = []

    async def serve(end):
        served.append(end)
        with pytest.raises(ChannelClosedError):
            await end.receive()

    async def main():
        listener = network.listen(loop.host("b"), "b:1", serve)
        host = loop.host("a")
        await fault(loop, network, listener)
        with pytest.raises(error):
            await network.dial(host, "b:1")
        assert loop.now_ns // SECOND_NS == after_s
        with pytest.raises(ConnectionRefusedError if fault is not _is_offline else OSError):
            await network.dial(host, "nowhere")
        if fault is _refused:
            await (await network.dial(host, "b:1")).close()
            assert len(served) == 1
        if fault is _cut_back:
            network.heal("b", "a")
            await asyncio.sleep(1)  # the other side had accepted: it learns that nobody waits
            assert not served[0].is_open

    loop.run(main())


def test_an_address_is_taken_once_and_free_again_after_a_crash():
    loop = SimLoop(1)
    network = Network(loop)

    async def serve(end):
        raise AssertionError

    async def main():
        host = loop.host("b")
        network.listen(host, "b:1", serve)
        with pytest.raises(OSError, match="in use"):
            network.listen(loop.host("c"), "b:1", serve)
        loop.crash(host)
        network.process_ended(host)
        network.listen(loop.host("b"), "b:1", serve)

    loop.run(main())


def test_a_dial_that_is_given_up_leaves_no_channel_behind():
    loop = SimLoop(1)
    ends = []

    async def whole():
        network = Network(loop, Delay(10 * MS, 0, 10 * MS))

        async def serve(end):
            ends.append(end)
            with pytest.raises(ChannelClosedError):
                await end.receive()

        network.listen(loop.host("b"), "b:1", serve)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.015):
                await network.dial(loop.host("a"), "b:1")
        assert [end.is_open for end in ends] == [True]  # the answer is on its way, and nobody waits for it
        assert not network.open_from("a", "")
        await asyncio.sleep(1)
        assert [end.is_open for end in ends] == [False]
        network.cut("a", "b")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await network.dial(loop.host("a"), "b:1")
        network.heal("a", "b")
        await asyncio.sleep(1)
        assert len(ends) == 1  # nobody asks any more

    loop.run(whole())


def test_a_link_made_later_has_the_troubles_of_its_machines():
    network = Network(SimLoop(1))
    network.go_offline("a")
    links = {name: network.link(*name) for name in (("a", "b"), ("b", "a"), ("b", "c"))}
    assert {name: link.trouble for name, link in links.items()} == {
        ("a", "b"): Trouble.OFFLINE,
        ("b", "a"): Trouble.OFFLINE,
        ("b", "c"): Trouble.NONE,
    }


def test_everything_stands_in_the_trace():
    from simulations.trace import Trace

    trace = Trace(events_max=100)

    async def main(pair):
        await pair.near.send(b"x")
        await asyncio.sleep(1)
        pair.network.cut("a", "b")
        pair.network.heal("a", "b")
        pair.network.reset("a", "b")

    play(main, trace=trace)
    assert [event.what for event in trace.events] == [
        *("listen", "dial", "accept", "send", "deliver", "link CUT", "link not CUT", "break", "break"),
    ]
