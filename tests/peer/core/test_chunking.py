"""Where contents are cut: always the same, whatever way the bytes arrive."""

import io
import random
import subprocess
import sys

import pyfastcdc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from peer.core.chunking import (
    FASTCDC,
    FIXED,
    FastCdcChunker,
    FixedChunker,
    check_compiled,
    cut_blocks,
    cut_buffer,
    cut_stream,
    parse_label,
)
from protocol import limits
from protocol.errors import LocalProtocolError, ProtocolError, UserError

NOISE = random.Random(11).randbytes(24 << 20)
SEEDED = FastCdcChunker(bytes(range(32)), bytes(16))
SMALL = FastCdcChunker(bytes(range(32)), bytes(16), bytes_min=4096, bytes_mean=16_384, bytes_max=65_536)


def lengths(data, chunker):
    return [len(chunk) for chunk in cut_buffer(data, chunker)]


@pytest.mark.parametrize("chunker", [SEEDED, FixedChunker()], ids=["seeded", "fixed"])
def test_chunks_are_the_content_and_within_the_bounds(chunker):
    chunks = list(cut_buffer(NOISE, chunker))
    assert b"".join(chunks) == NOISE
    assert all(len(chunk) <= chunker.bytes_max for chunk in chunks)
    assert max(map(len, chunks)) <= limits.CHUNK_BYTES_MAX
    assert min(map(len, chunks[:-1])) >= limits.CHUNK_BYTES_MIN
    assert 0.7 * limits.CHUNK_BYTES_MEAN < len(NOISE) / len(chunks) < 1.5 * limits.CHUNK_BYTES_MEAN


def test_a_fixed_chunker_cuts_every_mib():
    assert lengths(NOISE[: (3 << 20) + 5], FixedChunker()) == [1 << 20] * 3 + [5]
    assert lengths(NOISE[: 2 << 20], FixedChunker()) == [1 << 20] * 2


@pytest.mark.parametrize("size", [0, 1, 4096, 4097, 65_536, 1_000_000])
@pytest.mark.parametrize("block", [1000, 65_536, 1 << 21])
@pytest.mark.parametrize("chunker", [SMALL, FixedChunker()], ids=["seeded", "fixed"])
def test_cuts_do_not_depend_on_how_the_bytes_come(size, block, chunker):
    data = NOISE[:size]
    expected = [bytes(chunk) for chunk in cut_buffer(data, chunker)]
    assert list(cut_blocks((data[i : i + block] for i in range(0, size, block)), chunker)) == expected
    assert list(cut_stream(io.BytesIO(data).readinto, chunker)) == expected


@settings(max_examples=40, deadline=None)
@given(size=st.integers(0, 400_000), window=st.integers(65_536, 300_000), seed=st.integers(0, 1 << 30))
def test_cuts_do_not_depend_on_windows_or_short_reads(size, window, seed):
    chance = random.Random(seed)
    data = NOISE[:size]
    source = io.BytesIO(data)

    def read(buffer):
        return source.readinto(buffer[: chance.randrange(1, 50_000)])

    assert b"".join(cut_stream(read, SMALL, window_bytes=window)) == data
    source.seek(0)
    assert list(map(len, cut_stream(read, SMALL, window_bytes=window))) == lengths(data, SMALL)


def test_memory_is_bounded_by_the_window():
    """Invariant 9: a reader that never ends is read no further than asked."""
    drawn = 0

    def read(buffer):
        nonlocal drawn
        drawn += len(buffer)
        return len(buffer)

    stream = cut_stream(read, SMALL)
    for _ in range(100):
        next(stream)
    assert drawn <= 100 * SMALL.bytes_max + 2 * SMALL.bytes_max


def test_a_window_shorter_than_a_chunk_is_a_defect_of_ours():
    with pytest.raises(LocalProtocolError):
        list(cut_stream(io.BytesIO(b"x").readinto, SMALL, window_bytes=SMALL.bytes_max - 1))


def test_an_edit_moves_few_cuts():
    data = NOISE[: 8 << 20]
    edited = data[: 4 << 20] + b"inserted" + data[4 << 20 :]
    before, after = (set(map(bytes, cut_buffer(one, SEEDED))) for one in (data, edited))
    assert len(after - before) <= 2


def test_another_secret_cuts_elsewhere():
    """Security 3.6: who does not hold K_cdc cannot tell where a known file is cut."""
    data = NOISE[: 8 << 20]
    one = lengths(data, SEEDED)
    other = lengths(data, FastCdcChunker(bytes(32), bytes(16)))
    assert one != other
    assert not set(one[:-1]) & set(other[:-1])


def test_the_same_secret_cuts_the_same():
    assert lengths(NOISE, SEEDED) == lengths(NOISE, FastCdcChunker(bytes(range(32)), b"i" * 16))


def test_sizes_that_the_chunker_cannot_make_are_refused():
    with pytest.raises(ProtocolError):
        FastCdcChunker(bytes(32), bytes(16), bytes_min=10, bytes_mean=20, bytes_max=30)


def test_labels_name_the_chunker_and_the_key():
    assert parse_label(SEEDED.label) == (FASTCDC, bytes(16))
    assert parse_label(FixedChunker().label) == (FIXED, b"")
    key = bytes(range(16))
    assert parse_label(FastCdcChunker(bytes(32), key).label) == (FASTCDC, key)


@pytest.mark.parametrize(
    "label",
    [
        "",
        FASTCDC,
        f"{FASTCDC}#",
        f"{FASTCDC}#{'0' * 31}",
        f"{FASTCDC}#{'G' * 32}",
        f"{FASTCDC}#{'A' * 32}",
        f"{FIXED}#",
        "x",
    ],
)
def test_other_labels_are_refused(label):
    with pytest.raises(ProtocolError):
        parse_label(label)


def test_the_compiled_chunker_is_loaded_and_its_fallback_refused():
    check_compiled(pyfastcdc.FastCDC)
    fallback = subprocess.run(
        [sys.executable, "-c", "from pyfastcdc.py import FastCDC; print(FastCDC.__module__)"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()
    with pytest.raises(UserError, match="pyfastcdc"):
        check_compiled(type("FastCDC", (), {"__module__": fallback}))


def test_the_compiled_chunker_and_its_fallback_agree():
    """The cuts are the algorithm's, not one build's."""
    from pyfastcdc.py import FastCDC

    from peer.core.sealing import derive_key

    seed = 1 + int.from_bytes(derive_key("cdc", bytes(range(32)))[:6], "big")
    slow = FastCDC(16_384, min_size=4096, max_size=65_536, seed=seed)
    assert [chunk.length for chunk in slow.cut_buf(NOISE[:300_000])] == lengths(NOISE[:300_000], SMALL)
