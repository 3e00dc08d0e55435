"""Contents that prove themselves: the bytes of a token, and which contents the steps of a case made.

A content is its token, a newline, filler that does not compress, and the SHA-256 of all that in hexadecimal.
"""

from __future__ import annotations

import hashlib
import math
import random
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any, Final, NamedTuple

from blake3 import blake3

from simulations.cases.grammar import KIB, MIB, Skipped
from simulations.cases.hands import OpenFile

DEFAULT_BYTES: Final = KIB
_HASH_CHARACTERS: Final = 64
_LOGNORMAL_BYTES_MAX: Final = 100 * MIB


def pieces(token: str, size: int = DEFAULT_BYTES) -> Iterator[bytes]:
    """Yield the bytes of a content, at most 1 MiB at once; never shorter than without filler."""
    head = token.encode("utf-8", "surrogateescape") + b"\n"
    hashing = hashlib.sha256(head)
    yield head
    left = max(0, size - len(head) - _HASH_CHARACTERS)
    filler = random.Random(f"{token}:{size}")
    while left:
        piece = filler.randbytes(min(left, MIB))
        hashing.update(piece)
        yield piece
        left -= len(piece)
    yield hashing.hexdigest().encode()


@lru_cache(4096)
def _small(token: str, size: int) -> bytes:
    return b"".join(pieces(token, size))


def content(token: str, size: int = DEFAULT_BYTES) -> bytes:
    """Return the bytes of a content at once."""
    if size <= DEFAULT_BYTES:
        return _small(token, size)
    return b"".join(pieces(token, size))


def digest_of(data: bytes) -> str:
    """Return what contents are compared by."""
    return blake3(data).hexdigest()


class Origin(NamedTuple):
    """Where a step wrote a content."""

    device: str
    path: str


class Contents:
    """Which whole contents the steps of one run left, by token."""

    def __init__(self) -> None:
        self._digests: dict[str, set[str]] = defaultdict(set)
        self._sizes: dict[str, int] = {}
        self.origins: dict[str, list[Origin]] = defaultdict(list)
        """By token, in the order of writing."""
        self.blocks: dict[str, list[str]] = defaultdict(list)
        """Tokens of the blocks appended to a path name, in their order."""
        self.written_over: set[str] = set()
        """Digests that lay in conflict copies into which a step wrote."""

    def note(self, token: str, digest: str, origin: Origin, size: int | None = None) -> None:
        """Remember a whole content that a step left; ``size`` if it is the token's own."""
        self._digests[token].add(digest)
        self.origins[token].append(origin)
        if size is not None:
            self._sizes[token] = size

    @property
    def whole(self) -> set[str]:
        """The digests of all whole contents."""
        return set().union(*self._digests.values())

    def digests(self, token: str) -> set[str]:
        """Return the digests that stand for a token, or for ``a+b+c``.

        Raises:
            Skipped: No step wrote it.
        """
        if token in self._digests:
            return self._digests[token]
        first, *blocks = token.split("+")
        if not blocks or first not in self._sizes:
            raise Skipped(f"no step wrote {token}")
        data = content(first, self._sizes[first]) + b"".join(content(block) for block in blocks)
        return {digest_of(data)}


def drawn_size(value: object, rnd: random.Random, size_of: Callable[[Any], int]) -> int:
    """Return a size in bytes, drawn anew for ``lognormal(M,S)``: 10 to the power of a normal variate."""
    text = str(value)
    if not text.startswith("lognormal("):
        return size_of(value)
    mean, deviation = (float(part) for part in text[len("lognormal(") : -1].split(","))
    return min(_LOGNORMAL_BYTES_MAX, int(math.pow(10, rnd.normalvariate(mean, deviation))))


def write_to(file: OpenFile, token: str, size: int) -> str:
    """Write a content at the end of an open file, and return its digest."""
    if size <= MIB:
        data = content(token, size)
        file.write(data)
        return digest_of(data)
    hashing = blake3()
    for piece in pieces(token, size):
        hashing.update(piece)
        file.write(piece)
    return hashing.hexdigest()
