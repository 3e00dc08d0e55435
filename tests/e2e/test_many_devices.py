"""Several devices and folders, devices that join with files, nodes that come back."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from simulations.processes import Cluster, Device, tree_of

SETTLE_S = 60.0


def until(condition: Callable[[], bool], what: str) -> None:
    """Wait for a condition that other processes bring about."""
    deadline = time.monotonic() + SETTLE_S
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)  # between two looks at other processes


def test_five_devices_converge_while_all_are_on(cluster: Cluster) -> None:
    devices = [cluster.first_device("d0")]
    devices[0].add(cluster.root / "r0", "work")
    devices[0].sync()
    for number in range(1, 5):
        device = cluster.link_device(devices[0], f"d{number}")
        device.get("work", cluster.root / f"r{number}")
        devices.append(device)
    for device in devices:
        device.start()
    for number in range(5):
        (cluster.root / f"r{number}" / f"by-{number}").write_text(f"{number}\n")
        (cluster.root / f"r{number}" / "shared").write_text(f"shared by {number}\n")
    trees: list[dict[str, bytes]] = []

    def equal() -> bool:
        for device in devices:
            device.wait()
        trees[:] = [dict(tree_of(cluster.root / f"r{number}")) for number in range(5)]
        return all(tree == trees[0] for tree in trees)

    until(equal, f"the trees differ: {trees}")
    assert {f"by-{number}" for number in range(5)} <= set(trees[0])
    assert sorted(v for k, v in trees[0].items() if k.startswith("shared")) == [
        f"shared by {number}\n".encode() for number in range(5)
    ]


def test_a_device_that_joins_with_the_files_sends_and_fetches_nothing(
    cluster: Cluster, pair: tuple[Device, Device]
) -> None:
    a, b = pair
    one, three = cluster.root / "one", cluster.root / "three"
    (one / "d").mkdir()
    for number in range(20):
        (one / "d" / f"f{number}").write_text(f"content {number}\n")
        (three / "d").mkdir(parents=True, exist_ok=True)
        (three / "d" / f"f{number}").write_text(f"content {number}\n")
    (three / "d" / "f3").write_text("another content\n")
    (three / "only here").write_text("new\n")
    a.sync()
    b.kin("remove", "work")
    b.get("work", three)
    b.sync()
    a.sync()
    assert dict(tree_of(one)) == dict(tree_of(three))
    tree = dict(tree_of(one))
    assert tree["d/f3"] == b"content 3\n"
    copies = [name for name in tree if "(conflict, desktop" in name]
    assert [tree[name] for name in copies] == [b"another content\n"]
    assert tree["only here"] == b"new\n"
    assert len(tree) == 1 + 20 + 2


def test_a_removed_directory_of_many_files_goes_as_one(cluster: Cluster, pair: tuple[Device, Device]) -> None:
    a, b = pair
    one, two = cluster.root / "one", cluster.root / "two"
    (one / "big" / "sub").mkdir(parents=True)
    for number in range(1_200):
        (one / "big" / ("sub" if number % 2 else ".") / f"f{number}").write_text(f"{number}")
    (one / "keep").write_text("keep")
    a.sync()
    b.sync()
    assert len(dict(tree_of(two))) == 1_200 + 3
    for path in sorted((one / "big").rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    (one / "big").rmdir()
    a.kin("sync", check=False)  # nobody saw them go
    a.kin("approve", "work")
    a.sync()
    b.sync()
    assert dict(tree_of(two)) == {"keep": b"keep"}


def test_two_folders_do_not_mix(cluster: Cluster, pair: tuple[Device, Device]) -> None:
    a, b = pair
    (cluster.root / "one" / "x").write_text("work")
    a.add(cluster.root / "private", "private")
    (cluster.root / "private" / "x").write_text("private")
    a.sync()
    b.sync()
    assert dict(tree_of(cluster.root / "two")) == {"x": b"work"}
    b.get("private", cluster.root / "private2")
    b.sync()
    assert dict(tree_of(cluster.root / "private2")) == {"x": b"private"}
    assert [row["name"] for row in b.json("folders")["folders"]] == ["private", "work"]


def test_a_missed_replica_is_made_up_for(cluster: Cluster, pair: tuple[Device, Device]) -> None:
    a, b = pair
    one, two = cluster.root / "one", cluster.root / "two"
    gone = cluster.nodes[2]
    gone.stop()
    (one / "file").write_bytes(b"written while a node was away\n" * 1_000)
    a.sync()
    gone.start()
    expected = stored(cluster, 1)

    def replicated() -> bool:
        return stored(cluster, 3) >= expected

    until(replicated, f"{stored(cluster, 3)} of {expected} bytes are on the third node")
    cluster.nodes[0].kill()
    cluster.nodes[1].kill()
    b.sync()
    assert (two / "file").read_bytes() == (one / "file").read_bytes()


def stored(cluster: Cluster, number: int) -> int:
    """Return how many bytes of chunks a node's packs hold."""
    packs: Path = cluster.root / f"node{number}" / "packs"
    return sum(path.stat().st_size for path in packs.iterdir() if path.is_file())
