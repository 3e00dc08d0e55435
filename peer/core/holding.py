"""Tell which acts and steps still hold: between planning and doing them, a user or the folder may have changed something.

Rule 1: what holds no more is dropped, never bent; what is there now is planned anew.
Rule 2: what a step that failed leaves undone is nothing that the disk holds against those that were to follow.
Rule 3: a step is dropped only if an entry that it follows is off the tail and will never be ordered. That the folder went
    on meanwhile is no reason: a file that is written all the time would never come.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import TypeVar

from peer.core.fold_state import FoldState
from peer.core.operations import (
    Act,
    Adopt,
    Create,
    Delete,
    Edit,
    Move,
    Place,
    Remove,
    Rename,
    Replace,
    SetAttributes,
    Step,
    Touch,
)
from peer.core.tree import Item, ItemId, Tree
from protocol.ids import ROOT

AStep = TypeVar("AStep", bound=Step)


def still_holding(acts: Sequence[Act], local: Tree, synced: Tree) -> list[Act]:
    """Return the acts whose trees still hold what they were planned on, and whose parents are recorded or among them."""
    made = {ROOT}
    holding: list[Act] = []
    for act in acts:
        parent = act.item.parent if isinstance(act, Create) else act.parent if isinstance(act, Move) else ROOT
        if _still_holds(act, local, synced) and (parent in made or synced.item(parent) is not None):
            holding.append(act)
            if isinstance(act, Create):
                made.add(act.item.id)
    return holding


def _still_holds(act: Act, local: Tree, synced: Tree) -> bool:
    match act:
        case Create(item):
            return local.item(item.id) == item and synced.item(item.id) is None
        case Edit(base, content) | Touch(base, content):
            here = local.item(base.id)
            return here is not None and here.content == content and synced.item(base.id) == base
        case Remove(base, subtree):
            return all(synced.item(item.id) == item and local.item(item.id) is None for item in (subtree or (base,)))
        case Move(base, parent, name):
            here = local.item(base.id)
            return here is not None and (here.parent, here.name) == (parent, name) and synced.item(base.id) == base


def subject(act: Act) -> ItemId:
    """Return the item that an act is about."""
    return act.item.id if isinstance(act, Create) else act.base.id


def still_bringing(steps: Sequence[AStep], remote: FoldState) -> list[AStep]:
    """Return the steps that bring nothing of an entry which the folder has no more, in their order."""
    return [step for step in steps if not (isinstance(step, _BRINGING) and is_orphan(step.item, remote))]


def hindered(steps: Iterable[Step], failed: Collection[ItemId]) -> set[ItemId]:
    """Return the items of steps that could not be done since one before them was not.

    What was to leave its place still has it, or the directory above is not there.

    Args:
        steps: In the order in which they were to be done.
        failed: The items of those that were not done.
    """
    found: set[ItemId] = set()
    taken: dict[tuple[ItemId, str], ItemId] = {}
    for step in steps:
        if isinstance(step, Place | Rename):
            holder = taken.get((step.item.parent, step.item.name), step.item.id)
            if holder != step.item.id or step.item.parent in failed or step.item.parent in found:
                found.add(step.item.id)
        if isinstance(step, Delete | Rename) and step.expected.id in failed:
            taken[step.expected.parent, step.expected.name] = step.expected.id
    return found


def is_orphan(item: Item, remote: FoldState) -> bool:
    """Tell whether an item came of an entry which the folder has no more: nothing may count as agreed on by it."""
    brought = {(dot.device, dot.seq) for one in item.members for dot in (*one.content, *one.place)}
    return any(remote.entries.get(each) is None for each in brought)


_BRINGING = Adopt | Place | Replace | SetAttributes | Rename
