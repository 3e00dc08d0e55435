"""Cut the changes of one operation into entries that fit the limits, and give each value its dot.

Rule 1: what was planned together is admitted together: one entry, or the entries of one batch, each of which needs the
one before it.
Rule 2: a value is planned once for a register; a keep never takes the place of a move or a removal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final

import msgspec
from msgspec.structs import replace

from protocol import limits, versions
from protocol.codec import encode
from protocol.entries import (
    ENTRY_VERSION,
    AdmittedEntry,
    Batch,
    Change,
    ContentValue,
    DetachValue,
    Header,
    Payload,
    PlaceValue,
    Register,
    Seen,
    SegmentKey,
    Value,
)
from protocol.errors import LimitExceededError
from protocol.ids import DeviceId, Dot, EntryHash, FolderId, LinkHash, NodeId, copy_id
from protocol.versions import Vector

HEADER_BYTES_MAX: Final = limits.ENTRY_HEADER_BYTES_MAX - 16 * limits.KIB
"""For the changes, needs and pins of an entry; the rest is for what its author adds when it signs."""
PAYLOAD_BYTES_MAX: Final = limits.ENTRY_PAYLOAD_BYTES_MAX - 192 * limits.KIB
"""For values and segments; the rest is for account heads, for the entries seen, and for the seal."""
_NOTHING: Final = bytes(32)


class Planned(msgspec.Struct, frozen=True):
    """One value to be written."""

    node: NodeId
    register: Register
    base: tuple[Dot, ...]
    vector: Vector
    """Of all that it builds on."""
    needs: tuple[Dot, ...]
    value: Value
    segments: tuple[SegmentKey, ...] = ()
    """Counted by the spans of a content."""


class DraftEntry(msgspec.Struct, frozen=True):
    """What authoring decides of an entry; the caller adds the rest, seals and signs it."""

    seq: int
    batch: Batch | None
    changes: tuple[Change, ...]
    values: tuple[Value, ...]
    """One for each change; spans count ``segments``."""
    segments: tuple[SegmentKey, ...]
    needs: tuple[Dot, ...]
    """One value of each entry that this one needs. Entries of the same draft have dots with this device's numbers."""


Key = tuple[NodeId, Register]


class Sheet:
    """The values of one operation, in the order in which they were planned first."""

    def __init__(self) -> None:
        self._planned: dict[Key, Planned] = {}
        self.version = 0
        """Rises with each value that is planned."""

    def get(self, key: Key) -> Planned | None:
        """Return what is planned for a register of a node."""
        return self._planned.get(key)

    def write(self, planned: Planned) -> None:
        """Plan a value; for one register of one node the last one counts (rule 2)."""
        key = _key(planned)
        if isinstance(planned.value, PlaceValue) and planned.value.weak and key in self._planned:
            return
        self._planned[key] = planned
        self.version += 1

    def places(self, node: NodeId) -> bool:
        """Tell whether a place of the node is planned."""
        return (node, Register.PLACE) in self._planned

    def detaches(self, copy: NodeId) -> bool:
        """Tell whether it is planned to make this copy a node of its own."""
        return (copy, Register.DETACH) in self._planned

    def entries(self, device: int, seq: int, batch_id: Callable[[], bytes]) -> tuple[DraftEntry, ...]:
        """Return the entries, the first with sequence number ``seq``.

        Raises:
            LimitExceededError: More than a batch may have.
        """
        pages: list[_Page] = []
        for planned in self._planned.values():
            if not pages or not pages[-1].take(planned):
                pages.append(_Page())
                pages[-1].take(planned)
        if len(pages) > limits.BATCH_ENTRIES_MAX:
            raise LimitExceededError("entries of one operation", limits.BATCH_ENTRIES_MAX)
        id = batch_id() if len(pages) > 1 else b""
        return tuple(
            page.entry(device, seq + index, Batch(id, index, len(pages)) if id else None)
            for index, page in enumerate(pages)
        )

    def dots(self, entries: Iterable[DraftEntry], device: int) -> dict[Key, Dot]:
        """Return the dots that the planned values have in these entries."""
        places = (Dot(device, entry.seq, index) for entry in entries for index in range(len(entry.changes)))
        return dict(zip(self._planned, places, strict=True))


def _key(planned: Planned) -> Key:
    if isinstance(planned.value, DetachValue):
        return copy_id(planned.node, planned.value.dot), Register.DETACH
    return planned.node, planned.register


class _Page:
    """The values of one entry."""

    def __init__(self) -> None:
        self._planned: list[Planned] = []
        self._needs: set[Dot] = set()
        self._segments: dict[SegmentKey, int] = {}
        self._header_bytes = 0
        self._payload_bytes = 0

    def take(self, planned: Planned) -> bool:
        """Add a value, unless the entry would pass a limit; an empty entry takes any."""
        needs = [dot for dot in planned.needs if dot not in self._needs]
        new_segments = [segment for segment in planned.segments if segment not in self._segments]
        header = self._header_bytes + len(encode(_change(planned, planned.vector)))
        payload = self._payload_bytes + len(encode(planned.value)) + sum(len(encode(key)) for key in new_segments)
        segments = len(self._segments) + len(new_segments)
        if self._planned and (
            len(self._planned) == limits.ENTRY_CHANGES_MAX
            or len(self._needs) + len(needs) >= limits.ENTRY_NEEDS_MAX
            or segments > limits.ENTRY_PINS_MAX
            or header + 34 * (len(self._needs) + len(needs) + 1 + segments) > HEADER_BYTES_MAX
            or payload > PAYLOAD_BYTES_MAX
        ):
            return False
        self._planned.append(planned)
        self._needs.update(needs)
        self._segments.update((segment, i) for i, segment in enumerate(new_segments, start=len(self._segments)))
        self._header_bytes, self._payload_bytes = header, payload
        return True

    def entry(self, device: int, seq: int, batch: Batch | None) -> DraftEntry:
        """Return the entry with this sequence number."""
        needs = set(self._needs)
        if batch is not None and batch.index:
            needs.add(Dot(device, seq - 1, 0))
        changes = [_change(p, versions.trim(versions.bump(p.vector, device, seq), device)) for p in self._planned]
        return DraftEntry(
            seq,
            batch,
            tuple(changes),
            tuple(self._value(planned) for planned in self._planned),
            tuple(self._segments),
            tuple(sorted(needs)),
        )

    def _value(self, planned: Planned) -> Value:
        value = planned.value
        if isinstance(value, ContentValue) and value.spans:
            number = [self._segments[segment] for segment in planned.segments]
            value = replace(value, spans=tuple(replace(span, segment=number[span.segment]) for span in value.spans))
        return value


def _change(planned: Planned, vector: Vector) -> Change:
    return Change(planned.node, planned.register, planned.base, vector)


def as_admitted(entry: DraftEntry, *, device: int, label: str) -> AdmittedEntry:
    """Return an entry as the fold will take it, before it has a signature and a hash."""
    header = Header(
        version=ENTRY_VERSION,
        folder=FolderId(_NOTHING),
        epoch=0,
        control_head=LinkHash(_NOTHING),
        device=device,
        seq=entry.seq,
        previous=EntryHash(_NOTHING),
        needs=(),
        expect=(),
        replaces=(),
        batch=entry.batch,
        changes=entry.changes,
        pins=tuple(sorted({segment.id for segment in entry.segments})),
        source=None,
        payload_hash=_NOTHING,
    )
    payload = Payload(Seen(0, 0, _NOTHING, ()), (), label, 0, "", entry.segments, entry.values)
    return AdmittedEntry(EntryHash(_NOTHING), DeviceId(_NOTHING), header, payload)


def vector_of(values: Sequence[Vector]) -> Vector:
    """Return the vector that covers all of these."""
    return values[0] if len(values) == 1 else versions.merge(values)
