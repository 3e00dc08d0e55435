"""The simulated doors between storage nodes and whoever asks them, as exchanges on channels."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from typing import Final, Self

import msgspec

from protocol.chunk_api import encode_proof
from protocol.effects import ChannelClosedError, ChunkAnswer, ChunkCall, ChunkRequest
from protocol.errors import UnavailableError, UserError, unreachable_because
from protocol.messages import NodeAddress
from simulations.channels import End
from simulations.exchanges import Exchange, ask
from simulations.hosts import Host
from simulations.network import NO_TLS, Listener, Network

STOP_S: Final = 5.0
"""How long a node that stops waits for what runs."""
_DONE: Final = 200

Answer = Callable[[ChunkCall], Awaitable[ChunkAnswer | None]]


class _Head(msgspec.Struct, array_like=True, frozen=True):
    """What comes before the body of a request."""

    path: str
    body_bytes: int
    grant: str
    statement: str
    forward: bool


class SimNodes:
    """The way to all storage nodes from one host; a :class:`protocol.effects.ChunkNodes`."""

    def __init__(self, network: Network, host: Host) -> None:
        self._network = network
        self._host = host

    def ask(self, node: NodeAddress, request: ChunkRequest, *, connect_s: float, silent_s: float | None) -> SimReply:
        """Ask a node; see the interface."""
        return SimReply(self._network, self._host, node, request, connect_s, silent_s)

    async def close(self) -> None:
        """Do nothing: each request has its own channel."""


class SimReply:
    """A request as a context, and the reply to it while it arrives."""

    def __init__(
        self,
        network: Network,
        host: Host,
        node: NodeAddress,
        request: ChunkRequest,
        connect_s: float,
        silent_s: float | None,
    ) -> None:
        self._network = network
        self._host = host
        self._node = node
        self._request = request
        self._connect_s = connect_s
        self._silent_s = silent_s
        self._exchange: Exchange
        self._sending: asyncio.Task[None]
        self._failure: UnavailableError | None = None
        self.status = 0

    async def __aenter__(self) -> Self:
        """Send the request, and wait until a reply begins."""
        try:
            async with asyncio.timeout(self._connect_s):
                self._exchange = await ask(self._network, self._host, self._node.url)
        except (OSError, TimeoutError) as error:
            text = f"a storage node cannot be reached: {unreachable_because(error)}"
            raise UnavailableError(text) from error
        shown, expected = self._network.certificate(self._node.url), _hash(self._node.certificate)
        if shown != expected:
            self._exchange.abort()
            raise UnavailableError("a storage node cannot be reached: it shows another certificate")
        self._sending = asyncio.create_task(self._send())
        try:
            with self._failing():
                async with asyncio.timeout(self._silent_s):
                    self.status = int.from_bytes(await self._exchange.head(), "big")
        except BaseException:
            await self._leave()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        """Want no more of it."""
        await self._leave()

    async def read(self) -> bytes:
        """Return the next piece of the reply's body; nothing at the end."""
        if self._failure is not None:
            raise self._failure
        if self._exchange.has_come:
            return await self._exchange.read()  # without a pause, so without a watch on it
        with self._failing():
            async with asyncio.timeout(self._silent_s):
                return await self._exchange.read()

    @contextlib.contextmanager
    def _failing(self) -> Iterator[None]:
        try:
            yield
        except TimeoutError as error:
            self._failure = UnavailableError("a storage node fell silent")
            raise self._failure from error
        except ChannelClosedError as error:
            self._failure = UnavailableError("a storage node broke off")
            raise self._failure from error

    async def _leave(self) -> None:
        if self._exchange.is_done:
            self._exchange.part()
        else:
            self._sending.cancel()
            self._exchange.abort()
        if not self._sending.done():
            await asyncio.wait([self._sending])

    async def _send(self) -> None:
        request = self._request
        body_bytes = len(request.body) if isinstance(request.body, bytes) else 0
        grant, statement = encode_proof(request.grant), encode_proof(request.statement)
        head = msgspec.msgpack.encode(_Head(request.path, body_bytes, grant, statement, request.forward))
        try:
            if isinstance(request.body, bytes):
                await self._exchange.send_all(head, request.body)
            else:
                async with _closing(request.body) as pieces:
                    await self._exchange.send_all(head, pieces)
        except ChannelClosedError:
            pass  # whoever waits for the reply learns of it
        except Exception:  # noqa: BLE001  # whatever the caller's generator raises: the body is none
            self._exchange.abort()


class SimListener:
    """Where one storage node is asked; a :class:`protocol.effects.ChunkListener`.

    Args:
        network: Of the run.
        host: The node's.
        url: Where it is asked.
    """

    def __init__(self, network: Network, host: Host, url: str) -> None:
        self._network = network
        self._host = host
        self._url = url
        self._listener: Listener | None = None
        self._running: dict[asyncio.Task[None], None] = {}

    async def start(self, answer: Answer, /, *, certificate: bytes, key_pem: bytes) -> str:  # noqa: ARG002 - who dials is told of the certificate, and there is no TLS to need its key
        """Begin to take requests; return the URL where they arrive."""

        async def serve(end: End) -> None:
            task = asyncio.current_task()
            assert task is not None
            self._running[task] = None
            try:
                await _serve(answer, end)
            finally:
                del self._running[task]

        try:
            self._listener = self._network.listen(self._host, self._url, serve, closes=False)
        except OSError as error:
            raise UserError(f"cannot listen on {self._url}: {error.strerror or error}") from error
        self._listener.certificate_sha256 = _hash(certificate)
        return self._url

    async def stop(self) -> None:
        """Take no more, and wait, for a bounded time, until what runs has ended."""
        if self._listener is not None:
            self._listener.close()
        if self._running:
            await asyncio.wait(list(self._running), timeout=STOP_S)
        for task in list(self._running):
            task.cancel()
        if self._running:
            await asyncio.wait(list(self._running))


class SimCall:
    """A request while it arrives, and the way back; a :class:`protocol.effects.ChunkCall`."""

    def __init__(self, head: _Head, exchange: Exchange) -> None:
        self.path = head.path
        self.body_bytes = head.body_bytes
        self.grant: str | None = head.grant
        self.statement: str | None = head.statement
        self.forward = head.forward
        self._exchange = exchange
        self._unpaused = asyncio.Event()
        self._unpaused.set()
        self.is_over = False
        """Whether the reply was ended or broken off."""

    def prove(self) -> None:
        """Do nothing: there is no crowd here."""

    def pause(self) -> None:
        """Take nothing of the body: whoever sends waits once the channel is full."""
        self._unpaused.clear()

    def resume(self) -> None:
        """Take the body again."""
        self._unpaused.set()

    async def go_on(self) -> None:
        """Do nothing: nobody waits for our word."""

    async def read(self) -> bytes:
        """Return the next piece of the body; nothing at the end."""
        await self._unpaused.wait()
        with _connection():
            return await self._exchange.read()

    async def begin(self, status: int = _DONE) -> None:
        """Begin a reply that comes in pieces."""
        with _connection():
            await self._exchange.send(head=status.to_bytes(2, "big"))

    async def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send a piece of it."""
        if len(data):
            with _connection():
                await self._exchange.send(data)

    async def end(self) -> None:
        """End it well."""
        self.is_over = True
        with _connection():
            await self._exchange.send(last=True)

    async def reply(self, answer: ChunkAnswer) -> None:
        """Send a reply that is there as a whole."""
        with _connection():
            await self._exchange.send_all(answer.status.to_bytes(2, "big"), answer.body)

    def abort(self) -> None:
        """Break the connection."""
        self.is_over = True
        self._exchange.abort()


async def _serve(answer: Answer, end: End) -> None:
    exchange = Exchange(end)
    try:
        await _answer(answer, exchange)
    finally:
        if exchange.is_done and not end.host.is_dead:
            exchange.part()
        elif not end.host.is_dead:
            await end.close()


async def _answer(answer: Answer, exchange: Exchange) -> None:
    try:
        head = msgspec.msgpack.decode(await exchange.head(), type=_Head)
    except ChannelClosedError:
        return
    call = SimCall(head, exchange)
    reply = await answer(call)
    if reply is not None and not call.is_over:
        with contextlib.suppress(ConnectionError):
            await call.reply(reply)


@contextlib.contextmanager
def _connection() -> Iterator[None]:
    try:
        yield
    except ChannelClosedError as error:
        raise ConnectionResetError("the other side has gone") from error


@contextlib.asynccontextmanager
async def _closing(pieces: AsyncIterator[bytes | bytearray]) -> AsyncIterator[AsyncIterator[bytes | bytearray]]:
    try:
        yield pieces
    finally:
        if isinstance(pieces, AsyncGenerator):
            await pieces.aclose()


def _hash(certificate: bytes) -> bytes:
    return hashlib.sha256(certificate).digest() if certificate else NO_TLS
