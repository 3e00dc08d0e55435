"""What goes wrong: machines, networks, disks, clocks and backups.

Rule 1: a trouble begins at once and says how it ends; whatever has not ended by then, ends with the safety phase.
Rule 2: nothing is taken from which nobody could recover: one storage node's disk at a time, and never the only copy of what
    was promised to be safe.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from random import Random
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from simulations.checks import journal
from simulations.databases import read_image
from simulations.disk_faults import SeededFaults
from simulations.history import deeds
from simulations.history.effects import ONCE, Effects
from simulations.history.people import GivenUp
from simulations.links import Link, Trouble
from simulations.loop import SECOND_NS
from simulations.machines import Machine
from simulations.servers import DATA, NodeMachine

if TYPE_CHECKING:
    from simulations.history.course import Course

_SOON_S: Final = 20.0
_EFFECTS_MAX: Final = 120
_DISK_SHARE: Final = 0.03
_DAY_S: Final = 86_400
_HEAD: Final = "SELECT coalesce(max(position), 0) FROM log"
_DAY_NS: Final = _DAY_S * SECOND_NS


class Made(NamedTuple):
    """What a trouble was."""

    text: str
    """For a person."""
    machines: tuple[str, ...] = ()
    """To which it happened."""
    facts: Mapping[str, Any] = MappingProxyType({})
    """What else an observer may know of it; some are filled in while it goes on."""
    effects: Effects = ONCE
    """How often it took effect."""


def _a_machine(course: Course, chance: Random) -> Machine:
    machines = [one for one in course.world.machines if one.is_running]
    weights = [3 if one in course.world.devices else 1 for one in machines]
    return chance.choices(machines, weights)[0] if machines else _none()


def _none() -> Machine:
    raise GivenUp("no machine runs")


def _start_soon(course: Course, machine: Machine, chance: Random) -> None:
    course.later(chance.random() * _SOON_S, lambda: course.start(machine))


async def kill(course: Course, chance: Random) -> Made:
    """End a process."""
    machine = _a_machine(course, chance)
    machine.kill()
    _start_soon(course, machine, chance)
    return Made(machine.name, (machine.name,))


async def cut_power(course: Course, chance: Random) -> Made:
    """Cut a machine's power."""
    machine = _a_machine(course, chance)
    machine.cut_power()
    _start_soon(course, machine, chance)
    return Made(machine.name, (machine.name,))


async def crash_soon(course: Course, chance: Random) -> Made:
    """End a process before one of its next effects."""
    machine = _a_machine(course, chance)
    effect, loses_power = chance.randint(1, _EFFECTS_MAX), chance.random() < 0.5
    machine.crash_at(effect, loses_power=loses_power)
    crash, effects = machine.host.on_crash, Effects()

    def end() -> None:
        effects.add()
        assert crash is not None
        crash()

    machine.host.on_crash = end
    course.later(chance.random() * 2 * _SOON_S, lambda: course.start(machine))
    return Made(f"{machine.name} at {effect}, {loses_power=}", (machine.name,), effects=effects)


async def restart(course: Course, chance: Random) -> Made:
    """Stop a machine in good order, and start it again later."""
    machine = _a_machine(course, chance)
    await course.stop(machine)
    _start_soon(course, machine, chance)
    return Made(machine.name, (machine.name,))


async def holiday(course: Course, chance: Random) -> Made:
    """Let everybody be away for days: all machines are off meanwhile."""
    course.on_holiday = True
    for machine in reversed(course.world.machines):
        if machine.is_running:
            await course.stop(machine)
    days = chance.choice((1, 10, 550))
    await asyncio.sleep(days * _DAY_S)
    late = chance.choice(course.world.devices)
    person = course.person(course.world.devices.index(late), chance)
    with contextlib.suppress(GivenUp):
        await deeds.edit(person)  # at a machine that is on, before its agent is
    course.on_holiday = False
    for machine in course.world.machines:
        if machine is not late:
            await course.start(machine)
    course.later(chance.random() * 2 * _SOON_S, lambda: course.start(late))
    return Made("for a day" if days == 1 else f"for {days} days", (), {"days": days})


async def leave(course: Course, chance: Random) -> Made:
    """Take a machine from the network for a while, a device perhaps for weeks."""
    machine, effects = _a_machine(course, chance), Effects()
    network, others = course.world.network, [one for one in course.world.machines if one is not machine]
    links = [link for other in others for link in network.between(machine.name, other.name)]
    network.go_offline(machine.name)
    over = effects.watch(_sent_on(links))

    def end() -> None:
        over()
        network.go_online(machine.name)

    for_s = chance.choice((5.0, 60.0, 600.0))
    course.later(chance.random() * for_s, end)
    return Made(machine.name, (machine.name,), effects=effects)


def _sent_on(links: Sequence[Link]) -> Callable[[], int]:
    """Return what counts the bytes that are sent on links from now on: what nobody lets through, comes late or never."""
    before = sum(link.carried_bytes for link in links)
    return lambda: sum(link.carried_bytes for link in links) - before


class Ways:
    """Ways between machines on which nothing gets through for a while.

    Args:
        course: Of the history.
    """

    def __init__(self, course: Course) -> None:
        self._course = course
        self.effects = Effects()
        self.ways: list[tuple[str, str]] = []
        self.until_ns: dict[tuple[str, str], int] = {}
        """By way, when it was open again."""

    @property
    def facts(self) -> dict[str, Any]:
        """What an observer may know."""
        return {"ways": self.ways, "until_ns": self.until_ns}

    def shut(self, way: tuple[str, str], trouble: Trouble, for_s: float) -> None:
        """Let nothing through on one way."""
        network, loop = self._course.world.network, self._course.world.loop
        begin, end = (network.cut, network.heal) if trouble is Trouble.CUT else (network.clog, network.unclog)
        begin(*way)
        self.ways.append(way)
        over = self.effects.watch(_sent_on([network.link(*way)]))

        def open_again() -> None:
            over()
            self.until_ns[way] = loop.now_ns
            end(*way)

        self._course.later(for_s, open_again)


def _told(ways: list[tuple[str, str]]) -> str:
    return ", ".join(f"{source} to {target}" for source, target in ways)


def _two(course: Course, chance: Random) -> tuple[str, str]:
    one, other = chance.sample([machine.name for machine in course.world.machines], 2)
    return one, other


async def cut(course: Course, chance: Random) -> Made:
    """Lose all that goes from one machine to another, perhaps in one direction alone."""
    one, other = _two(course, chance)
    ways = Ways(course)
    for way in [(one, other)] if chance.random() < 0.5 else [(one, other), (other, one)]:
        ways.shut(way, Trouble.CUT, chance.random() * _SOON_S * 3)
    return Made(_told(ways.ways), (), ways.facts, ways.effects)


async def clog(course: Course, chance: Random) -> Made:
    """Stop some links one by one and let them go again in another order."""
    machines = [machine.name for machine in course.world.machines]
    some = [(chance.choice(machines), chance.choice(machines)) for _ in range(chance.randint(1, 6))]
    ways = Ways(course)
    for way in dict.fromkeys((one, other) for one, other in some if one != other):
        ways.shut(way, Trouble.CLOG, chance.random() * _SOON_S)
    return Made(_told(ways.ways), (), ways.facts, ways.effects)


async def half_open(course: Course, chance: Random) -> Made:
    """Let one machine lose its connections to another, which does not learn of it."""
    one, other = _two(course, chance)
    times = course.world.network.half_open(one, other)
    if not times:
        raise GivenUp("there was no connection")
    return Made(f"{one} to {other}: {times}", (one, other), effects=Effects(times))


async def reset(course: Course, chance: Random) -> Made:
    """Break all connections between two machines, or the one that carries a byte that is to come."""
    one, other = _two(course, chance)
    link = course.world.network.link(one, other)
    if chance.random() < 0.5 and link.cut_after_bytes is None:
        effects = Effects()
        link.on_cut = effects.add
        course.world.network.cut_after(one, other, chance.randrange(20_000))
        return Made(f"{one} to {other} later", (one, other), effects=effects)
    times = course.world.network.reset(one, other)
    if not times:
        raise GivenUp("there was no connection")
    return Made(f"{one} to {other}: {times}", (one, other), effects=Effects(times))


async def lose_a_disk(course: Course, chance: Random) -> Made:
    """Give a storage node a new disk, once in a history."""
    if course.lost_disks:
        raise GivenUp("the budget is used up")
    node = chance.choice(course.world.nodes)
    course.lost_disks += 1
    packs = len(node.disk.tree(f"{DATA}/packs"))
    if node.is_running:
        node.kill()
    node.wipe()
    await course.start(node)
    return Made(node.name, (node.name,), {"packs": packs})


async def set_back_coordinator(course: Course, _: Random) -> Made:
    """Put the coordinator back to a backup, from which the log went on."""
    coordinator = course.world.coordinator
    if course.backup is None:
        raise GivenUp("there is no backup")
    since_ns, image = course.backup
    if _head(coordinator.kept_database) <= _head(image.database):
        raise GivenUp("nothing was ordered since the backup")
    if coordinator.is_running:
        coordinator.kill()
    with journal.going_back(course.world, course.watch.journals, coordinator):
        coordinator.restore(image)
    course.backup = None
    await course.start(coordinator)
    return Made("it is restored", (coordinator.name,), {"since_ns": since_ns})


def _head(database: bytes) -> int:
    return int(read_image(database, _HEAD)[0][0])


async def set_back_device(course: Course, chance: Random) -> Made:
    """Put a device back to an earlier state of all its disks, or of some."""
    if course.image is None:
        raise GivenUp("there is no image")
    back, course.image = course.image, None
    number = back.number
    files, database = chance.random() < 0.7, chance.random() < 0.7
    facts = await course.set_back(back, files=files, database=database)
    effects = Effects(facts["files"] + facts["database"])
    return Made(f"device-{number} is restored, {files=} {database=}", (f"device-{number}",), facts, effects)


async def jump_clock(course: Course, chance: Random) -> Made:
    """Put a machine's wall clock forward or back."""
    machine = chance.choice([*course.world.devices, *course.world.machines])
    jump_ns = chance.choice((-3_700, -400, -1, 1, 400, 3_700)) * chance.choice((SECOND_NS, _DAY_NS, _DAY_NS))
    machine.time.jump(jump_ns)
    course.jumps_ns[machine.name] += jump_ns
    return Made(f"{machine.name} by {jump_ns / SECOND_NS:g} s", (machine.name,), {"jump_ns": jump_ns})


async def fail_disk(course: Course, chance: Random) -> Made:
    """Let some calls of a device's or a node's disk fail for a while."""
    machine: Machine = chance.choice([*course.world.devices, *course.world.nodes])
    disk = chance.choice(machine.disks)
    if disk.hooks.fault is not None:
        raise GivenUp("that disk has a fault already")
    course.world.may_log(
        "a chunk is damaged" if machine in course.world.nodes else "a spooled chunk is damaged", machine.name
    )
    if isinstance(machine, NodeMachine):
        machine.may_lack = True
    most = chance.randint(1, 30)
    faults = disk.hooks.fault = SeededFaults(chance, share=_DISK_SHARE, most=most)
    effects = Effects()
    effects.watch(lambda: most - faults.left)
    course.later(chance.random() * 2 * _SOON_S, lambda: setattr(disk.hooks, "fault", None))
    return Made(f"{machine.name}, disk {disk.number}", (machine.name,), effects=effects)


async def sleep(course: Course, chance: Random) -> Made:
    """Let a machine sleep for a while, or stop its process."""
    machine = _a_machine(course, chance)
    host = machine.host
    course.world.loop.suspend(host, clock_stops=chance.random() < 0.5)
    course.later(chance.random() * _SOON_S * 3, lambda: course.world.loop.resume(host))
    return Made(machine.name, (machine.name,))


async def lack(course: Course, chance: Random) -> Made:
    """Let a storage node be away for a while."""
    node = chance.choice([one for one in course.world.nodes if one.is_running] or [_none()])
    node.kill()
    course.later(chance.random() * 300, lambda: course.start(node))
    return Made(node.name, (node.name,))
