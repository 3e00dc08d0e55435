"""A home set back to a backup, with files of any age: it removes nothing and replaces nothing anywhere else."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from simulations.processes import Cluster, Device, tree_of

FILES = 6  # too few for the brake on mass changes


class World(NamedTuple):
    a: Device
    b: Device
    one: Path
    two: Path
    backup: Path
    """Where this test may keep something."""


@pytest.fixture(scope="module")
def devices(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Device, Device]]:
    with Cluster(tmp_path_factory.mktemp("restored") / "cluster", nodes=1, replicas=1, quorum=1) as cluster:
        a = cluster.first_device("laptop")
        yield a, cluster.link_device(a, "desktop")


@pytest.fixture
def world(devices: tuple[Device, Device], tmp_path: Path) -> World:
    """A folder of this test's own, on both devices."""
    a, b = devices
    world = World(a, b, tmp_path / "one", tmp_path / "two", tmp_path / "backup")
    a.add(world.one, tmp_path.name)
    for number in range(FILES):
        (world.one / f"f{number}").write_text(f"first {number}")
    a.sync()
    b.get(tmp_path.name, world.two)
    b.sync()
    return world


def set_back(path: Path, backup: Path) -> None:
    shutil.rmtree(path)
    shutil.copytree(backup, path, symlinks=True)


def test_files_that_are_gone_come_back_as_the_folder_has_them(world: World) -> None:
    a, b, one, two, backup = world
    shutil.copytree(a.home, backup)
    (one / "f0").write_text("second 0")
    (one / "f1").unlink()
    (one / "new").write_text("new")
    a.sync()
    (two / "f2").unlink()
    (two / "f3").write_text("third 3")
    b.sync()
    newest = dict(tree_of(two))
    set_back(a.home, backup)
    for path in one.glob("*"):
        if path.name not in {".kinfolder", "f2"}:
            path.unlink()
    (one / "f4").write_text("unsent 4")
    a.sync()
    tree = dict(tree_of(one))
    (copy,) = [path for path in tree if "conflict" in path]
    assert tree.pop(copy) == b"unsent 4"
    assert tree == newest  # f2, which stood here as it was, went; all that was gone is back
    b.sync()
    assert dict(tree_of(two)) == dict(tree_of(one))


def test_older_files_stand_beside_the_newer_ones(world: World) -> None:
    a, b, one, two, backup = world
    shutil.copytree(one, files := one.parent / "files", symlinks=True)
    (one / "f0").write_text("second 0")
    (one / "made").write_text("made")
    a.sync()
    shutil.copytree(a.home, backup)
    (one / "f1").write_text("second 1")
    a.sync()
    b.sync()
    newest = dict(tree_of(two))
    set_back(a.home, backup)
    set_back(one, files)
    a.sync()
    b.sync()
    tree = dict(tree_of(two))
    (copy,) = [path for path in tree if "conflict" in path]
    assert tree.pop(copy) == b"first 0"
    assert tree == newest
    a.sync()
    assert dict(tree_of(one)) == dict(tree_of(two))


def test_nothing_is_removed_while_the_coordinator_is_away(world: World) -> None:
    """What was recorded before the device knew that it was set back is dropped."""
    a, b, one, two, backup = world
    shutil.copytree(a.home, backup)
    (one / "later").write_text("later")
    a.sync()
    b.sync()
    newest = dict(tree_of(two))
    set_back(a.home, backup)
    (one / "f0").unlink()
    (one / "f1").unlink()
    a.kin("offline")
    a.start()
    try:
        a.kin("sync", check=False)
    finally:
        a.kin("online")
    a.wait()
    a.stop()
    b.sync()
    assert dict(tree_of(two)) == newest == dict(tree_of(one))
