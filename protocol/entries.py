"""Entries: signed and sealed lists of changes, the only thing that ever alters a folder (architecture 2, security 3.9).

An entry on the wire is ``header || payload || signature``. The header is in clear, the payload is sealed
(:mod:`peer.core.sealing` opens it), the signature covers the BLAKE3 of header and payload as received.

Rule 1: signatures cover the received bytes, never a second encoding.
Rule 2: what counts as an entry is the same on every platform.
Rule 3: a change names the dots of its base; the version vector is only a summary.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final, TypeAlias

import msgspec
from blake3 import blake3

from protocol import limits, versions
from protocol.codec import decode, encode
from protocol.errors import LimitExceededError, ProtocolError
from protocol.history import SignedCheckpoint
from protocol.ids import ID_BYTES, NODE_ID_BYTES, ROOT, ChunkId, DeviceId, Dot, EntryHash, FolderId, LinkHash, NodeId
from protocol.versions import Vector

ENTRY_VERSION: Final = 1
_INTEGER_END: Final = 1 << 63
"""Every number fits into 63 bits, so that any database holds it."""


class Register(IntEnum):
    """Which register of a node a change writes."""

    PLACE = 1
    CONTENT = 2
    DETACH = 3
    """Not a register of its own: splits one value off its node. ``base`` holds the place dots that its author held."""


class Kind(IntEnum):
    """What a node is."""

    FILE = 1
    DIRECTORY = 2
    LINK = 3


class Change(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One register's new value, the part in clear. Its dot is (device number, seq of the entry, index in the entry)."""

    node: NodeId
    register: Register
    base: tuple[Dot, ...]
    """Dots of the values that the author's disk held, sorted: the change replaces these and what they replaced."""
    vector: Vector


class Batch(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Marks an entry as part of one operation that shows only when all of its entries are there."""

    id: bytes
    """16 random bytes."""
    index: int
    count: int


class Expect(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A precondition: the register's summed-up history is exactly this vector when the entry is ordered."""

    node: NodeId
    register: Register
    vector: Vector


class Header(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The part of an entry that the coordinator reads."""

    version: int
    folder: FolderId
    epoch: int
    control_head: LinkHash
    """The newest link of the folder's control log that the author knew."""
    device: int
    seq: int
    previous: EntryHash
    """The author's entry before this one; 32 zero bytes for its first."""
    needs: tuple[EntryHash, ...]
    expect: tuple[Expect, ...]
    replaces: tuple[EntryHash, ...]
    """Own registered, unordered entries that this one stands for; they become void."""
    batch: Batch | None
    changes: tuple[Change, ...]
    pins: tuple[ChunkId, ...]
    """Ids of the segments that the contents of this entry use, sorted."""
    source: FolderId | None
    """Another folder whose chunks this entry pins too; its author must be able to read it."""
    payload_hash: bytes


class SegmentKey(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Where a segment of rows lies and what opens it."""

    id: ChunkId
    opener: bytes
    """The keyed hash h of security 3.7."""
    rows: int


class RowSpan(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A run of rows of one segment of the payload's table."""

    segment: int
    start: int
    count: int


class PlaceValue(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag=1):
    """The node stands under ``parent`` as ``name``."""

    parent: NodeId
    name: bytes
    weak: bool
    """A keep: it only preserves a name that another act would have changed."""


class ContentValue(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag=2):
    """What the node holds."""

    kind: Kind
    body: Dot | None
    """The dot at which the bytes last changed; None: at this very change."""
    hash: bytes
    """BLAKE3 of the whole plaintext (of the target, for a link); empty for a directory."""
    size: int
    mtime_ns: int
    executable: bool
    target: bytes
    chunker: str
    spans: tuple[RowSpan, ...]


class RemovalValue(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag=3):
    """The node is removed: a value of its place register."""

    removed: tuple[Dot, ...]
    """The bodies of the contents that the author saw and removed, sorted."""
    parent: NodeId
    name: bytes
    """With ``parent``: the last place."""
    removal: bytes
    """16 random bytes, shared by the whole subtree that one act removed."""


class DetachValue(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag=4):
    """The value ``dot`` of the node becomes the node ``copy_id(node, dot)``."""

    dot: Dot


Value: TypeAlias = PlaceValue | ContentValue | RemovalValue | DetachValue

_VALUES_OF: Final[dict[Register, tuple[type, ...]]] = {
    Register.PLACE: (PlaceValue, RemovalValue),
    Register.CONTENT: (ContentValue,),
    Register.DETACH: (DetachValue,),
}


class Seen(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The author's view of the folder's history when it signed."""

    generation: int
    position: int
    chain: bytes
    """J at that position; 32 zero bytes at position 0."""
    unordered: tuple[EntryHash, ...]
    checkpoint: SignedCheckpoint | None = None
    """The coordinator's signature under just this: without it, what an author claims to have seen proves nothing."""


class Payload(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The sealed part of an entry."""

    seen: Seen
    account_heads: tuple[tuple[bytes, int, LinkHash], ...]
    """(account id, seq, link hash) of every member's account chain, sorted."""
    label: str
    """The author's device name, for conflict copies."""
    time_ms: int
    snapshot: str
    """Name of a snapshot that this entry makes; usually empty."""
    segments: tuple[SegmentKey, ...]
    values: tuple[Value, ...]
    """One for each change of the header, in its order."""


class Entry(msgspec.Struct, frozen=True):
    """An entry as received: parsed header, the sealed payload, and the exact bytes that were signed."""

    header: Header
    header_bytes: bytes
    payload: bytes
    signature: bytes
    hash: EntryHash

    def dot(self, index: int) -> Dot:
        """Return the dot of the change ``index``."""
        return Dot(self.header.device, self.header.seq, index)


class _Envelope(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    header: bytes
    payload: bytes
    signature: bytes


ENTRY_BYTES_MAX: Final = limits.ENTRY_HEADER_BYTES_MAX + limits.ENTRY_PAYLOAD_BYTES_MAX + 512


def entry_hash(header: bytes, payload: bytes) -> EntryHash:
    """Return the hash that names an entry and that its signature covers."""
    return EntryHash(blake3(header + payload).digest())


def pack_entry(header: bytes, payload: bytes, signature: bytes) -> bytes:
    """Return the bytes of an entry on the wire and in every log."""
    return encode(_Envelope(header, payload, signature))


def parse_entry(data: bytes) -> Entry:
    """Parse an entry and check everything that can be checked without a key or a history.

    Raises:
        LimitExceededError: Larger or with more parts than :mod:`protocol.limits` allows.
        ProtocolError: Not canonical, or a field that no honest device writes.
    """
    envelope: _Envelope = decode(data, _Envelope, bytes_max=ENTRY_BYTES_MAX, what="entry")
    header: Header = decode(envelope.header, Header, bytes_max=limits.ENTRY_HEADER_BYTES_MAX, what="entry header")
    if len(envelope.payload) > limits.ENTRY_PAYLOAD_BYTES_MAX:
        raise LimitExceededError("entry payload", limits.ENTRY_PAYLOAD_BYTES_MAX)
    if len(envelope.signature) != 64:
        raise ProtocolError("entry signature has a wrong length")
    if blake3(envelope.payload).digest() != header.payload_hash:
        raise ProtocolError("entry payload is not the one that its header names")
    check_header(header)
    return Entry(
        header, envelope.header, envelope.payload, envelope.signature, entry_hash(envelope.header, envelope.payload)
    )


def check_header(header: Header) -> None:
    """Refuse a header with a field out of its range.

    Raises:
        LimitExceededError: Too many changes, needs or pins.
        ProtocolError: Anything else that no honest device writes.
    """
    if header.version != ENTRY_VERSION:
        raise ProtocolError(f"entry version {header.version} is unknown: update Kinfolder")
    for what, count, most in (
        ("changes of an entry", len(header.changes), limits.ENTRY_CHANGES_MAX),
        ("needs of an entry", len(header.needs), limits.ENTRY_NEEDS_MAX),
        ("segments of an entry", len(header.pins), limits.ENTRY_PINS_MAX),
        ("preconditions of an entry", len(header.expect), limits.ENTRY_CHANGES_MAX),
        ("replaced entries", len(header.replaces), limits.ENTRY_NEEDS_MAX),
    ):
        if count > most:
            raise LimitExceededError(what, most)
    hashes = (header.folder, header.control_head, header.previous, *header.needs, *header.pins, *header.replaces)
    if any(len(h) != ID_BYTES for h in (*hashes, header.payload_hash)):
        raise ProtocolError("entry header holds an id of a wrong length")
    if not 1 <= header.device <= limits.DEVICE_NUMBER_MAX or not 1 <= header.seq < _INTEGER_END:
        raise ProtocolError("entry header holds a number out of range")
    if not 0 <= header.epoch < 1 << 31 or (header.source is not None and len(header.source) != ID_BYTES):
        raise ProtocolError("entry header holds a number or an id out of range")
    for expect in header.expect:
        if len(expect.node) != NODE_ID_BYTES:
            raise ProtocolError("precondition names a bad node")
        versions.check(expect.vector)
    for ids in (header.needs, header.pins, header.replaces):
        if list(ids) != sorted(set(ids)):
            raise ProtocolError("entry header holds an unsorted list")
    if header.batch is not None and not (
        len(header.batch.id) == 16 and 0 <= header.batch.index < header.batch.count <= limits.BATCH_ENTRIES_MAX
    ):
        raise ProtocolError("entry header holds a bad batch")
    for change in header.changes:
        _check_change(header, change)


def _check_change(header: Header, change: Change) -> None:
    if len(change.node) != NODE_ID_BYTES or change.node == ROOT:
        raise ProtocolError("change names a bad node")
    if len(change.base) > limits.CHANGE_BASE_MAX or list(change.base) != sorted(set(change.base)):
        raise ProtocolError("change names a bad base")
    for dot in change.base:
        _check_dot(dot)
        if dot.device == header.device and dot.seq >= header.seq:
            raise ProtocolError("change builds on a value that its device has not written yet")
    versions.check(change.vector)
    if dict(change.vector).get(header.device) != header.seq:
        raise ProtocolError("version vector does not end in its own entry")


def _check_dot(dot: Dot) -> None:
    if not 1 <= dot.device <= limits.DEVICE_NUMBER_MAX or not 1 <= dot.seq < _INTEGER_END:
        raise ProtocolError("entry names a bad dot")
    if not 0 <= dot.index < limits.ENTRY_CHANGES_MAX:
        raise ProtocolError("entry names a bad dot")


def check_payload(header: Header, payload: Payload) -> None:
    """Refuse a payload that does not fit its header or holds values no honest device writes.

    Raises:
        LimitExceededError: A name, a target or a content above its limit.
        ProtocolError: Anything else.
    """
    if len(payload.values) != len(header.changes):
        raise ProtocolError("entry has not one value for each change")
    if tuple(sorted({s.id for s in payload.segments})) != header.pins:
        raise ProtocolError("entry pins other segments than its contents use")
    if len(payload.label.encode()) > limits.LABEL_BYTES_MAX or len(payload.snapshot.encode()) > limits.LABEL_BYTES_MAX:
        raise LimitExceededError("label", limits.LABEL_BYTES_MAX)
    seen, whole = payload.seen, range(_INTEGER_END)
    if seen.generation not in whole or seen.position not in whole or payload.time_ms not in whole:
        raise ProtocolError("entry holds a number out of range")
    if any(len(one) != ID_BYTES for one in (seen.chain, *seen.unordered)):
        raise ProtocolError("entry holds an id of a wrong length")
    for account, seq, head in payload.account_heads:
        if len(account) != ID_BYTES or len(head) != ID_BYTES or seq not in whole:
            raise ProtocolError("entry holds a bad head of an account")
    for segment in payload.segments:
        if not 1 <= segment.rows <= limits.SEGMENT_ROWS_MAX or len(segment.opener) != ID_BYTES:
            raise ProtocolError("entry holds a bad segment")
    for change, value in zip(header.changes, payload.values, strict=True):
        if not isinstance(value, _VALUES_OF[change.register]):
            raise ProtocolError("value does not fit its register")
        if isinstance(value, PlaceValue | RemovalValue):
            check_name(value.name)
            if len(value.parent) != NODE_ID_BYTES:
                raise ProtocolError("place names a bad parent")
            if isinstance(value, RemovalValue) and (
                len(value.removal) != 16 or list(value.removed) != sorted(set(value.removed))
            ):
                raise ProtocolError("removal is malformed")
            for dot in value.removed if isinstance(value, RemovalValue) else ():
                _check_dot(dot)
            if value.parent == ROOT and is_reserved(value.name):
                raise ProtocolError("place takes a reserved name")
        elif isinstance(value, ContentValue):
            _check_content(value, payload)
        else:
            _check_dot(value.dot)


def _check_content(value: ContentValue, payload: Payload) -> None:
    if not 0 <= value.size < _INTEGER_END or not -_INTEGER_END <= value.mtime_ns < _INTEGER_END:
        raise ProtocolError("content holds a number out of range")
    if value.body is not None:
        _check_dot(value.body)
    if len(value.chunker.encode()) > limits.LABEL_BYTES_MAX:
        raise LimitExceededError("chunker", limits.LABEL_BYTES_MAX)
    if len(value.hash) != (0 if value.kind is Kind.DIRECTORY else ID_BYTES):
        raise ProtocolError("content has a hash of a wrong length")
    if len(value.target) > limits.LINK_TARGET_BYTES_MAX:
        raise LimitExceededError("link target", limits.LINK_TARGET_BYTES_MAX)
    if bool(value.target) != (value.kind is Kind.LINK):
        raise ProtocolError("content has a link target that does not fit its kind")
    if value.kind is not Kind.FILE and (value.spans or value.size not in {0, len(value.target)}):
        raise ProtocolError("content has rows that do not fit its kind")
    rows = 0
    for span in value.spans:
        if not 0 <= span.segment < len(payload.segments) or span.start < 0 or span.count < 1:
            raise ProtocolError("content names a bad run of rows")
        if span.start + span.count > payload.segments[span.segment].rows:
            raise ProtocolError("content names rows beyond its segment")
        rows += span.count
    if rows > limits.CONTENT_ROWS_MAX:
        raise LimitExceededError("rows of a content", limits.CONTENT_ROWS_MAX)
    if value.kind is Kind.FILE and bool(value.size) != bool(rows):
        raise ProtocolError("content has rows that do not fit its size")


def check_name(name: bytes) -> None:
    """Refuse what cannot be one component of a path on any system.

    Raises:
        ProtocolError: Empty, ``.``, ``..``, with ``/`` or NUL.
        LimitExceededError: Longer than 255 bytes.
    """
    if not name or name in (b".", b"..") or b"/" in name or b"\x00" in name:
        raise ProtocolError("entry holds a name that no file can have")
    if len(name) > limits.NAME_BYTES_MAX:
        raise LimitExceededError("name", limits.NAME_BYTES_MAX)


def is_reserved(name: bytes) -> bool:
    """Tell whether ``name`` in a folder's root belongs to Kinfolder itself, in any case of its letters."""
    return name.lower() == b".kinfolder"


class AdmittedEntry(msgspec.Struct, frozen=True):
    """An entry whose signature, chain, rights and payload a device has checked: what the fold takes."""

    hash: EntryHash
    author: DeviceId
    header: Header
    payload: Payload

    def dot(self, index: int) -> Dot:
        """Return the dot of the change ``index``."""
        return Dot(self.header.device, self.header.seq, index)
