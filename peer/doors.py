"""The agent's real doors to time, chance and processors; its doors to the disk stand in :mod:`peer.disk`."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from peer.engine.tasks import to_its_end

T = TypeVar("T")

WORKERS_MAX = 4
"""Hashing, compressing and sealing release the interpreter lock, so threads beyond the processors still help the disk."""


class SystemClock:
    """The machine's clocks."""

    def now_ms(self) -> int:
        """Return the wall clock in milliseconds since 1970."""
        return time.time_ns() // 1_000_000

    def monotonic_s(self) -> float:
        """Return seconds since some moment of this process."""
        return time.monotonic()


class SystemEntropy:
    """The machine's random bytes."""

    def __call__(self, count: int, /) -> bytes:
        """Return this many random bytes."""
        return os.urandom(count)


class ThreadProcessor:
    """A pool of threads."""

    def __init__(self, workers: int = WORKERS_MAX) -> None:
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="kin")

    async def run(self, function: Callable[..., T], /, *args: Any) -> T:
        """Call the function in a thread of the pool."""
        work = self._pool.submit(function, *args)
        return await to_its_end(asyncio.wrap_future(work), work.cancel)

    def close(self) -> None:
        """Wait for what runs, and start nothing more."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    async def finish(self) -> None:
        """As :meth:`close`, while the event loop goes on."""
        await asyncio.to_thread(self.close)
