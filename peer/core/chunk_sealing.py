"""Raw bytes to sealed chunks and back: compress, frame, pad, encrypt (security 3.7).

    frame    = codec (1) || raw length (4) || body length (4) || body || zeros up to a padded size
    opener   = BLAKE3(frame, key=K_chunk)
    k || com = derive_key("chunk", opener)
    sealed   = version || suite || com || AES-256-GCM(k, nonce 0, aad "chunk", frame);  id = BLAKE3(sealed)

Rule 1: the key comes from exactly the frame that it encrypts; no function here takes a key and a frame apart.
Rule 2: a row opens its chunk without any other key, and nothing of a chunk is returned before all of it was checked.
Rule 3: the hashing, compressing and ciphering calls release the interpreter lock: call from threads.
"""

from __future__ import annotations

import hmac
from enum import IntEnum
from typing import Final, NamedTuple, NoReturn, TypeAlias

import msgspec
import zstandard
from blake3 import blake3
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from peer.core.sealing import NONCE, derive_key
from protocol import limits
from protocol.chunks import (
    CHUNK_SUITE,
    CHUNK_VERSION,
    HEADER_BYTES,
    TAG_BYTES,
    check_chunk,
    check_length,
    chunk_id,
    padded_frame_bytes,
)
from protocol.errors import CorruptChunkError, LocalProtocolError, ProtocolError
from protocol.grants import ChunkRef
from protocol.ids import ID_BYTES, ChunkId, NodeId

Buffer: TypeAlias = bytes | bytearray | memoryview

FRAME_HEADER_BYTES: Final = 9
CODEC_NONE: Final = 0
"""The codec of a body that is the raw bytes."""
CODEC_ZSTD: Final = zstandard.ZSTD_VERSION[0] * 10_000 + zstandard.ZSTD_VERSION[1] * 100 + zstandard.ZSTD_VERSION[2]
"""The codec that this build writes: the version of its zstd library, since each may write other bytes."""
LEVEL_DEFAULT: Final = 1
_PROBE_BYTES: Final = 16 * limits.KIB
_PATCH_WINDOW_LOG: Final = 23
_PATCH_HASH_LOG: Final = 20
"""Level 1's own table forgets most of a 4 MiB base; this one finds moved blocks at about 300 MB/s."""


class Body(IntEnum):
    """What stands in a frame."""

    RAW = 0
    ZSTD = 1
    PATCH = 2
    """zstd with the raw bytes of the base chunk as its dictionary."""


class Row(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Where a piece of a file lies and everything that opens it."""

    id: ChunkId
    opener: bytes
    """BLAKE3 of the frame, keyed by the K_chunk of its maker."""
    length: int
    """Of the sealed chunk."""
    raw_length: int
    raw_hash: bytes
    """BLAKE3 of the raw bytes."""
    codec: int
    """0: the raw bytes themselves; else the version of the zstd library that compressed them, as 10507 for 1.5.7."""
    level: int
    base: Row | None
    """The row of a full chunk that this one is a patch of."""


class SealedChunk(NamedTuple):
    """A chunk ready to be stored, and its row."""

    row: Row
    data: bytearray

    @property
    def id(self) -> ChunkId:
        """Of the sealed chunk."""
        return self.row.id

    @property
    def ref(self) -> ChunkRef:
        """As storage nodes name it."""
        return ChunkRef(self.row.id, self.row.length)


def file_chunk_key(chunk_key: bytes, file: NodeId) -> bytes:
    """Return the key that replaces K_chunk where the folder's scope of deduplication is one file."""
    return derive_key("chunk-file", chunk_key + file)


def seal_chunk(
    raw: Buffer,
    chunk_key: bytes,
    *,
    level: int = LEVEL_DEFAULT,
    raw_hash: bytes | None = None,
    base: tuple[Row, Buffer] | None = None,
) -> SealedChunk:
    """Return the sealed chunk of up to 4 MiB of one file; the same for the same arguments in the same build.

    Args:
        raw: The bytes, not empty.
        chunk_key: K_chunk of the folder's newest epoch, or :func:`file_chunk_key` of it.
        level: Of zstd, 1 to 19.
        raw_hash: BLAKE3 of ``raw`` where it is known already.
        base: Row and raw bytes of a full chunk: seal only what differs from it, if that is smaller.

    Raises:
        LocalProtocolError: ``raw`` is empty or too long, or the base is a patch itself.
    """
    return _seal(raw, chunk_key, level, raw_hash, base, compress=None)


def reseal_chunk(raw: Buffer, row: Row, chunk_key: bytes, *, base: Buffer | None = None) -> SealedChunk | None:
    """Return the chunk of ``row`` made again from its raw bytes, None if this build cannot make the same bytes.

    Args:
        raw: What the row opens to.
        row: As it stands in a segment.
        chunk_key: The key of the epoch in which the chunk was made.
        base: The raw bytes of the row's base, where it has one.
    """
    if row.codec not in (CODEC_NONE, CODEC_ZSTD) or (row.base is None) != (base is None):
        return None
    pair = None if row.base is None or base is None else (row.base, base)
    made = _seal(raw, chunk_key, row.level, None, pair, compress=row.codec != CODEC_NONE)
    return made if made.row == row else None


def _seal(
    raw: Buffer,
    chunk_key: bytes,
    level: int,
    raw_hash: bytes | None,
    base: tuple[Row, Buffer] | None,
    *,
    compress: bool | None,
) -> SealedChunk:
    if not 0 < len(raw) <= limits.CHUNK_BYTES_MAX:
        raise LocalProtocolError("chunk is empty or too long")
    kind, body = _encode(raw, level, base, compress=compress)
    id, opener, data = seal_frame("chunk", kind, len(raw), body, chunk_key)
    row = Row(
        id=id,
        opener=opener,
        length=len(data),
        raw_length=len(raw),
        raw_hash=blake3(raw).digest() if raw_hash is None else raw_hash,
        codec=CODEC_NONE if kind is Body.RAW else CODEC_ZSTD,
        level=0 if kind is Body.RAW else level,
        base=base[0] if kind is Body.PATCH and base is not None else None,
    )
    return SealedChunk(row, data)


def open_chunk(sealed: Buffer, row: Row, *, base: Buffer | None = None) -> memoryview:
    """Return the raw bytes of a chunk after every check: id, commitment, cipher, lengths, compression, raw hash.

    Args:
        sealed: As a node or a peer gave it.
        row: From a segment that was itself opened.
        base: The raw bytes of the row's base, where it has one.

    Raises:
        CorruptChunkError: It is not what the row promises; another source may have better.
    """
    if len(sealed) != row.length:
        _refuse("has another length than its row says")
    kind, raw_length, body = open_frame("chunk", sealed, row.id, row.opener)
    if raw_length != row.raw_length:
        _refuse("holds another length than its row says")
    patch = kind is Body.PATCH
    if (
        (kind is Body.RAW) != (row.codec == CODEC_NONE)
        or patch != (row.base is not None)
        or patch != (base is not None)
    ):
        _refuse("is encoded otherwise than its row says")
    if base is not None and row.base is not None and blake3(base).digest() != row.base.raw_hash:
        _refuse("builds on another base")
    raw = _decode(kind, body, raw_length, base)
    if blake3(raw).digest() != row.raw_hash:
        _refuse("holds other bytes than its row says")
    return raw


def check_row(row: Row) -> None:
    """Refuse a row that no honest device writes.

    Raises:
        ProtocolError: A length out of range, or a base that has a base.
    """
    for one in (row,) if row.base is None else (row, row.base):
        if not len(one.id) == len(one.opener) == len(one.raw_hash) == ID_BYTES:
            raise ProtocolError("row holds a value of a wrong length")
        if not 0 < one.raw_length <= limits.CHUNK_BYTES_MAX or not 0 <= one.codec < 1 << 31 or not 0 <= one.level <= 22:
            raise ProtocolError("row holds a number out of range")
        try:
            check_length(one.length)
        except CorruptChunkError as error:
            raise ProtocolError("row holds a length that no sealed chunk has") from error
    if row.base is not None and (row.base.base is not None or row.codec == CODEC_NONE):
        raise ProtocolError("row builds on a row that is no full chunk")


# --- Frames: what chunks and segments share


def seal_frame(label: str, kind: Body, raw_length: int, body: Buffer, key: bytes) -> tuple[ChunkId, bytes, bytearray]:
    """Return (id, opener, sealed bytes) of a frame under a key derived from the frame itself."""
    used = FRAME_HEADER_BYTES + len(body)
    frame = bytearray(padded_frame_bytes(used))
    frame[0] = kind
    frame[1:5] = raw_length.to_bytes(4, "big")
    frame[5:9] = len(body).to_bytes(4, "big")
    frame[9:used] = body
    opener = blake3(frame, key=key).digest()
    okm = derive_key(label, opener, 64)
    sealed = bytearray(HEADER_BYTES + len(frame) + TAG_BYTES)
    sealed[0] = CHUNK_VERSION
    sealed[1] = CHUNK_SUITE
    sealed[2:HEADER_BYTES] = okm[32:]
    AESGCM(okm[:32]).encrypt_into(NONCE, frame, label.encode(), memoryview(sealed)[HEADER_BYTES:])
    return chunk_id(sealed), opener, sealed


def open_frame(label: str, sealed: Buffer, id: ChunkId, opener: bytes) -> tuple[Body, int, memoryview]:
    """Return (kind, raw length, body) of a frame.

    Raises:
        CorruptChunkError: Not the chunk ``id``, not sealed for this label and opener, or malformed.
    """
    check_chunk(sealed, id)
    okm = derive_key(label, opener, 64)
    if not hmac.compare_digest(okm[32:], sealed[2:HEADER_BYTES]):
        _refuse("does not fit its opener")
    frame = bytearray(len(sealed) - HEADER_BYTES - TAG_BYTES)
    try:
        AESGCM(okm[:32]).decrypt_into(NONCE, memoryview(sealed)[HEADER_BYTES:], label.encode(), frame)
    except InvalidTag:
        _refuse("cannot be decrypted")
    used = FRAME_HEADER_BYTES + int.from_bytes(frame[5:9], "big")
    if frame[0] > Body.PATCH or used > len(frame) or padded_frame_bytes(used) != len(frame):
        _refuse("holds a malformed frame")
    if frame[used:] != bytes(len(frame) - used):
        _refuse("is padded with something")
    return Body(frame[0]), int.from_bytes(frame[1:5], "big"), memoryview(frame)[FRAME_HEADER_BYTES:used]


def _encode(raw: Buffer, level: int, base: tuple[Row, Buffer] | None, *, compress: bool | None) -> tuple[Body, Buffer]:
    """Return the smallest body; ``compress`` forces (True, False) what is otherwise found out by a probe (None)."""
    if base is not None:
        if base[0].base is not None:
            raise LocalProtocolError("a patch cannot be the base of a patch")
        patch = _patch_compressor(level, raw, base[1]).compress(raw)
        full = _encode(raw, level, None, compress=None)
        return (Body.PATCH, patch) if compress or _saves(patch, full[1]) else full
    if compress is False or (compress is None and not _shrinks(raw)):
        return Body.RAW, raw
    body = zstandard.ZstdCompressor(level=level).compress(raw)
    return (Body.ZSTD, body) if compress or _saves(body, raw) else (Body.RAW, raw)


def _saves(body: Buffer, other: Buffer) -> bool:
    return padded_frame_bytes(FRAME_HEADER_BYTES + len(body)) < padded_frame_bytes(FRAME_HEADER_BYTES + len(other))


def _shrinks(raw: Buffer) -> bool:
    """Tell by 16 KiB from the middle whether compressing pays."""
    if len(raw) <= _PROBE_BYTES:
        return True
    start = (len(raw) - _PROBE_BYTES) // 2
    probe = zstandard.ZstdCompressor(level=1).compress(memoryview(raw)[start : start + _PROBE_BYTES])
    return len(probe) < _PROBE_BYTES * 15 // 16


def _patch_compressor(level: int, raw: Buffer, base: Buffer) -> zstandard.ZstdCompressor:
    parameters = zstandard.ZstdCompressionParameters.from_level(
        level,
        source_size=len(raw),
        dict_size=len(base),
        window_log=_PATCH_WINDOW_LOG,
        hash_log=_PATCH_HASH_LOG,
        enable_ldm=True,
    )
    return zstandard.ZstdCompressor(compression_params=parameters, dict_data=_dictionary(base))


def _dictionary(base: Buffer) -> zstandard.ZstdCompressionDict:
    return zstandard.ZstdCompressionDict(bytes(base), dict_type=zstandard.DICT_TYPE_RAWCONTENT)


def _decode(kind: Body, body: memoryview, raw_length: int, base: Buffer | None) -> memoryview:
    """Return exactly ``raw_length`` bytes; a body that says or holds anything else is refused before it is unpacked."""
    if kind is Body.RAW:
        if len(body) != raw_length:
            _refuse("holds another length than it says")
        return body
    return decompress(body, raw_length, dictionary=None if base is None else _dictionary(base))


def decompress(body: Buffer, length: int, *, dictionary: zstandard.ZstdCompressionDict | None = None) -> memoryview:
    """Return the ``length`` bytes that one zstd frame declares and holds; memory is bounded by ``length``.

    The frame's own declaration decides how much the library allocates, so it is read first (S57).

    Raises:
        CorruptChunkError: It declares or holds anything else, or asks for a window above 8 MiB.
    """
    if length < 1:
        _refuse("holds nothing")
    try:
        declared = zstandard.get_frame_parameters(body)
        if declared.content_size != length or declared.window_size > limits.ZSTD_WINDOW_BYTES_MAX or declared.dict_id:
            _refuse("declares another length than it says")
        unpacker = zstandard.ZstdDecompressor(dict_data=dictionary, max_window_size=limits.ZSTD_WINDOW_BYTES_MAX)
        raw = unpacker.decompress(body, max_output_size=length, read_across_frames=False, allow_extra_data=False)
    except (zstandard.ZstdError, ValueError, MemoryError):
        _refuse("cannot be decompressed")
    if len(raw) != length:
        _refuse("holds another length than it says")
    return memoryview(raw)


def _refuse(what: str) -> NoReturn:
    raise CorruptChunkError(f"chunk {what}") from None
