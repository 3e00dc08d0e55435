"""A root that is missing, unmounted, emptied or replaced is never a removal: status says so, and it goes on by itself."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import pytest

from simulations.cases.state import rows_digest
from simulations.processes import Cluster, Device, tree_of
from tests.e2e.kit import agents, ask, assert_no_tracebacks, folder_of, run, settle, until, without_root_rights


class World(NamedTuple):
    cluster: Cluster
    a: Device
    b: Device
    one: Path
    two: Path


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    root = tmp_path_factory.mktemp("roots") / "cluster"
    with Cluster(root, nodes=1, replicas=1, quorum=1) as cluster:
        a = cluster.first_device("laptop")
        a.add(root / "one", "work")
        a.add(root / "else", "else")
        (root / "one" / "d").mkdir()
        for number in range(3):  # too few for the brake on mass changes
            (root / "one" / "d" / f"f{number}").write_text(f"content {number}")
        b = cluster.link_device(a, "desktop")
        a.sync()
        b.get("work", root / "two")
        with agents(root, a, b):
            settle(a, b)
            yield World(cluster, a, b, root / "one", root / "two")
    assert_no_tracebacks(cluster)


def moved_away(world: World) -> Callable[[], object]:
    kept = world.one.rename(world.one.with_name("kept"))
    return lambda: kept.rename(world.one)


def replaced(world: World) -> Callable[[], object]:
    put_back = moved_away(world)
    world.one.mkdir()
    (world.one / "somebody's").write_text("mine")

    def back() -> None:
        shutil.rmtree(world.one)
        put_back()

    return back


def replaced_by_another_folder(world: World) -> Callable[[], object]:
    put_back = moved_away(world)
    shutil.copytree(world.one.with_name("else"), world.one)

    def back() -> None:
        shutil.rmtree(world.one)
        put_back()

    return back


def emptied_with_its_marker(world: World) -> Callable[[], object]:
    """Under the agent's eyes: whoever deletes the marker, too, has not just tidied up."""
    shutil.copytree(world.one, kept := world.one.with_name("kept"))
    shutil.rmtree(world.one)
    world.one.mkdir()

    def back() -> None:
        world.one.rmdir()
        kept.rename(world.one)  # other inodes than before, as from a backup

    return back


def mounted_over(world: World) -> Callable[[], object]:
    """No watcher tells."""
    (empty := world.one.with_name("empty")).mkdir(exist_ok=True)
    done = shutil.which("mount") and subprocess.run(
        ["mount", "--bind", str(empty), str(world.one)], capture_output=True, check=False
    )
    if not done or done.returncode:
        pytest.skip("nothing can be mounted here")
    return lambda: subprocess.run(["umount", str(world.one)], check=True)


@pytest.mark.parametrize(
    ("take", "says"),
    [
        (moved_away, "is not there"),
        (replaced, "another directory"),
        (replaced_by_another_folder, "belongs to another folder"),
        (emptied_with_its_marker, "another directory"),
        (mounted_over, "another directory"),
    ],
)
def test_a_root_that_is_away_is_missing(world: World, take: Callable[[World], Callable[[], object]], says: str) -> None:
    before = dict(tree_of(world.one))
    put_back = take(world)
    try:
        folder = until(
            lambda: (found := folder_of(ask(world.a), "work"))["state"] == "missing" and found, "status says so"
        )
        assert says in folder["text"]
        assert "put it back" in folder["text"]
        assert ask(world.a, "wait", timeout=60)["exit"] == 4
        assert folder_of(ask(world.a), "else")["state"] == "in_sync"
        (world.two / f"by {take.__name__}").write_text("goes on elsewhere")
        settle(world.b)
    finally:
        put_back()
    settle(world.a, world.b)
    after = dict(tree_of(world.one))
    assert after == dict(tree_of(world.two)) == {**before, f"by {take.__name__}": b"goes on elsewhere"}


def test_an_unreadable_directory_is_kept_and_named(world: World) -> None:
    prefix = without_root_rights()
    if prefix is None:
        pytest.skip("nothing here takes root's rights away")
    before = dict(tree_of(world.one))
    world.a.stop()
    (world.one / "d").chmod(0)
    try:
        result = run(world.a, "sync", "--timeout", "60", prefix=prefix)
        assert (result.code, "work/d: cannot be read" in result.err) == (4, True), result
        settle(world.b)
        assert dict(tree_of(world.two)) == before
    finally:
        (world.one / "d").chmod(0o755)
    assert run(world.a, "sync", "--timeout", "60").code == 0
    settle(world.b)
    assert dict(tree_of(world.two)) == before == dict(tree_of(world.one))


def rows(device: Device) -> str:
    with closing(sqlite3.connect(f"file:{device.home / 'state.db'}?mode=ro", uri=True)) as database:
        return rows_digest(database)


def test_a_dry_run_names_everything_and_does_nothing(world: World) -> None:
    world.a.stop()
    world.b.stop()
    (world.one / "new").write_text("sent")
    (world.one / "d" / "f0").rename(world.one / "renamed")
    (world.one / "d" / "f1").unlink()
    (world.one / "d" / "f2").write_text("by the laptop")
    (world.two / "d" / "f2").write_text("by the desktop")
    (world.two / "other").write_text("fetched")
    (world.two / "d" / "f0").write_text("edited there")
    assert run(world.b, "sync", "--timeout", "60").code == 0
    before, there = dict(tree_of(world.one)), dict(tree_of(world.two))
    position = folder_of(world.b.json("status"), "work")["position"]
    known = rows(world.a)
    result = world.a.json("sync", "--dry-run")
    assert rows(world.a) == known
    (found,) = [folder for folder in result["folders"] if folder["name"] == "work"]
    assert [(line["path"], line["action"], line["direction"], line["to"]) for line in found["plan"]] == [
        ("d/f0", "rename", "up", "renamed"),
        ("d/f1", "remove", "up", None),
        ("d/f2", "conflict", "up", None),
        ("new", "send", "up", None),
        ("other", "fetch", "down", None),
    ]
    assert found["total"] == 5
    shown = run(world.a, "sync", "--dry-run")
    assert (shown.code, "rename elsewhere: d/f0 -> renamed" in shown.out) == (0, True), shown
    assert dict(tree_of(world.one)) == before
    assert run(world.b, "sync", "--timeout", "60").code == 0
    assert dict(tree_of(world.two)) == there
    assert folder_of(world.b.json("status"), "work")["position"] == position
    for device in (world.a, world.b, world.a):
        assert run(device, "sync", "--timeout", "60").code == 0
    after = dict(tree_of(world.one))
    assert after == dict(tree_of(world.two))
    assert (after["renamed"], after["other"], after["new"]) == (b"edited there", b"fetched", b"sent")
    assert {b"by the laptop", b"by the desktop"} <= set(after.values())
