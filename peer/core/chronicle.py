"""What became of a path, told from the registers: every value that a node ever had is still in the folded state.

Nothing is folded again: the values of a register are linked, so a node's history costs what it changed itself.

Rule 1: a path's history is that of the node that stands there, wherever it stood before; and of those that stood there
    before it, up to the moment at which they left. So it goes on when a file is removed and made anew.
Rule 2: one version for each entry: the state right after it.
Rule 3: bytes that stood there before, and not just before, were *restored*; so was what was removed and is there again.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Iterable, Sequence
from typing import Final, NamedTuple, TypeVar

import msgspec
from blake3 import blake3

from peer.core.conflicts import bytes_of, name_key, text_of
from peer.core.fold_state import ContentRow, FoldState, Lineage, NodeRow, PlaceKind, PlaceRow, Table
from peer.core.lineage import load
from peer.core.registers import ORDER_BITS, in_force
from peer.core.tree import Content, Item, Member
from protocol import limits
from protocol.entries import Kind
from protocol.ids import ROOT, Dot, NodeId

Row = TypeVar("Row", bound=Lineage)

_EMPTY: Final = blake3(b"").digest()
CACHED_MAX: Final = 20_000
"""Nodes whose places are remembered at once."""


class Event(msgspec.Struct, frozen=True):
    """What one entry did to one node."""

    position: int
    """Of the entry; of the last one, where several are one operation."""
    entry: tuple[int, int]
    """Device number and sequence number of an entry that did it."""
    change: str
    """``created``, ``edited``, ``renamed``, ``attributes``, ``removed`` or ``restored``."""
    path: str
    """Where the node then stood; of a removal, where it had stood."""
    kind: Kind
    content: ContentRow | None
    """What it then held; None for a removal and for a directory that nobody made."""


class Subject(NamedTuple):
    """A node that stands at the path now."""

    node: NodeId
    heads: tuple[Dot, ...]
    """The content values that show there."""


class _Spot(NamedTuple):
    """A place in force, and from when on."""

    order: int
    row: PlaceRow


def position_of(row: Lineage) -> int:
    """Return the position of the entry that wrote a value."""
    return row.order >> ORDER_BITS


class Chronicle:
    """Reads one folded state; it must not change meanwhile."""

    def __init__(self, state: FoldState) -> None:
        self._state = state
        self._spots: dict[NodeId, list[_Spot]] = {}

    def path(self, node: NodeId, position: int) -> str | None:
        """Return where a node stood right after an entry; None before it was made."""
        parts: list[str] = []
        while node != ROOT:
            spot = self._spot(node, position)
            if spot is None or len(parts) > limits.DEPTH_MAX:
                return None
            parts.append(text_of(spot.row.name))
            node = spot.row.parent
        return "/".join(reversed(parts))

    def was_under(self, node: NodeId, directories: Collection[NodeId]) -> bool:
        """Tell whether a node was ever in one of these directories, at any depth."""
        return not self._ancestors(node).isdisjoint(directories)

    def events(self, subject: Subject) -> list[Event]:
        """Return all that became of a node, the oldest first."""
        row = self._state.nodes.get(subject.node)
        if row is None:
            return []
        contents = _line(self._state.contents, subject.heads or row.contents)
        own = self._own_positions(row, contents)
        moves = self._positions_above(subject.node)
        events: list[Event] = []
        for position in sorted(own | moves):
            here = [each for each in contents if position_of(each) <= position]
            event = self._event(row, position, here, events[-1] if events else None)
            if event is not None:
                events.append(event)
        return _with_restored(events)

    def of_path(self, path: str, subjects: Sequence[Subject], before: Iterable[NodeId]) -> list[Event]:
        """Return the versions of a path, the newest first.

        Args:
            path: From the folder's root.
            subjects: What stands there now.
            before: Nodes that may have stood there (:func:`ever_at`).
        """
        found: dict[int, Event] = {}
        current = {subject.node for subject in subjects}
        for node in before:
            if node not in current:
                found.update((event.position, event) for event in _until_it_left(self.events(Subject(node, ())), path))
        for subject in subjects:
            found.update((event.position, event) for event in self.events(subject))
        return _with_restored([found[position] for position in sorted(found)])[::-1]

    # --- One old file

    def file_at(self, path: str, nodes: Iterable[NodeId], current: NodeId | None, position: int) -> Item | None:
        """Return the file or link that a path meant right after an entry, where that is sure without folding.

        It is where only one node can have stood there, or none did and ``current`` stands there now, and nobody ever
        changed it without knowing what the others did.

        Args:
            path: From the folder's root.
            nodes: All that may have stood there (:func:`ever_at`).
            current: What stands there now.
            position: Of the entry.
        """
        key = [name_key(bytes_of(part)) for part in path.split("/")]
        found: list[NodeId] = []
        for each in nodes:
            there = self.path(each, position)
            if not self._has_plain_places(each):
                return None
            is_there = there is not None and [name_key(bytes_of(part)) for part in there.split("/")] == key
            if is_there and not self._is_surely_gone(each, position):
                found.append(each)
        if len(found) > 1 or (found and self.path(found[0], position) != path):
            return None
        node = found[0] if found else current
        return None if node is None else self._plain_file(node, position)

    def _is_surely_gone(self, node: NodeId, position: int) -> bool:
        """Tell whether a file was removed by somebody who had seen what it then held."""
        row, spot = self._state.nodes.get(node), self._spot(node, position)
        if row is None or spot is None or spot.row.kind is not PlaceKind.REMOVAL or spot.row.beaten:
            return False
        contents = _line(self._state.contents, row.contents)
        then = [each for each in contents if position_of(each) <= position]
        if not then or not _is_one_line(contents) or then[-1].value.kind is Kind.DIRECTORY:
            return False
        return spot.row.dot in (self._state.removed.get(then[-1].body) or ())

    def _plain_file(self, node: NodeId, position: int) -> Item | None:
        """Return a node as an item of then, if its registers are single lines."""
        row, spot = self._state.nodes.get(node), self._spot(node, position)
        if row is None or spot is None or spot.row.kind is not PlaceKind.MOVE or row.origin is not None or row.homes:
            return None
        if not self._has_plain_places(node):
            return None
        places = _line(self._state.places, row.places)
        contents = _line(self._state.contents, row.contents)
        then = [each for each in contents if position_of(each) <= position]
        if not then or not _is_one_line(places) or not _is_one_line(contents):
            return None
        last = then[-1]
        value = last.value
        if value.kind is Kind.DIRECTORY:
            return None
        content = Content(value.kind, value.hash, value.size, value.mtime_ns, value.executable, value.target)
        members = (Member(node, None, (last.dot,), (spot.row.dot,)),)
        return Item(node, spot.row.parent, text_of(spot.row.name), content, members)

    def _has_plain_places(self, node: NodeId) -> bool:
        """Tell whether where a node stands follows from its places alone.

        So it is where nobody moved it, or anything above it, at the same time as another. Directories that were ever
        moved to another parent may have stood elsewhere all the same, lest they stand in themselves.
        """
        row = self._state.nodes.get(node)
        contents = () if row is None else row.contents
        kinds = {load(self._state.contents, dot).value.kind for dot in contents}
        directories = self._ancestors(node) | (set() if kinds in ({Kind.FILE}, {Kind.LINK}) else {node})
        return self._is_one_line(node) and all(
            self._is_one_line(each) and self._keeps_its_parent(each) for each in directories
        )

    def _is_one_line(self, node: NodeId) -> bool:
        row = self._state.nodes.get(node)
        if row is None:
            return True
        places: list[PlaceRow] = _line(self._state.places, row.places)
        return _is_one_line(places)

    def _keeps_its_parent(self, node: NodeId) -> bool:
        return len({spot.row.parent for spot in self._spots_of(node)}) <= 1

    def way_to(self, item: Item, position: int) -> list[Item]:
        """Return the directories in which an old item stood, the highest first."""
        way: list[Item] = []
        parent = item.parent
        while parent != ROOT:
            spot = self._spot(parent, position)
            if spot is None or len(way) > limits.DEPTH_MAX:
                break
            way.append(Item(parent, spot.row.parent, text_of(spot.row.name), Content(Kind.DIRECTORY)))
            parent = spot.row.parent
        return way[::-1]

    # --- One event

    def _event(self, row: NodeRow, position: int, contents: Sequence[ContentRow], last: Event | None) -> Event | None:
        spot = self._spot(row.id, position)
        path = self.path(row.id, position)
        if path is None and row.origin is not None:  # before it was split off, it was its origin's copy
            path = self.path(row.origin, position)
        if path is None:
            return None
        content = contents[-1] if contents else None
        is_new = content is not None and position_of(content) == position
        change = _change(last, content if is_new else None, path, is_gone=self._is_gone(row, spot))
        if not change:
            return None
        kind = Kind.DIRECTORY if content is None else content.value.kind
        if spot is not None and position_of(spot.row) == position:
            entry = (spot.row.dot.device, spot.row.dot.seq)
        elif is_new and content is not None:
            entry = (content.dot.device, content.dot.seq)
        else:
            entry = self._entry_above(row.id, position)
        shown = None if change == "removed" else content
        return Event(position, entry, change, path, kind, shown)

    @staticmethod
    def _is_gone(row: NodeRow, spot: _Spot | None) -> bool:
        if spot is None or spot.row.kind is not PlaceKind.REMOVAL:
            return False
        # An edit that the removal had not seen keeps the node where it was.
        return not (row.is_alive and spot.row.dot in row.places)

    def _entry_above(self, node: NodeId, position: int) -> tuple[int, int]:
        for above in sorted(self._ancestors(node)):
            for spot in self._spots_of(above):
                if position_of(spot.row) == position:
                    return spot.row.dot.device, spot.row.dot.seq
        return 0, 0

    # --- Positions

    def _own_positions(self, row: NodeRow, contents: Sequence[ContentRow]) -> set[int]:
        places = _line(self._state.places, row.places)
        found = {position_of(each) for each in places if each.kind is not PlaceKind.KEEP}
        return found | {position_of(each) for each in places[:1]} | {position_of(each) for each in contents}

    def _positions_above(self, node: NodeId) -> set[int]:
        """Return when a directory above the node was moved, with all that it held."""
        found: set[int] = set()
        for above in self._ancestors(node):
            spots = self._spots_of(above)[1:]
            found.update(position_of(spot.row) for spot in spots if spot.row.kind is PlaceKind.MOVE)
        return found

    def _ancestors(self, node: NodeId) -> set[NodeId]:
        """Return every directory in which a node ever was."""
        found: set[NodeId] = set()
        todo = [node]
        while todo:
            for spot in self._spots_of(todo.pop()):
                parent = spot.row.parent
                if parent not in found and parent not in (node, ROOT):
                    found.add(parent)
                    todo.append(parent)
        return found

    # --- Places

    def _spot(self, node: NodeId, position: int) -> _Spot | None:
        spots = self._spots_of(node)
        at = bisect_right(spots, ((position + 1) << ORDER_BITS) - 1, key=lambda spot: spot.order)
        return spots[at - 1] if at else None

    def _spots_of(self, node: NodeId) -> list[_Spot]:
        found = self._spots.get(node)
        if found is None:
            if len(self._spots) >= CACHED_MAX:
                self._spots.clear()
            found = self._spots[node] = self._read_spots(node)
        return found

    def _read_spots(self, node: NodeId) -> list[_Spot]:
        row = self._state.nodes.get(node)
        spots: list[_Spot] = []
        heads: list[PlaceRow] = []
        for place in _line(self._state.places, () if row is None else row.places):
            heads = [head for head in heads if head.dot not in place.base] + [place]
            best = place if len(heads) == 1 else in_force(self._state.places, [head.dot for head in heads])
            spots.append(_Spot(place.order, best))
        return spots


def _is_one_line(rows: Sequence[Lineage]) -> bool:
    """Tell whether each value replaced just the one before it."""
    before: tuple[Dot, ...] = ()
    for row in rows:
        if row.base != before:
            return False
        before = (row.dot,)
    return True


def _line(table: Table[Dot, Row], heads: Iterable[Dot]) -> list[Row]:
    """Return values and all that they replaced, in the order in which they were folded."""
    found: dict[Dot, Row] = {}
    todo = list(heads)
    while todo:
        dot = todo.pop()
        if dot not in found:
            found[dot] = row = load(table, dot)
            todo.extend(row.base)
    return sorted(found.values(), key=lambda row: row.order)


def _change(last: Event | None, content: ContentRow | None, path: str, *, is_gone: bool) -> str:
    """Return what an entry did; empty if nothing that shows."""
    if last is None:
        return "" if is_gone else "created"
    if is_gone:
        return "" if last.change == "removed" else "removed"
    if last.change == "removed":
        return "restored"
    before = last.content
    if content is not None and (
        before is None or content.value.hash != before.value.hash or content.body == content.dot
    ):
        return "edited"
    if path != last.path:
        return "renamed"
    return "attributes" if content is not None else ""


def _until_it_left(events: Sequence[Event], path: str) -> Sequence[Event]:
    """Return a node's events up to the one by which it left a path for the last time; none if it never stood there."""
    stood = [number for number, event in enumerate(events) if event.path == path and event.change != "removed"]
    return events[: stood[-1] + 2] if stood else ()


def _with_restored(events: Sequence[Event]) -> list[Event]:
    """Name what brought back older bytes; the events are of one path, the oldest first."""
    seen: set[tuple[Kind, bytes]] = set()
    told: list[Event] = []
    for event in events:
        key = None if event.content is None else (event.kind, event.content.value.hash)
        last = told[-1] if told else None
        is_back = key in seen and last is not None and (last.change == "removed" or not _same(last, event))
        tells = event.content is None or _tells(event.content) or (last is not None and last.change == "removed")
        if event.change in ("created", "edited") and is_back and tells:
            told.append(msgspec.structs.replace(event, change="restored"))
        else:
            told.append(event)
        if key is not None:
            seen.add(key)
    return told


def _same(one: Event, other: Event) -> bool:
    if one.content is None or other.content is None:
        return one.content is other.content
    return one.content.value.hash == other.content.value.hash


def _tells(content: ContentRow) -> bool:
    """Tell whether equal bytes say anything: of an empty file they do not."""
    return content.value.hash != _EMPTY


def ever_at(rows: Iterable[PlaceRow], path: str) -> list[NodeId]:
    """Return the nodes that may have stood at a path, in no order that matters.

    Args:
        rows: At least all values of place registers whose name is a part of the path.
        path: From the folder's root.
    """
    parts = [name_key(bytes_of(part)) for part in path.split("/")]
    wanted = set(parts)
    kept = [(name_key(row.name), row.parent, row.node) for row in rows if name_key(row.name) in wanted]
    here: set[NodeId] = {ROOT}
    for part in parts:
        here = {node for name, parent, node in kept if name == part and parent in here}
    return sorted(here)
