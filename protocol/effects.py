"""The doors to the world: time, chance, processors and the disk, each as narrow as it can be.

Rule 1: a door decides nothing. What to do is decided in a core, and what an answer means by the caller.
Rule 2: each door has a real implementation in its service and a simulated one, held to one contract suite.
Rule 3: a file is named by the descriptor of its directory and one name; no path is ever opened a second time.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from enum import IntEnum
from typing import Any, NamedTuple, NewType, Protocol, TypeVar

import msgspec

T = TypeVar("T")

Handle = NewType("Handle", int)
"""An open file or directory of a :class:`FileSystem`; a descriptor, where the file system is the machine's own."""


class Clock(Protocol):
    """The time."""

    def now_ms(self) -> int:
        """Return the wall clock in milliseconds since 1970; it may jump."""

    def monotonic_s(self) -> float:
        """Return seconds since some moment of this process; it never goes back."""


class Entropy(Protocol):
    """Secret chance: keys, ids, nonces and jitter are drawn here only."""

    def __call__(self, count: int, /) -> bytes:
        """Return this many random bytes."""


class Processor(Protocol):
    """Where work that computes or blocks is done, so that the event loop stays free."""

    def run(self, function: Callable[..., T], /, *args: Any) -> Awaitable[T]:
        """Call the function elsewhere and return its result or raise its error.

        On a device, who is cancelled meanwhile learns of it once the function has ended, or will never begin: until then
        the files and generators that it works on are its own, and closing one would hand its descriptor to the next.
        """

    def close(self) -> None:
        """Wait for what runs, and start nothing more; blocks."""


class Stat(NamedTuple):
    """What ``lstat`` says about a name."""

    device: int
    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int
    mode: int
    """Type and permission bits, as in ``st_mode``."""


class Named(NamedTuple):
    """One name of a directory."""

    name: str
    """As ``os.fsdecode`` gives it."""
    stat: Stat | None
    """None: the name is there and ``lstat`` failed."""


class Access(IntEnum):
    """What a file is opened for."""

    READ = 1
    WRITE = 2
    """Read and write a file that is there."""
    CREATE = 3
    """Read and write a file that must not be there yet."""


class FileSystem(Protocol):
    """A disk, by descriptors; no call ever follows a symbolic link below the root.

    Every call may raise ``OSError`` with the ``errno`` that Linux would give; nothing else.
    """

    def open_root(self, path: str) -> Handle:
        """Open a directory by its absolute path; the last part may be no link."""

    def open_directory(self, parent: Handle, name: str) -> Handle:
        """Open a directory; ENOTDIR or ELOOP for anything else."""

    def open_file(self, parent: Handle, name: str, access: Access) -> Handle:
        """Open a file without ever waiting, also for a FIFO; ELOOP for a link. A new file has mode 0666 less the umask."""

    def close(self, handle: Handle) -> None:
        """Close a file or a directory."""

    def list(self, directory: Handle) -> Iterator[Named]:
        """Yield the names of a directory, without "." and "..", in any order."""

    def lstat(self, directory: Handle, name: str) -> Stat:
        """Return what stands at a name."""

    def fstat(self, handle: Handle) -> Stat:
        """Return what is open."""

    def read(self, handle: Handle, buffer: memoryview, offset: int) -> int:
        """Fill the buffer from a position of the file; fewer bytes only at its end."""

    def write(self, handle: Handle, data: bytes | memoryview, offset: int) -> None:
        """Write all the bytes at a position of the file."""

    def truncate(self, handle: Handle, size: int) -> None:
        """Cut the file, or lengthen it with a hole."""

    def set_attributes(self, handle: Handle, *, mtime_ns: int | None = None, mode: int | None = None) -> None:
        """Set the modification time or the permission bits of an open file."""

    def sync(self, handle: Handle) -> None:
        """Make a file's bytes, or a directory's names, durable."""

    def sync_all(self, handle: Handle) -> None:
        """Make everything on the file system of this handle durable."""

    def make_directory(self, parent: Handle, name: str, mode: int) -> None:
        """Make a directory; the process's umask applies."""

    def make_link(self, parent: Handle, name: str, target: bytes) -> None:
        """Make a symbolic link."""

    def read_link(self, parent: Handle, name: str) -> bytes:
        """Return a link's target."""

    def rename(self, parent: Handle, name: str, new_parent: Handle, new_name: str) -> None:
        """Move a name to one that must be free: EEXIST otherwise, never a replacement."""

    def exchange(self, parent: Handle, name: str, other_parent: Handle, other_name: str) -> None:
        """Exchange what stands at two names at one instant; EINVAL where the file system cannot."""

    def unlink(self, parent: Handle, name: str) -> None:
        """Remove a name that is no directory."""

    def remove_directory(self, parent: Handle, name: str) -> None:
        """Remove an empty directory; ENOTEMPTY otherwise."""

    def has_writer(self, handle: Handle) -> bool | None:
        """Tell whether any process has this file open for writing; None where the file system cannot tell."""

    def free_bytes(self, handle: Handle) -> int:
        """Return how many bytes may still be written on the file system of this handle."""


class DiskEventKind(IntEnum):
    """What a watcher noticed."""

    CREATED = 1
    MODIFIED = 2
    """Bytes or attributes."""
    DELETED = 3
    MOVED_FROM = 4
    MOVED_TO = 5
    APPEARED = 6
    """A directory is watched from now on; whatever it held before must be looked for."""
    OVERFLOW = 7
    """Events were lost: everything must be looked at."""
    DEGRADED = 8
    """Some directories cannot be watched: look everywhere from time to time. Sent once."""
    ROOT_GONE = 9
    """The root was moved, removed or unmounted; nothing follows, unless another directory appears at its path."""


class DiskEvent(msgspec.Struct, frozen=True):
    """A hint where to look; never a fact about what is there."""

    kind: DiskEventKind
    directory: str = ""
    """Path from the root, "/" between parts, "" for the root."""
    name: str = ""
    """The name in the directory; empty where the event is about the directory itself."""
    is_directory: bool = False
    cookie: int = 0
    """Joins the two halves of a move; 0 for other events."""


IsIgnored = Callable[[str, bool], bool]
"""(path from the root, whether it is a directory) -> whether it is left alone."""


class Watcher(Protocol):
    """Says where on a root something happened."""

    @property
    def is_gone(self) -> bool:
        """Whether the root was not there when it was to be watched: this watcher is over, whatever stands there since."""

    async def get(self) -> tuple[DiskEvent, ...]:
        """Wait until something happened and return it, in order; first of all, once everything is watched, the root appears."""

    async def caught_up(self, timeout_s: float) -> None:
        """Wait until all that has happened up to now was returned by :meth:`get`, or the time is over."""

    def close(self) -> None:
        """Stop; a waiting :meth:`get` is cancelled by its caller."""


class Watchers(Protocol):
    """Begins to watch roots."""

    def __call__(self, path: str, *, is_ignored: IsIgnored | None = None) -> Watcher:
        """Return what watches one root.

        Args:
            path: The root; absolute, without links in it.
            is_ignored: Directories to leave out, by path from the root; ``.kinfolder`` always is.
        """
