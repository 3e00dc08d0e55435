"""Small things that all disk code shares: ways through directories, kinds, hashes of open files, reasons for errors."""

from __future__ import annotations

import errno
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, Self

from blake3 import blake3

from peer.core.observations import Fingerprint
from protocol import limits
from protocol.effects import FileSystem, Handle, Stat
from protocol.entries import Kind
from protocol.errors import UnavailableError

CONTROL: Final = ".kinfolder"
"""The directory in a folder's root that is ours."""
BUFFER_BYTES: Final = 1 << 20

_KINDS: Final = {stat.S_IFREG: Kind.FILE, stat.S_IFDIR: Kind.DIRECTORY, stat.S_IFLNK: Kind.LINK}
_REASONS: Final = {
    errno.ENOSPC: "disk_full",
    errno.EDQUOT: "disk_full",
    errno.EROFS: "read_only",
    errno.EBUSY: "locked",
    errno.ETXTBSY: "locked",
    errno.EAGAIN: "locked",
    errno.ENAMETOOLONG: "name",
    errno.EILSEQ: "name",
}


class DiskError(UnavailableError):
    """This device's disk cannot take or give something just now; ``code`` is a reason of the contract's ``status``."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.code = reason


class DiskFullError(DiskError):
    """There is no room for a file; nothing under a user's name has changed."""

    def __init__(self, text: str) -> None:
        super().__init__("disk_full", text)


def kind_of(mode: int) -> Kind | None:
    """Return what a node of this mode is, or None for what is never synced: FIFO, socket, device."""
    return _KINDS.get(stat.S_IFMT(mode))


def fingerprint(found: Stat) -> Fingerprint:
    """Return what the local tree keeps of a stat result."""
    return Fingerprint(*found)


def same_but_ctime(one: Stat | Fingerprint, other: Stat | Fingerprint) -> bool:
    """Tell whether two looks saw the same file; a rename alone changes ``ctime``."""
    return (one.inode, one.size, one.mtime_ns, one.mode, one.device) == (
        other.inode,
        other.size,
        other.mtime_ns,
        other.mode,
        other.device,
    )


def same_node(one: Stat | Fingerprint, other: Stat | Fingerprint) -> bool:
    """Tell whether two looks saw the same inode of the same type, whatever it held."""
    return one.inode == other.inode and one.device == other.device and stat.S_IFMT(one.mode) == stat.S_IFMT(other.mode)


def reason_of(error: OSError, *, writing: bool) -> str:
    """Return the reason code of the contract for a failed call."""
    if error.errno in {errno.EACCES, errno.EPERM}:
        return "read_only" if writing else "unreadable"
    return _REASONS.get(error.errno or 0, "error")


def text_of(error: OSError) -> str:
    """Return the system's words for a failed call, without a path."""
    return (error.strerror or type(error).__name__).lower()


def disk_error(error: OSError, *, writing: bool) -> DiskError:
    """Return our error for the system's."""
    reason = reason_of(error, writing=writing)
    return DiskFullError(text_of(error)) if reason == "disk_full" else DiskError(reason, text_of(error))


def is_gone(error: OSError) -> bool:
    """Tell whether a call failed since a name is missing, is no directory, or is a link."""
    return isinstance(error, FileNotFoundError | NotADirectoryError) or error.errno == errno.ELOOP


def join(directory: str, name: str) -> str:
    """Return the path of a name in a directory."""
    return f"{directory}/{name}" if directory else name


def split(path: str) -> tuple[str, str]:
    """Return the directory and the name of a path."""
    directory, _, name = path.rpartition("/")
    return directory, name


@contextmanager
def opened(fs: FileSystem, root: Handle, path: str) -> Iterator[Handle]:
    """Open a directory by walking from the root, one descriptor after the other, through no link.

    Raises:
        OSError: ENOENT, ENOTDIR or ELOOP where a part is missing or no directory; ENAMETOOLONG beyond the depth limit.
    """
    if not path:
        yield root
        return
    parts = path.split("/")
    if len(parts) > limits.DEPTH_MAX:
        raise OSError(errno.ENAMETOOLONG, "too many directories within each other")
    here = root
    try:
        for part in parts:
            below = fs.open_directory(here, part)
            if here != root:
                fs.close(here)
            here = below
        yield here
    finally:
        if here != root:
            fs.close(here)


class Cursor:
    """Visits many directories, each reached from the last one's open parents; quick where paths come in tree order."""

    def __init__(self, fs: FileSystem, root: Handle) -> None:
        self._fs = fs
        self._root = root
        self._way: list[tuple[str, Handle]] = []

    def go(self, path: str) -> Handle:
        """Return the open directory at a path; it stays open until the next call.

        Raises:
            OSError: As :func:`opened`.
        """
        parts = path.split("/") if path else []
        same = 0
        for (name, _), part in zip(self._way, parts, strict=False):
            if name != part:
                break
            same += 1
        self._back_to(same)
        for part in parts[same:]:
            here = self._way[-1][1] if self._way else self._root
            self._way.append((part, self._fs.open_directory(here, part)))
        return self._way[-1][1] if self._way else self._root

    def _back_to(self, length: int) -> None:
        while len(self._way) > length:
            self._fs.close(self._way.pop()[1])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._back_to(0)


def hash_open(fs: FileSystem, handle: Handle, size: int, buffer: memoryview | None = None) -> bytes:
    """Return the BLAKE3 of the first ``size`` bytes of an open file, or of fewer where it ends before.

    A size is asked for so that a file that grows as fast as it is read comes to an end.
    """
    if buffer is None:
        buffer = memoryview(bytearray(min(BUFFER_BYTES, max(size, 1))))
    hasher = blake3()
    offset = 0
    while offset < size:
        part = buffer[: size - offset]
        count = fs.read(handle, part, offset)
        hasher.update(part[:count])
        offset += count
        if count < len(part):
            break
    return hasher.digest()


def hash_bytes(data: bytes) -> bytes:
    """Return the BLAKE3 of bytes."""
    return blake3(data).digest()


def stands(fs: FileSystem, root: Handle, path: str, seen: Fingerprint) -> bool:
    """Tell whether a path leads to the file that was seen, as it looked then but for its ``ctime``."""
    directory, name = split(path)
    try:
        with opened(fs, root, directory) as parent:
            return same_but_ctime(fs.lstat(parent, name), seen)
    except OSError:
        return False
