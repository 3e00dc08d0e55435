"""The storage node's HTTP interface: names, bodies and replies, as bytes and without any I/O.

Every request is a POST with a grant and a statement in its headers (:func:`protocol.grants.check_request`), both checked
before a byte of the body is read:

====================  =======================================================  ==========================================
path                  body                                                     reply
====================  =======================================================  ==========================================
``/v1/put``           :func:`encode_refs`, then the chunks in that order       `PutReply`
``/v1/have``          :func:`encode_ids`                                       `HaveReply`
``/v1/get``           :func:`encode_wanted`                                    per chunk in order a 4-byte length, then bytes
====================  =======================================================  ==========================================

A put's statement names :func:`protocol.grants.batch_root` of its chunks, their number and their bytes; that of a have or a
get names the root of ``ChunkRef(id, 0)`` for its ids, their number and 0 bytes. A get may ask for a chunk from an offset
on: whoever holds the beginning of one, from a transfer that was cut, gets the rest, none if the chunk ends before. Anything
but 200 carries a :class:`protocol.messages.Failure`. Integers are big-endian.

Rule 1: a reader holds at most one chunk that is not complete, and refuses a length above its limit before it is there.
Rule 2: readers do not hash: whoever takes a chunk compares its BLAKE3 with its id, in a thread of its own choice.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Final, TypeVar

import msgspec

from protocol import limits
from protocol.codec import decode, encode
from protocol.errors import (
    AccessDeniedError,
    FullError,
    KinfolderError,
    LimitExceededError,
    ProtocolError,
    UnavailableError,
)
from protocol.grants import ChunkRef, Receipt, ReceiptFor, Signed, Statement, batch_root, open_receipt
from protocol.ids import ID_BYTES, ChunkId, StorageNodeId
from protocol.messages import Failure

PUT_PATH: Final = "/v1/put"
HAVE_PATH: Final = "/v1/have"
GET_PATH: Final = "/v1/get"
GRANT_HEADER: Final = "Kinfolder-Grant"
STATEMENT_HEADER: Final = "Kinfolder-Statement"
FORWARD_HEADER: Final = "Kinfolder-Forward"
"""``1``: the node that is asked hands the batch on to the other nodes of the statement."""
CONTENT_TYPE: Final = "application/x-kinfolder"
LENGTH_BYTES: Final = 4
ABSENT: Final = 0xFFFF_FFFF
"""Stands for a length in the reply to a get: the node does not hold this chunk for this pseudonym."""

PROOF_CHARACTERS_MAX: Final = 6 * limits.KIB
LIST_BYTES_MAX: Final = 16 * limits.KIB
"""The list before the chunks of a put, or the body of a have or a get: 256 ids and lengths take 10.5 KiB."""
PUT_BODY_BYTES_MAX: Final = LENGTH_BYTES + LIST_BYTES_MAX + limits.BATCH_BYTES_MAX
REPLY_BYTES_MAX: Final = limits.PLACEMENT_NODES_MAX * 2 * LIST_BYTES_MAX

STATUS: Final[dict[str, int]] = {
    "protocol": 400,
    "access_denied": 403,
    "not_found": 404,
    "limit": 413,
    "error": 500,
    "unavailable": 503,
    "full": 507,
}
"""The HTTP status of each code that a node answers with; a bad signature is told as ``access_denied``."""


class ChunkFrom(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A chunk that a get asks for: all of it, or what follows its first ``offset`` bytes."""

    id: ChunkId
    offset: int


class PutReply(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Which nodes hold the batch now, and which do not and why."""

    receipts: tuple[ReceiptFor, ...]
    """The asked node's first."""
    failed: tuple[tuple[StorageNodeId, str], ...]


class HaveReply(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Which of the ids the node holds, with a fresh receipt for just these, in the order asked; None: none of them."""

    receipt: ReceiptFor | None


T = TypeVar("T")
_BASE64 = re.compile(r"[A-Za-z0-9_-]*")


# --- Headers


def encode_proof(signed: Signed) -> str:
    """Return a grant or a statement as a header's value: base64url without padding."""
    return base64.urlsafe_b64encode(encode(signed)).rstrip(b"=").decode("ascii")


def decode_proof(text: str | None) -> Signed:
    """Return the grant or the statement in a header's value.

    Raises:
        ProtocolError: It is missing or malformed.
    """
    if text is None or len(text) > PROOF_CHARACTERS_MAX or _BASE64.fullmatch(text) is None:
        raise ProtocolError("a proof is missing or malformed")
    try:
        data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except binascii.Error as error:
        raise ProtocolError("a proof is malformed") from error
    signed: Signed = decode(data, Signed, bytes_max=PROOF_CHARACTERS_MAX, what="proof")
    return signed


def request_headers(grant: Signed, statement: Signed, *, forward: bool = False) -> dict[str, str]:
    """Return the headers of a request; ``forward`` asks the node to hand a put on to the other nodes."""
    headers = {
        "Content-Type": CONTENT_TYPE,
        GRANT_HEADER: encode_proof(grant),
        STATEMENT_HEADER: encode_proof(statement),
    }
    return headers | {FORWARD_HEADER: "1"} if forward else headers


# --- Bodies of requests


def check_refs(chunks: Sequence[ChunkRef]) -> None:
    """Check the shape of a batch: its number, ids and lengths.

    Raises:
        ProtocolError: One of them cannot be.
    """
    if len(chunks) > limits.BATCH_CHUNKS_MAX:
        raise ProtocolError("the batch has too many chunks")
    for chunk in chunks:
        if len(chunk.id) != ID_BYTES or not 0 <= chunk.length <= limits.SEALED_CHUNK_BYTES_MAX:
            raise ProtocolError("the batch has a chunk that cannot be")


def encode_refs(chunks: Sequence[ChunkRef]) -> bytes:
    """Return what a put begins with: a 4-byte length and the list of its chunks."""
    body = encode(tuple(chunks))
    return len(body).to_bytes(LENGTH_BYTES, "big") + body


def ids_root(ids: Sequence[ChunkId]) -> bytes:
    """Return the root that the statement of a have or a get names."""
    return batch_root([ChunkRef(id, 0) for id in ids])


def encode_ids(ids: Sequence[ChunkId]) -> bytes:
    """Return the body of a have."""
    return encode(tuple(ids))


def encode_wanted(wanted: Sequence[ChunkFrom]) -> bytes:
    """Return the body of a get."""
    return encode(tuple(wanted))


def decode_ids(data: bytes, statement: Statement) -> tuple[ChunkId, ...]:
    """Return the ids that a have asks for.

    Raises:
        ProtocolError: Malformed, or not what the statement says.
        LimitExceededError: Too long.
    """
    ids: tuple[ChunkId, ...] = decode(data, tuple[ChunkId, ...], bytes_max=LIST_BYTES_MAX, what="list of ids")
    return _check_ids(ids, statement)


def decode_wanted(data: bytes, statement: Statement) -> tuple[ChunkFrom, ...]:
    """Return what a get asks for.

    Raises:
        ProtocolError: Malformed, or not what the statement says.
        LimitExceededError: Too long.
    """
    wanted: tuple[ChunkFrom, ...] = decode(
        data, tuple[ChunkFrom, ...], bytes_max=LIST_BYTES_MAX, what="list of wanted chunks"
    )
    if any(not 0 <= one.offset <= limits.SEALED_CHUNK_BYTES_MAX for one in wanted):
        raise ProtocolError("an offset lies in no chunk")
    _check_ids([one.id for one in wanted], statement)
    return wanted


Ids = TypeVar("Ids", bound=Sequence[ChunkId])


def _check_ids(ids: Ids, statement: Statement) -> Ids:
    if any(len(id) != ID_BYTES for id in ids):
        raise ProtocolError("an id has another length")
    if len(ids) != statement.count or statement.bytes != 0 or ids_root(ids) != statement.root:
        raise ProtocolError("the statement is for other ids")
    return ids


class _Pieces:
    """Bytes as they arrived, taken out in the lengths that the format has."""

    def __init__(self) -> None:
        self.size = 0
        self._pieces: deque[memoryview] = deque()

    def add(self, data: bytes | memoryview) -> None:
        if data:
            self._pieces.append(memoryview(data))
            self.size += len(data)

    def take(self, count: int) -> bytes:
        """Return the next ``count`` bytes, which must be there: one copy, whatever the pieces."""
        self.size -= count
        taken: list[memoryview] = []
        while count:
            piece = self._pieces.popleft()
            if len(piece) > count:
                self._pieces.appendleft(piece[count:])
                piece = piece[:count]
            taken.append(piece)
            count -= len(piece)
        return bytes(taken[0]) if len(taken) == 1 else b"".join(taken)


class PutReader:
    """Cuts the body of a put into its chunks as it arrives.

    Args:
        statement: What the device signed; the list that the body begins with must be the one that it names.
    """

    def __init__(self, statement: Statement) -> None:
        self.chunks: tuple[ChunkRef, ...] | None = None
        """The batch, as soon as its list is complete."""
        self._statement = statement
        self._pieces = _Pieces()
        self._list_bytes: int | None = None
        self._next = 0

    @property
    def missing_bytes(self) -> int:
        """How many bytes the list, or the chunk now being received, still needs."""
        if self.chunks is None:
            return (LENGTH_BYTES if self._list_bytes is None else self._list_bytes) - self._pieces.size
        return self.chunks[self._next].length - self._pieces.size if self._next < len(self.chunks) else 0

    def feed(self, data: bytes | memoryview) -> Iterator[tuple[ChunkRef, bytes]]:
        """Yield the chunks that are complete with these bytes; exhaust it before the next call.

        Raises:
            ProtocolError: Malformed, or not what the statement says.
            LimitExceededError: The list is too long.
        """
        self._pieces.add(data)
        if self.chunks is None:
            self._read_list()
        if self.chunks is not None:
            while self._next < len(self.chunks) and self._pieces.size >= self.chunks[self._next].length:
                chunk = self.chunks[self._next]
                self._next += 1
                yield chunk, self._pieces.take(chunk.length)
            if self._next == len(self.chunks) and self._pieces.size:
                raise ProtocolError("the body goes on after its last chunk")

    def finish(self) -> tuple[ChunkRef, ...]:
        """Return the batch, once the body has ended.

        Raises:
            ProtocolError: The body ended too early.
        """
        if self.chunks is None or self._next < len(self.chunks):
            raise ProtocolError("the body ended too early")
        return self.chunks

    def _read_list(self) -> None:
        if self._list_bytes is None and self._pieces.size >= LENGTH_BYTES:
            self._list_bytes = int.from_bytes(self._pieces.take(LENGTH_BYTES), "big")
            if self._list_bytes > LIST_BYTES_MAX:
                raise LimitExceededError("list of chunks", LIST_BYTES_MAX)
        if self._list_bytes is not None and self._pieces.size >= self._list_bytes:
            data = self._pieces.take(self._list_bytes)
            chunks: tuple[ChunkRef, ...] = decode(
                data, tuple[ChunkRef, ...], bytes_max=LIST_BYTES_MAX, what="list of chunks"
            )
            check_refs(chunks)
            asked = self._statement
            if (len(chunks), sum(c.length for c in chunks), batch_root(chunks)) != (
                asked.count,
                asked.bytes,
                asked.root,
            ):
                raise ProtocolError("the statement is for another batch")
            self.chunks = chunks


# --- Replies


def encode_found(data: bytes | bytearray | None, offset: int = 0) -> tuple[bytes | bytearray | memoryview, ...]:
    """Return the parts of a get's reply for one chunk, of which this much is there already."""
    if data is None:
        return (ABSENT.to_bytes(LENGTH_BYTES, "big"),)
    rest = memoryview(data)[offset:] if offset else data
    return (len(rest).to_bytes(LENGTH_BYTES, "big"), rest)


class GetReader:
    """Cuts the reply to a get into its chunks as it arrives."""

    def __init__(self, wanted: Sequence[ChunkFrom]) -> None:
        self._wanted = tuple(wanted)
        self._pieces = _Pieces()
        self._length: int | None = None
        self._next = 0

    def feed(self, data: bytes | memoryview) -> Iterator[tuple[ChunkFrom, bytes | None]]:
        """Yield what is answered with these bytes, in the order asked; None: the node does not hold it.

        The bytes are what the node sent: compare the BLAKE3 of the whole chunk with its id.

        Raises:
            ProtocolError: Malformed.
        """
        self._pieces.add(data)
        while self._next < len(self._wanted):
            one = self._wanted[self._next]
            if self._length is None:
                if self._pieces.size < LENGTH_BYTES:
                    return
                self._length = self._read_length(one)
            if self._length != ABSENT and self._pieces.size < self._length:
                return
            length, self._length = self._length, None
            self._next += 1
            yield one, None if length == ABSENT else self._pieces.take(length)
        if self._pieces.size:
            raise ProtocolError("the reply goes on after its last chunk")

    def _read_length(self, one: ChunkFrom) -> int:
        length = int.from_bytes(self._pieces.take(LENGTH_BYTES), "big")
        if length != ABSENT and length > limits.SEALED_CHUNK_BYTES_MAX - one.offset:
            raise ProtocolError("a chunk in the reply is too long")
        return length

    def break_off(self) -> tuple[ChunkFrom, bytes] | None:
        """Return which chunk was on its way, and what of it has come; the reader is of no use any more.

        Unchecked, as everything here; None where nothing has come that anybody could go on with.
        """
        if self._length is None or self._length == ABSENT:
            return None
        return self._wanted[self._next], self._pieces.take(min(self._length, self._pieces.size))

    def finish(self) -> None:
        """Check that the reply was complete.

        Raises:
            ProtocolError: It ended too early.
        """
        if self._next < len(self._wanted):
            raise ProtocolError("the reply ended too early")


def decode_put_reply(data: bytes) -> PutReply:
    """Return the reply to a put; its receipts are well formed, but not yet checked (:func:`open_receipt`).

    Raises:
        ProtocolError: Malformed.
    """
    reply: PutReply = decode(data, PutReply, bytes_max=REPLY_BYTES_MAX, what="reply to a put")
    for item in reply.receipts:
        check_refs(item.chunks)
    return reply


def decode_have_reply(data: bytes) -> HaveReply:
    """Return the reply to a have; its receipt is well formed, but not yet checked (:func:`open_receipt`).

    Raises:
        ProtocolError: Malformed.
    """
    reply: HaveReply = decode(data, HaveReply, bytes_max=REPLY_BYTES_MAX, what="reply to a have")
    if reply.receipt is not None:
        check_refs(reply.receipt.chunks)
    return reply


def check_receipt(item: ReceiptFor, *, node: StorageNodeId, statement: Statement) -> Receipt:
    """Return the receipt of a put after checking that it is this node's for this batch.

    Raises:
        ProtocolError: Malformed, or for other chunks.
        BadSignatureError: Not signed by the key that it names.
        AccessDeniedError: Another node's.
    """
    check_refs(item.chunks)
    receipt = open_receipt(item, node)
    if receipt.root != statement.root or receipt.count != statement.count:
        raise ProtocolError("the receipt is for another batch")
    return receipt


def encode_failure(code: str) -> bytes:
    """Return the body of a refusal: the same words for the same code, whatever the cause."""
    return encode(Failure(code, _TEXTS.get(code, _TEXTS["error"])))


def decode_failure(data: bytes) -> KinfolderError:
    """Return the error that a node's refusal stands for; anything unreadable is an `UnavailableError`."""
    try:
        failure: Failure = decode(data, Failure, bytes_max=4 * limits.KIB, what="failure")
    except (ProtocolError, LimitExceededError):
        return UnavailableError("a storage node answered what cannot be read")
    return _ERRORS.get(failure.code, UnavailableError)(_TEXTS.get(failure.code, _TEXTS["error"]))


_TEXTS: Final = {
    "protocol": "the request is malformed",
    "access_denied": "the grant does not allow this",
    "not_found": "there is nothing here",
    "limit": "the request is too large",
    "error": "the storage node failed",
    "unavailable": "the storage node cannot do this now",
    "full": "the storage node has no room",
}
_ERRORS: Final[dict[str, type[KinfolderError]]] = {
    "protocol": ProtocolError,
    "not_found": ProtocolError,
    "limit": ProtocolError,
    "access_denied": AccessDeniedError,
    "full": FullError,
}
