"""What can go wrong in a run besides the product, and how it is heard of: errors that asyncio would only log."""

from __future__ import annotations

import asyncio
import gc
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from typing import Any, Final, Protocol

from simulations.hosts import Host, HostCrashed

_SHOWN_MAX: Final = 20
_FRAMES_MAX: Final = 6
_THROWS_MAX: Final = 32
_RUNS_PER_COLLECTION: Final = 64
_YOUNG, _OLDER = 0, 1
"""Generations of objects: each collection makes those that are left older."""
_runs: Final = count(1)
_NEVER_AWAITED: Final = "was never awaited"


class HostTask(Protocol):
    """A task of a simulated host."""

    host: Host

    def get_name(self) -> str:
        """Return its name."""

    def get_coro(self) -> Any:
        """Return what it runs."""


class SimulationError(Exception):
    """A run cannot go on, or went wrong without anybody being told."""


class StuckError(SimulationError):
    """A run that cannot go on; it says who waits where."""

    def __init__(self, text: str, waiting: Sequence[HostTask]) -> None:
        lines = [f"  {describe(task)}" for task in waiting[:_SHOWN_MAX]]
        if len(waiting) > _SHOWN_MAX:
            lines.append(f"  and {len(waiting) - _SHOWN_MAX} more")
        super().__init__("\n".join([f"{text}; {len(waiting)} tasks wait", *lines]))


class DeadlockError(StuckError):
    """Nothing is ready and no timer runs."""


class LivelockError(StuckError):
    """There is always something ready, so no time passes."""


class FenceError(SimulationError):
    """Something went round the doors: a thread, a socket."""


class UnheardError(SimulationError):
    """An error that nobody asked for, or a coroutine that nobody awaited."""


def describe(task: HostTask) -> str:
    """Return who a task is and where it waits, the innermost place first."""
    places: list[str] = []
    at: Any = task.get_coro()
    while at is not None:
        frame = getattr(at, "cr_frame", None) or getattr(at, "gi_frame", None) or getattr(at, "ag_frame", None)
        if frame is None:
            break
        file = os.sep.join(frame.f_code.co_filename.split(os.sep)[-2:])
        places.append(f"{file}:{frame.f_lineno} {frame.f_code.co_name}")
        at = getattr(at, "cr_await", None) or getattr(at, "gi_yieldfrom", None) or getattr(at, "ag_await", None)
    way = " < ".join(places[: -_FRAMES_MAX - 1 : -1])
    return f"{task.host.name or 'world'}/{task.get_name()} at {way or '?'}"


def outcome(function: Callable[..., Any], args: tuple[Any, ...]) -> tuple[Any, BaseException | None]:
    """Call a function that would run in a thread; return its result, or its error for those who wait.

    Raises:
        HostCrashed: Nobody is left to be told.
    """
    try:
        return function(*args), None
    except HostCrashed:
        raise
    except BaseException as error:  # noqa: BLE001 - it belongs to those who wait
        return None, RuntimeError("StopIteration") if isinstance(error, StopIteration) else error


def settle(future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    """Tell those who wait what became of it, if they still do."""
    if future.done():
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)


@contextmanager
def heard(fail: Callable[..., object]) -> Iterator[None]:
    """Have a run fail by what Python would only print: coroutines that nobody awaits, errors in finalisers."""

    def show(message: Warning | str, category: type[Warning], *rest: Any, **more: Any) -> None:
        if _NEVER_AWAITED in str(message):
            fail(UnheardError(str(message)))
        else:
            shown(message, category, *rest, **more)

    def unraisable(what: Any, /) -> None:
        if not isinstance(what.exc_value, HostCrashed):
            fail(UnheardError(f"{what.err_msg or 'an error in a finaliser'}: {what.object!r}"), what.exc_value)

    shown, raised = warnings.showwarning, sys.unraisablehook
    with warnings.catch_warnings():
        warnings.filterwarnings("always", f".*{_NEVER_AWAITED}", RuntimeWarning)
        warnings.showwarning = show
        sys.unraisablehook = unraisable
        try:
            yield
        finally:
            warnings.showwarning, sys.unraisablehook = shown, raised


@contextmanager
def collected_by(bury: Callable[[], object]) -> Iterator[None]:
    """Collect no garbage but where a run does so itself (:func:`collect`), and let it bury what is left at its end.

    When Python would collect depends on all that the process did before, and finalisers are part of what a run does.
    """
    collects = gc.isenabled()
    if next(_runs) % _RUNS_PER_COLLECTION == 0:
        with unheard():
            gc.collect()  # what earlier runs left in the hands of who ran them, once those let go of it
    gc.disable()
    try:
        yield
    finally:
        bury()
        if collects:
            gc.enable()


@contextmanager
def swept() -> Iterator[None]:
    """Collect all that is made meanwhile: the memory holds one world, however many are lived through one after another."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        with unheard():
            gc.collect(_OLDER)
        if collects:
            gc.enable()


def collect() -> None:
    """Collect what a run made since it began or last collected: all that was there before needs no second look."""
    gc.collect(_YOUNG)


@contextmanager
def unheard() -> Iterator[None]:
    """Have nothing said of what is dropped here."""
    raised = sys.unraisablehook
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", f".*{_NEVER_AWAITED}", RuntimeWarning)
        sys.unraisablehook = lambda _: None
        try:
            yield
        finally:
            sys.unraisablehook = raised


@contextmanager
def unlisted() -> Iterator[None]:
    """Have asyncio keep no list of all tasks: a loop on virtual time has its own, and each entry costs as much as a step."""
    tasks: Any = asyncio.tasks._all_tasks  # type: ignore[attr-defined]  # noqa: SLF001 - it has no switch
    tasks.add = lambda _: None
    try:
        yield
    finally:
        del tasks.add


def put_to_rest(loop: asyncio.AbstractEventLoop, task: asyncio.Task[Any], host: str) -> None:
    """End what a task of a world that is over was doing; what it tries to do on its way out reaches nobody.

    Not by closing it: a ``finally`` that awaits would make an ordinary error of that, for the product to catch and log.
    """
    task._log_destroy_pending = False  # type: ignore[attr-defined]  # noqa: SLF001 - or its end would be logged as a loss
    coroutine: Any = task.get_coro()
    for _ in range(_THROWS_MAX):
        asyncio._enter_task(loop, task)  # noqa: SLF001 - meant for loops
        try:
            coroutine.throw(HostCrashed(host))
        except BaseException:  # noqa: BLE001 - whatever it was, its world is gone
            return
        finally:
            asyncio._leave_task(loop, task)  # noqa: SLF001 - meant for loops
