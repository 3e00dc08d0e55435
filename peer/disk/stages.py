"""Files on their way in: written in ``.kinfolder/tmp``, verified there, and only then given a user's name.

A stage's name is made of its content's hash and its item's id, so a restart finds a half-received file again. What it
holds is not recorded but read back: :meth:`Stage.holds` checks a range against its hash, which also stands a power cut.

Rule 1: nothing here is visible under a user's name, whatever fails.
Rule 2: a stage is finished only with the size and the hash that its item promises.
Rule 3: zeros are not written but left as holes, so a sparse file stays sparse.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Final, NamedTuple, Self

from blake3 import blake3

from peer.core.observations import Fingerprint
from peer.core.tree import Item
from peer.disk.roots import Root
from peer.disk.walk import BUFFER_BYTES, DiskFullError, disk_error, fingerprint, hash_open, kind_of
from protocol.effects import Access, FileSystem, Handle
from protocol.entries import Kind
from protocol.errors import CorruptChunkError

_BLOCK: Final = bytes(64 * 1024)
_HASH_CHARS: Final = 32


class Staged(NamedTuple):
    """A finished stage: the bytes and attributes of an item, complete and verified, without a user's name yet."""

    name: str
    """In ``.kinfolder/tmp``."""
    fingerprint: Fingerprint
    hash: bytes


def stage_name(item: Item) -> str:
    """Return the name of an item's stage in ``.kinfolder/tmp``."""
    return f"{item.content.hash.hex()[:_HASH_CHARS]}-{item.id.hex()}"


def mode_for(old: int, *, executable: bool) -> int:
    """Return the permission bits of a file: those it has, executable or not; never setuid, setgid or sticky.

    Where a file becomes executable, whoever may read it may run it.
    """
    if not executable:
        return old & 0o666
    if old & 0o100:
        return old & 0o777
    return (old & 0o666) | ((old & 0o444) >> 2) | 0o100


class Stage:
    """A file being received. Ranges may come in any order and from any thread, one call at a time."""

    def __init__(self, root: Root, item: Item) -> None:
        """Open the item's stage, new or half-received.

        Raises:
            DiskFullError: The file system has less room than the file still needs.
            DiskError: ``.kinfolder/tmp`` cannot be written.
        """
        self.name = stage_name(item)
        self.size = item.content.size
        self.resumed = False
        """Whether bytes may be there already; ask :meth:`holds` before fetching."""
        self._item = item
        self._fs: FileSystem = root.fs
        self._hash: bytes | None = None
        tmp = root.hidden("tmp")
        try:
            self._handle = self._open(tmp)
            try:
                found = self._fs.fstat(self._handle)
                self._make_room(found.size)
            except BaseException:
                self._fs.close(self._handle)
                raise
        except OSError as error:
            raise disk_error(error, writing=True) from error

    def _open(self, tmp: Handle) -> Handle:
        try:
            return self._fs.open_file(tmp, self.name, Access.CREATE)
        except FileExistsError:
            self.resumed = True
            return self._fs.open_file(tmp, self.name, Access.WRITE)

    def _make_room(self, there: int) -> None:
        """Give it its size; what it still lacks needs room then, too, since all of it is a hole at first."""
        missing = self.size - (self._fs.held_bytes(self._handle) if there else 0)
        if missing > 0 and missing > self._fs.free_bytes(self._handle):
            raise DiskFullError(f"no room for a file of {self.size} bytes")
        if there != self.size:
            self._fs.truncate(self._handle, self.size)

    def write(self, offset: int, data: bytes) -> None:
        """Write verified bytes at a position.

        Raises:
            DiskFullError: There is no room; the stage keeps what it has.
            DiskError: The disk refuses.
        """
        if offset < 0 or offset + len(data) > self.size:
            raise CorruptChunkError("bytes beyond the end of their file")
        self._hash = blake3(data).digest() if len(data) == self.size else None
        try:
            for start, end in _runs(data, everything=self.resumed):
                self._fs.write(self._handle, memoryview(data)[start:end], offset + start)
        except OSError as error:
            raise disk_error(error, writing=True) from error

    def holds(self, offset: int, length: int, hash: bytes) -> bool:
        """Tell whether a range is there already, by reading it back and comparing its BLAKE3."""
        if not self.resumed or offset + length > self.size:
            return False
        buffer = memoryview(bytearray(min(BUFFER_BYTES, length)))
        hasher = blake3()
        done = 0
        try:
            while done < length:
                count = self._fs.read(self._handle, buffer[: length - done], offset + done)
                if count == 0:
                    return False
                hasher.update(buffer[:count])
                done += count
        except OSError as error:
            raise disk_error(error, writing=False) from error
        return hasher.digest() == hash

    def finish(self, *, verified: bool = False) -> Staged:
        """Check the whole, set time and mode, close, and return what the applier takes.

        Args:
            verified: Every byte was checked as it was written or read back; else the file is read once more.

        Raises:
            CorruptChunkError: The bytes are not those that the item promises; the stage is emptied.
            DiskError: The disk refuses.
        """
        content = self._item.content
        try:
            if self._hash is None and not verified:
                self._hash = hash_open(self._fs, self._handle, self.size)
            if self._hash is not None and self._hash != content.hash:
                self._fs.truncate(self._handle, 0)
                self._fs.truncate(self._handle, self.size)
                self._hash = None
                raise CorruptChunkError("a received file is not what its entry says")
            mode = self._fs.fstat(self._handle).mode & 0o777
            wanted = mode_for(mode, executable=content.executable)
            self._fs.set_attributes(self._handle, mtime_ns=content.mtime_ns, mode=wanted if wanted != mode else None)
            staged = Staged(self.name, fingerprint(self._fs.fstat(self._handle)), content.hash)
        except OSError as error:
            raise disk_error(error, writing=True) from error
        self.close()
        return staged

    def close(self) -> None:
        """Close the file and keep what it holds; a second call does nothing."""
        if self._handle >= 0:
            self._fs.close(self._handle)
            self._handle = Handle(-1)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _runs(data: bytes, *, everything: bool) -> Iterator[tuple[int, int]]:
    """Yield the parts that are not blocks of zeros; a resumed stage may hold other bytes there, so it gets all."""
    if everything:
        yield 0, len(data)
        return
    start = 0
    at = 0
    while at < len(data):
        end = min(at + len(_BLOCK), len(data))
        if end - at == len(_BLOCK) and data.startswith(_BLOCK, at):
            if at > start:
                yield start, at
            start = end
        at = end
    if start < len(data):
        yield start, len(data)


def stage_bytes(root: Root, item: Item, data: bytes) -> Staged:
    """Stage a small file whose bytes are all at hand.

    Raises:
        CorruptChunkError: They are not what the item promises.
        DiskError: The disk refuses.
    """
    with Stage(root, item) as stage:
        if len(data) != stage.size:
            raise CorruptChunkError("a received file is not as long as its entry says")
        stage.write(0, data)
        return stage.finish()


def clean_stages(root: Root, *, is_wanted: Callable[[str], bool], kept_ms: range) -> int:
    """Remove stages that nothing waits for any more, and return how many.

    Args:
        root: Opened, its marker checked.
        is_wanted: By the stage's name (:func:`stage_name`).
        kept_ms: What changed in this time (wall clock) stays, so that a plan made anew after a restart finds it. What seems to
            have changed long after now has been there since the clock was wrong.

    Raises:
        DiskError: The disk refuses.
    """
    tmp = root.hidden("tmp")
    removed = 0
    try:
        for name, found in list(root.fs.list(tmp)):
            if found is None or found.ctime_ns // 1_000_000 in kept_ms or is_wanted(name):
                continue
            if kind_of(found.mode) is Kind.DIRECTORY:  # one that was to take a file's place
                root.fs.remove_directory(tmp, name)
            else:
                root.fs.unlink(tmp, name)
            removed += 1
    except OSError as error:
        raise disk_error(error, writing=True) from error
    return removed
