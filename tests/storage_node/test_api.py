"""The HTTP interface of a real node on loopback, asked by devices whose grants a test's coordinator signed."""

import asyncio

from protocol.grants import open_receipt
from protocol.ids import device_id
from protocol.signing import public_key
from tests.storage_node.conftest import FOLDER, chunks_of, refs_of


def test_what_was_put_is_had_and_got(world):
    async def run():
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
            ids = [id for id, _ in chunks]
            held = await client.have([b"x" * 32, *ids])
            assert held.chunks == refs_of(chunks)
            open_receipt(held, node.identity.node)
            assert await client.get([*ids, b"x" * 32]) == [body for _, body in chunks] + [None]
            assert await client.have([b"x" * 32]) is None

    asyncio.run(run())
