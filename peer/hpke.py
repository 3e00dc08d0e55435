"""The agent's door to HPKE: the cryptography library's own, which draws its ephemeral keys itself."""

from __future__ import annotations

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hpke
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from protocol.errors import ProtocolError, SecurityError

_SUITE = hpke.Suite(hpke.KEM.X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_256_GCM)


class LibraryHpke:
    """HPKE as :class:`peer.core.hpke.Hpke` asks for it."""

    def seal(self, public: bytes, info: bytes, plaintext: bytes) -> bytes:
        """Seal to a public key; ProtocolError if that is no usable key."""
        try:
            return _SUITE.encrypt(plaintext, X25519PublicKey.from_public_bytes(public), info)
        except ValueError as error:
            raise ProtocolError("a key is no usable X25519 key") from error

    def open(self, secret: bytes, info: bytes, sealed: bytes) -> bytes:
        """Open with a secret key; SecurityError, always the same, if it cannot be opened."""
        try:
            return _SUITE.decrypt(sealed, X25519PrivateKey.from_private_bytes(secret), info)
        except (ValueError, InvalidTag):
            raise SecurityError("a sealed key cannot be opened") from None
