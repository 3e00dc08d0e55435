"""Room that comes back is noticed soon, by looks at the disk that are made only while something waits for room."""

from __future__ import annotations

import asyncio
from functools import partial
from random import Random

import pytest

from peer.disk.roots import RootGuard
from peer.doors import ThreadProcessor
from peer.engine.room import LOOK_S, Room
from peer.engine.waiting import DISK_FULL, Blocked
from protocol.ids import FolderId, NodeId
from protocol.limits import MIB
from simulations.disk import SimDisk
from simulations.disk_door import SimFiles
from simulations.user_files import UserFiles

ROOT = "/home/f"
FULL = {NodeId(b"n" * 16): Blocked(DISK_FULL, 60.0, 9)}
ELSE = {NodeId(b"n" * 16): Blocked("no_source", 60.0, 9)}


class Disk:
    """A folder on a simulated disk, with as much room as is said."""

    def __init__(self, processor: ThreadProcessor, free: int) -> None:
        self.disk = SimDisk(Random(1), lambda: 1)
        UserFiles(self.disk).make_directories(ROOT)
        guard = RootGuard(SimFiles(self.disk), ROOT, FolderId(bytes(32)))
        guard.mark()
        self.room = Room(processor, guard)
        self.now_s = 100.0
        self.leave(free)

    def leave(self, free: int) -> None:
        self.disk.capacity_bytes = self.disk.used_bytes + free

    def look(self, blocked=FULL) -> bool:
        self.now_s += LOOK_S
        return asyncio.run(self.room.has_grown(blocked, self.now_s))


@pytest.fixture
def disk_with():
    processor = ThreadProcessor(1)
    yield partial(Disk, processor)
    processor.close()


@pytest.mark.parametrize(
    ("free", "then", "is_news"),
    [
        pytest.param(0, 1, True, id="any room where there was none"),
        pytest.param(100, 150, False, id="a little more than a little"),
        pytest.param(100, 200, True, id="twice as much"),
        pytest.param(50 * MIB, 50 * MIB + 4096, False, id="what others write and remove"),
        pytest.param(50 * MIB, 51 * MIB, True, id="a mebibyte more"),
        pytest.param(50 * MIB, 0, False, id="less"),
    ],
)
def test_more_room_is_news_once(disk_with, free, then, is_news):
    disk = disk_with(free)
    assert not disk.look(), "this is how much there was when it was refused"
    disk.leave(then)
    assert disk.look() == is_news
    assert not disk.look()


def test_what_is_refused_again_needs_still_more(disk_with):
    disk = disk_with(0)
    disk.look()
    disk.leave(MIB)
    assert disk.look()
    disk.room.refused(DISK_FULL)
    assert not disk.look()
    disk.room.refused("no_source")
    disk.leave(3 * MIB)
    assert disk.look()


def test_the_disk_is_asked_only_when_it_is_due_and_something_waits_for_room(disk_with):
    disk = disk_with(0)
    disk.look()
    disk.leave(MIB)
    assert disk.room.moments(ELSE) == []
    assert not disk.look(ELSE)
    assert disk.room.moments(FULL) == [disk.now_s]
    assert not asyncio.run(disk.room.has_grown(FULL, disk.now_s - 0.1))
    assert asyncio.run(disk.room.has_grown(FULL, disk.now_s + LOOK_S))


def test_a_root_that_is_away_has_no_room(disk_with):
    disk = disk_with(0)
    disk.look()
    disk.leave(MIB)
    user = UserFiles(disk.disk)
    user.rename(ROOT, "/home/away")
    assert not disk.look()
    user.rename("/home/away", ROOT)
    assert disk.look()
