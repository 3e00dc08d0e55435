"""Contents that prove themselves: each names the action that wrote it, and ends in a hash of all before it.

Rule 1: no two actions write the same bytes, unless they are meant to.
"""

from __future__ import annotations

from hashlib import blake2b
from random import Random
from typing import Final

CANARY: Final = b"kiwi-"
"""Stands in every content and in every name: where it is found outside a device, something leaks."""
_CHECK_BYTES: Final = 8
_LINE_BYTES_MAX: Final = 60
SIZES: Final = (0, 1, 40, 700, 4_096, 30_000)
"""Bytes of filler."""
LARGE: Final = 700_000
"""More than one chunk."""


def content(token: int, size: int) -> bytes:
    """Return the bytes of a token: a line that names it, filler that does not compress, and a hash."""
    head = b"%s%d\n" % (CANARY, token)
    return sealed(head + Random(token).randbytes(size))


def sealed(data: bytes) -> bytes:
    """Return bytes with the hash that proves them."""
    return b"%s\n%s\n" % (data, _check(data))


def block(token: int) -> bytes:
    """Return what an action adds to a file, or puts in the place of as many bytes: always as long."""
    return (b"%s+%d " % (CANARY, token)).ljust(_LINE_BYTES_MAX - 1, b".") + b"\n"


def text(token: int, lines: int) -> bytes:
    """Return a text of so many lines, each of its own."""
    return b"".join(b"%s%d line %d\n" % (CANARY, token, number) for number in range(lines))


def with_line(data: bytes, token: int, place: float) -> bytes:
    """Return a text with one line changed.

    Args:
        data: The text before.
        token: Of the action.
        place: Where, from 0 to 1.
    """
    lines = data.splitlines(keepends=True) or [b"\n"]
    at = min(int(place * len(lines)), len(lines) - 1)
    lines[at] = b"%s%d changed line\n" % (CANARY, token)
    return b"".join(lines)


def about(data: bytes) -> str:
    """Return in words what bytes are: the tokens in them, and whether their hash fits."""
    tokens = [piece.split(b"\n", 1)[0][:12].decode(errors="replace") for piece in data.split(CANARY)[1:][:6]]
    body, _, check = data.removesuffix(b"\n").rpartition(b"\n")
    proven = "whole" if check == _check(body) else "no hash that fits"
    return f"{len(data)} bytes, tokens {tokens or 'none'}, {proven}"


def _check(data: bytes) -> bytes:
    return blake2b(data, digest_size=_CHECK_BYTES).hexdigest().encode()
