"""The link to a coordinator: admission, pins, reconnection, revocation."""

import asyncio
import hashlib
import os
import ssl
import tempfile
from typing import Any

import aiohttp
import pytest
from structlog.testing import capture_logs

from protocol import messages as m
from protocol.errors import UserError
from protocol.grants import grant_device
from protocol.ids import StorageNodeId
from protocol.invitations import Invitation, format_invitation
from storage_node import http_nodes, link
from storage_node.chunks.memory import MemoryStore
from storage_node.core import scrub
from storage_node.identity import load_identity, make_certificate, private_key_pem
from storage_node.service import StorageNode, system_doors
from tests.storage_node.conftest import FOLDER, TOKEN, Answer, Device, chunks_of, in_loop, until


@in_loop
async def test_a_first_login_pins_the_coordinators_keys_and_later_ones_need_no_token(world):
    async with world:
        node = await world.node()
        login = await world.coordinator.logins.get()
        assert (login.token, login.url, login.certificate) == (TOKEN, node.url, b"")
        assert login.zone == node.identity.node.hex()
        identity: Any = load_identity(node._settings.data)
        assert identity.coordinator.url == world.coordinator.url
        await world.stop(node)
        again = await world.node(invite=None, coordinator=None, zone="rack-7")
        login = await world.coordinator.logins.get()
        assert (login.token, login.zone, login.url) == ("", "rack-7", again.url)
        assert again.identity.node == node.identity.node


@in_loop
async def test_a_wrong_token_is_one_clear_line_and_nothing_is_pinned(world):
    async with world:
        with pytest.raises(UserError) as caught:
            await world.node(invite="wrong")
        assert str(caught.value) == "the invitation is not valid"
        assert caught.value.exit_code == 1
        identity: Any = load_identity(world.directory / "node")
        assert identity.coordinator is None
        await world.node()


@in_loop
async def test_a_coordinator_with_other_keys_is_refused(world):
    """Rule 2: the first login pins them; whoever sits at that address later with others learns nothing and rules nothing."""
    async with world:
        node = await world.node()
        await world.coordinator.logins.get()
        await world.stop(node)
        world.coordinator.log_seed = bytes(32)
        settings = world.settings("node")
        with capture_logs() as lines:
            node = StorageNode(settings, system_doors(settings), MemoryStore())
            await node.start()
            world.nodes.append(node)
            await until(lambda: lines)
        assert "other keys" in lines[0]["reason"]
        assert world.coordinator.logins.empty()


@in_loop
async def test_the_node_waits_for_a_coordinator_that_is_not_there_yet(world):
    async with world:
        port = world.coordinator.port
        await world.coordinator.stop()
        starting = asyncio.create_task(world.node())
        done, _ = await asyncio.wait([starting], timeout=0.3)
        assert not done
        await world.coordinator.start(port)
        node = await starting
        assert await world.coordinator.logins.get()
        assert (await world.client(node).put(chunks_of(1, 10))).receipts


@in_loop
async def test_a_broken_link_comes_back_and_meanwhile_the_node_serves(world):
    async with world:
        node = await world.node()
        await world.coordinator.logins.get()
        port = world.coordinator.port
        await world.coordinator.stop()
        chunks = chunks_of(2, 100)
        assert (await world.client(node).put(chunks)).receipts
        await world.coordinator.start(port)
        assert (await world.coordinator.logins.get()).token == ""
        assert await world.client(node).get([chunks[0][0]]) == [chunks[0][1]]


@in_loop
async def test_after_thirty_seconds_of_silence_old_grants_are_refused(world):
    """Security 3.11, through the whole node; the clock is a door."""
    async with world:
        settings = world.settings()
        doors = system_doors(settings)

        class LaterClock:
            later_s = 0.0

            def now_ms(self):
                return doors.clock.now_ms()

            def monotonic_s(self):
                return doors.clock.monotonic_s() + self.later_s

        clock = LaterClock()
        import msgspec

        node = StorageNode(settings, msgspec.structs.replace(doors, clock=clock), MemoryStore())
        await node.start()
        world.nodes.append(node)
        client = world.client(node)
        old = client.device.grant()
        old = msgspec.structs.replace(
            old, not_before_ms=old.not_before_ms - 100_000, expires_ms=old.expires_ms - 100_000
        )
        await client.put(chunks_of(1, 10), grant=old)
        await world.coordinator.stop()
        await until(lambda: node.custody._silent_since_s is not None)
        await client.put(chunks_of(1, 10), grant=old)
        clock.later_s = 31.0
        with pytest.raises(Answer) as caught:
            await client.put(chunks_of(1, 10), grant=old)
        assert caught.value.status == 403
        await client.put(chunks_of(1, 10))


@in_loop
async def test_a_revocation_arrives_and_holds(world):
    """S27: the ex-member's grant dies on the node, not only at the coordinator."""
    async with world:
        node = await world.node()
        client = world.client(node)
        grant = client.device.grant()
        await client.put(chunks_of(1, 10), grant=grant)
        world.coordinator.revoked = ((grant_device(grant), grant.pseudonym),)
        await world.coordinator.welcome_all()
        await until(lambda: node.custody._revoked)
        with pytest.raises(Answer) as caught:
            await client.get([chunks_of(1, 10)[0][0]], grant=grant)
        assert caught.value.status == 403
        await world.client(node, Device(seed=b"o" * 32)).put(chunks_of(1, 10))


@in_loop
async def test_a_node_that_is_retired_gives_until_then_and_says_it_once(world):
    async with world:
        node = await world.node()
        client = world.client(node)
        chunks = chunks_of(2, 10)
        await client.put(chunks)
        with capture_logs() as logs:
            await world.coordinator.tell(node.identity.node, m.NodeLeaves())
            await until(lambda: node.custody.is_leaving)
            with pytest.raises(Answer) as caught:
                await client.put(chunks_of(1, 20))
            assert caught.value.status == 503
            assert await client.get([id for id, _ in chunks]) == [body for _, body in chunks]

            world.coordinator.retired.add(node.identity.sign_public)
            await world.coordinator.sockets[node.identity.node].close()
            await until(lambda: node.custody.is_retired)
            with pytest.raises(Answer):
                await client.get([chunks[0][0]])
            await until(node._tasks[0].done)  # it does not dial for ever
        said = [entry["event"] for entry in logs if entry["log_level"] == "warning"]
        assert said == ["this node is going out of service: it takes nothing new", "the coordinator refuses this node"]


@in_loop
async def test_it_reports_and_names_what_was_lost_before_it_came(world, monkeypatch):
    monkeypatch.setattr(link, "REPORT_S", 0.0)
    async with world:
        store = MemoryStore(1 << 20)
        chunks = chunks_of(2, 1000)
        await store.put(FOLDER, chunks)
        store.chunks[chunks[0][0]] = bytes(1000)
        await store.verify([chunks[0][0]])
        await world.node(store=store)
        assert await world.coordinator.lost.get() == (chunks[0][0],)
        while not isinstance(report := await world.coordinator.asked.get(), m.NodeReport):
            pass
        assert report == m.NodeReport((1 << 20) - 1000, 1000)


@in_loop
async def test_a_message_that_is_none_breaks_the_link_and_a_strange_one_is_declined(world):
    async with world:
        node = await world.node()
        await world.coordinator.logins.get()
        reply = await world.coordinator.ask(node.identity.node, m.GetHeads())
        assert isinstance(reply, m.Failure)
        await world.coordinator.sockets[node.identity.node].send(b"\xc1 what?")
        await world.coordinator.logins.get()
        await world.coordinator.sockets[node.identity.node].send("text")
        await world.coordinator.logins.get()
        assert (await world.client(node).put(chunks_of(1, 10))).receipts


@in_loop
async def test_the_scrub_of_a_running_node_finds_damage_by_itself(world, monkeypatch):
    """S32, from the inside: nobody has to ask for a chunk to learn that it rotted."""
    monkeypatch.setattr(scrub, "FIRST_S", 0.0)
    async with world:
        store = MemoryStore()
        chunks = chunks_of(3, 1000)
        await store.put(FOLDER, chunks)
        store.chunks[chunks[1][0]] = bytes(1000)
        await world.node(store=store)
        assert await world.coordinator.lost.get() == (chunks[1][0],)


# --- TLS


def server_tls(seed, certificate):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.NamedTemporaryFile() as file:
        file.write(ssl.DER_cert_to_PEM_cert(certificate).encode() + private_key_pem(seed))
        file.flush()
        context.load_cert_chain(file.name)
    return context


@in_loop
async def test_an_invitation_pins_the_coordinators_certificate(world):
    async with world:
        await world.coordinator.stop()
        seed = os.urandom(32)
        certificate = make_certificate(seed, os.urandom)
        await world.coordinator.start(ssl=server_tls(seed, certificate))
        url = world.coordinator.url
        with pytest.raises(UserError) as caught:
            await world.node(
                coordinator=None, invite=format_invitation(Invitation(url, TOKEN, hashlib.sha256(b"other").digest()))
            )
        assert "another certificate" in str(caught.value)
        good = format_invitation(Invitation(url, TOKEN, hashlib.sha256(certificate).digest()))
        node = await world.node(coordinator=None, invite=good)
        await world.stop(node)
        await world.node(coordinator=None, invite=None)
        port = world.coordinator.port
        await world.coordinator.stop()
        other = make_certificate(bytes(32), os.urandom)
        await world.coordinator.start(port, ssl=server_tls(bytes(32), other))
        with capture_logs() as lines:
            await until(lambda: any("another certificate" in line.get("reason", "") for line in lines))


@in_loop
async def test_off_loopback_a_node_shows_its_own_certificate_and_others_pin_it(world):
    async with world:
        first = await world.node("a", listen="0.0.0.0:0", advertise="https://127.0.0.1:1")
        login = await world.coordinator.logins.get()
        port = first._doors.listener._listener.sockets[0].getsockname()[1]
        assert (login.url, login.certificate) == ("https://127.0.0.1:1", first.identity.certificate)
        login = m.NodeLogin(
            **{f: getattr(login, f) for f in login.__struct_fields__} | {"url": f"https://127.0.0.1:{port}"}
        )
        world.coordinator.known[login.sign] = login
        second = await world.node("b")
        nodes = [second.identity.node, first.identity.node]
        chunks = chunks_of(3, 100_000)
        reply = await world.client(second).put(chunks, nodes=nodes, forward=True)
        assert (len(reply.receipts), reply.failed) == (2, ())
        # A man in the middle shows another certificate: nothing goes to him.
        wrong = make_certificate(bytes(32), os.urandom)
        address = next(a for a in world.coordinator.addresses() if a.id == first.identity.node)
        evil = m.NodeAddress(address.id, address.sign, address.url, wrong, address.zone, address.operator, True)
        second.replicas.learn([evil])
        reply = await world.client(second).put(chunks, nodes=nodes, forward=True)
        assert reply.failed == ((first.identity.node, "unavailable"),)
        with pytest.raises(aiohttp.ClientError):
            await world.client(second).http.post(f"http://127.0.0.1:{port}/v1/get")


@in_loop
async def test_a_nodes_address_is_https_or_this_machine(world):
    """A coordinator's list must not make a node speak in clear to the world, or to what answers on it."""
    async with world:
        node = await world.node()
        for url in ("http://192.0.2.1:80", "http://169.254.169.254", "ftp://127.0.0.1", "file:///etc/passwd", ""):
            address = m.NodeAddress(StorageNodeId(b"e" * 32), b"k" * 32, url, b"", "z", "o", True)
            node.replicas.learn([address])
            reply = await world.client(node).put(chunks_of(1, 10), nodes=[node.identity.node, b"e" * 32], forward=True)
            assert reply.failed == ((b"e" * 32, "protocol"),)


def test_contexts_of_nodes_that_went_are_forgotten(monkeypatch):
    monkeypatch.setattr(http_nodes, "CONTEXTS_MAX", 2)
    nodes = http_nodes.HttpNodes()
    first, *others = [make_certificate(bytes([number]) * 32, os.urandom) for number in range(3)]
    for der in (first, *others):
        nodes._context(der)
    assert list(nodes._contexts) == others
