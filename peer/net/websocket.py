"""Channels to the coordinator as WebSockets: where to, over which TLS, and nothing else.

Rule 1: it goes where it was told and nowhere else.
Rule 2: a server with another certificate than the pinned one is shown nothing, not even the request.
"""

from __future__ import annotations

import hashlib
import ssl
from urllib.parse import urlsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from protocol import limits
from protocol.effects import CLOSE_BROKEN, CLOSE_NORMAL, ChannelClosedError, Dialled, Patience
from protocol.errors import (
    KinfolderError,
    ProtocolError,
    SecurityError,
    UnavailableError,
    UserError,
    unreachable_because,
)

CLOSE_S = 1


class WebSocketDialer:
    """Opens WebSockets; the real :class:`protocol.effects.Dialer`."""

    async def dial(self, url: str, *, pin: bytes, patience: Patience) -> Dialled:
        """Open a channel to just this URL; see the interface for what it raises."""
        try:
            connecting = _Connect(
                url,
                ssl=tls_context(url, pin),
                compression=None,
                max_size=limits.MESSAGE_BYTES_MAX,
                open_timeout=patience.connect_s,
                close_timeout=CLOSE_S,
                ping_interval=patience.ping_s,
                ping_timeout=patience.pong_s,
                proxy=None,
            )
            connecting.pin = pin
            socket = await connecting
        except KinfolderError:
            raise
        except Exception as error:
            # Whatever a server may answer instead of a WebSocket, and an address that cannot be one.
            raise UnavailableError(
                f"the coordinator at {url} cannot be reached: {unreachable_because(error)}"
            ) from error
        try:
            return Dialled(_WebSocket(socket), _certificate_hash(socket, pin))
        except BaseException:
            await socket.close()
            raise


class _WebSocket:
    """One open WebSocket as a channel."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self.peer = str(socket.remote_address[0]) if socket.remote_address else ""

    async def send(self, data: bytes) -> None:
        try:
            await self._socket.send(data)
        except ConnectionClosed as error:
            raise _closed(error) from error

    async def receive(self) -> bytes:
        try:
            data = await self._socket.recv()
        except ConnectionClosed as error:
            raise _closed(error) from error
        if isinstance(data, str):
            raise ProtocolError("the coordinator sent text")
        return data

    async def close(self, code: int = CLOSE_NORMAL, reason: str = "") -> None:
        await self._socket.close(code, reason)


def _closed(error: ConnectionClosed) -> ChannelClosedError:
    word = error.rcvd
    return ChannelClosedError(CLOSE_BROKEN) if word is None else ChannelClosedError(word.code, word.reason)


def tls_context(url: str, certificate_sha256: bytes) -> ssl.SSLContext | None:
    """Return the TLS settings for a coordinator's URL: none on ``ws``; pinned, or by the system's trust, on ``wss``.

    Raises:
        UserError: The URL is neither, or is ``ws`` to another machine.
    """
    parts = urlsplit(url)
    if parts.scheme == "ws":
        if parts.hostname not in ("127.0.0.1", "::1", "localhost"):
            raise UserError(f"{url}: ws:// is for this machine only; use wss:// for other machines")
        return None
    if parts.scheme != "wss":
        raise UserError(f"{url}: a coordinator's URL begins with ws:// or wss://")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    if certificate_sha256:
        # The pin is compared after the TLS handshake and before a byte of ours is sent (see _Connect).
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    else:
        context.load_default_certs()
    return context


class _Connect(connect):
    """Goes where it was told and nowhere else, and shows nothing to a server with another certificate than the pinned."""

    pin = b""

    async def open_tcp_connection(self) -> ClientConnection:
        connection = await super().open_tcp_connection()
        try:
            _certificate_hash(connection, self.pin)
        except BaseException:
            connection.transport.abort()
            raise
        return connection

    def process_redirect(self, exc: Exception) -> Exception | str:
        return exc


def _certificate_hash(socket: ClientConnection, pin: bytes) -> bytes:
    tls = socket.transport.get_extra_info("ssl_object")
    if tls is None:
        return bytes(32)
    seen = hashlib.sha256(tls.getpeercert(True)).digest()
    if pin and seen != pin:
        raise SecurityError("the coordinator shows another certificate than the one in its invitation")
    return seen
