"""What the fold keeps: rows in a few tables, each looked up by its key.

The fold asks for single rows and writes single rows, so the state may be dicts (:mod:`peer.core.memory_state`) or rows
of the local database (:mod:`peer.store.fold_store`); a provisional tail is folded on an overlay that is thrown away.

Rule 1: a row that was read is never changed; whoever changes it works on a copy and puts that.
Rule 2: no row grows with the length of a history. Ancestry is links between values, see :mod:`peer.core.lineage`.
Rule 3: equal sequences of entries give equal rows, however they were cut into calls.
Rule 4: names are bytes here; only items of the tree hold them as text.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, Protocol, TypeVar

import msgspec

from peer.core.tree import Item, ItemId, Tree
from protocol.entries import AdmittedEntry, ContentValue, SegmentKey
from protocol.ids import ROOT, DeviceId, Dot, EntryHash, NodeId
from protocol.versions import Vector

K_contra = TypeVar("K_contra", contravariant=True)
"""Key of a table."""
S = TypeVar("S")
"""Second part of a key of two parts."""
V = TypeVar("V")
"""Row of a table."""


# --- Values of registers


class PlaceKind(IntEnum):
    """What a value of a place register says, the strongest first (foldmodel, reading 6)."""

    MOVE = 1
    KEEP = 2
    REMOVAL = 3


class Lineage(msgspec.Struct, frozen=True, array_like=True):
    """A register value and what it replaced, linked so that ancestry is found without a list of ancestors.

    ``up`` makes the values of a register a forest, of which ``jump`` is the skip pointer (Myers 1983, "An applicative
    random-access stack"); the few values that replaced several at once are found through ``merge``.
    """

    dot: Dot
    order: int
    """Rises with each change that is folded: the entry's position in the upper bits."""
    base: tuple[Dot, ...]
    """The values that it replaced, as far as the register holds them."""
    vector: Vector
    """Of the change, to be merged into those that build on it."""
    up: Dot | None
    """That of its base which comes first in the order of names."""
    jump: Dot | None
    depth: int
    jump_depth: int
    """Depth of ``jump``."""
    merge: Dot | None
    """The nearest value at or above this one, along ``up``, that has a base of several."""


class PlaceRow(Lineage, frozen=True, array_like=True):
    """A value of a node's place register."""

    node: NodeId
    kind: PlaceKind
    parent: NodeId
    """Of a removal: the last place."""
    name: bytes
    removal: bytes = b""
    """Of a removal: the id of the act."""
    below: tuple[Dot, ...] = ()
    """Of a removal: the latest removals of this node among what it builds on."""
    beaten: bool = False
    """Of a removal: whether a concurrent move that was not itself removed cancels it."""


class ContentRow(Lineage, frozen=True, array_like=True):
    """A value of a family's content register, with what a reader needs to fetch it."""

    node: NodeId
    """The node that the change named."""
    home: NodeId
    """The node that it belongs to now: where it was detached to, or whom it followed."""
    body: Dot
    value: ContentValue
    """Its spans count the segments of ``segments``."""
    segments: tuple[SegmentKey, ...]
    replaced: bool = False
    """Whether it only touched bytes that another value replaced: it shows no more."""


class EntryRow(msgspec.Struct, frozen=True, array_like=True):
    """What stays known of an entry beside its values."""

    hash: EntryHash
    author: DeviceId
    label: str
    time_ms: int
    position: int
    last: int
    """Sequence number of the last entry of its batch; its own, if it is none."""


class Version(msgspec.Struct, frozen=True):
    """One content value with what is needed to fetch, restore and describe it."""

    dot: Dot
    value: ContentValue
    segments: tuple[SegmentKey, ...]
    entry: EntryRow


# --- Nodes and names


class NodeRow(msgspec.Struct, array_like=True):
    """A node: the heads of its registers, and what was judged of it last."""

    id: NodeId
    # Its place register.
    places: tuple[Dot, ...] = ()
    """Values that nothing replaced, sorted."""
    at: Dot | None = None
    """The place in force: the first of them, or where it stood before a move that closed a cycle."""
    kind: PlaceKind = PlaceKind.MOVE
    """Of the place in force, as the following three."""
    parent: NodeId = ROOT
    name: bytes = b""
    since: int = 0
    """Its position."""
    born: int = 0
    """Order of the first place: who of several nodes behind one item lends it his id."""
    free: tuple[Dot, ...] = ()
    """The oldest moves that no removal has seen; while there is one, concurrent removals are beaten."""
    removals: tuple[Dot, ...] = ()
    """The latest removals, none of which has seen another."""
    # Its contents.
    family: NodeId = ROOT
    """The node whose content register holds its contents: its own, unless it was detached."""
    origin: NodeId | None = None
    """The node that it was detached from."""
    saw: tuple[Dot, ...] = ()
    """Places of ``origin`` that who detached it knew."""
    homes: tuple[NodeId, ...] = ()
    """Of the node that names a family: the nodes detached from it, directly or not."""
    touches: tuple[Dot, ...] = ()
    """Of the node that names a family: unreplaced values that only touch an older body."""
    contents: tuple[Dot, ...] = ()
    """Unreplaced values that belong here, the first in the log first."""
    reverts: tuple[tuple[Dot, Dot], ...] = ()
    """(value, value beside it): the first holds the bytes that both came from, and so counts as unchanged."""
    # What was judged.
    live: tuple[Dot, ...] = ()
    """Those of ``contents`` that no removal took."""
    kids: int = 0
    """Live nodes whose place in force is under this one."""
    listed: tuple[NodeId, bytes] | None = None
    """Under which key of the names it stands; None while it is dead."""
    shown: ItemId | None = None
    """The item that shows this node as a directory."""

    @property
    def is_alive(self) -> bool:
        """Whether it shows: a content that lives, or a live node under it."""
        return bool(self.live) or self.kids > 0


class NameRow(msgspec.Struct, array_like=True):
    """One name in a directory."""

    nodes: tuple[NodeId, ...] = ()
    """Live nodes of this directory node that want this name."""
    items: tuple[ItemId, ...] = ()
    """What shows for it, with the suffixed ones; kept under the id of the directory's item."""
    suffixes: tuple[bytes, ...] = ()
    """Keys of the names that its suffixed items claim."""
    claims: tuple[tuple[bytes, ItemId], ...] = ()
    """(key of the wanted name, item) of each suffixed item that claims this name."""


VOID_BATCH: Final = -1
"""Says that a batch will never be complete."""


# --- Tables


class Table(Protocol[K_contra, V]):
    """Rows by key."""

    def get(self, key: K_contra, /) -> V | None:
        """Return the row, or None."""

    def put(self, key: K_contra, row: V, /) -> None:
        """Add or replace the row."""

    def drop(self, key: K_contra, /) -> None:
        """Remove the row, if it is there."""


class PairTable(Protocol[S, V]):
    """Rows by a key of two parts; all rows of one first part can be listed."""

    def get(self, key: tuple[bytes, S], /) -> V | None:
        """Return the row, or None."""

    def put(self, key: tuple[bytes, S], row: V, /) -> None:
        """Add or replace the row."""

    def drop(self, key: tuple[bytes, S], /) -> None:
        """Remove the row, if it is there."""

    def under(self, first: bytes, /) -> Iterator[tuple[S, V]]:
        """Yield second part and row of every row with this first part, by second part."""


class EditableTree(Tree, Protocol):
    """A tree that the fold writes."""

    def put(self, item: Item) -> None:
        """Add an item, or replace the one with its id."""

    def drop(self, id: ItemId) -> None:
        """Remove the item, if it is there; what stands under it stays."""


@dataclass(frozen=True)
class FoldState:
    """Everything that folding the next entry depends on, and the tree that came of it."""

    places: Table[Dot, PlaceRow]
    contents: Table[Dot, ContentRow]
    nodes: Table[NodeId, NodeRow]
    names: PairTable[bytes, NameRow]
    """(directory node, key of the name)."""
    removed: Table[Dot, tuple[Dot, ...]]
    """The removals that name a body."""
    acts: PairTable[NodeId, tuple[Dot, ...]]
    """(removal id, node): the node's removals by that act."""
    voids: Table[Dot, tuple[Dot, ...]]
    """The base of a value that is void."""
    entries: Table[tuple[int, int], EntryRow]
    """(device number, sequence number)."""
    parts: PairTable[int, AdmittedEntry]
    """(key of a batch, index): entries that wait for the rest of their batch."""
    batches: Table[bytes, int]
    """Key of an incomplete batch: how many of its entries are there, or ``VOID_BATCH``."""
    tree: EditableTree
    """The remote tree."""

    def content(self, node: NodeId, dot: Dot) -> Version | None:
        """Return the content value ``dot`` of a node with the keys of its segments, or None if there is none.

        Values stay known after they were replaced or removed. ``node`` may be any node of the value's family.
        """
        row, entry = self.contents.get(dot), self.entries.get((dot.device, dot.seq))
        if row is None or entry is None or self.family(node) != self.family(row.node):
            return None
        return Version(dot, row.value, row.segments, entry)

    def family(self, node: NodeId) -> NodeId:
        """Return the node whose content register holds the contents of ``node``."""
        row = self.nodes.get(node)
        return node if row is None else row.family

    def standing(self, dot: Dot) -> tuple[Dot, ...]:
        """Return what a base that names ``dot`` stands for: the base of a void value, and so on; else the dot itself."""
        base = self.voids.get(dot)
        if base is None:
            return (dot,)
        found: dict[Dot, None] = {}
        todo, seen = list(base), {dot}
        while todo:
            each = todo.pop()
            if each in seen:
                continue
            seen.add(each)
            below = self.voids.get(each)
            if below is None:
                found[each] = None
            else:
                todo.extend(below)
        return tuple(sorted(found))
