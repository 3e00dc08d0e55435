"""Clients' channels as WebSockets: the port, the request that begins one, frames.

Rule 1: whoever is not known has sent few bytes, and is let in within a bounded time or not at all.
Rule 2: no browser gets in, and nobody under another path.
"""

from __future__ import annotations

import logging
import ssl
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Final

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from coordinator.config import Config
from protocol import limits
from protocol.effects import CLOSE_BROKEN, CLOSE_NORMAL, AcceptedChannel, ChannelClosedError
from protocol.errors import UserError

CLOSE_S: Final = 5.0
QUEUE_MAX: Final = 4
"""Messages that a connection holds unread."""
HOST_CHARACTERS_MAX: Final = 300

_UNSUPPORTED: Final = 1003

_quiet = logging.getLogger("coordinator.websockets")
_quiet.setLevel(logging.CRITICAL)


class WebSocketAcceptor:
    """Listens; the real :class:`protocol.effects.Acceptor`.

    Args:
        config: Where.
        tls: None: without.
    """

    def __init__(self, config: Config, tls: ssl.SSLContext | None) -> None:
        self._config = config
        self._tls = tls
        self._server: Server | None = None
        self.port = 0
        """Where it listens, once it does."""

    async def start(self, serve_channel: Callable[[AcceptedChannel], Awaitable[None]], /) -> str:
        """Begin to accept; return the URL that clients are to dial.

        Raises:
            UserError: The address cannot be listened on.
        """
        config = self._config
        scheme = "ws" if self._tls is None else "wss"

        async def handle(connection: ServerConnection) -> None:
            await serve_channel(_WebSocket(connection, scheme))

        try:
            self._server = await serve(
                handle,
                config.host,
                config.port,
                ssl=self._tls,
                process_request=_check_request,
                compression=None,
                max_size=limits.UNAUTHENTICATED_BYTES_MAX,
                max_queue=QUEUE_MAX,
                open_timeout=limits.UNAUTHENTICATED_S_MAX,
                close_timeout=CLOSE_S,
                ping_interval=None,
                server_header=None,
                logger=_quiet,
            )
        except OSError as error:
            raise UserError(f"cannot listen on {config.host}:{config.port}: {error.strerror or error}") from error
        self.port = next(iter(self._server.sockets)).getsockname()[1]
        return config.url(self.port)

    async def stop(self) -> None:
        """Accept no more, close every connection and wait until all that serves them has ended."""
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()


def _check_request(connection: ServerConnection, request: Request) -> Response | None:
    if request.path not in ("/", ""):
        return connection.respond(HTTPStatus.NOT_FOUND, "not found\n")
    if request.headers.get_all("Origin"):
        return connection.respond(HTTPStatus.FORBIDDEN, "no browsers\n")
    return None


class _WebSocket:
    """One connection as a channel."""

    def __init__(self, connection: ServerConnection, scheme: str) -> None:
        self._connection = connection
        self.peer = str(connection.remote_address[0]) if connection.remote_address else ""
        request = connection.request
        host = None if request is None else request.headers.get("Host")
        self.dialled = f"{scheme}://{host}" if host is not None and len(host) <= HOST_CHARACTERS_MAX else ""

    async def send(self, data: bytes) -> None:
        try:
            if len(data) <= limits.FRAME_BYTES_MAX:
                await self._connection.send(data)
            else:
                starts = range(0, len(data), limits.FRAME_BYTES_MAX)
                await self._connection.send(data[at : at + limits.FRAME_BYTES_MAX] for at in starts)
        except ConnectionClosed as error:
            raise _closed(error) from error

    async def receive(self) -> bytes:
        try:
            data = await self._connection.recv()
        except ConnectionClosed as error:
            raise _closed(error) from error
        if isinstance(data, bytes):
            return data
        await self._connection.close(_UNSUPPORTED, "binary messages only")
        raise ChannelClosedError(_UNSUPPORTED, "binary messages only")

    async def close(self, code: int = CLOSE_NORMAL, reason: str = "") -> None:
        await self._connection.close(code, reason)

    def allow(self, bytes_max: int) -> None:
        self._connection.protocol.max_message_size = bytes_max

    async def ping(self) -> None:
        try:
            await (await self._connection.ping())
        except ConnectionClosed as error:
            raise _closed(error) from error

    def abort(self) -> None:
        self._connection.transport.abort()


def _closed(error: ConnectionClosed) -> ChannelClosedError:
    word = error.rcvd
    return ChannelClosedError(CLOSE_BROKEN) if word is None else ChannelClosedError(word.code, word.reason)
