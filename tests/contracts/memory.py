"""Networks inside one process and one event loop: the shortest statement of what each door to a network does."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Self

from protocol import limits
from protocol.chunk_api import encode_proof
from protocol.effects import (
    CLOSE_BROKEN,
    CLOSE_GOING,
    CLOSE_NORMAL,
    AcceptedChannel,
    ChannelClosedError,
    ChunkAnswer,
    ChunkCall,
    ChunkRequest,
    Dialled,
    Patience,
)
from protocol.errors import UnavailableError, UserError
from protocol.messages import NodeAddress

UNREAD_MAX = 4
"""Messages that a channel holds unread before whoever sends more has to wait."""
TOO_BIG = 1009


class MemoryChannel:
    """One end of a channel."""

    def __init__(self, peer: str, dialled: str = "", bytes_max: int = limits.MESSAGE_BYTES_MAX) -> None:
        self.peer = peer
        self.dialled = dialled
        self.other: MemoryChannel
        self._bytes_max = bytes_max
        self._unread: deque[bytes] = deque()
        self._ended: tuple[int, str] | None = None
        self._changed = asyncio.Event()

    async def send(self, data: bytes) -> None:
        """Send a message, once the other end has room for it."""
        while self._ended is None and len(self.other._unread) >= UNREAD_MAX:
            await self.other._wait()
        self._check()
        if len(data) > self.other._bytes_max:
            self._end(TOO_BIG, "")
            self.other._end(CLOSE_BROKEN, "")
            self._check()
        self.other._unread.append(bytes(data))
        self.other._tell()

    async def receive(self) -> bytes:
        """Return the next message."""
        while not self._unread:
            self._check()
            await self._wait()
        data = self._unread.popleft()
        self._tell()
        return data

    async def close(self, code: int = CLOSE_NORMAL, reason: str = "") -> None:
        """End both ends."""
        self.other._end(code, reason)
        self._unread.clear()
        self._end(code, reason)

    def allow(self, bytes_max: int) -> None:
        """Take longer messages."""
        self._bytes_max = bytes_max

    async def ping(self) -> None:
        """The other end is there."""
        await asyncio.sleep(0)
        self._check()

    def abort(self) -> None:
        """Break both ends."""
        for end in (self, self.other):
            end._unread.clear()
            end._end(CLOSE_BROKEN, "")

    def _check(self) -> None:
        if self._ended is not None:
            raise ChannelClosedError(*self._ended)

    def _end(self, code: int, reason: str) -> None:
        if self._ended is None:
            self._ended = (code, reason)
            self._tell()
            self.other._tell()

    def _tell(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def _wait(self) -> None:
        await self._changed.wait()


class MemoryNetwork:
    """Coordinators by URL; a dialer to all of them."""

    def __init__(self) -> None:
        self.acceptors: dict[str, MemoryAcceptor] = {}

    async def dial(self, url: str, *, pin: bytes, patience: Patience) -> Dialled:
        """Open a channel."""
        acceptor = self.acceptors.get(url)
        if acceptor is None:
            raise UnavailableError(f"{url} cannot be reached: nothing listens there")
        return Dialled(acceptor.open(), bytes(32))


class MemoryAcceptor:
    """Where clients of one coordinator dial."""

    def __init__(self, network: MemoryNetwork, url: str) -> None:
        self._network = network
        self._url = url
        self._serving: dict[asyncio.Task[None], MemoryChannel] = {}
        self._serve: Callable[[AcceptedChannel], Awaitable[None]]

    async def start(self, serve: Callable[[AcceptedChannel], Awaitable[None]], /) -> str:
        """Be found under the URL."""
        if self._url in self._network.acceptors:
            raise UserError(f"cannot listen on {self._url}: it is taken")
        self._serve = serve
        self._network.acceptors[self._url] = self
        return self._url

    async def stop(self) -> None:
        """Close every channel and wait for who serves it."""
        self._network.acceptors.pop(self._url, None)
        for channel in list(self._serving.values()):
            await channel.close(CLOSE_GOING)
        await asyncio.gather(*self._serving)

    def open(self) -> MemoryChannel:
        """Return a client's end of a new channel."""
        client = MemoryChannel(self._url)
        server = MemoryChannel("127.0.0.1", self._url, limits.UNAUTHENTICATED_BYTES_MAX)
        client.other, server.other = server, client
        task = asyncio.create_task(self._run(server))
        self._serving[task] = server
        task.add_done_callback(self._serving.pop)
        return client

    async def _run(self, channel: MemoryChannel) -> None:
        await self._serve(channel)
        await channel.close()


class MemoryNodes:
    """Storage nodes by URL, and the way to all of them."""

    def __init__(self) -> None:
        self.listeners: dict[str, MemoryListener] = {}

    def ask(
        self, node: NodeAddress, request: ChunkRequest, *, connect_s: float, silent_s: float | None
    ) -> MemoryAsking:
        """Ask a node."""
        return MemoryAsking(self.listeners.get(node.url), request, silent_s)

    async def close(self) -> None:
        """There is nothing to let go of."""


class MemoryListener:
    """Where one node is asked."""

    def __init__(self, nodes: MemoryNodes, url: str) -> None:
        self._nodes = nodes
        self._url = url
        self.answer: Callable[[ChunkCall], Awaitable[ChunkAnswer | None]]
        self.running: dict[asyncio.Task[None], None] = {}

    async def start(
        self, answer: Callable[[ChunkCall], Awaitable[ChunkAnswer | None]], /, *, certificate: bytes, key_pem: bytes
    ) -> str:
        """Be found under the URL."""
        if self._url in self._nodes.listeners:
            raise UserError(f"cannot listen on {self._url}: it is taken")
        self.answer = answer
        self._nodes.listeners[self._url] = self
        return self._url

    async def stop(self) -> None:
        """Take no more, and end what runs."""
        self._nodes.listeners.pop(self._url, None)
        for task in self.running:
            task.cancel()
        await asyncio.gather(*self.running, return_exceptions=True)


class _Pipe:
    """Pieces on their way from one side to the other, one at a time."""

    def __init__(self) -> None:
        self._piece = b""
        self._is_over = False
        self._failure: Exception | None = None
        self._turn = asyncio.Condition()

    async def put(self, data: bytes | bytearray | memoryview) -> None:
        async with self._turn:
            await self._turn.wait_for(lambda: not self._piece or self._failure is not None)
            if self._failure is not None:
                raise self._failure
            self._piece = bytes(data)
            self._turn.notify_all()

    async def get(self) -> bytes:
        async with self._turn:
            await self._turn.wait_for(lambda: self._piece or self._is_over or self._failure is not None)
            data, self._piece = self._piece, b""
            self._turn.notify_all()
            if not data and self._failure is not None:
                raise self._failure
            return data

    async def end(self, failure: Exception | None = None) -> None:
        async with self._turn:
            if not self._is_over and self._failure is None:
                self._is_over, self._failure = failure is None, failure
                self._turn.notify_all()


class MemoryAsking:
    """A request and its reply, as a context."""

    def __init__(self, listener: MemoryListener | None, request: ChunkRequest, silent_s: float | None) -> None:
        self._listener = listener
        self._request = request
        self._silent_s = silent_s
        self._call = MemoryCall(request)
        self._sending: asyncio.Task[None] | None = None
        self._status: int

    async def __aenter__(self) -> Self:
        """Send the request, and wait until a reply begins."""
        listener = self._listener
        if listener is None:
            raise UnavailableError("a node cannot be reached: nothing listens there")
        self._sending = asyncio.create_task(self._send())
        task = asyncio.create_task(self._call.run(listener.answer))
        listener.running[task] = None
        task.add_done_callback(listener.running.pop)
        try:
            async with asyncio.timeout(self._silent_s):
                self._status = await self._call.status
        except TimeoutError as error:
            await self._leave()
            raise UnavailableError("a node fell silent") from error
        except BaseException:
            await self._leave()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        """Want no more of it."""
        await self._leave()

    @property
    def status(self) -> int:
        """Of the reply."""
        return self._status

    async def read(self) -> bytes:
        """Return the next piece."""
        try:
            async with asyncio.timeout(self._silent_s):
                return await self._call.back.get()
        except TimeoutError as error:
            raise UnavailableError("a node fell silent") from error

    async def _leave(self) -> None:
        assert self._sending is not None
        self._sending.cancel()
        await asyncio.gather(self._sending, return_exceptions=True)
        await self._call.there.end(ConnectionResetError("whoever asked has gone"))
        await self._call.back.end(ConnectionResetError("nobody reads any more"))

    async def _send(self) -> None:
        there, body = self._call.there, self._request.body
        try:
            if isinstance(body, bytes):
                await there.put(body)
            else:
                async for piece in body:
                    await there.put(piece)
            await there.end()
        except Exception:  # noqa: BLE001  # whatever the caller's generator raises: the body is none
            await there.end(ConnectionResetError("whoever asked has gone"))


class MemoryCall:
    """A request while it arrives."""

    def __init__(self, request: ChunkRequest) -> None:
        self.path = request.path
        self.body_bytes = len(request.body) if isinstance(request.body, bytes) else 0
        self.grant: str | None = encode_proof(request.grant)
        self.statement: str | None = encode_proof(request.statement)
        self.forward = request.forward
        self.there, self.back = _Pipe(), _Pipe()
        self.status: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._unpaused = asyncio.Event()
        self._unpaused.set()
        self._is_broken = False

    async def run(self, answer: Callable[[ChunkCall], Awaitable[ChunkAnswer | None]]) -> None:
        """Have it answered."""
        failure: Exception | None = None
        try:
            reply = await answer(self)
            if reply is not None and not self._is_broken:
                self._begin(reply.status)
                if reply.body:
                    await self.back.put(reply.body)
        except ConnectionError:
            pass
        except BaseException:
            failure = UnavailableError("a node broke off")
            raise
        finally:
            if not self.status.done():
                self.status.set_exception(UnavailableError("a node broke off"))
            await self.back.end(UnavailableError("a node broke off") if self._is_broken else failure)

    def prove(self) -> None:
        """There is no crowd here."""

    def pause(self) -> None:
        """Take nothing."""
        self._unpaused.clear()

    def resume(self) -> None:
        """Take it again."""
        self._unpaused.set()

    async def go_on(self) -> None:
        """Nobody waits for that here."""

    async def read(self) -> bytes:
        """Return the next piece."""
        await self._unpaused.wait()
        return await self.there.get()

    async def begin(self) -> None:
        """Begin to reply."""
        self._begin(200)

    def _begin(self, status: int) -> None:
        if not self.status.done():
            self.status.set_result(status)

    async def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send a piece."""
        if self._is_broken:
            raise ConnectionResetError
        if len(data):
            await self.back.put(data)

    async def end(self) -> None:
        """The reply is whole."""

    def abort(self) -> None:
        """It will never be."""
        self._is_broken = True
