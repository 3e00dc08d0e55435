"""A storage node is taken out of service, switched off and deleted, and a fresh device reads everything."""

from __future__ import annotations

import json
import random
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

from simulations.processes import Cluster, Process, command, environment, tree_of
from tests.e2e.kit import Result, assert_no_tracebacks, run_command, until

FILES = 12
BYTES = 60_000


def coordinator(cluster: Cluster, *words: str) -> list[str]:
    verb, *rest = words
    return command("coordinator.cli", verb, "--data", str(cluster.root / "coordinator"), *rest)


def retire(cluster: Cluster, node: str, *words: str) -> Result:
    return run_command(coordinator(cluster, "retire", node, *words))


def row_of(cluster: Cluster, process: Process) -> Any:
    rows = json.loads(run_command(coordinator(cluster, "nodes", "--json")).out)["nodes"]
    return next(row for row in rows if row["url"] == process.url)


def holds(cluster: Cluster, number: int) -> bool:
    packs = cluster.root / f"node{number + 1}" / "packs"
    return sum(path.stat().st_size for path in packs.iterdir()) > FILES * BYTES


def write_files(root: Path) -> dict[str, bytes]:
    chance = random.Random(7)
    for number in range(FILES):
        (root / f"{number}.bin").write_bytes(chance.randbytes(BYTES))
    return dict(tree_of(root))


def test_a_retired_node_is_deleted_and_a_fresh_device_reads_everything(tmp_path: Path) -> None:
    with Cluster(tmp_path / "cluster", nodes=3, replicas=2, quorum=2) as cluster:
        laptop = cluster.first_device("laptop")
        laptop.add(cluster.root / "one", "work")
        files = write_files(cluster.root / "one")
        laptop.sync()
        held = [holds(cluster, number) for number in range(3)]
        assert sorted(held) == [False, True, True]
        victim, spare = cluster.nodes[held.index(True)], cluster.nodes[held.index(False)]
        node = row_of(cluster, victim)["id"]

        # While the only one that could take over is away it waits, and says so however it ends.
        spare.stop()
        done = retire(cluster, node[:8], "--timeout", "1")
        assert (done.code, done.out) == (3, "")
        assert "time is over: retiring" in done.err
        row = until(lambda: (row := row_of(cluster, victim))["left"] and row, "it was counted")
        assert (row["state"], row["online"], row["retired"]) == ("retiring", True, None)
        assert row["left"]["chunks"] >= FILES
        assert row["left"]["bytes"] > FILES * BYTES
        assert f"retiring: {row['left']['chunks']} chunks" in run_command(coordinator(cluster, "nodes")).out
        interrupt(cluster, node)

        # The coordinator remembers it, whatever becomes of it.
        cluster.coordinator.kill()
        cluster.coordinator.start()
        spare.start()
        done = retire(cluster, node, "--json")
        assert (done.code, done.err) == (0, "")
        told = json.loads(done.out)
        assert (told["version"], told["node"], told["state"]) == (1, node, "retired")
        row = row_of(cluster, victim)
        assert (row["state"], row["online"], row["left"], row["retired"]) == ("retired", False, None, told["retired"])

        log = cluster.root / f"node{held.index(True) + 1}.log"
        until(lambda: "this node was retired" in log.read_text(), "the node was told")
        victim.stop()
        shutil.rmtree(cluster.root / f"node{held.index(True) + 1}")
        desktop = cluster.link_device(laptop, "desktop")
        desktop.get("work", cluster.root / "two")
        desktop.sync()
        assert dict(tree_of(cluster.root / "two")) == files

        # All goes on with those that are left.
        (cluster.root / "two" / "new").write_bytes(b"new")
        desktop.sync()
        assert_no_tracebacks(cluster)


def interrupt(cluster: Cluster, node: str) -> None:
    child = subprocess.Popen(
        coordinator(cluster, "retire", node),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    try:
        assert child.stderr is not None
        assert child.stderr.readline().startswith(f"retiring {node[:16]}: ")
        child.send_signal(signal.SIGINT)
        out, err = child.communicate(timeout=20)
    finally:
        child.kill()
    assert (child.returncode, out) == (130, "")
    assert err.splitlines()[-1].startswith("kin-coordinator: interrupted; the coordinator goes on")
    assert "Traceback" not in err


def test_the_last_node_cannot_go_nor_one_that_there_is_not(tmp_path: Path) -> None:
    with Cluster(tmp_path / "cluster", nodes=1, replicas=1, quorum=1) as cluster:
        row = row_of(cluster, cluster.nodes[0])
        done = retire(cluster, row["id"])
        assert (done.code, done.out, done.err.count("\n")) == (1, "", 1)
        assert (
            f"{row['id'][:16]} cannot go: 1 copy takes 1 other storage node, and there are 0: add 1 first" in done.err
        )
        done = retire(cluster, row["id"], "--json")
        assert (done.code, done.err) == (1, "")
        assert json.loads(done.out)["error"]["code"] == "nodes"
        done = retire(cluster, "ffff0000")
        assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
        assert f"there is no storage node ffff0000; there are {row['id'][:16]} ({row['url']})" in done.err
        assert row_of(cluster, cluster.nodes[0])["state"] == "in_service"
