"""Networks inside one process and one event loop: the shortest statement of what each door to a network does."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

from protocol import limits
from protocol.effects import (
    CLOSE_BROKEN,
    CLOSE_GOING,
    CLOSE_NORMAL,
    AcceptedChannel,
    ChannelClosedError,
    Dialled,
    Patience,
)
from protocol.errors import UnavailableError, UserError

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
