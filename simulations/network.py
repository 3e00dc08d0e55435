"""The simulated network: machines by name, addresses on which they listen, channels between them, and faults.

Rule 1: between two machines there are two links, one for each direction; each has its own delay and its own trouble.
Rule 2: a fault is a call that takes effect at once; who calls it, and when, is decided elsewhere.
Rule 3: an operating system outlives its processes: it refuses, hangs up and resets for those that are gone.
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Awaitable, Callable
from typing import Final

from protocol import limits
from protocol.effects import CLOSE_GOING, AcceptedChannel, Dialled, Patience
from protocol.errors import SecurityError, UnavailableError, UserError, unreachable_because
from simulations.channels import End
from simulations.delays import FAR, Delay
from simulations.hosts import Host
from simulations.links import Link, Trouble, Way
from simulations.loop import SECOND_NS, SimLoop

DIAL_S: Final = 127
"""How long a machine tries to open a connection to one that does not answer."""
NO_TLS: Final = bytes(32)
_PACKET_BYTES: Final = 60
_HANG_UP_SHARE: Final = 0.5

Serve = Callable[[End], Awaitable[None]]


class Listener:
    """An address on which a host takes channels; made by :meth:`Network.listen`."""

    def __init__(self, host: Host, address: str, serve: Serve, *, closes: bool) -> None:
        self.host = host
        self.address = address
        self.serve = serve
        self.closes = closes
        self.refuses = 0
        """How many of the next ones to dial are refused."""
        self.is_closed = False
        self.certificate_sha256 = NO_TLS

    def close(self) -> None:
        """Take no more channels; the machine refuses them."""
        self.is_closed = True


class Network:
    """All links, listeners and channels of one run.

    Args:
        loop: Of the run.
        delay: Of a link that nobody said anything about.
    """

    def __init__(self, loop: SimLoop, delay: Delay = FAR) -> None:
        self._loop = loop
        self._chance = loop.chance("network")
        self._delay = delay
        self._links: dict[tuple[str, str], Link] = {}
        self._listeners: dict[str, Listener] = {}
        self._ends: dict[End, None] = {}
        self._answers: dict[End, asyncio.Future[End]] = {}
        """To dials that a listener took, until who dialled hears of it."""
        self._troubles: dict[str, Trouble] = {}

    # --- What the doors of the hosts call

    def listen(self, host: Host, address: str, serve: Serve, *, closes: bool = True) -> Listener:
        """Take channels at an address: each is given to ``serve`` in a task of its own.

        ``closes``: the channel is closed when that returns.

        Raises:
            OSError: EADDRINUSE.
        """
        host.effect()
        taken = self._listeners.get(address)
        if taken is not None and not taken.is_closed and not taken.host.is_dead:
            raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
        listener = self._listeners[address] = Listener(host, address, serve, closes=closes)
        self._loop.note("listen", address)
        return listener

    async def dial(self, host: Host, address: str) -> End:
        """Open a channel.

        Raises:
            ConnectionRefusedError: Nobody listens there, or a fault has it so.
            TimeoutError: No word came back.
            OSError: ENETUNREACH, for a machine that is offline.
        """
        host.effect()
        self._loop.note("dial", address)
        if self._troubles.get(host.name, Trouble.NONE) & Trouble.OFFLINE:
            raise OSError(errno.ENETUNREACH, os.strerror(errno.ENETUNREACH))
        listener = self._listeners.get(address)
        if listener is None:
            # No machine is known by that name, or it knows nobody who listens: either takes no link of ours.
            await asyncio.sleep(self._delay.least_ns * 2 / SECOND_NS)
            raise _refused()
        out, back = self.link(host.name, listener.host.name), self.link(listener.host.name, host.name)
        answer: asyncio.Future[End] = self._loop.create_future()
        Way(self._loop, out).carry(_PACKET_BYTES, self._answer, host, address, out, back, answer)
        timer = self._loop.call_at_ns(
            self._loop.now_ns + DIAL_S * SECOND_NS, self._no_answer, answer, context=host.context
        )
        try:
            return await answer
        finally:
            timer.cancel()

    def _answer(self, host: Host, address: str, out: Link, back: Link, answer: asyncio.Future[End]) -> None:
        """Let the machine that was dialled answer."""
        if answer.done():
            return  # who asked has given up, and asks no more
        way = Way(self._loop, back)
        listener = self._listeners[address]
        if listener.is_closed or listener.host.is_dead or listener.refuses:
            listener.refuses = max(0, listener.refuses - 1)
            way.carry(_PACKET_BYTES, _settle_refused, answer)
            return
        near = End(self._loop, host, address, out)
        far = End(self._loop, listener.host, host.name, back, dialled=address)
        near.join(far)
        for end in (near, far):
            end.on_end = self._forget_end
            self._ends[end] = None
        self._answers[near] = answer
        self._loop.note("accept", f"{back.source}<{back.target}")
        self._loop.spawn(listener.host, _serve(listener, far), name=f"{listener.host.name} serves {host.name}")
        way.carry(_PACKET_BYTES, self._opened, near, answer)

    def _opened(self, near: End, answer: asyncio.Future[End]) -> None:
        self._answers.pop(near, None)
        if not answer.done() and not near.host.is_dead:
            answer.set_result(near)
        else:
            near.lose("nobody waits for it any more")
            near.reset()

    def _no_answer(self, answer: asyncio.Future[End]) -> None:
        if not answer.done():
            answer.set_exception(TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT)))

    def certificate(self, address: str) -> bytes:
        """Return the hash of the certificate that is shown at an address."""
        listener = self._listeners.get(address)
        return NO_TLS if listener is None else listener.certificate_sha256

    # --- Links and their troubles

    def link(self, source: str, target: str) -> Link:
        """Return one direction between two machines."""
        link = self._links.get((source, target))
        if link is None:
            link = self._links[source, target] = Link(self._loop, source, target, self._delay)
            link.set_trouble(self._troubles_between(source, target))
        return link

    def between(self, one: str, other: str) -> tuple[Link, Link]:
        """Return both directions between two machines."""
        return self.link(one, other), self.link(other, one)

    def cut(self, source: str, target: str) -> None:
        """Lose what goes from one machine to another; the other direction is as it was."""
        self._block([self.link(source, target)], Trouble.CUT)

    def heal(self, source: str, target: str) -> None:
        """End a :meth:`cut`."""
        self._unblock([self.link(source, target)], Trouble.CUT)

    def clog(self, source: str, target: str) -> None:
        """Hold back what goes from one machine to another."""
        self._block([self.link(source, target)], Trouble.CLOG)

    def unclog(self, source: str, target: str) -> None:
        """Let through what was held back."""
        self._unblock([self.link(source, target)], Trouble.CLOG)

    def go_offline(self, name: str) -> None:
        """Take a machine from the network, with all links that it has or will have."""
        self._set_trouble(name, Trouble.OFFLINE)

    def go_online(self, name: str) -> None:
        """End :meth:`go_offline`."""
        self._clear_trouble(name, Trouble.OFFLINE)

    def calm(self) -> None:
        """End all troubles but those of machines that are off."""
        for name, trouble in list(self._troubles.items()):
            if trouble & Trouble.OFFLINE:
                self.go_online(name)
        links = list(self._links.values())
        for link in links:
            link.cut_after_bytes = None
            link.repeats = 0
        for listener in self._listeners.values():
            listener.refuses = 0
        for trouble in (Trouble.CUT, Trouble.CLOG):
            self._unblock(links, trouble)

    def open_from(self, name: str, scheme: str) -> int:
        """Return how many channels a machine has open that it dialled at addresses of this scheme.

        Those on which the answer is still on its way when the machine has given up to dial are nobody's there.
        """
        return sum(
            end.host.name == name and end.peer.startswith(scheme) and end.is_open and not self._is_given_up(end)
            for end in self._ends
        )

    def _is_given_up(self, end: End) -> bool:
        answer = self._answers.get(end)
        return answer is not None and answer.done()

    # --- Faults of channels and machines

    def reset(self, one: str, other: str) -> int:
        """Break all channels between two machines: both ends learn of it, what is under way is gone. Return how many."""
        ends = [end for end in self._ends_between(one, other) if end.host.name == one]
        for end in ends:
            end.break_both("reset by the network")
        return len(ends)

    def half_open(self, gone: str, left: str) -> int:
        """Let one machine lose its channels to another, which does not learn of it; return how many.

        Whatever either still sends on them is lost without a word.
        """
        ends = self._ends_between(gone, left)
        for end in ends:
            end.forget()
        for end in ends:
            if end.host.name == gone:
                end.lose("lost here alone")
        return len(ends) // 2

    def cut_after(self, source: str, target: str, bytes_left: int) -> None:
        """Break the channel that carries the first byte after so many more in this direction."""
        self.link(source, target).cut_after_bytes = bytes_left

    def refuse(self, address: str, times: int = 1) -> None:
        """Refuse the next ones that dial an address; nobody there learns of it."""
        if (listener := self._listeners.get(address)) is not None:
            listener.refuses = times

    def process_ended(self, host: Host) -> None:
        """Do what an operating system does for a process that is gone: hang up or reset, and not listen.

        To be called after :meth:`simulations.loop.SimLoop.crash`.
        """
        self._drop_listeners(host)
        for end in [end for end in self._ends if end.host is host]:
            self._forget_end(end)
            if end.is_open:
                (end.hang_up if self._chance.random() < _HANG_UP_SHARE else end.reset)()

    def power_cut(self, host: Host) -> None:
        """Have a machine be off: nobody is told anything. To be called after :meth:`simulations.loop.SimLoop.crash`."""
        self._drop_listeners(host)
        for end in [end for end in self._ends if end.host is host]:
            self._forget_end(end)
        for link in self._links.values():
            if link.source == host.name:
                link.forget_held()
        self._set_trouble(host.name, Trouble.DOWN)

    def power_on(self, name: str) -> None:
        """Have a machine be on: it answers that it knows nothing of earlier connections."""
        self._clear_trouble(name, Trouble.DOWN)

    # --- Within

    def _set_trouble(self, name: str, trouble: Trouble) -> None:
        self._troubles[name] = self._troubles.get(name, Trouble.NONE) | trouble
        self._block(self._links_of(name, trouble), trouble)

    def _clear_trouble(self, name: str, trouble: Trouble) -> None:
        self._troubles[name] = self._troubles.get(name, Trouble.NONE) & ~trouble
        free = [
            link
            for link in self._links_of(name, trouble)
            if not self._troubles_between(link.source, link.target) & trouble
        ]
        self._unblock(free, trouble)

    def _links_of(self, name: str, trouble: Trouble) -> list[Link]:
        """Return the links that a machine's trouble blocks; one that is off sends nothing that would have to be held."""
        both = trouble is Trouble.OFFLINE
        return [link for link in self._links.values() if link.target == name or (both and link.source == name)]

    def _troubles_between(self, source: str, target: str) -> Trouble:
        at_source = self._troubles.get(source, Trouble.NONE) & Trouble.OFFLINE
        return at_source | self._troubles.get(target, Trouble.NONE)

    def _block(self, links: list[Link], trouble: Trouble) -> None:
        for link in links:
            link.block(trouble)
        for end in list(self._ends):
            end.doubt()

    def _unblock(self, links: list[Link], trouble: Trouble) -> None:
        for link in links:
            link.unblock(trouble)
        for end in list(self._ends):
            end.hope()

    def _drop_listeners(self, host: Host) -> None:
        for listener in self._listeners.values():
            if listener.host is host:
                listener.close()

    def _ends_between(self, one: str, other: str) -> list[End]:
        return [end for end in self._ends if end.machines() in ((one, other), (other, one))]

    def _forget_end(self, end: End) -> None:
        self._ends.pop(end, None)
        self._answers.pop(end, None)


def _refused() -> ConnectionRefusedError:
    return ConnectionRefusedError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))


def _settle_refused(answer: asyncio.Future[End]) -> None:
    if not answer.done():
        answer.set_exception(_refused())


async def _serve(listener: Listener, end: End) -> None:
    try:
        await listener.serve(end)
    finally:
        if listener.closes and not end.host.is_dead:
            await end.close()


class SimDialer:
    """Opens channels to a coordinator; a :class:`protocol.effects.Dialer`."""

    def __init__(self, network: Network, host: Host) -> None:
        self._network = network
        self._host = host

    async def dial(self, url: str, *, pin: bytes, patience: Patience) -> Dialled:
        """Open a channel to just this URL; see the interface for what it raises."""
        if not url.startswith(("ws://", "wss://")):
            raise UserError(f"{url}: a coordinator's URL begins with ws:// or wss://")
        try:
            async with asyncio.timeout(patience.connect_s):
                end = await self._network.dial(self._host, url)
        except (OSError, TimeoutError) as error:
            raise UnavailableError(
                f"the coordinator at {url} cannot be reached: {unreachable_because(error)}"
            ) from error
        shown = self._network.certificate(url)
        if pin and shown != pin:
            end.abort()
            raise SecurityError("the coordinator shows another certificate than the one in its invitation")
        end.keep_asking(patience)
        return Dialled(end, shown)


class SimAcceptor:
    """Where a coordinator's clients dial; a :class:`protocol.effects.Acceptor`.

    Args:
        network: Of the run.
        host: The coordinator's.
        url: On which it is dialled.
        certificate_sha256: Of the certificate that it shows.
    """

    def __init__(self, network: Network, host: Host, url: str, certificate_sha256: bytes = NO_TLS) -> None:
        self._network = network
        self._host = host
        self._url = url
        self._certificate_sha256 = certificate_sha256
        self._listener: Listener | None = None
        self._serving: dict[asyncio.Task[None] | None, End] = {}

    async def start(self, serve: Callable[[AcceptedChannel], Awaitable[None]], /) -> str:
        """Begin to accept; return the URL that clients are to dial."""

        async def serve_one(end: End) -> None:
            end.allow(limits.UNAUTHENTICATED_BYTES_MAX)
            task = asyncio.current_task()
            self._serving[task] = end
            try:
                await serve(end)
            finally:
                del self._serving[task]

        try:
            self._listener = self._network.listen(self._host, self._url, serve_one)
        except OSError as error:
            raise UserError(f"cannot listen on {self._url}: {error.strerror or error}") from error
        self._listener.certificate_sha256 = self._certificate_sha256
        return self._url

    async def stop(self) -> None:
        """Accept no more, close every channel and wait until all that serves them has ended."""
        if self._listener is not None:
            self._listener.close()
        await asyncio.gather(*(end.close(CLOSE_GOING) for end in self._serving.values()))
        while self._serving:
            await asyncio.wait([task for task in self._serving if task is not None])
