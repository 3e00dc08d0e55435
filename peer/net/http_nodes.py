"""Storage nodes over HTTP: which address may be used, with which certificate, and what aiohttp makes of the rest.

Rule 1: a node is asked over TLS, with exactly the certificate that the coordinator names, or on this machine; it leads to no
    other host.
Rule 2: whatever is wrong with a node's URL, certificate or connection is an ``UnavailableError`` or a ``ProtocolError``.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Final

import aiohttp
from yarl import URL

from protocol import chunk_api as api
from protocol.effects import ChunkRequest
from protocol.errors import ProtocolError, UnavailableError, unreachable_because
from protocol.invitations import is_loopback
from protocol.messages import NodeAddress

CONNECTIONS_MAX: Final = 16
CONNECTIONS_PER_NODE_MAX: Final = 8
KEEP_S: Final = 30
READ_BYTES: Final = 1 << 20

_FOREIGN: Final = (aiohttp.ClientError, TimeoutError, OSError, ValueError)
"""ValueError: a URL or a certificate that is none."""


class HttpNodes:
    """Asks storage nodes; the real :class:`protocol.effects.ChunkNodes` of a device."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None
        self._contexts: dict[bytes, ssl.SSLContext] = {}

    def ask(self, node: NodeAddress, request: ChunkRequest, *, connect_s: float, silent_s: float | None) -> _Asking:
        """Ask a node; see the interface."""
        return _Asking(self, node, request, aiohttp.ClientTimeout(sock_connect=connect_s, sock_read=silent_s))

    async def close(self) -> None:
        """Let go of every connection."""
        if self._session is not None:
            await self._session.close()

    async def post(self, node: NodeAddress, request: ChunkRequest, patience: aiohttp.ClientTimeout) -> _Reply:
        """Send a request and return its reply, once that has begun.

        Raises:
            ProtocolError, aiohttp.ClientError, TimeoutError, OSError, ValueError: That cannot be.
        """
        url = _url(node, request.path)
        response = await self._http().post(
            url,
            data=request.body if isinstance(request.body, bytes) else _heard(request.body),
            headers=api.request_headers(request.grant, request.statement, forward=request.forward),
            ssl=self._tls(node, url),
            allow_redirects=False,
            timeout=patience,
        )
        return _Reply(response)

    def _tls(self, node: NodeAddress, url: URL) -> ssl.SSLContext | bool:
        """Return how to check a node's certificate: it must be exactly the one that the coordinator names.

        Raises:
            ValueError, OSError: That one is no certificate.
        """
        if url.scheme != "https":
            return True
        if node.certificate not in self._contexts:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.minimum_version = ssl.TLSVersion.TLSv1_3
            context.check_hostname = False
            context.load_verify_locations(cadata=node.certificate)
            self._contexts[node.certificate] = context
        return self._contexts[node.certificate]

    def _http(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    limit=CONNECTIONS_MAX, limit_per_host=CONNECTIONS_PER_NODE_MAX, keepalive_timeout=KEEP_S
                ),
                cookie_jar=aiohttp.DummyCookieJar(),
                read_bufsize=READ_BYTES,
                auto_decompress=False,
            )
        return self._session


class _Asking:
    """A request as a context."""

    def __init__(
        self, nodes: HttpNodes, node: NodeAddress, request: ChunkRequest, patience: aiohttp.ClientTimeout
    ) -> None:
        self._nodes = nodes
        self._node = node
        self._request = request
        self._patience = patience
        self._reply: _Reply | None = None

    async def __aenter__(self) -> _Reply:
        try:
            self._reply = await self._nodes.post(self._node, self._request, self._patience)
        except _FOREIGN as error:
            text = f"a storage node cannot be reached: {unreachable_because(error)}"
            raise UnavailableError(text) from error
        return self._reply

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._reply is not None:
            await self._reply.response.__aexit__(kind, error, trace)


class _Reply:
    """A reply while it arrives."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self.response = response
        self.status = response.status
        self._failure: UnavailableError | None = None

    async def read(self) -> bytes:
        if self._failure is not None:
            raise self._failure
        try:
            return await self.response.content.readany()
        except _FOREIGN as error:
            self._failure = UnavailableError(f"a storage node broke off ({type(error).__name__})")
            self._failure.__cause__ = error
            if rest := _unread(self.response.content):
                return rest
            raise self._failure from error


def _url(node: NodeAddress, path: str) -> URL:
    """Return where to ask a node: over TLS, or on this machine.

    Raises:
        ValueError: It has no URL.
        ProtocolError: It has one that may not be used.
    """
    url = URL(node.url + path)
    if url.scheme != "https" and not (url.scheme == "http" and is_loopback(url.host or "")):
        raise ProtocolError("a storage node has no address that may be used")
    return url


async def _heard(body: AsyncIterator[bytes | bytearray]) -> AsyncIterator[bytes | bytearray]:
    """Yield a body, and ask for whoever reads it how that ended.

    aiohttp reads it in a task of its own. Where the node dies right then, that task fails beside the request, which fails
    for the same reason and is what tells: nobody else asks how the task ended.
    """
    if (writer := asyncio.current_task()) is not None:
        writer.add_done_callback(lambda task: task.cancelled() or task.exception())
    async for piece in body:
        yield piece


def _unread(content: aiohttp.StreamReader) -> bytes:
    """Return what had come and was not read yet when a connection broke.

    aiohttp holds it, but once it knows of the failure every read raises that instead: so it has to forget it.
    """
    content.set_exception(None)  # type: ignore[arg-type]  # the method only stores it, and None is what stands there first
    return content.read_nowait()
