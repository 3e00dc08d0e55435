"""Bounded memory: whoever wants to hold bytes takes them from a budget first, in the order of asking."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class ByteBudget:
    """A number of bytes that tasks share.

    Args:
        bytes_max: All there are; a task that asks for more gets these.
    """

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self.free = bytes_max
        """What nobody holds."""
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @asynccontextmanager
    async def hold(self, count: int) -> AsyncIterator[None]:
        """Hold bytes as long as the context lasts."""
        await self.take(count)
        try:
            yield
        finally:
            self.give(count)

    async def take(self, count: int) -> None:
        """Wait for bytes and hold them until :meth:`give`."""
        count = min(count, self._bytes_max)
        if not self._waiting and count <= self.free:
            self.free -= count
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((count, turn))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                self._waiting.remove((count, turn))
                self._serve()
            else:
                self.give(count)
            raise

    def give(self, count: int) -> None:
        """Give back what :meth:`take` was asked for."""
        self.free += min(count, self._bytes_max)
        self._serve()

    def _serve(self) -> None:
        while self._waiting and self._waiting[0][0] <= self.free:
            wanted, turn = self._waiting.popleft()
            self.free -= wanted
            turn.set_result(None)
