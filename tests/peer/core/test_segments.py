"""Segments: how rows are laid out, and that a segment opens to just these rows."""

import msgspec
import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

from peer.core.chunk_sealing import Body, Row, open_frame, seal_chunk, seal_frame
from peer.core.segments import (
    SMALL_ROWS,
    Segment,
    chunk_refs,
    cut_segments,
    ends_segment,
    lay_out,
    open_segment,
    pinned,
    seal_segment,
)
from protocol import limits
from protocol.chunks import check_chunk, chunk_id
from protocol.codec import encode
from protocol.entries import SegmentKey
from protocol.errors import CorruptChunkError, LocalProtocolError, ProtocolError
from protocol.ids import ChunkId

replace = msgspec.structs.replace
KEY = bytes(range(32))
ROW = seal_chunk(b"hello", KEY).row


def row(number, *, cut=False):
    """Return a row whose id is made from a number, and ends a segment only where asked."""
    id = blake3(number.to_bytes(8, "big")).digest()
    return replace(ROW, id=ChunkId(id[:31] + (b"\x80" if cut else bytes([id[31] | 1]))))


def rows(*numbers, cuts=()):
    return [row(number, cut=number in cuts) for number in numbers]


def test_a_segment_opens_to_its_rows():
    made = seal_segment(rows(*range(100)), KEY)
    assert open_segment(made.data, made.key) == tuple(rows(*range(100)))
    check_chunk(made.data, made.key.id)
    assert made.key.rows == 100
    assert seal_segment(rows(*range(100)), KEY) == made


def test_rows_with_bases_survive():
    base = seal_chunk(bytes(range(256)) * 300, KEY, level=1)
    patched = replace(row(1), base=base.row, codec=base.row.codec or 10507)
    made = seal_segment([patched], KEY)
    assert open_segment(made.data, made.key) == (patched,)
    assert [ref.id for ref in chunk_refs([patched])] == sorted({patched.id, base.id})


def test_segments_end_by_the_chunk_id_and_at_the_limit():
    assert [len(one) for one in cut_segments(rows(*range(10), cuts=(3, 9)))] == [4, 6]
    assert [len(one) for one in cut_segments(rows(*range(1100)))] == [512, 512, 76]
    assert cut_segments([]) == ()
    assert ends_segment(row(1, cut=True))
    assert not ends_segment(row(1))


def test_an_edit_changes_the_segments_around_it_only():
    """Architecture 4: an edit of a large file sends one or two segments, a copy none."""
    before = rows(*range(600), cuts=range(0, 600, 50))
    after = before[:301] + rows(9999) + before[301:]
    one, other = cut_segments(before), cut_segments(after)
    assert len(set(other) - set(one)) == 1
    assert set(cut_segments(before)) == set(one)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 700), max_size=12))
def test_every_content_finds_its_rows_again(counts):
    number = 0
    contents = []
    for count in counts:
        contents.append([row(number + i, cut=(number + i) % 60 == 0) for i in range(count)])
        number += count
    layout = lay_out(contents)
    for content, spans in zip(contents, layout.spans, strict=True):
        found = [r for span in spans for r in layout.segments[span.segment][span.start : span.start + span.count]]
        assert found == content
        if len(content) > SMALL_ROWS:
            assert tuple(layout.segments[span.segment] for span in spans) == cut_segments(content)
    assert all(1 <= len(segment) <= limits.SEGMENT_ROWS_MAX for segment in layout.segments)
    assert sum(map(len, layout.segments)) == number


def test_small_contents_share_a_segment():
    layout = lay_out([rows(number) for number in range(1000)])
    assert [len(segment) for segment in layout.segments] == [512, 488]


def test_what_the_coordinator_is_told_lists_each_chunk_once():
    made = seal_segment([row(2), row(1), row(2)], KEY)
    told = pinned(made, [row(2), row(1), row(2)])
    assert [ref.id for ref in told.chunks] == sorted({row(1).id, row(2).id})
    assert (told.segment.id, told.segment.length) == (made.key.id, len(made.data))


@pytest.mark.parametrize("count", [0, limits.SEGMENT_ROWS_MAX + 1])
def test_rows_of_a_segment_are_bounded(count):
    with pytest.raises(LocalProtocolError):
        seal_segment(rows(*range(count)), KEY)
    made = seal_segment(rows(*range(limits.SEGMENT_ROWS_MAX)), KEY)
    assert len(open_segment(made.data, made.key)) == limits.SEGMENT_ROWS_MAX


def test_a_row_that_no_honest_device_writes_is_not_sealed():
    with pytest.raises(LocalProtocolError):
        seal_segment([replace(ROW, raw_length=0)], KEY)


def test_no_flipped_bit_opens():
    """S08, S09."""
    made = seal_segment(rows(*range(30)), KEY)
    for index in range(0, len(made.data), 61):
        broken = bytearray(made.data)
        broken[index] ^= 1
        for key in (made.key, SegmentKey(chunk_id(broken), made.key.opener, made.key.rows)):
            with pytest.raises(CorruptChunkError):
                open_segment(broken, key)


def test_a_segment_in_the_place_of_another_does_not_open():
    one, other = seal_segment(rows(1), KEY), seal_segment(rows(2), KEY)
    for data, key in ((one.data, other.key), (one.data, replace(one.key, opener=other.key.opener))):
        with pytest.raises(CorruptChunkError):
            open_segment(data, key)


def forged(body, *, kind=Body.RAW, length=None, count=1):
    id, opener, data = seal_frame("segment", kind, len(body) if length is None else length, body, KEY)
    return data, SegmentKey(id, opener, count)


def test_what_an_evil_member_seals_is_refused():
    """S09, S59: count and rows are part of what is sealed, and of the signed entry."""
    good = encode(Segment(1, (ROW,)))
    assert open_segment(*forged(good)) == (ROW,)
    for data, key in (
        forged(good, kind=Body.ZSTD),
        forged(good, length=5),
    ):
        with pytest.raises(CorruptChunkError):
            open_segment(data, key)
    for data, key in (
        forged(good, count=2),
        forged(good[:-1]),
        forged(good + b"\0"),
        forged(b""),
        forged(encode(Segment(2, (ROW,)))),
        forged(encode(Segment(1, ())), count=0),
        forged(encode(Segment(1, (replace(ROW, raw_length=0),)))),
        forged(encode(Segment(1, (replace(ROW, base=ROW),)))),
        forged(encode(Segment(1, (ROW,) * 513)), count=513),
        forged(b"\x91" * 200_000),
    ):
        with pytest.raises(ProtocolError):
            open_segment(data, key)


def test_a_segment_is_no_chunk():
    made = seal_segment([ROW], KEY)
    with pytest.raises(CorruptChunkError):
        open_frame("chunk", made.data, made.key.id, made.key.opener)


def test_a_row_costs_about_what_the_design_says():
    made = encode(Segment(1, tuple(rows(*range(128)))))
    assert 105 * 128 < len(made) < 125 * 128


def test_the_row_has_the_fields_of_the_documents():
    assert Row.__struct_fields__ == ("id", "opener", "length", "raw_length", "raw_hash", "codec", "level", "base")
