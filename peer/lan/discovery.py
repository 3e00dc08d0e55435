"""The shell around zeroconf: announce, and hear announcements.

Rule 1: what others announce is bounded before anything looks at it: names that wait, names a second, sizes; and what
the library keeps of it is thrown away now and then, with the real ones asked for anew.
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
from zeroconf import (
    DNSQuestionType,
    InterfaceChoice,
    IPVersion,
    RecordUpdate,
    RecordUpdateListener,
    ServiceStateChange,
    Zeroconf,
)
from zeroconf.asyncio import AsyncServiceBrowser, AsyncServiceInfo, AsyncZeroconf

from peer.core.lan import SERVICE_TYPE, TAGS_KEY
from peer.lan.doors import Announced, Interface

WAITING_MAX: Final = 256
"""Names that were heard and not looked at yet; what comes beyond is not heard."""
LOOKED_AT_PER_S: Final = 50.0
RESOLVE_MS: Final = 1_000
RESOLVING_MAX: Final = 4
"""Announcements that came in pieces and are asked for, at once."""
RECORDS_MAX: Final = 8_000
"""New records, of whatever service, after which the library's cache and its browser's schedule begin anew. The library
bounds the cache alone (10,000), and there long-lived inventions push out what is real."""
PAUSE_S: Final = 5.0
"""How long nobody is heard before that, so that a flood costs a bounded time as well."""
PAUSE_S_MAX: Final = 60.0
"""The same where it was only that more names came than could be looked at, again and again."""
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


class _Counter(RecordUpdateListener):
    """Counts the records that are new to the library, and tells once they are many."""

    def __init__(self, on_many: Callable[[], None]) -> None:
        super().__init__()
        self._on_many = on_many
        self.heard = 0

    def async_update_records(
        self,
        zc: Zeroconf,  # noqa: ARG002 - the library gives it
        now: float,  # noqa: ARG002 - likewise
        records: list[RecordUpdate],
    ) -> None:
        """Count them."""
        self.heard += sum(each.old is None for each in records)
        if self.heard >= RECORDS_MAX:
            self._on_many()

    def async_update_records_complete(self) -> None:
        """Nothing waits for it."""


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
        self._counter = _Counter(self._ask_anew_now)
        self._has_missed = False
        """Whether a name was heard that was not looked at."""
        self._anew = asyncio.Event()
        self._pause_s = PAUSE_S
        self._looking: asyncio.Task[None] | None = None
        self._renewing: asyncio.Task[None] | None = None
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
        self._zeroconf.zeroconf.async_add_listener(self._counter, None)
        self._looking = asyncio.create_task(self._look(), name="lan-discovery")
        self._browse(self._zeroconf.zeroconf)
        self._renewing = asyncio.create_task(self._renew(self._zeroconf.zeroconf), name="lan-renewal")

    def _browse(self, zeroconf: Zeroconf) -> None:
        """Ask who is there, and hear from now on."""
        # Answers to all: one process alone would get those that are sent to this machine's port.
        self._browser = AsyncServiceBrowser(
            zeroconf, SERVICE_TYPE, handlers=[self._heard], question_type=DNSQuestionType.QM
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
        for task in (self._looking, self._renewing, *self._resolving, *self._sending):
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
        else:
            self._has_missed = True

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
            if self._has_missed:
                self._anew.set()
            else:
                self._pause_s = PAUSE_S

    def ask_again(self) -> None:
        """Ask who is there once what waits was looked at: somebody was told who was not made use of."""
        self._has_missed = True
        self._news.set()

    def _ask_anew_now(self) -> None:
        self._pause_s = PAUSE_S
        self._anew.set()

    async def _renew(self, zeroconf: Zeroconf) -> None:
        """Whenever too much was heard, forget all of it and ask who is there; who is real answers."""
        while True:
            await self._anew.wait()
            if self._browser is not None:
                browser, self._browser = self._browser, None
                await browser.async_cancel()
            self._waiting.clear()
            await asyncio.sleep(self._pause_s)
            self._pause_s = min(PAUSE_S_MAX, 2 * self._pause_s)
            _forget(zeroconf)
            self._waiting.clear()
            self._counter.heard, self._has_missed = 0, False
            self._anew.clear()
            self._browse(zeroconf)

    async def _resolve(self, info: AsyncServiceInfo, zeroconf: Zeroconf) -> None:
        with contextlib.suppress(Exception):
            # Whatever the library makes of it, it was somebody else's announcement.
            if await info.async_request(zeroconf, RESOLVE_MS):
                self._tell(info)

    def _tell(self, info: AsyncServiceInfo) -> None:
        tags = info.properties.get(TAGS_KEY)
        if tags and info.port and info.name:
            self._on_found(Announced(info.name, tuple(info.parsed_addresses()), info.port, tags))


def _forget(zeroconf: Zeroconf) -> None:
    """Empty the library's cache."""
    cache = zeroconf.cache
    for name in cache.names():
        cache.async_remove_records(cache.entries_with_name(name))
