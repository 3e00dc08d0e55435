"""The database as a door: operations are synchronous functions of a repository, and two implementations run them.

:class:`ThreadedDatabase` is the real one: one thread writes, taking what is queued into one commit (group commit) with a
savepoint for each operation; others read. :class:`InlineDatabase` does everything at once in the caller's thread, for a
simulator on virtual time and for the command line.

Rule 1: an operation's result is given out only after the commit that made it durable.
Rule 2: an operation that raises leaves nothing behind and harms no other of its group.
Rule 3: pysqlite's own transactions stay off; BEGIN IMMEDIATE, SAVEPOINT and COMMIT are written out.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache, lru_cache
from typing import Any, Final, Protocol, TypeAlias, TypeVar

import structlog
from sqlalchemy import Connection, Engine, create_engine, exc
from sqlalchemy.pool import NullPool

from coordinator.store.migrate import migrate
from coordinator.store.repository import Repository
from coordinator.store.statements import raw
from protocol.errors import CorruptStateError, KinfolderError, UnavailableError

T = TypeVar("T")

Operation: TypeAlias = Callable[[Repository], T]

GROUP_OPERATIONS_MAX: Final = 256
GROUP_S_MAX: Final = 0.05
WRITES_QUEUED_MAX: Final = 8_192
READERS: Final = 2
BUSY_S: Final = 20.0
CACHE_KIB: Final = 16 * 1024
STATEMENTS_MAX: Final = 1_024
"""Statements that a connection keeps compiled."""
ENGINES_MAX: Final = 8
ERRORS: Final = (exc.DBAPIError, sqlite3.Error)
"""What the database raises, through SQLAlchemy or past it."""
FULL: Final = "the coordinator's disk is full"

log = structlog.get_logger("coordinator")


class Database(Protocol):
    """Where the coordinator keeps everything."""

    async def write(self, operation: Operation[T]) -> T:
        """Run an operation in a transaction of its own and return its result when it is durable.

        Raises:
            UnavailableError: The disk is full or the queue is.
            CorruptStateError: The database is damaged.
            KinfolderError: Whatever of ours the operation raised; nothing of it is kept then.
        """

    async def read(self, operation: Operation[T]) -> T:
        """Run an operation that only reads, on what is committed."""

    async def close(self) -> None:
        """Finish what is queued and close."""


def connect(path: str, *, read_only: bool = False, synchronous: str = "FULL") -> Connection:
    """Open a connection to the SQLite database at ``path`` (":memory:" for none)."""
    return _engine(path, read_only, synchronous).connect().execution_options(isolation_level="AUTOCOMMIT")


@lru_cache(ENGINES_MAX)
def _engine(path: str, read_only: bool, synchronous: str) -> Engine:  # noqa: FBT001 - as in connect
    """Return what opens connections; they share it, for each engine compiles every statement for itself."""

    def open_sqlite() -> sqlite3.Connection:
        found = sqlite3.connect(
            path, timeout=BUSY_S, isolation_level=None, check_same_thread=False, cached_statements=STATEMENTS_MAX
        )
        found.execute("PRAGMA journal_mode=WAL")
        found.execute(f"PRAGMA synchronous={synchronous}")
        found.execute(f"PRAGMA cache_size=-{CACHE_KIB}")
        found.execute("PRAGMA wal_autocheckpoint=4000")
        found.execute("PRAGMA journal_size_limit=67108864")
        if read_only:
            found.execute("PRAGMA query_only=ON")
        return found

    return create_engine("sqlite+pysqlite://", creator=open_sqlite, poolclass=NullPool)


def create_private(path: str) -> None:
    """Make the database's file with mode 0600 if it is not there; SQLite gives its other files the same mode.

    An existing file is not even opened: closing any descriptor of it would drop the POSIX locks that SQLite holds for
    this process, and another process would then take the write-ahead log away under our feet.
    """
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))


def foreign(error: BaseException) -> BaseException:
    """Return our error for one of the database's; others as they are."""
    if isinstance(error, KinfolderError) or not isinstance(error, ERRORS):
        return error
    own = error.orig if isinstance(error, exc.DBAPIError) else error
    text = str(own)
    if "malformed" in text or "not a database" in text:
        return CorruptStateError("the coordinator's database is damaged")
    if isinstance(own, sqlite3.OperationalError):
        if "full" in text:
            return UnavailableError(FULL)
        return UnavailableError("the coordinator's database cannot be used now")
    return error


def _begin(connection: Connection) -> None:
    raw(connection).execute("BEGIN IMMEDIATE")


def _end(connection: Connection, word: str) -> None:
    raw(connection).execute(word)


def _rollback(connection: Connection) -> None:
    # SQLite has rolled back on its own after some errors (full, I/O): then there is nothing left to roll back.
    with contextlib.suppress(sqlite3.Error):
        raw(connection).execute("ROLLBACK")


@contextlib.contextmanager
def transaction(connection: Connection) -> Iterator[Repository]:
    """Give a repository whose changes are committed at the end, or not at all."""
    try:
        _begin(connection)
        yield Repository(connection)
        _end(connection, "COMMIT")
    except BaseException as error:
        _rollback(connection)
        ours = foreign(error)
        if ours is error:
            raise
        raise ours from error


class InlineDatabase:
    """One connection, used at once in the caller's thread."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def write(self, operation: Operation[T]) -> T:
        """Run an operation in a transaction of its own; see :class:`Database`."""
        with transaction(self._connection) as repository:
            return operation(repository)

    async def read(self, operation: Operation[T]) -> T:
        """Run an operation that only reads."""
        try:
            return operation(Repository(self._connection))
        except ERRORS as error:
            raise foreign(error) from error

    async def close(self) -> None:
        """Close the connection."""
        self._connection.close()


@cache
def _empty_database() -> bytes:
    """Return a new database, migrated: migrating one for each of a simulator's worlds would take most of its time."""
    with contextlib.closing(connect(":memory:", synchronous="OFF")) as connection:
        migrate(connection)
        return raw(connection).serialize()


def connect_memory(data: bytes | None = None) -> Connection:
    """Open a database in memory: an empty one, or what :func:`snapshot` kept of another."""
    connection = connect(":memory:", synchronous="OFF")
    raw(connection).deserialize(_empty_database() if data is None else data)
    return connection


def snapshot(connection: Connection) -> bytes:
    """Return all that a database in memory holds, as of its last commit: what a simulated crash leaves."""
    return raw(connection).serialize()


_Job: TypeAlias = tuple[Callable[[Repository], Any], "asyncio.Future[Any]"]
_Outcome: TypeAlias = tuple["asyncio.Future[Any]", Any, BaseException | None]


class ThreadedDatabase:
    """One writing thread with group commit, and threads that read; open it inside a running event loop."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._loop = asyncio.get_running_loop()
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._queued = 0
        self._closing = False
        self._local = threading.local()
        self._connections: list[Connection] = []
        self._readers = ThreadPoolExecutor(READERS, "database-read")
        self._writer = threading.Thread(target=self._write_all, name="database-write", daemon=True)
        self._writer.start()

    async def write(self, operation: Operation[T]) -> T:
        """Queue an operation for the writing thread; see :class:`Database`."""
        if self._closing or self._queued >= WRITES_QUEUED_MAX:
            raise UnavailableError("the coordinator has too much to do just now")
        future: asyncio.Future[T] = self._loop.create_future()
        self._queued += 1
        self._jobs.put((operation, future))
        return await future

    async def read(self, operation: Operation[T]) -> T:
        """Run an operation in a reading thread; it sees one state of the database throughout."""
        if self._closing:
            raise UnavailableError("the coordinator is stopping")
        return await self._loop.run_in_executor(self._readers, self._read, operation)

    async def close(self) -> None:
        """Finish what is queued and close."""
        if self._closing:
            return
        self._closing = True
        self._jobs.put(None)
        await self._loop.run_in_executor(None, self._writer.join)
        await self._loop.run_in_executor(None, self._readers.shutdown)
        for connection in self._connections:
            connection.close()

    def _read(self, operation: Operation[T]) -> T:
        connection: Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = self._local.connection = connect(self._path, read_only=True)
            self._connections.append(connection)
        try:
            raw(connection).execute("BEGIN")
            try:
                return operation(Repository(connection))
            finally:
                _rollback(connection)
        except ERRORS as error:
            raise foreign(error) from error

    def _write_all(self) -> None:
        connection = connect(self._path)
        stopping = is_full = False
        while not stopping:
            job = self._jobs.get()
            if job is None:
                break
            group = [job]
            while len(group) < GROUP_OPERATIONS_MAX:
                try:
                    job = self._jobs.get_nowait()
                except queue.Empty:
                    break
                if job is None:
                    stopping = True
                    break
                group.append(job)
            while group:
                outcomes = _run_group(connection, group)
                is_full = _tell_room(outcomes, was_full=is_full)
                del group[: len(outcomes)]
                # The loop may be gone already if the process is being torn down.
                with contextlib.suppress(RuntimeError):
                    self._loop.call_soon_threadsafe(self._give_out, outcomes)
        connection.close()

    def _give_out(self, outcomes: list[_Outcome]) -> None:
        self._queued -= len(outcomes)
        for future, result, error in outcomes:
            if future.cancelled():
                continue
            if error is None:
                future.set_result(result)
            else:
                future.set_exception(error)


def _run_group(connection: Connection, group: list[_Job]) -> list[_Outcome]:
    """Run the first operations of a group in one commit; return what became of them, at least of one."""
    outcomes: list[_Outcome] = []
    deadline = time.monotonic() + GROUP_S_MAX
    try:
        _begin(connection)
        repository = Repository(connection)
        for operation, future in group:
            outcomes.append(_run_one(connection, repository, operation, future))
            if time.monotonic() > deadline:
                break
        _end(connection, "COMMIT")
    except Exception as error:  # noqa: BLE001  # whatever it is, it belongs to those who wait
        _rollback(connection)
        ours = foreign(error)
        failed = max(len(outcomes), 1)
        return [(future, None, ours) for _, future in group[:failed]]
    return outcomes


def _tell_room(outcomes: Sequence[_Outcome], *, was_full: bool) -> bool:
    """Log once that the disk takes nothing more, and once that it does again; return whether it is full."""
    is_full = any(isinstance(error, UnavailableError) and str(error) == FULL for _, _, error in outcomes)
    if is_full and not was_full:
        log.error("the disk is full: nothing is ordered until there is room")
    elif was_full and not is_full:
        log.warning("there is room again")
    return is_full


def _run_one(
    connection: Connection, repository: Repository, operation: Callable[[Repository], Any], future: asyncio.Future[Any]
) -> _Outcome:
    _end(connection, "SAVEPOINT operation")
    try:
        result = operation(repository)
    except Exception as error:  # given to the one who asked
        ours = foreign(error)
        if isinstance(ours, UnavailableError | CorruptStateError) and ours is not error:
            raise  # the disk's trouble is everybody's: the group ends here
        _end(connection, "ROLLBACK TO operation")
        _end(connection, "RELEASE operation")
        return future, None, ours
    _end(connection, "RELEASE operation")
    return future, result, None
