"""A disk in memory, with inodes, as a scanner sees it.

Rule 1: inode numbers are used again at once, the smallest first, as ext4 does: so what goes by inodes alone is found out.
Rule 2: every change moves the clock on, by less than any file system can tell if ``tick_ns`` is small.
Rule 3: names may differ by case alone, unless the disk ``folds_case``; then the first spelling stays.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterator
from functools import lru_cache
from typing import Final, NamedTuple

from blake3 import blake3

from peer.core.observations import Fingerprint, Listing, Sighting
from protocol.entries import Kind

FILE_MODE: Final = 0o100644
PROGRAM_MODE: Final = 0o100755
DIRECTORY_MODE: Final = 0o040755
LINK_MODE: Final = 0o120777
DEVICE: Final = 7
"""Of the one file system that there is."""

_KINDS: Final = {DIRECTORY_MODE: Kind.DIRECTORY, LINK_MODE: Kind.LINK}
_texts: dict[bytes, str] = {}


class NameTakenError(Exception):
    """Something stands at the name already."""


@lru_cache(maxsize=1 << 16)
def hash_of(text: str) -> bytes:
    """Return the hash of a file's or a link's bytes."""
    hash = blake3(text.encode()).digest()
    _texts[hash] = text
    return hash


hash_of("")  # an empty file's hash is known without reading it


def text_of_hash(hash: bytes) -> str:
    """Return what was hashed by :func:`hash_of`."""
    return _texts[hash]


class Inode:
    """A file, a directory or a link."""

    __slots__ = ("ctime", "data", "links", "mode", "mtime", "names", "number")

    def __init__(self, number: int, mode: int, now: int, data: str = "") -> None:
        self.number = number
        self.mode = mode
        self.data = data
        self.names: dict[str, Inode] = {}
        self.links = 0
        self.mtime = now
        self.ctime = now

    @property
    def is_directory(self) -> bool:
        """Whether names may stand in it."""
        return self.mode == DIRECTORY_MODE

    @property
    def kind(self) -> Kind:
        """What it is."""
        return _KINDS.get(self.mode, Kind.FILE)

    def fingerprint(self) -> Fingerprint:
        """Return what ``stat`` tells."""
        size = len(self.names) if self.mode == DIRECTORY_MODE else len(self.data)
        return Fingerprint(DEVICE, self.number, size, self.mtime, self.ctime, self.mode)


class Hash(NamedTuple):
    """What reading one file gave."""

    hash: bytes
    fingerprint: Fingerprint
    problem: str = ""
    settled: bool = True


class MemoryDisk:
    """Paths are from the root, "/" between parts; "" is the root."""

    def __init__(self, *, tick_ns: int = 1_000_001, folds_case: bool = False) -> None:
        self.folds_case = folds_case
        self._now = 1_700_000_000_123_456_789
        self._tick_ns = tick_ns
        self._free: list[int] = []
        self._next = 2
        self.root = self.new(DIRECTORY_MODE)
        self.unreadable: set[str] = set()
        self.problems: dict[str, str] = {}
        self.hashed: list[str] = []

    # --- Inodes

    @property
    def now(self) -> int:
        """The clock: another one after each change."""
        return self._now

    def tick(self) -> int:
        """Move the clock on."""
        self._now += self._tick_ns
        return self._now

    def new(self, mode: int, data: str = "") -> Inode:
        """Make an inode that has no name yet."""
        if self._free:
            number = self._free.pop(0)
        else:
            number = self._next
            self._next += 1
        return Inode(number, mode, self.tick(), data)

    def spelling(self, directory: Inode, name: str) -> str | None:
        """Return under which spelling a name is there; None if it is not."""
        if name in directory.names:
            return name
        if self.folds_case:
            folded = name.casefold()
            return next((each for each in directory.names if each.casefold() == folded), None)
        return None

    def put(self, directory: Inode, name: str, inode: Inode) -> None:
        """Give an inode a name.

        Raises:
            NameTakenError: It is taken, also by another spelling.
        """
        if self.spelling(directory, name) is not None:
            raise NameTakenError(name)
        directory.names[name] = inode
        inode.links += 1
        directory.mtime = directory.ctime = self.tick()

    def unput(self, directory: Inode, name: str) -> Inode:
        """Take a name away; return what it led to. Its number is not free yet."""
        inode = directory.names.pop(name)
        inode.links -= 1
        directory.mtime = directory.ctime = self.tick()
        return inode

    def release(self, inode: Inode) -> None:
        """Free the number of an inode that has no name left, and of all that is in it."""
        if inode.links > 0:
            return
        insort(self._free, inode.number)
        for below in inode.names.values():
            below.links -= 1
            self.release(below)

    # --- Paths

    def find(self, path: str) -> Inode | None:
        """Return what stands at a path, or None."""
        here = self.root
        for part in path.split("/") if path else ():
            name = self.spelling(here, part)
            if name is None:
                return None
            here = here.names[name]
        return here

    def at(self, path: str) -> Inode:
        """Return what stands at a path.

        Raises:
            KeyError: Nothing does.
        """
        found = self.find(path)
        if found is None:
            raise KeyError(path)
        return found

    def exists(self, path: str) -> bool:
        """Tell whether something stands at a path."""
        return self.find(path) is not None

    def _place(self, path: str) -> tuple[Inode, str]:
        above, _, name = path.rpartition("/")
        parent = self.at(above)
        return parent, self.spelling(parent, name) or name

    # --- What users do

    def write(self, path: str, data: str) -> None:
        """Create a file, or write it in place."""
        inode = self.find(path)
        if inode is None:
            self.put(*self._place(path), self.new(FILE_MODE, data))
        else:
            inode.data = data
            inode.mtime = inode.ctime = self.tick()

    def mkdir(self, path: str) -> None:
        """Make a directory."""
        self.put(*self._place(path), self.new(DIRECTORY_MODE))

    def symlink(self, path: str, target: str) -> None:
        """Make a link."""
        self.put(*self._place(path), self.new(LINK_MODE, target))

    def link(self, old: str, new: str) -> None:
        """Give a file a second name."""
        inode = self.at(old)
        inode.ctime = self.tick()
        self.put(*self._place(new), inode)

    def move(self, old: str, new: str) -> None:
        """Rename; a file at the new place is replaced."""
        parent, name = self._place(old)
        target, wanted = self._place(new)
        replaced = target.names.get(wanted)
        inode = self.unput(parent, name)
        inode.ctime = self.tick()
        if replaced is inode:
            wanted = new.rpartition("/")[2]  # another spelling of its own name
        elif replaced is not None:
            self.unput(target, wanted)
        self.put(target, wanted, inode)
        if replaced is not None and replaced is not inode:
            self.release(replaced)

    def swap(self, one: str, other: str) -> None:
        """Let two names change places."""
        self.move(one, ".swap")
        self.move(other, one)
        self.move(".swap", other)

    def remove(self, path: str) -> None:
        """Remove a file, or a directory with all in it."""
        inode = self.at(path)
        for name in list(inode.names):
            self.remove(f"{path}/{name}")
        self.unput(*self._place(path))
        self.release(inode)

    def chmod(self, path: str, *, executable: bool) -> None:
        """Make a file a program, or no program."""
        inode = self.at(path)
        inode.mode = PROGRAM_MODE if executable else FILE_MODE
        inode.ctime = self.tick()

    def touch(self, path: str, mtime: int | None = None) -> None:
        """Set the modification time: to now, or to a time given."""
        inode = self.at(path)
        inode.ctime = self.tick()
        inode.mtime = inode.ctime if mtime is None else mtime

    # --- What a scanner sees

    def walk(self, path: str = "") -> Iterator[tuple[str, Inode]]:
        """Yield every path below one, parents first."""
        yield from self._walk(path, self.at(path))

    def _walk(self, path: str, directory: Inode) -> Iterator[tuple[str, Inode]]:
        for name, inode in list(directory.names.items()):
            below = f"{path}/{name}" if path else name
            yield below, inode
            if inode.mode == DIRECTORY_MODE:
                yield from self._walk(below, inode)

    def list(self, path: str) -> Listing:
        """List a directory."""
        here = self.find(path)
        if here is None or not here.is_directory:
            return Listing(path, (), "gone")
        if path in self.unreadable:
            return Listing(path, (), "unreadable")
        sightings = []
        for name, inode in sorted(here.names.items()):
            target = inode.data.encode() if inode.mode == LINK_MODE else b""
            problem = self.problems.get(f"{path}/{name}" if path else name, "") if self.problems else ""
            sightings.append(Sighting(name, inode.kind, inode.fingerprint(), target, problem))
        return Listing(path, tuple(sightings), inode=(DEVICE, here.number))

    def scan(self, path: str = "", *, recursive: bool = True) -> Iterator[Listing]:
        """List a directory, and all below it."""
        listing = self.list(path)
        yield listing
        if recursive and not listing.problem:
            for name, inode in sorted(self.at(path).names.items()):
                if inode.is_directory:
                    yield from self.scan(f"{path}/{name}" if path else name)

    def hash(self, path: str) -> Hash:
        """Read a file."""
        self.hashed.append(path)
        inode = self.find(path)
        if inode is None or inode.is_directory:
            return Hash(b"", Fingerprint(0, 0, 0, 0, 0, 0), "gone")
        return Hash(hash_of(inode.data), inode.fingerprint())

    def show(self) -> dict[str, str]:
        """Return path -> data, "/" for a directory, "->target" for a link."""
        return {
            path: "/" if i.is_directory else f"->{i.data}" if i.kind is Kind.LINK else i.data for path, i in self.walk()
        }
