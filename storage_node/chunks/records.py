"""The bytes of a pack: a header, then one record after another; pure.

``pack   = "KINPACK1" || secret (32) || BLAKE3(both, first 16)``, then records;
``record = "KREC" || kind (1) || 0 (3) || length (4) || id (32) || pseudonym (16) || mac (16) || length bytes``

The mac is keyed BLAKE3, under the secret of the store, of the record's header, the pack's number and the record's place. So a
scan that must find its way again after damage cannot be led astray by chunks whose authors wrote records into them.

Rule 1: the packs alone say what is held; every index can be made from them.
Rule 2: records are only ever appended; a later one about a chunk outweighs an earlier one.
"""

from __future__ import annotations

import hmac
import struct
from collections.abc import Callable, Iterator
from enum import IntEnum
from typing import Final, NamedTuple

from blake3 import blake3

from protocol import limits
from protocol.ids import ChunkId, Pseudonym

PACK_MAGIC: Final = b"KINPACK1"
RECORD_MAGIC: Final = b"KREC"
SECRET_BYTES: Final = 32
MAC_BYTES: Final = 16
PACK_HEADER_BYTES: Final = len(PACK_MAGIC) + SECRET_BYTES + MAC_BYTES
_FIELDS = struct.Struct(">4sB3xI32s16s")
_PLACE = struct.Struct(">QQ")
RECORD_HEADER_BYTES: Final = _FIELDS.size + MAC_BYTES
SCAN_BYTES: Final = 256 * limits.KIB
"""How much a scan reads at once."""


class Kind(IntEnum):
    """What a record says."""

    CHUNK = 1
    """Here is a chunk, and who may read it."""
    READER = 2
    """One more may read a chunk that an earlier record holds; no bytes follow."""
    DELETED = 3
    """One may read a chunk no more; no bytes follow."""


class Record(NamedTuple):
    """One record without its bytes."""

    kind: Kind
    id: ChunkId
    pseudonym: Pseudonym
    length: int
    offset: int
    """Where the record begins in its pack."""

    @property
    def end(self) -> int:
        """Where the next record begins."""
        return self.offset + RECORD_HEADER_BYTES + self.length


def encode_pack_header(secret: bytes) -> bytes:
    """Return the first bytes of a pack."""
    body = PACK_MAGIC + secret
    return body + blake3(body).digest()[:MAC_BYTES]


def decode_pack_header(data: bytes) -> bytes | None:
    """Return the secret in a pack's first bytes, or None if they are damaged."""
    secret = data[len(PACK_MAGIC) : len(PACK_MAGIC) + SECRET_BYTES]
    return secret if data == encode_pack_header(secret) else None


def encode_record(record: Record, *, pack: int, secret: bytes) -> bytes:
    """Return a record's header."""
    fields = _FIELDS.pack(RECORD_MAGIC, record.kind, record.length, record.id, record.pseudonym)
    return fields + _mac(fields, pack, record.offset, secret)


def decode_record(data: bytes | bytearray | memoryview, *, pack: int, offset: int, secret: bytes) -> Record | None:
    """Return the record whose header these bytes are, or None if they are none of this place of this pack."""
    if len(data) < RECORD_HEADER_BYTES or data[:4] != RECORD_MAGIC:
        return None
    fields = bytes(data[: _FIELDS.size])
    if not hmac.compare_digest(bytes(data[_FIELDS.size : RECORD_HEADER_BYTES]), _mac(fields, pack, offset, secret)):
        return None
    _, kind, length, id, pseudonym = _FIELDS.unpack(fields)
    return Record(Kind(kind), ChunkId(id), Pseudonym(pseudonym), length, offset)


def scan(
    read: Callable[[int, int], bytes | bytearray], *, pack: int, secret: bytes, start: int, size: int
) -> Iterator[Record]:
    """Yield the records of a pack from a place where one begins, skipping what is damaged.

    Args:
        read: Returns bytes by offset and count; fewer only at the end.
        pack: The pack's number.
        secret: The store's.
        start: Where the first record begins.
        size: The pack's size; a record that would end beyond it is not yielded.
    """
    window: bytes | bytearray = b""
    window_at = start
    offset = start
    while offset + RECORD_HEADER_BYTES <= size:
        if not window_at <= offset <= window_at + len(window) - RECORD_HEADER_BYTES:
            window_at = offset
            window = read(offset, min(SCAN_BYTES, size - offset))
            if len(window) < RECORD_HEADER_BYTES:
                return
        at = offset - window_at
        record = decode_record(
            memoryview(window)[at : at + RECORD_HEADER_BYTES], pack=pack, offset=offset, secret=secret
        )
        if record is not None and record.end <= size:
            yield record
            offset = record.end
            continue
        # Damage, or the torn end: look for the next place where a record may begin.
        found = window.find(RECORD_MAGIC, at + 1)
        offset = window_at + (found if found >= 0 else max(at + 1, len(window) - len(RECORD_MAGIC) + 1))


def _mac(fields: bytes, pack: int, offset: int, secret: bytes) -> bytes:
    return blake3(fields + _PLACE.pack(pack, offset), key=secret).digest()[:MAC_BYTES]
