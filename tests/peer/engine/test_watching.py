"""A folder's root that is away for a moment is watched again, on the machine's disk and on a simulated one."""

from __future__ import annotations

import asyncio
import os
import random
import time
from types import SimpleNamespace

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
from protocol.ids import ROOT, FolderId
from simulations.disk import SimDisk
from simulations.disk_door import SimFiles
from simulations.user_files import UserFiles
from simulations.watcher import SimWatchers, Weather
from tests.peer.engine.test_unfinished_swaps import Here

PATIENCE_S = 10.0


class RealMachine:
    def __init__(self, tmp_path):
        self.top, self.away = str(tmp_path / "f"), str(tmp_path / "away")
        self.files, self.watchers = LinuxFileSystem(), InotifyWatcher
        os.mkdir(self.top)

    def rename(self, path, new_path):
        os.rename(path, new_path)

    def write(self, path, data):
        with open(path, "wb") as file:
            file.write(data)


class SimulatedMachine:
    top, away = "/home/f", "/home/away"

    def __init__(self, _):
        disk = SimDisk(random.Random(0), time.time_ns)
        self._user = UserFiles(disk)
        self._user.make_directories(self.top)
        self.files = SimFiles(disk)
        self.watchers = SimWatchers(disk, random.Random(0), Weather(late_s=0.01, repeated=0.5))
        self.rename, self.write = self._user.rename, self._user.write


@pytest.mark.parametrize("kind", [RealMachine, SimulatedMachine])
def test_a_root_that_was_away_between_two_looks_is_watched_on(tmp_path, kind):
    """The watcher found nothing where the root was; no look did, since it stood there again by then."""
    machine = kind(tmp_path)
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
    observer = Observer(context, 1, guard, MemoryJournal())  # type: ignore[arg-type]

    def names() -> set[str]:
        return {item.name for item in database.call(lambda db: list(LocalTree(db, 1).children(ROOT)))}

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
            while "new" not in names():
                woken.clear()
                if observer.is_due(context.clock.monotonic_s()):
                    await observer.observe()
                else:
                    await asyncio.sleep(0.01)
        observer.close()

    asyncio.run(main())
