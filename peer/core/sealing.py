"""Keys from keys, and SEAL: authenticated, committing encryption of small objects (security 3.1, 3.8).

Sealed: ``version || suite || salt (32) || commitment (32) || AES-256-GCM``. Key and commitment come from the sealing
key and a fresh salt, so each key encrypts once, the nonce is always zero, and a ciphertext opens under one key only.

Rule 1: the commitment is checked, in constant time, before anything is decrypted.
Rule 2: whatever is wrong with a sealed object, the error is the same.
Rule 3: padding is zero and of one size for each length; anything else is refused.
"""

from __future__ import annotations

import hmac
from typing import Final, NoReturn

from blake3 import blake3
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from protocol.chunks import padme
from protocol.effects import Entropy
from protocol.errors import SecurityError

CONTEXT: Final = "kinfolder 2026-11 v1 "
NONCE: Final = bytes(12)
"""Every key of ours encrypts one message, so its nonce is a constant."""
SEAL_VERSION: Final = 1
SEAL_SUITE: Final = 1
SALT_BYTES: Final = 32
COMMITMENT_BYTES: Final = 32
SEAL_OVERHEAD_BYTES: Final = 2 + SALT_BYTES + COMMITMENT_BYTES + 16
SEAL_FLOOR_BYTES: Final = 256
"""Shorter plaintexts are padded to this, so that the length of a name does not show."""
_LENGTH_BYTES: Final = 4


def derive_key(purpose: str, material: bytes, length: int = 32) -> bytes:
    """Return ``length`` bytes for one purpose from key material of full entropy (BLAKE3 derive_key)."""
    return blake3(material, derive_key_context=CONTEXT + purpose).digest(length)


def _aad(purpose: str, aad: bytes) -> bytes:
    return purpose.encode() + b"\x00" + aad


def seal(
    purpose: str, key: bytes, aad: bytes, plaintext: bytes, entropy: Entropy, *, floor: int = SEAL_FLOOR_BYTES
) -> bytes:
    """Return ``plaintext`` sealed under ``key``.

    Args:
        purpose: What the object is; another purpose is another key.
        key: 32 bytes of full entropy.
        aad: Ids and headers that must be the same at opening.
        plaintext: Less than 4 GiB.
        entropy: Gives the salt.
        floor: The least padded size; the opener must name the same.
    """
    salt = entropy(SALT_BYTES)
    okm = derive_key(purpose, key + salt, 64)
    used = _LENGTH_BYTES + len(plaintext)
    padded = max(padme(used), floor)
    text = len(plaintext).to_bytes(_LENGTH_BYTES, "big") + plaintext + bytes(padded - used)
    sealed = AESGCM(okm[:32]).encrypt(NONCE, text, _aad(purpose, aad))
    return bytes((SEAL_VERSION, SEAL_SUITE)) + salt + okm[32:] + sealed


def open_sealed(purpose: str, key: bytes, aad: bytes, sealed: bytes, *, floor: int = SEAL_FLOOR_BYTES) -> bytes:
    """Return what :func:`seal` was given.

    Raises:
        SecurityError: Not sealed for this purpose under this key with this ``aad``, or damaged; always the same.
    """
    if len(sealed) < SEAL_OVERHEAD_BYTES + floor or sealed[0] != SEAL_VERSION or sealed[1] != SEAL_SUITE:
        _refuse()
    salt = sealed[2 : 2 + SALT_BYTES]
    commitment = sealed[2 + SALT_BYTES : 2 + SALT_BYTES + COMMITMENT_BYTES]
    okm = derive_key(purpose, key + salt, 64)
    if not hmac.compare_digest(okm[32:], commitment):
        _refuse()
    try:
        text = AESGCM(okm[:32]).decrypt(NONCE, sealed[2 + SALT_BYTES + COMMITMENT_BYTES :], _aad(purpose, aad))
    except InvalidTag:
        _refuse()
    end = _LENGTH_BYTES + int.from_bytes(text[:_LENGTH_BYTES], "big")
    if end > len(text) or len(text) != max(padme(end), floor) or any(text[end:]):
        _refuse()
    return text[_LENGTH_BYTES:end]


def _refuse() -> NoReturn:
    raise SecurityError("a sealed object cannot be opened") from None
