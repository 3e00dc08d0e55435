"""Spell the steps of a plan: what each expects to find, and what shall then be recorded.

Rule 1: places and contents change one after the other, so what is recorded in between has the dots of what this disk holds
at that moment: the place of the one tree, the content of the other.
"""

from __future__ import annotations

from peer.core.operations import Delete, Place, Rename, Replace, SetAttributes, Step
from peer.core.ordering import Motion, Shift
from peer.core.tree import Item


def same_place(one: Item, other: Item) -> bool:
    """Tell whether both stand in one directory under one name."""
    return one.parent == other.parent and one.name == other.name


def move_step(motion: Motion, shift: Shift) -> Step:
    """Return the step that changes a place."""
    source, target = shift.source, shift.target
    if motion is Motion.MAKE:
        assert target is not None
        return Place(target)
    assert source is not None
    if motion is Motion.DELETE:
        return Delete(source)
    assert target is not None
    item = _moved(source, target)
    return Rename(source, item, aside=motion is Motion.ASIDE, from_aside=motion is Motion.BRING_OUT)


def fill_step(source: Item | None, target: Item, *, moves: bool) -> Step | None:
    """Return the step that brings an item's attributes or bytes, once everything has its place; None if none is needed.

    Args:
        source: As synced; None if it is new here.
        target: As in the folder.
        moves: Whether its change of place is among the steps; else it stays where it is, or away.
    """
    if source is None or source.is_directory != target.is_directory:
        return Place(target) if moves and not target.is_directory else None
    if source.content.same(target.content):
        return None
    here = _moved(source, target) if moves else source
    item = target if same_place(here, target) else _blend(place=here, content=target)
    return SetAttributes(here, item) if here.content.same_bytes(item.content) else Replace(here, item)


def _moved(source: Item, target: Item) -> Item:
    """Return what a rename leaves: the new place, the content that is still to follow."""
    return target if source.content.same(target.content) else _blend(place=target, content=source)


def _blend(*, place: Item, content: Item) -> Item:
    """Return the place of one tree's item with the content of another's, each with its own dots."""
    known = {(m.node, m.copy): m for m in content.members}
    members = tuple(
        m._replace(content=known[m.node, m.copy].content) for m in place.members if (m.node, m.copy) in known
    )
    return Item(place.id, place.parent, place.name, content.content, members or content.members)
