"""The HTTP interface of a real node on loopback, asked by devices whose grants a test's coordinator signed."""

import asyncio
import os
import time

import msgspec
import pytest
from blake3 import blake3

from protocol import limits
from protocol.chunk_api import (
    GET_PATH,
    GRANT_HEADER,
    HAVE_PATH,
    PUT_PATH,
    STATEMENT_HEADER,
    ChunkFrom,
    decode_failure,
    encode_refs,
    encode_wanted,
)
from protocol.codec import encode
from protocol.grants import ChunkRef, Operation, open_receipt, sign_body
from protocol.ids import device_id
from protocol.signing import public_key
from storage_node import connections, server
from storage_node.chunks.memory import MemoryStore
from tests.storage_node.conftest import (
    FOLDER,
    OTHER_FOLDER,
    TOKEN_SEED,
    Answer,
    Device,
    chunks_of,
    in_loop,
    now_ms,
    refs_of,
    until,
)


@in_loop
async def test_what_was_put_is_had_and_got(world):
    async with world:
        node = await world.node()
        client = world.client(node)
        chunks = chunks_of(20, 5000) + chunks_of(3, 1 << 20)
        reply = await client.put(chunks)
        assert reply.failed == ()
        (item,) = reply.receipts
        receipt = open_receipt(item, node.identity.node)
        assert item.chunks == refs_of(chunks)
        assert (receipt.pseudonym, receipt.device) == (FOLDER, device_id(public_key(client.device.seed)))
        assert abs(receipt.time_ms - now_ms()) < 60_000
        ids = [id for id, _ in chunks]
        held = await client.have([b"x" * 32, *ids])
        assert held.chunks == refs_of(chunks)
        open_receipt(held, node.identity.node)
        assert await client.get([*ids, b"x" * 32]) == [body for _, body in chunks] + [None]
        assert await client.have([b"x" * 32]) is None


@in_loop
async def test_the_largest_batch_and_the_largest_chunk_pass_and_one_byte_more_does_not(world):
    async with world:
        client = world.client(await world.node())
        largest = chunks_of(1, limits.SEALED_CHUNK_BYTES_MAX)
        assert (await client.put(largest)).receipts
        assert await client.get([largest[0][0]]) == [largest[0][1]]
        full = chunks_of(limits.BATCH_CHUNKS_MAX, limits.BATCH_BYTES_MAX // limits.BATCH_CHUNKS_MAX)
        assert (await client.put(full)).receipts
        ids = [id for id, _ in full]
        assert await client.get(ids) == [body for _, body in full]
        with pytest.raises(Answer) as caught:
            await client.put(chunks_of(1, limits.SEALED_CHUNK_BYTES_MAX + 1))
        assert caught.value.status == 400
        with pytest.raises(Answer) as caught:
            await client.put([*full, *chunks_of(1, 1)])
        assert caught.value.status == 403


@in_loop
async def test_what_is_read_by_one_folder_is_unknown_to_another(world):
    """S33, S34: the same words for a foreign chunk and for one that nobody has."""
    async with world:
        node = await world.node()
        chunks = chunks_of(3, 5000)
        await world.client(node).put(chunks)
        stranger = world.client(node, Device(seed=b"s" * 32, pseudonym=OTHER_FOLDER))
        foreign, unknown = [id for id, _ in chunks], [os.urandom(32) for _ in chunks]
        assert await stranger.get(foreign) == await stranger.get(unknown) == [None] * 3
        assert await stranger.have(foreign) is await stranger.have(unknown) is None


@in_loop
async def test_a_foreign_chunk_takes_as_long_as_an_unknown_one(tmp_path, world):
    """S33: the look-up is one query by (id, pseudonym), whatever it finds."""
    async with world:
        node = await world.node()
        chunks = chunks_of(2000, 200)
        for begin in range(0, 2000, 250):
            await world.client(node).put(chunks[begin : begin + 250])
        ids = [id for id, _ in chunks]
        times: dict[str, list[float]] = {"foreign": [], "unknown": []}
        for begin in range(0, 2000, 100):
            for name, asked in (
                ("foreign", ids[begin : begin + 100]),
                ("unknown", [os.urandom(32) for _ in range(100)]),
            ):
                began = time.perf_counter()
                assert await node.store.have(OTHER_FOLDER, asked) == ()
                times[name].append(time.perf_counter() - began)
        middle = {name: sorted(values)[len(values) // 2] for name, values in times.items()}
        assert 0.4 < middle["foreign"] / middle["unknown"] < 2.5


REFUSED = {
    "expired": {"grant": {"expires_ms": 1}},
    "from the future": {"grant": {"not_before_ms": now_ms() + 10**7, "expires_ms": now_ms() + 2 * 10**7}},
    "for other operations": {"grant": {"operations": Operation(0)}},
    "another node's": {"nodes": [b"n" * 32]},
    "an old statement": {"changes": {"time_ms": 1}},
    "under another grant": {"changes": {"grant": b"?" * 16}},
    "used up": {"grant": {"chunks_max": 0}},
    "signed by another coordinator": {"device": {"token_seed": b"x" * 32}},
}


@pytest.mark.parametrize("bent", REFUSED.values(), ids=REFUSED)
@pytest.mark.parametrize("verb", ["put", "have", "get"])
@in_loop
async def test_what_is_not_granted_is_refused_alike(world, bent, verb):
    """S42: a stolen, old, foreign or used-up grant, and nothing in the answer says which."""
    async with world:
        node = await world.node(store=MemoryStore())
        device = Device(**bent.get("device", {}))
        client = world.client(node, device)
        grant = msgspec.structs.replace(device.grant(), **bent.get("grant", {}))
        chunks = chunks_of(1, 100)
        with pytest.raises(Answer) as caught:
            await getattr(client, verb)(
                chunks if verb == "put" else [chunks[0][0]],
                grant=grant,
                nodes=bent.get("nodes"),
                changes=bent.get("changes"),
            )
        assert (caught.value.status, caught.value.code) == (403, "access_denied")
        assert await node.store.iterate(None, 1) == ()


@in_loop
async def test_a_statement_is_for_one_device_one_operation_and_one_batch(world):
    async with world:
        node = await world.node(store=MemoryStore())
        client, thief = world.client(node), Device(seed=b"t" * 32)
        chunks, others = chunks_of(2, 100), chunks_of(2, 100, b"other")
        await client.put(chunks)
        grant = client.device.grant()
        stolen = client.device.headers(
            grant, thief.statement(grant, Operation.GET, [node.identity.node], refs_of(chunks))
        )
        stolen[STATEMENT_HEADER] = thief.headers(
            grant, thief.statement(grant, Operation.GET, [node.identity.node], refs_of(chunks))
        )[STATEMENT_HEADER]
        ids = [id for id, _ in chunks]
        with pytest.raises(Answer) as caught:
            await client.post(GET_PATH, encode_wanted([ChunkFrom(id, 0) for id in ids]), stolen)
        assert caught.value.status == 403
        have = client.headers(Operation.HAVE, [ChunkRef(id, 0) for id in ids])
        with pytest.raises(Answer) as caught:
            await client.post(GET_PATH, encode_wanted([ChunkFrom(id, 0) for id in ids]), have)
        assert caught.value.status == 403
        put = client.headers(Operation.PUT, refs_of(chunks))
        for refs, body in ((refs_of(others), others), (refs_of(chunks), others), (refs_of(chunks), chunks[::-1])):
            with pytest.raises(Answer) as caught:
                await client.post(PUT_PATH, encode_refs(refs) + b"".join(data for _, data in body), put)
            assert caught.value.status == 400
        assert await client.have([id for id, _ in others]) is None


@in_loop
async def test_a_grant_is_good_for_its_bytes_and_no_more(world):
    """S42: twice past its budget; a failed put costs nothing, a get costs what it sends."""
    async with world:
        client = world.client(await world.node(store=MemoryStore()))
        first, second = chunks_of(2, 1000), chunks_of(2, 1000, b"second")
        grant = client.device.grant(bytes_max=3000, chunks_max=4)
        with pytest.raises(Answer) as caught:
            await client.put(first, grant=grant, body=encode_refs(refs_of(first)) + bytes(2000))
        assert caught.value.status == 400
        await client.put(first, grant=grant)
        with pytest.raises(Answer) as caught:
            await client.put(second, grant=grant)
        assert caught.value.status == 403
        ids = [id for id, _ in first]
        assert len(await client.get(ids, grant=grant)) == 2
        with pytest.raises(Answer) as caught:
            await client.get(ids, grant=grant)
        assert caught.value.status == 403


@in_loop
async def test_a_full_node_says_so_and_goes_on_serving(world):
    async with world:
        node = await world.node(limit="2M")
        client = world.client(node)
        first = chunks_of(3, 400_000)
        await client.put(first)
        for chunks in (chunks_of(3, 400_000, b"x"), chunks_of(1, 3 << 20, b"y")):
            with pytest.raises(Answer) as caught:
                await client.put(chunks)
            assert (caught.value.status, caught.value.code) == (507, "full")
        assert await client.get([id for id, _ in first]) == [body for _, body in first]


@in_loop
async def test_a_chunk_is_given_from_any_offset_of_it(world):
    """Behind its end there is nothing, which is no error: whoever holds a false beginning finds that out himself."""
    async with world:
        client = world.client(await world.node())
        chunks = chunks_of(3, 1 << 20) + chunks_of(4, 100)
        await client.put(chunks)
        ids = [id for id, _ in chunks]
        offsets = [0, 1, 700_000, 100, 101, limits.SEALED_CHUNK_BYTES_MAX, 99]
        found = await client.get([*ids, b"x" * 32], [*offsets, 5])
        assert found == [body[at:] for (_, body), at in zip(chunks, offsets, strict=True)] + [None]
        for wrong in (-1, limits.SEALED_CHUNK_BYTES_MAX + 1, 1 << 63, "1", 1.0, None):
            body = encode([[ids[0], wrong]])
            with pytest.raises(Answer) as caught:
                await client.post(GET_PATH, body, client.headers(Operation.GET, [ChunkRef(ids[0], 0)]))
            assert caught.value.status == 400
        # All of a chunk is read, wherever its answer begins: so it counts as all of it.
        grant = client.device.grant(bytes_max=150)
        assert await client.get([ids[-1]], [99], grant=grant) == [chunks[-1][1][99:]]
        with pytest.raises(Answer) as caught:
            await client.get([ids[-1]], [99], grant=grant)
        assert caught.value.status == 403


@in_loop
async def test_a_damaged_chunk_is_not_here(world):
    async with world:
        store = MemoryStore()
        client = world.client(await world.node(store=store))
        chunks = chunks_of(3, 1000)
        await client.put(chunks)
        store.chunks[chunks[1][0]] = bytes(1000)
        ids = [id for id, _ in chunks]
        assert await client.get(ids) == [chunks[0][1], None, chunks[2][1]]
        assert (await client.have(ids)).chunks == (refs_of(chunks)[0], refs_of(chunks)[2])


GARBAGE = [b"", b"\0", b"\xff" * 100, b"\0\0\0\0", b"\0\0\0\1\x90", b"\xc1" * 5000, b"[" * 10_000, bytes(20_000)]


@pytest.mark.parametrize("path", [PUT_PATH, HAVE_PATH, GET_PATH])
@in_loop
async def test_garbage_in_a_body_is_a_clean_refusal(world, path):
    """S59, S60."""
    async with world:
        client = world.client(await world.node(store=MemoryStore()))
        operation = {PUT_PATH: Operation.PUT, HAVE_PATH: Operation.HAVE, GET_PATH: Operation.GET}[path]
        for body in (*GARBAGE, *(os.urandom(n) for n in range(1, 200, 7))):
            with pytest.raises(Answer) as caught:
                await client.post(path, body, client.headers(operation, refs_of(chunks_of(3, 50))))
            assert caught.value.status in (400, 413)
        chunks = chunks_of(2, 100)
        await client.put(chunks)


@pytest.mark.parametrize("path", [PUT_PATH, HAVE_PATH, GET_PATH])
@in_loop
async def test_garbage_in_the_proofs_is_a_clean_refusal(world, path):
    async with world:
        client = world.client(await world.node(store=MemoryStore()))
        operation = {PUT_PATH: Operation.PUT, HAVE_PATH: Operation.HAVE, GET_PATH: Operation.GET}[path]
        good = client.headers(operation, refs_of(chunks_of(1, 50)))
        for name in (GRANT_HEADER, STATEMENT_HEADER):
            for value in (
                None,
                "",
                "A",
                "é",
                "=" * 10,
                "A" * 7000,
                good[name][:-4],
                good[name] + "AAAA",
                good[name].swapcase(),
            ):
                headers = {k: v for k, v in good.items() if k != name} | ({} if value is None else {name: value})
                with pytest.raises(Answer) as caught:
                    await client.post(path, b"x", headers)
                assert caught.value.status in (400, 403)


@in_loop
async def test_only_three_things_are_here(world):
    """S43: every other path, method and query is nothing, whatever is shown."""
    async with world:
        client = world.client(await world.node(store=MemoryStore()))
        good = client.headers(Operation.GET, refs_of(chunks_of(1, 50)))
        for method, path in (
            ("GET", GET_PATH),
            ("PUT", PUT_PATH),
            ("DELETE", GET_PATH),
            ("OPTIONS", "*"),
            ("POST", "/"),
            ("POST", "/v1/delete"),
            ("POST", GET_PATH + "/"),
            ("POST", GET_PATH + "?a=b"),
            ("POST", "/v1/../v1/get"),
            ("POST", "/metrics"),
        ):
            url = client.node.url + (path if path != "*" else "/*")
            async with client.http.request(method, url, headers=good) as response:
                assert response.status == 404 or path == "/v1/../v1/get"
                assert decode_failure(await response.read()).code == "protocol"


async def speak(node, data, *, wait=True):
    """Send bytes to the node's port; return all that comes back until it closes."""
    host, port = node.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        writer.write(data)
        await writer.drain()
        if wait:
            writer.write_eof()
        return await reader.read()
    except ConnectionError:
        return b""
    finally:
        writer.close()


RAW = [
    b"\r\n\r\n",
    b"\0" * 1000,
    os.urandom(5000),
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + os.urandom(100),
    b"GET\r\n\r\n",
    b"POST /v1/put HTTP/9.9\r\n\r\n",
    b"POST /v1/put HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
    b"POST /v1/put HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n",
    b"POST /v1/put HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    b"POST /v1/put HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\nhello",
    b"POST /v1/put HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nZZZZ\r\n",
    b"POST /v1/put HTTP/1.1\r\n" + b"A: b\r\n" * 500 + b"\r\n",
    b"POST /v1/put HTTP/1.1\r\nA: " + b"b" * 100_000 + b"\r\n\r\n",
    b"POST /" + b"x" * 100_000 + b" HTTP/1.1\r\n\r\n",
    b"POST /v1/put HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n",
    b"CONNECT example.org:443 HTTP/1.1\r\n\r\n",
    b"GET / HTTP/1.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
]


@in_loop
async def test_garbage_on_the_wire_is_a_clean_4xx_and_no_trace(world, capfd):
    async with world:
        node = await world.node(store=MemoryStore())
        for data in RAW:
            answer = await speak(node, data)
            status = answer.split(b" ")[1] if answer else b"closed"
            assert status in (b"400", b"403", b"404", b"413", b"closed"), (data[:60], answer[:100])
            assert b"Traceback" not in answer
            assert b"100 Continue" not in answer
        chunks = chunks_of(2, 100)
        await world.client(node).put(chunks)
    shown = capfd.readouterr()
    assert "Traceback" not in shown.out + shown.err


@in_loop
async def test_no_byte_of_a_body_is_asked_for_before_the_grant_is_checked(world):
    """Security 4.4: the client that waits for our word is refused at once; the one with a grant is told to go on."""
    async with world:
        node = await world.node(store=MemoryStore())
        client = world.client(node)
        chunks = chunks_of(1, 1000)
        body = encode_refs(refs_of(chunks)) + chunks[0][1]

        def head(headers):
            lines = [f"{name}: {value}" for name, value in headers.items()]
            lines += ["Expect: 100-continue", f"Content-Length: {len(body)}", "Host: x"]
            return ("POST /v1/put HTTP/1.1\r\n" + "\r\n".join(lines) + "\r\n\r\n").encode()

        host, port = node.url.removeprefix("http://").split(":")
        for device, first in ((Device(token_seed=bytes(32)), b"HTTP/1.1 403"), (Device(), b"HTTP/1.1 100 Continue")):
            client.device = device
            reader, writer = await asyncio.open_connection(host, int(port))
            writer.write(head(client.headers(Operation.PUT, refs_of(chunks))))
            assert (await reader.readline()).startswith(first)
            if device.token_seed == TOKEN_SEED:
                writer.write(body)
                await reader.readline()
                assert b"200" in await reader.readline()
            writer.close()


@in_loop
async def test_a_body_that_breaks_off_stores_only_what_it_showed(world):
    async with world:
        node = await world.node()
        client = world.client(node)
        chunks = chunks_of(4, 3 << 20)
        headers = client.headers(Operation.PUT, refs_of(chunks))
        body = encode_refs(refs_of(chunks)) + b"".join(data for _, data in chunks)
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        head = f"POST /v1/put HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n{lines}\r\n".encode()
        for cut in (1, len(body) // 2, len(body) - 1):
            await speak(node, head + body[:cut])
        while (held := await client.have([id for id, _ in chunks])) is None:  # noqa: ASYNC110 - nothing tells a client
            await asyncio.sleep(0.005)  # whose connection broke that what was whole is on the disk now
        for id, data in zip([c.id for c in held.chunks], await client.get([c.id for c in held.chunks]), strict=True):
            assert blake3(data).digest() == id
        assert (await client.put(chunks)).receipts


@in_loop
async def test_a_client_that_sends_too_slowly_is_left(world, monkeypatch):
    """S61."""
    monkeypatch.setattr(server, "STALL_S", 0.2)
    async with world:
        node = await world.node(store=MemoryStore())
        chunks = chunks_of(1, 1000)
        headers = world.client(node).headers(Operation.PUT, refs_of(chunks))
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        head = f"POST /v1/put HTTP/1.1\r\nHost: x\r\nContent-Length: 2000\r\n{lines}\r\n".encode()
        assert b" 400 " in await speak(node, head + b"\0", wait=False)


@in_loop
async def test_idle_sockets_keep_nobody_out(world, monkeypatch):
    """S61: whoever shows nothing is closed, the oldest first; a device with a grant gets in and stays."""
    monkeypatch.setattr(connections, "CONNECTIONS_MAX", 50)
    async with world:
        node = await world.node(store=MemoryStore())
        host, port = node.url.removeprefix("http://").split(":")
        client = world.client(node)
        chunks = chunks_of(1, 1000)
        await client.put(chunks)
        idle = [await asyncio.open_connection(host, int(port)) for _ in range(300)]
        assert len(node._doors.listener.http.connections) <= 60
        assert await client.get([chunks[0][0]]) == [chunks[0][1]]
        monkeypatch.setattr(connections, "UNPROVEN_S_MAX", 0.0)
        node._doors.listener.http.sweep()
        assert await idle[-1][0].read() == b""
        assert await client.get([chunks[0][0]]) == [chunks[0][1]]
        for _, writer in idle:
            writer.close()


@in_loop
async def test_many_large_puts_at_once_share_a_bounded_memory(world):
    async with world:
        node = await world.node(store=MemoryStore())
        batches = [chunks_of(8, 1 << 20, bytes([i])) for i in range(12)]
        client = world.client(node)
        replies = await asyncio.gather(*(client.put(batch) for batch in batches))
        assert all(reply.receipts for reply in replies)
        for budget, size in (
            (node.server._reading.bytes, server.READING_BYTES_MAX),
            (node.server._forwarding.bytes, server.FORWARDING_BYTES_MAX),
            (node.server._storing, server.STORING_BYTES_MAX),
            (node.server._sending, server.SENDING_BYTES_MAX),
        ):
            assert budget.free == size


@in_loop
async def test_puts_beyond_those_that_may_wait_are_told_to_come_later(world, monkeypatch):
    """Invariant 9: what waits is bounded by a number of ours, not by how many come."""
    monkeypatch.setattr(server, "PUTS_MAX", 2)
    monkeypatch.setattr(server, "PUTS_WAITING_MAX", 3)
    async with world:
        node = await world.node(store=MemoryStore())
        client = world.client(node)
        began: asyncio.Queue[None] = asyncio.Queue()
        go_on = asyncio.Event()

        async def slow(refs, body):
            began.put_nowait(None)
            yield refs
            await go_on.wait()
            yield body

        def put(i):
            chunks = chunks_of(1, 300_000, bytes([i]))
            body = slow(encode_refs(refs_of(chunks)), chunks[0][1])
            return asyncio.create_task(client.put(chunks, body=body))

        early = [put(i) for i in range(5)]
        for _ in early:
            await began.get()
        await until(lambda: node.server._reading._slots.waiting == 3)
        with pytest.raises(Answer) as caught:
            await client.put(chunks_of(1, 10))
        assert (caught.value.status, caught.value.code) == (503, "unavailable")
        go_on.set()
        assert all([(await task).receipts for task in early])
        assert (await client.put(chunks_of(1, 10))).receipts


@in_loop
async def test_the_coordinators_word_is_needed_before_anything(world):
    async with world:
        node = await world.node(store=MemoryStore())
        node.custody.token_key = None
        with pytest.raises(Answer) as caught:
            await world.client(node).put(chunks_of(1, 10))
        assert caught.value.status == 503


def test_signing_covers_the_kind():
    """S23: a grant's signature is of no use for a statement over the same bytes."""
    grant = Device().grant()
    assert (
        sign_body(grant, TOKEN_SEED).signature
        != sign_body(Device().statement(grant, Operation.GET, [], []), TOKEN_SEED).signature
    )
