"""A simulated disk with inodes, as a scanner sees it; and a local tree with fingerprints in memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from blake3 import blake3

from peer.core.identify import Identification, Identified
from peer.core.observations import Fingerprint, Listing, Sighting
from peer.core.planner import plan
from peer.core.tree import Item, ItemId, MemoryTree, path_of
from protocol.entries import Kind
from tests.peer.core.trees import names

FILE_MODE = 0o100644
DIRECTORY_MODE = 0o040755
LINK_MODE = 0o120777


class Inode:
    """A file, a directory or a link."""

    def __init__(self, number: int, mode: int, now: int, data: str = "") -> None:
        self.number = number
        self.mode = mode
        self.data = data
        self.names: dict[str, Inode] = {}
        self.mtime = now
        self.ctime = now

    @property
    def is_directory(self) -> bool:
        return self.mode == DIRECTORY_MODE

    @property
    def kind(self) -> Kind:
        return {DIRECTORY_MODE: Kind.DIRECTORY, LINK_MODE: Kind.LINK}.get(self.mode, Kind.FILE)

    def fingerprint(self) -> Fingerprint:
        size = len(self.names) if self.is_directory else len(self.data)
        return Fingerprint(7, self.number, size, self.mtime, self.ctime, self.mode)


class SimDisk:
    """Inode numbers are used again at once, the smallest first, as ext4 does."""

    def __init__(self, *, tick_ns: int = 1_000_001) -> None:
        self._now = 1_700_000_000_123_456_789
        self._tick_ns = tick_ns
        self._free: list[int] = []
        self._next = 2
        self.root = self._new(DIRECTORY_MODE)
        self.unreadable: set[str] = set()
        self.problems: dict[str, str] = {}
        self.hashed: list[str] = []

    def _tick(self) -> int:
        self._now += self._tick_ns
        return self._now

    def _new(self, mode: int, data: str = "") -> Inode:
        if self._free:
            self._free.sort()
            number = self._free.pop(0)
        else:
            number = self._next
            self._next += 1
        return Inode(number, mode, self._tick(), data)

    def at(self, path: str) -> Inode:
        here = self.root
        for part in path.split("/") if path else ():
            here = here.names[part]
        return here

    def exists(self, path: str) -> bool:
        try:
            self.at(path)
        except KeyError:
            return False
        return True

    def _parent(self, path: str) -> tuple[Inode, str]:
        above, _, name = path.rpartition("/")
        return self.at(above), name

    def _put(self, path: str, inode: Inode) -> None:
        parent, name = self._parent(path)
        parent.names[name] = inode
        parent.mtime = parent.ctime = self._tick()

    def _unput(self, path: str) -> Inode:
        parent, name = self._parent(path)
        inode = parent.names.pop(name)
        parent.mtime = parent.ctime = self._tick()
        return inode

    def _forget(self, inode: Inode) -> None:
        if not any(inode is each for _, each in self.walk()):
            self._free.append(inode.number)

    def write(self, path: str, data: str) -> None:
        """Create a file, or write it in place."""
        if self.exists(path):
            inode = self.at(path)
            inode.data = data
            inode.mtime = inode.ctime = self._tick()
        else:
            self._put(path, self._new(FILE_MODE, data))

    def mkdir(self, path: str) -> None:
        self._put(path, self._new(DIRECTORY_MODE))

    def symlink(self, path: str, target: str) -> None:
        self._put(path, self._new(LINK_MODE, target))

    def link(self, old: str, new: str) -> None:
        inode = self.at(old)
        inode.ctime = self._tick()
        self._put(new, inode)

    def move(self, old: str, new: str) -> None:
        """Rename; a file at the new place is replaced."""
        replaced = self.at(new) if self.exists(new) else None
        inode = self._unput(old)
        inode.ctime = self._tick()
        self._put(new, inode)
        if replaced is not None and replaced is not inode:
            self._forget(replaced)

    def swap(self, one: str, other: str) -> None:
        self.move(one, ".swap")
        self.move(other, one)
        self.move(".swap", other)

    def remove(self, path: str) -> None:
        inode = self.at(path)
        for name in list(inode.names):
            self.remove(f"{path}/{name}")
        self._unput(path)
        self._forget(inode)

    def chmod(self, path: str, *, executable: bool) -> None:
        inode = self.at(path)
        inode.mode = 0o100755 if executable else FILE_MODE
        inode.ctime = self._tick()

    def touch(self, path: str, mtime: int | None = None) -> None:
        inode = self.at(path)
        inode.ctime = self._tick()
        inode.mtime = inode.ctime if mtime is None else mtime

    def walk(self, path: str = "") -> Iterator[tuple[str, Inode]]:
        for name, inode in list(self.at(path).names.items()):
            below = f"{path}/{name}" if path else name
            yield below, inode
            if inode.is_directory:
                yield from self.walk(below)

    def list(self, path: str) -> Listing:
        here = self.at(path)
        if path in self.unreadable:
            return Listing(path, (), "unreadable")
        sightings = []
        for name, inode in sorted(here.names.items()):
            below = f"{path}/{name}" if path else name
            target = inode.data.encode() if inode.kind is Kind.LINK else b""
            problem = self.problems.get(below, "")
            sightings.append(Sighting(name, inode.kind, inode.fingerprint(), target, problem))
        return Listing(path, tuple(sightings), inode=(7, here.number))

    def scan(self, path: str = "", *, recursive: bool = True) -> Iterator[Listing]:
        yield self.list(path)
        if recursive and path not in self.unreadable:
            for name, inode in sorted(self.at(path).names.items()):
                if inode.is_directory:
                    yield from self.scan(f"{path}/{name}" if path else name)

    def hash(self, path: str) -> Hash:
        self.hashed.append(path)
        inode = self.at(path)
        return Hash(blake3(inode.data.encode()).digest(), inode.fingerprint())

    def show(self) -> dict[str, str]:
        """Return path -> data, "/" for a directory, "->target" for a link."""
        return {
            path: "/" if i.is_directory else f"->{i.data}" if i.kind is Kind.LINK else i.data for path, i in self.walk()
        }


class Hash(NamedTuple):
    hash: bytes
    fingerprint: Fingerprint
    problem: str = ""
    settled: bool = True


class MemoryLocal(MemoryTree):
    """A local tree in dicts."""

    def __init__(self) -> None:
        self.fingerprints: dict[ItemId, Fingerprint] = {}
        super().__init__()

    def rows(self, parent: ItemId) -> Iterable[tuple[Item, Fingerprint]]:
        for item in self.children(parent):
            yield item, self.fingerprints[item.id]

    def holders(self, device: int, inode: int) -> Iterable[tuple[Item, Fingerprint]]:
        for item in sorted(self.items(), key=lambda item: item.id):
            fingerprint = self.fingerprints[item.id]
            if (fingerprint.device, fingerprint.inode) == (device, inode):
                yield item, fingerprint

    def apply(self, found: Identified) -> None:
        for id in found.drops:
            self.drop(id)
            del self.fingerprints[id]
        for item, _ in found.puts:
            self.drop(item.id)
        for item, fingerprint in found.puts:
            assert self.child(item.parent, item.name) is None, f"{item.name} is there twice"
            self.put(item)
            self.fingerprints[item.id] = fingerprint

    def paths(self) -> dict[str, Item]:
        result = {}
        for item in self.items():
            path = path_of(self, item.id)
            assert path is not None, f"{item} hangs in the air"
            assert path not in result
            result[path] = item
        return result


class Watcher:
    """Scans a simulated disk into a local tree, and knows what is synced."""

    def __init__(self, disk: SimDisk | None = None) -> None:
        self.disk = disk or SimDisk()
        self.local = MemoryLocal()
        self.synced = MemoryTree()
        self._ids = 0
        self.last = Identified((), (), (), (), ())

    def entropy(self, count: int) -> bytes:
        self._ids += 1
        return f"n{self._ids}".encode().ljust(count, b".")

    def identify(self, *paths: str, settled: Iterable[str] | None = None, recursive: bool = False) -> Identified:
        """Scan everything, or some directories, and bring the local tree up to date."""
        found = Identification(
            local=self.local,
            synced=self.synced,
            entropy=self.entropy,
            full=not paths,
            settled=None if settled is None else set(settled),
        )
        for path in paths or ("",):
            for listing in self.disk.scan(path, recursive=recursive or not paths):
                found.observe(listing)
        requests = found.requests()
        self.last = found.result({path: self.disk.hash(path) for path in requests})
        self.local.apply(self.last)
        return self.last

    def sync(self) -> None:
        """Take what is here as synced."""
        self.synced = MemoryTree({item.id: item for item in self.local.items()})
        self.disk.hashed.clear()

    def ids(self) -> dict[str, ItemId]:
        return {path: item.id for path, item in self.local.paths().items()}

    def check(self) -> None:
        """The local tree says what the disk holds."""
        shown = self.disk.show()
        paths = self.local.paths()
        assert paths.keys() == shown.keys()
        for path, item in paths.items():
            content = item.content
            if shown[path] == "/":
                assert content.kind is Kind.DIRECTORY
            elif content.kind is Kind.LINK:
                assert shown[path] == f"->{content.target.decode()}"
            else:
                assert content.hash == blake3(shown[path].encode()).digest()
                assert content.size == len(shown[path])


def disk_of(*entries: str) -> SimDisk:
    """Make a disk: ``d/`` is a directory, ``f=x`` a file that holds x, ``l->x`` a link."""
    disk = SimDisk()
    for entry in entries:
        if entry.endswith("/"):
            disk.mkdir(entry[:-1])
        elif "->" in entry:
            disk.symlink(*entry.split("->"))
        else:
            disk.write(*entry.split("="))
    return disk


def scanned(*entries: str) -> Watcher:
    """Return a device that has scanned and synced these."""
    watcher = Watcher(disk_of(*entries))
    watcher.identify()
    watcher.check()
    watcher.sync()
    return watcher


def acts(watcher: Watcher) -> list[str]:
    """Spell what the planner takes as done by the user."""
    dirty = {item.id for tree in (watcher.local, watcher.synced) for item in tree.items()}
    made = plan(local=watcher.local, synced=watcher.synced, remote=watcher.synced, dirty=dirty)
    assert made.steps == ()
    return names(made.acts)
