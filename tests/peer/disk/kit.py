"""Folders on a real disk, a local tree made by scanning them, and doors that stop or misbehave on demand."""

from __future__ import annotations

import errno
import itertools
import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from blake3 import blake3

from peer.core.observations import Fingerprint
from peer.core.operations import Step
from peer.core.tree import Content, Item, ItemId
from peer.disk.applier import Applier
from peer.disk.files import LinuxFileSystem
from peer.disk.journal import Intent, Journal, MemoryJournal, Standing, Swap
from peer.disk.outcomes import Outcome
from peer.disk.roots import Root, RootGuard
from peer.disk.scanner import hash_files, scan
from peer.disk.stages import Staged, stage_bytes
from protocol.effects import FileSystem
from protocol.entries import Kind
from protocol.ids import ROOT, FolderId

FOLDER = FolderId(b"f" * 32)
WHEN_NS = 1_700_000_000_123_456_789


class Ticks:
    """A clock that moves by one second each time it is asked."""

    def __init__(self) -> None:
        self._ticks = itertools.count(1_800_000_000)

    def now_ms(self) -> int:
        return next(self._ticks) * 1000

    def monotonic_s(self) -> float:
        return float(next(self._ticks))


class Counting:
    """Ids in a row."""

    def __init__(self) -> None:
        self._next = itertools.count(1)

    def __call__(self, count: int, /) -> bytes:
        return blake3(str(next(self._next)).encode()).digest(count)


def id_of(path: str) -> ItemId:
    """Return an item id made of a path, so that a test can name items."""
    return ItemId(blake3(path.encode("utf-8", "surrogateescape")).digest(16)) if path else ROOT


def item_at(
    path: str, data: bytes = b"", *, kind: Kind = Kind.FILE, target: bytes = b"", executable: bool = False, id: str = ""
) -> Item:
    """Return an item of the remote tree."""
    directory, _, name = path.rpartition("/")
    if kind is Kind.FILE:
        content = Content(kind, blake3(data).digest(), len(data), WHEN_NS, executable)
    elif kind is Kind.LINK:
        content = Content(kind, blake3(target).digest(), len(target), 0, False, target)
    else:
        content = Content(kind)
    return Item(id_of(id or path), id_of(directory), name, content)


class Seen:
    """The local tree as a scan sees it; ids are made of paths."""

    def __init__(self, root: Root) -> None:
        self.items: dict[ItemId, Item] = {}
        self.prints: dict[ItemId, Fingerprint] = {}
        self.by_path: dict[str, Item] = {}
        for listing in scan(root):
            for s in listing.sightings:
                path = f"{listing.path}/{s.name}" if listing.path else s.name
                if s.kind is None:
                    continue
                content = Content(s.kind)
                if s.kind is not Kind.DIRECTORY:
                    (h,) = hash_files(root, [path], now_ms=lambda: 0)
                    content = Content(s.kind, h.hash, s.fingerprint.size, s.fingerprint.mtime_ns, False, h.target)
                item = Item(id_of(path), id_of(listing.path), s.name, content)
                self.items[item.id] = self.by_path[path] = item
                self.prints[item.id] = s.fingerprint

    def __getitem__(self, path: str) -> Item:
        return self.by_path[path]

    def item(self, id: ItemId) -> Item | None:
        return self.items.get(id)

    def fingerprint(self, id: ItemId) -> Fingerprint | None:
        return self.prints.get(id)

    def child(self, parent: ItemId, name: str) -> Item | None:
        return next((item for item in self.items.values() if (item.parent, item.name) == (parent, name)), None)

    def children(self, parent: ItemId) -> list[Item]:
        return [item for item in self.items.values() if item.parent == parent]


class Folder:
    """A marked root on a real disk with a journal of its own."""

    def __init__(self, path: str, fs: FileSystem | None = None) -> None:
        self.path = path
        self.fs = fs or LinuxFileSystem()
        os.makedirs(path, exist_ok=True)
        RootGuard(LinuxFileSystem(), path, FOLDER).mark()
        self.journal: Journal = MemoryJournal()
        self.entropy = Counting()
        self.clock = Ticks()

    def open(self, fs: FileSystem | None = None) -> Root:
        opened = RootGuard(fs or self.fs, self.path, FOLDER).open()
        assert isinstance(opened, Root), opened
        return opened

    def write(self, path: str, data: bytes) -> None:
        full = os.path.join(self.path, path)
        os.makedirs(os.path.dirname(full), exist_ok=True)
        with open(full, "wb") as file:
            file.write(data)

    def read(self, path: str) -> bytes:
        with open(os.path.join(self.path, path), "rb") as file:
            return file.read()

    def at(self, path: str) -> str:
        return os.path.join(self.path, path)

    def seen(self) -> Seen:
        with self.open() as root:
            return Seen(root)

    def stage(self, items: Iterable[tuple[Item, bytes]]) -> dict[ItemId, Staged]:
        with self.open() as root:
            return {item.id: stage_bytes(root, item, data) for item, data in items}

    def apply(
        self,
        steps: Sequence[Step],
        contents: Iterable[tuple[Item, bytes]] = (),
        seen: Seen | None = None,
        **options: Any,
    ) -> list[Outcome]:
        seen = seen or self.seen()
        staged = self.stage(contents)
        with self.open() as root:
            applier = Applier(root, self.journal, self.clock, self.entropy, local=seen, staged=staged, **options)
            return [outcome for group in applier.apply(steps) for outcome in group]

    def tree(self) -> dict[str, bytes]:
        """Return all files below the root with their bytes, links with ``->`` and directories with ``/``."""
        found: dict[str, bytes] = {}
        for at, directories, files in os.walk(self.path):
            if at == self.path:
                directories.remove(".kinfolder")
            for name in files + directories:
                full = os.path.join(at, name)
                path = os.path.relpath(full, self.path)
                if os.path.islink(full):
                    found[path] = b"->" + os.fsencode(os.readlink(full))
                elif os.path.isdir(full):
                    found[path + "/"] = b""
                else:
                    with open(full, "rb") as file:
                        found[path] = file.read()
        return found

    def hidden(self) -> list[str]:
        """Return what lies in ``.kinfolder``, without the marker."""
        return sorted(
            f"{name}/{below}"
            for name in ("tmp", "trash", "aside")
            for below in os.listdir(self.at(f".kinfolder/{name}"))
        )


class Killed(BaseException):
    """The process is gone: nothing it does after this reaches the disk."""


class Wrapped:
    """A door with something before each call."""

    def __init__(self, inner: FileSystem, before: Callable[[str, tuple[Any, ...]], None]) -> None:
        self._inner = inner
        self._before = before
        self._opened: set[Any] = set()

    def __getattr__(self, name: str) -> Any:
        function = getattr(self._inner, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            self._before(name, args)
            result = function(*args, **kwargs)
            if name.startswith("open_"):
                self._opened.add(result)
            elif name == "close":
                self._opened.discard(args[0])
            return result

        return call

    def die(self) -> None:
        """Close what is still open, as the kernel does for a process that was killed."""
        while self._opened:
            self._inner.close(self._opened.pop())


class Fuse:
    """Stops the world at its n-th call, and from then on."""

    def __init__(self, after: int) -> None:
        self.left = after

    def burn(self, *_: Any) -> None:
        if self.left <= 0:
            raise Killed
        self.left -= 1


class FusedJournal:
    """A journal whose calls count as steps too, and which outlives its process."""

    def __init__(self, inner: Journal, fuse: Fuse) -> None:
        self._inner = inner
        self._fuse = fuse

    def begin(self, swaps: Sequence[Swap], intents: Sequence[Intent]) -> None:
        self._fuse.burn()
        self._inner.begin(swaps, intents)

    def intents(self) -> Sequence[Intent]:
        self._fuse.burn()
        return self._inner.intents()

    def settled(self, intents: Sequence[Intent], standing: Sequence[Standing]) -> None:
        self._fuse.burn()
        self._inner.settled(intents, standing)

    def put(self, swaps: Sequence[Swap]) -> None:
        self._fuse.burn()
        self._inner.put(swaps)

    def done(self, ids: Sequence[bytes]) -> None:
        self._fuse.burn()
        self._inner.done(ids)

    def rows(self) -> Iterable[Swap]:
        self._fuse.burn()
        return self._inner.rows()

    def checked(self, before_ms: int, limit: int, skip: int = 0) -> Sequence[Swap]:
        self._fuse.burn()
        return self._inner.checked(before_ms, limit, skip)

    def date_back(self, now_ms: int) -> None:
        self._fuse.burn()
        self._inner.date_back(now_ms)

    def count(self, *, checked: bool) -> int:
        self._fuse.burn()
        return self._inner.count(checked=checked)


def without_exchange(fs: FileSystem) -> Any:
    """Return a door to a file system that cannot exchange two names."""

    def before(name: str, _: tuple[Any, ...]) -> None:
        if name == "exchange":
            raise OSError(errno.EINVAL, "cannot exchange")

    return Wrapped(fs, before)


def at_call(fs: FileSystem, wanted: str, act: Callable[[], None], *, turn: int = 1) -> Any:
    """Return a door that lets a user act just before the n-th call of a name."""
    left = [turn]

    def before(name: str, _: tuple[Any, ...]) -> None:
        if name == wanted:
            left[0] -= 1
            if left[0] == 0:
                act()

    return Wrapped(fs, before)


class LateWriter:
    """A program that opens a file for writing just after it was looked at, and writes to it when it likes."""

    def __init__(self, folder: Folder, name: str) -> None:
        self._folder = folder
        self._name = name
        self._is_looked_at = False
        self._file = -1
        folder.fs = Wrapped(folder.fs, self._before)

    def _before(self, call: str, _: tuple[Any, ...]) -> None:
        if call == "has_writer":
            self._is_looked_at = True
        elif self._is_looked_at and self._file < 0 and call in {"rename", "exchange"}:
            (path,) = [
                os.path.join(directory, self._name)
                for directory, _, names in os.walk(self._folder.path)
                if self._name in names
            ]
            self._file = os.open(path, os.O_RDWR)

    def write(self, data: bytes) -> None:
        """Write over the beginning and close the file."""
        assert self._file >= 0, "nobody was about to take the file away"
        os.pwrite(self._file, data, 0)
        os.close(self._file)
