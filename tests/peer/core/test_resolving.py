"""A decision about a conflict copy is one change on both versions, or the removal of one."""

from __future__ import annotations

import pytest

from peer.core.operations import Edit, Remove
from peer.core.resolving import Overlay, drop_copy, keep_copy
from peer.core.tree import Item, Member, MemoryTree
from protocol.errors import UserError
from protocol.ids import ROOT, Dot, copy_id
from tests.peer.core.trees import file, node

MAIN = Item(node("f"), ROOT, "f", file("main"), (Member(node("f"), None, (Dot(1, 2, 0),), (Dot(1, 1, 1),)),))
COPY_DOT = Dot(2, 1, 0)
COPY = Item(
    copy_id(node("f"), COPY_DOT), ROOT, "f (conflict)", file("copy"), (Member(node("f"), COPY_DOT, (COPY_DOT,), (Dot(1, 1, 1),)),)
)  # fmt: skip


def synced(*items: Item) -> MemoryTree:
    return MemoryTree({item.id: item for item in items})


def test_a_kept_copy_replaces_both_versions_in_one_edit():
    chosen = keep_copy(COPY, synced(MAIN, COPY))
    (act,) = chosen.acts
    assert isinstance(act, Edit)
    assert act.content == COPY.content
    assert [member.content for member in act.base.members] == [(Dot(1, 2, 0), COPY_DOT)]
    assert chosen.source == COPY.members[0]
    assert Overlay(synced(MAIN, COPY), chosen.bases).item(MAIN.id) == act.base


def test_what_else_stands_behind_a_kept_copy_is_removed_with_it():
    other = Member(node("g"), None, (Dot(3, 1, 0),), (Dot(3, 1, 1),))
    chosen = keep_copy(Item(COPY.id, ROOT, COPY.name, COPY.content, (*COPY.members, other)), synced(MAIN))
    assert isinstance(chosen.acts[1], Remove)
    assert chosen.acts[1].base.members == (other,)


def test_a_dropped_copy_is_a_removal():
    assert drop_copy(COPY).acts == (Remove(COPY, (COPY,)),)


def test_only_a_copy_whose_file_is_there_can_be_decided_about():
    with pytest.raises(UserError, match="no conflict copy"):
        keep_copy(MAIN, synced(MAIN))
    with pytest.raises(UserError, match="no conflict copy"):
        drop_copy(MAIN)
    with pytest.raises(UserError, match="not there any more"):
        keep_copy(COPY, synced(COPY))
