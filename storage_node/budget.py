"""Bounded memory: whoever wants to hold bytes takes them from a budget first, in the order of asking."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from protocol.errors import UnavailableError


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

    @property
    def waiting(self) -> int:
        """How many tasks wait."""
        return len(self._waiting)

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


class Lane:
    """Puts of one kind on their way in: how many may be read at once, what they hold together, how many may wait.

    Args:
        bytes_max: What they hold together.
        puts_max: How many are read at once.
        waiting_max: How many may wait for that; nothing of theirs is read meanwhile.
    """

    def __init__(self, bytes_max: int, puts_max: int, waiting_max: int) -> None:
        self.bytes = ByteBudget(bytes_max)
        self._slots = ByteBudget(puts_max)
        self._waiting_max = waiting_max

    @property
    def is_full(self) -> bool:
        """Whether the next put has to wait."""
        return self._slots.free < 1

    @asynccontextmanager
    async def enter(self) -> AsyncIterator[None]:
        """Wait for a slot.

        Raises:
            UnavailableError: Too many wait already.
        """
        if self._slots.waiting >= self._waiting_max:
            raise UnavailableError("too many puts wait already")
        async with self._slots.hold(1):
            yield
