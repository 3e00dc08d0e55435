"""What a pass over one folder would do, found out without doing it.

Rule 1: planning writes rows; here all of it happens in an operation that is undone before anybody sees it.
"""

from __future__ import annotations

import sqlite3
from typing import Final

import msgspec

from peer.core.operations import Plan, Rekey
from peer.core.previews import PlannedLine, preview
from peer.core.remembered import RememberedTree
from peer.core.tree import path_of
from peer.engine.context import Context
from peer.engine.follower import Follower
from peer.engine.recorder import Planned, Recorder
from peer.engine.waiting import Waits
from peer.store import held
from peer.store.trees import LocalTree, SyncedTree, rekey

ITEMS_TOGETHER: Final = 8_000
LINES_MAX: Final = 50_000
"""Lines that are kept; what is beyond is counted."""


class Preview(msgspec.Struct):
    """What would be done."""

    lines: list[PlannedLine] = msgspec.field(default_factory=list)
    """Sorted by path."""
    total: int = 0


class _UndoneError(Exception):
    """Carries a preview out of an operation whose rows are not kept."""

    def __init__(self, found: Preview) -> None:
        super().__init__("undone")
        self.found = found


class Previewer:
    """One folder's previews."""

    def __init__(self, context: Context, follower: Follower, recorder: Recorder) -> None:
        self._context = context
        self._follower = follower
        self._recorder = recorder

    async def preview(self) -> Preview:
        """Return what planning would find on the trees as they are."""
        try:
            await self._context.database.run(self._plan_and_undo)
        except _UndoneError as undone:
            return undone.found
        raise AssertionError("an operation that is undone returned")

    def _plan_and_undo(self, db: sqlite3.Connection) -> None:
        if self._follower.record.mistrusted:
            self._follower.trust_again(db)
        found = Preview()
        after = b""
        while True:
            planned = self._recorder.plan(db, Waits(), ITEMS_TOGETHER, after=after)
            rekeys = [step for step in planned.plan.steps if isinstance(step, Rekey)]
            for step in rekeys:
                rekey(db, self._follower.record.key, step.old, step.new)
            if rekeys:
                continue  # each takes an id away that was to be changed, so this ends
            self._add(db, planned, found)
            if planned.last is None:
                break
            after = planned.last
        self._add_held(db, found)
        found.lines.sort()
        raise _UndoneError(found)

    def _add(self, db: sqlite3.Connection, planned: Planned, found: Preview) -> None:
        key = self._follower.record.key
        moving = planned.to_send.keys() | planned.sources.keys()
        plan: Plan = planned.plan
        for line in preview(
            plan,
            local=RememberedTree(LocalTree(db, key)),
            synced=RememberedTree(SyncedTree(db, key)),
            remote=self._follower.remote(db).tree,
            travels=moving.__contains__,
        ):
            _add_line(found, line)

    def _add_held(self, db: sqlite3.Connection, found: Preview) -> None:
        key = self._follower.record.key
        synced = SyncedTree(db, key)
        for id in held.files(db, key):
            _add_line(found, PlannedLine(path_of(synced, id) or "", "hold", "up"))


def _add_line(found: Preview, line: PlannedLine) -> None:
    found.total += 1
    if len(found.lines) < LINES_MAX:
        found.lines.append(line)
