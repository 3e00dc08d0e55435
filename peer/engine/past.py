"""The folder as it was: a prefix of the log, folded into a private database that is gone with its process.

Rule 1: the log is read in pages and opened in the pool, so memory does not grow with it and nobody waits long.
Rule 2: the file lies in the home, readable by its owner alone, and has no name any more while it is used.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import msgspec

from peer.core.entry_sealing import open_entry
from peer.core.fold import fold
from peer.core.tree import Item
from peer.engine.context import Context, FolderRing
from peer.engine.follower import Follower
from peer.store import folders
from peer.store.database import Database
from peer.store.fold_store import FOLD_SCHEMA, SqliteState
from protocol.entries import AdmittedEntry, Entry, parse_entry
from protocol.errors import KinfolderError, UserError
from protocol.history import ItemKind, LogItem
from protocol.ids import DeviceId, EntryHash, NodeId
from protocol.membership import ControlState

PAGE_ITEMS: Final = 128
_PAST_KEY: Final = 1
_LAID_KEY: Final = 2
"""Two trees in one database: the old one, and how the disk shall look."""


class Moment(msgspec.Struct, frozen=True):
    """A state of a folder, by the entries that made it."""

    position: int
    """All ordered entries up to here."""
    tail: EntryHash | None = None
    """And the unordered ones up to this one, it included."""
    own: tuple[int, int] | None = None
    """Of a snapshot: (device number, sequence number). After ``position`` only this device's entries before that count."""


class Past:
    """An old state and room for a tree beside it; close it after use."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self.state = SqliteState(db, _PAST_KEY)
        self.laid = SqliteState(db, _LAID_KEY).tree
        """Where the tree that shall be is put together."""

    @staticmethod
    def open(database: Database, name: str) -> Past:
        """Make an empty one; runs in the pool.

        Raises:
            UserError: The disk that holds the home does not take it.
        """
        try:
            db = database.scratch(name, FOLD_SCHEMA)
        except (OSError, sqlite3.Error) as error:
            raise UserError(f"an older state cannot be put together: {error}", code="disk_full") from error
        return Past(db)

    @staticmethod
    def of(database: Database, name: str, items: Iterable[Item]) -> Past:
        """Make one of which only these items are known; runs in the pool.

        Raises:
            UserError: The disk that holds the home does not take it.
        """
        past = Past.open(database, name)
        with past.together():
            for item in items:
                past.state.tree.put(item)
        return past

    def laid_ids(self) -> list[NodeId]:
        """Return the ids of all items that were laid out."""
        rows = self._db.execute("SELECT id FROM fold_item WHERE folder = ? ORDER BY id", (_LAID_KEY,))
        return [NodeId(row[0]) for row in rows]

    def clear_laid(self) -> None:
        """Begin to lay out anew."""
        self._db.execute("DELETE FROM fold_item WHERE folder = ?", (_LAID_KEY,))

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Write what is done in the block at once.

        Raises:
            UserError: There is no room for it.
        """
        try:
            self._db.execute("BEGIN")
            yield
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            raise UserError(
                f"an older state cannot be put together: {error}; free some space", code="disk_full"
            ) from error

    def close(self) -> None:
        """Let go of it."""
        self._db.close()


async def fold_past(context: Context, follower: Follower, moment: Moment) -> Past:
    """Return the state of a folder at a moment.

    Raises:
        UserError: The disk that holds the home has no room for it.
    """
    run = context.processor.run
    past: Past = await run(Past.open, context.database, context.entropy(8).hex())
    try:
        key, control = follower.record.key, follower.control
        assert control is not None
        ring, after = context.folder_keys(key), 0
        last = follower.record.position if moment.own is not None else moment.position
        while after < last:
            items = await context.database.run(lambda db, after=after: folders.log_items(db, key, after, PAGE_ITEMS))  # type: ignore[misc]
            if not items:
                break
            after = items[-1].position
            await run(_fold_items, past, control, ring, [item for item in items if item.position <= last], moment)
        if moment.tail is not None or moment.own is not None:
            tail = await context.database.run(follower.tail)
            await run(_fold_tail, past, control, ring, tail, moment)
    except BaseException:
        past.close()
        raise
    return past


def _fold_items(past: Past, control: ControlState, ring: FolderRing, items: Sequence[LogItem], moment: Moment) -> None:
    """Fold a page of the log, runs of neighbours together."""
    with past.together():
        together: list[AdmittedEntry] = []
        first = 0
        for item in items:
            entry = parse_entry(item.data) if item.kind is ItemKind.ENTRY else None
            admitted = None
            if entry is not None and (item.position <= moment.position or _is_own(entry, moment)):
                admitted = _open(entry, control, ring)
            if admitted is None or (together and first + len(together) != item.position):
                if together:
                    fold(past.state, together, position=first)
                together = []
            if admitted is not None:
                first = first if together else item.position
                together.append(admitted)
        if together:
            fold(past.state, together, position=first)


def _fold_tail(
    past: Past, control: ControlState, ring: FolderRing, tail: Iterable[tuple[int, Entry]], moment: Moment
) -> None:
    with past.together():
        for position, entry in tail:
            if moment.own is not None and not _is_own(entry, moment):
                continue
            admitted = _open(entry, control, ring)
            if admitted is not None:
                fold(past.state, [admitted], position=position)
            if entry.hash == moment.tail:
                break


def _is_own(entry: Entry, moment: Moment) -> bool:
    header = entry.header
    return moment.own is not None and header.device == moment.own[0] and header.seq < moment.own[1]


def _open(entry: Entry, control: ControlState, ring: FolderRing) -> AdmittedEntry | None:
    """Open an entry of this device's own copy of the log; one that breaks the format counts as empty, as it did at first."""
    enrolment = control.enrolment(entry.header.device)
    author = DeviceId(bytes(32)) if enrolment is None else enrolment.device
    try:
        payload = open_entry(entry, ring.entry_key(entry.header.epoch))
    except KinfolderError:
        return None
    return AdmittedEntry(entry.hash, author, entry.header, payload)
