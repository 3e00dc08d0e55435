"""Whole worlds: everything real but for its doors, from a seed."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys

import pytest
import structlog

from simulations.loop import SECOND_NS, Schedule
from simulations.preparation import prepared
from simulations.world import LoggedError, NotSettledError, World
from tests.simulations.world_story import run

both = pytest.mark.parametrize("schedule", Schedule)


def contents(device):
    return {path: (standing.kind, standing.data) for path, standing in device.tree().items()}


@both
@pytest.mark.parametrize("seed", range(3))
def test_all_devices_come_to_the_same_tree_and_nothing_of_what_anybody_wrote_is_lost(seed, schedule):
    world = run(seed, schedule)
    trees = [contents(device) for device in world.devices]
    assert trees[0] == trees[1] == trees[2]
    held = [data for _, data in trees[0].values()]
    wanted = [b"late" * 20_000, b"nobody watched", b"before the cut"]
    assert [data for data in wanted if data not in held] == []
    # Either may be what the third device had when it wrote more.
    assert [start for start in (b"from 0", b"from 1") if not any(data.startswith(start) for data in held)] == []
    assert [number for number in range(3) if bytes([number]) * 40_000 not in held] == []
    assert any(data.endswith(b" and more, offline") for data in held)


@both
def test_a_seed_replays_all_of_it_in_the_same_process(schedule):
    digests = [run(seed, schedule).loop.trace.digest() for seed in (7, 7, 8)]
    assert digests[0] == digests[1] != digests[2]


def test_a_seed_replays_all_of_it_whatever_the_hashes_of_a_process():
    printed = set()
    for hash_seed in "012":
        done = subprocess.run(
            [sys.executable, "-m", "tests.simulations.world_story", "7"],
            env=os.environ | {"PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        )
        printed.add(done.stdout)
    assert len(printed) == 1
    assert printed.pop().count("\n") == len(Schedule)


def written(world, name, data):
    first = world.devices[0]
    first.user.write(first.path(name), data)


def assert_all_have(world, name, data):
    for device in world.devices:
        assert device.user.read(device.path(name)) == data, device.name


@pytest.mark.parametrize(("files", "database"), [(True, True), (True, False), (False, True)])
def test_a_device_that_goes_back_to_an_earlier_state_loses_nothing(files, database):
    async def story(world):
        two = world.devices[1]
        written(world, "before.txt", b"before")
        await world.settle()
        earlier = two.image()
        written(world, "after.txt", b"after")
        two.user.write(two.path("own.txt"), b"own")
        await world.settle()
        await two.stop()
        two.restore(earlier, files=files, database=database)
        await world.settle()
        assert_all_have(world, "before.txt", b"before")
        assert len({tuple(sorted(contents(device).items())) for device in world.devices}) == 1
        if database:  # files that went back alone are what a person did: what is not there any more was removed
            assert_all_have(world, "after.txt", b"after")
            assert_all_have(world, "own.txt", b"own")

    World(1, prepared()).run(story)


def test_a_coordinator_from_a_backup_gets_back_what_devices_still_have():
    async def story(world):
        written(world, "before.txt", b"before")
        await world.settle()
        backup = world.coordinator.backup()
        written(world, "after.txt", b"after")
        await world.settle()
        world.coordinator.kill()
        world.coordinator.restore(backup)
        await world.settle()
        written(world, "later.txt", b"later")
        await world.settle()
        for name in ("before", "after", "later"):
            assert_all_have(world, f"{name}.txt", name.encode())

    World(1, prepared()).run(story)


def test_a_world_goes_on_without_a_storage_node_that_is_lost_and_with_one_that_lost_its_disk():
    async def story(world):
        written(world, "before.txt", bytes(100_000))
        await world.settle()
        world.nodes[0].cut_power()
        world.lost.append(world.nodes[0])
        written(world, "without.txt", b"w" * 50_000)
        await world.settle()
        await world.nodes[1].stop()
        world.nodes[1].wipe()
        await world.nodes[1].start()
        written(world, "with.txt", b"x" * 50_000)
        await world.settle()
        assert_all_have(world, "without.txt", b"w" * 50_000)
        assert_all_have(world, "with.txt", b"x" * 50_000)

    World(1, prepared()).run(story)


def test_a_machine_whose_process_ended_in_its_sleep_is_awake_once_another_begins():
    async def story(world):
        device = world.devices[1]
        world.loop.suspend(device.host, clock_stops=True)
        await asyncio.sleep(10)
        device.kill()
        await device.start()
        stands = device.time.local_ns(world.loop.now_ns)
        written(world, "a.txt", b"one")
        await world.settle()
        assert device.time.local_ns(world.loop.now_ns) > stands
        assert_all_have(world, "a.txt", b"one")

    World(1, prepared()).run(story)


@pytest.mark.parametrize("loses_power", [False, True])
@pytest.mark.parametrize("effect", range(1, 60, 8))
def test_a_device_that_crashes_before_an_effect_loses_nothing(effect, loses_power):
    async def story(world):
        world.devices[1].crash_at(effect, loses_power=loses_power)
        world.devices[0].crash_at(effect + 3, loses_power=loses_power)
        written(world, "one.txt", b"one" * 10_000)
        two = world.devices[1]
        two.user.write(two.path("two.txt"), b"two" * 20_000)
        await world.settle()
        assert_all_have(world, "one.txt", b"one" * 10_000)
        assert_all_have(world, "two.txt", b"two" * 20_000)

    World(effect, prepared()).run(story)


def test_a_clock_that_jumps_stops_nobody():
    async def story(world):
        world.devices[1].time.jump(-86_400 * SECOND_NS)
        written(world, "one.txt", b"one")
        await world.settle()
        world.devices[0].time.jump(40 * 86_400 * SECOND_NS)
        written(world, "two.txt", b"two")
        await world.settle()
        assert_all_have(world, "two.txt", b"two")

    World(1, prepared()).run(story)


def test_an_error_that_the_product_logs_fails_the_run():
    async def story(world):
        await world.devices[0].do(_log())
        await asyncio.sleep(1)

    with pytest.raises(LoggedError, match="device-0 logged 'went wrong'"):
        World(1, prepared()).run(story)
    expecting = World(1, prepared())
    expecting.may_log("went wrong", "device-0")
    expecting.run(story)


async def _log():
    structlog.get_logger("test").error("went wrong")


def test_a_world_that_does_not_come_to_rest_says_what_waits():
    async def story(world):
        for node in world.nodes:
            node.kill()
            world.lost.append(node)
        written(world, "one.txt", b"one")
        await world.settle(120)

    with pytest.raises(NotSettledError, match=r"device-0 at .*\n.*one.txt"):
        World(1, prepared()).run(story)


def test_what_waits_in_a_spool_outlives_a_power_cut_though_the_file_changes_meanwhile():
    async def story(world):
        one = world.devices[0]
        for node in world.nodes:
            node.kill()
        written(world, "kept.txt", b"kept" * 20_000)
        await asyncio.sleep(120)
        assert [name for name in one.user.list("/kin/spool") if name.endswith(".spool")]
        one.cut_power()
        written(world, "kept.txt", b"newer")
        await world.settle()
        assert_all_have(world, "kept.txt", b"newer")
        assert one.user.list("/kin/spool") == []

    World(1, prepared()).run(story)
