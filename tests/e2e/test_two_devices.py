"""Two devices that are never on together keep one folder the same."""

from __future__ import annotations

import os
import random
from pathlib import Path

from simulations.processes import Cluster, Device, tree_of


def roots(cluster: Cluster) -> tuple[Path, Path]:
    return cluster.root / "one", cluster.root / "two"


def assert_same(cluster: Cluster) -> dict[str, bytes]:
    one, two = (dict(tree_of(root)) for root in roots(cluster))
    assert one == two
    return one


def test_a_file_arrives_with_its_bytes_time_and_executable_bit(cluster: Cluster, pair: tuple[Device, Device]) -> None:
    a, b = pair
    one, two = roots(cluster)
    (one / "deep" / "er").mkdir(parents=True)
    script = one / "deep" / "er" / "run.sh"
    script.write_bytes(b"#!/bin/sh\necho hello\n")
    script.chmod(0o755)
    os.utime(script, ns=(1_600_000_000_123_456_789, 1_600_000_000_123_456_789))
    (one / "empty").mkdir()
    (one / "nothing").write_bytes(b"")
    (one / "link").symlink_to("deep/er/run.sh")
    a.sync()
    b.sync()
    assert_same(cluster)
    arrived = two / "deep" / "er" / "run.sh"
    assert arrived.stat().st_mtime_ns == 1_600_000_000_123_456_789
    assert arrived.stat().st_mode & 0o111
    assert os.readlink(two / "link") == "deep/er/run.sh"


def test_edits_renames_and_removals_travel_both_ways(cluster: Cluster, pair: tuple[Device, Device]) -> None:
    a, b = pair
    one, two = roots(cluster)
    for name in ("keep", "edit", "remove", "rename"):
        (one / name).write_text(f"{name} 1\n")
    (one / "dir").mkdir()
    (one / "dir" / "child").write_text("child\n")
    a.sync()
    b.sync()
    assert_same(cluster)
    (two / "edit").write_text("edited on the other device\n")
    (two / "remove").unlink()
    (two / "rename").rename(two / "renamed")
    (two / "dir").rename(two / "moved")
    b.sync()
    a.sync()
    tree = assert_same(cluster)
    assert tree["edit"] == b"edited on the other device\n"
    assert set(tree) == {"keep", "edit", "renamed", "moved", "moved/child"}


def test_edits_on_both_sides_are_both_kept(cluster: Cluster, pair: tuple[Device, Device]) -> None:
    a, b = pair
    one, two = roots(cluster)
    (one / "notes.txt").write_text("first\n")
    a.sync()
    b.sync()
    (one / "notes.txt").write_text("by the laptop\n")
    (two / "notes.txt").write_text("by the desktop\n")
    a.sync()
    b.sync()
    a.sync()
    tree = assert_same(cluster)
    assert sorted(tree.values()) == [b"by the desktop\n", b"by the laptop\n"]
    copies = [name for name in tree if name != "notes.txt"]
    assert len(copies) == 1
    assert copies[0].startswith("notes (conflict, desktop, ")
    assert [row["copy"] for row in a.json("conflicts")["conflicts"]] == copies


def test_random_trees_converge(cluster: Cluster, pair: tuple[Device, Device]) -> None:
    chance = random.Random(11)
    a, b = pair
    for turn in range(6):
        for root in roots(cluster):
            change(root, chance, turn)
        for device in (a, b, a) if turn % 2 else (b, a, b):
            device.sync()
        assert_same(cluster)


def change(root: Path, chance: random.Random, turn: int) -> None:
    for number in range(12):
        paths = sorted(p for p in root.rglob("*") if ".kinfolder" not in p.parts)
        files = [p for p in paths if p.is_file()]
        folders = [root, *(p for p in paths if p.is_dir())]
        match chance.choice(["new", "new", "edit", "remove", "move", "mkdir", "movedir"]):
            case "new":
                (chance.choice(folders) / f"f{turn}{number}{root.name}").write_bytes(chance.randbytes(2000))
            case "edit" if files:
                chance.choice(files).write_bytes(chance.randbytes(3000))
            case "remove" if files:
                chance.choice(files).unlink()
            case "move" if files:
                target = chance.choice(folders) / f"m{turn}{number}{root.name}"
                chance.choice(files).rename(target)
            case "mkdir":
                (chance.choice(folders) / f"d{turn}{number}{root.name}").mkdir()
            case "movedir" if len(folders) > 2:
                source, target = chance.choice(folders[1:]), chance.choice(folders)
                if target != source and source not in target.parents:
                    source.rename(target / f"e{turn}{number}{root.name}")
            case _:
                pass
