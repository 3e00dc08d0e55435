"""The provisional tail: own entries and those of others, over random histories, as they are ordered or become void."""

from __future__ import annotations

import random
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from msgspec.structs import replace

from peer.core.entry_sealing import open_entry, seal_entry
from peer.core.fold import fold
from peer.core.fold_state import FoldState
from peer.core.memory_state import MemoryState
from peer.core.observations import Fingerprint
from peer.core.operations import Create, Delete, Plan
from peer.core.planner import plan
from peer.engine.follower import Admitted, Follower
from peer.store import folders
from peer.store.database import InlineDatabase
from peer.store.folders import FolderRecord
from peer.store.schema import SCHEMA
from peer.store.trees import LocalTree, SyncedTree, dirty
from protocol.codec import encode
from protocol.entries import AdmittedEntry, Entry, parse_entry
from protocol.history import ItemKind, LogItem, VoidReason, VoidRecord
from protocol.ids import DeviceId, EntryHash, FolderId
from tests.peer.core.devices import Device, Log, token_of, walk
from tests.peer.core.worlds import history, play, shuffled

FOLDER = FolderId(bytes(32))
KEY = bytes(32)
OWN = 1


def sealed(entries: Sequence[AdmittedEntry]) -> dict[EntryHash, tuple[Entry, bytes]]:
    """Return real entries that say the same, by the hashes of the given ones."""
    made: dict[EntryHash, tuple[Entry, bytes]] = {}
    newest: dict[int, EntryHash] = {}
    left = sorted(entries, key=lambda each: each.header.seq)
    while left:
        for each in left:
            header = each.header
            before = [one for one in left if one.header.device == header.device and one.header.seq < header.seq]
            if before or not all(need in made for need in header.needs):
                continue
            needs = tuple(sorted(made[need][0].hash for need in header.needs))
            previous = newest.get(header.device, EntryHash(bytes(32)))
            whole = replace(header, folder=FOLDER, epoch=1, needs=needs, previous=previous)
            data = seal_entry(whole, each.payload, KEY, bytes(32), bytes)
            entry = parse_entry(data)
            made[each.hash], newest[header.device] = (entry, data), entry.hash
            left.remove(each)
            break
        else:
            raise AssertionError("the history has no beginning")
    return made


class World:
    """One device's follower, without a coordinator: the test gives it what it would pull."""

    def __init__(self, entries: Sequence[AdmittedEntry]) -> None:
        self.made = sealed(entries)
        self.database = InlineDatabase(":memory:", SCHEMA)
        ring = SimpleNamespace(entry_key=lambda epoch: KEY)
        context: Any = SimpleNamespace(
            database=self.database, folder_keys=lambda key: ring, device=DeviceId(bytes(32)), on_change=None
        )
        record = FolderRecord(1, FOLDER, "f", b"/f", None, number=OWN, own_seq=10**6)
        self.database.call(lambda db: folders.put_folder(db, record))
        self.follower = Follower(context, record)
        author = SimpleNamespace(device=DeviceId(bytes(32)))
        self.follower.control = SimpleNamespace(enrolment=lambda number: author)  # type: ignore[assignment]
        self.ordered: list[AdmittedEntry | None] = []

    def admitted(self, old: EntryHash) -> AdmittedEntry:
        entry = self.made[old][0]
        return AdmittedEntry(entry.hash, DeviceId(bytes(32)), entry.header, open_entry(entry, KEY))

    def put_tail(self, olds: Sequence[EntryHash]) -> None:
        def operation(db: Any) -> None:
            for old in olds:
                entry, data = self.made[old]
                (folders.put_tail if entry.header.device == OWN else folders.put_foreign)(db, 1, entry, data)
            self.follower.rebuild(db)

        self.database.call(operation)

    def put_forged(self, data: bytes) -> None:
        """Take an entry of another device that is not among the given ones."""

        def operation(db: Any) -> None:
            folders.put_foreign(db, 1, parse_entry(data), data)
            self.follower.rebuild(db)

        self.database.call(operation)

    def record(self, *admitted: Admitted) -> None:
        chains = {each.item.position: bytes([each.item.position % 256]) * 32 for each in admitted}
        self.database.call(lambda db: self.follower._record(db, admitted, chains, None))

    def order(self, olds: Sequence[EntryHash]) -> None:
        start = self.follower.record.position + 1
        entries = [self.admitted(old) for old in olds]
        self.ordered += entries
        self.record(
            *(
                Admitted(LogItem(start + i, ItemKind.ENTRY, 0, self.made[old][1]), entry, entry.hash)
                for i, (old, entry) in enumerate(zip(olds, entries, strict=True))
            )
        )

    def void(self, old: EntryHash) -> None:
        entry = self.admitted(old)
        self.ordered.append(None)
        said = VoidRecord(FOLDER, entry.hash, VoidReason.AUTHOR_REMOVED, None)
        item = LogItem(self.follower.record.position + 1, ItemKind.VOID, 0, encode(said))
        self.record(Admitted(item, void=said))

    def tree(self) -> dict[bytes, Any]:
        return self.database.call(lambda db: {item.id: item for item in walk(self.follower.remote(db).tree)})

    def expected(self) -> dict[bytes, Any]:
        """The fold of the log and then of the tail, in the order that the follower gives."""
        state: FoldState = MemoryState()
        for position, entry in enumerate(self.ordered, start=1):
            if entry is not None:
                fold(state, [entry], position=position)
        tail = self.database.call(self.follower.tail)
        assert [position for position, _ in tail] == sorted({position for position, _ in tail})
        assert all(position > len(self.ordered) for position, _ in tail)
        by_hash = {entry.hash: self.admitted(old) for old, (entry, _) in self.made.items()}
        for position, found in tail:
            fold(state, [by_hash[found.hash]], position=position)
        return {item.id: item for item in walk(state.tree)}

    def folded(self) -> list[tuple[str, list[Any]]]:
        """Return all that is kept of the fold of the log."""

        def operation(db: Any) -> list[tuple[str, list[Any]]]:
            tables = [row[0] for row in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
            return [
                (name, db.execute(f"SELECT * FROM {name}").fetchall()) for name in tables if name.startswith("fold_")
            ]

        return self.database.call(operation)

    def settle(self) -> None:
        """Let the disk hold what is shown, as synced."""

        def operation(db: Any) -> None:
            for item in walk(self.follower.remote(db).tree):
                SyncedTree(db, 1).put(item)
                LocalTree(db, 1).put(replace(item, members=()), Fingerprint(0, 0, 0, 0, 0, 0))
            db.execute("DELETE FROM dirty")

        self.database.call(operation)

    def plan(self) -> Plan:
        """Return what follows for all that is to be looked at."""

        def operation(db: Any) -> Plan:
            remote = self.follower.remote(db).tree
            return plan(local=LocalTree(db, 1), synced=SyncedTree(db, 1), remote=remote, dirty=dirty(db, 1, 100))

        return self.database.call(operation)

    def take_dirty(self) -> set[bytes]:
        def operation(db: Any) -> set[bytes]:
            found = {row[0] for row in db.execute("SELECT id FROM dirty")}
            db.execute("DELETE FROM dirty")
            return found

        return self.database.call(operation)


def changed(before: dict[bytes, Any], after: dict[bytes, Any]) -> set[bytes]:
    return {id for id in {*before, *after} if before.get(id) != after.get(id)}


@pytest.mark.parametrize("seed", range(40))
def test_log_and_tail_are_folded_as_if_ordered_so_and_all_that_changes_is_looked_at(seed: int) -> None:
    chance = random.Random(seed)
    entries = list(play(*history(seed)).log.entries.values())
    world = World(entries)
    order = [entry.hash for entry in shuffled(entries, chance)]
    start = chance.randint(0, len(order))
    if start:
        world.order(order[:start])
    world.put_tail(order[start:])
    while True:
        assert world.tree() == world.expected()
        world.take_dirty()
        before = world.tree()
        if start == len(order):
            break
        step = chance.randint(1, len(order) - start)
        world.order(order[start : start + step])
        start += step
        assert changed(before, world.tree()) <= world.take_dirty()
    assert world.database.call(lambda db: folders.foreign_size(db, 1)) == (0, 0)


def test_what_its_own_tail_alone_has_shown_is_looked_at_again_once_the_log_orders_it_otherwise():
    """Two names that count as one, with equal bytes: the older node lends the item its id, and the log decides which is older."""
    device = Device(OWN, Log())
    device.create("\u00e9", "t1")
    device.create("e\u0301", "t1")
    first, second = device.log.entries.values()
    assert second.header.needs == ()
    world = World([first, second])
    world.put_tail([first.hash, second.hash])
    [before] = world.tree()
    world.take_dirty()
    world.order([second.hash, first.hash])
    [after] = world.tree()
    assert before != after
    assert {before, after} <= world.take_dirty()


@pytest.mark.parametrize("seed", range(40))
def test_what_a_void_entry_of_another_device_brought_goes_and_all_that_changes_is_looked_at(seed: int) -> None:
    chance = random.Random(seed)
    entries = list(play(*history(seed)).log.entries.values())
    world = World(entries)
    order = [entry.hash for entry in shuffled(entries, chance)]
    start = chance.randint(0, len(order))
    if start:
        world.order(order[:start])
    world.put_tail(order[start:])
    left = order[start:]
    while left:
        needed = {need for old in left for need in world.made[old][0].header.needs}
        last = [old for old in left if world.made[old][0].hash not in needed]
        gone = next((old for old in last if world.made[old][0].header.device != OWN), None)
        if gone is None:
            break
        world.take_dirty()
        before = world.tree()
        world.void(gone)
        left.remove(gone)
        assert world.tree() == world.expected()
        assert changed(before, world.tree()) <= world.take_dirty()


@pytest.mark.parametrize("seed", range(20))
def test_what_was_only_in_the_tail_leaves_nothing_in_the_fold_of_the_log(seed: int) -> None:
    """It became void, or its number turned out to be another one's: who never had it has the same."""
    chance = random.Random(seed)
    entries = list(play(*history(seed)).log.entries.values())
    had, had_not = World(entries), World(entries)
    *order, last = [entry.hash for entry in shuffled(entries, chance)]
    for old in order:
        entry = had.made[old][0]
        if entry.header.device != OWN and chance.random() < 0.5:
            payload = open_entry(entry, KEY)
            had.put_forged(
                seal_entry(entry.header, replace(payload, time_ms=payload.time_ms + 1), KEY, bytes(32), bytes)
            )
        for world in (had, had_not):
            world.order([old])
    if had.made[last][0].header.device != OWN:
        had.put_tail([last])
        for world in (had, had_not):
            world.void(last)
    assert had.folded() == had_not.folded()


@pytest.mark.parametrize("seed", range(50))
def test_all_that_entries_of_others_change_is_looked_at_though_memory_was_forgotten_before(seed: int) -> None:
    """As it is whenever an operation of anybody on this device was undone."""
    chance = random.Random(seed)
    entries = list(play(*history(seed)).log.entries.values())
    world = World(entries)
    order = [entry.hash for entry in shuffled(entries, chance)]
    start = chance.randint(0, len(order) // 2)
    if start:
        world.order(order[:start])
    rest = order[start:]
    chance.shuffle(rest)
    later = [old for old in rest[chance.randint(0, len(rest)) :] if world.made[old][0].header.device != OWN]
    world.put_tail([old for old in rest if old not in later])
    before = world.tree()
    world.take_dirty()
    world.database.call(world.follower._read_anew)
    world.database.call(lambda db: world.follower.registered._take(db, [world.made[old] for old in later]))
    assert changed(before, world.tree()) <= world.take_dirty()


def test_every_device_with_the_same_entries_has_one_tail() -> None:
    """Whoever signed what: the order of what others wrote depends on the entries alone."""
    for seed in range(20):
        entries = list(play(*history(seed)).log.entries.values())
        tails = []
        for chance in (random.Random(1), random.Random(2)):
            world = World(entries)
            world.put_tail([entry.hash for entry in shuffled(entries, chance)])
            tails.append([entry.hash for _, entry in world.database.call(world.follower.tail)])
        assert tails[0] == tails[1]


def test_what_this_device_wrote_and_shows_as_a_conflict_copy_stays_when_its_entry_becomes_void() -> None:
    """It was built on what another device near by wrote, which became void; and somebody else was ordered first."""
    log = Log()
    here, near, far = (Device(number, log) for number in (OWN, 2, 3))
    far.create("f", "first")
    log.order(random.Random(1), 1)
    for device in (here, near, far):
        device.pull(1)
        device.apply()
    near.edit("f", "near")
    here.receive(near.tail.values())
    here.apply()
    here.edit("f", "here")
    far.edit("f", "far")
    made = {(entry.header.device, entry.header.seq): hash for hash, entry in log.entries.items()}
    world = World(list(log.entries.values()))
    world.order([made[3, 1]])
    world.put_tail([made[2, 1], made[OWN, 1]])
    world.order([made[3, 2]])
    assert sorted(token_of(item.content) for item in world.tree().values()) == ["far", "here"]
    world.settle()
    for old in (made[2, 1], made[OWN, 1]):
        world.void(old)
    planned = world.plan()
    assert [token_of(act.item.content) for act in planned.acts if isinstance(act, Create)] == ["here"]
    assert not any(isinstance(step, Delete) for step in planned.steps)
