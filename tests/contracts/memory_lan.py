"""A LAN inside one process: the shortest statement of what its doors do."""

from __future__ import annotations

import asyncio
import hashlib
import ipaddress
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from peer.core.keys import DeviceSecrets
from peer.core.lan import SERVICE_TYPE, LanDevice
from peer.lan.doors import Announced, Interface, Met, Trusted
from protocol.errors import AccessDeniedError, UnavailableError
from protocol.lan import LENGTH_BYTES, LanFrame, LanMessage, decode_lan_frame, encode_lan_frame, frame_length

T = TypeVar("T")

UNREAD_MAX = 1 << 20


class Switch:
    """What the machines of one LAN are plugged into."""

    def __init__(self) -> None:
        self.listening: dict[tuple[str, int], MemoryListening] = {}
        self.discoveries: list[MemoryDiscovery] = []

    def network(self, address: str) -> MemoryLan:
        """Return the LAN as a machine with this address sees it."""
        return MemoryLan(self, address)


class MemoryTrust:
    """Who may connect, and what this device shows."""

    def __init__(self, certificate: bytes, allowed: Mapping[bytes, LanDevice]) -> None:
        self.certificate = certificate
        self.allowed = dict(allowed)

    def identify(self, certificate: bytes) -> LanDevice:
        """Return who shows a certificate."""
        device = self.allowed.get(hashlib.sha256(certificate).digest())
        if device is None:
            raise AccessDeniedError("a connection shows a certificate that no account's chain holds")
        return device


class MemoryStream:
    """One end of a connection."""

    is_loopback = False

    def __init__(self) -> None:
        self.received_bytes = 0
        self.other: MemoryStream
        self._unread = bytearray()
        self._is_lost = False
        self._changed = asyncio.Event()

    async def wait_readable(self) -> None:
        """Wait for a byte."""
        await self._fill(1)

    async def read_frame(self) -> LanFrame:
        """Return the next frame."""
        length = frame_length(await self._take(LENGTH_BYTES))
        return decode_lan_frame(await self._take(length))

    async def read_into(self, target: memoryview) -> None:
        """Fill a buffer."""
        target[:] = await self._take(len(target))

    async def write_frame(self, id: int, body: LanMessage) -> None:
        """Send a frame."""
        await self.write(encode_lan_frame(id, body))

    async def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send bytes, once there is room."""
        while not self._is_lost and len(self.other._unread) >= UNREAD_MAX:
            await self.other._changed.wait()
        if self._is_lost:
            raise UnavailableError("the other device has gone")
        self.other._unread += data
        self.other.received_bytes += len(data)
        self.other._tell()

    def close(self) -> None:
        """End both ends."""
        for end in (self, self.other):
            end._is_lost = True
            end._tell()

    async def _take(self, count: int) -> bytes:
        await self._fill(count)
        data = bytes(self._unread[:count])
        del self._unread[:count]
        self._tell()
        return data

    async def _fill(self, count: int) -> None:
        while len(self._unread) < count:
            if self._is_lost:
                raise UnavailableError("the other device has gone")
            await self._changed.wait()

    def _tell(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


class MemoryKnock:
    """Somebody who connected."""

    def __init__(self, trust: MemoryTrust) -> None:
        self._trust = trust
        self.opened: asyncio.Future[tuple[MemoryStream, bytes]] = asyncio.get_running_loop().create_future()

    async def open(self, trust: Trusted) -> Met:
        """Compare certificates, each side the other's."""
        assert isinstance(trust, MemoryTrust)
        ours, theirs = MemoryStream(), MemoryStream()
        ours.other, theirs.other = theirs, ours
        if self.opened.done():
            raise UnavailableError("the other device has gone")
        try:
            device = trust.identify(self._trust.certificate)
        except AccessDeniedError:
            self.close()
            raise
        self.opened.set_result((theirs, trust.certificate))
        return Met(ours, device)

    def close(self) -> None:
        """Send him away."""
        if not self.opened.done():
            self.opened.set_exception(UnavailableError("the other device has gone"))


class MemoryListening:
    """One address where others connect."""

    def __init__(self, switch: Switch, address: str, port: int) -> None:
        self.port = port
        self.knocks: asyncio.Queue[MemoryKnock] = asyncio.Queue()
        self._switch = switch
        self._key = (address, port)
        switch.listening[self._key] = self

    async def accept(self) -> MemoryKnock:
        """Wait for the next one."""
        return await self.knocks.get()

    def close(self) -> None:
        """Listen no more."""
        if self._switch.listening.pop(self._key, None) is not None:
            while not self.knocks.empty():
                self.knocks.get_nowait().close()


class MemoryDiscovery:
    """Announces one device to all others."""

    def __init__(
        self,
        switch: Switch,
        addresses: Sequence[str],
        on_found: Callable[[Announced], None],
        on_gone: Callable[[str], None],
    ) -> None:
        self._switch = switch
        self._addresses = tuple(addresses)
        self._on_found = on_found
        self._on_gone = on_gone
        self._shown: Announced | None = None

    async def start(self) -> None:
        """Hear what is announced already."""
        self._switch.discoveries.append(self)
        self.ask_again()

    def ask_again(self) -> None:
        """Hear what is announced once more."""
        for other in self._switch.discoveries:
            if other is not self and other._shown is not None:
                self._later(self._on_found, other._shown)

    async def announce(self, name: str, port: int, tags: bytes) -> None:
        """Tell all others."""
        before, self._shown = self._shown, Announced(f"{name}.{SERVICE_TYPE}", self._addresses, port, tags)
        if before is not None and before.name != self._shown.name:
            self._tell_gone(before.name)
        for other in self._switch.discoveries:
            if other is not self:
                self._later(other._on_found, self._shown)

    async def close(self) -> None:
        """Say goodbye."""
        if self in self._switch.discoveries:
            self._switch.discoveries.remove(self)
            if self._shown is not None:
                self._tell_gone(self._shown.name)

    def _tell_gone(self, name: str) -> None:
        for other in self._switch.discoveries:
            if other is not self:
                self._later(other._on_gone, name)

    @staticmethod
    def _later(call: Callable[[T], None], what: T) -> None:
        asyncio.get_running_loop().call_soon(call, what)


class MemoryLan:
    """One machine's way to a LAN."""

    def __init__(self, switch: Switch, address: str) -> None:
        self._switch = switch
        self._address = address
        self._next_port = 40_000

    def interfaces(self, only: Sequence[str] | None) -> list[Interface]:
        """Return the one address."""
        if only is not None and self._address not in only:
            return []
        return [Interface(self._address, ipaddress.ip_network(f"{self._address}/24", strict=False))]

    def trust(self, secrets: DeviceSecrets, allowed: Mapping[bytes, LanDevice]) -> MemoryTrust:
        """Return who may connect."""
        return MemoryTrust(secrets.certificate, allowed)

    async def dial(self, address: str, port: int, trust: Trusted) -> Met:
        """Connect."""
        assert isinstance(trust, MemoryTrust)
        listening = self._switch.listening.get((address, port))
        if listening is None:
            raise ConnectionRefusedError
        knock = MemoryKnock(trust)
        listening.knocks.put_nowait(knock)
        try:
            stream, certificate = await knock.opened
        except asyncio.CancelledError:
            knock.close()
            raise
        try:
            return Met(stream, trust.identify(certificate))
        except AccessDeniedError:
            stream.close()
            raise

    def listen(self, address: str, port: int) -> MemoryListening:
        """Listen."""
        if not port:
            self._next_port += 1
            port = self._next_port
        if address != self._address or (address, port) in self._switch.listening:
            raise OSError
        return MemoryListening(self._switch, address, port)

    def discovery(
        self, addresses: Sequence[str], on_found: Callable[[Announced], None], on_gone: Callable[[str], None]
    ) -> MemoryDiscovery:
        """Return this machine's announcements."""
        return MemoryDiscovery(self._switch, addresses, on_found, on_gone)
