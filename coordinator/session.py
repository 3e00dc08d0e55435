"""One connection, without its socket: who is at the other end, which request goes where, what waits to be sent.

Rule 1: whatever the other end sends ends in a reply, a `Failure` or the end of this session; never in another's.
Rule 2: a session is one of four kinds and changes once, from opening to one of the others.
Rule 3: everything that waits is bounded: direct notices by number, news by the hub.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable, Collection
from enum import Enum
from typing import TYPE_CHECKING, Final

import structlog

from protocol import limits
from protocol import messages as m
from protocol.errors import KinfolderError, LimitExceededError, ProtocolError, UnavailableError
from protocol.ids import AccountId, DeviceId, StorageNodeId

if TYPE_CHECKING:
    from coordinator.service import Coordinator

POSTED_MAX: Final = 256
PROTOCOL_VERSION: Final = 1
HEADS_A_NOTICE_MAX: Final = 256

log = structlog.get_logger("coordinator")


class Kind(Enum):
    """Who a session is with."""

    OPENING = "opening"
    DEVICE = "device"
    NODE = "node"
    MAILBOX = "mailbox"


class Session:
    """One connection; the shell gives it frames and ways to send and to close."""

    def __init__(
        self,
        coordinator: Coordinator,
        *,
        address: str,
        origins: Collection[str],
        certificates: Collection[bytes],
        send: Callable[[bytes], Awaitable[None]],
        close: Callable[[str], None],
    ) -> None:
        """Begin a session.

        Args:
            coordinator: Whose.
            address: Of the other end, for limits by address (:func:`coordinator.core.limiter.site_of`).
            origins: Under which URLs the other end may have dialled this server.
            certificates: SHA-256 of the TLS certificates that it may have seen; 32 zero bytes for none.
            send: Sends one frame; it waits while the other end does not read.
            close: Ends the connection, with a reason that the other end may see.
        """
        self.coordinator = coordinator
        self.number = coordinator.new_session_number()
        self.address = address
        self.origins = tuple(origins)
        self.certificates = tuple(certificates)
        self.kind = Kind.OPENING
        self.account = AccountId(b"")
        self.device = DeviceId(b"")
        self.sign_key = b""
        self.node = StorageNodeId(b"")
        self.found: set[AccountId] = set()
        """Accounts that this session found by name: it may read their chains."""
        coordinator.check_clock()  # all who are there are to have heard the time that this one hears
        self.challenge = m.Challenge(
            PROTOCOL_VERSION,
            coordinator.log_key,
            coordinator.token_key,
            coordinator.entropy(32),
            coordinator.clock.now_ms(),
        )
        self.is_closed = False
        self._send = send
        self._close = close
        self._posted: deque[bytes] = deque()
        self._woken = asyncio.Event()
        self._asked: dict[int, asyncio.Future[m.Message]] = {}
        self._next_id = 1
        coordinator.sessions[self.number] = self

    async def begin(self) -> None:
        """Send the challenge."""
        await self._send(m.encode_frame(0, self.challenge))

    async def receive(self, data: bytes) -> None:
        """Handle one frame to its end; the reply has been sent when this returns."""
        try:
            frame = m.decode_frame(data)
        except (ProtocolError, LimitExceededError) as error:
            await self._send(m.encode_frame(0, m.Failure(error.code, str(error))))
            self.close("malformed message")
            return
        if frame.reply:
            self._take_reply(frame)
            return
        reply = await self._handle(frame)
        if frame.id and not self.is_closed:
            await self._send(_encode(frame.id, reply))
        if self.kind is Kind.OPENING and isinstance(reply, m.Failure):
            self.close("not let in")

    async def run(self) -> None:
        """Send notices as they come, until the session ends."""
        while not self.is_closed:
            await self._woken.wait()
            self._woken.clear()
            while self._posted:
                await self._send(self._posted.popleft())
            news = self.coordinator.hub.take(self.number)
            heads = list(news.heads.values())
            for at in range(0, len(heads), HEADS_A_NOTICE_MAX):
                await self._send(m.encode_frame(0, m.Heads(tuple(heads[at : at + HEADS_A_NOTICE_MAX]))))
            for account, seq in news.accounts.items():
                await self._send(m.encode_frame(0, m.AccountChanged(account, seq)))

    def wake(self) -> None:
        """Look for news."""
        self._woken.set()

    def post(self, message: m.Message) -> None:
        """Queue a notice; a session that does not take its notices is closed."""
        self._post(m.encode_frame(0, message))

    def _post(self, frame: bytes) -> None:
        if len(self._posted) >= POSTED_MAX:
            self.close("too slow")
            return
        self._posted.append(frame)
        self._woken.set()

    async def ask(self, message: m.Message, timeout_s: float) -> m.Message:
        """Send a request of the server's and return the reply.

        Raises:
            UnavailableError: None came in time, or the session ended.
        """
        if self.is_closed:
            raise UnavailableError("the connection has ended")
        id = self._next_id
        self._next_id += 2
        future: asyncio.Future[m.Message] = asyncio.get_running_loop().create_future()
        self._asked[id] = future
        try:
            self._post(m.encode_frame(id, message))
            async with asyncio.timeout(timeout_s):
                return await future
        except TimeoutError:
            raise UnavailableError("no reply in time") from None
        finally:
            self._asked.pop(id, None)

    def stop(self) -> None:
        """Take no more requests; the shell ends the connection."""
        self.is_closed = True
        self._woken.set()

    def close(self, reason: str) -> None:
        """End the connection."""
        if not self.is_closed:
            self.is_closed = True
            self._close(reason)
            self._woken.set()

    async def end(self) -> None:
        """Clean up after the connection ended, for whatever reason."""
        from coordinator.requests.opening import left

        self.is_closed = True
        self._woken.set()
        self.coordinator.sessions.pop(self.number, None)
        self.coordinator.staging.drop(self.number)
        for future in self._asked.values():
            if not future.done():
                future.set_exception(UnavailableError("the connection has ended"))
        await left(self.coordinator, self)

    def _take_reply(self, frame: m.Frame) -> None:
        future = self._asked.get(frame.id)
        if future is not None and not future.done():
            future.set_result(frame.body)

    async def _handle(self, frame: m.Frame) -> m.Message:
        from coordinator.requests import HANDLERS

        kinds, handler = HANDLERS.get(type(frame.body), (frozenset(), None))
        if handler is None:
            return m.Failure("protocol", "this message is no request")
        if self.kind not in kinds:
            return m.Failure("access_denied", f"this request does not belong into a session that is {self.kind.value}")
        try:
            return await handler(self.coordinator, self, frame.body)
        except KinfolderError as error:
            log.debug("refused", request=type(frame.body).__name__, code=error.code)
            return m.Failure(error.code, str(error))
        except OverflowError:
            return m.Failure("protocol", "a number is out of range")
        except asyncio.CancelledError:
            raise
        except Exception:
            log.exception("a request failed", request=type(frame.body).__name__)
            return m.Failure("error", "the coordinator failed; its log says why")


def _encode(id: int, reply: m.Message) -> bytes:
    data = m.encode_frame(id, reply, reply=True)
    if len(data) <= limits.MESSAGE_BYTES_MAX:
        return data
    with contextlib.suppress(Exception):
        log.error("a reply is too long", reply=type(reply).__name__, bytes=len(data))
    return m.encode_frame(id, m.Failure("error", "the answer is too long"), reply=True)
