"""The local database: one SQLite file, one connection, one thread, many operations to a commit.

An operation is a synchronous function of a connection; the threaded door below runs it in its own thread, an inline
one runs the same function at once (for virtual time). Operations that wait together share one commit, each under a
savepoint of its own, so one that fails undoes only itself.

Rule 1: what an operation returned is durable (WAL, ``synchronous=FULL``).
Rule 2: an operation touches nothing but its connection and its arguments.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import queue
import sqlite3
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

import msgspec

from protocol.errors import CorruptStateError, UnavailableError, UserError

T = TypeVar("T")
Operation = Callable[[sqlite3.Connection], T]
Undone = Callable[[sqlite3.Connection], None]

OPERATIONS_PER_COMMIT_MAX: Final = 128
PAGE_CACHE_KIB: Final = 16 * 1024
STATEMENTS_MAX: Final = 1_024
"""Statements that a connection keeps compiled: all that there are, with each length of their lists of keys."""


class Database(Protocol):
    """The door to the device's database."""

    async def run(self, operation: Operation[T]) -> T:
        """Run one operation; when this returns, what it wrote is durable."""

    def call(self, operation: Operation[T]) -> T:
        """As :meth:`run`, for a thread of the pool; the event loop's own thread must not wait so."""

    def on_rollback(self, callback: Undone) -> None:
        """Call this, in the thread of the operations, whenever one was undone: what memory holds of it is not so."""

    def scratch(self, name: str, schema: str) -> sqlite3.Connection:
        """Make a database of its own, on the disk that holds this one; it is gone once it is closed. Blocks.

        Args:
            name: As no other has it that is open.
            schema: Statements that make its tables.

        Raises:
            OSError, sqlite3.Error: The disk does not take it.
        """

    async def close(self) -> None:
        """Finish what is queued and close the file."""


SCRATCH: Final = "past-"
"""How the name of the file of a scratch database begins."""
SCRATCH_CACHE_KIB: Final = 32 * 1024
_UNWRITABLE: Final = frozenset(
    {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN}
)
"""What the disk refuses; the database itself is whole."""


def connect(path: Path | str) -> sqlite3.Connection:
    """Open the database with the settings that durability needs.

    Raises:
        CorruptStateError: The file is no database, or its pages are damaged.
        UserError: It cannot be opened.
    """
    if isinstance(path, Path):
        _keep_private(path)
    try:
        connection = sqlite3.connect(
            path, isolation_level=None, check_same_thread=False, cached_statements=STATEMENTS_MAX
        )
        for pragma in (
            "journal_mode=WAL",
            "synchronous=FULL",
            f"cache_size=-{PAGE_CACHE_KIB}",
            "temp_store=MEMORY",
            "wal_autocheckpoint=2000",
            "journal_size_limit=16777216",
        ):
            connection.execute(f"PRAGMA {pragma}")
        if connection.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok":
            raise CorruptStateError(f"the database {path} is damaged")
    except sqlite3.DatabaseError as error:
        if error.sqlite_errorcode & 0xFF in _UNWRITABLE:
            raise UserError(
                f"the disk that holds {path} cannot be written ({error}): is it full, or read-only?", code="disk_full"
            ) from error
        raise CorruptStateError(f"the database {path} is damaged ({error})") from error
    return connection


def make_scratch(directory: Path, name: str, schema: str) -> sqlite3.Connection:
    """Make a database whose file has no name any more, so that it goes with whoever holds it.

    Raises:
        OSError, sqlite3.Error: The disk does not take it.
    """
    path = directory / f"{SCRATCH}{name}.db"
    try:
        for left in directory.glob(f"{SCRATCH}*.db"):  # by a process that was killed between these few lines
            left.unlink(missing_ok=True)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
        connection = sqlite3.connect(
            path, isolation_level=None, check_same_thread=False, cached_statements=STATEMENTS_MAX
        )
        for pragma in (
            "journal_mode=OFF",
            "synchronous=OFF",
            "locking_mode=EXCLUSIVE",
            f"cache_size=-{SCRATCH_CACHE_KIB}",
        ):
            connection.execute(f"PRAGMA {pragma}")
        connection.executescript(schema)
    finally:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
    return connection


def _keep_private(path: Path) -> None:
    """Make the file, or an older one, readable by its owner alone; SQLite gives its other files the same mode."""
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise UserError(f"the database {path} cannot be opened: {error.strerror}") from error
    try:
        os.fchmod(handle, 0o600)
    finally:
        os.close(handle)


def run_together(
    connection: sqlite3.Connection,
    jobs: list[tuple[Operation[Any], Future[Any]]],
    undone: Sequence[Undone] = (),
    *,
    keeps: bool = True,
) -> None:
    """Run operations in one transaction, each under a savepoint, and settle their futures after the commit.

    ``undone`` are called after each rollback and before anything else is run or anybody told. With ``keeps`` false nothing
    is ever committed: the transaction goes on, later operations see what earlier ones wrote, and closing undoes it all.

    Where the disk does not take the transaction, whoever wrote in it is told. The others had no part in that: they are run
    once more, each alone.
    """
    done: list[tuple[Future[Any], Any]] = []
    wrote: set[int] = set()
    is_alone = len(jobs) == 1 and not connection.in_transaction
    try:
        if not connection.in_transaction:
            connection.execute("BEGIN IMMEDIATE")
        for number, (operation, future) in enumerate(jobs):
            before = connection.total_changes
            if is_alone:  # the transaction is its savepoint
                done.append((future, operation(connection)))
                break
            connection.execute("SAVEPOINT operation")
            try:
                result = operation(connection)
            except BaseException as error:
                if not connection.in_transaction:  # SQLite gave the whole transaction up (disk full, I/O error)
                    raise
                connection.execute("ROLLBACK TO operation")
                _tell(undone, connection)
                future.set_exception(_ours(error))
            else:
                done.append((future, result))
            finally:
                if connection.total_changes != before or not connection.in_transaction:
                    wrote.add(number)
                if connection.in_transaction:
                    connection.execute("RELEASE operation")
        if keeps:
            connection.execute("COMMIT")
    except BaseException as error:  # noqa: BLE001 - nothing of this transaction is durable: all who wait are told
        with contextlib.suppress(sqlite3.Error):
            if connection.in_transaction:
                connection.execute("ROLLBACK")
        _tell(undone, connection)
        may_go_on = len(jobs) > 1 and isinstance(error, sqlite3.Error)
        for number, job in enumerate(jobs):
            if not job[1].done() and (number in wrote or not may_go_on):
                job[1].set_exception(_ours(error))
            elif not job[1].done():
                run_together(connection, [job], undone, keeps=keeps)
        return
    for future, result in done:
        future.set_result(result)


def _tell(undone: Sequence[Undone], connection: sqlite3.Connection) -> None:
    for callback in undone:
        callback(connection)


def _ours(error: BaseException) -> BaseException:
    if isinstance(error, sqlite3.OperationalError) and "full" in str(error):
        return UserError("the disk that holds Kinfolder's state is full: free some space", code="disk_full")
    if isinstance(error, msgspec.MsgspecError):
        return CorruptStateError(f"the device's database is damaged: {error}")
    if isinstance(error, sqlite3.DatabaseError) and not isinstance(
        error, sqlite3.IntegrityError | sqlite3.ProgrammingError
    ):
        return CorruptStateError(f"the device's database cannot be used: {error}")
    return error


def _retrieve(waiting: asyncio.Future[Any]) -> None:
    if not waiting.cancelled():
        waiting.exception()


class ThreadedDatabase:
    """The door with a thread of its own."""

    def __init__(self, path: Path, schema: str, *, keeps: bool = True) -> None:
        """Open the file.

        Args:
            path: Of the database.
            schema: Statements that make what is not there yet.
            keeps: False for a rehearsal: whatever is written is gone when this is closed.
        """
        self._path = path
        self._connection = connect(path)
        self._connection.executescript(schema)
        self._keeps = keeps
        self._undone: list[Undone] = []
        self._closed = False
        self._jobs: queue.SimpleQueue[tuple[Operation[Any], Future[Any]] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="database", daemon=True)
        self._thread.start()

    async def run(self, operation: Operation[T]) -> T:
        """Run one operation; when this returns, what it wrote is durable."""
        future = self._queue(operation)
        # Whoever is cancelled while it waits leaves the operation to be finished.
        waiting = asyncio.wrap_future(future)
        waiting.add_done_callback(_retrieve)
        return await asyncio.shield(waiting)

    def call(self, operation: Operation[T]) -> T:
        """As :meth:`run`, for a thread of the pool; the event loop's own thread must not wait so."""
        return self._queue(operation).result()

    def _queue(self, operation: Operation[T]) -> Future[T]:
        if self._closed:
            raise UnavailableError("the device is being closed")
        future: Future[T] = Future()
        self._jobs.put((operation, future))
        return future

    def on_rollback(self, callback: Undone) -> None:
        """Call this, in the database's thread, whenever an operation was undone."""
        self._undone.append(callback)

    def scratch(self, name: str, schema: str) -> sqlite3.Connection:
        """Make a database of its own beside this one."""
        return make_scratch(self._path.parent, name, schema)

    async def close(self) -> None:
        """Finish what is queued and close the file; whoever comes later is refused."""
        self._closed = True
        if self._thread.is_alive():
            self._jobs.put(None)
            await asyncio.to_thread(self._thread.join)

    def _work(self) -> None:
        while True:
            job = self._jobs.get()
            jobs = []
            while job is not None:
                jobs.append(job)
                if len(jobs) == OPERATIONS_PER_COMMIT_MAX or self._jobs.empty():
                    break
                job = self._jobs.get()
            if jobs:
                run_together(self._connection, jobs, self._undone, keeps=self._keeps)
            if job is None:
                break
        self._connection.close()


class InlineDatabase:
    """The door that works at once, for a loop on virtual time and for tests."""

    def __init__(self, path: Path | str, schema: str) -> None:
        self._connection = connect(path)
        self._connection.executescript(schema)
        self._undone: list[Undone] = []

    async def run(self, operation: Operation[T]) -> T:
        """Run one operation; when this returns, what it wrote is durable."""
        return self.call(operation)

    def call(self, operation: Operation[T]) -> T:
        """As :meth:`run`; everything is one thread here."""
        future: Future[T] = Future()
        run_together(self._connection, [(operation, future)], self._undone)
        return future.result()

    def on_rollback(self, callback: Undone) -> None:
        """Call this whenever an operation was undone."""
        self._undone.append(callback)

    def scratch(self, name: str, schema: str) -> sqlite3.Connection:  # noqa: ARG002 - nothing is left that would need a name
        """Make a database in memory."""
        connection = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
        connection.executescript(schema)
        return connection

    async def close(self) -> None:
        """Close the file."""
        self._connection.close()
