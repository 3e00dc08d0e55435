"""The simulated databases: what a crash leaves at each moment, and what an image is worth."""

from __future__ import annotations

import asyncio
import random

import pytest

from peer.store.schema import SCHEMA
from protocol.errors import UnavailableError
from simulations.databases import SimCoordinatorDatabase, SimDatabase, SimIndexFile, empty_image
from simulations.hosts import HostCrashed
from simulations.loop import SimLoop
from storage_node.chunks.index import Index


def put(name):
    return lambda db: db.execute("INSERT INTO setting VALUES (?, x'')", (name,)).rowcount


def names(db):
    return [row[0] for row in db.execute("SELECT name FROM setting ORDER BY name")]


class Device:
    """A device's database that may be opened again after a crash."""

    def open(self, loop, image=None, host=None):
        return SimDatabase(loop, host or loop.host("host"), empty_image(SCHEMA) if image is None else image)

    async def write(self, database, name):
        await database.run(put(name))

    async def read(self, database):
        return await database.run(names)


class Coordinator:
    """A coordinator's."""

    def open(self, loop, image=None, host=None):
        return SimCoordinatorDatabase(loop, host or loop.host("host"), image)

    async def write(self, database, name):
        await database.write(lambda repository: repository.settings.put(name, "x"))

    async def read(self, database):
        return [name for name in "abcdefgh" if await database.read(lambda r, name=name: r.settings.get(name))]


BOTH = pytest.mark.parametrize("kind", [Device(), Coordinator()], ids=["device", "coordinator"])


@BOTH
def test_a_crash_at_any_moment_leaves_a_prefix_of_what_was_written_with_all_that_was_acknowledged(kind):
    counts = set()
    for cut_ms in range(40):
        loop = SimLoop(cut_ms)

        async def main(loop=loop, cut_ms=cut_ms):
            host = loop.host("host")
            database, acknowledged = kind.open(loop, host=host), []

            async def work():
                for name in "abcdefgh":
                    await kind.write(database, name)
                    acknowledged.append(name)

            loop.spawn(host, work())
            await asyncio.sleep(cut_ms / 1000)
            loop.crash(host)
            found = await kind.read(kind.open(loop, database.image()))
            assert found == list("abcdefgh")[: len(found)]
            assert len(acknowledged) <= len(found) <= len(acknowledged) + 1
            counts.add(len(found))

        loop.run(main())
    assert {0, 8} <= counts
    assert len(counts) > 4


@BOTH
def test_a_crash_is_planned_at_each_commit_and_reading_is_no_effect(kind):
    for at in range(1, 6):
        loop = SimLoop(at)

        async def main(loop=loop, at=at):
            host = loop.host("host")
            database, images = kind.open(loop, host=host), []

            def crash():
                loop.crash(host)
                images.append(database.image())

            host.crash_at, host.on_crash = at, crash

            async def work():
                for name in "abcd":
                    await kind.write(database, name)
                    assert await kind.read(database)

            loop.spawn(host, work())
            await asyncio.sleep(1)
            assert host.is_dead is (at <= 4)
            assert host.effects == min(at, 4)
            found = await kind.read(kind.open(loop, images[0] if images else database.image()))
            assert found == list("abcd"[: at - 1])
            if host.is_dead:
                with pytest.raises(HostCrashed):
                    await kind.write(database, "e")

        loop.run(main())


@BOTH
def test_an_image_is_its_own_and_may_be_opened_many_times(kind):
    loop = SimLoop(1)

    async def main():
        first = kind.open(loop)
        await kind.write(first, "a")
        image = first.image()
        second, third = kind.open(loop, image), kind.open(loop, image)
        await kind.write(second, "b")
        await kind.write(first, "c")
        assert [await kind.read(database) for database in (first, second, third)] == [["a", "c"], ["a", "b"], ["a"]]

    loop.run(main())


@BOTH
def test_who_comes_after_the_close_is_refused_and_who_waited_is_served(kind):
    loop = SimLoop(1)

    async def main():
        database = kind.open(loop)
        waiting = asyncio.create_task(kind.write(database, "a"))
        await asyncio.sleep(0)
        await database.close()
        await waiting
        with pytest.raises(UnavailableError):
            await kind.write(database, "b")

    loop.run(main())


@BOTH
def test_an_operation_whose_task_is_cancelled_is_done_all_the_same(kind):
    loop = SimLoop(1)

    async def main():
        database = kind.open(loop)
        waiting = asyncio.create_task(kind.write(database, "a"))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait([waiting])
        await asyncio.sleep(1)
        assert await kind.read(database) == ["a"]

    loop.run(main())


def test_a_call_from_a_job_comes_after_what_was_asked_before_it():
    loop = SimLoop(1)

    async def main():
        database = Device().open(loop)
        asked = asyncio.create_task(database.run(put("a")))
        await asyncio.sleep(0)
        database.call(put("b"))
        assert database.call(names) == ["a", "b"]
        assert await asked == 1

    loop.run(main())


def test_a_rehearsal_sees_what_it_wrote_and_keeps_nothing():
    loop = SimLoop(1)

    async def main():
        host = loop.host("host")
        database = SimDatabase(loop, host, empty_image(SCHEMA), keeps=False)
        await database.run(put("a"))
        await database.run(put("b"))
        assert await database.run(names) == ["a", "b"]
        assert host.effects == 0
        again = SimDatabase(loop, host, database.image())
        assert await again.run(names) == []

    loop.run(main())


def test_an_index_keeps_all_after_a_kill_and_any_of_three_after_a_power_cut():
    file = SimIndexFile()
    index = Index(file.open)
    assert index.is_new
    index.add(1, [], 10)
    restarted = SimIndexFile(file.after_kill())
    later = Index(restarted.open)
    assert not later.is_new
    later.add(2, [], 20)
    seen = set()
    for seed in range(30):
        opened = Index(SimIndexFile(restarted.after_power_cut(random.Random(seed))).open)
        seen.add(tuple(opened.indexed_bytes().items()))
    assert seen == {(), ((1, 10),), ((1, 10), (2, 20))}
