"""Give back the room that an excluded path takes on this disk, once the folder holds all of it.

Rule 1: nothing is taken off the disk unless the ordered log holds it, which it does only when a write quorum of storage
nodes holds its bytes. If one thing is missing there, nothing is done, and the person is told what.
Rule 2: the exclusion is recorded first, so no crash makes an absence look like a removal.
Rule 3: every file is looked at again as it goes into the trash, and once more there, as with any removal.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from typing import Final

import msgspec

from peer.core.exclusions import Apart
from peer.core.operations import Delete
from peer.core.planner import Side, side_of
from peer.core.tree import Item, ItemId, Tree, find
from peer.engine.context import Context
from peer.engine.exclusions import Exclusions
from peer.engine.follower import Follower
from peer.engine.observer import Observer
from peer.engine.stepper import Stepper
from peer.store.exclusions import Unseen
from peer.store.fold_store import SqliteState
from peer.store.trees import LocalTree, SyncedTree
from protocol.errors import UserError

FREED_TOGETHER: Final = 1_000
WAITS_SHOWN_MAX: Final = 3

CHANGED: Final = "was changed on this device, and that is not sent yet"
REMOVED: Final = "was removed on this device, and that is not sent yet"
UNORDERED: Final = "is not confirmed by the coordinator yet"
MOVING: Final = "is on its way just now"
ONLY_HERE: Final = "is on this device alone: it was written while it was excluded"
PROBLEM: Final = "cannot be read, or is nothing that is synced"


class Freed(msgspec.Struct):
    """What giving room back came to."""

    files: int = 0
    bytes: int = 0
    left: list[str] = msgspec.field(default_factory=list)
    """Paths that stay: changed meanwhile, in use, or directories in which something is not synced."""


class Freer:
    """Frees paths of one folder. Who calls it holds the folder's disk."""

    def __init__(
        self, context: Context, follower: Follower, observer: Observer, stepper: Stepper, exclusions: Exclusions
    ) -> None:
        self._context = context
        self._follower = follower
        self._observer = observer
        self._stepper = stepper
        self._exclusions = exclusions

    async def free(self, path: str, is_moving: Callable[[ItemId], bool]) -> Freed:
        """Exclude a path, and take what lies there off this disk; if not all of it is in the folder, do neither.

        Args:
            path: From the root, "/" between parts.
            is_moving: Whether a transfer works on an item just now.

        Raises:
            UserError: It waits for something, which the text names; nothing was done.
            UnavailableError: The disk cannot be used now.
        """
        observer = self._observer
        try:
            observer.lifted = observer.apart.above(path)
            observer.look_everywhere()
            await observer.observe()
            if not observer.has_looked:
                raise UserError(f"nothing was freed: {observer.missing or 'the folder cannot be looked at now'}")
            observer.apart, found = await self._context.database.run(lambda db: self._take(db, path, is_moving))
            return await self._delete(found)
        finally:
            observer.lifted = None
            observer.exclude(observer.apart)

    async def _delete(self, found: list[tuple[str, Item]]) -> Freed:
        """Take items off the disk, files first and then directories from below."""
        freed = Freed()
        found.sort(key=lambda one: (one[1].is_directory, -one[0].count("/"), one[0]))
        for start in range(0, len(found), FREED_TOGETHER):
            some = found[start : start + FREED_TOGETHER]
            applied = await self._stepper.apply([Delete(item) for _, item in some], {})
            for path, item in some:
                if item.id not in applied.done:
                    freed.left.append(path)
                elif not item.is_directory:
                    freed.files += 1
                    freed.bytes += item.content.size
        return freed

    def _take(
        self, db: sqlite3.Connection, path: str, is_moving: Callable[[ItemId], bool]
    ) -> tuple[Apart, list[tuple[str, Item]]]:
        """Check that the folder holds all that lies at a path, and exclude it; return what lies there, by path.

        Raises:
            UserError: Not all is there; nothing was done.
        """
        here = list(_below(LocalTree(db, self._follower.record.key), path))
        waits = list(self._waits(db, path, here, is_moving))
        if waits:
            some = "; ".join(f"{where} {why}" for where, why in waits[:WAITS_SHOWN_MAX])
            more = f"; and {len(waits) - WAITS_SHOWN_MAX:,} more" if len(waits) > WAITS_SHOWN_MAX else ""
            raise UserError(f"nothing was freed or excluded: {some}{more}", code="not_durable")
        apart = self._exclusions.apart
        if not here and apart.above(path) != path and find(self._follower.remote(db).tree, path) is None:
            name = self._follower.record.name
            raise UserError(f"nothing was freed or excluded: there is no {path} in {name}", code="not_there")
        return (apart if apart.covers(path) else self._exclusions.put(db, path)), here

    def _waits(
        self, db: sqlite3.Connection, path: str, here: list[tuple[str, Item]], is_moving: Callable[[ItemId], bool]
    ) -> Iterator[tuple[str, str]]:
        """Yield what is not safe in the folder yet, with the reason."""
        key = self._follower.record.key
        synced, ordered = SyncedTree(db, key), SqliteState(db, key).tree
        unordered = {change.node for _, entry in self._follower.tail(db) for change in entry.header.changes}
        was_excluded = self._exclusions.apart.covers(path)
        for where, item in here:
            base = synced.item(item.id)
            if is_moving(item.id):
                yield where, MOVING
            elif base is not None and any(member.node in unordered for member in base.members):
                yield where, UNORDERED
            elif was_excluded and not _is_known(where, item, (synced, ordered)):
                yield where, ONLY_HERE
            elif not was_excluded and side_of(item, base) is not Side.SAME:
                yield where, CHANGED
        if not was_excluded:
            unseen, standing = Unseen(db, key), {item.id for _, item in here}
            for where, item in _below(synced, path):
                if item.id not in standing and unseen.why(item.id) is None:
                    yield where, REMOVED
        for raw, _ in db.execute("SELECT path, reason FROM problem WHERE folder = ?", (key,)).fetchall():
            where = os.fsdecode(raw)
            if where == path or where.startswith(f"{path}/"):
                yield where, PROBLEM


def _is_known(path: str, item: Item, trees: tuple[Tree, ...]) -> bool:
    """Whether one of the trees has these bytes at this item or at this path."""
    for tree in trees:
        for there in (tree.item(item.id), find(tree, path)):
            if there is not None and there.content.same_bytes(item.content):
                return True
    return False


def _below(tree: Tree, path: str) -> Iterator[tuple[str, Item]]:
    """Yield what a tree has at a path and below it, with its paths."""
    top = find(tree, path)
    work = [] if top is None else [(path, top)]
    while work:
        where, item = work.pop()
        yield where, item
        if item.is_directory:
            work.extend((f"{where}/{child.name}", child) for child in tree.children(item.id))
