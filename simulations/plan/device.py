"""One device: a disk, a scanner, three trees, the planner, hands. It does what the agent's loop does, turn by turn.

Each turn can be done in part, as the agent does it: a look at some directories, a plan for some items while others are
in transfer, a transfer that ends later, when the trees are others.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Sequence
from typing import Final

from peer.core.authoring import Draft, split_acts
from peer.core.holding import still_bringing, still_holding, subject
from peer.core.identify import Identification, Identified
from peer.core.operations import Act, Create, Edit, Place, Plan, Rekey, Replace, Step
from peer.core.planner import is_settled, plan
from peer.core.tree import Content, Item, ItemId, path_of
from protocol.entries import Kind
from simulations.plan.disk import MemoryDisk, hash_of
from simulations.plan.hands import Hands
from simulations.plan.local import MemoryLocal
from simulations.plan.log import Log
from simulations.plan.replica import Replica

LOOKS_MAX: Final = 3
_ALL: Final = 1 << 30  # more than any history has items


class Job:
    """A transfer that is under way: its items are left alone until it ends."""

    def __init__(self, ids: Collection[ItemId], acts: Sequence[Act] = (), steps: Sequence[Step] = ()) -> None:
        self.ids = frozenset(ids)
        self.acts = acts
        self.steps = steps


class Device:
    """One device of the folder.

    Args:
        number: Its number.
        log: Shared by all.
        folds_case: Whether its disk takes names that differ by case for one.
        late: How many transfers end only later.
        watch: Is told what it is about to do; see :class:`Watch`.
    """

    def __init__(self, number: int, log: Log, watch: Watch, *, folds_case: bool = False, late: float = 0.0) -> None:
        self.number = number
        self._late = late
        self.watch = watch
        self.disk = MemoryDisk(folds_case=folds_case)
        self.replica = Replica(number, log)
        self.dirty = self.replica.dirty
        self.synced = self.replica.synced
        self.local = MemoryLocal(self.dirty)
        self.hands = Hands(
            self.disk, self.local, self.synced, lambda content, step: watch.destroys(self, content, step)
        )
        self.jobs: list[Job] = []
        self.blocked: set[ItemId] = set()
        self.hints: dict[str, bool] = {}
        """Directories in which something happened, as far as the watcher told; and whether to look at all below them."""
        self.again: set[str] = set()
        """Directories that a scan could not tell everything about."""
        self.is_out = False
        """Whether it was taken out of the folder."""
        self.is_unscanned = False
        """Whether a user may have done something since everything was last looked at."""
        self.looked_at = 0
        """The disk's clock when a look told all that there was; 0: the next one is a real one in any case."""
        self.cursor = b""

    # --- Observe

    def scan(
        self, chance: random.Random | None = None, *, whole: bool = True, meanwhile: Callable[[], object] | None = None
    ) -> bool:
        """Look everywhere or where hints lead; return whether the local tree changed.

        What was looked at, and has not changed since, is not looked at again.

        Args:
            chance: Decides which files do not stand still; None: all do.
            whole: Whether to look everywhere.
            meanwhile: Is called between listing and reading.
        """
        spots = None if whole else {**dict.fromkeys(sorted(self.again), False), **self.hints}
        is_known = whole and chance is None and not self.again and self.looked_at == self.disk.now
        self.hints.clear()
        self.again.clear()
        self.is_unscanned = self.is_unscanned and not whole
        if is_known and meanwhile is None:
            return False
        began, self.looked_at = self.disk.now, 0
        changed = False
        for attempt in range(LOOKS_MAX):
            found = self._scan_once(spots, chance, meanwhile)
            meanwhile = None
            changed = changed or bool(found.puts or found.drops)
            if not found.undecided and not found.wanted:
                self.looked_at = began if whole and not self.again else 0
                return changed
            if spots is None or attempt == LOOKS_MAX - 1:
                self.again.update(path.rpartition("/")[0] for path in (*found.undecided, *found.wanted))
                return changed
            for path in found.undecided:
                spots.setdefault(path.rpartition("/")[0], False)
            for path in found.wanted:
                spots[path] = True
        return changed

    def _scan_once(
        self,
        spots: dict[str, bool] | None,
        chance: random.Random | None,
        meanwhile: Callable[[], object] | None,
    ) -> Identified:
        identification = Identification(
            local=self.local, synced=self.synced, entropy=self.replica.chance.randbytes, full=spots is None
        )
        for path, recursive in sorted((spots or {"": True}).items()):
            for listing in self.disk.scan(self._there(path), recursive=recursive and self._there(path) == path):
                identification.observe(listing)
        requests = identification.requests()
        if meanwhile is not None:
            meanwhile()
        hashes = {path: self.disk.hash(path) for path in requests}
        self.disk.hashed.clear()
        if chance is not None:
            for path in requests:
                if chance.random() < 0.1:
                    hashes[path] = hashes[path]._replace(problem="changing")
                elif chance.random() < 0.1:
                    hashes[path] = hashes[path]._replace(settled=False)
        found = identification.result(hashes)
        self.local.apply(found)
        for path, _ in found.unread:
            self.again.add(path.rpartition("/")[0])
        self.again.update(path.rpartition("/")[0] for path, hash in hashes.items() if not hash.settled)
        return found

    def _there(self, path: str) -> str:
        """Return a directory, or the nearest one above it that is there."""
        while True:
            inode = self.disk.find(path)
            if inode is not None and inode.is_directory:
                return path
            path = path.rpartition("/")[0]

    # --- Plan

    def plan_some(self, chance: random.Random | None = None) -> bool:
        """Plan and act; return whether there was anything to do.

        Args:
            chance: Decides how many items are looked at, and what is transferred later; None: all, and at once.
        """
        most = _ALL if chance is None else chance.choice((1, 2, 3, 5, _ALL, _ALL))
        if not self.dirty:
            self.cursor = b""
            return False
        leave = self.blocked.union(*(job.ids for job in self.jobs))
        found = [id for id in sorted(self.dirty) if id > self.cursor][:most]
        self.cursor = found[-1] if found and len(found) == most else b""
        ids = [id for id in found if id not in leave]
        trees = {"local": self.local, "synced": self.synced, "remote": self.replica.state.tree}
        unsettled = [id for id in ids if not is_settled(id, **trees)]
        made = self._plan_free(unsettled, leave)
        acts = [act for act in made.acts if subject(act) not in leave]
        steps = [step for step in made.steps if step_subject(step) not in leave]
        busy = {subject(act) for act in acts} | {step_subject(step) for step in steps}
        self.dirty.difference_update([id for id in ids if id not in busy and is_settled(id, **trees)])
        self._act(acts, chance)
        self._step(steps, chance)
        return bool(acts or steps)

    def _plan_free(self, ids: Sequence[ItemId], leave: Collection[ItemId]) -> Plan:
        stuck: set[ItemId] = set()
        while True:
            rest = [id for id in ids if id not in stuck]
            made = plan(local=self.local, synced=self.synced, remote=self.replica.state.tree, dirty=rest, busy=leave)
            waiting = {
                id
                for step in made.steps
                if isinstance(step, Rekey) and (step.old in leave or step.new in leave)
                for id in (step.old, step.new)
            }
            if not waiting or not waiting.intersection(rest):
                self.watch.planned(self, made)
                return made
            stuck |= waiting

    # --- Act

    def _act(self, acts: Sequence[Act], chance: random.Random | None) -> None:
        if not acts:
            return
        tied, rest = split_acts(acts)
        is_late = chance is not None and chance.random() < self._late
        if tied and is_late and any(isinstance(act, Edit) and _has_bytes(act) for act in tied):
            self.jobs.append(Job([subject(act) for act in tied], acts=tied))
        elif tied:
            self.record(tied)
        now = [act for act in rest if not _has_bytes(act)]
        self.record(now)
        for act in rest:
            if _has_bytes(act):
                if chance is not None and chance.random() < self._late:
                    self.jobs.append(Job([subject(act)], acts=[act]))
                else:
                    self.record([act])

    def record(self, acts: Sequence[Act]) -> None:
        """Record the acts that still hold."""
        holding = still_holding([act for act in acts if self._is_there(act)], self.local, self.synced)
        if holding and not self.is_out:
            self.watch.recorded(self, holding, self.replica.record(holding))

    def _is_there(self, act: Act) -> bool:
        """Tell whether the bytes that an act speaks of can still be sent: else the file is looked at again."""
        if not _has_bytes(act):
            return True
        content = act.item.content if isinstance(act, Create) else act.content  # type: ignore[union-attr]  # see above
        path = path_of(self.local, subject(act))
        inode = None if path is None else self.disk.find(path)
        if inode is not None and not inode.is_directory and hash_of(inode.data) == content.hash:
            return True
        self.again.add((path or "").rpartition("/")[0])
        self.dirty.add(subject(act))
        return False

    # --- Step

    def _step(self, steps: Sequence[Step], chance: random.Random | None) -> None:
        now: list[Step] = []
        later: list[Step] = []
        for step in steps:
            is_fetched = isinstance(step, Place | Replace) and _is_fetched(step.item.content)
            (later if is_fetched else now).append(step)
        self.apply(now, is_fresh=True)
        ready: list[Step] = []
        for step in later:
            if chance is not None and chance.random() < self._late + 0.1:
                self.jobs.append(Job([step_subject(step)], steps=[step]))
            else:
                ready.append(step)
        self.apply(ready, is_fresh=True)

    def apply(self, steps: Sequence[Step], *, is_fresh: bool = False) -> None:
        """Carry out steps; fresh ones were planned on what the trees hold now."""
        steps = still_bringing(steps, self.replica.state)
        if steps:
            self.hands.apply(steps)
            self.watch.applied(self, steps, is_fresh=is_fresh)
            self.again |= self.hands.look_at
            self.blocked |= self.hands.refused
            self.hands.look_at.clear()
            self.hands.refused.clear()
            self.hands.missed.clear()

    def finish(self, chance: random.Random | None = None) -> None:
        """Let transfers end: all, or some."""
        jobs, self.jobs = self.jobs, []
        for job in jobs:
            if chance is not None and chance.random() < 0.5:
                self.jobs.append(job)
                continue
            self.record(job.acts)
            self.apply(job.steps)
            self.dirty |= job.ids

    # --- All of it

    def rest(self, rounds_max: int) -> int:
        """Look everywhere, plan and act until nothing is left to do; return after how many rounds.

        What the disk refused is tried again whenever something else has changed.

        Returns:
            A number above ``rounds_max`` if it did not come to rest.
        """
        last: tuple[int, int] | None = None
        for count in range(rounds_max + 1):
            self.finish()
            before = self.hands.changes, self.replica.seq
            if before != last:
                self.blocked.clear()
            last = before
            self.cursor = b""
            changed = self.scan()
            planned = self.plan_some()
            is_still = before == (self.hands.changes, self.replica.seq) and not changed
            if is_still and not self.again and (not planned or self.blocked):
                return count
        return rounds_max + 1

    @property
    def is_true(self) -> bool:
        """Whether the local tree is what the disk holds."""
        return not (self.is_unscanned or self.again)

    @property
    def is_at_peace(self) -> bool:
        """Whether nothing is left to do."""
        return self.is_true and not (self.jobs or self.hints or self.blocked or self.cursor or self.dirty)


class Watch:
    """Is told of what a device does; checks override what they look at."""

    def destroys(self, device: Device, content: Content, step: Step) -> None:
        """Bytes are about to be taken off a disk."""

    def planned(self, device: Device, made: Plan) -> None:
        """Something was planned."""

    def recorded(self, device: Device, acts: Sequence[Act], draft: Draft) -> None:
        """Acts were recorded."""

    def applied(self, device: Device, steps: Sequence[Step], *, is_fresh: bool) -> None:
        """Steps were carried out; fresh ones were planned on what the trees hold now."""


def step_subject(step: Step) -> ItemId:
    """Return the item that a step is about."""
    for name in ("item", "expected", "base"):
        item = getattr(step, name, None)
        if isinstance(item, Item):
            return item.id
    assert isinstance(step, Rekey)
    return step.old


def _has_bytes(act: Act) -> bool:
    content = act.item.content if isinstance(act, Create) else act.content if isinstance(act, Edit) else None
    return content is not None and content.kind is Kind.FILE and content.size > 0


def _is_fetched(content: Content) -> bool:
    return content.kind is Kind.FILE
