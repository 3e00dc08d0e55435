"""Who this node is and whom it trusts: one file of its data directory, written whole or not at all."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Protocol

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from protocol.effects import Entropy
from protocol.errors import CorruptStateError
from protocol.ids import StorageNodeId, storage_node_id
from protocol.signing import public_key

FILE_NAME: Final = "node.json"
_SEED_BYTES: Final = 32


class Coordinator(msgspec.Struct, frozen=True):
    """The coordinator that admitted this node; its keys are pinned for ever."""

    url: str
    log_key: bytes
    token_key: bytes
    certificate_sha256: bytes | None
    """None: the system judges its certificate, or there is no TLS."""


class Identity(msgspec.Struct, frozen=True):
    """The node's keys and what it pinned; JSON, bytes in base64."""

    sign_seed: bytes
    tls_seed: bytes
    certificate: bytes
    """DER, self-signed by the key of ``tls_seed``."""
    coordinator: Coordinator | None

    def __repr__(self) -> str:
        """Show no secret."""
        return f"Identity({self.node.hex()[:8]})"

    @property
    def sign_public(self) -> bytes:
        """The Ed25519 key that signs receipts."""
        return public_key(self.sign_seed)

    @property
    def node(self) -> StorageNodeId:
        """The node's id."""
        return storage_node_id(self.sign_public)


class IdentityStore(Protocol):
    """The door to where a node's identity is kept."""

    def load(self) -> Identity | None:
        """Return it; None if there is none yet.

        Raises:
            CorruptStateError: It cannot be read.
        """

    def save(self, identity: Identity, /) -> None:
        """Keep it, durably, in place of the one before; blocks."""


class IdentityFile:
    """The real door: one file of a data directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def load(self) -> Identity | None:
        """Return the identity in the directory."""
        return load_identity(self._directory)

    def save(self, identity: Identity, /) -> None:
        """Write it."""
        save_identity(self._directory, identity)


def make_identity(entropy: Entropy) -> Identity:
    """Return a new node."""
    tls_seed = entropy(_SEED_BYTES)
    return Identity(entropy(_SEED_BYTES), tls_seed, make_certificate(tls_seed, entropy), None)


def make_certificate(seed: bytes, entropy: Entropy) -> bytes:
    """Return a self-signed certificate (DER) that is valid for ever: it is pinned, so nothing in it says who it is.

    It carries what ``VERIFY_X509_STRICT`` asks of a trust anchor (RFC 5280, 4.2.1).
    """
    key = Ed25519PrivateKey.from_private_bytes(seed)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "kinfolder storage node")])
    usage = x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(int.from_bytes(entropy(16), "big") >> 1 or 1)
        .not_valid_before(datetime(2000, 1, 1, tzinfo=UTC))
        .not_valid_after(datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, None)
    )
    return certificate.public_bytes(Encoding.DER)


def private_key_pem(seed: bytes) -> bytes:
    """Return the key of a certificate as OpenSSL wants to load it."""
    return Ed25519PrivateKey.from_private_bytes(seed).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def load_identity(directory: Path) -> Identity | None:
    """Return the identity in a data directory; None if it has none yet.

    Raises:
        CorruptStateError: The file cannot be read.
    """
    try:
        data = (directory / FILE_NAME).read_bytes()
    except FileNotFoundError:
        return None
    try:
        return msgspec.json.decode(data, type=Identity)
    except msgspec.MsgspecError as error:
        raise CorruptStateError(f"{FILE_NAME} in the data directory is damaged") from error


def save_identity(directory: Path, identity: Identity) -> None:
    """Write the identity, durably and readable by its owner only."""
    temporary = directory / (FILE_NAME + ".new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        os.write(descriptor, msgspec.json.format(msgspec.json.encode(identity)))
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    temporary.replace(directory / FILE_NAME)
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
