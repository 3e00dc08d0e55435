"""What a storage node is told at its start: one frozen struct, checked before anything is touched."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import msgspec

from protocol import limits
from protocol.errors import EXIT_USAGE, UserError
from protocol.invitations import coordinator_url, is_invitation, is_loopback, parse_invitation

LIMIT_BYTES_MIN: Final = 1 * limits.MIB
_UNITS: Final = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40, "P": 2**50}
_SIZE = re.compile(r"([0-9]{1,15})([KMGTP]?)(?:i?B)?", re.IGNORECASE)
_LISTEN = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9_.-]+)):([0-9]{1,5})")
_URL = re.compile(r"(https?)://(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_.-]+)(?::[0-9]{1,5})?/?")
_ZONE = re.compile(r"[\w.-]{1,64}")


class Settings(msgspec.Struct, frozen=True):
    """How to run."""

    data: Path
    host: str
    port: int
    """0: any."""
    coordinator_url: str
    """In normal form; empty: the one that admitted this node."""
    token: str
    fingerprint: bytes | None
    advertise: str
    """Empty: where it listens."""
    zone: str
    """Empty: a zone of its own."""
    limit_bytes: int | None

    @property
    def is_tls(self) -> bool:
        """Whether clients reach it by https with its own certificate."""
        return not is_loopback(self.host)


def parse_size(text: str) -> int:
    """Return a size in bytes: ``500G``, ``1.5`` is none; K, M, G, T, P are powers of 1024.

    Raises:
        UserError: It is none.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise UserError(f"{text!r} is no size (500G, 20T)", exit_code=EXIT_USAGE)
    return int(match[1]) * _UNITS[match[2].upper()]


def parse_listen(text: str) -> tuple[str, int]:
    """Return host and port.

    Raises:
        UserError: It is no HOST:PORT.
    """
    match = _LISTEN.fullmatch(text)
    if match is None or int(match[3]) >= 1 << 16:
        raise UserError(f"{text!r} is no HOST:PORT", exit_code=EXIT_USAGE)
    return match[1] or match[2], int(match[3])


def make_settings(
    *,
    data: Path,
    listen: str,
    coordinator: str | None,
    invite: str | None,
    advertise: str | None,
    zone: str | None,
    limit: str | None,
    backend: str | None,
) -> Settings:
    """Return the settings that the options mean.

    Raises:
        UserError: An option cannot be, or is not in this version.
    """
    if backend is not None:
        raise UserError("--backend: not in this version", exit_code=EXIT_USAGE)
    host, port = parse_listen(listen)
    # One address, not two of them with different free ports.
    host = "127.0.0.1" if host.lower() == "localhost" else host
    token, fingerprint, url = invite or "", None, ""
    if invite is not None and is_invitation(invite.strip()):
        invitation = parse_invitation(invite)
        token, fingerprint, url = invitation.token, invitation.fingerprint, invitation.url
    if coordinator is not None:
        url = coordinator_url(coordinator)
    if advertise is not None:
        match = _URL.fullmatch(advertise)
        if match is None or (match[1] == "http" and not is_loopback(match[2])):
            raise UserError("--advertise: this is no https://HOST:PORT (http:// on loopback)", exit_code=EXIT_USAGE)
    if advertise is None and host in ("0.0.0.0", "::"):  # noqa: S104 - a comparison
        raise UserError(
            f"--advertise URL is needed with {host}: others must know where to find this node", exit_code=EXIT_USAGE
        )
    if zone is not None and _ZONE.fullmatch(zone) is None:
        raise UserError(f"--zone: {zone[:80]!r} is no name of a zone", exit_code=EXIT_USAGE)
    limit_bytes = None if limit is None else parse_size(limit)
    if limit_bytes is not None and limit_bytes < LIMIT_BYTES_MIN:
        raise UserError("--limit: at least 1M", exit_code=EXIT_USAGE)
    return Settings(
        data=data,
        host=host,
        port=port,
        coordinator_url=url,
        token=token,
        fingerprint=fingerprint,
        advertise=(advertise or "").rstrip("/"),
        zone=zone or "",
        limit_bytes=limit_bytes,
    )
