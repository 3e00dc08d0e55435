"""Bytes to typed structs and back, strictly (security 4.4).

Rule 1: MessagePack arrays in the order of the fields; a tagged struct starts with its tag.
Rule 2: a decoder encodes again what it decoded; other bytes than received are refused, so each value has one encoding.
Rule 3: only ProtocolError leaves this module for bytes from outside.
"""

from __future__ import annotations

from functools import cache
from typing import Any, TypeVar

import msgspec

from protocol.errors import LimitExceededError, ProtocolError

T = TypeVar("T")

_encoder = msgspec.msgpack.Encoder()


@cache
def _decoder(kind: Any) -> msgspec.msgpack.Decoder[Any]:
    return msgspec.msgpack.Decoder(kind)


def encode(value: object) -> bytes:
    """Return the one encoding of a struct of this package."""
    return _encoder.encode(value)


def decode(data: bytes | memoryview, kind: type[T] | Any, *, bytes_max: int, what: str = "message") -> T:
    """Return the value of type ``kind`` that ``data`` encodes.

    Args:
        data: What was received.
        kind: A struct type, or a union of tagged ones.
        bytes_max: Longer input is refused before it is parsed.
        what: Names the thing in the error's text.

    Raises:
        LimitExceededError: ``data`` is longer than ``bytes_max``.
        ProtocolError: ``data`` is not the canonical encoding of such a value.
    """
    if len(data) > bytes_max:
        raise LimitExceededError(what, bytes_max)
    try:
        value = _decoder(kind).decode(data)  # type: ignore[arg-type]  # types and unions of types are hashable
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, OverflowError, ValueError) as error:
        raise ProtocolError(f"{what} cannot be parsed: {type(error).__name__}") from error
    if _encoder.encode(value) != bytes(data):
        raise ProtocolError(f"{what} is not in canonical form")
    return value  # type: ignore[no-any-return]  # the decoder was made for this type
