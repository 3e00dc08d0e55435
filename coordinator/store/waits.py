"""Who waits for what in one folder: segments for chunks, entries for segments and for other entries."""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import Connection, bindparam, delete, select

from coordinator.core.ordering import Wait
from coordinator.store.schema import WAITS
from coordinator.store.statements import KEYS, Prepared, groups, upsert
from protocol.ids import EntryHash, FolderId

_DELETE_WAITER = Prepared(
    delete(WAITS).where(WAITS.c.folder == bindparam("key_folder"), WAITS.c.waiter == bindparam("key_waiter"))
)
_WAITERS = Prepared(
    select(WAITS.c.waiter).where(
        WAITS.c.folder == bindparam("folder"), WAITS.c.kind == bindparam("kind"), WAITS.c.target.in_([KEYS])
    )
)
_OF_WAITER = Prepared(
    select(WAITS.c.kind).where(WAITS.c.folder == bindparam("folder"), WAITS.c.waiter == bindparam("waiter")).limit(1)
)
_ANY = Prepared(select(WAITS.c.kind).where(WAITS.c.folder == bindparam("folder")).limit(1))


class Waits:
    """The waits of one folder, within one transaction; written at once."""

    def __init__(self, connection: Connection, folder: FolderId) -> None:
        self._connection = connection
        self._folder = folder
        self._has_waits: bool | None = None

    def _any_waits(self) -> bool:
        """Tell whether anything in this folder waits; once it is known that nothing does, it costs nothing to ask."""
        if self._has_waits is None:
            self._has_waits = _ANY.value(self._connection, {"folder": self._folder}) is not None
        return self._has_waits

    def wait(self, kind: Wait, targets: Collection[bytes], waiter: bytes) -> None:
        """Note that ``waiter`` waits for each of the targets."""
        rows = [{"folder": self._folder, "kind": int(kind), "target": one, "waiter": waiter} for one in targets]
        upsert(self._connection, WAITS, rows)
        self._has_waits = self._has_waits or bool(rows)

    def is_waiting(self, waiter: bytes) -> bool:
        """Tell whether ``waiter`` waits for anything."""
        if not self._any_waits():
            return False
        return _OF_WAITER.value(self._connection, {"folder": self._folder, "waiter": waiter}) is not None

    def waits_for(self, waiter: EntryHash) -> list[EntryHash]:
        """Return the entries that an entry waits for."""
        rows = self._connection.execute(
            select(WAITS.c.target).where(
                WAITS.c.folder == self._folder, WAITS.c.waiter == waiter, WAITS.c.kind == int(Wait.ENTRY)
            )
        )
        return [EntryHash(target) for (target,) in rows]

    def waiters(self, target: EntryHash) -> list[EntryHash]:
        """Return the entries that wait for an entry."""
        return [EntryHash(one) for one in self._waiters(Wait.ENTRY, (target,))] if self._any_waits() else []

    def _waiters(self, kind: Wait, targets: Collection[bytes]) -> set[bytes]:
        found: set[bytes] = set()
        for group in groups(targets):
            rows = _WAITERS.run_for(self._connection, group, {"folder": self._folder, "kind": int(kind)})
            found.update(waiter for (waiter,) in rows)
        return found

    def redirect(self, target: EntryHash, new_target: EntryHash) -> None:
        """Let the entries that wait for ``target`` wait for ``new_target``."""
        for waiter in self.waiters(target):
            self.wait(Wait.ENTRY, (new_target,), waiter)
        self._forget(Wait.ENTRY, (target,))

    def release(self, kind: Wait, targets: Collection[bytes]) -> list[bytes]:
        """Forget all waits for the targets; return those waiters that now wait for nothing, sorted."""
        if not self._any_waits():
            return []
        waiters = self._waiters(kind, targets)
        if not waiters:
            return []
        self._forget(kind, targets)
        still: set[bytes] = set()
        for group in groups(waiters):
            rows = self._connection.execute(
                select(WAITS.c.waiter).distinct().where(WAITS.c.folder == self._folder, WAITS.c.waiter.in_(group))
            )
            still.update(waiter for (waiter,) in rows)
        return sorted(waiters - still)

    def _forget(self, kind: Wait, targets: Collection[bytes]) -> None:
        if not self._any_waits():
            return
        for group in groups(targets):
            self._connection.execute(
                delete(WAITS).where(
                    WAITS.c.folder == self._folder, WAITS.c.kind == int(kind), WAITS.c.target.in_(group)
                )
            )

    def drop_waits(self, waiter: bytes) -> None:
        """Forget whatever an entry waits for."""
        if self._any_waits():
            _DELETE_WAITER.run(self._connection, {"key_folder": self._folder, "key_waiter": waiter})
