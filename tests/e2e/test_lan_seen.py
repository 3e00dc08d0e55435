"""What a stranger on the LAN sees, and devices that meet over a real network: multicast, a bridge, no way to any server."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from simulations.processes import Cluster, Device, Process, command, tree_of
from tests.e2e.ears import Ear
from tests.e2e.kit import DEBUG, ask, assert_no_tracebacks, settle, shifted, start_agent, until

DAY_S = 86_400


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Cluster, Device, Device]]:
    with Cluster(tmp_path_factory.mktemp("seen") / "cluster", nodes=1, replicas=1, quorum=1) as cluster:
        a = cluster.first_device("a")
        b = cluster.link_device(a, "b")
        a.add(cluster.root / "one", "docs")
        a.sync()
        b.get("docs", cluster.root / "two")
        b.sync()
        yield cluster, a, b
        assert_no_tracebacks(cluster)


def lan(device: Device) -> Any:
    return ask(device, "lan", switch=None)


def test_two_days_of_one_device_cannot_be_linked(pair: tuple[Cluster, Device, Device]) -> None:
    """Its name, its tags and its host's name are others; its kin find it all the same, with a clock a day apart."""
    cluster, a, b = pair
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


@contextlib.contextmanager
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


def test_two_machines_on_a_bridge_meet_and_exchange_files(pair: tuple[Cluster, Device, Device]) -> None:
    """The one knows from the log what it lacks; coordinator and storage node are out of reach for both."""
    cluster, a, b = pair
    one, two = cluster.root / "one", cluster.root / "two"
    with bridged(2) as machines:
        (one / "large").write_bytes(os.urandom(5 << 20))
        for number in range(50):
            (one / f"small {number}").write_bytes(os.urandom(1_000))
        a.sync()
        cluster.nodes[0].kill()
        b.kin("sync", "--timeout", "1", check=False)
        assert not (two / "large").exists()
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
