"""Carry out steps on a disk in memory, and record what became of them.

It stands for :mod:`peer.disk.applier` and :mod:`peer.engine.stepper`: each step looks first, and one that does not find
what it expects does nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from msgspec.structs import replace

from peer.core.observations import Fingerprint
from peer.core.operations import Adopt, Delete, Forget, Place, Rekey, Rename, Replace, SetAttributes, Step
from peer.core.tree import Content, Item, ItemId, path_of
from protocol.entries import Kind
from protocol.ids import ROOT
from simulations.plan.disk import (
    DIRECTORY_MODE,
    FILE_MODE,
    LINK_MODE,
    PROGRAM_MODE,
    Inode,
    MemoryDisk,
    hash_of,
    text_of_hash,
)
from simulations.plan.local import MemoryLocal, NotedTree

_UNKNOWN: Final = Fingerprint(0, 0, -1, 0, 0, 0)
"""Fits no file, so the next scan hashes what is there."""
MISSED_MAX: Final = 3
"""How often a step may miss what it expects before it waits, and is not the reason of another look."""


class Missed(Exception):
    """The disk does not hold what a step expects."""


class NameRefusedError(Exception):
    """A disk takes the name for another one's."""


class Hands:
    """What changes one disk.

    Args:
        disk: Is changed.
        local: Follows.
        synced: Follows, too.
        watch: Is told of each destruction before it happens: of the content, and of the step.
    """

    def __init__(
        self, disk: MemoryDisk, local: MemoryLocal, synced: NotedTree, watch: Callable[[Content, Step], None]
    ) -> None:
        self.disk = disk
        self.local = local
        self.synced = synced
        self.changes = 0
        """How often something on the disk was changed."""
        self.missed: dict[ItemId, str] = {}
        self.refused: set[ItemId] = set()
        self.look_at: set[str] = set()
        self.kept: set[str] = set()
        """Names under which things were kept that could not go where they were to go."""
        self._watch = watch
        self._often: dict[ItemId, int] = {}
        self._aside: dict[ItemId, tuple[Inode, Inode, str]] = {}

    def apply(self, steps: Iterable[Step]) -> None:
        """Carry out steps in order; what is aside at the end goes back."""
        for step in steps:
            match step:
                case Adopt(item):
                    self.synced.put(item)
                case Forget(base):
                    self.synced.drop(base.id)
                case Rekey(old, new):
                    self.local.rekey(old, new)
                    self.synced.rekey(old, new)
                case _:
                    self._try(step)
        for id, (inode, directory, name) in self._aside.items():
            if not self._bring_back(inode, directory, name):
                self.local.forget(id)
        self._aside.clear()

    def _bring_back(self, inode: Inode, directory: Inode, name: str) -> bool:
        """Put what is aside where it was, or beside, or into the root: no user may miss it. Tell whether it is where it was."""
        home = directory if directory is self.disk.root or directory.links else self.disk.root
        kept = name
        while self.disk.spelling(home, kept) is not None:
            kept = f"{kept} (kept, {inode.number:08x})"
        self.disk.put(home, kept, inode)
        self.changes += 1
        if home is directory and kept == name:
            return True
        self.kept.add(kept)
        self.look_at.add("")
        return False

    def _try(self, step: Place | Replace | SetAttributes | Rename | Delete) -> None:
        item = step.expected if isinstance(step, Delete) else step.item
        try:
            self._carry_out(step)
        except Missed as missed:
            self.missed[item.id] = str(missed)
            self.local.dirty.add(item.id)
            self._often[item.id] = times = self._often.get(item.id, 0) + 1
            if times > MISSED_MAX:
                self.refused.add(item.id)
                return
            for each in (item, item if isinstance(step, Place) else step.expected):
                self._look_beside(each)
        except NameRefusedError:
            self.refused.add(item.id)
            self.local.dirty.add(item.id)
        else:
            self._often.pop(item.id, None)

    def _look_beside(self, item: Item) -> None:
        path = path_of(self.local, item.parent)
        self.look_at.add(path or "")
        if item.is_directory and path is not None:
            self.look_at.add(f"{path}/{item.name}".lstrip("/"))

    def _carry_out(self, step: Step) -> None:
        match step:
            case Place(item):
                self._place(item)
            case Replace(expected, item):
                self._replace(expected, item)
            case SetAttributes(expected, item):
                inode = self._look(expected)
                if inode.kind is not Kind.FILE:
                    raise Missed("changed")
                self._dress(inode, item.content)
                self._both(item, inode.fingerprint())
            case Rename():
                self._rename(step)
            case Delete(expected):
                self._delete(expected)

    # --- Steps

    def _place(self, item: Item) -> None:
        directory = self._directory(item.parent)
        self._check_free(directory, item)
        inode = self._make(item.content)
        self.disk.put(directory, item.name, inode)
        self.changes += 1
        self._both(item, inode.fingerprint())

    def _replace(self, expected: Item, item: Item) -> None:
        directory = self._directory(expected.parent)
        old = self._look(expected)
        if old.is_directory and item.is_directory:
            self._both(item, old.fingerprint())
            return
        if old.names:
            raise Missed("not_empty")
        if not old.is_directory:
            self._watch(expected.content, Replace(expected, item))
        self.disk.unput(directory, expected.name)
        inode = self._make(item.content)
        self.disk.put(directory, item.name, inode)
        self.disk.release(old)
        self.changes += 1
        self._both(item, inode.fingerprint())

    def _delete(self, expected: Item) -> None:
        directory = self._directory(expected.parent)
        inode = self._look(expected)
        if inode.names:
            raise Missed("not_empty")
        if not inode.is_directory:
            self._watch(expected.content, Delete(expected))
        self.disk.unput(directory, expected.name)
        self.disk.release(inode)
        self.changes += 1
        self.local.forget(expected.id)
        self.synced.drop(expected.id)

    def _rename(self, step: Rename) -> None:
        expected, item = step.expected, step.item
        if step.from_aside:
            if expected.id not in self._aside:
                raise Missed("missing")
            inode, directory, name = self._aside[expected.id]
        else:
            directory, name = self._directory(expected.parent), expected.name
            inode = self._identify(directory, name, expected)
        known = self.local.fingerprints.get(expected.id) == inode.fingerprint()
        if step.aside:
            self.disk.unput(directory, name)
            self._aside[expected.id] = (inode, directory, name)
            return
        target = self._directory(item.parent)
        there = self.disk.spelling(target, item.name)
        if there is not None and target.names[there] is not inode:
            raise NameRefusedError if there != item.name else Missed("taken")
        self._check_unclaimed(item)
        if not step.from_aside:
            self.disk.unput(directory, name)
        self._aside.pop(expected.id, None)
        inode.ctime = self.disk.tick()
        self.disk.put(target, item.name, inode)
        self.changes += 1
        self._both(item, inode.fingerprint() if known else self.local.fingerprints.get(expected.id, _UNKNOWN))

    # --- Looking

    def _directory(self, id: ItemId) -> Inode:
        """Return a directory of this disk, by where the local tree has it."""
        names: list[str] = []
        here = self.disk.root
        while id != ROOT:
            if id in self._aside:
                here = self._aside[id][0]
                break
            item = self.local.item(id)
            if item is None:
                raise Missed("parent")
            names.append(item.name)
            id = item.parent
        for name in reversed(names):
            below = here.names.get(name)
            if below is None or not below.is_directory:
                raise Missed("parent")
            here = below
        return here

    def _look(self, expected: Item) -> Inode:
        """Return what stands where an item is expected, if it holds what is expected."""
        inode = self._directory(expected.parent).names.get(expected.name)
        if inode is None or inode.kind is not expected.content.kind:
            raise Missed("changed")
        if not inode.is_directory and hash_of(inode.data) != expected.content.hash:
            raise Missed("changed")
        return inode

    def _identify(self, directory: Inode, name: str, expected: Item) -> Inode:
        """Return what is to be moved; an edit of it does not matter."""
        inode = directory.names.get(name)
        if inode is None or inode.kind is not expected.content.kind:
            raise Missed("changed")
        known = self.local.fingerprints.get(expected.id)
        if known is not None and known.inode == inode.number:
            return inode
        if not inode.is_directory and hash_of(inode.data) == expected.content.hash:
            return inode
        raise Missed("changed")

    def _check_free(self, directory: Inode, item: Item) -> None:
        there = self.disk.spelling(directory, item.name)
        if there is not None:
            raise NameRefusedError if there != item.name else Missed("taken")
        self._check_unclaimed(item)

    def _check_unclaimed(self, item: Item) -> None:
        """Wait for a scan where a name is free on the disk alone: in the local tree, no two may stand at one place."""
        other = self.local.child(item.parent, item.name)
        if other is not None and other.id != item.id and other.id not in self._aside:
            raise Missed("unseen")

    # --- Making

    def _make(self, content: Content) -> Inode:
        if content.kind is Kind.DIRECTORY:
            return self.disk.new(DIRECTORY_MODE)
        inode = self.disk.new(LINK_MODE if content.kind is Kind.LINK else FILE_MODE, text_of_hash(content.hash))
        if content.kind is Kind.FILE:
            self._dress(inode, content)
        return inode

    def _dress(self, inode: Inode, content: Content) -> None:
        inode.mtime = content.mtime_ns
        inode.mode = PROGRAM_MODE if content.executable else FILE_MODE
        inode.ctime = self.disk.tick()
        self.changes += 1

    def _both(self, item: Item, fingerprint: Fingerprint) -> None:
        self.local.note(replace(item, members=()), fingerprint)
        self.synced.put(item)
