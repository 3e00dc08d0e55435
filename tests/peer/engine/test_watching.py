"""A folder's root that is away for a moment is watched again."""

from __future__ import annotations

import asyncio
import os
from types import SimpleNamespace

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
from tests.peer.engine.test_unfinished_swaps import Here

PATIENCE_S = 10.0


def test_a_root_that_was_away_between_two_looks_is_watched_on(tmp_path):
    """The watcher found nothing where the root was; no look did, since it stood there again by then."""
    top, files = tmp_path / "f", LinuxFileSystem()
    top.mkdir()
    guard = RootGuard(files, str(top), FolderId(b"f" * 32), "device")
    guard.mark()
    database = InlineDatabase(":memory:", SCHEMA)
    context = SimpleNamespace(
        database=database,
        processor=Here(),
        clock=SystemClock(),
        entropy=os.urandom,
        files=files,
        watchers=InotifyWatcher,
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
            top.rename(tmp_path / "away")
            while observer._watcher is None or not observer._watcher.is_gone:  # noqa: ASYNC110 - it has no event for it
                await asyncio.sleep(0)
            (tmp_path / "away").rename(top)
            observer.look_everywhere()
            await observer.observe()
            (top / "new").write_bytes(b"saved")
            while "new" not in names():
                woken.clear()
                if observer.is_due(context.clock.monotonic_s()):
                    await observer.observe()
                else:
                    await asyncio.sleep(0.01)
        observer.close()

    asyncio.run(main())
