"""The liveness phase: nothing goes wrong any more; everybody must come to rest in time, agree, and then keep still.

Rule 1: what waits for a person gets one: a mass change is approved or taken back, a network that was stopped is resumed, what
    is left out is taken up.
Rule 2: a name that a device's disk cannot hold stays in its report and is no unrest, on a disk that cannot hold every name.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from protocol.errors import KinfolderError
from simulations.checks import at_rest, cost, leaks, load
from simulations.checks.snapshots import check_restored
from simulations.checks.storage import check_durability, check_reachability
from simulations.checks.violation import IDEMPOTENCE, LIVENESS, SNAPSHOTS, Violation
from simulations.devices import FOLDER, ROOT, DeviceMachine
from simulations.history.ledger import Tree, look
from simulations.loop import SECOND_NS
from simulations.machines import MachineGone
from simulations.situations.operations import RULES

if TYPE_CHECKING:
    from simulations.history.course import Course

REST_S: Final = 3_600.0
"""In so much virtual time after the last fault everything must be at rest."""
ASK_S: Final = 600.0
LOOK_S: Final = 1.0
LOOK_S_MAX: Final = 60.0
QUIET_S: Final = 30.0
OFF_S: Final = 8 * 86_400.0
"""For so long everything is off before the last start: what is kept for a week goes then."""
TIDY_S: Final = 1_800.0
"""In so much virtual time after that everything that was under way must be gone: also what a program had open for long."""
TRASH_LOOKS: Final = 30
"""So often everybody who is at rest is looked at, whether devices still hold what they took from users' names; twice its age."""
_TRASH: Final = "SELECT id FROM swap WHERE checked = 1 LIMIT 1"
REPAIR_S: Final = 900.0
"""In so much virtual time after everybody is at rest every chunk must be on as many nodes as it should be."""
BACK: Final = "kiwi-back"
"""Where a snapshot is restored to."""
TELLS: Final = frozenset({"name"})
"""Reasons for which an item may stay out of sync for ever."""


class Forked(Exception):
    """The log has forked, as it may where a coordinator was set back while a device knew no more than it: nobody rests."""


async def come_to_rest(course: Course) -> None:
    """Wait until every device is in sync and nothing moves, then check everything that must hold at rest.

    Raises:
        Forked: There is no rest.
        Violation: It does not come to be, or something does not hold.
    """
    await be_still(course)
    await look_at_all(course)


async def look_at_all(course: Course) -> None:
    """Check everything that must hold at rest, while nothing moves.

    Raises:
        Violation: Something does not hold.
    """
    course.ledger.rested(course.world.devices)
    await at_rest.check(course.world, course.ledger, course.watch)
    check_durability(course.world)
    await _wait_for_copies(course)


async def be_still(course: Course) -> None:
    """Wait until every device is in sync and nothing moves.

    Raises:
        Forked: There is no rest.
        Violation: That does not come to be in time.
    """
    last: dict[str, list[str]] = {}
    now: list[tuple[int, Tree]] = []
    pause_s = LOOK_S
    try:
        async with asyncio.timeout(REST_S):
            before: list[tuple[int, Tree]] = []
            while True:
                last = {device.name: await _settle(course, device) for device in course.world.devices}
                if course.watch.is_forked():
                    raise Forked
                now = _state(course)
                is_still = not any(last.values()) and now == before
                if is_still and await _is_trash_gone(course) and _state(course) == now:
                    return
                before = now
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, LOOK_S_MAX)
    except TimeoutError:
        lines = [f"{name}: {'; '.join(left[:5])}" for name, left in last.items() if left]
        raise Violation(
            LIVENESS, f"not at rest {REST_S:g} s after the last fault: {' | '.join(lines)}; at {[at for at, _ in now]}"
        ) from None


async def _is_trash_gone(course: Course) -> bool:
    """Give devices the time to look at what they took from users' names: what was written to meanwhile comes back.

    Returns:
        Whether they had it: False if one has ended meanwhile.
    """
    for _ in range(TRASH_LOOKS):
        if not all(device.is_running for device in course.world.devices):
            return False
        if not any(device.rows(_TRASH) for device in course.world.devices):
            break
        await asyncio.sleep(LOOK_S)
    return True


async def _wait_for_copies(course: Course) -> None:
    """Wait until each chunk has all its copies.

    Raises:
        Violation: That does not come to be in time.
    """
    world = course.world
    copies = min(world.coordinator.service.replicas, len(world.nodes))
    until_ns = world.loop.now_ns + int(REPAIR_S * SECOND_NS)
    while True:
        try:
            check_reachability(world, copies)
        except Violation:
            if world.loop.now_ns >= until_ns:
                raise
        else:
            return
        await asyncio.sleep(LOOK_S_MAX)


async def _wait_for_order(course: Course) -> None:
    """Wait until nothing is left of what was under way; then, nobody does anything.

    Raises:
        Violation: Something stays.
    """
    world = course.world
    until_ns = world.loop.now_ns + int(TIDY_S * SECOND_NS)
    while True:
        try:
            leaks.check(world, course.put_back)
        except Violation:
            if world.loop.now_ns >= until_ns:
                raise
        else:
            return
        await asyncio.sleep(LOOK_S_MAX)


async def take_snapshot(course: Course) -> tuple[str, Tree]:
    """Name the state in which everybody is at rest; return the name and what stands there."""
    device, name = course.world.devices[0], f"kiwi-rest-{course.ledger.token()}"
    await device.call("snapshot", folder=FOLDER, name=name)
    return name, look(device)


async def bring_back(course: Course, name: str, then: Tree) -> None:
    """Restore a snapshot beside what is there now, on a device that did not make it.

    Raises:
        Violation: It brings back something else than there was, or nothing.
    """
    device = next(one for one in reversed(course.world.devices) if not one.disk.personality.changes_names)
    check_restored(name, then, await _restored(device, name, BACK))


async def bring_back_twice(course: Course, name: str) -> None:
    """Restore a snapshot that somebody made at any time, on two devices, each beside what is there now.

    Raises:
        Violation: One brings back something else than the other, or nothing.
    """
    plain = [one for one in course.world.devices if not one.disk.personality.changes_names]
    if len(plain) > 1:
        first = await _restored(plain[0], name, f"{BACK}-first")
        check_restored(name, first, await _restored(plain[-1], name, f"{BACK}-last"))


async def _restored(device: DeviceMachine, name: str, where: str) -> Tree:
    """Restore a snapshot to a directory that is not there yet; return what stands in that then.

    Raises:
        Violation: It cannot be restored.
    """
    when = {"version": None, "snapshot": name, "at_ms": None, "ago_ms": None}
    try:
        await device.call("restore", path=ROOT, to=device.path(where), **when)
    except KinfolderError as error:
        raise Violation(SNAPSHOTS, f"snapshot {name} cannot be restored: {error}") from None
    prefix = f"{where}/"
    return {path.removeprefix(prefix): seen for path, seen in look(device).items() if path.startswith(prefix)}


async def stay(course: Course) -> None:
    """Let time pass and scan again: nothing may be added.

    Raises:
        Violation: Something was.
    """
    world = course.world
    before, spent = _state(course), cost.spent(world)
    await asyncio.sleep(QUIET_S)
    for device in world.devices:
        await _settle(course, device)
    if (after := _state(course)) != before:
        raise Violation(LIVENESS, f"something moves though nobody does anything: {_change(before, after)}")
    cost.check_nothing(spent, cost.spent(world))
    load.check_rest(world.loop, world.machines)


async def restart(course: Course) -> None:
    """Let time pass and start everything again: nothing may be added.

    Raises:
        Violation: Something was.
    """
    world = course.world
    before = _state(course)
    await asyncio.sleep(QUIET_S)
    if (after := _state(course)) != before:
        raise Violation(LIVENESS, f"something moves though nobody does anything: {_change(before, after)}")
    await world.stop_all()
    await asyncio.sleep(OFF_S)
    await world.start_all()
    for device in world.devices:
        await _settle(course, device)
    if (after := _state(course)) != before:
        raise Violation(IDEMPOTENCE, f"a restart of everything adds something: {_change(before, after)}")
    await _wait_for_order(course)


def _state(course: Course) -> list[tuple[int, Tree]]:
    return [(device.position, look(device)) for device in course.world.devices]


def _change(before: list[tuple[int, Tree]], after: list[tuple[int, Tree]]) -> str:
    changes = []
    for number, ((old_position, old), (position, new)) in enumerate(zip(before, after, strict=True)):
        paths = sorted(path for path in old.keys() | new.keys() if old.get(path) != new.get(path))
        if paths or position != old_position:
            changes.append(f"device-{number} {old_position} -> {position}, {paths[:5]}")
    return ", ".join(changes)


async def _settle(course: Course, device: DeviceMachine) -> list[str]:
    """Have a device sync, and do what it needs a person for; return what is left."""
    try:
        if not device.is_running:
            await device.start()
        if device.device.record.offline:
            await device.call("online")
        _end_rules(course, device)
        _end_pipes(course, device)
        for row in (await device.call("exclude", path=None, remove=False, free=False))["exclusions"]:
            await device.call("exclude", path=device.path(row["path"]), remove=True, free=False)
        left = await device.sync(ASK_S)
        if left["in_sync"]:
            return []
        helped = await _help(course, device, await device.call("status", all=True))
        return _left(left) if helped is None else helped
    except MachineGone:
        return ["it crashed"]
    except KinfolderError as error:
        return [f"{type(error).__name__}: {error}"]


def _end_rules(course: Course, device: DeviceMachine) -> None:
    """Remove what has a device ignore something, such as what two people wrote at once and only one took away."""
    number, rules = course.world.devices.index(device), device.path(RULES)
    if device.user.exists(rules):
        with course.ledger.acting(device, number, "removes the rules"):
            device.user.remove_tree(rules)


def _end_pipes(course: Course, device: DeviceMachine) -> None:
    """Remove what is no file, such as the FIFO of a program that ended while the folder was away, or before a backup."""
    pipes = [path for path, seen in look(device).items() if seen.kind is None]
    if pipes:
        with course.ledger.acting(device, course.world.devices.index(device), "removes FIFOs"):
            for path in pipes:
                device.user.remove(device.path(path))


def _left(left: dict[str, Any]) -> list[str]:
    return list(left["remains"]) or ["it is not in sync"]


async def _help(course: Course, device: DeviceMachine, status: dict[str, Any]) -> list[str] | None:
    """Decide what waits for a person; return what is left then, None for whatever the device said itself."""
    for folder in status["folders"]:
        if folder["held"] is not None:
            number = course.world.devices.index(device)
            before, began_ns = course.ledger.see(device, number), device.loop.now_ns
            method = course.chance.choice(("approve", "undo"))
            course.tell(f"{device.name} {method}s a mass change")
            course.counts[method] += 1
            await device.call(method, folder=FOLDER)
            await device.sync(ASK_S)
            course.ledger.note_by_command(device, number, f"{method}s a mass change", before, since_ns=began_ns)
            return ["a mass change waited"]
        reasons = {row["reason"] for row in folder["unsynced"]}
        if reasons and reasons <= TELLS and device.disk.personality.changes_names:
            return []
    return None
