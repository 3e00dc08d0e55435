"""The shell around zeroconf: announce, and hear announcements.

Rule 1: what others announce is bounded before anything looks at it: names that wait, names a second, sizes.
Rule 2: no name of this machine or of its user is announced; the library's own log, which holds names, is silent.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import ifaddr
import structlog
from zeroconf import DNSQuestionType, InterfaceChoice, IPVersion, ServiceStateChange, Zeroconf
from zeroconf.asyncio import AsyncServiceBrowser, AsyncServiceInfo, AsyncZeroconf

from peer.core.lan import SERVICE_TYPE, TAGS_KEY
from peer.lan.doors import Announced, Interface

WAITING_MAX: Final = 256
"""Names that were heard and not looked at yet; what comes beyond is not heard."""
LOOKED_AT_PER_S: Final = 50.0
RESOLVE_MS: Final = 1_000
RESOLVING_MAX: Final = 4
"""Announcements that came in pieces and are asked for, at once."""
START_S: Final = 5.0
CLOSE_S: Final = 2.0

log = structlog.get_logger("lan")


def interfaces(only: Sequence[str] | None) -> list[Interface]:
    """Return this machine's addresses for the LAN.

    IPv4, and IPv6 where one is named; loopback only where it is named, or where there is no other.

    Args:
        only: The addresses that may be used; None: all.
    """
    found = []
    for adapter in ifaddr.get_adapters():
        for ip in adapter.ips:
            text = ip.ip if isinstance(ip.ip, str) else ip.ip[0]
            address = ipaddress.ip_address(text)
            if text in only if only is not None else address.version == 4:
                found.append(Interface(text, ipaddress.ip_network(f"{text}/{ip.network_prefix}", strict=False)))
    near = [one for one in found if one.address.startswith("127.")]
    return sorted(found if only is not None or len(near) == len(found) else set(found).difference(near))


class Discovery:
    """Announces this device and hears others, on some addresses.

    Args:
        addresses: Of this machine.
        on_found: Told what somebody announces, again when it changes.
        on_gone: Told the name of who says goodbye or was not heard for long.
    """

    def __init__(
        self, addresses: Sequence[str], on_found: Callable[[Announced], None], on_gone: Callable[[str], None]
    ) -> None:
        self._addresses = tuple(addresses)
        self._on_found = on_found
        self._on_gone = on_gone
        self._zeroconf: AsyncZeroconf | None = None
        self._browser: AsyncServiceBrowser | None = None
        self._info: AsyncServiceInfo | None = None
        self._waiting: dict[str, None] = {}
        self._news = asyncio.Event()
        self._looking: asyncio.Task[None] | None = None
        self._resolving: set[asyncio.Task[None]] = set()
        self._sending: set[asyncio.Future[object]] = set()

    async def start(self) -> None:
        """Begin to hear.

        Raises:
            OSError, TimeoutError: The system does not let us.
        """
        logging.getLogger("zeroconf").setLevel(logging.CRITICAL + 1)
        version = IPVersion.All if any(":" in one for one in self._addresses) else IPVersion.V4Only
        self._zeroconf = AsyncZeroconf(interfaces=list(self._addresses) or InterfaceChoice.Default, ip_version=version)
        await self._zeroconf.zeroconf.async_wait_for_start(START_S)
        self._looking = asyncio.create_task(self._look(), name="lan-discovery")
        # Answers to all: one process alone would get those that are sent to this machine's port.
        self._browser = AsyncServiceBrowser(
            self._zeroconf.zeroconf, SERVICE_TYPE, handlers=[self._heard], question_type=DNSQuestionType.QM
        )

    async def announce(self, name: str, port: int, tags: bytes) -> None:
        """Announce this device under a name, in place of what was announced before."""
        assert self._zeroconf is not None
        label = f"{name}.{SERVICE_TYPE}"
        info = AsyncServiceInfo(
            SERVICE_TYPE,
            label,
            port=port,
            properties={TAGS_KEY: tags},
            server=f"{name}.local.",
            parsed_addresses=list(self._addresses),
        )
        before, self._info = self._info, info
        if before is not None and before.name == label:
            self._let_send(await self._zeroconf.async_update_service(info))
            return
        if before is not None:
            self._let_send(await self._zeroconf.async_unregister_service(before))
        # The name is of chance alone, so nobody is asked whether it is free.
        self._let_send(await self._zeroconf.async_register_service(info, cooperating_responders=True))

    async def silence(self) -> None:
        """Announce nothing any more."""
        before, self._info = self._info, None
        if before is not None and self._zeroconf is not None:
            self._let_send(await self._zeroconf.async_unregister_service(before))

    def _let_send(self, sending: Awaitable[object]) -> None:
        """Let the library repeat what it announces, which takes a while; a network that has gone is no news here."""
        task = asyncio.ensure_future(sending)
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)
        task.add_done_callback(lambda done: done.cancelled() or done.exception())

    async def close(self) -> None:
        """Say goodbye once, and stop."""
        for task in (self._looking, *self._resolving, *self._sending):
            if task is not None:
                task.cancel()
        zeroconf, self._zeroconf = self._zeroconf, None
        if zeroconf is None:
            return
        with contextlib.suppress(TimeoutError, OSError):
            async with asyncio.timeout(CLOSE_S):
                if self._browser is not None:
                    await self._browser.async_cancel()
                goodbye = zeroconf.zeroconf.generate_unregister_all_services()
                if goodbye:
                    zeroconf.zeroconf.async_send(goodbye)
                await zeroconf.async_close()

    # --- Hearing

    def _heard(self, zeroconf: Zeroconf, service_type: str, name: str, state_change: ServiceStateChange) -> None:
        if self._info is not None and name == self._info.name:
            return
        del zeroconf, service_type  # there is one of each
        if state_change is ServiceStateChange.Removed:
            self._waiting.pop(name, None)
            self._on_gone(name)
        elif len(self._waiting) < WAITING_MAX:
            self._waiting[name] = None
            self._news.set()

    async def _look(self) -> None:
        """Look at names one after the other, no faster than what costs little."""
        while True:
            await self._news.wait()
            self._news.clear()
            while self._waiting and self._zeroconf is not None:
                name = next(iter(self._waiting))
                del self._waiting[name]
                info = AsyncServiceInfo(SERVICE_TYPE, name)
                if info.load_from_cache(self._zeroconf.zeroconf):
                    self._tell(info)
                elif len(self._resolving) < RESOLVING_MAX:
                    task = asyncio.create_task(self._resolve(info, self._zeroconf.zeroconf), name="lan-resolve")
                    self._resolving.add(task)
                    task.add_done_callback(self._resolving.discard)
                await asyncio.sleep(1 / LOOKED_AT_PER_S)

    async def _resolve(self, info: AsyncServiceInfo, zeroconf: Zeroconf) -> None:
        with contextlib.suppress(Exception):
            # Whatever the library makes of it, it was somebody else's announcement.
            if await info.async_request(zeroconf, RESOLVE_MS):
                self._tell(info)

    def _tell(self, info: AsyncServiceInfo) -> None:
        tags = info.properties.get(TAGS_KEY)
        if tags and info.port and info.name:
            self._on_found(Announced(info.name, tuple(info.parsed_addresses()), info.port, tags))
