"""Grants, statements and receipts: what lets a device use a storage node, and what the node answers (security 3.11).

A *grant* by the coordinator says which device may do what for which folder's pseudonym. Each request carries a
*statement* by that device (proof of possession) over the exact batch, so a node can hand both on to the other
replicas and nobody can put other bytes under them. A *receipt* by the node says what it now holds durably.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntFlag
from typing import TypeAlias, TypeVar

import msgspec
from blake3 import blake3

from protocol import limits
from protocol.codec import decode, encode
from protocol.errors import AccessDeniedError, ProtocolError
from protocol.ids import ChunkId, DeviceId, Pseudonym, StorageNodeId, device_id, storage_node_id
from protocol.signing import sign, verify

Octets: TypeAlias = bytes
"""The built-in type, for `Statement`, where a field of that name hides it."""


class Operation(IntFlag):
    """What a grant allows and a statement asks for."""

    PUT = 1
    GET = 2
    HAVE = 4


class ChunkRef(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A sealed chunk and its length in bytes."""

    id: ChunkId
    length: int


class Grant(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Signed by the coordinator's token key (kind ``grant``)."""

    id: bytes
    """16 random bytes."""
    pseudonym: Pseudonym
    device: bytes
    """Ed25519 public key of the device that may use it."""
    operations: Operation
    bytes_max: int
    chunks_max: int
    not_before_ms: int
    expires_ms: int


class Statement(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Signed by the device (kind ``statement``) for one request."""

    grant: Octets
    """The grant's id."""
    operation: Operation
    nodes: tuple[StorageNodeId, ...]
    """The nodes that may act on it: the first is asked, a put is forwarded to the others."""
    root: Octets
    """:func:`batch_root` of the chunks (for a get or have the lengths are 0)."""
    count: int
    bytes: int
    time_ms: int


class Receipt(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Signed by a storage node (kind ``receipt``): these chunks are durable here."""

    node: bytes
    """Ed25519 public key of the node."""
    pseudonym: Pseudonym
    device: DeviceId
    root: bytes
    count: int
    time_ms: int
    hold_until_ms: int
    """0: until an ordered deletion."""


class Signed(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Exact body bytes and a signature over them."""

    body: bytes
    signature: bytes


class ReceiptFor(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A receipt with the chunks whose root it holds."""

    receipt: Signed
    chunks: tuple[ChunkRef, ...]


T = TypeVar("T", Grant, Statement, Receipt)

_KINDS = {Grant: "grant", Statement: "statement", Receipt: "receipt"}


def batch_root(chunks: Sequence[ChunkRef]) -> bytes:
    """Return the BLAKE3 that binds a batch: ids and lengths in the order given."""
    return blake3(b"kinfolder/batch/v1\x00" + b"".join(c.id + c.length.to_bytes(4, "big") for c in chunks)).digest()


def sign_body(body: Grant | Statement | Receipt, seed: bytes) -> Signed:
    """Encode and sign a grant, a statement or a receipt."""
    data = encode(body)
    return Signed(data, sign(_KINDS[type(body)], data, seed))


def open_signed(signed: Signed, kind: type[T], public: bytes | None = None) -> T:
    """Return the body if it is well formed and, where ``public`` is given, signed by that key.

    Raises:
        ProtocolError: Malformed.
        BadSignatureError: Signed by another key.
    """
    body: T = decode(signed.body, kind, bytes_max=4 * limits.KIB, what=_KINDS[kind])
    if public is not None:
        verify(_KINDS[kind], signed.body, signed.signature, public)
    return body


def open_receipt(item: ReceiptFor, node: StorageNodeId | None = None) -> Receipt:
    """Return a receipt after checking its signature, its root and, where given, whose it is.

    Raises:
        ProtocolError: Malformed, or its root is not that of its chunks.
        BadSignatureError: Not signed by the key that it names.
        AccessDeniedError: Another node's.
    """
    receipt = open_signed(item.receipt, Receipt)
    verify("receipt", item.receipt.body, item.receipt.signature, receipt.node)
    if len(item.chunks) > limits.RECEIPT_CHUNKS_MAX or receipt.count != len(item.chunks):
        raise ProtocolError("receipt is for another number of chunks")
    if receipt.root != batch_root(item.chunks):
        raise ProtocolError("receipt is for other chunks")
    if node is not None and storage_node_id(receipt.node) != node:
        raise AccessDeniedError("receipt is another node's")
    return receipt


def check_request(
    grant: Signed, statement: Signed, *, coordinator: bytes, node: StorageNodeId, now_ms: int
) -> tuple[Grant, Statement]:
    """Return grant and statement if together they allow a request at this node now.

    Args:
        grant: As shown by the device.
        statement: As shown by the device.
        coordinator: Public token key of the coordinator.
        node: The node that was asked.
        now_ms: Its wall clock; 120 s of skew are allowed.

    Raises:
        ProtocolError: One of them is malformed.
        BadSignatureError: One of them is not signed by whom it must be.
        AccessDeniedError: Expired, for another node, beyond the grant.
    """
    skew_ms = limits.CLOCK_SKEW_S_MAX * 1000
    given = open_signed(grant, Grant, coordinator)
    asked = open_signed(statement, Statement, given.device)
    if asked.grant != given.id or asked.operation not in given.operations:
        raise AccessDeniedError("the statement goes beyond its grant")
    if not given.not_before_ms - skew_ms <= now_ms <= given.expires_ms + skew_ms:
        raise AccessDeniedError("the grant has expired")
    if abs(asked.time_ms - now_ms) > limits.GRANT_S_MAX * 1000 + skew_ms:
        raise AccessDeniedError("the statement has expired")
    if node not in asked.nodes or len(asked.nodes) > limits.PLACEMENT_NODES_MAX:
        raise AccessDeniedError("the statement is for other nodes")
    if not 0 < asked.count <= limits.BATCH_CHUNKS_MAX or not 0 <= asked.bytes <= limits.BATCH_BYTES_MAX:
        raise AccessDeniedError("the statement is for too large a batch")
    return given, asked


def grant_device(grant: Grant) -> DeviceId:
    """Return the id of the device that a grant is for."""
    return device_id(grant.device)
