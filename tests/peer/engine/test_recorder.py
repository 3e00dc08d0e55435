"""What an author says in an entry beside its changes."""

from __future__ import annotations

import asyncio
import random
from types import SimpleNamespace
from typing import Any

import pytest

from peer.engine.recorder import Recorder, _seen
from peer.store import folders
from peer.store.database import InlineDatabase
from peer.store.folders import FolderRecord
from peer.store.schema import SCHEMA
from protocol import limits
from protocol import messages as m
from protocol.codec import encode
from protocol.errors import ProtocolError, UnavailableError
from protocol.ids import EntryHash, FolderId, Pseudonym


def test_an_entry_stays_small_however_many_were_signed_offline_before_it():
    chance = random.Random(1)
    own = tuple(EntryHash(chance.randbytes(32)) for _ in range(20_000))
    foreign = own[: limits.FOREIGN_TAIL_ENTRIES_MAX]
    seen = _seen(FolderRecord(1, FolderId(bytes(32)), "f", b"/f", None), own, foreign)
    assert seen.unordered[-len(foreign) :] == foreign
    assert own[-1] in seen.unordered
    assert len(encode(seen)) < 16 * limits.KIB


class Coordinator:
    """It registers what it is handed, and orders nothing."""

    def __init__(self) -> None:
        self.handed: list[bytes] = []
        self.refuses = ""
        self.own = m.OwnSeq(0, EntryHash(bytes(32)))

    async def ask(self, message: Any, kind: type) -> Any:
        if isinstance(message, m.GetOwnSeq):
            return self.own
        self.handed += message.entries
        state = m.EntryState(EntryHash(bytes(32)), 0, None, self.refuses)
        return m.EntryStates((state,) * len(message.entries), 0)


class World:
    def __init__(self) -> None:
        self.database, self.coordinator = InlineDatabase(":memory:", SCHEMA), Coordinator()
        record = FolderRecord(1, FolderId(bytes(32)), "f", b"/f", Pseudonym(bytes(32)), number=1)
        self.follower = SimpleNamespace(record=record, control=None)
        context: Any = SimpleNamespace(database=self.database, link=self.coordinator)
        follower: Any = self.follower
        nobody: Any = None
        self.recorder = Recorder(context, follower, nobody, nobody, nobody)

    def sign(self, *seqs: int) -> None:
        rows = [(seq, bytes([seq]) * 32, bytes([seq])) for seq in seqs]
        self.database.call(lambda db: db.executemany("INSERT INTO tail VALUES (1, ?, ?, ?)", rows))

    def push(self) -> list[int]:
        self.coordinator.handed.clear()
        asyncio.run(self.recorder.push())
        return [data[0] for data in self.coordinator.handed]


def test_what_waits_is_handed_in_once_in_a_session():
    world = World()
    world.sign(1, 2)
    assert world.push() == [1, 2]
    world.sign(3)
    assert world.push() == [3]
    assert world.push() == []
    world.recorder.forget()
    assert world.push() == [1, 2, 3]


def test_what_a_coordinator_misses_is_handed_in_again():
    world = World()
    world.sign(1, 2)
    world.push()
    world.sign(3)
    world.coordinator.refuses = "gap"
    with pytest.raises(ProtocolError):
        world.push()
    world.coordinator.refuses = ""
    assert world.push() == [1, 2, 3]


def test_a_new_incarnation_hands_in_all_that_it_signed():
    world = World()
    world.sign(1, 2)
    world.push()
    world.follower.record = FolderRecord(1, FolderId(bytes(32)), "f", b"/f", Pseudonym(bytes(32)), number=2)
    assert world.push() == [1, 2]


@pytest.mark.parametrize(
    ("refuses", "own_seq", "begins_anew"),
    [("chain", 2, True), ("epoch", 2, True), ("gap", 2, False), ("chain", 1, False), ("epoch", 1, False)],
)
def test_what_can_never_be_registered_before_a_later_one_is_signed_under_a_new_number(refuses, own_seq, begins_anew):
    """The coordinator lost it, and took the later one back with the log, which this device knows."""
    world = World()
    world.sign(2)
    one = EntryHash(bytes([7]) * 32)
    world.database.call(lambda db: folders.put_entry_hash(db, 1, 1, own_seq, one, own_seq))
    world.coordinator.own, world.coordinator.refuses = m.OwnSeq(own_seq, one), refuses
    told: list[str] = []
    world.follower.begin_anew = lambda _: told.append("anew")
    world.follower.rebuild = lambda _: None

    async def follow() -> None:
        told.append("follows")

    world.follower.follow = follow
    if begins_anew:
        assert world.push() == [2]
    else:
        with pytest.raises((ProtocolError, UnavailableError)):
            world.push()
    assert ("anew" in told) is begins_anew
