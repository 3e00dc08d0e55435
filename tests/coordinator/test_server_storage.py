"""Copies: what is thin is copied by the nodes, what is lost is copied anew, and mailboxes link devices."""

from __future__ import annotations

import asyncio

from coordinator.core.limiter import site_of
from coordinator.core.mailboxes import NUMBER_MAX, NUMBER_MIN
from protocol import limits
from protocol import messages as m
from protocol.grants import Grant, Operation, open_signed
from protocol.ids import device_id
from tests.builders import Author, TestNode, chunk, device_login, segment
from tests.coordinator.client import Client, device, new_user, storage_node
from tests.coordinator.conftest import run
from tests.protocol.chain_world import TestAccount, TestFolder

ONE = segment("s", chunk("1"))
REFS = (ONE.segment, chunk("1"))
SIZE = sum(ref.length for ref in REFS)


async def stored(server, world, *names: str):
    """Return a client, its folder, storage nodes and receipts of the first node for two chunks."""
    server.coordinator.repair.pause_s = 0.05
    alice = TestAccount("alice")
    client = await new_user(server.url, alice, world.user_token)
    folder = TestFolder(alice)
    made = await client.create(folder.links[0])
    nodes = [await storage_node(server.url, name, world.operator_token(name)) for name in names]
    await client.ask(m.PinSegments(folder.id, (ONE,)))
    return client, folder, made.pseudonym, nodes


async def obey(client: Client, node: TestNode, *, within_s: float = 30) -> m.Replicate:
    """Answer the server's next order with receipts for all it names."""
    frame = await asyncio.wait_for(client.requests.get(), within_s)
    assert isinstance(frame.body, m.Replicate)
    order = frame.body
    await client.answer(frame, m.Replicated((node.receipt(order.pseudonym, order.chunks, device_id(node.sign)),)))
    return order


async def copies(server, pseudonym) -> set[int]:
    found = await server.coordinator.database.read(lambda r: r.chunks.page((b"", b""), 10))
    return {len(location.nodes) for location in found}


async def until(condition, within_s: float = 30) -> None:
    async with asyncio.timeout(within_s):
        while not await condition():  # noqa: ASYNC110  # what is waited for is rows of a database
            await asyncio.sleep(0.02)


def test_thin_chunks_are_copied_to_the_nodes_that_should_hold_them(world):
    async def main():
        async with world.running(replicas=3, quorum=2) as server:
            client, folder, pseudonym, nodes = await stored(server, world, "n1", "n2", "n3")
            entry = Author(folder, TestAccount("alice").device, 1).entry("x", pins=[ONE.segment.id])
            await client.register(folder.id, [entry])
            await client.ask(m.AddReceipts(folder.id, (nodes[0][1].receipt(pseudonym, REFS),)))
            orders = await asyncio.gather(*(obey(*node) for node in nodes[1:]))
            for order, (_, node) in zip(orders, nodes[1:], strict=True):
                assert order.source == nodes[0][1].id
                assert sorted(order.chunks, key=lambda c: c.id) == sorted(REFS, key=lambda c: c.id)
                grant = open_signed(order.grant, Grant, client.challenge.token_key)
                assert (grant.device, grant.pseudonym, grant.operations) == (node.sign, pseudonym, Operation.GET)
                assert (grant.bytes_max, grant.chunks_max) == (sum(c.length for c in REFS), 2)
            # The copies bring the quorum: what waited for it is ordered.
            await client.head_at(folder.id, 2)
            await until(lambda: is_(copies(server, pseudonym), {3}))

    run(main)


async def is_(awaitable, value):
    return (await awaitable) == value


def test_repair_is_told_of_thin_chunks_once_they_are_committed(world):
    """It looked before, found nothing, and forgot them until a node came or went."""

    async def main():
        async with world.running(replicas=2, quorum=1) as server:
            client, folder, pseudonym, nodes = await stored(server, world, "n1")
            repair, seen = server.coordinator.repair, []

            def note(noted, counts):
                seen.append(asyncio.get_running_loop().create_task(copies(server, noted)))  # no other thread has a loop
                type(repair).note_thin(repair, noted, counts)

            repair.note_thin = note
            await client.ask(m.AddReceipts(folder.id, (nodes[0][1].receipt(pseudonym, REFS),)))
            assert await asyncio.gather(*seen) == [{1}]

    run(main)


def test_lost_chunks_are_copied_anew(world):
    async def main():
        async with world.running(replicas=2, quorum=1) as server:
            client, folder, pseudonym, nodes = await stored(server, world, "n1", "n2", "n3")
            receipts = tuple(node.receipt(pseudonym, REFS) for _, node in nodes[:2])
            await client.ask(m.AddReceipts(folder.id, receipts))  # at once, or the first copy alone is too few
            # Whichever of the three should hold it, two do: nothing is copied.
            await asyncio.sleep(0.3)
            assert all(one.requests.empty() for one, _ in nodes)
            await nodes[0][0].ask(m.LostChunks((chunk("1").id,)))
            done, _ = await asyncio.wait(
                [asyncio.create_task(obey(*node)) for node in (nodes[0], nodes[2])],
                return_when=asyncio.FIRST_COMPLETED,
                timeout=5,
            )
            order = done.pop().result()
            assert order.chunks == (chunk("1"),)
            assert order.source == nodes[1][1].id

    run(main)


def test_a_node_that_has_less_than_it_should_hold_is_asked_for_all_of_it(world):
    async def main():
        async with world.running(replicas=2, quorum=1) as server:
            client, folder, pseudonym, nodes = await stored(server, world, "n1", "n2")
            (doubted, node), (_, other) = nodes
            receipts = (node.receipt(pseudonym, REFS), other.receipt(pseudonym, REFS))
            await client.ask(m.AddReceipts(folder.id, receipts))
            await swept(server)
            await doubted.ask(m.NodeReport(9_000, SIZE))
            await swept(server)
            assert doubted.requests.empty()
            await doubted.ask(m.NodeReport(9_000, SIZE - 1))
            frame = await asyncio.wait_for(doubted.requests.get(), 30)
            assert isinstance(frame.body, m.Replicate)
            assert (frame.body.source, set(frame.body.chunks)) == (other.id, set(REFS))
            half = node.receipt(pseudonym, REFS[:1], device_id(node.sign))
            await doubted.answer(frame, m.Replicated((half,)))
            await until(lambda: is_(copies(server, pseudonym), {1, 2}))
            server.coordinator.repair.want_sweep()
            order = await obey(doubted, node)
            assert order.chunks == REFS[1:]
            await until(lambda: is_(copies(server, pseudonym), {2}))
            await doubted.ask(m.NodeReport(9_000, 1))  # as if one chunk were in two folders: it answered for both
            await swept(server)
            assert doubted.requests.empty()

    run(main)


def test_a_doubted_node_is_asked_once_another_is_there_that_holds_the_same(world):
    async def main():
        async with world.running(replicas=2, quorum=1) as server:
            client, folder, pseudonym, nodes = await stored(server, world, "n1", "n2")
            (doubted, node), (second, other) = nodes
            receipts = (node.receipt(pseudonym, REFS), other.receipt(pseudonym, REFS))
            await client.ask(m.AddReceipts(folder.id, receipts))
            await second.close()
            await swept(server)
            await doubted.ask(m.NodeReport(9_000, 0))
            await doubted.ask(m.NodeReport(9_000, 0))
            await swept(server)
            assert doubted.requests.empty()
            await storage_node(server.url, "n2")
            assert (await obey(doubted, node)).source == other.id

    run(main)


def test_a_node_that_comes_back_with_less_is_doubted_at_its_first_report(world):
    async def main():
        async with world.running(replicas=2, quorum=1) as server:
            client, folder, pseudonym, nodes = await stored(server, world, "n1", "n2")
            (first, node), (_, other) = nodes
            receipts = (node.receipt(pseudonym, REFS), other.receipt(pseudonym, REFS))
            await client.ask(m.AddReceipts(folder.id, receipts))
            await first.close()
            again, _ = await storage_node(server.url, "n1")
            await again.ask(m.NodeReport(9_000, SIZE - 1))
            assert (await obey(again, node)).source == other.id

    run(main)


def test_of_what_only_a_doubted_node_has_its_word_stands(world):
    async def main():
        async with world.running(replicas=1, quorum=1) as server:
            client, folder, pseudonym, nodes = await stored(server, world, "n1")
            await client.ask(m.AddReceipts(folder.id, (nodes[0][1].receipt(pseudonym, REFS),)))
            await swept(server)
            await nodes[0][0].ask(m.NodeReport(9_000, 0))
            await nodes[0][0].ask(m.NodeReport(9_000, 0))
            await swept(server)
            assert nodes[0][0].requests.empty()
            assert await copies(server, pseudonym) == {1}

    run(main)


async def swept(server) -> None:
    """Have all chunks looked at, and wait for the end of it."""
    server.coordinator.repair.want_sweep(at_once=True)
    await until(lambda: is_idle(server))


async def is_idle(server) -> bool:
    repair = server.coordinator.repair
    return not (repair.is_busy or repair._sweep)


def test_raising_the_copies_copies_what_is_there(world):
    async def main():
        async with world.running(replicas=1, quorum=1) as server:
            client, folder, pseudonym, nodes = await stored(server, world, "n1", "n2")
            await client.ask(m.AddReceipts(folder.id, (nodes[0][1].receipt(pseudonym, REFS),)))
            world.directory.set_copies(2, 1)
            await obey(*nodes[1])
            await until(lambda: is_(copies(server, pseudonym), {2}))

    run(main)


def test_a_node_that_is_gone_for_long_is_replaced(world):
    async def main():
        async with world.running(replicas=2, quorum=1) as server:
            client, folder, pseudonym, nodes = await stored(server, world, "n1", "n2", "n3")
            for _, node in nodes[:2]:
                await client.ask(m.AddReceipts(folder.id, (node.receipt(pseudonym, REFS),)))
            await nodes[1][0].close()
            await until(lambda: is_(online(client), 2))
            granted = await client.ask(m.GetGrant(folder.id, Operation.GET, 1, 1), m.Granted)
            assert {n.id: n.online for n in granted.nodes}[nodes[1][1].id] is False
            server.coordinator.registry.gone_after_s = 0.0
            server.coordinator.repair.want_sweep()
            order = await obey(*nodes[2])
            assert order.source == nodes[0][1].id
            granted = await client.ask(m.GetGrant(folder.id, Operation.GET, 1, 1), m.Granted)
            assert nodes[1][1].id not in {n.id for n in granted.nodes}

    run(main)


async def online(client: Client) -> int:
    return sum(n.online for n in (await client.ask(m.GetStorage(), m.Storage)).nodes)


def test_a_failed_order_is_tried_again(world):
    async def main():
        async with world.running(replicas=2, quorum=1) as server:
            client, folder, pseudonym, nodes = await stored(server, world, "n1", "n2")
            await client.ask(m.AddReceipts(folder.id, (nodes[0][1].receipt(pseudonym, REFS),)))
            frame = await asyncio.wait_for(nodes[1][0].requests.get(), 30)
            await nodes[1][0].answer(frame, m.Failure("unavailable", "no room"))
            await obey(*nodes[1])
            await until(lambda: is_(copies(server, pseudonym), {2}))

    run(main)


def test_a_node_cannot_hand_in_anothers_receipt(world):
    async def main():
        async with world.running(replicas=2, quorum=1) as server:
            client, folder, pseudonym, nodes = await stored(server, world, "n1", "n2")
            await client.ask(m.AddReceipts(folder.id, (nodes[0][1].receipt(pseudonym, REFS),)))
            frame = await asyncio.wait_for(nodes[1][0].requests.get(), 30)
            forged = TestNode("elsewhere").receipt(pseudonym, REFS)
            await nodes[1][0].answer(frame, m.Replicated((forged,)))
            await asyncio.wait_for(nodes[1][0].requests.get(), 30)
            assert await copies(server, pseudonym) == {1}

    run(main)


def test_a_member_learns_how_many_nodes_hold_a_chunk(world):
    async def main():
        async with world.running(replicas=2, quorum=1) as server:
            client, folder, pseudonym, nodes = await stored(server, world, "n1", "n2")
            wanted = (ONE.segment.id, chunk("of nobody").id)
            assert await client.ask(m.GetCopies(folder.id, wanted), m.Copies) == m.Copies((0, 0))
            await client.ask(m.AddReceipts(folder.id, (nodes[0][1].receipt(pseudonym, REFS),)))
            await obey(*nodes[1])
            await until(lambda: is_(copies(server, pseudonym), {2}))
            assert await client.ask(m.GetCopies(folder.id, wanted), m.Copies) == m.Copies((2, 0))
            assert await client.refused(m.GetCopies(folder.id, (ONE.segment.id,) * 5_000)) == "limit"
            bob = await new_user(server.url, TestAccount("bob"), world.user_token)
            assert await bob.refused(m.GetCopies(folder.id, wanted)) == "access_denied"

    run(main)


def test_a_node_reports_its_room_and_moves(world):
    async def main():
        async with world.running() as server:
            client, node = await storage_node(server.url, "n", world.node_token, zone="attic")
            await client.ask(m.NodeReport(123, 456))
            assert await client.refused(m.NodeReport(-1, 456)) == "protocol"
            row = world.directory.nodes()[0].node
            assert (row.free_bytes, row.stored_bytes, row.zone, row.online) == (123, 456, "attic", True)
            await client.close()
            moved = await Client.open(server.url)
            await moved.ask(node.login(moved.challenge, moved.origin, url="http://127.0.0.1:2"), m.NodeWelcome)
            assert world.directory.nodes()[0].node.url == "http://127.0.0.1:2"
        assert not world.directory.nodes()[0].node.online

    run(main)


# Mailboxes.


async def mailbox(server, world) -> tuple[TestAccount, Client, int]:
    alice = TestAccount("alice")
    client = await new_user(server.url, alice, world.user_token)
    return alice, client, (await client.ask(m.OpenMailbox(), m.MailboxOpened)).number


def test_two_devices_talk_through_a_mailbox(world):
    async def main():
        async with world.running() as server:
            _, client, number = await mailbox(server, world)
            assert NUMBER_MIN <= number <= NUMBER_MAX
            await client.ask(m.MailboxSend(number, b"first"))
            new = await Client.open(server.url)
            await new.ask(m.JoinMailbox(number))
            assert await new.notice(m.MailboxMessage) == m.MailboxMessage(number, b"first")
            big = bytes(limits.LINK_MESSAGE_BYTES_MAX)
            await new.ask(m.MailboxSend(number, big))
            assert await client.notice(m.MailboxMessage) == m.MailboxMessage(number, big)
            assert await new.refused(m.MailboxSend(number, big + b"x")) == "limit"
            assert await new.refused(m.ListFolders(b"")) == "access_denied"
            late = await Client.open(server.url)
            assert await late.refused(m.JoinMailbox(number)) == "access_denied"
            await new.close()
            assert await client.notice(m.CloseMailbox) == m.CloseMailbox(number)

    run(main)


def test_guessing_codes_ends_soon(world):
    async def main():
        async with world.running() as server:
            alice, client, number = await mailbox(server, world)
            codes = []
            for guess in range(1, limits.FAILED_LOGINS_PER_MINUTE_AND_ADDRESS_MAX + 2):
                one = await Client.open(server.url)
                codes.append(await one.refused(m.JoinMailbox(10_000 + guess)))
            assert codes[-1] == "unavailable"
            for _ in range(limits.LINK_ATTEMPTS_PER_HOUR_AND_ACCOUNT_MAX):
                server.coordinator.failures._times.clear()
                one = await Client.open(server.url)
                await one.ask(m.JoinMailbox(number))
                await one.ask(m.MailboxSend(number, b"hello"))
                await client.ask(m.CloseMailbox(number))
                reply = await client.start(m.OpenMailbox())
                number = getattr(reply, "number", 0)
            assert number == 0  # three that came to nothing
            alice.add("phone")
            await client.ask(m.AppendAccountLink(alice.links[-1]))
            await client.ask(m.OpenMailbox(), m.MailboxOpened)

    run(main)


def test_whoever_joins_and_says_nothing_costs_the_account_nothing(world):
    """The mailbox is there for the right device, and the account may show codes as before; guessing is slow all the same."""

    async def main():
        async with world.running() as server:
            alice, client, number = await mailbox(server, world)
            one = await Client.open(server.url)
            for _ in range(limits.LINK_ATTEMPTS_PER_HOUR_AND_ACCOUNT_MAX + 1):
                one = await Client.open(server.url)
                await one.ask(m.JoinMailbox(number))
                assert await (await Client.open(server.url)).refused(m.JoinMailbox(number)) == "access_denied"
                await one.ask(m.CloseMailbox(number))
            attempts = server.coordinator.failures._times[b"code" + site_of("127.0.0.1").encode()]
            assert len(attempts) == 2 * (limits.LINK_ATTEMPTS_PER_HOUR_AND_ACCOUNT_MAX + 1)
            assert not server.coordinator.link_attempts.are_spent(alice.id, server.coordinator.clock.monotonic_s())
            new = await Client.open(server.url)
            await new.ask(m.JoinMailbox(number))
            assert await one.refused(m.MailboxSend(number, b"late")) == "access_denied"
            await new.ask(m.MailboxSend(number, b"hello"))
            assert await client.notice(m.MailboxMessage) == m.MailboxMessage(number, b"hello")
            assert len(server.coordinator.link_attempts._times[alice.id]) == 1
            await new.ask(m.MailboxSend(number, b"more"))
            assert len(server.coordinator.link_attempts._times[alice.id]) == 1
            await client.ask(m.OpenMailbox(), m.MailboxOpened)

    run(main)


def test_a_login_still_works_after_a_wrong_code(world):
    async def main():
        async with world.running() as server:
            alice, _, _ = await mailbox(server, world)
            one = await Client.open(server.url)
            assert await one.refused(m.JoinMailbox(12345)) == "access_denied"
            assert await one.closed() == 1008
            again = await device(server.url, alice)
            assert await again.refused(device_login(again.challenge, again.origin, alice)) == "access_denied"

    run(main)
