"""Swap, then verify: take what stands at a user's name, look at it in the trash, and give it back if it was another.

No check before a rename can close the window in which a user saves. So what is displaced is never overwritten: it moves
into ``.kinfolder/trash`` in the same instant, under the name of a journal row, and is looked at there:

1. *Look.* ``lstat`` the name; its fingerprint is that of the local tree, or its hash is. Else: mismatch, nothing done.
2. *Swap.* The new file, complete and durable, is moved to the row's name in the trash and exchanged with the user's name
   in one call. Where the file system cannot exchange: the old one goes to the row's name, the new one takes the free name.
3. *Verify.* Inode, size, time and mode of what was displaced are those of the look (a rename changes only ``ctime``), or
   its hash is the expected one. Then it stays in the trash until :func:`empty_trash` takes it.
4. *Undo.* Otherwise a user wrote between 1 and 2. If the name still holds our file untouched, exchange both again; if the
   name is free, move it back; if a user changed the name yet again, the displaced file gets a name beside it
   (``name (kept, 1a2b3c4d).ext``), where the next scan finds it as new local content.

A process that still has the displaced file open may write to it afterwards; :func:`empty_trash` waits for it, and brings
the file back beside its old name if it is not what was verified.
"""

from __future__ import annotations

import errno
from typing import Final

from peer.core.leftovers import kept_name
from peer.core.observations import Fingerprint
from peer.core.tree import Content
from peer.disk.journal import Swap
from peer.disk.outcomes import StopStep
from peer.disk.roots import Root
from peer.disk.walk import CONTROL, fingerprint, hash_open, join, kind_of, opened, same_but_ctime, same_node, split
from protocol.effects import Access, FileSystem, Handle, Stat
from protocol.entries import Kind

_TRIES: Final = 8


def look(fs: FileSystem, parent: Handle, name: str) -> Stat | None:
    """Return what stands at a name, or None."""
    try:
        return fs.lstat(parent, name)
    except FileNotFoundError:
        return None


def is_expected(
    fs: FileSystem, parent: Handle, name: str, found: Stat, expected: Content, known: Fingerprint | None
) -> bool:
    """Tell whether what stands at a name is what a step expects.

    Args:
        fs: The disk.
        parent: The open directory.
        name: The name in it.
        found: Its ``lstat``.
        expected: What it must hold; attributes do not count.
        known: How it looked when it was hashed; where that fits, nothing is read.

    Raises:
        OSError: It cannot be read.
    """
    kind = kind_of(found.mode)
    if kind is not expected.kind:
        return False
    if kind is Kind.DIRECTORY or (known == fingerprint(found)):
        return True
    if kind is Kind.LINK:
        return fs.read_link(parent, name) == expected.target
    if found.size != expected.size:
        return False
    handle = fs.open_file(parent, name, Access.READ)
    try:
        before = fs.fstat(handle)
        return (
            same_node(before, found)
            and hash_open(fs, handle, before.size) == expected.hash
            and fs.fstat(handle) == before
        )
    finally:
        fs.close(handle)


def has_writer(fs: FileSystem, parent: Handle, name: str) -> bool | None:
    """Tell whether a program has a file open for writing; None where that cannot be known.

    Raises:
        OSError: It is not there, or cannot be opened for another reason than its permissions.
    """
    try:
        handle = fs.open_file(parent, name, Access.READ)
    except PermissionError:
        return None
    try:
        return fs.has_writer(handle)
    finally:
        fs.close(handle)


class Swaps:
    """Takes things from users' names into the trash, and gives them back."""

    def __init__(self, root: Root) -> None:
        self.root = root
        self.fs = root.fs
        self.can_exchange = True

    def replace(self, swap: Swap, parent: Handle, name: str, stage: str, found: Stat, new: Stat) -> Fingerprint:
        """Put a finished stage where ``found`` stands, and return how the displaced thing looks in the trash.

        Args:
            swap: In the journal already.
            parent: The open directory.
            name: The name in it.
            stage: Name of the new thing in ``.kinfolder/tmp``.
            found: What the name held when it was looked at, as expected.
            new: What the stage is.

        Raises:
            StopStep: What was displaced is not what was looked at; it is back, or kept beside.
            OSError: Nothing has changed under the user's name.
        """
        fs, tmp, trash = self.fs, self.root.hidden("tmp"), self.root.hidden("trash")
        if self.can_exchange:
            fs.rename(tmp, stage, trash, swap.name)
            try:
                fs.exchange(trash, swap.name, parent, name)
            except OSError as error:
                fs.rename(trash, swap.name, tmp, stage)
                if error.errno != errno.EINVAL:
                    raise
                self.can_exchange = False
            else:
                return self.verify(swap, parent, name, found, new)
        fs.rename(parent, name, trash, swap.name)
        checked = self.verify(swap, parent, name, found, None)
        try:
            fs.rename(tmp, stage, parent, name)
        except FileExistsError:
            raise StopStep("taken") from None  # what was displaced is known to the log, and the user's new file stands
        except OSError:
            self._give_back(swap, parent, name)
            raise
        return checked

    def delete(self, swap: Swap, parent: Handle, name: str, found: Stat) -> Fingerprint:
        """Move a file or a link into the trash and return how it looks there.

        Raises:
            StopStep: It is not what was looked at; it is back, or kept beside.
            OSError: Nothing has changed.
        """
        self.fs.rename(parent, name, self.root.hidden("trash"), swap.name)
        return self.verify(swap, parent, name, found, None)

    def verify(
        self, swap: Swap, parent: Handle, name: str, found: Stat | None, new: Stat | Fingerprint | None
    ) -> Fingerprint:
        """Look at what was displaced; undo the swap if it is not what was expected.

        Raises:
            StopStep: It was not, and it is back or kept beside.
            OSError: It cannot be read; it stays in the trash, its row in the journal.
        """
        displaced = self.fs.lstat(self.root.hidden("trash"), swap.name)
        try:
            same = (found is not None and same_but_ctime(displaced, found)) or self.is_expected(swap, displaced)
            if displaced_is_full := same and self._is_full(swap, displaced):
                same = False
        except OSError:
            self.undo(swap, parent, name, new)
            raise
        if same:
            return fingerprint(displaced)
        raise StopStep("not_empty" if displaced_is_full else "changed", self.undo(swap, parent, name, new))

    def is_expected(self, swap: Swap, displaced: Stat) -> bool:
        """Tell whether the trash holds what the swap was to take.

        Raises:
            OSError: It cannot be read.
        """
        return is_expected(self.fs, self.root.hidden("trash"), swap.name, displaced, swap.expected, None)

    def _is_full(self, swap: Swap, displaced: Stat) -> bool:
        return kind_of(displaced.mode) is Kind.DIRECTORY and not self.is_empty(self.root.hidden("trash"), swap.name)

    def undo(self, swap: Swap, parent: Handle, name: str, new: Stat | Fingerprint | None) -> str:
        """Give a user back what lies in the trash; return where, if not at its own name.

        Afterwards the trash holds nothing of this swap, or our own file.
        """
        trash = self.root.hidden("trash")
        if new is not None:
            at = look(self.fs, parent, name)
            if at is not None and is_ours(at, new):
                try:
                    self.fs.exchange(trash, swap.name, parent, name)
                except OSError as error:
                    # The user removed the name at this moment, or this file system cannot exchange: ours may stay.
                    if error.errno not in {errno.ENOENT, errno.EINVAL}:
                        raise
                else:
                    if is_ours(self.fs.lstat(trash, swap.name), new):
                        return ""
        return self._give_back(swap, parent, name)

    def _give_back(self, swap: Swap, parent: Handle, name: str) -> str:
        try:
            self.fs.rename(self.root.hidden("trash"), swap.name, parent, name)
        except FileExistsError:
            return self.keep_beside("trash", swap)
        return ""

    def keep_beside(self, hidden: str, swap: Swap) -> str:
        """Give what lies under a swap's name a free name beside its path, or as near as there is a directory.

        Raises:
            OSError: No directory takes it; it stays where it is.
        """
        directory, name = split(swap.path)
        if directory.split("/")[0] == CONTROL:
            directory = ""
        while True:
            try:
                with opened(self.fs, self.root.handle, directory) as parent:
                    return join(directory, self._free_name(hidden, swap, parent, name))
            except OSError:
                if not directory:
                    raise
                directory = split(directory)[0]

    def _free_name(self, hidden: str, swap: Swap, parent: Handle, name: str) -> str:
        for turn in range(_TRIES):
            beside = kept_name(name, swap.id[turn:])
            try:
                self.fs.rename(self.root.hidden(hidden), swap.name, parent, beside)
            except FileExistsError:
                continue
            return beside
        raise FileExistsError(errno.EEXIST, "no free name", name)

    def is_empty(self, parent: Handle, name: str) -> bool:
        """Tell whether a directory holds nothing."""
        handle = self.fs.open_directory(parent, name)
        try:
            return next(iter(self.fs.list(handle)), None) is None
        finally:
            self.fs.close(handle)


def is_ours(found: Stat | Fingerprint, new: Stat | Fingerprint) -> bool:
    """Tell whether a thing is the one that we made, untouched; the device's number may differ after a restart."""
    return (found.inode, found.size, found.mtime_ns) == (new.inode, new.size, new.mtime_ns) and kind_of(
        found.mode
    ) is kind_of(new.mode)
