"""Lay out how a part of a folder shall look when an older state of it comes back.

The old tree is laid over the one that this disk holds, so that the planner can compare the two as it always does.

Rule 1: nothing outside of the path is touched: what was moved out since stays where it is now.
Rule 2: what still stands in it keeps its identity, wherever in it; else what stands at the same name has it.
Rule 3: what has to come anew is a new item: a removal stays a removal, and the path's history goes on. Where the removal is
    not recorded, since it waits for a person, and it comes back to where it stood, it is the item that it was.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator

from msgspec.structs import replace

from peer.core.tree import Item, ItemId, Tree
from protocol.ids import ROOT


class Frame:
    """The part of the local tree that a restore may change."""

    def __init__(
        self,
        local: Tree,
        top: ItemId | None,
        spared: Container[ItemId] = (),
        missing: Callable[[ItemId], Item | None] = lambda _: None,
    ) -> None:
        """Frame an item and all under it.

        Args:
            local: What this disk holds.
            top: What stands at the path now; ``ROOT`` for a whole folder, None for nothing.
            spared: Items in it that are to stay as they are.
            missing: Gives the item, as it was, that this disk lacks and whose removal is not recorded.
        """
        self.local = local
        self.top = top
        self._spared = spared
        self._missing = missing

    def awaits(self, id: ItemId, parent: ItemId, name: str, *, is_directory: bool) -> bool:
        """Tell whether an item is missing at this very place, and its removal is not recorded."""
        item = self._missing(id)
        return item is not None and (item.parent, item.name, item.is_directory) == (parent, name, is_directory)

    def holds(self, id: ItemId) -> bool:
        """Tell whether an item of the local tree is the top or stands under it, and may be changed."""
        if id in self._spared:
            return False
        seen: set[ItemId] = set()
        while id != self.top:
            item = self.local.item(id)
            if item is None or id in seen or id == ROOT:
                return False
            seen.add(id)
            id = item.parent
        return True

    def ids(self) -> Iterator[ItemId]:
        """Yield the ids of all items in it."""
        if self.top is None:
            return
        todo = [self.top]
        while todo:
            id = todo.pop()
            if id != ROOT:
                yield id
            todo.extend(child.id for child in self.local.children(id))


class OldTree:
    """The older state, and which item of it is to be brought back; ``None`` stands for all of it."""

    def __init__(self, tree: Tree, top: Item | None) -> None:
        self.tree = tree
        self.top = top

    def holds(self, id: ItemId) -> bool:
        """Tell whether an item belongs to what is brought back."""
        if self.top is None:
            return self.tree.item(id) is not None
        seen: set[ItemId] = set()
        while id != self.top.id:
            item = self.tree.item(id)
            if item is None or id in seen:
                return False
            seen.add(id)
            id = item.parent
        return True


def lay_out(
    old: OldTree, frame: Frame, parent: ItemId, name: str, new_id: Callable[[], ItemId]
) -> Iterator[tuple[Item, Item]]:
    """Yield (item as it shall stand on this disk, the same in the old tree), parents first.

    Args:
        old: What comes back.
        frame: What may be changed for it.
        parent: Under which item its top shall stand; of no use for a whole folder.
        name: Its name there.
        new_id: Gives an id that nobody has.
    """
    if old.top is None:
        yield from _lay_out_below(old, frame, ROOT, ROOT, new_id)
        return
    id = _id_for(old, frame, old.top, parent, name, new_id)
    yield replace(old.top, id=id, parent=parent, name=name), old.top
    if old.top.is_directory:
        yield from _lay_out_below(old, frame, old.top.id, id, new_id)


def _lay_out_below(
    old: OldTree, frame: Frame, source: ItemId, target: ItemId, new_id: Callable[[], ItemId]
) -> Iterator[tuple[Item, Item]]:
    todo = [(source, target)]
    while todo:
        source, target = todo.pop()
        for child in old.tree.children(source):
            id = _id_for(old, frame, child, target, child.name, new_id)
            yield replace(child, id=id, parent=target), child
            if child.is_directory:
                todo.append((child.id, id))


def _id_for(old: OldTree, frame: Frame, item: Item, parent: ItemId, name: str, new_id: Callable[[], ItemId]) -> ItemId:
    same = frame.local.item(item.id)
    if same is not None and same.is_directory == item.is_directory and frame.holds(item.id):
        return item.id
    here = frame.local.child(parent, name)
    if (
        here is not None
        and here.is_directory == item.is_directory
        and frame.holds(here.id)
        and not _is_claimed(old, here)
    ):
        return here.id
    if here is None and same is None and frame.awaits(item.id, parent, name, is_directory=item.is_directory):
        return item.id
    return new_id()


def _is_claimed(old: OldTree, here: Item) -> bool:
    """Tell whether an item of this disk comes back as itself, perhaps to another place."""
    item = old.tree.item(here.id)
    return item is not None and item.is_directory == here.is_directory and old.holds(here.id)


class LaidOut:
    """The tree that shall be: what was laid out, and around it what this disk holds."""

    def __init__(self, laid: Tree, frame: Frame) -> None:
        self._laid = laid
        self._frame = frame

    def item(self, id: ItemId) -> Item | None:
        """Return the item, or None."""
        item = self._laid.item(id)
        if item is not None:
            return replace(item, members=())
        here = self._frame.local.item(id)
        return None if here is None or self._frame.holds(id) else here

    def child(self, parent: ItemId, name: str) -> Item | None:
        """Return the item of exactly this name in a directory, or None."""
        item = self._laid.child(parent, name)
        if item is not None:
            return replace(item, members=())
        here = self._frame.local.child(parent, name)
        return None if here is None else self._outside(here)

    def children(self, parent: ItemId) -> Iterator[Item]:
        """Yield the items of a directory, by name."""
        items = {item.name: replace(item, members=()) for item in self._laid.children(parent)}
        for here in self._frame.local.children(parent):
            if self._outside(here) is not None:
                items.setdefault(here.name, here)
        for _, item in sorted(items.items()):
            yield item

    def _outside(self, here: Item) -> Item | None:
        return None if self._laid.item(here.id) is not None or self._frame.holds(here.id) else here
