"""The fold's state over the rows of the local database, each row read once and all that changed written together.

Folding asks for a handful of rows for each change, and an author's operation is folded twice: on trial, and once it is
ordered. A statement for every row would cost more than the folding.

Rule 1: nothing but :meth:`CachedState.write` changes the database; until it is called, others do not see what was put.
Rule 2: bounded: what was only read is forgotten when a table remembers :data:`ROWS_MAX` rows.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import fields
from typing import Any, Final, Generic, TypeVar

from peer.core.conflicts import name_key
from peer.core.fold_state import FoldState, NodeRow
from peer.core.tree import Item, ItemId
from peer.store.fold_store import ItemTable, KeyTable, PairTable, SqliteState
from protocol.entries import AdmittedEntry, ContentValue, PlaceValue, Register, RemovalValue
from protocol.ids import ROOT, Dot, NodeId

K = TypeVar("K")
S = TypeVar("S")
V = TypeVar("V")

ROWS_MAX: Final = 8_192
"""Rows that a table remembers."""


class _Memory(Generic[K, V]):
    """Rows of one table: what was read of it, and over that what is to be written."""

    def __init__(self) -> None:
        self.known: dict[K, V | None] = {}
        """None: it is known that there is no such row."""
        self.changed: dict[K, V | None] = {}
        """Those of ``known`` that are not written yet; None is to be dropped."""

    def put(self, key: K, row: V, /) -> None:
        """Add or replace the row."""
        self.known[key] = self.changed[key] = row

    def drop(self, key: K, /) -> None:
        """Remove the row, if it is there."""
        self.known[key] = self.changed[key] = None

    def remember(self, rows: Iterable[tuple[K, V | None]]) -> None:
        """Take rows as the database has them."""
        if len(self.known) >= ROWS_MAX:
            self.forget()
        self.known.update(rows)

    def unknown(self, keys: Iterable[K]) -> list[K]:
        """Return those of these keys whose rows must be read, each once; as many as there is room for."""
        return list(dict.fromkeys(key for key in keys if key not in self.known))[:ROWS_MAX]

    def forget(self) -> None:
        """Forget what was only read."""
        self.known = dict(self.changed)


class _CachedTable(_Memory[K, V]):
    """A :class:`KeyTable`."""

    def __init__(self, stored: KeyTable[K, V]) -> None:
        super().__init__()
        self._stored = stored

    def get(self, key: K, /) -> V | None:
        """Return the row, or None."""
        try:
            return self.known[key]
        except KeyError:
            row = self._stored.get(key)
            self.remember([(key, row)])
            return row

    def expect(self, keys: Iterable[K]) -> None:
        """Read these rows together."""
        wanted = self.unknown(keys)
        if wanted:
            self.remember((key, None) for key in wanted)
            self.known.update(self._stored.many(wanted))

    def write(self) -> None:
        """Write what was changed."""
        if self.changed:
            self._stored.write(self.changed)
            self.changed = {}


class _CachedPairTable(_Memory[tuple[bytes, S], V]):
    """A :class:`PairTable`."""

    def __init__(self, stored: PairTable[S, V]) -> None:
        super().__init__()
        self._stored = stored

    def get(self, key: tuple[bytes, S], /) -> V | None:
        """Return the row, or None."""
        try:
            return self.known[key]
        except KeyError:
            row = self._stored.get(key)
            self.remember([(key, row)])
            return row

    def under(self, first: bytes, /) -> Iterator[tuple[S, V]]:
        """Yield second part and row of every row with this first part, by second part."""
        self.write()
        return self._stored.under(first)

    def expect(self, keys: Iterable[tuple[bytes, S]]) -> None:
        """Read these rows together."""
        wanted: dict[bytes, list[S]] = {}
        for first, second in self.unknown(keys):
            wanted.setdefault(first, []).append(second)
        for first, seconds in wanted.items():
            self.remember(((first, second), None) for second in seconds)
            self.known.update(((first, second), row) for second, row in self._stored.many(first, seconds))

    def write(self) -> None:
        """Write what was changed."""
        if self.changed:
            self._stored.write(self.changed)
            self.changed = {}


class _CachedItems(_Memory[ItemId, Item]):
    """The remote tree."""

    def __init__(self, stored: ItemTable) -> None:
        super().__init__()
        self._stored = stored

    def put(self, item: Item) -> None:  # type: ignore[override]  # an item names its own key
        """Add an item, or replace the one with its id."""
        super().put(item.id, item)

    def item(self, id: ItemId) -> Item | None:
        """Return the item, or None."""
        try:
            return self.known[id]
        except KeyError:
            item = self._stored.item(id)
            self.remember([(id, item)])
            return item

    def child(self, parent: ItemId, name: str) -> Item | None:
        """Return the item of exactly this name in a directory, or None."""
        self.write()
        return self._stored.child(parent, name)

    def children(self, parent: ItemId) -> Iterator[Item]:
        """Yield the items of a directory, by name."""
        self.write()
        return self._stored.children(parent)

    def expect(self, ids: Iterable[ItemId]) -> None:
        """Read these items together."""
        wanted = self.unknown(ids)
        if wanted:
            self.remember((id, None) for id in wanted)
            self.known.update((item.id, item) for item in self._stored.many(wanted))

    def write(self) -> None:
        """Write what was changed."""
        if self.changed:
            self._stored.write(self.changed)
            self.changed = {}


class CachedState(FoldState):
    """The state of one folder in the local database; every call runs in the database's thread."""

    _all: dict[str, Any]
    """The tables by name, each of the kind of the one beneath it."""

    def __init__(self, db: sqlite3.Connection, folder: int) -> None:
        stored = SqliteState(db, folder)
        tables: dict[str, Any] = {}
        for field in fields(FoldState):
            table = getattr(stored, field.name)
            kind = {KeyTable: _CachedTable, PairTable: _CachedPairTable, ItemTable: _CachedItems}[type(table)]
            tables[field.name] = kind(table)
        super().__init__(**tables)
        object.__setattr__(self, "_all", tables)  # what a state consists of is frozen

    def write(self) -> None:
        """Write all that was changed to the database."""
        for table in self._all.values():
            table.write()

    def forget(self) -> None:
        """Give back what remembering takes."""
        for table in self._all.values():
            table.forget()

    # --- What folding will ask for

    def expect(self, nodes: Collection[NodeId], places: Iterable[Dot] = (), contents: Iterable[Dot] = ()) -> None:
        """Read together what folding changes of these nodes needs, but for what is new in them.

        Args:
            nodes: That are changed.
            places: Values that the changes are based on.
            contents: Likewise.
        """
        tables = self._all
        tables["nodes"].expect(nodes)
        rows = [row for row in (self.nodes.get(node) for node in nodes) if row is not None]
        tables["nodes"].expect(row.parent for row in rows if row.parent != ROOT)
        tables["places"].expect([*places, *(dot for row in rows for dot in row.places)])
        dots = [*contents, *(dot for row in rows for dot in row.contents)]
        tables["contents"].expect(dots)
        held = (self.contents.get(dot) for dot in dict.fromkeys(dots))
        self._expect_bodies([row.body for row in held if row is not None])
        tables["names"].expect(row.listed for row in rows if row.listed is not None)
        tables["tree"].expect([*nodes, *_directories(rows)])

    def _expect_bodies(self, bodies: Collection[Dot]) -> None:
        self._all["removed"].expect(bodies)
        self._all["voids"].expect(bodies)

    def expect_items(self, ids: Iterable[ItemId]) -> None:
        """Read these items of the tree together."""
        self._all["tree"].expect(ids)

    def expect_entry(self, entry: AdmittedEntry) -> None:
        """Read together what folding this entry needs."""
        bases: dict[Register, list[Dot]] = {register: [] for register in Register}
        names: list[tuple[bytes, bytes]] = []
        acts: list[tuple[bytes, NodeId]] = []
        bodies: list[Dot] = []
        pairs = zip(entry.header.changes, entry.payload.values, strict=True)
        for index, (change, value) in enumerate(pairs):
            bases[change.register].extend(change.base)
            if isinstance(value, ContentValue):
                bodies.append(value.body or entry.dot(index))
            elif isinstance(value, PlaceValue):
                names.append((value.parent, name_key(value.name)))
            elif isinstance(value, RemovalValue):
                bodies.extend(value.removed)
                acts.append((value.removal, change.node))
        self.expect(
            list(dict.fromkeys(change.node for change in entry.header.changes)),
            bases[Register.PLACE],
            bases[Register.CONTENT],
        )
        self._expect_bodies(bodies)
        self._all["names"].expect(names)
        self._all["acts"].expect(acts)


def _directories(rows: Sequence[NodeRow]) -> set[ItemId]:
    return {row.parent for row in rows if row.parent != ROOT}
