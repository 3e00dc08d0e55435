"""Messages between devices on a LAN: exact bytes, and every bound at its limit and one above."""

import pytest

from protocol import lan, limits
from protocol.errors import LimitExceededError, ProtocolError
from protocol.ids import ChunkId, FolderId
from protocol.lan import Encoding, End, GetChunks, GetSegments, Greeting, Part, Parts, Refused, Wanted

FOLDER = FolderId(b"f" * 32)
HASH = b"h" * 32


@pytest.mark.parametrize(
    "message",
    [
        Greeting(1),
        GetSegments(FOLDER, (ChunkId(HASH),)),
        GetChunks(FOLDER, (Wanted(HASH, 7),)),
        Parts((Part(0, Encoding.ZSTD, 3),)),
        End(),
        Refused("folder"),
    ],
)
def test_a_frame_comes_back_as_it_went(message):
    data = lan.encode_lan_frame(5, message)
    assert lan.frame_length(data[:4]) == len(data) - 4
    assert lan.decode_lan_frame(data[4:]) == lan.LanFrame(5, message)


def test_the_bytes_of_a_frame():
    """They are [5, [20, [[0, 1, 3]]]] behind a length."""
    data = lan.encode_lan_frame(5, Parts((Part(0, Encoding.ZSTD, 3),)))
    assert data.hex() == "00000009" + "9205" + "9214" + "9193000103"


def test_the_longest_request_fits_a_frame():
    chunks = tuple(Wanted(bytes([i]) * 32, limits.CHUNK_BYTES_MAX) for i in range(limits.LAN_REQUEST_CHUNKS_MAX))
    assert len(lan.encode_lan_frame(1 << 31, GetChunks(FOLDER, chunks))) < limits.LAN_FRAME_BYTES_MAX
    parts = tuple(Part(i, Encoding.RAW, limits.CHUNK_BYTES_MAX) for i in range(limits.LAN_REQUEST_CHUNKS_MAX))
    assert len(lan.encode_lan_frame(1 << 31, Parts(parts))) < limits.LAN_FRAME_BYTES_MAX


@pytest.mark.parametrize("data", [b"", b"\x92\x05", b"\x92\x05\x91\x63", b"\x92\x05\x92\xcc\x14\x90", b"\xff" * 20])
def test_what_is_no_frame_is_refused(data):
    with pytest.raises(ProtocolError):
        lan.decode_lan_frame(data)


def test_a_frame_has_a_limit():
    assert lan.frame_length(limits.LAN_FRAME_BYTES_MAX.to_bytes(4, "big")) == limits.LAN_FRAME_BYTES_MAX
    with pytest.raises(LimitExceededError):
        lan.frame_length((limits.LAN_FRAME_BYTES_MAX + 1).to_bytes(4, "big"))


def many(count, length):
    return tuple(Wanted(i.to_bytes(32, "big"), length) for i in range(count))


@pytest.mark.parametrize(
    ("request_", "good"),
    [
        (GetChunks(FOLDER, many(limits.LAN_REQUEST_CHUNKS_MAX, 1)), True),
        (GetChunks(FOLDER, many(limits.LAN_REQUEST_CHUNKS_MAX + 1, 1)), False),
        (GetChunks(FOLDER, many(2, limits.LAN_REQUEST_BYTES_MAX // 2)), True),
        (GetChunks(FOLDER, (*many(2, limits.LAN_REQUEST_BYTES_MAX // 2), Wanted(HASH, 1))), False),
        (GetChunks(FOLDER, many(1, limits.CHUNK_BYTES_MAX)), True),
        (GetChunks(FOLDER, many(1, limits.CHUNK_BYTES_MAX + 1)), False),
        (GetChunks(FOLDER, many(1, 0)), False),
        (GetChunks(FOLDER, ()), False),
        (GetChunks(FolderId(b"f"), many(1, 1)), False),
        (GetChunks(FOLDER, (Wanted(b"h", 1),)), False),
        (GetSegments(FOLDER, (ChunkId(HASH),) * limits.LAN_REQUEST_SEGMENTS_MAX), True),
        (GetSegments(FOLDER, (ChunkId(HASH),) * (limits.LAN_REQUEST_SEGMENTS_MAX + 1)), False),
        (GetSegments(FOLDER, ()), False),
        (GetSegments(FOLDER, (ChunkId(b"h"),)), False),
    ],
)
def test_a_request_asks_for_a_bounded_number_of_things(request_, good):
    if good:
        lan.check_request(request_)
    else:
        with pytest.raises(ProtocolError):
            lan.check_request(request_)


@pytest.mark.parametrize(
    ("parts", "good"),
    [
        ([(0, Encoding.RAW, 10), (1, Encoding.RAW, 20)], True),
        ([(0, Encoding.ZSTD, 9)], True),
        ([(0, Encoding.ZSTD, 10)], False),
        ([(0, Encoding.ZSTD, 0)], False),
        ([(0, Encoding.RAW, 9)], False),
        ([(0, Encoding.RAW, 11)], False),
        ([(0, Encoding.RAW, 10), (0, Encoding.RAW, 10)], False),
        ([(2, Encoding.RAW, limits.SEALED_CHUNK_BYTES_MAX)], True),
        ([(2, Encoding.RAW, limits.SEALED_CHUNK_BYTES_MAX + 1)], False),
        ([(2, Encoding.ZSTD, 10)], False),
        ([(3, Encoding.RAW, 10)], False),
        ([(-1, Encoding.RAW, 10)], False),
        ([], False),
    ],
)
def test_parts_are_what_was_asked_for(parts, good):
    message = Parts(tuple(Part(*part) for part in parts))
    asked = {0: 10, 1: 20, 2: None}
    if good:
        lan.check_parts(message, asked)
    else:
        with pytest.raises(ProtocolError):
            lan.check_parts(message, asked)
