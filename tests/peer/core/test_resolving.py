"""A decision about a conflict copy is one change on both versions, or the removal of one."""

from __future__ import annotations

import pytest

from peer.core.fold_state import NodeRow
from peer.core.operations import Edit, Remove
from peer.core.resolving import Overlay, drop_copy, keep_copy, main_of
from peer.core.tree import Item, Member, MemoryTree
from protocol.errors import UserError
from protocol.ids import ROOT, Dot, copy_id
from tests.peer.core.trees import DIRECTORY, file, node

MAIN = Item(node("f"), ROOT, "f", file("main"), (Member(node("f"), None, (Dot(1, 2, 0),), (Dot(1, 1, 1),)),))
COPY_DOT = Dot(2, 1, 0)
COPY = Item(
    copy_id(node("f"), COPY_DOT), ROOT, "f (conflict)", file("copy"), (Member(node("f"), COPY_DOT, (COPY_DOT,), (Dot(1, 1, 1),)),)
)  # fmt: skip


def synced(*items: Item) -> MemoryTree:
    return MemoryTree({item.id: item for item in items})


def plain(name: str, id: str, data: str = "x") -> Item:
    return Item(node(id), ROOT, name, file(data), (Member(node(id), None, (Dot(3, 1, 0),), (Dot(3, 1, 1),)),))


def test_a_kept_copy_replaces_both_versions_in_one_edit():
    chosen = keep_copy(COPY, MAIN)
    (act,) = chosen.acts
    assert isinstance(act, Edit)
    assert act.content == COPY.content
    assert [member.content for member in act.base.members] == [(Dot(1, 2, 0), COPY_DOT)]
    assert chosen.source == COPY.members[0]
    assert Overlay(synced(MAIN, COPY), chosen.bases).item(MAIN.id) == act.base


def test_another_file_that_wanted_the_name_is_removed_in_the_same_operation():
    other = plain("f (conflict, Laptop, 67000000)", "g", "theirs")
    edit, removal = keep_copy(other, MAIN).acts
    assert isinstance(edit, Edit)
    assert edit.base == MAIN
    assert removal == Remove(other, (other,))


def test_what_else_stands_behind_a_kept_copy_is_removed_with_it():
    behind = Member(node("g"), None, (Dot(3, 1, 0),), (Dot(3, 1, 1),))
    chosen = keep_copy(Item(COPY.id, ROOT, COPY.name, COPY.content, (*COPY.members, behind)), MAIN)
    assert isinstance(chosen.acts[1], Remove)
    assert chosen.acts[1].base.members == (behind,)


def test_a_dropped_copy_is_a_removal():
    assert drop_copy(COPY).acts == (Remove(COPY, (COPY,)),)


def test_a_directory_in_between_is_a_persons_matter():
    with pytest.raises(UserError, match="directory"):
        keep_copy(COPY, Item(node("f"), ROOT, "f", DIRECTORY))


NODES = {node("g"): NodeRow(node("g"), name=b"f"), node("h"): NodeRow(node("h"), name=b"u (conflict, x)")}


def test_a_copy_is_one_by_its_node_or_by_the_name_that_it_wants():
    suffixed = plain("f (conflict, Laptop, 67000000)", "g")
    tree = synced(MAIN, COPY, suffixed)
    assert main_of(COPY, tree, NODES) == MAIN
    assert main_of(suffixed, tree, NODES) == MAIN
    # A person may call a file so; and a copy may have lost what it was a copy of.
    assert main_of(plain("u (conflict, x)", "h"), tree, NODES) is None
    assert main_of(plain("f", "g"), tree, NODES) is None
    assert main_of(suffixed, synced(suffixed), NODES) is None
    assert main_of(COPY, synced(COPY), NODES) is None
