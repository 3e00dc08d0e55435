"""The simulated doors to time, chance and processors.

Rule 1: each is held to the same suite as the real one (tests/contracts).
Rule 2: a door of a host that is gone does nothing more.
Rule 3: what blocks elsewhere runs inline here: its effects happen at one instant, its result comes at a later one.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

from simulations.delays import WORK, Delay
from simulations.handles import SimFuture
from simulations.hosts import Host, HostCrashed
from simulations.loop import SECOND_NS, SimLoop
from simulations.mishaps import outcome, settle

T = TypeVar("T")

WORKERS: Final = 4
_MILLISECOND_NS: Final = 1_000_000


class SimClock:
    """The clocks of a machine; see :class:`simulations.hosts.LocalTime` for what can be wrong with them."""

    def __init__(self, loop: SimLoop, host: Host) -> None:
        self._loop = loop
        self._time = host.time

    def now_ms(self) -> int:
        """Return the wall clock in milliseconds since 1970."""
        return self._time.wall_ns(self._loop.now_ns) // _MILLISECOND_NS

    def now_ns(self) -> int:
        """Return the wall clock in nanoseconds since 1970, as files are stamped with it."""
        return self._time.wall_ns(self._loop.now_ns)

    def monotonic_s(self) -> float:
        """Return the monotonic clock in seconds; the loop's time, for this host."""
        return self._time.local_ns(self._loop.now_ns) / SECOND_NS


class SimEntropy:
    """The chance of one machine; kept over its crashes, so that no life repeats what an earlier one drew."""

    def __init__(self, loop: SimLoop, name: str) -> None:
        self._draw = loop.chance(f"entropy/{name}").randbytes
        self._mix = loop.trace.mix

    def __call__(self, count: int, /) -> bytes:
        """Return this many bytes."""
        data = self._draw(count)
        self._mix(data)
        return data


class _Job(SimFuture):
    """What a processor was asked for, and its result."""

    __slots__ = ("args", "begun", "function", "waits")
    function: Callable[..., Any]
    args: tuple[Any, ...]
    begun: bool
    waits: bool

    def cancel(self, msg: Any | None = None) -> bool:
        """Cancel it; one that runs and must be waited for refuses, and its task is told once it has ended."""
        if self.begun and self.waits:
            return False
        return super().cancel(msg)


class SimProcessor:
    """A pool of workers that takes virtual time and no thread.

    Args:
        loop: Of the run.
        host: Whose processor it is; with it, all that was asked for is gone.
        workers: How many jobs run at once.
        work: How long each takes, and how long until it begins.
        at_once: How many of the jobs, 0 to 1, are done before anything else happens, and of how many others the result is
            known at the instant of their effects.
        waits: As on a device: who is cancelled learns of it once the job has ended. Otherwise at once.
    """

    def __init__(
        self,
        loop: SimLoop,
        host: Host,
        *,
        workers: int = WORKERS,
        work: Delay = WORK,
        waits: bool = True,
        at_once: float = 0.0,
    ) -> None:
        self._loop = loop
        self._host = host
        self._chance = loop.chance(f"processor/{host.name}/{loop.now_ns}")
        self._free = workers
        self._work = work
        self._waits = waits
        self._draw = self._chance.random
        self._at_once = at_once
        self._queued: deque[_Job] = deque()
        self._closed = False

    def run(self, function: Callable[..., T], /, *args: Any) -> Awaitable[T]:
        """Call the function at a moment to come and return its result, or raise its error, at a later one."""
        return self._run(function, args) if self._waits else self._begin_job(function, args)

    def close(self) -> None:
        """Start nothing more; what has begun has done its work."""
        self._closed = True
        while self._queued:
            self._queued.popleft().cancel()

    async def finish(self) -> None:
        """As :meth:`close`."""
        self.close()

    async def _run(self, function: Callable[..., T], args: tuple[Any, ...]) -> T:
        if (
            self._free
            and self._loop.is_idle
            and not (self._closed or self._host.is_dead)
            and self._draw() < self._at_once
        ):
            try:
                result, error = outcome(function, args)
            except HostCrashed:
                await self._loop.never()
            if error is not None:
                raise error
            found: T = result
            return found
        return await self._begin_job(function, args)

    def _begin_job(self, function: Callable[..., T], args: tuple[Any, ...]) -> asyncio.Future[T]:
        if self._host.is_dead:
            raise HostCrashed(self._host.name)
        if self._closed:
            raise RuntimeError("the processor is closed")
        job = _Job(loop=self._loop)
        job.number = self._loop.next_number()
        job.function, job.args, job.begun, job.waits = function, args, False, self._waits
        self._queued.append(job)
        if self._free:
            self._take_next()
        return job

    def _take_next(self) -> None:
        self._free -= 1
        self._after(self._work.draw(self._chance) // 2, self._call_next)

    def _call_next(self) -> None:
        while self._queued and self._queued[0].done():
            self._queued.popleft()
        if not self._queued:
            self._free += 1
            return
        job = self._queued.popleft()
        job.begun = True
        result, error = outcome(job.function, job.args)
        if self._draw() < self._at_once:  # much may happen between an effect and its result, but need not
            self._end(job, result, error)
        else:
            self._after(self._work.draw(self._chance), self._end, job, result, error)

    def _end(self, job: _Job, result: Any, error: BaseException | None) -> None:
        job.begun = False  # from here on it is as any future
        settle(job, result, error)
        self._free += 1
        if self._queued:
            self._take_next()

    def _after(self, delay_ns: int, callback: Callable[..., object], *args: Any) -> None:
        self._loop.call_at_ns(self._loop.now_ns + delay_ns, callback, *args, context=self._host.context)
