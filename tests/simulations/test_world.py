"""Whole worlds: everything real but for its doors, from a seed."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from simulations.loop import Schedule
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
    wanted = [b"from 0", b"from 1", b"late" * 20_000, b"nobody watched", b"before the cut"]
    assert [data for data in wanted if data not in held] == []
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
