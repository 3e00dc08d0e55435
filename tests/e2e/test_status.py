"""``kin status`` says for each file that is not in sync why, and commands end with the exit code that says how it went."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import stat
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from simulations.processes import Cluster, Device, Process, command, environment, tree_of
from tests.e2e.kit import (
    agents,
    ask,
    assert_no_tracebacks,
    by_servers_alone,
    folder_of,
    reasons,
    restart,
    run,
    run_command,
    settle,
    start_agent,
    until,
    without_root_rights,
)
from tests.e2e.worlds import World


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with Cluster(tmp_path_factory.mktemp("status") / "cluster") as cluster:
        a = cluster.first_device("laptop")
        check_a_folder_that_was_never_looked_at(cluster, a)
        b = cluster.link_device(a, "desktop")
        a.sync()
        b.get("work", cluster.root / "two")
        with agents(cluster.root, a, b):
            by_servers_alone(a, b)
            world = World(cluster, a, b, cluster.root / "one", cluster.root / "two")
            world.assert_same()
            yield world
    assert_no_tracebacks(cluster)


def check_a_folder_that_was_never_looked_at(cluster: Cluster, a: Device) -> None:
    """Right after ``kin add`` without an agent nothing was scanned, so nothing is in sync."""
    (cluster.root / "one").mkdir()
    (cluster.root / "one" / "first").write_text("first")
    a.add(cluster.root / "one", "work")
    state = json.loads(run(a, "status", "--json").out)
    assert state["in_sync"] is False
    folder = folder_of(state, "work")
    assert folder["state"] == "waiting"
    assert "not looked at yet" in folder["text"]
    assert state["agent"] == "stopped"
    for name in ("state.db", "state.db-wal"):
        path = a.home / name
        assert not path.exists() or stat.S_IMODE(path.stat().st_mode) == 0o600


@contextlib.contextmanager
def frozen(processes: list[Process]) -> Iterator[None]:
    """Stop processes as a hung machine would, without a word to anybody."""
    for process in processes:
        os.kill(process.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for process in processes:
            os.kill(process.pid, signal.SIGCONT)


def check_wait(device: Device, code: int, *named: str, timeout: str = "0.5") -> None:
    """``kin wait`` ends with this code and a line that names these."""
    result = run(device, "wait", "--timeout", timeout)
    assert result.code == code, result
    for name in named:
        assert name in result.err, result


# --- Reasons


def test_in_sync(world: World) -> None:
    state = ask(world.a)
    folder = folder_of(state, "work")
    assert state["in_sync"] is True
    assert (folder["state"], folder["text"], folder["unsynced_total"], folder["unsynced"]) == ("in_sync", "", 0, [])
    assert folder["held"] is None
    assert folder["position"]["applied"] == folder["position"]["head"] > 0
    assert state["storage"] == {"nodes": 3, "reachable": 3, "replicas": 3, "quorum": 2}
    assert run(world.a, "wait").code == 0
    assert "Everything is in sync" in run(world.a, "status").out


def unsynced(device: Device) -> list[dict[str, Any]]:
    """Return what a device says is not in sync in its folder."""
    rows: list[dict[str, Any]] = folder_of(ask(device), "work")["unsynced"]
    return rows


def test_offline(world: World) -> None:
    ask(world.a, "offline")
    try:
        (world.one / "while offline").write_text("x")
        (world.one / "first").rename(world.one / "renamed offline")
        (world.one / "empty").mkdir()
        waiting = dict.fromkeys(("while offline", "renamed offline", "empty"), "offline")
        until(lambda: reasons(world.a, "work") == waiting, "all of it waits for kin online")
        # While an entry is being signed, its items may look for a moment as if they came from elsewhere.
        until(lambda: {row["direction"] for row in unsynced(world.a)} == {"up"}, "all of it is to be sent")
        state = ask(world.a)
        assert state["network"] == "offline"
        assert folder_of(state, "work")["state"] == "waiting"
        rows = folder_of(state, "work")["unsynced"]
        assert all("kin online" in row["text"] for row in rows)
        result = run(world.a, "sync")
        assert (result.code, "kin online" in result.err) == (1, True)
        assert "while offline: " in run(world.a, "status").out
        # Another file arrives elsewhere meanwhile.
        (world.two / "from the other").write_text("y")
        settle(world.b)
    finally:
        ask(world.a, "online")
    assert "from the other" in world.assert_same()


def test_no_coordinator(world: World) -> None:
    world.cluster.coordinator.kill()
    try:
        (world.one / "without coordinator").write_bytes(os.urandom(1_000))
        until(lambda: reasons(world.a, "work") == {"without coordinator": "no_coordinator"}, "it says why")
        assert ask(world.a)["network"] == "unreachable"
        started = time.monotonic()
        listed = ask(world.a, "folders")["folders"]
        assert [folder["name"] for folder in listed] == ["work"]
        assert len(ask(world.a, "devices")["devices"]) == 2
        assert time.monotonic() - started < 5, "reports do not wait for who is away"
        check_wait(world.a, 3, "work/without coordinator: waits for the coordinator")
        # Nothing to send: the line says what is missing all the same.
        check_wait(world.b, 3, "cannot be reached")
        # And status says the same, and counts storage nodes itself.
        assert (ask(world.b)["in_sync"], folder_of(ask(world.b), "work")["state"]) == (False, "waiting")
        assert "cannot be reached" in folder_of(ask(world.b), "work")["text"]
        assert ask(world.b)["storage"]["reachable"] == 3
        world.cluster.nodes[0].kill()
        assert ask(world.b)["storage"]["reachable"] == 2
    finally:
        restart(world.cluster.coordinator)
        restart(world.cluster.nodes[0])
    world.assert_same()


def test_no_quorum(world: World) -> None:
    for node in world.cluster.nodes[:2]:
        node.kill()
    try:
        (world.one / "without quorum").write_bytes(os.urandom(1_000))
        (world.one / "needs no storage").write_bytes(b"")
        until(lambda: reasons(world.a, "work") == {"without quorum": "no_quorum"}, "it says why")
        until(lambda: ask(world.a)["storage"]["reachable"] == 1, "status counts the nodes")
        check_wait(world.a, 3, "work/without quorum: waits for storage")
    finally:
        for node in world.cluster.nodes[:2]:
            restart(node)
    world.assert_same()


def test_transferring_and_queued(world: World) -> None:
    size, count = 9 << 20, 10  # more than travel at once
    with frozen(world.cluster.nodes):
        for number in range(count):
            written = world.cluster.root / "written"  # outside, so that none is seen while it is being written
            written.write_bytes(random.Random(number).randbytes(64) * (size // 64))
            written.rename(world.one / f"large {number}")
        until(
            lambda: folder_of(ask(world.a), "work")["upload"] == {"files": count, "bytes": count * size},
            "all were seen",
        )
        until(
            lambda: set(reasons(world.a, "work").values()) == {"queued", "transferring"},
            "some are on their way, others wait for their turn",
        )
        folder = folder_of(ask(world.a), "work")
        assert folder["state"] == "working"
        assert {row["bytes"] for row in folder["unsynced"]} == {size}
    world.assert_same()
    for number in range(count):
        (world.one / f"large {number}").unlink()
    world.assert_same()


def test_no_source(world: World) -> None:
    ask(world.b, "offline")
    (world.one / "without source").write_bytes(os.urandom(100_000))
    settle(world.a)
    for node in world.cluster.nodes:
        node.kill()
    try:
        ask(world.b, "online")
        until(lambda: reasons(world.b, "work") == {"without source": "no_source"}, "it says why")
        row = folder_of(ask(world.b), "work")["unsynced"][0]
        assert (row["direction"], row["bytes"]) == ("down", 100_000)
        check_wait(world.b, 3, "work/without source: ")
    finally:
        for node in world.cluster.nodes:
            restart(node)
    world.assert_same()


def test_changing(world: World) -> None:
    """A file that is written all the time is named; once it rests it follows."""
    path = world.one / "restless"
    stop = threading.Event()

    def write() -> None:
        with open(path, "wb") as file:
            file.truncate(256 << 20)  # long to read, so that no look finds it at rest by chance
            while not stop.is_set():
                file.seek(0)
                file.write(os.urandom(64))
                file.flush()
            file.truncate(64)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        until(lambda: reasons(world.a, "work").get("restless") == "changing", "it is being written")
        check_wait(world.a, 3, "work/restless: is being written just now", timeout="2")
    finally:
        stop.set()
        writer.join()
    world.assert_same()
    path.unlink()
    world.assert_same()


def test_name_and_unreadable_and_read_only_need_a_person(world: World) -> None:
    prefix = without_root_rights()
    if prefix is None:
        pytest.skip("nothing here takes root's rights away")
    (world.two / "locked").mkdir()
    (world.two / "locked" / "inside").write_text("before")
    world.assert_same()
    world.b.stop()
    start_agent(world.b, world.cluster.root, prefix=prefix)
    try:
        os.mkfifo(world.two / "fifo")
        (world.two / "closed").write_text("x")
        (world.two / "closed").chmod(0)
        (world.two / "locked").chmod(0o555)
        (world.one / "locked" / "inside").write_text("edited elsewhere")
        settle(world.a)
        expected = {"fifo": "name", "closed": "unreadable", "locked/inside": "read_only"}
        until(lambda: reasons(world.b, "work") == expected, "each says why")
        result = run(world.b, "wait", "--timeout", "30")
        assert result.code == 4, result
        for path in expected:
            assert f"work/{path}: " in result.err
        assert (world.two / "locked" / "inside").read_text() == "before"
        shown = run(world.b, "status").out
        assert all(path in shown for path in expected)
    finally:
        (world.two / "fifo").unlink()
        (world.two / "closed").chmod(0o644)
        (world.two / "locked").chmod(0o755)
    world.assert_same()
    world.b.stop()
    start_agent(world.b, world.cluster.root)


def test_disk_full(world: World, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mounted = shutil.which("mount") and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "kinfolder-test", str(small)], capture_output=True, check=False
    )
    if not mounted or mounted.returncode:
        pytest.skip("no small disk can be mounted here")
    try:
        (world.one / "too large").write_bytes(os.urandom(3 << 20))
        (world.one / "fits").write_bytes(b"fits")
        settle(world.a)
        world.b.kin("remove", "work")
        world.b.get("work", small / "work")
        until(lambda: reasons(world.b, "work").get("too large") == "disk_full", "it says why")
        until((small / "work" / "fits").exists, "the rest goes on")
        check_wait(world.b, 4, "work/too large: waits for room on this disk", timeout="30")
        subprocess.run(["mount", "-o", "remount,size=64m", str(small)], check=True)
        settle(world.b)
        assert dict(tree_of(small / "work")) == dict(tree_of(world.one))
    finally:
        world.b.kin("remove", "work", check=False)
        subprocess.run(["umount", str(small)], check=True)
        shutil.rmtree(world.two)
        world.b.get("work", world.two)
    world.assert_same()


def test_more_rows_than_a_page(world: World) -> None:
    ask(world.a, "offline")
    try:
        (world.one / "many").mkdir()
        for number in range(1_050):
            (world.one / "many" / str(number)).write_bytes(b"%d" % number)
        until(lambda: folder_of(ask(world.a), "work")["unsynced_total"] == 1_051, "all are seen")
        folder = folder_of(json.loads(run(world.a, "status", "--json").out), "work")
        assert (folder["unsynced_total"], len(folder["unsynced"])) == (1_051, 1_000)
        folder = folder_of(json.loads(run(world.a, "status", "--json", "--all").out), "work")
        assert len(folder["unsynced"]) == 1_051
        lines = run(world.a, "status").out.splitlines()
        assert len(lines) < 40
        assert any("more (kin status --all)" in line for line in lines)
    finally:
        shutil.rmtree(world.one / "many")
        ask(world.a, "online")
    world.assert_same()


# --- A checkup


def checks_of(device: Device, code: int) -> dict[str, tuple[str, str]]:
    """Return what ``kin doctor`` found, by check: how bad it is, and what it says."""
    result = run(device, "doctor", "--json")
    told = json.loads(result.out)
    assert (result.code, told["exit"], told["ok"]) == (code, code, code == 0), told
    assert all(row["advice"] for row in told["checks"] if row["state"] != "ok")
    return {row["check"]: (row["state"], f"{row['text']}: {row['advice']}") for row in told["checks"]}


def test_a_checkup_names_what_is_wrong_and_what_to_do(world: World) -> None:
    names = ("home", "database", "keys", "agent", "coordinator", "clock", "storage", "folder work", "watching")
    found = checks_of(world.a, 0)
    assert {name: found[name][0] for name in names} == dict.fromkeys(names, "ok")
    link = world.a.home.with_name("home by a link")
    link.symlink_to(world.a.home)
    assert "others can read" not in run_command([*command("peer.cli", "--home", str(link), "doctor")]).text
    link.unlink()
    world.a.home.chmod(0o750)
    moved = world.one.rename(world.one.with_name("elsewhere"))
    world.cluster.coordinator.kill()
    try:
        until(lambda: folder_of(ask(world.a), "work")["state"] == "missing", "its directory is missed")
        found = checks_of(world.a, 1)
        assert found["home"] == ("wrong", f"others can read {world.a.home} (mode 750): chmod 700 {world.a.home}")
        assert found["coordinator"][0] == "wrong"
        assert found["folder work"][0] == "person"
    finally:
        restart(world.cluster.coordinator)
    until(lambda: run(world.b, "doctor").code == 0, "the storage nodes are back")
    world.a.home.chmod(0o700)
    world.a.stop()
    try:
        found = checks_of(world.a, 4)
        assert (found["agent"][0], found["coordinator"][0]) == ("note", "ok")
        assert "mount its disk" in found["folder work"][1]
        (world.a.home / "keys.plain").chmod(0o644)
        text = run(world.a, "doctor").out
        assert "chmod 600" in text
        (world.a.home / "keys.plain").chmod(0o600)
    finally:
        moved.rename(world.one)
        start_agent(world.a, world.cluster.root)
    world.assert_same()


# --- Exit codes


def test_commands_without_an_agent(world: World) -> None:
    """``wait`` waits ten seconds for an agent that may be starting, so both of its cases are tried at once."""
    world.b.stop()
    try:
        waits = [
            subprocess.Popen(
                [*command("peer.cli"), "--home", str(world.b.home), "wait", *more],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=environment(),
            )
            for more in ((), ("--json",))
        ]
        assert run(world.b, "stop").code == 5
        (world.one / "for a single pass").write_text("x")
        settle(world.a)
        assert run(world.b, "sync", "--timeout", "60").code == 0
        assert (world.two / "for a single pass").read_text() == "x"
        world.cluster.coordinator.kill()
        try:
            result = run(world.b, "sync")
            assert (result.code, "cannot be reached" in result.err) == (1, True), result
            result = run(world.b, "sync", "--timeout", "1")
            assert (result.code, "cannot be reached" in result.err) == (3, True), result
            assert "cannot be reached" not in run(world.b, "status").out
            assert run(world.b, "folders").code == 0
        finally:
            restart(world.cluster.coordinator)
        for waiting in waits:
            out, err = waiting.communicate(timeout=60)
            assert waiting.returncode == 5
            assert b"no agent" in out + err
        for later in (("unshare", "x"), ("recover", "x")):
            result = run(world.b, *later)
            assert (result.code, "not in this version" in result.err) == (2, True), result
    finally:
        start_agent(world.b, world.cluster.root)
    world.assert_same()
