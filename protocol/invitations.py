"""Where a coordinator is and what lets one in: its URL, and invitations that carry it.

An invitation is one word for people to copy: ``kin+wss://host:port/#token.fingerprint``, or ``kin+ws://host:port/#token`` on
loopback. The fingerprint is the hex SHA-256 of the DER certificate that the coordinator's TLS shows; it is left out where
the system trusts that certificate. What follows "#" never travels to a server as part of a URL.

Rule 1: one normal form of a URL, ``scheme://host:port`` with the port always written, so both ends sign the same origin.
Rule 2: no text of an error repeats a token.
"""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final, NamedTuple

from protocol.errors import EXIT_USAGE, UserError

FINGERPRINT_BYTES: Final = 32
_PORTS: Final = {"ws": 80, "wss": 443}
_URL = re.compile(
    r"(?P<scheme>wss?)://(?:\[(?P<v6>[0-9A-Fa-f:.]{2,45})\]|(?P<host>[A-Za-z0-9_.-]{1,253}))(?::(?P<port>[0-9]{1,5}))?/?"
)
_FRAGMENT = re.compile(r"(?P<token>[A-Za-z0-9_-]{0,128})(?:\.(?P<fingerprint>[0-9A-Fa-f]{64}))?")
_PREFIX: Final = "kin+"


class Invitation(NamedTuple):
    """What an invitation says."""

    url: str
    """The coordinator's URL in normal form."""
    token: str
    """Empty where registration is open."""
    fingerprint: bytes | None
    """SHA-256 of the coordinator's certificate (DER); None: the system judges it, or there is no TLS."""


def is_loopback(host: str) -> bool:
    """Whether a host of a URL (IPv6 with or without brackets) is this machine."""
    try:
        address: IPv4Address | IPv6Address = ip_address(host.strip("[]"))
    except ValueError:
        return host.lower() == "localhost"
    return address.is_loopback


def coordinator_url(text: str) -> str:
    """Return a coordinator's URL in normal form: it is also the origin that a login signs.

    Raises:
        UserError: It is none, or it is ``ws://`` to another machine.
    """
    match = _URL.fullmatch(text)
    if match is None:
        raise UserError(
            f"{_shown(text)} is no coordinator URL (ws://127.0.0.1:PORT or wss://HOST:PORT)", exit_code=EXIT_USAGE
        )
    scheme = match["scheme"]
    host = match["host"].lower() if match["v6"] is None else _ipv6(match["v6"])
    port = _PORTS[scheme] if match["port"] is None else int(match["port"])
    if not 0 < port < 1 << 16:
        raise UserError(f"{port} is no port", exit_code=EXIT_USAGE)
    if scheme == "ws" and not is_loopback(host):
        raise UserError(f"ws:// is for this machine alone; use wss://{host}:{port}", exit_code=EXIT_USAGE)
    return f"{scheme}://{host}:{port}"


def is_invitation(text: str) -> bool:
    """Whether a word given as ``--invite`` is a whole invitation and not a token alone."""
    return text.startswith(_PREFIX)


def parse_invitation(text: str) -> Invitation:
    """Return what an invitation says.

    Raises:
        UserError: It is none; the text does not repeat it.
    """
    url, hash_sign, fragment = text.strip().removeprefix(_PREFIX).partition("#")
    match = _FRAGMENT.fullmatch(fragment)
    if not is_invitation(text.strip()) or not hash_sign or match is None:
        raise UserError("this is no invitation (kin+wss://HOST:PORT/#TOKEN.FINGERPRINT)", exit_code=EXIT_USAGE)
    normal = coordinator_url(url)
    fingerprint = None if match["fingerprint"] is None else bytes.fromhex(match["fingerprint"])
    if fingerprint is not None and normal.startswith("ws://"):
        raise UserError("an invitation with ws:// has no certificate to name", exit_code=EXIT_USAGE)
    return Invitation(normal, match["token"], fingerprint)


def format_invitation(invitation: Invitation) -> str:
    """Return the one word of an invitation; :func:`parse_invitation` reads it back.

    Raises:
        UserError: A part of it cannot be written so.
    """
    pin = "" if invitation.fingerprint is None else "." + invitation.fingerprint.hex()
    text = f"{_PREFIX}{coordinator_url(invitation.url)}/#{invitation.token}{pin}"
    parse_invitation(text)
    return text


def _ipv6(text: str) -> str:
    try:
        return f"[{IPv6Address(text)}]"
    except ValueError:
        raise UserError(f"[{text}] is no address", exit_code=EXIT_USAGE) from None


def _shown(text: str) -> str:
    """Return what may be repeated of a wrong URL: nothing of one that may carry a secret."""
    return "this" if "#" in text or "@" in text else repr(text[:80])
