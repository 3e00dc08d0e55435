"""A power cut: what a disk holds once the machine is on again.

Of the changes of names, the file system's order says which may stay (:class:`simulations.personalities.Order`). Of the
changes of a file, each stays, goes or is torn at a sector or a page, whatever came after it; where bytes are lost at the end
of a file, it may be longer than it ever was by zeros.

Rule 1: what was made durable is there; all else is chance, and the same chance for the same seed.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from random import Random
from typing import Final

from simulations.disk import SimDisk
from simulations.inodes import Change, Directory, Fate, File, Inode
from simulations.name_changes import closed
from simulations.personalities import Order

_TEARS: Final = (512, 4096)
_SHARES: Final = (0.0, 0.5, 0.9, 1.0)
"""How much of what is not durable stays: a cut late after it, or right behind it, or in between."""


def cut_power(disk: SimDisk, chance: Random, *, spares_users: bool = False) -> None:
    """Take from a disk what is not durable; its processes are over and their handles closed.

    Args:
        disk: Which; disks mounted there have their own cut.
        chance: What decides.
        spares_users: Whether all that people did is durable, as if they had waited.
    """
    assert not any(inode.opens for inode in _all(disk.root)), "a process outlives its machine"
    share = chance.choice(_SHARES)
    _cut_names(disk, chance, share, spares_users=spares_users)
    _count_again(disk)
    for inode in _all(disk.root):
        if inode.pending:
            _cut_bytes(inode, chance, share, spares_users=spares_users)
    disk.dirty.clear()
    disk.used_bytes = sum(inode.allocated for inode in dict.fromkeys(_all(disk.root)) if isinstance(inode, File))
    disk.version += 1


def _cut_names(disk: SimDisk, chance: Random, share: float, *, spares_users: bool) -> None:
    changes = list(disk.pending)
    disk.pending.clear()
    for change in reversed(changes):
        change.revert()
    stays = [(spares_users and change.by_user) or chance.random() < share for change in changes]
    if disk.personality.order is Order.WEAK:
        kept = closed(changes, stays)
    else:
        by_users = [number for number, change in enumerate(changes) if spares_users and change.by_user]
        first = 0 if share == 0 else chance.randrange(len(changes) + 1) if share < 1 else len(changes)
        kept = changes[: max([first, *(number + 1 for number in by_users[-1:])])]
    for change in kept:
        change.repeat()


def _count_again(disk: SimDisk) -> None:
    """Let each inode know its names again, and the disk its numbers."""
    for inode in _all(disk.root):
        inode.links = 0
        inode.opens = inode.writers = 0
    disk.root.links = 1
    used = {disk.root.number}
    for directory in [one for one in _all(disk.root) if isinstance(one, Directory)]:
        for name, inode in directory.entries.values():
            inode.links += 1
            inode.parent, inode.name = directory, name
            used.add(inode.number)
    disk.reserve(used)


def _all(root: Directory) -> Iterator[Inode]:
    """Yield what stands on a disk, files of several names several times."""
    left: list[Directory] = [root]
    yield root
    while left:
        for entry in left.pop().entries.values():
            yield entry.inode
            if isinstance(entry.inode, Directory):
                left.append(entry.inode)


def _cut_bytes(inode: Inode, chance: Random, share: float, *, spares_users: bool) -> None:
    changes = list(inode.pending)
    inode.pending.clear()
    for change in reversed(changes):
        inode.revert(change)
    for change in changes:
        if change.fate is Fate.DURABLE or (spares_users and change.by_user):
            inode.repeat(change)
        elif change.fate is Fate.PENDING and chance.random() < share:
            _keep(inode, change, chance)
        elif isinstance(inode, File) and change.is_bytes and chance.random() < 0.25:
            _grow(inode, change)


def _keep(inode: Inode, change: Change, chance: Random) -> None:
    """Keep a change, or if it wrote bytes, perhaps some of it."""
    if not isinstance(inode, File) or change.data is None or chance.random() < 0.7:
        inode.repeat(change)
        return
    tear = chance.choice(_TEARS)
    start, end = change.offset, change.offset + len(change.data)
    edges = [start, *range(start - start % tear + tear, end, tear), end]
    for begin, stop in pairwise(edges):
        if chance.random() < 0.5:
            inode.put(begin, change.data[begin - start : stop - start])
    if chance.random() < 0.5:
        _grow(inode, change)
    inode.mtime_ns, inode.ctime_ns = change.mtime_ns, change.ctime_ns


def _grow(file: File, change: Change) -> None:
    """Give a file the size and time of a write that never came, with zeros for its bytes."""
    size = change.offset + len(change.data or b"") if change.size is None else change.size
    if size > file.size:
        file.resize(size)
        file.mtime_ns, file.ctime_ns = change.mtime_ns, change.ctime_ns
