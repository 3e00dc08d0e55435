"""A folder's root: what may become one, and whether it is still the directory that it was.

A root holds the directory ``.kinfolder`` and in it the marker, the file ``folder`` with the folder's id and the name of
its holder. An unmounted disk, a restored or a foreign directory has another marker or none.

Rule 1: a root whose marker is not ours is *missing*, never empty: nothing in it is taken as removed, nothing is written.
Rule 2: all work on a root goes through one descriptor whose marker was read through that same descriptor.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from types import TracebackType
from typing import Final, NamedTuple, Self

import msgspec

from peer.disk.walk import CONTROL, DiskError, disk_error, opened, text_of
from protocol.effects import Access, FileSystem, Handle, Stat
from protocol.errors import UserError
from protocol.ids import FolderId

MARKER: Final = "folder"
_MARKER_BYTES_MAX: Final = 256
HIDDEN: Final = ("tmp", "trash", "aside")
"""Directories in ``.kinfolder``: files being received, files taken from users' names, items between two renames."""
_NETWORK: Final = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "glusterfs", "lustre", "ncpfs", "fuse.sshfs", "davfs"}
)


_MOUNT: Final = "mount its disk or put it back, and it goes on by itself"
_ANEW: Final = "or 'kin remove' the folder and 'kin get' it anew"


class RootIdentity(NamedTuple):
    """Which directory a root was when it was last seen; worth a notice when it changes, the marker is what counts."""

    device: int
    inode: int


class RootMissing(msgspec.Struct, frozen=True):
    """The root cannot be used now; the folder's state is ``missing``."""

    reason: str
    """``missing``, ``unmarked`` (an empty mount point, a new directory), ``foreign`` (another folder's or device's
    marker) or ``unreadable``."""
    text: str


class Root:
    """An open root whose marker is right. Close it soon: while it is open its disk cannot be unmounted."""

    def __init__(self, fs: FileSystem, handle: Handle, path: str, found: Stat) -> None:
        self.fs = fs
        self.handle = handle
        self.path = path
        self.identity = RootIdentity(found.device, found.inode)
        self._hidden: dict[str, Handle] = {}

    def hidden(self, name: str) -> Handle:
        """Return the open directory ``.kinfolder/NAME``, made when it is missing.

        Raises:
            DiskError: It can be neither opened nor made.
        """
        if name not in self._hidden:
            try:
                with opened(self.fs, self.handle, CONTROL) as control:
                    try:
                        self._hidden[name] = self.fs.open_directory(control, name)
                    except FileNotFoundError:
                        self.fs.make_directory(control, name, 0o700)
                        self._hidden[name] = self.fs.open_directory(control, name)
            except OSError as error:
                raise disk_error(error, writing=True) from error
        return self._hidden[name]

    def close(self) -> None:
        """Close the root and its hidden directories."""
        for handle in self._hidden.values():
            self.fs.close(handle)
        self._hidden.clear()
        self.fs.close(self.handle)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class RootGuard:
    """Opens a folder's root, and only if it is that folder's."""

    def __init__(self, fs: FileSystem, path: str, folder: FolderId, holder: str = "") -> None:
        """Guard the root at an absolute path.

        Args:
            fs: The disk.
            path: Absolute, without links in it.
            folder: Whose root it is.
            holder: Who syncs it, one line: the device's id in hex. Two devices on one root are told apart by it.
        """
        self._fs = fs
        self.path = path
        self._marker = f"{folder.hex()}\n{holder}\n".encode()

    def open(self) -> Root | RootMissing:
        """Return the open root, or why it must not be touched."""
        fs = self._fs
        try:
            handle = fs.open_root(self.path)
        except FileNotFoundError:
            return RootMissing("missing", f"{self.path} is not there: {_MOUNT}")
        except OSError as error:
            return RootMissing("unreadable", f"{self.path} cannot be opened ({text_of(error)}): {_MOUNT}")
        try:
            found = fs.fstat(handle)
            marker = self._read(handle)
        except FileNotFoundError:
            missing = RootMissing("unmarked", f"{self.path} was emptied or is another directory: {_MOUNT}, {_ANEW}")
        except OSError as error:
            missing = RootMissing("unreadable", f"{self.path} cannot be read ({text_of(error)}): check its permissions")
        else:
            if marker == self._marker:
                return Root(fs, handle, self.path, found)
            missing = RootMissing("foreign", f"{self.path} belongs to another folder or device: {_MOUNT}, {_ANEW}")
        fs.close(handle)
        return missing

    def mark(self) -> None:
        """Make the directory a root: ``.kinfolder`` (mode 0700), its hidden directories and, last and durably, the marker.

        Raises:
            UserError: The directory carries another folder's or device's marker.
            DiskError: It cannot be written.
        """
        fs = self._fs
        try:
            handle = fs.open_root(self.path)
        except OSError as error:
            raise disk_error(error, writing=True) from error
        try:
            try:
                found = self._read(handle)
            except FileNotFoundError:
                found = b""
            if found not in {b"", self._marker}:
                raise UserError(
                    f"{self.path} belongs to another folder or device; if that is over, delete {self.path}/{CONTROL}"
                )
            self._write(handle)
        except OSError as error:
            raise disk_error(error, writing=True) from error
        finally:
            fs.close(handle)

    def unmark(self) -> None:
        """Take the marker away; the hidden directories stay while something lies in them.

        Raises:
            DiskError: It cannot be written.
        """
        missing = self.open()
        if isinstance(missing, RootMissing):
            raise DiskError("error", missing.text)
        with missing as root:
            try:
                with opened(self._fs, root.handle, CONTROL) as control:
                    self._fs.unlink(control, MARKER)
                    for name in HIDDEN:
                        self._remove_if_empty(control, name)
                self._remove_if_empty(root.handle, CONTROL)
            except OSError as error:
                raise disk_error(error, writing=True) from error

    def _remove_if_empty(self, parent: Handle, name: str) -> None:
        try:
            self._fs.remove_directory(parent, name)
        except OSError:
            return

    def _read(self, root: Handle) -> bytes:
        with opened(self._fs, root, CONTROL) as control:
            file = self._fs.open_file(control, MARKER, Access.READ)
            try:
                buffer = memoryview(bytearray(_MARKER_BYTES_MAX))
                return bytes(buffer[: self._fs.read(file, buffer, 0)])
            finally:
                self._fs.close(file)

    def _write(self, root: Handle) -> None:
        fs = self._fs
        _make(fs, root, CONTROL)
        with opened(fs, root, CONTROL) as control:
            for name in HIDDEN:
                _make(fs, control, name)
            for name in (f"{MARKER}.new", MARKER):  # one that a crash left unfinished is written anew
                try:
                    fs.unlink(control, name)
                except FileNotFoundError:
                    continue
            file = fs.open_file(control, f"{MARKER}.new", Access.CREATE)
            try:
                fs.write(file, self._marker, 0)
                fs.sync(file)
            finally:
                fs.close(file)
            fs.rename(control, f"{MARKER}.new", control, MARKER)
            fs.sync(control)
        fs.sync(root)


def _make(fs: FileSystem, parent: Handle, name: str) -> None:
    try:
        fs.make_directory(parent, name, 0o700)
    except FileExistsError:
        return


def check_new_root(
    path: str,
    *,
    state: Iterable[str],
    roots: Iterable[str],
    user_home: str | None = None,
    allow_network: bool = False,
) -> str:
    """Return the real path of a directory, existing or not, that may become a folder's root (security 4.2).

    Args:
        path: What the user named.
        state: Directories in which devices of this user keep their state; a root lies neither in nor around one.
        roots: Roots of the folders that this device has.
        user_home: The user's home directory; None: the one of this process.
        allow_network: Whether a network mount will do; changes made elsewhere are then found by scans only.

    Raises:
        UserError: It may not; the text says why.
    """
    shown = os.fsencode(path).decode(errors="replace")
    if not path or "\0" in path:
        raise UserError("a path without a name cannot be a folder" if not path else "a path has no zero bytes")
    real = os.path.realpath(path)
    if real == "/":
        raise UserError("The root of the file system cannot be a folder: choose a directory in it")
    if os.path.lexists(real) and not os.path.isdir(real):
        raise UserError(f"{shown} is a file: a folder is a directory")
    home = os.path.realpath(os.path.expanduser("~") if user_home is None else user_home)
    if home != "/" and _contains(real, home):
        raise UserError(f"{shown} holds your whole home directory: choose a directory in it")
    for one in state:
        kept = os.path.realpath(one)
        if _contains(real, kept) or _contains(kept, real):
            raise UserError(f"{shown} and {one}, where Kinfolder keeps its own state, lie in each other")
    for one in roots:
        root = os.path.realpath(one)
        if real == root:
            raise UserError(f"{shown} is a folder already")
        if _contains(real, root) or _contains(root, real):
            raise UserError(f"{shown} and the folder {one} lie in each other")
    if CONTROL in real.lower().split("/"):
        raise UserError(f"{shown} lies in a directory that Kinfolder keeps for itself")
    above = os.path.dirname(real)
    while above != "/":
        if os.path.lexists(os.path.join(above, CONTROL, MARKER)):
            raise UserError(f"{shown} lies in {above}, which is a folder already")
        above = os.path.dirname(above)
    kind = _mounted_as(real)
    if kind in _NETWORK and not allow_network:
        raise UserError(f"{shown} lies on a network mount ({kind}): sync it where its disk is, or allow it")
    return real


def _contains(outer: str, inner: str) -> bool:
    return inner == outer or inner.startswith(outer.rstrip("/") + "/")


def _mounted_as(path: str) -> str:
    """Return the type of the file system that a path lies on, as far as this system tells."""
    best, kind = "", ""
    try:
        with open("/proc/self/mounts", "rb") as mounts:
            for line in mounts:
                fields = line.split(b" ")
                point = os.fsdecode(fields[1].replace(b"\\040", b" "))
                if _contains(point, path) and len(point) >= len(best):
                    best, kind = point, os.fsdecode(fields[2])
    except OSError:
        return ""
    return kind
