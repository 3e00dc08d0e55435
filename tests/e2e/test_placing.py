"""``kill -9`` after files were put in place and before that was recorded: what another device does meanwhile still counts.

The instant is not left to chance: the test waits until the first new name stands, and kills at once. That it came between
the two is seen from the journal, in which the group's intents still stand; if not, it tries once more.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from peer.store.home import DATABASE
from protocol.errors import EXIT_NEEDS_PERSON
from simulations.processes import Cluster, CommandError, Device, tree_of

FILES = 240
TRIES = 12
DEADLINE_LOOKS = 4_000_000


class World(NamedTuple):
    a: Device
    b: Device
    one: Path
    two: Path


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with Cluster(tmp_path_factory.mktemp("placing") / "cluster", nodes=1, replicas=1, quorum=1) as cluster:
        a = cluster.first_device("laptop")
        b = cluster.link_device(a, "desktop")
        a.add(cluster.root / "one", "work")
        a.sync()
        b.get("work", cluster.root / "two")
        b.sync()
        yield World(a, b, cluster.root / "one", cluster.root / "two")


def killed_at(device: Device, is_time: Callable[[], bool]) -> None:
    """Begin ``kin sync`` and kill it the moment that something is so."""
    child = device.spawn("sync")
    try:
        for _ in range(DEADLINE_LOOKS):
            if is_time() or child.poll() is not None:
                break
    finally:
        child.kill()
        child.wait()


def send(device: Device) -> None:
    """Sync, and let pass what waits for a person: most files of a small folder are changed here."""
    try:
        device.sync()
    except CommandError as error:
        if error.code != EXIT_NEEDS_PERSON:
            raise
        device.kin("approve", "work")
        device.sync()


def unrecorded(device: Device) -> int:
    """Return how many things may stand on the disk that no row of a tree knows, as the journal has it."""
    with sqlite3.connect(device.home / DATABASE) as db:
        return int(db.execute("SELECT count(*) FROM intent").fetchone()[0])


def caught(device: Device, root: Path, again: Callable[[int], None], is_time: Callable[[int], bool]) -> int:
    """Kill a device in the window between disk and database; return in which of the tries it was met.

    Args:
        device: The one to kill.
        root: Of its folder.
        again: Makes on the other device what is to arrive here, for each try anew.
        is_time: Whether the first of it has arrived.
    """
    for turn in range(TRIES):
        again(turn)
        killed_at(device, lambda turn=turn: is_time(turn))  # type: ignore[misc]
        if unrecorded(device):
            return turn
        device.sync()
    raise AssertionError("the window was never met")


def assert_same(a: Device, b: Device, one: Path, two: Path) -> dict[str, bytes]:
    for device in (b, a, b):
        device.sync()
    here, there = dict(tree_of(one)), dict(tree_of(two))
    assert here == there, sorted(path for path in {*here, *there} if here.get(path) != there.get(path))
    assert not a.json("conflicts")["conflicts"]
    return here


def test_new_files_that_nobody_noted_are_neither_brought_back_nor_doubled(world: World) -> None:
    """Of files placed and not recorded some are removed, edited and renamed elsewhere: that is what both end with."""
    a, b, one, two = world

    def write(turn: int) -> None:
        for number in range(FILES):
            below = one / f"{turn}" / f"{number % 5}"
            below.mkdir(parents=True, exist_ok=True)
            (below / f"{number}").write_bytes(f"{turn} {number}".encode() * (1 + number))
        send(a)

    def is_time(turn: int) -> bool:
        return any(os.path.lexists(two / f"{turn}" / f"{number}" / f"{number}") for number in range(5))

    turn = caught(b, two, write, is_time)
    there = [path for path, data in tree_of(two / f"{turn}") if data != b"<dir>"]
    assert there
    for number in range(FILES):
        path = one / f"{turn}" / f"{number % 5}" / f"{number}"
        match number % 4:
            case 0:
                path.unlink()
            case 1:
                path.write_bytes(b"edited " + path.read_bytes())
            case 2:
                path.rename(path.with_name(f"renamed {number}"))
    shutil.rmtree(one / f"{turn}" / "4")
    send(a)
    wanted = dict(tree_of(one))
    assert assert_same(a, b, one, two) == wanted


def test_replaced_files_that_nobody_noted_are_no_edits(world: World) -> None:
    """Of files replaced but not recorded, what another device did next is what both end with."""
    a, b, one, two = world
    for number in range(FILES):
        (one / f"e{number}").write_bytes(f"old {number}".encode() * (1 + number))
    send(a)
    b.sync()

    def write(turn: int) -> None:
        for number in range(FILES):
            (one / f"e{number}").write_bytes(f"new {turn} {number}".encode() * (1 + number))
        send(a)

    def is_time(turn: int) -> bool:
        return any(
            (two / f"e{number}").read_bytes().startswith(f"new {turn} ".encode()) for number in range(0, FILES, 8)
        )

    caught(b, two, write, is_time)
    for number in range(FILES):
        match number % 4:
            case 0:
                (one / f"e{number}").unlink()
            case 1:
                (one / f"e{number}").write_bytes(f"newest {number}".encode())
            case 2:
                (one / f"e{number}").rename(one / f"moved {number}")
    send(a)
    wanted = dict(tree_of(one))
    assert assert_same(a, b, one, two) == wanted


def test_renames_that_nobody_noted_are_no_moves_of_this_device(world: World) -> None:
    """Of files renamed but not recorded, the next name or the removal that another device gave them stands."""
    a, b, one, two = world
    for number in range(FILES):
        (one / f"0 {number}").write_bytes(f"rename {number}".encode() * (1 + number))
    send(a)
    b.sync()

    def rename(turn: int) -> None:
        for number in range(FILES):
            (one / f"{turn} {number}").rename(one / f"{turn + 1} {number}")
        send(a)

    turn = caught(
        b, two, rename, lambda turn: any(os.path.lexists(two / f"{turn + 1} {n}") for n in range(0, FILES, 8))
    )
    for number in range(FILES):
        path = one / f"{turn + 1} {number}"
        if number % 3 == 0:
            path.unlink()
        elif number % 3 == 1:
            path.rename(one / f"last {number}")
    send(a)
    wanted = dict(tree_of(one))
    assert assert_same(a, b, one, two) == wanted
