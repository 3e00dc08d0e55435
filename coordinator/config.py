"""What a coordinator is started with."""

from __future__ import annotations

from typing import Final

import msgspec

from protocol import limits
from protocol.errors import EXIT_USAGE, UserError
from protocol.invitations import coordinator_url, is_loopback

ANY_HOSTS: Final = ("0.0.0.0", "::", "")  # noqa: S104  # to ask for --advertise, not to listen


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """The settings of ``kin-coordinator serve``."""

    data: str
    """Directory of the database, the keys and the certificate."""
    host: str
    port: int
    advertise: str = ""
    """URL under which clients reach it; empty: the one that it listens on."""
    replicas: int = 3
    quorum: int = 2
    open_registration: bool = False
    certificates: tuple[bytes, ...] = ()
    """SHA-256 of further certificates that clients may see: those of proxies that end TLS."""

    @property
    def uses_tls(self) -> bool:
        """Whether it speaks TLS: always but on loopback, where it does only if the advertised URL says so."""
        if self.advertise:
            return self.advertise.startswith("wss:")
        return not is_loopback(self.host)

    def url(self, port: int) -> str:
        """Return the URL that clients are to dial, given the port that was bound."""
        if self.advertise:
            return self.advertise
        host = f"[{self.host}]" if ":" in self.host else self.host
        return coordinator_url(f"{'wss' if self.uses_tls else 'ws'}://{host}:{port}")


def parse_listen(text: str) -> tuple[str, int]:
    """Return host and port of ``HOST:PORT``; an IPv6 host may stand in brackets.

    Raises:
        UserError: It is none.
    """
    host, colon, port = text.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or int(port) >= 1 << 16:
        raise UserError(f"{text!r} is no HOST:PORT", exit_code=EXIT_USAGE)
    return host.strip("[]"), int(port)


def check_copies(replicas: int, quorum: int) -> None:
    """Refuse numbers of copies that make no sense.

    Raises:
        UserError: They do not.
    """
    if not 1 <= quorum <= replicas <= limits.PLACEMENT_NODES_MAX:
        raise UserError(
            f"replicas and quorum must be 1 <= quorum <= replicas <= {limits.PLACEMENT_NODES_MAX}",
            exit_code=EXIT_USAGE,
        )


def make_config(
    *, data: str, listen: str, advertise: str = "", replicas: int = 3, quorum: int = 2, open_registration: bool = False
) -> Config:
    """Return checked settings.

    Raises:
        UserError: One of them is wrong; the text says which.
    """
    host, port = parse_listen(listen)
    check_copies(replicas, quorum)
    if advertise:
        advertise = coordinator_url(advertise)
    elif host in ANY_HOSTS:
        raise UserError(
            f"--listen {listen} needs --advertise wss://HOST:PORT: the URL that clients dial", exit_code=EXIT_USAGE
        )
    if advertise.startswith("ws:") and not is_loopback(host):
        raise UserError("--advertise ws:// is for a server that listens on loopback alone", exit_code=EXIT_USAGE)
    return Config(
        data=data,
        host=host,
        port=port,
        advertise=advertise,
        replicas=replicas,
        quorum=quorum,
        open_registration=open_registration,
    )
