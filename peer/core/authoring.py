"""Turn acts of the user into the changes of one operation (architecture 2 and 3).

The author says what he replaces by the dots that his disk held, splits a conflict copy off its node before he changes
it, and folds his own entry before it is signed: a path that would change its name though nobody renamed it is kept.

Rule 1: a base comes from ``synced``, never from what was merely received.
Rule 2: acts given together are one operation: admitted together, and judged after the last of them.
Rule 3: an act renames nothing but what the user renamed (foldmodel, F4).
Rule 4: an item of several nodes is changed by one change for every node.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

import msgspec
from msgspec.structs import replace

from peer.core.conflicts import bytes_of
from peer.core.drafts import DraftEntry, Key, Planned, Sheet, as_admitted, vector_of
from peer.core.fold import fold
from peer.core.fold_state import ContentRow, FoldState
from peer.core.memory_state import OverlayState
from peer.core.operations import Act, Create, Edit, Move, Remove, Touch
from peer.core.registers import in_force
from peer.core.tree import Content, Item, ItemId, Member, Tree
from protocol.entries import ContentValue, DetachValue, PlaceValue, Register, RemovalValue, RowSpan, SegmentKey, Value
from protocol.errors import LocalProtocolError
from protocol.ids import ROOT, Dot, NodeId, copy_id

__all__ = ["Draft", "DraftEntry", "author", "split_acts"]

AFTER_ALL: Final = 1 << 40
"""A position behind every real one: where the author's own entry is tried."""
_TRIES_MAX: Final = 4
"""Keeping a name can, in rare histories, change another one; the model needed no more either."""


class Draft(msgspec.Struct, frozen=True):
    """One operation, ready to be signed."""

    entries: tuple[DraftEntry, ...]
    """One, or the parts of a batch; none if nothing was to be written."""
    synced: tuple[Item, ...]
    """Items as this device's disk holds them now: to be put into ``synced`` together with recording the entries."""
    dropped: tuple[ItemId, ...]
    """Ids that ``synced`` no longer has; to be dropped first."""


def author(
    acts: Sequence[Act],
    *,
    synced: Tree,
    state: FoldState,
    device: int,
    seq: int,
    contents: Mapping[ItemId, ContentValue],
    entropy: Callable[[int], bytes],
    segments: Sequence[SegmentKey] = (),
    label: str = "",
) -> Draft:
    """Return the entries that record acts, and what ``synced`` is after them.

    Args:
        acts: One operation. Each is about another item, but for a :class:`Move` and an edit of the same one.
        synced: What the disk held when this device and the log last agreed.
        state: The fold of everything that this device knows; it is read, never written.
        device: This device's number in the folder.
        seq: Sequence number of the first entry.
        contents: By item, the content of every file that was created or edited and is not empty; spans count ``segments``.
        entropy: Draws random bytes, for the ids of removals and of a batch.
        segments: One table for all of ``contents``.
        label: The name of this device, as the entries will carry it.

    Raises:
        LocalProtocolError: A file's content is not among ``contents``.
        LimitExceededError: The acts are more than one batch can hold.
    """
    writer = _Author(synced, state, contents, segments, entropy)
    for act in acts:
        writer.write(act)
    batch_id: list[bytes] = []

    def draw_batch_id() -> bytes:
        if not batch_id:
            batch_id.append(entropy(16))
        return batch_id[0]

    entries: tuple[DraftEntry, ...] = ()
    for _ in range(_TRIES_MAX):
        entries = writer.sheet.entries(device, seq, draw_batch_id)
        if not writer.keep_names(entries, device, label):
            break
    else:
        entries = writer.sheet.entries(device, seq, draw_batch_id)
    return writer.draft(entries, device)


def split_acts(acts: Sequence[Act]) -> tuple[tuple[Act, ...], tuple[Act, ...]]:
    """Return the acts that must be one operation, to be recorded first, and those that may follow in any pieces.

    Moves and removals belong together, since they give up names to one another, with the directories made for them and
    with edits of what was moved. The others, in the order given, depend on nothing but parents that come before.
    """
    made = {act.item.id: act.item for act in acts if isinstance(act, Create)}
    tied: set[ItemId] = set()
    for act in acts:
        if isinstance(act, Move | Remove):
            tied.add(act.base.id)
        above = act.parent if isinstance(act, Move) else ROOT
        while above in made and above not in tied:
            tied.add(above)
            above = made[above].parent
    first: list[Act] = []
    rest: list[Act] = []
    for act in acts:
        subject = act.item if isinstance(act, Create) else act.base
        (first if subject.id in tied else rest).append(act)
    return tuple(first), tuple(rest)


class _Author:
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
        self._synced = synced
        self._state = state
        self._contents = contents
        self._segments = segments
        self._entropy = entropy
        self._bases: dict[ItemId, Item] = {}
        """Items of ``synced`` of which a register was written, or whose name was kept."""
        self._now: dict[ItemId, Item] = {}
        """Where items stand, and what they hold, after the acts; without dots."""
        self._gone: dict[ItemId, None] = {}
        self._above: dict[ItemId, frozenset[Dot]] = {}

    # --- Acts

    def write(self, act: Act) -> None:
        """Plan the changes of one act."""
        match act:
            case Create(item):
                self._now[item.id] = item
                place = PlaceValue(item.parent, bytes_of(item.name), weak=False)
                self._write(item.id, Register.PLACE, (), place, self._places_above(item.parent))
                self._write_content(item.id, item.id, (), item.content, None)
            case Edit(base, content) | Touch(base, content):
                self._edit(self._as_synced(base), content)
            case Move(base, parent, name):
                self._move(self._as_synced(base), parent, name)
            case Remove(base, subtree):
                self._remove(base, subtree)

    def _as_synced(self, base: Item) -> Item:
        """Return the newest record of an item: another act of this draft's caller may have kept its name meanwhile."""
        item = self._synced.item(base.id) or base
        self._bases[item.id] = item
        return item

    def _edit(self, base: Item, content: Content) -> None:
        here = self._now.get(base.id, base)
        self._now[base.id] = replace(here, content=content)
        keeps_name = any(member.copy is not None for member in base.members)
        for member in base.members:
            if member.copy is not None:
                for dot in member.content:
                    copy = self._detach(member, dot, here.parent, bytes_of(here.name), weak=True)
                    self._write_content(base.id, copy, (dot,), content, base.content, member.place)
                continue
            if keeps_name:  # or the item would fall apart: its copies are placed anew
                self._place(member, here.parent, bytes_of(here.name), weak=True)
            self._write_content(base.id, member.node, member.content, content, base.content, member.place)

    def _move(self, base: Item, parent: ItemId, name: str) -> None:
        self._now[base.id] = replace(self._now.get(base.id, base), parent=parent, name=name)
        self._above.clear()
        for member in base.members:
            if member.copy is None:
                self._place(member, parent, bytes_of(name), weak=False)
            else:
                for dot in member.content:
                    self._detach(member, dot, parent, bytes_of(name), weak=False)

    def _remove(self, base: Item, subtree: Sequence[Item]) -> None:
        items = [self._synced.item(item.id) or item for item in (subtree or (base,))]
        removal = self._entropy(16)
        seen: dict[NodeId, list[Dot]] = {}
        mains: set[NodeId] = set()
        for item in items:
            self._gone[item.id] = None
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
        self._write(member.node, Register.PLACE, member.place, value, bodies | self._places_of(parent))

    def _remove_copy(self, member: Member, dot: Dot, item: Item, removal: bytes) -> None:
        copy = copy_id(member.node, dot)
        bodies = self._bodies((dot,))
        self._write_detach(member, dot)
        value = RemovalValue(tuple(sorted(bodies)), item.parent, bytes_of(item.name), removal)
        self._write(copy, Register.PLACE, (), value, {*bodies, *member.place, *self._places_of(item.parent)})

    # --- Values

    def _detach(self, member: Member, dot: Dot, parent: NodeId, name: bytes, *, weak: bool) -> NodeId:
        """Make a copy a node of its own, and place it."""
        copy = copy_id(member.node, dot)
        self._write_detach(member, dot)
        needs = {dot, *member.place, *self._places_above(parent)}
        self._write(copy, Register.PLACE, (), PlaceValue(parent, name, weak), needs)
        return copy

    def _write_detach(self, member: Member, dot: Dot) -> None:
        self._write(member.node, Register.DETACH, member.place, DetachValue(dot), {dot})

    def _place(self, member: Member, parent: NodeId, name: bytes, *, weak: bool) -> None:
        value = PlaceValue(parent, name, weak)
        self._write(member.node, Register.PLACE, member.place, value, self._places_above(parent))

    def _write_content(
        self,
        item: ItemId,
        node: NodeId,
        base: tuple[Dot, ...],
        content: Content,
        before: Content | None,
        needs: Sequence[Dot] = (),
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
            used = list(dict.fromkeys(span.segment for span in given.spans))
            segments = tuple(self._segments[number] for number in used)
            spans = tuple(replace(span, segment=used.index(span.segment)) for span in given.spans)
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
        self._write(node, Register.CONTENT, base, value, needs, segments)

    def _write(
        self,
        node: NodeId,
        register: Register,
        base: tuple[Dot, ...],
        value: Value,
        needs: Sequence[Dot] | set[Dot] | frozenset[Dot],
        segments: tuple[SegmentKey, ...] = (),
    ) -> None:
        """Plan a value."""
        named = tuple(sorted(base))
        table = self._state.contents if register is Register.CONTENT else self._state.places
        rows = [row for row in (table.get(dot) for dot in named) if row is not None]
        vector = vector_of([row.vector for row in rows]) if rows else ()
        all_needs = {self._whole(dot) for dot in (*named, *needs)}
        self.sheet.write(Planned(node, register, named, vector, tuple(sorted(all_needs)), value, segments))

    def _whole(self, dot: Dot) -> Dot:
        """Return a value of the entry to need for a value: of a batch, the last entry."""
        entry = self._state.entries.get((dot.device, dot.seq))
        return dot if entry is None or entry.last == dot.seq else Dot(dot.device, entry.last, 0)

    # --- What the state and the disk hold

    def _rows(self, dots: Sequence[Dot]) -> list[ContentRow]:
        return [row for row in (self._state.contents.get(dot) for dot in dots) if row is not None]

    def _bodies(self, dots: Sequence[Dot]) -> set[Dot]:
        return {row.body for row in self._rows(dots)}

    def _last_place(self, member: Member, item: Item) -> tuple[NodeId, bytes]:
        """Return the place that the disk showed a node at: its own, not that of the item it was merged into."""
        node = self._state.nodes.get(member.node)
        if node is not None and node.places == member.place:
            return node.parent, node.name
        known = [dot for dot in member.place if self._state.places.get(dot) is not None]
        if not known:
            return item.parent, bytes_of(item.name)
        row = in_force(self._state.places, known)
        return row.parent, row.name

    def _places_of(self, node: NodeId) -> set[Dot]:
        """Return the places of a directory node as the disk held them."""
        if node == ROOT:
            return set()
        item = self._synced.item(node)
        if item is not None:
            return {dot for member in item.members for dot in member.place}
        known = self._state.nodes.get(node)
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
            todo.extend(item.parent for item in (self._synced.item(id), self._now.get(id)) if item is not None)
        self._above[parent] = frozenset(found)
        return self._above[parent]

    # --- Names of others

    def keep_names(self, entries: Sequence[DraftEntry], device: int, label: str) -> bool:
        """Fold the entries, and plan to keep every name that they would change; tell whether there was one."""
        trial = OverlayState(self._state)
        changed = fold(trial, [as_admitted(entry, device=device, label=label) for entry in entries], position=AFTER_ALL)
        before: dict[tuple[NodeId, Dot], tuple[Item, Member]] = {}
        for id in changed:
            item = self._state.tree.item(id)
            if item is not None:
                before.update(((member.node, dot), (item, member)) for member in item.members for dot in member.content)
        planned = len(self.sheet)
        for id in sorted(changed):
            item = trial.tree.item(id)
            for member in () if item is None else item.members:
                known = next((before[member.node, dot] for dot in member.content if (member.node, dot) in before), None)
                if item is not None and known is not None:
                    self._keep_name(trial, member, item, *known)
        return len(self.sheet) > planned

    def _keep_name(self, trial: FoldState, member: Member, new: Item, old: Item, shown: Member) -> None:
        """Keep a node or a copy where it showed, unless the user placed it or it would stay there anyway."""
        node, placed = self._state.nodes.get(member.node), trial.nodes.get(member.node)
        if node is None or placed is None:
            return
        goes_along = shown.copy is not None and node.parent != placed.parent
        if old.name == new.name and not goes_along:
            return
        held = shown._replace(place=node.places)
        if shown.copy is None:
            if not self.sheet.places(member.node):
                self._place(held, node.parent, bytes_of(old.name), weak=True)
        elif not self.sheet.places(copy_id(member.node, shown.copy)):
            for dot in shown.content:
                if dot in member.content:
                    self._detach(held, dot, node.parent, bytes_of(old.name), weak=True)
        item = self._synced.item(old.id)
        if item is not None and item.id not in self._gone and held in item.members:
            self._bases.setdefault(item.id, item)

    # --- The outcome

    def draft(self, entries: tuple[DraftEntry, ...], device: int) -> Draft:
        """Return the entries with what ``synced`` is after them."""
        dots = self.sheet.dots(entries, device)
        items: dict[ItemId, Item] = {}
        dropped = dict(self._gone)
        for base in self._bases.values():
            members = self._members_after(base, dots)
            item = replace(self._now.get(base.id, base), id=_id_of(members[0]), members=tuple(members))
            if item.id != base.id:
                dropped[base.id] = None
            items[item.id] = item
        for id, item in self._now.items():
            if id not in self._bases:
                place, content = dots[id, Register.PLACE], dots[id, Register.CONTENT]
                items[id] = replace(item, members=(Member(id, None, (content,), (place,)),))
        return Draft(entries, tuple(items.values()), tuple(dropped))

    def _members_after(self, base: Item, dots: Mapping[Key, Dot]) -> list[Member]:
        """Return what stands behind an item now, the oldest node first, as the fold orders it."""
        found: list[tuple[tuple[int, ...], Member]] = []
        for member in base.members:
            born = self._born(member.node, dots)
            detached = (
                []
                if member.copy is None
                else [dot for dot in member.content if self.sheet.detaches(copy_id(member.node, dot))]
            )
            for dot in detached:
                copy = copy_id(member.node, dot)
                content = dots.get((copy, Register.CONTENT), dot)
                place = dots[copy, Register.PLACE]
                found.append((self._born(copy, dots), Member(copy, None, (content,), (place,))))
            kept = tuple(dot for dot in member.content if dot not in detached)
            if not kept and detached:
                continue
            written = dots.get((member.node, Register.CONTENT)) if member.copy is None else None
            placed = dots.get((member.node, Register.PLACE))
            place_now = member.place if placed is None else (placed,)
            found.append((born, member._replace(content=kept if written is None else (written,), place=place_now)))
        return [member for _, member in sorted(found, key=lambda pair: pair[0])]

    def _born(self, node: NodeId, dots: Mapping[Key, Dot]) -> tuple[int, ...]:
        known = self._state.nodes.get(node)
        if known is not None and known.at is not None:
            return (0, known.born)
        placed = dots.get((node, Register.PLACE))
        return (1, 0) if placed is None else (1, placed.seq, placed.index)


def _id_of(member: Member) -> ItemId:
    return member.node if member.copy is None else copy_id(member.node, member.copy)
