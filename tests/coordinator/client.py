"""A small client for tests of the coordinator: speaks frames over a real WebSocket."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable
from typing import TypeVar

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from protocol import messages as m
from protocol.chains import SignedLink
from protocol.history import SignedCheckpoint
from protocol.ids import FolderId
from tests.builders import TestNode, device_login
from tests.protocol.chain_world import TestAccount, TestDevice

Reply = TypeVar("Reply")
_opened: list[Client] = []


async def close_all() -> None:
    """End what a test left open, at once: nothing may outlive its loop."""
    while _opened:
        client = _opened.pop()
        client.socket.transport.abort()
        await client.socket.wait_closed()
        if client._reader is not None:
            await asyncio.gather(client._reader, *client._sends, return_exceptions=True)


class Client:
    """One connection."""

    def __init__(self, socket: ClientConnection, origin: str) -> None:
        self.socket = socket
        self.origin = origin
        self.challenge: m.Challenge
        self.notices: asyncio.Queue[m.Message] = asyncio.Queue()
        self.requests: asyncio.Queue[m.Frame] = asyncio.Queue()
        self.strays: list[m.Frame] = []  # replies to what was never asked, as after a flipped bit in a number
        self.certificate = bytes(32)
        self._waiting: dict[int, asyncio.Future[m.Message]] = {}
        self._sends: set[asyncio.Future[None]] = set()
        self._next = 0
        self._reader: asyncio.Task[None] | None = None

    @classmethod
    async def open(cls, url: str, *, frame_bytes_max: int | None = None, **options) -> Client:
        sizes = (None, frame_bytes_max)
        socket = await connect(url, compression=None, max_size=sizes, ping_interval=None, **options)
        client = cls(socket, url)
        _opened.append(client)
        frame = m.decode_frame(await socket.recv(decode=False))
        assert isinstance(frame.body, m.Challenge)
        assert frame.id == 0
        client.challenge = frame.body
        client._reader = asyncio.create_task(client._read())
        return client

    async def _read(self) -> None:
        with contextlib.suppress(ConnectionClosed):
            while True:
                frame = m.decode_frame(await self.socket.recv(decode=False))
                if frame.reply and frame.id in self._waiting:
                    self._waiting.pop(frame.id).set_result(frame.body)
                elif frame.reply:
                    self.strays.append(frame)
                elif frame.id:
                    self.requests.put_nowait(frame)
                else:
                    self.notices.put_nowait(frame.body)
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(ConnectionError("closed"))

    def start(self, body: m.Message) -> asyncio.Future[m.Message]:
        self._next += 2
        future = self._waiting[self._next] = asyncio.get_running_loop().create_future()
        self._sends.add(asyncio.ensure_future(self._send(m.encode_frame(self._next, body))))
        return future

    async def _send(self, data: bytes) -> None:
        with contextlib.suppress(ConnectionClosed):
            await self.socket.send(data)

    async def ask(self, body: m.Message, kind: type[Reply] = m.Ok) -> Reply:  # type: ignore[assignment]  # the usual
        """Send a request; the reply must be of this kind."""
        reply = await asyncio.wait_for(self.start(body), 20)
        assert isinstance(reply, kind), reply
        return reply

    async def refused(self, body: m.Message) -> str:
        """Send a request that must fail; return the code."""
        return (await self.ask(body, m.Failure)).code

    async def answer(self, frame: m.Frame, body: m.Message) -> None:
        await self.socket.send(m.encode_frame(frame.id, body, reply=True))

    async def login(self, account: TestAccount, device: TestDevice | None = None) -> Client:
        await self.ask(device_login(self.challenge, self.origin, account, device, certificate=self.certificate))
        return self

    async def notice(self, kind: type[Reply], within_s: float = 10) -> Reply:
        """Return the next notice of a kind."""
        async with asyncio.timeout(within_s):
            while True:
                body = await self.notices.get()
                if isinstance(body, kind):
                    return body

    async def head_at(self, folder: FolderId, position: int) -> m.FolderHead:
        """Wait for a notice that a folder's head is at or above a position."""
        while True:
            for head in (await self.notice(m.Heads)).heads:
                if head.checkpoint.checkpoint.folder == folder and head.checkpoint.checkpoint.position >= position:
                    return head

    async def register(
        self, folder: FolderId, entries: Iterable[bytes], known: SignedCheckpoint | None = None
    ) -> m.EntryStates:
        return await self.ask(m.RegisterEntries(folder, known, tuple(entries)), m.EntryStates)

    async def create(self, link: SignedLink) -> m.FolderCreated:
        return await self.ask(m.CreateFolder(link), m.FolderCreated)

    async def pull(self, folder: FolderId, after: int = 0, items: int = 256) -> m.Pulled:
        return await self.ask(m.Pull(folder, after, items), m.Pulled)

    async def close(self) -> None:
        await self.socket.close()
        if self._reader is not None:
            await self._reader

    async def closed(self, within_s: float = 10) -> int | None:
        """Wait until the server closes; return the code."""
        assert self._reader is not None
        await asyncio.wait_for(asyncio.shield(self._reader), within_s)
        return self.socket.close_code


async def new_user(url: str, account: TestAccount, token: str, user: str | None = None) -> Client:
    """Create an account and log its first device in."""
    client = await Client.open(url)
    await client.ask(m.CreateAccount(token, user or account.name, account.links[0]))
    return await client.login(account)


async def device(url: str, account: TestAccount, device: TestDevice | None = None) -> Client:
    """Log a device in."""
    return await (await Client.open(url)).login(account, device)


async def storage_node(url: str, name: str, token: str = "", zone: str = "") -> tuple[Client, TestNode]:
    """Log a storage node in."""
    client = await Client.open(url)
    node = TestNode(name)
    await client.ask(node.login(client.challenge, client.origin, token, zone=zone), m.NodeWelcome)
    return client, node
