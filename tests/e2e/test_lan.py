"""Devices that see each other exchange files directly; whoever is gone, slow or false costs seconds and nothing else."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest

from protocol import limits
from simulations.processes import Cluster, Device, Process, command, tree_of
from tests.e2e.ears import Ear
from tests.e2e.kit import (
    DEBUG,
    agents,
    ask,
    assert_no_tracebacks,
    reasons,
    restart,
    settle,
    shifted,
    start_agent,
    until,
)

MIB = 1 << 20
DAY_S = 86_400


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
        for mebibytes in (48, 96, 192):
            meet(a, b, c)
            before = arrived(b)
            with stopped(b):
                world.path(a, f"left {mebibytes}").write_bytes(os.urandom(mebibytes * MIB))
                settle(a, c)
            until(partial(has_more, b, before), "something arrives")
            c.kill()
            with stopped(a):
                settle(b)
            assert same(world, a, b)
            if far(b):
                return
            start_agent(c, world.cluster.root)  # all had arrived before the stop: again, with more to send
        pytest.fail("no transfer was long enough to be stopped in its middle")


def arrived(device: Device) -> int:
    """Return how many bytes came to a device from anywhere."""
    from_devices: int = lan(device)["received_bytes"]
    return from_devices + far(device)


def has_more(device: Device, than_bytes: int) -> bool:
    return arrived(device) > than_bytes


BAD: Final = (
    *("garbage", "bomb", "noise", "twice", "drip", "silence", "stall", "endless", "oversized", "huge_frame"),
    *(("unasked", "hang_up") if "KIN_TEST_FULL" in os.environ else ()),
)
"""What devices that turned bad do, each another thing: see ``hostile_peer.py``."""


@contextmanager
def bad(world: World, **turned: Device) -> Iterator[Path]:
    """Have devices do on the LAN what their names say; give the log of who was asked."""
    pairs = [each for how, device in turned.items() for each in (str(device.home), how)]
    log = world.cluster.root / f"bad-{len(turned)}.log"
    process = Process([sys.executable, "-m", "tests.e2e.hostile_peer", *pairs], log).start()
    try:
        yield log
    finally:
        process.stop()


def test_devices_that_turned_bad_cost_seconds(world: World) -> None:
    """They are the only ones on the LAN, and all are asked: files come from the storage node, right, in bounded memory."""
    a, b = world.a, world.b
    turned = {how: world.cluster.link_device(a, how) for how in BAD}
    for device in turned.values():
        device.get("docs", world.root(device))
    names = iter(range(1_000))
    with bad(world, **turned) as log, agents(world.cluster.root, a):
        assert a.agent is not None
        until(lambda: lan(a)["peers"] == len(BAD), "all are found")
        before = a.agent.peak_memory_bytes()

        def is_asked_by_all() -> bool:
            for size in (1_000, 2 * MIB):
                world.path(b, f"good {next(names)}").write_bytes(os.urandom(size))
            b.sync()
            settle(a)
            return set(BAD) <= set(log.read_text().split())

        until(is_asked_by_all, "each was asked")
        assert same(world, a, b)
        assert far(a) > 2 * MIB
        assert a.agent.peak_memory_bytes() - before < 64 * MIB


def test_strangers_that_keep_its_door_busy_cost_a_device_nothing(world: World) -> None:
    """Connections that say nothing, or noise: a few are kept waiting, for a few seconds, and files go on."""
    a, b = world.a, world.b
    with agents(world.cluster.root, a, b), contextlib.ExitStack() as stack:
        meet(a, b)
        assert a.agent is not None
        descriptors = Path(f"/proc/{a.agent.pid}/fd")
        before = len(os.listdir(descriptors))
        for number in range(300):
            with contextlib.suppress(OSError):
                stranger = stack.enter_context(socket.create_connection(("127.0.0.1", lan(a)["port"]), timeout=0.01))
                if number % 2:
                    stranger.sendall(os.urandom(500))
        world.path(a, "while strangers call").write_bytes(os.urandom(3 * MIB))
        settle(a, b)
        assert same(world, a, b)
        assert len(os.listdir(descriptors)) - before <= limits.LAN_HANDSHAKES_MAX + 8


def test_off_is_off(world: World) -> None:
    a, b = world.a, world.b
    off = {"enabled": False, "running": False, "port": 0, "found": []}
    with agents(world.cluster.root, a, b):
        meet(a, b)
        result = ask(b, "lan", switch="off")
        assert result | off == result
        until(lambda: lan(a)["peers"] == 0, "the other one sees that it went")
        world.path(a, "far").write_bytes(b"far" * 1_000)
        settle(a, b)
        assert far(b) > 0
        assert lan(b)["received_bytes"] == 0
    assert b.json("lan")["enabled"] is False
    assert b.json("lan", "on")["enabled"] is True


def test_two_days_of_one_device_cannot_be_linked(world: World) -> None:
    """Its name, its tags and its host's name are others; its kin find it all the same, with a clock a day apart."""
    cluster, a, b = world.cluster, world.a, world.b
    seen = []
    start_agent(b, cluster.root)
    try:
        for ahead_s in (0, DAY_S):
            with Ear() as ear:
                start_agent(a, cluster.root, launch=shifted("peer.commands.run", ahead_s, str(a.home)))
                until(lambda: lan(a)["peers"] == lan(b)["peers"] == 1, "they find each other")
                port = lan(a)["port"]
                until(lambda ear=ear, port=port: ear.announced(port)[1], "it is announced")  # type: ignore[misc]
                a.stop()
                seen.append((*ear.announced(port), {record.name for record in ear.records()}))
    finally:
        a.stop()
        b.stop()
    (names, tags, _), (later_names, later_tags, _) = seen
    assert len(names) == len(later_names) == 1
    assert len(tags) == len(later_tags) == 1
    assert not names & later_names
    assert not tags & later_tags
    host = os.uname().nodename.lower()
    for name in names | later_names:
        assert host not in name.lower()
        assert len(name.partition(".")[0]) == 16


# --- Network namespaces


def ip(*args: str) -> None:
    subprocess.run(["ip", *args], check=True, capture_output=True)


@contextmanager
def bridged(count: int) -> Iterator[list[str]]:
    """Make machines on one bridge, each a network namespace with an address of its own; nothing else is reached there."""
    if os.geteuid() or shutil.which("ip") is None:
        pytest.skip("network namespaces need root and the ip command")
    hub, names = f"kin{os.getpid()}h", [f"kin{os.getpid()}n{number}" for number in range(count)]
    made = []
    try:
        try:
            for name in (hub, *names):
                ip("netns", "add", name)
                made.append(name)
        except subprocess.CalledProcessError as error:
            pytest.skip(f"network namespaces cannot be made here: {error.stderr.decode(errors='replace').strip()}")
        ip("-n", hub, "link", "add", "bridge", "type", "bridge")
        ip("-n", hub, "link", "set", "bridge", "up")
        for number, name in enumerate(names):
            ip("-n", hub, "link", "add", f"port{number}", "type", "veth", "peer", "name", "eth0", "netns", name)
            ip("-n", hub, "link", "set", f"port{number}", "master", "bridge", "up")
            ip("-n", name, "address", "add", f"10.87.0.{number + 1}/24", "dev", "eth0")
            ip("-n", name, "link", "set", "eth0", "up")
            ip("-n", name, "link", "set", "lo", "up")
            ip("-n", name, "route", "add", "default", "dev", "eth0")
        yield names
    finally:
        for name in made:
            subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)


def start_in(machine: str, device: Device, root: Path) -> Process:
    args = ["ip", "netns", "exec", machine, *command("peer.cli", "--home", str(device.home), "run")]
    environment = {**DEBUG, "KIN_LAN_INTERFACES": ""}  # all that there are
    device.agent = Process(args, root / f"{device.name}.log", environment).start()
    return device.agent


def test_two_machines_on_a_bridge_meet_and_exchange_files(world: World) -> None:
    """The one knows from the log what it lacks; coordinator and storage node are out of reach for both."""
    cluster, a, b = world.cluster, world.a, world.b
    one, two = world.root(a), world.root(b)
    with bridged(2) as machines:
        (one / "bridge").write_bytes(os.urandom(5 << 20))
        for number in range(50):
            (one / f"bridge {number}").write_bytes(os.urandom(1_000))
        a.sync()
        cluster.nodes[0].kill()
        with agents(cluster.root, b):
            until(lambda: reasons(b, "docs").get("bridge") == "no_source", "it knows what it lacks")
        try:
            for machine, device in zip(machines, (a, b), strict=True):
                start_in(machine, device, cluster.root)
            until(lambda: lan(b)["received_bytes"] > 5 << 20, "the files come over the bridge")
            until(lambda: dict(tree_of(one)) == dict(tree_of(two)), "they are in place")
            assert ask(b)["network"] == "unreachable"
            assert [peer["address"] for peer in lan(b)["found"]] == ["10.87.0.1"]
            assert lan(b)["storage"]["received_bytes"] == 0
        finally:
            a.stop()
            b.stop()
    cluster.nodes[0].start()
    start_agent(b, cluster.root)
    settle(b)
    b.stop()
