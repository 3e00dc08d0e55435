"""Requests over HTTP: aiohttp's, as calls of the node; nothing of HTTP goes further in than this.

Rule 1: what no node could be asked never gets so far that anything of it is read.
"""

from __future__ import annotations

import asyncio
import ssl
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.web_protocol import RequestPayloadError

from protocol.chunk_api import CONTENT_TYPE, FORWARD_HEADER, GRANT_HEADER, STATEMENT_HEADER
from protocol.effects import BrokenBodyError, ChunkAnswer, ChunkCall
from protocol.errors import UserError
from storage_node.config import Settings
from storage_node.connections import GuardedServer

SWEEP_S: Final = 1.0
STOP_S: Final = 5.0
"""How long requests may still run when the node stops."""
_BACKLOG: Final = 512
_HEADERS: Final = {"Content-Type": CONTENT_TYPE}


class HttpListener:
    """Listens; the real :class:`protocol.effects.ChunkListener`.

    Args:
        settings: Where.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._listener: asyncio.Server | None = None
        self._sweeping: asyncio.Task[None] | None = None
        self.http: GuardedServer
        """Its connections, once it listens."""

    async def start(
        self,
        answer: Callable[[ChunkCall], Awaitable[ChunkAnswer | None]],
        /,
        *,
        certificate: bytes,
        key_pem: bytes,
    ) -> str:
        """Begin to take requests; see the interface."""
        settings = self._settings

        async def handle(request: web.BaseRequest) -> web.StreamResponse:
            call = _HttpCall(request, self.http)
            reply = await answer(call)
            if reply is None:
                return call.response
            return web.Response(status=reply.status, body=reply.body, headers=_HEADERS)

        self.http = GuardedServer(handle)
        try:
            self._listener = await asyncio.get_running_loop().create_server(
                self.http,
                settings.host,
                settings.port,
                ssl=_tls(settings.data, certificate, key_pem) if certificate else None,
                backlog=_BACKLOG,
            )
        except OSError as error:
            raise UserError(f"cannot listen on {settings.host}:{settings.port}: {error.strerror or error}") from error
        self._sweeping = asyncio.create_task(self._sweep())
        port = self._listener.sockets[0].getsockname()[1]
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        return f"{'https' if certificate else 'http'}://{host}:{port}"

    async def stop(self) -> None:
        """Take no more, and wait, for a bounded time, until what runs has ended."""
        if self._listener is None or self._sweeping is None:
            return
        self._sweeping.cancel()
        await asyncio.gather(self._sweeping, return_exceptions=True)
        self._listener.close()
        self.http.pre_shutdown()
        await self.http.shutdown(STOP_S)

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_S)
            self.http.sweep()


class _HttpCall:
    """A request as a call."""

    def __init__(self, request: web.BaseRequest, http: GuardedServer) -> None:
        self._request = request
        self._http = http
        self.response: web.StreamResponse

    @property
    def path(self) -> str:
        request = self._request
        return request.path if request.method == "POST" and not request.query_string else ""

    @property
    def body_bytes(self) -> int:
        return self._request.content_length or 0

    @property
    def grant(self) -> str | None:
        return self._request.headers.get(GRANT_HEADER)

    @property
    def statement(self) -> str | None:
        return self._request.headers.get(STATEMENT_HEADER)

    @property
    def forward(self) -> bool:
        return self._request.headers.get(FORWARD_HEADER) == "1"

    def prove(self) -> None:
        self._http.prove(self._request)

    def pause(self) -> None:
        transport = self._request.transport
        if transport is not None and not transport.is_closing():
            transport.pause_reading()

    def resume(self) -> None:
        transport = self._request.transport
        if transport is not None and not transport.is_closing() and not transport.is_reading():
            transport.resume_reading()

    async def go_on(self) -> None:
        """See RFC 9110, 10.1.1."""
        if self._request.headers.get("Expect", "").lower() == "100-continue":
            writer = self._request.writer
            await writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            # The interim reply is not part of the reply proper.
            writer.output_size = 0

    async def read(self) -> bytes:
        try:
            return await self._request.content.readany()
        except (RequestPayloadError, HttpProcessingError) as error:
            raise BrokenBodyError from error

    async def begin(self) -> None:
        self.response = web.StreamResponse(headers=_HEADERS)
        self.response.enable_chunked_encoding()
        await self.response.prepare(self._request)

    async def write(self, data: bytes | bytearray | memoryview) -> None:
        await self.response.write(data)

    async def end(self) -> None:
        await self.response.write_eof()

    def abort(self) -> None:
        if self._request.transport is not None:
            self._request.transport.abort()


def _tls(data: Path, certificate: bytes, key_pem: bytes) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.num_tickets = 0
    # OpenSSL reads keys from files only; this one is readable by its owner alone, and gone at once.
    with tempfile.NamedTemporaryFile(dir=data) as file:
        file.write(ssl.DER_cert_to_PEM_cert(certificate).encode() + key_pem)
        file.flush()
        context.load_cert_chain(file.name)
    return context
