"""Give entries their places in a folder's log, as soon as each is ready and in whatever order they arrive.

Rule 1: an entry waits only for what it names: entries that it needs, segments that it pins. Its device's other entries
do not hold it up.
Rule 2: every registered entry ends ordered or void, unless something that it names never comes and nobody says so. Its epoch was judged when
it was registered: whoever lost the key since could read it then.
Rule 3: a need of a replaced entry is a need of the replacement; a need of any other void entry makes void.
Rule 4: waits never form a ring; the entry that would close one becomes void.
Rule 5: everything may be delivered twice; the second time changes nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable
from enum import IntEnum
from typing import Final, Protocol

import msgspec

from coordinator.core.admission import FULL, defect, is_full, refusal
from coordinator.core.authority import Authority
from protocol import versions
from protocol.entries import Entry, Register
from protocol.history import VoidReason
from protocol.ids import ChunkId, EntryHash, LinkHash, NodeId
from protocol.versions import Vector

RING_STEPS_MAX: Final = 10_000


class Wait(IntEnum):
    """What is waited for, and by whom."""

    CHUNK = 1
    """A segment waits for a chunk (one that it lists, or itself) to reach a write quorum."""
    SEGMENT = 2
    """An entry waits for a segment to become durable."""
    ENTRY = 3
    """An entry waits for another one to be ordered."""


class Record(msgspec.Struct):
    """What became of an entry."""

    hash: EntryHash
    device: int
    seq: int
    counter: int
    """Registration counter; 0: only its void record is known, from a log that was given back."""
    position: int = 0
    """Of the entry, or of its void record; 0: registered."""
    void: VoidReason | None = None
    replaced_by: EntryHash | None = None

    @property
    def is_registered(self) -> bool:
        """Whether the entry itself was here."""
        return self.counter > 0

    @property
    def is_ordered(self) -> bool:
        """Whether it stands in the log."""
        return self.position > 0 and self.void is None

    @property
    def is_pending(self) -> bool:
        """Whether it is neither ordered nor void."""
        return self.position == 0


class Ledger(Protocol):
    """One folder's records within one transaction."""

    def find(self, hash: EntryHash) -> Record | None:
        """Return what is known of an entry."""

    def newest_of(self, device: int) -> tuple[int, EntryHash]:
        """Return (seq, hash) of the newest entry registered under a device number."""

    def advance(self, device: int) -> bool:
        """Count entries of a log that was given back as a device's newest, where they follow; tell whether any did."""

    def is_branch(self, entry: Entry) -> bool:
        """Tell whether a log that was given back has another entry in the place of this one, or of the one before the next."""

    def is_control_link(self, hash: LinkHash) -> bool:
        """Tell whether a link stands in the control log."""

    def register(self, entry: Entry, data: bytes) -> Record:
        """Add an entry as its device's newest, with the next registration counter.

        It is void at once if its void record was here before it, in a log that was given back.
        """

    def pending(self, hash: EntryHash) -> Entry:
        """Return an entry that is registered and neither ordered nor void."""

    def pending_records(self) -> list[Record]:
        """Return all entries that are neither ordered nor void, by registration counter."""

    def pending_count(self, device: int | None = None) -> int:
        """Return how many entries, of one device number or of all, are neither ordered nor void."""

    def order(self, record: Record) -> None:
        """Give a pending entry the next position."""

    def make_void(self, record: Record, reason: VoidReason, replaced_by: EntryHash | None) -> None:
        """Give a pending entry's void record the next position; whatever the entry waited for is forgotten."""

    def vector(self, node: NodeId, register: Register) -> Vector:
        """Return the summed-up history of a register; empty if nothing was written to it."""

    def set_vector(self, node: NodeId, register: Register, vector: Vector) -> None:
        """Set the summed-up history of a register."""

    def durable(self, segments: Collection[ChunkId]) -> set[ChunkId]:
        """Return those segments that have reached a write quorum as a whole."""

    def set_durable(self, segments: Collection[ChunkId]) -> None:
        """Note that segments have reached a write quorum as a whole."""

    def wait(self, kind: Wait, targets: Collection[bytes], waiter: bytes) -> None:
        """Note that ``waiter`` waits for each of the targets."""

    def drop_waits(self, waiter: bytes) -> None:
        """Forget whatever ``waiter`` waits for."""

    def is_waiting(self, waiter: bytes) -> bool:
        """Tell whether ``waiter`` waits for anything."""

    def waits_for(self, waiter: EntryHash) -> list[EntryHash]:
        """Return the entries that an entry waits for."""

    def waiters(self, target: EntryHash) -> list[EntryHash]:
        """Return the entries that wait for an entry."""

    def redirect(self, target: EntryHash, new_target: EntryHash) -> None:
        """Let the entries that wait for ``target`` wait for ``new_target``."""

    def release(self, kind: Wait, targets: Collection[bytes]) -> list[bytes]:
        """Forget all waits for the targets; return those waiters that now wait for nothing."""


class Ordering:
    """Registers and orders the entries of one folder within one transaction."""

    def __init__(self, ledger: Ledger, authority: Authority) -> None:
        self._ledger = ledger
        self._authority = authority
        self._todo: deque[tuple[EntryHash, VoidReason | None]] = deque()

    def register(self, entry: Entry, data: bytes) -> str:
        """Register an entry, and order what can be ordered thereby; return why it was refused, or an empty string."""
        ledger = self._ledger
        known = ledger.find(entry.hash)
        if known is not None and known.is_registered:
            return ""
        device = entry.header.device
        code = refusal(entry, self._authority, ledger.newest_of(device), ledger.is_control_link)
        if code == "gap" and ledger.advance(device):
            code = refusal(entry, self._authority, ledger.newest_of(device), ledger.is_control_link)
        if not code and ledger.is_branch(entry):
            code = "chain"  # of a device that was put back to before it wrote what this coordinator has lost, too
        if code:
            return code if known is None else ""
        if is_full(ledger.pending_count(device), ledger.pending_count()):
            return FULL
        record = ledger.register(entry, data)
        if not record.is_pending:
            return ""
        reason = self._replace(entry) or self._await(entry)
        if reason is None:
            self._todo.append((record.hash, None))
        else:
            self._void(record, reason, None)
        self._settle()
        return ""

    def release(self, kind: Wait, targets: Collection[bytes]) -> None:
        """Note that what was waited for is there, and order what can be ordered thereby."""
        self._release(kind, targets)
        self._settle()

    def recheck_authors(self) -> None:
        """Make void what can never be ordered since a member, a role or a device was lost."""
        for record in self._ledger.pending_records():
            if not self._authority.counts(record.device, record.seq, record.hash):
                self._todo.append((record.hash, VoidReason.AUTHOR_REMOVED))
        self._settle()

    def give_up(self, hashes: Iterable[EntryHash]) -> None:
        """Make void what can never be ordered since nobody holds its contents."""
        self._todo.extend((hash, VoidReason.CONTENTS_LOST) for hash in hashes)
        self._settle()

    def reconsider(self) -> None:
        """Look again at everything that is pending, after a log was given back."""
        self.recheck_authors()
        for record in self._ledger.pending_records():
            if record.is_pending:
                self._ledger.drop_waits(record.hash)
                reason = self._await(self._ledger.pending(record.hash))
                self._todo.append((record.hash, reason))
        self._settle()

    def _settle(self) -> None:
        while self._todo:
            hash, reason = self._todo.popleft()
            record = self._ledger.find(hash)
            if record is None or not record.is_pending:
                continue
            if reason is None:
                self._try(record)
            else:
                self._void(record, reason, None)

    def _try(self, record: Record) -> None:
        """Order an entry if nothing is missing."""
        ledger = self._ledger
        if ledger.is_waiting(record.hash):
            return
        header = ledger.pending(record.hash).header
        if not self._authority.counts(record.device, record.seq, record.hash):
            self._void(record, VoidReason.AUTHOR_REMOVED, None)
            return
        reason = defect(header, lambda device: ledger.newest_of(device)[0], ledger.vector)
        if reason is not None:
            self._void(record, reason, None)
            return
        ledger.order(record)
        for change in header.changes:
            before = ledger.vector(change.node, change.register)
            merged = versions.trim(versions.merge((before, change.vector)), header.device)
            ledger.set_vector(change.node, change.register, merged)
        self._release(Wait.ENTRY, (record.hash,))

    def _void(self, record: Record, reason: VoidReason, replaced_by: EntryHash | None) -> None:
        self._ledger.make_void(record, reason, replaced_by)
        if replaced_by is not None:
            self._ledger.redirect(record.hash, replaced_by)
            return
        for waiter in self._ledger.waiters(record.hash):
            self._todo.append((waiter, VoidReason.NEEDS_VOID))

    def _release(self, kind: Wait, targets: Collection[bytes]) -> None:
        freed = self._ledger.release(kind, targets)
        if kind is Wait.CHUNK:
            segments = [ChunkId(segment) for segment in freed]
            if segments:
                self._ledger.set_durable(segments)
                self._release(Wait.SEGMENT, segments)
        else:
            self._todo.extend((EntryHash(entry), None) for entry in freed)

    def _replace(self, entry: Entry) -> VoidReason | None:
        """Make void what an entry replaces; return why the entry itself must be void instead."""
        ledger = self._ledger
        pending: list[Record] = []
        for hash in entry.header.replaces:
            record = ledger.find(hash)
            if record is None or record.device != entry.header.device:
                return VoidReason.PRECONDITION
            if record.is_ordered:
                return VoidReason.REPLACED_WAS_ORDERED
            if record.is_pending:
                pending.append(record)
        if pending and self._reaches(entry.header.needs, {record.hash for record in pending}):
            return VoidReason.PRECONDITION  # it would wait for itself
        for record in pending:
            self._void(record, VoidReason.REPLACED, entry.hash)
        return None

    def _await(self, entry: Entry) -> VoidReason | None:
        """Note what an entry waits for; return why it must be void instead."""
        ledger = self._ledger
        missing: list[EntryHash] = []
        for need in entry.header.needs:
            hash, record = self._resolve(need)
            if record is None or record.is_pending:
                missing.append(hash)
            elif record.void is not None:
                return VoidReason.NEEDS_VOID
        # A ring can only close here if somebody waits for this entry already.
        if missing and ledger.waiters(entry.hash) and self._reaches(missing, {entry.hash}):
            return VoidReason.NEEDS_VOID
        if missing:
            ledger.wait(Wait.ENTRY, set(missing), entry.hash)
        if pins := entry.header.pins:
            absent = set(pins) - ledger.durable(pins)
            if absent:
                ledger.wait(Wait.SEGMENT, absent, entry.hash)
        return None

    def _resolve(self, hash: EntryHash) -> tuple[EntryHash, Record | None]:
        """Return the entry that stands for ``hash`` after all replacements."""
        record = self._ledger.find(hash)
        while record is not None and record.replaced_by is not None:
            hash = record.replaced_by
            record = self._ledger.find(hash)
        return hash, record

    def _reaches(self, starts: Iterable[EntryHash], goals: set[EntryHash]) -> bool:
        """Tell whether waiting for ``starts`` means waiting for one of ``goals``; beyond a bound of steps, assume so."""
        seen: set[EntryHash] = set()
        rest = [self._resolve(hash)[0] for hash in starts]
        while rest:
            hash = rest.pop()
            if hash in goals or len(seen) > RING_STEPS_MAX:
                return True
            if hash not in seen:
                seen.add(hash)
                rest.extend(self._ledger.waits_for(hash))
        return False
