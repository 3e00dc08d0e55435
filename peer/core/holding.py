"""Tell which acts still say what the trees hold: between planning and recording, a user or the folder may have changed them.

Rule 1: an act that holds no more is dropped, never bent; what is there now is planned anew.
"""

from __future__ import annotations

from collections.abc import Sequence

from peer.core.operations import Act, Create, Edit, Move, Remove, Touch
from peer.core.tree import ItemId, Tree
from protocol.ids import ROOT


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
