"""Seal and sign an entry, and open one that was checked (security 3.9).

The payload is encoded, compressed when that makes it smaller, and sealed under the epoch's K_entry. What it is bound to
is the header with an empty ``payload_hash``; the hash of the sealed payload is then put into the header, and both are signed.
"""

from __future__ import annotations

from typing import Final

import msgspec
import zstandard
from blake3 import blake3

from peer.core.chunk_sealing import decompress
from peer.core.sealing import open_sealed, seal
from protocol import limits
from protocol.codec import decode, encode
from protocol.effects import Entropy
from protocol.entries import Entry, Header, Payload, check_header, check_payload, pack_entry
from protocol.errors import CorruptChunkError, LimitExceededError, LocalProtocolError, ProtocolError
from protocol.signing import sign

PAYLOAD_FLOOR_BYTES: Final = 512
_PURPOSE: Final = "entry"
_RAW: Final = b"\x00"
_ZSTD: Final = b"\x01"
_LEVEL: Final = 3


def _aad(header: Header) -> bytes:
    return encode(msgspec.structs.replace(header, payload_hash=b""))


def seal_entry(header: Header, payload: Payload, entry_key: bytes, sign_seed: bytes, entropy: Entropy) -> bytes:
    """Return the bytes of an entry, sealed and signed.

    Args:
        header: Its ``payload_hash`` is ignored and filled in.
        payload: One value for each change of the header.
        entry_key: K_entry of the header's epoch.
        sign_seed: Of the device that the header's device number stands for.
        entropy: Gives the seal's salt.

    Raises:
        LimitExceededError: It would be larger than an entry may be: make several.
        LocalProtocolError: Something that no other device would accept.
    """
    text = encode(payload)
    if len(text) > limits.ENTRY_PLAIN_BYTES_MAX:
        raise LimitExceededError("entry payload", limits.ENTRY_PLAIN_BYTES_MAX)
    packed = zstandard.ZstdCompressor(level=_LEVEL).compress(text)
    plain = _ZSTD + packed if len(packed) < len(text) else _RAW + text
    sealed = seal(_PURPOSE, entry_key, _aad(header), plain, entropy, floor=PAYLOAD_FLOOR_BYTES)
    if len(sealed) > limits.ENTRY_PAYLOAD_BYTES_MAX:
        raise LimitExceededError("entry payload", limits.ENTRY_PAYLOAD_BYTES_MAX)
    full = msgspec.structs.replace(header, payload_hash=blake3(sealed).digest())
    try:
        check_header(full)
        check_payload(full, payload)
    except ProtocolError as error:
        raise LocalProtocolError(str(error)) from error
    head = encode(full)
    if len(head) > limits.ENTRY_HEADER_BYTES_MAX:
        raise LimitExceededError("entry header", limits.ENTRY_HEADER_BYTES_MAX)
    return pack_entry(head, sealed, sign("entry", head + sealed, sign_seed))


def open_entry(entry: Entry, entry_key: bytes) -> Payload:
    """Return the payload of an entry, checked against its header.

    Signature, chain and rights are the caller's to check first (:func:`protocol.signing.verify`, kind ``entry``).

    Raises:
        SecurityError: Not sealed under this key for this header.
        ProtocolError: Its author sealed something malformed.
        LimitExceededError: A part of it is above its limit.
    """
    plain = open_sealed(_PURPOSE, entry_key, _aad(entry.header), entry.payload, floor=PAYLOAD_FLOOR_BYTES)
    payload: Payload = decode(_unpack(plain), Payload, bytes_max=limits.ENTRY_PLAIN_BYTES_MAX, what="entry payload")
    check_payload(entry.header, payload)
    return payload


def _unpack(plain: bytes) -> bytes | memoryview:
    kind, body = plain[:1], plain[1:]
    if kind == _RAW:
        return body
    if kind != _ZSTD:
        raise ProtocolError("entry payload is of an unknown encoding")
    try:
        length = zstandard.get_frame_parameters(body).content_size
        if length > limits.ENTRY_PLAIN_BYTES_MAX:
            raise LimitExceededError("entry payload", limits.ENTRY_PLAIN_BYTES_MAX)
        return decompress(body, length)
    except (zstandard.ZstdError, CorruptChunkError) as error:
        raise ProtocolError("entry payload cannot be decompressed") from error
