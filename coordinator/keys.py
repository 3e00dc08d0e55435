"""The coordinator's secrets on disk: what signs checkpoints and grants, what names folders to nodes, and its TLS certificate."""

from __future__ import annotations

import datetime as dt
import hashlib
import os
import ssl
from ipaddress import ip_address
from typing import Final

import msgspec
from blake3 import blake3
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from protocol.codec import decode, encode
from protocol.effects import Entropy
from protocol.errors import CorruptStateError, KinfolderError, UserError
from protocol.ids import FolderId, Pseudonym
from protocol.signing import public_key

KEYS_FILE: Final = "server.keys"
CERTIFICATE_FILE: Final = "certificate.pem"
CERTIFICATE_KEY_FILE: Final = "certificate.key"
_P256_ORDER: Final = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


class ServerKeys(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The secrets that make this coordinator the one that its clients know."""

    version: int
    log_seed: bytes
    """Signs checkpoints: the server's identity."""
    token_seed: bytes
    """Signs grants."""
    pseudonym_key: bytes
    """Names folders to storage nodes; derived, so that a lost database names them alike."""

    def __repr__(self) -> str:
        """Show no secret."""
        return "ServerKeys(...)"

    def log_public(self) -> bytes:
        """Return the public key that verifies checkpoints."""
        return public_key(self.log_seed)

    def token_public(self) -> bytes:
        """Return the public key that verifies grants."""
        return public_key(self.token_seed)

    def pseudonym(self, folder: FolderId) -> Pseudonym:
        """Return the name under which storage nodes know a folder."""
        return Pseudonym(blake3(b"kinfolder/pseudonym/v1\x00" + folder, key=self.pseudonym_key).digest()[:16])


def new_keys(entropy: Entropy) -> ServerKeys:
    """Draw the secrets of a new coordinator."""
    return ServerKeys(1, entropy(32), entropy(32), entropy(32))


def write_private(path: str, data: bytes) -> None:
    """Write a file of mode 0600 as a whole and durably, in place of any before it."""
    temporary = path + ".new"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.rename(temporary, path)
    directory = os.open(os.path.dirname(path) or ".", os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def load_keys(directory: str, entropy: Entropy, *, may_create: bool) -> ServerKeys:
    """Return the secrets kept in a data directory; draw them at the first start.

    Raises:
        CorruptStateError: The file is damaged, or it is gone while the database is there.
    """
    path = os.path.join(directory, KEYS_FILE)
    try:
        with open(path, "rb") as file:
            data = file.read(4096)
    except FileNotFoundError:
        if not may_create:
            raise CorruptStateError(
                f"{path} is missing: bring it back from a backup, clients know this server by it"
            ) from None
        keys = new_keys(entropy)
        write_private(path, encode(keys))
        return keys
    try:
        keys = decode(data, ServerKeys, bytes_max=4096)
    except KinfolderError as error:
        raise CorruptStateError(f"{path} is damaged") from error
    return keys


def _alternative_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(host.strip("[]")))
    except ValueError:
        return x509.DNSName(host)


def load_certificate(directory: str, host: str, entropy: Entropy, now_ms: int) -> tuple[ssl.SSLContext, bytes]:
    """Return the TLS settings and the SHA-256 of the certificate kept in a data directory; make one at the first start.

    The certificate is self-signed over an ECDSA P-256 key and valid for ever: clients pin it. A pair of files put there by
    a person (``certificate.pem``, ``certificate.key``) is used as it is.
    """
    certificate_path = os.path.join(directory, CERTIFICATE_FILE)
    key_path = os.path.join(directory, CERTIFICATE_KEY_FILE)
    if not os.path.exists(certificate_path) or not os.path.exists(key_path):
        key_pem, certificate_pem = _make_certificate(host, entropy, now_ms)
        write_private(key_path, key_pem)
        write_private(certificate_path, certificate_pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    try:
        context.load_cert_chain(certificate_path, key_path)
        with open(certificate_path, encoding="ascii") as file:
            der = ssl.PEM_cert_to_DER_cert(_first_certificate(file.read()))
    except (ssl.SSLError, ValueError, OSError) as error:
        raise UserError(f"{certificate_path} and {key_path} are no certificate and its key") from error
    return context, hashlib.sha256(der).digest()


def _first_certificate(pem: str) -> str:
    end = "-----END CERTIFICATE-----"
    head, mark, _ = pem.partition(end)
    return head + mark


def _make_certificate(host: str, entropy: Entropy, now_ms: int) -> tuple[bytes, bytes]:
    secret = 1 + int.from_bytes(entropy(48), "big") % (_P256_ORDER - 1)
    key = ec.derive_private_key(secret, ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Kinfolder coordinator")])
    start = dt.datetime.fromtimestamp(now_ms / 1000, dt.UTC) - dt.timedelta(days=1)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1 + int.from_bytes(entropy(16), "big") % (1 << 126))
        .not_valid_before(start)
        .not_valid_after(dt.datetime(9999, 12, 31, 23, 59, 59, tzinfo=dt.UTC))
        .add_extension(x509.SubjectAlternativeName([_alternative_name(host)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    key_pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return key_pem, certificate.public_bytes(serialization.Encoding.PEM)
