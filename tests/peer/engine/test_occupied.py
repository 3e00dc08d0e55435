"""A directory that cannot be removed yet says whether it stays for what is not synced, or for what is still to go."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from msgspec.structs import replace

from peer.core.memory_state import MemoryState
from peer.core.operations import Delete, Rename
from peer.core.tree import Item
from peer.disk.files import LinuxFileSystem
from peer.disk.journal import MemoryJournal
from peer.disk.roots import RootGuard
from peer.engine.observer import Observer
from peer.engine.stepper import KEPT, OCCUPIED, Stepper
from peer.store.database import InlineDatabase
from peer.store.schema import SCHEMA
from peer.store.trees import LocalTree
from protocol.ids import ROOT, FolderId
from tests.peer.disk.kit import Ticks
from tests.peer.engine.test_unfinished_swaps import Here


class World:
    """A folder on a disk that was looked at, and what carries out steps on it."""

    def __init__(self, top: Any) -> None:
        self.top = top
        (top / "D").mkdir(parents=True)
        (top / "D" / "f").write_bytes(b"synced")
        guard = RootGuard(LinuxFileSystem(), str(top), FolderId(b"f" * 32), "device")
        guard.mark()
        self.database = InlineDatabase(":memory:", SCHEMA)
        context: Any = SimpleNamespace(
            database=self.database,
            processor=Here(),
            clock=Ticks(),
            entropy=os.urandom,
            files=LinuxFileSystem(),
            stopping=threading.Event(),
        )
        self._observer = Observer(context, 1, guard, MemoryJournal())
        self.look()
        self.stepper = Stepper(context, 1, guard, lambda _: MemoryState())

    def look(self) -> None:
        """Look everywhere."""
        self._observer.look_everywhere()
        asyncio.run(self._observer.observe())

    @staticmethod
    def find(tree: LocalTree, path: Sequence[str]) -> Item:
        parent, item = ROOT, None
        for name in path:
            item = tree.child(parent, name)
            assert item is not None
            parent = item.id
        assert item is not None
        return item

    def remove(self, *path: str) -> Any:
        item = self.database.call(lambda db: self.find(LocalTree(db, 1), path))
        return item.id, asyncio.run(self.stepper.apply([Delete(item)], {}))


@pytest.fixture
def world(tmp_path):
    return World(tmp_path / "root")


def test_what_is_synced_in_it_is_still_to_go(world):
    """As while a transfer of that file is under way: nobody may call the directory done, it goes after the file."""
    id, applied = world.remove("D")
    assert applied.missed == {id: OCCUPIED}
    world.remove("D", "f")
    id, applied = world.remove("D")
    assert (applied.missed, applied.done) == ({}, {id})
    assert not (world.top / "D").exists()


def test_what_no_scan_has_seen_keeps_it(world):
    world.remove("D", "f")
    (world.top / "D" / "new").write_bytes(b"a user's")
    id, applied = world.remove("D")
    assert applied.missed == {id: KEPT}
    assert "D" in applied.look_at
    assert (world.top / "D" / "new").read_bytes() == b"a user's"


def test_what_no_scan_has_seen_keeps_it_also_where_what_was_synced_in_it_comes_back(world):
    """It was aside, to take the directory's name: that it goes back in the end does not make it what is in the way."""
    (world.top / "D" / "new").write_bytes(b"a user's")
    directory, within = (world.database.call(lambda db, at=at: world.find(LocalTree(db, 1), at)) for at in ("D", "Df"))
    target = replace(within, parent=ROOT, name="D")
    steps = [
        Rename(within, target, aside=True),
        Delete(directory),
        Rename(within, target, from_aside=True),
    ]
    applied = asyncio.run(world.stepper.apply(steps, {}))
    assert applied.missed == {directory.id: KEPT, within.id: "taken"}
    assert sorted(path.name for path in (world.top / "D").iterdir()) == ["f", "new"]
