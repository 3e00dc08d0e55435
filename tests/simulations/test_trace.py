"""The trace of a run: its digest is the same wherever the same seed runs, and differs for what differs."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from simulations.loop import Schedule, SimLoop
from simulations.trace import Trace

PROGRAM = Path(__file__).with_name("traced_program.py")


def test_the_digest_covers_each_part_of_an_event_and_their_order():
    base = (1, "phone", "send", "to", b"data")
    others = [
        (2, "phone", "send", "to", b"data"),
        (1, "laptop", "send", "to", b"data"),
        (1, "phone", "deliver", "to", b"data"),
        (1, "phone", "send", "by", b"data"),
        (1, "phone", "send", "to", b"date"),
        (1, "phone", "send", "to", b""),
    ]
    seen = []
    for events in ([], [base], [base, base], *([other] for other in others), [base, others[0]], [others[0], base]):
        trace = Trace()
        for event in events:
            trace.note(*event)
        seen.append(trace.digest())
    assert len(set(seen)) == len(seen)


def test_asking_for_the_digest_changes_nothing_and_many_events_are_all_in_it():
    asked, unasked = Trace(), Trace()
    for number in range(5_000):
        for trace in (asked, unasked):
            trace.note(number, "phone", "step")
        if number % 97 == 0:
            asked.digest()
    assert asked.digest() == unasked.digest()


def test_the_record_keeps_the_last_events_and_no_more():
    trace = Trace(events_max=3)
    for number in range(10):
        trace.note(number * 1_000_000, "phone", "send", "phone>laptop", b"x" * number)
    assert [event.time_ns // 1_000_000 for event in trace.events] == [7, 8, 9]
    assert str(trace.events[-1]) == "    0.009000000 phone        send phone>laptop [9 bytes, 6ec2fec3]"
    assert (trace.count, Trace().events) == (10, ())


def test_the_order_of_hosts_and_the_moments_are_in_the_digest_though_nobody_notes_them():
    async def tick(every_s, count):
        for _ in range(count):
            await asyncio.sleep(every_s)

    def digest(*hosts, every_s=1.0):
        loop = SimLoop(1)

        async def main():
            await asyncio.gather(*(loop.spawn(loop.host(name), tick(every_s, count)) for name, count in hosts))

        loop.run(main())
        return loop.trace.digest()

    base = digest(("a", 2), ("b", 3))
    assert digest(("a", 2), ("b", 3)) == base
    assert base not in {digest(("a", 3), ("b", 2)), digest(("a", 2), ("b", 3), every_s=1.5), digest(("a", 2))}


def run_program(hash_seed, schedule, seed):
    return subprocess.run(
        [sys.executable, "-P", str(PROGRAM), schedule.value, str(seed)],
        check=True,
        capture_output=True,
        text=True,
        env={"PYTHONHASHSEED": str(hash_seed), "PYTHONPATH": str(PROGRAM.parents[2]), "PATH": ""},
    ).stdout


@pytest.mark.parametrize("schedule", Schedule)
def test_a_seed_gives_one_trace_in_three_processes_with_different_hash_seeds(schedule):
    outputs = {run_program(hash_seed, schedule, 5) for hash_seed in (0, 1, 2)}
    assert len(outputs) == 1, outputs
    (output,) = outputs
    first, second, other = output.split()
    assert first == second != other
