"""The shape of the three trees: items by id, each with one parent and one name.

Local, synced and remote are trees of the same shape and share their ids, so planning is comparing rows:

- *remote* is the fold of the log (and of the provisional tail);
- *local* is what the last scan saw, identified: an item that stood in ``synced`` keeps its id wherever it moved;
- *synced* is what the disk held when this device and the log last agreed, with the dots that then stood behind it.

Rule 1: a tree is a lookup, never a copy; a dict in tests, rows of the local database in the agent.
Rule 2: an item's path is derived, so renaming a directory touches one row.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple, Protocol

import msgspec

from protocol.entries import Kind
from protocol.ids import ROOT, Dot, NodeId

ItemId = NodeId
"""The node of the item's first member, or for a conflict copy ``copy_id(node, dot)``."""


class Content(msgspec.Struct, frozen=True, array_like=True):
    """What an item holds, without the way to fetch it."""

    kind: Kind
    hash: bytes = b""
    """BLAKE3 of the file's bytes or of the link's target; empty for a directory."""
    size: int = 0
    mtime_ns: int = 0
    executable: bool = False
    target: bytes = b""

    def same_bytes(self, other: Content) -> bool:
        """Tell whether both hold the same bytes, whatever their attributes."""
        return self.kind is other.kind and self.hash == other.hash

    def same(self, other: Content) -> bool:
        """Tell whether both hold the same bytes and attributes, as far as their kind has any."""
        if not self.same_bytes(other):
            return False
        return self.kind is not Kind.FILE or (self.executable == other.executable and self.mtime_ns == other.mtime_ns)


class Member(NamedTuple):
    """One node behind an item; an item has several where nodes of one name are shown as one path."""

    node: NodeId
    copy: Dot | None
    """Set where the item shows a conflict copy: the value to detach before the copy is changed."""
    content: tuple[Dot, ...]
    """The content values shown here, the base of an edit."""
    place: tuple[Dot, ...]
    """The unreplaced place values of the node, the base of a move or a removal."""


class Item(msgspec.Struct, frozen=True, array_like=True):
    """One file, directory or link at one place of a tree."""

    id: ItemId
    parent: ItemId
    name: str
    """As ``os.fsdecode`` gives it: bytes that are not UTF-8 are surrogates."""
    content: Content
    members: tuple[Member, ...] = ()
    """Empty in the local tree."""

    @property
    def is_directory(self) -> bool:
        """Whether items may stand under this one."""
        return self.content.kind is Kind.DIRECTORY


class Tree(Protocol):
    """Read-only lookup of one tree."""

    def item(self, id: ItemId) -> Item | None:
        """Return the item, or None; the root is no item."""

    def child(self, parent: ItemId, name: str) -> Item | None:
        """Return the item of exactly this name in a directory, or None."""

    def children(self, parent: ItemId) -> Iterator[Item]:
        """Yield the items of a directory, by name."""


class MemoryTree:
    """A tree in two dicts, for tests and for small overlays."""

    def __init__(self, items: Mapping[ItemId, Item] | None = None) -> None:
        self._items: dict[ItemId, Item] = {}
        self._names: dict[ItemId, dict[str, ItemId]] = {}
        for item in (items or {}).values():
            self.put(item)

    def put(self, item: Item) -> None:
        """Add an item, or replace the one with its id."""
        self.drop(item.id)
        self._items[item.id] = item
        self._names.setdefault(item.parent, {})[item.name] = item.id

    def drop(self, id: ItemId) -> None:
        """Remove the item, if it is there; what stands under it stays."""
        old = self._items.pop(id, None)
        if old is not None and self._names[old.parent].get(old.name) == id:
            del self._names[old.parent][old.name]

    def item(self, id: ItemId) -> Item | None:
        """Return the item, or None."""
        return self._items.get(id)

    def child(self, parent: ItemId, name: str) -> Item | None:
        """Return the item of exactly this name in a directory, or None."""
        found = self._names.get(parent, {}).get(name)
        return None if found is None else self._items[found]

    def children(self, parent: ItemId) -> Iterator[Item]:
        """Yield the items of a directory, by name."""
        for _, id in sorted(self._names.get(parent, {}).items()):
            yield self._items[id]

    def items(self) -> Iterator[Item]:
        """Yield all items."""
        yield from self._items.values()


def path_of(tree: Tree, id: ItemId) -> str | None:
    """Return the path of an item from the root with "/" between its parts; "" for the root; None if it has none."""
    parts: list[str] = []
    seen = set()
    while id != ROOT:
        item = tree.item(id)
        if item is None or id in seen:
            return None
        seen.add(id)
        parts.append(item.name)
        id = item.parent
    return "/".join(reversed(parts))


def find(tree: Tree, path: str) -> Item | None:
    """Return the item at a path with "/" between its parts, or None; the root is no item."""
    here: ItemId = ROOT
    item: Item | None = None
    for part in path.split("/"):
        item = tree.child(here, part)
        if item is None:
            return None
        here = item.id
    return item
