"""What storage does not take is signed all the same: it waits in the spool, goes to devices near by, and is sent behind."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import pytest

from protocol.errors import UserError
from simulations.processes import Cluster, Device, tree_of
from tests.e2e.kit import (
    agents,
    ask,
    assert_no_tracebacks,
    by_servers_alone,
    reasons,
    restart,
    run,
    settle,
    start_agent,
    until,
)

MIB = 1 << 20


class World:
    def __init__(self, root: Path, *names: str) -> None:
        self.cluster = Cluster(root / "cluster", nodes=1, replicas=1, quorum=1, metered=True)
        self.names = names

    def __enter__(self) -> Self:
        self.cluster.__enter__()
        self.devices = [self.cluster.first_device(self.names[0])]
        self.devices += [self.cluster.link_device(self.devices[0], name) for name in self.names[1:]]
        self.devices[0].add(self.root(self.devices[0]), "docs")
        self.path(self.devices[0], "first").write_text("enrols the device")
        self.devices[0].sync()
        for device in self.devices[1:]:
            device.get("docs", self.root(device))
            device.sync()
        return self

    def __exit__(self, *_: object) -> None:
        try:
            assert_no_tracebacks(self.cluster)
        finally:
            self.cluster.close()

    def root(self, device: Device) -> Path:
        return self.cluster.root / f"files-{device.name}"

    def path(self, device: Device, name: str) -> Path:
        return self.root(device) / name

    def has(self, device: Device, files: dict[str, bytes]) -> bool:
        return all(
            self.path(device, name).exists() and self.path(device, name).read_bytes() == data
            for name, data in files.items()
        )

    @property
    def put_bytes(self) -> int:
        return self.cluster.meters[0].to_server

    def spooled(self, device: Device) -> int:
        return sum(file.stat().st_size for file in (device.home / "spool").glob("*.spool"))


@contextlib.contextmanager
def no_storage(world: World) -> Iterator[None]:
    world.cluster.nodes[0].kill()
    try:
        yield
    finally:
        restart(world.cluster.nodes[0])


def meet(*devices: Device) -> None:
    until(lambda: all(ask(device, "lan", switch=None)["peers"] == len(devices) - 1 for device in devices), "they met")


def foreign(device: Device) -> int:
    """Return how many entries of others a device folds that the coordinator has not ordered."""
    with contextlib.closing(sqlite3.connect(f"file:{device.home}/state.db?mode=ro", uri=True)) as db:
        return int(db.execute("SELECT count(*) FROM foreign_tail").fetchone()[0])


def history(device: Device, path: Path) -> list[dict[str, Any]]:
    """Return a path's versions, the newest first; none while it is not recorded."""
    with contextlib.suppress(UserError):
        found: list[dict[str, Any]] = ask(device, "history", path=str(path))["versions"]
        return found
    return []


def test_a_file_reaches_the_lan_before_any_storage_node(tmp_path: Path) -> None:
    with World(tmp_path, "a", "b", "c") as world:
        a, b, c = world.devices
        files = {"large": os.urandom(10 * MIB), "small": b"small", "empty": b""}
        with agents(world.cluster.root, a, b):
            meet(a, b)
            settle(a, b)
            with no_storage(world):
                for name, data in files.items():
                    world.path(a, name).write_bytes(data)
                until(lambda: world.has(b, files), "all of it is at b")
                told = reasons(a, "docs")
                assert {told["large"], told["small"]} <= {"no_quorum", "transferring"}
                assert not ask(a)["in_sync"]
                assert world.spooled(a) > 10 * MIB
                # What the other device builds on it waits for it.
                world.path(b, "small").write_bytes(b"changed by b")
                until(lambda: world.path(a, "small").read_bytes() == b"changed by b", "the answer is at a")
            sent = world.put_bytes
            settle(a, b)
            assert ask(a)["in_sync"]
            assert ask(b)["in_sync"]
            assert world.put_bytes - sent < 12 * MIB
            until(lambda: world.spooled(a) == 0, "the spool is given back")
        files["small"] = b"changed by b"
        with agents(world.cluster.root, c):
            by_servers_alone(c)
            settle(c)
            assert world.has(c, files)


def test_what_an_author_left_behind_that_is_gone_is_sent_by_who_took_it_over(tmp_path: Path) -> None:
    """Else it would wait for him for ever. What is built on it by changing its bytes still does."""
    with World(tmp_path, "a", "b", "c") as world:
        a, b, c = world.devices
        files = {"large": os.urandom(3 * MIB), "small": b"small"}
        with agents(world.cluster.root, b):
            start_agent(a, world.cluster.root)
            meet(a, b)
            settle(a, b)
            with no_storage(world):
                for name, data in files.items():
                    world.path(a, name).write_bytes(data)
                until(lambda: world.has(b, files), "all of it is at b")
                a.kill()
            settle(b)
            assert ask(b)["in_sync"]
            ask(b, "snapshot", folder="docs", name="without a")
        with agents(world.cluster.root, c):
            by_servers_alone(c)
            settle(c)
            assert world.has(c, files)


def test_what_an_author_left_behind_that_began_anew_is_sent_by_who_took_it_over(tmp_path: Path) -> None:
    """He is near again, but under another number: he does not send what he wrote under the old one."""
    with World(tmp_path, "a", "b") as world:
        a, b = world.devices
        files = {"large": os.urandom(3 * MIB), "small": b"small"}
        with agents(world.cluster.root, a, b):
            meet(a, b)
            settle(a, b)
            with no_storage(world):
                for name, data in files.items():
                    world.path(a, name).write_bytes(data)
                until(lambda: world.has(b, files), "all of it is at b")
                assert "were not sent yet" in ask(a, "remove", folder="docs", everywhere=False)["note"]
                # Other chunks and segments than those that the entries name, or they would be there by chance.
                world.path(a, "large").write_bytes(b"edited while it was forgotten")
                ask(a, "get", folder="docs", path=str(world.root(a)))
                meet(a, b)
            world.path(a, "more").write_bytes(b"under its new number")
            settle(a, b)
            until(lambda: foreign(b) == 0, "nothing of a's waits at b")
            ask(b, "snapshot", folder="docs", name="with a")
            assert dict(tree_of(world.root(a))) == dict(tree_of(world.root(b)))
            assert files["large"] in dict(tree_of(world.root(b))).values()


def test_a_folder_is_forgotten_once_its_changes_are_sent_or_with_a_word_about_them(tmp_path: Path) -> None:
    """Its files stay, and taking the folder again brings the changes to the others all the same."""
    with World(tmp_path, "a", "b") as world:
        a, b = world.devices
        with agents(world.cluster.root, a, b):
            by_servers_alone(a, b)
            settle(a, b)
            with no_storage(world):
                world.path(a, "late").write_bytes(b"on this disk alone")
                until(lambda: "late" in reasons(a, "docs"), "it is seen")
                until(lambda: ask(a)["folders"][0]["upload"]["files"] == 0, "it is signed")
                gone = ask(a, "remove", folder="docs", everywhere=False)
            assert "were not sent yet: 'kin get docs" in gone["note"]
            assert not list((a.home / "spool").glob("*"))
            assert world.path(a, "late").read_bytes() == b"on this disk alone"
            ask(a, "get", folder="docs", path=str(world.root(a)))
            settle(a, b)
            assert world.path(b, "late").read_bytes() == b"on this disk alone"
            assert ask(a, "remove", folder="docs", everywhere=False)["note"] == ""


def test_each_state_of_a_file_becomes_a_version_though_the_device_was_offline(tmp_path: Path) -> None:
    with World(tmp_path, "a") as world:
        (a,) = world.devices
        path = world.path(a, "notes")
        with agents(world.cluster.root, a):
            ask(a, "offline")
            for number in range(4):
                path.write_text(f"state {number}")
                until(lambda number=number: len(history(a, path)) == number + 1, "it is recorded")  # type: ignore[misc]
            assert reasons(a, "docs")["notes"] == "offline"
        start_agent(a, world.cluster.root)
        assert len(history(a, path)) == 4
        ask(a, "online")
        settle(a)
        found = history(a, path)
        assert [one["ordered"] for one in found] == [True] * 4
        to = world.cluster.root / "old"
        a.kin("restore", str(path), "--version", found[2]["id"], "--to", str(to))
        assert to.read_text() == "state 1"
        a.stop()


def test_storage_that_stands_still_holds_up_no_signature(tmp_path: Path) -> None:
    """It takes connections and says nothing: what is on its way to it is spooled after a moment."""
    with World(tmp_path, "a", "b") as world:
        a, b = world.devices
        files = {"large": os.urandom(9 * MIB), "small": b"small"}
        with agents(world.cluster.root, a, b):
            meet(a, b)
            os.kill(world.cluster.nodes[0].pid, signal.SIGSTOP)
            try:
                for name, data in files.items():
                    world.path(a, name).write_bytes(data)
                until(lambda: world.has(b, files), "all of it is at b")
                assert reasons(a, "docs")
            finally:
                os.kill(world.cluster.nodes[0].pid, signal.SIGCONT)
            settle(a, b)
            assert world.spooled(a) == 0


def test_a_full_spool_is_told_and_what_does_not_fit_follows_when_storage_is_back(tmp_path: Path) -> None:
    with World(tmp_path, "a") as world:
        (a,) = world.devices
        (a.home / "settings.toml").write_text(f"spool_bytes = {MIB}\n")
        with agents(world.cluster.root, a):
            with no_storage(world):
                world.path(a, "small").write_bytes(b"fits")
                until(lambda: world.spooled(a), "it is spooled")
                world.path(a, "large").write_bytes(os.urandom(3 * MIB))
                until(lambda: reasons(a, "docs").get("large") == "spool_full", "the person is told")
                until(lambda: reasons(a, "docs").get("small") == "no_quorum", "the small one is signed")
                assert world.spooled(a) < MIB
            settle(a)
            assert not reasons(a, "docs")


@pytest.mark.parametrize("seed", range(5 if "KIN_TEST_FULL" in os.environ else 1))
def test_an_author_that_is_killed_at_any_moment_loses_nothing_and_signs_nothing_twice(
    tmp_path: Path, seed: int
) -> None:
    chance = random.Random(seed)
    with World(tmp_path, "a", "b") as world:
        a, b = world.devices
        files: dict[str, bytes] = {}
        world.cluster.nodes[0].kill()
        for turn in range(4):
            start_agent(a, world.cluster.root)
            for number in range(3):
                files[f"{turn} {number}"] = chance.randbytes(chance.choice([10, 70_000, 2 * MIB]))
                made = tmp_path / "made"
                made.write_bytes(files[f"{turn} {number}"])
                made.rename(world.path(a, f"{turn} {number}"))  # half a file would be a version of its own
            if turn == 2:
                restart(world.cluster.nodes[0])
            time.sleep(chance.uniform(0.1, 1.2))
            a.kill()
        with agents(world.cluster.root, a, b):
            settle(a, b)
            assert world.has(b, files)
            assert dict(tree_of(world.root(a))) == dict(tree_of(world.root(b)))
            assert all(len(history(a, world.path(a, name))) == 1 for name in files)
            assert world.spooled(a) == 0


def test_a_damaged_spool_is_found_by_a_checkup_and_what_it_advises_mends_it(tmp_path: Path) -> None:
    with World(tmp_path, "a") as world:
        (a,) = world.devices
        with agents(world.cluster.root, a):
            with no_storage(world):
                world.path(a, "file").write_bytes(os.urandom(300_000))
                until(lambda: world.spooled(a) > 300_000, "a state waits that is soon nowhere else")
                before = world.spooled(a)
                world.path(a, "file").write_bytes(os.urandom(200_000))
                until(lambda: world.spooled(a) > before + 200_000, "the next one waits, too")
                assert "spool" not in found(a)
                (file,) = (a.home / "spool").glob("*.spool")
                file.write_bytes(bytes(before) + file.read_bytes()[before:])
                assert found(a)["spool"] == "wrong"
                newest = world.path(a, "file").read_bytes()
                ask(a, "remove", folder="docs", everywhere=False)
                ask(a, "get", folder="docs", path=str(world.root(a)))
            settle(a)
            assert world.path(a, "file").read_bytes() == newest
            assert found(a).get("spool", "ok") == "ok"


def found(device: Device) -> dict[str, str]:
    """Return what a checkup says, by what was looked at."""
    return {row["check"]: row["state"] for row in json.loads(run(device, "doctor", "--json").out)["checks"]}
