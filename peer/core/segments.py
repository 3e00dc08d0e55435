"""Rows in segments: how the list of a file's chunks is cut, encoded and sealed (architecture 4, security 3.7).

A segment is sealed like a chunk, under another label, so storage nodes and strangers check it in the same way. Its cuts
depend on the chunk ids alone: an edit changes the segments around it, and equal lists of rows give equal segments.

Rule 1: a large content begins a segment of its own; small contents share segments, in the order given.
Rule 2: a segment ends after a row whose chunk id ends in 7 zero bits, at the latest after 512 rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple, NoReturn

import msgspec

from peer.core.chunk_sealing import Body, Buffer, Row, check_row, open_frame, seal_frame
from protocol import limits
from protocol.codec import decode, encode
from protocol.entries import RowSpan, SegmentKey
from protocol.errors import CorruptChunkError, LocalProtocolError, ProtocolError
from protocol.grants import ChunkRef
from protocol.ids import ChunkId
from protocol.messages import PinnedSegment

SEGMENT_VERSION: Final = 1
_CUT_MASK: Final = 0x7F
_LABEL: Final = "segment"
SMALL_ROWS: Final = 16
"""A content of at most this many rows shares a segment with its neighbours."""


class Segment(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The plaintext of a segment."""

    version: int
    rows: tuple[Row, ...]


class SealedSegment(NamedTuple):
    """A segment ready to be stored."""

    key: SegmentKey
    data: bytearray

    @property
    def ref(self) -> ChunkRef:
        """As storage nodes name it."""
        return ChunkRef(self.key.id, len(self.data))


class Layout(NamedTuple):
    """How the rows of several contents lie in segments."""

    segments: tuple[tuple[Row, ...], ...]
    spans: tuple[tuple[RowSpan, ...], ...]
    """For each content, in the order given; the segment's number counts from 0 in ``segments``."""


def ends_segment(row: Row) -> bool:
    """Tell whether a segment ends after this row."""
    return not row.id[-1] & _CUT_MASK


def cut_segments(rows: Iterable[Row]) -> tuple[tuple[Row, ...], ...]:
    """Return one content's rows cut into segments."""
    segments: list[tuple[Row, ...]] = []
    current: list[Row] = []
    for row in rows:
        current.append(row)
        if ends_segment(row) or len(current) == limits.SEGMENT_ROWS_MAX:
            segments.append(tuple(current))
            current = []
    if current:
        segments.append(tuple(current))
    return tuple(segments)


def lay_out(contents: Sequence[Sequence[Row]]) -> Layout:
    """Return segments for the rows of several contents of one entry, and where each content lies in them."""
    segments: list[tuple[Row, ...]] = []
    spans: list[tuple[RowSpan, ...]] = []
    shared: list[Row] = []
    shared_index = -1
    for rows in contents:
        if len(rows) > SMALL_ROWS:
            own = cut_segments(rows)
            spans.append(tuple(RowSpan(len(segments) + i, 0, len(one)) for i, one in enumerate(own)))
            segments.extend(own)
        elif not rows:
            spans.append(())
        else:
            if shared_index < 0 or len(shared) + len(rows) > limits.SEGMENT_ROWS_MAX:
                if shared_index >= 0:
                    segments[shared_index] = tuple(shared)
                shared, shared_index = [], len(segments)
                segments.append(())
            spans.append((RowSpan(shared_index, len(shared), len(rows)),))
            shared.extend(rows)
    if shared_index >= 0:
        segments[shared_index] = tuple(shared)
    return Layout(tuple(segments), tuple(spans))


def chunk_refs(rows: Iterable[Row]) -> tuple[ChunkRef, ...]:
    """Return every chunk that the rows need, bases included, each once, sorted by id."""
    lengths: dict[ChunkId, int] = {}
    for row in rows:
        lengths[row.id] = row.length
        if row.base is not None:
            lengths[row.base.id] = row.base.length
    return tuple(ChunkRef(id, lengths[id]) for id in sorted(lengths))


def pinned(segment: SealedSegment, rows: Iterable[Row]) -> PinnedSegment:
    """Return what the coordinator is told of a segment: its id and the chunks that it lists."""
    return PinnedSegment(segment.ref, chunk_refs(rows))


def seal_segment(rows: Sequence[Row], chunk_key: bytes) -> SealedSegment:
    """Return the sealed segment of 1 to 512 rows; equal rows under one key give equal bytes.

    Raises:
        LocalProtocolError: No rows, too many, or one that no honest device writes.
    """
    try:
        _check_rows(rows)
    except ProtocolError as error:
        raise LocalProtocolError(str(error)) from error
    text = encode(Segment(SEGMENT_VERSION, tuple(rows)))
    id, opener, data = seal_frame(_LABEL, Body.RAW, len(text), text, chunk_key)
    return SealedSegment(SegmentKey(id, opener, len(rows)), data)


def open_segment(sealed: Buffer, key: SegmentKey) -> tuple[Row, ...]:
    """Return the rows of a segment.

    Raises:
        CorruptChunkError: The bytes are not this segment; another source may have it.
        ProtocolError: Its author sealed something that is no list of rows.
    """
    kind, length, body = open_frame(_LABEL, sealed, key.id, key.opener)
    if kind is not Body.RAW or length != len(body):
        _refuse()
    segment: Segment = decode(body, Segment, bytes_max=limits.CHUNK_BYTES_MAX, what="segment")
    if segment.version != SEGMENT_VERSION:
        raise ProtocolError("segment of an unknown version: update Kinfolder")
    if len(segment.rows) != key.rows:
        raise ProtocolError("segment has another number of rows than its entry says")
    _check_rows(segment.rows)
    return segment.rows


def _check_rows(rows: Sequence[Row]) -> None:
    if not 1 <= len(rows) <= limits.SEGMENT_ROWS_MAX:
        raise ProtocolError("segment has no rows, or too many")
    for row in rows:
        check_row(row)


def _refuse() -> NoReturn:
    raise CorruptChunkError("segment holds a malformed frame")
