"""Two devices over real sockets: who is let in, what is answered, what a false answer costs."""

import asyncio
import contextlib
import os
import ssl
import zlib
from types import SimpleNamespace

import pytest
from blake3 import blake3

from peer.core.chunk_sealing import seal_chunk
from peer.core.lan import LanDevice, allowed_devices
from peer.doors import SystemClock, ThreadProcessor
from peer.engine.tasks import end
from peer.lan import client as client_module
from peer.lan import exchange
from peer.lan.client import LanClient, PeerConnection
from peer.lan.network import SystemLan
from peer.lan.server import LanServer
from peer.lan.stream import SMALL_BYTES, LanStream
from peer.lan.trust import Trust
from protocol import lan, limits
from protocol.errors import KinfolderError, ProtocolError, UnavailableError
from protocol.ids import AccountId, ChunkId, DeviceId, FolderId
from protocol.lan import GetChunks, GetSegments, Wanted
from tests.e2e.hostile_peer import bomb, drip, garbage, noise, silence, twice
from tests.peer.core.key_world import RealAccount

FOLDER = FolderId(b"f" * 32)
OTHER = FolderId(b"o" * 32)


class Shelf:
    """Holds chunks in memory."""

    def __init__(self, *held: bytes) -> None:
        self.held = {blake3(data).digest(): data for data in held}
        self.false: dict[bytes, bytes] = {}

    async def chunks(self, wanted):
        yield [(one, self.false.get(one.hash, self.held.get(one.hash))) for one in wanted if one.hash in self.held]

    async def segments(self, ids):
        for id in ids:
            if id in self.held:
                yield id, self.held[id]


def wanted(data: bytes) -> Wanted:
    return Wanted(blake3(data).digest(), len(data))


class World:
    """A server of anna's laptop, and contexts of others."""

    def __init__(self) -> None:
        self.anna, self.eve = RealAccount("anna"), RealAccount("eve")
        self.desktop, self.phone = self.anna.add("desktop"), self.anna.add("phone")
        self.shelf = Shelf()
        self.processor = ThreadProcessor(2)
        self.server = LanServer(self.open_shelf, SystemClock(), self.processor, SystemLan())
        self.trust()
        self.server.listen(["127.0.0.1"], 0)

    def trust(self) -> None:
        self.server.trust(Trust(self.anna.device, self.allowed(self.anna.device)))

    def allowed(self, own):
        members = {FOLDER: (self.anna.state.id,)}
        return allowed_devices(self.anna.state.id, own.id, [self.anna.state, self.eve.state], members)

    def open_shelf(self, device: LanDevice, folder: FolderId):
        is_in = self.anna.state.is_active(device.device)
        return self.shelf if folder == FOLDER and is_in else None

    async def dial(self, secrets, *, allowed=None) -> PeerConnection:
        trust = Trust(secrets, self.allowed(secrets) if allowed is None else allowed)
        stream = LanStream()
        transport, _ = await asyncio.get_running_loop().create_connection(
            lambda: stream, "127.0.0.1", self.server.port, ssl=trust.client
        )
        device = trust.identify(transport.get_extra_info("ssl_object"))
        peer = PeerConnection(device, "127.0.0.1", stream, SystemClock())
        await peer.greet()
        return peer

    async def client(self, *secrets) -> LanClient:
        made = LanClient(SystemClock(), self.processor, lambda device, folder: True)
        for one in secrets:
            peer = await self.dial(one)
            made.peers[peer.device._replace(device=one.id)] = peer
            peer.device = peer.device._replace(device=one.id)
        return made


def run(test) -> None:
    async def main() -> None:
        world = World()
        try:
            async with asyncio.timeout(60):
                await test(world)
        finally:
            await world.server.close()
            world.processor.close()

    asyncio.run(main())


async def all_of(found):
    return {one: bytes(data) async for one, data in found}


def test_what_is_there_arrives_and_what_is_not_is_left_out():
    async def test(world):
        small, large = [os.urandom(100 + n) for n in range(300)], [os.urandom(limits.CHUNK_BYTES_MAX) for _ in range(3)]
        world.shelf.held = {blake3(data).digest(): data for data in (*small, *large)}
        client = await world.client(world.desktop)
        asked = [wanted(data) for data in (*small, *large, b"not here")]
        assert await all_of(client.chunks(FOLDER, asked)) == {wanted(data): data for data in (*small, *large)}
        sealed = {chunk.id: bytes(chunk.data) for chunk in (seal_chunk(data, b"k" * 32) for data in small[:40])}
        world.shelf.held.update(sealed)
        assert await all_of(client.segments(FOLDER, [*sealed, ChunkId(bytes(32))])) == sealed
        assert await all_of(client.chunks(OTHER, asked)) == {}
        (peer,) = client.peers.values()
        assert not peer.may_have(OTHER)
        assert world.server.sent_bytes == client.received_bytes > 12 << 20
        await peer.wait_closed()

    run(test)


def test_several_requests_share_a_connection():
    async def test(world):
        data = [os.urandom(limits.MIB) for _ in range(40)]
        world.shelf.held = {blake3(one).digest(): one for one in data}
        client = await world.client(world.desktop)
        found = await asyncio.gather(*(all_of(client.chunks(FOLDER, [wanted(one) for one in data])) for _ in range(3)))
        assert found == [{wanted(one): one for one in data}] * 3
        for peer in client.peers.values():
            await peer.wait_closed()

    run(test)


def test_whoever_loses_interest_spoils_nothing_for_others():
    async def test(world):
        data = [os.urandom(limits.MIB) for _ in range(8)]
        world.shelf.held = {blake3(one).digest(): one for one in data}
        client = await world.client(world.desktop)
        asked = [wanted(one) for one in data]
        async with contextlib.aclosing(client.chunks(FOLDER, asked)) as found:
            await anext(found)
        task = asyncio.create_task(all_of(client.chunks(FOLDER, asked)))
        await asyncio.sleep(0)
        task.cancel()
        assert len(await all_of(client.chunks(FOLDER, asked))) == 8
        for peer in client.peers.values():
            assert not peer.closed.is_set()
            await peer.wait_closed()

    run(test)


@pytest.mark.parametrize("who", ["a stranger", "another account", "a revoked device", "itself"])
def test_who_is_not_in_the_chain_gets_nothing(who):
    """The TLS handshake is refused; not a byte of an answer comes."""

    async def test(world):
        if who == "a revoked device":
            world.anna.revoke(world.phone)
            world.trust()
        secrets = {
            "a stranger": RealAccount("mallory").device,
            "another account": world.eve.device,
            "a revoked device": world.phone,
            "itself": world.anna.device,
        }[who]
        laptop = LanDevice(world.anna.state.id, world.anna.device.id, world.anna.device.certificate)
        digest = next(
            iter(allowed_devices(AccountId(b""), DeviceId(b""), [world.anna.state], {FOLDER: (world.anna.state.id,)}))
        )
        with pytest.raises((KinfolderError, OSError)):
            await world.dial(secrets, allowed={digest: laptop, **certificates(world.anna.device)})
        assert not world.server._open

    run(test)


def certificates(secrets):
    import hashlib

    certificate = secrets.certificate
    return {hashlib.sha256(certificate).digest(): LanDevice(AccountId(b"a" * 32), secrets.id, certificate)}


def test_a_server_that_is_none_of_ours_is_told_nothing():
    async def test(world):
        with pytest.raises(ssl.SSLError):
            await world.dial(world.desktop, allowed=certificates(world.eve.device))

    run(test)


def test_a_device_that_is_revoked_is_cut_off_at_once():
    async def test(world):
        world.shelf.held = {blake3(b"x").digest(): b"x"}
        client = await world.client(world.phone)
        (peer,) = client.peers.values()
        assert await all_of(client.chunks(FOLDER, [wanted(b"x")]))
        world.anna.revoke(world.phone)
        # Also before the connection is ended: each request is judged anew.
        assert await all_of(client.chunks(FOLDER, [wanted(b"x")])) == {}
        world.trust()
        await peer.closed.wait()

    run(test)


def test_a_broken_certificate_in_a_chain_shuts_out_its_device_alone():
    broken = LanDevice(AccountId(b"a" * 32), DeviceId(b"d" * 32), b"no certificate")
    world = RealAccount("anna")
    other = world.add("desktop")
    trust = Trust(world.device, {b"h" * 32: broken, **certificates(other)})
    assert len(trust.client.get_ca_certs()) == 1


def test_other_bytes_are_never_given_on_and_cost_their_sender_his_place():
    async def test(world):
        good, bad = os.urandom(200_000), os.urandom(200_000)
        world.shelf.held = {blake3(one).digest(): one for one in (good, bad)}
        world.shelf.false = {blake3(bad).digest(): good}
        client = await world.client(world.desktop)
        (peer,) = client.peers.values()
        found = await all_of(client.chunks(FOLDER, [wanted(bad)]))
        assert found == {}
        assert client.is_avoided(peer.device)
        assert peer.closed.is_set()

    run(test)


@pytest.mark.parametrize("answer", [bomb, noise, twice, garbage, drip, silence], ids=lambda one: one.__name__)
def test_a_false_answer_gives_nothing_and_the_next_device_is_asked(monkeypatch, answer):
    monkeypatch.setattr(client_module, "STALLED_S", 0.5)

    async def test(world):
        good, truth = World(), os.urandom(150_000)
        good.anna, good.shelf.held = world.anna, {blake3(truth).digest(): truth}
        world.shelf.held = good.shelf.held
        world.server._answer = lambda stream, id, request, shelf: answer(stream, id, request)
        client = await world.client(world.desktop)
        (bad,) = client.peers.values()
        other = await good.dial(good.desktop)
        other.device = other.device._replace(device=DeviceId(b"o" * 32))
        other.received_bytes = 1  # so that the bad one is asked first
        client.peers[other.device] = other
        assert await all_of(client.chunks(FOLDER, [wanted(truth)])) == {wanted(truth): truth}
        assert client.is_avoided(bad.device)
        assert bad.closed.is_set()
        assert client.received_bytes == len(truth)
        await other.wait_closed()
        await good.server.close()
        good.processor.close()

    run(test)


def test_who_stalls_is_given_up_and_another_one_is_asked(monkeypatch):
    monkeypatch.setattr(client_module, "STALLED_S", 0.5)

    async def test(world):
        data = os.urandom(100_000)
        world.shelf.held = {blake3(data).digest(): data}
        client = await world.client(world.desktop, world.phone)
        first, second = client.peers.values()
        asked: list[PeerConnection] = []
        sent = first._stream.write_frame

        async def swallow(id, body) -> None:
            asked.append(first)

        first._stream.write_frame = swallow
        assert sent is not swallow
        assert await all_of(client.chunks(FOLDER, [wanted(data)])) == {wanted(data): data}
        assert asked == [first]
        assert client.is_avoided(first.device)
        assert not client.is_avoided(second.device)
        assert first.closed.is_set()
        await second.wait_closed()

    run(test)


@pytest.mark.parametrize(
    "request_",
    [
        GetChunks(FOLDER, ()),
        GetChunks(FOLDER, (Wanted(b"h" * 32, limits.CHUNK_BYTES_MAX + 1),)),
        GetSegments(FOLDER, ()),
        lan.End(),
        lan.Greeting(1),
    ],
)
def test_a_request_that_may_not_be_ends_the_connection(request_):
    async def test(world):
        peer = await world.dial(world.desktop)
        await peer._stream.write_frame(1, request_)
        await peer.closed.wait()

    run(test)


def test_there_are_few_connections_of_a_device():
    async def test(world):
        peers = [await world.dial(world.desktop) for _ in range(limits.LAN_CONNECTIONS_PER_DEVICE_MAX)]
        with pytest.raises((KinfolderError, OSError)):
            peer = await world.dial(world.desktop)
            await all_of_ask(peer)
        await peers[0].wait_closed()

    run(test)


async def all_of_ask(peer):
    async with contextlib.aclosing(peer.ask(GetChunks(FOLDER, (wanted(b"x"),)))) as answers:
        async for _ in answers:
            pass


def test_sockets_that_say_nothing_are_few_and_short_lived(monkeypatch):
    monkeypatch.setattr(limits, "LAN_HANDSHAKE_S_MAX", 0.5)

    async def test(world):
        silent = [await asyncio.open_connection("127.0.0.1", world.server.port) for _ in range(40)]
        for reader, writer in silent:
            with contextlib.suppress(OSError):
                assert await reader.read() == b""
            writer.close()
        peer = await world.dial(world.desktop)
        await peer.wait_closed()

    run(test)


def test_text_travels_compressed_between_machines():
    from peer.lan.server import _pack

    text, noise = b"a line of text\n" * 20_000, os.urandom(200_000)
    encoding, packed = _pack(text)
    assert (encoding, len(packed) < 5_000) == (lan.Encoding.ZSTD, True)
    part = lan.Part(0, encoding, len(packed))
    request = GetChunks(FOLDER, (wanted(text),))
    assert client_module._check(request, [(part, bytearray(packed))])[0].data == text
    assert _pack(noise) == (lan.Encoding.RAW, noise)
    assert zlib.crc32(text)


def test_a_stream_holds_little_of_what_nobody_reads():
    paused = []
    stream = LanStream()
    stream._transport = SimpleNamespace(pause_reading=lambda: paused.append(1), resume_reading=paused.clear)  # type: ignore[assignment]
    while not paused:
        room = stream.get_buffer(-1)
        assert len(room) <= SMALL_BYTES
        room[:1_000] = bytes(min(1_000, len(room)))
        stream.buffer_updated(min(1_000, len(room)))
    assert stream.received_bytes == SMALL_BYTES

    async def read() -> None:
        for _ in range(SMALL_BYTES // 4_096):
            assert await stream.take(4_096) == bytes(4_096)
        stream.connection_lost(None)
        with pytest.raises(UnavailableError):
            await stream.take(1)

    asyncio.run(read())


def test_a_greeting_is_demanded():
    async def test(world):
        trust = Trust(world.desktop, world.allowed(world.desktop))
        stream = LanStream()
        await asyncio.get_running_loop().create_connection(
            lambda: stream, "127.0.0.1", world.server.port, ssl=trust.client
        )
        await stream.write_frame(1, GetChunks(FOLDER, (wanted(b"x"),)))
        with pytest.raises((UnavailableError, ProtocolError)):
            await stream.read_frame()

    run(test)


def test_who_is_of_no_use_now_is_dialled_ever_more_seldom(monkeypatch):
    """There are as many connections as there may be; a dial that ends well and is of no use counts as one that failed."""
    monkeypatch.setattr(limits, "LAN_PEERS_MAX", 0)
    monkeypatch.setattr(exchange, "RETRY_S_MIN", 0.01)

    async def test(world):
        context = SimpleNamespace(
            clock=SystemClock(), processor=world.processor, doors=SimpleNamespace(lan=SystemLan())
        )
        one = exchange.Lan(context, {})  # type: ignore[arg-type]  # all of it that is used
        one._trust = Trust(world.desktop, world.allowed(world.desktop))
        dial = exchange._Dial()
        task = asyncio.create_task(one._keep(dial, ["127.0.0.1"], world.server.port))
        while dial.failures < 3:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.01)
        await end([task])

    run(test)


def test_who_never_had_a_turn_makes_room_and_is_asked_for_again(monkeypatch):
    monkeypatch.setattr(exchange, "CANDIDATES_MAX", 3)

    async def test(world):
        context = SimpleNamespace(
            clock=SystemClock(), processor=world.processor, doors=SimpleNamespace(lan=SystemLan())
        )
        one = exchange.Lan(context, {})  # type: ignore[arg-type]  # all of it that is used
        asked: list[bool] = []
        one._discovery = SimpleNamespace(ask_again=lambda: asked.append(True))
        for name in ("open", "oldest", "newest"):
            dial = one._dials[name] = exchange._Dial()
            dial.task, dial.is_dialled = asyncio.create_task(asyncio.sleep(60)), name == "open"
        tasks = [dial.task for dial in one._dials.values() if dial.task is not None]
        assert one._make_room()
        assert (list(one._dials), asked) == (["open", "newest"], [True])
        one._dials["spare"] = exchange._Dial()
        one._dials["spare"].task, one._dials["spare"].is_spare = tasks[1], True
        one._dials["newest"].is_dialled = True
        assert one._make_room()
        assert (list(one._dials), asked) == (["open", "newest"], [True])
        one._dials["third"] = one._dials["newest"]
        assert not one._make_room()
        await end(tasks)

    run(test)
