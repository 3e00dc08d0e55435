"""``kill -9`` of devices and servers at random instants, under load: nothing acknowledged and nothing saved is lost.

Real processes. ``KIN_KILL_SEEDS=1..20`` runs more seeds, ``KIN_KILL_ROUNDS`` more kills in each, ``KIN_KILL_LARGE_MIB``
cuts a larger file, ``KIN_KILL_ONCE`` wants that nothing is there twice either.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from protocol.errors import EXIT_NEEDS_PERSON
from simulations.processes import Cluster, CommandError, Device, command, environment, tree_of
from tests.e2e.users import Ledger, Reader, User, content_of

MIB = 1 << 20
SETTLE_S = 120.0
SYNCED_FILES = 400
SYNC_KILLS = 4
LARGE_MIB = int(os.environ.get("KIN_KILL_LARGE_MIB", "96"))
IN_FLIGHT_BYTES = 26 * MIB
"""Two steps of the uploader, or two batches of the downloader: 8 MiB each, and a last chunk of up to 4 beyond; and change."""
ONCE = "KIN_KILL_ONCE" in os.environ
"""Whether everything must also stand there once only."""
ROUNDS = int(os.environ.get("KIN_KILL_ROUNDS", "7"))


def seeds() -> list[int]:
    first, _, last = os.environ.get("KIN_KILL_SEEDS", "1").partition("..")
    return list(range(int(first), int(last or first) + 1))


def killed_after(device: Device, delay_s: float, *args: str) -> int | None:
    """Run a command of a device and kill it after a while; return its exit code if it ended before."""
    with open(device.home.parent / f"{device.name}-killed.log", "ab") as log:
        child = subprocess.Popen(
            command("peer.cli", "--home", str(device.home), *args),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=log,
            env=environment({"KIN_LOG": "info"}),
        )
    try:
        return child.wait(delay_s)
    except subprocess.TimeoutExpired:
        return None
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()


def settle(devices: tuple[Device, Device], roots: tuple[Path, Path]) -> dict[str, bytes]:
    """Let both devices come to one state, and return it."""
    deadline = time.monotonic() + SETTLE_S
    while True:
        for device in (*devices, devices[0]):
            sync_all(device)
        one, two = (dict(tree_of(root)) for root in roots)
        if one == two:
            return one
        assert time.monotonic() < deadline, sorted(one.items() ^ two.items())


def sync_all(device: Device) -> None:
    """Sync, and let pass what waits: of a few files, users may change more than half while no agent lives long enough."""
    try:
        device.sync(timeout_s=60)
    except CommandError as error:
        if error.code != EXIT_NEEDS_PERSON:
            raise
        device.kin("approve", "work")
        device.sync(timeout_s=60)


def assert_clean(devices: tuple[Device, Device], roots: tuple[Path, Path]) -> None:
    """Nothing is frozen, nothing is left to do, and nothing of a user's lies in a hidden place."""
    for device, root in zip(devices, roots, strict=True):
        status = device.json("status")
        assert status["in_sync"], status
        assert not list((root / ".kinfolder" / "aside").iterdir())


@contextlib.contextmanager
def working(cluster: Cluster, names: tuple[str, str], seed: int) -> Iterator[tuple[Ledger, tuple[Path, Path]]]:
    """Two users work in the two folders; at the end both have put their work down."""
    roots = (cluster.root / "one", cluster.root / "two")
    ledger = Ledger()
    users = [User(name, root, ledger, seed * 10 + i) for i, (name, root) in enumerate(zip(names, roots, strict=True))]
    reader = Reader(*roots)
    for thread in (*users, reader):
        thread.start()
    try:
        yield ledger, roots
    finally:
        for user in users:
            user.finish()
        reader.finish()


@pytest.mark.parametrize("seed", seeds())
def test_devices_killed_at_random_while_their_users_work(
    cluster: Cluster, pair: tuple[Device, Device], seed: int
) -> None:
    """Whatever a user saved, renamed or removed on a device whose agent dies all the time comes to both, once."""
    chance = random.Random(seed)
    with working(cluster, ("laptop", "desktop"), seed) as (ledger, roots):

        def storm(device: Device, chance: random.Random) -> None:
            for _ in range(ROUNDS):
                killed_after(device, 0.3 + chance.random() * 1.7, "run")

        storms = [threading.Thread(target=storm, args=(d, random.Random(chance.random()))) for d in pair]
        for thread in storms:
            thread.start()
        for thread in storms:
            thread.join()
    settle(pair, roots)
    assert len(ledger.alive) > 10
    ledger.check(roots[0], once=ONCE)
    assert_clean(pair, roots)


@pytest.mark.parametrize("seed", seeds())
def test_servers_killed_at_random_while_users_work(cluster: Cluster, pair: tuple[Device, Device], seed: int) -> None:
    """A coordinator that dies under load, and one or two storage nodes that come back elsewhere, cost nothing."""
    chance = random.Random(seed)
    for device in pair:
        device.start()
    with working(cluster, ("laptop", "desktop"), seed) as (ledger, roots):
        for _ in range(ROUNDS):
            time.sleep(chance.random())
            victims = chance.choice(
                [[cluster.coordinator], [chance.choice(cluster.nodes)], chance.sample(cluster.nodes, 2)]
            )
            for victim in victims:
                victim.kill()
            time.sleep(chance.random() * 0.5)
            for victim in victims:
                victim.start()
    for device in pair:
        device.wait(SETTLE_S)
        device.stop()
    tree = settle(pair, roots)
    assert len(ledger.alive) > 10
    ledger.check(roots[0], once=ONCE)
    assert_clean(pair, roots)
    chance.choice(cluster.nodes).kill()
    again = cluster.root / "again"
    pair[1].kin("remove", "work")
    pair[1].get("work", again)
    pair[1].sync()
    assert dict(tree_of(again)) == tree


def test_what_a_finished_sync_sent_survives_everything_and_any_one_node(cluster: Cluster) -> None:
    """Both ``kin sync``, killed again and again, end with all files; then all servers die and any one node stays away."""
    chance = random.Random(3)
    a = cluster.first_device("laptop")
    one = cluster.root / "one"
    a.add(one, "work")
    b = cluster.link_device(a, "desktop")
    for number in range(SYNCED_FILES):
        directory = one / f"d{number % 7}"
        directory.mkdir(exist_ok=True)
        (directory / f"f{number}").write_bytes(content_of(f"many-{number}", chance.choice([300, 3_000, 90_000])))
    for number in range(3):
        (one / f"large{number}").write_bytes(content_of(f"large-{number}", 9_000_000))
    sync_under_kills(a, chance)
    # Acknowledged: what is killed now must have it all.
    wanted = dict(tree_of(one))
    for victim in (cluster.coordinator, *cluster.nodes):
        victim.kill()
    cluster.coordinator.start()
    for away in range(3):
        for number, node in enumerate(cluster.nodes):
            if number == away:
                node.kill()
            elif not node.pid:
                node.start()
        two = cluster.root / f"two{away}"
        b.get("work", two)
        if away == 0:
            sync_under_kills(b, chance)
        b.sync()
        assert dict(tree_of(two)) == wanted
        b.kin("remove", "work")


def sync_under_kills(device: Device, chance: random.Random) -> None:
    """Kill ``kin sync`` at a few random instants, later and later, then let one end."""
    for turn in range(SYNC_KILLS):
        if killed_after(device, 0.4 + chance.random() * 0.4 * (turn + 1), "sync") == 0:
            break
    device.sync()


def test_a_cut_transfer_repeats_no_more_than_what_was_in_flight(tmp_path: Path) -> None:
    """Killed in the middle of a large file, a device goes on where it stopped: counted on the wire of all nodes."""
    with Cluster(tmp_path / "cluster", metered=True) as cluster:
        a = cluster.first_device("laptop")
        one, two = cluster.root / "one", cluster.root / "two"
        a.add(one, "work")
        b = cluster.link_device(a, "desktop")
        a.sync()
        size = LARGE_MIB * MIB
        chance = random.Random(5)
        with open(one / "large", "wb") as file:
            file.writelines(chance.randbytes(MIB) for _ in range(LARGE_MIB))
        before = sum(meter.to_server for meter in cluster.meters)

        def sent() -> int:
            return sum(meter.to_server for meter in cluster.meters) - before

        for part in (0.3, 0.6):
            kill_when(a, sent, 3 * size * part)
        a.sync()
        # Each byte goes to three nodes; two batches are on the way when the device dies, and the wire adds a little.
        print(f"{sent() / 3 / MIB:.1f} MiB to each node for {LARGE_MIB} MiB")
        assert sent() <= 3 * (size * 1.02 + 2 * IN_FLIGHT_BYTES)
        b.get("work", two)
        start = sum(meter.to_client for meter in cluster.meters)

        def fetched() -> int:
            return sum(meter.to_client for meter in cluster.meters) - start

        for part in (0.3, 0.6):
            kill_when(b, fetched, size * part)
            assert not (two / "large").exists()
        b.sync()
        print(f"{fetched() / MIB:.1f} MiB from nodes for {LARGE_MIB} MiB")
        assert fetched() <= size * 1.02 + 2 * IN_FLIGHT_BYTES
        assert dict(tree_of(two)) == dict(tree_of(one))


def kill_when(device: Device, counted: Callable[[], int], least: float) -> None:
    """Begin ``kin sync`` and kill it as soon as so many bytes were counted."""
    child = subprocess.Popen(
        command("peer.cli", "--home", str(device.home), "sync"),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environment(),
    )
    try:
        while counted() < least:
            assert child.poll() is None, "it ended before it could be killed"
            time.sleep(0.002)
    finally:
        child.kill()
        child.wait()
