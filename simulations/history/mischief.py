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
from simulations.history.people import GivenUp, Person
from simulations.history.troubles import Made
from simulations.inodes import File
from simulations.servers import COORDINATOR, DATA, NodeMachine
from simulations.user_files import UserFiles

if TYPE_CHECKING:
    from simulations.history.course import Course

_AWAY_S: Final = 40.0
_MEANWHILE_S: Final = 12.0
_LOCKED: Final = frozenset({"open_file", "read", "rename", "exchange", "unlink", "link"})
_HEADER_BYTES: Final = 200
"""What is spared of a pack: a rotten header is a lost disk."""


def _on(course: Course, least: int) -> list[int]:
    found = [number for number, device in enumerate(course.world.devices) if device.is_on]
    if len(found) < least:
        raise GivenUp("too few machines are on")
    return found


def _cut_all(course: Course, ways: Sequence[tuple[str, str]], for_s: float) -> None:
    for source, target in ways:
        course.world.network.cut(source, target)
        course.later(for_s, partial(course.world.network.heal, source, target))


def _edit(person: Person, path: str) -> None:
    with person.acting(f"edits {path}"):
        person.hands.write(person.path(path), content(person.ledger.token(), 40))


def _file_of(people: list[Person], chance: Random) -> str:
    found = encounters.a_file(people)
    if not found:
        raise GivenUp("nothing that all of them have")
    return chance.choice(found)[0]


async def island(course: Course, chance: Random) -> Made:
    """Let two devices hear each other alone for a while, and have one of them and a third edit one file."""
    one, other, third = chance.sample(_on(course, 3), 3)
    people = [course.person(number, chance) for number in (one, other, third)]
    path = _file_of(people, chance)
    servers = [COORDINATOR, *(node.name for node in course.world.nodes)]
    inside, outside = [people[0].device.name, people[1].device.name], [*servers, people[2].device.name]
    ways = [way for here in inside for there in outside for way in ((here, there), (there, here))]
    _cut_all(course, ways, _MEANWHILE_S + chance.random() * _AWAY_S)
    await asyncio.sleep(0.1)
    _edit(people[0], path)
    _edit(people[2], path)
    await asyncio.sleep(_MEANWHILE_S)
    _edit(people[0], path)
    told = f"{inside[0]} and {inside[1]}"
    shown = [(here, COORDINATOR) for here in inside] + [(COORDINATOR, here) for here in inside]
    return Made(told, tuple(inside), {"ways": shown})


async def split(course: Course, chance: Random) -> Made:
    """Let a network come apart into halves, and have two people in each edit one file."""
    numbers = _on(course, 4)
    chance.shuffle(numbers)
    halves = [sorted(numbers[:2]), sorted(numbers[2:])]
    people = [[course.person(number, chance) for number in half] for half in halves]
    path = _file_of([person for half in people for person in half], chance)
    servers = [COORDINATOR, *(node.name for node in course.world.nodes)]
    inside = [person.device.name for person in people[1]]
    outside = [*servers, *(person.device.name for person in people[0])]
    ways = [way for here in inside for there in outside for way in ((here, there), (there, here))]
    _cut_all(course, ways, _MEANWHILE_S + chance.random() * _AWAY_S)
    await asyncio.sleep(0.1)
    for half in people:
        for person in half[:2]:
            _edit(person, path)
    await asyncio.sleep(_MEANWHILE_S)
    told = " and ".join(", ".join(person.device.name for person in half) for half in people)
    return Made(told, tuple(inside), {"halves": halves})


async def lock(course: Course, chance: Random) -> Made:
    """Have a program lock a file for a while, and another device's user edit it."""
    one, other = (course.person(number, chance) for number in chance.sample(_on(course, 2), 2))
    path = _file_of([one, other], chance)
    disk = one.device.disk
    if disk.hooks.fault is not None:
        raise GivenUp("that disk has a fault already")
    locked = disk.at(one.path(path))

    def judge(call: Call) -> Fault | None:
        is_it = call.inode is locked or call.other is locked
        return Fault(errno.EBUSY) if is_it and call.call in _LOCKED else None

    disk.hooks.fault = judge
    course.later(chance.random() * _AWAY_S, lambda: setattr(disk.hooks, "fault", None))
    _edit(other, path)
    return Made(f"{path} on {one.device.name}", (one.device.name,), {"path": path})


async def hide_root(course: Course, chance: Random) -> Made:
    """Let a device's folder be away for a while, as on a disk that is not mounted."""
    device = course.world.devices[chance.choice(_on(course, 1))]
    if not device.user.exists(ROOT) or device.user.exists(AWAY):
        raise GivenUp("it is away already")
    device.user.rename(ROOT, AWAY)
    course.later(chance.random() * _AWAY_S, partial(_bring_back, device))
    return Made(device.name, (device.name,))


def _bring_back(device: DeviceMachine) -> None:
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
    if not at:
        raise GivenUp("nothing lies there")
    path = f"{DATA}/packs/{chance.choice(at)}"
    offset = chance.randrange(_HEADER_BYTES, len(_bytes(node, path.rpartition("/")[2])))
    course.lost_disks += 1
    course.world.may_log("a chunk is damaged", node.name)
    node.may_lack = True
    _flip(node, path, offset)
    course.later(chance.random() * 5 * _AWAY_S, partial(_mend, course, node, path, offset))
    return Made(f"byte {offset} of {path} on {node.name}", (node.name,), {"times": 1})


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
    if node.is_running:
        await course.stop(node)
        await course.start(node)


async def repeat(course: Course, chance: Random) -> Made:
    """Let some messages between a device and the coordinator come twice."""
    device = chance.choice(course.world.devices)
    times = chance.randint(1, 10)
    for source, target in ((device.name, COORDINATOR), (COORDINATOR, device.name)):
        course.world.network.link(source, target).repeats = times
    return Made(f"{device.name}, {times} times", (device.name,), {"times": times})
