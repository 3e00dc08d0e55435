"""A simulated disk: what stands on it, what of that is durable, and what happens to it.

A disk outlives its processes: each has a door of its own (:class:`simulations.disk_door.SimFiles`), and so have the people
who use the machine (:class:`simulations.user_files.UserFiles`). This module changes names and bytes; who may do so, and with
which error it fails, stands in :mod:`simulations.disk_calls`.

Rule 1: one thread; every change is whole before anybody sees it.
Rule 2: nothing here knows why: a person's change and the engine's differ by a mark alone.
Rule 3: memory is bounded by what stands on the disk and what was changed within :data:`WRITE_BACK_NS`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from random import Random
from typing import Final, NamedTuple

from protocol.effects import DiskEventKind
from protocol.entries import Kind
from simulations.disk_hooks import Hooks
from simulations.inodes import Change, Directory, Entry, File, Inode, Link
from simulations.name_changes import NameChange, Part, settle
from simulations.personalities import PLAIN, SECOND_NS, Personality

USER: Final = 1000
"""Whom everything belongs to unless somebody else makes it."""
WRITE_BACK_NS: Final = 30 * SECOND_NS
"""What was changed longer ago than this is durable though nobody asked for it."""
PENDING_MAX: Final = 10_000
"""So many changes are not durable at most: of names on a disk, and of one file."""
_SPELLINGS_MAX: Final = 100_000
_FIRST_INODE: Final = 11


class Happening(NamedTuple):
    """A change, as those are told who watch the disk."""

    kind: DiskEventKind
    directory: Directory
    name: str
    inode: Inode
    cookie: int = 0


class Standing(NamedTuple):
    """What stands at one path."""

    kind: Kind | None
    data: bytes
    """Of a file its bytes, of a link its target."""
    hash: bytes
    """BLAKE3 of a file's bytes; else empty."""
    mode: int
    mtime_ns: int
    inode: int


class SimDisk:
    """One file system.

    Args:
        chance: The order of listings and what a power cut takes are drawn from it.
        clock_ns: The wall clock of the machine; it may jump.
        personality: What kind of file system it is.
        capacity_bytes: How much it holds.
        number: What tells it from other disks of the machine.
    """

    def __init__(
        self,
        chance: Random,
        clock_ns: Callable[[], int],
        *,
        personality: Personality = PLAIN,
        capacity_bytes: int = 1 << 40,
        number: int = 1,
    ) -> None:
        self.chance = chance
        self.personality = personality
        self.capacity_bytes = capacity_bytes
        self.number = number
        self.used_bytes = 0
        self.refused = 0
        """How many calls found no room."""
        self.is_read_only = False
        self.version = 0
        """Rises with every change of a name, of bytes or of attributes."""
        self.hooks = Hooks()
        self.observers: list[Callable[[Happening], None]] = []
        self.pending: deque[NameChange] = deque()
        self.dirty: dict[Inode, int] = {}
        """What has changes that are not durable, with when it got the first; oldest first."""
        self._clock_ns = clock_ns
        self._asked_ns = self._ticks = 0
        self._next_number = _FIRST_INODE
        self._free_numbers: list[int] = []
        self._spellings: dict[str, tuple[str, str]] = {}
        self._cookie = self._turn = 0
        self._changes_names = personality.changes_names
        self.root = Directory(self, 2, 0o755, USER, self.now_ns())
        self.root.links = 1

    # --- Time, numbers, spellings

    def now_ns(self) -> int:
        """Return the time, a little later for each call in one instant of the clock."""
        now_ns = self._clock_ns()
        if now_ns == self._asked_ns:
            self._ticks += 1
        else:
            self._asked_ns, self._ticks = now_ns, 0
        return now_ns + self._ticks

    def stamp(self, inode: Inode, *, modified: bool) -> None:
        """Note that an inode changed just now."""
        now_ns = self.now_ns()
        personality = self.personality
        inode.ctime_ns = now_ns - now_ns % personality.ctime_step_ns
        if modified:
            inode.mtime_ns = now_ns - now_ns % personality.mtime_step_ns
        self.version += 1

    def spelling(self, name: str) -> tuple[str, str]:
        """Return what spellings of a name have in common, and how it is stored; two empty texts if it is too long.

        Raises:
            OSError: It can be no name here.
        """
        found = self._spellings.get(name)
        if found is None:
            self.personality.check(name)
            found = (name, name)
            if self.personality.is_too_long(name):
                found = ("", "")
            elif self._changes_names:
                found = (self.personality.key(name), self.personality.stored(name))
            if len(self._spellings) >= _SPELLINGS_MAX:
                self._spellings.clear()
            self._spellings[name] = found
        return found

    def take_number(self) -> int:
        """Return the number of a new inode."""
        if self._free_numbers:
            return self._free_numbers.pop()
        self._next_number += 1
        return self._next_number

    def give_back(self, inode: Inode) -> None:
        """Let go of what neither has a name nor is open."""
        if inode.links or inode.opens:
            return
        if isinstance(inode, File):
            self.used_bytes -= inode.allocated
        self.dirty.pop(inode, None)  # its changes stay: a power cut may bring its name back
        if self.personality.reuses_inodes:
            self._free_numbers.append(inode.number)

    def reserve(self, numbers: set[int]) -> None:
        """Give these numbers to nothing new: what has them is back."""
        self._free_numbers = [number for number in self._free_numbers if number not in numbers]

    def begin_with(self, root: Directory, last_number: int, used_bytes: int) -> None:
        """Hold what stands below another root from now on, all of it durable."""
        assert self.root.under is None
        self.root = root
        self.pending.clear()
        self.dirty.clear()
        self.used_bytes = used_bytes
        self._free_numbers.clear()
        self._next_number = max(self._next_number, last_number)
        self.version += 1

    # --- Names

    def add(self, directory: Directory, name: str, inode: Inode, *, by_user: bool) -> None:
        """Give something a name that is free."""
        key, stored = self.spelling(name)
        entry = Entry(stored, inode)
        self._change((Part(directory, key, None, entry),), by_user=by_user)
        inode.links += 1
        _place(directory, entry)
        if inode.links > 1:
            self.stamp(inode, modified=False)
        self._tell(DiskEventKind.CREATED, directory, entry)

    def remove(self, directory: Directory, key: str, *, by_user: bool) -> None:
        """Take a name away."""
        entry = directory.entries[key]
        self._change((Part(directory, key, entry, None),), by_user=by_user)
        self._tell(DiskEventKind.DELETED, directory, entry)
        self._unlinked(entry.inode)

    def _unlinked(self, inode: Inode) -> None:
        inode.links -= 1
        if inode.links == 0:
            inode.parent = None
        self.stamp(inode, modified=False)
        self.give_back(inode)

    def move(self, old: tuple[Directory, str], new: tuple[Directory, str], *, by_user: bool) -> None:
        """Move what stands at a (directory, key) to a (directory, name), in place of what stands there."""
        directory, key = old
        target, name = new
        new_key, stored = self.spelling(name)
        was, entry = directory.entries[key], Entry(stored, directory.entries[key].inode)
        replaced = target.entries.get(new_key)
        if replaced is not None and replaced.inode is entry.inode:
            replaced = None
        parts = (Part(directory, key, was, None), Part(target, new_key, replaced, entry))
        self._change(parts, by_user=by_user)
        self._cookie += 1
        self._tell(DiskEventKind.MOVED_FROM, directory, was, self._cookie)
        if replaced is not None:
            self._unlinked(replaced.inode)
        _place(target, entry)
        self.stamp(entry.inode, modified=False)
        self._tell(DiskEventKind.MOVED_TO, target, entry, self._cookie)

    def swap(self, one: tuple[Directory, str], other: tuple[Directory, str], *, by_user: bool) -> None:
        """Exchange what stands at two (directory, key)."""
        (here, key), (there, other_key) = one, other
        was_here, was_there = here.entries[key], there.entries[other_key]
        is_here, is_there = Entry(was_here.name, was_there.inode), Entry(was_there.name, was_here.inode)
        parts = (Part(here, key, was_here, is_here), Part(there, other_key, was_there, is_there))
        self._change(parts, by_user=by_user)
        _place(here, is_here)
        _place(there, is_there)
        for entry, (source, was), (target, now) in (
            (is_there, (here, was_here), (there, is_there)),
            (is_here, (there, was_there), (here, is_here)),
        ):
            self.stamp(entry.inode, modified=False)
            self._cookie += 1
            self._tell(DiskEventKind.MOVED_FROM, source, was, self._cookie)
            self._tell(DiskEventKind.MOVED_TO, target, now, self._cookie)

    def _change(self, parts: tuple[Part, ...], *, by_user: bool) -> None:
        self._turn += 1
        change = NameChange(parts, self._turn, self._clock_ns(), by_user)
        change.repeat()
        self.pending.append(change)
        for directory, _, old, new in parts:
            directory.turn = self._turn
            for entry in (old, new):
                if entry is not None:
                    entry.inode.turn = self._turn
            self.stamp(directory, modified=True)
        self._write_back()

    def _tell(self, kind: DiskEventKind, directory: Directory, entry: Entry, cookie: int = 0) -> None:
        if self.observers:
            happening = Happening(kind, directory, entry.name, entry.inode, cookie)
            for observer in self.observers:
                observer(happening)

    # --- Bytes and attributes

    def write(self, file: File, offset: int, data: bytes, *, by_user: bool) -> None:
        """Write bytes at a position; there is room for them."""
        before = file.look()
        change = Change(before, file.put(offset, data), by_user=by_user)
        change.offset, change.data = offset, data
        self._changed(file, change, modified=True)

    def truncate(self, file: File, size: int, *, by_user: bool) -> None:
        """Give a file another size."""
        before = file.look()
        change = Change(before, file.resize(size), by_user=by_user)
        change.size = size
        self._changed(file, change, modified=True)

    def set_attributes(self, inode: Inode, *, mtime_ns: int | None, mode: int | None, by_user: bool) -> None:
        """Set the time of modification or the permission bits."""
        change = Change(inode.look(), (), by_user=by_user)
        if mode is not None:
            change.mode = inode.mode = inode.mode & ~0o7777 | mode & 0o7777
        if mtime_ns is not None:
            inode.mtime_ns = mtime_ns - mtime_ns % self.personality.mtime_step_ns
        self._changed(inode, change, modified=False)

    def _changed(self, inode: Inode, change: Change, *, modified: bool) -> None:
        self.stamp(inode, modified=modified)
        change.mtime_ns, change.ctime_ns = inode.mtime_ns, inode.ctime_ns
        pending = inode.pending
        if not pending:
            self.dirty[inode] = self._clock_ns()
            self._write_back()
        elif len(pending) >= PENDING_MAX:
            inode.settle()
            del pending[: PENDING_MAX // 2]  # there may be some that were lost, and nobody keeps so many in mind
        pending.append(change)
        self.modified(inode)

    def modified(self, inode: Inode) -> None:
        """Tell those who watch that bytes or attributes changed, or a file that was written to was closed."""
        if self.observers and inode.parent is not None:
            self._tell(DiskEventKind.MODIFIED, inode.parent, Entry(inode.name, inode))

    # --- Durability

    def sync(self, inode: Inode) -> None:
        """Make what a sync of a file or directory promises durable."""
        if inode.pending:
            inode.settle()
            if not inode.pending:
                del self.dirty[inode]
        if self.pending:
            settle(self.pending, inode, self.personality.order)

    def sync_all(self) -> None:
        """Make everything durable."""
        self.pending.clear()
        for inode in list(self.dirty):
            self.sync(inode)

    def _write_back(self) -> None:
        pending = self.pending
        if len(pending) > PENDING_MAX:
            pending.popleft()
        due_ns = self._clock_ns() - WRITE_BACK_NS
        while pending and pending[0].when_ns < due_ns:
            pending.popleft()
        while self.dirty:
            inode = next(iter(self.dirty))
            if self.dirty[inode] >= due_ns:
                break
            del self.dirty[inode]
            inode.settle()
            if inode.pending:  # of what was lost there is no end
                self.dirty[inode] = self._clock_ns()

    # --- Looking from outside

    def at(self, path: str) -> Inode | None:
        """Return what stands at a path from the top, through no link."""
        here: Inode = self.root
        for part in path.split("/"):
            if not part:
                continue
            if not isinstance(here, Directory):
                return None
            entry = here.entries.get(self.spelling(part)[0])
            if entry is None:
                return None
            here = entry.inode
            if isinstance(here, Directory) and here.mounted is not None:
                here = here.mounted
        return here

    def tree(self, path: str = "/", *, without: str = "") -> dict[str, Standing]:
        """Return all that stands below a directory, by path from it.

        Args:
            path: Of the directory.
            without: A name in it that is left out with all below it.
        """
        found: dict[str, Standing] = {}
        top = self.at(path)
        if isinstance(top, Directory):
            _collect(top, "", without, found)
        return found

    def mount(self, path: str, other: SimDisk) -> None:
        """Let another disk stand at a directory, until :meth:`unmount`."""
        point = self.at(path)
        assert isinstance(point, Directory)
        assert point.mounted is None
        assert other.root.under is None
        point.mounted, other.root.under = other.root, point

    def unmount(self, path: str) -> None:
        """Take the disk that stands at a directory away, though it is in use."""
        top = self.at(path)
        assert isinstance(top, Directory)
        assert top.under is not None
        point, top.under = top.under, None
        point.mounted = None


def _place(directory: Directory, entry: Entry) -> None:
    entry.inode.parent, entry.inode.name = directory, entry.name


def _collect(directory: Directory, prefix: str, without: str, found: dict[str, Standing]) -> None:
    for name, inode in directory.entries.values():
        if name == without:
            continue
        path = prefix + name
        data = hash = b""
        if isinstance(inode, File):
            data, hash = inode.data(), inode.digest()
        elif isinstance(inode, Link):
            data = inode.target
        found[path] = Standing(inode.kind, data, hash, inode.mode, inode.mtime_ns, inode.number)
        if isinstance(inode, Directory):
            _collect(inode.mounted or inode, path + "/", "", found)
