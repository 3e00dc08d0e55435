"""Put one folder's engine together from its parts."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Sequence

import msgspec

from peer.disk.journal import Swap
from peer.disk.roots import RootGuard
from peer.engine.context import Context
from peer.engine.downloader import Downloader
from peer.engine.exclusions import Exclusions
from peer.engine.folder import FolderEngine
from peer.engine.follower import Follower
from peer.engine.freeing import Freer
from peer.engine.holdings import Holdings
from peer.engine.nearby import Nearby
from peer.engine.observer import Observer
from peer.engine.previewer import Previewer
from peer.engine.recorder import Recorder
from peer.engine.reverter import Reverter
from peer.engine.safety import Safety
from peer.engine.stepper import Stepper
from peer.engine.uploader import Uploader
from peer.store.database import Database
from peer.store.folders import FolderRecord
from protocol.codec import encode

_swap = msgspec.msgpack.Decoder(tuple[bytes, Swap])
"""The path stands beside the swap as the system spells it: text that is not UTF-8 has no place in MessagePack."""


class StoredJournal:
    """The journal of swaps in the device's database; its methods are called from the pool."""

    def __init__(self, database: Database, folder: int) -> None:
        self._database = database
        self._folder = folder

    def put(self, swaps: Sequence[Swap]) -> None:
        """Add rows, or replace those with their ids; all or none, durable when it returns."""
        rows = [
            (
                self._folder,
                swap.id,
                swap.checked is not None,
                swap.time_ms,
                encode((os.fsencode(swap.path), msgspec.structs.replace(swap, path=""))),
            )
            for swap in swaps
        ]

        def operation(db: sqlite3.Connection) -> None:
            db.executemany(
                "INSERT INTO swap (folder, id, checked, time_ms, row) VALUES (?, ?, ?, ?, ?) ON CONFLICT (folder, id)"
                " DO UPDATE SET checked = excluded.checked, time_ms = excluded.time_ms, row = excluded.row",
                rows,
            )

        self._database.call(operation)

    def done(self, ids: Sequence[bytes]) -> None:
        """Drop rows; an unknown id is no error."""
        rows = [(self._folder, id) for id in ids]

        def operation(db: sqlite3.Connection) -> None:
            db.executemany("DELETE FROM swap WHERE folder = ? AND id = ?", rows)

        self._database.call(operation)

    def rows(self) -> Iterable[Swap]:
        """Return all rows in the order in which they were first put."""
        return self._select("SELECT row FROM swap WHERE folder = ? ORDER BY number", self._folder)

    def checked(self, before_ms: int, limit: int, skip: int = 0) -> Sequence[Swap]:
        """Return at most ``limit`` checked rows that were taken up to this moment, the oldest first."""
        return self._select(
            "SELECT row FROM swap WHERE folder = ? AND checked = 1 AND time_ms <= ?"
            " ORDER BY time_ms, number LIMIT ? OFFSET ?",
            *(self._folder, before_ms, limit, skip),
        )

    def count(self, *, checked: bool) -> int:
        """Return how many rows there are that were checked, or were not."""
        query = "SELECT count(*) FROM swap WHERE folder = ? AND checked = ?"
        return int(self._database.call(lambda db: db.execute(query, (self._folder, checked)).fetchone()[0]))

    def _select(self, query: str, *values: int) -> list[Swap]:
        found = self._database.call(lambda db: db.execute(query, values).fetchall())
        stored = [_swap.decode(row[0]) for row in found]
        return [msgspec.structs.replace(swap, path=os.fsdecode(path)) for path, swap in stored]


async def assemble(context: Context, record: FolderRecord) -> FolderEngine:
    """Return the engine of a folder, its state loaded, nothing started."""
    follower = Follower(context, record)
    await follower.load()
    guard = RootGuard(context.files, os.fsdecode(record.path), record.id, context.device.hex())
    journal = StoredJournal(context.database, record.key)
    observer = Observer(context, record.key, guard, journal)
    exclusions = Exclusions(context, follower, observer, guard)
    await exclusions.load()
    recorder = Recorder(context, follower, observer.is_ignored, lambda: observer.apart, observer.brake)
    stepper = Stepper(context, record.key, guard, journal)
    nearby = Nearby(Holdings(context, record.key, guard), lambda: context.lan, record.id)
    downloader = Downloader(context, lambda: follower.record, guard, nearby)
    reverter, previewer = Reverter(context, follower), Previewer(context, follower, recorder)
    return FolderEngine(
        context,
        follower,
        observer,
        recorder,
        stepper,
        exclusions,
        Freer(context, follower, observer, stepper, exclusions),
        Uploader(context, lambda: follower.record, guard),
        downloader,
        Safety(context, observer, stepper, downloader, reverter, previewer),
        nearby.holdings,
    )
