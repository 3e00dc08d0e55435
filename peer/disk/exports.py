"""Files of a folder on their way to a place outside of it: put together beside their place, then named in one call.

Rule 1: nothing is written over, and the name shows nothing that is not complete and durable.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from typing import Final

from peer.core.tree import Item
from peer.disk.roots import Root
from peer.disk.stages import Staged
from peer.disk.walk import BUFFER_BYTES, disk_error, join, opened, split
from protocol.effects import Access, FileSystem, Handle
from protocol.entries import Kind
from protocol.errors import UserError

_NAME_CHARS: Final = 50


class Export:
    """One thing that comes to stand at a path outside of its folder. All calls run in the pool."""

    def __init__(self, fs: FileSystem, target: str, mark: str) -> None:
        """Begin.

        Args:
            fs: The disk.
            target: Absolute path at which nothing stands.
            mark: Makes the name beside it that of nobody else.

        Raises:
            UserError: Something stands there, or its directory is missing.
        """
        directory, self._name = os.path.split(target)
        self._fs = fs
        self._directory = os.path.realpath(directory)
        self._building = f".{self._name[:_NAME_CHARS]}.{mark}"
        if os.path.lexists(target):
            raise UserError(f"{target} is there already: choose another place for --to")
        try:
            self._parent = fs.open_root(self._directory)
        except OSError as error:
            raise UserError(f"{directory} cannot be opened: {error.strerror}") from error

    def add(self, path: str, item: Item, root: Root, staged: Staged | None) -> None:
        """Put one thing in place: directories before what they hold.

        Args:
            path: From the top; "" for the top itself.
            item: What it is.
            root: Of the folder that it comes from.
            staged: The stage of a file.

        Raises:
            DiskError: The disk refuses.
        """
        directory, name = split(join(self._building, path) if path else self._building)
        try:
            with opened(self._fs, self._parent, directory) as parent:
                if item.content.kind is Kind.DIRECTORY:
                    self._fs.make_directory(parent, name, 0o777)
                elif item.content.kind is Kind.LINK:
                    self._fs.make_link(parent, name, item.content.target)
                elif staged is not None:
                    self._take(root.hidden("tmp"), staged, parent, name, item)
        except OSError as error:
            raise disk_error(error, writing=True) from error

    def _take(self, tmp: Handle, staged: Staged, parent: Handle, name: str, item: Item) -> None:
        fs = self._fs
        try:
            fs.rename(tmp, staged.name, parent, name)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            self._copy(tmp, staged.name, parent, name, item)
            fs.unlink(tmp, staged.name)

    def _copy(self, tmp: Handle, stage: str, parent: Handle, name: str, item: Item) -> None:
        """Take a file over to another disk."""
        fs = self._fs
        buffer = memoryview(bytearray(BUFFER_BYTES))
        source = fs.open_file(tmp, stage, Access.READ)
        try:
            target = fs.open_file(parent, name, Access.CREATE)
            try:
                done = 0
                while count := fs.read(source, buffer, done):
                    fs.write(target, buffer[:count], done)
                    done += count
                mode = fs.fstat(source).mode & 0o777
                fs.set_attributes(target, mtime_ns=item.content.mtime_ns, mode=mode)
            finally:
                fs.close(target)
        finally:
            fs.close(source)

    def finish(self) -> None:
        """Give all of it its name, durably.

        Raises:
            UserError: Something came to stand there meanwhile.
            DiskError: The disk refuses.
        """
        try:
            self._fs.sync_all(self._parent)
            self._fs.rename(self._parent, self._building, self._parent, self._name)
            self._fs.sync(self._parent)
        except FileExistsError:
            text = (
                f"{os.path.join(self._directory, self._name)} came to be there meanwhile: choose another place for --to"
            )
            raise UserError(text) from None
        except OSError as error:
            raise disk_error(error, writing=True) from error

    def close(self) -> None:
        """Remove what was not finished, and let go of the directory."""
        left = os.path.join(self._directory, self._building)
        with contextlib.suppress(OSError):
            if os.path.isdir(left) and not os.path.islink(left):
                shutil.rmtree(left, ignore_errors=True)
            else:
                os.unlink(left)
        self._fs.close(self._parent)
