"""The virtual loop: time, order, hosts that end, sleep and drift, and that nothing goes wrong unheard."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import sys
import threading

import pytest

from simulations.hosts import HOST, HostCrashed, LocalTime
from simulations.loop import SECOND_NS, Schedule, SimLoop
from simulations.mishaps import DeadlockError, FenceError, LivelockError, SimulationError, UnheardError

HOUR_S = 3600


def run(main, **options):
    loop = SimLoop(1, **options)
    return loop.run(main(loop))


# Time.


def test_time_jumps_to_what_is_due_and_costs_nothing():
    async def main(loop):
        await asyncio.sleep(1000 * HOUR_S)
        await asyncio.sleep(1e-9)
        return loop.now_ns

    assert run(main) == 1000 * HOUR_S * SECOND_NS + 1


def test_timers_fire_at_their_nanosecond_and_equal_ones_in_the_order_in_which_they_were_set():
    async def main(loop):
        fired = []
        for name, delay_s in (("c", 0.3), ("a", 0.1), ("b", 0.1), ("never", 0.2)):
            timer = loop.call_later(delay_s, lambda name=name: fired.append((name, loop.now_ns)))
            if name == "never":
                timer.cancel()
        await asyncio.sleep(1)
        return fired

    assert run(main) == [("a", 100_000_000), ("b", 100_000_000), ("c", 300_000_000)]


def test_a_timeout_ends_what_takes_too_long():
    async def main(loop):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(5):
                await asyncio.Event().wait()
        return loop.time()

    assert run(main) == 5


# Order.


async def _order(count):
    done = []

    async def one(number):
        await asyncio.sleep(0)
        done.append(number)

    await asyncio.gather(*(one(number) for number in range(count)))
    return done


def test_fifo_keeps_the_order_of_asyncio_and_shuffled_takes_another_for_each_seed():
    assert SimLoop(1).run(_order(20)) == list(range(20))
    shuffled = [SimLoop(seed, schedule=Schedule.SHUFFLED).run(_order(20)) for seed in (1, 1, 2)]
    assert shuffled[0] == shuffled[1] != shuffled[2]
    assert all(sorted(order) == list(range(20)) != order for order in shuffled)


def test_sets_of_tasks_and_futures_keep_one_order_wherever_they_lie_in_memory():
    async def main(loop):
        keep = []  # so that addresses differ from run to run
        tasks = set()
        for number in range(200):
            keep.append(bytearray(number * number % 977))
            tasks.add(asyncio.create_task(asyncio.sleep(0, number), name=str(number)))
        done, _ = await asyncio.wait(tasks)
        futures = {loop.create_future() for _ in range(50)}
        return [task.get_name() for task in done], [future.number for future in futures]

    first, ballast = run(main), [bytearray(100) for _ in range(500)]
    assert run(main) == first
    assert ballast


def test_a_job_for_an_executor_runs_inline_a_little_later():
    async def main(loop):
        here = threading.get_ident()
        assert await asyncio.to_thread(threading.get_ident) == here
        assert await loop.run_in_executor(None, lambda: 7) == 7
        with pytest.raises(KeyError):
            await loop.run_in_executor(None, {}.__getitem__, "x")
        return loop.now_ns

    assert 0 < run(main) < SECOND_NS


# Going wrong.


def test_nothing_left_to_wait_for_is_an_error_that_says_who_waits_and_where():
    async def stuck():
        await asyncio.Event().wait()

    async def main(loop):
        loop.spawn(loop.host("phone"), stuck(), name="sync")
        await asyncio.sleep(1)
        await asyncio.Event().wait()

    with pytest.raises(
        DeadlockError, match=r"(?s)1\.000000000 s; 2 tasks wait.*phone/sync at .*test_loop.py:\d+ stuck"
    ):
        run(main)


def test_who_lets_no_time_pass_is_stopped(monkeypatch):
    monkeypatch.setattr("simulations.loop.STEPS_PER_INSTANT_MAX", 1000)

    async def main(loop):
        await asyncio.sleep(1)
        while loop.now_ns < 2 * SECOND_NS:  # noqa: ASYNC110 - that it lets no time pass is the point
            await asyncio.sleep(0)

    for schedule in Schedule:
        with pytest.raises(LivelockError, match="1000 steps"):
            run(main, schedule=schedule)


def test_timers_that_stand_still_end_the_run(monkeypatch):
    monkeypatch.setattr("simulations.loop.STEPS_PER_INSTANT_MAX", 1000)

    async def main(loop):
        phone = loop.host("phone")
        phone.time.stop(loop.now_ns)  # and nobody has it go on

        async def wait():
            for _ in range(2_000):
                await asyncio.sleep(1)

        await loop.spawn(phone, wait(), name="waits")

    with pytest.raises(LivelockError, match="timers end"):
        run(main)


async def _fail():
    raise KeyError("lost")


async def _keep_failed_task(loop):
    loop.kept = asyncio.create_task(_fail())
    await asyncio.sleep(1)


async def _drop_failed_task(loop):
    asyncio.create_task(_fail())  # noqa: RUF006 - that nobody holds it is the point
    await asyncio.sleep(1)


async def _drop_failed_task_in_a_cycle(loop):
    task = asyncio.create_task(_fail())
    cycle: list[object] = [task]
    cycle.append(cycle)
    await asyncio.sleep(1)


async def _fail_in_callback(loop):
    loop.call_later(0.5, {}.__getitem__, "lost")
    await asyncio.sleep(1)


async def _forget_to_await(loop):
    [_fail()]
    await asyncio.sleep(1)


async def _fail_in_finaliser(loop):
    class Bad:
        def __del__(self):
            raise KeyError("lost")

    Bad()
    await asyncio.sleep(1)


UNHEARD = [
    (_keep_failed_task, "nobody asked"),
    (_drop_failed_task, "never retrieved"),
    (_drop_failed_task_in_a_cycle, "lost"),
    (_fail_in_callback, "a callback failed"),
    (_forget_to_await, "'_fail' was never awaited"),
    (_fail_in_finaliser, "finaliser"),
]


@pytest.mark.parametrize(("main", "text"), UNHEARD, ids=lambda value: getattr(value, "__name__", ""))
def test_nothing_goes_wrong_unheard(main, text):
    with pytest.raises(UnheardError, match=text):
        run(main)


def test_an_error_of_the_main_coroutine_is_raised_and_one_unheard_comes_before_it():
    with pytest.raises(KeyError, match="lost"):
        SimLoop(1).run(_fail())

    async def both(loop):
        loop.kept = asyncio.create_task(_fail())
        await asyncio.sleep(1)
        raise ZeroDivisionError

    with pytest.raises(UnheardError) as caught:
        run(both)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_another_thread_is_refused_and_the_run_fails():
    refused = []

    def reach(loop):
        try:
            loop.call_soon_threadsafe(print)
        except FenceError as error:
            refused.append(error)

    async def main(loop):
        loop.call_soon_threadsafe(refused.append, "own")
        thread = threading.Thread(target=reach, args=(loop,), name="intruder")
        thread.start()
        thread.join()
        await asyncio.sleep(1)

    with pytest.raises(FenceError, match="intruder"):
        run(main)
    assert len(refused) == 1


def test_there_are_no_sockets():
    async def main(loop):
        await asyncio.open_connection("localhost", 1)

    with pytest.raises(FenceError):
        run(main)


# Hosts.


async def _tick(log, name, every_s=1.0):
    while True:
        await asyncio.sleep(every_s)
        log.append(name)


def test_every_task_and_callback_belongs_to_the_host_that_scheduled_it():
    async def main(loop):
        seen = []

        async def child():
            await asyncio.sleep(1)
            seen.append(HOST.get().name)

        async def top():
            loop.call_soon(lambda: seen.append(HOST.get().name))
            async with asyncio.TaskGroup() as group:
                group.create_task(child())
            await loop.run_in_executor(None, lambda: seen.append(HOST.get().name))

        await asyncio.gather(loop.spawn(loop.host("a"), top()), loop.spawn(loop.host("b"), top()))
        return sorted(seen), HOST.get() is loop.world

    assert run(main) == (["a"] * 3 + ["b"] * 3, True)


@pytest.mark.parametrize("schedule", Schedule)
def test_a_crash_drops_a_host_at_once_and_runs_nothing_of_its_cleaning_up(schedule):
    cleaned = []

    async def main(loop):
        phone, laptop = loop.host("phone"), loop.host("laptop")
        ticks: list[str] = []

        async def generate():
            try:
                yield 1
                await asyncio.sleep(HOUR_S)
            finally:
                cleaned.append("generator")

        async def work():
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(_tick(ticks, "phone"))
                    async for _ in generate():
                        await asyncio.Event().wait()  # an event that nothing else holds
            finally:
                cleaned.append("finally")

        async def wait_alone():
            try:
                await asyncio.Event().wait()
            finally:
                cleaned.append("alone")

        told = loop.create_future()

        async def hear():
            try:
                await told
            finally:
                cleaned.append("told")

        for one in (work(), wait_alone(), hear()):
            loop.spawn(phone, one)
        loop.spawn(laptop, _tick(ticks, "laptop"))
        left = [generate()]

        async def begin():
            await anext(left[0])

        await loop.spawn(phone, begin())
        await asyncio.sleep(3.5)
        loop.call_soon(cleaned.append, "a step of the phone's", context=phone.context)
        loop.crash(phone)
        left.clear()
        told.set_result(None)
        loop.call_soon(cleaned.append, "a later step of the phone's", context=phone.context)
        loop.call_later(1, cleaned.append, "a later timer of the phone's", context=phone.context)
        gc.collect()
        await asyncio.sleep(2)
        assert ticks.count("phone") == 3
        assert ticks.count("laptop") == 5
        assert loop.tasks(phone) != []
        assert [task.host.name for task in loop.tasks()] == ["", "laptop"]
        assert cleaned == []
        again = loop.host("phone")
        loop.spawn(again, _tick(ticks, "phone"))
        await asyncio.sleep(1.5)
        assert ticks.count("phone") == 4
        assert cleaned == []

    run(main, schedule=schedule)


def test_the_error_of_a_host_that_is_gone_is_nobodys():
    async def main(loop):
        phone = loop.host("phone")
        failed = loop.spawn(phone, _fail())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert failed.done()
        loop.crash(phone)

    run(main)


def test_an_effect_at_which_a_crash_is_planned_does_not_happen_nor_any_later_one():
    async def main(loop):
        phone = loop.host("phone")
        phone.crash_at, phone.on_crash = 3, lambda: loop.crash(phone)
        done: list[object] = []

        async def work():
            try:
                for number in range(5):
                    phone.effect()
                    done.append(number)
            finally:
                with contextlib.suppress(Exception):
                    phone.effect()
                    done.append("cleaned up")

        loop.spawn(phone, work())
        await asyncio.sleep(1)
        assert phone.is_dead
        with pytest.raises(HostCrashed):
            phone.effect()
        return done

    assert run(main) == [0, 1]


SUSPENSIONS = [
    # whether the clock stops, ticks before, during, right after, and three seconds later; the clock in the end
    (False, 2, 2, 3, 5, 15.0),
    (True, 2, 2, 2, 5, 5.5),
]


@pytest.mark.parametrize(("clock_stops", "before", "during", "after", "later", "clock_s"), SUSPENSIONS)
def test_a_suspended_host_does_nothing_and_its_timers_are_due_or_wait(
    clock_stops, before, during, after, later, clock_s
):
    async def main(loop):
        phone, told = loop.host("phone"), asyncio.Event()
        ticks: list[str] = []

        async def hear():
            await told.wait()
            ticks.append("told")

        loop.spawn(phone, _tick(ticks, "tick"))
        loop.spawn(phone, hear())
        await asyncio.sleep(2.5)
        assert ticks.count("tick") == before
        loop.suspend(phone, clock_stops=clock_stops)
        told.set()
        loop.call_later(1.005, ticks.append, "set meanwhile", context=phone.context)
        await asyncio.sleep(9.5)
        assert ticks.count("tick") == during
        assert "told" not in ticks
        loop.resume(phone)
        await asyncio.sleep(0.01)
        assert ticks.count("tick") == after
        assert "told" in ticks
        assert ("set meanwhile" in ticks) is not clock_stops
        await asyncio.sleep(2.99)
        assert ticks.count("tick") == later
        assert "set meanwhile" in ticks
        assert phone.time.local_ns(loop.now_ns) == clock_s * SECOND_NS
        assert phone.time.wall_ns(loop.now_ns) - loop.world.time.wall_ns(0) == loop.now_ns

    run(main)


def test_a_crash_of_a_suspended_host_forgets_what_it_would_have_done():
    async def main(loop):
        for stops in (False, True):
            phone = loop.host("phone")
            ticks: list[str] = []
            loop.spawn(phone, _tick(ticks, "tick"))
            await asyncio.sleep(1.5)
            loop.suspend(phone, clock_stops=stops)
            loop.crash(phone)
            loop.resume(phone)
            await asyncio.sleep(5)
            assert ticks == ["tick"]

    run(main)


def test_a_hosts_timers_go_by_its_own_clock():
    async def main(loop):
        fast = loop.host("fast", LocalTime(offset_ns=7 * SECOND_NS, rate_ppm=100_000))
        ticks = []

        async def work():
            begin_s = loop.time()
            await asyncio.sleep(11)
            ticks.append((loop.now_ns, round(loop.time() - begin_s, 6)))
            loop.call_at(loop.time() + 11, lambda: ticks.append(loop.now_ns))

        loop.spawn(fast, work())
        await asyncio.sleep(15)
        loop.set_rate(fast, 0)  # 5.5 of the 11 seconds have passed
        await asyncio.sleep(10)
        return ticks

    assert run(main) == [(10 * SECOND_NS, 11), 20_500_000_000]


def test_an_abandoned_generator_is_closed_by_its_own_host():
    async def main(loop):
        closed = []

        async def generate():
            try:
                yield 1
                yield 2
            finally:
                closed.append(HOST.get().name)

        async def work():
            async for _ in generate():
                break

        await loop.spawn(loop.host("phone"), work())
        await asyncio.sleep(1)
        return closed

    assert run(main) == ["phone"]


# Size and speed.


def test_a_million_steps_need_bounded_memory():
    steps = 1_000_000
    blocks: list[int] = []

    async def play(queue, other, loop):
        while loop.steps < steps:
            for _ in range(500):
                await asyncio.sleep(0)
            other.put_nowait(loop.now_ns)
            await queue.get()
            async with asyncio.timeout(HOUR_S):
                await asyncio.create_task(asyncio.sleep(0.001))
            if not blocks and loop.steps > steps // 10:
                blocks.append(sys.getallocatedblocks())

    async def main(loop):
        first: asyncio.Queue[int] = asyncio.Queue()
        second: asyncio.Queue[int] = asyncio.Queue()
        players = [asyncio.create_task(play(*way, loop)) for way in ((first, second), (second, first))]
        await asyncio.wait(players, return_when=asyncio.FIRST_COMPLETED)
        blocks.append(sys.getallocatedblocks())

    loop = SimLoop(1)
    loop.run(main(loop))
    assert loop.steps >= steps
    early, late = blocks
    assert late - early < 3_000


def test_a_run_can_not_be_stopped_and_forgotten():
    async def main(loop):
        loop.fail(SimulationError("by hand"))
        await asyncio.sleep(1)

    with pytest.raises(SimulationError, match="by hand"):
        run(main)
    assert gc.isenabled()


def test_many_runs_in_one_process_leave_nothing_behind():
    async def main(loop):
        for number in range(20):
            host = loop.host(str(number))
            loop.spawn(host, _tick([bytearray(10_000)], "tick"))
            await asyncio.sleep(2)
            loop.crash(host)

    blocks = []
    for _ in range(130):
        run(main)
        blocks.append(sys.getallocatedblocks())
    assert blocks[128] - blocks[64] < 2_000  # each after as many runs


def test_tasks_that_ended_are_not_remembered():
    async def main(loop):
        for _ in range(10_000):
            await asyncio.create_task(asyncio.sleep(0))
        return len(loop._born)

    assert run(main) < 2_000


@pytest.mark.parametrize("crashes", [False, True])
def test_what_did_not_end_makes_no_noise_at_the_end(crashes):
    caught = []

    async def stubborn(loop):
        try:
            while True:
                try:
                    await asyncio.Event().wait()
                finally:
                    await asyncio.sleep(1)
        except Exception as error:  # noqa: BLE001 - as a product that logs and goes on
            caught.append(error)
        finally:
            await asyncio.gather(asyncio.sleep(1), loop.create_future(), return_exceptions=True)

    async def main(loop):
        phone = loop.host("phone")
        tasks = [loop.spawn(phone, stubborn(loop)) for _ in range(3)]
        await asyncio.sleep(1)
        if crashes:
            loop.crash(phone)
        return tasks

    tasks = run(main)
    assert not any(task.done() for task in tasks)
    assert caught == []
