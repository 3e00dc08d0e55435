"""Carry out the brake on mass changes: note what a look found, have it wait, let it pass, or take it back.

Rule 1: what waits is recorded together with what was seen, so no crash lies between the two.
Rule 2: :mod:`peer.core.brake` decides what waits; here are only the rows.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterable

import msgspec
import structlog

from peer.core.brake import Found, Held, Waiting, files_that_matter, waiting_removals, waiting_rewrites
from peer.core.identify import Identified
from peer.core.remembered import RememberedTree
from peer.core.tree import Item, ItemId, Tree, find, path_of
from peer.core.witness import Witness
from peer.store import held
from peer.store.trees import LocalTree, SyncedTree, remembered
from protocol.ids import ROOT

log = structlog.get_logger("brake")


class Noted(msgspec.Struct, frozen=True):
    """What a look found, as it was before the local tree follows it."""

    gone: tuple[tuple[Item, str], ...]
    """Synced items that have no place now, and where they stood."""
    written: tuple[Found, ...]
    """Synced files that hold other bytes now."""
    back: tuple[ItemId, ...]
    """What is there again, or again as it was."""


class Brake:
    """One folder's brake. Every method that takes a connection runs in the database's thread."""

    def __init__(self, folder: int, witness: Witness) -> None:
        self._folder = folder
        self._witness = witness

    # --- While a look is recorded

    def note(self, db: sqlite3.Connection, found: Identified) -> Noted:
        """Return what matters of a look's outcome; to be asked before the local tree is changed."""
        if SyncedTree(db, self._folder).is_empty():
            return Noted((), (), ())
        ids = [*found.drops, *(row.item.id for row in found.puts)]
        local, synced = remembered(LocalTree(db, self._folder), ids), remembered(SyncedTree(db, self._folder), ids)
        gone = []
        for id in found.drops:
            base = synced.item(id)
            if base is not None:
                gone.append((base, path_of(local, id) or path_of(synced, id) or ""))
        written = []
        for row in found.puts:
            base = synced.item(row.item.id)
            if base is None or base.is_directory or row.item.content.same_bytes(base.content):
                continue
            path = path_of(local, row.item.id)
            seen = self._witness.saw_written
            written.append(Found(base.id, is_file=True, was_seen=path is not None and seen(path)))
        return Noted(tuple(gone), tuple(written), tuple(row.item.id for row in found.puts))

    def judge(self, db: sqlite3.Connection, noted: Noted) -> None:
        """Have wait what must; to be asked after the local tree was changed, in the same commit."""
        self.refresh(db, (*noted.back, *(base.id for base, _ in noted.gone)))
        if noted.gone:
            self._judge_removals(db, noted.gone)
        if noted.written:
            ids = waiting_rewrites(noted.written, of=self.files(db, len(noted.written)))
            self._hold(db, [(id, True) for id in ids], Waiting.REWRITE)

    def _judge_removals(self, db: sqlite3.Connection, gone: Iterable[tuple[Item, str]]) -> None:
        local = RememberedTree(LocalTree(db, self._folder))
        bases = {base.id: base for base, path in gone if find(local, path) is None}
        found = [
            Found(base.id, not base.is_directory, self._was_seen(local, base, path))
            for base, path in gone
            if base.id in bases
        ]
        files = sum(one.is_file for one in found)
        ids = waiting_removals(found, held=held.count(db, self._folder, Waiting.REMOVAL), of=self.files(db, files))
        self._hold(db, [(id, not bases[id].is_directory) for id in ids], Waiting.REMOVAL)

    def _was_seen(self, local: Tree, base: Item, path: str) -> bool:
        """Tell whether the watcher saw an item go: by the path that it had, or has since its directory moved."""
        if self._witness.saw_go(path):
            return True
        above = path_of(local, base.parent)
        return above is not None and self._witness.saw_go(f"{above}/{base.name}" if above else base.name)

    def files(self, db: sqlite3.Connection, changed: int) -> int:
        """Return how many files the folder held, as far as it matters for so many changed ones."""
        enough = files_that_matter(changed)
        files = 0
        for item in SyncedTree(db, self._folder).all():
            files += not item.is_directory
            if files == enough:
                break
        return files

    def _hold(self, db: sqlite3.Connection, ids: Collection[tuple[ItemId, bool]], what: Waiting) -> None:
        if not ids:
            return
        held.hold(db, self._folder, [(id, what, is_file) for id, is_file in ids])
        log.warning("a mass change waits", kind=what.name, items=len(ids))
        if what is Waiting.REMOVAL:
            self._hold_above(db, [id for id, _ in ids])

    def _hold_above(self, db: sqlite3.Connection, ids: Iterable[ItemId]) -> None:
        """No directory goes before what waits in it."""
        synced = SyncedTree(db, self._folder)
        above: set[ItemId] = set()
        for id in ids:
            item = synced.item(id)
            while item is not None and item.parent != ROOT and item.parent not in above:
                above.add(item.parent)
                item = synced.item(item.parent)
        known = held.waiting
        rows = [(id, Waiting.REMOVAL, False) for id in sorted(above) if known(db, self._folder, id) is None]
        held.hold(db, self._folder, rows)

    def refresh(self, db: sqlite3.Connection, ids: Iterable[ItemId]) -> None:
        """Let go of what waits for nothing any more: it came back, was taken back, or is the same elsewhere by now."""
        if not held.is_any(db, self._folder):
            return
        local, synced = LocalTree(db, self._folder), SyncedTree(db, self._folder)
        over = []
        for id in ids:
            what = held.waiting(db, self._folder, id)
            if what is not None:
                base, here = synced.item(id), local.item(id)
                if not _still_waits(what, base, here):
                    over.append(id)
        held.release(db, self._folder, over)

    # --- While it is planned

    def held(self, db: sqlite3.Connection) -> Held | None:
        """Return what tells for what an item waits; None if nothing does."""
        if not held.is_any(db, self._folder):
            return None
        return lambda id: held.waiting(db, self._folder, id)

    def waits(self, db: sqlite3.Connection, id: ItemId) -> bool:
        """Tell whether an item need not be planned until a person has spoken."""
        what = held.waiting(db, self._folder, id)
        return what is not None and (what is not Waiting.REMOVAL or LocalTree(db, self._folder).item(id) is None)

    def is_under_held(self, db: sqlite3.Connection, tree: Tree, id: ItemId) -> bool:
        """Tell whether an item cannot come to stand here since a directory above it waits."""
        item = tree.item(id)
        while item is not None and item.parent != ROOT:
            if self.waits(db, item.parent):
                return True
            item = tree.item(item.parent)
        return False

    # --- A person has spoken

    def approve(self, db: sqlite3.Connection) -> int:
        """Let all that waits pass; return how many files that are."""
        files = sum(held.count(db, self._folder, what) for what in (Waiting.REMOVAL, Waiting.REWRITE))
        held.release_all(db, self._folder)
        return files

    def take_back(self, db: sqlite3.Connection) -> tuple[int, int]:
        """Drop the change that waits; return how many removed files come back, and how many rewritten ones go aside.

        What was removed here is forgotten, so it is placed anew as the folder has it. What was rewritten is moved aside
        first (:mod:`peer.engine.aside`), so its old bytes wait until then.
        """
        synced = SyncedTree(db, self._folder)
        removed = held.count(db, self._folder, Waiting.REMOVAL)
        held.change(db, self._folder, Waiting.REWRITE, Waiting.RETURN)
        back = db.execute(
            "SELECT id FROM held WHERE folder = ? AND waiting = ?", (self._folder, int(Waiting.REMOVAL))
        ).fetchall()
        local = LocalTree(db, self._folder)
        gone = [row[0] for row in back if local.item(row[0]) is None]
        for id in gone:
            synced.drop(id)
        held.release(db, self._folder, [row[0] for row in back])
        return removed, held.count(db, self._folder, Waiting.RETURN)

    def is_returning(self, db: sqlite3.Connection) -> bool:
        """Tell whether something is to be moved aside."""
        return next(held.files(db, self._folder, Waiting.RETURN, 1), None) is not None

    def returning(self, db: sqlite3.Connection, most: int) -> list[tuple[ItemId, str]]:
        """Return some of the rewritten files that are to be moved aside, with where they stand ("" for nowhere)."""
        local = RememberedTree(LocalTree(db, self._folder))
        ids = held.files(db, self._folder, Waiting.RETURN, most)
        return [(id, path_of(local, id) or "") for id in ids]

    def returned(self, db: sqlite3.Connection, ids: Collection[ItemId]) -> None:
        """These lie aside: nothing stands in the way of their old bytes any more."""
        local, synced = LocalTree(db, self._folder), SyncedTree(db, self._folder)
        for id in ids:
            local.drop(id)
            synced.drop(id)
        held.release(db, self._folder, ids)


def _still_waits(what: Waiting, base: Item | None, here: Item | None) -> bool:
    if what is Waiting.RETURN:
        return True  # until it lies aside
    if base is None:
        return False
    if base.is_directory:
        return True  # it goes on with the last of the files in it
    if what is Waiting.REMOVAL:
        return here is None
    return here is not None and not here.content.same_bytes(base.content)
