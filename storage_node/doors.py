"""The node's real doors: time, chance, threads, the disk of its packs and the database of its index."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import sqlite3
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from protocol.effects import Access, Handle, Named, Stat

T = TypeVar("T")

WORKERS_MAX = 4
"""Hashing and disk calls release the interpreter lock; one of the threads may always be waiting for an fsync."""
_DATABASE_CACHE_KIB = 16 * 1024


class SystemClock:
    """The machine's clocks."""

    def now_ms(self) -> int:
        """Return the wall clock in milliseconds since 1970."""
        return time.time_ns() // 1_000_000

    def monotonic_s(self) -> float:
        """Return seconds since some moment of this machine."""
        return time.monotonic()


class SystemEntropy:
    """The machine's random bytes."""

    def __call__(self, count: int, /) -> bytes:
        """Return this many random bytes."""
        return os.urandom(count)


class ThreadProcessor:
    """A pool of threads."""

    def __init__(self, workers: int = WORKERS_MAX) -> None:
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="kin-storage")

    def run(self, function: Callable[..., T], /, *args: Any) -> Awaitable[T]:
        """Call the function in a thread of the pool."""
        return asyncio.get_running_loop().run_in_executor(self._pool, function, *args)

    def close(self) -> None:
        """Wait for what runs, and start nothing more."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    async def finish(self) -> None:
        """As :meth:`close`, while the event loop goes on."""
        await asyncio.to_thread(self.close)


class SystemDisk:
    """The part of :class:`protocol.effects.FileSystem` that packs need, on the machine's own disk."""

    def open_root(self, path: str) -> Handle:
        """Open a directory by its path."""
        return Handle(os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC))

    def open_file(self, parent: Handle, name: str, access: Access) -> Handle:
        """Open a file of a directory; a created one has mode 0600 and must be new."""
        flags = {
            Access.READ: os.O_RDONLY,
            Access.WRITE: os.O_RDWR,
            Access.CREATE: os.O_RDWR | os.O_CREAT | os.O_EXCL,
        }[access]
        return Handle(os.open(name, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=parent))

    def close(self, handle: Handle) -> None:
        """Close a file or a directory."""
        os.close(handle)

    def list(self, directory: Handle) -> Iterator[Named]:
        """Yield the names of a directory."""
        for name in os.listdir(directory):
            yield Named(name, self._stat(os.stat(name, dir_fd=directory, follow_symlinks=False)))

    def fstat(self, handle: Handle) -> Stat:
        """Return what is open."""
        return self._stat(os.fstat(handle))

    def read(self, handle: Handle, buffer: memoryview, offset: int) -> int:
        """Fill the buffer; fewer bytes only at the end."""
        done = 0
        while done < len(buffer):
            count = os.preadv(handle, [buffer[done:]], offset + done)
            if not count:
                break
            done += count
        return done

    def write(self, handle: Handle, data: bytes | memoryview, offset: int) -> None:
        """Write all the bytes."""
        view = memoryview(data)
        done = 0
        while done < len(view):
            count = os.pwrite(handle, view[done:], offset + done)
            if not count:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            done += count

    def truncate(self, handle: Handle, size: int) -> None:
        """Cut the file."""
        os.ftruncate(handle, size)

    def sync(self, handle: Handle) -> None:
        """Make a file's bytes and size, or a directory's names, durable."""
        if sys.platform == "darwin":
            # There fsync stops at the drive's cache.
            fcntl.fcntl(handle, fcntl.F_FULLFSYNC)
        else:
            os.fsync(handle)

    def make_directory(self, parent: Handle, name: str, mode: int) -> None:
        """Make a directory."""
        os.mkdir(name, mode, dir_fd=parent)

    def unlink(self, parent: Handle, name: str) -> None:
        """Remove a name."""
        os.unlink(name, dir_fd=parent)

    def free_bytes(self, handle: Handle) -> int:
        """Return how many bytes may still be written."""
        stat = os.fstatvfs(handle)
        return stat.f_bavail * stat.f_frsize

    def _stat(self, stat: os.stat_result) -> Stat:
        return Stat(stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_mode)


def open_database(path: Path, anew: bool) -> sqlite3.Connection:  # noqa: FBT001 - the second argument of OpenDatabase
    """Open the index of a data directory; it is only a cache, so losing its newest transactions is no harm."""
    if anew:
        for suffix in ("", "-wal", "-shm"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
    database = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    try:
        database.execute("PRAGMA journal_mode = WAL")
        # Durable at each checkpoint of the log, never damaged by a power cut; what is lost is read from the packs.
        database.execute("PRAGMA synchronous = NORMAL")
        database.execute("PRAGMA wal_autocheckpoint = 1000")
        database.execute(f"PRAGMA cache_size = -{_DATABASE_CACHE_KIB}")
    except sqlite3.DatabaseError:
        database.close()
        if anew:
            raise
        return open_database(path, True)
    return database
