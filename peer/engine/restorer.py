"""Bring an older state of a path back onto this disk, as its user would: the loop then records it as new versions.

Rule 1: what is there is recorded first. What cannot be recorded now is given a name beside its own, never replaced.
Rule 2: all bytes are staged before anything is changed, where they fit; else file by file.
Rule 3: the disk is changed by the applier alone, which looks at what it displaces; where a user was faster, all is looked
    at and laid out anew.
Rule 4: whoever is killed midway leaves local changes like any others, and can be asked again.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

import msgspec
import structlog

from peer.core.operations import Delete, Place, Rename, Replace, SetAttributes, Step
from peer.core.planner import Side, side_of
from peer.core.tree import ItemId
from peer.disk.roots import RootMissing
from peer.disk.stages import Staged
from peer.engine.context import Context
from peer.engine.downloader import ToFetch
from peer.engine.folder import FolderEngine
from peer.engine.layout import Layout, old_file, pieces
from peer.engine.past import Moment, Past, fold_past
from peer.engine.stepper import KEPT, OCCUPIED, Applied
from peer.store.trees import LocalTree, SyncedTree, dirty
from protocol import limits
from protocol.entries import Kind
from protocol.errors import KinfolderError, UnavailableError, UserError

ROUNDS_MAX: Final = 4
"""How often all is laid out anew since a user changed something meanwhile."""
PASSES_MAX: Final = 2 * limits.DEPTH_MAX
PIECE_ITEMS: Final = 4_000
FETCH_FILES: Final = 256
FETCH_BYTES: Final = 16 * limits.MIB
SPARE_BYTES: Final = 64 * limits.MIB
"""Room on the disk that staging everything first must leave."""
RESTLESS_S: Final = 5.0
"""How long a file that is being written, or the coordinator, is waited for."""
LOOK_S: Final = 0.1
UNRECORDED_MAX: Final = 10_000
_LEFT: Final = {KEPT: "holds what is not synced", OCCUPIED: "holds what stays"}
"""Why a directory was not removed, in words."""
MOVING: Final = frozenset({"queued", "transferring", "changing", "no_coordinator"})
"""What may end within :data:`RESTLESS_S`; so does a connection that is just being opened."""
NAMED_MAX: Final = 5
"""Files named in an error."""

log = structlog.get_logger("restorer")
Progress = Callable[[int, int, int, int], None]
"""Takes bytes done and in all, files done and in all."""


class Outcome(msgspec.Struct):
    """What a restore came to."""

    files: int = 0
    """Files and links that hold again what they held."""
    attributes: int = 0
    moved: int = 0
    removed: int = 0
    directories: int = 0
    kept: list[str] = msgspec.field(default_factory=list)
    """Names, in their directories, of what was there and could not be recorded."""
    left: dict[ItemId, str] = msgspec.field(default_factory=dict)
    """Items that could not be brought back, with the reason."""

    def count(self, step: Step) -> None:
        """Take note of a step that was done."""
        match step:
            case Place(item) | Replace(item=item) if item.content.kind is Kind.DIRECTORY:
                self.directories += 1
            case Place() | Replace():
                self.files += 1
            case SetAttributes():
                self.attributes += 1
            case Delete():
                self.removed += 1
            case Rename(aside=False):
                self.moved += 1
            case _:
                pass


class Restorer:
    """Brings back what stood in one folder."""

    def __init__(self, context: Context, engine: FolderEngine) -> None:
        self._context = context
        self._engine = engine

    async def fold(self, moment: Moment, path: str) -> Past:
        """Return the folder as it was; of it only a file, where that is what the path means and needs no folding."""
        follower = self._engine.follower
        if path and moment.tail is None and moment.own is None:
            way = await self._context.database.run(lambda db: old_file(db, follower, path, moment.position))
            if way:
                return await self._context.processor.run(
                    Past.of, self._context.database, self._context.entropy(8).hex(), way
                )
        return await fold_past(self._context, follower, moment)

    async def record_what_is_there(self) -> int:
        """Look at the whole folder and record it, as far as that can be done now; return how many items remain.

        Raises:
            UserError: The folder cannot be worked on.
        """
        engine, clock = self._engine, self._context.clock
        engine.observer.look_everywhere()
        engine.retry_all()
        until_s = clock.monotonic_s() + RESTLESS_S
        while True:
            await engine.recorded()
            why = engine.observer.missing or engine.record.frozen or engine.failed
            if why:
                raise UserError(f"{engine.record.name}: {why}")
            if not engine.observer.has_looked:
                raise UserError(
                    f"{engine.record.name}: {engine.outlook.trouble or 'could not be looked at: try again'}"
                )
            left = await self._context.database.run(self._unrecorded)
            # What was written just now is looked at once more in a moment.
            if clock.monotonic_s() > until_s or all(engine.outlook.reason_for(id) not in MOVING for id in left):
                return len(left)
            await asyncio.sleep(LOOK_S)

    def _unrecorded(self, db: sqlite3.Connection) -> list[ItemId]:
        key = self._engine.record.key
        local, synced = LocalTree(db, key), SyncedTree(db, key)
        found = dirty(db, key, UNRECORDED_MAX)
        return [id for id in found if side_of(local.item(id), synced.item(id)) not in (Side.SAME, Side.ABSENT)]

    async def restore(self, moment: Moment, path: str, target: str, progress: Progress) -> Outcome:
        """Have what stood at ``path`` stand at ``target``, on this disk, durably.

        Raises:
            UserError: Nothing stood there, or it cannot stand there now.
            UnavailableError: Bytes cannot be fetched; nothing was changed.
        """
        outcome = Outcome()
        past = await self.fold(moment, path)
        try:
            layout = Layout(
                self._context,
                self._engine.follower,
                self._engine.hands.recorder,
                past,
                self._engine.observer.is_excluded,
            )
            for _ in range(ROUNDS_MAX):
                outcome.left.clear()
                await layout.lay_out(path, target)
                staged = await self._stage_all(layout, progress)
                applied = await self._apply(layout, staged, outcome)
                self._engine.observer.look_at(applied.look_at)
                if not any(found not in (KEPT, OCCUPIED) for found in applied.missed.values()):
                    break
                await self.record_what_is_there()
        except BaseException:
            self._engine.observer.look_everywhere()  # what was done of it is found by a scan
            raise
        finally:
            past.close()
            self._engine.changed_here()
        return outcome

    # --- Bytes

    async def _stage_all(self, layout: Layout, progress: Progress) -> dict[ItemId, Staged] | None:
        """Stage all files, and return the stages; None if they do not fit on the disk beside what stands there."""
        count = size = 0
        for ids in pieces(layout.ids, PIECE_ITEMS):
            files = await self._context.database.run(lambda db, ids=ids: layout.to_fetch(db, ids))  # type: ignore[misc]
            count += len(files)
            size += sum(file.item.content.size for file in files)
        if size + SPARE_BYTES > await self._context.processor.run(self._free_bytes) and size > SPARE_BYTES:
            return None
        staged: dict[ItemId, Staged] = {}
        done = 0

        def tell(more: int) -> None:
            nonlocal done
            done += more
            progress(done, size, len(staged), count)

        for ids in pieces(layout.ids, PIECE_ITEMS):
            files = await self._context.database.run(lambda db, ids=ids: layout.to_fetch(db, ids))  # type: ignore[misc]
            for group in groups(files):
                staged |= await self.fetch(group, tell)
        return staged

    async def fetch(self, files: Sequence[ToFetch], tell: Callable[[int], None]) -> dict[ItemId, Staged]:
        """Stage some files.

        Raises:
            UnavailableError: Not all of their bytes can be had now.
        """
        try:
            staged, problems = await self._engine.hands.downloader.fetch(files, tell)
        except UnavailableError as error:
            raise _unavailable(files, error.code, str(error)) from error
        if problems:
            missing = [file for file in files if file.item.id in problems]
            raise _unavailable(missing, next(iter(problems.values())), "")
        return staged

    def _free_bytes(self) -> int:
        root = self._engine.observer.open_root()
        if isinstance(root, RootMissing):
            raise UserError(root.text)
        with root:
            return root.fs.free_bytes(root.handle)

    # --- The disk

    async def _apply(self, layout: Layout, staged: dict[ItemId, Staged] | None, outcome: Outcome) -> Applied:
        total = Applied()
        async with self._engine.hands.disk:
            for ids in pieces(layout.ids, PIECE_ITEMS):
                keeping = await self._context.database.run(lambda db, ids=ids: layout.unrecorded(db, ids))  # type: ignore[misc]
                await self._carry_out(keeping, {}, outcome, total)
            for _ in range(PASSES_MAX):
                if not await self._pass(layout, staged, outcome, total):
                    break
        return total

    async def _pass(
        self, layout: Layout, staged: dict[ItemId, Staged] | None, outcome: Outcome, total: Applied
    ) -> bool:
        """Go through all items once; tell whether anything was done."""
        was_done = False
        for ids in pieces(layout.ids, PIECE_ITEMS):
            rest = [id for id in ids if id not in outcome.left]
            made = await self._context.database.run(lambda db, rest=rest: layout.steps(db, rest))  # type: ignore[misc]
            steps = [step for step in made if _subject(step) not in outcome.left]
            if staged is not None:
                was_done |= await self._carry_out(steps, staged, outcome, total)
                continue
            for part in _file_by_file(steps):
                wanted = {_subject(step) for step in part}
                files = await self._context.database.run(lambda db, wanted=wanted: layout.to_fetch(db, sorted(wanted)))  # type: ignore[misc]
                here = await self._fetch_some(files, outcome)
                ready = [step for step in part if _subject(step) not in outcome.left]
                was_done |= await self._carry_out(ready, here, outcome, total)
        return was_done

    async def _fetch_some(self, files: Sequence[ToFetch], outcome: Outcome) -> dict[ItemId, Staged]:
        """Stage files one after the other; what cannot be had is noted and the rest goes on."""
        staged: dict[ItemId, Staged] = {}
        for file in files:
            try:
                staged |= await self.fetch([file], lambda _: None)
            except KinfolderError as error:
                outcome.left[file.item.id] = str(error)
        return staged

    async def _carry_out(
        self, steps: Sequence[Step], staged: Mapping[ItemId, Staged], outcome: Outcome, total: Applied
    ) -> bool:
        if not steps:
            return False
        applied = await self._engine.hands.stepper.apply(steps, staged, as_user=True)
        for step in steps:
            id = _subject(step)
            if id in applied.done:
                outcome.count(step)
                if isinstance(step, Rename) and step.item.id != step.expected.id:
                    outcome.moved -= 1
                    outcome.kept.append(step.item.name)
        for id, found in applied.missed.items():
            outcome.left[id] = _LEFT.get(found, "was changed meanwhile")
        outcome.left.update(applied.blocked)
        total.missed |= applied.missed
        total.look_at += applied.look_at
        return bool(applied.done)


def groups(files: Iterable[ToFetch]) -> Iterable[list[ToFetch]]:
    """Yield files in groups that travel together."""
    group: list[ToFetch] = []
    size = 0
    for file in files:
        if group and (len(group) == FETCH_FILES or size + file.item.content.size > FETCH_BYTES):
            yield group
            group, size = [], 0
        group.append(file)
        size += file.item.content.size
    if group:
        yield group


def _file_by_file(steps: Sequence[Step]) -> Iterable[list[Step]]:
    """Yield first all steps that need no bytes, then each other one alone."""
    now = [step for step in steps if not _needs_bytes(step)]
    if now:
        yield now
    for step in steps:
        if _needs_bytes(step):
            yield [step]


def _needs_bytes(step: Step) -> bool:
    return isinstance(step, Place | Replace) and step.item.content.kind is Kind.FILE


def _subject(step: Step) -> ItemId:
    match step:
        case Place(item) | Replace(item=item) | SetAttributes(item=item) | Rename(item=item):
            return item.id
        case Delete(expected):
            return expected.id
        case _:
            raise AssertionError("no such step is made here")


_REASONS: Final = {
    "no_source": "no storage node that can be reached has its bytes",
    "disk_full": "there is no room on this disk",
    "error": "its bytes are not what its entry says",
}


def _unavailable(files: Sequence[ToFetch], reason: str, text: str) -> UnavailableError:
    """Return the error for files whose bytes cannot be had."""
    names = ", ".join(file.item.name for file in files[:NAMED_MAX])
    more = f" and {len(files) - NAMED_MAX} more" if len(files) > NAMED_MAX else ""
    error = UnavailableError(f"{names}{more}: {text or _REASONS.get(reason, reason)}; nothing was changed")
    error.code = reason
    return error
