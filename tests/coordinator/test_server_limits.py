"""Bad input costs its sender a reply or the connection, and nobody else anything (security 4.4, S58 to S61)."""

from __future__ import annotations

import asyncio
import gc
import os
import time

import msgspec
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from coordinator import server as server_module
from protocol import limits
from protocol import messages as m
from protocol.codec import encode
from tests.builders import Author, device_login
from tests.coordinator.client import Client, device, new_user
from tests.coordinator.conftest import run
from tests.protocol.chain_world import TestAccount, TestFolder, fixed

NESTED = b"\x91" * 200_000
GARBAGE = {
    "nothing": b"",
    "random bytes": os.urandom(200),
    "deep nesting": NESTED[:4000],
    "a map": b"\x81\xa1x\x01",
    "a frame of an unknown message": encode((2, False, (99,))),
    "a huge integer": encode((1 << 63, False, (11, bytes(32), -1)))[:8],
    "trailing bytes": m.encode_frame(2, m.GetHeads()) + b"\x00",
    "a long form of a number": m.encode_frame(2, m.GetHeads()).replace(b"\x02", b"\xcc\x02", 1),
    "an extra field": encode((2, False, (38, 1))),
    "a string for bytes": encode((2, False, (40, "x" * 32, 1))),
}


async def user(server, world, name="alice") -> tuple[TestAccount, Client]:
    account = TestAccount(name)
    return account, await new_user(server.url, account, world.user_token)


@pytest.mark.parametrize("name", GARBAGE)
@pytest.mark.parametrize("logged_in", [False, True])
def test_garbage_ends_its_own_connection_only(world, name, logged_in):
    async def main():
        async with world.running() as server:
            alice, witness = await user(server, world)
            victim = await (device(server.url, alice) if logged_in else Client.open(server.url))
            await victim.socket.send(GARBAGE[name])
            failure = await victim.notice(m.Failure)
            assert failure.code == "protocol"
            assert await victim.closed() == 1008
            await witness.ask(m.GetHeads(), m.Heads)

    run(main)


def test_text_is_refused(world):
    async def main():
        async with world.running() as server:
            alice, _ = await user(server, world)
            for client in (await Client.open(server.url), await device(server.url, alice)):
                await client.socket.send("hello")
                assert await client.closed() == 1003

    run(main)


@pytest.mark.parametrize("more", [0, 1])
def test_a_message_has_a_limit(world, more):
    async def main():
        async with world.running() as server:
            _, client = await user(server, world)
            overhead = len(m.encode_frame(2, m.MailboxSend(1, bytes(100_000)))) - 100_000
            body = m.MailboxSend(1, bytes(limits.MESSAGE_BYTES_MAX - overhead + more))
            assert len(m.encode_frame(2, body)) == limits.MESSAGE_BYTES_MAX + more
            if more:
                client.start(body)
                assert await client.closed() == 1009
            else:
                assert await client.refused(body) == "access_denied"

    run(main)


@pytest.mark.parametrize("more", [0, 1])
def test_little_is_read_before_a_login(world, more):
    async def main():
        async with world.running() as server:
            client = await Client.open(server.url)
            size = limits.UNAUTHENTICATED_BYTES_MAX + more
            await client.socket.send(bytes(size))
            assert await client.closed() == (1009 if more else 1008)
            slow = await Client.open(server.url)
            alice = TestAccount("alice")
            with pytest.raises((ConnectionClosed, ConnectionError, TimeoutError, AssertionError)):
                for _ in range(9):
                    await slow.refused(m.CreateAccount("x" * 900, "alice", alice.links[0]))

    run(main)


def test_who_says_nothing_is_closed(world, monkeypatch):
    monkeypatch.setattr(limits, "UNAUTHENTICATED_S_MAX", 0.2)

    async def main():
        async with world.running() as server:
            client = await Client.open(server.url)
            assert await client.closed(5) == 1008

    run(main)


def test_an_address_has_few_unknown_connections_and_the_known_ones_go_on(world):
    """A thousand idle sockets of one address do not keep a paired device from syncing (S61)."""

    async def main():
        async with world.running() as server:
            alice, client = await user(server, world)
            idle = [await connect(server.url, ping_interval=None) for _ in range(30)]
            for one in idle[:10]:
                assert await one.recv()
            for one in idle[10:]:
                with pytest.raises(ConnectionClosed):
                    await one.recv()
                assert one.close_code == 1013
            await client.ask(m.GetHeads(), m.Heads)
            for one in idle:
                await one.close()
            await device(server.url, alice)

    run(main)


def test_too_many_messages_are_read_more_slowly(world, monkeypatch):
    """Nothing is refused: the burst passes at once, the rest at the rate."""
    monkeypatch.setattr(limits, "MESSAGES_PER_S", 100)
    monkeypatch.setattr(limits, "MESSAGES_BURST", 20)

    async def main():
        async with world.running() as server:
            _, client = await user(server, world)
            start = time.monotonic()
            replies = await asyncio.gather(*(client.start(m.GetStorage()) for _ in range(70)))
            assert all(isinstance(reply, m.Storage) for reply in replies)
            assert 0.4 < time.monotonic() - start < 5

    run(main)


def test_who_does_not_read_waits_alone(world, monkeypatch):
    """Replies that nobody takes stop the reading of further requests; memory stays bounded, others are served."""

    async def main():
        async with world.running() as server:
            alice, client = await user(server, world)
            folder = TestFolder(alice)
            await client.create(folder.links[0])
            author = Author(folder, alice.device, 1)
            for i in range(4):
                await client.register(folder.id, [author.entry(f"big{i}", payload=os.urandom(400_000))])
            deaf = await connect(server.url, compression=None, max_queue=1, ping_interval=None)
            challenge = m.decode_frame(await deaf.recv(decode=False)).body
            assert isinstance(challenge, m.Challenge)
            await deaf.send(m.encode_frame(2, device_login(challenge, server.url, alice)))
            await deaf.recv()
            pull = m.Pull(folder.id, 1, 256)
            sent = 0
            try:
                async with asyncio.timeout(1.5):
                    for sent in range(2000):
                        await deaf.send(m.encode_frame(4 + 2 * sent, pull))
            except TimeoutError:
                pass
            session = server.coordinator.sessions[max(server.coordinator.sessions)]
            assert session.account == alice.id
            await client.ask(m.GetHeads(), m.Heads)
            deaf.transport.abort()

    run(main)


def test_after_some_forged_entries_the_rest_is_not_even_looked_at(world):
    async def main():
        async with world.running() as server:
            alice, client = await user(server, world)
            folder = TestFolder(alice)
            await client.create(folder.links[0])
            author = Author(folder, alice.device, 1)
            forged = [author.entry(f"{i}", seed=fixed("forger"), seq=1, keep=False) for i in range(200)]
            states = await client.register(folder.id, forged)
            assert [s.refused for s in states.states] == ["bad_signature"] * 16 + ["limit"] * 184
            too_many = tuple(forged[:1] * 513)
            assert await client.refused(m.RegisterEntries(folder.id, None, too_many)) == "limit"

    run(main)


def test_bits_flipped_in_every_request_never_break_the_server(world):
    """Whatever comes back, the next honest request is answered (S59, S60)."""

    async def main():
        async with world.running() as server:
            alice, witness = await user(server, world)
            folder = TestFolder(alice)
            made = await witness.create(folder.links[0])
            requests: list[m.Message] = [
                m.GetAccountChain(alice.id, -1),
                m.GetHeads(),
                m.Pull(folder.id, 0, 10),
                m.GetOwnSeq(folder.id, 1),
                m.RegisterEntries(folder.id, made.checkpoint, (Author(folder, alice.device, 1).entry("x"),)),
                m.AppendControlLink(folder.id, folder.links[0]),
                m.GetControlLog(folder.id, -1),
                m.RepushLog((), made.checkpoint),
            ]
            client = await device(server.url, alice)
            for at in range(120):
                data = bytearray(m.encode_frame(2 + 2 * at, requests[at % len(requests)]))
                data[(at * 37) % len(data)] ^= 1 << (at % 8)
                if client.socket.state.name != "OPEN":
                    client = await device(server.url, alice)
                try:
                    client._waiting[2 + 2 * at] = asyncio.get_running_loop().create_future()
                    await client.socket.send(bytes(data))
                    await asyncio.sleep(0)
                except ConnectionClosed:
                    continue
            await witness.ask(m.GetHeads(), m.Heads)

    run(main)


def test_unknown_numbers_are_answered_with_a_failure(world):
    """Numbers at and beyond the edge of what the database can hold."""

    async def main():
        async with world.running() as server:
            alice, client = await user(server, world)
            folder = TestFolder(alice)
            await client.create(folder.links[0])
            for number in (-1, 0, 1 << 31, (1 << 63) - 1, 1 << 63, (1 << 64) - 1, -(1 << 63)):
                for request in (
                    m.Pull(folder.id, number, 1),
                    m.Pull(folder.id, 0, number),
                    m.GetOwnSeq(folder.id, number),
                    m.PullRegistered(folder.id, number),
                    m.GetControlLog(folder.id, number),
                    m.GetAccountChain(alice.id, number),
                    m.JoinMailbox(number),
                    m.CloseMailbox(number),
                ):
                    reply = await client.start(request)
                    assert not isinstance(reply, m.Failure) or reply.code != "error", request

    run(main)


def test_memory_of_idle_connections_is_small(world):
    async def main():
        async with world.running() as server:
            alice, _ = await user(server, world)
            gc.collect()
            clients = []
            for _ in range(limits.SOCKETS_PER_DEVICE_MAX):
                clients.append(await device(server.url, alice))
            assert len(server.coordinator.sessions) <= limits.SOCKETS_PER_DEVICE_MAX + 1
            extra = await device(server.url, alice)
            await asyncio.sleep(0)
            assert msgspec.structs.astuple(extra.challenge)
            assert server_module.PING_S >= 60

    run(main)
