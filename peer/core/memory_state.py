"""The fold's state in dicts: whole, or as an overlay whose writes never reach what lies under it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from typing import Any, Generic, TypeVar

from peer.core.fold_state import EditableTree, FoldState, PairTable, PlaceRow, Table
from peer.core.tree import Item, ItemId, MemoryTree

K = TypeVar("K")
S = TypeVar("S")
V = TypeVar("V")


class MemoryTable(Generic[K, V]):
    """Rows in a dict."""

    def __init__(self) -> None:
        self._rows: dict[K, V] = {}
        self.get = self._rows.get
        self.put = self._rows.__setitem__

    def drop(self, key: K, /) -> None:
        """Remove the row, if it is there."""
        self._rows.pop(key, None)


class MemoryPairTable(Generic[S, V]):
    """Rows in a dict of dicts."""

    def __init__(self) -> None:
        self._rows: dict[bytes, dict[S, V]] = {}

    def get(self, key: tuple[bytes, S], /) -> V | None:
        """Return the row, or None."""
        rows = self._rows.get(key[0])
        return None if rows is None else rows.get(key[1])

    def put(self, key: tuple[bytes, S], row: V, /) -> None:
        """Add or replace the row."""
        rows = self._rows.get(key[0])
        if rows is None:
            rows = self._rows[key[0]] = {}
        rows[key[1]] = row

    def drop(self, key: tuple[bytes, S], /) -> None:
        """Remove the row, if it is there."""
        rows = self._rows.get(key[0])
        if rows is not None:
            rows.pop(key[1], None)
            if not rows:
                del self._rows[key[0]]

    def under(self, first: bytes, /) -> Iterator[tuple[S, V]]:
        """Yield second part and row of every row with this first part, by second part."""
        rows: dict[Any, V] = self._rows.get(first, {})
        yield from sorted(rows.items(), key=lambda pair: pair[0])


class OverlayTable(Generic[K, V]):
    """Rows over those of another table; None marks one that was dropped here."""

    def __init__(self, base: Table[K, V]) -> None:
        self._base = base
        self._rows: dict[K, V | None] = {}

    def get(self, key: K, /) -> V | None:
        """Return the row, or None."""
        return self._rows[key] if key in self._rows else self._base.get(key)

    def put(self, key: K, row: V, /) -> None:
        """Add or replace the row."""
        self._rows[key] = row

    def drop(self, key: K, /) -> None:
        """Remove the row, if it is there."""
        self._rows[key] = None

    def own(self) -> Iterator[V]:
        """Yield the rows that were written here."""
        yield from (row for row in self._rows.values() if row is not None)

    def hand_down(self) -> None:
        """Write all that was written here into the table beneath."""
        for key, row in self._rows.items():
            if row is None:
                self._base.drop(key)
            else:
                self._base.put(key, row)


class OverlayPairTable(Generic[S, V]):
    """As :class:`OverlayTable`, for keys of two parts."""

    def __init__(self, base: PairTable[S, V]) -> None:
        self._base = base
        self._rows: dict[bytes, dict[S, V | None]] = {}

    def get(self, key: tuple[bytes, S], /) -> V | None:
        """Return the row, or None."""
        rows = self._rows.get(key[0])
        return rows[key[1]] if rows is not None and key[1] in rows else self._base.get(key)

    def put(self, key: tuple[bytes, S], row: V, /) -> None:
        """Add or replace the row."""
        self._rows.setdefault(key[0], {})[key[1]] = row

    def drop(self, key: tuple[bytes, S], /) -> None:
        """Remove the row, if it is there."""
        self._rows.setdefault(key[0], {})[key[1]] = None

    def under(self, first: bytes, /) -> Iterator[tuple[S, V]]:
        """Yield second part and row of every row with this first part, by second part."""
        own = self._rows.get(first)
        if not own:
            yield from self._base.under(first)
            return
        rows: dict[Any, V | None] = dict(self._base.under(first))
        rows.update(own)
        for second, row in sorted(rows.items(), key=lambda pair: pair[0]):
            if row is not None:
                yield second, row

    def hand_down(self) -> None:
        """Write all that was written here into the table beneath."""
        for first, rows in self._rows.items():
            for second, row in rows.items():
                if row is None:
                    self._base.drop((first, second))
                else:
                    self._base.put((first, second), row)


class OverlayTree:
    """A tree over another one."""

    def __init__(self, base: EditableTree) -> None:
        self._base = base
        self._items: dict[ItemId, Item | None] = {}
        self._names: dict[ItemId, dict[str, ItemId]] = {}

    def put(self, item: Item) -> None:
        """Add an item, or replace the one with its id."""
        self.drop(item.id)
        self._items[item.id] = item
        self._names.setdefault(item.parent, {})[item.name] = item.id

    def drop(self, id: ItemId) -> None:
        """Remove the item, if it is there; what stands under it stays."""
        old = self._items.get(id)
        if old is not None and self._names[old.parent].get(old.name) == id:
            del self._names[old.parent][old.name]
        self._items[id] = None

    def item(self, id: ItemId) -> Item | None:
        """Return the item, or None."""
        return self._items[id] if id in self._items else self._base.item(id)

    def child(self, parent: ItemId, name: str) -> Item | None:
        """Return the item of exactly this name in a directory, or None."""
        found = self._names.get(parent, {}).get(name)
        if found is not None:
            return self._items[found]
        below = self._base.child(parent, name)
        return None if below is None or below.id in self._items else below

    def children(self, parent: ItemId) -> Iterator[Item]:
        """Yield the items of a directory, by name."""
        own = self._names.get(parent, {})
        shown = {item.name: item for item in self._base.children(parent) if item.id not in self._items}
        for name, id in own.items():
            item = self._items[id]
            if item is not None:
                shown[name] = item
        for _, item in sorted(shown.items()):
            yield item

    def written(self) -> frozenset[ItemId]:
        """Return the ids of all items that were put or dropped here."""
        return frozenset(self._items)

    def hand_down(self) -> None:
        """Write all that was written here into the tree beneath."""
        for id, item in self._items.items():
            if item is None:
                self._base.drop(id)
        for item in self._items.values():
            if item is not None:
                self._base.put(item)


class MemoryState(FoldState):
    """The state in dicts, empty at first."""

    def __init__(self) -> None:
        super().__init__(
            places=MemoryTable(),
            contents=MemoryTable(),
            nodes=MemoryTable(),
            names=MemoryPairTable(),
            removed=MemoryTable(),
            acts=MemoryPairTable(),
            voids=MemoryTable(),
            entries=MemoryTable(),
            parts=MemoryPairTable(),
            batches=MemoryTable(),
            tree=MemoryTree(),
        )


class OverlayState(FoldState):
    """A state that shows ``base`` until it is written; ``base`` itself is written by :meth:`hand_down` alone."""

    def __init__(self, base: FoldState) -> None:
        super().__init__(
            places=OverlayTable(base.places),
            contents=OverlayTable(base.contents),
            nodes=OverlayTable(base.nodes),
            names=OverlayPairTable(base.names),
            removed=OverlayTable(base.removed),
            acts=OverlayPairTable(base.acts),
            voids=OverlayTable(base.voids),
            entries=OverlayTable(base.entries),
            parts=OverlayPairTable(base.parts),
            batches=OverlayTable(base.batches),
            tree=OverlayTree(base.tree),
        )

    def own_places(self) -> Iterator[PlaceRow]:
        """Yield the values of place registers that were written here."""
        table = self.places
        assert isinstance(table, OverlayTable)
        yield from table.own()

    def own_items(self) -> frozenset[ItemId]:
        """Return the ids of all items that were put or dropped here."""
        tree = self.tree
        assert isinstance(tree, OverlayTree)
        return tree.written()

    def hand_down(self) -> None:
        """Write all that was written here into ``base``; this overlay is of no use afterwards."""
        for field in fields(FoldState):
            getattr(self, field.name).hand_down()
