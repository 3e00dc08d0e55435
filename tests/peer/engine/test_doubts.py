"""A file of which an upload found other bytes than were hashed is read again, also where it looks the same."""

from __future__ import annotations

import asyncio
import random
from types import SimpleNamespace

from blake3 import blake3

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


def test_bytes_that_changed_without_a_trace_are_read_once_an_upload_has_seen_them():
    """As on a disk that fails, or is written to from below: nothing in the file's attributes tells of it."""
    disk = SimDisk(random.Random(0), lambda: START_NS, personality=PERSONALITIES["old-mac"])
    user, times, entropy = UserFiles(disk), Times(), random.Random(0).randbytes
    user.make_directories("/home/f")
    guard = RootGuard(SimFiles(disk), "/home/f", FolderId(b"f" * 32), "device")
    guard.mark()
    user.write("/home/f/a", b"as it was hashed")
    database = InlineDatabase(":memory:", SCHEMA)
    context = SimpleNamespace(
        database=database, processor=Here(), clock=times, entropy=entropy, files=SimFiles(disk), watchers=None
    )
    observer = Observer(context, 1, guard, MemoryJournal())  # type: ignore[arg-type]

    def look() -> bytes:
        times.s += 10.0
        asyncio.run(observer.observe())
        (item,) = database.call(lambda db: list(LocalTree(db, 1).children(ROOT)))
        return item.content.hash

    times.s += 60.0
    observer.look_everywhere()
    assert look() == blake3(b"as it was hashed").digest()
    user.write("/home/f/a", b"as it rotted now")
    observer.look_everywhere()
    assert look() == blake3(b"as it was hashed").digest(), "nothing tells of it"
    (item,) = database.call(lambda db: list(LocalTree(db, 1).children(ROOT)))
    asyncio.run(observer.doubt({item.id: "a"}))
    assert look() == blake3(b"as it rotted now").digest()
