"""The journal in the device's database, and what its intents mean for the trees."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from typing import Final

import msgspec

from peer.core.observations import Fingerprint
from peer.core.tree import ItemId
from peer.disk.journal import Intent, Standing, Swap
from peer.disk.outcomes import Outcome
from peer.store.database import Database
from peer.store.trees import LocalTree, SyncedTree
from protocol.codec import encode

_swap: Final = msgspec.msgpack.Decoder(tuple[bytes, Swap])
"""The path stands beside the swap as the system spells it: text that is not UTF-8 has no place in MessagePack."""
_intent: Final = msgspec.msgpack.Decoder(tuple[tuple[bytes, bytes, bytes, bytes], Intent])
"""So do its paths, the name of its item and that of its base."""
Record = Callable[[sqlite3.Connection], None]


def drop_intents(db: sqlite3.Connection, folder: int, ids: Iterable[ItemId]) -> None:
    """Forget the intents for items, of which it is known what became."""
    db.executemany("DELETE FROM intent WHERE folder = ? AND id = ?", [(folder, id) for id in ids])


class StoredJournal:
    """The journal in the device's database; its methods are called from the pool."""

    _is_users = False

    def __init__(self, database: Database, folder: int) -> None:
        self._database = database
        self._folder = folder

    def _noted(self) -> Record:
        """Return what is to be noted in the trees by the commit that begins a group."""
        return lambda _: None

    def begin(self, swaps: Sequence[Swap], intents: Sequence[Intent]) -> None:
        """Add swaps and intents, and drop intents of which the same commit notes what became of them; all or none."""
        rows = [(self._folder, i.item.id, self._is_users, _packed(i)) for i in intents]
        noted = self._noted()

        def operation(db: sqlite3.Connection) -> None:
            noted(db)
            self._put(db, swaps)
            if rows:
                db.executemany("INSERT OR REPLACE INTO intent (folder, id, as_user, row) VALUES (?, ?, ?, ?)", rows)

        self._database.call(operation)

    def put(self, swaps: Sequence[Swap]) -> None:
        """Add rows, or replace those with their ids; all or none, durable when it returns."""
        self._database.call(lambda db: self._put(db, swaps))

    def _put(self, db: sqlite3.Connection, swaps: Sequence[Swap]) -> None:
        db.executemany(
            "INSERT INTO swap (folder, id, checked, time_ms, row) VALUES (?, ?, ?, ?, ?) ON CONFLICT (folder, id)"
            " DO UPDATE SET checked = excluded.checked, time_ms = excluded.time_ms, row = excluded.row",
            [
                (
                    self._folder,
                    swap.id,
                    swap.checked is not None,
                    swap.time_ms,
                    encode((os.fsencode(swap.path), msgspec.structs.replace(swap, path=""))),
                )
                for swap in swaps
            ],
        )

    def intents(self) -> Sequence[Intent]:
        """Return all intents in the order in which they were put."""
        query = "SELECT row FROM intent WHERE folder = ? ORDER BY number"
        return [
            _unpacked(row[0]) for row in self._database.call(lambda db: db.execute(query, (self._folder,)).fetchall())
        ]

    def settled(self, intents: Sequence[Intent], standing: Sequence[Standing]) -> None:
        """Drop intents, and note in the trees those of them that came true; all or none.

        What this device did by itself, as its user would, is noted in the local tree alone: it is still to be recorded.
        """
        query = "SELECT id FROM intent WHERE folder = ? AND as_user = 1"

        def operation(db: sqlite3.Connection) -> None:
            users = {row[0] for row in db.execute(query, (self._folder,))}
            for intent, seen in standing:
                self._note(db, intent, seen, is_users=intent.item.id in users)
            drop_intents(db, self._folder, [intent.item.id for intent in intents])

        self._database.call(operation)

    def _note(self, db: sqlite3.Connection, intent: Intent, seen: Fingerprint, *, is_users: bool) -> None:
        local, item = LocalTree(db, self._folder), intent.item
        if is_users and intent.base is not None and intent.base.id != item.id:
            local.drop(intent.base.id)
        while (other := local.child(item.parent, item.name)) is not None and other.id != item.id:
            local.drop(other.id)  # it made room for this one
        local.put(msgspec.structs.replace(item, members=()), seen)
        if not is_users:
            SyncedTree(db, self._folder).put(item)

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

    def date_back(self, now_ms: int) -> None:
        """Have what was taken later than now count as taken now."""
        query = "SELECT row FROM swap WHERE folder = ? AND checked IN (0, 1) AND time_ms > ? ORDER BY number"
        late = self._select(query, self._folder, now_ms)
        if late:
            self.put([msgspec.structs.replace(swap, time_ms=now_ms) for swap in late])

    def count(self, *, checked: bool) -> int:
        """Return how many rows there are that were checked, or were not."""
        query = "SELECT count(*) FROM swap WHERE folder = ? AND checked = ?"
        return int(self._database.call(lambda db: db.execute(query, (self._folder, checked)).fetchone()[0]))

    def _select(self, query: str, *values: int) -> list[Swap]:
        found = self._database.call(lambda db: db.execute(query, values).fetchall())
        stored = [_swap.decode(row[0]) for row in found]
        return [msgspec.structs.replace(swap, path=os.fsdecode(path)) for path, swap in stored]


class RunJournal(StoredJournal):
    """The journal of one run of steps: what a group came to is noted with what the next one intends, in one commit.

    So at most one group is ever on the disk and not in the trees.
    """

    def __init__(
        self,
        database: Database,
        folder: int,
        record: Callable[[sqlite3.Connection, Sequence[Outcome]], None],
        *,
        is_users: bool,
    ) -> None:
        """Take how outcomes are noted, and whether the steps are this device's own doing, as its user would do it."""
        super().__init__(database, folder)
        self._record = record
        self._is_users = is_users
        self._waiting: list[Outcome] = []

    def add(self, outcomes: Iterable[Outcome]) -> None:
        """Take what a group came to, to be noted with the next group or by :meth:`flush`."""
        self._waiting += outcomes

    def _noted(self) -> Record:
        return self.flush

    def begin(self, swaps: Sequence[Swap], intents: Sequence[Intent]) -> None:
        """Note what waits, and begin a group."""
        super().begin(swaps, intents)
        self._waiting = []

    def flush(self, db: sqlite3.Connection) -> None:
        """Note what waits; an operation of the database."""
        self._record(db, self._waiting)


def _packed(intent: Intent) -> bytes:
    base = intent.base
    names = (intent.path, intent.old_path, intent.item.name, "" if base is None else base.name)
    bare = msgspec.structs.replace(
        intent,
        path="",
        old_path="",
        item=msgspec.structs.replace(intent.item, name=""),
        base=None if base is None else msgspec.structs.replace(base, name=""),
    )
    return encode((tuple(os.fsencode(name) for name in names), bare))


def _unpacked(row: bytes) -> Intent:
    names, bare = _intent.decode(row)
    path, old_path, name, base_name = (os.fsdecode(each) for each in names)
    return msgspec.structs.replace(
        bare,
        path=path,
        old_path=old_path,
        item=msgspec.structs.replace(bare.item, name=name),
        base=None if bare.base is None else msgspec.structs.replace(bare.base, name=base_name),
    )
