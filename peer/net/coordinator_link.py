"""The one channel from a device to its coordinator: login, requests with replies, notices.

Rule 1: the device signs only what it composed itself (:func:`protocol.messages.login_bytes`).
Rule 2: the coordinator's keys are pinned at first contact; other keys later are an error, never a question.
Rule 3: time limits are ``asyncio.timeout``: in Python 3.11 ``wait_for`` can swallow a cancellation that meets a result.
Rule 4: a request fails with ``UnavailableError`` when the link breaks; whoever asked decides whether to ask again.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar
from urllib.parse import urlsplit

import msgspec
import structlog

from protocol import limits
from protocol import messages as m
from protocol.effects import Channel, ChannelClosedError, Clock, Dialer, Entropy, Patience
from protocol.errors import (
    AccessDeniedError,
    BadSignatureError,
    KinfolderError,
    NoQuorumError,
    ProtocolError,
    RevokedError,
    SecurityError,
    UnavailableError,
    UserError,
)
from protocol.ids import AccountId, DeviceId
from protocol.signing import sign

REQUEST_S: Final = 60.0
CONNECT_S: Final = 10.0
RECONNECT_S_MIN: Final = 0.2
RECONNECT_S_MAX: Final = 30.0
PING_S: Final = 75.0
PATIENCE: Final = Patience(CONNECT_S, PING_S, PING_S / 2)
TAKEN_OUT: Final = (
    "this device was taken out of the account: it syncs no more, and its files stay as they are;"
    " to bring it back, remove its folders and link it anew with another --home"
)

Reply = TypeVar("Reply", bound=msgspec.Struct)
log = structlog.get_logger("coordinator_link")


class Address(msgspec.Struct, frozen=True):
    """Where the coordinator is and what it must show."""

    url: str
    certificate_sha256: bytes
    """Of its TLS certificate; empty where the system's trust decides, or on loopback without TLS."""
    log_key: bytes
    token_key: bytes
    """Both empty until the first contact."""


class Identity(msgspec.Struct, frozen=True):
    """As whom to log in."""

    account: AccountId
    device: DeviceId
    sign_seed: bytes

    def __repr__(self) -> str:
        """Show no secret."""
        return "Identity(...)"


class StaleError(KinfolderError):
    """A link was added to a chain that has grown meanwhile: read it and try again."""

    code = "stale"


class BehindError(UnavailableError):
    """The coordinator lost its newest part and must be given it back before it can append."""

    code = "behind"


class RefusedError(AccessDeniedError):
    """The coordinator refuses what it was asked: its word, and no finding of ours about what it showed."""


_FAILURES: Final[dict[str, type[KinfolderError]]] = {
    e.code: e
    for e in (
        RefusedError,
        BadSignatureError,
        NoQuorumError,
        ProtocolError,
        SecurityError,
        StaleError,
        BehindError,
        UnavailableError,
    )
}


def failure(reply: m.Failure) -> KinfolderError:
    """Return the error that a `Failure` stands for."""
    if reply.code == RevokedError.code:
        return RevokedError(TAKEN_OUT)
    if reply.code in ("user", "token", "limit", "name"):
        return UserError(reply.text, code=reply.code)
    return _FAILURES.get(reply.code, UnavailableError)(reply.text)


def origin_of(url: str) -> str:
    """Return scheme, host and port of a URL, as a login binds itself to them."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


class Session:
    """One open channel after the server's challenge: sends requests, matches replies, hands notices on."""

    def __init__(self, channel: Channel, challenge: m.Challenge, certificate_sha256: bytes, origin: str) -> None:
        self.challenge = challenge
        self.certificate_sha256 = certificate_sha256
        self.origin = origin
        self.notices: asyncio.Queue[m.Message] = asyncio.Queue(maxsize=256)
        self._channel = channel
        self._next_id = 0
        self._waiting: dict[int, asyncio.Future[m.Message]] = {}
        self._slots = asyncio.Semaphore(limits.REQUESTS_IN_FLIGHT_MAX)
        self._reader: asyncio.Task[None] | None = None
        self.closed = asyncio.Event()

    def start(self) -> None:
        """Begin to read."""
        self._reader = asyncio.create_task(self._read(), name="coordinator-reader")

    async def close(self) -> None:
        """Close the channel; whoever waits for a reply gets an `UnavailableError`."""
        with contextlib.suppress(Exception):
            await self._channel.close()
        if self._reader is not None:
            await asyncio.wait([self._reader])

    async def ask(self, body: m.Message, kind: type[Reply], *, timeout_s: float = REQUEST_S) -> Reply:
        """Send a request and return its reply.

        Raises:
            UnavailableError: The link broke, or no reply came in time.
            KinfolderError: What the server answered instead.
        """
        async with self._slots:
            self._next_id += 2
            id = self._next_id
            future: asyncio.Future[m.Message] = asyncio.get_running_loop().create_future()
            self._waiting[id] = future
            try:
                await self._channel.send(m.encode_frame(id, body))
                async with asyncio.timeout(timeout_s):
                    reply = await future
            except ChannelClosedError as error:
                raise UnavailableError("the link to the coordinator broke") from error
            except TimeoutError as error:
                raise UnavailableError("the coordinator does not answer") from error
            finally:
                self._waiting.pop(id, None)
                if future.done() and not future.cancelled():
                    future.exception()  # seen, also where sending failed first
        if isinstance(reply, m.Failure):
            raise failure(reply)
        if not isinstance(reply, kind):
            raise ProtocolError(f"the coordinator answered with {type(reply).__name__}")
        return reply

    async def _read(self) -> None:
        try:
            while True:
                frame = m.decode_frame(await self._channel.receive())
                if frame.reply:
                    waiting = self._waiting.get(frame.id)
                    if waiting is not None and not waiting.done():
                        waiting.set_result(frame.body)
                elif self.notices.full():
                    # Notices are hints about heads; after this one, all heads are asked for anyway.
                    self.notices.get_nowait()
                    self.notices.put_nowait(frame.body)
                else:
                    self.notices.put_nowait(frame.body)
        except (ChannelClosedError, OSError):
            pass
        except KinfolderError as error:
            log.warning("bad message from the coordinator", code=error.code)
        except Exception:
            log.exception("a message from the coordinator could not be handled")
        finally:
            self.closed.set()
            for future in self._waiting.values():
                if not future.done():
                    future.set_exception(UnavailableError("the link to the coordinator broke"))
            with contextlib.suppress(Exception):
                await self._channel.close()


async def open_session(address: Address, dialer: Dialer) -> Session:
    """Connect and read the challenge.

    Raises:
        UnavailableError: The coordinator cannot be reached.
        SecurityError: It shows another certificate or other keys than those that are pinned.
        UserError: The URL cannot be used.
    """
    channel, seen = await dialer.dial(address.url, pin=address.certificate_sha256, patience=PATIENCE)
    try:
        async with asyncio.timeout(CONNECT_S):
            frame = m.decode_frame(await channel.receive())
        if not isinstance(frame.body, m.Challenge):
            raise ProtocolError("the coordinator did not begin with a challenge")
        challenge = frame.body
        if address.log_key and (challenge.log_key, challenge.token_key) != (address.log_key, address.token_key):
            raise SecurityError(f"the coordinator at {address.url} shows other keys than it did before")
    except (ChannelClosedError, TimeoutError) as error:
        await channel.close()
        raise UnavailableError("the coordinator does not answer") from error
    except BaseException:
        await channel.close()
        raise
    session = Session(channel, challenge, seen, origin_of(address.url))
    session.start()
    return session


async def login(session: Session, identity: Identity, entropy: Entropy) -> None:
    """Prove to the coordinator which device this is.

    Raises:
        AccessDeniedError: It does not know the device.
        RevokedError: The device was taken out of the account.
    """
    nonce = entropy(32)
    covered = m.login_bytes(
        session.challenge, session.origin, session.certificate_sha256, nonce, identity.account + identity.device
    )
    await session.ask(
        m.Login(identity.account, identity.device, nonce, sign("login", covered, identity.sign_seed)), m.Ok
    )


class CoordinatorLink:
    """Keeps a session open as long as it may, with growing pauses between attempts.

    Args:
        address: Where to; its keys are pinned.
        identity: As whom.
        dialer: Opens channels.
        clock: For the pauses.
        entropy: For nonces and jitter.
        on_session: Called with each new session, before anyone else may use it.
        on_notice: Called with each notice, in order.
        on_taken_out: Called when the coordinator says that this device was taken out of its account.
    """

    def __init__(
        self,
        address: Address,
        identity: Identity,
        *,
        dialer: Dialer,
        clock: Clock,
        entropy: Entropy,
        on_session: Callable[[Session], Awaitable[None]],
        on_notice: Callable[[m.Message], Awaitable[None]],
        on_taken_out: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self.address = address
        self._identity = identity
        self._dialer = dialer
        self._clock = clock
        self._entropy = entropy
        self._on_session = on_session
        self._on_notice = on_notice
        self._on_taken_out = on_taken_out
        self._session: Session | None = None
        self._changed = asyncio.Event()
        self._retry_now = asyncio.Event()
        self.refusal: KinfolderError | None = None
        """Why the coordinator will not have us, where waiting does not help."""
        self.failures = 0
        self.was_tried = False
        """Whether anybody has looked if the coordinator is there."""
        self.clock_ahead_ms = 0
        """How far this device's clock was before the coordinator's at the last contact."""
        self._heard: tuple[int, float] | None = None

    def now_ms(self) -> int:
        """Return the coordinator's wall clock: this device's may be years off, and grants live by the coordinator's."""
        if self._heard is None:
            return self._clock.now_ms()
        time_ms, at_s = self._heard
        return time_ms + round((self._clock.monotonic_s() - at_s) * 1000)

    @property
    def is_up(self) -> bool:
        """Whether a session is open and logged in."""
        return self._session is not None

    def retry_now(self) -> None:
        """Do not wait out the pause between attempts."""
        self._retry_now.set()

    async def connect_once(self) -> None:
        """Open a session now, once; raises what went wrong."""
        if self._session is None:
            self.was_tried = True
            session = await open_session(self.address, self._dialer)
            time_ms = session.challenge.time_ms
            self._heard = (time_ms, self._clock.monotonic_s())
            self.clock_ahead_ms = self._clock.now_ms() - time_ms
            try:
                await login(session, self._identity, self._entropy)
                await self._on_session(session)
            except BaseException as error:
                await session.close()
                if isinstance(error, RevokedError) and self._on_taken_out is not None:
                    await self._on_taken_out()
                raise
            self._session = session
            self._changed.set()

    async def run(self) -> None:
        """Keep a session open until cancelled; nothing else ends it."""
        try:
            while True:
                try:
                    await self.connect_once()
                    self.refusal, self.failures = None, 0
                    await self._serve()
                except KinfolderError as error:
                    self.refusal = None if isinstance(error, UnavailableError) else error
                    self.failures += 1
                    log.info("no coordinator", code=error.code, failures=self.failures)
                    await self._pause()
                except Exception:
                    self.refusal = None
                    self.failures += 1
                    log.exception("the link to the coordinator failed", failures=self.failures)
                    await self._pause()
        finally:
            await self.close()

    async def close(self) -> None:
        """Close the session, if one is open."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def ask(self, body: m.Message, kind: type[Reply], *, timeout_s: float = REQUEST_S) -> Reply:
        """Send a request over the open session.

        Raises:
            UnavailableError: There is none, or it broke.
        """
        session = self._session
        if session is None:
            if self.refusal is not None:
                raise self.refusal
            raise UnavailableError("the coordinator cannot be reached")
        return await session.ask(body, kind, timeout_s=timeout_s)

    async def wait_up(self, timeout_s: float) -> bool:
        """Wait for a session; tell whether there is one."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while self._session is None and self.refusal is None:
                    self._changed.clear()
                    await self._changed.wait()
        return self._session is not None

    async def _serve(self) -> None:
        session = self._session
        assert session is not None
        handing_on = asyncio.create_task(self._hand_on(session), name="coordinator-notices")
        try:
            await session.closed.wait()
        finally:
            handing_on.cancel()
            await asyncio.gather(handing_on, return_exceptions=True)
            await self.close()

    async def _hand_on(self, session: Session) -> None:
        while True:
            notice = await session.notices.get()
            try:
                await self._on_notice(notice)
            except Exception:
                log.exception("a notice could not be handled", kind=type(notice).__name__)

    async def _pause(self) -> None:
        base = min(RECONNECT_S_MAX, RECONNECT_S_MIN * 2 ** min(self.failures, 10))
        jitter = 0.5 + int.from_bytes(self._entropy(4), "big") / (1 << 33)
        self._retry_now.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(base * jitter):
                await self._retry_now.wait()
