"""What a test or a world hangs onto a simulated disk: it sees each call of a process before and after, and lets it fail.

Rule 1: what people do passes no hook; they are told from processes by who asks.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import NamedTuple, Protocol

from simulations.inodes import Directory, File, Inode


class Crashed(BaseException):
    """The process that calls is gone: nothing that it does reaches the world any more."""


class Life(Protocol):
    """The machine that a process runs on, from its start to its crash."""

    def effect(self) -> None:
        """Count an effect that is about to happen; raise instead if the machine is gone, or goes now."""


class Call(NamedTuple):
    """One call of a process."""

    call: str
    """As :class:`protocol.effects.FileSystem` names it; ``link`` and ``unlink`` for a rename in two steps."""
    inode: Inode
    """What it is about: of a new name, its directory."""
    directory: Directory | None = None
    """Where its name stands, or is to stand."""
    name: str = ""
    to_directory: Directory | None = None
    to_name: str = ""
    other: Inode | None = None
    """What stands at the other name of an exchange."""
    offset: int = 0
    """Where bytes are written; the new size of ``truncate``."""
    data: bytes = b""
    """What is written."""

    def path(self) -> str:
        """Return the path that it names, from the top of its disk; "" for what has no name any more."""
        if self.directory is None:
            return self.inode.path()
        return f"{self.directory.path().rstrip('/')}/{self.name}"

    def to_path(self) -> str:
        """Return the second path of a rename or an exchange."""
        return "" if self.to_directory is None else f"{self.to_directory.path().rstrip('/')}/{self.to_name}"

    def destroyed(self) -> bytes | None:
        """Return the whole content of the file of which this call destroys bytes; None if it destroys none."""
        inode = self.inode
        if not isinstance(inode, File):
            return None
        destroys = (
            (self.call == "unlink" and inode.links == 1)
            or (self.call == "truncate" and self.offset < inode.size)
            or (self.call == "write" and self.offset < inode.size)
        )
        return inode.data() if destroys else None


class Fault(NamedTuple):
    """How a call fails."""

    code: int = 0
    """Its ``errno``."""
    is_after: bool = False
    """Whether it was done all the same, as a network file system may answer."""
    loses_bytes: bool = False
    """Of ``sync``: what is not durable by now will never be, though every later call succeeds."""
    bytes_max: int = -1
    """Of ``read``, with no code: return at most so many bytes, though the file holds more."""

    def error(self, name: str) -> OSError:
        """Return what the caller gets."""
        return OSError(self.code, os.strerror(self.code), name)


class Hooks:
    """One disk's hooks, for all processes with a door to it."""

    __slots__ = ("after", "before", "effects", "fault")

    def __init__(self) -> None:
        self.effects = 0
        """How many calls changed the disk, or made it durable, or would have but for a crash."""
        self.before: Callable[[Call], None] | None = None
        """Called just before each of these; it may end the process."""
        self.after: Callable[[Call], None] | None = None
        """Called once it is done."""
        self.fault: Callable[[Call], Fault | None] | None = None
        """Asked about every call that would succeed, also those that change nothing."""


def joined(one: Callable[[Call], None] | None, other: Callable[[Call], None]) -> Callable[[Call], None]:
    """Return what does both, one after the other."""
    if one is None:
        return other
    first = one

    def both(call: Call) -> None:
        first(call)
        other(call)

    return both
