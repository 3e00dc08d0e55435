"""Checks of what is left at rest, what things cost and what is held at once, and the endings in which some are made."""

from __future__ import annotations

import asyncio
from random import Random

import pytest

from simulations.checks import brake, cost, leaks, load
from simulations.devices import ROOT
from simulations.history import commands, endings, rest
from simulations.preparation import prepared
from simulations.user_files import UserFiles
from simulations.world import World
from tests.simulations.test_checks import breaks, lived
from tests.simulations.test_ledger import Scene


@pytest.fixture
def scene():
    return Scene()


def leave(machine, path):
    def tamper(world):
        disk = world.devices[0].disk if machine == "device" else world.nodes[0].disk
        UserFiles(disk, uid=0).write(path, b"left")

    return tamper


def spool(world):
    UserFiles(world.devices[0].home, uid=0).write("/spool/1", b"left", parents=True)


def row_of(machine, query):
    return lambda world: (world.devices[0] if machine == "device" else world.coordinator).rows(query)


LEFT = {
    "a stage": leave("device", f"{ROOT}/.kinfolder/tmp/0-0"),
    "something in the trash": leave("device", f"{ROOT}/.kinfolder/trash/0"),
    "a file of the spool": spool,
    "a file at a node": leave("node", "/data/packs/00000001.pack.new"),
    "an item that is to be planned": row_of("device", "INSERT INTO dirty VALUES (1, x'00')"),
    "a directory that stays, and is not there": row_of("device", "INSERT INTO obstacle VALUES (1, x'01', 'kept')"),
    "an entry that is in no log": row_of("device", "UPDATE entry SET position = 0"),
    "somebody who waits": row_of("coordinator", "INSERT INTO waits VALUES (x'00', 1, x'00', x'00')"),
}


WAITING = (
    row_of("device", "INSERT INTO obstacle VALUES (1, x'01', 'name')"),
    row_of("device", "INSERT INTO fold_item VALUES (1, x'01', x'00', x'00', x'00', x'00')"),
    row_of("device", "INSERT INTO fold_item VALUES (1, x'00', x'01', x'00', x'00', x'00')"),
    row_of("device", "INSERT INTO dirty VALUES (1, x'00')"),
    leave("device", f"{ROOT}/.kinfolder/tmp/0-00"),
    row_of("coordinator", "INSERT INTO segments VALUES (x'00', x'00', 1, 0, x'')"),
    row_of("coordinator", "INSERT INTO waits VALUES (x'00', 1, x'00', x'00')"),
)


def test_19_what_waits_for_a_name_or_was_written_over_meanwhile_may_stay():
    async def story(world):
        await world.settle()
        for put in WAITING:
            put(world)
        leaks.check(world)

    World(1, prepared()).run(story)


def test_19_a_directory_that_stays_for_what_never_leaves_the_device_is_no_leak():
    async def story(world):
        one, two, _ = world.devices
        one.user.write(one.path("D/a.txt"), b"one", parents=True)
        one.user.write(one.path("D/~1.tmp"), b"one")
        await world.settle()
        two.user.remove_tree(two.path("D"))
        await world.settle()
        await asyncio.sleep(60)
        assert one.user.list(one.path("D")) == ["~1.tmp"]
        leaks.check(world)
        two.rows("INSERT INTO dirty SELECT 1, id FROM folder")
        with breaks(19):
            leaks.check(world)

    World(1, prepared()).run(story)


@pytest.mark.parametrize("what", LEFT)
def test_19_nothing_is_left_of_what_was_under_way(what):
    async def story(world):
        first = world.devices[0]
        first.user.write(first.path("a.txt"), b"one")
        await world.settle()
        await asyncio.sleep(60)
        leaks.check(world)
        LEFT[what](world)
        with breaks(19):
            leaks.check(world)
        if "trash" in what:
            leaks.check(world, ["device-0"])

    World(1, prepared()).run(story)


def test_23_a_name_costs_one_entry_and_no_bytes():
    async def story(world):
        before = cost.spent(world)
        first = world.devices[0]
        first.user.write(first.path("a.txt"), b"one")
        await world.settle()
        middle = cost.spent(world)
        first.user.rename(first.path("a.txt"), first.path("b.txt"))
        await world.settle()
        after = cost.spent(world)
        cost.check("renaming", middle, after)
        with breaks(23):
            cost.check("writing", before, middle)
        with breaks(23):
            cost.check("renaming", middle, after._replace(entries=after.entries + 1))
        with breaks(23):
            cost.check("renaming", middle, after._replace(changes=after.changes + 9))

    World(1, prepared()).run(story)


def test_22_at_rest_nothing_is_spent():
    async def story(world):
        first = world.devices[0]
        await world.settle()
        before = cost.spent(world)
        await world.settle()
        cost.check_nothing(before, cost.spent(world))
        first.user.write(first.path("a.txt"), b"one")
        await world.settle()
        after = cost.spent(world)
        for wrong in (before._replace(entries=after.entries), before._replace(sent_bytes=after.sent_bytes)):
            with breaks(22):
                cost.check_nothing(wrong, after)

    World(1, prepared()).run(story)


def test_22_who_looks_again_at_rest_sends_nothing():
    async def act(course):
        await rest.come_to_rest(course)
        link = course.world.network.link("device-0", "node-0")
        course.world.loop.call_later(rest.QUIET_S / 2, lambda: setattr(link, "carried_bytes", link.carried_bytes + 1))
        await rest.stay(course)

    with breaks(22):
        lived(act)


def test_24_a_snapshot_that_somebody_made_is_the_same_wherever_it_is_restored():
    async def act(course):
        person = course.person(0, Random(0))
        with person.acting("writes"):
            person.hands.write(person.path("a.txt"), b"one")
        await person.device.sync()
        await commands.snapshot(person)
        with person.acting("writes"):
            person.hands.write(person.path("a.txt"), b"two")
        await rest.come_to_rest(course)
        (name,) = course.ledger.snapshots
        await rest.bring_back_twice(course, name)
        for device, where in (
            (course.world.devices[0], "kiwi-back-first"),
            (course.world.devices[2], "kiwi-back-last"),
        ):
            assert device.user.read(device.path(f"{where}/a.txt")) == b"one"
        with breaks(24):
            await rest.bring_back_twice(course, "of no such name")

    lived(act)


def test_25_at_rest_a_process_has_few_tasks_and_files_open():
    async def story(world):
        files = world.devices[1].files
        opened = [files.open_root(ROOT) for _ in range(9)]
        with breaks(25):
            load.check_rest(world.loop, world.machines)
        for handle in opened:
            files.close(handle)
        load.check_rest(world.loop, world.machines)
        for _ in range(50):
            world.loop.spawn(world.devices[0].host, asyncio.sleep(1))
        with breaks(25):
            load.check_rest(world.loop, world.machines)
        await asyncio.sleep(2)

    World(1, prepared()).run(story)


def test_26_nobody_else_loses_anything(scene):
    scene.act(0, ("write", "a.txt", b"one"))
    scene.come(1, "a.txt", b"one")
    before = [scene.tree(number) for number in range(3)]
    scene.act(0, ("remove", "a.txt"))
    brake.check("a removal", before, [scene.tree(number) for number in range(3)], but=0)
    scene.act(1, ("write", "a.txt", b"two"))
    with breaks(26):
        brake.check("a removal", before, [scene.tree(number) for number in range(3)], but=0)


@pytest.mark.parametrize("name", endings.ENDINGS)
@pytest.mark.parametrize("seed", [1, 2])
def test_a_history_may_end_so(name, seed):
    async def act(course):
        await rest.come_to_rest(course)
        await endings.ENDINGS[name](course, Random(seed))

    lived(act)
