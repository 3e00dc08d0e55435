"""Observe one folder's disk: when to look, the scan, which item is which, the local tree.

Rule 1: the scanner is the truth; the watcher only says where to look sooner.
Rule 2: a root that is missing or foreign is reported, and nothing under it is taken as removed.
Rule 3: a scan that somebody asked for sees every name and decides at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from typing import Final, NamedTuple
from unicodedata import normalize

import structlog
from blake3 import blake3

from peer.core.exclusions import Apart
from peer.core.hints import SPOTS_MAX, Hints, Settled, Spot
from peer.core.identify import Identification, Identified
from peer.core.ignores import IGNORE_FILE, IGNORE_FILE_BYTES_MAX, Ignores
from peer.core.observations import Fingerprint, Listing
from peer.core.spellings import Spellings
from peer.core.tree import ItemId, path_of
from peer.core.witness import Witness
from peer.disk.journal import Journal
from peer.disk.naming import respells
from peer.disk.recovery import Emptied, empty_trash, is_unfinished, recover
from peer.disk.roots import Root, RootGuard, RootIdentity, RootMissing
from peer.disk.scanner import Hashed, hash_files, scan
from peer.disk.stages import clean_stages
from peer.disk.walk import DiskError, is_gone, kind_of, stands, text_of
from peer.engine.brake import Brake
from peer.engine.context import Context
from peer.store.database import Operation
from peer.store.fold_store import ItemTable
from peer.store.trees import LocalTree, SyncedTree
from protocol.effects import Access, DiskEvent, DiskEventKind, Watcher
from protocol.entries import Kind

LISTINGS_PER_STEP: Final = 64
HASHES_PER_STEP: Final = 32
LOOKS_MAX: Final = 3
AGAIN_S: Final = 1.0
UNWATCHED_S: Final = 30.0
"""Between full scans where not all directories can be watched."""
WATCHED_S: Final = 3_600.0
MISSING_S: Final = 5.0
TRASH_AGE_MS: Final = 10_000
TRASH_PAUSE_S: Final = TRASH_AGE_MS / 1_000
TRASH_PAUSE_S_MAX: Final = 640.0
"""Between looks at a trash of which nothing may go yet: what a program has open, or the disk gives no name back."""
RULES_REST_S: Final = 1.0
CHECK_S_MAX: Final = 2.0
EVENTS_S_MAX: Final = 5.0
"""How long the outcome of a scan waits for what the watcher has still to tell of the time before it."""
STAGE_AGE_MS: Final = 7 * 24 * 3_600_000

log = structlog.get_logger("observer")


class _Coming(NamedTuple):
    """Rules that were written just now."""

    data: bytes
    ignores: Ignores
    rest_s: float
    """From when on they count, if nothing is written any more."""


class Observer:
    """Keeps one folder's local tree true."""

    def __init__(self, context: Context, folder: int, guard: RootGuard, journal: Journal) -> None:
        self._context = context
        self._folder = folder
        self._guard = guard
        self._journal = journal
        self._hints = Hints()
        self._witness = Witness()
        self.brake = Brake(folder, self._witness)
        self._identity: RootIdentity | None = None
        self._full_wanted = True
        self._again: dict[str, float] = {}
        self._doubtful: set[str] = set()
        """Where something stands, or is missing, of which no scan could tell yet where it came from, or went."""
        self._must_seek = False
        """Whether something is missing of which only a look at everything can tell that it is nowhere."""
        self._recovered = False
        self._unrecovered: frozenset[str] = frozenset()
        """Paths that a crash left without what a user had there, until it can be put back."""
        self._next_full_s: float | None = None
        self._watcher: Watcher | None = None
        self._watching: asyncio.Task[None] | None = None
        self._watch_wanted: Callable[[], None] | None = None
        self._degraded = True
        self._ignores = Ignores()
        self._rules: bytes | None = None
        """What ``.kinignore`` held when its rules were taken; None before the first look."""
        self._coming: _Coming | None = None
        self._stirred = False
        """Whether something happened to the file of rules since it was last read: then it has not been at rest."""
        self.apart = Apart()
        """What a person keeps off this device."""
        self.lifted: str | None = None
        """An excluded path that is looked at for once, so that its room can be given back."""
        self._at_once = True
        self.rules_changed = False
        """Whether other rules are in force since this was last set back."""
        self._respells: bool | None = None
        """Whether this disk shows names in another Unicode form than they were given; None: nothing asked for it yet."""
        self.has_looked = False
        """Whether everything was looked at under the rules in force; before that, absence proves nothing."""
        self.restless = 0
        """How many looks in a row found a file that would not stand still."""
        self.missing = ""
        """Not empty: why the root cannot be used now."""
        self._retry_s = 0.0
        self._trash_s: float | None = 0.0
        """When to look at the trash next; None: nothing lies there. At the start it is not known."""
        self._trash_pause_s = TRASH_PAUSE_S
        self._trash_skip = 0
        """How many of the oldest things there are stuck, in this pass over it."""

    # --- When to look

    def look_everywhere(self) -> None:
        """Have everything looked at, and decide at once."""
        self._full_wanted = self._at_once = True
        self._retry_s = 0.0

    def look_at(self, directories: Iterable[str]) -> None:
        """Have some directories looked at now."""
        now = self._context.clock.monotonic_s()
        for path in directories:
            self._again[path] = min(now, self._again.get(path, now))

    def look_at_files(self, paths: Iterable[str]) -> None:
        """Have files that would not stand still looked at a little later."""
        later = self._context.clock.monotonic_s() + AGAIN_S
        for path in paths:
            self._again.setdefault(path.rpartition("/")[0], later)

    async def doubt(self, files: Mapping[ItemId, str]) -> None:
        """Have files read again a little later, with their paths, that hold something else than they did when they were hashed.

        They may look as they did then: on a disk that keeps whole seconds, or that is failing.
        """
        ids = list(files)
        await self._context.database.run(lambda db: LocalTree(db, self._folder).doubt(ids))
        self.look_at_files(files.values())

    def is_due(self, now_s: float) -> bool:
        """Whether there is something to look at now."""
        deadline = self.next_deadline()
        return deadline is not None and deadline <= now_s

    @property
    def trash_deadline(self) -> float | None:
        """When to look at the trash, in seconds of the clock; None: only once something is put there."""
        return self._trash_s

    def expect_trash(self) -> None:
        """Something was put into the trash, or may have been."""
        self._trash_pause_s = TRASH_PAUSE_S
        due = self._context.clock.monotonic_s() + TRASH_PAUSE_S
        self._trash_s = due if self._trash_s is None else min(due, self._trash_s)

    def next_deadline(self) -> float | None:
        """Return when to look next, in seconds of the clock; None: only when something happens."""
        if self.missing and self._retry_s > self._context.clock.monotonic_s():
            return self._retry_s
        if self._full_wanted:
            return 0.0
        moments = [*self._again.values()]
        hinted = self._hints.next_deadline()
        if hinted is not None:
            moments.append(hinted)
        if self._next_full_s is not None:
            moments.append(self._next_full_s)
        return min(moments, default=None)

    # --- Watching

    def watch(self, wake: Callable[[], None]) -> None:
        """Watch the root for as long as it is there; ``wake`` is called when there is something to look at."""
        self._watch_wanted = wake

    def _start_watcher(self) -> None:
        if self._watcher is not None and self._watcher.is_gone:
            self._stop_watcher()  # the root was away for a moment between two looks, and stands there again
        if self._watch_wanted is not None and self._watching is None:
            self._watcher = self._context.watchers(self._guard.path, is_ignored=self.is_excluded)
            self._degraded = False
            self._watching = asyncio.create_task(self._listen(self._watcher, self._watch_wanted), name="watcher")

    def _watch_anew(self) -> None:
        """Watch what is no longer left out, too."""
        if self._watching is not None:
            self._stop_watcher()
            self._start_watcher()

    def _stop_watcher(self) -> None:
        if self._watching is not None:
            self._watching.cancel()
            self._watching = None
        if self._watcher is not None:
            self._watcher.close()
            self._watcher = None
        self._degraded = True

    async def _listen(self, watcher: Watcher, wake: Callable[[], None]) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            while True:
                for event in await watcher.get():
                    self._take(event)
                wake()

    def _take(self, event: DiskEvent) -> None:
        if event.kind is DiskEventKind.DEGRADED:
            log.warning("not all directories can be watched: looking everywhere from time to time")
            self._degraded = True
        if not event.directory and event.name == IGNORE_FILE:
            self._stirred = True
        self._hints.handle(event, self._context.clock.monotonic_s())
        self._witness.handle(event)

    @property
    def is_degraded(self) -> bool:
        """Whether some of the root is not watched though it is there."""
        return self._degraded and not self.missing

    def close(self) -> None:
        """Stop watching."""
        self._stop_watcher()

    # --- Ignoring

    def is_excluded(self, path: str, is_directory: bool) -> bool:  # noqa: FBT001 - the shape that the scanner calls
        """Tell whether this device leaves a path of its disk alone."""
        if self._respells and not path.isascii() and self._is_excluded(normalize("NFC", path), is_directory):
            return True
        return self._is_excluded(path, is_directory)

    def _is_excluded(self, path: str, is_directory: bool) -> bool:  # noqa: FBT001 - see above
        if self.apart:
            above = self.apart.above(path)
            if above is not None and above != self.lifted:
                return True
        return self.is_ignored(path, is_directory)

    def is_ignored(self, path: str, is_directory: bool) -> bool:  # noqa: FBT001 - the shape that the planner calls
        """Tell whether a rule says that a path stays on the device that it is on."""
        return self._ignores.is_ignored(path, is_directory) or (
            self._coming is not None and self._coming.ignores.is_ignored(path, is_directory)
        )

    @property
    def rules_hash(self) -> bytes:
        """What tells the rules and exclusions in force from others; empty if there are none."""
        known = blake3(self._rules).digest() if self._rules else b""
        if self.apart:
            paths = b"\0".join(os.fsencode(each.path) for each in self.apart.exclusions)
            known = blake3(b"\0".join((self._rules or b"", paths))).digest()
        return known if self._coming is None else blake3(known + self._coming.data).digest()

    def exclude(self, apart: Apart) -> None:
        """Take other exclusions: all is looked at under them before anything is planned."""
        self.apart = apart
        self._watch_anew()
        self.has_looked = False
        self.rules_changed = True
        self.look_everywhere()

    async def _take_rules(self, root: Root, now: float) -> None:
        """Take other rules once ``.kinignore`` has come to rest: an editor may have emptied it for a moment.

        Until then a path stays where it is if the old or the new rules say so. What they left alone meanwhile is looked at
        and planned anew also where the new ones go again: :attr:`rules_hash` tells of them.
        """
        data = await self._context.processor.run(_read_rules, root)
        if data == self._rules and self._coming is None:
            return
        stirred, self._stirred = self._stirred, False
        if data == self._rules:
            self._coming = None
        else:
            if self._coming is None or self._coming.data != data or stirred:
                self._coming = _Coming(data, Ignores(data), now + RULES_REST_S)
                self.rules_changed = True
            if self._rules is not None and not self._at_once and now < self._coming.rest_s:
                self._again[""] = min(self._coming.rest_s, self._again.get("", self._coming.rest_s))
                return
        is_change = self._rules is not None
        if self._coming is not None:
            self._rules, self._ignores, self._coming = data, self._coming.ignores, None
        if is_change:
            self._watch_anew()
        for problem in self._ignores.problems:
            log.warning("a rule has no effect", line=problem.line, reason=problem.text)
        self._full_wanted = self.rules_changed = True
        self.has_looked = False

    # --- Looking

    async def observe(self) -> bool:
        """Do the look that is due; tell whether the local tree changed."""
        now = self._context.clock.monotonic_s()
        root = await self._context.processor.run(self._guard.open)
        if isinstance(root, RootMissing):
            if self.missing != root.text:
                log.warning("root is away", reason=root.reason)
            self.missing, self._retry_s = root.text, now + MISSING_S
            self._begin_anew()
            return False
        try:
            if self.missing:
                self.missing, self._full_wanted = "", True
            if self._identity not in (None, root.identity):
                log.warning("root is another directory than before, with the right marker")
                self._begin_anew()
            self._identity = root.identity
            self._start_watcher()
            await self._finish(root, now)
            await self._take_rules(root, now)
            return await self._look(root, now)
        except DiskError as error:
            self.missing, self._retry_s = f"{self._guard.path}: {error}", now + MISSING_S
            self.has_looked = False
            return False
        except BaseException:
            self._full_wanted = True
            raise
        finally:
            root.close()

    def open_root(self) -> Root | RootMissing:
        """Return the open root, or why it must not be touched; runs in the pool."""
        return self._guard.open()

    def _begin_anew(self) -> None:
        """What was seen or watched until now says nothing about what stands at the root next."""
        self._stop_watcher()
        self._witness.forget()
        self._respells = None
        self._full_wanted, self.has_looked = True, False

    async def stands_as_seen(self, ids: Iterable[ItemId]) -> bool:
        """Tell whether files stand where the last look saw them, and look as they did then; who asks holds the disk."""

        def rows(db: sqlite3.Connection) -> list[tuple[str | None, Fingerprint | None]]:
            local = LocalTree(db, self._folder)
            return [(path_of(local, id), local.fingerprint(id)) for id in ids]

        known = await self._context.database.run(rows)
        return await self._context.processor.run(_stand, self._guard, known)

    async def check(self) -> str:
        """See whether the root is there, and nothing else; return why it is not. An agent looks itself at what changed.

        No watcher tells that another disk was mounted over a root.
        """
        try:
            async with asyncio.timeout(CHECK_S_MAX):
                missing, identity = await self._context.processor.run(_peek, self._guard)
        except TimeoutError:  # the pool has much to do: what the last look said must do
            return self.missing
        is_other = identity is not None and self._identity not in (None, identity)
        if self._watch_wanted is None:
            self.missing = missing
        elif bool(missing) != bool(self.missing) or is_other:
            self._full_wanted, self._retry_s = True, 0.0
            self._watch_wanted()
        return missing

    async def _finish(self, root: Root, now: float) -> None:
        """Finish what a crash or the disk cut off."""
        run = self._context.processor.run
        if self._recovered and not await run(is_unfinished, self._journal):
            return
        recovered = await run(recover, root, self._journal)
        self._recovered = not recovered.left
        self._unrecovered = frozenset(recovered.left)
        self._look_beside((*recovered.back, *recovered.kept, *recovered.look_at), now)
        now = self._context.clock.now_ms()
        kept = range(now - STAGE_AGE_MS, now + STAGE_AGE_MS)
        await run(lambda: clean_stages(root, is_wanted=lambda _: False, kept_ms=kept))
        self.expect_trash()

    def _look_beside(self, paths: Iterable[str], now: float) -> None:
        for path in paths:
            self._again.setdefault(path.rpartition("/")[0], now)

    async def tidy(self) -> None:
        """Let go of what the trash holds and nobody may miss, a bounded part of it; scans nothing."""
        now = self._context.clock.monotonic_s()
        self._trash_s = now + self._trash_pause_s  # whatever happens: not again at once
        skip, self._trash_skip = self._trash_skip, 0
        root = await self._context.processor.run(self._guard.open)
        if isinstance(root, RootMissing):
            self._trash_pause_s = min(2 * self._trash_pause_s, TRASH_PAUSE_S_MAX)
            return
        try:
            await self._finish(root, now)
            emptied = await self._empty(root, TRASH_AGE_MS, skip)
        except DiskError as error:
            log.info("the trash waits", reason=error.code)
            self._trash_pause_s = min(2 * self._trash_pause_s, TRASH_PAUSE_S_MAX)
            return
        finally:
            root.close()
        if emptied.more:
            self._trash_skip = skip + emptied.stuck
            self._trash_s = now
            return
        # Only what is stuck keeps the pause growing: what is young needs one more look after its time.
        is_stuck = skip + emptied.stuck + await self._context.processor.run(self._unchecked)
        self._trash_pause_s = min(2 * self._trash_pause_s, TRASH_PAUSE_S_MAX) if is_stuck else TRASH_PAUSE_S
        self._trash_s = now + self._trash_pause_s if emptied.left else None

    def _unchecked(self) -> int:
        return self._journal.count(checked=False)

    async def tidy_now(self) -> None:
        """Let go at once of what surely has no writer; for a process that ends, and finds no later moment."""
        root = await self._context.processor.run(self._guard.open)
        if isinstance(root, RootMissing):
            return
        try:
            skip = 0
            while True:
                emptied = await self._empty(root, 0, skip, sure=True)
                if not emptied.more:
                    return
                skip += emptied.stuck
        except DiskError as error:
            log.info("the trash waits", reason=error.code)
        finally:
            root.close()

    async def _empty(self, root: Root, age_ms: int, skip: int, *, sure: bool = False) -> Emptied:
        now_ms = self._context.clock.now_ms()

        def work() -> Emptied:
            self._journal.date_back(now_ms)
            return empty_trash(root, self._journal, before_ms=now_ms - age_ms, skip=skip, sure=sure)

        emptied = await self._context.processor.run(work)
        self._look_beside(emptied.kept, self._context.clock.monotonic_s())
        return emptied

    async def _look(self, root: Root, now: float) -> bool:
        due = [path for path, when in self._again.items() if when <= now]
        look = None
        full = self._full_wanted or (self._next_full_s is not None and self._next_full_s <= now)
        if full:
            self._hints.clear()
            self._again.clear()
            self._doubtful.clear()
        else:
            look = self._hints.due(now)
            full = look is not None and look.full
        spots = dict.fromkeys(due, False)
        unsettled = self._unrecovered
        moved: frozenset[str] = frozenset()
        if look is not None:
            unsettled, moved = unsettled | look.unsettled, look.moved
            for spot in look.spots:
                spots[spot.path] = spots.get(spot.path, False) or spot.recursive
        for path in due:
            self._again.pop(path, None)
        if not full and not spots:
            return False
        if not full:  # where something came from may be looked at just now
            spots = {**dict.fromkeys(self._doubtful, False), **spots}
        self._doubtful.clear()
        self._full_wanted = self._at_once = False
        if full:
            self._next_full_s = now + (UNWATCHED_S if self._degraded else WATCHED_S)
        changed = await self._scan(root, None if full else spots, unsettled, moved)
        self.has_looked = self.has_looked or full
        return changed

    async def _scan(
        self, root: Root, spots: dict[str, bool] | None, unsettled: Collection[str], moved: frozenset[str]
    ) -> bool:
        changed = False
        for attempt in range(LOOKS_MAX):
            found, left = await self._scan_once(root, spots, unsettled, moved)
            changed = changed or bool(found.puts or found.drops)
            more = {_above(path): False for path in left} | dict.fromkeys(found.wanted, True)
            if (
                spots is None
                or attempt == LOOKS_MAX - 1
                or all(spots.get(one, -1) >= deep for one, deep in more.items())
            ):
                self._look_later(left, found)
                if spots is None:
                    self._must_seek = found.hides and not self._unrecovered.issuperset(unsettled)
                if self._must_seek:
                    self._next_full_s = self._context.clock.monotonic_s() + AGAIN_S  # which leaves out nothing
                break
            for path, recursive in more.items():  # both ends of a move must be seen by one scan
                spots[path] = recursive or spots.get(path, False)
        return changed

    def _look_later(self, left: Iterable[str], found: Identified) -> None:
        """Have what is left looked at in a moment; where things wait for another reason is part of each look till then."""
        now = self._context.clock.monotonic_s()
        for path in (*left, *found.wanted):
            self._again.setdefault(_above(path), now + AGAIN_S)
        self._doubtful = {_above(path) for path in (*found.undecided, *found.wanted)}
        if len(self._doubtful) > SPOTS_MAX:
            self._hints.look_everywhere(now)

    async def _scan_once(
        self, root: Root, spots: dict[str, bool] | None, unsettled: Collection[str], moved: frozenset[str]
    ) -> tuple[Identified, list[str]]:
        """Scan once; return what came of it, and which of the undecided paths nothing else will have looked at again."""
        context, folder = self._context, self._folder
        turn = self._witness.turn()
        begun: list[Identification] = []
        # Who looks everywhere sees where things went; a look at a part must be told.
        settled = Settled(None if spots is None or self._watcher is None else self._witness.heard_of)

        def begin(db: sqlite3.Connection) -> Identification:
            return Identification(
                local=LocalTree(db, folder),
                synced=SyncedTree(db, folder),
                entropy=context.entropy,
                full=spots is None,
                settled=settled,
                moved=moved,
            )

        where = None if spots is None else [Spot(path, recursive) for path, recursive in sorted(spots.items())]
        listings = scan(root, where, is_ignored=self.is_excluded, unsettled=unsettled)
        problems: dict[str, str] = {}
        listed: list[str] = []
        spellings = await context.database.run(lambda db: _spellings(db, folder)) if self._respells else None
        while True:
            part = await context.processor.run(lambda: list(islice(listings, LISTINGS_PER_STEP)))
            if self._respells is None and not all(map(_is_plain, part)):
                self._respells = await context.processor.run(respells, root, context.entropy)
                if self._respells:
                    return await self._scan_once(root, spots, unsettled, moved)
            if spellings is not None:
                listed += (listing.path for listing in part if not listing.path.isascii())
                part = await context.database.run(lambda _, part=part: [*map(spellings.respelled, part)])  # type: ignore[misc]
            for listing in part:
                listed.append(listing.path)
                # What is not to be judged yet is no problem: it is looked at in a moment, or at once if somebody asks.
                problems.update((path, why) for path, why in _problems(listing) if path not in unsettled)
            is_last = len(part) < LISTINGS_PER_STEP
            if is_last and self._watcher is not None:
                # A name that this scan missed went away before, and that is told before anything is judged.
                await self._watcher.caught_up(EVENTS_S_MAX)
                settled.untold, settled.waits = self._hints.untold(moved=spots is None), self._must_seek
                settled.waits = settled.waits or self._hints.wants_everything
            observe = partial(_observe, begun, begin, part, is_last=is_last)
            requests = await context.database.run(observe)
            if is_last:
                break
        hashes: dict[str, Hashed] = {}
        results = hash_files(root, requests, now_ms=context.clock.now_ms)
        for _ in range(0, len(requests), HASHES_PER_STEP):
            some = await context.processor.run(lambda: list(islice(results, HASHES_PER_STEP)))
            hashes.update({hashed.path: hashed for hashed in some})
        moving = [path for path, hashed in hashes.items() if hashed.problem == "changing"]
        self.restless = self.restless + 1 if moving else 0
        self.look_at_files(moving + [path for path, hashed in hashes.items() if not hashed.settled])
        if hashes and self._watcher is not None:  # what was written until it was read is told, too
            await self._watcher.caught_up(EVENTS_S_MAX)

        def record(db: sqlite3.Connection) -> Identified:
            found = begun[0].result(hashes)
            local = LocalTree(db, folder)
            noted = self.brake.note(db, found)
            local.drop_all(found.drops)
            for row in found.puts:
                local.put(row.item, row.fingerprint)
            self.brake.judge(db, noted)
            problems.update(found.unread)
            _put_problems(db, folder, listed if spots is not None else None, problems)
            return found

        found = await context.database.run(record)
        left = {*unsettled, *found.undecided, *(path for path, _ in found.unread)}
        self._witness.settle(turn, None if spots is None else listed, left)
        # What the watcher has told is looked at in its time; if it tells nothing of what is missing, something was lost.
        unheard = settled.unheard | moved
        if not unheard.isdisjoint(found.undecided):
            self._hints.look_everywhere(context.clock.monotonic_s())
        waiting = unheard | settled.untold
        return found, [path for path in found.undecided if path not in waiting]


def _above(path: str) -> str:
    return path.rpartition("/")[0]


def _stand(guard: RootGuard, rows: Iterable[tuple[str | None, Fingerprint | None]]) -> bool:
    """Tell whether each path leads to what it led to when it was looked at; runs in the pool."""
    root = guard.open()
    if isinstance(root, RootMissing):
        return False
    with root:
        return all(path and seen and stands(root.fs, root.handle, path, seen) for path, seen in rows)


def _peek(guard: RootGuard) -> tuple[str, RootIdentity | None]:
    """Return why a root is not there, or which directory it is; runs in the pool."""
    root = guard.open()
    if isinstance(root, RootMissing):
        return root.text, None
    with root:
        return "", root.identity


def _read_rules(root: Root) -> bytes:
    """Return what ``.kinignore`` holds; runs in the pool.

    Raises:
        DiskError: It cannot be read, and without its rules nothing may leave this device.
    """
    try:
        handle = root.fs.open_file(root.handle, IGNORE_FILE, Access.READ)
    except OSError as error:
        if is_gone(error):
            return b""
        raise DiskError("unreadable", f"{IGNORE_FILE} cannot be read: {text_of(error)}") from error
    try:
        if kind_of(root.fs.fstat(handle).mode) is not Kind.FILE:
            return b""
        buffer = memoryview(bytearray(IGNORE_FILE_BYTES_MAX + 1))
        return bytes(buffer[: root.fs.read(handle, buffer, 0)])
    except OSError as error:
        raise DiskError("unreadable", f"{IGNORE_FILE} cannot be read: {text_of(error)}") from error
    finally:
        root.fs.close(handle)


def _is_plain(listing: Listing) -> bool:
    """Whether no disk would show one of these names in another Unicode form."""
    return all(sighting.name.isascii() for sighting in listing.sightings)


def _spellings(db: sqlite3.Connection, folder: int) -> Spellings:
    local = LocalTree(db, folder)

    def standing(inode: tuple[int, int]) -> ItemId | None:
        return next((item.id for item, _ in local.holders(*inode) if item.is_directory), None)

    return Spellings((local, SyncedTree(db, folder), ItemTable(db, folder)), standing)


def _observe(
    begun: list[Identification],
    begin: Operation[Identification],
    listings: Iterable[Listing],
    db: sqlite3.Connection,
    *,
    is_last: bool,
) -> Sequence[str]:
    """Take listings, the first of them by an identification that begins; after the last, return the files to hash."""
    if not begun:
        begun.append(begin(db))
    for listing in listings:
        begun[0].observe(listing)
    return begun[0].requests() if is_last else ()


def _problems(listing: Listing) -> Iterator[tuple[str, str]]:
    if listing.problem:
        yield listing.path, listing.problem
    for sighting in listing.sightings:
        if sighting.problem:
            yield (f"{listing.path}/{sighting.name}" if listing.path else sighting.name), sighting.problem


def _put_problems(
    db: sqlite3.Connection, folder: int, listed: Collection[str] | None, problems: dict[str, str]
) -> None:
    """Replace what was known to be wrong in the listed directories (None: everywhere)."""
    if listed is None:
        db.execute("DELETE FROM problem WHERE folder = ?", (folder,))
    else:
        seen = set(listed)
        for (path,) in db.execute("SELECT path FROM problem WHERE folder = ?", (folder,)).fetchall():
            if os.fsdecode(path) in seen or os.fsdecode(path).rpartition("/")[0] in seen:
                db.execute("DELETE FROM problem WHERE folder = ? AND path = ?", (folder, path))
    db.executemany(
        "INSERT OR REPLACE INTO problem VALUES (?, ?, ?)",
        [(folder, os.fsencode(path), reason) for path, reason in problems.items() if reason != "gone"],
    )
