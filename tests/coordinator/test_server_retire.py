"""Retiring a node at a running server: copied first, then struck, let go and refused; and whatever comes in between."""

from __future__ import annotations

import asyncio

import pytest

from coordinator import service
from coordinator.retire_command import retire_node
from protocol import messages as m
from protocol.errors import UserError
from protocol.grants import Operation
from tests.builders import chunk
from tests.coordinator.client import Client, storage_node
from tests.coordinator.conftest import run
from tests.coordinator.test_server_storage import REFS, is_, obey, online, stored, until
from tests.protocol.chain_world import fixed


@pytest.fixture(autouse=True)
def _quick(monkeypatch) -> None:
    monkeypatch.setattr(service, "LOOK_S", 0.05)


def quiet(_: str) -> None:
    """Show nothing."""


def ask(world, node, *, show=quiet, timeout_s: float = 0.0) -> str:
    """Ask for a node's retirement and do not wait; return what the command said."""
    with pytest.raises(UserError) as caught:
        retire_node(world.directory, node.id.hex(), timeout_s=timeout_s, show=show)
    return str(caught.value)


async def standing(world, node):
    return next(one.state for one in world.directory.nodes() if one.node.node == node.id)


async def retirement(server, node):
    return (await server.coordinator.database.read(lambda r: r.retirements.all()))[node.id]


async def places(server) -> set[tuple[int, ...]]:
    found = await server.coordinator.database.read(lambda r: r.chunks.page((b"", b""), 10))
    return {location.nodes for location in found}


async def leaves(client: Client) -> bool:
    found = False
    while not client.notices.empty():
        found |= isinstance(client.notices.get_nowait(), m.NodeLeaves)
    return found


async def left(server, node):
    """Return what a retirement last counted: chunks, bytes, and when it ended."""
    found = await retirement(server, node)
    return found.chunks_left, found.bytes_left, found.ended_ms


def test_a_node_goes_when_the_others_hold_all_that_it_held(world):
    async def main():
        async with world.running(replicas=2, quorum=1) as server:
            client, folder, pseudonym, nodes = await stored(server, world, "n1", "n2", "n3")
            await client.ask(m.AddReceipts(folder.id, tuple(n.receipt(pseudonym, REFS) for _, n in nodes[:2])))
            leaving, gone = nodes[0]
            assert "time is over" in ask(world, gone)
            await until(lambda: leaves(leaving))

            # It gets nothing new, and is a source still; its copies count until others have them.
            put = await client.ask(m.GetGrant(folder.id, Operation.PUT, 1, 1), m.Granted)
            assert {node.id for node in put.nodes} == {node.id for _, node in nodes[1:]}
            get = await client.ask(m.GetGrant(folder.id, Operation.GET, 1, 1), m.Granted)
            assert get.nodes[-1].id == gone.id
            await until(lambda: is_(places(server), {(1, 2)}))
            await until(lambda: is_(left(server, gone), (2, sum(ref.length for ref in REFS), 0)))

            order = await obey(*nodes[2])
            assert order.source in (gone.id, nodes[1][1].id)
            await until(lambda: is_(standing(world, gone), "retired"))
            assert await places(server) == {(2, 3)}
            await until(lambda: is_(online(client), 2))

            # Nothing of it is used any more: it is no source, its receipts are none, and it is not let in.
            get = await client.ask(m.GetGrant(folder.id, Operation.GET, 1, 1), m.Granted)
            assert gone.id not in {node.id for node in get.nodes}
            assert gone.id not in {node.id for node in (await client.ask(m.GetStorage(), m.Storage)).nodes}
            receipt = gone.receipt(pseudonym, (chunk("2"),))
            assert await client.refused(m.AddReceipts(folder.id, (receipt,))) == "unavailable"
            for _ in range(12):  # more than an address may fail a minute: others there are still let in
                again = await Client.open(server.url)
                assert await again.refused(gone.login(again.challenge, again.origin)) == "revoked"
            await nodes[1][0].close()
            await until(lambda: is_(online(client), 1))
            again = await Client.open(server.url)
            await again.ask(nodes[1][1].login(again.challenge, again.origin), m.NodeWelcome)

    run(main)


def test_a_restart_in_the_middle_goes_on(world):
    async def main():
        async with world.running(replicas=1, quorum=1) as server:
            client, folder, pseudonym, nodes = await stored(server, world, "n1", "n2")
            await client.ask(m.AddReceipts(folder.id, (nodes[0][1].receipt(pseudonym, REFS),)))
            ask(world, nodes[0][1])
            await until(lambda: leaves(nodes[0][0]))
        assert "no coordinator runs" in ask(world, nodes[0][1])
        async with world.running() as server:
            again = []
            for _, node in nodes:
                one = await Client.open(server.url)
                await one.ask(node.login(one.challenge, one.origin), m.NodeWelcome)
                again.append((one, node))
            await until(lambda: leaves(again[0][0]))
            assert (await obey(*again[1])).source == nodes[0][1].id
            await until(lambda: is_(standing(world, nodes[0][1]), "retired"))
            assert await places(server) == {(2,)}
        assert retire_node(world.directory, nodes[0][1].id.hex(), timeout_s=0, show=quiet).state == "retired"
        async with world.running() as server:
            one = await Client.open(server.url)
            assert await one.refused(nodes[0][1].login(one.challenge, one.origin)) == "revoked"

    run(main)


def test_what_only_a_node_that_is_down_holds_is_named_and_waited_for(world):
    async def main():
        async with world.running(replicas=1, quorum=1) as server:
            client, folder, pseudonym, nodes = await stored(server, world, "n1", "n2")
            await client.ask(m.AddReceipts(folder.id, (nodes[0][1].receipt(pseudonym, REFS),)))
            await nodes[0][0].close()
            await until(lambda: is_(online(client), 1))
            ask(world, nodes[0][1])

            async def is_alone():
                return (await retirement(server, nodes[0][1])).chunks_alone == 2

            await until(is_alone)
            said = ask(world, nodes[0][1])
            assert f"2 chunks of folder {folder.id.hex()[:16]}" in said
            assert "start " + nodes[0][1].id.hex()[:16] in said
            assert await standing(world, nodes[0][1]) == "retiring"

            back = await Client.open(server.url)
            await back.ask(nodes[0][1].login(back.challenge, back.origin), m.NodeWelcome)
            await obey(*nodes[1])
            await until(lambda: is_(standing(world, nodes[0][1]), "retired"))

    run(main)


def test_a_node_that_is_down_is_made_up_for_by_the_other_replicas(world):
    async def main():
        async with world.running(replicas=2, quorum=1) as server:
            client, folder, pseudonym, nodes = await stored(server, world, "n1", "n2", "n3")
            await client.ask(m.AddReceipts(folder.id, tuple(n.receipt(pseudonym, REFS) for _, n in nodes[:2])))
            await nodes[0][0].close()
            await until(lambda: is_(online(client), 2))
            ask(world, nodes[0][1])
            assert (await obey(*nodes[2])).source == nodes[1][1].id
            await until(lambda: is_(standing(world, nodes[0][1]), "retired"))

    run(main)


def test_a_copy_on_a_node_that_is_away_is_not_relied_on(world):
    """It may be lost: nobody knows since when, just after a start."""

    async def main():
        async with world.running(replicas=1, quorum=1) as server:
            client, folder, pseudonym, nodes = await stored(server, world, "n1", "n2", "n3")
            await client.ask(m.AddReceipts(folder.id, tuple(n.receipt(pseudonym, REFS) for _, n in nodes[:2])))
            await nodes[1][0].close()
            await until(lambda: is_(online(client), 2))
            ask(world, nodes[0][1])

            async def is_counted():
                return (await retirement(server, nodes[0][1])).counted_ms > 0

            await until(is_counted)
            assert (await retirement(server, nodes[0][1])).chunks_left == 2
            assert nodes[2][0].requests.empty()  # for now it may come back

            server.coordinator.registry.away_after_s = 0.0
            server.coordinator.repair.want_sweep()
            assert (await obey(*nodes[2])).source == nodes[0][1].id
            await until(lambda: is_(standing(world, nodes[0][1]), "retired"))
            assert await places(server) == {(2, 3)}

    run(main)


def test_a_receipt_that_comes_in_meanwhile_is_copied_too(world):
    """A grant from before may still bring something: it counts, and is copied before the node goes."""

    async def main():
        async with world.running(replicas=1, quorum=1) as server:
            client, folder, pseudonym, nodes = await stored(server, world, "n1", "n2")
            await client.ask(m.AddReceipts(folder.id, (nodes[0][1].receipt(pseudonym, REFS[:1]),)))
            ask(world, nodes[0][1])
            frame = await asyncio.wait_for(nodes[1][0].requests.get(), 5)
            await client.ask(m.AddReceipts(folder.id, (nodes[0][1].receipt(pseudonym, REFS[1:]),)))
            await nodes[1][0].answer(frame, m.Replicated((nodes[1][1].receipt(pseudonym, frame.body.chunks),)))
            await obey(*nodes[1])
            await until(lambda: is_(standing(world, nodes[0][1]), "retired"))
            assert await places(server) == {(2,)}

    run(main)


def test_no_receipt_slips_in_while_a_node_is_let_go(world):
    """What it has then could be on it alone, and nobody would look there any more: the device is told to store it again."""

    async def main():
        async with world.running(replicas=1, quorum=1) as server:
            client, folder, pseudonym, nodes = await stored(server, world, "n1", "n2")
            server.coordinator.registry.closing = nodes[0][1].id
            both = tuple(node.receipt(pseudonym, REFS) for _, node in reversed(nodes))
            assert await client.refused(m.AddReceipts(folder.id, both)) == "unavailable"
            assert await places(server) == set()
            server.coordinator.registry.closing = None
            await client.ask(m.AddReceipts(folder.id, both))
            assert await places(server) == {(1, 2)}

    run(main)


def test_an_order_goes_to_a_node_with_room(world):
    async def main():
        async with world.running(replicas=1, quorum=1) as server:
            client, folder, pseudonym, nodes = await stored(server, world, "n1", "n2", "n3", "n4")
            await client.ask(m.AddReceipts(folder.id, (nodes[0][1].receipt(pseudonym, REFS),)))
            for one, _ in nodes[1:3]:
                await one.ask(m.NodeReport(1, 1))
            ask(world, nodes[0][1])
            await obey(*nodes[3])
            await until(lambda: is_(standing(world, nodes[0][1]), "retired"))

    run(main)


def test_it_refuses_what_the_others_cannot_do(world):
    async def main():
        async with world.running(replicas=2, quorum=1) as server:
            client, folder, pseudonym, nodes = await stored(server, world, "n1", "n2")
            node = nodes[0][1]
            assert "2 copies take 2 other storage nodes, and there is 1: add 1 first" in ask(world, node)
            third, _ = await storage_node(server.url, "n3", world.operator_token("n3"))
            await client.ask(m.AddReceipts(folder.id, tuple(n.receipt(pseudonym, REFS) for _, n in nodes)))
            for one in (nodes[1][0], third):
                await one.ask(m.NodeReport(1, 0))
            said = ask(world, node)
            assert "what it holds needs" in said
            assert "2 bytes free" in said
            assert await standing(world, node) == "in_service"
            await third.ask(m.NodeReport(1 << 40, 0))
            assert "time is over" in ask(world, node)
            # The first is as good as gone: the next one cannot go any more.
            assert "add 1 first" in ask(world, nodes[1][1])

    run(main)


def test_a_node_that_is_not_known_is_told_with_those_that_are(world):
    async def main():
        with pytest.raises(UserError, match="nor any other"):
            retire_node(world.directory, "abcd", timeout_s=0, show=quiet)
        async with world.running() as server:
            _, node = await storage_node(server.url, "n1", world.node_token)
            for word in (fixed("unknown").hex(), node.id.hex()[:3], ""):
                with pytest.raises(UserError) as caught:
                    retire_node(world.directory, word, timeout_s=0, show=quiet)
                assert caught.value.exit_code == 2
                assert f"{node.id.hex()[:16]} (http://127.0.0.1/n1)" in str(caught.value)
            for word in (node.id.hex()[:4].upper(), "http://127.0.0.1/n1"):
                with pytest.raises(UserError, match="cannot go"):
                    retire_node(world.directory, word, timeout_s=0, show=quiet)

    run(main)
