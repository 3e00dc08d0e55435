"""The machines of a simulated world: each with a queue of its own, a clock of its own, and an end."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import Context, ContextVar
from typing import Any, Final, Protocol

_MILLION: Final = 1_000_000
EPOCH_NS: Final = 1_800_000_000_000_000_000
"""The wall clock at true time 0, where no clock is wrong: in January 2027."""
RATE_PPM_MAX: Final = 200_000
"""A clock that is off by more than a fifth is broken in a way that no product survives."""


class Queue(Protocol):
    """Where what a host has to do next is put."""

    def append(self, item: Any, /) -> None:
        """Put it last."""


class HostCrashed(BaseException):  # not an Exception: who catches those must not go on after its own end
    """The host that runs this code is no more: nothing of what the code still does reaches the world."""


class LocalTime:
    """How a machine's clocks run against true time; all in nanoseconds, exact.

    Args:
        offset_ns: What the monotonic clock shows at true time 0.
        rate_ppm: How much too fast both clocks are, in parts of a million.
        wall_offset_ns: How far the wall clock is ahead.
    """

    def __init__(self, offset_ns: int = 0, rate_ppm: int = 0, wall_offset_ns: int = 0) -> None:
        self._true_ns = 0
        self._local_ns = offset_ns
        self._stopped_ns: int | None = None
        self._wall_ns = wall_offset_ns - offset_ns
        self.rate_ppm = 0
        self.is_true = False
        """Whether the monotonic clock shows true time."""
        self.set_rate(0, rate_ppm)

    def local_ns(self, true_ns: int) -> int:
        """Return what the monotonic clock shows."""
        if self._stopped_ns is not None:
            true_ns = self._stopped_ns
        return self._local_ns + (true_ns - self._true_ns) * (_MILLION + self.rate_ppm) // _MILLION

    def wall_ns(self, true_ns: int) -> int:
        """Return what the wall clock shows, in nanoseconds since 1970."""
        return EPOCH_NS + self.local_ns(true_ns) + self._wall_ns

    def true_ns(self, local_ns: int) -> int:
        """Return the first moment at which the monotonic clock shows this much."""
        return self._true_ns - (self._local_ns - local_ns) * _MILLION // (_MILLION + self.rate_ppm)

    def set_rate(self, true_ns: int, rate_ppm: int) -> None:
        """Let the clocks run at another rate from now on; they do not jump.

        Raises:
            ValueError: No clock runs so.
        """
        if not -RATE_PPM_MAX <= rate_ppm <= RATE_PPM_MAX:
            raise ValueError(f"a clock's rate is within {RATE_PPM_MAX} ppm, not {rate_ppm}")
        self._local_ns, self._true_ns = self.local_ns(true_ns), true_ns
        self.rate_ppm = rate_ppm
        self._judge()

    def jump(self, wall_ns: int) -> None:
        """Put the wall clock forward or back; the monotonic one does not notice."""
        self._wall_ns += wall_ns

    def stop(self, true_ns: int) -> None:
        """Let the monotonic clock stand still, as while a machine sleeps."""
        self._stopped_ns = true_ns
        self._judge()

    def go_on(self, true_ns: int) -> None:
        """Let the monotonic clock go on from where it stands; the wall clock went on meanwhile."""
        if self._stopped_ns is not None:
            slept_ns = (true_ns - self._stopped_ns) * (_MILLION + self.rate_ppm) // _MILLION
            local_ns, self._stopped_ns = self.local_ns(true_ns), None
            self._local_ns, self._true_ns = local_ns, true_ns
            self._wall_ns += slept_ns
            self._judge()

    def reboot(self, true_ns: int) -> None:
        """Let the monotonic clock begin at 0 once more; for a machine of which nothing runs."""
        self.go_on(true_ns)
        self._wall_ns += self.local_ns(true_ns)
        self._local_ns, self._true_ns = 0, true_ns
        self._judge()

    def _judge(self) -> None:
        self.is_true = not self.rate_ppm and self._local_ns == self._true_ns and self._stopped_ns is None


class Host:
    """One life of a machine, from its start to its crash; started again, it is another one of the same name.

    Made by :meth:`simulations.loop.SimLoop.host`.
    """

    def __init__(self, name: str, index: int, time: LocalTime, queue: Queue) -> None:
        self.name = name
        self.index = index
        """A small number for the name, the same in each life."""
        self.time = time
        """The machine's clock; it outlives a crash."""
        self.queue = queue
        """Where the loop puts what this host has to do: its own ready queue, or aside while the host is suspended or gone."""
        self.context = Context()
        """In which its callbacks run that no task of it scheduled."""
        self.context.run(HOST.set, self)
        self.is_dead = False
        self.effects = 0
        """Changes of the world outside its memory that this life made."""
        self.crash_at = 0
        """The effect before which this life ends; 0 for none."""
        self.on_crash: Callable[[], None] | None = None
        """What the world does then: it must end in :meth:`simulations.loop.SimLoop.crash`."""

    def __repr__(self) -> str:
        return f"<host {self.name}{' (gone)' if self.is_dead else ''}>"

    def effect(self) -> None:
        """Count one effect that is about to happen; every door to the disk, a database or the network calls this first.

        Raises:
            HostCrashed: The host is gone, or goes now: the effect must not happen.
        """
        if self.is_dead:
            raise HostCrashed(self.name)
        self.effects += 1
        if self.effects == self.crash_at:
            assert self.on_crash is not None, "a planned crash needs somebody who does it"
            self.on_crash()
            assert self.is_dead
            raise HostCrashed(self.name)


HOST: ContextVar[Host] = ContextVar("HOST")
"""Whose code is running; each callback and task is tagged with it."""
