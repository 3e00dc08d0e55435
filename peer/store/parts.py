"""Beginnings of sealed chunks whose transfer was cut, kept in the home so that only the rest is fetched.

A part is a file named by its chunk's id. Nothing depends on it: whoever wants the chunk joins it with the rest, compares the
whole with the id, and fetches all of it where that fails.

Rule 1: sealed bytes only, as a storage node sent them: nothing here is checked, and nothing is believed.
Rule 2: few and not for long; a disk with little room keeps none.
Rule 3: no failure of the disk is an error: then there is no part.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

from protocol import limits
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
        home: The device's home, of mode 0700.
        now_ms: Wall clock; it only decides how long parts stay.
    """

    def __init__(self, home: Path, now_ms: Callable[[], int]) -> None:
        self._directory = home / DIRECTORY
        self._now_ms = now_ms

    def sizes(self) -> dict[ChunkId, int]:
        """Return the size of each part, after those that nobody asked for again were removed."""
        return {ChunkId(bytes.fromhex(part.name)): part.size for part in self._tidy()}

    def keep(self, id: ChunkId, offset: int, data: bytes) -> None:
        """Keep what came of a chunk from ``offset`` on; a part of just that size must be there, or it is in vain."""
        size = offset + len(data)
        if not data or not PART_BYTES_MIN <= size <= limits.SEALED_CHUNK_BYTES_MAX:
            return
        path = self._directory / id.hex()
        try:
            self._directory.mkdir(mode=0o700, exist_ok=True)
            found = os.statvfs(self._directory)
            if found.f_bavail * found.f_frsize < ROOM_BYTES_MIN:
                return
            flags = os.O_WRONLY if offset else os.O_WRONLY | os.O_CREAT | os.O_TRUNC
            with open(os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600), "wb") as file:
                if offset and os.fstat(file.fileno()).st_size != offset:
                    return
                file.seek(offset)
                file.write(data)
        except FileNotFoundError:
            return  # its beginning was taken meanwhile
        except OSError:
            self._remove(path)
        self._tidy()

    def take(self, id: ChunkId) -> bytes:
        """Return a part and keep it no more; nothing where there is none."""
        path = self._directory / id.hex()
        data = b""
        with contextlib.suppress(OSError):
            with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as file:
                data = file.read(limits.SEALED_CHUNK_BYTES_MAX)
            path.unlink()
        return data

    def _tidy(self) -> list[_Part]:
        """Remove what is no part, what is too old, and the oldest of too many; return what stays."""
        now_ms = self._now_ms()
        kept: list[_Part] = []
        for part in sorted(self._listed(), key=lambda part: part.time_ms, reverse=True):
            is_part = _is_id(part.name) and 0 < part.size <= limits.SEALED_CHUNK_BYTES_MAX
            # A time in the future is the wall clock's fault: the part goes all the same one day.
            if is_part and abs(now_ms - part.time_ms) <= PART_AGE_MS_MAX and len(kept) < PARTS_MAX:
                kept.append(part)
            else:
                self._remove(self._directory / part.name)
        return kept

    def _listed(self) -> Iterator[_Part]:
        with contextlib.suppress(OSError), os.scandir(self._directory) as entries:
            for entry in entries:
                with contextlib.suppress(OSError):
                    found = entry.stat(follow_symlinks=False)
                    yield _Part(entry.name, found.st_size, found.st_mtime_ns // 1_000_000)

    @staticmethod
    def _remove(path: Path) -> None:
        with contextlib.suppress(OSError):
            path.unlink()


def _is_id(name: str) -> bool:
    try:
        return len(name) == 2 * ID_BYTES and len(bytes.fromhex(name)) == ID_BYTES and name == name.lower()
    except ValueError:
        return False
