"""Connections of the HTTP server: how many there may be, and for how long without a proof.

Rule 1: whoever has shown a valid grant is kept; when there are too many, the oldest without one goes, first at the address
        that has most of these.
Rule 2: a connection without a proof lives for seconds.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Final, NamedTuple

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from protocol import limits

CONNECTIONS_MAX: Final = 512
UNPROVEN_S_MAX: Final = 2 * limits.UNAUTHENTICATED_S_MAX
IDLE_S_MAX: Final = 75.0
HEADER_BYTES_MAX: Final = limits.UNAUTHENTICATED_BYTES_MAX
READ_BYTES: Final = 128 * limits.KIB
"""What a connection buffers before it is read; twice as much at most."""
LINGER_S: Final = 2.0
"""How long the rest of a refused body is read and thrown away, so that the client gets to see the refusal."""

_silent = logging.getLogger("storage_node.http")
_silent.addHandler(logging.NullHandler())
_silent.propagate = False

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


class _Unproven(NamedTuple):
    address: str
    since_s: float
    transport: asyncio.Transport


class GuardedServer(web.Server):
    """aiohttp's server with a bound on connections.

    Args:
        handler: Answers every request.
    """

    def __init__(self, handler: Handler) -> None:
        super().__init__(
            handler,
            access_log=None,
            logger=_silent,
            keepalive_timeout=IDLE_S_MAX,
            lingering_time=LINGER_S,
            max_line_size=HEADER_BYTES_MAX,
            max_field_size=HEADER_BYTES_MAX,
            max_headers=32,
            read_bufsize=READ_BYTES,
            auto_decompress=False,
        )
        self._unproven: dict[RequestHandler, _Unproven] = {}
        self._loop_time = asyncio.get_running_loop().time

    def connection_made(self, handler: RequestHandler, transport: asyncio.Transport) -> None:
        """Take a connection in; the oldest unproven one may have to go."""
        super().connection_made(handler, transport)
        peer = transport.get_extra_info("peername")
        self._unproven[handler] = _Unproven(str(peer[0]) if peer else "", self._loop_time(), transport)
        if len(self._connections) > CONNECTIONS_MAX:
            self._evict()

    def connection_lost(self, handler: RequestHandler, exc: BaseException | None = None) -> None:
        """Forget a connection."""
        self._unproven.pop(handler, None)
        super().connection_lost(handler, exc)

    def prove(self, request: web.BaseRequest) -> None:
        """Keep the connection of a request: it showed a valid grant."""
        self._unproven.pop(request.protocol, None)

    def sweep(self) -> None:
        """Close what has not proven anything for too long; call it every second or so."""
        now = self._loop_time()
        # Oldest first, since dicts keep the order of coming.
        for handler, unproven in list(self._unproven.items()):
            if now - unproven.since_s < UNPROVEN_S_MAX:
                break
            self._drop(handler)

    def _evict(self) -> None:
        address, _ = Counter(unproven.address for unproven in self._unproven.values()).most_common(1)[0]
        self._drop(next(h for h, unproven in self._unproven.items() if unproven.address == address))

    def _drop(self, handler: RequestHandler) -> None:
        unproven = self._unproven.pop(handler)
        unproven.transport.abort()
