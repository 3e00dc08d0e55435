"""Transfers of one folder, beside its loop: a few at once, the others in a queue.

Rule 1: an item is in one job at most, from when the job is queued until it has ended.
Rule 2: what a job raises concerns its items alone.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Iterator, Sequence
from typing import Any, Final, Literal, TypeAlias

import structlog

from peer.core.tree import ItemId
from peer.engine.tasks import end
from protocol.errors import KinfolderError

JOBS_MAX: Final = 6

Direction: TypeAlias = Literal["up", "down"]
Work: TypeAlias = Callable[[], Coroutine[Any, Any, None]]

log = structlog.get_logger("jobs")


class Jobs:
    """One folder's."""

    def __init__(self) -> None:
        self.on_failed: Callable[[ItemId, str], None] = lambda _id, _code: None
        """Called for each item of a job that failed, with the error's code."""
        self.on_ended: Callable[[], None] = lambda: None
        """Called when a job has ended, before the next begins."""
        self._directions: dict[ItemId, Direction] = {}
        self._moving: set[ItemId] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._queue: deque[Work] = deque()

    def __contains__(self, id: ItemId) -> bool:
        """Tell whether a job works on an item, or soon will."""
        return id in self._directions

    def __iter__(self) -> Iterator[ItemId]:
        """Yield the items that are in jobs."""
        return iter(self._directions)

    def __len__(self) -> int:
        """Return how many items are in jobs."""
        return len(self._directions)

    @property
    def is_idle(self) -> bool:
        """Whether no job is under way or queued."""
        return not self._tasks and not self._queue

    @property
    def sends(self) -> bool:
        """Whether any item is on its way up."""
        return "up" in self._directions.values()

    def is_moving(self, id: ItemId) -> bool:
        """Whether the job of an item has begun."""
        return id in self._moving

    def add(self, direction: Direction, ids: Sequence[ItemId], work: Work) -> None:
        """Queue a job for items that are in none."""
        for id in ids:
            self._directions[id] = direction

        async def run() -> None:
            self._moving.update(ids)
            try:
                await work()
            except KinfolderError as error:
                self._fail(ids, error.code)
            except Exception:  # a defect: these items wait, the others go on
                log.exception("a job failed")
                self._fail(ids, "error")
            finally:
                self._moving.difference_update(ids)
                for id in ids:
                    self._directions.pop(id, None)

        self._queue.append(run)
        self._start()

    async def stop(self) -> None:
        """Begin none of those that are queued, and end those that are under way."""
        self._queue.clear()
        await end(self._tasks)

    def _fail(self, ids: Sequence[ItemId], code: str) -> None:
        for id in ids:
            self.on_failed(id, code)

    def _start(self) -> None:
        while self._queue and len(self._tasks) < JOBS_MAX:
            task = asyncio.create_task(self._queue.popleft()())
            self._tasks.add(task)
            task.add_done_callback(self._end)

    def _end(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self.on_ended()
        self._start()
