"""The other storage nodes, as this one uses them: hand a batch on, pull chunks.

Rule 1: a node is who its pinned certificate says, or stands on this machine; the coordinator names both.
Rule 2: a slow or silent node costs a bounded time and a bounded number of bytes.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from typing import Final

import aiohttp
from yarl import URL

from protocol import limits
from protocol.chunk_api import (
    GET_PATH,
    PUT_PATH,
    REPLY_BYTES_MAX,
    ChunkFrom,
    GetReader,
    check_receipt,
    decode_failure,
    decode_put_reply,
    encode_wanted,
    request_headers,
)
from protocol.errors import KinfolderError, ProtocolError, UnavailableError, unreachable_because
from protocol.grants import ReceiptFor, Signed, Statement
from protocol.ids import ChunkId, StorageNodeId
from protocol.invitations import is_loopback
from protocol.messages import NodeAddress

CONNECT_S: Final = 5.0
STALL_S: Final = 10.0
"""How long a node may take no byte, or give none, before it is left."""
DURABLE_S: Final = 30.0
"""How long it may take to answer once it has everything."""
QUEUE_BYTES_MAX: Final = 512 * limits.KIB
READ_BYTES: Final = 256 * limits.KIB


class Forward:
    """A batch on its way to one other node: fed as it arrives, answered with a receipt or a code.

    Args:
        node: The other node.
    """

    def __init__(self, node: StorageNodeId) -> None:
        self.node = node
        self.task: asyncio.Task[ReceiptFor] | None = None
        self._pieces: deque[bytes] = deque()
        self._queued = 0
        self._is_over = False
        self._is_abandoned = False
        self._changed = asyncio.Event()

    async def feed(self, data: bytes) -> None:
        """Hand bytes on; waits for a slow node for a while and then leaves it."""
        if self._is_abandoned or self.task is None or self.task.done():
            return
        self._pieces.append(data)
        self._queued += len(data)
        self._changed.set()
        try:
            async with asyncio.timeout(STALL_S):
                while self._queued > QUEUE_BYTES_MAX and not self.task.done():
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            self.abandon()

    def finish(self) -> None:
        """Say that the batch is complete."""
        self._is_over = True
        self._changed.set()

    def abandon(self) -> None:
        """Break it off: the node must not think that the batch is complete."""
        self._is_abandoned = True
        self._pieces.clear()
        self._queued = 0
        if self.task is not None:
            self.task.cancel()

    async def body(self) -> AsyncIterator[bytes]:
        """Yield what is fed."""
        while True:
            while self._pieces:
                data = self._pieces.popleft()
                yield data
                self._queued -= len(data)
                self._changed.set()
            if self._is_over:
                return
            self._changed.clear()
            await self._changed.wait()

    def woken(self, _: object) -> None:
        """Wake whoever feeds: the task ended."""
        self._changed.set()

    async def outcome(self) -> ReceiptFor | str:
        """Return the receipt, or the code of what went wrong."""
        if self.task is None:
            return "unknown_node"
        await asyncio.wait([self.task], timeout=DURABLE_S)
        if not self.task.done() or self.task.cancelled():
            self.abandon()
            return UnavailableError.code
        error = self.task.exception()
        if error is None:
            return self.task.result()
        return error.code if isinstance(error, KinfolderError) else KinfolderError.code


class Replicas:
    """The nodes that the coordinator knows, and a client for them."""

    def __init__(self) -> None:
        self._nodes: dict[StorageNodeId, NodeAddress] = {}
        self._contexts: dict[bytes, ssl.SSLContext] = {}
        self._session: aiohttp.ClientSession | None = None

    def learn(self, nodes: Sequence[NodeAddress]) -> None:
        """Take over the coordinator's list."""
        self._nodes = {node.id: node for node in nodes}
        certificates = {node.certificate for node in nodes}
        self._contexts = {der: context for der, context in self._contexts.items() if der in certificates}

    async def close(self) -> None:
        """Close all connections."""
        if self._session is not None:
            await self._session.close()

    def forward(self, node: StorageNodeId, grant: Signed, statement: Signed, asked: Statement) -> Forward:
        """Begin to hand a batch on."""
        forward = Forward(node)
        if node in self._nodes:
            forward.task = asyncio.create_task(self._put(forward, grant, statement, asked))
            forward.task.add_done_callback(forward.woken)
            # Whoever asks for the outcome hears of the error; whoever does not has abandoned it.
            forward.task.add_done_callback(lambda task: task.cancelled() or task.exception())
        return forward

    async def get(
        self, node: StorageNodeId, ids: Sequence[ChunkId], grant: Signed, statement: Signed
    ) -> AsyncGenerator[tuple[ChunkId, bytes], None]:
        """Yield those of the chunks that another node gives, unchecked.

        Raises:
            UnavailableError: It cannot be reached, or broke off.
            KinfolderError: It refused, or sent what is not the format.
        """
        wanted = [ChunkFrom(id, 0) for id in ids]
        reader = GetReader(wanted)
        headers = request_headers(grant, statement)
        async with self._post(node, GET_PATH, encode_wanted(wanted), headers) as response:
            async for data in response.content.iter_any():
                for one, chunk in reader.feed(data):
                    if chunk is not None:
                        yield one.id, chunk
        reader.finish()

    async def _put(self, forward: Forward, grant: Signed, statement: Signed, asked: Statement) -> ReceiptFor:
        async with self._post(forward.node, PUT_PATH, forward.body(), request_headers(grant, statement)) as response:
            reply = decode_put_reply(await _read(response))
        if len(reply.receipts) != 1:
            raise ProtocolError("another node sent no receipt")
        check_receipt(reply.receipts[0], node=forward.node, statement=asked)
        return reply.receipts[0]

    def _post(
        self, node: StorageNodeId, path: str, body: bytes | AsyncIterator[bytes], headers: dict[str, str]
    ) -> _Response:
        address = self._nodes.get(node)
        if address is None:
            raise UnavailableError("the coordinator does not know that node")
        url = URL(address.url)
        if url.scheme != "https" and not (url.scheme == "http" and is_loopback(url.host or "")):
            raise ProtocolError("a node has no address that may be used")
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, limit_per_host=16),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                read_bufsize=READ_BYTES,
            )
        context = self._context(address.certificate) if url.scheme == "https" and address.certificate else None
        return _Response(self._session, url.with_path(path), body, headers, context)

    def _context(self, der: bytes) -> ssl.SSLContext:
        context = self._contexts.get(der)
        if context is None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.minimum_version = ssl.TLSVersion.TLSv1_3
            # The certificate is trusted for what it is, not for a name in it: it is the only one that will do.
            context.check_hostname = False
            context.verify_flags |= ssl.VERIFY_X509_STRICT
            context.load_verify_locations(cadata=der)
            self._contexts[der] = context
        return context


class _Response:
    """A request to a node as a context; foreign errors become ours here."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        url: URL,
        body: bytes | AsyncIterator[bytes],
        headers: dict[str, str],
        context: ssl.SSLContext | None,
    ) -> None:
        # While a body is sent nothing is read: only the answer to one that is already there may not stall.
        timeout = aiohttp.ClientTimeout(sock_connect=CONNECT_S, sock_read=STALL_S if isinstance(body, bytes) else None)
        self._request = session.post(
            url, data=body, headers=headers, ssl=context or True, allow_redirects=False, timeout=timeout
        )
        self._response: aiohttp.ClientResponse | None = None

    async def __aenter__(self) -> aiohttp.ClientResponse:
        try:
            self._response = await self._request
            if self._response.status != 200:
                raise decode_failure(await _read(self._response))
        except (aiohttp.ClientError, ssl.SSLError, OSError, TimeoutError) as error:
            self._close()
            raise UnavailableError(f"another node cannot be reached: {unreachable_because(error)}") from error
        except BaseException:
            self._close()
            raise
        return self._response

    async def __aexit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is None and self._response is not None:
            self._response.release()
        else:
            self._close()
        if isinstance(error, (aiohttp.ClientError, ssl.SSLError, OSError, TimeoutError)):
            raise UnavailableError(f"another node broke off ({type(error).__name__})") from error

    def _close(self) -> None:
        if self._response is not None:
            self._response.close()


async def _read(response: aiohttp.ClientResponse) -> bytes:
    data = bytearray()
    async for piece in response.content.iter_any():
        data += piece
        if len(data) > REPLY_BYTES_MAX:
            raise ProtocolError("another node's reply is too long")
    return bytes(data)
