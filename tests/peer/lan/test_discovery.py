"""Announcements over real multicast on loopback: what is found, and what a flood of them costs."""

import asyncio
import os
import socket

import pytest
from zeroconf import (  # type: ignore[attr-defined]  # documented, and in no __all__
    DNSAddress,
    DNSOutgoing,
    DNSPointer,
    DNSService,
    DNSText,
)

from peer.core.lan import SERVICE_TYPE
from peer.lan import discovery as discovery_module
from peer.lan.discovery import RESOLVING_MAX, WAITING_MAX, Discovery, interfaces
from peer.lan.doors import Announced
from tests.e2e.ears import GROUP, PORT

TAGS = b"tagtagta" * 3
RESPONSE, IN_UNIQUE, TTL_S = 0x8400, 0x8001, 120


class Found:
    def __init__(self) -> None:
        self.by_name: dict[str, Announced] = {}
        self.gone: list[str] = []

    def on_found(self, announced: Announced) -> None:
        self.by_name[announced.name] = announced

    async def wait_for(self, name: str) -> Announced:
        while f"{name}.{SERVICE_TYPE}" not in self.by_name:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.02)
        return self.by_name[f"{name}.{SERVICE_TYPE}"]


def run(test) -> None:
    async def main() -> None:
        async with asyncio.timeout(60):
            await test()

    asyncio.run(main())


def forged(name: str, text: bytes, port: int = 4000, address: bytes = b"\x7f\x00\x00\x01") -> bytes:
    """Return the packet of an announcement, whatever it says."""
    label, host = f"{name}.{SERVICE_TYPE}", f"{name}.local."
    out = DNSOutgoing(RESPONSE)
    out.add_answer_at_time(DNSPointer(SERVICE_TYPE, 12, 1, 4500, label), 0)
    out.add_answer_at_time(DNSService(label, 33, IN_UNIQUE, TTL_S, 0, 0, port, host), 0)
    out.add_answer_at_time(DNSText(label, 16, IN_UNIQUE, TTL_S, text), 0)
    out.add_answer_at_time(DNSAddress(host, 1, IN_UNIQUE, TTL_S, address), 0)
    packet: bytes = out.packets()[0]
    return packet


def text_of(tags: bytes) -> bytes:
    return bytes([2 + len(tags)]) + b"t=" + tags


@pytest.fixture
def shout():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as source:
        source.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton("127.0.0.1"))
        source.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        source.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        source.bind(("127.0.0.1", PORT))
        yield lambda packet: source.sendto(packet, (GROUP, PORT))


def test_two_find_each_other_and_see_each_other_go():
    async def test() -> None:
        one, two = Found(), Found()
        a = Discovery(["127.0.0.1"], one.on_found, one.gone.append)
        b = Discovery(["127.0.0.1"], two.on_found, two.gone.append)
        await a.start()
        await b.start()
        names = os.urandom(8).hex(), os.urandom(8).hex()
        await a.announce(names[0], 4001, TAGS)
        await b.announce(names[1], 4002, TAGS[:8])
        assert (await one.wait_for(names[1]))[1:] == (("127.0.0.1",), 4002, TAGS[:8])
        assert (await two.wait_for(names[0]))[1:] == (("127.0.0.1",), 4001, TAGS)
        assert f"{names[0]}.{SERVICE_TYPE}" not in one.by_name
        await b.close()
        while f"{names[1]}.{SERVICE_TYPE}" not in one.gone:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.02)
        await a.close()

    run(test)


def test_thousands_of_names_wait_in_a_bounded_queue(shout):
    async def test() -> None:
        found = Found()
        discovery = Discovery(["127.0.0.1"], found.on_found, found.gone.append)
        await discovery.start()
        for number in range(3_000):
            shout(forged(f"{number:04x}{os.urandom(6).hex()}", text_of(os.urandom(8))))
            if not number % 50:
                await asyncio.sleep(0)
                assert len(discovery._waiting) <= WAITING_MAX
                assert len(discovery._resolving) <= RESOLVING_MAX
        await discovery.close()

    run(test)


def invented(names: int) -> bytes:
    """Return a packet of names that nobody has, to be kept for a week."""
    out = DNSOutgoing(RESPONSE)
    for _ in range(names):
        out.add_answer_at_time(DNSPointer(SERVICE_TYPE, 12, 1, 7 * 86_400, f"{os.urandom(24).hex()}.{SERVICE_TYPE}"), 0)
    (packet,) = out.packets()
    assert isinstance(packet, bytes)
    return packet


def scheduled(discovery: Discovery) -> int:
    """Return how many names the library's browser keeps."""
    browser = discovery._browser
    return 0 if browser is None else len(browser.query_scheduler._next_scheduled_for_alias)


def test_a_flood_of_names_is_forgotten_and_who_is_real_is_found_again(shout, monkeypatch):
    """Records that live long push a real announcement out of the library's cache."""
    monkeypatch.setattr(discovery_module, "PAUSE_S", 0.2)

    async def test() -> None:
        found, other = Found(), Found()
        discovery = Discovery(["127.0.0.1"], found.on_found, found.gone.append)
        real = Discovery(["127.0.0.1"], other.on_found, other.gone.append)
        await discovery.start()
        await real.start()
        name = os.urandom(8).hex()
        most = 0
        for number in range(1_500):
            shout(invented(15))
            await asyncio.sleep(0)
            most = max(most, scheduled(discovery))
            if number == 1_000:
                await real.announce(name, 4002, TAGS)
        assert 0 < most <= discovery_module.RECORDS_MAX + 15
        assert (await found.wait_for(name)).port == 4002
        assert len(discovery._waiting) <= WAITING_MAX
        await discovery.close()
        await real.close()

    run(test)


def test_who_announces_himself_while_the_queue_is_full_is_found_afterwards(shout, monkeypatch):
    monkeypatch.setattr(discovery_module, "PAUSE_S", 0.2)
    monkeypatch.setattr(discovery_module, "WAITING_MAX", 20)

    async def test() -> None:
        found, other = Found(), Found()
        discovery = Discovery(["127.0.0.1"], found.on_found, found.gone.append)
        real = Discovery(["127.0.0.1"], other.on_found, other.gone.append)
        await discovery.start()
        await real.start()
        for _ in range(10):
            shout(invented(15))
        while not discovery._has_missed:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0)
        name = os.urandom(8).hex()
        await real.announce(name, 4002, TAGS)
        assert (await found.wait_for(name)).port == 4002
        await discovery.close()
        await real.close()

    run(test)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"\x00",
        b"\x01t",
        b"\x02t=",
        b"\xfft=short",
        b"\x05other",
        text_of(b"x" * 253),
        b"\x04t=ab\x04t=cd" * 20,
        os.urandom(200),
    ],
)
def test_an_odd_text_is_nobodys(shout, text):
    """Whatever comes out of it, the next good announcement is heard."""

    async def test() -> None:
        found = Found()
        discovery = Discovery(["127.0.0.1"], found.on_found, found.gone.append)
        await discovery.start()
        shout(forged(os.urandom(8).hex(), text))
        good = os.urandom(8).hex()
        shout(forged(good, text_of(TAGS)))
        assert (await found.wait_for(good)).tags == TAGS
        await discovery.close()

    run(test)


def test_loopback_is_used_where_it_is_named():
    (near,) = interfaces(["127.0.0.1"])
    assert near.address == "127.0.0.1"
    assert interfaces(["192.0.2.1"]) == []
    assert all(not one.address.startswith("127.") for one in interfaces(None)) or len(interfaces(None)) == 1
