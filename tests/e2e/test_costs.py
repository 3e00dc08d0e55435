"""What a change costs, in bytes: counted on the wire, in the storage node's packs and in the coordinator's log.

Nothing here rests on the product's own counters: a meter stands before the storage node, the packs are read record by
record, and the entries are rows of the coordinator's database. With KIN_TEST_FULL=1 the sizes are those of the promise
(1 GiB, 10,000 files), else smaller ones of the same shape.
"""

from __future__ import annotations

import os
import random
import sqlite3
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from peer.engine import downloader, uploader
from peer.store.parts import PART_BYTES_MIN
from protocol import limits
from protocol.history import ItemKind
from simulations.processes import Cluster, Device, tree_of

FULL = os.environ.get("KIN_TEST_FULL") == "1"
LARGE_BYTES = 1024 * limits.MIB if FULL else 72 * limits.MIB
MANY_FILES = 10_000 if FULL else 600
CHUNKS_BYTES = 2 * limits.SEALED_CHUNK_BYTES_MAX + 2 * 80 * limits.KIB
"""Two chunks and two segments, each as large as they come."""
TALK_BYTES = 32 * limits.KIB
"""What requests and answers take beside the chunks: headers, grants, proofs, receipts."""
ENTRY_BYTES = 2 * limits.KIB
PACK_HEADER = 56
RECORD = struct.Struct(">4sB3xI32s16s16s")


class Cost(NamedTuple):
    """What came to be by one change."""

    chunks: list[int]
    """Sealed length of every new chunk on the storage node."""
    segments: list[int]
    entries: list[int]
    """Size of every new entry in the coordinator's log."""
    sent: int
    """Bytes on the wire to the storage node."""
    received: int


class Bench:
    """Two devices with one folder, one storage node, and a meter before it."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.meter = cluster.meters[0]
        self.one, self.two = cluster.root / "one", cluster.root / "two"
        self.a = cluster.first_device("laptop")
        self.a.add(self.one, "work")
        self.b = cluster.link_device(self.a, "desktop")
        self.b.get("work", self.two)

    def stored(self) -> dict[bytes, int]:
        """Return id and length of every chunk in the storage node's packs."""
        found: dict[bytes, int] = {}
        for pack in sorted((self.cluster.root / "node1" / "packs").glob("*.pack")):
            with open(pack, "rb") as file:
                file.seek(PACK_HEADER)
                while len(head := file.read(RECORD.size)) == RECORD.size:
                    magic, kind, length, id, _, _ = RECORD.unpack(head)
                    assert (magic, kind) == (b"KREC", 1)
                    found[id] = length
                    file.seek(length, os.SEEK_CUR)
        return found

    def ask(self, sql: str) -> list[tuple[object, ...]]:
        """Ask the coordinator's database."""
        database = sqlite3.connect(f"file:{self.cluster.root}/coordinator/coordinator.sqlite?mode=ro", uri=True)
        try:
            return database.execute(sql).fetchall()
        finally:
            database.close()

    def entries(self) -> list[int]:
        """Return the size of every entry in the log."""
        rows = self.ask(f"SELECT length(data) FROM log WHERE kind = {int(ItemKind.ENTRY)} ORDER BY position")
        return [int(str(row[0])) for row in rows]

    def settle(self) -> None:
        """Have both devices hold the same."""
        self.a.sync()
        self.b.sync()

    def cost(self, device: Device) -> Cost:
        """Sync one device and return what that came to."""
        before, entries = self.stored(), self.entries()
        sent, received = self.meter.to_server, self.meter.to_client
        device.sync()
        new = {id: length for id, length in self.stored().items() if id not in before}
        segments = {bytes(row[0]) for row in self.ask("SELECT segment FROM segments")}  # type: ignore[call-overload]
        return Cost(
            [length for id, length in new.items() if id not in segments],
            [length for id, length in new.items() if id in segments],
            self.entries()[len(entries) :],
            self.meter.to_server - sent,
            self.meter.to_client - received,
        )


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    root = tmp_path_factory.mktemp("costs") / "cluster"
    with Cluster(root, nodes=1, replicas=1, quorum=1, metered=True) as cluster:
        yield Bench(cluster)


def write(path: Path, size: int, seed: int) -> None:
    chance = random.Random(seed)
    with open(path, "wb") as file:
        file.writelines(chance.randbytes(min(limits.MIB, size - start)) for start in range(0, size, limits.MIB))


def insert_in_front(path: Path) -> None:
    shifted = path.with_name(path.name + ".new")
    with open(path, "rb") as old, open(shifted, "wb") as new:
        new.write(b"!")
        while piece := old.read(limits.MIB):
            new.write(piece)
    with open(shifted, "rb") as new, open(path, "r+b") as old:
        while piece := new.read(limits.MIB):
            old.write(piece)
    shifted.unlink()


def is_same_file(one: Path, two: Path) -> bool:
    with open(one, "rb") as left, open(two, "rb") as right:
        while True:
            a, b = left.read(limits.MIB), right.read(limits.MIB)
            if a != b:
                return False
            if not a:
                return True


def assert_few_chunks(cost: Cost, there: Cost) -> None:
    """At most two chunks and two segments went up, one small entry told of them, and no more came down."""
    assert 1 <= len(cost.chunks) <= 2, cost
    assert 1 <= len(cost.segments) <= 2, cost
    assert sum(cost.chunks) + sum(cost.segments) <= CHUNKS_BYTES
    assert cost.sent <= sum(cost.chunks) + sum(cost.segments) + TALK_BYTES
    assert len(cost.entries) == 1
    assert cost.entries[0] <= ENTRY_BYTES + LARGE_BYTES // (128 * limits.KIB), "a few segment keys"
    assert there.chunks == there.segments == there.entries == []
    # Whoever fetches needs every segment of the file that he did not write, but only the new chunks.
    assert there.received <= CHUNKS_BYTES + LARGE_BYTES // (4 * limits.KIB) + TALK_BYTES


def test_a_byte_in_front_or_a_kilobyte_in_the_middle_of_a_large_file_costs_two_chunks(bench: Bench) -> None:
    large, there = bench.one / "large.bin", bench.two / "large.bin"
    write(large, LARGE_BYTES, 1)
    bench.settle()
    insert_in_front(large)
    assert_few_chunks(bench.cost(bench.a), bench.cost(bench.b))
    assert is_same_file(large, there)
    with open(large, "r+b") as file:
        file.seek(LARGE_BYTES // 2)
        file.write(random.Random(2).randbytes(limits.KIB))
    assert_few_chunks(bench.cost(bench.a), bench.cost(bench.b))
    assert is_same_file(large, there)


def test_a_copy_and_a_new_time_stamp_send_nothing(bench: Bench) -> None:
    large = bench.one / "original.bin"
    write(large, LARGE_BYTES // 4, 3)
    bench.settle()
    copy = bench.one / "copy.bin"
    copy.write_bytes(large.read_bytes())
    cost = bench.cost(bench.a)
    assert (cost.chunks, cost.segments, cost.sent) == ([], [], 0)
    assert len(cost.entries) == 1
    assert cost.entries[0] <= ENTRY_BYTES + LARGE_BYTES // (128 * limits.KIB)
    os.utime(copy, ns=(1_000_000_000, 1_000_000_000))
    cost = bench.cost(bench.a)
    assert (cost.chunks, cost.segments, cost.sent, len(cost.entries)) == ([], [], 0, 1)
    there = bench.cost(bench.b)
    assert there.received <= LARGE_BYTES // (4 * limits.KIB) + 80 * limits.KIB + TALK_BYTES, (
        "the bytes are there already"
    )
    assert is_same_file(copy, bench.two / "copy.bin")
    assert (bench.two / "copy.bin").stat().st_mtime_ns == 1_000_000_000


def test_renaming_a_directory_of_many_files_is_one_small_entry(bench: Bench) -> None:
    for number in range(MANY_FILES):
        directory = bench.one / "before" / f"{number % 50}"
        directory.mkdir(parents=True, exist_ok=True)
        (directory / f"file {number}").write_bytes(b"%d\n" % number * (1 + number % 100))
    bench.settle()
    (bench.one / "before").rename(bench.one / "after")
    cost = bench.cost(bench.a)
    assert (cost.chunks, cost.segments, cost.sent) == ([], [], 0)
    assert len(cost.entries) == 1
    assert cost.entries[0] <= ENTRY_BYTES
    there = bench.cost(bench.b)
    assert (there.sent, there.received, there.entries) == (0, 0, [])
    assert not (bench.two / "before").exists()
    assert dict(tree_of(bench.one / "after")) == dict(tree_of(bench.two / "after"))
    # One of the many edited: its chunk and its segment, and an entry for it alone.
    (bench.one / "after" / "7" / "file 7").write_bytes(b"edited")
    cost = bench.cost(bench.a)
    assert (len(cost.chunks), len(cost.segments), len(cost.entries)) == (1, 1, 1)
    assert sum(cost.chunks) + sum(cost.segments) <= 8 * limits.KIB + 512
    assert cost.entries[0] <= ENTRY_BYTES


def cut_and_repeat(bench: Bench, device: Device, after: int) -> None:
    """Have a sync cut off on the wire, kill it, mend the wire and sync again."""
    bench.meter.cut_after(after)
    syncing = device.spawn("sync")
    try:
        deadline = time.monotonic() + 300
        while not bench.meter.is_cut:
            assert syncing.poll() is None, "it ended before the cut"
            assert time.monotonic() < deadline
            time.sleep(0.01)
    finally:
        syncing.kill()
        syncing.wait()
    bench.meter.mend()
    device.sync()


def test_a_transfer_that_is_cut_repeats_no_more_than_was_in_flight(bench: Bench) -> None:
    large, there = bench.one / "cut.bin", bench.two / "cut.bin"
    write(large, LARGE_BYTES, 4)
    sealed = int(LARGE_BYTES * 1.03)
    # A batch is as much as is read at once, and may end with one more chunk.
    up = uploader.BATCHES_AHEAD * (uploader.READ_BYTES + limits.SEALED_CHUNK_BYTES_MAX)
    down = downloader.BATCHES_AHEAD * (downloader.BATCH_BYTES + limits.SEALED_CHUNK_BYTES_MAX)
    begin = bench.meter.to_server
    cut_and_repeat(bench, bench.a, LARGE_BYTES * 3 // 4)
    assert bench.meter.to_server - begin <= sealed + up, "the upload began anew"
    begin = bench.meter.to_client
    cut_and_repeat(bench, bench.b, LARGE_BYTES * 3 // 4)
    assert bench.meter.to_client - begin <= sealed + down, "the download began anew"
    assert is_same_file(large, there)


def test_a_download_whose_connection_is_cut_repeats_nothing(bench: Bench) -> None:
    """Neither the chunks that had come nor the beginnings of those that were on their way: a pass that fails keeps them."""
    size = 10 * limits.MIB
    large, there = bench.one / "broken off.bin", bench.two / "broken off.bin"
    write(large, size, 5)
    before = bench.stored()
    bench.a.sync()
    sealed = sum(length for id, length in bench.stored().items() if id not in before)
    begin = bench.meter.to_client
    for _ in range(2):
        bench.meter.cut_after(3 * limits.MIB)
        bench.b.kin("sync", "--timeout", "1", check=False)
        assert bench.meter.is_cut
        assert not there.exists()
        bench.meter.mend()
    bench.b.sync()
    received = bench.meter.to_client - begin
    assert received <= sealed + TALK_BYTES + 3 * 2 * PART_BYTES_MIN, "what had come was fetched again"
    assert is_same_file(large, there)
    assert not any((bench.b.home / "parts").iterdir()), "no part stays behind"
