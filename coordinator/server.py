"""The coordinator on the network: channels in, sessions out (security 4.3, 4.4).

Rule 1: nobody unknown costs much: few sockets an address, few bytes, five seconds.
Rule 2: whoever talks too fast is read more slowly; whoever does not read waits for himself alone.
Rule 3: no exception of one connection leaves its handler.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from typing import Final

import structlog

from coordinator.config import Config
from coordinator.core.limiter import Pace, site_of
from coordinator.directory import DataDirectory
from coordinator.doors import SystemClock, system_entropy
from coordinator.service import Coordinator
from coordinator.session import Kind, Session
from coordinator.store.database import ThreadedDatabase
from coordinator.websocket import WebSocketAcceptor
from protocol import limits
from protocol.effects import AcceptedChannel, Acceptor, ChannelClosedError, Clock, Entropy
from protocol.errors import UserError
from protocol.invitations import coordinator_url

NO_CERTIFICATE: Final = bytes(32)
PING_S: Final = 60.0
PING_JITTER_S: Final = 60.0
NODE_PING_S: Final = 15.0
PONG_S: Final = 30.0

_POLICY: Final = 1008
_TOO_BIG: Final = 1009
_TRY_LATER: Final = 1013

log = structlog.get_logger("coordinator")


class Server:
    """Serves a coordinator's clients.

    Args:
        coordinator: Whose.
        acceptor: Where clients dial.
        certificates: SHA-256 of the TLS certificates that they may have seen; 32 zero bytes for none.
    """

    def __init__(self, coordinator: Coordinator, acceptor: Acceptor, *, certificates: Sequence[bytes]) -> None:
        self.coordinator = coordinator
        self.url = ""
        self._acceptor = acceptor
        self._certificates = tuple(certificates)
        self._unknown: Counter[str] = Counter()

    async def start(self) -> str:
        """Begin to accept connections and return the URL.

        Raises:
            UserError: The address cannot be listened on.
        """
        self.url = await self._acceptor.start(self.serve)
        return self.url

    async def stop(self) -> None:
        """Close all connections and stop accepting."""
        for session in list(self.coordinator.sessions.values()):
            session.stop()  # what was received already is not worth waiting for
        await self._acceptor.stop()

    def _origins(self, dialled: str) -> tuple[str, ...]:
        """Return the URLs under which the other end may have dialled."""
        origins = {self.url: None}
        if dialled:
            with contextlib.suppress(UserError):
                origins |= dict.fromkeys((coordinator_url(dialled), dialled))
        return tuple(origins)

    async def serve(self, channel: AcceptedChannel) -> None:
        """Serve one connection to its end."""
        address = site_of(channel.peer) if channel.peer else ""
        if self._unknown[address] >= limits.UNAUTHENTICATED_SOCKETS_PER_ADDRESS_MAX:
            await channel.close(_TRY_LATER, "too many connections")
            return
        closing: dict[asyncio.Task[None], None] = {}

        def close(reason: str) -> None:
            task = asyncio.get_running_loop().create_task(channel.close(_POLICY, reason))
            closing[task] = None
            task.add_done_callback(closing.pop)

        session = Session(
            self.coordinator,
            address=address,
            origins=self._origins(channel.dialled),
            certificates=self._certificates,
            send=channel.send,
            close=close,
        )
        try:
            with contextlib.suppress(ChannelClosedError):
                if await self._open(channel, session, address):
                    channel.allow(limits.MESSAGE_BYTES_MAX)
                    await self._converse(channel, session)
        except Exception:
            log.exception("a connection failed")
        finally:
            await session.end()
            await asyncio.gather(*closing, return_exceptions=True)

    async def _open(self, channel: AcceptedChannel, session: Session, address: str) -> bool:
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
                        data = await channel.receive()
                except TimeoutError:
                    await channel.close(_POLICY, "too slow to log in")
                    return False
                size += len(data)
                if size > limits.UNAUTHENTICATED_BYTES_MAX:
                    await channel.close(_TOO_BIG, "too much before a login")
                    return False
                await session.receive(data)
        finally:
            self._unknown[address] -= 1
            if not self._unknown[address]:
                del self._unknown[address]
        return not session.is_closed

    async def _converse(self, channel: AcceptedChannel, session: Session) -> None:
        """Handle requests, a bounded number at once, until the connection ends."""
        clock = self.coordinator.clock
        pace = Pace(limits.MESSAGES_PER_S, limits.MESSAGES_BURST, clock.monotonic_s())
        slots = asyncio.Semaphore(limits.REQUESTS_IN_FLIGHT_MAX)
        loop = asyncio.get_running_loop()
        background = [loop.create_task(_notify(session)), loop.create_task(self._ping(channel, session))]
        tasks = dict.fromkeys(background)

        async def handle(data: bytes) -> None:
            try:
                await session.receive(data)
            except ChannelClosedError:
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
                    data = await channel.receive()
                    wait_s = pace.take(clock.monotonic_s())
                    if wait_s:
                        await asyncio.sleep(wait_s)
                    await slots.acquire()
                    task = loop.create_task(handle(data))
                    tasks[task] = None
                    task.add_done_callback(tasks.pop)
        except TimeoutError:
            await channel.close(_POLICY, "the code is too old")
        finally:
            for task in background:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _ping(self, channel: AcceptedChannel, session: Session) -> None:
        """Find out that the other end is gone, at moments that differ between connections."""
        while True:
            chance = int.from_bytes(self.coordinator.entropy(4), "big") / (1 << 32)
            await asyncio.sleep(NODE_PING_S if session.kind is Kind.NODE else PING_S + PING_JITTER_S * chance)
            try:
                async with asyncio.timeout(PONG_S):
                    await channel.ping()
            except TimeoutError:
                channel.abort()
            except ChannelClosedError:
                return


async def _notify(session: Session) -> None:
    with contextlib.suppress(ChannelClosedError):
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
        server = Server(coordinator, WebSocketAcceptor(config, tls), certificates=(certificate, *config.certificates))
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
