"""The ordered log as devices see it: items, the hash chain J, signed checkpoints, void records (security 3.9)."""

from __future__ import annotations

from enum import IntEnum
from typing import Final

import msgspec
from blake3 import blake3

from protocol.codec import encode
from protocol.errors import ProtocolError
from protocol.ids import EntryHash, FolderId, LinkHash
from protocol.signing import sign, verify

CHAIN_START: Final = bytes(32)
"""J before the first item of generation 0."""
NUMBER_MAX: Final = (1 << 63) - 1
"""The largest position, generation or time: what a database holds."""


class ItemKind(IntEnum):
    """What stands at a position of the log."""

    ENTRY = 1
    CONTROL = 2
    VOID = 3


class VoidReason(IntEnum):
    """Why an entry can never be ordered."""

    REPLACED = 1
    """Its author replaced it, for instance since its bytes changed before they were uploaded."""
    AUTHOR_REMOVED = 2
    PRECONDITION = 3
    REPLACED_WAS_ORDERED = 4
    """It replaces an entry that was ordered first: its author plans anew."""
    NEEDS_VOID = 5
    """It builds on an entry that became void without a replacement."""
    CONTENTS_LOST = 6
    """Its author lost what it had not sent, and nobody holds it."""


class VoidRecord(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Says that a registered entry will never be ordered; it takes a position of its own."""

    folder: FolderId
    entry: EntryHash
    reason: VoidReason
    replaced_by: EntryHash | None


class LogItem(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One position of a folder's log."""

    position: int
    kind: ItemKind
    time_ms: int
    """When the coordinator received it."""
    data: bytes
    """An entry (:func:`protocol.entries.parse_entry`), an encoded SignedLink, or an encoded VoidRecord."""


def _check_numbers(what: str, *numbers: int) -> None:
    if not all(0 <= number <= NUMBER_MAX for number in numbers):
        raise ProtocolError(f"{what} has a number that is out of range")


def check_item(item: LogItem) -> None:
    """Check the numbers of an item from outside.

    Raises:
        ProtocolError: One is negative or larger than any position or time.
    """
    _check_numbers("an item of the log", item.position, item.time_ms)


def next_chain(chain: bytes, kind: ItemKind, item_hash: bytes, time_ms: int) -> bytes:
    """Return J_n = BLAKE3(J_{n-1} || kind || item hash || receive time).

    ``item_hash`` is the entry's hash, the link's hash, or the BLAKE3 of the encoded void record.

    Raises:
        ProtocolError: The time is out of range.
    """
    _check_numbers("an item of the log", time_ms)
    return blake3(chain + bytes([kind]) + item_hash + time_ms.to_bytes(8, "big")).digest()


class Checkpoint(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The coordinator's statement of a folder's head."""

    generation: int
    folder: FolderId
    position: int
    chain: bytes
    control_head: LinkHash
    time_ms: int


class SignedCheckpoint(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A checkpoint with the signature of the coordinator's log key (kind ``checkpoint``)."""

    checkpoint: Checkpoint
    signature: bytes


def check_checkpoint(checkpoint: Checkpoint) -> None:
    """Check the numbers of a checkpoint from outside.

    Raises:
        ProtocolError: One is negative or larger than any position or time.
    """
    _check_numbers("a checkpoint", checkpoint.generation, checkpoint.position, checkpoint.time_ms)


def sign_checkpoint(checkpoint: Checkpoint, seed: bytes) -> SignedCheckpoint:
    """Sign a checkpoint with the coordinator's log key."""
    return SignedCheckpoint(checkpoint, sign("checkpoint", encode(checkpoint), seed))


def verify_checkpoint(signed: SignedCheckpoint, server: bytes) -> Checkpoint:
    """Return the checkpoint if the coordinator with the public log key ``server`` signed it.

    Raises:
        BadSignatureError: It did not.
        ProtocolError: It did, and a number is out of range.
    """
    verify("checkpoint", encode(signed.checkpoint), signed.signature, server)
    check_checkpoint(signed.checkpoint)
    return signed.checkpoint
