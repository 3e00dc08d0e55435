"""What a scan reports: names and stat results, directory by directory; hashes only where they are needed.

The scanner (:mod:`peer.disk.scanner`) makes these, :mod:`peer.core.identify` turns them into the local tree.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import msgspec

from peer.core.tree import ItemId
from protocol.entries import Kind

_UNPROVEN: Final = -1
_SECOND_NS: Final = 1_000_000_000


class Fingerprint(NamedTuple):
    """What tells, without reading it, that a file is the one that was seen before."""

    device: int
    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int
    mode: int

    @property
    def is_coarse(self) -> bool:
        """Whether its file system seems to keep whole seconds: of two changes in one, the second leaves no trace."""
        return self.ctime_ns % _SECOND_NS == 0

    def doubted(self) -> Fingerprint:
        """Return it so that no look agrees with it: the bytes are read before anything is believed of them."""
        return self._replace(ctime_ns=_UNPROVEN)


class Sighting(msgspec.Struct, frozen=True):
    """One name in a directory."""

    name: str
    kind: Kind | None
    """None: something that is never synced (FIFO, socket, device); it is reported, never opened."""
    fingerprint: Fingerprint
    target: bytes = b""
    """A link's target."""
    problem: str = ""
    """Not empty: the name is there but cannot be synced or read now; a reason code of the contract's ``status``."""


class Listing(msgspec.Struct, frozen=True):
    """One directory as it was seen. A directory that could not be read says nothing about what stands in it."""

    path: str
    """From the root, "/" between parts, "" for the root itself."""
    sightings: tuple[Sighting, ...]
    problem: str = ""
    """Not empty: unreadable; nothing under it may be taken as removed."""
    inode: tuple[int, int] | None = None
    """(device, inode) of the directory itself, so that a listing without its parent's is not taken for another one's."""


class LocalRow(msgspec.Struct, frozen=True, array_like=True):
    """What the local tree keeps beside an item: how it looked when its content was hashed."""

    id: ItemId
    fingerprint: Fingerprint
