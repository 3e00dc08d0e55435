"""One suite for every keeper of the fold's state: dicts, an overlay, rows of the local database."""

from __future__ import annotations

import random
import sqlite3

import pytest

from peer.core.fold import fold, void
from peer.core.fold_state import ContentRow, EntryRow, NameRow, NodeRow, PlaceKind, PlaceRow
from peer.core.memory_state import MemoryState, OverlayState
from peer.core.tree import Content, Item, Member
from peer.store.fold_cache import CachedState
from peer.store.fold_store import FOLD_SCHEMA, SqliteState
from protocol.entries import Batch, ContentValue, Kind, RowSpan, SegmentKey
from protocol.ids import ROOT, ChunkId, DeviceId, Dot, EntryHash
from tests.peer.core.devices import walk
from tests.peer.core.entries import content, create, entry, node, place, shown
from tests.peer.core.worlds import history, play, refold

A, B, C = (node(letter) for letter in "ABC")
DOT, OTHER = Dot(65_535, (1 << 62) + 1, 999), Dot(1, 2, 3)
VALUE = ContentValue(Kind.FILE, OTHER, b"h" * 32, 1 << 50, -1, True, b"", "c", (RowSpan(0, 1, 2),))
LINEAGE = (DOT, (1 << 62) + 5, (OTHER,), ((1, 2), (3, 4)), OTHER, OTHER, 7, 3, DOT)
ODD_NAMES = ["plain", "caf\u00e9", "line\nbreak", "\udcff\udce9.txt", "\U0001f600", "~", "a" * 255]


def database():
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.executescript(FOLD_SCHEMA)
    return connection


def over_a_dropped_base():
    """Return an overlay that shows nothing, since all that its base has was dropped."""
    base = MemoryState()
    fold(base, [create(9, 1, A, "f", "x")], position=1)
    overlay = OverlayState(base)
    overlay.places.drop(Dot(9, 1, 0))
    overlay.contents.drop(Dot(9, 1, 1))
    overlay.nodes.drop(A)
    overlay.names.drop((ROOT, b"f"))
    overlay.entries.drop((9, 1))
    overlay.tree.drop(A)
    return overlay


MAKERS = {
    "memory": MemoryState,
    "overlay": lambda: OverlayState(MemoryState()),
    "overlay over what was dropped": over_a_dropped_base,
    "overlay over an overlay over rows": lambda: OverlayState(OverlayState(SqliteState(database(), 1))),
    "remembered rows": lambda: CachedState(database(), 7),
    "overlay over remembered rows": lambda: OverlayState(CachedState(database(), 7)),
    "rows": lambda: SqliteState(database(), 7),
}


@pytest.fixture(params=list(MAKERS.values()), ids=list(MAKERS))
def state(request):
    return request.param()


ROWS = {
    "places": (DOT, PlaceRow(*LINEAGE, A, PlaceKind.REMOVAL, B, b"\xff\x00n", b"r" * 16, (OTHER,), True)),
    "contents": (DOT, ContentRow(*LINEAGE, A, B, OTHER, VALUE, (SegmentKey(ChunkId(b"i" * 32), b"o" * 32, 9),), True)),
    "nodes": (
        A,
        NodeRow(
            A, (DOT,), DOT, PlaceKind.KEEP, B, b"\xff", 9, 1 << 62, (DOT,), (OTHER,), B, B, (DOT,), (C,), (DOT,),
            (DOT, OTHER), ((DOT, OTHER),), (DOT,), 3, (B, b"\xff"), C,
        ),
    ),
    "names": ((A, b"\xff\x00"), NameRow((A, B), (C,), (b"k",), ((b"\xff", A),))),
    "removed": (DOT, (OTHER, DOT)),
    "acts": ((b"r" * 16, A), (DOT,)),
    "voids": (DOT, (OTHER,)),
    "entries": ((65_535, 1 << 62), EntryRow(EntryHash(b"e" * 32), DeviceId(b"d" * 32), "Laptop \U0001f600", -5, 9, 10)),
    "parts": ((b"k" * 20, 4095), entry(1, 2, content(A, "t", OTHER), needs=[(3, 4)], batch=Batch(b"b" * 16, 1, 2))),
    "batches": (b"k" * 20, -1),
}  # fmt: skip


@pytest.mark.parametrize("table", ROWS)
def test_a_row_comes_back_as_it_was_put(state, table):
    """Rows are put, replaced, read and dropped by their key."""
    rows, (key, row) = getattr(state, table), ROWS[table]
    assert rows.get(key) is None
    rows.put(key, row)
    rows.put(key, row)
    assert rows.get(key) == row
    rows.drop(key)
    rows.drop(key)
    assert rows.get(key) is None


def test_pairs_are_listed_by_their_first_part(state):
    """In the order of their second part, none of another first part, dropped ones not."""
    rows = {key: NameRow((node(str(i)),)) for i, key in enumerate([b"b", b"", b"\xff", b"ab", b"a"])}
    for key, row in rows.items():
        state.names.put((A, key), row)
        state.names.put((B, key), NameRow())
    state.names.drop((A, b"ab"))
    assert list(state.names.under(A)) == [(key, rows[key]) for key in sorted(rows) if key != b"ab"]
    assert list(state.names.under(C)) == []
    for index in (300, 2, 70_000):
        state.parts.put((b"k", index), ROWS["parts"][1])
    assert [index for index, _ in state.parts.under(b"k")] == [2, 300, 70_000]


def test_items_are_found_by_id_and_by_name(state):
    """Any name that a file can have; a moved item is where it went and no longer where it was."""
    members = (Member(A, None, (DOT,), (OTHER,)), Member(B, DOT, (DOT, OTHER), ()))
    items = [
        Item(node(str(i)), A, name, Content(Kind.LINK, b"h" * 32, 3, 4, True, b"\xfft"), members)
        for i, name in enumerate(ODD_NAMES)
    ]
    for item in items:
        state.tree.put(item)
    assert [state.tree.item(item.id) for item in items] == items
    assert [state.tree.child(A, item.name) for item in items] == items
    assert list(state.tree.children(A)) == sorted(items, key=lambda item: item.name)
    assert state.tree.child(A, "other") is None
    assert state.tree.child(B, "plain") is None
    moved = Item(items[0].id, B, items[1].name, items[0].content, items[0].members)
    state.tree.put(moved)
    assert state.tree.child(A, "plain") is None
    assert state.tree.child(B, items[1].name) == moved
    state.tree.drop(items[1].id)
    state.tree.drop(items[1].id)
    assert state.tree.item(items[1].id) is None
    assert [item.id for item in state.tree.children(A)] == [item.id for item in sorted(items[2:], key=lambda i: i.name)]


@pytest.mark.parametrize("seed", range(8))
def test_folds_are_the_same_everywhere(state, seed):
    """A random history folds to the same tree on this state as in memory, in pieces and with a tail."""
    world = play(*history(seed))
    folded, order = refold(world.log.ordered, random.Random(seed), state)
    whole = MemoryState()
    fold(whole, order, position=1)
    assert list(walk(folded.tree)) == list(walk(whole.tree))
    for device in range(1, 5):
        for seq in range(1, 40):
            assert folded.content(A, Dot(device, seq, 0)) == whole.content(A, Dot(device, seq, 0))


def test_batches_and_voids_are_remembered(state):
    """A batch waits in the state for its rest; what builds on a void value builds on its base."""
    fold(state, [create(1, 1, A, "f", "v")], position=1)
    parts = [
        entry(2, 1, place(B, ROOT, "g"), batch=Batch(b"b" * 16, 0, 2)),
        entry(2, 2, content(B, "w"), batch=Batch(b"b" * 16, 1, 2)),
    ]
    assert fold(state, parts[1:], position=2) == frozenset()
    assert fold(state, parts[:1], position=3) == {B}
    void(state, entry(1, 2, content(A, "x", Dot(1, 1, 1))))
    fold(state, [entry(1, 3, content(A, "y", Dot(1, 2, 0)))], position=4)
    assert shown(state) == {"f": "y", "g": "w"}


def test_folders_in_one_database_know_nothing_of_each_other():
    """The same entries in two folders are two trees."""
    connection = database()
    one, other = SqliteState(connection, 1), SqliteState(connection, 2)
    fold(one, [create(1, 1, A, "f", "a")], position=1)
    fold(other, [create(1, 1, A, "g", "b")], position=1)
    assert (shown(one), shown(other)) == ({"f": "a"}, {"g": "b"})
