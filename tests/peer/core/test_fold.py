"""The fold on entries written by hand: names, batches, voids, kinds, and what only a careless or hostile author writes."""

from __future__ import annotations

import pytest

from peer.core.conflicts import conflict_names, text_of
from peer.core.fold import fold, order_tail, void
from peer.core.fold_state import FoldState
from peer.core.memory_state import MemoryState, OverlayState
from peer.core.tree import find
from protocol.entries import Batch, ContentValue, Kind, Register, RowSpan, SegmentKey
from protocol.ids import ROOT, ChunkId, Dot, NodeId, copy_id
from tests.peer.core.devices import walk
from tests.peer.core.entries import (
    content,
    create,
    detached,
    directory,
    entry,
    entry_hash,
    link,
    node,
    place,
    removal,
    shown,
)

A, B, C, D = (node(letter) for letter in "ABCD")


@pytest.fixture
def state() -> FoldState:
    return MemoryState()


def fold_all(state, *entries, position=1):
    return fold(state, entries, position=position)


def suffixed(name: str, label: str, id: NodeId, digits: int = 8) -> str:
    stem, dot, extension = name.partition(".")
    return f"{stem} (conflict, {label}, {id.hex()[:digits]}){dot}{extension}"


# --- Names


def test_changed_items_are_reported(state):
    """Whoever plans learns of every item that appeared, changed or vanished, and of no other."""
    assert fold_all(state, create(1, 1, A, "f", "a"), create(1, 2, B, "g", "b")) == {A, B}
    assert fold_all(state, entry(1, 3, content(A, "c", Dot(1, 1, 1))), position=3) == {A}
    assert fold_all(state, entry(1, 4, removal(B, ROOT, "g", [Dot(1, 2, 1)], Dot(1, 2, 0))), position=4) == {B}
    assert shown(state) == {"f": "c"}
    assert fold_all(state, entry(1, 5, content(B, "d")), position=5) == {B}


def test_nfc_and_nfd_are_one_name(state):
    """Two spellings of one name are one place: same content is one file, other content is suffixed."""
    composed, decomposed = "caf\u00e9.txt", "cafe\u0301.txt"
    fold_all(state, create(1, 1, A, composed, "a"), create(2, 1, B, decomposed, "a"))
    assert shown(state) == {composed: "a"}
    fold_all(state, entry(2, 2, content(B, "b", Dot(2, 1, 1))), position=3)
    assert shown(state) == {composed: "a", suffixed(decomposed, "D2", B): "b"}


def test_names_are_compared_by_a_fixed_table(state):
    """A composition that Unicode learned after 3.2 makes no two names equal, on no version of Python."""
    one, other = "\U00011131\U00011127", "\U0001112e"  # composed since Unicode 6.1
    fold_all(state, create(1, 1, A, one, "a"), create(2, 1, B, other, "a"))
    assert shown(state) == {one: "a", other: "a"}


def test_names_that_are_not_utf8_stay_as_they_are(state):
    """Bytes that are no text are a name of their own, kept to the byte, and can be suffixed too."""
    fold_all(state, create(1, 1, A, b"\xff\xe9.txt", "a"), create(2, 1, B, b"\xff\xe9.txt", "b"))
    assert set(shown(state)) == {"\udcff\udce9.txt", suffixed("\udcff\udce9.txt", "D2", B)}


def test_same_short_suffix_takes_the_whole_id(state):
    """Two items whose ids begin alike cannot share a suffix; both take their whole id, whoever came first."""
    second, third = NodeId(b"same" + bytes(11) + b"1"), NodeId(b"same" + bytes(11) + b"2")
    fold_all(
        state, create(1, 1, A, "f.txt", "a"), create(2, 1, second, "f.txt", "b"), create(2, 2, third, "f.txt", "c")
    )
    long = {suffixed("f.txt", "D2", id, 32) for id in (second, third)}
    assert set(shown(state)) == {"f.txt"} | long
    fold_all(state, entry(2, 3, place(third, ROOT, "g", Dot(2, 2, 0))), position=4)
    assert set(shown(state)) == {"f.txt", "g", suffixed("f.txt", "D2", second)}


def test_a_file_that_is_named_like_a_suffix_has_the_name(state):
    """Who wants a name has it before one who only falls back on it; when it leaves, the fallback is taken again."""
    short = suffixed("f", "D2", B)
    fold_all(state, create(1, 1, A, "f", "a"), create(2, 1, B, "f", "b"))
    assert shown(state) == {"f": "a", short: "b"}
    fold_all(state, create(1, 2, C, short, "c"), position=3)
    assert shown(state) == {"f": "a", short: "c", suffixed("f", "D2", B, 32): "b"}
    fold_all(state, entry(1, 3, place(C, ROOT, "g", Dot(1, 2, 0))), position=4)
    assert shown(state) == {"f": "a", short: "b", "g": "c"}


def test_a_suffix_of_one_file_may_be_wanted_by_a_file_of_a_directory_that_joins(state):
    """Directories of one name are one: their files share its names, and the suffixes in it."""
    short = suffixed("f", "D2", C)
    fold_all(
        state,
        create(1, 1, A, "X", "DIR"),
        create(1, 2, node("f"), "f", "a", A),
        create(2, 1, C, "f", "b", A),
        create(3, 1, B, "Y", "DIR"),
        create(3, 2, D, short, "d", B),
    )
    assert shown(state) == {"X": "DIR", "X/f": "a", f"X/{short}": "b", "Y": "DIR", f"Y/{short}": "d"}
    fold_all(state, entry(3, 3, place(B, ROOT, "X", Dot(3, 1, 0))), position=6)
    assert shown(state) == {"X": "DIR", "X/f": "a", f"X/{short}": "d", f"X/{suffixed('f', 'D2', C, 32)}": "b"}
    fold_all(state, entry(3, 4, place(B, ROOT, "Y", Dot(3, 3, 0))), position=7)
    assert shown(state) == {"X": "DIR", "X/f": "a", f"X/{short}": "b", "Y": "DIR", f"Y/{short}": "d"}


# --- Directories of one name


def test_merged_directories_keep_the_id_of_the_older(state):
    """Whoever moves or keeps a merged directory changes no id; its other node's files stand in it."""
    fold_all(
        state,
        create(1, 1, A, "X", "DIR"),
        create(2, 1, B, "X", "DIR"),
        create(2, 2, C, "f", "c", B),
        create(1, 2, D, "g", "d", A),
    )
    item = state.tree.child(ROOT, "X")
    assert item is not None
    assert (item.id, [member.node for member in item.members]) == (A, [A, B])
    assert {each.parent for each in state.tree.children(A)} == {A}
    moved = entry(3, 1, place(A, ROOT, "Z", Dot(1, 1, 0)), place(B, ROOT, "Z", Dot(2, 1, 0)))
    assert fold_all(state, moved, position=5) == {A}
    assert shown(state) == {"Z": "DIR", "Z/f": "c", "Z/g": "d"}


def test_directories_part_again(state):
    """When one of the nodes behind a directory is renamed, it takes along what stands in it, and nothing else."""
    fold_all(state, create(1, 1, A, "X", "DIR"), create(2, 1, B, "X", "DIR"), create(2, 2, C, "f", "c", B))
    assert fold_all(state, entry(1, 2, place(A, ROOT, "W", Dot(1, 1, 0))), position=4) == {A, B, C}
    assert shown(state) == {"W": "DIR", "X": "DIR", "X/f": "c"}


def test_a_directory_goes_first_whatever_came_first(state):
    """A node that is a directory to one and a file to another shows both, and what stands in it shows in any order."""
    start = create(1, 1, A, "f", "v")
    made = entry(1, 2, directory(A, Dot(1, 1, 1)))
    edited = entry(2, 1, content(A, "b", Dot(1, 1, 1)))
    inside = create(1, 3, B, "n", "n", A)
    for order in ([start, made, edited, inside], [start, edited, made, inside]):
        state = MemoryState()
        fold_all(state, *order)
        copy = copy_id(A, Dot(2, 1, 0))
        assert shown(state) == {"f": "DIR", "f/n": "n", suffixed("f", "D2", copy): "b"}


def test_what_stands_in_a_file_shows_all_the_same(state):
    """A directory that was overwritten by a file stays as long as somebody else's file stands in it."""
    fold_all(
        state,
        create(1, 1, A, "X", "DIR"),
        entry(1, 2, content(A, "b", Dot(1, 1, 1))),
        create(2, 1, B, "n", "n", A),
    )
    copy = copy_id(A, Dot(1, 2, 0))
    assert shown(state) == {"X": "DIR", "X/n": "n", suffixed("X", "D1", copy): "b"}


def test_links_are_contents(state):
    """A link and a file of one name are two; equal targets are one content."""
    fold_all(state, entry(1, 1, place(A, ROOT, "l"), link(A, b"x")), entry(2, 1, place(B, ROOT, "l"), link(B, b"x")))
    assert shown(state) == {"l": "x"}
    fold_all(state, create(3, 1, C, "l", "file"), position=3)
    assert shown(state) == {"l": "x", suffixed("l", "D3", C): "file"}


def test_later_attributes_count(state):
    """Of values that are one content, the attributes of the last in the log show."""
    base = Dot(1, 1, 1)
    fold_all(
        state,
        create(1, 1, A, "f", "v"),
        entry(1, 2, content(A, "v", base, body=base, mtime_ns=5)),
        entry(2, 1, content(A, "v", base, body=base, mtime_ns=3)),
    )
    item = find(state.tree, "f")
    assert item is not None
    assert item.content.mtime_ns == 3
    assert item.members[0].content == (Dot(1, 2, 0), Dot(2, 1, 0))


# --- Batches, voids, tails


def batch_of(count):
    made = [place(A, ROOT, "f"), content(A, "a"), place(B, ROOT, "g"), content(B, "b")]
    return [entry(1, 1 + i, made[i], batch=Batch(b"b" * 16, i, count)) for i in range(count)]


def test_a_batch_shows_when_it_is_complete(state):
    """Its entries come in any order, with others between them; nothing shows before the last of them."""
    parts = batch_of(4)
    for position, part in enumerate([parts[2], parts[0], parts[3]], start=1):
        assert fold_all(state, part, position=position) == frozenset()
    assert fold_all(state, create(2, 1, C, "f", "c"), position=4) == {C}
    assert fold_all(state, parts[1], position=5) == {A, B}
    assert shown(state) == {"f": "c", suffixed("f", "D1", A): "a", "g": "b"}
    assert not list(state.parts.under(b""))
    row = state.entries.get((1, 1))
    assert row is not None
    assert row.last == 4


def test_a_batch_is_judged_as_one_entry(state):
    """Two directories that change places in two entries of a batch close no cycle."""
    fold_all(state, create(1, 1, A, "a", "DIR"), create(1, 2, B, "b", "DIR", A))
    outer = entry(1, 3, place(A, B, "a", Dot(1, 1, 0)), batch=Batch(b"b" * 16, 0, 2))
    inner = entry(1, 4, place(B, ROOT, "b", Dot(1, 2, 0)), batch=Batch(b"b" * 16, 1, 2))
    fold_all(state, outer, inner, position=3)
    assert shown(state) == {"b": "DIR", "b/a": "DIR"}


def test_a_part_that_comes_twice_counts_once(state):
    """A second entry under one index of a batch is void."""
    parts = batch_of(4)
    again = entry(1, 9, content(A, "x"), batch=Batch(b"b" * 16, 1, 4))
    fold_all(state, *parts[:3], again, parts[3])
    assert shown(state) == {"f": "a", "g": "b"}


def test_a_void_part_makes_its_batch_void(state):
    """The parts that wait, and those that come later, never show."""
    parts = batch_of(4)
    fold_all(state, *parts[:2])
    void(state, parts[2])
    assert fold_all(state, parts[3], position=4) == frozenset()
    assert shown(state) == {}
    assert not list(state.parts.under(b""))


def test_a_void_base_stands_for_its_own_base(state):
    """Who built on a void edit, and on a void edit of that, built on what these had replaced."""
    fold_all(state, create(1, 1, A, "f", "v"))
    void(state, entry(1, 2, content(A, "x", Dot(1, 1, 1))))
    void(state, entry(1, 3, content(A, "y", Dot(1, 2, 0))))
    fold_all(state, entry(1, 4, content(A, "z", Dot(1, 3, 0))), position=2)
    assert shown(state) == {"f": "z"}
    assert state.standing(Dot(1, 3, 0)) == (Dot(1, 1, 1),)


def test_a_removal_of_a_void_content_removes_what_it_was_made_from(state):
    """A user who removed what he had just written meant the file, whatever became of that write."""
    fold_all(state, create(1, 1, A, "f", "v"))
    void(state, entry(1, 2, content(A, "x", Dot(1, 1, 1))))
    fold_all(state, entry(1, 3, removal(A, ROOT, "f", [Dot(1, 2, 0)], Dot(1, 1, 0))), position=2)
    assert shown(state) == {}


def test_a_tail_is_in_causal_order_then_by_hash():
    """Each entry comes after what it needs, among equals the smallest hash first; what lacks a need is held back."""
    tail = [
        entry(1, 1),
        entry(2, 1),
        entry(3, 1, needs=[(1, 1)]),
        entry(4, 1, needs=[(9, 9)]),
        entry(5, 1, needs=[(4, 1)]),
    ]
    free = sorted([tail[0].hash, tail[1].hash])
    order = [each.hash for each in order_tail(set(), tail)]
    assert sorted(order) == sorted([*free, tail[2].hash])
    assert order.index(tail[2].hash) > order.index(tail[0].hash)
    assert [hash for hash in order if hash in free] == free
    assert len(order_tail({entry_hash(9, 9)}, tail)) == 5
    assert order_tail({tail[0].hash}, [*tail, *tail]) == order_tail({tail[0].hash}, tail)
    assert tail[0].hash not in {each.hash for each in order_tail({tail[0].hash}, tail)}


def test_an_overlay_leaves_its_base_alone(state):
    """A tail can be thrown away: the ordered state under it is as it was."""
    fold_all(state, create(1, 1, A, "f", "v"), create(1, 2, B, "D", "DIR"), create(1, 3, C, "g", "w", B))
    before = list(walk(state.tree))
    overlay = OverlayState(state)
    fold_all(
        overlay, entry(2, 1, content(A, "a", Dot(1, 1, 1))), entry(2, 2, place(B, ROOT, "E", Dot(1, 2, 0))), position=4
    )
    fold_all(overlay, entry(2, 3, removal(C, B, "g", [Dot(1, 3, 1)], Dot(1, 3, 0))), position=6)
    assert shown(overlay) == {"f": "a", "E": "DIR"}
    assert list(walk(state.tree)) == before
    fold_all(state, entry(3, 1, content(A, "b", Dot(1, 1, 1))), position=4)
    assert shown(state) == {"f": "b", "D": "DIR", "D/g": "w"}


# --- Looking contents up


def test_a_content_is_found_by_its_dot(state):
    """With the keys of just its own segments, its author's label and time, also after it was replaced or detached."""
    keys = tuple(SegmentKey(ChunkId(bytes([i]) * 32), bytes([i]) * 32, 4) for i in range(3))
    value = ContentValue(
        Kind.FILE, None, b"h" * 32, 9, 0, False, b"", "c1", (RowSpan(2, 0, 4), RowSpan(1, 1, 2), RowSpan(2, 0, 1))
    )
    made = entry(1, 1, place(A, ROOT, "f"), (A, Register.CONTENT, (), value), segments=keys, label="Laptop")
    fold_all(state, made, entry(1, 2, content(A, "b", Dot(1, 1, 1))))
    found = state.content(A, Dot(1, 1, 1))
    assert found is not None
    assert found.segments == (keys[2], keys[1])
    assert found.value.spans == (RowSpan(0, 0, 4), RowSpan(1, 1, 2), RowSpan(0, 0, 1))
    assert (found.entry.label, found.entry.time_ms, found.entry.position) == ("Laptop", 1000, 1)
    assert state.content(B, Dot(1, 1, 1)) is None
    assert state.content(A, Dot(1, 1, 0)) is None


# --- What no honest author writes


def test_bases_that_are_not_there_are_no_bases(state):
    """A change that builds on values of another node, or on none that exist, stands beside what is there."""
    fold_all(
        state,
        create(1, 1, A, "f", "a"),
        create(1, 2, B, "g", "b"),
        entry(2, 1, content(A, "c", Dot(1, 2, 1), Dot(9, 9, 0))),
    )
    assert set(shown(state).values()) == {"a", "b", "c"}


def test_a_node_without_place_does_not_show(state):
    """Contents without a place, and places in directories that nobody made, wait for the rest."""
    fold_all(state, entry(1, 1, content(A, "a")), create(1, 2, C, "n", "n", D))
    assert shown(state) == {}
    fold_all(state, entry(1, 3, place(A, ROOT, "f")), entry(1, 4, place(D, ROOT, "d")), position=3)
    assert shown(state) == {"f": "a", "d": "DIR", "d/n": "n"}


def test_a_cycle_made_in_one_entry_never_shows(state):
    """Nodes that one entry puts into each other hang nowhere; the rest of the folder is not touched."""
    fold_all(state, create(1, 1, C, "f", "c"))
    fold_all(
        state,
        entry(2, 1, place(A, B, "a"), directory(A), place(B, A, "b"), directory(B), place(D, D, "d"), content(D, "d")),
        position=2,
    )
    assert shown(state) == {"f": "c"}


def test_an_id_that_was_given_to_a_node_cannot_become_a_copy(state):
    """Who made a node under the id of a copy of ours keeps his node; our value stays where it is."""
    dot = Dot(2, 1, 0)
    taken = copy_id(A, dot)
    fold_all(
        state,
        create(1, 1, A, "f", "v"),
        create(3, 1, taken, "t", "t"),
        entry(1, 2, content(A, "a", Dot(1, 1, 1))),
        entry(2, 1, content(A, "b", Dot(1, 1, 1))),
        entry(3, 2, detached(A, dot, Dot(1, 1, 0)), place(taken, ROOT, "u", Dot(3, 1, 0))),
    )
    assert sorted(shown(state).values()) == ["a", "b", "t"]


@pytest.mark.parametrize("is_kept_first", [True, False], ids=["kept first", "removed first"])
def test_a_removal_takes_what_others_detached_where_it_stood_for_them(state, is_kept_first):
    """A copy is moved, what replaces it follows there and is removed; meanwhile its author kept that as a copy of his own.

    Nobody moved it after its removal, so it stays removed, in whichever order both come.
    """
    his, newer = Dot(2, 1, 0), Dot(2, 2, 0)
    moved, kept = copy_id(A, his), copy_id(A, newer)
    ends = [
        entry(2, 3, detached(A, newer, Dot(1, 1, 0)), place(kept, ROOT, "kept", weak=True)),
        entry(1, 4, removal(moved, ROOT, "moved", [newer], Dot(1, 3, 1))),
    ]
    fold_all(
        state,
        create(1, 1, A, "f", "v"),
        entry(1, 2, content(A, "a", Dot(1, 1, 1))),
        entry(2, 1, content(A, "b", Dot(1, 1, 1))),
        entry(1, 3, detached(A, his, Dot(1, 1, 0)), place(moved, ROOT, "moved")),
        entry(2, 2, content(A, "c", his)),
    )
    assert shown(state) == {"f": "a", "moved": "c"}
    for position, each in enumerate(ends if is_kept_first else reversed(ends), start=6):
        fold_all(state, each, position=position)
    assert shown(state) == {"f": "a"}


def test_a_shown_copy_gives_way_to_a_node_with_its_id(state):
    """Who makes a node under the id of a copy that shows hides nothing: the copy shows under another id."""
    taken = copy_id(A, Dot(2, 1, 0))
    start = (
        create(1, 1, A, "f", "v"),
        entry(1, 2, content(A, "a", Dot(1, 1, 1))),
        entry(2, 1, content(A, "b", Dot(1, 1, 1))),
    )
    fold_all(state, *start)
    assert state.tree.item(taken) is not None
    fold_all(state, create(3, 1, taken, "t", "t"), position=4)
    assert sorted(shown(state).values()) == ["a", "b", "t"]
    whole = MemoryState()
    fold_all(whole, *start, create(3, 1, taken, "t", "t"))
    assert list(walk(whole.tree)) == list(walk(state.tree))


def test_made_up_ids_cannot_make_suffixes_run_for_ever(state):
    """Whatever names and ids somebody makes up, every item has a name at last."""
    names = conflict_names(b"f", "D1", B)
    short, long, third = (text_of(next(names)) for _ in range(3))
    rival = NodeId(bytes.fromhex(third[-33:-1]))
    fold_all(
        state,
        create(1, 1, A, "f", "a"),
        create(1, 2, B, "f", "b"),
        create(1, 3, rival, "f", "r"),
        create(1, 4, C, short, "c"),
        create(1, 5, D, long, "d"),
        create(1, 6, node("E"), text_of(next(conflict_names(b"f", "D1", rival))), "e"),
    )
    assert sorted(shown(state).values()) == ["a", "b", "c", "d", "e", "r"]
    assert third not in shown(state)


def test_names_shown_are_what_stands_in_the_entries(state):
    """A name is kept to the byte, whatever form it has."""
    raw = "cafe\u0301".encode()
    fold_all(state, create(1, 1, A, raw, "a"))
    assert list(shown(state)) == [text_of(raw)]
