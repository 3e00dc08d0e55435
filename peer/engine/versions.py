"""The versions of a path as this device knows them: rows of the folded state and of the log, newest first.

Rule 1: a file costs what it changed itself. For a directory the log is walked backwards, until enough was found.
Rule 2: one row for each entry; of a directory it tells what became of the directory, else of the first thing in it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from peer.core.chronicle import Chronicle, Event, Subject
from peer.core.tree import Item, find
from peer.engine.follower import Follower
from peer.engine.layout import nodes_ever_at
from peer.store import folders
from protocol.entries import Entry, Kind, parse_entry
from protocol.history import ItemKind
from protocol.ids import ChunkId, DeviceId, NodeId

VERSIONS_MAX: Final = 10_000
"""Of one path, the newest; a reply has to end somewhere."""
PAGE_ITEMS: Final = 256


class Version(msgspec.Struct, frozen=True):
    """One version of a path."""

    id: str
    """The log position in decimal, or "~" and 12 hex digits of an entry that is not ordered yet."""
    time_ms: int
    author: DeviceId | None
    label: str
    """What the author's device was called."""
    event: Event
    is_ordered: bool
    items: int
    """How many items of the path this entry changed, as far as it was counted."""

    @property
    def segments(self) -> tuple[ChunkId, ...]:
        """Where the rows of its bytes lie."""
        return () if self.event.content is None else tuple(key.id for key in self.event.content.segments)


def versions_of(db: sqlite3.Connection, follower: Follower, path: str) -> tuple[list[Version], bool]:
    """Return the versions of a path, the newest first, and whether something stands there now."""
    state = follower.remote(db)
    chronicle = Chronicle(state)
    item = find(state.tree, path) if path else None
    is_there = item is not None or not path
    before = nodes_ever_at(db, follower, path) if path else []
    events = chronicle.of_path(path, _subjects(item), before)
    names = _Names(db, follower)
    found = {event.position: names.version(event, 1) for event in events[:VERSIONS_MAX]}
    directories = {*before, *(member.node for member in item.members)} if item is not None else set(before)
    if not path or any(event.kind is Kind.DIRECTORY for event in events):
        for event, count in _below(db, follower, chronicle, directories, everything=not path):
            known = found.get(event.position)
            found[event.position] = names.version(event if known is None else known.event, count)
            if len(found) >= VERSIONS_MAX:
                break
    return [found[position] for position in sorted(found, reverse=True)], is_there


def _subjects(item: Item | None) -> list[Subject]:
    return [] if item is None else [Subject(member.node, member.content) for member in item.members]


class _Names:
    """Ids and times of versions."""

    def __init__(self, db: sqlite3.Connection, follower: Follower) -> None:
        self._db = db
        self._key = follower.record.key
        self._ordered = follower.record.position
        self._entries = follower.remote(db).entries

    def version(self, event: Event, items: int) -> Version:
        row = self._entries.get(event.entry)
        is_ordered = event.position <= self._ordered
        time_ms = folders.time_at(self._db, self._key, event.position) if is_ordered else None
        id = str(event.position)
        if not is_ordered and row is not None:
            last = self._entries.get((event.entry[0], row.last)) or row
            id = f"~{last.hash.hex()[:12]}"
        if time_ms is None:
            time_ms = 0 if row is None else row.time_ms
        author, label = (None, "") if row is None else (row.author, row.label)
        return Version(id, time_ms, author, label, event, is_ordered, items)


def _below(
    db: sqlite3.Connection, follower: Follower, chronicle: Chronicle, directories: set[NodeId], *, everything: bool
) -> Iterator[tuple[Event, int]]:
    """Yield, newest first, the first change of each entry to something in directories, and how many there were."""
    for position, entry in _entries(db, follower):
        nodes = list(dict.fromkeys(change.node for change in entry.header.changes))
        inside = [node for node in nodes if everything or chronicle.was_under(node, directories)]
        found: Event | None = None
        count = 0
        for node in inside:
            event = _event_at(chronicle, node, position)
            if event is not None and (everything or _is_in(chronicle, event, directories)):
                found, count = found or event, count + 1
        if found is not None:
            yield found, count


def _entries(db: sqlite3.Connection, follower: Follower) -> Iterator[tuple[int, Entry]]:
    key = follower.record.key
    for entry, _ in reversed(list(folders.tail(db, key))):
        yield follower.position_of(entry.header.seq), entry
    before = follower.record.position + 1
    while items := folders.log_items_before(db, key, before, PAGE_ITEMS):
        before = items[-1].position
        for item in items:
            if item.kind is ItemKind.ENTRY:
                yield item.position, parse_entry(item.data)


def _event_at(chronicle: Chronicle, node: NodeId, position: int) -> Event | None:
    events: Sequence[Event] = chronicle.events(Subject(node, ()))
    return next((event for event in events if event.position == position), None)


def _is_in(chronicle: Chronicle, event: Event, directories: set[NodeId]) -> bool:
    """Tell whether what an entry changed then stood in one of these directories, or had stood there."""
    for node in sorted(directories):
        for position in (event.position, event.position - 1):
            path = chronicle.path(node, position)
            if path is not None and event.path.startswith(path + "/"):
                return True
    return False
