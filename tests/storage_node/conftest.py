"""A coordinator made of keys and one real WebSocket server, devices that ask like devices, and real nodes."""

import asyncio
import contextlib
import functools
import io
import os
import time
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import msgspec
import pytest
from blake3 import blake3
from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed

from protocol import messages as m
from protocol.chunk_api import (
    GET_PATH,
    HAVE_PATH,
    PUT_PATH,
    ChunkFrom,
    GetReader,
    decode_failure,
    decode_have_reply,
    decode_put_reply,
    encode_ids,
    encode_refs,
    encode_wanted,
    ids_root,
    request_headers,
)
from protocol.grants import ChunkRef, Grant, Operation, Statement, batch_root, sign_body
from protocol.ids import Pseudonym, storage_node_id
from protocol.signing import public_key, verify
from storage_node.config import make_settings
from storage_node.service import StorageNode, system_doors

TOKEN_SEED = bytes([1]) * 32
LOG_SEED = bytes([2]) * 32
TOKEN = "let-me-in"
FOLDER = Pseudonym(b"folder-of-alice.")
OTHER_FOLDER = Pseudonym(b"folder-of-bob...")


def in_loop(test):
    """Run an async test in an event loop of its own, within a bounded time."""

    @functools.wraps(test)
    def run(**fixtures):
        async def bounded():
            async with asyncio.timeout(30):
                await test(**fixtures)

        asyncio.run(bounded())

    return run


async def until(holds):
    """Wait until something that has no event of its own is so; the test's time bounds it."""
    while not holds():  # noqa: ASYNC110 - a log line and a field of the node wake nobody
        await asyncio.sleep(0.005)


def now_ms():
    return time.time_ns() // 1_000_000


def chunks_of(count, size, salt=b""):
    """Return chunks that do not compress into each other, by index and salt."""
    bodies = [blake3(salt + i.to_bytes(4, "big")).digest(length=size) for i in range(count)]
    return [(blake3(body).digest(), body) for body in bodies]


def refs_of(chunks):
    return tuple(ChunkRef(id, len(body)) for id, body in chunks)


@dataclass
class Device:
    """Asks like a device; every part of a request can be bent."""

    seed: bytes = bytes([3]) * 32
    pseudonym: Pseudonym = FOLDER
    token_seed: bytes = TOKEN_SEED

    def grant(self, may=Operation.PUT | Operation.GET | Operation.HAVE, /, **changes):
        now = now_ms()
        grant = Grant(os.urandom(16), self.pseudonym, public_key(self.seed), may, 1 << 30, 10_000, now, now + 600_000)
        return msgspec.structs.replace(grant, **changes)

    def statement(self, grant, operation, nodes, chunks, /, **changes):
        root = batch_root(chunks) if operation == Operation.PUT else ids_root([c.id for c in chunks])
        size = sum(c.length for c in chunks) if operation == Operation.PUT else 0
        statement = Statement(grant.id, operation, tuple(nodes), root, len(chunks), size, now_ms())
        return msgspec.structs.replace(statement, **changes)

    def headers(self, grant, statement, *, forward=False):
        return request_headers(sign_body(grant, self.token_seed), sign_body(statement, self.seed), forward=forward)


class Answer(Exception):
    """A refusal: what a device gets to see."""

    def __init__(self, status, error):
        super().__init__(f"{status} {error.code}")
        self.status = status
        self.code = error.code


@dataclass
class Client:
    """Sends a device's requests to one node."""

    http: aiohttp.ClientSession
    node: StorageNode
    device: Device = field(default_factory=Device)

    async def post(self, path, body, headers):
        body = io.BytesIO(body) if isinstance(body, bytes) else body
        async with self.http.post(self.node.url + path, data=body, headers=headers) as response:
            data = await response.read()
            if response.status != 200:
                raise Answer(response.status, decode_failure(data))
            return data

    def headers(self, operation, refs, *, nodes=None, forward=False, grant=None, changes=None):
        grant = grant or self.device.grant()
        statement = self.device.statement(grant, operation, nodes or [self.node.identity.node], refs, **(changes or {}))
        return self.device.headers(grant, statement, forward=forward)

    async def put(self, chunks, *, body=None, **options):
        refs = refs_of(chunks)
        body = encode_refs(refs) + b"".join(data for _, data in chunks) if body is None else body
        return decode_put_reply(await self.post(PUT_PATH, body, self.headers(Operation.PUT, refs, **options)))

    async def have(self, ids, **options):
        refs = [ChunkRef(id, 0) for id in ids]
        return decode_have_reply(
            await self.post(HAVE_PATH, encode_ids(ids), self.headers(Operation.HAVE, refs, **options))
        ).receipt

    async def get(self, ids, offsets=None, **options):
        refs = [ChunkRef(id, 0) for id in ids]
        wanted = [ChunkFrom(id, offset) for id, offset in zip(ids, offsets or [0] * len(ids), strict=True)]
        data = await self.post(GET_PATH, encode_wanted(wanted), self.headers(Operation.GET, refs, **options))
        reader = GetReader(wanted)
        found = [body for _, body in reader.feed(data)]
        reader.finish()
        return found


class FakeCoordinator:
    """Speaks as much of the coordinator's language as a node needs, over a real socket."""

    def __init__(self):
        self.url = ""
        self.port = 0
        self.log_seed, self.token_seed = LOG_SEED, TOKEN_SEED
        self.known = {}
        self.revoked = ()
        self.retired = set()
        self.sockets = {}
        self.asked: asyncio.Queue[Any] = asyncio.Queue()
        self.lost: asyncio.Queue[Any] = asyncio.Queue()
        self.logins: asyncio.Queue[Any] = asyncio.Queue()
        self._next = 1
        self._waiting = {}
        self._server: Any = None

    async def start(self, port=0, **options):
        self._server = await serve(self._serve, "127.0.0.1", port, compression=None, **options)
        self.port = self._server.sockets[0].getsockname()[1]
        self.url = f"{'wss' if options.get('ssl') else 'ws'}://127.0.0.1:{self.port}"

    async def stop(self):
        self._server.close()
        await self._server.wait_closed()

    def addresses(self):
        return tuple(
            m.NodeAddress(storage_node_id(login.sign), login.sign, login.url, login.certificate, login.zone, "op", True)
            for login in self.known.values()
        )

    async def welcome_all(self):
        for socket in self.sockets.values():
            await socket.send(m.encode_frame(0, m.NodeWelcome(self.addresses(), self.revoked)))

    async def tell(self, node, body):
        await self.sockets[node].send(m.encode_frame(0, body))

    async def ask(self, node, body):
        self._next += 2
        future = self._waiting[self._next] = asyncio.get_running_loop().create_future()
        await self.sockets[node].send(m.encode_frame(self._next, body))
        return await asyncio.wait_for(future, 10)

    async def _serve(self, socket):
        challenge = m.Challenge(1, public_key(self.log_seed), public_key(self.token_seed), os.urandom(32), now_ms())
        await socket.send(m.encode_frame(0, challenge))
        frame = m.decode_frame(await socket.recv())
        login = frame.body
        tls = socket.transport.get_extra_info("ssl_object")
        assert isinstance(login, m.NodeLogin)
        if tls is None:
            verify(
                "login",
                m.login_bytes(challenge, self.url, bytes(32), login.nonce, login.sign),
                login.signature,
                login.sign,
            )
        if login.sign not in self.known and login.token != TOKEN:
            await socket.send(
                m.encode_frame(frame.id, m.Failure("access_denied", "the invitation is not valid"), reply=True)
            )
            return
        if login.sign in self.retired:
            await socket.send(m.encode_frame(frame.id, m.Failure("revoked", "this node was retired"), reply=True))
            return
        self.known[login.sign] = login
        node = storage_node_id(login.sign)
        self.sockets[node] = socket
        await socket.send(m.encode_frame(frame.id, m.NodeWelcome(self.addresses(), self.revoked), reply=True))
        await self.welcome_all()
        self.logins.put_nowait(login)
        with contextlib.suppress(ConnectionClosed):
            await self._listen(socket)

    async def _listen(self, socket):
        async for data in socket:
            frame = m.decode_frame(data)
            if frame.reply:
                self._waiting.pop(frame.id).set_result(frame.body)
                continue
            if isinstance(frame.body, m.LostChunks):
                self.lost.put_nowait(frame.body.chunks)
            self.asked.put_nowait(frame.body)
            await socket.send(m.encode_frame(frame.id, m.Ok(), reply=True))


class World:
    """A coordinator, any number of nodes, and clients for them."""

    def __init__(self, directory):
        self.directory = directory
        self.coordinator = FakeCoordinator()
        self.nodes = []
        self._http: Any = None

    async def __aenter__(self):
        await self.coordinator.start()
        self._http = aiohttp.ClientSession()
        return self

    async def __aexit__(self, *_):
        await self._http.close()
        for node in tuple(self.nodes):
            await self.stop(node)
        with contextlib.suppress(Exception):
            await self.coordinator.stop()

    def settings(self, name="node", **options):
        data = self.directory / name
        data.mkdir(exist_ok=True)
        given: dict[str, Any] = {
            "listen": "127.0.0.1:0",
            "coordinator": self.coordinator.url,
            "invite": TOKEN,
            "advertise": None,
        }
        given |= {"zone": None, "limit": None, "backend": None} | options
        return make_settings(data=data, **given)

    async def node(self, name="node", store=None, **options):
        settings = self.settings(name, **options)
        node = StorageNode(settings, system_doors(settings), store)
        try:
            await node.start()
        except BaseException:
            await node.stop()
            raise
        self.nodes.append(node)
        return node

    async def stop(self, node):
        self.nodes.remove(node)
        await node.stop()
        node._doors.processor.close()

    def client(self, node, device=None):
        return Client(self._http, node, device or Device())


@pytest.fixture
def world(tmp_path):
    """The means to make a world inside a test's own event loop."""
    return World(tmp_path)
