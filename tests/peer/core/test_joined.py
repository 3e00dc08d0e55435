"""What becomes one with another node is looked at once more before that is recorded."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from peer.core.operations import Adopt, Plan, SetAttributes, Step
from peer.core.planner import plan
from peer.core.tree import Content, Item, Member, MemoryTree
from protocol.ids import ROOT, Dot
from tests.peer.core.trees import DIRECTORY, file, node, tree

BEFORE: Mapping[str, tuple[str, str | Content]] = {"f": ("f", "1"), "D": ("D", DIRECTORY)}
OTHERS = Dot(3, 1, 0)


def joined(item: Item, *members: Member) -> Item:
    return Item(item.id, item.parent, item.name, item.content, (*item.members, *members))


def item_of(three: MemoryTree, id: str) -> Item:
    found = three.item(node(id))
    assert found is not None
    return found


def plan_of(synced: MemoryTree, remote: MemoryTree, id: str) -> Plan:
    return plan(local=tree(BEFORE, dots=None), synced=synced, remote=remote, dirty={node(id)})


@pytest.mark.parametrize("copy", [None, OTHERS])
def test_a_file_is_looked_at_before_it_counts_as_one_with_another_node(copy):
    """The history 7000079: it was moved over another, which was edited elsewhere; its removal took that version along."""
    synced, remote = tree(BEFORE), tree(BEFORE)
    remote.put(joined(item_of(remote, "f"), Member(node("g"), copy, (OTHERS,), (OTHERS,))))
    here = Item(node("f"), ROOT, "f", file("1"))
    look: Step = SetAttributes(here, item_of(remote, "f"))
    assert plan_of(synced, remote, "f") == Plan((), (look,))


def test_who_is_one_less_takes_nothing_along():
    synced, remote = tree(BEFORE), tree(BEFORE)
    synced.put(joined(item_of(synced, "f"), Member(node("g"), None, (OTHERS,), (OTHERS,))))
    assert plan_of(synced, remote, "f") == Plan((), (Adopt(item_of(remote, "f")),))


def test_a_directory_holds_nothing_of_its_own():
    synced, remote = tree(BEFORE), tree(BEFORE)
    remote.put(joined(item_of(remote, "D"), Member(node("E"), None, (OTHERS,), (OTHERS,))))
    assert plan_of(synced, remote, "D") == Plan((), (Adopt(item_of(remote, "D")),))
