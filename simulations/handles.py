"""What a virtual loop gives out: tasks and futures that know their number, handles that know their host."""

from __future__ import annotations

import asyncio
from typing import Any, Protocol

from simulations.hosts import Host


class TimerKeeper(Protocol):
    """Who keeps timers."""

    def timer_cancelled(self) -> None:
        """Note that one of them waits for nothing any more."""


class SimTask(asyncio.Task[Any]):
    """A task that knows its number and its host."""

    __slots__ = ("host", "number")
    host: Host
    number: int

    def __hash__(self) -> int:
        return self.number


class SimFuture(asyncio.Future[Any]):
    """A future that knows its number."""

    __slots__ = ("number",)
    number: int

    def __hash__(self) -> int:
        return self.number


class Step(asyncio.Handle):
    """A callback that is ready; made by :meth:`SimLoop.call_soon` alone, which sets what is used of it."""

    __slots__ = ("host",)
    host: Host
    _callback: Any
    _context: Any

    def cancel(self) -> None:
        """Have it not run."""
        self._cancelled = True
        self._callback = self._args = None  # type: ignore[assignment]  # as in asyncio: a cancelled handle keeps nothing alive

    def __repr__(self) -> str:
        return f"<step of {self.host.name}: {self._callback}>"


class Timer(asyncio.TimerHandle):
    """A callback for a later moment; made by :meth:`SimLoop.call_at_ns` alone."""

    __slots__ = ("host", "loop")
    host: Host
    loop: TimerKeeper
    _callback: Any
    _context: Any
    _scheduled: bool
    _when: float

    def cancel(self) -> None:
        """Have it not run."""
        if not self._cancelled:
            self._cancelled = True
            self._callback = self._args = None  # type: ignore[assignment]  # see Step
            if self._scheduled:
                self.loop.timer_cancelled()

    def __repr__(self) -> str:
        return f"<timer of {self.host.name} at {self._when}: {self._callback}>"

    __hash__ = object.__hash__
