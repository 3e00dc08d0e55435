"""The coordinator's database: one suite for the threaded, the inline and the simulated door, and its migrations."""

from __future__ import annotations

import asyncio
import contextlib
import os
from pathlib import Path

import pytest
from alembic import command as alembic_command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy import Connection

import coordinator.store.migrate as migrations
from coordinator.store.chunks import pack_numbers, unpack_numbers
from coordinator.store.database import (
    Database,
    InlineDatabase,
    ThreadedDatabase,
    connect,
    create_private,
)
from coordinator.store.folders import Head
from coordinator.store.migrate import migrate
from coordinator.store.nodes import StorageNode
from coordinator.store.schema import metadata
from protocol.chains import NO_LINK, Role
from protocol.errors import ProtocolError, UserError
from protocol.history import CHAIN_START, ItemKind
from protocol.ids import AccountId, ChunkId, DeviceId, FolderId, Pseudonym, StorageNodeId
from simulations.databases import SimCoordinatorDatabase
from simulations.loop import SimLoop
from tests.builders import chunk, segment
from tests.protocol.chain_world import TestAccount, fixed

FOLDER = FolderId(fixed("folder"))
PSEUDONYM = Pseudonym(fixed("pseudonym", 16))


def new_head() -> Head:
    return Head(FOLDER, PSEUDONYM, 0, 0, CHAIN_START, 0, -1, NO_LINK, 0, 0)


@pytest.fixture(params=["threaded", "inline", "simulated"])
def check(request, tmp_path):
    """Run an asynchronous check on a new database of each kind."""
    path = str(tmp_path / "database")
    create_private(path)
    with contextlib.closing(connect(path)) as connection:
        migrate(connection)

    def run(test):
        simulated = None
        if request.param == "simulated":
            simulated = SimLoop(1)

        async def main():
            database: Database
            if simulated is not None:
                database = SimCoordinatorDatabase(simulated, simulated.host("coordinator"))
            elif request.param == "threaded":
                database = ThreadedDatabase(path)
            else:
                database = InlineDatabase(connect(path))
            try:
                async with asyncio.timeout(20):
                    await test(database)
            finally:
                await database.close()

        if simulated is not None:
            simulated.run(main())
        else:
            asyncio.run(main())

    return run


def test_what_was_written_can_be_read(check):
    async def test(database):
        await database.write(lambda r: r.settings.put("key", "value"))
        await database.write(lambda r: r.settings.put("key", "other"))
        assert await database.read(lambda r: r.settings.get("key")) == "other"
        assert await database.read(lambda r: r.settings.get("none")) is None

    check(test)


def test_an_operation_that_raises_leaves_nothing_and_harms_no_other(check):
    def fails(repository):
        repository.settings.put("bad", "x")
        raise UserError("no")

    def breaks(repository):
        repository.settings.put("bad", "x")
        raise ZeroDivisionError

    async def test(database):
        jobs = [database.write(lambda r, i=i: r.settings.put(f"good{i}", "x")) for i in range(40)]
        jobs[10:10] = [database.write(fails), database.write(breaks)]
        results = await asyncio.gather(*jobs, return_exceptions=True)
        assert [type(r) for r in results[10:12]] == [UserError, ZeroDivisionError]
        assert all(r is None for i, r in enumerate(results) if i not in (10, 11))
        assert await database.read(lambda r: r.settings.get("bad")) is None
        assert await database.read(lambda r: r.settings.get("good39")) == "x"

    check(test)


def test_operations_are_done_in_the_order_in_which_they_were_asked(check):
    async def test(database):
        await asyncio.gather(*(database.write(lambda r, i=i: r.settings.put("last", str(i))) for i in range(100)))
        assert await database.read(lambda r: r.settings.get("last")) == "99"

    check(test)


def test_tokens_are_kept_as_hashes_and_counted(check):
    async def test(database):
        await database.write(lambda r: r.settings.add_token("secret", "user", "", 2, 0))
        await database.write(lambda r: r.settings.use_token("secret"))
        assert (await database.read(lambda r: r.settings.token("secret"))).uses_left == 1
        assert await database.read(lambda r: r.settings.token("Secret")) is None

    check(test)


def test_accounts_and_their_names(check):
    alice = TestAccount("alice")
    alice.add("phone")

    async def test(database):
        await database.write(lambda r: r.accounts.create(alice.id, "Ålice", alice.links[0]))
        await database.write(lambda r: r.accounts.append(alice.id, 1, alice.links[1]))
        row = await database.read(lambda r: r.accounts.find_user("åLICE"))
        assert row is not None
        assert (row.account, row.user, row.seq, row.head) == (alice.id, "Ålice", 1, alice.state.head)
        assert await database.read(lambda r: r.accounts.links(alice.id, -1, 10)) == alice.links
        assert await database.read(lambda r: r.accounts.links(alice.id, 0, 10)) == alice.links[1:]
        await database.write(lambda r: r.accounts.saw(alice.id, alice.device.id, 5))
        await database.write(lambda r: r.accounts.saw(alice.id, alice.device.id, 6))
        assert await database.read(lambda r: r.accounts.last_seen(alice.id)) == {alice.device.id: 6}

    check(test)


def test_members_come_go_and_stay_known(check):
    alice, bob, eve = (AccountId(fixed(n)) for n in ("alice", "bob", "eve"))

    async def test(database):
        await database.write(lambda r: r.new_folder(new_head(), 0).flush())
        await database.write(lambda r: r.folders.set_members(FOLDER, {alice: Role.ADMIN, bob: Role.READER}))
        assert await database.read(lambda r: r.folders.role(FOLDER, bob)) is Role.READER
        assert await database.read(lambda r: r.folders.share_a_folder(bob, alice))
        await database.write(lambda r: r.folders.set_members(FOLDER, {alice: Role.ADMIN}))
        assert await database.read(lambda r: r.folders.role(FOLDER, bob)) is None
        assert await database.read(lambda r: r.folders.members(FOLDER)) == [alice]
        assert await database.read(lambda r: r.folders.share_a_folder(alice, bob))  # to read what it wrote
        assert not await database.read(lambda r: r.folders.share_a_folder(bob, alice))
        assert not await database.read(lambda r: r.folders.share_a_folder(alice, eve))
        assert await database.read(lambda r: r.folders.companions(bob)) == [alice]
        heads = await database.read(lambda r: r.folders.heads_of(alice, b"", 10))
        assert [head.folder for head in heads] == [FOLDER]
        assert await database.read(lambda r: r.folders.heads_of(alice, FOLDER, 10)) == []

    check(test)


def test_the_log_is_read_in_pages_of_items_and_bytes(check):
    def fill(repository):
        ledger = repository.new_folder(new_head(), 7)
        for i in range(10):
            ledger.append(ItemKind.VOID, fixed(str(i)), bytes(100))
        ledger.flush()

    async def test(database):
        await database.write(fill)
        read = database.read
        assert [i.position for i in await read(lambda r: r.folders.items(FOLDER, 0, 4, 1 << 20))] == [1, 2, 3, 4]
        assert [i.position for i in await read(lambda r: r.folders.items(FOLDER, 4, 99, 300))] == [5, 6]
        assert [i.position for i in await read(lambda r: r.folders.items(FOLDER, 9, 99, 1))] == [10]
        assert await read(lambda r: r.folders.items(FOLDER, 10, 99, 1)) == []

    check(test)


def test_locations_are_counted_once_for_each_node(check):
    refs = [chunk("1"), chunk("2")]

    async def test(database):
        added = await database.write(lambda r: r.chunks.add_locations(PSEUDONYM, refs, 300))
        assert added == ({refs[0].id: 1, refs[1].id: 1}, refs[0].length + refs[1].length)
        added = await database.write(lambda r: r.chunks.add_locations(PSEUDONYM, [*refs[:1], *refs[:1]], 300))
        assert added == ({refs[0].id: 1}, 0)
        await database.write(lambda r: r.chunks.add_locations(PSEUDONYM, refs[:1], 2))
        assert (await database.read(lambda r: r.chunks.find(PSEUDONYM, refs[0].id))).nodes == (2, 300)
        await database.write(lambda r: r.chunks.remove_locations([(PSEUDONYM, refs[0].id)], 2))
        assert await database.read(lambda r: r.chunks.counts(PSEUDONYM, [refs[0].id])) == {refs[0].id: 1}
        both = await database.read(lambda r: r.chunks.page((b"", b""), 10))
        assert sorted(one.chunk for one in both) == sorted(ref.id for ref in refs)
        assert len(await database.read(lambda r: r.chunks.page((PSEUDONYM, both[0].chunk), 10))) == 1
        assert len(await database.read(lambda r: r.chunks.where([refs[0].id, ChunkId(bytes(32))]))) == 1

    check(test)


def test_a_segment_is_what_it_was_first_declared_to_be(check):
    async def test(database):
        declare = segment("s", chunk("1"))
        assert await database.write(lambda r: r.chunks.declare(FOLDER, PSEUDONYM, [declare], 1)) == []
        assert await database.write(lambda r: r.chunks.declare(FOLDER, PSEUDONYM, [declare], 1)) == []
        assert await database.read(lambda r: r.chunks.segment_chunks(FOLDER, declare.segment.id)) == (chunk("1"),)
        other = segment("s", chunk("2"))
        with pytest.raises(ProtocolError):
            await database.write(lambda r: r.chunks.declare(FOLDER, PSEUDONYM, [other], 1))
        assert await database.read(lambda r: r.chunks.waiting_folders()) == [FOLDER]
        waited = await database.read(lambda r: r.chunks.waited_for(FOLDER))
        assert set(waited) == {declare.segment.id, chunk("1").id}

    check(test)


def test_nodes_and_revocations(check):
    node = StorageNode(StorageNodeId(fixed("n")), 1, fixed("s"), "http://h", b"", "z", "o", True, 5, 1, 2)

    async def test(database):
        assert await database.write(lambda r: r.nodes.next_number()) == 1
        await database.write(lambda r: r.nodes.add(node))
        assert await database.read(lambda r: r.nodes.all()) == [node]
        await database.write(lambda r: r.nodes.all_offline())
        assert not (await database.read(lambda r: r.nodes.all()))[0].online
        assert await database.write(lambda r: r.nodes.next_number()) == 2
        pair = (DeviceId(fixed("d")), PSEUDONYM)
        await database.write(lambda r: r.nodes.revoke([pair], 1000))
        assert await database.write(lambda r: r.nodes.revoked(1000)) == [pair]
        assert await database.write(lambda r: r.nodes.revoked(1001)) == []

    check(test)


def test_node_numbers_are_packed_sorted():
    assert unpack_numbers(pack_numbers([700, 1, 255])) == (1, 255, 700)


def test_the_threads_end_with_what_was_queued(tmp_path):
    path = str(tmp_path / "database")
    with contextlib.closing(connect(path)) as connection:
        migrate(connection)

    async def main():
        database = ThreadedDatabase(path)

        def put(i):
            return asyncio.ensure_future(database.write(lambda r: r.settings.put(str(i), "x")))

        jobs = [put(i) for i in range(300)]
        await asyncio.sleep(0)
        await database.close()
        await asyncio.gather(*jobs)

    asyncio.run(main())
    with contextlib.closing(connect(path)) as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM settings").scalar_one() == 300


# Migrations.


def test_a_node_is_struck_from_what_does_not_depend_on_it(check):
    """Chunks are counted by the nodes that hold them; a node that goes is struck where enough others hold a chunk."""
    refs = [chunk(name) for name in "abcd"]
    keys = [(PSEUDONYM, ref.id) for ref in refs]

    async def test(database):
        def fill(repository):
            repository.new_folder(new_head(), 1).flush()
            for node, held in ((1, refs), (2, refs[:3]), (300, refs[:2])):
                repository.chunks.add_locations(PSEUDONYM, held, node)

        await database.write(fill)
        held = await database.read(lambda r: r.chunks.holdings())
        lengths = [ref.length for ref in refs]
        assert sorted((one.nodes, one.chunks, one.bytes) for one in held) == [
            ((1,), 1, lengths[3]),
            ((1, 2), 1, lengths[2]),
            ((1, 2, 300), 2, lengths[0] + lengths[1]),
        ]
        assert await database.read(lambda r: r.chunks.by_folder([(1,), (1, 2)], 5)) == [(FOLDER, 2)]
        first = await database.read(lambda r: r.chunks.held_by([(1, 2), (1, 2, 300)], (b"", b""), 2))
        rest = await database.read(lambda r: r.chunks.held_by([(1, 2), (1, 2, 300)], first[-1], 2))
        assert [*first, *rest] == sorted(keys[:3])

        await database.write(lambda r: r.chunks.release(keys, 1, {2, 300}, 2))
        found = await database.read(lambda r: [r.chunks.find(*key) for key in keys])
        assert [one.nodes for one in found] == [(2, 300), (2, 300), (1, 2), (1,)]

    check(test)


def migrated() -> Connection:
    connection = connect(":memory:")
    migrate(connection)
    return connection


def test_the_migrations_lead_to_the_tables_that_the_code_uses():
    with contextlib.closing(migrated()) as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []


def test_the_newest_migration_is_the_one_that_the_code_expects():
    files = Path(migrations.__file__).parent / "migrations" / "versions"
    assert max(name[:4] for name in os.listdir(files) if name.endswith(".py")) == migrations.NEWEST


def test_migrating_twice_changes_nothing():
    with contextlib.closing(migrated()) as connection:
        before = connection.exec_driver_sql("SELECT count(*) FROM sqlite_master").scalar_one()
        migrate(connection)
        assert connection.exec_driver_sql("SELECT count(*) FROM sqlite_master").scalar_one() == before


def test_a_database_of_a_newer_version_is_left_alone():
    with contextlib.closing(migrated()) as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
        with pytest.raises(UserError):
            migrate(connection)


def test_every_table_can_be_spread_by_its_first_key():
    """Folder, pseudonym, account, device or node first: whatever grows with the number of folders begins with its id."""
    small = {"settings", "tokens", "storage_nodes", "retirements"}
    first = {name: next(iter(table.primary_key)).name for name, table in metadata.tables.items() if name not in small}
    assert set(first.values()) <= {"folder", "pseudonym", "account", "device"}


def test_a_database_of_an_older_version_is_brought_to_the_newest():
    older = connect(":memory:")
    with contextlib.closing(older), contextlib.closing(migrated()) as newest:
        config = Config()
        config.set_main_option("script_location", str(Path(migrations.__file__).parent / "migrations"))
        config.attributes["connection"] = older
        alembic_command.upgrade(config, "0001")
        migrate(older)
        tables = "SELECT name, sql FROM sqlite_master ORDER BY name"
        assert older.exec_driver_sql(tables).all() == newest.exec_driver_sql(tables).all()
        assert migrations.current(older) == migrations.NEWEST
