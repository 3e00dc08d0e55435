"""Other storage nodes over HTTP: which address may be used, with which certificate, and what aiohttp makes of the rest.

Rule 1: a node is who its pinned certificate says, or stands on this machine; it leads to no other host.
Rule 2: whatever is wrong with a node's URL, certificate or connection is an ``UnavailableError`` or a
    ``ProtocolError``.
"""

from __future__ import annotations

import ssl
from types import TracebackType
from typing import Final

import aiohttp
from yarl import URL

from protocol import limits
from protocol.chunk_api import request_headers
from protocol.effects import ChunkRequest
from protocol.errors import ProtocolError, UnavailableError, unreachable_because
from protocol.invitations import is_loopback
from protocol.messages import NodeAddress

CONNECTIONS_PER_NODE_MAX: Final = 16
READ_BYTES: Final = 256 * limits.KIB
CONTEXTS_MAX: Final = 256
"""TLS settings that are kept, each for one certificate; the oldest go first."""

_FOREIGN: Final = (aiohttp.ClientError, TimeoutError, OSError, ValueError)
"""ValueError: a URL or a certificate that is none."""


class HttpNodes:
    """Asks storage nodes; the real :class:`protocol.effects.ChunkNodes` of a node."""

    def __init__(self) -> None:
        self._contexts: dict[bytes, ssl.SSLContext] = {}
        self._session: aiohttp.ClientSession | None = None

    def ask(self, node: NodeAddress, request: ChunkRequest, *, connect_s: float, silent_s: float | None) -> _Asking:
        """Ask a node; see the interface."""
        return _Asking(self, node, request, aiohttp.ClientTimeout(sock_connect=connect_s, sock_read=silent_s))

    async def close(self) -> None:
        """Let go of every connection."""
        if self._session is not None:
            await self._session.close()

    async def post(
        self, node: NodeAddress, request: ChunkRequest, patience: aiohttp.ClientTimeout
    ) -> aiohttp.ClientResponse:
        """Send a request and return its reply, once that has begun.

        Raises:
            ProtocolError, aiohttp.ClientError, TimeoutError, OSError, ValueError: That cannot be.
        """
        url = URL(node.url)
        if url.scheme != "https" and not (url.scheme == "http" and is_loopback(url.host or "")):
            raise ProtocolError("a node has no address that may be used")
        context = self._context(node.certificate) if url.scheme == "https" and node.certificate else None
        return await self._http().post(
            url.with_path(request.path),
            data=request.body,
            headers=request_headers(request.grant, request.statement, forward=request.forward),
            ssl=context or True,
            allow_redirects=False,
            timeout=patience,
        )

    def _http(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, limit_per_host=CONNECTIONS_PER_NODE_MAX),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                read_bufsize=READ_BYTES,
            )
        return self._session

    def _context(self, der: bytes) -> ssl.SSLContext:
        context = self._contexts.get(der)
        if context is None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.minimum_version = ssl.TLSVersion.TLSv1_3
            # The certificate is trusted for what it is, not for a name in it: it is the only one that will do.
            context.check_hostname = False
            context.verify_flags |= ssl.VERIFY_X509_STRICT
            context.load_verify_locations(cadata=der)
            if len(self._contexts) >= CONTEXTS_MAX:
                del self._contexts[next(iter(self._contexts))]
            self._contexts[der] = context
        return context


class _Asking:
    """A request as a context."""

    def __init__(
        self, nodes: HttpNodes, node: NodeAddress, request: ChunkRequest, patience: aiohttp.ClientTimeout
    ) -> None:
        self._nodes = nodes
        self._node = node
        self._request = request
        self._patience = patience
        self._response: aiohttp.ClientResponse | None = None

    async def __aenter__(self) -> _Reply:
        try:
            self._response = await self._nodes.post(self._node, self._request, self._patience)
        except _FOREIGN as error:
            raise UnavailableError(f"another node cannot be reached: {unreachable_because(error)}") from error
        return _Reply(self._response)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._response is None:
            return
        if error is None:
            self._response.release()
        else:
            self._response.close()


class _Reply:
    """A reply while it arrives."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._content = response.content
        self._failure: UnavailableError | None = None
        self.status = response.status

    async def read(self) -> bytes:
        if self._failure is not None:
            raise self._failure
        try:
            return await self._content.readany()
        except _FOREIGN as error:
            self._failure = UnavailableError(f"another node broke off ({type(error).__name__})")
            self._failure.__cause__ = error
            if rest := _unread(self._content):
                return rest
            raise self._failure from error


def _unread(content: aiohttp.StreamReader) -> bytes:
    """Return what had come and was not read yet when a connection broke.

    aiohttp holds it, but once it knows of the failure every read raises that instead: so it has to forget it.
    """
    content.set_exception(None)  # type: ignore[arg-type]  # the method only stores it, and None is what stands there first
    return content.read_nowait()
