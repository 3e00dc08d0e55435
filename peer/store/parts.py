"""Beginnings of sealed chunks whose transfer was cut, kept in the home so that only the rest is fetched.

A part is a file named by its chunk's id. Nothing depends on it: whoever wants the chunk joins it with the rest, compares the
whole with the id, and fetches all of it where that fails.

Rule 1: sealed bytes only, as a storage node sent them: nothing here is checked, and nothing is believed.
Rule 2: few and not for long; a disk with little room keeps none.
Rule 3: no failure of the disk is an error: then there is no part.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from protocol import limits
from protocol.effects import Access, FileSystem, Handle
from protocol.ids import ID_BYTES, ChunkId

DIRECTORY: Final = "parts"
PARTS_MAX: Final = 8
PART_BYTES_MIN: Final = 32 * limits.KIB
"""Less than this is fetched again sooner than kept."""
PART_AGE_MS_MAX: Final = 24 * 3600 * 1000
ROOM_BYTES_MIN: Final = 256 * limits.MIB
"""A home with less room than this has better use for it."""


class _Part(NamedTuple):
    name: str
    size: int
    time_ms: int


class Parts:
    """One device's parts; its methods are called from the pool, also several at once.

    Args:
        files: The disk.
        home: The device's home, of mode 0700: absolute, without links in it.
        now_ms: Wall clock; it only decides how long parts stay.
    """

    def __init__(self, files: FileSystem, home: str, now_ms: Callable[[], int]) -> None:
        self._files = files
        self._home = home
        self._now_ms = now_ms

    def sizes(self) -> dict[ChunkId, int]:
        """Return the size of each part, after those that nobody asked for again were removed."""
        with contextlib.suppress(OSError), self._opened() as directory:
            return {ChunkId(bytes.fromhex(part.name)): part.size for part in self._tidy(directory)}
        return {}

    def keep(self, id: ChunkId, offset: int, data: bytes) -> None:
        """Keep what came of a chunk from ``offset`` on; a part of just that size must be there, or it is in vain."""
        if not data or not PART_BYTES_MIN <= offset + len(data) <= limits.SEALED_CHUNK_BYTES_MAX:
            return
        with contextlib.suppress(OSError), self._opened(make=True) as directory:
            if self._files.free_bytes(directory) < ROOM_BYTES_MIN:
                return
            try:
                if not self._write(directory, id.hex(), offset, data):
                    return
            except FileNotFoundError:
                return  # its beginning was taken meanwhile
            except OSError:
                self._remove(directory, id.hex())
            self._tidy(directory)

    def take(self, id: ChunkId) -> bytes:
        """Return a part and keep it no more; nothing where there is none."""
        data = bytearray()
        with contextlib.suppress(OSError), self._opened() as directory:
            handle = self._files.open_file(directory, id.hex(), Access.READ)
            try:
                data = bytearray(min(self._files.fstat(handle).size, limits.SEALED_CHUNK_BYTES_MAX))
                del data[self._files.read(handle, memoryview(data), 0) :]
            finally:
                self._files.close(handle)
            self._files.unlink(directory, id.hex())
        return bytes(data)

    @contextlib.contextmanager
    def _opened(self, *, make: bool = False) -> Iterator[Handle]:
        """Open the directory of parts for the time of a with statement."""
        files = self._files
        home = files.open_root(self._home)
        try:
            if make:
                with contextlib.suppress(FileExistsError):
                    files.make_directory(home, DIRECTORY, 0o700)
            directory = files.open_directory(home, DIRECTORY)
        finally:
            files.close(home)
        try:
            yield directory
        finally:
            files.close(directory)

    def _write(self, directory: Handle, name: str, offset: int, data: bytes) -> bool:
        """Add to a part, or begin it; tell whether it is as long as it must be for that."""
        handle = self._begun(directory, name) if not offset else self._files.open_file(directory, name, Access.WRITE)
        try:
            if self._files.fstat(handle).size != offset:
                return False
            self._files.write(handle, data, offset)
            return True
        finally:
            self._files.close(handle)

    def _begun(self, directory: Handle, name: str) -> Handle:
        """Open an empty part that nobody else can read."""
        try:
            handle = self._files.open_file(directory, name, Access.CREATE)
        except FileExistsError:
            handle = self._files.open_file(directory, name, Access.WRITE)
            self._files.truncate(handle, 0)
            return handle
        self._files.set_attributes(handle, mode=0o600)
        return handle

    def _tidy(self, directory: Handle) -> list[_Part]:
        """Remove what is no part, what is too old, and the oldest of too many; return what stays."""
        now_ms = self._now_ms()
        kept: list[_Part] = []
        for part in sorted(self._listed(directory), key=lambda part: (part.time_ms, part.name), reverse=True):
            is_part = _is_id(part.name) and 0 < part.size <= limits.SEALED_CHUNK_BYTES_MAX
            # A time in the future is the wall clock's fault: the part goes all the same one day.
            if is_part and abs(now_ms - part.time_ms) <= PART_AGE_MS_MAX and len(kept) < PARTS_MAX:
                kept.append(part)
            else:
                self._remove(directory, part.name)
        return kept

    def _listed(self, directory: Handle) -> Iterator[_Part]:
        for name, found in list(self._files.list(directory)):
            if found is not None:
                yield _Part(name, found.size, found.mtime_ns // 1_000_000)

    def _remove(self, directory: Handle, name: str) -> None:
        with contextlib.suppress(OSError):
            self._files.unlink(directory, name)


def _is_id(name: str) -> bool:
    try:
        return len(name) == 2 * ID_BYTES and len(bytes.fromhex(name)) == ID_BYTES and name == name.lower()
    except ValueError:
        return False
