"""What devices say to each other on a LAN, inside TLS 1.3 with both certificates pinned.

A frame is a 4-byte length and the encoding of ``[id, message]``. Both sides greet first, with id 0. Then whoever dialled
asks, under ids of its own choice, and the other answers in the order asked: any number of `Parts`, each followed at once
by the bytes that it names, and then `End`; or `Refused`. New needs become new messages; the lower version of the two
greetings says which of them may be sent.

Rule 1: an asker names what it wants by hash, and takes nothing that has another one.
Rule 2: a part that was not asked for, comes twice or is longer than it can be ends the connection.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from typing import Final, TypeAlias

import msgspec

from protocol import limits
from protocol.codec import decode, encode
from protocol.errors import LimitExceededError, ProtocolError
from protocol.ids import ID_BYTES, ChunkId, FolderId

LAN_VERSION: Final = 1
LENGTH_BYTES: Final = 4


class _Message(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Base of all messages; each has its own tag."""


class Greeting(_Message, frozen=True, tag=1):
    """Each side's first word."""

    version: int
    """The highest that it speaks; the lower one of the two counts."""


class Wanted(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A piece of a file, by what it holds."""

    hash: bytes
    """BLAKE3 of the raw bytes."""
    length: int
    """Of the raw bytes."""


class GetSegments(_Message, frozen=True, tag=10):
    """Asks for sealed segments of a folder."""

    folder: FolderId
    ids: tuple[ChunkId, ...]


class GetChunks(_Message, frozen=True, tag=11):
    """Asks for raw pieces of files of a folder."""

    folder: FolderId
    chunks: tuple[Wanted, ...]


class Encoding(IntEnum):
    """How the bytes of a part stand on the wire."""

    RAW = 0
    ZSTD = 1


class Part(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The answer to one thing that was asked for."""

    index: int
    """Which of them, from 0."""
    encoding: Encoding
    length: int
    """Of the bytes on the wire."""


class Parts(_Message, frozen=True, tag=20):
    """Some of what was asked for; the bytes of these parts follow the frame, in this order."""

    parts: tuple[Part, ...]


class End(_Message, frozen=True, tag=21):
    """The answer is complete; what had no part is not here."""


class Refused(_Message, frozen=True, tag=22):
    """No answer, and why: ``folder`` (it is not on this device, or not yours). Any code means that nothing comes."""

    code: str


Request: TypeAlias = GetSegments | GetChunks
LanMessage: TypeAlias = Greeting | GetSegments | GetChunks | Parts | End | Refused


class LanFrame(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One message on its way."""

    id: int
    body: LanMessage


def encode_lan_frame(id: int, body: LanMessage) -> bytes:
    """Return a frame with its length."""
    data = encode(LanFrame(id, body))
    return len(data).to_bytes(LENGTH_BYTES, "big") + data


def frame_length(prefix: bytes | bytearray | memoryview) -> int:
    """Return how many bytes follow the 4 bytes of a length.

    Raises:
        LimitExceededError: More than a frame may have.
    """
    length = int.from_bytes(prefix, "big")
    if length > limits.LAN_FRAME_BYTES_MAX:
        raise LimitExceededError("LAN frame", limits.LAN_FRAME_BYTES_MAX)
    return length


def decode_lan_frame(data: bytes) -> LanFrame:
    """Return the frame behind a length.

    Raises:
        LimitExceededError, ProtocolError: It is none.
    """
    frame: LanFrame = decode(data, LanFrame, bytes_max=limits.LAN_FRAME_BYTES_MAX, what="LAN frame")
    return frame


def check_request(request: Request) -> None:
    """Refuse a request for more than one may ask for at once.

    Raises:
        ProtocolError: It is one, or names something that cannot be.
    """
    if len(request.folder) != ID_BYTES:
        raise ProtocolError("a request names no folder")
    if isinstance(request, GetSegments):
        if not 0 < len(request.ids) <= limits.LAN_REQUEST_SEGMENTS_MAX:
            raise ProtocolError("a request names no segments, or too many")
        if any(len(id) != ID_BYTES for id in request.ids):
            raise ProtocolError("a request names a segment that cannot be")
        return
    if not 0 < len(request.chunks) <= limits.LAN_REQUEST_CHUNKS_MAX:
        raise ProtocolError("a request names no chunks, or too many")
    for wanted in request.chunks:
        if len(wanted.hash) != ID_BYTES or not 0 < wanted.length <= limits.CHUNK_BYTES_MAX:
            raise ProtocolError("a request names a chunk that cannot be")
    if sum(wanted.length for wanted in request.chunks) > limits.LAN_REQUEST_BYTES_MAX:
        raise ProtocolError("a request asks for too many bytes")


def check_parts(parts: Parts, asked: Mapping[int, int | None]) -> None:
    """Refuse parts that nobody asked for, before a byte of them is read.

    Args:
        parts: As received.
        asked: What is still open: the length of each piece by its index; None for a segment, whose length the asker does
            not know.

    Raises:
        ProtocolError: One was not asked for, comes twice, or has a length that it cannot have.
    """
    seen = set()
    for part in parts.parts:
        if part.index in seen or part.index not in asked:
            raise ProtocolError("a part that was not asked for")
        seen.add(part.index)
        raw_length = asked[part.index]
        if raw_length is None:
            fits = part.encoding is Encoding.RAW and 0 < part.length <= limits.SEALED_CHUNK_BYTES_MAX
        elif part.encoding is Encoding.RAW:
            fits = part.length == raw_length
        else:
            fits = 0 < part.length < raw_length
        if not fits:
            raise ProtocolError("a part has a length that it cannot have")
    if not parts.parts:
        raise ProtocolError("an answer without a part")
