"""What people and their programs do on a simulated disk, by path: no effect is counted and no hook asked.

Rule 1: paths are absolute, and links are followed as Linux does.
Rule 2: what Linux refuses is refused here too, with its ``OSError``.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self

from protocol.effects import Stat
from simulations.disk import USER, SimDisk
from simulations.disk_calls import UMASK, Calls, check_target, failed
from simulations.inodes import Directory, File, Inode, Link
from simulations.paths import place, resolve

_READ: Final = 4
_WRITE: Final = 2


class UserFile:
    """A file that a program has open for reading and writing."""

    def __init__(self, calls: Calls, file: File, opened: dict[UserFile, None]) -> None:
        self.inode = file
        self._calls = calls
        self._opened = opened
        self._opened[self] = None
        file.opens += 1
        file.writers += 1

    def write(self, data: bytes, offset: int | None = None) -> None:
        """Write bytes at a position, at the end if none is given."""
        if data:
            self._calls.write(self.inode, data, self.inode.size if offset is None else offset)

    def read(self) -> bytes:
        """Return all its bytes."""
        return self.inode.data()

    def truncate(self, size: int) -> None:
        """Give it another size."""
        self._calls.truncate(self.inode, size)

    def sync(self) -> None:
        """Make its bytes durable."""
        self._calls.sync(self.inode)

    def close(self) -> None:
        """Close it; a second call does nothing."""
        if self in self._opened:
            del self._opened[self]
            inode = self.inode
            inode.opens -= 1
            inode.writers -= 1
            inode.disk.modified(inode)
            inode.disk.give_back(inode)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class UserFiles:
    """One person's way to a disk.

    Args:
        disk: The machine's main disk.
        uid: Who that is; 0 may do everything.
    """

    def __init__(self, disk: SimDisk, *, uid: int = USER, umask: int = UMASK) -> None:
        self._calls = Calls(disk, uid=uid, umask=umask)
        self._disk = disk
        self._opened: dict[UserFile, None] = {}

    def close_all(self) -> None:
        """Close what programs hold open, as when they end."""
        for file in list(self._opened):
            file.close()

    # --- Looking

    def _at(self, path: str, *, follows: bool = True) -> Inode:
        return resolve(self._calls, self._disk.root, path, follows_last=follows)

    def _place(self, path: str) -> tuple[Directory, str]:
        return place(self._calls, self._disk.root, path)

    def _file(self, path: str, wanted: int) -> File:
        inode = self._at(path)
        if isinstance(inode, Directory):
            raise failed(errno.EISDIR, path)
        self._calls.check(inode, wanted)
        if not isinstance(inode, File):
            raise failed(errno.ENXIO, path)
        return inode

    def exists(self, path: str) -> bool:
        """Tell whether anything stands at a path, also a link that leads nowhere."""
        try:
            self._at(path, follows=False)
        except OSError as error:
            if error.errno not in {errno.ENOENT, errno.ENOTDIR}:
                raise
            return False
        return True

    def stat(self, path: str) -> Stat:
        """Return what stands at a path, a link itself."""
        return self._at(path, follows=False).stat()

    def links(self, path: str) -> int:
        """Return how many names a file has."""
        return self._at(path).links

    def is_directory(self, path: str) -> bool:
        """Tell whether a directory stands at a path, not a link to one."""
        return self.exists(path) and isinstance(self._at(path, follows=False), Directory)

    def read(self, path: str) -> bytes:
        """Return the bytes of a file."""
        return self._file(path, _READ).data()

    def read_link(self, path: str) -> bytes:
        """Return where a link leads."""
        link = self._at(path, follows=False)
        if not isinstance(link, Link):
            raise failed(errno.EINVAL, path)
        return link.target

    def list(self, path: str) -> list[str]:
        """Return the names in a directory, sorted."""
        directory = self._at(path)
        if not isinstance(directory, Directory):
            raise failed(errno.ENOTDIR, path)
        self._calls.check(directory, _READ)
        return sorted(entry.name for entry in directory.entries.values())

    # --- Writing

    def open(self, path: str) -> UserFile:
        """Open a file for writing, made if it is missing, and hold it open."""
        directory, name = self._place(path)
        if self._calls.find(directory, name) is None:
            file = self._calls.create(directory, name, 0o666)
        else:
            file = self._file(path, _READ | _WRITE)
        if file.disk.is_read_only:
            raise failed(errno.EROFS, path)
        return UserFile(self._calls, file, self._opened)

    def write(self, path: str, data: bytes, *, parents: bool = False) -> None:
        """Let a file hold these bytes: the same inode, emptied first."""
        if parents:
            self.make_directories(os.path.dirname(path.rstrip("/")))
        with self.open(path) as file:
            if file.inode.size:
                file.truncate(0)
            file.write(data)

    def create(self, path: str, data: bytes = b"") -> None:
        """Make a new file; EEXIST if anything stands there."""
        file = self._calls.create(*self._place(path), 0o666)
        with UserFile(self._calls, file, self._opened) as opened:
            opened.write(data)

    def append(self, path: str, data: bytes) -> None:
        """Add bytes at the end of a file."""
        with self.open(path) as file:
            file.write(data)

    def write_at(self, path: str, data: bytes, offset: int) -> None:
        """Write bytes in the middle of a file."""
        with self.open(path) as file:
            file.write(data, offset)

    def truncate(self, path: str, size: int) -> None:
        """Give a file another size."""
        with self.open(path) as file:
            file.truncate(size)

    def sync(self, path: str) -> None:
        """Make a file's bytes or a directory's names durable."""
        self._calls.sync(self._at(path))

    # --- Names

    def make_directory(self, path: str, mode: int = 0o777) -> None:
        """Make a directory."""
        self._calls.make_directory(*self._place(path), mode)

    def make_directories(self, path: str) -> None:
        """Make a directory and those above it that are missing."""
        above = ""
        for part in path.split("/"):
            if not part:
                continue
            above = f"{above}/{part}"
            if not self.exists(above):
                self.make_directory(above)

    def make_link(self, path: str, target: str | bytes) -> None:
        """Make a symbolic link."""
        raw = os.fsencode(target)
        check_target(raw)
        self._calls.make_link(*self._place(path), raw)

    def make_fifo(self, path: str) -> None:
        """Make a FIFO, which nobody syncs."""
        self._calls.make_special(*self._place(path), stat.S_IFIFO | 0o666)

    def link(self, path: str, new_path: str) -> None:
        """Give a file a second name."""
        self._calls.link(*self._place(path), *self._place(new_path))

    def rename(self, path: str, new_path: str) -> None:
        """Move what stands at a path, in place of a file or an empty directory that stands at the other."""
        self._calls.rename(*self._place(path), *self._place(new_path), replaces=True)

    def rename_new(self, path: str, new_path: str) -> None:
        """Move what stands at a path to one at which nothing stands."""
        self._calls.rename(*self._place(path), *self._place(new_path))

    def exchange(self, path: str, other: str) -> None:
        """Exchange what stands at two paths."""
        self._calls.exchange(*self._place(path), *self._place(other))

    def move(self, path: str, new_path: str) -> None:
        """Move as ``mv`` does: where the other path is on another disk, copy and remove."""
        try:
            self.rename(path, new_path)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            self.copy(path, new_path)
            self.remove_tree(path)

    def copy(self, path: str, new_path: str) -> None:
        """Copy a file or a tree as ``cp -a`` does, with times and permissions."""
        source = self._at(path, follows=False)
        if isinstance(source, Link):
            self.make_link(new_path, source.target)
            return
        if isinstance(source, Directory):
            if not self.exists(new_path):
                self.make_directory(new_path)
            for name in self.list(path):
                self.copy(f"{path}/{name}", f"{new_path}/{name}")
        else:
            self.write(new_path, self.read(path))
        self.set_mode(new_path, source.mode & 0o7777)
        self.set_mtime(new_path, source.mtime_ns)

    def remove(self, path: str) -> None:
        """Remove a file or a link."""
        self._calls.unlink(*self._place(path))

    def remove_directory(self, path: str) -> None:
        """Remove an empty directory."""
        self._calls.remove_directory(*self._place(path))

    def remove_tree(self, path: str) -> None:
        """Remove a file, or a directory with all that is in it."""
        if not self.is_directory(path):
            self.remove(path)
            return
        for name in self.list(path):
            self.remove_tree(f"{path}/{name}")
        self.remove_directory(path)

    # --- Attributes

    def set_mtime(self, path: str, mtime_ns: int) -> None:
        """Set the time of modification."""
        self._calls.set_attributes(self._at(path), mtime_ns=mtime_ns, mode=None)

    def set_mode(self, path: str, mode: int) -> None:
        """Set the permission bits."""
        self._calls.set_attributes(self._at(path), mtime_ns=None, mode=mode)

    def set_owner(self, path: str, uid: int) -> None:
        """Give a file to somebody else, as only root can; it is durable at once."""
        inode = self._at(path)
        inode.owner = uid
        inode.disk.stamp(inode, modified=False)

    def keeping_mtime(self, path: str, act: Callable[[], None]) -> None:
        """Let something change a file's bytes and set its time back afterwards, as programs of encrypted volumes do."""
        before = self.stat(path)
        act()
        self.set_mtime(path, before.mtime_ns)
