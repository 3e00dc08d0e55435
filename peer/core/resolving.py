"""What a person's decision about a conflict copy is as acts: its bytes become the file, or it is removed.

Rule 1: one change replaces both versions at once, naming both as its base, so nothing can fall in between.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple, Protocol

from msgspec.structs import replace

from peer.core.conflicts import bytes_of, name_key
from peer.core.fold_state import NodeRow
from peer.core.operations import Act, Edit, Remove
from peer.core.tree import Item, ItemId, Member, Tree
from protocol.errors import UserError
from protocol.ids import NodeId

MARK: Final = " (conflict, "
"""In the name of every conflict copy; a name alone makes nobody one."""


class Nodes(Protocol):
    """The nodes of a folder."""

    def get(self, key: NodeId, /) -> NodeRow | None:
        """Return a node, or None."""


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


def main_of(copy: Item, synced: Tree, nodes: Nodes) -> Item | None:
    """Return the file that an item is a conflict copy of: of the same node, or of another that has the name it wants.

    Args:
        copy: As synced.
        synced: What the disk held when this device and the log last agreed.
        nodes: The nodes of the folder.
    """
    of = next((member for member in copy.members if member.copy is not None), None)
    if of is not None:
        return synced.item(of.node)
    node = nodes.get(copy.members[0].node) if MARK in copy.name and copy.members else None
    if node is None or node.name == bytes_of(copy.name):
        return None
    wanted = name_key(node.name)
    return next((each for each in synced.children(copy.parent) if name_key(bytes_of(each.name)) == wanted), None)


def keep_copy(copy: Item, main: Item) -> Chosen:
    """Return what gives a file the bytes of one of its conflict copies.

    Args:
        copy: As synced.
        main: The file, as synced.

    Raises:
        UserError: One of them is a directory.
    """
    if main.is_directory or copy.is_directory:
        raise UserError("a directory is in between: give the copy the name that you want")
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
        return Chosen(acts, (base,), copy.members[0])
    other = replace(copy, members=rest)
    return Chosen((*acts, Remove(other, (other,))), (base, other), copy.members[0])


def drop_copy(copy: Item) -> Chosen:
    """Return what removes a conflict copy."""
    return Chosen((Remove(copy, (copy,)),))
