"""A program with all that asyncio offers, run on the virtual loop to print its digest; started by test_trace.py.

Each process begins with other hash seeds and other addresses, so whatever depends on either shows.
"""

from __future__ import annotations

import asyncio
import os
import sys

from protocol.effects import ChannelClosedError
from simulations.doors import SimEntropy, SimProcessor
from simulations.loop import Schedule, SimLoop
from simulations.network import Network

DEVICES = ("phone", "laptop", "tablet")
BALLAST: list[object] = []


async def serve(end):
    """Answer each message, out of order."""
    waiting: set[asyncio.Task[None]] = set()

    async def answer(data):
        await asyncio.sleep(data[0] / 100)
        await end.send(data[::-1])

    try:
        while True:
            waiting.add(asyncio.create_task(answer(await end.receive())))
            waiting = {task for task in waiting if not task.done()}
    except ChannelClosedError:
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)


async def work(loop, host, network, results):
    entropy, processor = SimEntropy(loop, host.name), SimProcessor(loop, host)
    slots = asyncio.Semaphore(3)
    queue: asyncio.Queue[bytes] = asyncio.Queue(4)
    end = await network.dial(host, "coordinator")

    async def one(number):
        async with slots:
            await asyncio.sleep(entropy(1)[0] / 1000)
            await end.send(bytes([number]) + entropy(20))
            return await processor.run(sum, entropy(10))

    async def listen():
        while True:
            await queue.put(await end.receive())

    async def collect(most):
        for _ in range(most):
            async with asyncio.timeout(0.5):
                results.append(await queue.get())

    listening = asyncio.create_task(listen())
    async with asyncio.TaskGroup() as group:
        for _ in range(2):
            group.create_task(collect(8))
        tasks = {asyncio.create_task(one(number)) for number in range(16)}
        while tasks:
            done, tasks = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                loop.note("summed", str(task.result()))
    await asyncio.gather(*(asyncio.to_thread(entropy, 3) for _ in range(5)))
    try:
        async with asyncio.TaskGroup() as group:
            for number in range(30):
                group.create_task(fail_or_wait(loop, number), name=f"{number}")
    except* KeyError as errors:
        loop.note("failed", str(len(errors.exceptions)))
    listening.cancel()
    await asyncio.wait([listening])
    await end.close()


async def fail_or_wait(loop, number):
    try:
        await asyncio.sleep(0.2 if number == 17 else 60)
    except asyncio.CancelledError:
        loop.note("cancelled", str(number))
        raise
    raise KeyError(number)


def digest(seed, schedule):
    loop = SimLoop(seed, schedule=schedule)
    network = Network(loop)
    results: list[bytes] = []

    async def main():
        network.listen(loop.host("coordinator"), "coordinator", serve)
        hosts = [loop.host(name) for name in DEVICES]
        await asyncio.gather(*(loop.spawn(host, work(loop, host, network, results)) for host in hosts))

    loop.run(main())
    assert len(results) == 16 * len(DEVICES)
    return loop.trace.digest()


if __name__ == "__main__":
    BALLAST += [bytearray(ord(os.urandom(1)) + 1) for _ in range(999)]
    order, number = Schedule(sys.argv[1]), int(sys.argv[2])
    print(digest(number, order), digest(number, order), digest(number + 1, order))
