"""Carry out steps on the disk and record what became of them.

Rule 1: the applier works on a snapshot of the rows that its steps need; only this module writes what it did.
Rule 2: an outcome is recorded after it is durable on the disk; a crash in between leaves the group's intents, by which
    the next start knows what stands there.
Rule 3: what came of an entry that can never be ordered is not brought any more. Where it is on the disk all the same, it
    counts as this device's own, as if it had been there before that was known.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Final

import msgspec

from peer.core.fold_state import FoldState
from peer.core.holding import is_orphan, still_bringing
from peer.core.observations import Fingerprint
from peer.core.operations import Adopt, Delete, Forget, Place, Rekey, Rename, Replace, SetAttributes, Step
from peer.core.tree import Item, ItemId, path_of
from peer.disk.applier import Applier
from peer.disk.outcomes import Done, Failed, Mismatch, Outcome
from peer.disk.roots import RootGuard, RootMissing
from peer.disk.stages import Staged
from peer.disk.undone import move_aside, place_of
from peer.engine.brake import Brake
from peer.engine.context import Context
from peer.engine.journal import RunJournal, drop_intents
from peer.engine.tasks import to_its_end
from peer.store.trees import LocalTree, SyncedTree, mark_dirty, rekey
from protocol.errors import KinfolderError, UnavailableError
from protocol.ids import ROOT

ASIDE_TOGETHER: Final = 256
KEPT: Final = "kept"
"""Why a directory that was removed elsewhere stays here: something in it is not synced."""
OCCUPIED: Final = "occupied"
"""Why it stays for the moment: something that is synced is still to go from it."""


class Snapshot:
    """The rows of the local tree that a run of steps needs."""

    def __init__(self) -> None:
        self._items: dict[ItemId, Item] = {}
        self._fingerprints: dict[ItemId, Fingerprint] = {}
        self._claims: dict[tuple[ItemId, str], Item] = {}
        self._children: dict[ItemId, tuple[Item, ...]] = {}
        self.let_go: set[ItemId] = set()
        """What leaves the disk and stays in the folder: from before it does, it counts as not synced."""

    def add_all(self, tree: LocalTree, ids: Sequence[ItemId]) -> None:
        """Take items, and all directories above them."""
        for item, seen in tree.seen(ids):
            self._items[item.id] = item
            self._fingerprints[item.id] = seen
        for item in tuple(self._items.values()):
            self.add(tree, item.parent)

    def add(self, tree: LocalTree, id: ItemId) -> None:
        """Take an item and all directories above it."""
        while id != ROOT and id not in self._items:
            item = tree.item(id)
            if item is None:
                return
            self._items[id] = item
            seen = tree.fingerprint(id)
            if seen is not None:
                self._fingerprints[id] = seen
            id = item.parent

    def add_claim(self, tree: LocalTree, item: Item) -> None:
        """Take what stands where another item is to stand."""
        there = tree.child(item.parent, item.name)
        if there is not None:
            self._claims[item.parent, item.name] = there

    def add_children(self, tree: LocalTree, item: Item) -> None:
        """Take what stands in a directory."""
        self._children[item.id] = tuple(tree.children(item.id))

    def item(self, id: ItemId) -> Item | None:
        """Return the item, or None."""
        return self._items.get(id)

    def child(self, parent: ItemId, name: str) -> Item | None:
        """Return what stands where a step brings something, or None."""
        return self._claims.get((parent, name))

    def children(self, parent: ItemId) -> tuple[Item, ...]:
        """Return what stands in a directory that a step takes away."""
        return self._children.get(parent, ())

    def fingerprint(self, id: ItemId) -> Fingerprint | None:
        """Return how the item looked when its content was hashed, or None."""
        return self._fingerprints.get(id)


class Applied(msgspec.Struct):
    """What a run of steps came to."""

    done: set[ItemId] = msgspec.field(default_factory=set)
    look_at: list[str] = msgspec.field(default_factory=list)
    """Directories to observe anew, since the disk did not hold what a step expected."""
    missed: dict[ItemId, str] = msgspec.field(default_factory=dict)
    """Items at which the disk did not hold what was expected: what stood there, ``KEPT`` or ``OCCUPIED``."""
    blocked: dict[ItemId, str] = msgspec.field(default_factory=dict)
    """Items that the disk refused, with the reason."""


class Stepper:
    """Applies steps to one folder.

    Args:
        context: Shared by all folders.
        folder: Its key.
        guard: Opens its root.
        remote: Gives the fold of its log and tail.
    """

    def __init__(
        self, context: Context, folder: int, guard: RootGuard, remote: Callable[[sqlite3.Connection], FoldState]
    ) -> None:
        self._context = context
        self._folder = folder
        self._guard = guard
        self._remote = remote

    async def apply(self, steps: Sequence[Step], staged: Mapping[ItemId, Staged], *, as_user: bool = False) -> Applied:
        """Carry out steps in order; return what came of it.

        Args:
            steps: What to do.
            staged: The finished stages of all files to be placed, by item.
            as_user: Whether this is this device's own doing, as if its user had done it: then only the local tree follows,
                and what was done is an act to be recorded.

        Raises:
            UnavailableError: The root cannot be used now.
            DiskError: Its hidden directory cannot.
        """
        applied = Applied()
        on_disk = [step for step in steps if not isinstance(step, Adopt | Forget | Rekey)]
        rest = [step for step in steps if isinstance(step, Adopt | Forget | Rekey)]
        if rest:
            await self._context.database.run(lambda db: self._record_only(db, rest))
        if on_disk and not as_user:
            planned = on_disk
            on_disk = await self._context.database.run(lambda db: still_bringing(planned, self._remote(db)))
        if on_disk:
            snapshot = await self._context.database.run(lambda db: self._snapshot(db, on_disk))
            if not as_user and any(isinstance(step, Delete) for step in on_disk):
                await self._context.database.run(lambda db: self._let_go(db, on_disk, snapshot))
            stop = threading.Event()
            note = self._record_as_user if as_user else self._record

            def record(db: sqlite3.Connection, outcomes: Sequence[Outcome]) -> None:
                note(db, outcomes, snapshot)
                # What failed half-way may stand there all the same, and what is aside is on its way.
                known = [_subject(outcome.step).id for outcome in outcomes if not _is_under_way(outcome)]
                drop_intents(db, self._folder, known)

            journal = RunJournal(self._context.database, self._folder, record, is_users=as_user)

            async def work() -> list[Outcome]:
                outcomes = await self._context.processor.run(self._run, on_disk, snapshot, staged, journal, stop)
                await self._context.database.run(journal.flush)
                return outcomes

            # Who ends this waits for the steps that are under way, and for no others: what the disk shows is recorded, or
            # it would be taken for what a user made.
            outcomes = await to_its_end(work(), stop.set)
            for outcome in outcomes:
                match outcome:
                    case Done():
                        applied.done.add(_subject(outcome.step).id)
                    case Mismatch():
                        id = _subject(outcome.step).id
                        applied.missed[id] = KEPT if _is_kept(outcome) else outcome.found
                        applied.look_at += self._places(outcome, snapshot)
                    case Failed():
                        applied.blocked[_subject(outcome.step).id] = outcome.reason
                        if _is_under_way(outcome):
                            applied.look_at += self._places(outcome, snapshot)
        return applied

    async def put_aside(self, brake: Brake) -> str:
        """Move aside what was rewritten and shall be as it was; return where it lies, "" if there was nothing.

        Raises:
            UnavailableError: The root cannot be used now.
            DiskError: It cannot be written.
        """
        place = ""
        stamp = datetime.fromtimestamp(self._context.clock.now_ms() / 1000, UTC).strftime("%Y-%m-%d %H.%M.%S")
        while rows := await self._context.database.run(lambda db: brake.returning(db, ASIDE_TOGETHER)):
            paths = [path for _, path in rows if path]
            await to_its_end(self._context.processor.run(self._move_aside, stamp, paths))
            ids = [id for id, _ in rows]
            await self._context.database.run(lambda db, ids=ids: brake.returned(db, ids))  # type: ignore[misc]
            place = place_of(stamp)
        return place

    def _move_aside(self, stamp: str, paths: Sequence[str]) -> None:
        root = self._guard.open()
        if isinstance(root, RootMissing):
            raise UnavailableError(root.text)
        with root:
            move_aside(root, stamp, paths)

    def _let_go(self, db: sqlite3.Connection, steps: Iterable[Step], snapshot: Snapshot) -> None:
        """Note, before it leaves the disk, that what is elsewhere in the folder by now is not synced here any more.

        It makes room here for what has its name, and its new name has no place on this disk. If a crash falls before its
        record, or the disk fails, its absence would count as its user's removal, for everybody.
        """
        local, synced, remote = LocalTree(db, self._folder), SyncedTree(db, self._folder), self._remote(db).tree
        gone = [step.expected.id for step in steps if isinstance(step, Delete)]
        snapshot.let_go.update(id for id in gone if path_of(remote, id) not in (None, path_of(local, id)))
        synced.drop_all(snapshot.let_go)

    def _snapshot(self, db: sqlite3.Connection, steps: Iterable[Step]) -> Snapshot:
        tree = LocalTree(db, self._folder)
        snapshot = Snapshot()
        items = [item for step in steps for item in _items(step)]
        snapshot.add_all(tree, list(dict.fromkeys(item.id for item in items)))
        for item in items:
            snapshot.add(tree, item.parent)
        for step in steps:
            if isinstance(step, Place | Rename):
                snapshot.add_claim(tree, step.item)
            elif isinstance(step, Delete | Replace) and step.expected.is_directory:
                snapshot.add_children(tree, step.expected)
        return snapshot

    def _run(
        self,
        steps: Sequence[Step],
        snapshot: Snapshot,
        staged: Mapping[ItemId, Staged],
        journal: RunJournal,
        stop: threading.Event,
    ) -> list[Outcome]:
        """Work on the disk; in the pool. Ends early, between two groups, once told to stop."""
        root = self._guard.open()
        if isinstance(root, RootMissing):
            raise UnavailableError(root.text)
        outcomes: list[Outcome] = []
        with root:
            applier = Applier(
                root,
                journal,
                self._context.clock,
                self._context.entropy,
                local=snapshot,
                staged=staged,
                outside_links=True,  # all authors are devices of one account; nothing of ours ever follows a link
            )
            try:
                with contextlib.closing(applier.apply(steps)) as done:
                    for group in done:
                        outcomes += group
                        journal.add(group)
                        if stop.is_set():
                            break
                        if self._context.stopping.is_set():
                            break
            except KinfolderError:  # the disk refuses, or the journal
                if not outcomes:
                    raise
        return outcomes

    def _record(self, db: sqlite3.Connection, outcomes: Sequence[Outcome], snapshot: Snapshot) -> None:
        local, synced, remote = LocalTree(db, self._folder), SyncedTree(db, self._folder), self._remote(db)
        gone: list[ItemId] = []

        def drop() -> None:
            local.drop_all(gone)
            synced.drop_all(gone)
            gone.clear()

        for outcome in outcomes:
            if not isinstance(outcome, Done):
                mark_dirty(db, self._folder, [_subject(outcome.step).id])
                if isinstance(outcome, Mismatch) and _subject(outcome.step).id in snapshot.let_go:
                    synced.put(_subject(outcome.step))  # it is where it was, or its user changed it or took it away
                continue
            match outcome.step:
                case Delete(expected):
                    gone.append(expected.id)
                case Rename(aside=True):
                    pass
                case Place(item) | Replace(item=item) | SetAttributes(item=item) | Rename(item=item):
                    drop()  # before what comes under the same id
                    seen = _believed(outcome, snapshot, item)
                    local.put(msgspec.structs.replace(item, members=()), seen)
                    if is_orphan(item, remote):
                        synced.drop(item.id)
                        mark_dirty(db, self._folder, [item.id])
                    else:
                        synced.put(item)
        drop()

    def _record_as_user(self, db: sqlite3.Connection, outcomes: Sequence[Outcome], snapshot: Snapshot) -> None:
        local = LocalTree(db, self._folder)
        for outcome in outcomes:
            step = outcome.step
            if not isinstance(outcome, Done) or (isinstance(step, Rename) and step.aside):
                continue
            if isinstance(step, Delete):
                local.drop(step.expected.id)
            elif isinstance(step, Place | Replace | SetAttributes | Rename):
                if isinstance(step, Rename) and step.expected.id != step.item.id:
                    local.drop(step.expected.id)
                seen = _believed(outcome, snapshot, step.item)
                local.put(msgspec.structs.replace(step.item, members=()), seen)

    def _record_only(self, db: sqlite3.Connection, steps: Sequence[Step]) -> None:
        synced = SyncedTree(db, self._folder)
        for step in still_bringing(steps, self._remote(db)):
            match step:
                case Adopt(item):
                    synced.put(item)
                case Forget(base):
                    synced.drop(base.id)
                case Rekey(old, new):
                    rekey(db, self._folder, old, new)

    @staticmethod
    def _places(outcome: Mismatch | Failed, snapshot: Snapshot) -> list[str]:
        paths = []
        found = outcome.found if isinstance(outcome, Mismatch) else ""
        for item in _items(outcome.step):
            # A directory that is not empty holds what no scan has seen, or what it held is elsewhere.
            is_within = item.is_directory and isinstance(outcome.step, Delete | Replace)
            parts: list[str] = [item.name] if is_within and found in {"not_empty", OCCUPIED, "unseen"} else []
            parent = item.parent
            while parent != ROOT:
                above = snapshot.item(parent)
                if above is None:
                    parts = []
                    break
                parts.append(above.name)
                parent = above.parent
            paths.append("/".join(reversed(parts)))
        if isinstance(outcome, Mismatch) and outcome.kept:
            paths.append(outcome.kept.rpartition("/")[0])
        return paths


def _is_kept(outcome: Mismatch) -> bool:
    """Tell whether a directory could not be removed, since something that is not synced is in it."""
    return isinstance(outcome.step, Delete) and outcome.found == "not_empty"


_UNKNOWN = Fingerprint(0, 0, -1, 0, 0, 0)
"""Fits no file, so the next scan hashes what is there."""


def _items(step: Step) -> tuple[Item, ...]:
    match step:
        case Replace(expected, item) | SetAttributes(expected, item) | Rename(expected, item):
            return (expected, item)
        case Delete(expected):
            return (expected,)
        case Place(item) | Adopt(item):
            return (item,)
        case Forget(base):
            return (base,)
        case Rekey():
            return ()


def _is_under_way(outcome: Outcome) -> bool:
    """Tell whether what was intended may still come to be, or has, though nobody said so; a name is refused for good."""
    is_aside = isinstance(outcome, Done) and isinstance(outcome.step, Rename) and outcome.step.aside
    return is_aside or (isinstance(outcome, Failed) and outcome.reason != "name")


def _believed(outcome: Done, snapshot: Snapshot, item: Item) -> Fingerprint:
    """Return how an item looks after a step. What was written in this very second could be written again without a trace."""
    seen = outcome.fingerprint or snapshot.fingerprint(item.id) or _UNKNOWN
    return seen.doubted() if seen.is_coarse and not item.is_directory else seen


def _subject(step: Step) -> Item:
    return _items(step)[-1]
