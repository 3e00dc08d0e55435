"""The spool on this device's disk: sealed chunks and segments that no write quorum holds yet.

Bytes are appended to a few files in the home; rows of the database name what is where. A file goes once no row names it.

Rule 1: bytes are durable before a row names them, and a row is committed before anybody relies on it.
Rule 2: a file is appended to by the process that made it alone, so what a crash left half written is never named.
Rule 3: the spool is bounded; whoever wants to use it asks for room first.
"""

from __future__ import annotations

import contextlib
import re
import sqlite3
import threading
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Final, NamedTuple

import msgspec

from peer.core.chunk_sealing import Row
from protocol import limits
from protocol.codec import encode
from protocol.effects import Access, FileSystem, Handle
from protocol.errors import SpoolFullError, UnavailableError
from protocol.grants import ChunkRef
from protocol.ids import ChunkId
from protocol.messages import PinnedSegment

DIRECTORY: Final = "spool"
FILE_BYTES: Final = 64 * limits.MIB
"""From this size on, what follows goes to another file."""
_NAME: Final = re.compile(r"(\d{1,12})\.spool")
_row: Final = msgspec.msgpack.Decoder(Row)
_segment: Final = msgspec.msgpack.Decoder(PinnedSegment)


class Spot(NamedTuple):
    """Where bytes lie."""

    file: int
    offset: int
    length: int


class Spooled(NamedTuple):
    """One sealed chunk, or segment, in the spool."""

    number: int
    """Rises in the order in which things were put there."""
    id: ChunkId
    what: Row | PinnedSegment
    """Of a chunk, its row; of a segment, what the coordinator is to be told of it."""
    spot: Spot

    @property
    def ref(self) -> ChunkRef:
        """As storage nodes name it."""
        return ChunkRef(self.id, self.spot.length)


class SpoolFiles:
    """The files of one device's spool; called from the pool, by several threads at once.

    Args:
        files: The disk.
        home: The device's home, in which they lie in a directory that is made when it is needed: absolute, without links in it.
        bytes_max: The most they may take together, within :data:`protocol.limits.SPOOL_BYTES_MAX`.
    """

    def __init__(self, files: FileSystem, home: str, bytes_max: int = limits.SPOOL_BYTES_MAX) -> None:
        self._files = files
        self._home = home
        self._bytes_max = min(bytes_max, limits.SPOOL_BYTES_MAX)
        self._writing = threading.Lock()
        """Held while bytes are written and synced."""
        self._lock = threading.Lock()
        """Held for a moment, since the event loop waits for it too; taken after ``_writing``."""
        self._sizes: dict[int, int] = {}
        self._unnamed: Counter[int] = Counter()
        """By file, how many writes to it have no rows in the database yet, the one under way among them."""
        self._reserved = 0
        self._next = 1
        self._open: tuple[int, Handle] | None = None
        """Number and handle of the file that is appended to."""

    def load(self, named: Collection[int]) -> None:
        """Begin: files that no row names were left by a crash and go.

        Raises:
            UnavailableError: The disk does not show what lies there.
        """
        found: dict[int, int] = {}
        with self._lock:
            try:
                with contextlib.suppress(FileNotFoundError, NotADirectoryError), self._opened() as directory:
                    for name, stat in list(self._files.list(directory)):
                        if match := _NAME.fullmatch(name):
                            found[int(match[1])] = (stat or self._files.lstat(directory, name)).size
                    for number in sorted(found.keys() - named):
                        self._unlink(directory, number)
            except OSError as error:
                text = f"{self._home}/{DIRECTORY} cannot be read: {error.strerror}: see what is wrong with the disk"
                raise UnavailableError(text) from error
            self._sizes = {number: size for number, size in found.items() if number in named}
            self._next = max([*found, *named], default=0) + 1

    def close(self) -> None:
        """Let go of the file that is appended to."""
        with self._writing, self._lock:
            self._close()

    # --- Room

    def reserve(self, size: int) -> bool:
        """Keep room for this many bytes, if there is so much; give it back with :meth:`release`."""
        with self._lock:
            used = sum(self._sizes.values())
            if used + self._reserved + size > self._limit(used):
                return False
            self._reserved += size
            return True

    def release(self, size: int) -> None:
        """Give back what was reserved."""
        with self._lock:
            self._reserved -= size

    def _limit(self, used: int) -> int:
        """Return how much the spool may take now: a share of what would be free without it."""
        try:
            home = self._files.open_root(self._home)
            try:
                free = self._files.free_bytes(home)
            finally:
                self._files.close(home)
        except OSError:
            return 0
        return min(self._bytes_max, (free + used) // limits.SPOOL_FREE_SHARE)

    # --- Bytes

    def append(self, pieces: Sequence[bytes | bytearray]) -> list[Spot]:
        """Write pieces, durable when this returns; follow it by :meth:`named`, whether their rows came to be or not.

        Raises:
            SpoolFullError: The disk does not take them.
        """
        with self._writing:
            try:
                number, handle = self._file()
                offset = self._sizes[number]
                spots = []
                for piece in pieces:
                    self._files.write(handle, memoryview(piece), offset)
                    spots.append(Spot(number, offset, len(piece)))
                    offset += len(piece)
                self._files.sync(handle)
            except OSError as error:
                self._cut_off()
                raise SpoolFullError(f"the spool in {self._home} cannot be written: {error.strerror}") from error
            with self._lock:
                self._sizes[number] = offset
                if offset >= FILE_BYTES:
                    self._close()
            return spots

    def named(self, spots: Sequence[Spot]) -> None:
        """Note that the rows of one :meth:`append` are committed, or will never be."""
        with self._lock:
            self._unnamed[spots[0].file] -= 1

    def read(self, spot: Spot) -> bytes | None:
        """Return bytes, None if they cannot be read; whoever reads checks them."""
        data = bytearray(spot.length)
        try:
            with self._opened() as directory:
                handle = self._files.open_file(directory, _name(spot.file), Access.READ)
                try:
                    count = self._files.read(handle, memoryview(data), spot.offset)
                finally:
                    self._files.close(handle)
        except OSError:
            return None
        return bytes(data) if count == spot.length else None

    def retire(self, files: Iterable[int]) -> list[int]:
        """Return those of these files, which no row names, that may go; call it where rows are written."""
        with self._lock:
            going = [number for number in files if not self._unnamed[number]]
            if self._open is not None and self._open[0] in going:
                self._close()
            return going

    def retire_rest(self, named: Collection[int]) -> list[int]:
        """Return those of all files but these that may go, as :meth:`retire` does."""
        with self._lock:
            rest = self._sizes.keys() - named
        return self.retire(sorted(rest))

    def drop(self, files: Sequence[int]) -> None:
        """Remove files that :meth:`retire` gave, once that is committed."""
        with self._lock:
            # What cannot be removed now is removed by the next start.
            with contextlib.suppress(OSError):
                if files:
                    with self._opened() as directory:
                        for number in files:
                            with contextlib.suppress(OSError):
                                self._unlink(directory, number)
            for number in files:
                self._sizes.pop(number, None)
                del self._unnamed[number]

    # --- Within

    @contextlib.contextmanager
    def _opened(self, *, make: bool = False) -> Iterator[Handle]:
        """Open the spool's directory for the time of a with statement; with ``make`` it is there, and durably so."""
        files = self._files
        home = files.open_root(self._home)
        try:
            if make:
                with contextlib.suppress(FileExistsError):
                    files.make_directory(home, DIRECTORY, 0o700)
            directory = files.open_directory(home, DIRECTORY)
            if make:
                try:
                    files.sync(home)
                except BaseException:
                    files.close(directory)
                    raise
        finally:
            files.close(home)
        try:
            yield directory
        finally:
            files.close(directory)

    def _file(self) -> tuple[int, Handle]:
        """Return the file to append to, which stays open and in its place until that is named or cut off."""
        with self._lock:
            if self._open is not None:
                self._unnamed[self._open[0]] += 1
                return self._open
        number = self._next
        with self._opened(make=True) as directory:
            handle = self._files.open_file(directory, _name(number), Access.CREATE)
            with self._lock:
                self._next += 1
                self._sizes[number] = 0
                self._unnamed[number] += 1
                self._open = number, handle
            self._files.set_attributes(handle, mode=0o600)
            self._files.sync(directory)
        return number, handle

    def _cut_off(self) -> None:
        """Give back what was written in vain, or every try on a full disk would take what is left of it."""
        if self._open is None:
            return
        number, handle = self._open
        with contextlib.suppress(OSError):
            self._files.truncate(handle, self._sizes[number])
        with self._lock:
            self._unnamed[number] -= 1
            self._close()
            if not self._sizes[number]:
                del self._sizes[number]
                with contextlib.suppress(OSError), self._opened() as directory:
                    self._unlink(directory, number)

    def _unlink(self, directory: Handle, number: int) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._files.unlink(directory, _name(number))

    def _close(self) -> None:
        if self._open is not None:
            handle, self._open = self._open[1], None
            self._files.close(handle)


def _name(number: int) -> str:
    return f"{number}.spool"


# --- Rows

_COLUMNS: Final = "number, id, raw_hash, what, file, at, length"


def put_spooled(
    db: sqlite3.Connection, folder: int, items: Iterable[tuple[ChunkId, Row | PinnedSegment]], spots: Iterable[Spot]
) -> None:
    """Name what was appended; what is there already stays as it is."""
    db.executemany(
        "INSERT OR IGNORE INTO spool (folder, id, raw_hash, what, file, at, length) VALUES (?, ?, ?, ?, ?, ?, ?)",
        [
            (folder, id, what.raw_hash if isinstance(what, Row) else b"", encode(what), *spot)
            for (id, what), spot in zip(items, spots, strict=True)
        ],
    )


def next_spooled(db: sqlite3.Connection, folder: int, after: int, *, size: int, count: int) -> list[Spooled]:
    """Return what follows a number, of at most this many things and bytes, but at least one if there is any."""
    found: list[Spooled] = []
    rows = db.execute(
        f"SELECT {_COLUMNS} FROM spool WHERE folder = ? AND number > ? ORDER BY number LIMIT ?", (folder, after, count)
    ).fetchall()
    for row in rows:
        one = _spooled(row)
        size -= one.spot.length
        if found and size < 0:
            break
        found.append(one)
    return found


def drop_spooled(db: sqlite3.Connection, folder: int, numbers: Collection[int]) -> list[int]:
    """Forget what is stored now; return the files that no row names any more."""
    files = set()
    for number in numbers:
        row = db.execute("SELECT file FROM spool WHERE number = ? AND folder = ?", (number, folder)).fetchone()
        if row is not None:
            files.add(int(row[0]))
            db.execute("DELETE FROM spool WHERE number = ?", (number,))
    return [
        file
        for file in sorted(files)
        if not db.execute("SELECT 1 FROM spool WHERE file = ? LIMIT 1", (file,)).fetchone()
    ]


def named_files(db: sqlite3.Connection) -> set[int]:
    """Return the files that rows name."""
    return {int(row[0]) for row in db.execute("SELECT DISTINCT file FROM spool")}


def is_spooled(db: sqlite3.Connection, folder: int) -> bool:
    """Tell whether a folder has anything in the spool."""
    return db.execute("SELECT 1 FROM spool WHERE folder = ? LIMIT 1", (folder,)).fetchone() is not None


def spooled_rows(db: sqlite3.Connection, folder: int, raw_hashes: Iterable[bytes]) -> dict[bytes, Row]:
    """Return the rows of pieces whose chunks are in the spool, by the hash of their raw bytes."""
    found: dict[bytes, Row] = {}
    for raw_hash in raw_hashes:
        one = spooled_piece(db, folder, raw_hash)
        if one is not None and isinstance(one.what, Row):
            found[raw_hash] = one.what
    return found


def spooled_piece(db: sqlite3.Connection, folder: int, raw_hash: bytes) -> Spooled | None:
    """Return the chunk in the spool that holds the bytes of this hash."""
    row = db.execute(
        f"SELECT {_COLUMNS} FROM spool WHERE folder = ? AND raw_hash = ? LIMIT 1", (folder, raw_hash)
    ).fetchone()
    return None if row is None else _spooled(row)


def spooled(db: sqlite3.Connection, folder: int, id: ChunkId) -> Spooled | None:
    """Return a chunk or a segment in the spool."""
    row = db.execute(f"SELECT {_COLUMNS} FROM spool WHERE folder = ? AND id = ?", (folder, id)).fetchone()
    return None if row is None else _spooled(row)


def _spooled(row: tuple[int, bytes, bytes, bytes, int, int, int]) -> Spooled:
    number, id, raw_hash, what, *spot = row
    decoded = _row.decode(what) if raw_hash else _segment.decode(what)
    return Spooled(number, ChunkId(id), decoded, Spot(*spot))
