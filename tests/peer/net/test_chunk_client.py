"""A hostile or broken storage node costs a bounded time and memory, leads nowhere else and fails alone."""

import asyncio
import os
from contextlib import asynccontextmanager
from types import SimpleNamespace

import pytest
from aiohttp import web
from blake3 import blake3

from peer.core.chunk_sealing import seal_chunk
from peer.device import real_doors
from peer.net import chunk_client
from peer.net.chunk_client import ChunkClient
from protocol import chunk_api as api
from protocol.codec import encode
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


async def fails(*nodes: NodeAddress) -> None:
    doors = real_doors()
    client = ChunkClient(Grants(*nodes), doors.clock, doors.processor)  # type: ignore[arg-type]
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
        doors = real_doors()
        async with served(give) as good:
            nodes = node(url, certificate), node(good, id=b"m" * 32)
            client = ChunkClient(Grants(*nodes), doors.clock, doors.processor)  # type: ignore[arg-type]
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
        doors = real_doors()
        async with served(answer) as url:
            asked = node(url, id=storage_node_id(public_key(SEED)))
            client = ChunkClient(Grants(asked), doors.clock, doors.processor)  # type: ignore[arg-type]
            try:
                return await client.have(FOLDER, [REF])
            finally:
                await client.close()

    receipts, held = asyncio.run(run())
    assert held == ({REF.id} if how == "good" else set())
    assert len(receipts) == (how == "good")
