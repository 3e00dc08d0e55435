"""When a folder's part of the spool is sent: beside all else its loop does, one run at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import structlog

from peer.engine.holdings import Holdings
from peer.engine.spool import Spool
from peer.engine.tasks import end

log = structlog.get_logger("drainer")

PART = "drain"
"""What a folder's loop calls this part of its work."""


class Drainer:
    """One folder's.

    Args:
        spool: What is to be sent.
        holdings: What can make a damaged piece of it again.
        stand_in: Sends behind it what devices left that are away.
        run: Runs a part of the loop's work; what it raises blocks that part for a while.
    """

    def __init__(
        self,
        spool: Spool,
        holdings: Holdings,
        stand_in: Callable[[], Coroutine[Any, Any, None]],
        run: Callable[[str, Coroutine[Any, Any, None]], Coroutine[Any, Any, bool]],
    ) -> None:
        self._spool = spool
        self._holdings = holdings
        self._stand_in = stand_in
        self._run = run
        self._task: asyncio.Task[None] | None = None
        self.is_wanted = True
        """Whether there may be something to send."""
        self.on_ended: Callable[[], None] = lambda: None
        """Called when a run has ended."""

    @property
    def is_running(self) -> bool:
        """Whether a run is under way."""
        return self._task is not None

    def start(self) -> None:
        """Begin a run, if none is under way."""
        if self._task is None:
            self.is_wanted = False
            self._task = asyncio.create_task(self._drain(), name="drain")
            self._task.add_done_callback(self._ended)

    async def stop(self) -> None:
        """End the run that is under way."""
        await end([] if self._task is None else [self._task])

    async def _drain(self) -> None:
        async def work() -> None:
            if not await self._spool.is_empty():
                await self._spool.drain(self._holdings.remake)
            await self._stand_in()

        await self._run(PART, work())

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._task = None
        if not task.cancelled() and (failure := task.exception()) is not None:
            # The state of this device cannot be read: the loop meets that too, and says so.
            log.error("the spool cannot be sent", error=type(failure).__name__)
        self.on_ended()
