"""What the rows of the local tree say is doubted where something speaks against it, also where all looks as it did."""

from __future__ import annotations

import asyncio
import random
import sqlite3
from types import SimpleNamespace

import msgspec
from blake3 import blake3

from peer.core.tree import Item
from peer.disk.journal import MemoryJournal
from peer.disk.roots import RootGuard
from peer.engine.observer import Observer
from peer.store.database import InlineDatabase
from peer.store.schema import SCHEMA
from peer.store.trees import LocalTree
from protocol.ids import ROOT, FolderId
from simulations.disk import SimDisk
from simulations.disk_door import SimFiles
from simulations.personalities import PERSONALITIES
from simulations.user_files import UserFiles
from tests.peer.engine.test_unfinished_swaps import Here

START_NS = 1_700_000_000_123_456_789


class Times:
    """Two clocks that go on when they are told."""

    def __init__(self):
        self.s = 0.0

    def now_ms(self):
        return START_NS // 1_000_000 + int(self.s * 1000)

    def monotonic_s(self):
        return self.s


class Machine:
    """A folder on a simulated disk, and what looks at it."""

    def __init__(self) -> None:
        disk = SimDisk(random.Random(0), lambda: START_NS, personality=PERSONALITIES["old-mac"])
        self.user, self.times = UserFiles(disk), Times()
        self.user.make_directories("/home/f")
        guard = RootGuard(SimFiles(disk), "/home/f", FolderId(b"f" * 32), "device")
        guard.mark()
        self.database = InlineDatabase(":memory:", SCHEMA)
        context = SimpleNamespace(
            database=self.database,
            processor=Here(),
            clock=self.times,
            entropy=random.Random(0).randbytes,
            files=SimFiles(disk),
            watchers=None,
        )
        self.observer = Observer(context, 1, guard, MemoryJournal())  # type: ignore[arg-type]
        self.times.s = 60.0

    def rows(self) -> list[Item]:
        return self.database.call(lambda db: list(LocalTree(db, 1).children(ROOT)))

    def look(self, *, everywhere: bool = True) -> None:
        self.times.s += 10.0
        if everywhere:
            self.observer.look_everywhere()
        asyncio.run(self.observer.observe())

    def hash(self) -> bytes:
        (item,) = self.rows()
        return item.content.hash


def test_bytes_that_changed_without_a_trace_are_read_once_an_upload_has_seen_them():
    """As on a disk that fails, or is written to from below: nothing in the file's attributes tells of it."""
    machine = Machine()
    machine.user.write("/home/f/a", b"as it was hashed")
    machine.look()
    assert machine.hash() == blake3(b"as it was hashed").digest()
    machine.user.write("/home/f/a", b"as it rotted now")
    machine.look()
    assert machine.hash() == blake3(b"as it was hashed").digest(), "nothing tells of it"
    (item,) = machine.rows()
    asyncio.run(machine.observer.doubt({item.id: "a"}))
    machine.look(everywhere=False)
    assert machine.hash() == blake3(b"as it rotted now").digest()


def test_of_two_rows_with_one_name_the_one_that_is_not_there_is_looked_for():
    """As after a step at a name that another step was to free first, which failed since its user had done that."""
    machine = Machine()
    machine.user.write("/home/f/a", b"one")
    machine.user.write("/home/f/b", b"two")
    machine.look()
    ids = {item.name: item.id for item in machine.rows()}
    machine.user.rename("/home/f/a", "/home/f/c")
    machine.user.rename("/home/f/b", "/home/f/a")

    def carry_out(db: sqlite3.Connection) -> None:
        local = LocalTree(db, 1)
        item, seen = local.item(ids["b"]), local.fingerprint(ids["b"])
        assert item is not None
        assert seen is not None
        local.put(msgspec.structs.replace(item, name="a"), seen)

    machine.database.call(carry_out)
    machine.look()
    assert {item.name: item.id for item in machine.rows()} == {"a": ids["b"], "c": ids["a"]}
