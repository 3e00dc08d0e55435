"""What is brought while an entry that brought it becomes void: it counts as agreed on by nobody, and no step undoes it."""

from __future__ import annotations

import asyncio
import os
import threading
from types import SimpleNamespace
from typing import Any

import pytest

from peer.core.operations import Create, Place
from peer.disk.files import LinuxFileSystem
from peer.disk.roots import RootGuard
from peer.engine.stepper import Stepper
from peer.store.trees import LocalTree, SyncedTree
from protocol.ids import ROOT
from tests.peer.core.devices import Device, Log
from tests.peer.disk.kit import Ticks
from tests.peer.engine import test_tail


class World(test_tail.World):
    """A device with a disk, near another one that has made a directory, and planned to have it."""

    def __init__(self, top: Any) -> None:
        far = Device(2, Log())
        far.create("D", "DIR")
        [self.entry] = far.log.entries
        super().__init__(list(far.log.entries.values()))
        self.put_tail([self.entry])
        self.top = top
        self.top.mkdir()
        self.meanwhile = lambda: None
        """What happens between carrying out steps and recording what they came to."""
        guard = RootGuard(LinuxFileSystem(), str(top), test_tail.FOLDER, "device")
        guard.mark()
        context: Any = SimpleNamespace(
            database=self.database,
            processor=self,
            clock=Ticks(),
            entropy=os.urandom,
            stopping=threading.Event(),
        )
        self.stepper = Stepper(context, 1, guard, self.follower.remote)
        self.planned = self.plan()
        assert [type(step) for step in self.planned.steps] == [Place]

    async def run(self, function: Any, /, *args: Any) -> Any:
        done = function(*args)
        self.meanwhile()
        return done

    def apply(self) -> None:
        asyncio.run(self.stepper.apply(self.planned.steps, {}))

    def rows(self) -> tuple[list[str], list[str]]:
        """Return the names in the local tree, and in the synced one."""

        def names(tree: type[LocalTree | SyncedTree]) -> list[str]:
            return self.database.call(lambda db: [item.name for item in tree(db, 1).children(ROOT)])

        return names(LocalTree), names(SyncedTree)


@pytest.fixture
def world(tmp_path):
    return World(tmp_path / "root")


def test_what_a_void_entry_was_to_bring_is_not_brought(world):
    """The bytes of a file come after its entry has become void: as in the history 5006980."""
    world.void(world.entry)
    world.apply()
    assert not (world.top / "D").exists()
    assert world.rows() == ([], [])
    assert world.plan() == type(world.planned)((), ())


def test_what_a_void_entry_has_brought_is_this_devices_own(world):
    """It became void just when the disk had it: nothing that a user may have seen is taken away."""
    world.meanwhile = lambda: world.void(world.entry)
    world.apply()
    assert (world.top / "D").exists()
    assert world.rows() == (["D"], [])
    planned = world.plan()
    assert [act.item.name for act in planned.acts if isinstance(act, Create)] == ["D"]
    assert planned.steps == ()


def test_what_a_standing_entry_brings_is_agreed_on(world):
    world.apply()
    assert (world.top / "D").exists()
    assert world.rows() == (["D"], ["D"])
