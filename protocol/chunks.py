"""Sealed chunks as a stranger sees them: what can be checked of one without any key (security 3.7).

A sealed chunk is ``version || suite || commitment (32) || ciphertext || tag (16)``; its id is the BLAKE3 of all that.
A frame, the plaintext of the ciphertext, has a Padme size of at least 4 KiB, so stored sizes fall into a small set.
"""

from __future__ import annotations

from typing import Final

from blake3 import blake3

from protocol import limits
from protocol.errors import CorruptChunkError
from protocol.ids import ChunkId

CHUNK_VERSION: Final = 1
CHUNK_SUITE: Final = 1
COMMITMENT_BYTES: Final = 32
TAG_BYTES: Final = 16
HEADER_BYTES: Final = 2 + COMMITMENT_BYTES
OVERHEAD_BYTES: Final = HEADER_BYTES + TAG_BYTES


def padme(length: int) -> int:
    """Return the size to which ``length`` bytes are padded, at most 12 % more.

    Padme (Nikitin et al., "Reducing Metadata Leakage from Encrypted Files and Communication with PURBs", 2019).
    """
    if length < 2:
        return length
    exponent = length.bit_length() - 1
    mask = (1 << (exponent - exponent.bit_length())) - 1
    return (length + mask) & ~mask


def padded_frame_bytes(length: int) -> int:
    """Return the size of a chunk's frame that holds ``length`` bytes, its own header included."""
    return max(padme(length), limits.CHUNK_PADDED_BYTES_MIN)


def chunk_id(sealed: bytes | bytearray | memoryview) -> ChunkId:
    """Return the id of a sealed chunk."""
    return ChunkId(blake3(sealed).digest())


def check_length(length: int) -> None:
    """Refuse a length that no sealed chunk has.

    Raises:
        CorruptChunkError: Outside the limits, or not a padded size.
    """
    frame = length - OVERHEAD_BYTES
    if length > limits.SEALED_CHUNK_BYTES_MAX or frame < limits.CHUNK_PADDED_BYTES_MIN or padme(frame) != frame:
        raise CorruptChunkError("chunk has a length that no sealed chunk has")


def check_chunk(sealed: bytes | bytearray | memoryview, id: ChunkId) -> None:
    """Refuse bytes that are not the sealed chunk ``id``.

    Raises:
        CorruptChunkError: A length, a version or a suite that no chunk has, or bytes of another id.
    """
    check_length(len(sealed))
    if sealed[0] != CHUNK_VERSION or sealed[1] != CHUNK_SUITE:
        raise CorruptChunkError("chunk is of an unknown version or suite")
    if chunk_id(sealed) != id:
        raise CorruptChunkError("chunk is not the one that its id names")
