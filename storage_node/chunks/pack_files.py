"""The files of a pack store: named by number, a bounded number of them open, the newest one appended to."""

from __future__ import annotations

import contextlib
import re
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, Protocol

import structlog

from protocol.effects import Access, Entropy, Handle, Named, Stat
from protocol.errors import CorruptStateError
from storage_node.chunks.records import PACK_HEADER_BYTES, SECRET_BYTES, decode_pack_header, encode_pack_header

log = structlog.get_logger("packs")

OPEN_PACKS_MAX: Final = 64
_NAME = re.compile(r"([0-9]{8})\.pack")


class PackDisk(Protocol):
    """The part of :class:`protocol.effects.FileSystem` that packs need."""

    def open_root(self, path: str) -> Handle:
        """Open a directory."""

    def open_file(self, parent: Handle, name: str, access: Access) -> Handle:
        """Open or make a file."""

    def close(self, handle: Handle) -> None:
        """Close a file or a directory."""

    def list(self, directory: Handle) -> Iterator[Named]:
        """Yield the names of a directory."""

    def fstat(self, handle: Handle) -> Stat:
        """Return what is open."""

    def read(self, handle: Handle, buffer: memoryview, offset: int) -> int:
        """Fill the buffer; fewer bytes only at the end."""

    def write(self, handle: Handle, data: bytes | memoryview, offset: int) -> None:
        """Write all the bytes."""

    def truncate(self, handle: Handle, size: int) -> None:
        """Cut the file."""

    def sync(self, handle: Handle) -> None:
        """Make a file's bytes, or a directory's names, durable."""

    def make_directory(self, parent: Handle, name: str, mode: int) -> None:
        """Make a directory."""

    def unlink(self, parent: Handle, name: str) -> None:
        """Remove a name."""

    def free_bytes(self, handle: Handle) -> int:
        """Return how many bytes may still be written."""


class PackFiles:
    """The packs of one directory; reading is safe from any thread, writing from one at a time.

    Args:
        directory: Its path; it must be there.
        disk: The door to it.
        entropy: For the secret of a new store.

    Raises:
        CorruptStateError: There are packs, and not one of them has a header that can be read.
    """

    header_bytes: Final = PACK_HEADER_BYTES

    def __init__(self, directory: str, disk: PackDisk, entropy: Entropy) -> None:
        self._disk = disk
        self._root = disk.open_root(directory)
        self._open: OrderedDict[int, tuple[Handle, int]] = OrderedDict()
        self._lock = threading.Lock()
        self._writable: Handle | None = None
        names = [(_NAME.fullmatch(named.name), named) for named in disk.list(self._root)]
        self._sizes = {int(match[1]): named.stat.size for match, named in names if match and named.stat is not None}
        self.stored_bytes = sum(self._sizes.values())
        """What all packs take up."""
        self.newest = max(self._sizes, default=-1)
        """The number of the pack that is appended to."""
        self.is_new_wanted = False
        """Whether the newest pack is damaged, so that another must be begun."""
        self.secret = self._find_secret(entropy)
        if not self._sizes:
            # The first pack holds nothing but the secret: should the next one's header be damaged, it is not alone.
            self.create()
            self.is_new_wanted = True
        else:
            self._writable = disk.open_file(self._root, _name(self.newest), Access.WRITE)

    @property
    def numbers(self) -> list[int]:
        """The numbers of the packs, oldest first."""
        return sorted(self._sizes)

    def size(self, number: int) -> int:
        """Return a pack's size; 0 if it is not there."""
        return self._sizes.get(number, 0)

    def free_bytes(self) -> int:
        """Return what the disk has left."""
        return self._disk.free_bytes(self._root)

    def create(self) -> int:
        """Begin a new pack, durably, and return where its first record begins."""
        number, name = self.newest + 1, _name(self.newest + 1)
        handle = self._disk.open_file(self._root, name, Access.CREATE)
        try:
            self._disk.write(handle, encode_pack_header(self.secret), 0)
            self._disk.sync(handle)
            self._disk.sync(self._root)
        except OSError:
            self._disk.close(handle)
            with contextlib.suppress(OSError):
                self._disk.unlink(self._root, name)
            raise
        if self._writable is not None:
            self._disk.close(self._writable)
        self._writable = handle
        self.newest = number
        self._set_size(PACK_HEADER_BYTES)
        self.is_new_wanted = False
        return PACK_HEADER_BYTES

    def write(self, data: bytes, offset: int) -> None:
        """Write into the newest pack."""
        assert self._writable is not None
        self._disk.write(self._writable, data, offset)
        self._set_size(max(self._sizes[self.newest], offset + len(data)))

    def sync(self) -> None:
        """Make the newest pack durable."""
        assert self._writable is not None
        self._disk.sync(self._writable)

    def truncate(self, size: int) -> None:
        """Cut the newest pack."""
        assert self._writable is not None
        self._disk.truncate(self._writable, size)
        self._set_size(size)

    def read(self, number: int, offset: int, *counts: int) -> tuple[bytearray, ...]:
        """Return runs of bytes of a pack that follow one another, fewer bytes at its end."""
        buffers = tuple(bytearray(count) for count in counts)
        with self._reading(number) as handle:
            for buffer in buffers:
                done = self._disk.read(handle, memoryview(buffer), offset)
                offset += len(buffer)
                del buffer[done:]
        return buffers

    def close(self) -> None:
        """Close every file."""
        for handle, _ in self._open.values():
            self._disk.close(handle)
        self._open.clear()
        if self._writable is not None:
            self._disk.close(self._writable)
        self._disk.close(self._root)

    @contextmanager
    def _reading(self, number: int) -> Iterator[Handle]:
        """Lend a handle of a pack; one that is lent is never closed."""
        with self._lock:
            handle, users = self._open.pop(number, (None, 0))
            if handle is None:
                handle = self._disk.open_file(self._root, _name(number), Access.READ)
            self._open[number] = (handle, users + 1)
            self._close_some()
        try:
            yield handle
        finally:
            with self._lock:
                _, users = self._open[number]
                self._open[number] = (handle, users - 1)

    def _close_some(self) -> None:
        idle = [number for number, (_, users) in self._open.items() if not users]
        for number in idle[: max(0, len(self._open) - OPEN_PACKS_MAX)]:
            self._disk.close(self._open.pop(number)[0])

    def _set_size(self, size: int) -> None:
        self.stored_bytes += size - self._sizes.get(self.newest, 0)
        self._sizes[self.newest] = size

    def _find_secret(self, entropy: Entropy) -> bytes:
        secret = None
        for number in self.numbers:
            found = decode_pack_header(bytes(self.read(number, 0, PACK_HEADER_BYTES)[0]))
            if found is None:
                log.error("a pack's header is damaged", pack=number)
                self.is_new_wanted = number == self.newest
            secret = secret or found
        if secret is None:
            if self.stored_bytes > PACK_HEADER_BYTES:
                raise CorruptStateError("no pack has a header that can be read")
            # Nothing was ever stored: there is no pack, or a crash came while the very first was begun.
            secret = entropy(SECRET_BYTES)
        return secret


def _name(number: int) -> str:
    return f"{number:08d}.pack"
