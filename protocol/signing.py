r"""Ed25519 signatures over typed bytes (security 3.1).

Every signature covers ``b"kinfolder/<type>/v1\\0" || BLAKE3(exact bytes)``, so none can stand for another type.
One verifier everywhere: libsodium.
"""

from __future__ import annotations

from typing import Final

from blake3 import blake3
from nacl.exceptions import BadSignatureError as _NaclBadSignature
from nacl.signing import SigningKey, VerifyKey

from protocol.errors import BadSignatureError

SIGNATURE_BYTES: Final = 64
PUBLIC_KEY_BYTES: Final = 32


def _covered(kind: str, data: bytes) -> bytes:
    return b"kinfolder/" + kind.encode() + b"/v1\x00" + blake3(data).digest()


def sign(kind: str, data: bytes, seed: bytes) -> bytes:
    """Return the 64-byte signature of ``data`` as a ``kind`` by the Ed25519 key of this 32-byte seed."""
    return bytes(SigningKey(seed).sign(_covered(kind, data)).signature)


def verify(kind: str, data: bytes, signature: bytes, public: bytes) -> None:
    """Check a signature made by :func:`sign`.

    Raises:
        BadSignatureError: It does not fit, or the key or the signature is malformed.
    """
    try:
        VerifyKey(public).verify(_covered(kind, data), signature)
    except (_NaclBadSignature, ValueError, TypeError) as error:
        raise BadSignatureError(f"the signature of a {kind} does not hold") from error


def public_key(seed: bytes) -> bytes:
    """Return the 32-byte public key of a signing seed."""
    return bytes(SigningKey(seed).verify_key)
