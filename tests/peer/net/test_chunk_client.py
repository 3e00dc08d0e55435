"""A hostile or broken storage node costs a bounded time and memory, leads nowhere else and fails alone."""

import asyncio
import contextlib
import gc
import os
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
from aiohttp import web
from blake3 import blake3

from peer.core.chunk_sealing import seal_chunk
from peer.device import real_doors
from peer.net import chunk_client
from peer.net.chunk_client import ChunkClient
from peer.store.parts import DIRECTORY, Parts
from protocol import chunk_api as api
from protocol import limits
from protocol.codec import decode, encode
from protocol.errors import NoQuorumError, NoSourceError
from protocol.grants import ChunkRef, Grant, Operation, Receipt, ReceiptFor, Statement, batch_root, sign_body
from protocol.ids import ChunkId, DeviceId, FolderId, Pseudonym, storage_node_id
from protocol.messages import Granted, NodeAddress
from protocol.signing import public_key

SEED = bytes(range(32))
DATA = bytes(seal_chunk(os.urandom(5_000), bytes(32)).data)
REF = ChunkRef(ChunkId(blake3(DATA).digest()), len(DATA))
FOLDER = FolderId(b"f" * 32)


def node(url: str, certificate: bytes = b"", id: bytes = b"n" * 32) -> NodeAddress:
    return NodeAddress(id, b"s" * 32, url, certificate, "z", "o", True)  # type: ignore[arg-type]


class Grants:
    def __init__(self, *nodes: NodeAddress) -> None:
        grant = Grant(
            b"i" * 16,
            Pseudonym(b"p" * 16),
            public_key(SEED),
            Operation.PUT | Operation.GET,
            1 << 40,
            1 << 20,
            0,
            1 << 50,
        )
        signed = sign_body(grant, SEED)
        self.allowance = SimpleNamespace(
            grant=signed,
            body=grant,
            granted=Granted(signed, b"p" * 16, 1, 1, nodes),  # type: ignore[arg-type]
        )

    async def get(self, folder, operation, *, size, chunks):
        return self.allowance

    def forget(self, folder):
        pass

    def forget_all(self):
        pass

    def state(self, allowance, operation, nodes, chunks):
        size = sum(chunk.length for chunk in chunks)
        grant = allowance.body.id
        return sign_body(Statement(grant, operation, tuple(nodes), batch_root(chunks), len(chunks), size, 0), SEED)


@asynccontextmanager
async def served(handler):
    app = web.Application()
    app.router.add_route("*", "/{rest:.*}", handler)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://localhost:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def client_of(*nodes: NodeAddress, home: Path = Path("/nowhere")) -> ChunkClient:
    doors = real_doors()
    parts = Parts(doors.files, str(home), doors.clock.now_ms)
    return ChunkClient(doors.nodes, Grants(*nodes), doors.clock, doors.processor, parts)  # type: ignore[arg-type]


async def fails(*nodes: NodeAddress) -> None:
    client = client_of(*nodes)
    try:
        async with asyncio.timeout(10):
            with pytest.raises(NoSourceError):
                _ = [one async for one in client.get(FOLDER, [REF.id])]
            with pytest.raises(NoQuorumError):
                await client.put(FOLDER, [(REF, DATA)])
    finally:
        await client.close()


def test_it_follows_no_redirect_and_keeps_no_cookie():
    seen = []

    async def redirect(request):
        await request.read()
        seen.append((request.path, request.headers.get("Cookie")))
        response = web.Response(status=307, headers={"Location": "/elsewhere"})
        response.set_cookie("track", "1")
        return response

    async def run():
        async with served(redirect) as url:
            await fails(node(url))

    asyncio.run(run())
    assert seen == [(api.GET_PATH, None), (api.PUT_PATH, None)]


@pytest.mark.parametrize("status", [200, 500])
def test_an_endless_reply_is_left(status):
    sent = 0

    async def endless(request):
        nonlocal sent
        response = web.StreamResponse(status=status)
        await response.prepare(request)
        try:
            for _ in range(64):
                await response.write(bytes(1 << 20))
                sent += 1
        except ConnectionError:
            pass
        return response

    async def run():
        async with served(endless) as url:
            await fails(node(url))

    asyncio.run(run())
    assert sent < 64


def test_a_dripping_reply_is_left(monkeypatch):
    monkeypatch.setattr(chunk_client, "STALLED_S", 0.3)

    async def drip(request):
        await request.read()
        response = web.StreamResponse()
        await response.prepare(request)
        try:
            while True:
                await response.write(b"\0")
                await asyncio.sleep(0.02)
        except ConnectionError:
            return response

    async def run():
        async with served(drip) as url:
            await fails(node(url))

    asyncio.run(run())


@pytest.mark.parametrize(
    ("url", "certificate"),
    [
        ("https://127.0.0.1:1", b""),
        ("https://127.0.0.1:1", b"junk"),
        ("http://192.0.2.1:9", b""),
        ("http://[::1", b""),
        ("http://127.0.0.1:99999", b""),
        ("ftp://127.0.0.1", b""),
        ("", b""),
    ],
)
def test_a_node_without_a_good_address_fails_alone(url, certificate):
    """The next node is asked all the same."""

    async def give(request):
        await request.read()
        return web.Response(body=b"".join(bytes(part) for part in api.encode_found(DATA)))

    async def run():
        await fails(node(url, certificate))
        async with served(give) as good:
            nodes = node(url, certificate), node(good, id=b"m" * 32)
            client = client_of(*nodes)
            try:
                assert [one async for one in client.get(FOLDER, [REF.id])] == [(REF.id, DATA)]
            finally:
                await client.close()

    asyncio.run(run())


@pytest.mark.parametrize(
    "how", ["good", "nothing", "another node", "another chunk", "another length", "garbage", "error"]
)
def test_only_a_nodes_own_receipt_says_that_it_holds_what_was_asked(how):
    """What came over the LAN was never seen on a node: a false answer would make this device skip sending it."""
    seed = SEED[::-1] if how == "another node" else SEED
    chunk = {
        "another chunk": ChunkRef(ChunkId(b"x" * 32), REF.length),
        "another length": ChunkRef(REF.id, REF.length + 1),
    }.get(how, REF)
    receipt = Receipt(public_key(seed), Pseudonym(b"p" * 16), DeviceId(b"d" * 32), batch_root([chunk]), 1, 0, 1 << 50)
    reply = encode(api.HaveReply(None if how == "nothing" else ReceiptFor(sign_body(receipt, seed), (chunk,))))

    async def answer(request):
        assert request.path == api.HAVE_PATH
        await request.read()
        return web.Response(status=500 if how == "error" else 200, body=b"?" if how == "garbage" else reply)

    async def run():
        async with served(answer) as url:
            asked = node(url, id=storage_node_id(public_key(SEED)))
            client = client_of(asked)
            try:
                return await client.have(FOLDER, [REF])
            finally:
                await client.close()

    receipts, held = asyncio.run(run())
    assert held == ({REF.id} if how == "good" else set())
    assert len(receipts) == (how == "good")


# --- A transfer that is cut goes on where it stopped

LARGE = bytes(seal_chunk(os.urandom(3_000_000), bytes(32)).data)
OTHER = bytes(seal_chunk(os.urandom(2_000_000), bytes(32)).data)
BODIES = {ChunkId(blake3(data).digest()): data for data in (LARGE, OTHER)}
IDS = list(BODIES)


class Node:
    """Gives what it is asked for; what is in ``cuts`` is how much of each next reply comes before it is broken off."""

    def __init__(self, *cuts: int, spoil=lambda wanted, body: body) -> None:
        self.cuts = list(cuts)
        self.spoil = spoil
        self.asked: list[dict[ChunkId, int]] = []
        self.sent = 0

    async def answer(self, request):
        wanted: tuple[api.ChunkFrom, ...] = decode(
            await request.read(), tuple[api.ChunkFrom, ...], bytes_max=1 << 20, what="wanted"
        )
        self.asked.append({one.id: one.offset for one in wanted})
        found = [(one, self.spoil(one, BODIES.get(one.id))) for one in wanted]
        reply = b"".join(bytes(part) for one, body in found for part in api.encode_found(body, one.offset))
        response = web.StreamResponse()
        await response.prepare(request)
        cut = self.cuts.pop(0) if self.cuts else len(reply)
        self.sent += len(reply[:cut])
        await response.write(reply[:cut])
        if cut < len(reply):
            await asyncio.sleep(0)
            request.transport.close()  # what was written still goes out
        return response


def fetch(home, *nodes, ids=IDS, slowly=False):
    """Return the chunks that come, and whether all did."""

    async def run():
        async with contextlib.AsyncExitStack() as stack:
            urls = [await stack.enter_async_context(served(one.answer)) for one in nodes]
            client = client_of(*(node(url, id=bytes([i]) * 32) for i, url in enumerate(urls)), home=home)
            stack.push_async_callback(client.close)
            found = {}
            try:
                async for id, data in client.get(FOLDER, ids):
                    if slowly:  # until the connection has long broken, with bytes that nobody read
                        await until_quiet(nodes)
                    found[id] = data
            except NoSourceError:
                return found, False
            return found, True

    return asyncio.run(run())


async def until_quiet(nodes):
    for _ in range(200):
        await asyncio.sleep(0)


def parts_in(home):
    directory = home / DIRECTORY
    return {path.name: path.stat().st_size for path in directory.iterdir()} if directory.exists() else {}


def test_the_rest_of_a_chunk_is_asked_for_at_the_next_node_and_by_the_next_process(tmp_path):
    one, two, three = Node(1_000_000), Node(500_000), Node()
    found, all_came = fetch(tmp_path, one, two)
    assert (found, all_came) == ({}, False)
    assert one.asked == [{IDS[0]: 0, IDS[1]: 0}]
    assert two.asked == [{IDS[0]: 1_000_000 - 4, IDS[1]: 0}]
    assert parts_in(tmp_path) == {IDS[0].hex(): 1_500_000 - 8}
    assert fetch(tmp_path, three) == (BODIES, True)
    assert one.sent + two.sent + three.sent == len(LARGE) + len(OTHER) + 4 * 4
    assert parts_in(tmp_path) == {}


def test_what_came_while_nobody_read_is_not_lost(tmp_path):
    """A whole chunk and most of the next one lie in the buffer of a connection that broke."""
    one, two = Node(len(LARGE) + 1_500_000), Node()
    assert fetch(tmp_path, one, two, slowly=True) == (BODIES, True)
    assert one.sent + two.sent == len(LARGE) + len(OTHER) + 3 * 4


def wrong(_, body):
    return bytes(len(body))


def no_rest(one, body):
    return body[: one.offset] if one.offset else body


def other_rest(one, body):
    return body[: one.offset] + b"!" * (len(body) - one.offset) if one.offset else body


def too_long(one, body):
    return bytes(limits.SEALED_CHUNK_BYTES_MAX + 1) if one.offset else body


@pytest.mark.parametrize("spoil", [no_rest, other_rest])
def test_a_wrong_rest_costs_the_part_and_the_chunk_comes_whole_from_the_same_node(tmp_path, spoil):
    fetch(tmp_path, Node(1_000_000), ids=IDS[:1])
    assert parts_in(tmp_path) == {IDS[0].hex(): 1_000_000 - 4}
    bad = Node(spoil=spoil)
    assert fetch(tmp_path, bad) == (BODIES, True)
    assert bad.asked == [{IDS[0]: 1_000_000 - 4, IDS[1]: 0}, {IDS[0]: 0}]
    assert parts_in(tmp_path) == {}


def test_a_false_beginning_is_not_the_fault_of_who_gives_the_rest(tmp_path):
    """A node that lies and breaks off, over and over, costs one more request and never the chunk."""
    good = Node()
    assert fetch(tmp_path, Node(1_000_000, spoil=wrong), good) == (BODIES, True)
    assert good.asked == [{IDS[0]: 1_000_000 - 4, IDS[1]: 0}, {IDS[0]: 0}]
    assert parts_in(tmp_path) == {}


@pytest.mark.parametrize("spoil", [wrong, too_long])
def test_a_node_that_lies_in_every_answer_is_left(tmp_path, spoil):
    fetch(tmp_path, Node(1_000_000), ids=IDS[:1])
    bad, good = Node(spoil=spoil), Node()
    assert fetch(tmp_path, bad, good) == (BODIES, True)
    assert len(bad.asked) <= 2
    assert parts_in(tmp_path) == {}


def test_a_node_without_the_chunk_leaves_its_part_to_others(tmp_path):
    fetch(tmp_path, Node(1_000_000), ids=IDS[:1])
    without = Node(spoil=lambda one, body: None)
    assert fetch(tmp_path, without, ids=IDS[:1]) == ({}, False)
    assert len(without.asked) == 1
    good = Node()
    assert fetch(tmp_path, without, good, ids=IDS[:1]) == ({IDS[0]: LARGE}, True)
    assert good.asked == [{IDS[0]: 1_000_000 - 4}]


def test_a_part_that_cannot_be_removed_is_asked_for_as_a_whole(tmp_path):
    """Were it believed again each time, this would not end."""
    fetch(tmp_path, Node(1_000_000, spoil=wrong), ids=IDS[:1])

    class Stuck(Parts):
        def take(self, id):
            return bytes(self.sizes()[id])

    async def run():
        async with served(Node().answer) as url:
            client = client_of(node(url), home=tmp_path)
            client._parts = Stuck(real_doors().files, str(tmp_path), real_doors().clock.now_ms)
            try:
                async with asyncio.timeout(10):
                    return [one async for one in client.get(FOLDER, IDS[:1])]
            finally:
                await client.close()

    assert asyncio.run(run()) == [(IDS[0], LARGE)]


def test_who_stops_taking_keeps_what_came(tmp_path):
    """A command that is ended in the middle of a chunk."""

    async def run():
        arrived = asyncio.Event()

        async def stall(request):
            await request.read()
            response = web.StreamResponse()
            await response.prepare(request)
            await response.write(len(LARGE).to_bytes(4, "big") + LARGE[:1_000_000])
            arrived.set()
            with contextlib.suppress(ConnectionError):
                while True:
                    await asyncio.sleep(0.05)
                    await response.write(b"")
            return response

        async with served(stall) as url:
            client = client_of(node(url), home=tmp_path)

            async def take():
                async with contextlib.aclosing(client.get(FOLDER, IDS[:1])) as chunks:
                    async for _ in chunks:
                        pass

            taking = asyncio.create_task(take())
            await arrived.wait()
            await asyncio.sleep(0.2)
            taking.cancel()
            await asyncio.gather(taking, return_exceptions=True)
            await client.close()

    asyncio.run(run())
    assert parts_in(tmp_path) == {IDS[0].hex(): 1_000_000}


def test_how_the_sending_of_a_body_ended_is_asked_for(monkeypatch):
    """Aiohttp sends it in a task; where a node dies as the last bytes leave, that task fails and nobody awaits it."""
    complaints = []
    gone = ConnectionResetError("gone")

    async def end(self, chunk=b""):
        raise gone

    monkeypatch.setattr("aiohttp.http_writer.StreamWriter.write_eof", end)

    async def test() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context["message"]))

        async def handler(request):
            await request.content.read(8)
            request.transport.abort()
            return web.Response()

        async with served(handler) as url:
            client = client_of(node(url))
            try:
                with pytest.raises(NoQuorumError):
                    await client.put(FOLDER, [(REF, DATA)])
            finally:
                await client.close()
        gc.collect()
        await asyncio.sleep(0)

    asyncio.run(test())
    assert complaints == []
