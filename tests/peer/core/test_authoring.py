"""What authoring writes: bases, needs, vectors, bodies, segments, batches, and what synced is afterwards."""

from __future__ import annotations

import pytest

from peer.core.authoring import author, split_acts
from peer.core.drafts import as_admitted
from peer.core.fold import fold, order_tail
from peer.core.memory_state import MemoryState, OverlayState
from peer.core.operations import Create, Edit, Move, Remove, Touch
from peer.core.tree import Content, Item, MemoryTree, find
from protocol import limits
from protocol.codec import encode
from protocol.entries import (
    ContentValue,
    DetachValue,
    Kind,
    PlaceValue,
    RemovalValue,
    RowSpan,
    SegmentKey,
    check_header,
    check_payload,
)
from protocol.errors import LocalProtocolError
from protocol.ids import ROOT, ChunkId, Dot, copy_id
from tests.peer.core.devices import DIRECTORY, file_of, walk
from tests.peer.core.entries import batch_entry, content, create, detached, entry, node, place, removal, shown

A, B, C, D = (node(letter) for letter in "ABCD")


class Desk:
    """A device with number 9 that holds what some entries say."""

    def __init__(self, *entries, synced=True):
        self.state = MemoryState()
        fold(self.state, entries, position=1)
        self.synced = MemoryTree()
        self.seq = 1
        self.drawn = 0
        if synced:
            self.apply()

    def apply(self):
        self.synced = MemoryTree({item.id: item for item in walk(self.state.tree)})

    def item(self, path):
        found = find(self.synced, path)
        assert found is not None, path
        return found

    def entropy(self, count):
        self.drawn += 1
        return bytes([self.drawn]) * count

    def author(self, *acts, contents=(), segments=()):
        return author(
            acts,
            synced=self.synced,
            state=self.state,
            device=9,
            seq=self.seq,
            contents=dict(contents),
            entropy=self.entropy,
            segments=segments,
            label="Nine",
        )

    def record(self, draft, position=1000):
        """Fold the draft and take over its items; the disk and the fold must agree."""
        made = [as_admitted(each, device=9, label="Nine") for each in draft.entries]
        for each in made:
            check_payload(each.header, each.payload)
        fold(self.state, made, position=position)
        self.seq += len(made)
        for id in draft.dropped:
            self.synced.drop(id)
        for item in draft.synced:
            self.synced.put(item)
        assert list(walk(self.synced)) == list(walk(self.state.tree))


def values(draft):
    return [value for each in draft.entries for value in each.values]


def bases(draft):
    return [change.base for each in draft.entries for change in each.changes]


def conflict():
    """Return a desk where A holds the value of device 1 and a copy by device 2."""
    return Desk(
        create(1, 1, A, "f", "v"),
        entry(1, 2, content(A, "a", Dot(1, 1, 1))),
        entry(2, 1, content(A, "b", Dot(1, 1, 1))),
    )


# --- What is written


def test_an_edit_names_what_the_disk_held():
    """Its base are the dots shown at the path, not those of the copy beside it; its vector covers the base's."""
    desk = conflict()
    draft = desk.author(Edit(desk.item("f"), file_of("c")))
    (made,) = draft.entries
    assert made.changes[0].base == (Dot(1, 2, 0),)
    assert made.changes[0].vector == ((1, 2), (9, 1))
    assert made.needs == (Dot(1, 1, 0), Dot(1, 2, 0))
    desk.record(draft)
    assert shown(desk.state)["f"] == "c"


@pytest.mark.parametrize("what", ["edit", "move"])
def test_a_copy_of_several_values_stays_the_item_that_it_is(what):
    """As in the history 8000407: its file on the disk has the item's id, and would count as another one."""
    desk = Desk(
        create(1, 1, A, "f", "v"),
        entry(1, 2, content(A, "a", Dot(1, 1, 1))),
        entry(3, 1, content(A, "b", Dot(1, 1, 1))),
        entry(2, 1, content(A, "b", Dot(1, 1, 1))),
    )
    [copy] = [item for item in walk(desk.synced) if item.name != "f"]
    assert (copy.id, copy.members[0].content) == (copy_id(A, Dot(3, 1, 0)), (Dot(2, 1, 0), Dot(3, 1, 0)))
    act = Edit(copy, file_of("c")) if what == "edit" else Move(copy, ROOT, "g")
    draft = desk.author(act)
    assert [item.id for item in draft.synced] == [copy.id]
    assert draft.dropped == ()
    desk.record(draft)


def test_a_base_comes_from_the_disk_not_from_what_was_received():
    """Who edits what he has not seen replaced writes beside it, and both show."""
    desk = Desk(create(1, 1, A, "f", "v"))
    fold(desk.state, [entry(1, 2, content(A, "a", Dot(1, 1, 1)))], position=2)
    draft = desk.author(Edit(desk.item("f"), file_of("c")))
    assert bases(draft) == [(Dot(1, 1, 1),)]
    fold(desk.state, [as_admitted(draft.entries[0], device=9, label="Nine")], position=3)
    assert sorted(shown(desk.state).values()) == ["a", "c"]
    assert [item.members[0].content for item in draft.synced] == [(Dot(9, 1, 0),)]


def test_a_place_needs_every_directory_above_it():
    """Not only its parent: the places of all directories above, as the disk held them."""
    desk = Desk(
        create(1, 1, A, "a", "DIR"),
        create(1, 2, B, "b", "DIR", A),
        create(1, 3, C, "c", "DIR", B),
        create(2, 1, D, "d", "d"),
    )
    draft = desk.author(Move(desk.item("d"), C, "d"))
    assert draft.entries[0].needs == (Dot(1, 1, 0), Dot(1, 2, 0), Dot(1, 3, 0), Dot(2, 1, 0))


def test_a_touch_keeps_the_body_and_the_rows():
    """Only the attributes are new; the rows are those of the content that it touches, in this entry's own table."""
    keys = tuple(SegmentKey(ChunkId(bytes([i]) * 32), bytes([i]) * 32, 4) for i in range(2))
    value = ContentValue(Kind.FILE, None, b"h" * 32, 9, 0, False, b"", "c1", (RowSpan(1, 0, 3),))
    desk = Desk()
    draft = desk.author(
        Create(Item(A, ROOT, "f", Content(Kind.FILE, b"h" * 32, 9))), contents={A: value}, segments=keys
    )
    assert draft.entries[0].segments == (keys[1],)
    assert isinstance(draft.entries[0].values[1], ContentValue)
    assert draft.entries[0].values[1].spans == (RowSpan(0, 0, 3),)
    desk.record(draft)
    touched = desk.author(Touch(desk.item("f"), Content(Kind.FILE, b"h" * 32, 9, 77, True)))
    (made,) = values(touched)
    assert (made.body, made.mtime_ns, made.executable, made.chunker) == (Dot(9, 1, 1), 77, True, "c1")
    assert (made.spans, touched.entries[0].segments) == ((RowSpan(0, 0, 3),), (keys[1],))
    desk.record(touched)


def test_writing_the_same_bytes_is_a_touch():
    """An edit whose bytes are those of its base keeps the body, so that it beats no removal."""
    desk = Desk(create(1, 1, A, "f", "v"))
    (made,) = values(desk.author(Edit(desk.item("f"), file_of("v", 5))))
    assert made.body == Dot(1, 1, 1)


def test_a_content_that_was_not_prepared_is_refused():
    """A file with bytes cannot be recorded without knowing where they lie."""
    desk = Desk()
    with pytest.raises(LocalProtocolError):
        desk.author(Create(Item(A, ROOT, "f", Content(Kind.FILE, b"h" * 32, 9))))


def test_a_removal_names_bodies_and_last_places():
    """One id for the whole subtree, another for another act; each node with the bodies that showed there."""
    desk = Desk(
        create(1, 1, A, "a", "DIR"), create(1, 2, B, "f", "b", A), create(1, 3, C, "g", "c"),
        entry(1, 4, content(B, "b", Dot(1, 2, 1), body=Dot(1, 2, 1), mtime_ns=5)),
    )  # fmt: skip
    subtree = (desk.item("a"), desk.item("a/f"))
    draft = desk.author(Remove(subtree[0], subtree), Remove(desk.item("g"), (desk.item("g"),)))
    one, two, three = values(draft)
    assert (one.removed, one.parent, one.name) == ((Dot(1, 1, 1),), ROOT, b"a")
    assert (two.removed, two.parent, two.name) == ((Dot(1, 2, 1),), A, b"f")
    assert one.removal == two.removal != three.removal
    desk.record(draft)
    assert draft.dropped == (A, B, C)
    assert shown(desk.state) == {}


def test_a_removal_below_a_merged_directory_names_the_node_it_stood_in():
    """So that a move of that node, and of no other behind the directory, cancels it."""
    desk = Desk(create(1, 1, A, "x", "DIR"), create(2, 1, B, "x", "DIR"), create(2, 2, C, "f", "c", B))
    assert desk.item("x/f").parent == A
    draft = desk.author(Remove(desk.item("x"), (desk.item("x"), desk.item("x/f"))))
    places = {change.node: value.parent for change, value in zip(draft.entries[0].changes, values(draft), strict=True)}
    assert places == {A: ROOT, B: ROOT, C: B}


# --- Copies and merged paths


def test_a_copy_is_split_off_before_it_is_changed():
    """An edit of a copy detaches it, keeps it where it shows, and writes to the node that it becomes."""
    desk = conflict()
    copy = next(item for item in walk(desk.synced) if item.name != "f")
    draft = desk.author(Edit(copy, file_of("c")))
    detach, keep, written = values(draft)
    assert detach == DetachValue(Dot(2, 1, 0))
    assert keep == PlaceValue(ROOT, copy.name.encode(), weak=True)
    assert bases(draft) == [(Dot(1, 1, 0),), (), (Dot(2, 1, 0),)]
    assert {change.node for change in draft.entries[0].changes} == {A, copy_id(A, Dot(2, 1, 0))}
    assert draft.synced[0].id == copy.id == copy_id(A, Dot(2, 1, 0))
    assert written.body is None
    desk.record(draft)


def test_a_copy_that_is_moved_and_edited_is_split_off_once():
    """One detach, one place, one content."""
    desk = conflict()
    copy = next(item for item in walk(desk.synced) if item.name != "f")
    draft = desk.author(Edit(copy, file_of("c")), Move(copy, ROOT, "g"))
    assert [type(value) for value in values(draft)] == [DetachValue, PlaceValue, ContentValue]
    desk.record(draft)
    assert shown(desk.state) == {"f": "a", "g": "c"}
    draft = conflict().author(Move(copy, ROOT, "g"), Edit(copy, file_of("c")))
    assert [value for value in values(draft) if isinstance(value, PlaceValue)] == [PlaceValue(ROOT, b"g", weak=False)]


def test_removing_the_main_file_keeps_the_copy_where_it_shows():
    """The copy is detached at its name in the same entry, and synced knows."""
    desk = conflict()
    names = [item.name for item in walk(desk.synced)]
    draft = desk.author(Remove(desk.item("f"), (desk.item("f"),)))
    assert [type(value) for value in values(draft)] == [RemovalValue, DetachValue, PlaceValue]
    desk.record(draft)
    assert [item.name for item in walk(desk.synced)] == names[1:]


def test_removing_main_and_copy_together_needs_no_detach():
    """What goes with its node is named by the node's removal."""
    desk = Desk(
        create(1, 1, B, "d", "DIR"),
        create(1, 2, A, "f", "v", B),
        entry(1, 3, content(A, "a", Dot(1, 2, 1))),
        entry(2, 1, content(A, "b", Dot(1, 2, 1))),
    )
    draft = desk.author(Remove(desk.item("d"), (desk.item("d"), *walk(desk.synced, B))))
    assert [type(value) for value in values(draft)] == [RemovalValue, RemovalValue]
    assert values(draft)[1].removed == (Dot(1, 3, 0), Dot(2, 1, 0))
    desk.record(draft)
    assert shown(desk.state) == {}


def test_removing_a_copy_names_it_alone():
    """The copy is detached and removed; the main file is not touched."""
    desk = conflict()
    copy = next(item for item in walk(desk.synced) if item.name != "f")
    draft = desk.author(Remove(copy, (copy,)))
    detach, gone = values(draft)
    assert detach == DetachValue(Dot(2, 1, 0))
    assert (gone.removed, gone.parent, gone.name) == ((Dot(2, 1, 0),), ROOT, copy.name.encode())
    desk.record(draft)
    assert shown(desk.state) == {"f": "a"}


def test_a_removal_names_the_place_that_the_disk_showed():
    """Not the one that was merely received; the move that the user has not seen wins."""
    desk = Desk(create(1, 1, A, "f", "v"), create(1, 2, B, "d", "DIR"))
    fold(desk.state, [entry(2, 1, place(A, B, "g", Dot(1, 1, 0)))], position=3)
    draft = desk.author(Remove(desk.item("f"), (desk.item("f"),)))
    (gone,) = values(draft)
    assert (gone.parent, gone.name) == (ROOT, b"f")
    fold(desk.state, [as_admitted(draft.entries[0], device=9, label="Nine")], position=4)
    assert shown(desk.state) == {"d": "DIR", "d/g": "v"}


def test_a_path_of_a_file_and_a_copy_stays_one_path():
    """Another node's copy with the bytes and the name of a file is one path with it; an edit writes both, and keeps both."""
    desk = Desk(
        create(1, 1, A, "f", "v"),
        entry(1, 2, content(A, "a", Dot(1, 1, 1))),
        entry(2, 1, content(A, "b", Dot(1, 1, 1))),
        create(3, 1, B, "f", "b"),
    )
    item = next(item for item in walk(desk.synced) if len(item.members) == 2)
    draft = desk.author(Edit(item, file_of("c")))
    assert [type(value) for value in values(draft)] == [DetachValue, PlaceValue, ContentValue, PlaceValue, ContentValue]
    desk.record(draft)
    assert sorted(shown(desk.state).values()) == ["a", "c"]
    moved = desk.author(Move(next(each for each in walk(desk.synced) if len(each.members) == 2), ROOT, "g"))
    desk.record(moved, 1001)
    assert shown(desk.state) == {"f": "a", "g": "c"}


def test_a_merged_file_is_changed_for_every_node():
    """Edit, touch and move write one change for each node behind the path; the id stays."""
    desk = Desk(create(1, 1, A, "f", "s"), create(2, 1, B, "f", "s"))
    item = desk.item("f")
    assert len(item.members) == 2
    for act in (Edit(item, file_of("c")), Move(item, ROOT, "g")):
        draft = desk.author(act)
        assert [change.node for change in draft.entries[0].changes] == [A, B]
        assert [each.id for each in draft.synced] == [item.id]
        desk.record(draft, 1000 + desk.seq)
        desk.seq += 1
        item = find(desk.synced, "f") or item
    assert shown(desk.state) == {"g": "c"}


# --- Several acts


def test_acts_of_one_operation_are_judged_together():
    """Two files that change names, a directory that goes into what was in it, a file in a directory made by the same."""
    desk = Desk(
        create(1, 1, A, "a", "DIR"), create(1, 2, B, "b", "DIR", A), create(1, 3, C, "f", "c"), create(1, 4, D, "g", "d"),
    )  # fmt: skip
    made, file = node("made"), node("file")
    draft = desk.author(
        Move(desk.item("f"), ROOT, "g"),
        Move(desk.item("g"), made, "f"),
        Move(desk.item("a/b"), ROOT, "b"),
        Move(desk.item("a"), B, "a"),
        Create(Item(made, ROOT, "new", DIRECTORY)),
        Create(Item(file, made, "in it", file_of("n"))),
    )
    assert len(draft.entries) == 1
    desk.record(draft)
    assert shown(desk.state) == {"b": "DIR", "b/a": "DIR", "g": "c", "new": "DIR", "new/f": "d", "new/in it": "n"}


def test_a_large_operation_is_a_batch():
    """Entries within the limits, each needing the one before; it shows on others when complete, and later acts need all."""
    desk = Desk(create(1, 1, A, "a", "DIR"))
    count = limits.ENTRY_CHANGES_MAX
    acts = [Create(Item(node(f"n{i}"), A, f"f{i}", file_of(f"t{i}"))) for i in range(count)]
    draft = desk.author(*acts)
    assert [each.batch.index for each in draft.entries] == [0, 1]
    assert {(each.batch.id, each.batch.count) for each in draft.entries} == {(bytes([1]) * 16, 2)}
    assert [len(each.changes) for each in draft.entries] == [count, count]
    assert draft.entries[1].needs == (Dot(1, 1, 0), Dot(9, 1, 0))
    made = [batch_entry(each, 9) for each in draft.entries]
    for each in made:
        check_header(each.header)
        assert len(encode(each.header)) <= limits.ENTRY_HEADER_BYTES_MAX
        assert len(encode(each.payload)) <= limits.ENTRY_PAYLOAD_BYTES_MAX
    desk.record(draft)
    later = desk.author(Edit(desk.item("a/f3"), file_of("x")))
    assert Dot(9, 2, 0) in later.entries[0].needs


def test_an_entry_stays_below_its_bytes():
    """Long names and many rows close an entry before its payload is too large to be sealed."""
    desk = Desk()
    keys = tuple(SegmentKey(ChunkId(i.to_bytes(32, "big")), bytes(32), 9) for i in range(6000))
    contents = {
        node(f"n{i}"): ContentValue(
            Kind.FILE, None, bytes([i]) * 32, 9, 0, False, b"", "c1", tuple(RowSpan(s, 0, 9) for s in range(i, 6000, 9))
        )
        for i in range(60)
    }
    acts = [
        Create(Item(id, ROOT, f"{id.hex()}{'x' * 200}", Content(Kind.FILE, bytes([i]) * 32, 9)))
        for i, id in enumerate(contents)
    ]
    draft = desk.author(*acts, contents=contents, segments=keys)
    assert len(draft.entries) > 1
    for each in draft.entries:
        made = batch_entry(each, 9)
        check_payload(made.header, made.payload)
        assert len(encode(made.header)) <= limits.ENTRY_HEADER_BYTES_MAX
        assert len(encode(made.payload)) <= limits.ENTRY_PAYLOAD_BYTES_MAX
    desk.record(draft)
    for id, value in contents.items():
        found = desk.state.content(id, desk.item(f"{id.hex()}{'x' * 200}").members[0].content[0])
        assert found is not None
        assert [found.segments[span.segment] for span in found.value.spans] == [keys[s.segment] for s in value.spans]


def test_what_must_go_together_comes_first():
    """Moves and removals with the directories made for them, then the rest in its order."""
    desk = Desk(create(1, 1, A, "f", "a"), create(1, 2, B, "g", "b"), create(1, 3, C, "h", "c"))
    outer, inner, other = (Item(node(name), ROOT, name, DIRECTORY) for name in ("outer", "inner", "other"))
    inner = Item(inner.id, outer.id, "inner", DIRECTORY)
    acts = (
        Create(other),
        Edit(desk.item("h"), file_of("x")),
        Create(outer),
        Create(inner),
        Move(desk.item("f"), inner.id, "f"),
        Edit(desk.item("f"), file_of("y")),
        Remove(desk.item("g"), (desk.item("g"),)),
    )
    first, rest = split_acts(acts)
    assert first == acts[2:]
    assert rest == acts[:2]
    assert split_acts(rest) == ((), rest)


# --- The author's own fold


def test_a_moved_copy_brings_nothing_back():
    """A move of what was a copy beats removals by its old name; what this disk has seen go is replaced, not revived."""
    copied = copy_id(A, Dot(1, 2, 0))
    desk = Desk(
        create(1, 1, A, "f", "v"),
        entry(2, 1, content(A, "b", Dot(1, 1, 1))),
        entry(1, 2, content(A, "a", Dot(1, 1, 1))),
        entry(
            2,
            2,
            detached(A, Dot(1, 2, 0), Dot(1, 1, 0)),
            place(copied, ROOT, "copy", weak=True),
            content(copied, "c", Dot(1, 2, 0)),
        ),
        entry(1, 3, content(A, "gone", Dot(1, 2, 0))),
        entry(1, 4, removal(A, ROOT, "f", [Dot(1, 3, 0)], Dot(1, 1, 0))),
    )
    assert shown(desk.state) == {"f": "b", "copy": "c"}
    draft = desk.author(Move(desk.item("copy"), ROOT, "g"))
    assert bases(draft) == [(Dot(2, 2, 1),), (Dot(1, 3, 0), Dot(2, 2, 2))]
    desk.record(draft)
    assert shown(desk.state) == {"f": "b", "g": "c"}


def test_nothing_to_do_is_no_entry():
    """No acts, no entries, nothing to put down."""
    draft = Desk().author()
    assert (draft.entries, draft.synced, draft.dropped) == ((), (), ())


def test_the_state_is_only_read():
    """Authoring tries its entry on an overlay."""
    desk = conflict()
    before = list(walk(desk.state.tree))
    desk.author(Remove(desk.item("f"), (desk.item("f"),)))
    assert list(walk(desk.state.tree)) == before
    assert desk.state.entries.get((9, 1)) is None


def test_an_own_tail_is_ordered_by_its_needs():
    """What a device wrote offline is taken in an order in which each entry has what it builds on."""
    desk = Desk(create(1, 1, A, "a", "DIR"))
    ordered, drafts = OverlayState(desk.state), []
    for act in (Create(Item(B, A, "b", DIRECTORY)), Create(Item(C, B, "c", file_of("c")))):
        draft = desk.author(act)
        drafts.append(batch_entry(draft.entries[0], 9))
        desk.record(draft, 10 + desk.seq)
    tail = order_tail({entry(1, 1).hash}, reversed(drafts))
    assert [each.header.seq for each in tail] == [1, 2]
    fold(ordered, tail, position=5)
