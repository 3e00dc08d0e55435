"""What lies on a simulated disk: files, directories and links, and what each has that a power cut may still take.

Rule 1: contents are blocks that never change, so an undo, a copy and a snapshot cost nothing.
Rule 2: a change keeps what it replaced until it is durable: making it durable only forgets that.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator
from enum import IntEnum
from typing import TYPE_CHECKING, Final, NamedTuple

from blake3 import blake3

from protocol import limits
from protocol.effects import Stat
from protocol.entries import Kind

if TYPE_CHECKING:
    from simulations.disk import SimDisk

_BITS: Final = 16
BLOCK_BYTES: Final = 1 << _BITS
_MASK: Final = BLOCK_BYTES - 1
_KEPT_BYTES_MAX: Final = 4 * limits.MIB
FILE_BYTES_MAX: Final = (1 << 63) - 1
DIRECTORY_BYTES: Final = 4 * limits.KIB
"""What a directory says of its size."""

Undo = tuple[tuple[int, bytes | None], ...]
"""Blocks by number as they were; None: a hole."""


class Fate(IntEnum):
    """What a power cut does to a change."""

    PENDING = 0
    """Chance decides."""
    DURABLE = 1
    """It stays, but stands behind one that does not."""
    LOST = 2
    """It goes: the disk said so once, and nobody will hear of it again."""


class Look(NamedTuple):
    """What a change of one inode may change beside its bytes."""

    size: int
    mtime_ns: int
    ctime_ns: int
    mode: int


class Change:
    """One change of an inode: bytes written, a new size, or attributes."""

    __slots__ = ("before", "by_user", "ctime_ns", "data", "fate", "mode", "mtime_ns", "offset", "size", "undo")

    def __init__(self, before: Look, undo: Undo, *, by_user: bool) -> None:
        self.before = before
        self.undo = undo
        self.by_user = by_user
        self.fate = Fate.PENDING
        self.offset = 0
        self.data: bytes | None = None
        """What was written."""
        self.size: int | None = None
        """To what the file was cut or lengthened."""
        self.mode: int | None = None
        """What permissions it was given."""
        self.mtime_ns = before.mtime_ns
        self.ctime_ns = before.ctime_ns

    @property
    def is_bytes(self) -> bool:
        """Whether it changes more than attributes."""
        return self.data is not None or self.size is not None


class Inode:
    """Anything with a number: by itself, a FIFO or a socket."""

    __slots__ = (
        "ctime_ns",
        "disk",
        "links",
        "mode",
        "mtime_ns",
        "name",
        "number",
        "opens",
        "owner",
        "parent",
        "pending",
        "size",
        "turn",
        "writers",
    )

    def __init__(self, disk: SimDisk, number: int, mode: int, owner: int, now_ns: int) -> None:
        self.disk = disk
        self.number = number
        self.mode = mode
        self.owner = owner
        self.mtime_ns = self.ctime_ns = now_ns
        self.size = 0
        self.parent: Directory | None = None
        self.name = ""
        """As it stands in its parent; of several, the last one given."""
        self.links = 0
        self.opens = 0
        self.writers = 0
        """How many have it open for writing."""
        self.pending: list[Change] = []
        self.turn = 0
        """Of the newest change of names that concerns it."""

    def stat(self) -> Stat:
        """Return what ``lstat`` says."""
        return _stat((self.disk.number, self.number, self.size, self.mtime_ns, self.ctime_ns, self.mode))

    def look(self) -> Look:
        """Return what a change may change."""
        return Look(self.size, self.mtime_ns, self.ctime_ns, self.mode)

    @property
    def kind(self) -> Kind | None:
        """What it is, None for what is never synced."""
        return _KINDS.get(stat.S_IFMT(self.mode))

    def path(self) -> str:
        """Return where it stands, from the top of its disk; "" for what has no name any more."""
        parts = []
        here: Inode = self
        while here.parent is not None:
            parts.append(here.name)
            here = here.parent
        if here is not here.disk.root:
            return ""
        return "/" + "/".join(reversed(parts))

    def settle(self) -> None:
        """Make its changes durable, but for those that are lost."""
        if any(change.fate is Fate.LOST for change in self.pending):
            for change in self.pending:
                if change.fate is Fate.PENDING:
                    change.fate = Fate.DURABLE
        else:
            self.pending.clear()

    def lose(self) -> None:
        """Let a power cut take the bytes that are not durable, whatever is done about it from now on."""
        for change in self.pending:
            if change.fate is Fate.PENDING and change.is_bytes:
                change.fate = Fate.LOST

    def revert(self, change: Change) -> None:
        """Undo its newest change."""
        self.size, self.mtime_ns, self.ctime_ns, self.mode = change.before

    def repeat(self, change: Change) -> None:
        """Make a change once more, on what stands there now."""
        self.mtime_ns, self.ctime_ns = change.mtime_ns, change.ctime_ns
        if change.mode is not None:
            self.mode = change.mode


class Link(Inode):
    """A symbolic link."""

    __slots__ = ("target",)

    def __init__(self, disk: SimDisk, number: int, owner: int, now_ns: int, target: bytes) -> None:
        super().__init__(disk, number, stat.S_IFLNK | 0o777, owner, now_ns)
        self.target = target
        self.size = len(target)


class Directory(Inode):
    """Names, and what stands at each."""

    __slots__ = ("entries", "mounted", "under")

    def __init__(self, disk: SimDisk, number: int, mode: int, owner: int, now_ns: int) -> None:
        super().__init__(disk, number, stat.S_IFDIR | mode, owner, now_ns)
        self.size = DIRECTORY_BYTES
        self.entries: dict[str, Entry] = {}
        """By what the spellings of a name have in common."""
        self.mounted: Directory | None = None
        """The top of a disk that is mounted here."""
        self.under: Directory | None = None
        """Of the top of a mounted disk: where."""

    def is_within(self, other: Inode) -> bool:
        """Tell whether it is another directory, or lies below it."""
        here: Directory | None = self
        while here is not None:
            if here is other:
                return True
            here = here.parent
        return False


class Entry(NamedTuple):
    """One name of a directory."""

    name: str
    inode: Inode


class File(Inode):
    """Bytes, with holes."""

    __slots__ = ("_blocks", "_digest", "_whole", "allocated")

    def __init__(self, disk: SimDisk, number: int, mode: int, owner: int, now_ns: int) -> None:
        super().__init__(disk, number, stat.S_IFREG | mode, owner, now_ns)
        self._blocks: dict[int, bytes] = {}
        self._whole: bytes | None = b""
        self._digest: bytes | None = None
        self.allocated = 0
        """How many bytes of the disk it takes."""

    # --- Reading

    def data(self) -> bytes:
        """Return all its bytes; of a small file, the same object until it changes."""
        if self._whole is not None:
            return self._whole
        first = self._blocks.get(0, b"")
        whole = first if len(first) == self.size else b"".join(self._pieces(0, self.size))
        if self.size <= _KEPT_BYTES_MAX:
            self._whole = whole
        return whole

    def digest(self) -> bytes:
        """Return the BLAKE3 of its bytes."""
        if self._digest is None:
            hasher = blake3()
            for piece in self._pieces(0, self.size):
                hasher.update(piece)
            self._digest = hasher.digest()
        return self._digest

    def read(self, buffer: memoryview, offset: int) -> int:
        """Fill a buffer from a position; return how many bytes there were."""
        count = min(len(buffer), self.size - offset)
        if count <= 0:
            return 0
        at = 0
        for piece in self._pieces(offset, offset + count):
            buffer[at : at + len(piece)] = piece
            at += len(piece)
        return count

    def _pieces(self, start: int, end: int) -> Iterator[bytes]:
        while start < end:
            at = start & _MASK
            length = min(BLOCK_BYTES - at, end - start)
            piece = self._blocks.get(start >> _BITS, b"")[at : at + length]
            yield piece if len(piece) == length else piece + bytes(length - len(piece))
            start += length

    def blocks(self) -> dict[int, bytes]:
        """Return its bytes with its holes; what is returned does not change with it."""
        return dict(self._blocks)

    # --- Changing

    def fill(self, blocks: dict[int, bytes], size: int) -> None:
        """Give an empty file these bytes, durably."""
        for number, block in blocks.items():
            self._set_block(number, block)
        self.size = size
        self._whole = self._digest = None

    def growth(self, offset: int, length: int) -> int:
        """Return how many bytes of the disk a write would take, at most."""
        end, grown = offset + length, 0
        for number in range(offset >> _BITS, (end + _MASK) >> _BITS):
            needed = min(end - (number << _BITS), BLOCK_BYTES)
            grown += max(0, needed - len(self._blocks.get(number, b"")))
        return grown

    def put(self, offset: int, data: bytes) -> Undo:
        """Write bytes at a position; return what they replaced."""
        at = offset & _MASK
        if at + len(data) <= BLOCK_BYTES:
            undo: Undo = (self._put_block(offset >> _BITS, at, data),)
        else:
            undo = tuple(self._put_blocks(offset, data))
        self.size = max(self.size, offset + len(data))
        self._whole = self._digest = None
        return undo

    def _put_blocks(self, offset: int, data: bytes) -> Iterator[tuple[int, bytes | None]]:
        done = 0
        while done < len(data):
            at = (offset + done) & _MASK
            piece = data[done : done + BLOCK_BYTES - at]
            yield self._put_block((offset + done) >> _BITS, at, piece)
            done += len(piece)

    def _put_block(self, number: int, at: int, data: bytes) -> tuple[int, bytes | None]:
        old = self._blocks.get(number)
        if old is None:
            new = bytes(at) + data if at else data
        elif at == len(old):
            new = old + data
        elif at > len(old):
            new = old + bytes(at - len(old)) + data
        else:
            new = old[:at] + data + old[at + len(data) :]
        self._set_block(number, new)
        return number, old

    def resize(self, size: int) -> Undo:
        """Cut the file, or lengthen it with a hole; return what was cut off."""
        undo: list[tuple[int, bytes | None]] = []
        if size < self.size:
            last, at = size >> _BITS, size & _MASK
            for number in [number for number in self._blocks if number >= last]:
                block = self._blocks[number]
                if number == last and at >= len(block):
                    continue
                undo.append((number, block))
                self._set_block(number, block[:at] if number == last and at else None)
        self.size = size
        self._whole = self._digest = None
        return tuple(undo)

    def _set_block(self, number: int, block: bytes | None) -> None:
        old = self._blocks.get(number)
        grown = (0 if block is None else len(block)) - (0 if old is None else len(old))
        if block is None:
            self._blocks.pop(number, None)
        else:
            self._blocks[number] = block
        self.allocated += grown
        self.disk.used_bytes += grown

    def revert(self, change: Change) -> None:
        """Undo its newest change."""
        for number, block in change.undo:
            self._set_block(number, block)
        super().revert(change)
        self._whole = self._digest = None

    def repeat(self, change: Change) -> None:
        """Make a change once more, on what stands there now."""
        if change.data is not None:
            self.put(change.offset, change.data)
        elif change.size is not None:
            self.resize(change.size)
        super().repeat(change)


_stat: Final = Stat._make
_KINDS: Final = {stat.S_IFREG: Kind.FILE, stat.S_IFDIR: Kind.DIRECTORY, stat.S_IFLNK: Kind.LINK}
