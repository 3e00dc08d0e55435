"""What need not come from a storage node: first from this disk, then from devices on the LAN.

Rule 1: whatever is given here has the hash that was asked for, and proves no more: that storage nodes hold the chunk too is
    still the word of whoever wrote its row.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import TYPE_CHECKING

import structlog

from peer.engine.holdings import Holdings
from protocol.ids import ChunkId, FolderId
from protocol.lan import Wanted

if TYPE_CHECKING:
    from peer.lan.exchange import Lan

log = structlog.get_logger("nearby")


class Nearby:
    """One folder's near sources.

    Args:
        holdings: This disk's.
        lan: Gives the LAN as it is used now; None where it is not.
        folder: Whose.
    """

    def __init__(self, holdings: Holdings, lan: Callable[[], Lan | None], folder: FolderId) -> None:
        self.holdings = holdings
        self._lan = lan
        self._folder = folder

    async def chunks(self, wanted: Sequence[Wanted]) -> AsyncGenerator[tuple[Wanted, bytes | bytearray], None]:
        """Yield those raw chunks that are near, each once."""
        missing = dict.fromkeys(wanted)
        async with contextlib.aclosing(self.holdings.chunks(list(missing))) as groups:
            async for group in groups:
                for one, data in group:
                    if one in missing:
                        del missing[one]
                        yield one, data
        lan = self._lan()
        if lan is None or not missing:
            return
        try:
            async with contextlib.aclosing(lan.chunks(self._folder, list(missing))) as found:
                async for one, raw in found:
                    yield one, raw
        except Exception:  # a defect: the storage nodes have it all the same
            log.exception("the LAN failed")

    async def segments(self, ids: Sequence[ChunkId]) -> AsyncGenerator[tuple[ChunkId, bytes | bytearray], None]:
        """Yield those sealed segments that are near, each once."""
        missing = dict.fromkeys(ids)
        async with contextlib.aclosing(self.holdings.segments(list(missing))) as found:
            async for id, data in found:
                del missing[id]
                yield id, data
        lan = self._lan()
        if lan is None or not missing:
            return
        try:
            async with contextlib.aclosing(lan.segments(self._folder, list(missing))) as sealed:
                async for id, more in sealed:
                    yield id, more
        except Exception:  # as above
            log.exception("the LAN failed")
