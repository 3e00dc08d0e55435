"""What goes wrong while people do something to just that: networks in pieces, locks, roots that are away, rotten bytes.

Rule 1: as of all troubles, each says how it ends; what people do meanwhile are actions like others.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Sequence
from functools import partial
from random import Random
from typing import TYPE_CHECKING, Final

from protocol.entries import Kind
from simulations.devices import AWAY, ROOT, DeviceMachine
from simulations.disk_hooks import Call, Fault
from simulations.history import encounters
from simulations.history.contents import content
from simulations.history.effects import Effects
from simulations.history.people import GivenUp, Person
from simulations.history.troubles import Made, Ways
from simulations.inodes import File
from simulations.links import Trouble
from simulations.loop import SECOND_NS
from simulations.servers import COORDINATOR, DATA, NodeMachine
from simulations.user_files import UserFiles

if TYPE_CHECKING:
    from simulations.history.course import Course

_AWAY_S: Final = 40.0
_MEANWHILE_S: Final = 12.0
_LOCKED: Final = frozenset({"open_file", "read", "rename", "exchange", "unlink", "link"})
_MAIN_SHARE: Final = 0.7
"""How often it is the disk of the user's files that is full."""
_WIDE_BYTES: Final = 100_000
_YEARS_NS: Final = 12 * 366 * 86_400 * SECOND_NS
_HEADER_BYTES: Final = 200
"""What is spared of a pack: a rotten header is a lost disk."""


def _on(course: Course, least: int) -> list[int]:
    found = [number for number, device in enumerate(course.world.devices) if device.is_on]
    if len(found) < least:
        raise GivenUp("too few machines are on")
    return found


def _cut_all(course: Course, inside: Sequence[str], outside: Sequence[str], for_s: float) -> Ways:
    ways = Ways(course)
    for here in inside:
        for there in outside:
            for way in ((here, there), (there, here)):
                ways.shut(way, Trouble.CUT, for_s)
    return ways


def edit(person: Person, path: str) -> None:
    """Have somebody write a file anew."""
    with person.acting(f"edits {path}"):
        person.hands.write(person.path(path), content(person.ledger.token(), 40))


def file_of(people: list[Person], chance: Random) -> str:
    """Return a file that all of them have.

    Raises:
        GivenUp: There is none.
    """
    found = encounters.a_file(people)
    if not found:
        raise GivenUp("nothing that all of them have")
    return chance.choice(found)[0]


async def island(course: Course, chance: Random) -> Made:
    """Let two devices hear each other alone for a while, and have one of them and a third edit one file."""
    one, other, third = chance.sample(_on(course, 3), 3)
    people = [course.person(number, chance) for number in (one, other, third)]
    path = file_of(people, chance)
    servers = [COORDINATOR, *(node.name for node in course.world.nodes)]
    inside, outside = [people[0].device.name, people[1].device.name], [*servers, people[2].device.name]
    ways = _cut_all(course, inside, outside, _MEANWHILE_S + chance.random() * _AWAY_S)
    await asyncio.sleep(0.1)
    edit(people[0], path)
    edit(people[2], path)
    await asyncio.sleep(_MEANWHILE_S)
    edit(people[0], path)
    told = f"{inside[0]} and {inside[1]}"
    shown = [way for way in ways.ways if COORDINATOR in way]
    return Made(told, tuple(inside), ways.facts | {"ways": shown}, ways.effects)


async def split(course: Course, chance: Random) -> Made:
    """Let a network come apart into halves, and have two people in each edit one file."""
    numbers = _on(course, 4)
    chance.shuffle(numbers)
    halves = [sorted(numbers[:2]), sorted(numbers[2:])]
    people = [[course.person(number, chance) for number in half] for half in halves]
    path = file_of([person for half in people for person in half], chance)
    servers = [COORDINATOR, *(node.name for node in course.world.nodes)]
    inside = [person.device.name for person in people[1]]
    outside = [*servers, *(person.device.name for person in people[0])]
    ways = _cut_all(course, inside, outside, _MEANWHILE_S + chance.random() * _AWAY_S)
    await asyncio.sleep(0.1)
    for half in people:
        for person in half[:2]:
            edit(person, path)
    await asyncio.sleep(_MEANWHILE_S)
    told = " and ".join(", ".join(person.device.name for person in half) for half in people)
    return Made(told, tuple(inside), {"halves": halves}, ways.effects)


async def fill_disk(course: Course, chance: Random) -> Made:
    """Leave little room on a device's disk for a while, and have another device's user write what does not fit."""
    one, other = (course.person(number, chance) for number in chance.sample(_on(course, 2), 2))
    path = f"kiwi-wide-{other.ledger.token()}.bin"
    with other.acting(f"writes {path}"):
        other.hands.write(other.path(path), content(other.ledger.token(), _WIDE_BYTES))
    disk = one.device.disk if chance.random() < _MAIN_SHARE else chance.choice(one.device.disks)
    before = course.capacities.setdefault(disk, disk.capacity_bytes)  # it may be full already
    disk.capacity_bytes = disk.used_bytes + chance.choice((0, 1_000, 50_000))
    effects, refused = Effects(), disk.refused
    over = effects.watch(lambda: disk.refused - refused)

    def end() -> None:
        over()
        disk.capacity_bytes = before

    course.later(chance.random() * _AWAY_S, end)
    return Made(f"{one.device.name}, disk {disk.number}", (one.device.name,), effects=effects)


async def far_clock(course: Course, chance: Random) -> Made:
    """Put a device's wall clock years off, and have its user and another edit one file."""
    one, other = (course.person(number, chance) for number in chance.sample(_on(course, 2), 2))
    path = file_of([one, other], chance)
    jump_ns = chance.choice((-1, 1)) * _YEARS_NS
    one.device.time.jump(jump_ns)
    course.jumps_ns[one.device.name] += jump_ns
    edit(one, path)
    edit(other, path)
    return Made(f"{one.device.name} by {jump_ns / SECOND_NS:g} s", (one.device.name,), {"jump_ns": jump_ns})


async def lock(course: Course, chance: Random) -> Made:
    """Have a program lock a file for a while, and another device's user edit it."""
    one, other = (course.person(number, chance) for number in chance.sample(_on(course, 2), 2))
    path = file_of([one, other], chance)
    disk = one.device.disk
    if disk.hooks.fault is not None:
        raise GivenUp("that disk has a fault already")
    locked, effects = disk.at(one.path(path)), Effects()

    def judge(call: Call) -> Fault | None:
        if call.call not in _LOCKED or locked not in (call.inode, call.other):
            return None
        effects.add()
        return Fault(errno.EBUSY)

    disk.hooks.fault = judge
    course.later(chance.random() * _AWAY_S, lambda: setattr(disk.hooks, "fault", None))
    edit(other, path)
    return Made(f"{path} on {one.device.name}", (one.device.name,), {"path": path}, effects)


async def hide_root(course: Course, chance: Random) -> Made:
    """Let a device's folder be away for a while, as on a disk that is not mounted."""
    device = course.world.devices[chance.choice(_on(course, 1))]
    if not device.user.exists(ROOT) or device.user.exists(AWAY):
        raise GivenUp("it is away already")
    device.user.rename(ROOT, AWAY)
    effects, lives = Effects(int(device.is_running)), device.lives
    effects.watch(lambda: device.lives - lives)
    course.later(chance.random() * _AWAY_S, partial(_bring_back, device, effects))
    return Made(device.name, (device.name,), effects=effects)


def _bring_back(device: DeviceMachine, effects: Effects) -> None:
    effects.end()
    if device.user.exists(AWAY):  # else an older image of the disk was put in its place
        if device.user.exists(ROOT):
            device.user.remove_tree(ROOT)
        device.user.rename(AWAY, ROOT)


async def rot(course: Course, chance: Random) -> Made:
    """Let a byte on a storage node's disk be wrong for a while."""
    if course.lost_disks:
        raise GivenUp("the budget is used up")
    node = chance.choice(course.world.nodes)
    packs = [path for path, standing in node.disk.tree(f"{DATA}/packs").items() if standing.kind is Kind.FILE]
    at = [path for path in packs if len(_bytes(node, path)) > 2 * _HEADER_BYTES]
    if not at or node.disk.hooks.fault is not None:
        raise GivenUp("nothing lies there, or that disk has a fault already")
    path = f"{DATA}/packs/{chance.choice(at)}"
    offset = chance.randrange(_HEADER_BYTES, len(_bytes(node, path.rpartition("/")[2])))
    course.lost_disks += 1
    course.world.may_log("a chunk is damaged", node.name)
    node.may_lack = True
    _flip(node, path, offset)
    effects, rotten = Effects(), node.disk.at(path)

    def read(call: Call) -> None:
        if call.call == "read" and call.inode is rotten:
            effects.add()

    node.disk.hooks.fault = read
    course.later(chance.random() * 5 * _AWAY_S, partial(_mend, course, node, path, offset))
    return Made(f"byte {offset} of {path} on {node.name}", (node.name,), effects=effects)


def _bytes(node: NodeMachine, name: str) -> bytes:
    inode = node.disk.at(f"{DATA}/packs/{name}")
    return inode.data() if isinstance(inode, File) else b""


def _flip(node: NodeMachine, path: str, offset: int) -> None:
    files = UserFiles(node.disk, uid=0)
    if files.exists(path) and offset < files.stat(path).size:
        files.write_at(path, bytes([files.read(path)[offset] ^ 0xFF]), offset)


async def _mend(course: Course, node: NodeMachine, path: str, offset: int) -> None:
    """Set the byte right; the node looks at its packs anew, since it may have given something up."""
    _flip(node, path, offset)
    node.disk.hooks.fault = None
    if node.is_running:
        await course.stop(node)
        await course.start(node)


async def repeat(course: Course, chance: Random) -> Made:
    """Let some messages between a device and the coordinator come twice."""
    device = chance.choice(course.world.devices)
    times, effects = chance.randint(1, 10), Effects()
    links = course.world.network.between(device.name, COORDINATOR)
    if any(link.repeats for link in links):
        raise GivenUp("they are repeated already")
    for link in links:
        link.repeats = times
    effects.watch(lambda: sum(times - link.repeats for link in links))
    return Made(f"{device.name}, {times} times", (device.name,), effects=effects)
