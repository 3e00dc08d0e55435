"""What a coordinator that forgot is told again."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from peer.core.chunk_sealing import seal_chunk
from peer.engine.reassurance import Reassurer
from protocol.errors import NoSourceError

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
