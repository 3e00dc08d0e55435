"""One machine of a simulated world: what outlives its processes, and the process that runs there now.

Rule 1: a machine's clock, chance and disks outlive a crash; all else of a process ends with it, without a word.
Rule 2: whoever waits for something that a machine does learns of it when the machine is gone.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine
from typing import Any, NamedTuple, TypeVar

from simulations.disk import SimDisk
from simulations.disk_door import SimFiles
from simulations.disk_hooks import Call
from simulations.doors import SimEntropy
from simulations.hosts import Host, HostCrashed, LocalTime
from simulations.lan import Segment
from simulations.loop import SimLoop
from simulations.network import Network
from simulations.personalities import PLAIN, Personality
from simulations.power import cut_power

T = TypeVar("T")


class MachineGone(Exception):
    """The machine that was to do something crashed meanwhile."""


class Surroundings(NamedTuple):
    """What all machines of a world share."""

    loop: SimLoop
    network: Network
    lan: Segment
    wall_ns: int
    """How far all wall clocks are ahead of the loop's: a world that goes on from an image begins at its time."""


class Machine(ABC):
    """One machine.

    Args:
        around: The world.
        name: Its name on the network and in the trace.
    """

    def __init__(self, around: Surroundings, name: str) -> None:
        self.loop = around.loop
        self.network = around.network
        self.name = name
        self.host: Host = self.loop.host(name, LocalTime(wall_offset_ns=around.wall_ns))
        self.time = self.host.time
        self.entropy = SimEntropy(self.loop, name)
        self.disks: list[SimDisk] = []
        self.files: SimFiles
        self.is_running = False
        self.is_cut_off = False
        """Whether the last process was killed, and none runs since."""
        self.is_on = True
        """Whether people can use it; a process need not run."""
        self.lives = 0
        """How many processes it had."""
        self._over: asyncio.Future[None] | None = None
        self._next_crash: tuple[int, bool] | None = None
        self._power = self.loop.chance(f"power/{name}")

    # --- Its life

    async def start(self) -> None:
        """Begin a process; return once it works."""
        self._begin()
        await self.do(self._start())

    def _begin(self) -> None:
        assert not self.is_running, f"{self.name} runs already"
        self.network.power_on(self.name)
        self.is_on = True
        self.time.go_on(self.loop.now_ns)  # whatever was asleep here was ended in its sleep
        self.host = self.loop.host(self.name)
        self._over = self.loop.create_future()
        self.is_running = True
        self.is_cut_off = False
        self.lives += 1
        self.loop.note("start", self.name)
        if self._next_crash is not None:
            effect, loses_power = self._next_crash
            self._next_crash = None
            self.crash_at(effect, loses_power=loses_power)

    async def stop(self) -> None:
        """End the process in good order."""
        self.loop.note("stop", self.name)
        await self.do(self._stop())
        self._end()
        self.is_cut_off = False
        self.network.process_ended(self.host)

    def kill(self) -> None:
        """End the process at this instant; the machine goes on."""
        self._end()
        self.network.process_ended(self.host)

    def cut_power(self, *, spares_users: bool = True) -> None:
        """End the process and take from the machine's disks what is not durable; it is off until it is started again.

        Args:
            spares_users: Whether all that people did on its disks is durable.
        """
        self._end()
        self.is_on = False
        for disk in self.disks:
            cut_power(disk, self._power, spares_users=spares_users)
        self._lose_power()
        self.loop.note("power", self.name)
        self.network.power_cut(self.host)
        self.time.reboot(self.loop.now_ns)

    def crash_at(self, effect: int, *, loses_power: bool = False) -> None:
        """End this life before so many more effects of it."""
        self.host.crash_at = self.host.effects + effect
        self.host.on_crash = self.cut_power if loses_power else self.kill

    def crash_next_at(self, effect: int, *, loses_power: bool = False) -> None:
        """End the life after this one before that effect of it."""
        self._next_crash = effect, loses_power

    def plan_no_crash(self) -> None:
        """Let this life and the next go on."""
        self.host.crash_at = 0
        self._next_crash = None

    async def do(self, work: Coroutine[Any, Any, T]) -> T:
        """Have the process do something.

        Raises:
            MachineGone: There is none, or it ended before that was done.
        """
        if not self.is_running:
            work.close()
            raise MachineGone(self.name)
        assert self._over is not None
        task = self.loop.spawn(self.host, work)
        ends: list[asyncio.Future[Any]] = [task, self._over]
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            task.cancel()
            raise
        if not task.done() or (not task.cancelled() and isinstance(task.exception(), HostCrashed)):
            raise MachineGone(self.name)
        return task.result()

    def _end(self) -> None:
        self.is_running = False
        self.is_cut_off = True
        self.loop.crash(self.host)
        self.files.kill()
        self._forget()
        if self._over is not None and not self._over.done():
            self._over.set_result(None)

    # --- What each kind of machine does

    @abstractmethod
    async def _start(self) -> None:
        """Begin the process and return once it works."""

    @abstractmethod
    async def _stop(self) -> None:
        """End it in good order."""

    @abstractmethod
    def _forget(self) -> None:
        """Let go of what the process held."""

    @abstractmethod
    def _lose_power(self) -> None:
        """Lose what only disks of another kind would have kept; the process is gone already."""

    # --- Disks

    def make_disk(self, personality: Personality = PLAIN, number: int = 1) -> SimDisk:
        """Add a disk, whose changes by processes are noted in the trace."""
        clock_ns = self._wall_clock()
        disk = SimDisk(self.loop.chance(f"disk/{self.name}/{number}"), clock_ns, personality=personality, number=number)
        mix = self.loop.trace.mix

        def note(call: Call) -> None:
            mix(self.name, call.call, call.name, call.to_name, call.offset, len(call.data))

        disk.hooks.after = note
        self.disks.append(disk)
        return disk

    def _wall_clock(self) -> Callable[[], int]:
        loop, time = self.loop, self.time
        return lambda: time.wall_ns(loop.now_ns)
