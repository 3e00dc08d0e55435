"""Find the mass changes that a folder's log holds, the newest first, so that one of them can be reverted.

An act of a person or a program may be many entries: a scan finds it in parts, and an entry holds only so much. What one
device recorded with pauses of at most :data:`PAUSE_MS` counts as one change.

Rule 1: pure. The log is read backwards, and no further than the change that is asked for.
Rule 2: what is a mass is told by the brake's own measure, with the most files that the folder held meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final, NamedTuple

import msgspec

from peer.core.brake import is_mass
from peer.core.conflicts import bytes_of, text_of
from peer.core.tree import Item, Tree, find, path_of
from protocol.entries import AdmittedEntry, ContentValue, Kind, PlaceValue, RemovalValue
from protocol.ids import Dot, NodeId

PAUSE_MS: Final = 60_000
MARKS_MAX: Final = 8


class Recorded(NamedTuple):
    """An entry and when it was ordered, or recorded if it was not yet."""

    time_ms: int
    entry: AdmittedEntry


class Removed(NamedTuple):
    """A node that a change removed."""

    node: NodeId
    bodies: tuple[Dot, ...]
    """The contents that it had."""
    parent: NodeId
    name: bytes
    """With ``parent``: its last place."""


class Rewritten(NamedTuple):
    """A node that a change gave other bytes."""

    node: NodeId
    old: Dot
    """The content before the change."""
    new: bytes
    """Hash of the content after it."""


class MassChange(msgspec.Struct, frozen=True):
    """What one device did to many files: either of the two."""

    time_ms: int
    """Of its first entry."""
    removed: tuple[Removed, ...] = ()
    """Directories among them."""
    rewritten: tuple[Rewritten, ...] = ()
    made_since: frozenset[tuple[bytes, bytes]] = frozenset()
    """(name, hash) of files that were made after it: what was removed may have been brought back already."""


class Mark(NamedTuple):
    """One of the files that a mass removal took, by which it is seen that they came back."""

    path: bytes
    """As names are in entries: not all of them are text."""
    hash: bytes


def marks_of(files: Sequence[Item], synced: Tree) -> tuple[Mark, ...]:
    """Return a few of the files that are being removed, from all over them, at most :data:`MARKS_MAX`.

    Args:
        files: What is removed.
        synced: As it was before.
    """
    step = max(1, len(files) // MARKS_MAX)
    found = ((path_of(synced, item.id), item.content.hash) for item in files[::step][:MARKS_MAX])
    return tuple(Mark(bytes_of(path), hash) for path, hash in found if path)


def came_back(marks: Sequence[Mark], synced: Tree) -> bool:
    """Tell whether a removal was undone, by whomever: all names are there again, if some of them for other files by now."""
    there = [(mark, find(synced, text_of(mark.path))) for mark in marks]
    return all(item is not None for _, item in there) and any(
        item is not None and item.content.hash == mark.hash for mark, item in there
    )


class _Run:
    """Removals or rewrites of one device, read from their end to their beginning."""

    def __init__(self, time_ms: int) -> None:
        self.time_ms = time_ms
        self.held = 0
        """The most files that the folder held while it lasted."""
        self.removed: dict[NodeId, Removed] = {}
        self.rewritten: dict[NodeId, Rewritten] = {}
        self.files: set[NodeId] = set()
        self.made_since = 0
        """How many names and contents were made after it."""


def mass_changes(log: Iterable[Recorded], *, files: int, is_file: Callable[[Dot], bool]) -> Iterator[MassChange]:
    """Yield the mass changes of a folder, those first that ended last, as far as the log is given.

    Args:
        log: Its entries, the newest first.
        files: How many files it holds after the newest.
        is_file: Whether a content is a file's or a link's.
    """
    reading = _Reading(files, is_file)
    for time_ms, entry in log:
        yield from reading.take_ended(time_ms)
        reading.read(time_ms, entry)
    yield from reading.take_ended(None)


class _Reading:
    """The log as far as it was read backwards."""

    def __init__(self, files: int, is_file: Callable[[Dot], bool]) -> None:
        self._files = files
        self._is_file = is_file
        self._runs: dict[tuple[int, bool], _Run] = {}
        """By device, and whether it is about removals."""
        self._made: dict[tuple[bytes, bytes], int] = {}
        """Name and hash of files that were made, numbered backwards."""

    def take_ended(self, time_ms: int | None) -> Iterator[MassChange]:
        """Yield the changes that an entry of this moment does not continue; all at the log's beginning."""
        ended = [key for key, run in self._runs.items() if time_ms is None or time_ms < run.time_ms - PAUSE_MS]
        for run in sorted((self._runs.pop(key) for key in ended), key=lambda run: -run.time_ms):
            if is_mass(len(run.files), run.held):
                made = frozenset(key for key, number in self._made.items() if number < run.made_since)
                yield MassChange(run.time_ms, tuple(run.removed.values()), tuple(run.rewritten.values()), made)

    def read(self, time_ms: int, entry: AdmittedEntry) -> None:
        names = {}
        for change, value in zip(entry.header.changes, entry.payload.values, strict=True):
            match value:
                case RemovalValue():
                    self._remove(self._run(entry, time_ms, is_removal=True), change.node, value)
                case ContentValue() if value.kind is not Kind.DIRECTORY and change.base and value.body is None:
                    self._rewrite(self._run(entry, time_ms, is_removal=False), change.node, change.base[0], value)
                case PlaceValue():
                    names[change.node] = value.name
        for change, value in zip(entry.header.changes, entry.payload.values, strict=True):
            if isinstance(value, ContentValue) and value.kind is not Kind.DIRECTORY and not change.base:
                self._files -= 1
                self._made.setdefault((names.get(change.node, b""), value.hash), len(self._made))
        for run in self._runs.values():
            run.held = max(run.held, self._files)

    def _run(self, entry: AdmittedEntry, time_ms: int, *, is_removal: bool) -> _Run:
        key = (entry.header.device, is_removal)
        if key not in self._runs:
            self._runs[key] = run = _Run(time_ms)
            run.held, run.made_since = self._files, len(self._made)
        self._runs[key].time_ms = min(time_ms, self._runs[key].time_ms)
        return self._runs[key]

    def _remove(self, run: _Run, node: NodeId, value: RemovalValue) -> None:
        run.removed.setdefault(node, Removed(node, value.removed, value.parent, value.name))
        if any(self._is_file(body) for body in value.removed):
            run.files.add(node)
            self._files += 1

    def _rewrite(self, run: _Run, node: NodeId, old: Dot, value: ContentValue) -> None:
        later = run.rewritten.get(node)
        run.rewritten[node] = Rewritten(node, old, value.hash if later is None else later.new)
        run.files.add(node)
