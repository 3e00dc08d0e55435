"""A folder on a real server: made, shared, written to, pulled; what is forged, replayed or stale is refused."""

from __future__ import annotations

import asyncio

import msgspec

from protocol import limits
from protocol import messages as m
from protocol.chains import EnrolDevice, Role, SignedLink
from protocol.codec import decode, encode
from protocol.grants import Grant, Operation, open_signed
from protocol.history import CHAIN_START, ItemKind, VoidReason, VoidRecord, next_chain, verify_checkpoint
from protocol.ids import EntryHash
from tests.builders import Author, TestNode, chunk, hash_of, segment
from tests.coordinator.client import Client, new_user, storage_node
from tests.coordinator.conftest import run
from tests.protocol.chain_world import TestAccount, TestFolder, fixed


async def alice_and_folder(url: str, token: str) -> tuple[TestAccount, Client, TestFolder, m.FolderCreated]:
    alice = TestAccount("alice")
    client = await new_user(url, alice, token)
    folder = TestFolder(alice)
    return alice, client, folder, await client.create(folder.links[0])


async def share(client: Client, folder: TestFolder, account: TestAccount, role: Role) -> None:
    folder.share(account, role)
    await client.ask(m.AppendControlLink(folder.id, folder.links[-1]))


async def enrol(client: Client, folder: TestFolder, account: TestAccount) -> Author:
    number = len(folder.state.numbers) + 1
    folder.append(EnrolDevice(account.device.id, 1, number), by=account)
    await client.ask(m.AppendControlLink(folder.id, folder.links[-1]))
    return Author(folder, account.device, number)


def test_a_folder_is_made_once_and_listed(world):
    async def main():
        async with world.running() as server:
            alice, client, folder, made = await alice_and_folder(server.url, world.user_token)
            checkpoint = verify_checkpoint(made.checkpoint, client.challenge.log_key)
            assert (checkpoint.position, checkpoint.control_head) == (1, folder.links[0].hash)
            again = await client.create(folder.links[0])
            assert again.pseudonym == made.pseudonym
            listed = await client.ask(m.ListFolders(b""), m.Folders)
            assert [f.folder for f in listed.folders] == [folder.id]
            log = await client.ask(m.GetControlLog(folder.id, -1), m.ControlLog)
            assert list(log.links) == folder.links
            bob = await new_user(server.url, TestAccount("bob"), world.user_token)
            for request in (
                m.Pull(folder.id, 0, 9),
                m.GetControlLog(folder.id, -1),
                m.PullRegistered(folder.id, 0),
                m.GetOwnSeq(folder.id, 1),
                m.GetGrant(folder.id, Operation.GET, 1, 1),
                m.RegisterEntries(folder.id, None, ()),
                m.CreateFolder(folder.links[0]),
            ):
                assert await bob.refused(request) == "access_denied"
            assert (await bob.ask(m.ListFolders(b""), m.Folders)).folders == ()
            assert alice.id

    run(main)


def test_entries_reach_the_other_members(world):
    async def main():
        async with world.running() as server:
            alice, client, folder, _ = await alice_and_folder(server.url, world.user_token)
            bob = TestAccount("bob")
            other = await new_user(server.url, bob, world.user_token)
            await share(client, folder, bob, Role.WRITER)
            await other.head_at(folder.id, 2)
            b = await enrol(other, folder, bob)
            a = Author(folder, alice.device, 1)
            entries = [a.entry(f"f{i}") for i in range(20)]
            states = await client.register(folder.id, entries)
            assert [s.position for s in states.states] == list(range(4, 24))
            assert states.own_seq == 20
            await other.head_at(folder.id, 23)
            pulled = await other.pull(folder.id, 3)
            assert [item.data for item in pulled.items] == entries
            assert verify_checkpoint(pulled.checkpoint, other.challenge.log_key).position == 23
            assert pulled.reached is None
            part = await other.pull(folder.id, 0, 2)
            links: list[SignedLink] = [
                decode(item.data, SignedLink, bytes_max=limits.CONTROL_LINK_BYTES_MAX) for item in part.items
            ]
            led_to = CHAIN_START
            for item, link in zip(part.items, links, strict=True):
                led_to = next_chain(led_to, item.kind, link.hash, item.time_ms)
            assert part.reached is not None
            reached = verify_checkpoint(part.reached, other.challenge.log_key)
            assert (reached.position, reached.chain, reached.control_head) == (2, led_to, links[-1].hash)
            assert part.checkpoint.checkpoint.position == 23
            answer = await other.register(folder.id, [b.entry("g", needs=[hash_of(entries[0])])], pulled.checkpoint)
            assert answer.states[0].position == 24
            assert await client.ask(m.GetOwnSeq(folder.id, 2), m.OwnSeq) == m.OwnSeq(1, answer.states[0].entry)
            assert await client.ask(m.GetOwnSeq(folder.id, 9), m.OwnSeq) == m.OwnSeq(0, EntryHash(bytes(32)))
            chain = await other.ask(m.GetAccountChain(alice.id, -1), m.AccountChain)
            assert chain.user == "alice"

    run(main)


def test_another_member_may_relay_entries(world):
    async def main():
        async with world.running() as server:
            alice, client, folder, _ = await alice_and_folder(server.url, world.user_token)
            bob = TestAccount("bob")
            other = await new_user(server.url, bob, world.user_token)
            await share(client, folder, bob, Role.READER)
            a = Author(folder, alice.device, 1)
            entry = a.entry("x")
            states = await other.register(folder.id, [entry])
            assert states.states[0].position == 3
            assert states.own_seq == 0
            again = await client.register(folder.id, [entry])
            assert again.states == states.states
            assert again.own_seq == 1

    run(main)


def test_what_is_wrong_with_one_entry_is_said_of_that_entry(world):
    async def main():
        async with world.running() as server:
            alice, client, folder, _ = await alice_and_folder(server.url, world.user_token)
            a = Author(folder, alice.device, 1)
            elsewhere = TestFolder(alice, name="other")
            await client.create(elsewhere.links[0])
            good = a.entry("x")
            replayed = Author(elsewhere, alice.device, 1).entry("x")
            forged = a.entry("y", seed=fixed("stranger"), keep=False)
            late = a.entry("z", seq=7, keep=False)
            states = await client.register(folder.id, [good, b"garbage", replayed, forged, late])
            assert [s.refused for s in states.states] == ["", "protocol", "protocol", "bad_signature", "gap"]
            assert (await client.pull(elsewhere.id)).items[-1].position == 1

    run(main)


def test_a_stale_control_link_is_told_so_and_a_forged_one_refused(world):
    async def main():
        async with world.running() as server:
            alice, client, folder, _ = await alice_and_folder(server.url, world.user_token)
            bob, eve = TestAccount("bob"), TestAccount("eve")
            other = await new_user(server.url, bob, world.user_token)
            await new_user(server.url, eve, world.user_token)
            twin = TestFolder(alice)
            twin.known[eve.id] = eve
            twin.share(eve, Role.WRITER)
            await share(client, folder, bob, Role.READER)
            assert await client.refused(m.AppendControlLink(folder.id, twin.links[-1])) == "stale"
            await client.ask(m.AppendControlLink(folder.id, folder.links[-1]))  # the same again is no matter
            # A reader tries to make itself an admin, and a member link is injected without a signature that holds (S03).
            body = folder.body((EnrolDevice(bob.device.id, 1, 2),), alice)
            forged = SignedLink(encode(body), bytes(64))
            assert await other.refused(m.AppendControlLink(folder.id, forged)) == "bad_signature"
            heads = await client.ask(m.GetHeads(), m.Heads)
            assert [h.checkpoint.checkpoint.position for h in heads.heads] == [2]
            assert (await client.pull(folder.id)).items[-1].kind is ItemKind.CONTROL

    run(main)


def test_a_removed_member_is_told_and_then_sees_nothing(world):
    async def main():
        async with world.running() as server:
            alice, client, folder, _ = await alice_and_folder(server.url, world.user_token)
            node, _ = await storage_node(server.url, "n", world.node_token)
            bob = TestAccount("bob")
            other = await new_user(server.url, bob, world.user_token)
            await share(client, folder, bob, Role.WRITER)
            b = await enrol(other, folder, bob)
            waiting = b.entry("x", pins=[segment("s").segment.id])
            await other.register(folder.id, [waiting])
            folder.unshare(bob)
            await client.ask(m.AppendControlLink(folder.id, folder.links[-1]))
            await other.head_at(folder.id, 5)
            assert await other.refused(m.Pull(folder.id, 0, 9)) == "access_denied"
            assert await other.refused(m.RegisterEntries(folder.id, None, (b.entry("y"),))) == "access_denied"
            void = (await client.pull(folder.id)).items[-1]
            record: VoidRecord = decode(void.data, VoidRecord, bytes_max=1000)
            assert (record.entry, record.reason) == (hash_of(waiting), VoidReason.AUTHOR_REMOVED)
            welcome = await node.notice(m.NodeWelcome)
            while not welcome.revoked:
                welcome = await node.notice(m.NodeWelcome)
            assert [device for device, _ in welcome.revoked] == [bob.device.id]
            assert alice.id

    run(main)


def test_an_entry_is_ordered_when_a_quorum_of_real_receipts_is_in(world):
    async def main():
        async with world.running(replicas=2, quorum=2) as server:
            alice, client, folder, made = await alice_and_folder(server.url, world.user_token)
            nodes = [(await storage_node(server.url, name, world.node_token))[1] for name in ("n1", "n2")]
            a = Author(folder, alice.device, 1)
            one = segment("s", chunk("1"))
            refs = [one.segment, chunk("1")]
            entry = a.entry("x", pins=[one.segment.id])
            free = a.entry("y")
            states = (await client.register(folder.id, [entry, free])).states
            assert [s.position for s in states] == [0, 2]
            pending = await client.ask(m.PullRegistered(folder.id, 0), m.Registered)
            assert pending == m.Registered(((1, entry),), more=False)
            await client.ask(m.PinSegments(folder.id, (one,)))
            stranger = TestNode("stranger").receipt(made.pseudonym, refs)
            elsewhere = nodes[1].receipt(fixed("other", 16), refs)  # type: ignore[arg-type]
            good = nodes[0].receipt(made.pseudonym, refs)
            bent = msgspec.structs.replace(good, chunks=(chunk("1"), chunk("2")))
            for bad, code in ((stranger, "access_denied"), (elsewhere, "access_denied"), (bent, "protocol")):
                assert await client.refused(m.AddReceipts(folder.id, (bad,))) == code
            await client.ask(m.AddReceipts(folder.id, (good,)))
            await client.ask(m.AddReceipts(folder.id, (good,)))
            assert (await client.register(folder.id, [entry])).states[0].position == 0
            await client.ask(m.AddReceipts(folder.id, (nodes[1].receipt(made.pseudonym, refs),)))
            assert (await client.register(folder.id, [entry])).states[0].position == 3
            assert (await client.ask(m.PullRegistered(folder.id, 0), m.Registered)).entries == ()

    run(main)


def test_only_what_its_own_device_lost_and_no_node_holds_is_given_up(world):
    async def main():
        async with world.running(replicas=2, quorum=2) as server:
            alice, client, folder, made = await alice_and_folder(server.url, world.user_token)
            _, node = await storage_node(server.url, "n1", world.node_token)
            bob = TestAccount("bob")
            other = await new_user(server.url, bob, world.user_token)
            await share(client, folder, bob, Role.WRITER)
            b = await enrol(other, folder, bob)
            a = Author(folder, alice.device, 1)
            held, lost = segment("held"), segment("lost", chunk("1"))
            kept, given_up = a.entry("x", pins=[held.segment.id]), a.entry("y", pins=[lost.segment.id])
            ordered, built = a.entry("z"), b.entry("w", needs=[hash_of(given_up)])
            await client.register(folder.id, [kept, given_up, ordered])
            await other.register(folder.id, [built])
            await client.ask(m.PinSegments(folder.id, (held, lost)))
            receipts = (node.receipt(made.pseudonym, [held.segment, lost.segment]),)
            await client.ask(m.AddReceipts(folder.id, receipts))
            everything = m.GiveUp(folder.id, tuple(hash_of(one) for one in (kept, given_up, ordered, built)))
            await other.ask(everything)  # of Bob's, there is one that waits for another alone
            assert len((await client.ask(m.PullRegistered(folder.id, 0), m.Registered)).entries) == 3
            await client.ask(everything)
            assert await client.ask(m.PullRegistered(folder.id, 0), m.Registered) == m.Registered(
                ((1, kept),), more=False
            )
            states = (await client.register(folder.id, [kept, given_up, ordered, built])).states
            assert [one.void for one in states] == [None, VoidReason.CONTENTS_LOST, None, VoidReason.NEEDS_VOID]

    run(main)


def test_lowering_the_quorum_lets_waiting_entries_go(world):
    async def main():
        async with world.running(replicas=2, quorum=2) as server:
            alice, client, folder, made = await alice_and_folder(server.url, world.user_token)
            _, node = await storage_node(server.url, "n1", world.node_token)
            a = Author(folder, alice.device, 1)
            one = segment("s", chunk("1"))
            await client.register(folder.id, [a.entry("x", pins=[one.segment.id])])
            await client.ask(m.PinSegments(folder.id, (one,)))
            receipt = node.receipt(made.pseudonym, [one.segment, chunk("1")])
            await client.ask(m.AddReceipts(folder.id, (receipt,)))
            assert (await client.ask(m.GetHeads(), m.Heads)).heads[0].registered == 1
            world.directory.set_copies(2, 1)
            assert (await client.head_at(folder.id, 2)).registered == 0
            storage = await client.ask(m.GetStorage(), m.Storage)
            assert (storage.replicas, storage.quorum) == (2, 1)

    run(main)


def test_so_many_entries_of_a_device_may_wait_and_no_more(world):
    async def main():
        async with world.running(replicas=1, quorum=1) as server:
            alice, client, folder, made = await alice_and_folder(server.url, world.user_token)
            _, node = await storage_node(server.url, "n1", world.node_token)
            a = Author(folder, alice.device, 1)
            one = segment("s", chunk("1"))
            most = limits.REGISTERED_PER_DEVICE_MAX
            waiting = [a.entry(str(number), pins=[one.segment.id]) for number in range(most + 1)]
            for start in range(0, most, 256):
                states = await client.register(folder.id, waiting[start : min(start + 256, most)])
                assert not any(state.refused for state in states.states)
            assert (await client.register(folder.id, waiting[most:])).states[0].refused == "full"
            await client.ask(m.PinSegments(folder.id, (one,)))
            receipt = node.receipt(made.pseudonym, [one.segment, chunk("1")])
            await client.ask(m.AddReceipts(folder.id, (receipt,)))
            assert (await client.register(folder.id, waiting[most:])).states[0].position > most

    run(main)


def test_grants_are_for_members_and_by_role(world):
    async def main():
        async with world.running(replicas=2) as server:
            alice, client, folder, made = await alice_and_folder(server.url, world.user_token)
            for name in ("n1", "n2", "n3"):
                await storage_node(server.url, name, world.operator_token(name))
            bob = TestAccount("bob")
            other = await new_user(server.url, bob, world.user_token)
            await share(client, folder, bob, Role.READER)
            both = Operation.PUT | Operation.GET
            granted = await client.ask(m.GetGrant(folder.id, both, 1000, 10), m.Granted)
            grant = open_signed(granted.grant, Grant, client.challenge.token_key)
            assert (grant.pseudonym, grant.device) == (made.pseudonym, alice.device.keys.sign)
            assert grant.expires_ms - grant.not_before_ms <= limits.GRANT_S_MAX * 1000
            assert (grant.bytes_max, grant.chunks_max) == (1000, 10)
            assert len(granted.nodes) == 3
            assert await other.refused(m.GetGrant(folder.id, both, 1, 1)) == "access_denied"
            readable = await other.ask(m.GetGrant(folder.id, Operation.GET | Operation.HAVE, 1, 1), m.Granted)
            assert readable.nodes == granted.nodes
            for operations in (0, 8, 15):
                assert await client.refused(m.GetGrant(folder.id, operations, 1, 1)) == "protocol"  # type: ignore[arg-type]
            assert await client.refused(m.GetGrant(folder.id, both, -1, 1)) == "limit"

    run(main)


def test_many_members_write_at_once(world):
    """Group commit: entries of several folders and devices interleave, and each log stays whole."""

    async def main():
        async with world.running() as server:
            alice, client, folder, _ = await alice_and_folder(server.url, world.user_token)
            accounts = [TestAccount(f"user{i}") for i in range(4)]
            clients = [await new_user(server.url, account, world.user_token) for account in accounts]
            writers: list[Author] = []
            for account, one in zip(accounts, clients, strict=True):
                await share(client, folder, account, Role.WRITER)
                writers.append(await enrol(one, folder, account))
            start = folder.state.seq + 1
            jobs = [
                one.register(folder.id, [writer.entry(f"{writer.number}-{i}-{j}") for j in range(4)])
                for i in range(5)
                for one, writer in zip(clients, writers, strict=True)
            ]
            done = await asyncio.gather(*jobs)
            positions = sorted(state.position for states in done for state in states.states)
            assert positions == list(range(start + 1, start + 81))
            assert len((await client.pull(folder.id, start)).items) == 80
            assert alice.id

    run(main)


def test_a_long_answer_comes_in_frames_of_bounded_length(world):
    async def main():
        async with world.running() as server:
            alice, client, folder, _ = await alice_and_folder(server.url, world.user_token)
            a = Author(folder, alice.device, 1)
            big = a.entry("x", payload=bytes(limits.ENTRY_PAYLOAD_BYTES_MAX))
            assert (await client.register(folder.id, [big])).states[0].position == 2
            narrow = await Client.open(server.url, frame_bytes_max=limits.FRAME_BYTES_MAX)
            await narrow.login(alice)
            answers = await asyncio.gather(*(narrow.pull(folder.id, 1) for _ in range(8)))
            assert all(answer.items[0].data == big for answer in answers)
            huge = a.entry("x", payload=bytes(limits.ENTRY_PAYLOAD_BYTES_MAX + 1), keep=False)
            assert (await client.register(folder.id, [huge])).states[0].refused == "limit"

    run(main)
