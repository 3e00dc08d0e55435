"""Say in words what a plan would do, without doing it.

Rule 1: pure, and sorted by path, so the same trees give the same lines.
Rule 2: what changes no name, byte or attribute, here or elsewhere, is no line.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from peer.core.operations import (
    Act,
    Create,
    Delete,
    Edit,
    Move,
    Place,
    Plan,
    Remove,
    Rename,
    Replace,
    SetAttributes,
    Step,
    Touch,
)
from peer.core.tree import Item, ItemId, Tree, path_of


class PlannedLine(NamedTuple):
    """One thing that would be done."""

    path: str
    action: str
    """``send``, ``fetch``, ``make``, ``remove``, ``rename``, ``attributes``, ``conflict`` or ``hold``."""
    direction: str
    """``up``: elsewhere, since it was done here; ``down``: here, since it was done elsewhere."""
    to: str = ""
    """Where a rename leads."""
    bytes: int = 0
    """That would travel."""


def preview(
    plan: Plan, *, local: Tree, synced: Tree, remote: Tree, travels: Callable[[ItemId], bool]
) -> Iterator[PlannedLine]:
    """Yield the lines of a plan, in no order.

    Args:
        plan: As planned on the three trees.
        local: What the last scan saw.
        synced: What both sides held when they last agreed.
        remote: What the folded log describes.
        travels: Whether the bytes of an item would have to be sent or fetched.
    """
    trees = _Trees(local, synced, remote, travels)
    for act in plan.acts:
        yield from trees.of_act(act)
    for step in plan.steps:
        yield from trees.of_step(step)


class _Trees(NamedTuple):
    local: Tree
    synced: Tree
    remote: Tree
    travels: Callable[[ItemId], bool]

    def of_act(self, act: Act) -> Iterator[PlannedLine]:
        match act:
            case Create(item):
                there = self.remote.item(item.id) or self.remote.child(item.parent, item.name)
                differs = there is not None and not there.content.same_bytes(item.content)
                yield self._written(item, "conflict" if differs and not item.is_directory else "send")
            case Edit(base, content):
                there, here = self.remote.item(base.id), self.local.item(base.id) or base
                both = there is not None and not there.content.same_bytes(base.content)
                differs = both and there is not None and not there.content.same_bytes(content)
                yield self._written(here, "conflict" if differs else "send")
            case Touch(base):
                yield PlannedLine(path_of(self.local, base.id) or base.name, "attributes", "up")
            case Move(base):
                old, new = path_of(self.synced, base.id) or base.name, path_of(self.local, base.id) or base.name
                yield PlannedLine(old, "rename", "up", new)
            case Remove(base, subtree):
                for item in subtree or (base,):
                    yield PlannedLine(path_of(self.synced, item.id) or item.name, "remove", "up")

    def of_step(self, step: Step) -> Iterator[PlannedLine]:
        match step:
            case Place(item) | Replace(item=item):
                size = item.content.size if self.travels(item.id) else 0
                action = "make" if item.is_directory else "fetch"
                yield PlannedLine(path_of(self.remote, item.id) or item.name, action, "down", "", size)
            case SetAttributes(expected):
                yield PlannedLine(path_of(self.local, expected.id) or expected.name, "attributes", "down")
            case Rename(expected, item, aside) if not aside:
                old = path_of(self.local, expected.id) or expected.name
                yield PlannedLine(old, "rename", "down", path_of(self.remote, item.id) or item.name)
            case Delete(expected):
                yield PlannedLine(path_of(self.local, expected.id) or expected.name, "remove", "down")
            case _:
                pass

    def _written(self, item: Item, action: str) -> PlannedLine:
        size = item.content.size if self.travels(item.id) else 0
        path = path_of(self.local, item.id) or item.name
        return PlannedLine(path, "make" if item.is_directory else action, "up", "", size)
