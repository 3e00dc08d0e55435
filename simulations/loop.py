"""An event loop on virtual time: the same seed runs the same callbacks in the same order at the same nanoseconds.

Rule 1: time is whole nanoseconds and advances only when nothing is ready; then it jumps to the next timer.
Rule 2: one thread. What would run elsewhere runs inline, at a moment drawn from the seed; another thread is refused.
Rule 3: every callback belongs to the host that is current when it is scheduled; a crash drops those of one host.
Rule 4: tasks and futures hash by their number, never by their address, so that sets of them keep one order.
Rule 5: nothing goes wrong unheard: an error that nobody asks for, or a coroutine that nobody awaits, ends the run.
"""

# ruff: noqa: SLF001 - a loop and its handles are one thing in asyncio; calls between them would cost a fifth of the speed

from __future__ import annotations

import asyncio
import heapq
import sys
import threading
import weakref
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context, copy_context
from enum import Enum
from math import ceil
from random import Random
from typing import Any, Final, Never, TypeVar, TypeVarTuple

from simulations import mishaps
from simulations.handles import SimFuture, SimTask, Step, Timer
from simulations.hosts import HOST, Host, HostCrashed, LocalTime
from simulations.mishaps import DeadlockError, FenceError, LivelockError, SimulationError, UnheardError
from simulations.trace import Trace

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

SECOND_NS: Final = 1_000_000_000
STEPS_PER_INSTANT_MAX: Final = 50_000
"""Who does this much without any time passing will not stop on its own."""
EXECUTOR_NS_MAX: Final = 2_000_000
_CANCELLED_TIMERS_MIN: Final = 128
_STEPS_PER_COLLECTION: Final = 250_000
_MARKS_BYTES: Final = 16 * 1024
_BORN_MIN: Final = 1024


class Schedule(Enum):
    """In which order callbacks run that are ready at the same time."""

    FIFO = "fifo"
    """As asyncio does: only schedules that production can show."""
    SHUFFLED = "shuffled"
    """Any of them: more than production can show, which also finds what relies on an order by chance."""


class SimLoop(asyncio.BaseEventLoop):
    """The loop of one simulated run; it runs one main coroutine and is then used up.

    Args:
        seed: Of all chance that the loop gives out (see :meth:`chance`).
        schedule: The order among what is ready.
        trace: Where to note what happens.
    """

    def __init__(self, seed: int, *, schedule: Schedule = Schedule.FIFO, trace: Trace | None = None) -> None:
        super().__init__()
        self.seed = seed
        self.schedule = schedule
        self.trace = Trace() if trace is None else trace
        self.now_ns = 0
        """True virtual time since the run began."""
        self.steps = 0
        """Callbacks run so far; exact whenever time advances."""
        self._queue: deque[Any] | list[Any] = deque() if schedule is Schedule.FIFO else []
        self._take: Callable[[], Any] = self._queue.popleft if isinstance(self._queue, deque) else self._take_any
        self._timers: list[tuple[int, int, Timer]] = []
        self._timers_cancelled = 0
        self._number = 0
        self._marks = bytearray()
        self._collected_at = 0
        self._times: dict[str, LocalTime] = {}
        self._indexes: dict[str, int] = {}
        self._asleep: dict[Host, list[tuple[int, int, Timer]]] = {}
        self._timers_at_once = 0
        """How often timers were due at this very moment."""
        self._aside: dict[Host, list[Any]] = {}
        self._born: list[weakref.ref[SimTask]] = []
        self._born_max = _BORN_MIN
        self._graves: list[Any] = []
        self._generators: dict[int, Host] = {}
        self._failures: list[SimulationError] = []
        self.world = self.host("")
        """The host of all that is no machine's: the network, the faults, the run itself."""
        self._shuffle = self.chance("schedule").random
        self._executor_chance = self.chance("executor")

    # --- What a run is made of

    def chance(self, purpose: str) -> Random:
        """Return the source of chance for one purpose: what others draw does not change what it gives."""
        return Random(f"{self.seed}/{purpose}")

    def note(self, what: str, text: str = "", data: bytes | bytearray | memoryview = b"") -> None:
        """Note an event of the current host in the trace."""
        self.trace.note(self.now_ns, HOST.get(self.world).name, what, text, data)

    def run(self, main: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine as the world, to its end, and close the loop.

        Raises:
            SimulationError: Something went wrong that nobody would have heard of, or nothing can go on.
            BaseException: Whatever the coroutine raised.
        """
        with mishaps.collected_by(self._bury), mishaps.heard(self.fail), mishaps.unlisted():
            task = self.spawn(self.world, main, name="main")
            task.add_done_callback(lambda _: self.stop())
            try:
                self.run_forever()
            except SimulationError as error:
                self._failures.append(error)
            self._look_for_unheard(task)
            return self._outcome(task)

    def _outcome(self, task: asyncio.Task[T]) -> T:
        own = None if not task.done() or task.cancelled() else task.exception()
        if self._failures:
            first, *more = self._failures
            for other in more[:20]:
                first.add_note(f"then: {other}")
            raise first from own or first.__cause__
        return task.result()

    def __del__(self) -> None:
        """Say nothing: a loop that never ran holds nothing that would have to be closed."""

    # --- Hosts

    def host(self, name: str, time: LocalTime | None = None) -> Host:
        """Begin a life of a machine; its clock goes on from an earlier one, unless another is given."""
        if time is not None or name not in self._times:
            self._times[name] = time or LocalTime()
        index = self._indexes.setdefault(name, len(self._indexes))
        return Host(name, index, self._times[name], self._queue)

    def spawn(self, host: Host, main: Coroutine[Any, Any, T], *, name: str | None = None) -> asyncio.Task[T]:
        """Start a coroutine as this host."""
        return self.create_task(main, name=name, context=host.context.copy())

    def crash(self, host: Host) -> None:
        """End a host's life at this instant: none of its callbacks, timers and tasks goes on, none is cancelled or closed."""
        self.note("crash", host.name)
        host.is_dead = True
        host.queue = self._graves
        for kept in (self._pull(host), self._take_ready(host), self._asleep.pop(host, ()), self._aside.pop(host, ())):
            self._graves += kept
        for task in [task for reference in self._born if (task := reference()) is not None and task.host is host]:
            if not task.done():
                self._graves.append(task)
            elif not task.cancelled():
                task.exception()  # it is nobody's any more

    def tasks_of(self, host: Host) -> list[asyncio.Task[Any]]:
        """Return the tasks of a host that have not ended."""
        alive = [task for reference in self._born if (task := reference()) is not None and not task.done()]
        return [task for task in alive if task.host is host]

    def suspend(self, host: Host, *, clock_stops: bool = False) -> None:
        """Let a host do nothing until :meth:`resume`.

        ``clock_stops``: as a machine that sleeps, whose timers wait; otherwise as a process that is stopped, whose timers
        are all due when it goes on. A suspended host is not suspended again.
        """
        if host.is_dead or host in self._aside:
            return
        self.note("suspend", host.name)
        self._aside[host] = host.queue = self._take_ready(host)
        if clock_stops:
            host.time.stop(self.now_ns)
            self._asleep[host] = [(timer_ns - self.now_ns, n, timer) for timer_ns, n, timer in self._pull(host)]

    def resume(self, host: Host) -> None:
        """Let a suspended host go on."""
        aside = self._aside.pop(host, None)
        if aside is None:
            return
        self.note("resume", host.name)
        host.time.go_on(self.now_ns)
        host.queue = self._queue
        self._queue.extend(aside)
        for left_ns, number, timer in self._asleep.pop(host, ()):
            heapq.heappush(self._timers, (self.now_ns + left_ns, number, timer))

    @property
    def is_idle(self) -> bool:
        """Whether nothing but the current callback is ready: what it does next at once comes before all else."""
        return not self._queue

    async def never(self) -> Never:
        """Wait for ever: what a process does that went by its own effect. Its task is never heard of again."""
        while True:
            await self.create_future()

    def is_at_work(self, host: Host) -> bool:
        """Whether a host lives and is not suspended."""
        return not host.is_dead and host not in self._aside

    def set_rate(self, host: Host, rate_ppm: int) -> None:
        """Let a machine's clock run faster or slower from now on, with all that it waits for; it must not be asleep."""
        assert host not in self._asleep
        pulled = [(host.time.local_ns(when_ns), number, timer) for when_ns, number, timer in self._pull(host)]
        host.time.set_rate(self.now_ns, rate_ppm)
        for local_ns, number, timer in pulled:
            heapq.heappush(self._timers, (host.time.true_ns(local_ns), number, timer))

    def tasks(self, host: Host | None = None) -> list[SimTask]:
        """Return the tasks that have not ended, of one host or of all that live, in the order of their creation."""
        alive = [task for reference in self._born if (task := reference()) is not None and not task.done()]
        return [task for task in alive if (not task.host.is_dead if host is None else task.host is host)]

    def _take_ready(self, host: Host) -> list[Any]:
        taken = [step for step in self._queue if step.host is host]
        if taken:
            rest = [step for step in self._queue if step.host is not host]
            self._queue.clear()
            self._queue.extend(rest)
        return taken

    def _pull(self, host: Host) -> list[tuple[int, int, Timer]]:
        pulled = sorted(entry for entry in self._timers if entry[2].host is host and not entry[2].cancelled())
        self._set_timers([entry for entry in self._timers if entry[2].host is not host])
        return pulled

    def _set_timers(self, timers: list[tuple[int, int, Timer]]) -> None:
        self._timers[:] = [entry for entry in timers if not entry[2].cancelled()]
        heapq.heapify(self._timers)
        self._timers_cancelled = 0

    # --- asyncio's interface

    def time(self) -> float:
        """Return the current host's monotonic clock in seconds."""
        clock = HOST.get(self.world).time
        return (self.now_ns if clock.is_true else clock.local_ns(self.now_ns)) / SECOND_NS

    def call_soon(
        self, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.Handle:
        """Run a callback once those that are ready have run, or in any order among them where the schedule is shuffled."""
        if context is None:
            context = copy_context()
        step = _new_step(Step)
        step._callback = callback
        step._args = args
        step._context = context
        step._cancelled = False
        step.host = host = context.get(HOST, self.world)
        host.queue.append(step)
        return step

    def call_later(
        self, delay: float, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """Run a callback after so many seconds of the current host's clock."""
        if context is None:
            context = copy_context()
        clock = context.get(HOST, self.world).time
        delay_ns = max(0, ceil(delay * SECOND_NS))
        if not clock.is_true:
            delay_ns = clock.true_ns(clock.local_ns(self.now_ns) + delay_ns) - self.now_ns
        return self.call_at_ns(self.now_ns + delay_ns, callback, *args, context=context)

    def call_at(
        self, when: float, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """Run a callback at a moment of the current host's clock, in seconds."""
        if context is None:
            context = copy_context()
        clock = context.get(HOST, self.world).time
        when_ns = ceil(when * SECOND_NS)
        when_ns += when_ns / SECOND_NS < when  # never too early, or who asks the clock again waits for 0 s for ever
        return self.call_at_ns(
            when_ns if clock.is_true else clock.true_ns(when_ns), callback, *args, context=context, when=when
        )

    def call_at_ns(
        self,
        when_ns: int,
        callback: Callable[..., object],
        *args: Any,
        context: Context | None = None,
        when: float | None = None,
    ) -> asyncio.TimerHandle:
        """Run a callback at a moment of true time; ``when`` is what its handle shows."""
        timer = _new_timer(Timer)
        timer._callback = callback
        timer._args = args
        timer._context = context = copy_context() if context is None else context
        timer._cancelled = False
        timer._when = when_ns / SECOND_NS if when is None else when
        timer.loop = self
        timer.host = host = context.get(HOST, self.world)
        timer._scheduled = not host.is_dead
        self._number = number = self._number + 1
        if host.is_dead:
            self._graves.append(timer)
        elif host in self._asleep:
            self._asleep[host].append((when_ns - self.now_ns, number, timer))
        else:
            heapq.heappush(self._timers, (when_ns, number, timer))
        return timer

    def next_number(self) -> int:
        """Return a number that nothing of this run has yet."""
        self._number += 1
        return self._number

    def timer_cancelled(self) -> None:
        """Note that a timer waits for nothing any more; when they are half of all, they are dropped."""
        self._timers_cancelled += 1
        if self._timers_cancelled > _CANCELLED_TIMERS_MIN and self._timers_cancelled * 2 > len(self._timers):
            self._set_timers(self._timers)

    def create_future(self) -> asyncio.Future[Any]:
        """Return a future of this loop."""
        future = SimFuture(loop=self)
        self._number = future.number = self._number + 1
        return future

    def create_task(
        self, coro: Any, *, name: object = None, context: Context | None = None, **_: Any
    ) -> asyncio.Task[Any]:
        """Start a coroutine as the host of the context, which is the current one."""
        self._check_closed()  # type: ignore[attr-defined]  # BaseEventLoop has it
        self._number = number = self._number + 1
        task = SimTask.__new__(SimTask)
        task.number = number
        task.host = host = HOST.get(self.world) if context is None else context.get(HOST, self.world)
        task.__init__(coro, loop=self, name=str(name or number), context=context)  # type: ignore[misc]  # it needs its number to be registered
        self._marks.append(host.index & 0xFF)
        self._born.append(weakref.ref(task))
        if len(self._born) > self._born_max:
            self._born = [reference for reference in self._born if reference() is not None]
            self._born_max = max(_BORN_MIN, 2 * len(self._born))
        return task

    def call_soon_threadsafe(
        self, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.Handle:
        """As :meth:`call_soon`.

        Raises:
            FenceError: Another thread calls: when its result comes is not ours to decide, so no seed would replay it.
        """
        if self._thread_id not in (None, threading.get_ident()):  # type: ignore[attr-defined]  # BaseEventLoop has it
            error = FenceError(f"the thread {threading.current_thread().name!r} reached into the virtual loop")
            self.fail(error)
            raise error
        return self.call_soon(callback, *args, context=context)

    def run_in_executor(self, executor: Any, func: Callable[[*Ts], T], *args: *Ts) -> asyncio.Future[T]:  # noqa: ARG002 - asyncio's signature
        """Call a function inline, at a moment drawn from the seed; whatever the executor is, it is not used."""
        future: asyncio.Future[T] = self.create_future()

        def call() -> None:
            if not future.cancelled():
                mishaps.settle(future, *mishaps.outcome(func, args))

        self.call_at_ns(self.now_ns + self._executor_chance.randrange(EXECUTOR_NS_MAX), call)
        return future

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:  # noqa: ASYNC109 - asyncio's signature
        """Do nothing: there is none."""

    async def getaddrinfo(self, *_: Any, **__: Any) -> Any:
        """Refuse.

        Raises:
            FenceError: Always: what is meant is the simulated network.
        """
        error = FenceError("a simulated run has no sockets")
        self.fail(error)  # even if whoever asked catches it
        raise error

    def call_exception_handler(self, context: Any) -> None:
        """Fail the run with an error that nobody asked for, unless its host is gone."""
        error = context.get("exception")
        of = context.get("task") or context.get("future") or context.get("handle")
        host = getattr(of, "host", None)
        if not isinstance(error, HostCrashed) and (host is None or not host.is_dead):
            self.fail(UnheardError(f"{context['message']}: {of if error is None else repr(error)} ({of})"), error)

    def fail(self, failure: SimulationError, cause: BaseException | None = None) -> None:
        """End the run with this error, once the current callback is done."""
        failure.__cause__ = cause
        self._failures.append(failure)
        self.stop()

    # --- The steps

    def _run_once(self) -> None:
        """Run what is ready, then let time jump to the next timer, until told to stop."""
        while True:
            self.steps += self._run_ready()
            if self._stopping:  # type: ignore[attr-defined]  # BaseEventLoop has it
                return
            self._advance()

    def _run_ready(self) -> int:
        queue, take = self._queue, self._take
        mark = self._marks.append
        for count in range(STEPS_PER_INSTANT_MAX):
            if not queue or self._stopping:  # type: ignore[attr-defined]  # BaseEventLoop has it
                return count
            step = take()
            if not step._cancelled:
                mark(step.host.index & 0xFF)
                try:
                    step._context.run(step._callback, *step._args)
                except (SystemExit, KeyboardInterrupt, SimulationError):
                    raise
                except BaseException as error:  # noqa: BLE001 - told to the exception handler
                    self.call_exception_handler({"message": "a callback failed", "exception": error, "handle": step})
        raise LivelockError(
            f"{STEPS_PER_INSTANT_MAX} steps and no time passed at {self.now_ns / SECOND_NS:.9f} s", self.tasks()
        )

    def _take_any(self) -> Any:
        queue = self._queue
        at = int(self._shuffle() * len(queue))
        queue[at], queue[-1] = queue[-1], queue[at]
        return queue.pop()

    def _advance(self) -> None:
        """Go to the next moment at which something is due."""
        timers = self._timers
        while timers and timers[0][2]._cancelled:
            heapq.heappop(timers)
            self._timers_cancelled -= 1
        if not timers:
            raise DeadlockError(f"nothing can happen any more at {self.now_ns / SECOND_NS:.9f} s", self.tasks())
        if timers[0][0] > self.now_ns:
            self._timers_at_once = 0
        elif (count := self._timers_at_once + 1) < STEPS_PER_INSTANT_MAX:
            self._timers_at_once = count
        else:
            raise LivelockError(f"timers end, and no time passes at {self.now_ns / SECOND_NS:.9f} s", self.tasks())
        self.now_ns = now_ns = max(self.now_ns, timers[0][0])
        while timers and timers[0][0] <= now_ns:
            timer = heapq.heappop(timers)[2]
            timer._scheduled = False
            if timer._cancelled:
                self._timers_cancelled -= 1
            else:
                timer.host.queue.append(timer)
        self._marks += now_ns.to_bytes(8, "big")
        if len(self._marks) > _MARKS_BYTES:
            self._flush_marks()
        if self.steps - self._collected_at > _STEPS_PER_COLLECTION:
            self._collected_at = self.steps
            mishaps.collect()

    def _flush_marks(self) -> None:
        self.trace.mix(bytes(self._marks))
        self._marks.clear()

    # --- The end

    def _look_for_unheard(self, main: asyncio.Task[Any]) -> None:
        self._flush_marks()
        pending = self.tasks()  # with the main coroutine ended, nothing else may hold them: they are no loss
        mishaps.collect()
        del pending
        for reference in self._born:
            task = reference()
            if task is None or task is main or not task.done() or task.cancelled() or task.host.is_dead:
                continue
            if task._log_traceback:  # nobody asked for its error
                error = task.exception()
                self.fail(UnheardError(f"nobody asked for the error of {task.get_name()}: {error!r}"), error)

    def _bury(self) -> None:
        """Let go of all that did not end, without letting any of it be heard."""
        void: list[Any] = []
        for step in (*self._queue, *(entry[2] for entry in self._timers)):
            step.host.queue = void
        tasks = [task for reference in self._born if (task := reference()) is not None and not task.done()]
        for host in (self.world, *(task.host for task in tasks)):
            host.is_dead = True
            host.queue = void
        with mishaps.unheard():
            asyncio._set_running_loop(self)
            while tasks:
                self._born.clear()
                for task in tasks:
                    mishaps.put_to_rest(self, task, task.host.name)
                # What was put to rest may have begun something on its way out.
                tasks = [one for reference in self._born if (one := reference()) is not None and not one.done()]
            asyncio._set_running_loop(None)
            self._graves.clear()
            self._born.clear()
            self._generators.clear()
            self._aside.clear()
            self._asleep.clear()
            self._queue.clear()
            self._timers.clear()
            tasks.clear()
            void.clear()
            self.close()

    def _asyncgen_firstiter_hook(self, agen: Any) -> None:
        self._generators[id(agen)] = HOST.get(self.world)

    def _asyncgen_finalizer_hook(self, agen: Any) -> None:
        """Close a generator that was left, as the host that began it; one of a host that is gone stays as it is."""
        host = self._generators.pop(id(agen), self.world)
        if host.is_dead:
            self._graves.append(agen)
        elif not self.is_closed():
            self.spawn(host, agen.aclose())


_new_step: Final[Callable[[type[Step]], Step]] = Step.__new__
_new_timer: Final[Callable[[type[Timer]], Timer]] = Timer.__new__

assert sys.implementation.name == "cpython", "what a crash leaves depends on how CPython counts references"
