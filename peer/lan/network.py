"""The LAN as this machine has it: TCP, TLS with both certificates pinned, and zeroconf."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Mapping, Sequence

from peer.core.keys import DeviceSecrets
from peer.core.lan import LanDevice
from peer.lan.doors import Announced, Discovery, Interface, Knock, Listening, Met, Trusted
from peer.lan.stream import LanStream, keep_alive
from peer.lan.trust import Trust
from protocol import limits

# What hears and announces is loaded when it is needed: without a LAN nobody pays for it.


class SystemLan:
    """The real :class:`peer.lan.doors.LanNetwork`."""

    def interfaces(self, only: Sequence[str] | None) -> list[Interface]:
        """Return this machine's addresses for the LAN."""
        from peer.lan.discovery import interfaces

        return interfaces(only)

    def trust(self, secrets: DeviceSecrets, allowed: Mapping[bytes, LanDevice]) -> Trust:
        """Return TLS settings for these devices."""
        return Trust(secrets, allowed)

    async def dial(self, address: str, port: int, trust: Trusted) -> Met:
        """Connect over TLS."""
        assert isinstance(trust, Trust)
        loop = asyncio.get_running_loop()
        stream = LanStream()
        try:
            transport, _ = await loop.create_connection(
                lambda: stream, address, port, ssl=trust.client, ssl_handshake_timeout=limits.LAN_HANDSHAKE_S_MAX
            )
            device = trust.identify(transport.get_extra_info("ssl_object"))
            keep_alive(transport.get_extra_info("socket"))
        except BaseException:
            stream.close()
            raise
        return Met(stream, device)

    def listen(self, address: str, port: int) -> Listening:
        """Listen for TCP."""
        listening = socket.create_server((address, port), family=_family(address), backlog=limits.LAN_HANDSHAKES_MAX)
        listening.setblocking(False)
        return _Listening(listening)

    def discovery(
        self, addresses: Sequence[str], on_found: Callable[[Announced], None], on_gone: Callable[[str], None]
    ) -> Discovery:
        """Return zeroconf on these addresses."""
        from peer.lan import discovery

        return discovery.Discovery(addresses, on_found, on_gone)


class _Listening:
    """A socket that listens."""

    def __init__(self, listening: socket.socket) -> None:
        self._socket = listening
        self.port: int = listening.getsockname()[1]

    async def accept(self) -> Knock:
        connection, _ = await asyncio.get_running_loop().sock_accept(self._socket)
        return _Knock(connection)

    def close(self) -> None:
        self._socket.close()


class _Knock:
    """A TCP connection before its handshake."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    async def open(self, trust: Trusted) -> Met:
        assert isinstance(trust, Trust)
        loop = asyncio.get_running_loop()
        stream = LanStream()
        try:
            keep_alive(self._connection)
            transport, _ = await loop.connect_accepted_socket(
                lambda: stream, self._connection, ssl=trust.server, ssl_handshake_timeout=limits.LAN_HANDSHAKE_S_MAX
            )
        except BaseException:
            self._connection.close()
            raise
        try:
            return Met(stream, trust.identify(transport.get_extra_info("ssl_object")))
        except BaseException:
            stream.close()
            raise

    def close(self) -> None:
        self._connection.close()


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET
