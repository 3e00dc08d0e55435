"""A device's certificate for the LAN: self-signed, the same for the same key, valid for ever (security 3.12).

The account chain alone says whether a device still counts, so the certificate says nothing of time or of the device's
name. Its subject differs for each key, since OpenSSL looks trusted certificates up by their subject.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from blake3 import blake3
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.x509.oid import NameOID

_FROM: Final = datetime(2020, 1, 1, tzinfo=UTC)
_UNTIL: Final = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)


def self_signed(seed: bytes) -> bytes:
    """Return the DER of the certificate of the Ed25519 key with this seed, strict enough for VERIFY_X509_STRICT."""
    key = Ed25519PrivateKey.from_private_bytes(seed)
    public = key.public_key()
    raw = public.public_bytes_raw()
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
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"kinfolder {blake3(raw).hexdigest(8)}")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(public)
        .serial_number(int.from_bytes(blake3(raw).digest(15), "big") + 1)
        .not_valid_before(_FROM)
        .not_valid_after(_UNTIL)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier(blake3(raw).digest(20)), critical=False)
        .sign(key, None)
    )
    return certificate.public_bytes(serialization.Encoding.DER)
