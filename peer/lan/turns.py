"""Whose turn it is to be dialled: few at once, and whoever failed least and came last goes first.

Somebody replays announcements faster than dialling finds out that nobody is there; one who comes after them must not
stand behind all of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
from collections.abc import AsyncIterator


class Turns:
    """Gives turns, a number at once.

    Args:
        most: How many may have a turn at a time.
    """

    def __init__(self, most: int) -> None:
        self._free = most
        self._count = 0
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []

    @contextlib.asynccontextmanager
    async def turn(self, failures: int) -> AsyncIterator[None]:
        """Wait for a turn, and have it for the block.

        Args:
            failures: Of whoever is to be dialled, in a row.
        """
        if self._free:
            self._free -= 1
        else:
            await self._wait(failures)
        try:
            yield
        finally:
            self._give_on()

    async def _wait(self, failures: int) -> None:
        self._count += 1
        mine = (failures, -self._count, asyncio.get_running_loop().create_future())
        heapq.heappush(self._waiting, mine)
        try:
            await mine[2]
        except asyncio.CancelledError:
            if mine in self._waiting:
                self._waiting.remove(mine)
                heapq.heapify(self._waiting)
            elif not mine[2].cancelled():
                self._give_on()  # the turn came at the same moment
            raise

    def _give_on(self) -> None:
        while self._waiting:
            waiting = heapq.heappop(self._waiting)[2]
            if not waiting.done():
                waiting.set_result(None)
                return
        self._free += 1
