"""Batches handed on among real nodes, and chunks pulled from one another."""

import asyncio
import os

import pytest

from protocol import messages as m
from protocol.chunk_api import PutReply, check_receipt, encode_refs
from protocol.codec import encode
from protocol.grants import (
    ChunkRef,
    Operation,
    Receipt,
    ReceiptFor,
    Statement,
    batch_root,
    open_receipt,
    open_signed,
    sign_body,
)
from protocol.ids import ChunkId, DeviceId, StorageNodeId, device_id, storage_node_id
from protocol.signing import public_key
from storage_node import replicas, server
from storage_node.chunks.memory import MemoryStore
from tests.storage_node.conftest import (
    FOLDER,
    OTHER_FOLDER,
    TOKEN_SEED,
    Answer,
    Device,
    chunks_of,
    in_loop,
    refs_of,
)


async def three(world, **options):
    return [await world.node(f"node{i}", **options) for i in range(3)]


def nodes_of(nodes):
    return [node.identity.node for node in nodes]


@in_loop
async def test_one_put_reaches_three_nodes_with_the_same_grant_and_statement(world):
    async with world:
        nodes = await three(world)
        chunks = [*chunks_of(20, 3000), *chunks_of(6, 1 << 20)]
        client = world.client(nodes[0])
        reply = await client.put(chunks, nodes=nodes_of(nodes), forward=True)
        assert reply.failed == ()
        assert len(reply.receipts) == 3
        for item, node in zip(reply.receipts, nodes, strict=True):
            receipt = open_receipt(item, node.identity.node)
            assert (item.chunks, receipt.pseudonym) == (refs_of(chunks), FOLDER)
            assert receipt.device == device_id(public_key(client.device.seed))
        for node in nodes:
            assert await world.client(node).get([id for id, _ in chunks]) == [body for _, body in chunks]


@in_loop
async def test_without_being_asked_a_node_hands_nothing_on(world):
    async with world:
        nodes = await three(world, store=None)
        chunks = chunks_of(2, 3000)
        reply = await world.client(nodes[0]).put(chunks, nodes=nodes_of(nodes))
        assert (len(reply.receipts), reply.failed) == (1, ())
        assert await world.client(nodes[1]).have([chunks[0][0]]) is None


@in_loop
async def test_a_node_that_cannot_take_it_is_named_and_the_others_count(world):
    async with world:
        first, full, gone = await world.node("a"), await world.node("b", limit="1M"), await world.node("c")
        missing = gone.identity.node
        await world.stop(gone)
        unknown = os.urandom(32)
        chunks = chunks_of(3, 1 << 20)
        names = [first.identity.node, full.identity.node, missing, unknown]
        reply = await world.client(first).put(chunks, nodes=names, forward=True)
        assert [open_receipt(item).node for item in reply.receipts] == [first.identity.sign_public]
        assert dict(reply.failed) == {full.identity.node: "full", missing: "unavailable", unknown: "unknown_node"}


@in_loop
async def test_a_wrong_batch_leaves_no_receipt_anywhere(world):
    async with world:
        nodes = await three(world)
        chunks = chunks_of(3, 100_000)
        spoilt = [*chunks[:2], (chunks[2][0], bytes(100_000))]
        client = world.client(nodes[0])
        with pytest.raises(Answer) as caught:
            await client.put(
                chunks,
                body=encode_refs(refs_of(chunks)) + b"".join(body for _, body in spoilt),
                nodes=nodes_of(nodes),
                forward=True,
            )
        assert caught.value.status == 400
        for node in nodes:
            assert await world.client(node).have([chunks[2][0]]) is None
        assert len((await client.put(chunks, nodes=nodes_of(nodes), forward=True)).receipts) == 3


@in_loop
async def test_nodes_that_forward_to_each_other_never_wait_for_each_other(world, monkeypatch):
    """With room for one batch at a time on either side, batches that cross all come through, and at once."""
    monkeypatch.setattr(server, "READING_BYTES_MAX", 1 << 20)
    monkeypatch.setattr(server, "FORWARDING_BYTES_MAX", 1 << 20)
    async with world:
        first, second = await world.node("a"), await world.node("b")
        there, back = nodes_of([first, second]), nodes_of([second, first])
        began = asyncio.get_running_loop().time()
        replies = await asyncio.gather(
            *(world.client(first).put(chunks_of(3, 1 << 20, bytes([i])), nodes=there, forward=True) for i in range(6)),
            *(
                world.client(second).put(chunks_of(3, 1 << 20, bytes([9, i])), nodes=back, forward=True)
                for i in range(6)
            ),
        )
        assert all(len(reply.receipts) == 2 for reply in replies)
        assert asyncio.get_running_loop().time() - began < replicas.STALL_S


async def answer(writer, body=b"", status=b"200 OK"):
    writer.write(b"HTTP/1.1 " + status + b"\r\nContent-Length: " + str(len(body)).encode() + b"\r\n\r\n" + body)
    await writer.drain()


async def swallow(reader):
    while await reader.read(1 << 16):
        pass


class EvilNode:
    """Something that speaks HTTP at the address of a node, and answers what it likes."""

    def __init__(self, behave):
        self.seed = os.urandom(32)
        self.behave = behave
        self._writers = []

    async def start(self, world, nodes):
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port = self._server.sockets[0].getsockname()[1]
        key = public_key(self.seed)
        self.node = storage_node_id(key)
        address = m.NodeAddress(self.node, key, f"http://127.0.0.1:{port}", b"", "z", "o", True)
        for node in nodes:
            node.replicas.learn([*world.coordinator.addresses(), address])

    async def _serve(self, reader, writer):
        self._writers.append(writer)
        try:
            await self.behave(reader, writer)
        except ConnectionError:
            pass
        finally:
            writer.close()

    async def stop(self):
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()
        await asyncio.sleep(0)


async def says_nothing(reader, writer):
    await swallow(reader)


async def reads_nothing(reader, writer):
    await asyncio.Event().wait()


async def closes(reader, writer):
    await reader.read(100)


async def talks_garbage(reader, writer):
    await reader.read(100)
    writer.write(os.urandom(1000))
    await swallow(reader)


async def confirms_without_a_receipt(reader, writer):
    await answer(writer, b"\x92\x90\x90")
    await swallow(reader)


async def confirms_for_ever(reader, writer):
    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        writer.write(b"10000\r\n" + bytes(0x10000) + b"\r\n")
        await writer.drain()


async def sends_elsewhere(reader, writer):
    writer.write(b"HTTP/1.1 307 Temporary Redirect\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n")
    await swallow(reader)


@pytest.mark.parametrize(
    ("behave", "code"),
    [
        (says_nothing, "unavailable"),
        (reads_nothing, "unavailable"),
        (closes, "unavailable"),
        (talks_garbage, "unavailable"),
        (confirms_without_a_receipt, "protocol"),
        (confirms_for_ever, "protocol"),
        (sends_elsewhere, "unavailable"),
    ],
)
@in_loop
async def test_an_evil_node_costs_its_own_receipt_only(world, monkeypatch, behave, code):
    monkeypatch.setattr(replicas, "STALL_S", 0.3)
    monkeypatch.setattr(replicas, "DURABLE_S", 0.3)
    async with world:
        nodes = [await world.node("a"), await world.node("b")]
        evil = EvilNode(behave)
        await evil.start(world, nodes)
        chunks = chunks_of(12, 1 << 20)
        reply = await world.client(nodes[0]).put(chunks, nodes=[*nodes_of(nodes), evil.node], forward=True)
        assert len(reply.receipts) == 2
        assert reply.failed == ((evil.node, code),)
        await evil.stop()


@in_loop
async def test_a_receipt_of_another_node_or_batch_is_none(world):
    """S45: the first node checks what the others say before it passes it on."""
    async with world:
        nodes = [await world.node("a")]
        chunks, others = chunks_of(2, 100), chunks_of(2, 100, b"x")
        client = world.client(nodes[0])

        own = (await client.put(chunks)).receipts[0]
        evil = EvilNode(None)

        def forged(receipt):
            async def behave(reader, writer):
                await answer(writer, encode(PutReply((receipt,), ())))
                await swallow(reader)

            return behave

        body = Receipt(public_key(evil.seed), FOLDER, DeviceId(b"d" * 32), batch_root(refs_of(others)), 2, 1, 0)
        for receipt in (own, ReceiptFor(sign_body(body, evil.seed), refs_of(others))):
            evil.behave = forged(receipt)
            await evil.start(world, nodes)
            reply = await client.put(chunks, nodes=[nodes[0].identity.node, evil.node], forward=True)
            assert len(reply.receipts) == 1
            assert [node for node, _ in reply.failed] == [evil.node]
            await evil.stop()


# --- Copies that the coordinator orders


def order(world, puller, source, chunks, pseudonym=FOLDER, **changes):
    grant = Device(seed=puller.identity.sign_seed, pseudonym=pseudonym).grant(Operation.GET, **changes)
    return m.Replicate(pseudonym, source, refs_of(chunks), sign_body(grant, TOKEN_SEED))


@in_loop
async def test_a_node_pulls_what_it_is_told_and_hands_in_the_receipt(world):
    async with world:
        first, second = await world.node("a"), await world.node("b")
        chunks = [*chunks_of(50, 3000), *chunks_of(5, 1 << 20)]
        await world.client(first).put(chunks)
        await world.client(second).put(chunks[:3])
        absent = chunks_of(1, 10, b"absent")
        reply = await world.coordinator.ask(
            second.identity.node, order(world, second, first.identity.node, chunks[:30] + absent + chunks[30:])
        )
        (item,) = reply.receipts
        receipt = open_receipt(item, second.identity.node)
        assert item.chunks == refs_of(chunks)
        assert receipt.device == device_id(second.identity.sign_public)
        assert await world.client(second).get([id for id, _ in chunks]) == [body for _, body in chunks]


@in_loop
async def test_an_order_without_a_right_is_refused_by_the_source(world):
    async with world:
        first, second = await world.node("a"), await world.node("b")
        chunks = chunks_of(3, 3000)
        await world.client(first).put(chunks)
        source = first.identity.node
        wrong = [
            order(world, first, source, chunks),
            order(world, second, source, chunks, expires_ms=1),
            order(world, second, source, chunks, operations=Operation.PUT),
            order(world, second, source, chunks, bytes_max=10),
            order(world, second, b"?" * 32, chunks),
            m.Replicate(FOLDER, source, (ChunkRef(ChunkId(b"short"), 1),), order(world, second, source, chunks).grant),
        ]
        for bad in wrong:
            reply = await world.coordinator.ask(second.identity.node, bad)
            assert isinstance(reply, m.Failure)
        foreign = order(world, second, source, chunks, OTHER_FOLDER)
        assert await world.coordinator.ask(second.identity.node, foreign) == m.Replicated(())
        assert await world.client(second).have([id for id, _ in chunks]) is None


@in_loop
async def test_a_source_that_sends_other_bytes_costs_those_chunks_only(world):
    """S31."""
    async with world:
        store = MemoryStore()
        first, second = await world.node("a", store=store), await world.node("b")
        chunks = chunks_of(4, 3000)

        class EvilStore(MemoryStore):
            async def get(self, pseudonym, ids):
                return tuple(
                    bytes(3000) if id == chunks[1][0] else body
                    for id, body in zip(ids, await super().get(pseudonym, ids), strict=True)
                )

        first.server._store = evil = EvilStore()
        await evil.put(FOLDER, chunks)
        reply = await world.coordinator.ask(second.identity.node, order(world, second, first.identity.node, chunks))
        assert [c.id for c in reply.receipts[0].chunks] == [chunks[i][0] for i in (0, 2, 3)]


@in_loop
async def test_what_the_scrub_finds_lost_is_told_and_comes_back(world):
    async with world:
        store = MemoryStore()
        first, second = await world.node("a"), await world.node("b", store=store)
        chunks = chunks_of(5, 3000)
        for node in (first, second):
            await world.client(node).put(chunks)
        lost = chunks[3][0]
        store.chunks[lost] = bytes(3000)
        assert await store.verify([id for id, _ in chunks]) == (lost,)
        second.link.tell_lost()
        assert await world.coordinator.lost.get() == (lost,)
        await world.coordinator.ask(second.identity.node, order(world, second, first.identity.node, chunks[3:4]))
        assert await world.client(second).get([lost]) == [chunks[3][1]]
        assert await store.lost() == ()


def test_a_statement_of_the_puller_is_checked_like_a_devices():
    """The receipt that a forward must bring is the batch's own."""
    device = Device()
    refs = refs_of(chunks_of(1, 5))
    signed = sign_body(device.statement(device.grant(), Operation.PUT, [], refs), device.seed)
    asked = open_signed(signed, Statement, public_key(device.seed))
    with pytest.raises(Exception, match="receipt"):
        check_receipt(ReceiptFor(signed, refs), node=StorageNodeId(b"n" * 32), statement=asked)
