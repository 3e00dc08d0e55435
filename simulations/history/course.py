"""The course of one history: people act and things go wrong; then nothing goes wrong any more, and all must come to rest.

Rule 1: whatever is done is drawn from the seed; what cannot be done just then is left out, and the course goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any, Final

from protocol.errors import KinfolderError
from simulations.checks import journal
from simulations.checks.storage import check_reachability
from simulations.checks.watch import Watch
from simulations.devices import DeviceImage
from simulations.disk import SimDisk
from simulations.history import endings, rest
from simulations.history.ledger import Action, Ledger, Tree, held
from simulations.history.options import ACTIONS_MIN, PAUSES_S, Options
from simulations.history.people import GivenUp, Person
from simulations.history.repertoire import DEEDS, TROUBLES, UNLISTED
from simulations.machines import Machine, MachineGone
from simulations.servers import CoordinatorImage
from simulations.world import World

TRIES: Final = 8
"""How many things somebody tries who finds that he cannot do what he wanted."""
STOP_S: Final = 30.0
AGAIN_S: Final = 10.0
"""After so long what would not start is started again."""
PEOPLE_S: Final = 120.0
"""How long those may take to end who are still at something when the safety phase ends."""


class Course:
    """One history.

    Args:
        world: In which it happens.
        options: What it is like.
    """

    def __init__(self, world: World, options: Options) -> None:
        self.world = world
        self.options = options
        self.ledger = Ledger(options.devices)
        self.chance = world.loop.chance("course")
        self.people = [
            Person(device, number, self.ledger, world.loop.chance(f"person/{number}"))
            for number, device in enumerate(world.devices)
        ]
        self.watch = Watch(world, self.ledger)
        self.counts: Counter[str] = Counter()
        """How often each deed was done and each trouble made."""
        self.told: list[str] = []
        """What people did and what went wrong, a line for each."""
        self.ledger.on_action = self._tell
        world.may_log_when(lambda text: text in journal.ALARMS and self.watch.is_forked())
        self.on_holiday = False
        """Whether nobody starts anything."""
        self.lost_disks = 0
        self.capacities: dict[SimDisk, int] = {}
        """How large disks are that were filled."""
        self.jumps_ns: Counter[str] = Counter()
        """How far each machine's wall clock was put forward."""
        self.put_back: set[str] = set()
        """Devices that went back to a backup, in part or as a whole."""
        self.backup: CoordinatorImage | None = None
        self.image: tuple[int, int, DeviceImage] | None = None
        """Of which device, when it was made, and what it holds."""
        self._tasks: list[asyncio.Task[None]] = []
        self._later: list[asyncio.Task[None]] = []
        self._is_calm = asyncio.Event()
        """Set once all troubles are to end."""

    async def run(self, world: World) -> None:
        """Live through it, check after each rest, and end at rest, or with a fork that nobody could see coming."""
        assert world is self.world
        try:
            await self._live(world)
        except rest.Forked:
            self.tell("the log has forked")
            self.counts["forked"] += 1
            await endings.find_fork(self)

    async def _live(self, world: World) -> None:
        self.ledger.rested(world.devices)
        events = ["deed"] * self.options.actions + ["trouble"] * self.options.faults
        self.chance.shuffle(events)
        snapshot: tuple[str, Tree] | None = None
        midway = self.chance.randrange(len(events)) if self.options.rests else -1
        for number, event in enumerate(events):
            if number == midway:
                await self.rest()
                snapshot = await rest.take_snapshot(self)
            if event == "trouble" or self.done < self.options.actions:
                await self._happen(event)
        for _ in range(self.options.actions):  # instead of what nobody could do
            if self.done >= ACTIONS_MIN:
                break
            await self._happen("deed")
        await self.rest()
        await (rest.restart(self) if self.options.restarts else rest.stay(self))
        ending = endings.drawn(world)
        if ending not in endings.FINAL:
            await endings.end(self, ending)
        if snapshot is not None:
            await rest.bring_back(self, *snapshot)
        if ending in endings.FINAL:
            await endings.end(self, ending)

    @property
    def done(self) -> int:
        """How many actions were done: all that is in the ledger, and the commands that change nothing."""
        return len(self.ledger.actions) + sum(self.counts[name] for name in UNLISTED)

    async def _happen(self, event: str) -> None:
        await (self._deed() if event == "deed" else self._trouble())
        await asyncio.sleep(self.chance.random() * self.chance.choice(PAUSES_S[self.options.pauses]))

    async def rest(self) -> None:
        """Have everything end that goes wrong, wait until all are at rest, and check."""
        self.tell("all troubles end")
        await self._calm()
        await rest.come_to_rest(self)

    # --- What happens

    async def _deed(self) -> None:
        person = self.chance.choice([one for one in self.people if one.device.is_on] or self.people)
        self._tasks.append(asyncio.create_task(self._do(person)))

    async def _do(self, person: Person) -> None:
        """Have somebody do what he can do just then."""
        names, weights = zip(*self.options.deeds, strict=True)
        for _ in range(TRIES):
            name = person.chance.choices(names, weights)[0]
            try:
                await DEEDS[name].do(person)
            except GivenUp:
                continue
            self.counts[name] += 1
            return

    async def _trouble(self) -> None:
        names, weights = zip(*self.options.troubles, strict=True)
        for _ in range(TRIES):
            name = self.chance.choices(names, weights)[0]
            try:
                what = await TROUBLES[name].do(self, self.chance)
            except (GivenUp, MachineGone):
                continue
            self.tell(f"{name}: {what}")
            self.counts[name] += 1
            journal.follow(self.world, self.watch.journals)
            if self.world.coordinator.is_running:
                check_reachability(self.world, 1)
            return

    def _tell(self, action: Action) -> None:
        self.told.append(str(action))

    def tell(self, what: str) -> None:
        """Note something that is no action."""
        self.world.loop.note("trouble", what)
        self.told.append(f"   {self.world.loop.now_ns / 1e9:.3f} s {what}")

    def later(self, seconds: float, act: Callable[[], Awaitable[None] | Any]) -> None:
        """Have something end after so much time, or with the safety phase."""

        async def end() -> None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._is_calm.wait()
            result = act()
            if asyncio.iscoroutine(result):
                await result

        self._later.append(asyncio.create_task(end()))

    async def start(self, machine: Machine) -> None:
        """Start a machine, unless it runs."""
        if not (machine.is_running or machine in self.world.lost or self.on_holiday):
            try:
                await machine.start()
            except MachineGone:
                return
            except KinfolderError:  # as its disk fails just now: whoever looks after it tries again
                _end(machine)
                self.later(AGAIN_S, lambda: self.start(machine))

    async def stop(self, machine: Machine) -> None:
        """Stop a machine in good order, or kill it where that does not end."""
        try:
            async with asyncio.timeout(STOP_S):
                await machine.stop()
        except (TimeoutError, MachineGone):
            if machine.is_running:
                machine.kill()

    async def set_back(self, number: int, since_ns: int, image: DeviceImage, *, files: bool, database: bool) -> None:
        """Put a device back to an image; what was nowhere else may be lost by that, if nobody was told that it is safe."""
        device = self.world.devices[number]
        if device.is_running:
            device.kill()
        device.user.close_all()
        before = self.ledger.see(device, number)
        self.world.may_log("two entries under one number")
        self.put_back.add(device.name)
        with journal.going_back(self.world, self.watch.journals, device):
            device.restore(image, files=files, database=database)
        if database:
            self.ledger.forget_removals(number, since_ns)
            self.ledger.strange.update(held(self.ledger.see(device, number)))
        if files and not database:
            self.ledger.note(device, number, "puts the files back to a backup", before)
        elif files:
            back = held(self.ledger.see(device, number))
            for content in held(before):
                if content not in back and content not in self.ledger.acknowledged:
                    self.ledger.excused[content] = f"device-{number} was put back"
        await self.start(device)

    async def _calm(self) -> None:
        """End all troubles, and let everybody finish what he is at."""
        self._is_calm.set()
        for task in self._later:
            await task
        self._later.clear()
        self._is_calm.clear()
        self.world.network.calm()
        for machine in self.world.machines:
            for disk in machine.disks:
                disk.hooks.fault = None
            machine.plan_no_crash()
            machine.time.jump(-self.jumps_ns.pop(machine.name, 0))
            await self.start(machine)
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=PEOPLE_S)
            for task in self._tasks:
                task.cancel()
                await asyncio.wait([task])
                if not task.cancelled():
                    task.result()
            self._tasks.clear()


def _end(machine: Machine) -> None:
    if machine.is_running:
        machine.kill()
