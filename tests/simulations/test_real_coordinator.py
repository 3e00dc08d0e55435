"""The real coordinator on the simulated loop, network and database: it serves, crashes, and goes on from its last commit."""

from __future__ import annotations

import pytest

from coordinator.server import Server
from coordinator.service import Coordinator
from protocol import messages as m
from protocol.effects import ChannelClosedError, Patience
from simulations.databases import SimCoordinatorDatabase
from simulations.doors import SimClock, SimEntropy
from simulations.loop import Schedule, SimLoop
from simulations.network import Network, SimAcceptor, SimDialer
from tests.builders import Author, device_login
from tests.coordinator.bench import KEYS
from tests.protocol.chain_world import TestAccount, TestFolder

URL = "wss://coordinator:443"
PATIENCE = Patience(10, 20, 20)


class Client:
    """A device's connection."""

    def __init__(self, channel):
        self.channel = channel
        self._number = 0

    async def ask(self, body):
        self._number += 2
        await self.channel.send(m.encode_frame(self._number, body))
        while True:
            frame = m.decode_frame(await self.channel.receive())
            if frame.reply and frame.id == self._number:
                return frame.body


class World:
    """A coordinator that may be started anew, and one device."""

    def __init__(self, seed, schedule):
        self.loop = SimLoop(seed, schedule=schedule)
        self.network = Network(self.loop)
        self.entropy = SimEntropy(self.loop, "coordinator")
        self.phone = self.loop.host("phone")
        self.alice = TestAccount("alice")
        self.folder = TestFolder(self.alice)
        self.database: SimCoordinatorDatabase | None = None
        self.host = self.loop.host("coordinator")

    async def start(self):
        image = None if self.database is None else self.database.image()
        self.host = self.loop.host("coordinator")
        self.database = SimCoordinatorDatabase(self.loop, self.host, image)
        coordinator = Coordinator(
            database=self.database,
            keys=KEYS,
            clock=SimClock(self.loop, self.host),
            entropy=self.entropy,
            open_registration=True,
        )
        server = Server(coordinator, SimAcceptor(self.network, self.host, URL), certificates=[bytes(32)])

        async def begin():
            await coordinator.start()
            await server.start()

        await self.loop.spawn(self.host, begin())

    def kill(self):
        self.loop.crash(self.host)
        self.network.process_ended(self.host)

    async def login(self):
        dialled = await SimDialer(self.network, self.phone).dial(URL, pin=b"", patience=PATIENCE)
        client = Client(dialled.channel)
        challenge = m.decode_frame(await client.channel.receive()).body
        assert isinstance(challenge, m.Challenge)
        await client.ask(m.CreateAccount("", "alice", self.alice.links[0]))  # refused the second time
        assert await client.ask(device_login(challenge, URL, self.alice)) == m.Ok()
        return client

    async def scene(self):
        await self.start()
        client = await self.login()
        await client.ask(m.CreateFolder(self.folder.links[0]))
        author = Author(self.folder, self.alice.device, 1)
        positions = []
        for name in "abc":
            states = await client.ask(m.RegisterEntries(self.folder.id, None, (author.entry(name),)))
            positions += [state.position for state in states.states]
            if name == "b":
                self.kill()
                with pytest.raises(ChannelClosedError):
                    while True:
                        await client.channel.receive()
                await self.start()
                client = await self.login()
        await client.channel.close()
        return positions


@pytest.mark.parametrize("schedule", Schedule)
def test_a_killed_coordinator_goes_on_from_its_last_commit_and_a_seed_replays_all_of_it(schedule):
    digests = []
    for seed in (1, 1, 2):
        world = World(seed, schedule)

        async def main(world=world):
            return await world.loop.spawn(world.phone, world.scene())

        assert world.loop.run(main()) == [2, 3, 4]
        digests.append(world.loop.trace.digest())
    assert digests[0] == digests[1] != digests[2]
