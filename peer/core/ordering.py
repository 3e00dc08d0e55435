"""Put changes of place into an order in which a real disk can carry them out.

Places are (parent id, name), so renaming a directory moves nothing that stands in it. What remains to be ordered:

Rule 1: nothing arrives before its new parent is there and its new name is free.
Rule 2: a directory is taken off only after everything in it has left.
Rule 3: no directory moves into itself: it waits for every directory above its new place.
Rule 4: what waits for itself, as in a swap, is broken up through ``aside``; nothing goes aside that cannot come out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from enum import Enum
from heapq import heapify, heappop, heappush
from typing import NamedTuple

from peer.core.tree import Item, ItemId, Tree
from protocol.ids import ROOT


class Shift(NamedTuple):
    """One item that leaves a place, comes to one, or both."""

    key: str
    """Sorts: among what can be done next, the smallest goes first."""
    source: Item | None
    """Where it stands on this disk; None if it does not."""
    target: Item | None
    """Where it shall stand; None if nowhere."""

    @property
    def is_rename(self) -> bool:
        """Whether it is moved as it is. A directory that becomes a file, or the reverse, leaves and comes anew."""
        return (
            self.source is not None and self.target is not None and self.source.is_directory == self.target.is_directory
        )

    @property
    def is_removal(self) -> bool:
        """Whether what stands here now is taken off the disk."""
        return self.source is not None and not self.is_rename

    @property
    def is_arrival(self) -> bool:
        """Whether something new comes."""
        return self.target is not None and not self.is_rename


class Motion(Enum):
    """What is done to an item."""

    ASIDE = "aside"
    RENAME = "rename"
    BRING_OUT = "bring out"
    DELETE = "delete"
    MAKE = "make"
    """Make a directory. New files are no matter of order: they come when everything stands."""


Shifts = Mapping[ItemId, Shift]


def possible(shifts: Shifts, local: Tree) -> dict[ItemId, Shift]:
    """Return the shifts that can be carried out together; the others wait for what stands in their way.

    Args:
        shifts: By item; the source of each stands in ``local`` exactly so.
        local: What stands on this disk.
    """
    live = dict(shifts)
    behind: dict[ItemId, list[ItemId]] = {}
    below: dict[ItemId, list[ItemId]] = {}
    for id, shift in shifts.items():
        if shift.target is not None:
            below.setdefault(shift.target.parent, []).append(id)
            occupant = local.child(shift.target.parent, shift.target.name)
            if occupant is not None:
                behind.setdefault(occupant.id, []).append(id)

    def dependents(id: ItemId, shift: Shift) -> Iterator[ItemId]:
        if shift.source is not None:
            yield from behind.get(id, ())
            yield shift.source.parent
        if shift.is_arrival:
            yield from below.get(id, ())

    work = list(shifts)
    while True:
        while work:
            checked = work.pop()
            if checked in live and _is_stuck(checked, live[checked], live, local):
                work.extend(dependents(checked, live.pop(checked)))
        work = _in_a_circle(live, local)
        if not work:
            return live
        for each in tuple(work):
            work.extend(dependents(each, live.pop(each)))


def _is_stuck(id: ItemId, shift: Shift, live: Shifts, local: Tree) -> bool:
    if shift.target is not None:
        if not _will_stand(shift.target.parent, live, local):
            return True
        occupant = local.child(shift.target.parent, shift.target.name)
        if occupant is not None and occupant.id != id and occupant.id not in live:
            return True
    if shift.is_removal and shift.source is not None and shift.source.is_directory:
        return any(child.id not in live for child in local.children(id))
    return False


def _will_stand(parent: ItemId, live: Shifts, local: Tree) -> bool:
    """Tell whether a directory is there and stays, wherever it moves, or comes."""
    if parent == ROOT:
        return True
    shift = live.get(parent)
    if shift is not None and not shift.is_rename:
        return shift.target is not None and shift.target.is_directory
    standing = local.item(parent)
    return standing is not None and standing.is_directory


def _parent_after(id: ItemId, live: Shifts, local: Tree) -> ItemId:
    shift = live.get(id)
    item = shift.target if shift is not None else local.item(id)
    return ROOT if item is None else item.parent


def _in_a_circle(live: Shifts, local: Tree) -> list[ItemId]:
    """Return the directories that would stand in themselves, because one that should go first has to wait."""
    found: list[ItemId] = []
    settled: set[ItemId] = {ROOT}
    for id, shift in live.items():
        if shift.target is None or not shift.target.is_directory:
            continue
        path: dict[ItemId, None] = {}
        here = id
        while here not in settled and here not in path:
            path[here] = None
            here = _parent_after(here, live, local)
        if here in path:
            circle = list(path)[list(path).index(here) :]
            found.extend(each for each in circle if each in live)
        settled.update(path)
    return found


class _Event(NamedTuple):
    id: ItemId
    arrived: bool
    """Whether it stands at its new place; else that it has left the old one."""


class _Task(NamedTuple):
    key: str
    id: ItemId
    motion: Motion


def ordered(shifts: Shifts, local: Tree) -> Iterator[tuple[Motion, ItemId]]:
    """Yield what to do, in an order that works; of new items only the directories.

    Args:
        shifts: What :func:`possible` has returned.
        local: What stands on this disk.
    """
    tasks = [task for id, shift in shifts.items() for task in _tasks(id, shift)]
    waits = {task: set(_waits(task, shifts, local)) for task in tasks}
    source_of = {event: task for task in tasks for event in _events(task)}
    waiting: dict[_Event, list[_Task]] = {}
    for task, events in waits.items():
        for event in events:
            waiting.setdefault(event, []).append(task)
    ready = [task for task in tasks if not waits[task]]
    heapify(ready)
    remaining = sorted((task for task in tasks if waits[task]), reverse=True)
    aside: set[ItemId] = set()

    def happen(events: Iterable[_Event]) -> None:
        for event in events:
            for task in waiting.pop(event, ()):
                waits[task].discard(event)
                if not waits[task]:
                    heappush(ready, task)

    while True:
        while ready:
            task = heappop(ready)
            yield (Motion.BRING_OUT if task.id in aside else task.motion), task.id
            happen(_events(task))
        while remaining and not waits[remaining[-1]]:
            remaining.pop()
        if not remaining:
            return
        id = _knot(remaining[-1], waits, source_of)
        aside.add(id)
        yield Motion.ASIDE, id
        happen([_Event(id, arrived=False)])


def _tasks(id: ItemId, shift: Shift) -> Iterator[_Task]:
    if shift.is_rename:
        yield _Task(shift.key, id, Motion.RENAME)
    if shift.is_removal:
        yield _Task(shift.key, id, Motion.DELETE)
    if shift.is_arrival and shift.target is not None and shift.target.is_directory:
        yield _Task(shift.key, id, Motion.MAKE)


def _events(task: _Task) -> tuple[_Event, ...]:
    left, arrived = _Event(task.id, arrived=False), _Event(task.id, arrived=True)
    return {Motion.RENAME: (left, arrived), Motion.DELETE: (left,), Motion.MAKE: (arrived,)}[task.motion]


def _waits(task: _Task, shifts: Shifts, local: Tree) -> Iterator[_Event]:
    shift = shifts[task.id]
    if task.motion is Motion.DELETE:
        if shift.source is not None and shift.source.is_directory:
            yield from (_Event(child.id, arrived=False) for child in local.children(task.id))
        return
    target = shift.target
    assert target is not None
    occupant = local.child(target.parent, target.name)
    if occupant is not None and (occupant.id != task.id or task.motion is Motion.MAKE):
        yield _Event(occupant.id, arrived=False)
    if shift.is_removal:
        yield _Event(task.id, arrived=False)
    above, climbed = target.parent, set[ItemId]()
    while target.is_directory and above != ROOT and above not in shifts and above not in climbed:
        climbed.add(above)
        above = _parent_after(above, shifts, local)
    if above in shifts and (shifts[above].is_arrival or target.is_directory):
        yield _Event(
            above, arrived=True
        )  # for a directory: so all above it stand where they shall, and it is not there


def _knot(start: _Task, waits: Mapping[_Task, set[_Event]], source_of: Mapping[_Event, _Task]) -> ItemId:
    """Return an item on a circle of waiting whose going aside lets another go on.

    Waits for an arrival follow the new tree upwards, and waits of a removal follow the old tree downwards: neither
    closes a circle, so on every circle somebody waits for a rename to leave its place.
    """
    trail: dict[_Task, _Event] = {}
    task = start
    while task not in trail:
        trail[task] = min(waits[task])
        task = source_of[trail[task]]
    events = list(trail.values())[list(trail).index(task) :]
    return min(e.id for e in events if not e.arrived and source_of[e].motion is Motion.RENAME)
