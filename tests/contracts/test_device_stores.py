"""One suite for each of a device's stores on each implementation: the database's door, and the journal of swaps."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import msgspec
import pytest

from peer.core.observations import Fingerprint
from peer.core.operations import Delete
from peer.core.tree import Content, Item
from peer.disk.journal import Intent, MemoryJournal, Standing, Swap, SwapKind
from peer.disk.outcomes import Done, Failed
from peer.engine.journal import RunJournal, StoredJournal
from peer.store.database import InlineDatabase, ThreadedDatabase
from peer.store.schema import SCHEMA
from peer.store.trees import LocalTree, SyncedTree
from protocol.entries import Kind
from protocol.ids import ROOT, NodeId
from simulations.databases import SimDatabase, empty_image
from simulations.loop import Schedule, SimLoop

MAKERS: dict[str, Any] = {"threaded": ThreadedDatabase, "inline": InlineDatabase}
KINDS = (*MAKERS, "simulated", "simulated, shuffled")
SEEN = Fingerprint(1, 2, 3, 4, 5, 0o100644)


class Opened:
    """A database's door, the loop to run it in, and the way to open it anew."""

    def __init__(self, kind, path):
        self._path = path
        self._loop = None
        if kind in MAKERS:
            self.door = MAKERS[kind](path, SCHEMA)
        else:
            schedule = Schedule.SHUFFLED if "shuffled" in kind else Schedule.FIFO
            self._loop = SimLoop(1, schedule=schedule)
            self.door = SimDatabase(self._loop, self._loop.host("phone"), empty_image(SCHEMA))

    def run(self, work):
        return asyncio.run(work) if self._loop is None else self._loop.run(work)

    def again(self):
        if self._loop is None:
            return InlineDatabase(self._path, SCHEMA)
        return SimDatabase(self._loop, self._loop.host("phone"), self.door.image())


@pytest.fixture(params=KINDS)
def opened(request, tmp_path):
    made = Opened(request.param, tmp_path / "state.db")
    yield made
    asyncio.run(made.door.close())


@pytest.fixture
def database(opened):
    return opened.door


def put(name, value):
    return lambda db: db.execute("INSERT INTO setting VALUES (?, ?)", (name, value))


def names(db):
    return [row[0] for row in db.execute("SELECT name FROM setting ORDER BY name")]


def test_what_an_operation_wrote_is_there_for_the_next_and_after_opening_anew(opened, database):
    async def main():
        await database.run(put("a", b"1"))
        assert await database.run(names) == ["a"]

    opened.run(main())
    database.call(put("b", b"2"))
    assert database.call(names) == ["a", "b"]
    other = opened.again()
    assert other.call(names) == ["a", "b"]
    asyncio.run(other.close())


def test_an_operation_that_fails_leaves_nothing_is_told_and_spoils_no_other(opened, database):
    told = []
    database.on_rollback(lambda db: told.append(names(db)))

    def fails(db):
        put("half", b"")(db)
        raise KeyError("refused")

    async def main():
        results = await asyncio.gather(
            database.run(put("a", b"")), database.run(fails), database.run(put("b", b"")), return_exceptions=True
        )
        assert [type(result) is KeyError for result in results] == [False, True, False]
        assert await database.run(names) == ["a", "b"]

    opened.run(main())
    assert told
    assert all("half" not in found for found in told)


def swap(number, *, time_ms=0, checked=None, path="f"):
    return Swap(bytes([number]) * 16, SwapKind.REPLACE, path, Content(Kind.FILE, b"h" * 32, 3), time_ms, None, checked)


@pytest.fixture(params=["memory", "stored"])
def journal(request, tmp_path):
    if request.param == "memory":
        yield MemoryJournal()
        return
    database = InlineDatabase(tmp_path / "state.db", SCHEMA)
    StoredJournal(database, 2).put([swap(9)])  # another folder's, which nobody here may see
    yield StoredJournal(database, 1)
    asyncio.run(database.close())


def test_rows_come_back_whole_in_the_order_in_which_they_were_first_put(journal):
    first, second = swap(2, path=os.fsdecode(b"d/\xff odd")), swap(1, checked=SEEN)
    journal.put([first, second])
    newer = msgspec.structs.replace(first, checked=SEEN, time_ms=7)
    journal.put([newer])
    assert list(journal.rows()) == [newer, second]


def test_done_drops_what_is_named_and_an_unknown_id_is_no_error(journal):
    journal.put([swap(1), swap(2)])
    journal.done([bytes([1]) * 16, bytes([8]) * 16])
    assert list(journal.rows()) == [swap(2)]


def test_checked_rows_come_oldest_first_up_to_a_moment_in_pages(journal):
    rows = [swap(n, time_ms=10 - n, checked=SEEN) for n in range(1, 6)]
    journal.put([*rows, swap(7, time_ms=1)])
    assert list(journal.checked(8, 10)) == rows[:0:-1]
    assert list(journal.checked(8, 2, 1)) == [rows[3], rows[2]]
    assert (journal.count(checked=True), journal.count(checked=False)) == (5, 1)


def test_rows_may_be_dropped_while_they_are_read(journal):
    journal.put([swap(n) for n in range(1, 4)])
    for row in journal.rows():
        journal.done([row.id])
    assert list(journal.rows()) == []


def intent(number, *, name="n\udcff", **more):
    item = Item(NodeId(bytes([number]) * 16), ROOT, name, Content(Kind.FILE, b"h" * 32, 1, 2))
    return Intent(item, f"d/{name}", SEEN, **more)


def test_intents_come_back_in_order_and_one_for_an_item_replaces_the_other(journal):
    base = intent(3, name="old \udc80").item
    moved = intent(1, base=base, old_path="e/old \udc80")
    journal.begin([swap(1)], [intent(1), intent(2)])
    assert (list(journal.rows()), list(journal.intents())) == ([swap(1)], [intent(1), intent(2)])
    journal.begin([], [moved])
    assert list(journal.intents()) == [intent(2), moved]
    journal.settled([moved, intent(2)], [Standing(moved, SEEN)])
    assert list(journal.intents()) == []


def test_what_stands_is_in_both_trees_and_what_this_device_did_as_its_user_only_in_local(database):
    local, synced = (database.call(lambda db, tree=tree: tree(db, 1)) for tree in (LocalTree, SyncedTree))
    nobody = Item(NodeId(b"o" * 16), ROOT, "n\udcff", Content(Kind.FILE, b"x" * 32, 1, 2))
    database.call(lambda db: local.put(nobody, SEEN))
    journal = StoredJournal(database, 1)
    journal.begin([], [intent(1)])
    journal.settled([intent(1)], [Standing(intent(1), SEEN)])
    assert database.call(lambda db: (list(local.all()), list(synced.all()))) == ([intent(1).item], [intent(1).item])
    other = intent(2, name="m")
    RunJournal(database, 1, lambda db, outcomes: None, is_users=True).begin([], [other])
    journal.settled([other], [Standing(other, SEEN)])
    assert database.call(lambda db: (len(list(local.all())), len(list(synced.all())))) == (2, 1)


def test_what_a_group_came_to_is_noted_in_the_commit_that_begins_the_next_or_waits(database):
    noted = []
    done, more = Done(Delete(intent(1).item)), Failed(Delete(intent(2).item), "error", "")
    journal = RunJournal(database, 1, lambda db, outcomes: noted.append(list(outcomes)), is_users=False)
    journal.begin([], [intent(1)])
    journal.add([done])
    journal.begin([], [intent(2)])
    assert noted == [[], [done]]
    journal.add([more])
    database.call(journal.flush)
    assert noted[-1] == [more]
