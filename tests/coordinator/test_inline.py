"""The whole service without a socket, a thread or a disk, as a simulator drives it."""

from __future__ import annotations

import asyncio

from blake3 import blake3

from coordinator.service import Coordinator
from coordinator.session import Session
from coordinator.store.database import InlineDatabase, connect_memory, snapshot
from protocol import messages as m
from tests.builders import Author, device_login
from tests.coordinator.bench import KEYS
from tests.protocol.chain_world import TestAccount, TestFolder

ORIGIN = "ws://coordinator:1"


class FixedClock:
    """Time that moves by a millisecond whenever it is asked for."""

    def __init__(self) -> None:
        self.ms = 1_000_000

    def now_ms(self) -> int:
        self.ms += 1
        return self.ms

    def monotonic_s(self) -> float:
        self.ms += 1
        return self.ms / 1000


class SeededEntropy:
    """Bytes that are the same in each run."""

    def __init__(self) -> None:
        self.drawn = 0

    def __call__(self, count: int, /) -> bytes:
        self.drawn += 1
        return blake3(self.drawn.to_bytes(8, "big")).digest(count)


class Wire:
    """One client of a session that has no socket."""

    def __init__(self, coordinator: Coordinator) -> None:
        self.sent: list[bytes] = []
        self.closed = ""
        self._id = 0
        self.session = Session(
            coordinator,
            address="somewhere",
            origins=[ORIGIN],
            certificates=[bytes(32)],
            send=self._send,
            close=self._close,
        )

    async def _send(self, data: bytes) -> None:
        self.sent.append(data)

    def _close(self, reason: str) -> None:
        self.closed = reason

    async def ask(self, body: m.Message) -> m.Message:
        self._id += 2
        await self.session.receive(m.encode_frame(self._id, body))
        frame = m.decode_frame(self.sent[-1])
        assert frame.id == self._id
        return frame.body


async def play() -> tuple[list[bytes], bytes]:
    """Return everything that a scene sends, and what its database holds then."""
    connection = connect_memory()
    coordinator = Coordinator(
        database=InlineDatabase(connection),
        keys=KEYS,
        clock=FixedClock(),
        entropy=SeededEntropy(),
        open_registration=True,
    )
    await coordinator.start()
    alice = TestAccount("alice")
    wire, watcher = Wire(coordinator), Wire(coordinator)
    runner = asyncio.ensure_future(watcher.session.run())
    for one in (wire, watcher):
        await one.session.begin()
        challenge = m.decode_frame(one.sent[0]).body
        assert isinstance(challenge, m.Challenge)
        await one.ask(m.CreateAccount("", "alice", alice.links[0]))
        assert await one.ask(device_login(challenge, ORIGIN, alice)) == m.Ok()
    folder = TestFolder(alice)
    await wire.ask(m.CreateFolder(folder.links[0]))
    author = Author(folder, alice.device, 1)
    states = await wire.ask(m.RegisterEntries(folder.id, None, (author.entry("x"), author.entry("y"))))
    assert isinstance(states, m.EntryStates)
    assert [state.position for state in states.states] == [2, 3]
    await asyncio.sleep(0)
    heads = m.decode_frame(watcher.sent[-1]).body
    assert isinstance(heads, m.Heads)
    assert heads.heads[0].checkpoint.checkpoint.position == 3
    kept = snapshot(connection)
    for one in (wire, watcher):
        await one.session.end()
    await runner
    await coordinator.stop()
    return wire.sent + watcher.sent, kept


def test_the_same_scene_gives_the_same_bytes():
    first, second = asyncio.run(play()), asyncio.run(play())
    assert first[0] == second[0]


def test_a_crash_leaves_what_was_committed():
    async def main():
        _, kept = await play()
        connection = connect_memory(kept)
        coordinator = Coordinator(
            database=InlineDatabase(connection), keys=KEYS, clock=FixedClock(), entropy=SeededEntropy()
        )
        await coordinator.start()
        alice = TestAccount("alice")
        wire = Wire(coordinator)
        assert await wire.ask(device_login(wire.session.challenge, ORIGIN, alice)) == m.Ok()
        pulled = await wire.ask(m.Pull(TestFolder(alice).id, 0, 10))
        assert isinstance(pulled, m.Pulled)
        assert len(pulled.items) == 3
        await wire.session.end()
        await coordinator.stop()

    asyncio.run(main())
