"""What one pass does, as tables of small trees. ``{id: (path, content)}``; the disk is played by dicts."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from peer.core.operations import Adopt, Create, Delete, Edit, Plan, Remove, Rename, Replace, SetAttributes
from peer.core.planner import DECISIONS, Decision, Side, is_settled, missing_copies, plan, side_of
from peer.core.tree import Item, Member, MemoryTree
from protocol.ids import ROOT, Dot, copy_id
from tests.peer.core.trees import DIRECTORY, Device, bare, file, link, names, node, show, tree, with_dots

# --- The table


def test_each_pair_of_sides_has_exactly_one_row():
    here = Item(node("x"), ROOT, "x", file("1"))
    moved = Item(node("x"), ROOT, "y", file("1"))
    pairs = {
        (side_of(local, synced), side_of(remote, synced))
        for local, synced, remote in itertools.product((None, here, moved), (None, here), (None, here, moved))
    }
    assert DECISIONS.keys() == pairs
    assert set(DECISIONS.values()) == set(Decision)
    assert {side for pair in pairs for side in pair} == set(Side)


def trees(local, synced, remote) -> dict[str, Any]:
    return {"local": tree(local, dots=None), "synced": tree(synced), "remote": tree(remote)}


def plan_of(local, synced, remote, **options) -> Plan:
    three = trees(local, synced, remote)
    dirty = {item.id for each in three.values() for item in each.items()}
    return plan(**three, dirty=dirty, **options)


V0, A, B = ("f", "v0"), ("f", "aa"), ("f", "bbb")
PAIRS = [
    ("in no tree: nothing", None, None, None, []),
    ("new in the folder: it comes here", None, None, V0, ["Place f"]),
    ("new here: an act", V0, None, None, ["Create f"]),
    ("recorded by nobody, equal on both sides: recorded", V0, None, V0, ["Adopt f"]),
    ("recorded by nobody, bytes differ: an act, the fold keeps both", A, None, V0, ["Create f"]),
    ("the same everywhere: nothing", V0, V0, V0, []),
    ("edited in the folder: replaced here", V0, V0, B, ["Replace f"]),
    ("renamed in the folder: renamed here", V0, V0, ("g", "v0"), ["Rename f -> g"]),
    ("renamed and edited in the folder: both here", V0, V0, ("g", "b"), ["Rename f -> g", "Replace g"]),
    ("removed in the folder: removed here", V0, V0, None, ["Delete f"]),
    ("edited here: an act", A, V0, V0, ["Edit f"]),
    ("renamed here: an act", ("g", "v0"), V0, V0, ["Move f -> g"]),
    ("renamed and edited here: two acts", ("g", "a"), V0, V0, ["Move f -> g", "Edit f"]),
    ("edited alike on both sides: recorded", A, V0, A, ["Adopt f"]),
    ("edited differently: an act, the fold keeps both", A, V0, B, ["Edit f"]),
    ("renamed here, edited there: an act first", ("g", "v0"), V0, B, ["Move f -> g"]),
    ("edited here, removed there: an act, the edit wins", A, V0, None, ["Edit f"]),
    ("removed here: an act", None, V0, V0, ["Remove f"]),
    ("removed here, edited there: an act, the edit wins", None, V0, B, ["Remove f"]),
    ("removed on both sides: forgotten", None, V0, None, ["Forget f"]),
]


@pytest.mark.parametrize(("local", "synced", "remote", "expected"), [p[1:] for p in PAIRS], ids=[p[0] for p in PAIRS])
def test_pairs(local, synced, remote, expected):
    made = plan_of(*({} if each is None else {"f": each} for each in (local, synced, remote)))
    assert names(made.acts) + names(made.steps) == expected


def test_the_pairs_above_reach_every_row():
    def item(spec):
        return None if spec is None else tree({"f": spec}).item(node("f"))

    reached = {(side_of(item(p[1]), item(p[2])), side_of(item(p[3]), item(p[2]))) for p in PAIRS}
    assert reached == DECISIONS.keys()


# --- Attributes, links, dots


def test_attributes_alone_are_a_touch_or_are_set():
    old, new = ("f", file("x", mtime=1)), ("f", file("x", mtime=2, executable=True))
    assert names(plan_of({"f": new}, {"f": old}, {"f": old}).acts) == ["Touch f"]
    assert names(plan_of({"f": old}, {"f": old}, {"f": new}).steps) == ["SetAttributes f"]


def test_times_of_directories_and_links_are_nobodys_act():
    three = trees({"d": ("d", "/"), "l": ("l", "->x")}, {"d": ("d", "/"), "l": ("l", "->x")}, {})
    for name, kind in (("d", DIRECTORY), ("l", link("x"))):
        touched = Item(node(name), ROOT, name, type(kind)(kind.kind, kind.hash, kind.size, 99, target=kind.target))
        assert side_of(touched, three["synced"].item(node(name))) is Side.SAME


@pytest.mark.parametrize(("old", "new"), [("x", "->y"), ("->y", "x"), ("->y", "->z")])
def test_a_file_and_a_link_take_each_others_place_as_an_edit(old, new):
    assert names(plan_of({"f": ("f", new)}, {"f": ("f", old)}, {"f": ("f", old)}).acts) == ["Edit f"]
    assert names(plan_of({"f": ("f", old)}, {"f": ("f", old)}, {"f": ("f", new)}).steps) == ["Replace f"]


def test_newer_dots_of_what_is_here_are_recorded():
    three = trees({"f": V0}, {"f": V0}, {"f": V0})
    newer = with_dots(bare(three["remote"].item(node("f"))), 7)
    three["remote"].put(newer)
    assert not is_settled(node("f"), **three)
    assert plan(**three, dirty={node("f")}).steps == (Adopt(newer),)
    three["synced"].put(newer)
    assert is_settled(node("f"), **three)


def test_a_rename_alone_leaves_the_dots_of_the_content_that_is_still_here():
    three = trees({"f": V0}, {"f": V0}, {"f": ("g", "new")})
    want = with_dots(bare(three["remote"].item(node("f"))), 7)
    three["remote"].put(want)
    rename, replace = plan(**three, dirty={node("f")}).steps
    assert isinstance(rename, Rename)
    assert rename.item.members == (Member(node("f"), None, (Dot(1, 1, 0),), (Dot(1, 7, 1),)),)
    assert replace == Replace(rename.item, want)


# --- What one side did, seen on both. (before, after, acts); the steps must lead from before to after.

D = "/"
CHANGES = [
    ("25 rename", {"f": ("f", "1")}, {"f": ("g", "1")}, ["Move f -> g"]),
    (
        "30 two files swap their names",
        {"f": ("f", "1"), "g": ("g", "2")},
        {"f": ("g", "1"), "g": ("f", "2")},
        ["Move g -> f", "Move f -> g"],
    ),
    (
        "32 logs rotate",
        {"a": ("log", "1"), "b": ("log.1", "2"), "c": ("log.2", "3")},
        {"n": ("log", "4"), "a": ("log.1", "1"), "b": ("log.2", "2")},
        ["Create log", "Move log -> log.1", "Move log.1 -> log.2", "Remove log.2"],
    ),
    (
        "33 a file moves over another",
        {"f": ("f", "1"), "g": ("g", "2")},
        {"f": ("g", "1")},
        ["Move f -> g", "Remove g"],
    ),
    (
        "37 a directory moves with all in it",
        {"D": ("D", D), "f": ("D/f", "1"), "e": ("D/e", D), "g": ("D/e/g", "2")},
        {"D": ("E", D), "f": ("E/f", "1"), "e": ("E/e", D), "g": ("E/e/g", "2")},
        ["Move D -> E"],
    ),
    (
        "42 directories move into each other's depths",
        {"A": ("A", D), "B": ("B", D), "x": ("B/x", D), "y": ("A/y", D)},
        {"B": ("B", D), "x": ("B/x", D), "A": ("B/x/A", D), "y": ("B/y", D)},
        ["Move y -> y", "Move A -> A"],
    ),
    (
        "43 A/B is turned into B/A",
        {"A": ("A", D), "B": ("A/B", D), "f": ("A/B/f", "1")},
        {"B": ("B", D), "A": ("B/A", D), "f": ("B/f", "1")},
        ["Move B -> B", "Move A -> A"],
    ),
    (
        "43 A/A is turned inside out",
        {"A": ("A", D), "B": ("A/A", D), "f": ("A/A/f", "1"), "g": ("A/g", "2")},
        {"B": ("A", D), "A": ("A/A", D), "f": ("A/f", "1"), "g": ("A/A/g", "2")},
        ["Move A -> A", "Move A -> A"],
    ),
    (
        "44 mkdir B; mv A/f B; rm A",
        {"A": ("A", D), "f": ("A/f", "1")},
        {"B": ("B", D), "f": ("B/f", "1")},
        ["Create B", "Move f -> f", "Remove A"],
    ),
    (
        "45 a file moves out, then its directory goes",
        {"D": ("D", D), "e": ("D/e", D), "f": ("D/e/f", "1"), "g": ("D/e/g", "2")},
        {"f": ("f", "1x")},
        ["Move f -> f", "Edit f", "Remove D e g"],
    ),
    (
        "47 D becomes E, and a new D gets a file back",
        {"D": ("D", D), "f": ("D/f", "1"), "g": ("D/g", "2")},
        {"D": ("E", D), "N": ("D", D), "f": ("D/f", "1"), "g": ("E/g", "2")},
        ["Create D", "Move D -> E", "Move f -> f"],
    ),
    (
        "47 what moved out of a directory was emptied since",
        {"A": ("A", D), "D": ("A/D", D), "f": ("A/D/f", "1"), "g": ("A/g", "1")},
        {"D": ("D", D)},
        ["Move D -> D", "Remove A g", "Remove f"],
    ),
    (
        "48 rename, and a new file at the old name",
        {"f": ("f", "1")},
        {"f": ("g", "1"), "n": ("f", "2")},
        ["Create f", "Move f -> g"],
    ),
    (
        "55 nothing can move first",
        {"a": ("1", "a"), "b": ("2", "b"), "c": ("3", "c")},
        {"a": ("2", "a"), "b": ("3", "b"), "c": ("1", "c")},
        ["Move 3 -> 1", "Move 1 -> 2", "Move 2 -> 3"],
    ),
    ("62 an empty directory", {}, {"D": ("D", D)}, ["Create D"]),
    (
        "a tree comes, parents first",
        {},
        {"D": ("D", D), "E": ("D/E", D), "f": ("D/E/f", "1"), "g": ("g", "2")},
        ["Create D", "Create g", "Create E", "Create f"],
    ),
    (
        "a tree goes, as one act",
        {"D": ("D", D), "E": ("D/E", D), "f": ("D/E/f", "1"), "g": ("D/g", "2")},
        {},
        ["Remove D E f g"],
    ),
    (
        "63 a directory in the place of a file",
        {"f": ("x", "1")},
        {"D": ("x", D), "g": ("x/g", "2")},
        ["Create x", "Create g", "Remove x"],
    ),
    (
        "64 a file in the place of a directory",
        {"D": ("x", D), "g": ("x/g", "2")},
        {"f": ("x", "1")},
        ["Create x", "Remove x g"],
    ),
    ("67 a link in the place of a file", {"f": ("f", "1")}, {"f": ("f", "->x")}, ["Edit f"]),
]


@pytest.mark.parametrize(("before", "after", "acts"), [c[1:] for c in CHANGES], ids=[c[0] for c in CHANGES])
def test_changes(before, after, acts):
    there = plan_of(after, before, before)
    assert names(there.acts) == acts
    assert there.steps == ()
    here = Device(**trees(before, before, after))
    assert here.settle() == 1
    assert show(here.local) == show(here.synced) == show(here.remote) == show(tree(after))


def test_a_rename_costs_one_step_whatever_lies_in_it():
    device = Device(**trees(CHANGES[4][1], CHANGES[4][1], CHANGES[4][2]))
    assert names(device.plan().steps) == ["Rename D -> E"]


def test_a_swap_goes_through_aside():
    swap = plan_of(CHANGES[1][1], CHANGES[1][1], CHANGES[1][2])
    assert names(swap.steps) == ["Rename f -> g aside", "Rename g -> f", "Rename f -> g back"]


def test_of_a_longer_circle_only_one_goes_aside():
    count = 40
    before = {f"n{i}": (f"p{i:02}", str(i)) for i in range(count)}
    after = {f"n{i}": (f"p{(i + 1) % count:02}", str(i)) for i in range(count)}
    device = Device(**trees(before, before, after))
    assert sum(" aside" in step for step in names(device.plan().steps)) == 1
    device.settle()
    assert show(device.local) == show(tree(after))


def test_a_chain_of_renames_needs_no_aside():
    before = {f"n{i}": (f"log.{i}", str(i)) for i in range(30)}
    after = {f"n{i}": (f"log.{i + 1}", str(i)) for i in range(30)}
    steps = plan_of(before, before, after).steps
    assert len(steps) == 30
    assert not any(" aside" in step for step in names(steps))


def test_long_chains_and_circles_do_not_recurse():
    count = 3_000
    before = {f"{i}": (f"p{i}", "x") for i in range(count)}
    for last in (count, 0):  # to a free name; round in a circle
        after = {f"{i}": (f"p{i + 1 if i + 1 < count else last}", "x") for i in range(count)}
        device = Device(**trees(before, before, after))
        device.settle()
        assert show(device.local) == show(tree(after))


def test_what_needs_bytes_comes_last():
    before = {"D": ("D", D), "f": ("D/f", "1"), "t": ("t", file("t")), "x": ("x", "0")}
    after = {"N": ("N", D), "D": ("N/D", D), "f": ("N/D/f", "2"), "g": ("N/g", "3"), "t": ("t", file("t", mtime=5))}
    assert names(plan_of(before, before, after).steps) == [
        "Place N",
        "Rename D -> D",
        "Delete x",
        "SetAttributes t",
        "Replace f",
        "Place g",
    ]


# --- Both sides


def test_a_directory_with_something_unsynced_in_it_stays():
    """59, 60: expected empty. The new file is an act; by it the fold brings the directory back."""
    before = {"D": ("D", D), "f": ("D/f", "1")}
    made = plan_of({**before, "n": ("D/n", "2")}, before, {})
    assert names(made.acts) == ["Create n"]
    assert names(made.steps) == ["Delete f"]


def test_a_name_that_is_taken_here_is_never_overwritten():
    """14: the user makes f while another f comes."""
    made = plan_of({"mine": ("f", "1")}, {}, {"theirs": ("f", "2")})
    assert names(made.acts) == ["Create f"]
    assert made.steps == ()


def test_renames_onto_a_taken_name_wait_all_along_the_chain():
    before = {"a": ("1", "a"), "b": ("2", "b")}
    after = {"a": ("2", "a"), "b": ("3", "b")}
    made = plan_of({**before, "n": ("3", "new")}, before, after)
    assert names(made.acts) == ["Create 3"]
    assert made.steps == ()


def test_no_directory_moves_into_itself_while_another_has_to_wait():
    """43 with a new file in the way: A must not move into B before B has left A."""
    before = {"A": ("A", D), "B": ("A/B", D)}
    after = {"B": ("B", D), "A": ("B/A", D)}
    made = plan_of({**before, "n": ("B", "new")}, before, after)
    assert names(made.acts) == ["Create B"]
    assert made.steps == ()


def test_a_new_directory_waits_for_those_above_it_too():
    """Else D could go into the new N while N still stands below D."""
    before = {"D": ("y", D), "C": ("y/x", D)}
    after = {"C": ("y", D), "N": ("y/x", D), "D": ("y/x/x", D)}
    device = Device(**trees(before, before, after))
    assert device.settle() == 1
    assert show(device.local) == show(tree(after))


def test_no_directory_moves_into_itself_while_one_high_above_has_to_wait():
    """G waits for its name; X may not go on before, though its own new parent P stays where it is."""
    before = {"X": ("X", D), "G": ("X/G", D), "P": ("X/G/P", D), "q": ("Z", "1")}
    after = {"G": ("Z", D), "P": ("Z/P", D), "X": ("Z/P/X", D), "q": ("q", "1")}
    device = Device(**trees(before, before, after))
    assert device.settle() == 1
    assert show(device.local) == show(tree(after))


def test_content_comes_also_where_a_rename_has_to_wait():
    made = plan_of({"f": ("f", "1"), "n": ("g", "n")}, {"f": ("f", "1")}, {"f": ("g", "2")})
    assert names(made.acts) == ["Create g"]
    (replace,) = made.steps
    assert isinstance(replace, Replace)
    assert (replace.item.name, replace.item.content) == ("f", file("2"))


def test_what_comes_into_a_removed_directory_waits_for_the_fold():
    """57: D removed here, D/n made there."""
    before = {"D": ("D", D), "f": ("D/f", "1")}
    made = plan_of({}, before, {**before, "n": ("D/n", "2")})
    assert names(made.acts) == ["Remove D f"]
    assert made.steps == ()


def test_a_directory_that_moved_here_still_takes_what_is_new_there():
    """36: here D -> E, there D/n."""
    made = plan_of({"D": ("E", D)}, {"D": ("D", D)}, {"D": ("D", D), "n": ("D/n", "1")})
    assert names(made.acts) == ["Move D -> E"]
    assert names(made.steps) == ["Place n"]


def test_what_both_removed_is_forgotten_and_what_only_one_removed_is_an_act():
    before = {"D": ("D", D), "f": ("D/f", "1"), "g": ("D/g", "2")}
    made = plan_of({}, before, {"D": ("D", D), "g": ("D/g", "2")})
    assert names(made.acts) == ["Remove D f g"]
    assert made.steps == ()


def test_a_removed_directory_whose_file_went_elsewhere_there():
    """The directory is gone on both sides; the file's removal is an act against its move."""
    before = {"D": ("D", D), "f": ("D/f", "1")}
    made = plan_of({}, before, {"f": ("f", "1")})
    assert names(made.acts) == ["Remove f"]
    assert names(made.steps) == ["Forget D"]


# --- Kinds from the folder that no device of ours would write under one id


@pytest.mark.parametrize(
    ("before", "after"),
    list(itertools.permutations([{"x": ("x", "1")}, {"x": ("x", D), "f": ("x/f", "2")}], 2)),
)
def test_a_node_that_becomes_a_directory_or_a_file(before, after):
    device = Device(**trees(before, before, after))
    device.settle()
    assert show(device.local) == show(tree(after))


def test_a_directory_becomes_a_file_only_when_nothing_of_its_children_stays():
    before = {"x": ("x", D), "f": ("x/f", "2")}
    made = plan_of({**before, "n": ("x/n", "3")}, before, {"x": ("x", "1")})
    assert names(made.acts) == ["Create n"]
    assert names(made.steps) == ["Delete f"]


def test_nothing_is_recorded_under_a_parent_that_is_not_recorded_yet():
    made = plan_of({"x": ("x", D), "f": ("x/f", "2")}, {"x": ("x", "1")}, {"x": ("x", "1")})
    assert names(made.acts) == ["Remove x"]


def test_a_parent_that_synced_has_lost_is_no_endless_way_up():
    """synced: H under F, which is gone there; here F stands under H."""
    synced = MemoryTree()
    synced.put(with_dots(Item(node("H"), node("F"), "h", DIRECTORY), 1))
    local = tree({"H": ("h", D), "F": ("h/f", D)}, dots=None)
    made = plan(local=local, synced=synced, remote=MemoryTree(), dirty={node("H"), node("F")})
    assert names(made.acts) == ["Move h -> h", "Create f"]


# --- One thing, two ids


def test_a_device_that_joins_adopts_what_is_there():
    mine = {"D1": ("D", D), "f1": ("D/f", "1"), "g1": ("D/g", "mine"), "n1": ("n", "only here"), "E1": ("D/E", D)}
    theirs = {
        "D2": ("D", D),
        "f2": ("D/f", "1"),
        "g2": ("D/g", "theirs"),
        "E2": ("D/E", D),
        "h2": ("D/E/h", "only there"),
    }
    device = Device(tree(mine, dots=None), MemoryTree(), tree(theirs))
    first = device.plan()
    assert sorted(names(first.steps)) == ["Rekey D1 -> D2", "Rekey E1 -> E2", "Rekey f1 -> f2"]
    assert first.acts == ()
    device.run(first)
    second = device.plan()
    assert names(second.acts) == ["Create n", "Create g"]
    assert names(second.steps) == ["Adopt D", "Adopt E", "Adopt f", "Place h"]
    assert second.acts[1] == Create(Item(node("g1"), node("D2"), "g", file("mine")))


def test_what_was_there_when_joining_takes_the_folders_times():
    device = Device(tree({"f1": ("f", file("1", mtime=5))}, dots=None), MemoryTree(), tree({"f2": ("f", "1")}))
    device.run(device.plan())
    (step,) = device.plan().steps
    assert isinstance(step, SetAttributes)
    device.run(device.plan())
    assert device.plan() == Plan((), ())


def test_twins_are_found_from_either_side():
    three = trees({"D1": ("D", D), "f1": ("D/f", "1")}, {}, {"D2": ("D", D), "f2": ("D/f", "1")})
    for dirty in (("D1", "f1"), ("D2", "f2", "D1"), ("f1",)):
        made = plan(**three, dirty={node(id) for id in dirty})
        assert "Rekey D1 -> D2" in names(made.steps)


def test_a_twin_here_is_found_from_the_folders_side_alone():
    three = trees({"D1": ("D", D)}, {}, {"D2": ("D", D)})
    assert names(plan(**three, dirty={node("D2")}).steps) == ["Rekey D1 -> D2"]


def merged(item: Item | None, *others: str) -> Item:
    assert item is not None
    more = tuple(Member(node(other), None, (Dot(2, 1, 0),), (Dot(2, 1, 1),)) for other in others)
    return Item(item.id, item.parent, item.name, item.content, (*more, *item.members))


def test_directories_of_one_name_become_one_item_and_nothing_moves_on_the_disk():
    """66: mine is now a member of theirs; its children hang on the new id."""
    before = {"mine": ("D", D), "f": ("D/f", "1")}
    device = Device(**trees(before, before, {"theirs": ("D", D), "f": ("D/f", "1")}))
    device.remote.put(merged(device.remote.item(node("theirs")), "mine"))
    assert names(device.plan().steps) == ["Rekey mine -> theirs"]
    device.run(device.plan())
    assert names(device.plan().steps) == ["Adopt D"]
    device.settle()
    assert show(device.local) == show(device.remote)


def test_a_merged_item_is_found_also_where_it_moved_and_changed():
    device = Device(**trees({"mine": ("f", "1")}, {"mine": ("f", "1")}, {"theirs": ("g", "2")}))
    device.remote.put(merged(device.remote.item(node("theirs")), "mine"))
    assert names(device.plan().steps) == ["Rekey mine -> theirs"]
    device.run(device.plan())
    assert names(device.plan().steps) == ["Rename f -> g", "Replace g"]


def test_what_is_to_stand_in_a_conflict_copy_is_displaced_once_that_stands():
    """107, and the history 5033000: until then it is nowhere else here, and its entry may still become void."""
    mine, theirs = Dot(2, 1, 0), Dot(3, 1, 0)
    three = trees({"f": ("f", "mine")}, {"f": ("f", "mine")}, {"f": ("f", "theirs")})

    def held(item: Item | None, dot: Dot, copy: Dot | None = None) -> Item:
        assert item is not None
        return Item(item.id, item.parent, item.name, item.content, (Member(node("f"), copy, (dot,), (Dot(1, 1, 0),)),))

    copy = Item(copy_id(node("f"), mine), ROOT, "f (conflict)", file("mine"))
    three["synced"].put(held(three["synced"].item(node("f")), mine))
    three["remote"].put(held(three["remote"].item(node("f")), theirs))
    three["remote"].put(held(copy, mine, mine))
    base, want = three["synced"].item(node("f")), three["remote"].item(node("f"))
    assert list(missing_copies(base, want, local=three["local"], remote=three["remote"])) == [held(copy, mine, mine)]
    assert names(plan(**three, dirty={node("f")}).steps) == ["Place f (conflict)"]
    assert plan(**three, dirty={node("f")}, busy={copy.id}).steps == ()
    three["local"].put(copy)
    three["synced"].put(held(copy, mine, mine))
    assert not list(missing_copies(base, want, local=three["local"], remote=three["remote"]))
    assert names(plan(**three, dirty={node("f")}).steps) == ["Replace f"]
    for each in ("local", "remote"):
        three[each].drop(node("f"))
    gone = plan(**three, dirty={node("f")})
    assert names(gone.acts) + names(gone.steps) == ["Forget f"], "a crash of a step, perhaps: the copy stays"


def test_a_directory_above_that_became_another_ones_is_found_though_only_what_is_in_it_is_planned():
    """As in the history 8000008: it was removed, and made anew, and all in it moved."""
    before = {"mine": ("D", D), "E": ("D/E", D), "f": ("D/E/f", "1")}
    for dirty in ({"f"}, {"E"}, {"f", "E"}):
        three = trees(before, before, {"theirs": ("D", D), "E": ("D/E", D), "f": ("D/E/f", "1")})
        three["remote"].put(merged(three["remote"].item(node("theirs")), "mine"))
        assert names(plan(**three, dirty={node(id) for id in dirty}).steps) == ["Rekey mine -> theirs"]
        waiting = plan(**three, dirty={node(id) for id in dirty}, busy={node("mine")})
        assert not any("mine" in name or "theirs" in name for name in names(waiting.steps))


@pytest.mark.parametrize("dirty", [("mine",), ("first",), ("first", "mine")])
def test_what_is_recorded_under_the_id_of_another_node_of_a_file_is_that_file(dirty):
    """A user edited it, and so its nodes fell apart: it is neither removed nor made anew."""
    three = trees({"mine": ("f", "2")}, {"first": ("f", "2")}, {"first": ("f", "2")})
    for name in ("synced", "remote"):
        three[name].put(merged(three[name].item(node("first")), "mine"))
    made = plan(**three, dirty={node(id) for id in dirty})
    assert (made.acts, names(made.steps)) == ((), ["Rekey mine -> first"])
    Device(**three).settle()


def test_a_member_of_another_kind_is_another_thing():
    device = Device(**trees({"mine": ("D", D)}, {"mine": ("D", D)}, {"theirs": ("f", "1")}))
    device.remote.put(merged(device.remote.item(node("theirs")), "mine"))
    assert names(device.plan().steps) == ["Delete D", "Place f"]


def test_a_merged_item_falls_apart():
    device = Device(**trees({"a": ("f", "1")}, {"a": ("f", "1")}, {"a": ("f", "1"), "b": ("g", "1")}))
    device.synced.put(merged(device.synced.item(node("a")), "b"))
    assert names(device.plan().steps) == ["Adopt f", "Place g"]


def test_an_edit_of_a_merged_file_keeps_its_base():
    device = Device(**trees({"mine": ("f", "new")}, {"mine": ("f", "1")}, {"theirs": ("f", "1")}))
    device.remote.put(merged(device.remote.item(node("theirs")), "mine"))
    base = device.synced.item(node("mine"))
    assert base is not None
    device.run(device.plan())
    (edit,) = device.plan().acts
    assert isinstance(edit, Edit)
    assert edit.base.id == node("theirs")
    assert edit.base.members == base.members


def test_two_items_that_were_apart_become_one():
    before = {"a": ("A", D), "f": ("A/f", "1"), "b": ("B", D), "g": ("B/g", "2")}
    device = Device(**trees(before, before, {"b": ("A", D), "f": ("A/f", "1"), "g": ("A/g", "2")}))
    device.remote.put(merged(device.remote.item(node("b")), "a"))
    device.settle()
    assert show(device.local) == show(device.remote)


def test_files_of_one_path_but_other_bytes_are_not_one():
    made = plan_of({"a": ("f", "1")}, {"a": ("f", "1")}, {"b": ("f", "2")})
    assert names(made.steps) == ["Delete f", "Place f"]


# --- Left alone


def ignoring(*ignored):
    return lambda path, is_directory: any(path == each or path.startswith(f"{each}/") for each in ignored)


def test_an_ignored_item_is_neither_removed_nor_changed_nor_brought_here():
    """90: the scan does not see it any more."""
    before = {"D": ("D", D), "f": ("D/f", "1"), "g": ("g", "1")}
    for remote in (before, {**before, "f": ("D/f", "2")}, {"g": ("g", "1")}, {**before, "n": ("D/n", "3")}):
        made = plan_of({"g": ("g", "1")}, before, remote, excluded=ignoring("D"))
        assert made == Plan((), ())


def test_a_directory_that_holds_something_ignored_stays():
    """59: only what is not ignored goes."""
    before = {"D": ("D", D), "f": ("D/f", "1"), "g": ("D/g", "1")}
    made = plan_of(before, before, {}, excluded=ignoring("D/f"))
    assert names(made.steps) == ["Delete g"]


def test_what_is_ignored_goes_with_its_directory():
    before = {"D": ("D", D), "f": ("D/f", "1")}
    assert names(plan_of({}, before, before, excluded=ignoring("D/f")).acts) == ["Remove D f"]


def test_a_file_that_leaves_an_ignored_name_is_moved():
    before = {"f": ("f", "1")}
    assert names(plan_of({"f": ("g", "1")}, before, before, excluded=ignoring("f")).acts) == ["Move f -> g"]


def test_new_files_at_an_ignored_path_are_no_acts():
    assert plan_of({"f": ("f", "1"), "D": ("D", D), "g": ("D/g", "1")}, {}, {}, excluded=ignoring("f", "D")) == Plan(
        (), ()
    )


def test_an_edit_here_is_an_act_though_the_folder_moved_the_file_to_an_ignored_name():
    made = plan_of({"f": ("f", "2")}, {"f": ("f", "1")}, {"f": ("x", "1")}, excluded=ignoring("x"))
    assert names(made.acts) == ["Edit f"]


def test_what_is_missing_without_proof_comes_back():
    """106, 115, or no longer ignored: forgotten, then placed."""
    before = {"D": ("D", D), "f": ("D/f", "1"), "g": ("g", "1")}
    device = Device(**trees({}, before, before))
    made = device.plan(mistrusted=lambda item: item.name != "g")
    assert names(made.acts) == ["Remove g"]
    assert names(made.steps) == ["Forget D", "Forget f"]
    device.run(made)
    device.remote.drop(node("g"))
    assert names(device.plan().steps) == ["Place D", "Place f"]


# --- The order and the cost


def test_nothing_is_done_about_what_depends_on_what_is_in_transfer():
    """A file that moves out of a removed directory into a new one stays while the new one cannot be made."""
    here = {"O": ("o", "/"), "f": ("o/f", "x")}
    there = {"P": ("p", "/"), "f": ("p/f", "x")}
    assert names(plan_of(here, here, there).steps) == ["Place p", "Rename f -> f", "Delete o"]
    assert plan_of(here, here, there, busy={node("P")}) == Plan((), ())
    assert names(plan_of(here, here, there, busy={node("O")}).steps) == ["Place p", "Rename f -> f"]


def test_an_act_of_what_is_in_transfer_waits():
    here, synced = {"f": ("f", "y"), "g": ("g", "y")}, {"f": ("f", "x"), "g": ("g", "x")}
    assert names(plan_of(here, synced, synced, busy={node("f")}).acts) == ["Edit g"]


@pytest.mark.parametrize(
    ("here", "expected"),
    [
        ({"D": ("f", D)}, ["Create f", "Remove f"]),
        ({"D": ("f", D), "f": ("g", "1"), "g": ("h", "2")}, ["Create f", "Move f -> g", "Move g -> h"]),
    ],
    ids=["gone", "a chain"],
)
def test_who_takes_a_name_is_told_together_with_who_gave_it_up(here, expected):
    """Told alone, a directory would stand beside the file whose place it took, under a name that nobody gave it."""
    before = {"f": ("f", "1"), "g": ("g", "2")} if len(here) > 1 else {"f": ("f", "1")}
    made = plan(**trees(here, before, before), dirty=[node("D")])
    assert names(made.acts) == expected


def test_the_same_trees_give_the_same_plan():
    before, after = CHANGES[2][1], CHANGES[2][2]
    three = trees(before, before, after)
    ids = [item.id for each in three.values() for item in each.items()]
    plans = {repr(plan(**three, dirty=order)) for order in itertools.permutations(sorted(set(ids)))}
    assert len(plans) == 1


def big(files: int) -> dict[str, tuple[str, str]]:
    spec = {f"d{i}": (f"d{i}", D) for i in range(files // 100)}
    spec.update({f"f{i}": (f"d{i // 100}/f{i % 100}", "x") for i in range(files)})
    return spec


def test_removals_are_easily_counted():
    made = plan_of({}, big(300), big(300))
    removed = [item for act in made.acts if isinstance(act, Remove) for item in act.subtree if not item.is_directory]
    assert len(made.acts) == 3
    assert len(removed) == 300


def test_a_step_names_what_it_expects():
    three = trees({"f": V0, "g": ("g", "1")}, {"f": V0, "g": ("g", "1")}, {"f": B})
    delete, replace = plan(**three, dirty={node("f"), node("g")}).steps
    assert delete == Delete(three["synced"].item(node("g")))
    assert replace == Replace(three["synced"].item(node("f")), three["remote"].item(node("f")))
