"""HPKE, base mode: seal a key to a public key (RFC 9180; X25519, HKDF-SHA256, AES-256-GCM).

Sealed: the encapsulated key (32 bytes) followed by the ciphertext. :class:`Hpke` is the door that the core uses;
the agent's own stands in :mod:`peer.hpke`, and draws its ephemeral keys itself. :class:`EphemeralHpke` takes them
from an Entropy, so that a simulated world repeats; both are held to the RFC's vectors.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Final, Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from protocol.effects import Entropy
from protocol.errors import ProtocolError, SecurityError

_KEM_ID: Final = 0x0020
_KDF_ID: Final = 0x0001
_AES_256_GCM: Final = 0x0002
_KEY_BYTES: Final = {0x0001: 16, _AES_256_GCM: 32}
_NONCE_BYTES: Final = 12
ENCAPSULATED_BYTES: Final = 32


class Hpke(Protocol):
    """Seals to an X25519 key and opens with it; ``info`` says what for, and must be the same on both sides."""

    def seal(self, public: bytes, info: bytes, plaintext: bytes) -> bytes:
        """Seal to a public key; ProtocolError if that is no usable key."""

    def open(self, secret: bytes, info: bytes, sealed: bytes) -> bytes:
        """Open with a secret key; SecurityError, always the same, if it cannot be opened."""


class EphemeralHpke:
    """HPKE with ephemeral keys from an Entropy.

    Args:
        entropy: Gives 32 bytes for each sealing.
        aead: The AEAD's number; the RFC's vectors know AES-128-GCM (1) too.
    """

    def __init__(self, entropy: Entropy, *, aead: int = _AES_256_GCM) -> None:
        self._entropy = entropy
        self._aead = aead

    def seal(self, public: bytes, info: bytes, plaintext: bytes) -> bytes:
        """Seal to a public key (RFC 9180 section 6.1, SealBase with an empty aad)."""
        ephemeral = X25519PrivateKey.from_private_bytes(self._entropy(32))
        encapsulated = ephemeral.public_key().public_bytes_raw()
        try:
            shared = ephemeral.exchange(X25519PublicKey.from_public_bytes(public))
        except ValueError as error:
            raise ProtocolError("a key is no usable X25519 key") from error
        key, nonce = self._schedule(shared, encapsulated + public, info)
        return encapsulated + AESGCM(key).encrypt(nonce, plaintext, b"")

    def open(self, secret: bytes, info: bytes, sealed: bytes) -> bytes:
        """Open with a secret key (RFC 9180 section 6.1, OpenBase with an empty aad)."""
        encapsulated = sealed[:ENCAPSULATED_BYTES]
        try:
            own = X25519PrivateKey.from_private_bytes(secret)
            shared = own.exchange(X25519PublicKey.from_public_bytes(encapsulated))
            key, nonce = self._schedule(shared, encapsulated + own.public_key().public_bytes_raw(), info)
            return AESGCM(key).decrypt(nonce, sealed[ENCAPSULATED_BYTES:], b"")
        except (ValueError, InvalidTag):
            raise SecurityError("a sealed key cannot be opened") from None

    def _schedule(self, shared: bytes, kem_context: bytes, info: bytes) -> tuple[bytes, bytes]:
        """Return (key, nonce) of the first message (RFC 9180 sections 4.1 and 5.1)."""
        kem = b"KEM" + _KEM_ID.to_bytes(2, "big")
        prk = _extract(kem, b"", b"eae_prk", shared)
        secret = _expand(kem, prk, b"shared_secret", kem_context, 32)
        suite = b"HPKE" + b"".join(id.to_bytes(2, "big") for id in (_KEM_ID, _KDF_ID, self._aead))
        context = b"\x00" + _extract(suite, b"", b"psk_id_hash", b"") + _extract(suite, b"", b"info_hash", info)
        prk = _extract(suite, secret, b"secret", b"")
        key = _expand(suite, prk, b"key", context, _KEY_BYTES[self._aead])
        return key, _expand(suite, prk, b"base_nonce", context, _NONCE_BYTES)


def _extract(suite: bytes, salt: bytes, label: bytes, ikm: bytes) -> bytes:
    return hmac.digest(salt, b"HPKE-v1" + suite + label + ikm, "sha256")


def _expand(suite: bytes, prk: bytes, label: bytes, info: bytes, length: int) -> bytes:
    # One block of HKDF-SHA256 is enough: nothing here is longer than 32 bytes.
    assert length <= hashlib.sha256().digest_size
    labelled = length.to_bytes(2, "big") + b"HPKE-v1" + suite + label + info
    return hmac.digest(prk, labelled + b"\x01", "sha256")[:length]
