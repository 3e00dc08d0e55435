"""The local tree with fingerprints in memory, and what the database's trees do besides: note what was written."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from peer.core.identify import Identified
from peer.core.observations import Fingerprint
from peer.core.tree import Item, ItemId, MemoryTree, Tree, path_of
from protocol.ids import ROOT


class NotedTree(MemoryTree):
    """A tree of which each write marks its item dirty, as the tables of the local database do."""

    def __init__(self, dirty: set[ItemId] | None = None) -> None:
        self.dirty = set[ItemId]() if dirty is None else dirty
        self._hidden: dict[tuple[ItemId, str], list[ItemId]] = {}
        """By place: items behind the one that is found there. So it is while one of two changes alone is recorded."""
        super().__init__()

    def put(self, item: Item) -> None:
        """Add an item, or replace the one with its id."""
        self.drop(item.id)
        there = self.child(item.parent, item.name)
        if there is not None:
            self._hidden.setdefault((item.parent, item.name), []).append(there.id)
        super().put(item)

    def drop(self, id: ItemId) -> None:
        """Remove the item, if it is there; what stands under it stays."""
        old = self.item(id)
        super().drop(id)
        self.dirty.add(id)
        hidden = [] if old is None else self._hidden.pop((old.parent, old.name), [])
        for other in hidden:
            item = self.item(other)
            if old is not None and item is not None and (item.parent, item.name) == (old.parent, old.name):
                self.put(item)

    def children(self, parent: ItemId) -> Iterator[Item]:
        """Yield the items of a directory, by name; of several at one place all, as the tables do."""
        if not self._hidden:
            yield from super().children(parent)
            return
        for item in list(super().children(parent)):
            yield item
            for id in self._hidden.get((parent, item.name), ()):
                behind = self.item(id)
                if behind is not None and (behind.parent, behind.name) == (parent, item.name):
                    yield behind

    def rekey(self, old: ItemId, new: ItemId) -> None:
        """Give an item another id; what stands under it follows."""
        item = self.item(old)
        children = list(self.children(old))
        if item is not None:
            self.drop(new)
            self.drop(old)
            self.put(Item(new, item.parent, item.name, item.content, item.members))
        for child in children:
            self.put(Item(child.id, new, child.name, child.content, child.members))
        self.dirty.update((old, new))


class MemoryLocal(NotedTree):
    """A local tree in dicts."""

    def __init__(self, dirty: set[ItemId] | None = None) -> None:
        self.fingerprints: dict[ItemId, Fingerprint] = {}
        self._holders: dict[tuple[int, int], dict[ItemId, None]] = {}
        super().__init__(dirty)

    def note(self, item: Item, fingerprint: Fingerprint) -> None:
        """Add an item with how it looks."""
        self.put(item)
        before = self.fingerprints.get(item.id)
        if before is not None:
            self._holders[before[:2]].pop(item.id, None)
        self.fingerprints[item.id] = fingerprint
        self._holders.setdefault(fingerprint[:2], {})[item.id] = None

    def forget(self, id: ItemId) -> None:
        """Remove an item with how it looked."""
        self.drop(id)
        before = self.fingerprints.pop(id, None)
        if before is not None:
            self._holders[before[:2]].pop(id, None)

    def rekey(self, old: ItemId, new: ItemId) -> None:
        """Give an item another id; what stands under it follows."""
        fingerprint = self.fingerprints.get(old)
        if fingerprint is not None:
            self.forget_fingerprint(new)
            self.forget_fingerprint(old)
            self.fingerprints[new] = fingerprint
            self._holders.setdefault(fingerprint[:2], {})[new] = None
        super().rekey(old, new)

    def forget_fingerprint(self, id: ItemId) -> None:
        """Remove how an item looked."""
        before = self.fingerprints.pop(id, None)
        if before is not None:
            self._holders[before[:2]].pop(id, None)

    def rows(self, parent: ItemId) -> Iterable[tuple[Item, Fingerprint]]:
        """Return the rows of a directory."""
        for item in self.children(parent):
            yield item, self.fingerprints[item.id]

    def holders(self, device: int, inode: int) -> Iterable[tuple[Item, Fingerprint]]:
        """Return the rows that were seen with this inode, by id."""
        for id in sorted(self._holders.get((device, inode), ())):
            item = self.item(id)
            if item is not None:
                yield item, self.fingerprints[id]

    def apply(self, found: Identified) -> None:
        """Take in what a scan found.

        Raises:
            AssertionError: It puts two items at one place.
        """
        for id in found.drops:
            self.forget(id)
        for item, _ in found.puts:
            MemoryTree.drop(self, item.id)
        for item, fingerprint in found.puts:
            assert self.child(item.parent, item.name) is None, f"{item.name} is there twice"
            self.note(item, fingerprint)

    def paths(self) -> dict[str, Item]:
        """Return every item by its path.

        Raises:
            AssertionError: Two stand at one path, or one in no directory.
        """
        result = {}
        for item in self.items():
            path = path_of(self, item.id)
            assert path is not None, f"{item} hangs in the air"
            assert path not in result
            result[path] = item
        return result


def walk(tree: Tree, parent: ItemId = ROOT) -> Iterator[Item]:
    """Yield all items under a directory, parents first, by name."""
    for item in tree.children(parent):
        yield item
        if item.is_directory:
            yield from walk(tree, item.id)
