"""The coordinator on the network: WebSockets in, sessions out (security 4.3, 4.4).

Rule 1: nobody unknown costs much: few sockets an address, few bytes, five seconds.
Rule 2: whoever talks too fast is read more slowly; whoever does not read waits for himself alone.
Rule 3: no exception of one connection leaves its handler.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from collections import Counter
from collections.abc import AsyncIterator
from http import HTTPStatus
from typing import Final

import structlog
from websockets.asyncio.server import Server as WebSocketServer
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from coordinator.config import Config
from coordinator.core.limiter import Pace, site_of
from coordinator.directory import DataDirectory
from coordinator.doors import SystemClock, system_entropy
from coordinator.service import Coordinator
from coordinator.session import Kind, Session
from coordinator.store.database import ThreadedDatabase
from protocol import limits
from protocol.effects import Clock, Entropy
from protocol.errors import UserError
from protocol.invitations import coordinator_url

NO_CERTIFICATE: Final = bytes(32)
PING_S: Final = 60.0
PING_JITTER_S: Final = 60.0
NODE_PING_S: Final = 15.0
PONG_S: Final = 30.0
CLOSE_S: Final = 5.0

_POLICY: Final = 1008
_UNSUPPORTED: Final = 1003
_TOO_BIG: Final = 1009
_TRY_LATER: Final = 1013

log = structlog.get_logger("coordinator")
_quiet = logging.getLogger("coordinator.websockets")
_quiet.setLevel(logging.CRITICAL)


class Server:
    """Accepts connections for a coordinator."""

    def __init__(
        self,
        coordinator: Coordinator,
        config: Config,
        *,
        tls: ssl.SSLContext | None = None,
        certificate: bytes = NO_CERTIFICATE,
    ) -> None:
        self.coordinator = coordinator
        self.url = ""
        self._config = config
        self._tls = tls
        self._certificates = (certificate, *config.certificates)
        self._server: WebSocketServer | None = None
        self._unknown: Counter[str] = Counter()

    async def start(self) -> str:
        """Begin to accept connections and return the URL.

        Raises:
            UserError: The address cannot be listened on.
        """
        config = self._config
        try:
            self._server = await serve(
                self._serve,
                config.host,
                config.port,
                ssl=self._tls,
                process_request=self._check_request,
                compression=None,
                max_size=limits.UNAUTHENTICATED_BYTES_MAX,
                max_queue=4,
                open_timeout=limits.UNAUTHENTICATED_S_MAX,
                close_timeout=CLOSE_S,
                ping_interval=None,
                server_header=None,
                logger=_quiet,
            )
        except OSError as error:
            raise UserError(f"cannot listen on {config.host}:{config.port}: {error.strerror or error}") from error
        port: int = next(iter(self._server.sockets)).getsockname()[1]
        self.url = config.url(port)
        return self.url

    async def stop(self) -> None:
        """Close all connections and stop accepting."""
        if self._server is not None:
            for session in list(self.coordinator.sessions.values()):
                session.stop()  # what was received already is not worth waiting for
            self._server.close()
            await self._server.wait_closed()

    def _check_request(self, connection: ServerConnection, request: Request) -> Response | None:
        if request.path not in ("/", ""):
            return connection.respond(HTTPStatus.NOT_FOUND, "not found\n")
        if request.headers.get_all("Origin"):
            return connection.respond(HTTPStatus.FORBIDDEN, "no browsers\n")
        return None

    def _origins(self, connection: ServerConnection) -> set[str]:
        """Return the URLs under which the other end may have dialled."""
        origins = {self.url}
        request = connection.request
        host = None if request is None else request.headers.get("Host")
        if host is not None and len(host) <= 300:
            dialled = f"{'ws' if self._tls is None else 'wss'}://{host}"
            with contextlib.suppress(UserError):
                origins.update((coordinator_url(dialled), dialled))
        return origins

    async def _serve(self, connection: ServerConnection) -> None:
        address = site_of(str(connection.remote_address[0])) if connection.remote_address else ""
        if self._unknown[address] >= limits.UNAUTHENTICATED_SOCKETS_PER_ADDRESS_MAX:
            await connection.close(_TRY_LATER, "too many connections")
            return
        closing: set[asyncio.Task[None]] = set()

        def close(reason: str) -> None:
            task = asyncio.get_running_loop().create_task(connection.close(_POLICY, reason))
            closing.add(task)
            task.add_done_callback(closing.discard)

        async def send(data: bytes) -> None:
            if len(data) <= limits.FRAME_BYTES_MAX:
                await connection.send(data)
            else:
                starts = range(0, len(data), limits.FRAME_BYTES_MAX)
                await connection.send(data[at : at + limits.FRAME_BYTES_MAX] for at in starts)

        session = Session(
            self.coordinator,
            address=address,
            origins=self._origins(connection),
            certificates=self._certificates,
            send=send,
            close=close,
        )
        try:
            with contextlib.suppress(ConnectionClosed):
                if await self._open(connection, session, address):
                    connection.protocol.max_message_size = limits.MESSAGE_BYTES_MAX
                    await self._converse(connection, session)
        except Exception:
            log.exception("a connection failed")
        finally:
            await session.end()
            await asyncio.gather(*closing, return_exceptions=True)

    async def _open(self, connection: ServerConnection, session: Session, address: str) -> bool:
        """Take messages until the other end is known; tell whether it is."""
        self._unknown[address] += 1
        clock = self.coordinator.clock
        deadline_s = clock.monotonic_s() + limits.UNAUTHENTICATED_S_MAX
        size = 0
        try:
            await session.begin()
            while session.kind is Kind.OPENING and not session.is_closed:
                left_s = deadline_s - clock.monotonic_s()
                try:
                    async with asyncio.timeout(max(left_s, 0.001)):
                        data = await connection.recv()
                except TimeoutError:
                    await connection.close(_POLICY, "too slow to log in")
                    return False
                if not isinstance(data, bytes):
                    await connection.close(_UNSUPPORTED, "binary messages only")
                    return False
                size += len(data)
                if size > limits.UNAUTHENTICATED_BYTES_MAX:
                    await connection.close(_TOO_BIG, "too much before a login")
                    return False
                await session.receive(data)
        finally:
            self._unknown[address] -= 1
            if not self._unknown[address]:
                del self._unknown[address]
        return not session.is_closed

    async def _converse(self, connection: ServerConnection, session: Session) -> None:
        """Handle requests, a bounded number at once, until the connection ends."""
        clock = self.coordinator.clock
        pace = Pace(limits.MESSAGES_PER_S, limits.MESSAGES_BURST, clock.monotonic_s())
        slots = asyncio.Semaphore(limits.REQUESTS_IN_FLIGHT_MAX)
        loop = asyncio.get_running_loop()
        tasks = {loop.create_task(_notify(session)), loop.create_task(self._ping(connection, session))}
        background = set(tasks)

        async def handle(data: bytes) -> None:
            try:
                await session.receive(data)
            except ConnectionClosed:
                pass
            except Exception:
                log.exception("a message failed")
                session.close("failed")
            finally:
                slots.release()

        try:
            until_s = limits.LINK_MAILBOX_S + 60.0 if session.kind is Kind.MAILBOX else None
            async with asyncio.timeout(until_s):
                while not session.is_closed:
                    data = await connection.recv()
                    if not isinstance(data, bytes):
                        await connection.close(_UNSUPPORTED, "binary messages only")
                        return
                    wait_s = pace.take(clock.monotonic_s())
                    if wait_s:
                        await asyncio.sleep(wait_s)
                    await slots.acquire()
                    task = loop.create_task(handle(data))
                    tasks.add(task)
                    task.add_done_callback(tasks.discard)
        except TimeoutError:
            await connection.close(_POLICY, "the code is too old")
        finally:
            for task in background:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _ping(self, connection: ServerConnection, session: Session) -> None:
        """Find out that the other end is gone, at moments that differ between connections."""
        while True:
            chance = int.from_bytes(self.coordinator.entropy(4), "big") / (1 << 32)
            await asyncio.sleep(NODE_PING_S if session.kind is Kind.NODE else PING_S + PING_JITTER_S * chance)
            try:
                async with asyncio.timeout(PONG_S):
                    await (await connection.ping())
            except TimeoutError:
                connection.transport.abort()
            except ConnectionClosed:
                return


async def _notify(session: Session) -> None:
    with contextlib.suppress(ConnectionClosed):
        await session.run()


@contextlib.asynccontextmanager
async def serving(
    config: Config, *, clock: Clock | None = None, entropy: Entropy = system_entropy
) -> AsyncIterator[Server]:
    """Run a coordinator on its data directory: it is ready inside the block and stopped after it.

    Raises:
        UserError: The directory is in use or cannot be used, or the address cannot be listened on.
        UnavailableError: The disk is full.
        CorruptStateError: The database or the keys are damaged.
    """
    clock = clock or SystemClock()
    directory = DataDirectory(config.data, clock, entropy)
    with contextlib.ExitStack() as stack:
        stack.callback(_close_lock, directory.lock())
        keys = directory.keys()
        tls, certificate = None, NO_CERTIFICATE
        if config.uses_tls:
            host = coordinator_url(config.url(config.port or 1)).split("://")[1].rsplit(":", 1)[0]
            tls, certificate = directory.certificate(host)
        coordinator = Coordinator(
            database=ThreadedDatabase(directory.database_path),
            keys=keys,
            clock=clock,
            entropy=entropy,
            copies=(config.replicas, config.quorum),
            open_registration=config.open_registration,
        )
        server = Server(coordinator, config, tls=tls, certificate=certificate)
        try:
            await coordinator.start()
            url = await server.start()
            directory.set_url(url, certificate if tls is not None else None)
            yield server
        finally:
            await server.stop()
            await coordinator.stop()


def _close_lock(descriptor: int) -> None:
    import os

    os.close(descriptor)
