"""What a person's decision about a conflict copy is as acts: its bytes become the file, or it is removed.

Rule 1: one change replaces both versions at once, naming both as its base, so nothing can fall in between.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from msgspec.structs import replace

from peer.core.operations import Act, Edit, Remove
from peer.core.tree import Item, ItemId, Member, Tree
from protocol.errors import UserError


class Chosen(NamedTuple):
    """A decision, ready to be recorded."""

    acts: tuple[Act, ...]
    bases: tuple[Item, ...] = ()
    """Items to be recorded on other bases than those of ``synced``: what an edit replaces beside the file's own content."""
    source: Member | None = None
    """Whose content the file gets."""


class Overlay:
    """A tree in which some items are others."""

    def __init__(self, tree: Tree, items: Sequence[Item]) -> None:
        self._tree = tree
        self._items = {item.id: item for item in items}

    def item(self, id: ItemId) -> Item | None:
        """Return the item, or None; the root is no item."""
        return self._items.get(id) or self._tree.item(id)

    def child(self, parent: ItemId, name: str) -> Item | None:
        """Return the item of exactly this name in a directory, or None."""
        found = self._tree.child(parent, name)
        return None if found is None else self.item(found.id)

    def children(self, parent: ItemId) -> Iterator[Item]:
        """Yield the items of a directory, by name."""
        for item in self._tree.children(parent):
            yield self._items.get(item.id, item)


def keep_copy(copy: Item, synced: Tree) -> Chosen:
    """Return what gives a file the bytes of one of its conflict copies.

    Args:
        copy: As synced.
        synced: What the disk held when this device and the log last agreed.

    Raises:
        UserError: It is no copy, or its file is not there any more.
    """
    of = next((member for member in copy.members if member.copy is not None), None)
    if of is None:
        raise UserError("this is no conflict copy: see 'kin conflicts'")
    main = synced.item(of.node)
    if main is None or main.is_directory:
        raise UserError("the file that this is a copy of is not there any more: give the copy the name that you want")
    extra = {member.node: member.content for member in copy.members if member.copy is not None}
    members = tuple(
        member._replace(content=tuple(sorted({*member.content, *extra.pop(member.node, ())})))
        if member.copy is None
        else member
        for member in main.members
    )
    base = replace(main, members=members)
    rest = tuple(member for member in copy.members if member.copy is None or member.node in extra)
    acts: tuple[Act, ...] = (Edit(base, copy.content),)
    if not rest:
        return Chosen(acts, (base,), of)
    other = replace(copy, members=rest)
    return Chosen((*acts, Remove(other, (other,))), (base, other), of)


def drop_copy(copy: Item) -> Chosen:
    """Return what removes a conflict copy.

    Raises:
        UserError: It is none.
    """
    if all(member.copy is None for member in copy.members):
        raise UserError("this is no conflict copy: see 'kin conflicts'")
    return Chosen((Remove(copy, (copy,)),))
