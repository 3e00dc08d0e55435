"""Revert a mass change that the log holds: find it, and name the steps that put on this disk what it took away.

What comes back does so as this device's user's own act: it is placed on the disk, and the loop records it as it records
everything else, as new versions.

Rule 1: nothing is written over but bytes that the change itself wrote, and these stay in the log.
Rule 2: what is there again already stays as it is; a name that is taken by something else is left to it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import Final

import msgspec

from peer.core.conflicts import bytes_of, conflict_names, text_of
from peer.core.entry_sealing import open_entry
from peer.core.fold_state import FoldState
from peer.core.mass_changes import MassChange, Recorded, Removed, Rewritten, came_back, mass_changes
from peer.core.operations import Place, Replace
from peer.core.tree import Content, Item, ItemId, Member, MemoryTree, Tree
from peer.engine.context import Context
from peer.engine.downloader import ToFetch
from peer.engine.follower import Follower
from peer.engine.recorder import stored_of
from peer.store import folders
from peer.store.trees import LocalTree, SyncedTree
from protocol import limits
from protocol.entries import AdmittedEntry, Entry, Kind, parse_entry
from protocol.errors import KinfolderError
from protocol.history import ItemKind
from protocol.ids import NODE_ID_BYTES, ROOT, Dot, NodeId, copy_id

ENTRIES_MAX: Final = 20_000
"""How far back a mass change is looked for."""
CHANGES_MAX: Final = 20
"""How many mass changes are looked at for one that is not reverted yet."""
NAMES_TRIED_MAX: Final = 100


class Reversal(msgspec.Struct, frozen=True):
    """How to revert a change."""

    time_ms: int
    directories: tuple[Place, ...]
    """Parents first."""
    files: tuple[Place | Replace, ...]
    sources: dict[ItemId, ToFetch]


class Reverter:
    """One folder's way back from its newest mass change."""

    def __init__(self, context: Context, follower: Follower) -> None:
        self._context = context
        self._follower = follower

    def newest(self, db: sqlite3.Connection) -> Reversal | None:
        """Return how to revert the newest mass change that is not reverted yet; None if there is none."""
        state = self._follower.remote(db)
        key = self._follower.record.key
        files = sum(not item.is_directory for item in SyncedTree(db, key).all())
        found = mass_changes(self._entries(db), files=files, is_file=lambda dot: _is_file(state, dot))
        for _, change in zip(range(CHANGES_MAX), found, strict=False):
            reversal = _Reversing(self._context, state, LocalTree(db, key), SyncedTree(db, key)).reverse(change)
            if reversal.files or reversal.directories:
                return reversal
        return None

    def offer_no_more(self, db: sqlite3.Connection) -> None:
        """What could be undone is."""
        self._follower.put_record(db, removed=(0, 0), removed_marks=())

    @property
    def is_offered(self) -> bool:
        """Whether undoing a removal is offered that another device, or a hand, may have undone meanwhile."""
        return bool(self._follower.record.removed_marks)

    def look_at_offer(self, db: sqlite3.Connection) -> None:
        """Offer to undo a removal no longer once what it took came back."""
        record = self._follower.record
        if came_back(record.removed_marks, SyncedTree(db, record.key)):
            self.offer_no_more(db)

    def _entries(self, db: sqlite3.Connection) -> Iterator[Recorded]:
        """Yield what this device knows of the log, the newest first."""
        key = self._follower.record.key
        for _, entry in reversed(self._follower.tail(db)):
            opened = self._open(entry)
            if opened is not None:
                yield Recorded(opened.payload.time_ms, opened)
        for item in folders.log_backwards(db, key, ENTRIES_MAX):
            opened = self._open(parse_entry(item.data)) if item.kind is ItemKind.ENTRY else None
            if opened is not None:
                yield Recorded(item.time_ms, opened)

    def _open(self, entry: Entry) -> AdmittedEntry | None:
        ring = self._context.folder_keys(self._follower.record.key)
        try:
            payload = open_entry(entry, ring.entry_key(entry.header.epoch))
        except KinfolderError:
            return None  # it counted as an entry without changes
        return AdmittedEntry(entry.hash, self._context.device, entry.header, payload)


def _is_file(state: FoldState, dot: Dot) -> bool:
    row = state.contents.get(dot)
    return row is not None and row.value.kind is not Kind.DIRECTORY


def _other_names(name: str, label: str, id: ItemId) -> Iterator[str]:
    """Yield the names beside one that is taken: those of a conflict copy, the same at every try."""
    for _, other in zip(range(NAMES_TRIED_MAX), conflict_names(bytes_of(name), label, id), strict=False):
        yield text_of(other)


class _Reversing:
    """Names the steps; the local tree is laid over with what they will have made."""

    def __init__(self, context: Context, state: FoldState, local: Tree, synced: Tree) -> None:
        self._context = context
        self._state = state
        self._local = local
        self._synced = synced
        self._made = MemoryTree()
        self._made_since: frozenset[tuple[bytes, bytes]] = frozenset()
        self._directories: list[Place] = []
        self._files: list[Place | Replace] = []
        self._sources: dict[ItemId, ToFetch] = {}

    def reverse(self, change: MassChange) -> Reversal:
        self._made_since = change.made_since
        for removed in change.removed:
            self._bring_back(removed)
        for rewritten in change.rewritten:
            self._write_back(rewritten)
        return Reversal(change.time_ms, tuple(self._directories), tuple(self._files), self._sources)

    def _bring_back(self, removed: Removed) -> None:
        node = self._state.nodes.get(removed.node)
        if node is not None and node.is_alive:
            return  # somebody kept it
        if not any(_is_file(self._state, dot) for dot in removed.bodies):
            self._directory((removed.name, *self._way(removed.parent)))
            return
        parent = self._directory(self._way(removed.parent))
        if parent is None:
            return
        for dot in removed.bodies:
            row = self._state.contents.get(dot)
            if row is not None and row.value.kind is not Kind.DIRECTORY:
                self._bring_content(removed.node, dot, parent, text_of(removed.name))

    def _bring_content(self, node: NodeId, dot: Dot, parent: ItemId, name: str) -> None:
        version = self._state.content(node, dot)
        if version is None:
            return
        value, id = version.value, self._new_id()
        content = Content(value.kind, value.hash, value.size, value.mtime_ns, value.executable, value.target)
        names = _other_names(name, version.entry.label, copy_id(node, dot))
        for free in (name, *names):
            there = self._child(parent, free)
            if there is None:
                item = Item(id, parent, free, content, (Member(node, None, (dot,), ()),))
                self._made.put(item)
                self._files.append(Place(item))
                if value.kind is Kind.FILE:
                    self._sources[id] = ToFetch(item, stored_of(value, version.segments), "")
                return
            if there.content.same_bytes(content) or (bytes_of(name), value.hash) in self._made_since:
                return  # it is back, or was and has been written to since

    def _write_back(self, rewritten: Rewritten) -> None:
        item, here = self._state.tree.item(rewritten.node), self._local.item(rewritten.node)
        version = self._state.content(rewritten.node, rewritten.old)
        if item is None or here is None or version is None or item != self._synced.item(item.id):
            return
        if item.content.hash != rewritten.new or here.content != item.content:
            return  # it was written again since: that is not undone
        value = version.value
        content = Content(value.kind, value.hash, value.size, value.mtime_ns, value.executable, value.target)
        if content.same_bytes(here.content) or content.kind is Kind.DIRECTORY:
            return
        old = Item(here.id, here.parent, here.name, content, (Member(rewritten.node, None, (rewritten.old,), ()),))
        self._files.append(Replace(here, old))
        if value.kind is Kind.FILE:
            self._sources[here.id] = ToFetch(old, stored_of(value, version.segments), "")

    # --- Places

    def _way(self, node: NodeId) -> tuple[bytes, ...]:
        """Return the names from a directory node up to the root, by where it stands or stood last."""
        names: list[bytes] = []
        while node != ROOT and len(names) < limits.DEPTH_MAX:
            row = self._state.nodes.get(node)
            if row is None or row.at is None:
                break
            names.append(row.name)
            node = row.parent
        return tuple(names)

    def _directory(self, way: tuple[bytes, ...]) -> ItemId | None:
        """Return the directory at a place, to be made if it is missing; None where a file has its name."""
        here: ItemId = ROOT
        for name in reversed(way):
            there = self._child(here, text_of(name))
            if there is not None and not there.is_directory:
                return None
            if there is None:
                there = Item(self._new_id(), here, text_of(name), Content(Kind.DIRECTORY))
                self._made.put(there)
                self._directories.append(Place(there))
            here = there.id
        return here

    def _child(self, parent: ItemId, name: str) -> Item | None:
        return self._made.child(parent, name) or self._local.child(parent, name)

    def _new_id(self) -> ItemId:
        return NodeId(self._context.entropy(NODE_ID_BYTES))
