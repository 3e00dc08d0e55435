"""A full disk at each place that the LAN, the past and the safety nets write to, under agents that are never restarted.

One line says what is full and what to do, nothing is lost, and what waits is done once there is room again. Each disk is a
small tmpfs, so these need root. What single commands do on a full disk is in ``test_full_disks.py``.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

import pytest

from simulations.processes import Cluster, Device, tree_of
from tests.e2e import kit
from tests.e2e.disks import MIB, Disk

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small tmpfs")


ROOM_HERE = "room on this disk: free some space"
STATE_IS_FULL = "the disk that holds Kinfolder's state is full: free some space"


class World:
    """Two devices with agents, and a disk for each place."""

    def __init__(self, cluster: Cluster, stack: contextlib.ExitStack) -> None:
        def disk(name: str, mib: int) -> Disk:
            return stack.enter_context(Disk(cluster.root / name, mib))

        self.cluster = cluster
        self.coordinator, self.node = disk("coordinator", 24), disk("node1", 48)
        stack.enter_context(cluster)
        self.home, self.home_b = disk("home-laptop", 48), disk("home-desktop", 48)
        self.a = cluster.first_device("laptop")
        self.b = cluster.link_device(self.a, "desktop")
        self.spool, self.disk = disk("home-laptop/spool", 48), disk("disk", 48)
        self.one, self.two = cluster.root / "one", self.disk.path / "two"
        self.a.add(self.one, "work")
        for number in range(40):
            (self.one / f"f{number}").write_bytes(b"%d" % number * 500)
        self.a.sync()
        self.b.get("work", self.two)
        for device in (self.a, self.b):
            kit.start_agent(device, cluster.root)
            stack.callback(device.stop)
        self.settle()

    def settle(self) -> dict[str, bytes]:
        kit.settle(self.a, self.b)
        one, two = dict(tree_of(self.one)), dict(tree_of(self.two))
        assert one == two
        return one

    @contextlib.contextmanager
    def full(self, disk: Disk, left: int = 0) -> Iterator[None]:
        disk.fill(left)
        try:
            yield
        finally:
            disk.relieve()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with contextlib.ExitStack() as stack:
        cluster = Cluster(tmp_path_factory.mktemp("room") / "cluster", nodes=1, replicas=1, quorum=1)
        made = World(cluster, stack)
        yield made
        kit.assert_no_tracebacks(cluster)


def waits(device: Device, path: str, reason: str, words: str = "") -> None:
    """Wait until a path waits for this reason, in these words."""

    def look() -> Any:
        rows = {row["path"]: row for row in kit.folder_of(kit.ask(device), "work")["unsynced"]}
        return rows.get(path, {}).get("reason") == reason and words in rows[path]["text"]

    kit.until(look, f"{path} says {reason}: {words}")


def asked_and_refused(device: Device, *args: str, code: int = 1) -> str:
    """Run a command that must end in one line."""
    result = kit.run(device, *args)
    assert (result.code, result.out, len(result.err.strip().splitlines())) == (code, "", 1), result
    return result.err


def test_the_spool_has_no_room(world: World) -> None:
    """What storage does not take is not signed either; with room again it is, though storage is still away."""
    w = world
    w.cluster.nodes[0].kill()
    try:
        with w.full(w.spool):
            (w.one / "large").write_bytes(os.urandom(3 * MIB))
            (w.one / "small").write_bytes(b"small")
            for path in ("large", "small"):
                waits(w.a, path, "spool_full", "no room on this disk until then: free some space")
        waits(w.a, "large", "no_quorum")
    finally:
        w.cluster.nodes[0].start()
    assert len(w.settle()["large"]) == 3 * MIB


def test_a_download_has_no_room_and_leaves_nothing_under_its_name(world: World) -> None:
    w = world
    with w.full(w.disk, left=MIB):
        (w.one / "stage").write_bytes(os.urandom(5 * MIB))
        (w.one / "f0").write_bytes(os.urandom(2 * MIB))
        (w.one / "fits").write_bytes(b"fits")
        for path in ("stage", "f0"):
            waits(w.b, path, "disk_full", ROOM_HERE)
        kit.until((w.two / "fits").exists, "what fits arrives")
        assert not (w.two / "stage").exists()
        assert (w.two / "f0").read_bytes() == b"0" * 500
        assert "work/f0: " in kit.run(w.b, "wait", "--timeout", "20").err
    w.settle()


@pytest.mark.parametrize("what", ["bytes", "names"])
def test_the_trash_takes_what_is_removed_where_nothing_more_fits(world: World, what: str) -> None:
    """A removal is how room is made: it needs none, not even a name. An edit waits, and the old bytes stay."""
    w = world
    (w.disk.fill if what == "bytes" else w.disk.fill_names)()
    try:
        gone, moved, edited = (f"f{number + (10 if what == 'names' else 0)}" for number in (1, 2, 3))
        (w.one / gone).unlink()
        (w.one / moved).rename(w.one / f"moved {what}")
        (w.one / edited).write_bytes(b"edited" * 1_000)
        waits(w.b, edited, "disk_full", ROOM_HERE)
        kit.until(lambda: not (w.two / gone).exists() and (w.two / f"moved {what}").exists(), "it goes and it moves")
        assert len((w.two / edited).read_bytes()) == 500 * len(edited[1:])
    finally:
        w.disk.relieve()
        w.disk.relieve_names()
    w.settle()


def test_a_snapshot_has_no_room(world: World) -> None:
    w = world
    with w.full(w.home):
        assert STATE_IS_FULL in asked_and_refused(w.a, "snapshot", "create", "work", "then")
        assert kit.ask(w.a, "snapshots", folder="work")["snapshots"] == []
    kit.ask(w.a, "snapshot", folder="work", name="then")
    w.settle()
    assert [one["name"] for one in kit.ask(w.b, "snapshots", folder="work")["snapshots"]] == ["then"]


def test_freeing_has_no_room_for_its_note_and_needs_none_for_files(world: World) -> None:
    """Without its note nothing is taken off the disk; getting it back waits for room, and comes whole."""
    w = world
    (w.one / "V").mkdir()
    for number in range(5):
        (w.one / "V" / f"{number}").write_bytes(os.urandom(200_000))
    then = w.settle()
    with w.full(w.home_b):
        assert STATE_IS_FULL in asked_and_refused(w.b, "exclude", str(w.two / "V"), "--free")
        assert kit.folder_of(kit.ask(w.b), "work")["excluded"] == []
        assert len(os.listdir(w.two / "V")) == 5
    with w.full(w.disk):
        freed = kit.ask(w.b, "exclude", path=str(w.two / "V"), remove=False, free=True)["freed"]
        assert (freed["files"], freed["left"], (w.two / "V").exists()) == (5, [], False)
        w.disk.fill()
        kit.ask(w.b, "exclude", path=str(w.two / "V"), remove=True, free=False)
        waits(w.b, "V/4", "disk_full", ROOM_HERE)
    assert w.settle() == then


def test_the_agent_s_database_has_no_room(world: World) -> None:
    """Neither what was changed here nor what comes from elsewhere is lost, and ``wait`` does not wait for ever."""
    w = world
    with w.full(w.home), w.full(w.home_b):
        for number in range(50):
            (w.one / f"here {number}").write_bytes(b"%d" % number)
            (w.two / f"there {number}").write_bytes(b"%d" % number)
        for device in (w.a, w.b):
            kit.until(
                lambda device=device: kit.folder_of(kit.ask(device), "work")["text"] == STATE_IS_FULL,  # type: ignore[misc]
                "the person is told",
            )
            assert f"work: {STATE_IS_FULL}" in asked_and_refused(device, "wait", code=4)
    assert {f"{where} {number}" for where in ("here", "there") for number in range(50)} < w.settle().keys()


def test_a_storage_node_has_no_room(world: World) -> None:
    w = world
    with w.full(w.node):
        (w.one / "packed").write_bytes(os.urandom(3 * MIB))
        waits(w.a, "packed", "no_quorum", "1 without room, which takes a larger disk or another node")
    w.settle()


def test_the_coordinator_s_database_has_no_room(world: World) -> None:
    """It says so itself, in its log too; what was signed meanwhile is ordered once there is room."""
    w = world
    with w.full(w.coordinator):
        for number in range(100):
            (w.one / f"ordered {number}").write_bytes(b"%d" % number)
        for path in ("ordered 0", "ordered 99"):
            waits(w.a, path, "no_coordinator", "waits for the coordinator: the coordinator's disk is full")
    w.settle()
    told = (w.cluster.root / "coordinator.log").read_text()
    assert told.count("the disk is full") == told.count("there is room again") > 0
