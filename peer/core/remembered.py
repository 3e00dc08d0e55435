"""A tree that is asked once for each of its items, for the length of one decision.

Planning looks at an item from several sides, and at the directories above it again for every item in them; where a tree
is rows of a database, each look is a statement.

Rule 1: nothing may write to the tree beneath while this stands over it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from peer.core.tree import Item, ItemId, Tree


class RememberedTree:
    """Remembers what a tree answered."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._items: dict[ItemId, Item | None] = {}
        self._children: dict[tuple[ItemId, str], Item | None] = {}

    def remember(self, ids: Iterable[ItemId], found: Mapping[ItemId, Item]) -> None:
        """Take what the tree holds under these ids, read together; it holds no others of them than were found."""
        self._items.update((id, found.get(id)) for id in ids)

    def item(self, id: ItemId) -> Item | None:
        """Return the item, or None; the root is no item."""
        try:
            return self._items[id]
        except KeyError:
            item = self._items[id] = self._tree.item(id)
            return item

    def child(self, parent: ItemId, name: str) -> Item | None:
        """Return the item of exactly this name in a directory, or None."""
        key = (parent, name)
        try:
            return self._children[key]
        except KeyError:
            item = self._children[key] = self._tree.child(parent, name)
            if item is not None:
                self._items[item.id] = item
            return item

    def children(self, parent: ItemId) -> Iterator[Item]:
        """Yield the items of a directory, by name."""
        for item in self._tree.children(parent):
            self._items[item.id] = item
            yield item
