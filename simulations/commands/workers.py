"""Processes that do the same work side by side, and leave every signal to whoever started them."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Iterable, Iterator
from multiprocessing.pool import Pool
from types import TracebackType
from typing import Final, Literal, Self, TypeVar

T = TypeVar("T")
R = TypeVar("R")

JOBS_MAX: Final = 256
_SIGNALS: Final = frozenset({signal.SIGINT, signal.SIGTERM})


class Workers:
    """Some processes; with one job, this process alone.

    Args:
        jobs: How many there are; more than :data:`JOBS_MAX` are no more than that.
        how: How they begin: "fork" gives them all that this process has by then.
    """

    def __init__(self, jobs: int, *, how: Literal["fork", "spawn"] = "fork") -> None:
        self._jobs = min(jobs, JOBS_MAX)
        self._how = how
        self._pool: Pool | None = None

    def __enter__(self) -> Self:
        if self._jobs > 1:
            blocked = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)  # until each process has said what it does
            try:
                self._pool = multiprocessing.get_context(self._how).Pool(self._jobs, _leave_signals)
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool is not None:
            self._pool.terminate()
            self._pool.join()

    def map(self, do: Callable[[T], R], what: Iterable[T], *, chunk: int = 1, in_order: bool = True) -> Iterator[R]:
        """Yield what comes of each.

        Args:
            do: What is done.
            what: To each of these.
            chunk: How many of them a process takes at once.
            in_order: Whether what comes first stands first, or what is ready first.
        """
        if self._pool is None:
            return map(do, what)
        return (self._pool.imap if in_order else self._pool.imap_unordered)(do, what, chunk)


def _leave_signals() -> None:
    """Who started the processes is told of Ctrl-C, as they are, and ends them by the other."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
