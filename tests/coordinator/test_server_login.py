"""Who gets in: accounts, devices and storage nodes by the right keys only, and nobody by a replay."""

from __future__ import annotations

import asyncio
import ssl

import msgspec
import pytest
from websockets.exceptions import InvalidStatus

from coordinator.doors import SystemClock
from protocol import limits
from protocol import messages as m
from protocol.chains import AddDevice
from tests.builders import TestNode, device_login
from tests.coordinator.client import Client, device, new_user, storage_node
from tests.coordinator.conftest import run
from tests.protocol.chain_world import TestAccount, TestDevice, TestFolder, fixed, sign_link


def test_an_account_is_made_with_a_token_and_logs_in(world):
    async def main():
        async with world.running() as server:
            alice = TestAccount("alice")
            client = await new_user(server.url, alice, world.user_token)
            devices = await client.ask(m.GetDevices(), m.Devices)
            assert [(d.device, d.online) for d in devices.devices] == [(alice.device.id, True)]
            assert devices.devices[0].last_seen_ms > 0
            again = await Client.open(server.url)
            await again.ask(m.CreateAccount("", "alice", alice.links[0]))  # a lost reply: the same once more
            await again.login(alice)

    run(main)


@pytest.mark.parametrize(
    ("token", "user", "code"),
    [
        ("wrong", "bob", "token"),
        ("", "bob", "token"),
        (None, "Alice", "name"),
        (None, "", "name"),
        (None, "a b", "name"),
        (None, "x" * 65, "name"),
        (None, "../etc", "name"),
    ],
)
def test_no_account_without_a_token_or_with_a_bad_or_taken_name(world, token, user, code):
    async def main():
        async with world.running() as server:
            await new_user(server.url, TestAccount("alice"), world.user_token)
            client = await Client.open(server.url)
            bob = TestAccount("bob")
            message = m.CreateAccount(world.user_token if token is None else token, user, bob.links[0])
            assert await client.refused(message) == code
            assert await client.closed() == 1008

    run(main)


class SetClock(SystemClock):
    """The machine's clock, with a wall clock that a person can set."""

    ahead_ms = 0

    def now_ms(self) -> int:
        return super().now_ms() + self.ahead_ms


@pytest.mark.parametrize("seconds", [-86_400, 86_400])
def test_who_logged_in_before_the_clock_was_set_logs_in_anew(world, seconds):
    clock = SetClock()

    async def main():
        async with world.running(clock=clock) as server:
            alice = TestAccount("alice")
            client = await new_user(server.url, alice, world.user_token)
            clock.ahead_ms = 30_000  # within what grants allow for
            server.coordinator.check_clock()
            await client.ask(m.GetDevices(), m.Devices)
            clock.ahead_ms = seconds * 1000
            await client.closed()
            again = await device(server.url, alice)
            assert abs(again.challenge.time_ms - clock.now_ms()) < 60_000
            server.coordinator.check_clock()
            await again.ask(m.GetDevices(), m.Devices)

    run(main)


def test_a_clock_that_was_wrong_for_a_moment_is_noticed_where_somebody_logged_in_by_it(world):
    clock = SetClock()

    async def main():
        async with world.running(clock=clock) as server:
            alice = TestAccount("alice")
            client = await new_user(server.url, alice, world.user_token)
            clock.ahead_ms = 86_400_000
            misled = await device(server.url, alice)
            clock.ahead_ms = 0
            await client.closed()
            await misled.closed()

    run(main)


def test_a_token_is_used_up(world):
    once = world.directory.invite()

    async def main():
        async with world.running() as server:
            await new_user(server.url, TestAccount("alice"), once)
            client = await Client.open(server.url)
            assert await client.refused(m.CreateAccount(once, "bob", TestAccount("bob").links[0])) == "token"

    run(main)


def test_open_registration_needs_no_token(world):
    async def main():
        async with world.running(open_registration=True) as server:
            await new_user(server.url, TestAccount("alice"), "")

    run(main)


def bad_logins(alice: TestAccount, mallory: TestAccount):
    """Name each way to lie in a login, and how to make it."""
    phone = TestDevice("phone")
    return {
        "another key": lambda c: device_login(c.challenge, c.origin, alice, seed=mallory.device.seed),
        "another origin": lambda c: device_login(c.challenge, "ws://127.0.0.1:1", alice),
        "another certificate": lambda c: device_login(c.challenge, c.origin, alice, certificate=fixed("cert")),
        "another server": lambda c: device_login(
            msgspec.structs.replace(c.challenge, log_key=fixed("server")), c.origin, alice
        ),
        "an older challenge": lambda c: device_login(
            msgspec.structs.replace(c.challenge, nonce=fixed("old")), c.origin, alice
        ),
        "a device that is not enrolled": lambda c: device_login(c.challenge, c.origin, alice, phone),
        "an account that is not there": lambda c: device_login(c.challenge, c.origin, mallory),
        "another account's device": lambda c: msgspec.structs.replace(
            device_login(c.challenge, c.origin, mallory), account=alice.id
        ),
        "a short nonce": lambda c: msgspec.structs.replace(device_login(c.challenge, c.origin, alice), nonce=b"x"),
    }


@pytest.mark.parametrize("name", bad_logins(TestAccount("alice"), TestAccount("mallory")))
def test_a_login_that_lies_is_refused_and_closed(world, name):
    async def main():
        async with world.running() as server:
            alice, mallory = TestAccount("alice"), TestAccount("mallory")
            await new_user(server.url, alice, world.user_token)
            client = await Client.open(server.url)
            code = await client.refused(bad_logins(alice, mallory)[name](client))
            assert code in ("access_denied", "protocol")
            assert await client.closed() == 1008

    run(main)


def test_a_login_cannot_be_replayed(world):
    async def main():
        async with world.running() as server:
            alice = TestAccount("alice")
            await new_user(server.url, alice, world.user_token)
            first = await Client.open(server.url)
            login = device_login(first.challenge, first.origin, alice)
            await first.ask(login)
            second = await Client.open(server.url)
            assert await second.refused(login) == "access_denied"

    run(main)


def test_a_device_link_that_the_account_did_not_sign_is_refused(world):
    """The server lets nobody add a device to another's account (S03)."""

    async def main():
        async with world.running() as server:
            alice, mallory = TestAccount("alice"), TestAccount("mallory")
            await new_user(server.url, alice, world.user_token)
            client = await new_user(server.url, mallory, world.user_token)
            thief = TestDevice("thief")
            op = AddDevice(thief.keys, thief.proof, 1, bytes(80))
            forged = sign_link(alice.body(op, mallory.device.keys.sign), mallory.device.seed)
            assert await client.refused(m.AppendAccountLink(forged)) == "access_denied"
            own = await device(server.url, alice)
            assert await own.refused(m.AppendAccountLink(forged)) == "access_denied"
            chain = await own.ask(m.GetAccountChain(alice.id, -1), m.AccountChain)
            assert list(chain.links) == alice.links

    run(main)


def test_an_account_link_is_added_once_and_stale_ones_are_told_so(world):
    async def main():
        async with world.running() as server:
            alice = TestAccount("alice")
            client = await new_user(server.url, alice, world.user_token)
            before = TestAccount("alice")
            phone = alice.add("phone")
            await client.ask(m.AppendAccountLink(alice.links[-1]))
            await client.ask(m.AppendAccountLink(alice.links[-1]))
            before.add("tablet")
            assert await client.refused(m.AppendAccountLink(before.links[-1])) == "stale"
            other = await device(server.url, alice, phone)
            alice.add("watch")
            await client.ask(m.AppendAccountLink(alice.links[-1]))
            assert await other.notice(m.AccountChanged) == m.AccountChanged(alice.id, 2)

    run(main)


def test_a_revoked_device_is_thrown_out_and_stays_out(world):
    async def main():
        async with world.running() as server:
            alice = TestAccount("alice")
            client = await new_user(server.url, alice, world.user_token)
            phone = alice.add("phone")
            await client.ask(m.AppendAccountLink(alice.links[-1]))
            stolen = await device(server.url, alice, phone)
            alice.revoke(phone.id)
            await client.ask(m.AppendAccountLink(alice.links[-1]))
            assert await stolen.closed() == 1008
            again = await Client.open(server.url)
            assert await again.refused(device_login(again.challenge, again.origin, alice, phone)) == "revoked"
            assert len((await client.ask(m.GetDevices(), m.Devices)).devices) == 2

    run(main)


def test_chains_are_shown_to_those_who_share_a_folder_or_know_the_name(world):
    async def main():
        async with world.running() as server:
            alice, bob = TestAccount("alice"), TestAccount("bob")
            client = await new_user(server.url, alice, world.user_token)
            await new_user(server.url, bob, world.user_token)
            assert await client.refused(m.GetAccountChain(bob.id, -1)) == "access_denied"
            assert await client.refused(m.GetAccountChain(TestAccount("none").id, -1)) == "access_denied"
            assert await client.refused(m.FindAccount("none")) == "user"
            found = await client.ask(m.FindAccount("BOB"), m.AccountChain)
            assert (found.user, list(found.links), found.more) == ("bob", bob.links, False)
            assert (await client.ask(m.GetAccountChain(bob.id, 0), m.AccountChain)).links == ()
            other = await device(server.url, alice)
            assert await other.refused(m.GetAccountChain(bob.id, -1)) == "access_denied"

    run(main)


def test_looking_up_users_is_bounded(world):
    async def main():
        async with world.running() as server:
            client = await new_user(server.url, TestAccount("alice"), world.user_token)
            codes = {await client.refused(m.FindAccount(f"u{i}")) for i in range(61)}
            assert codes == {"user", "unavailable"}

    run(main)


def test_failed_logins_do_not_keep_a_right_one_out(world):
    async def main():
        async with world.running() as server:
            alice = TestAccount("alice")
            await new_user(server.url, alice, world.user_token)
            codes = []
            for _ in range(limits.FAILED_LOGINS_PER_MINUTE_AND_ADDRESS_MAX + 1):
                client = await Client.open(server.url)
                codes.append(await client.refused(device_login(client.challenge, client.origin, TestAccount("eve"))))
            assert codes == ["access_denied"] * limits.FAILED_LOGINS_PER_MINUTE_AND_ADDRESS_MAX + ["unavailable"]
            await device(server.url, alice)

    run(main)


def test_a_storage_node_needs_a_token_once(world):
    async def main():
        async with world.running() as server:
            stranger = await Client.open(server.url)
            login = TestNode("n").login(stranger.challenge, stranger.origin, world.user_token)
            assert await stranger.refused(login) == "token"  # a user's token lets no node in
            client, node = await storage_node(server.url, "n", world.node_token)
            await client.close()
            client, _ = await storage_node(server.url, "n")
            await storage_node(server.url, "w", world.node_token)
            forged = await Client.open(server.url)
            bad = node.login(forged.challenge, "ws://127.0.0.1:1")
            assert await forged.refused(bad) == "access_denied"
            welcome = await client.notice(m.NodeWelcome)
            while len(welcome.nodes) < 2:
                welcome = await client.notice(m.NodeWelcome)
            assert {n.id for n in welcome.nodes} == {node.id, TestNode("w").id}
            assert len({n.operator for n in welcome.nodes}) == 1  # one token: one operator
            assert len({n.zone for n in welcome.nodes}) == 2

    run(main)


def test_each_kind_of_session_has_its_own_requests(world):
    async def main():
        async with world.running() as server:
            alice = TestAccount("alice")
            client = await new_user(server.url, alice, world.user_token)
            assert await client.refused(m.NodeReport(1, 1)) == "access_denied"
            assert await client.refused(device_login(client.challenge, client.origin, alice)) == "access_denied"
            assert await client.refused(m.Ok()) == "protocol"
            node, _ = await storage_node(server.url, "n", world.node_token)
            assert await node.refused(m.ListFolders(b"")) == "access_denied"
            assert await node.refused(m.GetGrant(TestFolder(alice).id, 1, 1, 1)) == "access_denied"  # type: ignore[arg-type]
            early = await Client.open(server.url)
            assert await early.refused(m.ListFolders(b"")) == "access_denied"
            assert await early.closed() == 1008

    run(main)


def test_the_certificate_is_bound_into_the_login(world):
    """Over TLS the login signs the certificate that was seen, so a relay with another one gains nothing."""

    async def main():
        async with world.running(advertise="wss://127.0.0.1:443") as server:
            port = server._acceptor.port
            url = f"wss://127.0.0.1:{port}"
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
            alice = TestAccount("alice")
            client = await Client.open(url, ssl=context)
            client.certificate = server._certificates[0]
            await client.ask(m.CreateAccount(world.user_token, "alice", alice.links[0]))
            await client.login(alice)
            assert client.certificate != bytes(32)
            assert world.directory.invitation("t").endswith(f"#t.{client.certificate.hex()}")
            relayed = await Client.open(url, ssl=context)
            relayed.certificate = fixed("a relay's")
            login = device_login(relayed.challenge, relayed.origin, alice, certificate=relayed.certificate)
            assert await relayed.refused(login) == "access_denied"

    run(main)


def test_browsers_are_turned_away(world):
    async def main():
        async with world.running() as server:
            with pytest.raises(InvalidStatus) as refused:
                await Client.open(server.url, origin="https://example.org")
            assert refused.value.response.status_code == 403
            with pytest.raises(InvalidStatus):
                await Client.open(server.url + "/other")
            await asyncio.wait_for(Client.open(server.url), 5)

    run(main)
