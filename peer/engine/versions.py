"""The versions of a path as this device knows them: rows of the folded state and of the log, newest first.

Rule 1: a file costs what it changed itself. For a directory the log is walked backwards, until enough was found.
Rule 2: one row for each entry; of a directory it tells what became of the directory, else of the first thing in it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import Final

import msgspec

from peer.core.chronicle import Chronicle, Event, Subject
from peer.core.tree import find
from peer.engine.follower import Follower
from peer.engine.layout import nodes_ever_at
from peer.store import folders
from protocol.entries import Entry, Kind, parse_entry
from protocol.history import ItemKind
from protocol.ids import ChunkId, DeviceId, NodeId

VERSIONS_MAX: Final = 10_000
"""Of one path, the newest; a reply has to end somewhere."""
PAGE_ITEMS: Final = 256
EVENTS_MAX: Final = 50_000
"""Remembered at once while a directory's history is put together."""


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


class Versions:
    """Finds the versions of a path; all of it runs in the database's thread, a page of the log at a time."""

    def __init__(self, db: sqlite3.Connection, follower: Follower, path: str) -> None:
        state = follower.remote(db)
        chronicle = Chronicle(state)
        item = find(state.tree, path) if path else None
        self.is_there = item is not None or not path
        """Whether something stands there now."""
        before = nodes_ever_at(db, follower, path) if path else []
        subjects = [] if item is None else [Subject(member.node, member.content) for member in item.members]
        events = chronicle.of_path(path, subjects, before)
        self._names = _Names(db, follower)
        self._found = {event.position: self._names.version(event, 1) for event in events[:VERSIONS_MAX]}
        self._below: Iterator[tuple[Event, int] | None] = iter(())
        if not path or any(event.kind is Kind.DIRECTORY for event in events):
            directories = {*before, *(subject.node for subject in subjects)}
            self._below = _below(db, follower, chronicle, directories, everything=not path)

    def step(self) -> bool:
        """Look at one more page of the log; tell whether there is another."""
        for found in self._below:
            if len(self._found) >= VERSIONS_MAX:
                return False
            if found is None:
                return True
            event, count = found
            known = self._found.get(event.position)
            self._found[event.position] = self._names.version(event if known is None else known.event, count)
        return False

    def newest_first(self) -> list[Version]:
        """Return what was found."""
        return [self._found[position] for position in sorted(self._found, reverse=True)]


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
) -> Iterator[tuple[Event, int] | None]:
    """Yield, newest first, the first change of each entry to something in directories, and how many there were.

    After each page of the log it yields None.
    """
    known = _Events(chronicle)
    for position, entry in _entries(db, follower):
        if entry is None:
            yield None
            continue
        nodes = list(dict.fromkeys(change.node for change in entry.header.changes))
        inside = [node for node in nodes if everything or chronicle.was_under(node, directories)]
        found: Event | None = None
        count = 0
        for node in inside:
            event = known.at(node, position)
            if event is not None and (everything or _is_in(chronicle, event, directories)):
                found, count = found or event, count + 1
        if found is not None:
            yield found, count


def _entries(db: sqlite3.Connection, follower: Follower) -> Iterator[tuple[int, Entry | None]]:
    key = follower.record.key
    yield from reversed(follower.tail(db))
    before = follower.record.position + 1
    while items := folders.log_items_before(db, key, before, PAGE_ITEMS):
        before = items[-1].position
        for item in items:
            if item.kind is ItemKind.ENTRY:
                yield item.position, parse_entry(item.data)
        yield before, None


class _Events:
    """What became of nodes, remembered while the walk comes by them again and again."""

    def __init__(self, chronicle: Chronicle) -> None:
        self._chronicle = chronicle
        self._known: dict[NodeId, dict[int, Event]] = {}
        self._count = 0

    def at(self, node: NodeId, position: int) -> Event | None:
        events = self._known.get(node)
        if events is None:
            events = {event.position: event for event in self._chronicle.events(Subject(node, ()))}
            self._count += len(events)
            if self._count > EVENTS_MAX:
                self._known.clear()
                self._count = len(events)
            self._known[node] = events
        return events.get(position)


def _is_in(chronicle: Chronicle, event: Event, directories: set[NodeId]) -> bool:
    """Tell whether what an entry changed then stood in one of these directories, or had stood there."""
    for node in sorted(directories):
        for position in (event.position, event.position - 1):
            path = chronicle.path(node, position)
            if path is not None and event.path.startswith(path + "/"):
                return True
    return False
