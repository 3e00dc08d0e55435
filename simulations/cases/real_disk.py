"""What people and their programs do on this machine's disk: a :class:`simulations.cases.hands.UserDisk`."""

from __future__ import annotations

import os
import shutil
import stat
import time
from types import TracebackType
from typing import Self

from protocol.effects import Stat
from simulations.cases.trees import Reader


class RealFile:
    """A file that is open for writing."""

    def __init__(self, path: str) -> None:
        self._handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        self._is_open = True

    def write(self, data: bytes, offset: int | None = None) -> None:
        """Write bytes at a position, at the end if none is given."""
        at = os.fstat(self._handle).st_size if offset is None else offset
        view = memoryview(data)
        while view:
            count = os.pwrite(self._handle, view, at)
            view, at = view[count:], at + count

    def truncate(self, size: int) -> None:
        """Give it another size."""
        os.ftruncate(self._handle, size)

    def close(self) -> None:
        """Close it; a second call does nothing."""
        if self._is_open:
            self._is_open = False
            os.close(self._handle)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class RealDisk:
    """This machine's disk; see the interface for what each call does."""

    def __init__(self) -> None:
        self._reader = Reader()

    # --- Looking

    def exists(self, path: str) -> bool:
        """Tell whether anything stands there."""
        return os.path.lexists(path)

    def stat(self, path: str) -> Stat:
        """Return what stands there."""
        found = os.lstat(path)
        return Stat(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_mode)

    def is_directory(self, path: str) -> bool:
        """Tell whether a directory stands there."""
        return os.path.lexists(path) and stat.S_ISDIR(os.lstat(path).st_mode)

    def read(self, path: str) -> bytes:
        """Return the bytes of a file."""
        with open(path, "rb") as file:
            return file.read()

    def list(self, path: str) -> list[str]:
        """Return the names in a directory."""
        return sorted(os.listdir(path))

    def tree(self, root: str) -> dict[str, str]:
        """Return what stands below a directory."""
        return self._reader.tree(root)

    def digest(self, path: str) -> str:
        """Return what a file's content is compared by."""
        return self._reader.digest(path)

    def now_ns(self) -> int:
        """Return the wall clock."""
        return time.time_ns()

    # --- Writing

    def open(self, path: str) -> RealFile:
        """Open a file for writing."""
        return RealFile(path)

    def write(self, path: str, data: bytes) -> None:
        """Let a file hold these bytes."""
        with RealFile(path) as file:
            file.truncate(0)
            file.write(data)

    def append(self, path: str, data: bytes) -> None:
        """Add bytes at the end of a file."""
        with RealFile(path) as file:
            file.write(data)

    def truncate(self, path: str, size: int) -> None:
        """Give a file another size."""
        os.truncate(path, size)

    # --- Names

    def make_directory(self, path: str) -> None:
        """Make a directory."""
        os.mkdir(path)

    def make_directories(self, path: str) -> None:
        """Make a directory and those above it."""
        os.makedirs(path, exist_ok=True)

    def make_link(self, path: str, target: str) -> None:
        """Make a symbolic link."""
        os.symlink(target, path)

    def rename(self, path: str, new_path: str) -> None:
        """Move, as the system call of that name does."""
        os.rename(path, new_path)

    def link(self, path: str, new_path: str) -> None:
        """Give a file a second name."""
        os.link(path, new_path)

    def copy(self, path: str, new_path: str) -> None:
        """Copy a file or a tree."""
        if self.is_directory(path):
            shutil.copytree(path, new_path, symlinks=True)
        else:
            shutil.copy2(path, new_path, follow_symlinks=False)

    def remove(self, path: str) -> None:
        """Remove a file or a link."""
        os.unlink(path)

    def remove_tree(self, path: str) -> None:
        """Remove whatever stands there."""
        if self.is_directory(path):
            shutil.rmtree(path)
        else:
            os.unlink(path)

    # --- Attributes

    def set_mtime(self, path: str, mtime_ns: int) -> None:
        """Set the time of modification."""
        os.utime(path, ns=(mtime_ns, mtime_ns), follow_symlinks=False)

    def set_mode(self, path: str, mode: int) -> None:
        """Set the permission bits."""
        os.chmod(path, mode)
