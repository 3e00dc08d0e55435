"""What every chunk store does, the one on a disk and the one in memory."""

import asyncio
import os
import random
import sqlite3
import time
from functools import partial
from typing import Any

import pytest

from protocol.errors import CorruptChunkError, FullError
from protocol.grants import ChunkRef
from simulations.disk import SimDisk
from simulations.disk_door import SimFiles
from simulations.user_files import UserFiles
from storage_node.chunks.memory import MemoryStore
from storage_node.chunks.packs import PackStore
from storage_node.doors import SystemDisk, ThreadProcessor, open_database
from tests.storage_node.conftest import FOLDER, OTHER_FOLDER, chunks_of, in_loop, refs_of

LIMIT = 4 << 20


class Here:
    """Runs at once what else a pool would run."""

    async def run(self, function, /, *args):
        return function(*args)

    def close(self):
        """Nothing runs."""


def open_packs(directory, **options):
    packs = directory / "packs"
    packs.mkdir(exist_ok=True)
    given: dict[str, Any] = {"disk": SystemDisk(), "entropy": os.urandom, "limit_bytes": LIMIT} | options
    given.setdefault("processor", ThreadProcessor())
    return PackStore(str(packs), open_database=partial(open_database, directory / "index.sqlite"), **given)


def spoil_in_packs(directory, body):
    """Change one byte of a chunk on the disk."""
    for path in sorted((directory / "packs").iterdir()):
        at = path.read_bytes().find(body)
        if at >= 0:
            with path.open("r+b") as file:
                file.seek(at + len(body) // 2)
                byte = file.read(1)
                file.seek(at + len(body) // 2)
                file.write(bytes([byte[0] ^ 1]))
            return
    raise AssertionError("the chunk is not there")


def open_simulated(disk, fs, databases, **options):
    """Open packs on a simulated disk, with an index in memory that is made again each time."""
    UserFiles(disk).make_directories("/packs")
    UserFiles(disk).sync("/")

    def database(anew):
        databases.append(sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False))
        return databases[-1]

    given: dict[str, Any] = {"entropy": os.urandom, "limit_bytes": LIMIT, "processor": Here()} | options
    return PackStore("/packs", disk=fs, open_database=database, **given)


def spoil_on(disk, body):
    user = UserFiles(disk)
    for name in user.list("/packs"):
        at = user.read(f"/packs/{name}").find(body)
        if at >= 0:
            user.write_at(f"/packs/{name}", bytes([body[len(body) // 2] ^ 1]), at + len(body) // 2)
            return
    raise AssertionError("the chunk is not there")


@pytest.fixture(params=["memory", "packs", "simulated packs"])
def kind(request, tmp_path):
    """How to open a store, and how to damage a chunk in it."""
    if request.param == "simulated packs":
        disk = SimDisk(random.Random(0), time.time_ns)

        class Simulated:
            def open(self):
                return open_simulated(disk, SimFiles(disk, new_file=0o600), [])

            def spoil(self, _, body):
                spoil_on(disk, body)

        return Simulated()

    class Kind:
        def open(self):
            self.store = MemoryStore(LIMIT) if request.param == "memory" else open_packs(tmp_path)
            return self.store

        def spoil(self, id, body):
            if request.param == "memory":
                self.store.chunks[id] = body[:-1] + bytes([body[-1] ^ 1])
            else:
                spoil_in_packs(tmp_path, body)

    return Kind()


@in_loop
async def test_what_is_put_is_there_in_the_order_asked(kind):
    store = kind.open()
    chunks = [*chunks_of(30, 700), *chunks_of(2, 400_000), *chunks_of(1, 0)]
    await store.put(FOLDER, chunks)
    ids = [id for id, _ in reversed(chunks)]
    assert await store.have(FOLDER, [b"?" * 32, *ids]) == refs_of(reversed(chunks))
    assert await store.get(FOLDER, [*ids, b"?" * 32]) == (*(body for _, body in reversed(chunks)), None)
    await store.close()


@in_loop
async def test_an_id_gives_nobody_a_chunk(kind):
    """S33: to another pseudonym a chunk is as unknown as one that was never put."""
    store = kind.open()
    ((id, _),) = chunks = chunks_of(1, 5000)
    await store.put(FOLDER, chunks)
    assert await store.have(OTHER_FOLDER, [id]) == ()
    assert await store.get(OTHER_FOLDER, [id]) == (None,)
    await store.put(OTHER_FOLDER, chunks_of(1, 5000, b"something else"))
    assert await store.get(OTHER_FOLDER, [id]) == (None,)
    await store.close()


@in_loop
async def test_bytes_make_a_reader_and_are_kept_once(kind):
    store = kind.open()
    ((id, body),) = chunks = chunks_of(1, 100_000)
    await store.put(FOLDER, chunks)
    before = (await store.stats()).stored_bytes
    await store.put(OTHER_FOLDER, chunks)
    await store.put(FOLDER, chunks * 3)
    assert (await store.stats()).stored_bytes - before < 1000
    assert await store.get(OTHER_FOLDER, [id]) == await store.get(FOLDER, [id]) == (body,)
    assert await store.iterate(None, 10) == (ChunkRef(id, len(body)),)
    await store.close()


@in_loop
async def test_one_wrong_hash_stores_nothing_of_the_batch(kind):
    store = kind.open()
    good = chunks_of(3, 900)
    for bad in ((good[0][0], good[1][1]), (good[0][0], good[0][1] + b"\0"), (b"", b"x")):
        with pytest.raises(CorruptChunkError):
            await store.put(FOLDER, [*good, bad])
    assert await store.have(FOLDER, [id for id, _ in good]) == ()
    assert await store.iterate(None, 10) == ()
    await store.close()


@in_loop
async def test_a_full_store_refuses_and_goes_on_reading(kind):
    store = kind.open()
    first, second = chunks_of(3, 1 << 20), chunks_of(3, 1 << 20, b"more")
    await store.put(FOLDER, first)
    with pytest.raises(FullError):
        await store.put(FOLDER, second)
    assert await store.have(FOLDER, [id for id, _ in second]) == ()
    assert await store.get(FOLDER, [id for id, _ in first]) == tuple(body for _, body in first)
    small = chunks_of(1, 5000, b"small")
    await store.put(FOLDER, small)
    await store.put(OTHER_FOLDER, first)
    assert await store.have(OTHER_FOLDER, [first[0][0]]) == refs_of(first[:1])
    assert (await store.stats()).stored_bytes <= LIMIT
    await store.close()


@in_loop
async def test_many_at_a_time_all_come_through(kind):
    store = kind.open()
    batches = [chunks_of(5, 300, bytes([i])) for i in range(60)]
    await asyncio.gather(*(store.put(FOLDER, [*batch, *batches[0]]) for batch in batches))
    for batch in batches:
        assert await store.get(FOLDER, [id for id, _ in batch]) == tuple(body for _, body in batch)
    await store.close()


@in_loop
async def test_a_removed_reader_reads_no_more(kind):
    store = kind.open()
    chunks = chunks_of(4, 2000)
    ids = [id for id, _ in chunks]
    await store.put(FOLDER, chunks)
    await store.put(OTHER_FOLDER, chunks[:2])
    await store.delete(FOLDER, ids[:3])
    assert await store.have(FOLDER, ids) == refs_of(chunks[3:])
    assert await store.have(OTHER_FOLDER, ids) == refs_of(chunks[:2])
    assert [c.id for c in await store.iterate(None, 10)] == sorted([ids[0], ids[1], ids[3]])
    await store.put(FOLDER, chunks[:1])
    assert await store.have(FOLDER, ids) == (ChunkRef(ids[0], 2000), ChunkRef(ids[3], 2000))
    await store.close()


@in_loop
async def test_it_pages_through_all_chunks_by_id(kind):
    store = kind.open()
    chunks = chunks_of(25, 100)
    await store.put(FOLDER, chunks)
    await store.put(OTHER_FOLDER, chunks)
    seen, after = [], None
    while page := await store.iterate(after, 7):
        seen += page
        after = page[-1].id
    assert seen == sorted(refs_of(chunks), key=lambda c: c.id)
    await store.close()


@in_loop
async def test_a_damaged_chunk_is_lost_told_and_healed(kind):
    """S31: bytes that are not what their id says never leave the store, whoever finds them."""
    store = kind.open()
    chunks = chunks_of(6, 3000)
    ids = [id for id, _ in chunks]
    await store.put(FOLDER, chunks)
    await store.put(OTHER_FOLDER, chunks)
    kind.spoil(*chunks[1])
    kind.spoil(*chunks[4])
    assert await store.get(FOLDER, ids[:3]) == (chunks[0][1], None, chunks[2][1])
    assert await store.lost() == (ids[1],)
    assert await store.verify(ids) == (ids[4],)
    assert set(await store.lost()) == {ids[1], ids[4]}
    assert await store.have(OTHER_FOLDER, ids) == tuple(c for c in refs_of(chunks) if c.id not in (ids[1], ids[4]))
    await store.put(FOLDER, chunks[1:2])
    assert await store.lost() == (ids[4],)
    assert await store.get(OTHER_FOLDER, ids[1:2]) == (chunks[1][1],)
    assert await store.verify(ids) == ()
    await store.close()


@in_loop
async def test_a_put_of_what_is_damaged_but_not_yet_noticed_heals_it(kind):
    store = kind.open()
    chunks = chunks_of(2, 3000)
    await store.put(FOLDER, chunks)
    kind.spoil(*chunks[0])
    await store.put(FOLDER, chunks)
    assert await store.get(FOLDER, [chunks[0][0]]) == (chunks[0][1],)
    assert await store.lost() == ()
    await store.close()
