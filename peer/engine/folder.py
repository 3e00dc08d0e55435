"""One folder's engine: a loop that observes, plans, acts and records until nothing is left to do.

One task runs the loop; transfers run beside it as jobs, so a large file holds nothing up. All decisions are made in
:mod:`peer.core`; this module only carries results from one part to the next.

Rule 1: the loop never waits for a transfer; a finished job wakes it.
Rule 2: planning goes round by round over the dirty items; those in a job or blocked are left out until the job has ended
    or their time has come.
Rule 3: an error of one part (storage away, disk full) stops that part alone, and ``status`` tells why.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator, Collection, Coroutine, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import structlog

from peer.core.authoring import split_acts
from peer.core.holding import hindered, subject
from peer.core.operations import Act, Edit, Place, Remove, Replace, Step
from peer.core.tree import ItemId
from peer.disk.stages import Staged
from peer.engine.context import Context
from peer.engine.downloader import Downloader, ToFetch
from peer.engine.drainer import PART as DRAIN
from peer.engine.drainer import Drainer
from peer.engine.exclusions import Exclusions
from peer.engine.follower import Follower
from peer.engine.freeing import Freer
from peer.engine.grouping import groups
from peer.engine.hands import Hands
from peer.engine.holdings import Holdings
from peer.engine.news import News
from peer.engine.observer import Observer
from peer.engine.outlook import Outlook
from peer.engine.reassurance import Reassurer
from peer.engine.recorder import Planned, Recorder
from peer.engine.room import Room
from peer.engine.safety import Safety
from peer.engine.stepper import KEPT, OCCUPIED, Stepper
from peer.engine.uploader import Stored, ToSend, Uploader
from peer.engine.waiting import AWAITED, DISK_FULL, LASTING, OF_NETWORK, Blocked, Progress, Waits, longer, told
from peer.store.folders import FolderRecord
from peer.store.obstacles import put_obstacles
from protocol.errors import (
    CorruptStateError,
    HistoryError,
    KinfolderError,
    SecurityError,
    SpoolFullError,
    UnavailableError,
)

PLAN_ITEMS_MAX: Final = 8_000
"""Items planned at once; a round goes through all dirty items in such pieces."""
QUEUED_MAX: Final = 8_000
"""Files in transfers, begun or waiting; planning goes on as they end."""
GROUP_ACTS_MAX: Final = 400
MISSED_MAX: Final = 4
RECORDED_LOOK_S: Final = 0.2
"""Between looks whether all is recorded, while the folder does not come to rest."""

log = structlog.get_logger("folder")


class FolderEngine:
    """Keeps one folder in sync."""

    def __init__(
        self,
        context: Context,
        follower: Follower,
        observer: Observer,
        recorder: Recorder,
        stepper: Stepper,
        exclusions: Exclusions,
        freer: Freer,
        uploader: Uploader,
        downloader: Downloader,
        safety: Safety,
        holdings: Holdings,
        room: Room,
    ) -> None:
        self._context = context
        self.outlook = Outlook(lambda: follower.record, lambda: self._drainer.is_running)
        """Why what is not in sync waits."""
        self.follower = follower
        self.news = News(follower)
        self.observer = observer
        self.brake = observer.brake
        self.holdings = holdings
        """What other devices can be given from this disk."""
        self._reassurer = Reassurer(context, follower, holdings)
        self._recorder = recorder
        self._stepper = stepper
        self.exclusions = exclusions
        self.freer = freer
        self._uploader = uploader
        self._drainer = Drainer(uploader.spool, holdings, self._reassurer.stand_in, self._part)
        self._drainer.on_ended = self._drain_ended
        uploader.spool.on_kept = self._want_drain
        self._downloader = downloader
        self._room = room
        self.safety = safety
        safety.changed = self._changed
        self._wake = asyncio.Event()
        self._disk = safety.disk
        self._quiet_waiters: list[asyncio.Future[None]] = []
        self.outlook.jobs.on_failed = self._block
        self.outlook.jobs.on_ended = self._job_ended
        self._missed: dict[ItemId, int] = {}
        """How often in a row the disk did not hold what a step for an item expected."""
        self._tried: dict[ItemId, Blocked] = {}
        self._obstacles: dict[ItemId, str] | None = None
        """What is kept of why items cannot stand here; None: not known."""
        self._changes = 1
        self._changes_planned = 0
        self._cursor = b""
        self._due: set[ItemId] = set()
        self._pull_wanted = True
        self._push_wanted = True
        self.upload = Progress()
        self.download = Progress()
        self._ended = False
        self.failed = ""
        """Not empty: a defect that stopped this folder."""

    @property
    def record(self) -> FolderRecord:
        """The folder's record as it is now."""
        return self.follower.record

    @property
    def recorder(self) -> Recorder:
        """Who writes down what this device's user did; for decisions of his that are no change of the disk."""
        return self._recorder

    # --- What others tell the loop

    def wake(self) -> None:
        """Look again whether there is something to do."""
        self._wake.set()

    def pull(self) -> None:
        """The coordinator's head may have moved."""
        self._pull_wanted = True
        self.outlook.parts.pop("pull", None)
        self._wake.set()

    def link_is_up(self) -> None:
        """A session began, or storage came: try at once what waited for it."""
        self._reassurer.forget()
        self.follower.registered.look_again()
        self._pull_wanted = True
        self._try_all()

    def _try_all(self) -> None:
        self.outlook.parts.clear()
        self._recorder.forget()
        self.outlook.try_again(OF_NETWORK)
        self._push_wanted = True
        self._want_plan()
        self._want_drain()

    def near_changed(self) -> None:
        """Another device came near, and may have what nobody had; or one left, and what it did not send is up to others."""
        self.follower.registered.look_again()
        self.outlook.try_again({"no_source", AWAITED})
        self._pull_wanted = True
        self._want_plan()
        self._want_drain()

    @property
    def hands(self) -> Hands:
        """What works on the disk, for whoever brings an older state back."""
        return Hands(self._disk, self._recorder, self._stepper, self._downloader)

    def changed_here(self) -> None:
        """The local tree was changed, or the tail: plan and send what follows."""
        self.observer.expect_trash()
        self._push_wanted = True
        self._changed()

    def retry_all(self) -> None:
        """Somebody asks for a pass now: nothing waits out its time."""
        self.outlook.try_all_again()
        self._reassurer.retry()
        self._try_all()

    # --- The loop

    async def run(self) -> None:
        """Work until cancelled."""
        try:
            while True:
                self._wake.clear()
                if not await self._turn():
                    if self._is_quiet():
                        await self._keep_obstacles()
                        await self.safety.look_at_offer()
                        self._tell_quiet()
                    if not await self._tidy():
                        await self._sleep()
        except CorruptStateError as error:
            self.failed = str(error)
            log.error("a folder stopped", code=error.code)  # noqa: TRY400  # it is told in words
        except Exception as error:  # whatever it is, the other folders go on and status tells
            self.failed = f"stopped by {type(error).__name__}: {error}"
            log.exception("a folder stopped", folder=self.record.id.hex()[:12])
        finally:
            self._ended = True
            await self.outlook.jobs.stop()
            await self._drainer.stop()
            self._tell_quiet()

    async def quiet(self) -> None:
        """Wait until nothing is left to do but what waits for its time or for a person."""
        if self.failed or self._ended or (self._is_quiet() and not self._wake.is_set()):
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._quiet_waiters.append(future)
        self._wake.set()
        await future

    async def recorded(self) -> None:
        """Wait until what the disk holds is in entries, as far as that can be done now; downloads may go on."""
        while not self._is_recorded:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(RECORDED_LOOK_S):
                    await self.quiet()
                    return

    @property
    def _is_recorded(self) -> bool:
        is_due = self.observer.is_due(self._context.clock.monotonic_s())
        return self.observer.has_looked and not is_due and not self._plan_wanted and not self.outlook.jobs.sends

    async def _turn(self) -> bool:
        """Do the first thing that is due; tell whether there was one."""
        if self.record.frozen:
            return False
        if self.news.take():
            self.pull()
        now = self._context.clock.monotonic_s()
        if await self._room.has_grown(self.outlook.blocked, now):
            self.outlook.try_again({DISK_FULL})
        if self.outlook.online and self._is_drain_wanted and self._may(DRAIN):
            self._drainer.start()
        if self.observer.is_due(now) and self._may("scan"):
            return await self._part("scan", self._observe())
        if self.outlook.online and self._pull_wanted and self._may("pull"):
            self._pull_wanted = False
            return await self._part("pull", self._pull())
        if self.outlook.online and self._push_wanted and self._may("push"):
            self._push_wanted = False
            return await self._part("push", self._push())
        if self.may_plan and (self._plan_wanted or self._unblock(now)) and self._may("plan"):
            return await self._part("plan", self._plan())
        return False

    async def _part(self, name: str, work: Coroutine[Any, Any, None]) -> bool:
        try:
            await work
        except CorruptStateError:
            raise  # no later try would find it whole
        except KinfolderError as error:
            self._block_part(name, error)
            if isinstance(error, SecurityError):
                log.error("stopped", part=name, code=error.code)  # noqa: TRY400  # its text is for status, not the log
            else:
                log.info("waits", part=name, code=error.code)
        except Exception as error:  # a defect: the folder says so and tries again, instead of standing still unseen
            log.exception("failed", part=name)
            self._block_part(name, KinfolderError(f"{name} failed ({type(error).__name__}); the log says why"))
        else:
            self.outlook.parts.pop(name, None)
        return True

    @property
    def _plan_wanted(self) -> bool:
        """Whether a round of planning is under way or should begin; not while enough transfers wait for their turn."""
        if len(self.outlook.jobs) >= QUEUED_MAX:
            return False
        return bool(self._cursor) or self._changes != self._changes_planned

    @property
    def may_plan(self) -> bool:
        """Whether what this device does not see is gone.

        Before everything was looked at, it may be there all the same; a restored device has to catch up, too.
        """
        return self.observer.has_looked and (not self.record.mistrusted or self.follower.has_caught_up)

    def _changed(self) -> None:
        self._want_plan()
        self._wake.set()

    def _want_plan(self) -> None:
        """Something changed: once the round of planning that is under way has ended, another one begins."""
        self._changes += 1

    def _may(self, part: str) -> bool:
        why = self.outlook.parts.get(part)
        return why is None or why.until_s <= self._context.clock.monotonic_s()

    def _block_part(self, part: str, error: KinfolderError) -> None:
        self.outlook.parts[part] = why = longer(
            self.outlook.parts.get(part), error.code, self._context.clock.monotonic_s()
        )
        why.text = str(error)
        match part:
            case "pull":
                self._pull_wanted = True
            case "push":
                self._push_wanted = True
            case "drain":
                self._drainer.is_wanted = True
            case "plan":
                self._want_plan()

    def _unblock(self, now: float) -> bool:
        if len(self.outlook.jobs) >= QUEUED_MAX:
            return False
        return any(why.until_s <= now and id not in self.outlook.jobs for id, why in self.outlook.blocked.items())

    async def _sleep(self) -> None:
        if self.record.frozen:
            await self._wake.wait()
            return
        now = self._context.clock.monotonic_s()
        moments: list[float] = []
        if self.may_plan and self._may("plan") and len(self.outlook.jobs) < QUEUED_MAX:
            moments += [why.until_s for id, why in self.outlook.blocked.items() if id not in self.outlook.jobs]
        idle = set() if self.outlook.online else {"pull", "push", DRAIN}
        if self._drainer.is_running:
            idle.add(DRAIN)  # its time has come, and its end wakes the loop
        if not self.may_plan:
            idle.add("plan")
        moments += [why.until_s for part, why in self.outlook.parts.items() if part not in idle]
        moments += self._room.moments(self.outlook.blocked)
        deadline = self.observer.next_deadline()
        if deadline is not None and self._may("scan"):
            moments.append(deadline)
        trash = self.observer.trash_deadline
        if trash is not None and self._may("trash"):
            moments.append(trash)
        timeout = max(0.0, min(moments) - now) if moments else None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._wake.wait()

    def _is_quiet(self) -> bool:
        if not self.outlook.jobs.is_idle or self._drainer.is_running:
            return False
        if self.record.frozen:
            return True
        if self.observer.is_due(self._context.clock.monotonic_s()) and "scan" not in self.outlook.parts:
            return False
        waiting = set(self.outlook.parts)
        if not self.observer.has_looked and (self.observer.missing or "scan" in waiting):
            waiting.add("plan")
        if not self.may_plan and self.observer.has_looked and ("pull" in waiting or not self.outlook.online):
            waiting.add("plan")
        parts = (
            ("pull", self._pull_wanted or self.news.is_open),
            ("push", self._push_wanted),
            (DRAIN, self._is_drain_wanted),
            ("plan", self._plan_wanted),
        )
        wanted = {name for name, flag in parts if flag and (self.outlook.online or name == "plan")}
        return wanted <= waiting

    def _tell_quiet(self) -> None:
        waiters, self._quiet_waiters = self._quiet_waiters, []
        for future in waiters:
            if not future.done():
                future.set_result(None)
        self.upload, self.download = Progress(), Progress()
        if not self.outlook.blocked:
            self._tried.clear()

    # --- Observe

    async def _observe(self) -> None:
        async with self._disk:
            if await self.observer.observe():
                self._want_plan()
            if self.observer.has_looked and self.observer.rules_changed:
                if self.observer.rules_hash != self.record.rules:
                    await self._context.database.run(self._plan_all_anew)
                self.observer.rules_changed = False
                self._want_plan()
            if self.observer.has_looked and not self.record.looked:
                await self._context.database.run(lambda db: self.follower.put_record(db, looked=True))

    def _plan_all_anew(self, db: sqlite3.Connection) -> None:
        self._recorder.plan_all_anew(db)
        self.follower.put_record(db, rules=self.observer.rules_hash)

    # --- A person's decisions

    @contextlib.asynccontextmanager
    async def deciding(self) -> AsyncIterator[None]:
        """Hold the disk while a person's decision is recorded and carried out; then all is planned anew."""
        try:
            async with self._disk:
                yield
        finally:
            self._cursor = b""
            self._push_wanted = True
            self.observer.expect_trash()
            self._want_plan()
            self._wake.set()

    # --- The trash

    async def _tidy(self) -> bool:
        """Empty a part of the trash if that is due; nobody who waits for quiet waits for this."""
        trash = self.observer.trash_deadline
        if self.record.frozen or trash is None or trash > self._context.clock.monotonic_s() or not self._may("trash"):
            return False

        async def work() -> None:
            async with self._disk:
                await self.observer.tidy()

        return await self._part("trash", work())

    async def tidy_now(self) -> None:
        """Empty the trash as far as that is safe at once: the process is about to end."""
        if self.record.frozen or self.failed:
            return
        async with self._disk:
            await self.observer.tidy_now()

    async def look(self) -> None:
        """Look at the disk and at the log, and do no more; only where the loop does not run.

        Raises:
            UnavailableError: The coordinator cannot be asked.
        """
        self.observer.look_everywhere()
        await self._observe()
        if self.record.pseudonym is not None:
            await self.follower.follow()

    # --- Follow and push

    async def _pull(self) -> None:
        if self.record.pseudonym is None:
            await self._recorder.ensure_known()  # whoever added it may have been cut off before it was told
            self._want_drain()
        was_verified = self.follower.is_verified
        if await self._reassurer.follow() or self.follower.is_verified != was_verified:
            self.outlook.try_again({AWAITED})
            self._want_plan()
            if self.follower.is_mixed:
                self._want_drain()  # an author may have begun anew, and not send what he wrote before
        self._drainer.is_wanted |= self._reassurer.is_wanted
        # What was recorded meanwhile wants to be pushed too: the flag is read after the wait.
        self._push_wanted = await self._reassurer.follow_up(is_sent=not self._push_wanted) or self._push_wanted

    async def _push(self) -> None:
        if await self._recorder.push():
            self._pull_wanted = True
        else:
            await self._reassurer.run()  # whatever is unordered waits for something

    def _want_drain(self) -> None:
        self._drainer.is_wanted = True
        self._wake.set()

    @property
    def _is_drain_wanted(self) -> bool:
        """Whether there may be something to send; the coordinator is told of a new folder first."""
        return self._drainer.is_wanted and self.record.pseudonym is not None

    def _drain_ended(self) -> None:
        self.outlook.try_again({SpoolFullError.code})
        self._changed()

    # --- Plan and act

    async def _plan(self) -> None:
        if await self.exclusions.follow():
            self._want_plan()
            return  # what moved is looked at first under its new path
        if not self._cursor and self.record.mistrusted:
            await self._context.database.run(self.follower.trust_again)
        waits = self.outlook.waits(self._context.clock.monotonic_s())
        if not self._cursor:
            self._changes_planned = self._changes
            self._due = set(self.outlook.blocked) - waits.leave
        planned = await self._context.database.run(lambda db: self._plan_some(db, waits))
        if planned is None:
            async with self._disk:
                await self._stepper.put_aside(self.brake)
            self._want_plan()
            return
        self._cursor = planned.last or b""
        for id in planned.looked_at:
            self._retry(id)
            self._due.discard(id)
        if not self._cursor:
            for id in self._due:  # settled meanwhile, without having been planned
                self.outlook.blocked.pop(id, None)
        if not planned.plan.acts and not planned.plan.steps:
            return
        await self._act(planned)
        if self.follower.is_verified:
            # Only a position that carries a signed checkpoint may change the disk.
            await self._step(planned.plan.steps, planned.sources)

    def _plan_some(self, db: sqlite3.Connection, waits: Waits) -> Planned | None:
        """Plan the next items of a round; None: something is to be moved aside before one begins."""
        if not self._cursor and self.brake.is_returning(db):
            return None
        return self._recorder.plan(db, waits, PLAN_ITEMS_MAX, after=self._cursor)

    async def _act(self, planned: Planned) -> None:
        tied, rest = split_acts(planned.plan.acts)
        if any(isinstance(act, Remove) for act in tied):
            missing = await self.observer.check()  # whoever takes the root away takes away what is in it first
            if missing:
                raise UnavailableError(missing)
        tied_files = [
            planned.to_send[subject(act)] for act in tied if isinstance(act, Edit) and subject(act) in planned.to_send
        ]
        if tied_files:
            self._start_upload(tied, tied_files, planned.known)
        elif tied:
            await self._record(tied, planned.known)
        now = [act for act in rest if subject(act) not in planned.to_send]
        for start in range(0, len(now), GROUP_ACTS_MAX):
            await self._record(now[start : start + GROUP_ACTS_MAX], planned.known)
        to_send = [(act, planned.to_send[subject(act)]) for act in rest if subject(act) in planned.to_send]
        for group in groups(to_send, lambda pair: pair[1].content.size):
            self._start_upload([act for act, _ in group], [file for _, file in group], {})

    async def _record(self, acts: Sequence[Act], stored: Mapping[ItemId, Stored]) -> None:
        await self._recorder.enrol()
        await self._recorder.record(acts, stored)
        self._push_wanted = True
        self._want_plan()
        self._wake.set()

    def _start_upload(self, acts: Sequence[Act], files: Sequence[ToSend], known: Mapping[ItemId, Stored]) -> None:
        size = sum(file.content.size for file in files)
        self.upload.files += len(files)
        self.upload.bytes += size
        ids = [subject(act) for act in acts]

        async def job() -> None:
            await self._recorder.enrol()  # who may not sign need not send either
            stored, problems = await self._uploader.send(files, self._uploaded)
            self.upload.files_done += len(files)
            for id, reason in problems.items():
                self._block(id, reason)
            changing = {file.id: file.path for file in files if problems.get(file.id) == "changing"}
            if changing:
                await self.observer.doubt(changing)
            ready = [act for act in acts if subject(act) not in problems]
            if ready:
                await self._record(ready, {**known, **stored})

        self.outlook.jobs.add("up", ids, job)

    async def _step(self, steps: Iterable[Step], sources: Mapping[ItemId, ToFetch]) -> None:
        now: list[Step] = []
        later: list[tuple[Step, ToFetch]] = []
        for step in steps:
            file = sources.get(step.item.id) if isinstance(step, Place | Replace) else None
            if file is None:
                now.append(step)
            else:
                later.append((step, file))
        if now:
            failed = await self._apply(now, {})
            vain = failed | hindered([*now, *(step for step, _ in later)], failed)
            later = [(step, file) for step, file in later if file.item.id not in vain]
        for group in groups(later, lambda pair: pair[1].item.content.size):
            self._start_download([step for step, _ in group], [file for _, file in group])

    def _start_download(self, steps: list[Step], files: list[ToFetch]) -> None:
        self.download.files += len(files)
        self.download.bytes += sum(file.item.content.size for file in files)

        async def job() -> None:
            staged, problems = await self._downloader.fetch(files, self._downloaded)
            self.download.files_done += len(files)
            unordered = {file.item.id for file in files if not file.is_stored}
            for id, reason in problems.items():
                self._block(id, AWAITED if reason == "no_source" and id in unordered else reason)
            ready = [step for step in steps if isinstance(step, Place | Replace) and step.item.id in staged]
            if ready:
                await self._apply(ready, staged)

        self.outlook.jobs.add("down", [file.item.id for file in files], job)

    async def _apply(self, steps: Sequence[Step], staged: Mapping[ItemId, Staged]) -> set[ItemId]:
        """Carry out steps; return the items of those that were not done."""
        async with self._disk:
            if self.observer.apart:
                planned = steps
                steps = await self._context.database.run(lambda db: self._recorder.allowed(db, planned))
            try:
                applied = await self._stepper.apply(steps, staged)
            finally:
                self.observer.expect_trash()
        for id, reason in applied.blocked.items():
            self._block(id, reason)
        for id in applied.done:
            self._missed.pop(id, None)
        if applied.done:
            self.outlook.try_again({OCCUPIED})
        failed = applied.missed.keys() | applied.blocked.keys()
        for id in hindered(steps, failed):
            applied.missed.pop(id, None)  # it is planned again once the other is done
        for id, found in applied.missed.items():
            if found == OCCUPIED:
                self._block(id, OCCUPIED)
                continue
            # The first time it is looked at anew and planned again at once; what goes on missing waits.
            self._missed[id] = times = self._missed.get(id, 0) + 1
            if times >= (2 if found == KEPT else MISSED_MAX):
                self._block(id, KEPT if found == KEPT else "changing")
        if applied.look_at:
            self.observer.look_at(applied.look_at)
        self._want_plan()
        self._wake.set()
        return failed

    def _uploaded(self, count: int) -> None:
        self.upload.bytes_done += count

    def _downloaded(self, count: int) -> None:
        self.download.bytes_done += count

    # --- What waits

    def _job_ended(self) -> None:
        self._want_plan()
        self._wake.set()

    def _block(self, id: ItemId, reason: str) -> None:
        before = self.outlook.blocked.get(id) or self._tried.get(id)
        self.outlook.blocked[id] = longer(before, reason, self._context.clock.monotonic_s())
        self._room.refused(reason)

    def _retry(self, id: ItemId) -> None:
        """An item's time has come; how often it failed is remembered until it is done."""
        why = self.outlook.blocked.pop(id, None)
        if why is not None:
            self._tried[id] = why

    async def _keep_obstacles(self) -> None:
        """Keep why items cannot stand on this disk, for reports of processes that do not try it themselves."""
        found = {id: why.reason for id, why in self.outlook.blocked.items() if why.reason in {*LASTING, KEPT}}
        if found != self._obstacles:
            await self._context.database.run(lambda db: put_obstacles(db, self.record.key, found))
            self._obstacles = found

    # --- For status

    @property
    def is_settled(self) -> bool:
        """Whether nothing is due: what remains waits for its time or for a person."""
        return self._is_quiet()

    def failures(self, needs_person: Collection[str]) -> int:
        """Return how often what may still mend itself has failed in a row; 0: nothing of the kind is left."""
        if self._ended or self.record.frozen or self.failed or self.observer.missing:
            return 0
        counts = [
            why.failures
            for why in self.outlook.blocked.values()
            if why.reason not in {*needs_person, KEPT, OCCUPIED, AWAITED}
        ]
        counts += [
            why.failures for why in self.outlook.parts.values() if why.reason not in {HistoryError.code, DISK_FULL}
        ]
        return max([*counts, self.observer.restless])

    def progress(self) -> Iterator[dict[str, Any]]:
        """Yield how far transfers are, for whoever watches."""
        return told(self.record.name, upload=self.upload, download=self.download)

    async def damaged(self) -> int:
        """Return how much of what waits for storage cannot be sent, for who looks at this device from all sides."""
        return await self._uploader.spool.damaged(self.holdings.remake)

    async def ensure_known(self) -> None:
        """Tell the coordinator of the folder if it does not know it yet."""
        await self._recorder.ensure_known()
        self.pull()
