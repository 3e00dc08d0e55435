"""The one channel from a storage node to its coordinator: login, reports, orders.

Rule 1: the node signs only what it composed itself (:func:`protocol.messages.login_bytes`).
Rule 2: the coordinator's keys are pinned by the first login; other keys later are refused, every time.
Rule 3: a link that breaks is made again, with growing pauses; only the first login may end the node.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Final, NamedTuple

import structlog

from protocol import limits
from protocol import messages as m
from protocol.effects import (
    CLOSE_GOING,
    CLOSE_NORMAL,
    Channel,
    ChannelClosedError,
    Clock,
    Dialer,
    Entropy,
    Patience,
)
from protocol.errors import (
    KinfolderError,
    ProtocolError,
    RevokedError,
    SecurityError,
    UnavailableError,
    UserError,
    unreachable_because,
)
from protocol.signing import sign
from storage_node.identity import Coordinator, Identity

log = structlog.get_logger("link")

CONNECT_S: Final = 10.0
PING_S: Final = 10.0
"""A silent coordinator must be noticed soon: without it only young grants are honoured."""
PATIENCE: Final = Patience(CONNECT_S, PING_S, PING_S)
REPLY_S: Final = 30.0
RETRY_S_MIN: Final = 0.2
RETRY_S_MAX: Final = 20.0
REPORT_S: Final = 60.0
ORDERS_MAX: Final = 2
"""How many orders are carried out at once."""
LOST_PAGE: Final = 4_096


class Contact(NamedTuple):
    """Where the coordinator is, and what lets this node in for the first time."""

    url: str
    fingerprint: bytes | None
    token: str


class Presence(NamedTuple):
    """What a node says of itself when it logs in."""

    url: str
    certificate: bytes
    zone: str


class Duties(NamedTuple):
    """What the node does for the coordinator."""

    welcome: Callable[[Coordinator, m.NodeWelcome], Awaitable[None]]
    """After a login, and whenever the nodes or the revocations changed."""
    broken: Callable[[], None]
    report: Callable[[], Awaitable[m.NodeReport]]
    replicate: Callable[[m.Replicate], Awaitable[m.Replicated]]
    lost: Callable[[], Awaitable[tuple[bytes, ...]]]
    leave: Callable[[bool], None]
    """At each login, and when it is told: whether the node is going out of service."""
    retire: Callable[[], None]
    """The node is out of service, for ever."""


class HeardClock:
    """The coordinator's wall clock, by which grants live; this machine's own may be years off."""

    def __init__(self, own: Clock) -> None:
        """Begin with the machine's own clock, for as long as nothing else is known."""
        self._own = own
        self._heard: tuple[int, float] | None = None

    def hear(self, now_ms: int) -> None:
        """Take what the coordinator's clock shows now."""
        self._heard = (now_ms, self._own.monotonic_s())

    def now_ms(self) -> int:
        """Return milliseconds since 1970."""
        if self._heard is None:
            return self._own.now_ms()
        heard_ms, at_s = self._heard
        return heard_ms + round((self._own.monotonic_s() - at_s) * 1000)

    def monotonic_s(self) -> float:
        """Return seconds since some moment of this machine."""
        return self._own.monotonic_s()


class RefusedError(KinfolderError):
    """The coordinator will not have this node; the text is its own line."""

    code = "refused"


class RetiredError(RefusedError):
    """This node is out of service."""


class Link:
    """Keeps the node logged in.

    Args:
        contact: Where to.
        identity: As whom; what it pinned binds.
        presence: What to say of itself.
        duties: What to do.
        dialer: Opens channels.
        clock: For the pauses.
        entropy: For nonces and jitter.
        heard: Told what the coordinator's clock shows.
    """

    def __init__(
        self,
        contact: Contact,
        identity: Identity,
        presence: Presence,
        duties: Duties,
        *,
        dialer: Dialer,
        clock: Clock,
        entropy: Entropy,
        heard: HeardClock | None = None,
    ) -> None:
        self._heard = heard
        self._contact = contact
        self._identity = identity
        self._presence = presence
        self._duties = duties
        self._dialer = dialer
        self._clock = clock
        self._entropy = entropy
        self._pinned = identity.coordinator
        self._orders = asyncio.Semaphore(ORDERS_MAX)
        self._check_lost = asyncio.Event()
        self.admitted = asyncio.Event()
        """Set by the first login ever that succeeded."""

    def tell_lost(self) -> None:
        """Say that the list of lost chunks has grown."""
        self._check_lost.set()

    async def run(self, *, is_first_start: bool) -> None:
        """Stay logged in until cancelled, or until the coordinator says that this node is out of service.

        Raises:
            UserError: At the first start only: the coordinator does not admit this node, or cannot be trusted.
        """
        failures = 0
        while True:
            try:
                await self._session()
                failures = 0
            except RetiredError as error:
                self._retire(str(error))
                return
            except (RefusedError, SecurityError, ProtocolError) as error:
                if is_first_start and not self.admitted.is_set():
                    raise UserError(str(error)) from error
                who = (
                    "the coordinator refuses this node"
                    if isinstance(error, RefusedError)
                    else "the coordinator is refused"
                )
                log.warning(who, reason=str(error))
                failures += 1
            except UnavailableError as error:
                if failures == 0:
                    log.warning("no coordinator, trying again", reason=str(error))
                failures += 1
            except Exception:
                # Nothing that a coordinator says may end the node; what cannot be said here was not foreseen.
                if is_first_start and not self.admitted.is_set():
                    raise
                log.exception("the link to the coordinator failed")
                failures += 1
            finally:
                self._duties.broken()
            await asyncio.sleep(self._pause_s(failures))

    def _retire(self, reason: str) -> None:
        self._duties.retire()
        log.warning("the coordinator refuses this node", reason=reason)

    def _pause_s(self, failures: int) -> float:
        spread = 0.5 + int.from_bytes(self._entropy(2), "big") / 0x1_0000 / 2
        return min(RETRY_S_MAX, RETRY_S_MIN * 2.0 ** min(failures, 10)) * spread

    # --- One session

    async def _session(self) -> None:
        try:
            channel, certificate = await self._dialer.dial(
                self._contact.url, pin=self._fingerprint or b"", patience=PATIENCE
            )
            try:
                await self._serve(channel, certificate)
            finally:
                await channel.close()
        except ChannelClosedError as error:
            if not self.admitted.is_set():
                raise UnavailableError("the coordinator broke off") from error
            log.info("the link to the coordinator broke")
        except (OSError, ValueError, TimeoutError, EOFError) as error:
            raise UnavailableError(f"{self._contact.url} cannot be reached: {unreachable_because(error)}") from error

    @property
    def _fingerprint(self) -> bytes | None:
        return self._contact.fingerprint or (self._pinned.certificate_sha256 if self._pinned is not None else None)

    async def _serve(self, channel: Channel, certificate: bytes) -> None:
        coordinator = await self._login(channel, certificate)
        asker = _Asker(channel)
        tasks: dict[asyncio.Task[None], None] = {}
        try:
            for work in (self._report(asker), self._tell_lost(asker)):
                tasks[asyncio.create_task(work)] = None
            while True:
                try:
                    frame = m.decode_frame(await channel.receive())
                except ChannelClosedError as error:
                    if error.code in (CLOSE_NORMAL, CLOSE_GOING):
                        return
                    raise
                match frame:
                    case m.Frame(reply=True):
                        asker.answer(frame)
                    case m.Frame(body=m.NodeWelcome() as welcome):
                        await self._duties.welcome(coordinator, welcome)
                    case m.Frame(body=m.NodeLeaves()):
                        log.warning("this node is going out of service: it takes nothing new")
                        self._duties.leave(True)
                    case m.Frame(body=m.Replicate() as order):
                        task = asyncio.create_task(self._replicate(channel, frame.id, order))
                        tasks[task] = None
                        task.add_done_callback(tasks.pop)
                    case m.Frame(id=0):
                        pass
                    case _:
                        await channel.send(
                            m.encode_frame(frame.id, m.Failure("protocol", "not for a node"), reply=True)
                        )
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _login(self, channel: Channel, certificate: bytes) -> Coordinator:
        challenge = (await _receive(channel)).body
        if not isinstance(challenge, m.Challenge):
            raise ProtocolError("the coordinator did not begin with a challenge")
        shown = (challenge.log_key, challenge.token_key)
        if self._pinned is not None and shown != (self._pinned.log_key, self._pinned.token_key):
            raise SecurityError(f"{self._contact.url} shows other keys than the coordinator that admitted this node")
        login_s = self._clock.monotonic_s()
        skew_s = abs(challenge.time_ms - self._clock.now_ms()) / 1000
        if skew_s > limits.CLOCK_SKEW_S_MAX / 2:
            log.warning("this clock and the coordinator's differ", seconds=round(skew_s))
        nonce = self._entropy(32)
        key = self._identity.sign_public
        covered = m.login_bytes(challenge, self._contact.url, certificate, nonce, key)
        free_bytes = (await self._duties.report()).free_bytes
        login = m.NodeLogin(
            token="" if self._pinned is not None else self._contact.token,
            sign=key,
            url=self._presence.url,
            certificate=self._presence.certificate,
            zone=self._presence.zone,
            free_bytes=free_bytes,
            nonce=nonce,
            signature=sign("login", covered, self._identity.sign_seed),
        )
        await channel.send(m.encode_frame(_LOGIN_ID, login))
        match (await _receive(channel)).body:
            case m.NodeWelcome() as welcome:
                pass
            case m.Failure(code=code, text=text) if code in _TRANSIENT:
                raise UnavailableError(text)
            case m.Failure(code=RevokedError.code, text=text):
                raise RetiredError(text)
            case m.Failure(text=text):
                raise RefusedError(text)
            case _:
                raise ProtocolError("the coordinator did not answer the login")
        url = self._contact.url
        pin = self._fingerprint
        coordinator = self._pinned or Coordinator(url, challenge.log_key, challenge.token_key, pin)
        if self._heard is not None:
            self._heard.hear(challenge.time_ms + round((self._clock.monotonic_s() - login_s) * 1000))
        self._duties.leave(False)
        await self._duties.welcome(coordinator, welcome)
        self._pinned = coordinator
        self.admitted.set()
        log.info("logged in", nodes=len(welcome.nodes))
        return coordinator

    async def _report(self, asker: _Asker) -> None:
        while True:
            with contextlib.suppress(KinfolderError):
                await asker.ask(await self._duties.report())
            await asyncio.sleep(REPORT_S + self._pause_s(0))

    async def _tell_lost(self, asker: _Asker) -> None:
        """Name all that is lost after each login and whenever more was found."""
        while True:
            self._check_lost.clear()
            try:
                lost = await self._duties.lost()
                for begin in range(0, len(lost), LOST_PAGE):
                    await asker.ask(m.LostChunks(lost[begin : begin + LOST_PAGE]))  # type: ignore[arg-type]
            except KinfolderError as error:
                log.warning("losses could not be told", code=error.code)
            await self._check_lost.wait()

    async def _replicate(self, channel: Channel, id: int, order: m.Replicate) -> None:
        reply: m.Message
        try:
            async with self._orders:
                reply = await self._duties.replicate(order)
        except KinfolderError as error:
            log.info("could not copy", code=error.code, chunks=len(order.chunks))
            reply = m.Failure(error.code, "the chunks could not be copied")
        with contextlib.suppress(ChannelClosedError):
            await channel.send(m.encode_frame(id, reply, reply=True))


class _Asker:
    """Sends requests over one channel and matches the replies."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._last_id = _LOGIN_ID
        self._waiting: dict[int, asyncio.Future[m.Message]] = {}

    async def ask(self, body: m.Message) -> None:
        """Send a request and wait for `Ok`.

        Raises:
            UnavailableError: No answer, or another one.
        """
        self._last_id += 2
        id = self._last_id
        answer: asyncio.Future[m.Message] = asyncio.get_running_loop().create_future()
        self._waiting[id] = answer
        try:
            await self._channel.send(m.encode_frame(id, body))
            # Not wait_for: up to Python 3.11 it may swallow a cancellation.
            async with asyncio.timeout(REPLY_S):
                reply = await answer
        except (ChannelClosedError, TimeoutError) as error:
            raise UnavailableError("the coordinator does not answer") from error
        finally:
            self._waiting.pop(id, None)
        if not isinstance(reply, m.Ok):
            raise UnavailableError(f"the coordinator answered with {type(reply).__name__}")

    def answer(self, frame: m.Frame) -> None:
        """Take in a reply."""
        waiting = self._waiting.get(frame.id)
        if waiting is not None and not waiting.done():
            waiting.set_result(frame.body)


_LOGIN_ID: Final = 2
_TRANSIENT: Final = ("unavailable", "behind", "error", "limit")


async def _receive(channel: Channel) -> m.Frame:
    async with asyncio.timeout(CONNECT_S):
        return m.decode_frame(await channel.receive())
