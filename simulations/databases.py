"""The simulated doors to SQLite: in memory and inline, each commit at a moment drawn from the seed.

Rule 1: a crash leaves the last commit, cut at the same instant as everything else of the host.
Rule 2: an image is all that a database holds as of its last commit; opening one makes a database of its own.
Rule 3: a commit that changed something is an effect on the world, a query is none.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections import deque
from collections.abc import Callable
from functools import cache
from random import Random
from typing import Any, TypeVar

from coordinator.store import database as coordinators
from coordinator.store.repository import Repository
from coordinator.store.statements import raw
from peer.store.database import OPERATIONS_PER_COMMIT_MAX, STATEMENTS_MAX, Undone, run_together
from peer.store.database import Operation as DeviceOperation
from protocol.errors import UnavailableError
from simulations.delays import AT_ONCE_SHARE, COMMIT, READ, Delay
from simulations.hosts import Host, HostCrashed
from simulations.loop import SimLoop
from simulations.mishaps import settle

T = TypeVar("T")


@cache
def empty_image(schema: str) -> bytes:
    """Return an empty database with this schema; making one anew for each host would take most of a short run."""
    with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        connection.executescript(schema)
        return connection.serialize()


class _Remembered(sqlite3.Connection):
    """A database in memory of which an image is left when it is closed."""

    left: bytes | None = None

    def close(self) -> None:
        if self.left is None:
            self.left = image_of(self)
        super().close()


def open_image(image: bytes, kind: type[sqlite3.Connection] = sqlite3.Connection) -> sqlite3.Connection:
    """Open a database in memory that holds what an image holds."""
    connection = sqlite3.connect(
        ":memory:", isolation_level=None, check_same_thread=False, factory=kind, cached_statements=STATEMENTS_MAX
    )
    if image:
        connection.deserialize(image)
    # The journal of the image's file, if it had one, is no matter here; temporary tables never go to a disk.
    connection.execute("PRAGMA temp_store=MEMORY")
    return connection


def image_of(connection: sqlite3.Connection) -> bytes:
    """Return what a database in memory holds as of its last commit; a transaction that is open comes to nothing."""
    if connection.in_transaction:
        connection.execute("ROLLBACK")
    try:
        return connection.serialize()
    except sqlite3.OperationalError:
        if connection.execute("PRAGMA page_count").fetchone()[0]:
            raise
        return b""  # SQLite has no image of what was never written to


def read_image(image: bytes, query: str) -> list[tuple[Any, ...]]:
    """Return what a query finds in an image."""
    with contextlib.closing(open_image(image)) as connection:
        return connection.execute(query).fetchall()


class _Turns:
    """The writing thread of a database: what waits when its turn comes shares one moment."""

    def __init__(self, loop: SimLoop, host: Host, chance: Random, commit: Delay, run: Callable[[], None]) -> None:
        self._loop = loop
        self._host = host
        self._chance = chance
        self._commit = commit
        self._run = run
        self._is_coming = False

    def ask(self) -> None:
        """Have a turn come, if none does."""
        if self._host.is_dead:
            raise HostCrashed(self._host.name)
        if not self._is_coming:
            self._is_coming = True
            due_ns = self._loop.now_ns + self._commit.draw(self._chance)
            self._loop.call_at_ns(due_ns, self._take, context=self._host.context)

    def is_at_once(self) -> bool:
        """Draw whether what is asked for now is done before anything else happens."""
        return self._loop.is_idle and self._chance.random() < AT_ONCE_SHARE

    def _take(self) -> None:
        self._is_coming = False
        self._run()


class _Asked:
    """Somebody who waits for an operation, as the database's door sees it."""

    def __init__(self, future: asyncio.Future[Any] | None) -> None:
        self._future = future
        self._is_done = False
        self.result: Any = None
        self.error: BaseException | None = None

    def done(self) -> bool:
        return self._is_done

    def set_result(self, result: Any) -> None:
        self._settle(result, None)

    def set_exception(self, error: BaseException) -> None:
        self._settle(None, error)

    def _settle(self, result: Any, error: BaseException | None) -> None:
        self._is_done, self.result, self.error = True, result, error
        if self._future is not None:
            settle(self._future, result, error)


class SimDatabase:
    """A device's database; see :class:`peer.store.database.Database`.

    Args:
        loop: Of the run.
        host: Whose database it is.
        image: What it holds at first, of :func:`empty_image` or :meth:`image`.
        keeps: False for a rehearsal: nothing is ever committed.
        commit: How long a commit takes.
    """

    def __init__(self, loop: SimLoop, host: Host, image: bytes, *, keeps: bool = True, commit: Delay = COMMIT) -> None:
        self._loop = loop
        self._host = host
        self._keeps = keeps
        self._connection = open_image(image)
        self._undone: list[Undone] = []
        self._jobs: deque[tuple[DeviceOperation[Any], Any]] = deque()
        self._turns = _Turns(loop, host, loop.chance(f"database/{host.name}/{loop.now_ns}"), commit, self._take_turn)
        self._closed = False
        self._left: bytes | None = None
        """What it held when it was closed."""

    async def run(self, operation: DeviceOperation[T]) -> T:
        """Run one operation; when this returns, what it wrote is durable."""
        self._check_open()
        if not self._jobs and self._turns.is_at_once():
            try:
                return self.call(operation)
            except HostCrashed:
                await self._loop.never()
        self._turns.ask()
        future: asyncio.Future[T] = self._loop.create_future()
        self._jobs.append((operation, _Asked(future)))
        return await future

    def call(self, operation: DeviceOperation[T]) -> T:
        """As :meth:`run`, at once, with all that waits before it."""
        self._check_open()
        asked = _Asked(None)
        self._jobs.append((operation, asked))
        while not asked.done():
            self._commit_some()
        if asked.error is not None:
            raise asked.error
        result: T = asked.result
        return result

    def on_rollback(self, callback: Undone) -> None:
        """Call this whenever an operation was undone."""
        self._undone.append(callback)

    def scratch(self, name: str, schema: str) -> sqlite3.Connection:  # noqa: ARG002 - nothing is left that would need a name
        """Make a database in memory, which nobody else ever sees."""
        return open_image(empty_image(schema))

    async def close(self) -> None:
        """Finish what is queued and close; whoever comes later is refused."""
        self._closed = True
        while self._jobs:
            self._commit_some()
        self._left = image_of(self._connection)
        self._connection.close()

    def image(self) -> bytes:
        """Return what it holds as of its last commit: what a crash at this instant leaves."""
        return image_of(self._connection) if self._left is None else self._left

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """Return what a query of whoever looks at it from outside finds now."""
        return self._connection.execute(query).fetchall()

    def _check_open(self) -> None:
        if self._host.is_dead:
            raise HostCrashed(self._host.name)
        if self._closed:
            raise UnavailableError("the device is being closed")

    def _take_turn(self) -> None:
        self._commit_some()
        if self._jobs:
            self._turns.ask()

    def _commit_some(self) -> None:
        jobs = [self._jobs.popleft() for _ in range(min(len(self._jobs), OPERATIONS_PER_COMMIT_MAX))]
        if not jobs:
            return
        changes = self._connection.total_changes
        run_together(self._connection, jobs, self._undone, keeps=False)
        if self._keeps and self._connection.in_transaction:
            if changed := self._connection.total_changes - changes:
                self._host.effect()
                self._loop.note("commit", f"{len(jobs)} operations, {changed} rows")
            self._connection.execute("COMMIT")


class SimCoordinatorDatabase:
    """A coordinator's database; see :class:`coordinator.store.database.Database`.

    Args:
        loop: Of the run.
        host: Whose database it is.
        image: What it holds at first; None: nothing, at the newest migration.
        commit: How long a commit takes.
        read: How long a query takes.
    """

    def __init__(
        self, loop: SimLoop, host: Host, image: bytes | None = None, *, commit: Delay = COMMIT, read: Delay = READ
    ) -> None:
        self._loop = loop
        self._host = host
        self._connection = coordinators.connect_memory(image)
        self._raw = raw(self._connection)
        self._chance = loop.chance(f"database/{host.name}/{loop.now_ns}")
        self._read = read
        self._jobs: deque[tuple[Callable[[Repository], Any], asyncio.Future[Any]]] = deque()
        self._turns = _Turns(loop, host, self._chance, commit, self._take_turn)
        self._closed = False
        self._left: bytes | None = None
        """What it held when it was closed."""

    async def write(self, operation: coordinators.Operation[T]) -> T:
        """Run an operation in a transaction of its own and return its result when it is durable."""
        self._check_open("the coordinator has too much to do just now")
        if len(self._jobs) >= coordinators.WRITES_QUEUED_MAX:
            raise UnavailableError("the coordinator has too much to do just now")
        if not self._jobs and self._turns.is_at_once():
            try:
                return self._write_one(operation)
            except HostCrashed:
                await self._loop.never()
        self._turns.ask()
        future: asyncio.Future[T] = self._loop.create_future()
        self._jobs.append((operation, future))
        return await future

    async def read(self, operation: coordinators.Operation[T]) -> T:
        """Run an operation that only reads, on what is committed."""
        self._check_open("the coordinator is stopping")
        if self._turns.is_at_once():
            return self._look(operation)
        future: asyncio.Future[T] = self._loop.create_future()
        due_ns = self._loop.now_ns + self._read.draw(self._chance)
        self._loop.call_at_ns(due_ns, self._read_now, operation, future, context=self._host.context)
        return await future

    async def close(self) -> None:
        """Finish what is queued and close."""
        self._closed = True
        self._take_turn()
        self._left = image_of(self._raw)
        self._connection.close()

    def image(self) -> bytes:
        """Return what it holds as of its last commit: what a crash at this instant leaves."""
        return image_of(self._raw) if self._left is None else self._left

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """Return what a query of whoever looks at it from outside finds now."""
        return self._raw.execute(query).fetchall()

    def _check_open(self, text: str) -> None:
        if self._host.is_dead:
            raise HostCrashed(self._host.name)
        if self._closed:
            raise UnavailableError(text)

    def _take_turn(self) -> None:
        while self._jobs:
            operation, future = self._jobs.popleft()
            try:
                result = self._write_one(operation)
            except Exception as error:  # noqa: BLE001 - given to the one who asked
                settle(future, None, error)
            else:
                settle(future, result, None)

    def _write_one(self, operation: coordinators.Operation[T]) -> T:
        changes = self._raw.total_changes
        with coordinators.transaction(self._connection) as repository:
            result = operation(repository)
            if changed := self._raw.total_changes - changes:
                self._host.effect()
                self._loop.note("commit", f"{changed} rows")
        return result

    def _read_now(self, operation: coordinators.Operation[Any], future: asyncio.Future[Any]) -> None:
        try:
            result = self._look(operation)
        except Exception as error:  # noqa: BLE001 - given to the one who asked
            settle(future, None, error)
        else:
            settle(future, result, None)

    def _look(self, operation: coordinators.Operation[T]) -> T:
        changes = self._raw.total_changes
        try:
            return operation(Repository(self._connection))
        except coordinators.ERRORS as error:
            raise coordinators.foreign(error) from error
        finally:
            assert self._raw.total_changes == changes, "an operation that only reads wrote something"


class SimIndexFile:
    """The file of a storage node's index; a node opens it by :meth:`open` (its ``OpenDatabase``).

    It is a cache with ``synchronous=NORMAL``: a killed process loses nothing of it, a power cut any number of its newest
    commits, and it may be gone.

    Args:
        image: What it holds at first; empty: nothing.
    """

    def __init__(self, image: bytes = b"") -> None:
        self._at_start = image
        self._connection: _Remembered | None = None

    def open(self, anew: bool) -> sqlite3.Connection:  # noqa: FBT001 - the argument of OpenDatabase
        """Open the database, or with True make it anew and empty."""
        connection = open_image(b"" if anew else self._at_start, _Remembered)
        assert isinstance(connection, _Remembered)
        self._connection = connection
        return connection

    def after_kill(self) -> bytes:
        """Return the image that a killed process leaves."""
        if self._connection is None:
            return self._at_start
        return image_of(self._connection) if self._connection.left is None else self._connection.left

    def after_power_cut(self, chance: Random) -> bytes:
        """Return an image that a power cut may leave: all, what there was when it was opened, or nothing."""
        return chance.choice((self.after_kill(), self._at_start, b""))
