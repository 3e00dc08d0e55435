"""Channels of the simulated network: whole messages between two hosts, and every way in which they end.

Rule 1: an end knows only what reached it: the other may be gone long before a word of that arrives.
Rule 2: memory is bounded: who sends faster than the other reads waits.
Rule 3: whatever happens to a channel stands in the trace.
"""

# ruff: noqa: SLF001 - the two ends of a channel are one thing; only the wire between them is not

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from protocol import limits
from protocol.effects import CLOSE_BROKEN, CLOSE_NORMAL, ChannelClosedError, Patience
from simulations.hosts import Host, HostCrashed
from simulations.links import Link, Way
from simulations.loop import SECOND_NS, SimLoop

GIVES_UP_S: Final = 600
"""After this time without a word that what it sent has arrived, a machine takes a connection for broken."""
CLOSE_S: Final = 5
"""How long :meth:`End.close` waits for the other end."""
TOO_BIG: Final = 1009
_PACKET_BYTES: Final = 60

Divide = Callable[[bytes, int], bytes]
"""What arrives of a message of which only so many bytes got through."""


class End:
    """One end of a channel; a :class:`protocol.effects.AcceptedChannel`.

    Args:
        loop: Of the run.
        host: Whose end it is.
        peer: The address of the other end.
        out: What this end sends goes here.
        dialled: The URL that the other end dialled; empty at the end that did.
    """

    def __init__(self, loop: SimLoop, host: Host, peer: str, out: Link, dialled: str = "") -> None:
        self._loop = loop
        self.host = host
        self.peer = peer
        self.dialled = dialled
        self._way = Way(loop, out)
        self._other: End | None = None
        self._inbox: deque[bytes] = deque()
        self._ended: ChannelClosedError | None = None
        """Why nothing more comes, once that is known here."""
        self._is_closing = False
        self._is_forgotten = False
        self._in_use_bytes = 0
        """Sent by this end and not read by the other yet."""
        self._reader: asyncio.Future[None] | None = None
        self._writers: deque[asyncio.Future[None]] = deque()
        self._pongs: deque[asyncio.Future[None]] = deque()
        self._closed: asyncio.Future[None] | None = None
        self._gives_up: asyncio.TimerHandle | None = None
        self._bytes_max = limits.MESSAGE_BYTES_MAX
        self._is_parted = False
        self.on_end: Callable[[End], None] | None = None
        """Called once, when this end is of no use any more."""

    def join(self, other: End) -> None:
        """Make two ends one channel."""
        self._other, other._other = other, self

    def machines(self) -> tuple[str, str]:
        """Return the names of this end's machine and of the other's."""
        return self._way.link.source, self._way.link.target

    @property
    def is_open(self) -> bool:
        """Whether this end knows of no reason why it could not be used."""
        return self._ended is None and not self._is_closing

    # --- What the product calls

    async def send(self, data: bytes, *, divide: Divide | None = None) -> None:
        """Send a message; return once it is accepted, which waits while the other end does not read.

        ``divide``: a fault may let a part of it through; otherwise all of it arrives or nothing.
        """
        self._check()
        if self._writers or self._is_full(len(data)):
            await self._wait_for_room(len(data))
        self.send_now(data, divide=divide)

    def takes(self, size: int) -> bool:
        """Whether so much can be sent without waiting."""
        return self.is_open and not self.host.is_dead and not self._writers and not self._is_full(size)

    def send_now(self, data: bytes, *, divide: Divide | None = None) -> None:
        """As :meth:`send`, for whoever knows that it takes that much."""
        self.host.effect()
        alter = self._way.link.alter
        for one in (data,) if alter is None else alter(data):
            self._send_one(one, divide)

    def _send_one(self, data: bytes, divide: Divide | None) -> None:
        link = self._way.link
        self._loop.note("send", link.name, data)
        self._in_use_bytes += len(data)
        if link.cut_after_bytes is not None:
            link.cut_after_bytes -= len(data)
            if link.cut_after_bytes < 0:
                through, link.cut_after_bytes = len(data) + link.cut_after_bytes, None
                if divide is not None and through > 0:
                    data = divide(data, through)
                    self._carry(len(data), self._other_end()._take, data)
                self._carry(_PACKET_BYTES, self.break_both, "cut off")
                if link.on_cut is not None:
                    link.on_cut()
                return
        self._carry(len(data) + _PACKET_BYTES, self._other_end()._take, data)
        if link.repeats:
            link.repeats -= 1
            self._loop.note("repeat", link.name, data)
            self._in_use_bytes += len(data)
            self._carry(len(data) + _PACKET_BYTES, self._other_end()._take, data)

    async def receive(self) -> bytes:
        """Return the next message."""
        self._check_alive()
        while not self._inbox:
            if self._ended is not None:
                raise self._again(self._ended)
            assert self._reader is None, "one task receives"
            self._reader = self._loop.create_future()
            try:
                await self._reader
            finally:
                self._reader = None
        data = self._inbox.popleft()
        # What was read makes room at the other end, as soon as that can hear of it.
        self._way.at_once(self._other_end()._has_room, len(data))
        return data

    async def close(self, code: int = CLOSE_NORMAL, reason: str = "") -> None:
        """End it and wait, for a bounded time, until the other end knows; a second call does nothing."""
        self._check_alive()
        if self._is_closing or self._ended is not None:
            return
        self.host.effect()
        self._is_closing = True
        self._loop.note("close", f"{self._way.link.name} {code}")
        self._closed = self._loop.create_future()
        self._carry(_PACKET_BYTES, self._other_end()._hear_close, code, reason)
        try:
            async with asyncio.timeout(CLOSE_S):
                await self._closed
        except TimeoutError:
            pass
        finally:
            if not self.host.is_dead:
                self._end(ChannelClosedError(code, reason))

    def allow(self, bytes_max: int) -> None:
        """Take messages up to this size from now on."""
        self._bytes_max = bytes_max

    async def ping(self) -> None:
        """Wait until the other end has said that it is there."""
        self._check()
        if self._would_answer():
            return
        pong: asyncio.Future[None] = self._loop.create_future()
        self._pongs.append(pong)
        self._carry(_PACKET_BYTES, self._other_end()._hear_ping)
        await pong

    def abort(self) -> None:
        """End it without a word: behind what was sent, the other end finds it broken."""
        self._check_alive()
        if self._ended is None:
            self.host.effect()
            self._loop.note("abort", self._way.link.name)
            self._carry(_PACKET_BYTES, self._other_end()._hear_reset)
            self._end(ChannelClosedError(CLOSE_BROKEN, "aborted"))

    def part(self) -> None:
        """Want nothing more of a channel that would be kept for the next request: it is gone once both ends want nothing.

        Nothing is sent, as nothing is where connections are kept.
        """
        self._check_alive()
        self._is_parted = True
        other = self._other_end()
        if other._is_parted or other._ended is not None:
            for end in (self, other):
                end._end(ChannelClosedError(CLOSE_NORMAL))

    def keep_asking(self, patience: Patience) -> None:
        """Ask the other end from time to time whether it is there, and break the channel if it does not say so."""
        self._loop.call_later(patience.ping_s, self._ask, patience, context=self.host.context)

    # --- What the network does

    def lose(self, reason: str) -> None:
        """Break this end; the other is not told, and what is under way to it goes on."""
        if self._ended is None:
            self._loop.note("break", f"{self._way.link.target}>{self._way.link.source} {reason}")
            self._end(ChannelClosedError(CLOSE_BROKEN, reason))

    def drop_sent(self) -> None:
        """Let nothing arrive any more of what this end sent."""
        self._way.drop()

    def hang_up(self) -> None:
        """Do what an operating system does for a process that is gone: say that no more comes, behind what was sent."""
        self._carry(_PACKET_BYTES, self._other_end()._hear_close, CLOSE_BROKEN, "")

    def reset(self) -> None:
        """Do what an operating system does for a process that is gone and had not read everything."""
        self._reset_other()

    def doubt(self) -> None:
        """A link was cut: let the machine begin to give up, if it waits for a word that something arrived."""
        if self._is_unanswered() and (not self._way.is_idle or self._in_use_bytes):
            self._begin_to_give_up()

    def hope(self) -> None:
        """A link is whole again, or something was heard: the machine gives up no more."""
        if self._gives_up is not None and not self._is_unanswered():
            self._gives_up.cancel()
            self._gives_up = None

    def forget(self) -> None:
        """Let the network know nothing of this connection any more: what this end sends is lost from now on."""
        self._is_forgotten = True
        self._way.drop()
        self.doubt()

    def break_both(self, reason: str) -> None:
        """Break both ends at this instant; what is under way is gone."""
        for end in (self, self._other_end()):
            end.drop_sent()
        for end in (self._other_end(), self):
            if end._ended is None:
                end._loop.note("break", f"{end._way.link.target}>{end._way.link.source} {reason}")
                end._end(ChannelClosedError(CLOSE_BROKEN, reason))

    def _reset_other(self) -> None:
        self._way.drop()
        Way(self._loop, self._way.link, counts=False).carry(_PACKET_BYTES, self._other_end()._hear_reset)

    # --- What arrives at this end

    def _take(self, data: bytes) -> None:
        if self._is_gone():
            self._refuse()
            return
        self._other_end()._is_heard()
        if self._ended is not None:
            return
        if len(data) > self._bytes_max:
            self._carry(_PACKET_BYTES, self._other_end()._hear_close, TOO_BIG, "message too big")
            self._end(ChannelClosedError(TOO_BIG, "message too big"))
            return
        self._loop.note("deliver", f"{self._way.link.target}>{self._way.link.source}", data)
        self._inbox.append(data)
        self._wake()

    def _hear_close(self, code: int, reason: str) -> None:
        if self._is_gone():
            self._refuse()
            return
        self._other_end()._is_heard()
        if self._ended is None:
            self._end(ChannelClosedError(code, reason))
        # The library of the other side answers, as soon as its process runs.
        self._loop.call_soon(self._answer_close, context=self.host.context)

    def _answer_close(self) -> None:
        self._carry(_PACKET_BYTES, self._other_end()._hear_closed)

    def _hear_closed(self) -> None:
        if self._closed is not None and not self._closed.done():
            self._closed.set_result(None)

    def _hear_reset(self) -> None:
        if not self.host.is_dead and self._ended is None:
            self.lose("reset by the other end")

    def _hear_ping(self) -> None:
        if self._is_gone():
            self._refuse()
            return
        self._other_end()._is_heard()
        self._loop.call_soon(self._answer_ping, context=self.host.context)

    def _answer_ping(self) -> None:
        if self._ended is None:
            self._carry(_PACKET_BYTES, self._other_end()._hear_pong)

    def _hear_pong(self) -> None:
        self._other_end()._is_heard()
        if self._pongs:
            pong = self._pongs.popleft()
            if not pong.done():
                pong.set_result(None)

    def _has_room(self, size: int) -> None:
        self._in_use_bytes -= size
        self._wake_writer()

    def _is_heard(self) -> None:
        """Learn that what this end sent arrives."""
        self.hope()

    def _is_gone(self) -> bool:
        """Whether this end's machine knows nothing of the channel any more."""
        return self.host.is_dead or (self._ended is not None and self._ended.code == CLOSE_BROKEN)

    def _refuse(self) -> None:
        """Answer as a machine does that knows nothing of a connection."""
        Way(self._loop, self._way.link, counts=False).carry(_PACKET_BYTES, self._other_end()._hear_reset)

    # --- Within

    def _carry(self, size: int, arrive: Callable[..., object], *args: Any) -> None:
        self._way.carry(size, arrive, *args)
        if self._gives_up is None and self._is_unanswered():
            self._begin_to_give_up()

    def _is_unanswered(self) -> bool:
        """Whether whatever this end sends is lost, or every word that it came is."""
        return self._is_forgotten or self._way.link.loses or self._other_end()._way.link.loses

    def _begin_to_give_up(self) -> None:
        if self._gives_up is None and self._ended is None and not self.host.is_dead:
            when_ns = self._loop.now_ns + GIVES_UP_S * SECOND_NS
            self._gives_up = self._loop.call_at_ns(when_ns, self._give_up, context=self._loop.world.context)

    def _give_up(self) -> None:
        self._gives_up = None
        self._way.drop()
        self.lose("no answer for too long")

    def _ask(self, patience: Patience) -> None:
        if not self.is_open:
            return
        if self._would_answer():
            self._loop.call_later(patience.ping_s, self._ask, patience, context=self.host.context)
            return
        pong: asyncio.Future[None] = self._loop.create_future()
        self._pongs.append(pong)
        self._carry(_PACKET_BYTES, self._other_end()._hear_ping)
        self._loop.call_later(patience.pong_s, self._judge_pong, pong, patience, context=self.host.context)

    def _would_answer(self) -> bool:
        """Whether nothing is in the way of a ping and its answer: then neither is sent, for there are a great many."""
        other = self._other_end()
        return (
            other.is_open
            and not (self._is_forgotten or other._is_forgotten or self._pongs)
            and self._way.is_open
            and other._way.is_open
            and self._loop.is_at_work(other.host)
        )

    def _judge_pong(self, pong: asyncio.Future[None], patience: Patience) -> None:
        if not self.is_open:
            return
        if not pong.done():
            self._reset_other()
            self.lose("no pong in time")
            return
        self._loop.call_later(
            max(0.0, patience.ping_s - patience.pong_s), self._ask, patience, context=self.host.context
        )

    def _end(self, error: ChannelClosedError) -> None:
        if self._ended is not None:
            return
        self._ended = error
        if self._gives_up is not None:
            self._gives_up.cancel()
            self._gives_up = None
        self._wake()
        for writer in self._writers:
            if not writer.done():
                writer.set_result(None)
        for pong in self._pongs:
            if not pong.done():
                pong.set_exception(self._again(error))
                pong.exception()  # who does not ask for it is not told
        self._pongs.clear()
        if self._closed is not None and not self._closed.done():
            self._closed.set_result(None)
        if self.on_end is not None:
            self.on_end(self)

    def _wake(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    def _wake_writer(self) -> None:
        for writer in self._writers:
            if not writer.done():
                writer.set_result(None)
                return

    def _is_full(self, size: int) -> bool:
        return self._in_use_bytes > 0 and self._in_use_bytes + size > self._way.link.window_bytes

    async def _wait_for_room(self, size: int) -> None:
        while True:
            writer: asyncio.Future[None] = self._loop.create_future()
            self._writers.append(writer)
            try:
                await writer
            finally:
                self._writers.remove(writer)
            self._check()
            if not self._is_full(size):
                self._wake_writer()
                return

    def _check(self) -> None:
        self._check_alive()
        if self._ended is not None:
            raise self._again(self._ended)
        if self._is_closing:
            raise ChannelClosedError(CLOSE_NORMAL)

    def _check_alive(self) -> None:
        if self.host.is_dead:
            raise HostCrashed(self.host.name)

    def _again(self, error: ChannelClosedError) -> ChannelClosedError:
        return ChannelClosedError(error.code, error.reason)

    def _other_end(self) -> End:
        assert self._other is not None
        return self._other
