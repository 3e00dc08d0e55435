"""Write the changes of acts: what each replaces, what it needs, and what becomes of conflict copies.

Rule 1: a base comes from ``synced``, never from what was merely received.
Rule 2: an item of several nodes is changed by one change for every node.
Rule 3: a conflict copy is split off its node, for good, before it is changed.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

from msgspec.structs import replace

from peer.core.conflicts import bytes_of
from peer.core.drafts import Planned, Sheet, vector_of
from peer.core.fold_state import ContentRow, FoldState
from peer.core.operations import Act, Create, Edit, Move, Remove, Touch
from peer.core.registers import in_force
from peer.core.tree import Content, Item, ItemId, Member, Tree
from protocol.entries import (
    ContentValue,
    DetachValue,
    PlaceValue,
    Register,
    RemovalValue,
    RowSpan,
    SegmentKey,
    Value,
)
from protocol.errors import LocalProtocolError
from protocol.ids import ROOT, Dot, NodeId, copy_id


class ActWriter:
    """One operation in the making."""

    def __init__(
        self,
        synced: Tree,
        state: FoldState,
        contents: Mapping[ItemId, ContentValue],
        segments: Sequence[SegmentKey],
        entropy: Callable[[int], bytes],
    ) -> None:
        self.sheet = Sheet()
        self.synced = synced
        self.state = state
        self._contents = contents
        self._segments = segments
        self._entropy = entropy
        self.bases: dict[ItemId, Item] = {}
        """Items of ``synced`` of which a register was written, or whose name was kept."""
        self.now: dict[ItemId, Item] = {}
        """Where items stand, and what they hold, after the acts; without dots."""
        self.gone: dict[ItemId, None] = {}
        self._above: dict[ItemId, frozenset[Dot]] = {}

    # --- Acts

    def write(self, act: Act) -> None:
        """Plan the changes of one act."""
        match act:
            case Create(item):
                self.now[item.id] = item
                place = PlaceValue(item.parent, bytes_of(item.name), weak=False)
                self.write_value(item.id, Register.PLACE, (), place, self._places_above(item.parent))
                self._write_content(item.id, item.id, (), item.content, None)
            case Edit(base, content) | Touch(base, content):
                self._edit(self._as_synced(base), content)
            case Move(base, parent, name):
                self._move(self._as_synced(base), parent, name)
            case Remove(base, subtree):
                self._remove(base, subtree)

    def _as_synced(self, base: Item) -> Item:
        """Return the newest record of an item: another act of this draft's caller may have kept its name meanwhile."""
        item = self.synced.item(base.id) or base
        self.bases[item.id] = item
        return item

    def _edit(self, base: Item, content: Content) -> None:
        here = self.now.get(base.id, base)
        self.now[base.id] = replace(here, content=content)
        keeps_name = any(member.copy is not None for member in base.members)
        for member in base.members:
            if member.copy is not None:
                for dot in _own_first(member):
                    copy = self.detach(member, dot, here.parent, bytes_of(here.name), weak=True)
                    self._write_content(base.id, copy, (dot,), content, base.content, member.place)
                continue
            if keeps_name:  # or the item would fall apart: its copies are placed anew
                self.place(member, here.parent, bytes_of(here.name), weak=True)
            self._write_content(base.id, member.node, member.content, content, base.content, member.place)

    def _move(self, base: Item, parent: ItemId, name: str) -> None:
        self.now[base.id] = replace(self.now.get(base.id, base), parent=parent, name=name)
        self._above.clear()
        for member in base.members:
            if member.copy is None:
                self.place(member, parent, bytes_of(name), weak=False)
            else:
                for dot in _own_first(member):
                    self.detach(member, dot, parent, bytes_of(name), weak=False)

    def _remove(self, base: Item, subtree: Sequence[Item]) -> None:
        items = [self.synced.item(item.id) or item for item in (subtree or (base,))]
        removal = self._entropy(16)
        seen: dict[NodeId, list[Dot]] = {}
        mains: set[NodeId] = set()
        for item in items:
            self.gone[item.id] = None
            for member in item.members:
                seen.setdefault(member.node, []).extend(member.content)
                if member.copy is None:
                    mains.add(member.node)
        for item in items:
            for member in item.members:
                if member.copy is None:
                    self._remove_node(member, item, seen[member.node], removal)
                elif member.node not in mains:
                    for dot in member.content:
                        self._remove_copy(member, dot, item, removal)

    def _remove_node(self, member: Member, item: Item, contents: Sequence[Dot], removal: bytes) -> None:
        bodies = self._bodies(contents)
        parent, name = self._last_place(member, item)
        value = RemovalValue(tuple(sorted(bodies)), parent, name, removal)
        self.write_value(member.node, Register.PLACE, member.place, value, bodies | self._places_of(parent))

    def _remove_copy(self, member: Member, dot: Dot, item: Item, removal: bytes) -> None:
        copy = copy_id(member.node, dot)
        bodies = self._bodies((dot,))
        self._write_detach(member, dot)
        value = RemovalValue(tuple(sorted(bodies)), item.parent, bytes_of(item.name), removal)
        self.write_value(copy, Register.PLACE, (), value, {*bodies, *member.place, *self._places_of(item.parent)})

    # --- Values

    def detach(self, member: Member, dot: Dot, parent: NodeId, name: bytes, *, weak: bool) -> NodeId:
        """Make a copy a node of its own, and place it."""
        copy = copy_id(member.node, dot)
        self._write_detach(member, dot)
        needs = {dot, *member.place, *self._places_above(parent)}
        self.write_value(copy, Register.PLACE, (), PlaceValue(parent, name, weak), needs)
        return copy

    def _write_detach(self, member: Member, dot: Dot) -> None:
        self.write_value(member.node, Register.DETACH, member.place, DetachValue(dot), {dot})

    def place(self, member: Member, parent: NodeId, name: bytes, *, weak: bool) -> None:
        """Place a node anew."""
        value = PlaceValue(parent, name, weak)
        self.write_value(member.node, Register.PLACE, member.place, value, self._places_above(parent))

    def _write_content(
        self,
        item: ItemId,
        node: NodeId,
        base: tuple[Dot, ...],
        content: Content,
        before: Content | None,
        needs: Collection[Dot] = (),
    ) -> None:
        """Plan a content; one with the bytes of its base is the same body, so it is never taken for an edit."""
        rows = self._rows(base)
        same = [row for row in rows if row.value.kind is content.kind and row.value.hash == content.hash]
        body = min(row.body for row in same) if same and before is not None and before.same_bytes(content) else None
        given = self._contents.get(item)
        segments: tuple[SegmentKey, ...] = ()
        spans: tuple[RowSpan, ...] = ()
        chunker = ""
        if given is not None:
            number = {segment: i for i, segment in enumerate(dict.fromkeys(span.segment for span in given.spans))}
            segments = tuple(self._segments[segment] for segment in number)
            spans = tuple(replace(span, segment=number[span.segment]) for span in given.spans)
            chunker = given.chunker
        elif same:
            segments, spans, chunker = same[0].segments, same[0].value.spans, same[0].value.chunker
        elif content.size:
            raise LocalProtocolError("the content of a file to be recorded was not prepared")
        value = ContentValue(
            kind=content.kind,
            body=body,
            hash=content.hash,
            size=content.size,
            mtime_ns=content.mtime_ns,
            executable=content.executable,
            target=content.target,
            chunker=chunker,
            spans=spans,
        )
        self.write_value(node, Register.CONTENT, base, value, needs, segments)

    def replace_also(self, item: ItemId, node: NodeId, held: tuple[Dot, ...], other: Dot) -> None:
        """Have what the disk holds at an item replace another content of its node too."""
        planned = self.sheet.get((node, Register.CONTENT))
        if planned is None:
            content = self.now.get(item, self.bases[item]).content
            self._write_content(item, node, held, content, content)
            planned = self.sheet.get((node, Register.CONTENT))
        if planned is not None and other not in planned.base:
            base = (*planned.base, other)
            self.write_value(node, Register.CONTENT, base, planned.value, planned.needs, planned.segments)

    def write_value(
        self,
        node: NodeId,
        register: Register,
        base: tuple[Dot, ...],
        value: Value,
        needs: Collection[Dot],
        segments: tuple[SegmentKey, ...] = (),
    ) -> None:
        """Plan a value."""
        named = tuple(sorted(base))
        table = self.state.contents if register is Register.CONTENT else self.state.places
        rows = [row for row in (table.get(dot) for dot in named) if row is not None]
        vector = vector_of([row.vector for row in rows]) if rows else ()
        all_needs = {self._whole(dot) for dot in (*named, *needs)}
        self.sheet.write(Planned(node, register, named, vector, tuple(sorted(all_needs)), value, segments))

    def _whole(self, dot: Dot) -> Dot:
        """Return a value of the entry to need for a value: of a batch, the last entry."""
        entry = self.state.entries.get((dot.device, dot.seq))
        return dot if entry is None or entry.last == dot.seq else Dot(dot.device, entry.last, 0)

    # --- What the state and the disk hold

    def _rows(self, dots: Sequence[Dot]) -> list[ContentRow]:
        return [row for row in (self.state.contents.get(dot) for dot in dots) if row is not None]

    def _bodies(self, dots: Sequence[Dot]) -> set[Dot]:
        return {row.body for row in self._rows(dots)}

    def _last_place(self, member: Member, item: Item) -> tuple[NodeId, bytes]:
        """Return the place that the disk showed a node at: its own, not that of the item it was merged into."""
        node = self.state.nodes.get(member.node)
        if node is not None and node.places == member.place:
            return node.parent, node.name
        known = [dot for dot in member.place if self.state.places.get(dot) is not None]
        if not known:
            return item.parent, bytes_of(item.name)
        row = in_force(self.state.places, known)
        return row.parent, row.name

    def _places_of(self, node: NodeId) -> set[Dot]:
        """Return the places of a directory node as the disk held them."""
        if node == ROOT:
            return set()
        item = self.synced.item(node)
        if item is not None:
            return {dot for member in item.members for dot in member.place}
        known = self.state.nodes.get(node)
        return set() if known is None else set(known.places)

    def _places_above(self, parent: ItemId) -> frozenset[Dot]:
        """Return the places of every directory above a destination, before and after the acts (F3)."""
        known = self._above.get(parent)
        if known is not None:
            return known
        found: set[Dot] = set()
        todo, seen = [parent], {ROOT}
        while todo:
            id = todo.pop()
            if id in seen:
                continue
            seen.add(id)
            found |= self._places_of(id)
            todo.extend(item.parent for item in (self.synced.item(id), self.now.get(id)) if item is not None)
        self._above[parent] = frozenset(found)
        return self._above[parent]


def _own_first(member: Member) -> list[Dot]:
    """Return the values of a conflict copy, that first which lends it its id: the oldest node does so afterwards."""
    return sorted(member.content, key=lambda dot: dot != member.copy)
