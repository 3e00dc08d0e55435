"""Observe a root: names and stat results, directory by directory, and hashes of the files that are asked for.

Rule 1: the scanner is the truth. It opens every directory by descriptor, follows no link and opens no file to list it.
Rule 2: what could not be seen is a problem in a listing, never an empty listing and never an exception.
Rule 3: all listings of one scan were true at one instant: each directory is looked at again at the end, and one that
    has changed meanwhile is listed again; a later listing of a path replaces the earlier ones.
Rule 4: a directory on another device is another disk that happens to be mounted here (or a subvolume): it is reported as
    unreadable and not entered, since its names would vanish with the mount.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Final, NamedTuple

from peer.core.hints import Spot
from peer.core.observations import Fingerprint, Listing, Sighting
from peer.disk.roots import Root
from peer.disk.walk import (
    BUFFER_BYTES,
    CONTROL,
    Cursor,
    fingerprint,
    hash_bytes,
    hash_open,
    is_gone,
    join,
    kind_of,
    opened,
    split,
)
from protocol import limits
from protocol.effects import Access, FileSystem, Handle, IsIgnored, Stat
from protocol.entries import Kind, is_reserved

_LOOKS_MAX: Final = 3
"""How often a directory that keeps changing under our eyes is listed before it is reported as changing."""
RACY_MS: Final = 50
"""A file changed this shortly before it was hashed may change again without a new time stamp on older kernels."""
COARSE_MS: Final = 2_000
"""As long as this, where the time stamp is of a whole second: it may be of a file system that knows no finer ones (FAT)."""
_SECOND_NS: Final = 1_000_000_000
_NOTHING: Final = Fingerprint(0, 0, 0, 0, 0, 0)


class Hashed(NamedTuple):
    """The content of one file, hashed while it stood still, or why that could not be done."""

    path: str
    hash: bytes
    """BLAKE3 of a file's bytes or a link's target; empty with a problem."""
    fingerprint: Fingerprint
    """Of the very bytes that were hashed."""
    target: bytes = b""
    problem: str = ""
    """``changing``, ``unreadable``, or ``gone`` (no code of the contract: the next scan will say so)."""
    settled: bool = True
    """False: it was written just now, so the fingerprint alone does not prove that nothing was written since."""


def scan(
    root: Root,
    spots: Iterable[Spot] | None = None,
    *,
    is_ignored: IsIgnored | None = None,
    unsettled: Collection[str] = (),
) -> Iterator[Listing]:
    """Yield what stands in a root, or in some of its directories.

    Work is done between two listings, so a caller may stop at any time and resume in another thread.

    Args:
        root: Opened, its marker checked.
        spots: Where to look; None: everywhere. A directory that is not there any more is answered by the listing of the
            nearest one above it.
        is_ignored: What to leave out; ``.kinfolder`` in the root always is.
        unsettled: Paths whose disappearance or arrival by a move is not to be judged yet: they are reported as
            ``changing``, whether they are there or not.

    Yields:
        Listings; parents before children, except that what changed during the scan is repeated at its end.
    """
    walk = _Walk(root, is_ignored, unsettled)
    for spot in _ordered(spots):
        yield from walk.visit(spot.path, recursive=spot.recursive)
    yield from walk.look_again()


def _ordered(spots: Iterable[Spot] | None) -> list[Spot]:
    """Drop the spots that another one covers."""
    if spots is None:
        return [Spot("", recursive=True)]
    kept: dict[str, bool] = {}
    for spot in sorted(spots, key=lambda spot: (spot.path, not spot.recursive)):
        if not any(kept.get(above) for above in _above(spot.path)) and spot.path not in kept:
            kept[spot.path] = spot.recursive
    return [Spot(path, recursive=recursive) for path, recursive in kept.items()]


def _above(path: str) -> Iterator[str]:
    while path:
        path, _ = split(path)
        yield path


class _Seen(NamedTuple):
    """A directory as it was when it was listed; any change of its names changes its times."""

    inode: int
    mtime_ns: int
    ctime_ns: int
    recursive: bool


class _Walk:
    def __init__(self, root: Root, is_ignored: IsIgnored | None, unsettled: Collection[str]) -> None:
        self._fs: FileSystem = root.fs
        self._root = root.handle
        self._device = root.identity.device
        self._is_ignored = is_ignored
        self._unsettled: dict[str, list[str]] = {}
        for path in unsettled:
            directory, name = split(path)
            self._unsettled.setdefault(directory, []).append(name)
        self._seen: dict[str, _Seen] = {}

    def visit(self, path: str, *, recursive: bool) -> Iterator[Listing]:
        """List a directory, or the nearest one above it that is there."""
        if any(self._is_left_out(part) for part in (path, *_above(path)) if part):
            return
        while True:
            try:
                with opened(self._fs, self._root, path) as handle:
                    yield from self._directory(handle, path, recursive=recursive)
                return
            except OSError as error:
                if not is_gone(error):
                    yield Listing(path, (), "unreadable")
                    return
                path, recursive = split(path)[0], False  # ends at the root at the latest, which is open

    def _is_left_out(self, path: str) -> bool:
        return path == CONTROL or (self._is_ignored is not None and self._is_ignored(path, True))

    def look_again(self) -> Iterator[Listing]:
        """List again what changed since it was listed, until nothing does or it does not come to rest."""
        for _ in range(_LOOKS_MAX):
            changed = self._changed()
            if not changed:
                return
            for path in changed:
                seen = self._seen.pop(path, None)
                if seen is None:
                    continue  # it was listed again with one above it
                if self._is_directory(path):
                    yield from self._relist(path, recursive=seen.recursive)
                else:
                    yield Listing(path, (), "changing")
        for path in self._changed():
            yield Listing(path, (), "changing")

    def _relist(self, path: str, *, recursive: bool) -> Iterator[Listing]:
        known = {below for below in self._seen if split(below)[0] == path and below}
        for listing in self.visit(path, recursive=False):
            yield listing
            if not recursive:
                continue
            for sighting in listing.sightings:
                below = join(path, sighting.name)
                if sighting.kind is not Kind.DIRECTORY or sighting.problem:
                    continue
                if below in known and self._seen[below].inode == sighting.fingerprint.inode:
                    known.discard(below)
                else:
                    yield from self.visit(below, recursive=True)
        if path in self._seen:
            self._seen[path] = self._seen[path]._replace(recursive=recursive)

    def _is_directory(self, path: str) -> bool:
        try:
            with opened(self._fs, self._root, path):
                return True
        except OSError:
            return False

    def _changed(self) -> list[str]:
        changed = []
        with Cursor(self._fs, self._root) as cursor:
            for path, seen in self._seen.items():
                try:
                    found = self._fs.fstat(cursor.go(path))
                except OSError:
                    changed.append(path)
                    continue
                if (found.inode, found.mtime_ns, found.ctime_ns) != seen[:3]:
                    changed.append(path)
        return changed

    def _directory(self, handle: Handle, path: str, *, recursive: bool) -> Iterator[Listing]:
        listing = self._list(handle, path, recursive=recursive)
        yield listing
        if not recursive or listing.problem == "unreadable":
            return
        for sighting in listing.sightings:
            if sighting.kind is not Kind.DIRECTORY or sighting.problem:
                continue
            below = join(path, sighting.name)
            try:
                child = self._fs.open_directory(handle, sighting.name)
            except OSError as error:
                yield Listing(below, (), "changing" if is_gone(error) else "unreadable")
                continue
            try:
                yield from self._directory(child, below, recursive=True)
            finally:
                self._fs.close(child)

    def _list(self, handle: Handle, path: str, *, recursive: bool) -> Listing:
        sightings: list[Sighting] = []
        try:
            for _ in range(_LOOKS_MAX):
                before = self._fs.fstat(handle)
                sightings = self._sightings(handle, path)
                after = self._fs.fstat(handle)
                if before[3:5] == after[3:5]:
                    break
            else:
                return Listing(path, tuple(sightings), "changing")
        except OSError:
            return Listing(path, (), "unreadable")
        self._seen[path] = _Seen(after.inode, after.mtime_ns, after.ctime_ns, recursive)
        return Listing(path, tuple(sightings), inode=(after.device, after.inode))

    def _sightings(self, handle: Handle, path: str) -> list[Sighting]:
        found = []
        prefix = f"{path}/" if path else ""
        room = limits.PATH_BYTES_MAX - len(os.fsencode(prefix))
        too_deep = path.count("/") + 2 >= limits.DEPTH_MAX if path else False
        tight = not path or room < limits.NAME_BYTES_MAX
        held = self._unsettled.get(path, ())
        is_ignored = self._is_ignored
        for name, stat in self._fs.list(handle):
            if not path and name == CONTROL:
                continue
            if stat is None:
                found.append(Sighting(name, None, _NOTHING, problem="unreadable"))
                continue
            kind = kind_of(stat.mode)
            if is_ignored is not None and is_ignored(prefix + name, kind is Kind.DIRECTORY):
                continue
            problem, target = "", b""
            if kind is Kind.LINK:
                target, problem = self._target(handle, name)
            elif kind is None:
                problem = "name"
            elif kind is Kind.DIRECTORY and stat.device != self._device:
                problem = "unreadable"
            if (too_deep and kind is Kind.DIRECTORY) or (tight and not _fits(name, room, in_root=not path)):
                problem = "name"
            if held and name in held:
                problem = "changing"
            found.append(Sighting(name, kind, Fingerprint(*stat), target, problem))
        if held:
            there = {sighting.name for sighting in found}
            found += [Sighting(name, None, _NOTHING, problem="changing") for name in held if name not in there]
        found.sort(key=_name)
        return found

    def _target(self, handle: Handle, name: str) -> tuple[bytes, str]:
        try:
            target = self._fs.read_link(handle, name)
        except OSError as error:
            return b"", "changing" if is_gone(error) else "unreadable"
        return (target, "") if len(target) <= limits.LINK_TARGET_BYTES_MAX else (b"", "name")


def _fits(name: str, room: int, *, in_root: bool) -> bool:
    raw = os.fsencode(name)
    return len(raw) <= room and not (in_root and is_reserved(raw))


def _name(sighting: Sighting) -> str:
    return sighting.name


def hash_files(root: Root, paths: Iterable[str], *, now_ms: Callable[[], int]) -> Iterator[Hashed]:
    """Yield the BLAKE3 of files and links, each read while it stood still.

    A file is read by 1 MiB; its stat results before and after must agree, and its name must still lead to it. A file that
    shrinks or grows meanwhile is ``changing``, and so is one that became something else.

    Args:
        root: Opened, its marker checked.
        paths: From the root.
        now_ms: The wall clock, to tell what was written just now.
    """
    buffer = memoryview(b"")
    for path in paths:
        buffer = buffer or memoryview(bytearray(BUFFER_BYTES))  # most scans find nothing to read
        directory, name = split(path)
        try:
            with opened(root.fs, root.handle, directory) as parent:
                hashed = _hash_one(root.fs, parent, path, name, buffer, now_ms)
        except OSError as error:
            hashed = Hashed(path, b"", _NOTHING, problem="gone" if is_gone(error) else "unreadable")
        yield hashed  # with nothing open: whoever has all that he asked for need not come back


def _hash_one(
    fs: FileSystem, parent: Handle, path: str, name: str, buffer: memoryview, now_ms: Callable[[], int]
) -> Hashed:
    first = fs.lstat(parent, name)
    kind = kind_of(first.mode)
    target = b""
    if kind is Kind.LINK:
        target = fs.read_link(parent, name)
        digest, before, after = hash_bytes(target), first, first
    elif kind is Kind.FILE:
        handle = fs.open_file(parent, name, Access.READ)
        try:
            before = fs.fstat(handle)
            if kind_of(before.mode) is not Kind.FILE:
                return Hashed(path, b"", fingerprint(before), problem="changing")
            digest = hash_open(fs, handle, before.size, buffer)
            after = fs.fstat(handle)
        finally:
            fs.close(handle)
    else:
        return Hashed(path, b"", fingerprint(first), problem="unreadable")
    last: Stat = fs.lstat(parent, name)
    if not before == after == last:
        return Hashed(path, b"", fingerprint(last), problem="changing")
    # A change time far in the future is of a clock that was wrong; it does not come again either.
    racy_ms = RACY_MS if last.ctime_ns % _SECOND_NS else RACY_MS + COARSE_MS
    settled = abs(now_ms() - last.ctime_ns // 1_000_000) > racy_ms
    return Hashed(path, digest, fingerprint(last), target, settled=settled)
