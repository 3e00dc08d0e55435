"""What a person keeps off this device, in one folder: what is named, and where it went.

Rule 1: an exclusion is recorded before anything follows from it, so no crash makes an absence look like a removal.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection

from peer.core.exclusions import EXCLUSIONS_MAX, Apart, Followed, exclusion_of, follow
from peer.core.remembered import RememberedTree
from peer.disk.roots import RootGuard, RootMissing
from peer.disk.walk import is_gone, opened, split
from peer.engine.context import Context
from peer.engine.follower import Follower
from peer.engine.observer import Observer
from peer.store.exclusions import exclusions, put_exclusions
from peer.store.trees import LocalTree, SyncedTree
from protocol.errors import UserError


class Exclusions:
    """One folder's exclusions. Who calls what changes them holds the folder's disk."""

    def __init__(self, context: Context, follower: Follower, observer: Observer, guard: RootGuard) -> None:
        self._context = context
        self._follower = follower
        self._observer = observer
        self._guard = guard

    @property
    def apart(self) -> Apart:
        """What is excluded now."""
        return self._observer.apart

    async def load(self) -> None:
        """Read what the database holds."""
        rows = await self._context.database.run(lambda db: exclusions(db, self._follower.record.key))
        self._observer.apart = Apart(rows)

    async def add(self, path: str) -> None:
        """Keep a path off this device; what lies there on the disk stays, on its own.

        Raises:
            UserError: There are too many already.
        """
        self._observer.exclude(await self._context.database.run(lambda db: self.put(db, path)))

    async def remove(self, path: str) -> None:
        """Bring a path back.

        Raises:
            UserError: It is not excluded, or only with a directory above it.
        """
        apart = self.apart
        if path not in apart.paths:
            above = apart.above(path)
            if above is not None:
                raise UserError(f"{path} is excluded with {above}: bring that back with 'kin exclude --remove'")
            raise UserError(f"{path} is not excluded: 'kin exclude' shows what is")
        kept = [each for each in apart.exclusions if each.path != path]
        await self._context.database.run(lambda db: put_exclusions(db, self._follower.record.key, kept))
        self._observer.exclude(Apart(kept))

    async def follow(self) -> bool:
        """Follow what moved; tell whether other paths are excluded now, so that all must be looked at first."""
        before = self.apart
        if not before:
            return False
        followed = await self._context.database.run(self._follow)
        rows = followed.exclusions
        if followed.vacated:
            empty = await self._context.processor.run(self._are_empty, followed.vacated)
            rows = tuple(each for each in rows if each.path not in empty)
        if rows == before.exclusions:
            return False
        await self._context.database.run(lambda db: put_exclusions(db, self._follower.record.key, rows))
        self._observer.apart = after = Apart(rows)
        if after.paths == before.paths:
            return False
        self._observer.exclude(after)
        return True

    def _follow(self, db: sqlite3.Connection) -> Followed:
        key = self._follower.record.key
        return follow(
            self.apart.exclusions,
            local=RememberedTree(LocalTree(db, key)),
            remote=RememberedTree(self._follower.remote(db).tree),
        )

    def _are_empty(self, paths: Collection[str]) -> frozenset[str]:
        """Return the paths at which nothing lies; in the pool."""
        root = self._guard.open()
        if isinstance(root, RootMissing):
            return frozenset()
        empty = set()
        with root:
            for path in paths:
                directory, name = split(path)
                try:
                    with opened(root.fs, root.handle, directory) as parent:
                        root.fs.lstat(parent, name)
                except OSError as error:
                    if is_gone(error):
                        empty.add(path)
        return frozenset(empty)

    def put(self, db: sqlite3.Connection, path: str) -> Apart:
        """Write a further exclusion down; whoever calls this tells the observer once it is durable.

        Raises:
            UserError: There are too many already.
        """
        key = self._follower.record.key
        rows = self.apart.exclusions
        if path not in self.apart.paths:
            if len(rows) >= EXCLUSIONS_MAX:
                raise UserError(f"more than {EXCLUSIONS_MAX} exclusions in one folder: exclude a directory above them")
            rows = (*rows, exclusion_of(path, synced=SyncedTree(db, key)))
        found = follow(rows, local=LocalTree(db, key), remote=self._follower.remote(db).tree)
        put_exclusions(db, key, found.exclusions)
        return Apart(found.exclusions)
