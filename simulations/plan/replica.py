"""One device's view of the log: what it folded, its tail, and what must be planned anew; without a database.

It does what :mod:`peer.engine.follower`, :mod:`peer.engine.registered` and the recording half of
:mod:`peer.engine.recorder` do, in memory.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence

from msgspec.structs import replace

from peer.core.authoring import Draft, author
from peer.core.drafts import DraftEntry, as_admitted
from peer.core.fold import fold, order_tail, void
from peer.core.fold_state import FoldState
from peer.core.memory_state import MemoryState, OverlayState
from peer.core.operations import Act, Create, Edit
from peer.core.tree import ItemId
from protocol.entries import AdmittedEntry, ContentValue
from protocol.ids import EntryHash
from simulations.plan.local import NotedTree
from simulations.plan.log import Log, hash_of_entry


class Replica:
    """The three trees but the local one, and the fold behind the remote one."""

    def __init__(self, number: int, log: Log) -> None:
        self.number = number
        self.log = log
        self.chance = random.Random(number)
        self.dirty: set[ItemId] = set()
        """Items in which two trees may differ."""
        self.synced = NotedTree(self.dirty)
        self.ordered: FoldState = MemoryState()
        self.state: OverlayState = OverlayState(self.ordered)
        self.position = 0
        self.seq = 0
        self.own: dict[EntryHash, AdmittedEntry] = {}
        """Entries of this device that are neither ordered nor void."""
        self.foreign: dict[EntryHash, AdmittedEntry] = {}
        """Of others, taken while they were near."""
        self.settled: set[EntryHash] = set()
        """Ordered or void, as far as this device knows."""
        self.tail: list[AdmittedEntry] = []
        """What is folded after the log, in its order."""
        self.is_void_fresh = False
        """Whether an entry that this device had folded became void since its user last had peace."""
        self._tail_end = 0

    # --- Following

    def pull(self, position: int) -> bool:
        """Take the log up to a position, all at once or one by one; tell whether anything was new."""
        items = self.log.items[self.position : position]
        if not items:
            return False
        gone: list[AdmittedEntry] = []
        run: list[AdmittedEntry] = []
        for item in items:
            hash = item.entry.hash
            self.settled.add(hash)
            if not item.is_void:
                self.own.pop(hash, None)
                self.foreign.pop(hash, None)
                run.append(item.entry)
                self.position += 1
                continue
            self._fold_run(run)
            self.position += 1
            if self.own.pop(hash, None) is not None:
                void(self.ordered, item.entry)
                gone.append(item.entry)
            elif self.foreign.pop(hash, None) is not None:
                gone.append(item.entry)
        self._fold_run(run)
        self._forget(gone)
        self.rebuild()
        return True

    def _fold_run(self, run: list[AdmittedEntry]) -> None:
        if run:
            self.dirty |= fold(self.ordered, run, position=self.position - len(run) + 1)
            run.clear()

    def _forget(self, gone: Sequence[AdmittedEntry]) -> None:
        if not gone:
            return
        self.is_void_fresh = True
        brought = {(entry.header.device, entry.header.seq) for entry in gone}
        touched = {
            item.id
            for item in self.synced.items()
            if any((dot.device, dot.seq) in brought for one in item.members for dot in (*one.content, *one.place))
        }
        nodes = {change.node for entry in gone for change in entry.header.changes}
        own = {c.node for entry in gone if entry.header.device == self.number for c in entry.header.changes}
        for id in sorted(touched | own):
            self.synced.drop(id)
        self.dirty |= touched | nodes

    def near(self, entries: Iterable[AdmittedEntry]) -> bool:
        """Take registered entries of a device that is near; tell whether any was new."""
        before = len(self.foreign)
        for entry in entries:
            if entry.hash not in self.settled and entry.header.device != self.number:
                self.foreign[entry.hash] = entry
        if len(self.foreign) == before:
            return False
        self.rebuild()
        return True

    def rebuild(self) -> None:
        """Fold the tail anew over the ordered state; mark what it changes, or does not change any more, dirty."""
        self.dirty |= self.state.own_items()
        self.state = OverlayState(self.ordered)
        if not self.foreign:
            self.tail = list(self.own.values())
            self._tail_end = 0
            for entry in self.tail:
                self.dirty |= fold(self.state, [entry], position=self.position + entry.header.seq)
            return
        both = [*self.own.values(), *self.foreign.values()]
        # As a device sees it: what its own entries need, or is ordered, is known.
        known = self.settled | {need for entry in self.own.values() for need in entry.header.needs}
        known -= {entry.hash for entry in both}
        placed = order_tail(known, both)
        hashes = {entry.hash for entry in placed}
        self.tail = placed + [entry for entry in self.own.values() if entry.hash not in hashes]
        self._tail_end = self.position + len(self.tail)
        if self.tail:
            self.dirty |= fold(self.state, self.tail, position=self.position + 1)

    # --- Recording

    def record(self, acts: Sequence[Act]) -> Draft:
        """Turn acts into entries of this device, and fold these."""
        position = max(self._tail_end, self.position) + self.seq + 1
        draft = author(
            acts,
            synced=self.synced,
            state=self.state,
            device=self.number,
            seq=self.seq + 1,
            contents=contents_of(acts),
            entropy=self.chance.randbytes,
            label=f"D{self.number}",
            position=position,
        )
        made = [self._sign(entry) for entry in draft.entries]
        self.seq += len(made)
        for entry in made:
            self.own[entry.hash] = self.log.signed[entry.hash] = entry
        self._take(draft, made, position)
        for id in draft.dropped:
            self.synced.drop(id)
        for item in draft.synced:
            self.synced.put(item)
        return draft

    def _take(self, draft: Draft, made: Sequence[AdmittedEntry], position: int) -> None:
        if self.foreign:
            self.rebuild()
            return
        self.tail += made
        if draft.trial is None:
            if made:
                self.dirty |= fold(self.state, made, position=position)
            return
        draft.trial.hand_down()
        for entry in made:
            at = (entry.header.device, entry.header.seq)
            row = self.state.entries.get(at)
            assert row is not None
            self.state.entries.put(at, replace(row, hash=entry.hash))
        self.dirty.update(draft.changed)

    def _sign(self, part: DraftEntry) -> AdmittedEntry:
        entry = as_admitted(part, device=self.number, label=f"D{self.number}")
        needs = tuple(sorted({hash_of_entry(dot.device, dot.seq) for dot in part.needs}))
        previous = hash_of_entry(self.number, part.seq - 1)
        header = replace(entry.header, needs=needs, previous=previous)
        return replace(entry, hash=hash_of_entry(self.number, part.seq), header=header)

    # --- What is known

    def vector(self, devices: Iterable[int], before: dict[int, int]) -> dict[int, int]:
        """Return up to which number it knows the entries of each device, without gaps.

        Args:
            devices: Their numbers.
            before: What was so before.
        """
        tail = {entry.hash for entry in self.tail}
        found = {}
        for device in devices:
            seq = before.get(device, 0)
            while (hash := hash_of_entry(device, seq + 1)) in self.settled or hash in tail:
                seq += 1
            found[device] = seq
        return found


def contents_of(acts: Iterable[Act]) -> dict[ItemId, ContentValue]:
    """Return the content values of created and edited files."""
    values: dict[ItemId, ContentValue] = {}
    for act in acts:
        if not isinstance(act, Create | Edit):
            continue
        id, content = (act.item.id, act.item.content) if isinstance(act, Create) else (act.base.id, act.content)
        values[id] = ContentValue(
            kind=content.kind,
            body=None,
            hash=content.hash,
            size=content.size,
            mtime_ns=content.mtime_ns,
            executable=content.executable,
            target=content.target,
            chunker="",
            spans=(),
        )
    return values
