"""What Linux checks before it changes a disk: who asks, what is there, and which error comes first.

Rule 1: a call that fails has changed nothing, but for a write that ran out of room.
Rule 2: permissions are those of an ordinary user; there are no groups, and user 0 may do everything.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import Final

from protocol.effects import Access
from simulations.disk import USER, SimDisk
from simulations.disk_hooks import Call, Crashed, Fault, Hooks, Life
from simulations.inodes import FILE_BYTES_MAX, Directory, Entry, File, Inode, Link

UMASK: Final = 0o022
TARGET_BYTES_MAX: Final = 4095
"""Of a symbolic link."""
_READ: Final = 4
_WRITE: Final = 2
_SEARCH: Final = 1
_CHANGE: Final = _WRITE | _SEARCH
_NEEDED: Final = {Access.READ: _READ, Access.WRITE: _READ | _WRITE, Access.CREATE: 0}


def failed(code: int, name: str = "") -> OSError:
    """Return the error that Linux gives."""
    return OSError(code, os.strerror(code), name)


class Calls:
    """The calls of one process, by what stands on the disk and not yet by handle or path.

    Args:
        disk: Its main disk; others may be mounted there.
        uid: Whose process it is.
        umask: Permissions that it gives to nothing new.
        hooks: Who sees its calls; None for those of a person.
        life: The machine's, which counts its effects too.
    """

    def __init__(
        self,
        disk: SimDisk,
        *,
        uid: int = USER,
        umask: int = UMASK,
        hooks: Hooks | None = None,
        life: Life | None = None,
    ) -> None:
        self.disk = disk
        self.uid = uid
        self.umask = umask
        self.is_dead = False
        self._hooks = hooks
        self._life = life
        self._by_user = hooks is None

    # --- Hooks

    def check_alive(self) -> None:
        """Refuse everything once the process is gone.

        Raises:
            Crashed: It is; or what the machine's life raises for that.
        """
        if self.is_dead:
            if self._life is not None:
                self._life.effect()
            raise Crashed

    def ask(self, call: str, inode: Inode, directory: Directory | None = None, name: str = "") -> Fault | None:
        """Announce a call that changes nothing; return how it is to come out, if it is no error.

        Raises:
            OSError: It is to fail.
        """
        hooks = self._hooks
        if hooks is None or hooks.fault is None:
            return None
        fault = hooks.fault(Call(call, inode, directory, name))
        if fault is not None and fault.code:
            raise fault.error(name)
        return fault

    def _begin(
        self,
        call: str,
        inode: Inode,
        directory: Directory | None = None,
        name: str = "",
        to: tuple[Directory | None, str, Inode | None] = (None, "", None),
        offset: int = 0,
        data: bytes = b"",
    ) -> tuple[Call, Fault | None] | None:
        """Announce a call that changes something."""
        if inode.disk.is_read_only:
            raise failed(errno.EROFS, name)
        hooks = self._hooks
        if hooks is None:
            return None
        if self._life is not None:
            self._life.effect()
        hooks.effects += 1
        if hooks.before is None and hooks.fault is None and hooks.after is None:
            return None
        what = Call(call, inode, directory, name, *to, offset, data)
        fault = None if hooks.fault is None else hooks.fault(what)
        if fault is not None and fault.code and not fault.is_after and not fault.loses_bytes:
            raise fault.error(name)
        if hooks.before is not None:
            hooks.before(what)
        self.check_alive()
        return what, fault

    def _end(self, begun: tuple[Call, Fault | None] | None) -> None:
        if begun is None or self._hooks is None:
            return
        what, fault = begun
        if self._hooks.after is not None:
            self._hooks.after(what)
        self.check_alive()
        if fault is not None and fault.code:
            raise fault.error(what.name)

    # --- Who may do what

    def may(self, inode: Inode, wanted: int) -> bool:
        """Tell whether all of these permission bits are given to this process."""
        bits = inode.mode >> 6 if inode.owner == self.uid else inode.mode
        return self.uid == 0 or bits & wanted == wanted

    def check(self, inode: Inode, wanted: int) -> None:
        """Refuse what is not permitted: EACCES."""
        if not self.may(inode, wanted):
            raise failed(errno.EACCES, inode.name)

    # --- Looking

    def find(self, directory: Directory, name: str) -> Entry | None:
        """Return what stands at a name, a mounted disk not considered.

        Raises:
            OSError: EACCES; or it can be no name.
        """
        key = directory.disk.spelling(name)[0]
        if self.uid:
            self.check(directory, _SEARCH)
        if not key:
            raise failed(errno.ENAMETOOLONG if directory.links else errno.ENOENT, name)
        return directory.entries.get(key)

    def get(self, directory: Directory, name: str) -> Inode:
        """Return what stands at a name.

        Raises:
            OSError: As :meth:`find`; ENOENT.
        """
        entry = self.find(directory, name)
        if entry is None:
            raise failed(errno.ENOENT, name)
        inode = entry.inode
        if isinstance(inode, Directory) and inode.mounted is not None:
            return inode.mounted
        return inode

    def open_directory(self, directory: Directory, name: str) -> Directory:
        """Return a directory that may be opened."""
        found = self.get(directory, name)
        if not isinstance(found, Directory):
            raise failed(errno.ENOTDIR, name)
        self.check(found, _READ)
        self.ask("open_directory", found, directory, name)
        return found

    def open_file(self, directory: Directory, name: str, access: Access) -> Inode:
        """Return what may be opened."""
        found = self.get(directory, name)
        if isinstance(found, Link):
            raise failed(errno.ELOOP, name)
        if isinstance(found, Directory) and access is not Access.READ:
            raise failed(errno.EISDIR, name)
        self.check(found, _NEEDED[access])
        if stat.S_ISSOCK(found.mode):
            raise failed(errno.ENXIO, name)
        if access is not Access.READ and found.disk.is_read_only:
            raise failed(errno.EROFS, name)
        self.ask("open_file", found, directory, name)
        return found

    # --- New names

    def _new(self, directory: Directory, name: str) -> None:
        if self.find(directory, name) is not None:
            raise failed(errno.EEXIST, name)
        self._room_for_name(directory, name)
        self.check(directory, _CHANGE)

    def _room_for_name(self, directory: Directory, name: str) -> None:
        if directory.links == 0:
            raise failed(errno.ENOENT, name)
        most = directory.disk.personality.path_chars_max
        if most and len(directory.path().rstrip("/")) + 1 + len(name) > most:
            raise failed(errno.ENAMETOOLONG, name)

    def create(self, directory: Directory, name: str, mode: int) -> File:
        """Make an empty file."""
        self._new(directory, name)
        begun = self._begin("open_file", directory, directory, name)
        disk = directory.disk
        file = File(disk, disk.take_number(), mode & ~self.umask & 0o7777, self.uid, 0)
        disk.stamp(file, modified=True)
        disk.add(directory, name, file, by_user=self._by_user)
        self._end(begun)
        return file

    def make_directory(self, directory: Directory, name: str, mode: int) -> Directory:
        """Make a directory."""
        self._new(directory, name)
        begun = self._begin("make_directory", directory, directory, name)
        disk = directory.disk
        made = Directory(disk, disk.take_number(), mode & ~self.umask & 0o1777, self.uid, 0)
        disk.stamp(made, modified=True)
        disk.add(directory, name, made, by_user=self._by_user)
        self._end(begun)
        return made

    def make_link(self, directory: Directory, name: str, target: bytes) -> None:
        """Make a symbolic link; :func:`check_target` comes before all else."""
        self._new(directory, name)
        disk = directory.disk
        if not disk.personality.has_links:
            raise failed(errno.EPERM, name)
        begun = self._begin("make_link", directory, directory, name)
        link = Link(disk, disk.take_number(), self.uid, 0, target)
        disk.stamp(link, modified=True)
        disk.add(directory, name, link, by_user=self._by_user)
        self._end(begun)

    def make_special(self, directory: Directory, name: str, mode: int) -> None:
        """Make a FIFO or a socket, by its mode."""
        self._new(directory, name)
        disk = directory.disk
        special = Inode(disk, disk.take_number(), mode & ~self.umask, self.uid, 0)
        disk.stamp(special, modified=True)
        disk.add(directory, name, special, by_user=self._by_user)

    def link(self, directory: Directory, name: str, target: Directory, new_name: str) -> None:
        """Give a file a second name."""
        entry = self.find(directory, name)
        if entry is None:
            raise failed(errno.ENOENT, name)
        inode = entry.inode
        if self.find(target, new_name) is not None:
            raise failed(errno.EEXIST, name)
        if inode.disk is not target.disk:
            raise failed(errno.EXDEV, name)
        self._new(target, new_name)
        if isinstance(inode, Directory):
            raise failed(errno.EPERM, name)
        begun = self._begin("link", inode, directory, name, (target, new_name, None))
        target.disk.add(target, new_name, inode, by_user=self._by_user)
        self._end(begun)

    # --- Names that move or go

    def rename(
        self, directory: Directory, name: str, target: Directory, new_name: str, *, replaces: bool = False
    ) -> None:
        """Move a name to a free one, or in place of what stands there."""
        entry, there = self._ends(directory, name, target, new_name)
        inode, personality = entry.inode, directory.disk.personality
        if there is not None and not replaces:
            raise failed(errno.EEXIST, name)
        if target.is_within(inode):
            raise failed(errno.EINVAL, name)
        if there is not None:
            if directory.is_within(there.inode):
                raise failed(errno.ENOTEMPTY, name)
            if there.inode is inode and (directory is not target or there is not entry or entry.name == new_name):
                return
        self.check(directory, _CHANGE)
        self._room_for_name(target, new_name)
        self.check(target, _CHANGE)
        if there is not None and there.inode is not inode:
            _check_types(inode, there.inode, new_name)
        if isinstance(inode, Directory) and directory is not target:
            self.check(inode, _WRITE)
        _check_free(inode, there)
        if there is not None and isinstance(there.inode, Directory) and there.inode.entries:
            raise failed(errno.ENOTEMPTY, name)
        if personality.renames_by_link and not self._by_user and not isinstance(inode, Directory):
            self.link(directory, name, target, new_name)
            self.unlink(directory, name)
            return
        begun = self._begin("rename", inode, directory, name, (target, new_name, None))
        key = directory.disk.spelling(name)[0]
        directory.disk.move((directory, key), (target, new_name), by_user=self._by_user)
        self._end(begun)

    def _ends(self, directory: Directory, name: str, target: Directory, new_name: str) -> tuple[Entry, Entry | None]:
        for one, spelt in ((directory, name), (target, new_name)):
            one.disk.spelling(spelt)
        for one in (directory, target):
            self.check(one, _SEARCH)
        if directory.disk is not target.disk:
            raise failed(errno.EXDEV, name)
        entry = self.find(directory, name)
        if entry is None:
            raise failed(errno.ENOENT, name)
        return entry, self.find(target, new_name)

    def exchange(self, directory: Directory, name: str, other: Directory, other_name: str) -> None:
        """Exchange what stands at two names."""
        entry, there = self._ends(directory, name, other, other_name)
        if there is None:
            raise failed(errno.ENOENT, name)
        if not directory.disk.personality.can_exchange:
            raise failed(errno.EINVAL, name)
        if other.is_within(entry.inode) or directory.is_within(there.inode):
            raise failed(errno.EINVAL, name)
        if entry.inode is there.inode:
            return
        self.check(directory, _CHANGE)
        self.check(other, _CHANGE)
        if directory is not other:
            for one in (entry.inode, there.inode):
                if isinstance(one, Directory):
                    self.check(one, _WRITE)
        _check_free(entry.inode, there)
        begun = self._begin("exchange", entry.inode, directory, name, (other, other_name, there.inode))
        spelling = directory.disk.spelling
        here, yonder = (directory, spelling(name)[0]), (other, spelling(other_name)[0])
        directory.disk.swap(here, yonder, by_user=self._by_user)
        self._end(begun)

    def unlink(self, directory: Directory, name: str) -> None:
        """Remove a name that is no directory."""
        entry = self.find(directory, name)
        if entry is None:
            raise failed(errno.ENOENT, name)
        self.check(directory, _CHANGE)
        if isinstance(entry.inode, Directory):
            raise failed(errno.EISDIR, name)
        begun = self._begin("unlink", entry.inode, directory, name)
        directory.disk.remove(directory, directory.disk.spelling(name)[0], by_user=self._by_user)
        self._end(begun)

    def remove_directory(self, directory: Directory, name: str) -> None:
        """Remove an empty directory."""
        entry = self.find(directory, name)
        if entry is None:
            raise failed(errno.ENOENT, name)
        self.check(directory, _CHANGE)
        if not isinstance(entry.inode, Directory):
            raise failed(errno.ENOTDIR, name)
        _check_free(entry.inode, None)
        if entry.inode.entries:
            raise failed(errno.ENOTEMPTY, name)
        begun = self._begin("remove_directory", entry.inode, directory, name)
        directory.disk.remove(directory, directory.disk.spelling(name)[0], by_user=self._by_user)
        self._end(begun)

    # --- Bytes

    def write(self, file: File, data: bytes, offset: int) -> None:
        """Write bytes at a position; as many as there is room for."""
        if offset + len(data) > FILE_BYTES_MAX:
            raise failed(errno.EFBIG)
        begun = self._begin("write", file, offset=offset, data=data)
        disk = file.disk
        room = max(0, disk.capacity_bytes - disk.used_bytes)
        if len(data) > room and file.growth(offset, len(data)) > room:
            fits = _fitting(file, len(data), offset, room)
            if fits:
                disk.write(file, offset, data[:fits], by_user=self._by_user)
            disk.refused += 1
            raise failed(errno.ENOSPC)
        disk.write(file, offset, data, by_user=self._by_user)
        self._drop_privileges(file)
        self._end(begun)

    def truncate(self, file: File, size: int) -> None:
        """Give a file another size."""
        if size < 0:
            raise failed(errno.EINVAL)
        if size > FILE_BYTES_MAX:
            raise failed(errno.EFBIG)
        begun = self._begin("truncate", file, offset=size)
        file.disk.truncate(file, size, by_user=self._by_user)
        self._drop_privileges(file)
        self._end(begun)

    def _drop_privileges(self, file: File) -> None:
        """Take the bits from a changed file by which others would run it as its owner."""
        if self.uid and file.mode & (stat.S_ISUID | stat.S_ISGID):
            file.mode &= ~(stat.S_ISUID | (stat.S_ISGID if file.mode & stat.S_IXGRP else 0))

    def set_attributes(self, inode: Inode, *, mtime_ns: int | None, mode: int | None) -> None:
        """Set the time of modification or the permission bits, both at once."""
        if mtime_ns is not None and not -(1 << 63) <= mtime_ns // 1_000_000_000 < 1 << 63:
            raise failed(errno.EINVAL)
        if self.uid not in {0, inode.owner}:
            raise failed(errno.EPERM)
        begun = self._begin("set_attributes", inode)
        inode.disk.set_attributes(inode, mtime_ns=mtime_ns, mode=mode, by_user=self._by_user)
        self._end(begun)

    def sync(self, inode: Inode) -> None:
        """Make a file's bytes or a directory's names durable."""
        if not isinstance(inode, File | Directory):
            raise failed(errno.EINVAL)
        begun = self._begin("sync", inode)
        if begun is not None and begun[1] is not None and begun[1].loses_bytes:
            inode.lose()
        else:
            inode.disk.sync(inode)
        self._end(begun)

    def sync_all(self, inode: Inode) -> None:
        """Make everything on the disk of this inode durable."""
        begun = self._begin("sync_all", inode)
        inode.disk.sync_all()
        self._end(begun)


def check_target(target: bytes) -> None:
    """Refuse what can be no target of a symbolic link."""
    if not target or b"\0" in target or len(target) > TARGET_BYTES_MAX:
        raise failed(errno.EINVAL if b"\0" in target else errno.ENAMETOOLONG if target else errno.ENOENT)


def _check_types(inode: Inode, replaced: Inode, name: str) -> None:
    if isinstance(inode, Directory) and not isinstance(replaced, Directory):
        raise failed(errno.ENOTDIR, name)
    if isinstance(replaced, Directory) and not isinstance(inode, Directory):
        raise failed(errno.EISDIR, name)


def _check_free(inode: Inode, there: Entry | None) -> None:
    """Refuse to move or remove a directory at which a disk is mounted."""
    for one in (inode, None if there is None else there.inode):
        if isinstance(one, Directory) and one.mounted is not None:
            raise failed(errno.EBUSY, one.name)


def _fitting(file: File, length: int, offset: int, room: int) -> int:
    """Return how many of these bytes fit."""
    low, high = 0, length
    while low < high:
        middle = (low + high + 1) // 2
        if file.growth(offset, middle) <= room:
            low = middle
        else:
            high = middle - 1
    return low
