"""The spool's files and rows: nothing that a row names is lost, and what none names is given back."""

from __future__ import annotations

import errno
import os
import random
import threading
from pathlib import Path

import pytest

from peer.core.chunk_sealing import Row
from peer.disk.files import LinuxFileSystem
from peer.store.database import InlineDatabase
from peer.store.schema import SCHEMA
from peer.store.spool import (
    FILE_BYTES,
    SpoolFiles,
    Spot,
    drop_spooled,
    is_spooled,
    named_files,
    next_spooled,
    put_spooled,
    spooled_rows,
)
from protocol import limits
from protocol.effects import Handle
from protocol.errors import SpoolFullError, UnavailableError
from protocol.ids import ChunkId


def row(chance: random.Random) -> Row:
    return Row(ChunkId(chance.randbytes(32)), b"o" * 32, 4146, 10, chance.randbytes(32), 0, 0, None)


@pytest.fixture
def database() -> InlineDatabase:
    return InlineDatabase(":memory:", SCHEMA)


def keep(files: SpoolFiles, database: InlineDatabase, rows: list[Row], data: list[bytes]) -> None:
    spots = files.append(data)
    database.call(lambda db: put_spooled(db, 1, [(each.id, each) for each in rows], spots))
    files.named(spots)


def test_what_was_kept_is_read_back_after_a_restart_and_what_no_row_names_is_removed(
    tmp_path: Path, database: InlineDatabase
) -> None:
    chance = random.Random(1)
    rows, data = [row(chance) for _ in range(20)], [chance.randbytes(chance.randint(1, 9_000)) for _ in range(20)]
    files = SpoolFiles(LinuxFileSystem(), str(tmp_path))
    files.load(set())
    keep(files, database, rows, data)
    files.close()
    (tmp_path / "spool" / "77.spool").write_bytes(b"left by a crash")
    again = SpoolFiles(LinuxFileSystem(), str(tmp_path))
    again.load(database.call(named_files))
    assert [file.name for file in (tmp_path / "spool").iterdir()] == ["1.spool"]
    found = database.call(lambda db: next_spooled(db, 1, 0, size=1 << 30, count=100))
    assert [again.read(one.spot) for one in found] == data
    assert database.call(lambda db: spooled_rows(db, 1, [each.raw_hash for each in rows])) == {
        each.raw_hash: each for each in rows
    }
    keep(again, database, [row(chance)], [b"x"])  # never into a file of before
    assert {one.spot.file for one in database.call(lambda db: next_spooled(db, 1, 20, size=9, count=9))} == {78}


def test_a_disk_that_does_not_show_what_lies_there_is_told_in_one_line(tmp_path: Path) -> None:
    class Broken(LinuxFileSystem):
        def open_root(self, path: str) -> Handle:
            raise OSError(errno.ESTALE, "Stale file handle")

    with pytest.raises(UnavailableError, match=r"/spool cannot be read: Stale file handle: see what is wrong"):
        SpoolFiles(Broken(), str(tmp_path)).load(set())


def test_a_file_goes_with_its_last_row_unless_something_is_just_being_written_to_it(
    tmp_path: Path, database: InlineDatabase
) -> None:
    chance = random.Random(2)
    files = SpoolFiles(LinuxFileSystem(), str(tmp_path))
    files.load(set())
    first, second = row(chance), row(chance)
    keep(files, database, [first], [b"first"])
    spots = files.append([b"second"])  # its row is not there yet
    assert database.call(lambda db: files.retire(drop_spooled(db, 1, [1]))) == []
    database.call(lambda db: put_spooled(db, 1, [(second.id, second)], spots))
    files.named(spots)
    assert files.read(spots[0]) == b"second"
    going = database.call(lambda db: files.retire(drop_spooled(db, 1, [2])))
    files.drop(going)
    assert list((tmp_path / "spool").iterdir()) == []
    assert not database.call(lambda db: is_spooled(db, 1))


def test_room_is_a_share_of_the_free_disk_and_at_most_what_was_set(tmp_path: Path) -> None:
    files = SpoolFiles(LinuxFileSystem(), str(tmp_path), 1_000)
    files.load(set())
    assert files.reserve(1_000)
    assert not files.reserve(1)
    files.release(1_000)
    spots = files.append([bytes(400)])
    files.named(spots)
    assert not files.reserve(601)
    assert files.reserve(600)
    assert not SpoolFiles(LinuxFileSystem(), str(tmp_path)).reserve(limits.SPOOL_BYTES_MAX + 1)


def test_a_large_file_is_followed_by_another_one(tmp_path: Path) -> None:
    files = SpoolFiles(LinuxFileSystem(), str(tmp_path))
    files.load(set())
    assert files.append([bytes(FILE_BYTES)])[0].file == 1
    assert files.append([b"x"])[0].file == 2


def test_a_disk_that_takes_nothing_is_a_full_spool(tmp_path: Path) -> None:
    (tmp_path / "spool").write_bytes(b"")
    files = SpoolFiles(LinuxFileSystem(), str(tmp_path))
    with pytest.raises(SpoolFullError, match="spool"):
        files.append([b"x"])


def test_a_disk_that_is_full_half_way_gets_back_what_was_written_in_vain(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = SpoolFiles(LinuxFileSystem(), str(tmp_path))
    files.load(set())
    room = 1_000
    write = os.pwrite

    def pwrite(handle: int, data: bytes, offset: int) -> int:
        taken = min(len(data), room - offset)
        if taken <= 0:
            raise OSError(errno.ENOSPC, "full")
        return write(handle, data[:taken], offset)

    monkeypatch.setattr(os, "pwrite", pwrite)
    for _ in range(3):
        with pytest.raises(SpoolFullError):
            files.append([bytes(700), bytes(700)])
    assert list((tmp_path / "spool").iterdir()) == []
    spots = files.append([b"a" * 700])
    files.named(spots)
    with pytest.raises(SpoolFullError):
        files.append([bytes(700)])
    assert [file.stat().st_size for file in (tmp_path / "spool").iterdir()] == [700]
    assert files.read(spots[0]) == b"a" * 700


def test_nobody_waits_for_the_disk_but_who_writes_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The event loop gives room back and tells of rows meanwhile; the file that is written to stays."""
    files = SpoolFiles(LinuxFileSystem(), str(tmp_path))
    files.load(set())
    files.named(files.append([b"first"]))
    is_syncing, may_end = threading.Event(), threading.Event()

    def fsync(handle: int) -> None:
        is_syncing.set()
        assert may_end.wait(10)

    monkeypatch.setattr(os, "fsync", fsync)
    found: list[Spot] = []
    writer = threading.Thread(target=lambda: found.extend(files.append([b"second"])))
    writer.start()
    assert is_syncing.wait(10)
    going: list[list[int]] = []

    def meanwhile() -> None:
        files.release(0)
        going.append(files.retire([1]))

    others = threading.Thread(target=meanwhile, daemon=True)
    others.start()
    others.join(5)
    were_held_up = others.is_alive()
    may_end.set()
    writer.join()
    assert not were_held_up
    assert going == [[]]
    assert files.read(found[0]) == b"second"
