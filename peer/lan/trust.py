"""TLS between devices: version 1.3 alone, both certificates self-signed, known beforehand and compared (security 3.12).

OpenSSL lets in who shows one of the certificates that were loaded and holds its key. What it decided is not relied upon
alone: the certificate's SHA-256 is looked up after the handshake. No session is ever resumed, since that would let a device
in again whose certificate no longer counts.
"""

from __future__ import annotations

import hashlib
import os
import ssl
from collections.abc import Iterable, Mapping
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from peer.core.keys import DeviceSecrets
from peer.core.lan import LanDevice
from protocol.errors import AccessDeniedError

_FILE_NAME: Final = "kinfolder-tls"


class Trust:
    """Who may connect, as TLS settings for both directions; made anew whenever that changes."""

    def __init__(self, secrets: DeviceSecrets, allowed: Mapping[bytes, LanDevice]) -> None:
        """Make the settings; takes a while with many devices, so call it in a thread.

        Args:
            secrets: This device's.
            allowed: Who may connect, by the SHA-256 of their certificates.
        """
        self.allowed = dict(allowed)
        certificates = [device.certificate for device in allowed.values()]
        self.server = _context(ssl.PROTOCOL_TLS_SERVER, secrets, certificates)
        self.server.num_tickets = 0
        self.client = _context(ssl.PROTOCOL_TLS_CLIENT, secrets, certificates)

    def identify(self, connection: ssl.SSLObject) -> LanDevice:
        """Return who is at the other end of a connection.

        Raises:
            AccessDeniedError: Nobody that may be.
        """
        certificate = connection.getpeercert(True)
        device = None if certificate is None else self.allowed.get(hashlib.sha256(certificate).digest())
        if device is None or connection.version() != "TLSv1.3":
            raise AccessDeniedError("a connection shows a certificate that no account's chain holds")
        return device


def _context(protocol: ssl._SSLMethod, secrets: DeviceSecrets, certificates: Iterable[bytes]) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False  # devices have no host names: the certificate itself is what is compared
    context.verify_mode = ssl.CERT_REQUIRED
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    _load_own(context, secrets)
    for certificate in certificates:
        try:
            context.load_verify_locations(cadata=certificate)
        except (ssl.SSLError, ValueError):
            continue  # whoever put that into its chain shuts out itself alone
    return context


def _load_own(context: ssl.SSLContext, secrets: DeviceSecrets) -> None:
    """Load certificate and key; ``ssl`` takes them from a file only, so from one that lies in memory and has no name."""
    certificate = x509.load_der_x509_certificate(secrets.certificate).public_bytes(Encoding.PEM)
    handle = os.memfd_create(_FILE_NAME, os.MFD_CLOEXEC)
    try:
        with open(handle, "wb", closefd=False) as file:
            file.write(secrets.tls_key_pem() + certificate)
        context.load_cert_chain(f"/proc/self/fd/{handle}")
    finally:
        os.close(handle)
