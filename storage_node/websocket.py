"""Channels to the coordinator as WebSockets: where to, over which TLS, and nothing else.

Rule 1: it goes where it was told and nowhere else.
"""

from __future__ import annotations

import hashlib
import ssl

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, WebSocketException

from protocol import limits
from protocol.effects import CLOSE_BROKEN, CLOSE_NORMAL, ChannelClosedError, Dialled, Patience
from protocol.errors import ProtocolError, SecurityError, UnavailableError, unreachable_because

CLOSE_S = 1


class WebSocketDialer:
    """Opens WebSockets; the real :class:`protocol.effects.Dialer`."""

    async def dial(self, url: str, *, pin: bytes, patience: Patience) -> Dialled:
        """Open a channel to just this URL; see the interface for what it raises."""
        try:
            socket = await _Connect(
                url,
                ssl=_tls(url, pin),
                compression=None,
                max_size=limits.MESSAGE_BYTES_MAX,
                open_timeout=patience.connect_s,
                close_timeout=CLOSE_S,
                ping_interval=patience.ping_s,
                ping_timeout=patience.pong_s,
                proxy=None,
            )
        except (OSError, WebSocketException, ValueError, EOFError) as error:
            raise UnavailableError(f"{url} cannot be reached: {unreachable_because(error)}") from error
        try:
            return Dialled(_WebSocket(socket), _certificate_hash(socket, pin))
        except BaseException:
            await socket.close()
            raise


class _Connect(connect):
    """Goes where it was told and nowhere else."""

    def process_redirect(self, exc: Exception) -> Exception | str:
        return exc


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


def _tls(url: str, pin: bytes) -> ssl.SSLContext | None:
    if url.startswith("ws://"):
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    if pin:
        # The pin is compared after the handshake and before a word of ours is sent (see _certificate_hash).
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    else:
        context.load_default_certs()
    return context


def _certificate_hash(socket: ClientConnection, pin: bytes) -> bytes:
    tls = socket.transport.get_extra_info("ssl_object")
    if tls is None:
        return bytes(32)
    seen = hashlib.sha256(tls.getpeercert(binary_form=True)).digest()
    if pin and seen != pin:
        raise SecurityError("the coordinator shows another certificate than the one in its invitation")
    return seen
