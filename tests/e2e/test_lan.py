"""Devices that see each other exchange files directly; whoever is gone, slow or false costs seconds and nothing else."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from simulations.processes import Cluster, Device, Process, tree_of
from tests.e2e.kit import agents, ask, assert_no_tracebacks, restart, settle, start_agent, until

MIB = 1 << 20


class World(NamedTuple):
    cluster: Cluster
    a: Device
    b: Device
    c: Device

    def root(self, device: Device) -> Path:
        return self.cluster.root / f"files-{device.name}"

    def path(self, device: Device, name: str) -> Path:
        return self.root(device) / name


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with Cluster(tmp_path_factory.mktemp("lan") / "cluster", nodes=1, replicas=1, quorum=1) as cluster:
        a = cluster.first_device("a")
        made = World(cluster, a, cluster.link_device(a, "b"), cluster.link_device(a, "c"))
        a.add(made.root(a), "docs")
        a.sync()
        for device in (made.b, made.c):
            device.get("docs", made.root(device))
            device.sync()
        yield made
        assert_no_tracebacks(cluster)


def lan(device: Device) -> Any:
    return ask(device, "lan", switch=None)


def far(device: Device) -> int:
    """Bytes that came from storage nodes since the agent was started."""
    count: int = lan(device)["storage"]["received_bytes"]
    return count


def meet(*devices: Device) -> None:
    """Wait until each has found all the others."""
    until(lambda: all(lan(device)["peers"] == len(devices) - 1 for device in devices), "all have found each other")


def same(world: World, *devices: Device) -> bool:
    trees = [dict(tree_of(world.root(device))) for device in devices]
    return all(tree == trees[0] for tree in trees)


def sparse(size: int) -> bytes:
    """Bytes of which half can be compressed."""
    return b"".join(os.urandom(32_768) + bytes(range(256)) * 128 for _ in range(size // 65_536))


@contextmanager
def stopped(device: Device) -> Iterator[None]:
    """Have an agent stand still for a while."""
    assert device.agent is not None
    os.kill(device.agent.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(device.agent.pid, signal.SIGCONT)


def test_files_go_from_one_device_to_another_without_a_storage_node(world: World) -> None:
    a, b = world.a, world.b
    with agents(world.cluster.root, a, b):
        meet(a, b)
        ask(b, "offline")
        assert lan(b) | {"peers": 0, "running": False} == lan(b)
        world.path(a, "large").write_bytes(sparse(9 * MIB))
        for number in range(300):
            world.path(a, f"small {number}").write_bytes(os.urandom(number * 20))
        settle(a)
        world.cluster.nodes[0].kill()
        try:
            ask(b, "online")
            settle(b)
        finally:
            restart(world.cluster.nodes[0])
        assert same(world, a, b)
        assert far(b) == 0
        found = lan(b)
        assert 9 * MIB < found["received_bytes"] < 13 * MIB
        assert [peer["name"] for peer in found["found"]] == ["a"]
        assert ask(b)["lan"] | {"enabled": True, "peers": 1} == ask(b)["lan"]


def test_an_edit_of_what_came_over_the_lan_sends_the_changed_chunks_alone(world: World) -> None:
    """This device never saw the other chunks on a storage node: it asks, and believes receipts."""
    a, b = world.a, world.b
    with agents(world.cluster.root, a, b):
        meet(a, b)
        world.path(a, "edited").write_bytes(os.urandom(24 * MIB))
        settle(a, b)
        assert far(b) == 0
        with open(world.path(b, "edited"), "r+b") as file:
            file.seek(12 * MIB)
            file.write(os.urandom(1_000))
        world.path(b, "copied").write_bytes(world.path(a, "edited").read_bytes())
        settle(b, a)
        assert lan(b)["storage"]["sent_bytes"] < 10 * MIB
        assert far(a) == 0
        assert same(world, a, b)


def test_two_devices_serve_one_file_at_once(world: World) -> None:
    a, b, c = world.a, world.b, world.c
    with agents(world.cluster.root, a, b, c):
        meet(a, b, c)
        with stopped(b):
            world.path(a, "wide").write_bytes(os.urandom(64 * MIB))
            settle(a, c)
            sent = {device.name: lan(device)["sent_bytes"] for device in (a, c)}
        settle(b)
        assert same(world, a, b, c)
        assert far(b) == 0
        for device in (a, c):
            assert lan(device)["sent_bytes"] - sent[device.name] >= 8 * MIB


def test_devices_that_stop_in_the_middle_cost_seconds(world: World) -> None:
    """One is killed, one stands still; what they owed comes from the storage node."""
    a, b, c = world.a, world.b, world.c
    with agents(world.cluster.root, a, b, c):
        meet(a, b, c)
        with stopped(b):
            world.path(a, "left").write_bytes(os.urandom(48 * MIB))
            settle(a, c)
        until(lambda: lan(b)["received_bytes"] > 0 or far(b) > 0, "something arrives")
        c.kill()
        with stopped(a):
            settle(b)
        assert same(world, a, b)
        assert far(b) > 0


@contextmanager
def bad(world: World, device: Device, how: str) -> Iterator[Process]:
    args = [sys.executable, "-m", "tests.e2e.hostile_peer", str(device.home), how]
    process = Process(args, world.cluster.root / f"bad-{how}.log").start()
    try:
        yield process
    finally:
        process.stop()


@pytest.mark.parametrize("how", ["garbage", "drip"])
def test_a_device_that_turned_bad_costs_seconds(world: World, how: str) -> None:
    """It is the only one on the LAN, and it is asked: the file comes from the storage node, and is right."""
    a, b, c = world.a, world.b, world.c
    world.path(b, f"good {how}").write_bytes(os.urandom(3 * MIB))
    world.path(b, f"small {how}").write_bytes(os.urandom(1_000))
    b.sync()
    with bad(world, c, how) as process, agents(world.cluster.root, a):
        settle(a)
        assert same(world, a, b)
        assert lan(a)["received_bytes"] < MIB
        assert far(a) > 3 * MIB
        assert process.args[-1] == how
        assert "asked" in (world.cluster.root / f"bad-{how}.log").read_text()


def test_off_is_off(world: World) -> None:
    a, b = world.a, world.b
    with agents(world.cluster.root, a, b):
        meet(a, b)
        assert ask(b, "lan", switch="off") | {"enabled": False, "running": False, "port": 0, "found": []} == ask(
            b, "lan", switch="off"
        )
        until(lambda: lan(a)["peers"] == 0, "the other one sees that it went")
        world.path(a, "far").write_bytes(b"far" * 1_000)
        settle(a, b)
        assert far(b) > 0
        assert lan(b)["received_bytes"] == 0
        b.stop()
        start_agent(b, world.cluster.root)
        assert not lan(b)["enabled"]
        b.stop()
    assert b.json("lan")["enabled"] is False
    assert "kin lan on" in b.kin("lan")
    assert b.json("lan", "on")["enabled"] is True
