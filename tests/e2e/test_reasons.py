"""Every reason of ``kin status`` is caused by real processes somewhere, and said; here are those that no other test is about."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from peer.engine.waiting import REASONS
from peer.reasons import TEXTS
from protocol import limits
from simulations.processes import Cluster
from tests.e2e.kit import (
    agents,
    ask,
    assert_no_tracebacks,
    by_servers_alone,
    folder_of,
    reasons,
    settle,
    start_agent,
    until,
)
from tests.e2e.worlds import World

STATUS = "test_status.py"
CAUSED = {
    "changing": (STATUS, "test_changing"),
    "queued": (STATUS, "test_transferring_and_queued"),
    "transferring": (STATUS, "test_transferring_and_queued"),
    "no_coordinator": (STATUS, "test_no_coordinator"),
    "no_quorum": (STATUS, "test_no_quorum"),
    "offline": (STATUS, "test_offline"),
    "no_source": (STATUS, "test_no_source"),
    "unreadable": (STATUS, "test_name_and_unreadable_and_read_only_need_a_person"),
    "name": (STATUS, "test_name_and_unreadable_and_read_only_need_a_person"),
    "read_only": (STATUS, "test_name_and_unreadable_and_read_only_need_a_person"),
    "disk_full": (STATUS, "test_disk_full"),
    "held": ("test_brake.py", "test_a_removal_found_at_the_start_waits_and_passes_once_approved"),
    "spool_full": (
        "test_spool.py",
        "test_a_full_spool_is_told_and_what_does_not_fit_follows_when_storage_is_back",
    ),
    "locked": ("test_reasons.py", "test_locked"),
    "error": ("test_reasons.py", "test_error"),
    "frozen": ("test_history.py", "test_two_histories_for_one_position_freeze_the_folder"),
}
"""Which test causes a reason and finds it in the status."""
NOT_IN_THIS_VERSION = {
    "quota": "accounts have no quota yet",
}


def test_every_reason_has_a_test_or_cannot_occur() -> None:
    assert set(CAUSED) | set(NOT_IN_THIS_VERSION) == REASONS == set(TEXTS)
    assert not set(CAUSED) & set(NOT_IN_THIS_VERSION)
    for reason, (file, test) in CAUSED.items():
        tree = ast.parse((Path(__file__).parent / file).read_text(encoding="utf-8"))
        (found,) = (node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == test)
        said = {node.value for node in ast.walk(found) if isinstance(node, ast.Constant)}
        assert reason in said, f"{file}::{test} does not look for {reason}"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with Cluster(tmp_path_factory.mktemp("reasons") / "cluster", nodes=1, replicas=1, quorum=1) as cluster:
        one, two = cluster.root / "one", cluster.root / "two"
        a = cluster.first_device("laptop")
        a.add(one, "work")
        b = cluster.link_device(a, "desktop")
        b.get("work", two)
        with agents(cluster.root, a, b):
            by_servers_alone(a, b)
            yield World(cluster, a, b, one, two)
    assert_no_tracebacks(cluster)


def test_locked(world: World) -> None:
    """What a program has open for writing is not taken from under it, neither replaced nor removed."""
    for name in ("edited", "removed", "free"):
        (world.one / name).write_text("before")
    world.assert_same()
    with open(world.two / "edited", "r+b") as one, open(world.two / "removed", "r+b") as two:
        (world.one / "edited").write_text("edited elsewhere")
        (world.one / "removed").unlink()
        (world.one / "free").write_text("edited, too")
        settle(world.a)
        until(lambda: reasons(world.b, "work") == {"edited": "locked", "removed": "locked"}, "both are in use")
        rows = folder_of(ask(world.b), "work")["unsynced"]
        assert {(row["direction"], row["text"]) for row in rows} == {("down", TEXTS["locked"])}
        assert one.read() == two.read() == b"before"
        assert (world.two / "edited").read_text() == (world.two / "removed").read_text() == "before"
        assert (world.two / "free").read_text() == "edited, too"
    assert world.assert_same()["edited"] == b"edited elsewhere"
    assert not (world.two / "removed").exists()


def test_error(world: World) -> None:
    """What no other reason names: here files larger than the agent may write."""
    most = 16 * limits.MIB
    limited = (
        "import os, resource, sys\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({most}, {most}))\n"
        "os.execv(sys.argv[1], sys.argv[1:])"
    )
    world.b.stop()
    start_agent(world.b, world.cluster.root, prefix=(sys.executable, "-c", limited))
    try:
        with open(world.one / "too large for it", "wb") as file:
            file.truncate(most + 1)
        (world.one / "small").write_text("small")
        settle(world.a)
        until(lambda: reasons(world.b, "work") == {"too large for it": "error"}, "it says that something is wrong")
        until((world.two / "small").exists, "the rest goes on")
        assert not (world.two / "too large for it").exists()
    finally:
        world.b.stop()
        start_agent(world.b, world.cluster.root)
    assert len(world.assert_same()["too large for it"]) == most + 1
    (world.one / "too large for it").unlink()
