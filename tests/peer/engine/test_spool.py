"""What one folder keeps in the spool, and sends."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from peer.disk.files import LinuxFileSystem
from peer.engine.spool import Sealed, Spool
from peer.store.database import InlineDatabase
from peer.store.schema import SCHEMA
from peer.store.spool import SpoolFiles, next_spooled
from protocol.grants import ChunkRef
from protocol.ids import ChunkId
from protocol.messages import PinnedSegment


class Here:
    async def run(self, function, /, *args):
        return function(*args)


class Slow:
    """A database that works once it is let."""

    def __init__(self) -> None:
        self.door, self.may_work, self.asked = InlineDatabase(":memory:", SCHEMA), asyncio.Event(), asyncio.Event()

    async def run(self, operation: Any) -> Any:
        async def work() -> Any:
            self.asked.set()
            await self.may_work.wait()
            return self.door.call(operation)

        return await asyncio.shield(asyncio.ensure_future(work()))


def test_a_file_stays_while_rows_for_it_are_on_their_way_though_who_keeps_them_is_cancelled(tmp_path: Path) -> None:
    async def main() -> None:
        files, database = SpoolFiles(LinuxFileSystem(), str(tmp_path)), Slow()
        context: Any = SimpleNamespace(spool=files, processor=Here(), database=database)
        record: Any = SimpleNamespace(key=1)
        spool = Spool(context, lambda: record)
        segment = PinnedSegment(ChunkRef(ChunkId(os.urandom(32)), 5), ())
        keeping = asyncio.create_task(spool.keep([Sealed(segment.segment, b"bytes", segment)]))
        await database.asked.wait()
        keeping.cancel()
        await asyncio.sleep(0)
        assert files.retire([1]) == []
        database.may_work.set()
        await asyncio.gather(keeping, return_exceptions=True)
        (one,) = database.door.call(lambda db: next_spooled(db, 1, 0, size=9, count=9))
        assert files.read(one.spot) == b"bytes"
        assert files.retire([1]) == [1]  # nothing is left that would keep it once its rows have gone

    asyncio.run(main())
