"""A store on a disk that crashes, tears, rots and fills up."""

import asyncio
import errno
import os
import struct
import subprocess

import pytest
from blake3 import blake3
from structlog.testing import capture_logs

from protocol.errors import CorruptStateError, FullError, UnavailableError
from storage_node.chunks import pack_files
from storage_node.chunks.records import RECORD_HEADER_BYTES, Kind, Record, encode_record
from storage_node.doors import SystemDisk
from tests.storage_node.conftest import FOLDER, OTHER_FOLDER, chunks_of, in_loop, refs_of
from tests.storage_node.test_chunk_store import open_packs, spoil_in_packs

BIG = {"limit_bytes": 1 << 30}


def newest(directory):
    return max((directory / "packs").iterdir())


def pack_of(directory, chunks):
    return next(path for path in (directory / "packs").iterdir() if chunks[0][1] in path.read_bytes())


def drop_index(directory):
    for path in directory.glob("index.sqlite*"):
        path.unlink()


async def filled(directory, *batches, pseudonym=FOLDER, **options):
    store = open_packs(directory, **BIG, **options)
    for batch in batches:
        await store.put(pseudonym, batch)
    await store.close()


async def all_there(store, chunks, pseudonym=FOLDER):
    return await store.get(pseudonym, [id for id, _ in chunks]) == tuple(body for _, body in chunks)


@in_loop
async def test_the_packs_alone_make_the_index_again(tmp_path):
    chunks = [*chunks_of(300, 900), *chunks_of(9, 500_000)]
    await filled(tmp_path, chunks[:200], chunks[200:], pack_bytes_max=1 << 20)
    store = open_packs(tmp_path, **BIG)
    await store.put(OTHER_FOLDER, chunks[:10])
    await store.delete(FOLDER, [chunks[5][0]])
    await store.close()
    drop_index(tmp_path)
    with capture_logs() as lines:
        store = open_packs(tmp_path, **BIG)
    assert any(line["event"] == "the index is made again from the packs" for line in lines)
    assert await all_there(store, chunks[:10], OTHER_FOLDER)
    assert await store.have(OTHER_FOLDER, [chunks[11][0]]) == ()
    kept = chunks[:5] + chunks[6:]
    assert await all_there(store, kept)
    assert await store.have(FOLDER, [chunks[5][0]]) == ()
    assert await store.lost() == ()
    await store.close()


@pytest.mark.parametrize("damage", ["garbage", "empty", "cut", "pages"])
@in_loop
async def test_a_damaged_index_is_made_again(tmp_path, damage):
    chunks = chunks_of(500, 600)
    await filled(tmp_path, chunks)
    path = tmp_path / "index.sqlite"
    data = path.read_bytes()
    path.write_bytes(
        {
            "garbage": b"this is no database" * 1000,
            "empty": b"",
            "cut": data[: len(data) // 2],
            "pages": data[:4096] + os.urandom(len(data) - 4096),
        }[damage]
    )
    store = open_packs(tmp_path, **BIG)
    assert await all_there(store, chunks)
    assert await all_there(store, chunks[::7])
    await store.put(OTHER_FOLDER, chunks)
    assert await all_there(store, chunks, OTHER_FOLDER)
    await store.close()


@pytest.mark.parametrize("cut", [1, 40, RECORD_HEADER_BYTES + 10, RECORD_HEADER_BYTES + 2999])
@pytest.mark.parametrize("without_index", [False, True])
@in_loop
async def test_a_torn_end_is_cut_off_and_written_over(tmp_path, cut, without_index):
    """A power cut leaves a record without its end: it was never acknowledged, and it is in nobody's way."""
    chunks = chunks_of(5, 3000)
    await filled(tmp_path, chunks[:4])
    whole = newest(tmp_path).stat().st_size
    await filled(tmp_path, chunks[4:])
    os.truncate(newest(tmp_path), whole + cut)
    # The index may be of any age, since it is not synced: take the one that knows of four.
    drop_index(tmp_path)
    if not without_index:
        size = newest(tmp_path).stat().st_size
        os.truncate(newest(tmp_path), whole)
        await filled(tmp_path)
        os.truncate(newest(tmp_path), size)
        os.truncate(newest(tmp_path), whole + cut)
    store = open_packs(tmp_path, **BIG)
    assert newest(tmp_path).stat().st_size == whole
    assert await all_there(store, chunks[:4])
    assert await store.have(FOLDER, [chunks[4][0]]) == ()
    assert await store.lost() == ()
    await store.put(FOLDER, chunks[4:])
    await store.close()
    drop_index(tmp_path)
    store = open_packs(tmp_path, **BIG)
    assert await all_there(store, chunks)
    await store.close()


@in_loop
async def test_zeros_where_a_record_was_hide_no_later_one(tmp_path):
    """Blocks reach a disk in any order: a hole in the middle may be followed by whole records."""
    chunks = chunks_of(6, 3000)
    await filled(tmp_path, chunks)
    path = newest(tmp_path)
    data = bytearray(path.read_bytes())
    at = data.find(chunks[2][1]) - RECORD_HEADER_BYTES
    data[at : at + RECORD_HEADER_BYTES + 1000] = bytes(RECORD_HEADER_BYTES + 1000)
    path.write_bytes(data)
    drop_index(tmp_path)
    store = open_packs(tmp_path, **BIG)
    assert await all_there(store, chunks[:2] + chunks[3:])
    assert await store.have(FOLDER, [chunks[2][0]]) == ()
    await store.close()


@pytest.mark.parametrize("without_index", [False, True])
@in_loop
async def test_a_rotten_record_costs_its_own_chunk_only(tmp_path, without_index):
    chunks = chunks_of(20, 3000)
    await filled(tmp_path, chunks)
    spoil_in_packs(tmp_path, chunks[7][1])
    if without_index:
        drop_index(tmp_path)
    store = open_packs(tmp_path, **BIG)
    assert await store.get(FOLDER, [chunks[7][0]]) == (None,)
    assert await store.lost() == (chunks[7][0],)
    assert await all_there(store, chunks[:7] + chunks[8:])
    await store.put(FOLDER, chunks[7:8])
    await store.close()
    store = open_packs(tmp_path, **BIG)
    assert await store.lost() == ()
    assert await all_there(store, chunks)
    await store.close()


@in_loop
async def test_a_second_copy_outweighs_the_first_when_the_index_is_made_again(tmp_path):
    chunks = chunks_of(3, 3000)
    await filled(tmp_path, chunks, pack_bytes_max=1)
    await filled(tmp_path, chunks, pseudonym=OTHER_FOLDER)
    spoil_in_packs(tmp_path, chunks[1][1])
    await filled(tmp_path, chunks)
    drop_index(tmp_path)
    store = open_packs(tmp_path, **BIG)
    assert await all_there(store, chunks)
    assert await all_there(store, chunks, OTHER_FOLDER)
    assert await store.lost() == ()
    await store.close()


@in_loop
async def test_a_missing_or_shorter_pack_is_a_loss_and_no_crash(tmp_path):
    batches = [chunks_of(3, 3000, bytes([i])) for i in range(4)]
    await filled(tmp_path, *batches, pack_bytes_max=1)
    pack_of(tmp_path, batches[1]).unlink()
    shorter = pack_of(tmp_path, batches[2])
    os.truncate(shorter, shorter.stat().st_size - 10)
    store = open_packs(tmp_path, **BIG)
    assert set(await store.lost()) == {id for id, _ in batches[1]}
    assert await store.verify([id for id, _ in batches[2]]) == (batches[2][2][0],)
    assert await all_there(store, batches[0] + batches[2][:2] + batches[3])
    await store.put(FOLDER, batches[1])
    assert await all_there(store, batches[1])
    await store.close()


@in_loop
async def test_a_damaged_pack_header_costs_nothing(tmp_path):
    chunks = chunks_of(5, 3000)
    await filled(tmp_path, chunks)
    for path in sorted((tmp_path / "packs").iterdir())[1:]:
        with path.open("r+b") as file:
            file.write(bytes(30))
    drop_index(tmp_path)
    store = open_packs(tmp_path, **BIG)
    assert await all_there(store, chunks)
    await store.put(FOLDER, chunks_of(1, 10))
    await store.close()
    for path in sorted((tmp_path / "packs").iterdir()):
        with path.open("r+b") as file:
            file.write(bytes(30))
    with pytest.raises(CorruptStateError):
        open_packs(tmp_path, **BIG)


@in_loop
async def test_a_record_inside_a_chunk_is_never_believed(tmp_path):
    """An author who writes records into a chunk must not become the reader of another's when a scan loses its way."""
    victim = chunks_of(1, 3000)
    await filled(tmp_path, victim, pseudonym=OTHER_FOLDER)
    forged = encode_record(Record(Kind.READER, victim[0][0], FOLDER, 0, 0), pack=1, secret=bytes(32))
    body = b"KREC" * 10 + forged * 50 + struct.pack(">4sB3xI", b"KREC", 1, 0xFFFFFFFF) * 20
    await filled(tmp_path, [(blake3(body).digest(), body)])
    path = newest(tmp_path)
    data = bytearray(path.read_bytes())
    at = data.find(body) - RECORD_HEADER_BYTES
    data[at : at + 8] = bytes(8)
    path.write_bytes(data)
    drop_index(tmp_path)
    store = open_packs(tmp_path, **BIG)
    assert await store.have(FOLDER, [victim[0][0]]) == ()
    assert await all_there(store, victim, OTHER_FOLDER)
    await store.close()


@in_loop
async def test_reading_many_packs_keeps_few_files_open(tmp_path, monkeypatch):
    monkeypatch.setattr(pack_files, "OPEN_PACKS_MAX", 4)
    batches = [chunks_of(1, 500, bytes([i])) for i in range(30)]
    store = open_packs(tmp_path, **BIG, pack_bytes_max=1)
    for batch in batches:
        await store.put(FOLDER, batch)
    before = len(os.listdir("/proc/self/fd"))
    await asyncio.gather(*(store.get(FOLDER, [id for id, _ in batch]) for batch in batches for _ in range(3)))
    assert len(os.listdir("/proc/self/fd")) - before <= 4 + 4
    assert await all_there(store, [chunk for batch in batches for chunk in batch])
    await store.close()


class CountingDisk(SystemDisk):
    """The real disk, with a count of its fsyncs and, when asked, with faults."""

    def __init__(self):
        self.syncs = 0
        self.fault = None

    def sync(self, handle):
        self.syncs += 1
        if self.fault is not None:
            raise OSError(self.fault, os.strerror(self.fault))
        super().sync(handle)


@in_loop
async def test_puts_at_the_same_time_share_an_fsync(tmp_path):
    disk = CountingDisk()
    store = open_packs(tmp_path, **BIG, disk=disk)
    disk.syncs = 0
    await asyncio.gather(*(store.put(FOLDER, chunks_of(1, 100, bytes([i]))) for i in range(100)))
    assert disk.syncs < 30
    await store.close()


@pytest.mark.parametrize(("fault", "kind"), [(errno.EIO, UnavailableError), (errno.ENOSPC, FullError)])
@in_loop
async def test_a_failed_fsync_acknowledges_nothing_and_harms_nothing(tmp_path, fault, kind):
    disk = CountingDisk()
    store = open_packs(tmp_path, **BIG, disk=disk)
    first, second, third = (chunks_of(3, 2000, bytes([i])) for i in range(3))
    await store.put(FOLDER, first)
    disk.fault = fault
    with pytest.raises(kind) as caught:
        await store.put(FOLDER, second)
    assert type(caught.value) is kind
    assert await store.have(FOLDER, [second[0][0]]) == ()
    assert await all_there(store, first)
    disk.fault = None
    await store.put(FOLDER, third)
    await store.close()
    drop_index(tmp_path)
    store = open_packs(tmp_path, **BIG)
    assert await all_there(store, first + third)
    await store.close()


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 8 MiB."""
    path = tmp_path / "disk"
    path.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", path], check=False, capture_output=True
    ).returncode:
        pytest.skip("only root can mount a small disk")
    yield path
    subprocess.run(["umount", path], check=True)


@pytest.mark.parametrize("size", [700, 300_000])
@in_loop
async def test_a_full_disk_refuses_loses_nothing_and_is_read(small_disk, size):
    store = open_packs(small_disk, limit_bytes=None)
    kept, refused = [], []
    for i in range(600):
        batch = chunks_of(max(1, 60_000 // size), size, i.to_bytes(2, "big"))
        try:
            await store.put(FOLDER, batch)
            kept += batch
        except FullError:
            refused += batch
    assert len(kept) * size > 3 << 20
    assert refused
    assert await store.have(FOLDER, [id for id, _ in refused]) == ()
    for begin in range(0, len(kept), 500):
        assert await all_there(store, kept[begin : begin + 500])
    await store.close()
    store = open_packs(small_disk, limit_bytes=None)
    assert await store.have(FOLDER, [id for id, _ in kept]) == refs_of(kept)
    await store.close()


@in_loop
async def test_a_disk_that_others_fill_to_the_last_byte_refuses_and_is_read(small_disk):
    """Nothing here may count on the room that was free a moment ago."""
    store = open_packs(small_disk, limit_bytes=None)
    first = chunks_of(20, 20_000)
    await store.put(FOLDER, first)
    others = os.open(small_disk / "others", os.O_CREAT | os.O_WRONLY)
    with pytest.raises(OSError, match="space"):
        while True:
            os.write(others, bytes(4096))
    os.close(others)
    with pytest.raises(FullError):
        await store.put(FOLDER, chunks_of(3, 50_000, b"x"))
    assert await all_there(store, first)
    (small_disk / "others").unlink()
    second = chunks_of(3, 50_000, b"y")
    await store.put(FOLDER, second)
    await store.close()
    store = open_packs(small_disk, limit_bytes=None)
    assert await all_there(store, first + second)
    await store.close()
