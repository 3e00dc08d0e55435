"""Sealed chunks: they open to what they were made of, or not at all."""

import itertools
import os
import random
import sys

import msgspec
import pytest
import zstandard
from blake3 import blake3
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given, settings
from hypothesis import strategies as st

from peer.core import chunk_sealing
from peer.core.chunk_sealing import (
    CODEC_NONE,
    CODEC_ZSTD,
    Body,
    check_row,
    decompress,
    file_chunk_key,
    open_chunk,
    open_frame,
    reseal_chunk,
    seal_chunk,
    seal_frame,
)
from peer.core.sealing import NONCE, derive_key
from protocol import limits
from protocol.chunks import OVERHEAD_BYTES, check_chunk, chunk_id, padded_frame_bytes, padme
from protocol.errors import CorruptChunkError, LocalProtocolError, ProtocolError
from protocol.ids import ChunkId, NodeId

replace = msgspec.structs.replace
KEY = bytes(range(32))
NOISE = random.Random(7).randbytes(1 << 20)
TEXT = b"".join(b"line %d of a text that repeats itself\n" % n for n in range(30_000))


@pytest.mark.parametrize("size", [1, 2, 4046, 4047, 4048, 16_384, 16_385, 100_000, 1 << 20])
@pytest.mark.parametrize("source", [NOISE, TEXT], ids=["noise", "text"])
def test_a_chunk_opens_to_what_it_was_made_of(source, size):
    raw = source[:size]
    made = seal_chunk(raw, KEY)
    assert made.row.length == len(made.data)
    assert made.id == chunk_id(made.data)
    check_chunk(made.data, made.id)
    check_row(made.row)
    opened = open_chunk(made.data, made.row)
    assert isinstance(opened, memoryview)
    assert opened == raw


@settings(max_examples=60, deadline=None)
@given(raw=st.binary(min_size=1, max_size=9000), level=st.sampled_from([1, 3, 9, 19]), file=st.booleans())
def test_any_bytes_survive(raw, level, file):
    key = file_chunk_key(KEY, NodeId(bytes(16))) if file else KEY
    made = seal_chunk(raw, key, level=level)
    assert open_chunk(made.data, made.row) == raw


def test_any_buffer_is_taken():
    made = [seal_chunk(kind(TEXT[:5000]), KEY) for kind in (bytes, bytearray, memoryview)]
    assert made[0] == made[1] == made[2]
    for kind in (bytes, bytearray, memoryview):
        assert open_chunk(kind(made[0].data), made[0].row) == TEXT[:5000]


def test_text_shrinks_and_noise_is_left_alone():
    text, noise = seal_chunk(TEXT, KEY), seal_chunk(NOISE, KEY)
    assert text.row.codec == CODEC_ZSTD
    assert text.row.length < len(TEXT) // 5
    assert (noise.row.codec, noise.row.level) == (CODEC_NONE, 0)


def test_lengths_of_a_chunk_are_bounded():
    for raw in (b"", bytes(limits.CHUNK_BYTES_MAX + 1)):
        with pytest.raises(LocalProtocolError):
            seal_chunk(raw, KEY)
    largest = seal_chunk(os.urandom(limits.CHUNK_BYTES_MAX), KEY)
    assert len(largest.data) <= limits.SEALED_CHUNK_BYTES_MAX
    assert len(open_chunk(largest.data, largest.row)) == limits.CHUNK_BYTES_MAX


def test_equal_bytes_are_one_chunk_and_other_keys_make_others():
    same = {seal_chunk(TEXT[:9000], KEY).id for _ in range(3)}
    others = {seal_chunk(TEXT[:9000], key).id for key in (bytes(32), file_chunk_key(KEY, NodeId(b"f" * 16)))}
    assert len(same) == 1
    assert len(others | same) == 3


def test_another_compression_of_the_same_bytes_is_another_key():
    """S15: the key comes from the frame, so one key never meets two plaintexts."""
    made = [seal_chunk(TEXT[:200_000], KEY, level=level) for level in (1, 19)]
    assert open_chunk(made[0].data, made[0].row) == open_chunk(made[1].data, made[1].row)
    assert made[0].row.opener != made[1].row.opener
    assert made[0].data[2:34] != made[1].data[2:34]


def test_no_key_ever_meets_two_plaintexts(monkeypatch):
    """S14, S15: over levels, sizes, scopes, labels and patches."""
    seen: dict[bytes, bytes] = {}

    class Watched:
        def __init__(self, key):
            self.key, self.real = key, AESGCM(key)

        def encrypt_into(self, nonce, data, aad, buffer):
            assert nonce == NONCE
            assert seen.setdefault(self.key, bytes(data)) == bytes(data)
            return self.real.encrypt_into(nonce, data, aad, buffer)

    monkeypatch.setattr(chunk_sealing, "AESGCM", Watched)
    for size, level, source in itertools.product((1, 100, 5000, 70_000), (1, 3, 19), (NOISE, TEXT)):
        made = seal_chunk(source[:size], KEY, level=level)
        seal_chunk(source[:size], KEY, level=level, base=(made.row, source[:size]))
        seal_frame("segment", Body.RAW, size, source[:size], KEY)
    assert len(seen) > 20


def test_no_function_takes_a_key_and_a_frame_apart():
    """S15: what encrypts derives its key from what it encrypts."""
    import inspect

    for name, function in inspect.getmembers(chunk_sealing, inspect.isfunction):
        parameters = set(inspect.signature(function).parameters)
        assert not {"opener", "body"} <= parameters, name
        assert not {"opener", "raw"} <= parameters, name


def test_sizes_fall_into_a_small_set():
    """S39: at most 257 sizes between 4 KiB and 4 MiB, and never a shorter one."""
    sizes = {padded_frame_bytes(size) for size in range(1, (1 << 22) + 1, 37)}
    assert len({size for size in sizes if size <= 1 << 22}) <= 257
    assert min(sizes) == 4096
    corpus = random.Random(3)
    lengths = {seal_chunk(corpus.randbytes(int(10 ** corpus.uniform(0, 5))), KEY).row.length for _ in range(300)}
    assert all(padme(length - OVERHEAD_BYTES) == length - OVERHEAD_BYTES for length in lengths)


def test_padding_costs_little():
    assert all(padme(size) <= size * 1.12 for size in range(1, 1 << 20, 101))
    assert all(padme(padme(size)) == padme(size) >= size for size in range(5000))


# What does not open.


def test_no_flipped_bit_opens():
    """S08: each byte of the sealed chunk, and each value of the row."""
    made = seal_chunk(TEXT[:3000], KEY)
    for index in [*range(60), *range(60, len(made.data), 97), len(made.data) - 1]:
        broken = bytearray(made.data)
        broken[index] ^= 1 << (index % 8)
        for row in (made.row, replace(made.row, id=chunk_id(broken))):
            with pytest.raises(CorruptChunkError):
                open_chunk(broken, row)


@pytest.mark.parametrize(
    "change",
    [
        {"id": ChunkId(bytes(32))},
        {"opener": bytes(32)},
        {"length": 4402},
        {"length": 0},
        {"raw_length": 2999},
        {"raw_length": 3001},
        {"raw_hash": bytes(32)},
        {"codec": CODEC_ZSTD},
    ],
    ids=str,
)
def test_a_row_that_says_something_else_does_not_open(change):
    """S09: a chunk in another's place, cut, lengthened or repeated is found out by its row."""
    made = seal_chunk(TEXT[:3000], KEY)
    with pytest.raises(CorruptChunkError):
        open_chunk(made.data, replace(made.row, **change))


def test_a_chunk_in_the_place_of_another_does_not_open():
    """S09, S31."""
    one, other = seal_chunk(NOISE[:3000], KEY), seal_chunk(NOISE[3000:6000], KEY)
    for data in (other.data, one.data[:-1], one.data + b"\0", b""):
        with pytest.raises(CorruptChunkError):
            open_chunk(data, one.row)


def sealed_with(frame, label="chunk"):
    """Seal a frame that an evil member made, with everything right that can be right."""
    opener = blake3(bytes(frame), key=KEY).digest()
    okm = derive_key(label, opener, 64)
    data = bytes((1, 1)) + okm[32:] + AESGCM(okm[:32]).encrypt(NONCE, bytes(frame), label.encode())
    return data, chunk_id(data), opener


def frame_of(kind, raw_length, body_length, body, *, size=4096, padding=b""):
    frame = bytes([kind]) + raw_length.to_bytes(4, "big") + body_length.to_bytes(4, "big") + body + padding
    return frame + bytes(max(0, size - len(frame)))


@pytest.mark.parametrize(
    "frame",
    [
        frame_of(3, 5, 5, b"hello"),
        frame_of(255, 5, 5, b"hello"),
        frame_of(0, 5, 5, b"hello", padding=b"\x01"),
        frame_of(0, 5, 5, b"hello", size=4352),
        frame_of(0, 5, 4096, b"hello"),
        frame_of(0, 5, (1 << 32) - 1, b"hello"),
        frame_of(0, 5, 4, b"hell"),
        frame_of(0, (1 << 32) - 1, 5, b"hello"),
        frame_of(1, 5, 5, b"hello"),
        frame_of(2, 5, 5, b"hello"),
    ],
    ids=range(10),
)
def test_frames_that_no_honest_member_makes_are_refused(frame):
    """S59: every length field, and every value of the kind."""
    data, id, opener = sealed_with(frame)
    row = seal_chunk(b"hello", KEY).row
    row = replace(row, id=id, opener=opener, length=len(data))
    with pytest.raises(CorruptChunkError):
        open_chunk(data, row)


def test_the_forged_frame_that_is_right_opens():
    data, id, opener = sealed_with(frame_of(0, 5, 5, b"hello"))
    made = seal_chunk(b"hello", KEY)
    assert (data, id, opener) == (bytes(made.data), made.id, made.row.opener)


def test_a_chunk_is_no_segment_and_a_segment_no_chunk():
    """S23."""
    id, opener, data = seal_frame("segment", Body.RAW, 5, b"hello", KEY)
    assert bytes(open_frame("segment", data, id, opener)[2]) == b"hello"
    with pytest.raises(CorruptChunkError):
        open_frame("chunk", data, id, opener)


def test_a_ciphertext_for_two_keys_is_refused_before_it_is_decrypted(monkeypatch):
    """S16: the commitment is checked first."""
    made = seal_chunk(b"hello", KEY)
    data = bytearray(made.data)
    data[2:34] = bytes(32)
    row = replace(made.row, id=chunk_id(data))
    monkeypatch.setattr(chunk_sealing, "AESGCM", lambda _: pytest.fail("decrypted before the commitment was checked"))
    with pytest.raises(CorruptChunkError):
        open_chunk(data, row)


# Compression.

BOMB = zstandard.ZstdCompressor(level=19).compress(bytes(256 << 20))


def test_a_bomb_is_refused_from_its_header():
    """S57: 8 KiB that unpack to 256 MiB; the library itself would allocate what the frame declares."""
    assert len(BOMB) < 64 << 10
    before = peak_kib()
    for length in (1, 1 << 20, limits.CHUNK_BYTES_MAX):
        with pytest.raises(CorruptChunkError):
            decompress(BOMB, length)
    assert peak_kib() - before < 64 << 10


def peak_kib():
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // (1024 if sys.platform == "darwin" else 1)


def test_a_frame_that_does_not_declare_its_length_is_refused():
    writer = zstandard.ZstdCompressor(level=1, write_content_size=False)
    with pytest.raises(CorruptChunkError):
        decompress(writer.compress(TEXT), len(TEXT))


def test_a_large_window_is_refused():
    """The window is what a decoder allocates however little the frame holds."""

    def frame(window_log):
        header = b"\x28\xb5\x2f\xfd\x80" + bytes([(window_log - 10) << 3]) + (5).to_bytes(4, "little")
        return header + (5 << 3 | 1).to_bytes(3, "little") + b"hello"

    assert bytes(decompress(frame(23), 5)) == b"hello"
    with pytest.raises(CorruptChunkError):
        decompress(frame(24), 5)


@pytest.mark.parametrize("extra", [b"\0", BOMB[:100], zstandard.ZstdCompressor().compress(b"more")], ids=range(3))
def test_nothing_may_follow_a_frame(extra):
    body = zstandard.ZstdCompressor().compress(TEXT)
    assert decompress(body, len(TEXT)) == TEXT
    with pytest.raises(CorruptChunkError):
        decompress(body + extra, len(TEXT))


@settings(max_examples=200, deadline=None)
@given(body=st.binary(max_size=300), length=st.integers(1, limits.CHUNK_BYTES_MAX))
def test_garbage_is_refused_as_such(body, length):
    """S59."""
    with pytest.raises(CorruptChunkError):
        decompress(body, length)


def test_skippable_and_cut_frames_are_refused():
    body = zstandard.ZstdCompressor().compress(TEXT)
    skippable = b"\x50\x2a\x4d\x18" + (5).to_bytes(4, "little") + b"hello"
    for bad in (body[:-1], body[:10], skippable, skippable + body, b""):
        for length in (5, len(TEXT)):
            with pytest.raises(CorruptChunkError):
                decompress(bad, length)


# Patches.


def test_a_patch_costs_what_changed():
    base = NOISE
    changed = base[:500_000] + b"inserted" + base[500_000:]
    full = seal_chunk(base, KEY)
    patch = seal_chunk(changed, KEY, base=(full.row, base))
    assert patch.row.base == full.row
    assert patch.row.length < 8192
    assert open_chunk(patch.data, patch.row, base=base) == changed
    check_row(patch.row)


def test_moved_blocks_are_found_in_the_largest_base():
    base = random.Random(5).randbytes(4 << 20)
    changed = base[2 << 20 :] + base[: 1 << 20]
    full = seal_chunk(base, KEY)
    patch = seal_chunk(changed, KEY, base=(full.row, base))
    assert patch.row.length < 16 << 10
    assert open_chunk(patch.data, patch.row, base=base) == changed


def test_a_patch_that_saves_nothing_is_a_full_chunk():
    full = seal_chunk(NOISE[: 1 << 19], KEY)
    other = seal_chunk(NOISE[1 << 19 :], KEY, base=(full.row, NOISE[: 1 << 19]))
    assert other.row.base is None
    assert other == seal_chunk(NOISE[1 << 19 :], KEY)


def test_a_patch_needs_its_own_base():
    base, changed = TEXT[:100_000], TEXT[:50_000] + b"!" + NOISE[:3000] + TEXT[50_000:100_000]
    full = seal_chunk(NOISE[:100_000], KEY)
    base = NOISE[:100_000]
    changed = base[:50_000] + b"!" + base[50_000:]
    patch = seal_chunk(changed, KEY, base=(full.row, base))
    assert patch.row.base is not None
    for wrong in (None, base[:-1], NOISE[1:100_001]):
        with pytest.raises(CorruptChunkError):
            open_chunk(patch.data, patch.row, base=wrong)
    with pytest.raises(CorruptChunkError):
        open_chunk(full.data, full.row, base=base)
    with pytest.raises(CorruptChunkError):
        open_chunk(patch.data, replace(patch.row, base=None))


def test_a_patch_is_no_base():
    base = NOISE[:100_000]
    full = seal_chunk(base, KEY)
    patch = seal_chunk(base + b"!", KEY, base=(full.row, base))
    with pytest.raises(LocalProtocolError):
        seal_chunk(base + b"!!", KEY, base=(patch.row, base + b"!"))
    with pytest.raises(ProtocolError):
        check_row(replace(patch.row, base=patch.row))


# Making a chunk again.


def test_a_chunk_can_be_made_again_from_its_row():
    base = NOISE[:200_000]
    full = seal_chunk(base, KEY)
    patch = seal_chunk(base + b"!", KEY, base=(full.row, base))
    for made, raw, on in (
        (full, base, None),
        (patch, base + b"!", base),
        (seal_chunk(TEXT, KEY, level=7), TEXT, None),
        (seal_chunk(b"x", KEY), b"x", None),
    ):
        again = reseal_chunk(raw, made.row, KEY, base=on)
        assert again is not None
        assert again.data == made.data


def test_a_chunk_of_another_codec_or_key_is_not_made_again():
    made = seal_chunk(TEXT, KEY)
    assert reseal_chunk(TEXT, replace(made.row, codec=CODEC_ZSTD - 1), KEY) is None
    assert reseal_chunk(TEXT, made.row, bytes(32)) is None
    assert reseal_chunk(TEXT + b"!", made.row, KEY) is None
    assert reseal_chunk(TEXT, made.row, KEY, base=TEXT) is None


ROWS = [
    ("short id", {"id": ChunkId(b"i")}),
    ("short opener", {"opener": b"o"}),
    ("long hash", {"raw_hash": bytes(33)}),
    ("empty", {"raw_length": 0}),
    ("too long", {"raw_length": limits.CHUNK_BYTES_MAX + 1}),
    ("negative", {"raw_length": -1}),
    ("length below", {"length": 4145}),
    ("length not padded", {"length": 4147}),
    ("length above", {"length": 1 << 23}),
    ("codec negative", {"codec": -1}),
    ("codec large", {"codec": 1 << 31}),
    ("level large", {"level": 23}),
]


@pytest.mark.parametrize("change", [case[1] for case in ROWS], ids=[case[0] for case in ROWS])
def test_rows_that_no_honest_device_writes_are_refused(change):
    row = seal_chunk(b"hello", KEY).row
    check_row(row)
    with pytest.raises(ProtocolError):
        check_row(replace(row, **change))
    with pytest.raises(ProtocolError):
        check_row(replace(row, codec=CODEC_ZSTD, base=replace(row, **change)))
