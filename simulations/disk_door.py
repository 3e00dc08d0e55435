"""The door of one process to a simulated disk: :class:`protocol.effects.FileSystem`, by handles that end with the process.

Rule 1: a handle is never given twice, so one that is used after its end is always found out.
Rule 2: once the process is gone, every call raises :class:`simulations.disk_hooks.Crashed`, or what its machine's life raises, and
    does nothing.
"""

from __future__ import annotations

import errno
import itertools
from collections.abc import Iterator
from typing import Final, NoReturn

from protocol.effects import Access, Handle, Named, Stat
from simulations.disk import USER, SimDisk
from simulations.disk_calls import UMASK, Calls, check_target, failed
from simulations.disk_hooks import Life
from simulations.inodes import FILE_BYTES_MAX, Directory, File, Inode, Link
from simulations.paths import resolve

PATH_BYTES_MAX: Final = 4096
HANDLES_MAX: Final = 1024
NEW_FILE: Final = 0o666
_FIRST_HANDLE: Final = 3


class SimFiles:
    """One process's calls.

    Args:
        disk: Its machine's main disk.
        uid: Whose process it is.
        umask: Permissions that it gives to nothing new.
        new_file: Permissions of a new file, before that.
        life: The machine's, which counts its effects too and may end before any of them; then :meth:`kill` is called.
    """

    def __init__(
        self,
        disk: SimDisk,
        *,
        uid: int = USER,
        umask: int = UMASK,
        new_file: int = NEW_FILE,
        life: Life | None = None,
    ) -> None:
        self._calls = Calls(disk, uid=uid, umask=umask, hooks=disk.hooks, life=life)
        self._disk = disk
        self._new_file = new_file
        self._open: dict[int, Inode] = {}
        self._writable: set[int] = set()
        self._next = itertools.count(_FIRST_HANDLE)

    @property
    def handles(self) -> int:
        """How many files and directories are open."""
        return len(self._open)

    def kill(self) -> None:
        """End the process: what it has open is closed, and what it still tries fails."""
        opened, self._open = self._open, {}
        self._calls.is_dead = True
        for handle, inode in opened.items():
            _let_go(inode, is_writer=handle in self._writable)
        self._writable.clear()

    # --- Handles

    def _inode(self, handle: Handle) -> Inode:
        inode = self._open.get(handle)
        if inode is None:
            self._missing()
        return inode

    def _missing(self) -> NoReturn:
        self._calls.check_alive()
        raise failed(errno.EBADF)

    def _directory(self, handle: Handle) -> Directory:
        inode = self._open.get(handle)
        if not isinstance(inode, Directory):
            if inode is None:
                self._missing()
            raise failed(errno.ENOTDIR)
        return inode

    def _opened(self, inode: Inode, *, is_writer: bool = False) -> Handle:
        handle = next(self._next)
        self._open[handle] = inode
        inode.opens += 1
        if is_writer:
            inode.writers += 1
            self._writable.add(handle)
        return Handle(handle)

    def _check_room(self) -> None:
        if len(self._open) >= HANDLES_MAX:
            raise failed(errno.EMFILE)

    def open_root(self, path: str) -> Handle:
        """Open a directory by its absolute path."""
        self._calls.check_alive()
        if not path.startswith("/") or "\0" in path:
            raise failed(errno.EINVAL if "\0" in path else errno.ENOENT, path)
        if len(path.encode(errors="surrogateescape")) >= PATH_BYTES_MAX:
            raise failed(errno.ENAMETOOLONG, path)
        self._check_room()
        found = resolve(self._calls, self._disk.root, path, follows_last=False)
        if not isinstance(found, Directory):
            raise failed(errno.ENOTDIR, path)
        self._calls.check(found, 4)
        self._calls.ask("open_root", found)
        return self._opened(found)

    def open_directory(self, parent: Handle, name: str) -> Handle:
        """Open a directory below another."""
        self._check_room()
        return self._opened(self._calls.open_directory(self._directory(parent), name))

    def open_file(self, parent: Handle, name: str, access: Access) -> Handle:
        """Open a file."""
        self._check_room()
        directory = self._directory(parent)
        if access is Access.CREATE:
            return self._opened(self._calls.create(directory, name, self._new_file), is_writer=True)
        return self._opened(self._calls.open_file(directory, name, access), is_writer=access is Access.WRITE)

    def close(self, handle: Handle) -> None:
        """Close a handle."""
        inode = self._open.pop(handle, None)
        if inode is None:
            self._missing()
        is_writer = handle in self._writable
        if is_writer:
            self._writable.discard(handle)
        _let_go(inode, is_writer=is_writer)

    # --- Looking

    def list(self, directory: Handle) -> Iterator[Named]:
        """Yield the names of a directory with what stands there, in no order."""
        here = self._directory(directory)
        self._calls.ask("list", here)
        keys = list(here.entries)
        draw = here.disk.chance.random
        keys.sort(key=lambda _: draw())
        may_look = self._calls.may(here, 1)
        for key in keys:
            entry = here.entries.get(key)
            if entry is None:
                continue  # it vanished meanwhile
            name, inode = entry
            if isinstance(inode, Directory) and inode.mounted is not None:
                inode = inode.mounted
            yield Named(name, inode.stat() if may_look else None)
            self._calls.check_alive()

    def lstat(self, directory: Handle, name: str) -> Stat:
        """Return what stands at a name."""
        here = self._directory(directory)
        inode = self._calls.get(here, name)
        self._calls.ask("lstat", inode, here, name)
        return inode.stat()

    def fstat(self, handle: Handle) -> Stat:
        """Return what is open."""
        inode = self._inode(handle)
        self._calls.ask("fstat", inode)
        return inode.stat()

    def read_link(self, parent: Handle, name: str) -> bytes:
        """Return a link's target."""
        here = self._directory(parent)
        link = self._calls.get(here, name)
        if not isinstance(link, Link):
            raise failed(errno.EINVAL, name)
        self._calls.ask("read_link", link, here, name)
        return link.target

    def has_writer(self, handle: Handle) -> bool | None:
        """Tell whether any process could still write here."""
        inode = self._inode(handle)
        calls = self._calls
        if not isinstance(inode, File) or not inode.disk.personality.tells_writers or calls.uid not in {0, inode.owner}:
            return None
        return inode.writers > 0

    def free_bytes(self, handle: Handle) -> int:
        """Return how many bytes may still be written."""
        disk = self._inode(handle).disk
        return max(0, disk.capacity_bytes - disk.used_bytes)

    def held_bytes(self, handle: Handle) -> int:
        """Return how many bytes of its disk a file takes."""
        inode = self._inode(handle)
        return inode.allocated if isinstance(inode, File) else 0

    # --- Bytes

    def read(self, handle: Handle, buffer: memoryview, offset: int) -> int:
        """Fill the buffer from a position."""
        inode = self._inode(handle)
        if not len(buffer):
            return 0
        if isinstance(inode, Directory):
            raise failed(errno.EISDIR)
        if not isinstance(inode, File):
            raise failed(errno.ESPIPE)
        if offset < 0:
            raise failed(errno.EINVAL)
        fault = self._calls.ask("read", inode)
        if fault is not None and fault.bytes_max >= 0:
            buffer = buffer[: fault.bytes_max]
        return inode.read(buffer, offset)

    def write(self, handle: Handle, data: bytes | memoryview, offset: int) -> None:
        """Write all the bytes at a position."""
        inode = self._inode(handle)
        if not len(data):
            return
        if offset < 0:
            raise failed(errno.EINVAL)
        if not isinstance(inode, File):
            raise failed(errno.ESPIPE if handle in self._writable else errno.EBADF)
        if handle not in self._writable:
            raise failed(errno.EBADF)
        self._calls.write(inode, bytes(data), offset)

    def truncate(self, handle: Handle, size: int) -> None:
        """Cut or lengthen the file."""
        inode = self._inode(handle)
        if size > FILE_BYTES_MAX:
            raise failed(errno.EFBIG)
        if not isinstance(inode, File) or handle not in self._writable:
            raise failed(errno.EINVAL)
        self._calls.truncate(inode, size)

    def set_attributes(self, handle: Handle, *, mtime_ns: int | None = None, mode: int | None = None) -> None:
        """Set the modification time or the permission bits."""
        inode = self._inode(handle)
        if mtime_ns is not None or mode is not None:
            self._calls.set_attributes(inode, mtime_ns=mtime_ns, mode=mode)

    def sync(self, handle: Handle) -> None:
        """Make one file or directory durable."""
        self._calls.sync(self._inode(handle))

    def sync_all(self, handle: Handle) -> None:
        """Make a whole file system durable."""
        self._calls.sync_all(self._inode(handle))

    # --- Names

    def make_directory(self, parent: Handle, name: str, mode: int) -> None:
        """Make a directory."""
        self._calls.make_directory(self._directory(parent), name, mode)

    def make_link(self, parent: Handle, name: str, target: bytes) -> None:
        """Make a symbolic link."""
        self._disk.spelling(name)
        check_target(target)
        self._calls.make_link(self._directory(parent), name, target)

    def rename(self, parent: Handle, name: str, new_parent: Handle, new_name: str) -> None:
        """Move a name to a free one."""
        self._calls.rename(self._directory(parent), name, self._directory(new_parent), new_name)

    def exchange(self, parent: Handle, name: str, other_parent: Handle, other_name: str) -> None:
        """Exchange two names; EINVAL where the file system cannot."""
        self._calls.exchange(self._directory(parent), name, self._directory(other_parent), other_name)

    def unlink(self, parent: Handle, name: str) -> None:
        """Remove a name that is no directory."""
        self._calls.unlink(self._directory(parent), name)

    def remove_directory(self, parent: Handle, name: str) -> None:
        """Remove an empty directory."""
        self._calls.remove_directory(self._directory(parent), name)


def _let_go(inode: Inode, *, is_writer: bool) -> None:
    inode.opens -= 1
    if is_writer:
        inode.writers -= 1
        inode.disk.modified(inode)
    if not inode.links:
        inode.disk.give_back(inode)
