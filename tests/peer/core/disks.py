"""A device that scans a disk in memory, and small disks to begin with."""

from __future__ import annotations

from collections.abc import Iterable

from blake3 import blake3

from peer.core.identify import Identification, Identified
from peer.core.planner import plan
from peer.core.tree import ItemId, MemoryTree
from protocol.entries import Kind
from simulations.plan.disk import MemoryDisk
from simulations.plan.local import MemoryLocal
from tests.peer.core.trees import names


class Watcher:
    """Scans a simulated disk into a local tree, and knows what is synced."""

    def __init__(self, disk: MemoryDisk | None = None) -> None:
        self.disk = disk or MemoryDisk()
        self.local = MemoryLocal()
        self.synced = MemoryTree()
        self._ids = 0
        self.last = Identified((), (), (), (), ())

    def entropy(self, count: int) -> bytes:
        self._ids += 1
        return f"n{self._ids}".encode().ljust(count, b".")

    def identify(
        self, *paths: str, settled: Iterable[str] | None = None, moved: Iterable[str] = (), recursive: bool = False
    ) -> Identified:
        """Scan everything, or some directories, and bring the local tree up to date."""
        found = Identification(
            local=self.local,
            synced=self.synced,
            entropy=self.entropy,
            full=not paths,
            settled=None if settled is None else set(settled),
            moved=set(moved),
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


def disk_of(*entries: str) -> MemoryDisk:
    """Make a disk: ``d/`` is a directory, ``f=x`` a file that holds x, ``l->x`` a link."""
    disk = MemoryDisk()
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
