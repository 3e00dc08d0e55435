"""The real door to the disk: Linux calls by directory descriptor, none of which follows a link below the root.

Rule 1: a name is one component; "..", "/" and NUL are refused here too, whoever asks.
Rule 2: nothing replaces anything: ``rename`` needs a free name, ``exchange`` keeps both.
Rule 3: only ``OSError`` leaves this module.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import signal
import stat
from collections.abc import Iterator
from typing import Any, Final

from protocol.effects import Access, Handle, Named, Stat

_RENAME_NOREPLACE: Final = 1
_RENAME_EXCHANGE: Final = 2
_STAT_BLOCK: Final = 512
"""What ``st_blocks`` counts, whatever the file system's own blocks are."""

_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_FILE: Final = {
    Access.READ: os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY,
    Access.WRITE: os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY,
    Access.CREATE: os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC,
}
_UNSUPPORTED: Final = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)

_libc: Final[Any] = ctypes.CDLL(None, use_errno=True)
_renameat2: Final[Any] = getattr(_libc, "renameat2", None)
_syncfs: Final[Any] = getattr(_libc, "syncfs", None)


def _raw(name: str) -> bytes:
    if not name or "/" in name or "\0" in name or name in {".", ".."}:
        raise OSError(errno.EINVAL, "not a name", name)
    try:
        return os.fsencode(name)
    except UnicodeEncodeError as error:
        raise OSError(errno.EILSEQ, "not a name on this system", name) from error


def _stat(found: os.stat_result) -> Stat:
    return Stat(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_mode)


def _rename(parent: int, name: bytes, new_parent: int, new_name: bytes, flags: int) -> None:
    if _renameat2 is None:
        raise OSError(errno.ENOSYS, "this system has no renameat2")
    if _renameat2(parent, name, new_parent, new_name, flags) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), name)


class LinuxFileSystem:
    """The machine's own disks (:class:`protocol.effects.FileSystem` says what each call promises)."""

    def open_root(self, path: str) -> Handle:
        """Open a directory by its absolute path."""
        try:
            return Handle(os.open(path, _DIRECTORY))
        except ValueError as error:
            raise OSError(errno.EINVAL, "not a path", path) from error

    def open_directory(self, parent: Handle, name: str) -> Handle:
        """Open a directory below another."""
        return Handle(os.open(_raw(name), _DIRECTORY, dir_fd=parent))

    def open_file(self, parent: Handle, name: str, access: Access) -> Handle:
        """Open a file."""
        return Handle(os.open(_raw(name), _FILE[access], 0o666, dir_fd=parent))

    def close(self, handle: Handle) -> None:
        """Close a handle."""
        os.close(handle)

    def list(self, directory: Handle) -> Iterator[Named]:
        """Yield the names of a directory with what stands there; a name that vanishes meanwhile is left out."""
        with os.scandir(directory) as entries:
            for entry in entries:
                try:
                    found = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue
                except OSError:
                    yield Named(entry.name, None)
                    continue
                yield Named(entry.name, _stat(found))

    def lstat(self, directory: Handle, name: str) -> Stat:
        """Return what stands at a name."""
        return _stat(os.stat(_raw(name), dir_fd=directory, follow_symlinks=False))

    def fstat(self, handle: Handle) -> Stat:
        """Return what is open."""
        return _stat(os.fstat(handle))

    def read(self, handle: Handle, buffer: memoryview, offset: int) -> int:
        """Fill the buffer from a position."""
        done = 0
        while done < len(buffer):
            count = os.preadv(handle, [buffer[done:]], offset + done)
            if count == 0:
                break
            done += count
        return done

    def write(self, handle: Handle, data: bytes | memoryview, offset: int) -> None:
        """Write all the bytes at a position."""
        rest = memoryview(data)
        while rest:
            count = os.pwrite(handle, rest, offset)
            rest = rest[count:]
            offset += count

    def truncate(self, handle: Handle, size: int) -> None:
        """Cut or lengthen the file."""
        try:
            os.ftruncate(handle, size)
        except OverflowError as error:
            raise OSError(errno.EFBIG, "no file can be that large") from error

    def set_attributes(self, handle: Handle, *, mtime_ns: int | None = None, mode: int | None = None) -> None:
        """Set the modification time or the permission bits; the time of the last access stays."""
        if mode is not None:
            os.fchmod(handle, mode)
        if mtime_ns is not None:
            try:
                os.utime(handle, ns=(os.fstat(handle).st_atime_ns, mtime_ns))
            except OverflowError as error:
                raise OSError(errno.EINVAL, "no file can be that old or new") from error

    def sync(self, handle: Handle) -> None:
        """Make one file or directory durable."""
        os.fsync(handle)

    def sync_all(self, handle: Handle) -> None:
        """Make a whole file system durable."""
        if _syncfs is None:
            os.sync()
        elif _syncfs(handle) != 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))

    def make_directory(self, parent: Handle, name: str, mode: int) -> None:
        """Make a directory."""
        os.mkdir(_raw(name), mode, dir_fd=parent)

    def make_link(self, parent: Handle, name: str, target: bytes) -> None:
        """Make a symbolic link."""
        try:
            os.symlink(target, _raw(name), dir_fd=parent)
        except ValueError as error:
            raise OSError(errno.EINVAL, "not a link's target", name) from error

    def read_link(self, parent: Handle, name: str) -> bytes:
        """Return a link's target."""
        return os.readlink(_raw(name), dir_fd=parent)

    def rename(self, parent: Handle, name: str, new_parent: Handle, new_name: str) -> None:
        """Move a name to a free one; where the kernel cannot promise that, by a hard link and an unlink."""
        old, new = _raw(name), _raw(new_name)
        try:
            _rename(parent, old, new_parent, new, _RENAME_NOREPLACE)
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                raise
        else:
            return
        if stat.S_ISDIR(os.stat(old, dir_fd=parent, follow_symlinks=False).st_mode):
            # A directory has no second link. At worst this replaces an empty directory made at this very moment.
            try:
                os.stat(new, dir_fd=new_parent, follow_symlinks=False)
            except FileNotFoundError:
                os.rename(old, new, src_dir_fd=parent, dst_dir_fd=new_parent)
                return
            raise OSError(errno.EEXIST, os.strerror(errno.EEXIST), name)
        os.link(old, new, src_dir_fd=parent, dst_dir_fd=new_parent, follow_symlinks=False)
        os.unlink(old, dir_fd=parent)

    def exchange(self, parent: Handle, name: str, other_parent: Handle, other_name: str) -> None:
        """Exchange two names; EINVAL where the file system cannot."""
        try:
            _rename(parent, _raw(name), other_parent, _raw(other_name), _RENAME_EXCHANGE)
        except OSError as error:
            if error.errno in _UNSUPPORTED:
                raise OSError(errno.EINVAL, "this file system cannot exchange two names", name) from error
            raise

    def unlink(self, parent: Handle, name: str) -> None:
        """Remove a name that is no directory."""
        os.unlink(_raw(name), dir_fd=parent)

    def remove_directory(self, parent: Handle, name: str) -> None:
        """Remove an empty directory."""
        os.rmdir(_raw(name), dir_fd=parent)

    def has_writer(self, handle: Handle) -> bool | None:
        """Tell whether any process could still write here: a read lease is refused while one has it open for writing."""
        try:
            # Should somebody open it at this very moment, the kernel tells us by a signal: by one that is ignored.
            fcntl.fcntl(handle, fcntl.F_SETSIG, signal.SIGURG)
            fcntl.fcntl(handle, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        except OSError as error:
            return True if error.errno in {errno.EAGAIN, errno.EBUSY} else None
        fcntl.fcntl(handle, fcntl.F_SETLEASE, fcntl.F_UNLCK)
        return False

    def free_bytes(self, handle: Handle) -> int:
        """Return how many bytes may still be written."""
        found = os.fstatvfs(handle)
        return found.f_bavail * found.f_frsize

    def held_bytes(self, handle: Handle) -> int:
        """Return how many bytes of its file system a file takes."""
        return os.fstat(handle).st_blocks * _STAT_BLOCK
