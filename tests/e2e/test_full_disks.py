"""A disk that is full, of a device, a coordinator or a storage node, loses nothing, says so, and goes on with room again.

Each disk is a small tmpfs, so these need root. A ballast file beside the data takes its room.
"""

from __future__ import annotations

import contextlib
import os
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from simulations.processes import Cluster, CommandError, Device, tree_of
from tests.e2e.disks import MIB, Disk

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small tmpfs")

DEADLINE_S = 60.0


@pytest.fixture
def disks() -> Iterator[Callable[[Path, int], Disk]]:
    """Mounts disks, and unmounts them whatever happens."""
    with contextlib.ExitStack() as stack:
        yield lambda path, mib: stack.enter_context(Disk(path, mib))


def until(condition: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + DEADLINE_S
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not come to be in time"
        time.sleep(0.05)
    return found


def write_files(root: Path, seed: int, count: int, size: int) -> None:
    chance = random.Random(seed)
    root.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        (root / f"{seed}-{number}").write_bytes(chance.randbytes(size))


def reasons(device: Device) -> set[tuple[str, str]]:
    (folder,) = device.json("status")["folders"]
    return {(row["direction"], row["reason"]) for row in folder["unsynced"]}


def fails(device: Device, *args: str) -> CommandError:
    """Run a command that must fail with a clear line, never with a traceback."""
    with pytest.raises(CommandError) as failed:
        device.kin(*args)
    assert "Traceback" not in failed.value.output
    assert "unexpected" not in failed.value.output.lower()
    assert failed.value.output.strip()
    return failed.value


def test_a_folder_s_disk_is_full_while_files_arrive(tmp_path: Path, disks: Callable[[Path, int], Disk]) -> None:
    """What fits arrives, the rest says disk_full; nothing under a user's name is half-written; room lets it go on."""
    with Cluster(tmp_path / "cluster") as cluster:
        disk = disks(cluster.root / "disk", 24)
        one, two = cluster.root / "one", disk.path / "two"
        a = cluster.first_device("laptop")
        a.add(one, "work")
        b = cluster.link_device(a, "desktop")
        write_files(one / "small", 1, 40, 20_000)
        write_files(one / "large", 2, 1, 30 * MIB)
        a.sync()
        wanted = dict(tree_of(one))
        b.get("work", two)
        error = fails(b, "sync")
        assert error.code == 4
        assert "room" in error.output
        assert reasons(b) == {("down", "disk_full")}  # though no agent runs
        assert {path for path in wanted if path not in dict(tree_of(two))} == {"large/2-0"}
        # Small files until nothing fits, with the agent running: room that comes back is used without a word.
        disk.fill(left=300_000)
        write_files(one / "more", 3, 60, 20_000)
        (one / "small" / "1-0").write_bytes(b"edited" * 20_000)
        a.sync()
        wanted = dict(tree_of(one))
        b.start()
        until(lambda: reasons(b) == {("down", "disk_full")})
        here = dict(tree_of(two))
        old = {"small/1-0"}
        assert all(wanted[path] == data for path, data in here.items() if path not in old)
        disk.relieve()
        disk.grow(96)
        b.wait(DEADLINE_S)
        assert dict(tree_of(two)) == wanted
        b.stop()


def test_a_device_s_home_is_full(tmp_path: Path, disks: Callable[[Path, int], Disk]) -> None:
    """Without room for its state a device says so and does nothing wrong; with room it goes on, both ways."""
    with Cluster(tmp_path / "cluster") as cluster:
        disk = disks(cluster.root / "home-desktop", 48)
        one, two = cluster.root / "one", cluster.root / "two"
        a = cluster.first_device("laptop")
        a.add(one, "work")
        b = cluster.link_device(a, "desktop")
        write_files(one / "first", 1, 20, 2_000)
        a.sync()
        b.get("work", two)
        b.sync()
        # Nothing at all fits: a single command cannot record what it sees.
        disk.fill()
        write_files(two / "mine", 2, 200, 2_000)
        write_files(one / "theirs", 3, 200, 2_000)
        a.sync()
        assert "full" in fails(b, "sync", "--timeout", "3").output
        # Little by little fits: each pass fails somewhere else.
        for left in (100_000, 400_000):
            disk.relieve()
            disk.fill(left)
            b.kin("sync", "--timeout", "3", check=False)
            write_files(two / "mine", left, 20, 2_000)
        disk.relieve()
        b.sync()
        # The same with the agent, which must not need a restart.
        b.start()
        b.wait()
        for left in (0, 200_000):
            disk.fill(left)
            write_files(two / "agent", 10 + left, 150, 2_000)
            write_files(one / "agent", 11 + left, 150, 2_000)
            (two / "mine" / "2-0").write_bytes(f"edited with {left} left".encode())
            a.sync()
            with pytest.raises(CommandError) as failed:  # it works into the wall, and does not call that in sync
                b.wait(2)
            assert failed.value.code in {1, 3, 4}
            disk.relieve()
            b.wait(DEADLINE_S)
        b.stop()
        a.sync()
        b.sync()
        assert dict(tree_of(one)) == dict(tree_of(two))
        assert len(list((one / "agent").iterdir())) == 4 * 150
        assert (one / "mine" / "2-0").read_text() == "edited with 200000 left"
        assert not a.json("conflicts")["conflicts"]


def test_the_coordinator_s_disk_is_full(tmp_path: Path, disks: Callable[[Path, int], Disk]) -> None:
    """What cannot be ordered waits on the device that wrote it, also when the coordinator is killed meanwhile."""
    root = tmp_path / "cluster"
    disk = disks(root / "coordinator", 24)
    with Cluster(root) as cluster:
        one, two = cluster.root / "one", cluster.root / "two"
        a = cluster.first_device("laptop")
        a.add(one, "work")
        b = cluster.link_device(a, "desktop")
        write_files(one / "first", 1, 20, 2_000)
        a.sync()
        b.get("work", two)
        b.sync()
        disk.fill()
        write_files(one / "second", 2, 200, 2_000)
        (two / "first" / "1-1").write_bytes(b"edited on the desktop")
        for device in (a, b):
            error = fails(device, "sync", "--timeout", "5")
            assert error.code == 3
        cluster.coordinator.kill()
        disk.fill()
        with contextlib.suppress(CommandError):
            cluster.coordinator.start()
        disk.relieve()
        cluster.coordinator.kill()
        cluster.coordinator.start()
        for device in (a, b, a):
            device.sync(DEADLINE_S)
        assert dict(tree_of(one)) == dict(tree_of(two))
        assert len(list((two / "second").iterdir())) == 200
        assert (one / "first" / "1-1").read_bytes() == b"edited on the desktop"


def test_storage_nodes_are_full(tmp_path: Path, disks: Callable[[Path, int], Disk]) -> None:
    """With one node full the others take all; with two full it says no_quorum; with room again it goes on."""
    root = tmp_path / "cluster"
    full = [disks(root / f"node{number}", 24) for number in (1, 2)]
    with Cluster(root) as cluster:
        one, two = cluster.root / "one", cluster.root / "two"
        a = cluster.first_device("laptop")
        a.add(one, "work")
        b = cluster.link_device(a, "desktop")
        full[0].fill()
        write_files(one / "first", 1, 12, MIB)
        write_files(one / "first", 2, 100, 2_000)
        a.sync(DEADLINE_S)
        b.get("work", two)
        b.sync(DEADLINE_S)
        assert dict(tree_of(one)) == dict(tree_of(two))
        write_files(one / "second", 3, 30, MIB)
        error = fails(a, "sync", "--timeout", "5")
        assert error.code in {1, 3}
        assert ("up", "no_quorum") in reasons(a) or "storage" in error.output
        (one / "later").write_bytes(b"saved while storage was full")
        full[0].relieve()
        for disk in full:
            disk.grow(96)
        a.sync(DEADLINE_S)
        b.sync(DEADLINE_S)
        assert dict(tree_of(one)) == dict(tree_of(two))


def test_a_disk_is_full_in_the_middle_of_a_restore(tmp_path: Path, disks: Callable[[Path, int], Disk]) -> None:
    """It says so in one line and changes nothing; with room again the same command brings everything back."""
    with Cluster(tmp_path / "cluster", nodes=1, replicas=1, quorum=1) as cluster:
        disk = disks(cluster.root / "disk", 48)
        root = disk.path / "one"
        a = cluster.first_device("laptop")
        a.add(root, "work")
        write_files(root / "kept", 1, 20, 2_000)
        write_files(root / "old", 2, 12, MIB)
        a.sync()
        a.kin("snapshot", "create", "work", "then")
        then = dict(tree_of(root))
        for number in range(0, 12, 2):
            (root / "old" / f"2-{number}").unlink()
        for number in range(1, 12, 2):
            (root / "old" / f"2-{number}").write_bytes(b"smaller")
        a.sync()
        now = dict(tree_of(root))
        disk.fill(left=4 * MIB)
        error = fails(a, "restore", str(root), "--snapshot", "then")
        assert error.code == 1
        assert "room" in error.output
        assert "nothing was changed" in error.output
        assert len(error.output.strip().splitlines()) == 1, error.output
        assert dict(tree_of(root)) == now
        a.sync()
        assert dict(tree_of(root)) == now
        disk.relieve()
        a.kin("restore", str(root), "--snapshot", "then")
        assert dict(tree_of(root)) == then
        a.sync()


def test_a_disk_is_full_in_the_middle_of_an_undo(tmp_path: Path, disks: Callable[[Path, int], Disk]) -> None:
    """What fits comes back, the rest is named; with room again the rest comes, too, and nothing is removed elsewhere."""
    with Cluster(tmp_path / "cluster", nodes=1, replicas=1, quorum=1) as cluster:
        disk = disks(cluster.root / "disk", 48)
        root, two = disk.path / "one", cluster.root / "two"
        a = cluster.first_device("laptop")
        a.add(root, "work")
        b = cluster.link_device(a, "desktop")
        write_files(root, 2, 12, MIB)
        a.sync()
        b.get("work", two)
        b.sync()
        then = dict(tree_of(root))
        removed = sorted(root.glob("2-*"))[:10]
        for path in removed:
            path.unlink()
        # What waits is dropped, and its files come as any others do.
        assert fails(a, "sync").code == 4
        disk.fill(left=4 * MIB)
        a.kin("undo", "work")
        error = fails(a, "sync")
        assert (error.code, "room" in error.output) == (4, True), error.output
        assert then.items() > dict(tree_of(root)).items()
        b.sync()
        assert dict(tree_of(two)) == then
        disk.relieve()
        a.sync()
        assert dict(tree_of(root)) == then
        # What had passed is reverted: that places files here, and must say what it could not place.
        for path in removed:
            path.unlink()
        assert fails(a, "sync").code == 4
        a.kin("approve", "work")
        a.sync()
        b.sync()
        assert len(dict(tree_of(two))) == 2
        disk.fill(left=4 * MIB)
        error = fails(a, "undo", "work")
        assert (error.code, "room" in error.output) == (4, True), error.output
        assert len(error.output.strip().splitlines()) == 1, error.output
        assert then.items() > dict(tree_of(root)).items()
        a.sync()
        b.sync()
        disk.relieve()
        a.kin("undo", "work")
        a.sync()
        b.sync()
        assert dict(tree_of(root)) == dict(tree_of(two)) == then
