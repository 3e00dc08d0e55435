"""The simulated LAN: devices that hear each other announce themselves, and streams between them.

Rule 1: what is announced travels as datagrams do: a link that is blocked loses it, and only the next time makes up for it.
Rule 2: the certificates that both ends of a stream show are compared here as TLS would; nobody shows another's.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import ipaddress
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final

from peer.core.keys import DeviceSecrets
from peer.core.lan import SERVICE_TYPE, LanDevice
from peer.lan.doors import Announced, Interface, Met, Trusted
from protocol import limits
from protocol.effects import ChannelClosedError
from protocol.errors import AccessDeniedError, UnavailableError
from protocol.lan import LENGTH_BYTES, LanFrame, LanMessage, decode_lan_frame, encode_lan_frame, frame_length
from simulations.channels import End
from simulations.hosts import Host
from simulations.links import Link
from simulations.loop import SECOND_NS, SimLoop
from simulations.network import Network

ANNOUNCE_S: Final = 600
"""How often a device announces itself anew ..."""
GONE_S: Final = 1_500
"""... and after how long without that the others take it for gone."""
FIRST_PORT: Final = 40_000
_PIECE_BYTES: Final = 64 * limits.KIB
_DATAGRAM_BYTES: Final = 300


class Segment:
    """One LAN: who is plugged into the same hears each other."""

    def __init__(self) -> None:
        self.discoveries: list[SimDiscovery] = []

    def others(self, one: SimDiscovery) -> list[SimDiscovery]:
        """Return who else hears; those whose host is gone are forgotten."""
        self.discoveries = [each for each in self.discoveries if not each.host.is_dead]
        return [each for each in self.discoveries if each is not one]


class SimTrust:
    """Who may connect, and what this device shows."""

    def __init__(self, certificate: bytes, allowed: Mapping[bytes, LanDevice]) -> None:
        self.certificate = certificate
        self.allowed = dict(allowed)

    def identify(self, certificate: bytes) -> LanDevice:
        """Return who shows a certificate.

        Raises:
            AccessDeniedError: Nobody that may connect.
        """
        device = self.allowed.get(hashlib.sha256(certificate).digest())
        if device is None:
            raise AccessDeniedError("a connection shows a certificate that no account's chain holds")
        return device


class SimStream:
    """One end of an open connection; a :class:`peer.lan.doors.Stream`."""

    is_loopback = False

    def __init__(self, end: End) -> None:
        self._end = end
        self._unread = bytearray()
        self.received_bytes = 0

    async def wait_readable(self) -> None:
        """Wait, however long, until something was received."""
        with _losing():
            await self._fill(1)

    async def read_frame(self) -> LanFrame:
        """Return the next frame."""
        with self._in_step():
            length = frame_length(await self._take(LENGTH_BYTES))
            return decode_lan_frame(await self._take(length))

    async def read_into(self, target: memoryview) -> None:
        """Fill a buffer with the next bytes."""
        with self._in_step():
            target[:] = await self._take(len(target))

    async def write_frame(self, id: int, body: LanMessage) -> None:
        """Send a frame."""
        await self.write(encode_lan_frame(id, body))

    async def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send bytes, as fast as the other side takes them."""
        view = memoryview(data)
        with self._in_step():
            for start in range(0, len(view), _PIECE_BYTES):
                await self._end.send(bytes(view[start : start + _PIECE_BYTES]), divide=_divide)

    def close(self) -> None:
        """End the connection at once."""
        self._end.abort()

    async def _take(self, count: int) -> bytes:
        await self._fill(count)
        data = bytes(self._unread[:count])
        del self._unread[:count]
        return data

    async def _fill(self, count: int) -> None:
        while len(self._unread) < count:
            piece = await self._end.receive()
            self._unread += piece
            self.received_bytes += len(piece)

    @contextmanager
    def _in_step(self) -> Iterator[None]:
        with _losing():
            try:
                yield
            except asyncio.CancelledError:
                self.close()
                raise


class SimKnock:
    """Somebody who connected, before anything was said."""

    def __init__(self, end: End) -> None:
        self._end = end

    async def open(self, trust: Trusted) -> Met:
        """Let him show who he is, for a bounded time."""
        assert isinstance(trust, SimTrust)
        return Met(SimStream(self._end), await _shake_hands(self._end, trust, dialled=False))

    def close(self) -> None:
        """Send him away without a word."""
        self._end.abort()


class SimListening:
    """One address where others connect."""

    def __init__(self, network: Network, host: Host, address: str, port: int) -> None:
        self.port = port
        self._knocks: asyncio.Queue[SimKnock] = asyncio.Queue()
        self._listener = network.listen(host, _url(address, port), self._knock, closes=False)

    async def accept(self) -> SimKnock:
        """Wait for the next one."""
        return await self._knocks.get()

    def close(self) -> None:
        """Listen no more."""
        self._listener.close()
        while not self._knocks.empty():
            self._knocks.get_nowait().close()

    async def _knock(self, end: End) -> None:
        knock = SimKnock(end)
        if self._listener.is_closed:
            knock.close()
        else:
            self._knocks.put_nowait(knock)


class SimDiscovery:
    """Announces one device and hears others; a :class:`peer.lan.doors.Discovery`."""

    def __init__(
        self,
        lan: SimLan,
        addresses: Sequence[str],
        on_found: Callable[[Announced], None],
        on_gone: Callable[[str], None],
    ) -> None:
        self.host = lan.host
        self._lan = lan
        self._segment = lan.segment
        self._addresses = tuple(addresses)
        self._on_found = on_found
        self._on_gone = on_gone
        self._shown: Announced | None = None
        self._heard: dict[str, tuple[Announced, int]] = {}
        self._timer: asyncio.TimerHandle | None = None

    async def start(self) -> None:
        """Begin to hear; those who are there answer."""
        self._segment.discoveries.append(self)
        self._ask()
        self._again()

    async def announce(self, name: str, port: int, tags: bytes) -> None:
        """Announce this device under a name, in place of what was announced before."""
        before, self._shown = self._shown, Announced(f"{name}.{SERVICE_TYPE}", self._addresses, port, tags)
        for other in self._segment.others(self):
            if before is not None and before.name != self._shown.name:
                self._send(other, other.hear_goodbye, before.name)
            self.tell(other)

    def ask_again(self) -> None:
        """Ask who is there; whoever answers is found anew."""
        self._heard.clear()
        self._ask()

    async def close(self) -> None:
        """Say goodbye once, and stop."""
        if self._timer is not None:
            self._timer.cancel()
        others = self._segment.others(self)
        if self in self._segment.discoveries:
            self._segment.discoveries.remove(self)
        if self._shown is not None:
            for other in others:
                self._send(other, other.hear_goodbye, self._shown.name)

    def tell(self, other: SimDiscovery) -> None:
        """Announce this device to another."""
        if self._shown is not None:
            self._send(other, other.hear, self._shown)

    def hear(self, announced: Announced) -> None:
        """Take in what another device announces."""
        known = self._heard.get(announced.name)
        self._heard[announced.name] = (announced, self._lan.loop.now_ns)
        if self in self._segment.discoveries and (known is None or known[0] != announced):
            self._on_found(announced)

    def hear_goodbye(self, name: str) -> None:
        """Take in that another device goes."""
        if self._heard.pop(name, None) is not None and self in self._segment.discoveries:
            self._on_gone(name)

    def _ask(self) -> None:
        for other in self._segment.others(self):
            if other._shown is not None and not self._lan.link_to(other).is_blocked:  # noqa: SLF001 - one of us
                other.tell(self)

    def _again(self) -> None:
        for other in self._segment.others(self):
            self.tell(other)
        long_ago_ns = self._lan.loop.now_ns - GONE_S * SECOND_NS
        for name in [name for name, (_, heard_ns) in self._heard.items() if heard_ns < long_ago_ns]:
            self.hear_goodbye(name)
        self._timer = self._lan.loop.call_later(ANNOUNCE_S, self._again, context=self.host.context)

    def _send(self, other: SimDiscovery, hear: Callable[..., None], what: object) -> None:
        link = self._lan.link_to(other)
        if not link.is_blocked and self._lan.segment is self._segment:
            arrival_ns = link.arrival_ns(_DATAGRAM_BYTES)
            self._lan.loop.call_at_ns(arrival_ns, hear, what, context=other.host.context)


class SimLan:
    """The networks that one machine is on; a :class:`peer.lan.doors.LanNetwork`.

    Args:
        loop: Of the run.
        network: Of the run.
        host: The machine's.
        segment: What it is plugged into. One that is plugged in elsewhere has a new address too.
        address: Its IPv4 address there; empty: it is on no LAN.
    """

    def __init__(self, loop: SimLoop, network: Network, host: Host, segment: Segment, address: str) -> None:
        self.loop = loop
        self.host = host
        self.segment = segment
        self.address = address
        self._network = network
        self._next_port = FIRST_PORT

    def interfaces(self, only: Sequence[str] | None) -> list[Interface]:
        """Return this machine's address for the LAN."""
        if not self.address or (only is not None and self.address not in only):
            return []
        return [Interface(self.address, ipaddress.ip_network(f"{self.address}/24", strict=False))]

    def trust(self, secrets: DeviceSecrets, allowed: Mapping[bytes, LanDevice]) -> SimTrust:
        """Return who may connect, by the SHA-256 of their certificates, with this device's own."""
        return SimTrust(secrets.certificate, allowed)

    async def dial(self, address: str, port: int, trust: Trusted) -> Met:
        """Connect to whoever listens there, and find out who that is."""
        assert isinstance(trust, SimTrust)
        end = await self._network.dial(self.host, _url(address, port))
        return Met(SimStream(end), await _shake_hands(end, trust, dialled=True))

    def listen(self, address: str, port: int) -> SimListening:
        """Begin to listen; at any port, if that is 0."""
        if address != self.address:
            raise OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL))
        if not port:
            self._next_port += 1
            port = self._next_port
        return SimListening(self._network, self.host, address, port)

    def discovery(
        self, addresses: Sequence[str], on_found: Callable[[Announced], None], on_gone: Callable[[str], None]
    ) -> SimDiscovery:
        """Return what announces this device and hears others."""
        return SimDiscovery(self, addresses, on_found, on_gone)

    def link_to(self, other: SimDiscovery) -> Link:
        """Return the link to another device."""
        return self._network.link(self.host.name, other.host.name)


async def _shake_hands(end: End, trust: SimTrust, *, dialled: bool) -> LanDevice:
    """Compare certificates, whoever dialled showing his first; an end that does not get so far is closed."""
    try:
        with _losing():
            async with asyncio.timeout(limits.LAN_HANDSHAKE_S_MAX):
                if dialled:
                    await end.send(trust.certificate)
                device = trust.identify(await end.receive())
                if not dialled:
                    await end.send(trust.certificate)
                return device
    except BaseException:
        if not end.host.is_dead:
            end.abort()
        raise


@contextmanager
def _losing() -> Iterator[None]:
    try:
        yield
    except ChannelClosedError as error:
        raise UnavailableError("the other device has gone") from error


def _divide(data: bytes, through: int) -> bytes:
    return data[:through]


def _url(address: str, port: int) -> str:
    return f"lan://{address}:{port}"
