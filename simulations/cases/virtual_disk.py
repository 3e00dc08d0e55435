"""What people and their programs do on a simulated disk: a :class:`simulations.cases.hands.UserDisk`."""

from __future__ import annotations

import os

from protocol.effects import Stat
from simulations.cases.trees import CONTROL, DIRECTORY
from simulations.disk import SimDisk
from simulations.inodes import Directory, File, Inode, Link
from simulations.user_files import UserFiles


class VirtualDisk(UserFiles):
    """One machine's disk, and whole trees of it."""

    def __init__(self, disk: SimDisk) -> None:
        super().__init__(disk)
        self._sight = UserFiles(disk, uid=0)
        self._trees: dict[str, tuple[int, dict[str, str]]] = {}
        """By directory: how it stood when the disk was last changed."""

    # --- Looking, which no permission stops

    def exists(self, path: str) -> bool:
        """Tell whether anything stands at a path."""
        return self._sight.exists(path)

    def stat(self, path: str) -> Stat:
        """Return what stands at a path."""
        return self._sight.stat(path)

    def is_directory(self, path: str) -> bool:
        """Tell whether a directory stands at a path."""
        return self._sight.is_directory(path)

    def read(self, path: str) -> bytes:
        """Return the bytes of a file."""
        return self._sight.read(path)

    def tree(self, root: str) -> dict[str, str]:
        """Return what stands below a directory but for Kinfolder's own."""
        version, tree = self._trees.get(root, (-1, {}))
        if version != self._disk.version:
            top = self._disk.at(root)
            found: dict[str, str] = {}
            if isinstance(top, Directory):
                _collect(top, "", found)
            tree = dict(sorted(found.items()))
            self._trees[root] = self._disk.version, tree
        return tree

    def digest(self, path: str) -> str:
        """Return what a file's content is compared by."""
        found = self._disk.at(path)
        assert isinstance(found, File)
        return found.digest().hex()

    def now_ns(self) -> int:
        """Return the clock that files are stamped with."""
        return self._disk.now_ns()


def _collect(directory: Directory, prefix: str, found: dict[str, str]) -> None:
    for name, inode in directory.entries.values():
        if not prefix and name == CONTROL:
            continue
        path = prefix + name
        found[path] = _kind(inode)
        if isinstance(inode, Directory):
            _collect(inode.mounted or inode, path + "/", found)


def _kind(inode: Inode) -> str:
    if isinstance(inode, File):
        return inode.digest().hex()
    if isinstance(inode, Link):
        return f"<link:{os.fsdecode(inode.target)}>"
    return DIRECTORY if isinstance(inode, Directory) else "<other>"
