"""What a coordinator that forgot is told again."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from peer.core.chunk_sealing import seal_chunk
from peer.engine.reassurance import Reassurer
from peer.store import folders
from peer.store.database import InlineDatabase
from peer.store.schema import SCHEMA
from peer.store.spool import Spot, put_spooled
from protocol.errors import NoSourceError
from protocol.grants import ChunkRef
from protocol.history import ItemKind
from protocol.ids import ChunkId
from protocol.messages import PinnedSegment

KEY = bytes(32)


class Here:
    async def run(self, function, /, *args):
        return function(*args)


class Nodes:
    """Storage nodes that hold nothing."""

    async def get(self, folder, ids):
        if ids:
            raise NoSourceError("gone")
        yield


@pytest.mark.parametrize("groups", [[], [[]]])
def test_a_file_that_holds_something_else_by_now_is_no_source(groups):
    chunk = seal_chunk(b"bytes", KEY)

    async def chunks(wanted):
        for group in groups:
            yield group

    ring = SimpleNamespace(epochs={1: SimpleNamespace(chunk=KEY)})
    context: Any = SimpleNamespace(folder_keys=lambda key: ring, chunks=Nodes(), processor=Here())
    follower: Any = SimpleNamespace(record=SimpleNamespace(key=1, id=b"f" * 32))
    holdings: Any = SimpleNamespace(chunks=chunks)
    reassurer = Reassurer(context, follower, holdings)
    with pytest.raises(NoSourceError):
        asyncio.run(reassurer._chunk(chunk.ref, {chunk.id: chunk.row}))
    groups[:] = [[], [(None, b"bytes")]]
    assert asyncio.run(reassurer._chunk(chunk.ref, {chunk.id: chunk.row})) == chunk.data


def test_how_far_a_coordinator_was_told_again_outlives_this_device(monkeypatch):
    items = {4: [SimpleNamespace(position=5, kind=ItemKind.CONTROL)], 5: []}
    monkeypatch.setattr(folders, "tail", lambda db, key: [])
    monkeypatch.setattr(folders, "log_items", lambda db, key, after, most: items[after])
    record, kept = SimpleNamespace(key=1, lost_after=4), []

    def put_record(db, lost_after):
        record.lost_after = lost_after
        kept.append(lost_after)

    context: Any = SimpleNamespace(database=InlineDatabase(":memory:", SCHEMA))
    follower: Any = SimpleNamespace(record=record, put_record=put_record)
    holdings: Any = None
    asyncio.run(Reassurer(context, follower, holdings).run())
    assert kept == [5, None]


def test_only_what_is_still_to_be_sent_itself_waits_for_the_spool(monkeypatch):
    """A chunk that can never be sent keeps nothing else from being told of."""
    database = InlineDatabase(":memory:", SCHEMA)
    stored, waits = (ChunkId(bytes([number]) * 32) for number in range(2))
    row = PinnedSegment(ChunkRef(waits, 1), ())
    database.call(lambda db: put_spooled(db, 1, [(waits, row)], [Spot(1, 0, 1)]))
    entries = [SimpleNamespace(header=SimpleNamespace(pins=(id,)), hash=id) for id in (stored, waits)]
    monkeypatch.setattr(folders, "tail", lambda db, key: [(entry, b"") for entry in entries])
    context: Any = SimpleNamespace()
    follower: Any = SimpleNamespace(record=SimpleNamespace(key=1))
    holdings: Any = None
    reassurer = Reassurer(context, follower, holdings)
    assert database.call(reassurer._waiting) == [entries[0]]
