"""Looks and what the watcher tells, on the machine's disk and on a simulated one."""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from peer.disk.files import LinuxFileSystem
from peer.disk.journal import MemoryJournal
from peer.disk.roots import RootGuard
from peer.disk.watcher import InotifyWatcher
from peer.doors import SystemClock
from peer.engine.observer import Observer
from peer.store.database import InlineDatabase
from peer.store.schema import SCHEMA
from peer.store.trees import LocalTree
from protocol.effects import DiskEvent, DiskEventKind
from protocol.ids import ROOT, FolderId
from simulations.disk import SimDisk
from simulations.disk_door import SimFiles
from simulations.user_files import UserFiles
from simulations.watcher import SimWatchers, Weather
from tests.peer.engine.test_unfinished_swaps import Here

PATIENCE_S = 10.0
LATE = Weather(late_s=0.01, repeated=0.5)


class RealMachine:
    def __init__(self, tmp_path):
        self.top, self.away = str(tmp_path / "f"), str(tmp_path / "away")
        self.files, self.watchers = LinuxFileSystem(), InotifyWatcher
        os.mkdir(self.top)

    def rename(self, path, new_path):
        os.rename(path, new_path)

    def make_directory(self, path):
        os.mkdir(path)

    def remove_directory(self, path):
        os.rmdir(path)

    def write(self, path, data):
        with open(path, "wb") as file:
            file.write(data)


class SimulatedMachine:
    top, away = "/home/f", "/home/away"

    def __init__(self, _, weather=LATE):
        disk = SimDisk(random.Random(0), time.time_ns)
        self._user = UserFiles(disk)
        self._user.make_directories(self.top)
        self.files = SimFiles(disk)
        self.watchers = SimWatchers(disk, random.Random(0), weather)
        self.rename, self.write = self._user.rename, self._user.write
        self.make_directory, self.remove_directory = self._user.make_directory, self._user.remove_tree


def observing(machine):
    """Return who observes a machine's folder, and what it observes into."""
    guard = RootGuard(machine.files, machine.top, FolderId(b"f" * 32), "device")
    guard.mark()
    database = InlineDatabase(":memory:", SCHEMA)
    context = SimpleNamespace(
        database=database,
        processor=Here(),
        clock=SystemClock(),
        entropy=os.urandom,
        files=machine.files,
        watchers=machine.watchers,
    )
    return Observer(context, 1, guard, MemoryJournal()), context  # type: ignore[arg-type]


def children(context, parent=ROOT):
    return {item.name: item.id for item in context.database.call(lambda db: list(LocalTree(db, 1).children(parent)))}


@pytest.mark.parametrize("kind", [RealMachine, SimulatedMachine])
def test_a_root_that_was_away_between_two_looks_is_watched_on(tmp_path, kind):
    """The watcher found nothing where the root was; no look did, since it stood there again by then."""
    machine = kind(tmp_path)
    observer, context = observing(machine)

    async def main() -> None:
        woken = asyncio.Event()
        observer.watch(woken.set)
        await observer.observe()
        async with asyncio.timeout(PATIENCE_S):
            await woken.wait()
            machine.rename(machine.top, machine.away)
            while observer._watcher is None or not observer._watcher.is_gone:  # noqa: ASYNC110 - it has no event for it
                await asyncio.sleep(0)
            machine.rename(machine.away, machine.top)
            observer.look_everywhere()
            await observer.observe()
            machine.write(f"{machine.top}/new", b"saved")
            while "new" not in children(context):
                woken.clear()
                await observe_what_is_due(observer, context)
        observer.close()

    asyncio.run(main())


async def observe_what_is_due(observer, context):
    if observer.is_due(context.clock.monotonic_s()):
        await observer.observe()
    else:
        await asyncio.sleep(0.01)


async def at_rest(observer, context):
    """Look at all that is to be looked at, as of now."""
    await observer._watcher.caught_up(PATIENCE_S)
    while observer.next_deadline() < context.clock.monotonic_s() + PATIENCE_S:
        await observe_what_is_due(observer, context)


KINDS: dict[str, Callable[[Any], Any]] = {
    "real": RealMachine,
    "simulated": SimulatedMachine,
    "simulated, and nothing is told": lambda path: SimulatedMachine(path, Weather(late_s=0.01, lost=1.0)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_look_between_a_move_and_the_news_of_it_removes_nothing(tmp_path, kind):
    """A step that missed a directory has its place looked at before the watcher has told where the directory went."""
    machine = KINDS[kind](tmp_path)
    observer, context = observing(machine)
    for name in ("D", "X"):
        machine.make_directory(f"{machine.top}/{name}")
    machine.write(f"{machine.top}/D/f", b"saved")

    async def main() -> None:
        observer.watch(lambda: None)
        await observer.observe()
        ids = children(context)
        await at_rest(observer, context)
        machine.rename(f"{machine.top}/D", f"{machine.top}/X/D")
        observer.look_at([""])
        await observer.observe()
        assert children(context) == ids
        await at_rest(observer, context)
        assert children(context) == {"X": ids["X"]}
        assert children(context, ids["X"]) == {"D": ids["D"]}
        observer.close()

    asyncio.run(main())


@pytest.mark.parametrize("kind", KINDS)
def test_a_look_at_a_part_removes_nothing_while_all_is_to_be_looked_at(tmp_path, kind):
    """What the watcher told of a move is forgotten, since a full look sees it; another look comes before that."""
    machine = KINDS[kind](tmp_path)
    observer, context = observing(machine)
    for name in ("D", "X"):
        machine.make_directory(f"{machine.top}/{name}")

    async def main() -> None:
        observer.watch(lambda: None)
        await observer.observe()
        ids = children(context)
        await at_rest(observer, context)
        machine.rename(f"{machine.top}/D", f"{machine.top}/X/D")
        await observer._watcher.caught_up(PATIENCE_S)
        observer._take(DiskEvent(DiskEventKind.OVERFLOW))
        observer.look_at([""])
        await observer.observe()
        assert children(context) == ids
        await at_rest(observer, context)
        assert children(context, ids["X"]) == {"D": ids["D"]}
        observer.close()

    asyncio.run(main())


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_that_goes_into_a_new_directory_while_its_own_is_removed_has_moved(tmp_path, kind):
    """The new directory is not watched yet, so nothing tells that the file came to it."""
    machine = KINDS[kind](tmp_path)
    observer, context = observing(machine)
    machine.make_directory(f"{machine.top}/D")
    machine.write(f"{machine.top}/D/f", b"saved")

    async def main() -> None:
        observer.watch(lambda: None)
        await observer.observe()
        ids = children(context, children(context)["D"])
        await at_rest(observer, context)
        machine.make_directory(f"{machine.top}/N")
        machine.rename(f"{machine.top}/D/f", f"{machine.top}/N/f")
        machine.remove_directory(f"{machine.top}/D")
        observer.look_at([""])
        await at_rest(observer, context)
        found = children(context)
        assert found.keys() == {"N"}
        assert children(context, found["N"]) == ids
        observer.close()

    asyncio.run(main())


@pytest.mark.parametrize("kind", KINDS)
def test_what_went_into_a_directory_that_was_just_made_anew_is_sought_there_before_it_is_removed(tmp_path, kind):
    """A look at everything leaves out names that moved just now, with all that is below them."""
    machine = KINDS[kind](tmp_path)
    observer, context = observing(machine)
    for name in ("D", "X"):
        machine.make_directory(f"{machine.top}/{name}")

    async def main() -> None:
        watched = asyncio.Event()
        observer.watch(watched.set)
        await observer.observe()
        await watched.wait()
        ids = children(context)
        await at_rest(observer, context)
        machine.remove_directory(f"{machine.top}/X")
        machine.make_directory(f"{machine.top}/X")
        machine.rename(f"{machine.top}/D", f"{machine.top}/X/D")
        await observer._watcher.caught_up(PATIENCE_S)
        observer._take(DiskEvent(DiskEventKind.OVERFLOW))
        await at_rest(observer, context)
        assert children(context, children(context)["X"]) == {"D": ids["D"]}
        observer.close()

    asyncio.run(main())
