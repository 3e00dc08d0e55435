"""Ed25519 as a simulated run computes it: what a signature or a key comes to, once in a process.

The machines of a world are one process, and each of them checks what any of them signed. Whether a signature holds
depends on nothing but its bytes, the key and what it covers: who asks again is told again.

Rule 1: nothing is taken for signed that libsodium has not signed or checked; what does not hold is checked each time.
Rule 2: memory is bounded, and outlives a run.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, Final

from nacl.signing import SignedMessage, SigningKey, VerifyKey

from protocol import signing

HELD_MAX: Final = 8_192
KEYS_MAX: Final = 256

_held: Final[dict[tuple[bytes, bytes, bytes], None]] = {}
"""Public keys, what they signed, and the signatures."""
_signed: Final[dict[tuple[bytes, bytes], SignedMessage]] = {}
"""What was signed, by seed and message: a signature is always the same."""


def _remember(held: tuple[bytes, bytes, bytes]) -> None:
    if len(_held) >= HELD_MAX:
        del _held[next(iter(_held))]
    _held[held] = None


class _Signer(SigningKey):
    """A key that remembers what it signed: that holds."""

    def sign(self, message: bytes, *_: object) -> SignedMessage:
        asked = bytes(self), message
        signed = _signed.get(asked)
        if signed is None:
            if len(_signed) >= HELD_MAX:
                _signed.clear()
            signed = _signed[asked] = super().sign(message)
            _remember((self.verify_key.encode(), message, signed.signature))
        return signed


class _Verifier:
    """A :class:`nacl.signing.VerifyKey`, as far as :mod:`protocol.signing` uses it."""

    __slots__ = ("_key",)

    def __init__(self, key: bytes) -> None:
        self._key = bytes(key)

    def verify(self, message: bytes, signature: bytes) -> None:
        held = self._key, message, bytes(signature)
        if held not in _held:
            VerifyKey(self._key).verify(message, held[2])
            _remember(held)


_signer: Final = lru_cache(KEYS_MAX)(_Signer)


@contextmanager
def remembered() -> Iterator[None]:
    """Compute each signature and key once, as long as this lasts."""
    doors: Any = signing
    before = doors.VerifyKey, doors.SigningKey
    doors.VerifyKey, doors.SigningKey = _Verifier, _signer
    try:
        yield
    finally:
        doors.VerifyKey, doors.SigningKey = before
