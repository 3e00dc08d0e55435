"""Parts of chunks: few, small, not for long, and never in anybody's way."""

import os
import random
import stat
import time
from pathlib import Path

import pytest

from peer.disk.files import LinuxFileSystem
from peer.store import parts as module
from peer.store.parts import PART_AGE_MS_MAX, PART_BYTES_MIN, PARTS_MAX, Parts
from protocol import limits
from protocol.ids import ChunkId
from simulations.disk import SimDisk
from simulations.disk_door import SimFiles
from simulations.personalities import PERSONALITIES
from simulations.power import cut_power
from simulations.user_files import UserFiles

MINUTE_MS = 60_000
SIZE = PART_BYTES_MIN


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def id_of(number: int) -> ChunkId:
    return ChunkId(number.to_bytes(32, "big"))


@pytest.fixture
def parts(tmp_path):
    return Parts(LinuxFileSystem(), str(tmp_path), now_ms)


def make_old(directory: Path, number: int, age_ms: int) -> None:
    when_ns = (now_ms() - age_ms) * 1_000_000
    os.utime(directory / module.DIRECTORY / id_of(number).hex(), ns=(when_ns, when_ns))


def test_a_part_grows_and_is_taken_once(parts):
    assert parts.sizes() == {}
    parts.keep(id_of(1), 0, b"a" * SIZE)
    parts.keep(id_of(1), SIZE, b"b" * 10)
    assert parts.sizes() == {id_of(1): SIZE + 10}
    assert parts.take(id_of(1)) == b"a" * SIZE + b"b" * 10
    assert parts.take(id_of(1)) == b""
    assert parts.sizes() == {}


def test_only_what_follows_on_it_is_added(parts):
    parts.keep(id_of(1), 0, b"a" * SIZE)
    for offset in (SIZE - 1, SIZE + 1, 5 * SIZE):
        parts.keep(id_of(1), offset, b"b" * SIZE)
    parts.keep(id_of(2), SIZE, b"b" * SIZE)
    assert parts.sizes() == {id_of(1): SIZE}
    parts.keep(id_of(1), 0, b"c" * SIZE)
    assert parts.take(id_of(1)) == b"c" * SIZE


def test_sizes_are_bounded(parts):
    parts.keep(id_of(1), 0, bytes(PART_BYTES_MIN - 1))
    parts.keep(id_of(2), 0, bytes(limits.SEALED_CHUNK_BYTES_MAX + 1))
    parts.keep(id_of(3), limits.SEALED_CHUNK_BYTES_MAX, b"x")
    parts.keep(id_of(4), 0, b"")
    assert parts.sizes() == {}
    parts.keep(id_of(5), 0, bytes(limits.SEALED_CHUNK_BYTES_MAX))
    assert parts.sizes() == {id_of(5): limits.SEALED_CHUNK_BYTES_MAX}


def test_there_are_few_and_the_oldest_go(parts, tmp_path):
    for number in range(PARTS_MAX + 3):
        parts.keep(id_of(number), 0, bytes(SIZE))
        make_old(tmp_path, number, MINUTE_MS * (100 - number))
    assert set(parts.sizes()) == {id_of(number) for number in range(3, PARTS_MAX + 3)}


def test_what_nobody_asks_for_goes_whatever_the_clock_was(parts, tmp_path):
    ages = (
        0,
        PART_AGE_MS_MAX - MINUTE_MS,
        PART_AGE_MS_MAX + MINUTE_MS,
        MINUTE_MS - PART_AGE_MS_MAX,
        -2 * PART_AGE_MS_MAX,
    )
    for number in range(len(ages)):
        parts.keep(id_of(number), 0, bytes(SIZE))
    for number, age_ms in enumerate(ages):
        make_old(tmp_path, number, age_ms)
    assert set(parts.sizes()) == {id_of(0), id_of(1), id_of(3)}
    assert len(os.listdir(tmp_path / module.DIRECTORY)) == 3


def test_nobody_else_can_read_them_and_what_is_none_of_them_goes(parts, tmp_path):
    parts.keep(id_of(1), 0, bytes(SIZE))
    directory = tmp_path / module.DIRECTORY
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert stat.S_IMODE((directory / id_of(1).hex()).stat().st_mode) == 0o600
    outside = tmp_path / "outside"
    outside.write_bytes(b"precious" * SIZE)
    (directory / id_of(2).hex()).symlink_to(outside)
    for name in ("x", "A" * 64, "g" * 64, id_of(3).hex() + "0"):
        (directory / name).write_bytes(b"x")
    assert parts.take(id_of(2)) == b""
    parts.keep(id_of(2), 0, bytes(SIZE))
    assert set(parts.sizes()) == {id_of(1)}
    assert os.listdir(directory) == [id_of(1).hex()]
    assert outside.read_bytes() == b"precious" * SIZE


def test_a_disk_that_refuses_or_has_little_room_keeps_none(tmp_path, monkeypatch):
    (tmp_path / module.DIRECTORY).write_bytes(b"a file where the directory should be")
    parts = Parts(LinuxFileSystem(), str(tmp_path), now_ms)
    parts.keep(id_of(1), 0, bytes(SIZE))
    assert (parts.sizes(), parts.take(id_of(1))) == ({}, b"")
    (tmp_path / module.DIRECTORY).unlink()
    monkeypatch.setattr(module, "ROOM_BYTES_MIN", 1 << 62)
    parts.keep(id_of(1), 0, bytes(SIZE))
    assert parts.sizes() == {}


def test_a_power_cut_leaves_parts_that_may_be_joined_or_thrown_away():
    """What a part holds is compared with the chunk's id by whoever joins it; it must only never be in the way."""
    for seed in range(30):
        disk = SimDisk(random.Random(seed), time.time_ns, personality=PERSONALITIES["weak"])
        UserFiles(disk).make_directories("/home")
        files = SimFiles(disk)
        parts = Parts(files, "/home", now_ms)
        parts.keep(id_of(1), 0, b"a" * SIZE)
        parts.keep(id_of(1), SIZE, b"b" * SIZE)
        assert parts.sizes() == {id_of(1): 2 * SIZE}
        assert files.handles == 0
        files.kill()
        cut_power(disk, random.Random(seed))
        UserFiles(disk).make_directories("/home")
        parts = Parts(SimFiles(disk), "/home", now_ms)
        sizes = parts.sizes()
        assert len(parts.take(id_of(1))) == sizes.get(id_of(1), 0) <= 2 * SIZE
        parts.keep(id_of(1), 0, b"c" * SIZE)
        assert parts.take(id_of(1)) == b"c" * SIZE
