"""Running a bounded number of things at once, so that the first error ends all of them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import TypeVar

T = TypeVar("T")


async def some_done(tasks: set[asyncio.Task[None]]) -> set[asyncio.Task[None]]:
    """Wait until a task has ended and return those that go on; raise the error of one that failed, after ending all."""
    done, rest = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    errors = [error for task in done if (error := task.exception()) is not None]
    if errors:
        await end(rest)
        raise errors[0]
    return rest


async def to_its_end(work: Awaitable[T], stop: Callable[[], object] | None = None) -> T:
    """Wait for work that goes on in a thread whoever is cancelled; a cancellation is heeded once it has ended.

    ``stop`` is called when one comes, so that the work may end sooner.
    """
    going = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not going.done():
        try:
            await asyncio.wait([going])
        except asyncio.CancelledError as error:
            cancelled = error
            if stop is not None:
                stop()
    if cancelled is not None:
        if not going.cancelled():
            going.exception()
        raise cancelled
    return going.result()


async def end(tasks: Iterable[asyncio.Task[None]]) -> None:
    """Cancel tasks and wait until they have ended."""
    left = list(tasks)
    for task in left:
        task.cancel()
    if left:
        await asyncio.gather(*left, return_exceptions=True)


async def run_bounded(jobs: Iterable[Coroutine[None, None, None]], most: int) -> None:
    """Run jobs, at most this many at once; ``jobs`` is read as they end, so it may be as long as it likes."""
    running: set[asyncio.Task[None]] = set()
    try:
        for job in jobs:
            while len(running) >= most:
                running = await some_done(running)
            running.add(asyncio.create_task(job))
        while running:
            running = await some_done(running)
    finally:
        await end(running)
