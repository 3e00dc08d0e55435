"""What a stranger can check of a sealed chunk, and the sizes that chunks have."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol import limits
from protocol.chunks import OVERHEAD_BYTES, check_chunk, check_length, chunk_id, padded_frame_bytes, padme
from protocol.errors import CorruptChunkError
from protocol.ids import ChunkId

SMALLEST = bytes((1, 1)) + bytes(limits.CHUNK_PADDED_BYTES_MIN + OVERHEAD_BYTES - 2)


@given(st.integers(0, 1 << 40))
def test_padme_is_the_paper_s(length):
    """At most 12 % more, idempotent, and a mantissa no longer than the exponent's own length."""
    padded = padme(length)
    assert length <= padded <= length * 1.12 + 1
    assert padme(padded) == padded
    if padded > 1:
        exponent = padded.bit_length() - 1
        assert padded % (1 << max(0, exponent - exponent.bit_length())) == 0


@pytest.mark.parametrize(
    ("length", "padded"),
    [
        (0, 0),
        (1, 1),
        (9, 10),
        (255, 256),
        (4096, 4096),
        (4097, 4352),
        (1 << 20, 1 << 20),
        ((1 << 22) + 9, (1 << 22) + (1 << 17)),
    ],
)
def test_padme_by_example(length, padded):
    assert padme(length) == padded


def test_frames_have_a_floor():
    assert {padded_frame_bytes(length) for length in range(4097)} == {4096}
    assert padded_frame_bytes(4097) == 4352


def test_a_chunk_is_what_its_id_names():
    check_chunk(SMALLEST, chunk_id(SMALLEST))
    check_chunk(memoryview(SMALLEST), chunk_id(bytearray(SMALLEST)))
    with pytest.raises(CorruptChunkError):
        check_chunk(SMALLEST, ChunkId(bytes(32)))


@pytest.mark.parametrize("head", [b"\x00\x01", b"\x02\x01", b"\x01\x00", b"\x01\x02"])
def test_other_versions_and_suites_are_refused(head):
    """S06."""
    data = head + SMALLEST[2:]
    with pytest.raises(CorruptChunkError):
        check_chunk(data, chunk_id(data))


@pytest.mark.parametrize("length", [0, 1, 49, 50, 4145, 4147, 4401, limits.SEALED_CHUNK_BYTES_MAX + 1, 1 << 40])
def test_lengths_that_no_chunk_has_are_refused(length):
    with pytest.raises(CorruptChunkError):
        check_length(length)


def test_the_largest_length_is_below_the_limit():
    largest = padded_frame_bytes(limits.CHUNK_BYTES_MAX + 9) + OVERHEAD_BYTES
    check_length(largest)
    assert largest <= limits.SEALED_CHUNK_BYTES_MAX
    following = padded_frame_bytes(limits.SEALED_CHUNK_BYTES_MAX)
    with pytest.raises(CorruptChunkError):
        check_length(following + OVERHEAD_BYTES)
