"""The coordinator with real storage nodes: grants open them, receipts count, and orders make further copies."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
import time

import aiohttp
from blake3 import blake3

from protocol import messages as m
from protocol.chunk_api import (
    GET_PATH,
    PUT_PATH,
    ChunkFrom,
    GetReader,
    decode_put_reply,
    encode_refs,
    encode_wanted,
    ids_root,
    request_headers,
)
from protocol.grants import ChunkRef, Grant, Operation, Statement, batch_root, open_signed, sign_body
from protocol.ids import ChunkId
from tests.builders import Author
from tests.coordinator.client import new_user
from tests.coordinator.conftest import run
from tests.coordinator.test_cli import ROOT, environment
from tests.protocol.chain_world import TestAccount, TestFolder, fixed

COMMAND = [sys.executable, "-P", "-m", "storage_node.cli", "serve"]


class StorageProcess:
    """A storage node as a process."""

    def __init__(self, data: str, url: str, token: str) -> None:
        self.process = subprocess.Popen(
            [*COMMAND, "--data", data, "--listen", "127.0.0.1:0", "--coordinator", url, "--invite", token],
            cwd=ROOT,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self.process.stdout is not None
        assert re.search(r"ready", self.process.stdout.readline())

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()


def headers(granted: m.Granted, account: TestAccount, operation: Operation, node, root: bytes, count: int, size: int):
    grant = open_signed(granted.grant, Grant)
    statement = Statement(grant.id, operation, (node.id,), root, count, size, time.time_ns() // 1_000_000)
    return request_headers(granted.grant, sign_body(statement, account.device.seed))


def test_a_chunk_is_put_counted_copied_and_outlives_its_first_node(world, tmp_path):
    body = fixed("body", 10_000)
    ref = ChunkRef(ChunkId(blake3(body).digest()), len(body))

    async def main():
        async with world.running(replicas=1, quorum=1) as server, aiohttp.ClientSession() as http:
            server.coordinator.repair.pause_s = 0.05
            alice = TestAccount("alice")
            client = await new_user(server.url, alice, world.user_token)
            folder = TestFolder(alice)
            await client.create(folder.links[0])
            entry = Author(folder, alice.device, 1).entry("x", pins=[ref.id])
            await client.register(folder.id, [entry])
            await client.ask(m.PinSegments(folder.id, (m.PinnedSegment(ref, ()),)))

            def start(name: str) -> StorageProcess:
                return StorageProcess(str(tmp_path / name), server.url, world.operator_token(name))

            first = await asyncio.to_thread(start, "n1")
            granted = await client.ask(m.GetGrant(folder.id, Operation.PUT, 1 << 20, 10), m.Granted)
            node = granted.nodes[0]
            root = batch_root([ref])
            async with http.post(
                node.url + PUT_PATH,
                data=encode_refs([ref]) + body,
                headers=headers(granted, alice, Operation.PUT, node, root, 1, len(body)),
            ) as answer:
                assert answer.status == 200
                reply = decode_put_reply(await answer.read())
            await client.ask(m.AddReceipts(folder.id, reply.receipts))
            assert (await client.register(folder.id, [entry])).states[0].position == 2

            second = await asyncio.to_thread(start, "n2")
            world.directory.set_copies(2, 1)
            places: set[int] = set()
            async with asyncio.timeout(20):
                while len(places) < 2:
                    found = await server.coordinator.database.read(lambda r: r.chunks.where([ref.id]))
                    places = set(found[0].nodes)
                    await asyncio.sleep(0.05)
            await asyncio.to_thread(first.end)

            granted = await client.ask(m.GetGrant(folder.id, Operation.GET, 1 << 20, 10), m.Granted)
            other = next(one for one in granted.nodes if one.id != node.id)
            async with http.post(
                other.url + GET_PATH,
                data=encode_wanted([ChunkFrom(ref.id, 0)]),
                headers=headers(granted, alice, Operation.GET, other, ids_root([ref.id]), 1, 0),
            ) as answer:
                assert answer.status == 200
                reader = GetReader([ChunkFrom(ref.id, 0)])
                assert [bytes(data or b"") for _, data in reader.feed(await answer.read())] == [body]
            await asyncio.to_thread(second.end)

    run(main)
