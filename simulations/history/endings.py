"""How a history ends, in some of them: what needs everybody at rest to be judged, and what nobody recovers from.

Rule 1: which ending a history has comes from a generator of its own, so that the same seeds do the same before it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from random import Random
from typing import TYPE_CHECKING, Final

from protocol.entries import Kind
from simulations.checks import brake, cost, journal
from simulations.checks.violation import FORK_SAFETY, Violation
from simulations.devices import FILES, ROOT
from simulations.history import rest
from simulations.history.ledger import look
from simulations.history.people import Person

if TYPE_CHECKING:
    from simulations.history.course import Course
    from simulations.world import World

_SHARE: Final = 0.25
"""How many histories have one."""
_FULL: Final = 3
"""So many files at least are in a directory that is full ..."""
_MASS_MIN: Final = 9
"""... and so many in the folder: to remove or rewrite all of them is a mass change."""
_WAIT_S: Final = 60.0
_ALARM_S: Final = 300.0
"""In so much virtual time a device must have found that it was shown another history than others."""
_LOOKS: Final = 20
_LOOK_S: Final = 0.5
_AWAY: Final = f"{FILES}/away"

Ending = Callable[["Course", Random], Awaitable[None]]


def drawn(world: World) -> str:
    """Return the ending of a history; "" for none of its own."""
    chance = world.loop.chance("ending")
    return chance.choice(list(ENDINGS)) if chance.random() < _SHARE else ""


async def end(course: Course, name: str) -> None:
    """Bring a history to its end, if it has one of its own.

    Raises:
        Violation: Something does not hold.
    """
    if name:
        course.tell(f"ending: {name}")
        course.counts[name] += 1
        await ENDINGS[name](course, course.world.loop.chance(f"ending/{name}"))


# --- What things cost


async def rename_at_rest(course: Course, chance: Random) -> None:
    """Rename a directory with files in it, and give a file another time and another mode; nobody does anything else."""
    person = _somebody(course, chance)
    directory = await _a_full_directory(course, person)
    hands = person.hands

    def rename() -> None:
        hands.rename(person.path(directory), person.path(f"kiwi-moved-{person.ledger.token()}"))

    await _costs(course, person, f"renaming {directory}", rename)
    file = next(
        path for path, seen in person.tree().items() if seen.kind is Kind.FILE and path.startswith("kiwi-moved")
    )
    await _costs(
        course, person, f"touching {file}", lambda: hands.set_mtime(person.path(file), 1_700_000_000_000_000_000)
    )
    mode = 0o644 if person.tree()[file].executable else 0o755
    await _costs(course, person, f"changing the mode of {file}", lambda: hands.set_mode(person.path(file), mode))
    await rest.look_at_all(course)


async def _costs(course: Course, person: Person, what: str, act: Callable[[], None]) -> None:
    before = cost.spent(course.world)
    with person.acting(what):
        act()
    await rest.be_still(course)
    cost.check(what, before, cost.spent(course.world))


# --- Mass changes


async def empty_unseen(course: Course, chance: Random) -> None:
    """Remove or rewrite all files of a device while its agent is off; nobody else may lose anything before a person spoke."""
    person = _somebody(course, chance)
    await _a_full_directory(course, person)
    device, is_removal = person.device, chance.random() < 0.5
    await course.stop(device)
    before = [look(one) for one in course.world.devices]
    what = f"{'removes' if is_removal else 'rewrites'} everything unseen"
    with person.acting(what) as tree:
        for path, seen in list(tree.items()):
            if seen.kind is Kind.FILE and is_removal:
                person.hands.remove(person.path(path))
            elif seen.kind is Kind.FILE:
                person.hands.write(person.path(path), person.something_new())
    await device.start()
    await asyncio.sleep(_WAIT_S)
    brake.check(what, before, [look(one) for one in course.world.devices], but=person.number)
    await rest.come_to_rest(course)


async def take_root_away(course: Course, chance: Random) -> None:
    """Have a device's root be away for a while, as a disk that is not mounted: that is no removal."""
    person = _somebody(course, chance)
    await _a_full_directory(course, person)
    device = person.device
    before = [look(one) for one in course.world.devices]
    await course.stop(device)
    device.user.rename(ROOT, _AWAY)
    leaves_empty = chance.random() < 0.5
    if leaves_empty:
        device.user.make_directory(ROOT)
    await device.start()
    await asyncio.sleep(_WAIT_S)
    await course.stop(device)
    if leaves_empty:
        device.user.remove_tree(ROOT)
    device.user.rename(_AWAY, ROOT)
    brake.check("a root is away", before, [look(one) for one in course.world.devices], but=person.number)
    await device.start()
    await rest.come_to_rest(course)
    brake.check("a root was away", before, [look(one) for one in course.world.devices], but=-1)


# --- A coordinator that was set back


async def roll_back(course: Course, chance: Random) -> None:
    """Put the coordinator back to before what everybody has by now: it must have all of it again, and nobody loses anything."""
    world = course.world
    backup = world.coordinator.backup()
    plain = _plain(course)
    for person in chance.sample(plain, min(2, len(plain))):
        with person.acting("writes before a rollback"):
            person.hands.write(person.path(f"kiwi-late-{person.ledger.token()}.txt"), person.something_new())
    await rest.come_to_rest(course)
    world.coordinator.kill()
    with journal.going_back(world, course.watch.journals, world.coordinator):
        world.coordinator.restore(backup)
    person = _somebody(course, chance)
    with person.acting("writes after a rollback"):
        person.hands.write(person.path(f"kiwi-later-{person.ledger.token()}.txt"), person.something_new())
    course.watch.guard_rollback = True
    await world.coordinator.start()
    for _ in range(_LOOKS):
        await asyncio.sleep(_LOOK_S)
        journal.follow(world, course.watch.journals)
    await rest.come_to_rest(course)
    course.watch.guard_rollback = False


async def fork(course: Course, chance: Random) -> None:
    """Put the coordinator back while one device alone knows more, and have others go on: that one must find out, and stop."""
    world = course.world
    ahead, *others = chance.sample(_plain(course), len(_plain(course)))
    for device in world.devices:
        if device is not ahead.device:
            world.network.go_offline(device.name)
    backup = world.coordinator.backup()
    await _write_and_sync(ahead, "kiwi-one-branch")
    world.network.go_offline(ahead.device.name)
    world.coordinator.kill()
    with journal.going_back(world, course.watch.journals, world.coordinator):
        world.coordinator.restore(backup)
    await world.coordinator.start()
    for device in world.devices:
        if device is not ahead.device:
            world.network.go_online(device.name)
    writer = others[0] if others else next(one for one in course.people if one is not ahead)
    await _write_and_sync(writer, "kiwi-other-branch")
    await _write_and_sync(writer, "kiwi-other-branch")
    world.network.go_online(ahead.device.name)
    with ahead.acting("writes on a branch"):
        ahead.hands.write(ahead.path(f"kiwi-one-branch-{ahead.ledger.token()}.txt"), ahead.something_new())
    await find_fork(course)
    if journal.agrees(ahead.device, world.coordinator):
        raise Violation(FORK_SAFETY, f"{ahead.device.name} gave up the history that it had seen signed")
    for device in world.devices:
        strange = "kiwi-other-branch" if device is ahead.device else "kiwi-one-branch"
        came = [path for path in look(device) if path.rpartition("/")[2].startswith(strange)]
        if came:
            raise Violation(FORK_SAFETY, f"{came[0]} of another branch of the history came to {device.name}")


async def find_fork(course: Course) -> None:
    """Invariant 12: in a while, who knows another history than the coordinator's has said so, and stopped.

    Raises:
        Violation: He has not.
    """
    world = course.world
    await asyncio.sleep(_ALARM_S)
    for device in world.devices:
        stopped = any(engine.record.frozen for engine in device.device.engines.values())
        if not (journal.agrees(device, world.coordinator) or stopped):
            raise Violation(
                FORK_SAFETY, f"{device.name} knows another history than the coordinator's, and says nothing"
            )


async def _write_and_sync(person: Person, name: str) -> None:
    with person.acting("writes on a branch"):
        person.hands.write(person.path(f"{name}-{person.ledger.token()}.txt"), person.something_new())
    await person.device.sync(rest.ASK_S)


# --- Who, and with what


def _plain(course: Course) -> list[Person]:
    return [person for person in course.people if not person.device.disk.personality.changes_names]


def _somebody(course: Course, chance: Random) -> Person:
    return chance.choice(_plain(course))


async def _a_full_directory(course: Course, person: Person) -> str:
    """Return a directory with so many files that all of the folder's are a mass change, once everybody has it."""
    count = max(_FULL, _MASS_MIN - sum(seen.kind is Kind.FILE for seen in person.tree().values()))
    directory = f"kiwi-full-{person.ledger.token()}"
    with person.acting(f"copies {count} files into {directory}"):
        for number in range(count):
            path = person.path(f"{directory}/kiwi-{number}.jpg")
            person.hands.write(path, person.something_new(), parents=True)
    await rest.come_to_rest(course)
    return directory


ENDINGS: Final[dict[str, Ending]] = {
    "rename_at_rest": rename_at_rest,
    "empty_unseen": empty_unseen,
    "take_root_away": take_root_away,
    "roll_back": roll_back,
    "fork": fork,
}
FINAL: Final = frozenset({"fork"})
"""Those after which nobody comes to rest any more."""
