"""Changes of names that are not durable yet: what each needs, and what a call to make something durable takes along.

Rule 1: a change of two names, as a move is, stays or goes as one.
Rule 2: a change that stays keeps those that it stands on: what put its names, its inodes and its directories where it found
    them, and what emptied the directory that it removed. So a cut loses no file that somebody has only moved.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from simulations.inodes import Directory, Entry, Inode
from simulations.personalities import Order

Mark = tuple[str, int, str]
"""Something that a change provides or needs."""


class Part(NamedTuple):
    """What a change does to one name."""

    directory: Directory
    key: str
    old: Entry | None
    new: Entry | None


class NameChange(NamedTuple):
    """One change of names that happens at one instant."""

    parts: tuple[Part, ...]
    turn: int
    """Rises from change to change."""
    when_ns: int
    by_user: bool

    def inodes(self) -> Iterator[Inode]:
        """Yield what stood or stands at its names."""
        for part in self.parts:
            for entry in (part.old, part.new):
                if entry is not None:
                    yield entry.inode

    def provides(self) -> set[Mark]:
        """Return what later changes may stand on."""
        found: set[Mark] = {("is", inode.number, "") for inode in self.inodes()}
        for part in self.parts:
            found.add(("at", part.directory.number, part.key))
            found.add(("in", part.directory.number, ""))
        return found

    def needs(self, but: Inode | None = None) -> set[Mark]:
        """Return what it stands on, if an earlier change provides it, but for the place of one directory."""
        found: set[Mark] = {("is", inode.number, "") for inode in self.inodes()}
        for part in self.parts:
            found.add(("at", part.directory.number, part.key))
            if part.directory is not but:
                found.add(("is", part.directory.number, ""))
            if part.old is not None and isinstance(part.old.inode, Directory):
                found.add(("in", part.old.inode.number, ""))
        return found

    def repeat(self) -> None:
        """Make the change."""
        for directory, key, _, new in self.parts:
            _set(directory, key, new)

    def revert(self) -> None:
        """Undo the change; it is the newest of those that stand on it."""
        for directory, key, old, _ in reversed(self.parts):
            _set(directory, key, old)


def _set(directory: Directory, key: str, entry: Entry | None) -> None:
    if entry is None:
        directory.entries.pop(key, None)
    else:
        directory.entries[key] = entry


Pending = deque[NameChange]


def closed(changes: Sequence[NameChange], is_kept: Sequence[bool], but: Inode | None = None) -> list[NameChange]:
    """Return, in order, the changes that are to be kept and those that they stand on.

    Args:
        changes: In the order in which they were made.
        is_kept: For each, whether it is to be kept in any case.
        but: A directory that need not be where it is for what changes in it.
    """
    needed: set[Mark] = set()
    kept = []
    for change, keep in zip(reversed(changes), reversed(is_kept), strict=True):
        if keep or not needed.isdisjoint(change.provides()):
            needed |= change.needs(but)
            kept.append(change)
    return kept[::-1]


def settle(pending: Pending, inode: Inode, order: Order) -> None:
    """Make the names durable that a sync of this file or directory promises, and those that they stand on.

    With weak order that is nothing for a file, and of a directory what stands in it: not its own name, which its parent
    holds. Whoever syncs a new directory and not its parent may lose what is in it.
    """
    if order is Order.ORDERED:
        while pending and pending[0].turn <= inode.turn:
            pending.popleft()
    elif isinstance(inode, Directory) and pending and pending[0].turn <= inode.turn:
        changes = list(pending)
        meant = [any(part.directory is inode for part in change.parts) for change in changes]
        durable = closed(changes, meant, but=inode)
        numbers = {id(change) for change in durable}
        pending.clear()
        pending.extend(change for change in changes if id(change) not in numbers)
