"""The trash is emptied with no scan as its cause, and a folder is not forgotten while something lies in it."""

from __future__ import annotations

import asyncio
import errno
import os
from types import SimpleNamespace
from typing import Any

import pytest
from blake3 import blake3

from peer import folder_commands
from peer.core.tree import Content
from peer.disk.files import LinuxFileSystem
from peer.disk.journal import Swap, SwapKind
from peer.disk.recovery import TRASH_SLICE, empty_trash
from peer.disk.roots import Root, RootGuard
from peer.disk.walk import fingerprint
from peer.engine.folder import FolderEngine
from peer.engine.journal import StoredJournal
from peer.engine.observer import TRASH_AGE_MS, TRASH_PAUSE_S_MAX, Observer
from peer.engine.room import Room
from peer.engine.tasks import to_its_end
from peer.store import folders
from peer.store.database import InlineDatabase
from peer.store.schema import SCHEMA
from peer.store.spool import FILE_BYTES, SpoolFiles, put_spooled
from protocol.entries import Kind
from protocol.errors import UserError
from protocol.grants import ChunkRef
from protocol.ids import ChunkId, FolderId
from protocol.messages import PinnedSegment

FOLDER = FolderId(b"f" * 32)


class Full(LinuxFileSystem):
    """A disk that takes no new name while it is full, and may not know who writes."""

    full = False
    knows = True

    def rename(self, parent, name, new_parent, new_name):
        if self.full:
            raise OSError(errno.ENOSPC, "no room for a name")
        super().rename(parent, name, new_parent, new_name)

    def has_writer(self, handle):
        return super().has_writer(handle) if self.knows else None


class Hand:
    """A clock that is set by hand."""

    s = 1_000.0

    def monotonic_s(self) -> float:
        return self.s

    def now_ms(self) -> int:
        return int(self.s * 1000)


class Here:
    async def run(self, function, /, *args):
        return function(*args)


class Calm:
    """A brake that never has to hold anything."""

    def __init__(self):
        self.disk = asyncio.Lock()

    async def look_at_offer(self):
        pass


class World:
    """One folder with a database, and a device that knows just enough to forget it."""

    def __init__(self, top) -> None:
        self.top = top
        top.mkdir()
        self.files, self.clock, self.database = Full(), Hand(), InlineDatabase(":memory:", SCHEMA)
        self.guard = RootGuard(self.files, str(top), FOLDER, (b"d" * 32).hex())
        self.guard.mark()
        self.journal = StoredJournal(self.database, 1)
        self.context = SimpleNamespace(
            database=self.database,
            processor=Here(),
            clock=self.clock,
            entropy=os.urandom,
            files=self.files,
            spool=SpoolFiles(LinuxFileSystem(), str(top.parent)),
        )
        self.observer = Observer(self.context, 1, self.guard, self.journal)  # type: ignore[arg-type]
        self.record = folders.FolderRecord(1, FOLDER, "f", os.fsencode(top), None)
        self.database.call(lambda db: folders.put_folder(db, self.record))
        self.started: list[folders.FolderRecord] = []

    def trash(self, name: str) -> Swap:
        """Put a file into the trash as a removal does."""
        id = os.urandom(16)
        path = self.top / ".kinfolder" / "trash" / id.hex()
        path.write_bytes(b"x")
        root = self.guard.open()
        assert isinstance(root, Root)
        with root:
            seen = fingerprint(self.files.lstat(root.hidden("trash"), id.hex()))
        swap = Swap(
            id, SwapKind.DELETE, name, Content(Kind.FILE, blake3(b"x").digest(), 1), self.clock.now_ms(), None, seen
        )
        self.journal.put([swap])
        return swap

    def lies(self, hidden: str = "trash") -> int:
        return len(list((self.top / ".kinfolder" / hidden).iterdir()))

    def tidy(self) -> None:
        asyncio.run(self.observer.tidy())

    async def stop_folder(self, key):
        pass

    async def start_folder(self, record):
        self.started.append(record)

    def remove(self) -> None:
        engine = SimpleNamespace(record=self.record)
        device = SimpleNamespace(
            engines={1: engine},
            context=self.context,
            record=SimpleNamespace(device=b"d" * 32),
            stop_folder=self.stop_folder,
            start_folder=self.start_folder,
        )
        asyncio.run(folder_commands.remove(device, "f", everywhere=False))  # type: ignore[arg-type]


@pytest.fixture
def world(tmp_path):
    return World(tmp_path / "f")


def test_the_trash_is_emptied_in_slices_once_it_is_old(world):
    """No scan is asked for, and nobody who waits for scans waits for this."""
    world.tidy()
    assert world.observer.trash_deadline is None
    for number in range(TRASH_SLICE + 5):
        world.trash(f"n{number}")
    asyncio.run(world.observer.observe())
    world.observer.expect_trash()
    due = world.clock.s + TRASH_AGE_MS / 1000
    assert world.observer.trash_deadline == due
    world.clock.s = due
    assert not world.observer.is_due(due)
    world.tidy()
    assert (world.lies(), world.observer.trash_deadline) == (5, due)
    world.tidy()
    assert (world.lies(), world.observer.trash_deadline) == (0, None)


def test_what_was_taken_under_a_clock_that_was_years_ahead_goes_like_all_else(world):
    world.clock.s += 1e8
    world.trash("n")
    world.clock.s -= 1e8
    world.observer.expect_trash()
    world.tidy()
    assert world.lies() == 1
    world.clock.s += TRASH_AGE_MS / 1000
    world.tidy()
    assert (world.lies(), world.observer.trash_deadline) == (0, None)


def test_a_folder_is_forgotten_with_what_was_taken_under_a_clock_that_was_ahead(world):
    world.clock.s += 1e8
    world.trash("n")
    world.clock.s -= 1e8
    world.remove()
    assert not (world.top / ".kinfolder").exists()


def test_what_a_program_has_open_waits_and_stands_in_no_other_way(world):
    held = [world.trash(f"h{number}") for number in range(3)]
    world.clock.s += 1
    for number in range(3):
        world.trash(f"n{number}")
    writers = [os.open(world.top / ".kinfolder" / "trash" / swap.name, os.O_WRONLY) for swap in held]
    world.clock.s += 20
    with world.guard.open() as root:
        first = empty_trash(root, world.journal, before_ms=world.clock.now_ms(), limit=3)
        assert (first.removed, first.left, first.stuck, first.more) == (0, 6, 3, True)
        second = empty_trash(root, world.journal, before_ms=world.clock.now_ms(), limit=4, skip=3)
        assert (second.removed, second.left, second.stuck, second.more) == (3, 3, 0, False)
    pauses = []
    for _ in range(10):
        world.tidy()
        pauses.append(world.observer.trash_deadline - world.clock.s)
        world.clock.s = world.observer.trash_deadline
    assert pauses == sorted(pauses)
    assert pauses[-1] == TRASH_PAUSE_S_MAX
    for writer in writers:
        os.close(writer)
    world.tidy()
    assert (world.lies(), world.observer.trash_deadline) == (0, None)


def test_a_process_that_ends_lets_go_only_of_what_surely_has_no_writer(world):
    held = world.trash("held")
    world.trash("free")
    writer = os.open(world.top / ".kinfolder" / "trash" / held.name, os.O_WRONLY)
    world.files.knows = False
    asyncio.run(world.observer.tidy_now())
    assert world.lies() == 2
    world.files.knows = True
    asyncio.run(world.observer.tidy_now())
    os.close(writer)
    assert [swap.path for swap in world.journal.rows()] == ["held"]


def test_the_loop_empties_the_trash_and_is_quiet_meanwhile(world):
    async def main() -> None:
        follower = SimpleNamespace(record=world.record)
        safety = Calm()
        uploader = SimpleNamespace(spool=SimpleNamespace())
        room = Room(world.context.processor, world.guard)
        parts: list[Any] = [world.context, follower, world.observer, *[None] * 4, uploader, None, safety, None, room]
        engine = FolderEngine(*parts)
        engine.outlook.online = False
        world.observer.has_looked, world.observer._full_wanted = True, False
        for part in ("pull", "push", "plan"):
            engine._block_part(part, UserError("not here"))
            engine.outlook.parts[part].until_s = 1e12
        world.trash("f")
        world.observer._trash_s = world.clock.s + 0.05
        task = asyncio.create_task(engine.run())
        async with asyncio.timeout(5):
            await engine.quiet()
            assert world.lies() == 1
            world.clock.s += 20
            while world.lies():  # noqa: ASYNC110 - the loop tells nobody
                await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(main())


def test_a_folder_is_forgotten_with_an_empty_trash(world):
    for number in range(TRASH_SLICE + 5):
        world.trash(f"n{number}")
    world.remove()
    assert not (world.top / ".kinfolder").exists()
    assert not list(world.journal.rows())


def test_a_folder_is_forgotten_with_its_part_of_the_spool(world, tmp_path):
    spool = world.context.spool
    for folder, data in ((1, [bytes(FILE_BYTES)]), (1, [b"of the folder"]), (2, [b"of another one"])):
        spots = spool.append(data)
        items = [(ChunkId(os.urandom(32)), PinnedSegment(ChunkRef(ChunkId(bytes(32)), 1), ()))]
        world.database.call(lambda db, f=folder, i=items, s=spots: put_spooled(db, f, i, s))
        spool.named(spots)
    world.remove()
    assert [file.name for file in (tmp_path / "spool").iterdir()] == ["2.spool"]


def test_a_folder_stays_while_a_users_bytes_cannot_go_back(world):
    swap = Swap(b"s" * 16, SwapKind.ASIDE, "kept", Content(Kind.FILE, size=8), 0)
    world.journal.put([swap])
    (world.top / ".kinfolder" / "aside" / swap.name).write_bytes(b"a user's")
    world.files.full = True
    with pytest.raises(UserError, match="kept could not be put back"):
        world.remove()
    assert list(world.journal.rows()) == [swap]
    assert world.started == [world.record]
    world.files.full = False
    world.remove()
    assert (world.top / "kept").read_bytes() == b"a user's"
    assert not (world.top / ".kinfolder").exists()


def test_a_folder_stays_while_a_program_writes_to_what_it_took(world):
    swap = world.trash("open")
    writer = os.open(world.top / ".kinfolder" / "trash" / swap.name, os.O_WRONLY)
    with pytest.raises(UserError, match="open was replaced or removed while a program has it open"):
        world.remove()
    os.close(writer)
    world.remove()
    assert not (world.top / ".kinfolder").exists()


def test_whoever_ends_work_in_a_thread_waits_for_its_end():
    async def main() -> None:
        told, ended = asyncio.Event(), asyncio.Event()

        async def work() -> None:
            await told.wait()
            await asyncio.sleep(0.01)
            ended.set()

        task = asyncio.create_task(to_its_end(work(), told.set))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert ended.is_set()

    asyncio.run(main())
