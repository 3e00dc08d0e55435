"""The course of one history: people act and things go wrong; then nothing goes wrong any more, and all must come to rest.

Rule 1: whatever is done is drawn from the seed; what cannot be done just then is left out, and the course goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextvars import ContextVar
from random import Random
from typing import Any, Final, NamedTuple

from protocol.errors import KinfolderError
from simulations.checks import journal
from simulations.checks.names import is_local
from simulations.checks.storage import check_durability, check_reachability
from simulations.checks.watch import Watch
from simulations.devices import AWAY, DeviceImage
from simulations.disk import SimDisk
from simulations.history import endings, rest
from simulations.history.ledger import Action, Back, Ledger, Tree, held, look
from simulations.history.options import ACTIONS_MIN, FAULTS_MIN
from simulations.history.people import GivenUp, Person
from simulations.history.repertoire import DEEDS, TROUBLES, UNLISTED
from simulations.history.script import THEN, Event, Script, What
from simulations.machines import Machine, MachineGone
from simulations.printing import one_line
from simulations.servers import CoordinatorImage
from simulations.situations.observer import Observer
from simulations.situations.record import Fault
from simulations.world import World

TRIES: Final = 16
"""How many things somebody tries who finds that he cannot do what he wanted."""
SLACK: Final = 1
"""By so many actions a history may come to more than it is to."""
BACKUP_EVERY: Final = 10
"""After so many events there is a backup of one device, and of the coordinator, in case somebody goes back to it ..."""
BACKUP_AT: Final = 4
"""... the first after these."""
STOP_S: Final = 30.0
AGAIN_S: Final = 10.0
"""After so long what would not start is started again."""
PEOPLE_S: Final = 120.0
"""How long those may take to end who are still at something when the safety phase ends."""
_DEED: Final = ContextVar("deed", default=-1)
"""The number of the event that is being done."""
_FAULT: Final[ContextVar[Fault | None]] = ContextVar("fault", default=None)
"""The trouble that is being made, or of which something is the end."""


def _names(event: Event, kinds: Sequence[tuple[str, int]], choice: Random) -> Iterator[str]:
    """Yield what is tried, until something can be done."""
    if event.name:
        yield from event.name.split(THEN)
        return
    names, weights = zip(*kinds, strict=True)
    for _ in range(TRIES):
        yield choice.choices(names, weights)[0]


class Backup(NamedTuple):
    """An image of a device."""

    number: int
    """Of the device."""
    made_ns: int
    image: DeviceImage
    tree: Tree
    """What stood in the folder."""
    known: Tree
    """What of that had stood there when all were at rest last."""
    epoch: int
    """How often all devices had come to rest before it."""


class Course:
    """One history.

    Args:
        world: In which it happens.
        script: What happens.
    """

    def __init__(self, world: World, script: Script) -> None:
        self.world = world
        self.script = script
        self.options = options = script.options
        self.played: dict[int, Event] = {}
        """By number, what came to happen, with who did what."""
        self.ledger = Ledger(options.devices)
        self._given = 0
        if options.is_given:
            self._given = 1 + self.ledger.note(world.devices[0], 0, "has had this for long", {}).number
        self.chance = world.loop.chance("course")
        """Of what is no event: how those decide whom somebody must ask."""
        self.people = [
            self.person(number, world.loop.chance(f"person/{number}")) for number in range(len(world.devices))
        ]
        """Who do what is no event."""
        self.watch = Watch(world, self.ledger)
        self.counts: Counter[str] = Counter()
        """How often each deed was done and each trouble made."""
        self.told: list[str] = []
        """What people did and what went wrong, a line for each."""
        self.observer: Observer | None = None
        """Who finds what situations it comes through; nobody else asks him."""
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
        self.backup: tuple[int, CoordinatorImage] | None = None
        """When it was made, and what it holds."""
        self.image: Backup | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._later: list[asyncio.Task[None]] = []
        self._begun: dict[int, int] = {}
        """By event, how many actions a deed that has begun is still to come to."""
        self.faults: list[Fault] = []
        """All troubles that were made, with what met them."""
        self._is_calm = asyncio.Event()
        """Set once all troubles are to end."""

    def observe(self) -> Observer:
        """Have somebody watch, who finds what situations the history comes through; returns him."""
        self.observer = Observer(self.world, self.ledger, self.options.personalities)
        self.observer.record.faults = self.faults
        for given in self.ledger.actions:  # from here on, all that stands there counts as seen
            self.ledger.on_look(self.world.devices[given.device], given.device)
            self.observer.act(given)
        return self.observer

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
        snapshot: tuple[str, Tree] | None = None
        for event in self.script.events:
            if event.what is What.REST:
                await self.rest()
                self.played[event.number] = event
                snapshot = await rest.take_snapshot(self)
            elif event.what is What.TROUBLE or not self.script.is_drawn or self.coming < self.options.actions:
                await self._happen(event)
            if event.number % BACKUP_EVERY == BACKUP_AT:
                self._keep_images(event.number % len(world.devices))
        for event in self.script.spare_troubles():  # instead of what nobody met
            if self.faults_met >= FAULTS_MIN:
                break
            await self._happen(event)
        for event in self.script.spare():  # instead of what nobody could do
            if self.coming < ACTIONS_MIN:
                await self._happen(event)
            elif self.done < ACTIONS_MIN:
                await self._happen(event._replace(what=What.WAIT, pause_s=0.0))
            else:
                break
        await self.rest()
        await (rest.restart(self) if self.options.restarts else rest.stay(self))
        ending = endings.drawn(world)
        if ending not in endings.FINAL:
            await endings.end(self, ending)
        if snapshot is not None:
            await rest.bring_back(self, *snapshot)
        for name in self.ledger.snapshots[:1]:
            await rest.bring_back_twice(self, name)
        if ending in endings.FINAL:
            await endings.end(self, ending)

    @property
    def done(self) -> int:
        """How many actions were done: all that is in the ledger, and the commands that change nothing."""
        return len(self.ledger.actions) - self._given + sum(self.counts[name] for name in UNLISTED)

    @property
    def faults_met(self) -> int:
        """How many troubles took effect so far."""
        return sum(fault.times > 0 for fault in self.faults)

    @property
    def coming(self) -> int:
        """How many actions were done, and are about to be, by whoever is at something."""
        return self.done + sum(self._begun.values())

    async def _happen(self, event: Event) -> None:
        if event.what is What.DEED:
            self._begun[event.number] = 1
            self._tasks.append(asyncio.create_task(self._deed(event)))
        elif event.what is What.TROUBLE:
            await self._trouble(event)
        elif self._tasks:
            self.played[event.number] = event
            await asyncio.wait(self._tasks, timeout=PEOPLE_S)
        await asyncio.sleep(event.pause_s)

    async def rest(self) -> None:
        """Have everything end that goes wrong, wait until all are at rest, and check."""
        self.tell("all troubles end")
        await self._calm()
        await rest.come_to_rest(self)

    # --- What happens

    async def _deed(self, event: Event) -> None:
        """Have somebody do what he can do just then."""
        _DEED.set(event.number)
        try:
            await self._do(event)
        finally:
            del self._begun[event.number]

    async def _do(self, event: Event) -> None:
        choice = self.script.source("choice", event.number)
        devices = self.world.devices
        there = [number for number, device in enumerate(devices) if device.is_on] or list(range(len(devices)))
        who = event.who if event.who >= 0 else choice.choice(there)
        tried: list[str] = []
        for name in _names(event, self.options.deeds, choice):
            chance = self.script.source(f"deed/{name}", event.number)
            kind = DEEDS[name]
            if not event.name and kind.size > self._room(event):
                continue
            self._begun[event.number] = kind.size
            tried.append(name)  # what cannot be ended may have begun: it belongs to the history
            self.played[event.number] = event._replace(name=THEN.join(tried), who=who)
            try:
                await (kind.do(self, chance) if kind.is_shared else kind.do(self.person(who, chance)))
            except GivenUp:
                continue
            self.counts[name] += 1
            return

    def _room(self, event: Event) -> int:
        """Return how many actions a deed that is drawn may come to."""
        others = self.coming - self._begun[event.number]
        return max(1, self.options.actions + SLACK - others)

    async def _trouble(self, event: Event) -> None:
        tried: list[str] = []
        for name in _names(event, self.options.troubles, self.script.source("choice", event.number)):
            if name in tried:
                continue  # its chance is the same, and so is what comes of it
            fault = Fault(name, self.world.loop.now_ns)
            tried.append(name)
            self.played[event.number] = event._replace(name=THEN.join(tried))
            during = _FAULT.set(fault)
            try:
                made = await TROUBLES[name].do(self, self.script.source(f"trouble/{name}", event.number))
            except (GivenUp, MachineGone):
                continue
            finally:
                _FAULT.reset(during)
            fault.text, fault.machines, fault.facts, fault.effects = made
            self.faults.append(fault)
            self.tell(f"{name}: {made.text}")
            self.counts[name] += 1
            journal.follow(self.world, self.watch.journals)
            if self.world.coordinator.is_running:
                check_reachability(self.world, 1)
                check_durability(self.world)
            return

    def _tell(self, action: Action) -> None:
        if self.observer is not None:
            self.observer.act(action)
        self.told.append(one_line(str(action)))
        number = _DEED.get()
        if self._begun.get(number):
            self._begun[number] -= 1

    def tell(self, what: str) -> None:
        """Note something that is no action."""
        self.world.loop.note("trouble", what)
        self.told.append(one_line(f"   {self.world.loop.now_ns / 1e9:.3f} s {what}"))

    def later(self, seconds: float, act: Callable[[], Awaitable[None] | Any]) -> None:
        """Have something end after so much time, or with the safety phase."""
        fault = _FAULT.get()

        async def end() -> None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._is_calm.wait()
            result = act()
            if asyncio.iscoroutine(result):
                await result
            if fault is not None:
                fault.until_ns = self.world.loop.now_ns

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

    def person(self, number: int, chance: Random) -> Person:
        """Return the user of a device."""
        return Person(self.world.devices[number], number, self.ledger, chance)

    def _keep_images(self, number: int) -> None:
        """Make an image of a device and one of the coordinator, to put them back to later, unless there are some."""
        device, now_ns = self.world.devices[number], self.world.loop.now_ns
        if self.image is None:
            tree = look(device)
            self.image = Backup(
                number, now_ns, device.image(), tree, self.ledger.known(number, tree), self.ledger.epoch
            )
        if self.backup is None:
            self.backup = now_ns, self.world.coordinator.backup()

    async def set_back(self, back: Backup, *, files: bool, database: bool) -> dict[str, Any]:
        """Put a device back to an image; what was nowhere else may be lost by that, if nobody was told that it is safe.

        Returns:
            What happened, as far as disks show it: whether its files, and what it knows, are others than before.
        """
        number, image, since_ns = back.number, back.image, back.made_ns
        device = self.world.devices[number]
        if device.is_running:
            device.kill()
        device.user.close_all()
        before, away = self.ledger.see(device, number), look(device, AWAY)
        knew = device.kept_database
        hides_since_ns = since_ns if files and database else None
        self.ledger.backs[number] = Back(self.world.loop.now_ns, before, database, hides_since_ns, self.ledger.epoch)
        self.world.may_log("two entries under one number")
        self.put_back.add(device.name)
        with journal.going_back(self.world, self.watch.journals, device, forgets=database):
            device.restore(image, files=files, database=database)
        if database:
            others = [held(look(one)) + held(look(one, AWAY)) for one in self.world.devices if one is not device]
            self.ledger.forget_removals(number, since_ns, set().union(*others))
            self.ledger.forget(device, number, back.known, back.epoch)
        if files and not database:
            # What its user put away goes by that, too; and what is away then is only that.
            stood, stands = away | before, look(device, AWAY) | look(device)
            self.ledger.note(device, number, "puts the files back to a backup", stood, stands)
        elif files:
            there = self.ledger.see(device, number)
            kept = held({path: seen for path, seen in there.items() if not is_local(path)})
            for content in held(before) + held(away):
                if content not in kept and self.ledger.is_alone(number, content):
                    self.ledger.excused[content] = f"device-{number} was put back"
        now = look(device)
        facts = {
            "files": files
            and {path: seen[:3] for path, seen in now.items()} != {path: seen[:3] for path, seen in before.items()},
            "database": database and knew != image.database,
            "gone": any(path not in now for path in before),
            "missing": any(path not in now for path in back.tree),
        }
        await self.start(device)
        return facts

    async def _calm(self) -> None:
        """End all troubles, and let everybody finish what he is at."""
        self._is_calm.set()
        for task in self._later:
            await task
        self._later.clear()
        self._is_calm.clear()
        for fault in self.faults:
            fault.effects.end()
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
