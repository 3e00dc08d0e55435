"""No check without a state that it must find: each is shown what holds, then what does not."""

from __future__ import annotations

import asyncio
import errno
import os
import re
from contextlib import nullcontext
from functools import partial
from random import Random

import pytest

from simulations.checks import at_rest, contents, trees
from simulations.checks.names import is_copy, is_local, is_made_of, wanted
from simulations.checks.snapshots import check_restored
from simulations.checks.storage import check_durability, check_reachability, needed
from simulations.checks.violation import Violation
from simulations.checks.watch import Watch
from simulations.disk_faults import failing
from simulations.history import rest
from simulations.history.contents import CANARY
from simulations.history.course import Course
from simulations.history.ledger import Back, Ledger
from simulations.history.runs import options_of
from simulations.history.script import drawn
from simulations.preparation import prepared
from simulations.user_files import UserFiles
from simulations.world import World
from tests.simulations.test_ledger import Scene, of

COPY = "a (conflict, device-1, 0123abcd).txt"


def breaks(number):
    return pytest.raises(Violation, match=re.escape(f"invariant {number} ("))


@pytest.fixture
def scene():
    return Scene()


# --- By the ledger alone


def test_4_nobody_invents_bytes(scene):
    scene.act(0, ("write", "a.txt", b"one"))
    contents.check_invention(scene.ledger, 0, scene.tree(0))
    scene.come(0, "a.txt", b"other")
    with breaks(4):
        contents.check_invention(scene.ledger, 0, scene.tree(0))


def test_4_nobody_invents_names(scene):
    scene.act(0, ("write", "a.txt", b"one"))
    scene.come(1, COPY, b"one")
    contents.check_invention(scene.ledger, 1, scene.tree(1))
    scene.come(1, "b.txt", b"one")
    with breaks(4):
        contents.check_invention(scene.ledger, 1, scene.tree(1))


def test_4_only_a_disk_that_respells_names_may_show_them_in_another_form(scene):
    scene.act(0, ("write", "\u00e9", b"one"))
    scene.come(1, "e\u0301", b"one")
    contents.check_invention(scene.ledger, 1, scene.tree(1), respells=True)
    with breaks(4):
        contents.check_invention(scene.ledger, 1, scene.tree(1))


def test_5_a_copy_needs_a_conflict(scene):
    scene.act(0, ("write", "a.txt", b"one"))
    scene.come(0, COPY, b"one")
    with breaks(5):
        contents.check_copies(scene.ledger, 0, scene.tree(0))
    scene.act(1, ("write", "a.txt", b"two"))
    contents.check_copies(scene.ledger, 0, scene.tree(0))


@pytest.mark.parametrize("rests", [False, True])
def test_5_what_a_device_forgot_it_knows_again_once_all_were_at_rest(scene, rests):
    scene.act(0, ("write", "a.txt", b"one"))
    scene.ledger.forget(scene.world.devices[0], 0, {})
    if rests:
        scene.ledger.rested(scene.world.devices)
        again = scene.act(0, ("rename", "a.txt", "b.txt"))
        scene.ledger.makers[of(b"one")] = [again]
    scene.come(1, "b (conflict, device-1, 0123abcd).txt", b"one")
    with breaks(5) if rests else nullcontext():
        contents.check_copies(scene.ledger, 1, scene.tree(1))


@pytest.mark.parametrize("forgets", [False, True])
def test_5_a_device_that_was_put_back_is_another_one_to_what_it_did_before(scene, forgets):
    scene.act(0, ("write", "a.txt", b"one"))
    scene.ledger.backs[0] = Back(scene.world.loop.now_ns, {}, forgets)
    scene.act(0, ("write", "a.txt", b"two"))
    scene.come(1, COPY, b"one")
    with nullcontext() if forgets else breaks(5):
        contents.check_copies(scene.ledger, 1, scene.tree(1))


def test_5_who_was_put_back_to_before_another_wrote_knows_nothing_of_it(scene):
    scene.act(0, ("write", "a.txt", b"one"))
    scene.ledger.rested(scene.world.devices)
    scene.act(1, ("write", "a.txt", b"two"))
    scene.come(1, COPY, b"two")
    with breaks(5):
        contents.check_copies(scene.ledger, 1, scene.tree(1))
    now_ns, epoch = scene.world.loop.now_ns, scene.ledger.epoch
    scene.ledger.backs[1] = Back(now_ns, {}, forgets=False, hides_since_ns=0, epoch=epoch)
    contents.check_copies(scene.ledger, 1, scene.tree(1))
    scene.ledger.backs[1] = Back(now_ns, {}, forgets=False, hides_since_ns=0, epoch=epoch - 1)
    with breaks(5):
        contents.check_copies(scene.ledger, 1, scene.tree(1))


@pytest.mark.parametrize("moves", [True, False])
def test_5_who_writes_in_a_directory_is_a_rival_of_who_renames_it_and_puts_a_file_in_its_place(scene, moves):
    for device in scene.world.devices[:2]:
        device.user.make_directory(device.path("D" if moves else "a.txt"))
    scene.ledger.rested(scene.world.devices)
    if moves:
        scene.act(0, ("rename", "D", "a.txt"))
    scene.act(1, ("make_directories", "D"), ("write", "D/b.txt", b"two"))
    scene.act(0, ("remove_directory", "a.txt"), ("write", "a.txt", b"one"))
    scene.come(0, COPY, b"one")
    with nullcontext() if moves else breaks(5):
        contents.check_copies(scene.ledger, 0, scene.tree(0))


def test_5_what_takes_the_place_of_a_directory_on_a_device_that_was_put_back_may_stand_beside_it(scene):
    scene.world.devices[0].user.make_directory(scene.world.devices[0].path("a.txt"))
    before = scene.tree(0)
    scene.ledger.rested(scene.world.devices)
    scene.act(0, ("remove_directory", "a.txt"), ("write", "a.txt", b"one"))
    scene.come(0, COPY, b"one")
    with breaks(5):
        contents.check_copies(scene.ledger, 0, scene.tree(0))
    scene.ledger.backs[0] = Back(scene.world.loop.now_ns, before, forgets=True, epoch=scene.ledger.epoch)
    contents.check_copies(scene.ledger, 0, scene.tree(0))


def test_5_who_had_seen_the_other_is_no_rival(scene):
    scene.act(0, ("write", "a.txt", b"one"))
    scene.come(1, "a.txt", b"one")
    scene.act(1, ("write", "a.txt", b"two"))
    scene.come(1, COPY, b"two")
    with breaks(5):
        contents.check_copies(scene.ledger, 1, scene.tree(1))


def test_5_who_writes_a_file_of_that_name_elsewhere_is_no_rival(scene):
    scene.act(0, ("make_directory", "D"), ("write", "D/a.txt", b"one"))
    scene.act(1, ("make_directory", "E"), ("write", "E/a.txt", b"two"))
    scene.come(2, f"D/{COPY}", b"one")
    with breaks(5):
        contents.check_copies(scene.ledger, 2, scene.tree(2))
    scene.act(1, ("rename", "E", "D"))
    contents.check_copies(scene.ledger, 2, scene.tree(2))


def test_5_who_puts_files_of_one_name_into_two_directories_is_his_own_rival_where_another_makes_these_one(scene):
    for number in range(2):
        scene.come(number, "D/old", b"old")
    scene.act(0, ("make_directory", "E"), ("write", "E/a.txt", b"one"))
    scene.act(0, ("write", "D/a.txt", b"two"))
    scene.come(2, f"E/{COPY}", b"one")
    with breaks(5):
        contents.check_copies(scene.ledger, 2, scene.tree(2))
    scene.act(1, ("rename", "D", "F"))
    with breaks(5):
        contents.check_copies(scene.ledger, 2, scene.tree(2))
    scene.act(1, ("rename", "F", "D"), ("rename", "D", "between"), ("rename", "between", "E"))
    with breaks(5):  # it was F to him
        contents.check_copies(scene.ledger, 2, scene.tree(2))
    scene.act(1, ("rename", "E", "D"))
    contents.check_copies(scene.ledger, 2, scene.tree(2))


@pytest.mark.parametrize(
    ("moves", "is_ring"),
    [([("D", "E/in/D")], True), ([("D", "F/D")], False), ([("D", "F/D"), ("F", "E/in/F")], True)],
)
def test_5_a_directory_that_was_moved_away_meets_the_new_one_of_its_name_if_others_undid_the_move(
    scene, moves, is_ring
):
    for number in range(2):
        scene.come(number, "D/in/b", b"b")
        scene.come(number, "E/in/c", b"c")
        scene.come(number, "E/a.txt", b"old")
        scene.come(number, "F/d", b"d")
    scene.act(0, ("rename", "E", "D/in/E"))
    scene.act(0, ("make_directory", "E"), ("write", "E/a.txt", b"one"))
    scene.come(2, f"E/{COPY}", b"one")
    with breaks(5):
        contents.check_copies(scene.ledger, 2, scene.tree(2))
    for was, new in moves:
        scene.act(1, ("rename", was, new))
    with nullcontext() if is_ring else breaks(5):
        contents.check_copies(scene.ledger, 2, scene.tree(2))


def test_5_who_edits_under_the_old_name_is_a_rival_of_who_renamed_and_edits(scene):
    scene.act(0, ("write", "first.txt", b"one"))
    scene.come(1, "first.txt", b"one")
    scene.ledger.rested(scene.world.devices)
    scene.act(0, ("rename", "first.txt", "a.txt"))
    scene.act(0, ("write", "a.txt", b"two"))
    scene.act(1, ("write", "other.txt", b"three"))
    scene.come(0, COPY, b"two")
    with breaks(5):
        contents.check_copies(scene.ledger, 0, scene.tree(0))
    scene.act(1, ("write", "first.txt", b"four"))
    contents.check_copies(scene.ledger, 0, scene.tree(0))


def test_5_who_writes_below_a_directory_is_a_rival_of_who_puts_a_file_in_its_place(scene):
    scene.act(0, ("make_directory", "a.txt"))
    scene.come(1, "a.txt/inside", b"one")
    scene.ledger.rested(scene.world.devices)
    scene.act(0, ("remove_tree", "a.txt"), ("write", "a.txt", b"two"))
    scene.come(0, COPY, b"two")
    with breaks(5):
        contents.check_copies(scene.ledger, 0, scene.tree(0))
    scene.act(1, ("write", "a.txt/inside", b"three"))
    contents.check_copies(scene.ledger, 0, scene.tree(0))


def test_5_a_file_that_a_program_saves_beside_is_the_file(scene):
    scene.act(0, ("write", "first.txt", b"one"))
    scene.come(1, "first.txt", b"one")
    scene.ledger.rested(scene.world.devices)
    scene.act(0, ("rename", "first.txt", "a.txt"))
    scene.act(0, ("write", "tmp", b"two"))
    scene.act(0, ("rename", "a.txt", "bak"))
    scene.act(0, ("rename", "tmp", "a.txt"))
    scene.come(0, COPY, b"two")
    with breaks(5):
        contents.check_copies(scene.ledger, 0, scene.tree(0))
    scene.act(1, ("write", "first.txt", b"four"))
    contents.check_copies(scene.ledger, 0, scene.tree(0))


def test_5_another_spelling_of_a_name_is_that_name(scene):
    scene.act(0, ("write", "\u00e9", b"one"))
    scene.come(0, "\u00e9 (conflict, device-0, 0123abcd)", b"one")
    with breaks(5):
        contents.check_copies(scene.ledger, 0, scene.tree(0))
    scene.act(1, ("write", "e\u0301", b"two"))
    contents.check_copies(scene.ledger, 0, scene.tree(0))


def test_5_who_puts_two_spellings_beside_each_other_makes_a_copy_of_one(scene):
    scene.act(0, ("write", "\u00e9", b"one"))
    scene.act(0, ("remove", "\u00e9"), ("write", "e\u0301", b"two"))
    scene.act(0, ("write", "other e\u0301", b"three"))
    scene.come(0, "\u00e9 (conflict, device-0, 0123abcd)", b"two")
    with breaks(5):
        contents.check_copies(scene.ledger, 0, scene.tree(0))
    scene.act(0, ("write", "\u00e9", b"four"))
    contents.check_copies(scene.ledger, 0, scene.tree(0))


@pytest.mark.parametrize("names", [("\u00e9", "e\u0301"), ("D/\u00e9", "D/e\u0301")])
def test_8_no_two_siblings_are_one_name(scene, names):
    scene.come(0, names[0], b"one")
    both = [scene.tree(number) for number in range(3)]
    trees.check_validity(scene.world, both)
    scene.come(0, names[1], b"other")
    with breaks(8):
        trees.check_validity(scene.world, [scene.tree(0), *both[1:]])


def test_5_a_command_of_another_device_is_a_rival_though_nobody_heard_of_its_end(scene):
    scene.act(0, ("write", "a.txt", b"one"))
    scene.come(0, COPY, b"one")
    scene.ledger.ask(scene.world.devices[1], 1, "status", "a.txt")
    with breaks(5):
        contents.check_copies(scene.ledger, 0, scene.tree(0))
    scene.ledger.ask(scene.world.devices[1], 1, "resolve", COPY)
    contents.check_copies(scene.ledger, 0, scene.tree(0))


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        (COPY, "a.txt"),
        ("a (conflict, device-1, 0123abcd) (conflict, device-2, 01234567).txt", "a.txt"),
        ("c (kept, 0123abcd)", "c"),
        ("kiwi-a.txt", "kiwi-a.txt"),
        ("a (conflict).txt", "a (conflict).txt"),
    ],
)
def test_names_with_marks_are_told_from_the_names_that_people_gave(name, plain):
    assert wanted(name) == plain
    assert is_made_of(name, {plain})
    assert is_made_of(name.replace(".txt", " (conflict, device-3, 01234567).txt"), {name})
    assert not is_made_of(name, {"x"})
    assert is_copy(name) is ("(conflict, " in name)


def test_names_that_stay_on_a_device():
    assert is_local("D/~1.tmp")
    assert is_local(".goutputstream-X/a")
    assert not is_local("D/a.tmp")


# --- Compared with a world that runs


def checked(tamper, trace=None, *, again=True):
    """Write on one device, come to rest, tamper with something, and check all that must hold at rest, twice or before that."""

    async def story(world):
        ledger = Ledger(3)
        watch = Watch(world, ledger)
        first = world.devices[0]
        with ledger.acting(first, 0, "writes"):
            first.user.write(first.path("D/a.txt"), b"one", parents=True)
            first.user.write(first.path("b.txt"), b"two")
            first.user.make_link(first.path("link"), "none/77")
            first.user.make_directory(first.path("E"))
            first.user.create(first.path("empty"))
        await world.settle()
        ledger.rested(world.devices)
        await at_rest.check(world, ledger, watch)
        done = tamper(world, ledger, watch)
        if asyncio.iscoroutine(done):
            await done
        if again:
            await at_rest.check(world, ledger, watch)

    world = World(1, prepared(), trace=trace)
    if trace is not None:
        trace.world = world
    world.run(story)


def sql(machine, query):
    return lambda world, *_: (world.devices[1] if machine == "device" else world.coordinator).rows(query)


def write_behind(world, *_):
    world.devices[1].user.write(world.devices[1].path("b.txt"), b"one")


def make_executable(world, *_):
    world.devices[1].user.set_mode(world.devices[1].path("b.txt"), 0o755)


async def fall_behind(world, ledger, _):
    world.network.go_offline("device-1")
    first = world.devices[0]
    with ledger.acting(first, 0, "writes"):
        first.user.write(first.path("c.txt"), b"three")
    await first.sync()


def remove_everywhere(world, *_, name="b.txt"):
    for device in world.devices:
        device.user.remove(device.path(name))


def remove_directory_everywhere(world, *_):
    for device in world.devices:
        device.user.remove_directory(device.path("E"))


def write_everywhere(world, ledger, _):
    ledger.names.add("c.txt")
    for device in world.devices:
        device.user.create(device.path("c.txt"))


def head_goes_back(_, __, watch):
    watch.journals.heads["device-1"] += 1


def leak_at_a_node(world, *_):
    UserFiles(world.nodes[0].disk, uid=0).write("/data/packs/x", b"...." + CANARY + b"....")


def hash_at_a_node(world, ledger, _):
    UserFiles(world.nodes[0].disk, uid=0).write("/data/packs/x", b"...." + of(b"one") + b"....")


WRONG = {
    "other bytes on one device": (2, write_behind),
    "other attributes on one device": (2, make_executable),
    "one device is behind": (2, fall_behind),
    "gone from all disks": (1, remove_everywhere),
    "a link is gone from all disks": (1, partial(remove_everywhere, name="link")),
    "an empty file is gone from all disks": (1, partial(remove_everywhere, name="empty")),
    "a directory is gone from all disks": (1, remove_directory_everywhere),
    "on all disks and in no rows": (20, write_everywhere),
    "a row of the local tree is missing": (
        20,
        sql("device", "DELETE FROM local_item WHERE name = CAST('b.txt' AS BLOB)"),
    ),
    "a row of the synced tree is missing": (
        20,
        sql("device", "DELETE FROM synced_item WHERE name = CAST('b.txt' AS BLOB)"),
    ),
    "a row says another content": (
        20,
        sql(
            "device",
            "UPDATE synced_item SET content = (SELECT content FROM synced_item WHERE name = CAST('a.txt' AS BLOB))"
            " WHERE name = CAST('b.txt' AS BLOB)",
        ),
    ),
    "an intent is left": (
        20,
        sql("device", "INSERT INTO intent (folder, id, as_user, row) VALUES (1, x'00', 0, x'00')"),
    ),
    "a cycle of rows": (8, sql("device", "UPDATE local_item SET parent = id WHERE name = CAST('D' AS BLOB)")),
    "a row hangs in the air": (8, sql("device", "DELETE FROM synced_item WHERE name = CAST('D' AS BLOB)")),
    "a position is missing": (10, sql("coordinator", "DELETE FROM log WHERE position = 1")),
    "another item at a position": (10, sql("device", "UPDATE log SET data = x'00' WHERE position = 1")),
    "another entry under a number": (10, sql("device", "UPDATE entry SET hash = x'00'")),
    "a head goes back": (10, head_goes_back),
    "a node holds a name in clear": (15, leak_at_a_node),
    "a node holds the hash of a content": (15, hash_at_a_node),
    "the coordinator holds the hash of a content": (
        15,
        sql("coordinator", f"CREATE TABLE hashes AS SELECT x'{of(b'one').hex()}'"),
    ),
    "the coordinator holds a name in clear": (15, sql("coordinator", "CREATE TABLE kiwi AS SELECT 'kiwi-a.txt'")),
}


@pytest.mark.parametrize("what", WRONG)
def test_at_rest(what):
    number, tamper = WRONG[what]
    with breaks(number):
        checked(tamper)


# --- Coming to rest


def lived(act, kinds=("plain",) * 3):
    """Run a history of no actions in which something else happens."""
    options = options_of(0)._replace(devices=3, personalities=kinds, actions=1, faults=0)

    async def story(world):
        course = Course(world, drawn(options, options.actions))
        course.ledger.rested(world.devices)
        await act(course)

    World(1, prepared(), personalities=options.kinds()).run(story)


async def write_later(course, is_time):
    person = course.person(0, Random(0))
    while not is_time():  # noqa: ASYNC110 - of virtual time
        await asyncio.sleep(0.01)
    with person.acting("writes"):
        person.hands.write(person.path("b.txt"), b"two")


def test_22_what_cannot_come_to_rest_is_told():
    async def act(course):
        device = course.world.devices[1]
        person = course.person(0, Random(0))
        with person.acting("writes"):
            person.hands.write(person.path("a.txt"), b"one")
        device.disk.hooks.fault = failing("rename", errno.EIO, times=1 << 30)
        await rest.come_to_rest(course)

    with breaks(22):
        lived(act)


def test_22_a_disk_that_can_hold_every_name_refuses_none():
    async def act(course, *, of):
        device = next(one for one in course.world.devices if one.disk.personality.changes_names is of)
        status = {"folders": [{"held": None, "unsynced": [{"path": "a.txt", "reason": "name"}]}]}
        assert await rest._help(course, device, status) == ([] if of else None)

    lived(partial(act, of=False))
    lived(partial(act, of=True), kinds=("plain", "mac", "plain"))


def test_22_nothing_may_move_when_nobody_does_anything():
    async def act(course):
        began_ns = course.world.loop.now_ns
        task = asyncio.create_task(write_later(course, lambda: course.world.loop.now_ns > began_ns + 10_000_000_000))
        await rest.come_to_rest(course)
        await rest.stay(course)
        await task

    with breaks(22):
        lived(act)


def test_21_a_restart_may_add_nothing():
    async def act(course):
        await rest.come_to_rest(course)
        task = asyncio.create_task(write_later(course, lambda: not course.world.devices[0].is_running))
        await rest.restart(course)
        await task

    with breaks(21):
        lived(act)


def test_what_holds_is_not_told():
    async def act(course):
        await rest.come_to_rest(course)
        await rest.stay(course)
        await rest.restart(course)

    lived(act)


# --- What the nodes hold, and what a snapshot brings back


def test_17_every_chunk_of_the_log_lies_whole_on_as_many_nodes_as_it_should():
    async def story(world):
        first = world.devices[0]
        first.user.write(first.path("a.txt"), os.urandom(9_000))
        await world.settle()
        assert len(needed(world).chunks) >= 2
        await asyncio.sleep(100)
        check_reachability(world, 3)
        world.nodes[0].kill()
        world.nodes[0].wipe()
        check_reachability(world, 2)
        packs = UserFiles(world.nodes[1].disk, uid=0)
        with breaks(17):
            check_reachability(world, 3)
        for name in list(world.nodes[1].disk.tree("/data/packs")):
            path = f"/data/packs/{name}"
            if packs.stat(path).size > 5_000:
                packs.write_at(path, b"damage", 4_000)
        with breaks(17):
            check_reachability(world, 2)

    World(1, prepared()).run(story)


@pytest.mark.parametrize("what", ["bytes", "name", "length"])
def test_16_what_a_node_gave_a_receipt_for_is_durable(what):
    async def story(world):
        first, node = world.devices[0], world.nodes[0]
        first.user.write(first.path("a.txt"), os.urandom(9_000))
        await world.settle()
        check_durability(world)
        names = list(node.disk.tree("/data/packs"))
        path = max((f"/data/packs/{name}" for name in names), key=lambda path: node.disk.at(path).size)
        packs, pack = UserFiles(node.disk, uid=0), node.disk.at(path)
        if what == "bytes":
            packs.write_at(path, pack.data()[4_000:4_100], 4_000)
        elif what == "length":
            data = pack.data()
            packs.truncate(path, 4_000)
            packs.write_at(path, data[4_000:], 4_000)
        else:
            packs.rename(path, path + "-")
            packs.rename(path + "-", path)
        with breaks(16):
            check_durability(world)
        node.may_lack = True
        check_durability(world)
        node.may_lack = False
        node.disk.sync_all()
        check_durability(world)

    World(1, prepared()).run(story)


def test_24_a_snapshot_brings_back_what_there_was(scene):
    scene.act(0, ("write", "a.txt", b"one"), ("make_directory", "D"), ("write", "~1.tmp", b"local"))
    then = scene.tree(0)
    scene.come(1, "a.txt", b"one")
    with breaks(24):
        check_restored("s", then, scene.tree(1))
    scene.act(1, ("make_directory", "D"))
    check_restored("s", then, scene.tree(1))
    scene.come(1, "a.txt", b"two")
    with breaks(24):
        check_restored("s", then, scene.tree(1))
