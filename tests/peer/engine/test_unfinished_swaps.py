"""What a crash or the disk left aside, and cannot be put back yet, is no removal by a user."""

from __future__ import annotations

import asyncio
import errno
import os
from types import SimpleNamespace

from peer.disk.files import LinuxFileSystem
from peer.disk.journal import MemoryJournal, Swap, SwapKind
from peer.disk.roots import RootGuard
from peer.engine.observer import Observer
from peer.store.database import InlineDatabase
from peer.store.schema import SCHEMA
from peer.store.trees import LocalTree
from protocol.ids import ROOT, FolderId
from tests.peer.disk.kit import Ticks


class Stubborn(LinuxFileSystem):
    """A disk that gives nothing back while it is full."""

    full = False

    def rename(self, parent, name, new_parent, new_name):
        if self.full:
            raise OSError(errno.ENOSPC, "no room for a name")
        super().rename(parent, name, new_parent, new_name)


class Here:
    """Runs at once what else a pool would run."""

    async def run(self, function, /, *args):
        return function(*args)


def test_a_file_that_stays_aside_is_not_taken_as_removed(tmp_path):
    """Also in a running agent: until the disk takes it back, nothing is concluded from its absence."""
    top, files, journal = tmp_path / "f", Stubborn(), MemoryJournal()
    top.mkdir()
    (top / "kept").write_bytes(b"a user's")
    (top / "other").write_bytes(b"another")
    guard = RootGuard(files, str(top), FolderId(b"f" * 32), "device")
    guard.mark()
    database = InlineDatabase(":memory:", SCHEMA)
    context = SimpleNamespace(database=database, processor=Here(), clock=Ticks(), entropy=os.urandom, files=files)
    observer = Observer(context, 1, guard, journal)  # type: ignore[arg-type]

    def names() -> set[str]:
        observer.look_everywhere()
        asyncio.run(observer.observe())
        return {item.name for item in database.call(lambda db: list(LocalTree(db, 1).children(ROOT)))}

    assert names() == {"kept", "other"}
    (item,) = database.call(lambda db: [i for i in LocalTree(db, 1).children(ROOT) if i.name == "kept"])
    swap = Swap(b"s" * 16, SwapKind.ASIDE, "kept", item.content, 0, None)
    journal.put([swap])
    (top / "kept").rename(top / ".kinfolder" / "aside" / swap.name)
    files.full = True
    assert names() == {"kept", "other"}
    (top / "other").unlink()
    assert names() == {"kept"}
    files.full = False
    assert names() == {"kept"}
    assert (top / "kept").read_bytes() == b"a user's"
    assert not list(journal.rows())
