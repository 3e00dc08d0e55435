"""Time, chance and processors: one suite for each service's real doors and for the simulated ones."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import pytest

import coordinator.doors
import peer.doors
import storage_node.doors
from protocol.effects import Clock, Entropy
from simulations.delays import Delay
from simulations.doors import SimClock, SimEntropy, SimProcessor
from simulations.hosts import LocalTime
from simulations.loop import Schedule, SimLoop

MS = 1_000_000


class World:
    """The doors of one host, and a loop to run in."""

    def __init__(self, kind: str) -> None:
        self.loop: SimLoop | None = None
        self.waits = True
        self.clock: Clock
        self.entropy: Entropy
        self.processor: Any
        if kind.startswith("simulated"):
            self.loop = SimLoop(1, schedule=Schedule.SHUFFLED if "shuffled" in kind else Schedule.FIFO)
            rate = LocalTime(offset_ns=5_000 * MS, rate_ppm=-90_000, wall_offset_ns=-(10**15))
            self.host = self.loop.host("phone", rate if "skewed" in kind else None)
            self.clock, self.entropy = SimClock(self.loop, self.host), SimEntropy(self.loop, "phone")
            self.waits = "node" not in kind
            work = Delay(10 * MS, 10 * MS, 100 * MS)
            self.processor = SimProcessor(self.loop, self.host, waits=self.waits, work=work)
        elif kind == "device":
            self.clock, self.entropy = peer.doors.SystemClock(), peer.doors.SystemEntropy()
            self.processor = peer.doors.ThreadProcessor()
        elif kind == "coordinator":
            self.clock, self.entropy = coordinator.doors.SystemClock(), coordinator.doors.system_entropy
        else:
            self.clock, self.entropy = storage_node.doors.SystemClock(), storage_node.doors.SystemEntropy()
            self.processor, self.waits = storage_node.doors.ThreadProcessor(), False

    def run(self, main):
        if self.loop is not None:
            return self.loop.run(self._as_host(self.loop, main))
        return asyncio.run(main())

    async def _as_host(self, loop, main):
        return await loop.spawn(self.host, main())


REAL = ("device", "coordinator", "node")
SIMULATED = ("simulated", "simulated, skewed", "simulated, shuffled", "simulated node")


@pytest.fixture(params=[*REAL, *SIMULATED])
def world(request):
    return World(request.param)


@pytest.fixture(params=[kind for kind in (*REAL, *SIMULATED) if kind != "coordinator"])
def working(request):
    made = World(request.param)
    yield made
    made.processor.close()


def test_monotonic_time_goes_as_the_loop_goes_and_the_wall_clock_with_it(world):
    async def main():
        begin_s, begin_ms = world.clock.monotonic_s(), world.clock.now_ms()
        loop_s = asyncio.get_running_loop().time()
        await asyncio.sleep(0.05)
        passed_s = world.clock.monotonic_s() - begin_s
        assert passed_s >= 0.0499
        assert abs(passed_s - (asyncio.get_running_loop().time() - loop_s)) < 0.04
        assert 40 <= world.clock.now_ms() - begin_ms < 60_000
        assert 1_700_000_000_000 < begin_ms < 5_000_000_000_000

    world.run(main)


def test_chance_gives_as_many_bytes_as_asked_and_never_the_same(world):
    drawn = [world.entropy(32) for _ in range(50)]
    assert {len(data) for data in drawn} == {32}
    assert len(set(drawn)) == 50
    assert world.entropy(0) == b""
    assert len(world.entropy(100_000)) == 100_000


def test_a_job_gets_its_arguments_and_gives_its_result_or_its_error(working):
    async def main():
        assert await working.processor.run(divmod, 17, 5) == (3, 2)
        with pytest.raises(ZeroDivisionError):
            await working.processor.run(divmod, 1, 0)
        many = await asyncio.gather(*(working.processor.run(pow, number, 2) for number in range(50)))
        assert many == [number * number for number in range(50)]

    working.run(main)


def test_the_loop_goes_on_while_a_job_runs(working):
    async def main():
        beats = []

        async def beat():
            while True:
                beats.append(1)
                await asyncio.sleep(0)

        beating = asyncio.create_task(beat()) if working.loop is None else None
        await working.processor.run(time.sleep, 0.02 if beating else 0)
        if beating:
            beating.cancel()
            assert len(beats) > 1

    working.run(main)


def test_who_is_cancelled_while_a_job_runs_learns_of_it_as_the_door_says(working):
    async def main():
        begun, may_end, ended = threading.Event(), threading.Event(), []

        def job():
            begun.set()
            if working.loop is None:
                may_end.wait(10)
            ended.append(True)

        task = asyncio.ensure_future(working.processor.run(job))
        while not begun.is_set():  # noqa: ASYNC110 - a thread sets it
            await asyncio.sleep(0.0001)
        task.cancel()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert task.done() is not working.waits
        may_end.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        if working.waits:
            assert ended

    working.run(main)


def test_a_job_that_was_cancelled_before_its_turn_never_begins(working):
    async def main():
        go_on = threading.Event()
        ran: list[int] = []
        if working.loop is None:
            blocking = [asyncio.ensure_future(working.processor.run(go_on.wait, 10)) for _ in range(4)]
        else:
            blocking = [asyncio.ensure_future(working.processor.run(go_on.is_set)) for _ in range(4)]
        await asyncio.sleep(0)
        task = asyncio.ensure_future(working.processor.run(ran.append, 1))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.sleep(0)  # a pool learns of it a step later
        go_on.set()
        await asyncio.gather(*blocking)
        await working.processor.run(int)
        assert ran == []

    working.run(main)


def test_a_processor_that_is_closed_takes_nothing_more(working):
    async def main():
        await working.processor.run(int)
        working.processor.close()
        with pytest.raises(RuntimeError):
            await working.processor.run(int)

    working.run(main)


# What only the simulated ones do.


def test_a_seed_gives_each_host_its_own_chance_which_goes_on_after_a_crash():
    def drawn(seed, name):
        return SimEntropy(SimLoop(seed), name)(16)

    assert drawn(1, "phone") == drawn(1, "phone")
    assert len({drawn(1, "phone"), drawn(2, "phone"), drawn(1, "laptop")}) == 3


def test_jobs_take_virtual_time_and_as_many_at_once_as_there_are_workers():
    loop = SimLoop(1)
    host = loop.host("phone")
    processor = SimProcessor(loop, host, workers=2, work=Delay(1_000 * MS, 0, 1_000 * MS))

    async def main():
        await asyncio.gather(*(processor.run(int) for _ in range(6)))
        return loop.now_ns // MS

    assert loop.run(main()) == 3 * 1_500  # half as long until each begins


def test_a_crash_takes_the_jobs_that_had_not_begun_and_the_results_of_those_that_had():
    loop = SimLoop(1)
    host = loop.host("phone")
    processor = SimProcessor(loop, host, workers=1, work=Delay(1_000 * MS, 0, 1_000 * MS))

    async def main():
        ran: list[int] = []
        told: list[int] = []

        async def ask(number):
            await processor.run(ran.append, number)
            told.append(number)

        for number in range(5):
            loop.spawn(host, ask(number))
        await asyncio.sleep(2.2)
        loop.crash(host)
        await asyncio.sleep(10)
        return ran, told

    assert loop.run(main()) == ([0, 1], [0])


JUMPS = [
    # wall clock jumps, machine sleeps, machine reboots: wall and monotonic clock in the end, in seconds from the start
    (0, 0, False, 30, 30),
    (-3600, 0, False, 30 - 3600, 30),
    (3600, 10, False, 30 + 3600, 20),
    (0, 10, True, 30, 0),
]


@pytest.mark.parametrize(("jump_s", "sleep_s", "reboots", "wall_s", "monotonic_s"), JUMPS)
def test_the_wall_clock_jumps_and_goes_on_while_the_monotonic_one_never_goes_back(
    jump_s, sleep_s, reboots, wall_s, monotonic_s
):
    loop = SimLoop(1)
    host = loop.host("phone")
    clock = SimClock(loop, host)

    async def main():
        begin_ms = clock.now_ms()
        await asyncio.sleep(20 - sleep_s)
        host.time.jump(jump_s * 1000 * MS)
        loop.suspend(host, clock_stops=True)
        await asyncio.sleep(sleep_s)
        loop.resume(host)
        await asyncio.sleep(10)
        if reboots:
            loop.crash(host)
            host.time.reboot(loop.now_ns)
        assert clock.now_ms() - begin_ms == wall_s * 1000
        assert clock.now_ns() // MS == clock.now_ms()
        assert clock.monotonic_s() == monotonic_s

    loop.run(main())


def test_a_clock_that_no_machine_has_is_refused():
    with pytest.raises(ValueError, match="ppm"):
        LocalTime(rate_ppm=300_000)
