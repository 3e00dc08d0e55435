"""What the planner promises for any three trees: it is total, it is safe, what it says can be done, and it ends."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from peer.core.exclusions import Apart, exclusion_of, follow
from peer.core.operations import Act, Create, Edit, Move, Remove, Touch
from peer.core.planner import plan
from peer.core.tree import Content, Item, MemoryTree, path_of
from protocol.ids import ROOT
from tests.peer.core.trees import DIRECTORY, Device, Disk, bare, file, link, node, show, with_dots

IDS = "ABCDEFGHIJ"
FILES = [file("1"), file("22"), file("22", mtime=5), link("x")]

rows = st.lists(
    st.tuples(st.sampled_from(IDS), st.integers(0, 9), st.sampled_from("xyz"), st.integers(0, 7)),
    unique_by=lambda row: row[0],
    max_size=10,
)


def build(drawn, *, dots, directories: str | None) -> MemoryTree:
    """Make a tree of what was drawn; which ids are directories is drawn too, or given."""
    tree = MemoryTree()
    parents = [ROOT]
    for id, parent, name, content in drawn:
        above = parents[parent % len(parents)]
        if tree.child(above, name) is not None:
            continue
        is_directory = content % 2 == 0 if directories is None else id in directories
        tree.put(with_dots(Item(node(id), above, name, DIRECTORY if is_directory else FILES[content // 2]), dots))
        if is_directory:
            parents.append(node(id))
    return tree


def hashes(tree: MemoryTree) -> set[bytes]:
    return {item.content.hash for item in tree.items()} - {b""}


@settings(max_examples=500, deadline=None)
@given(rows, rows, rows, st.sampled_from([1, 2]))
def test_any_three_trees_come_to_rest(local, synced, remote, dots):
    """Even where ids change their kind, which identify never does. The fold is one that drops every act."""
    device = Device(
        build(local, dots=None, directories=None),
        build(synced, dots=1, directories=None),
        build(remote, dots=dots, directories=None),
    )
    device.settle()
    assert show(device.local) == show(device.synced) == show(device.remote)


@settings(max_examples=500, deadline=None)
@given(rows, rows)
def test_one_plan_with_steps_is_enough_where_nothing_happened_here(synced, remote):
    device = Device(
        build(synced, dots=None, directories="ACEG"),
        build(synced, dots=1, directories="ACEG"),
        build(remote, dots=2, directories="ACEG"),
    )
    rekeyed = device.settle()
    assert rekeyed <= 3  # new ids; steps; dots
    assert device.placed <= len(list(device.remote.items()))


@settings(max_examples=500, deadline=None)
@given(rows, rows, rows)
def test_no_step_destroys_what_is_not_in_synced(local, synced, remote):
    """Whatever was planned together: bytes that a step takes off the disk were synced, so the log holds them."""
    device = Device(
        build(local, dots=None, directories="ACEG"),
        build(synced, dots=1, directories="ACEG"),
        build(remote, dots=2, directories="ACEG"),
    )
    known = hashes(device.synced)
    made = device.plan()
    for step in made.steps:
        device.execute(step)
    written = hashes(build(local, dots=None, directories="ACEG"))
    assert written - known <= hashes(device.local)


@settings(max_examples=500, deadline=None)
@given(rows, rows, rows)
def test_no_content_of_either_side_is_lost_with_a_fold_that_keeps_both(local, synced, remote):
    device = Device(
        build(local, dots=None, directories="ACEG"),
        build(synced, dots=1, directories="ACEG"),
        build(remote, dots=2, directories="ACEG"),
    )
    written_here = hashes(device.local) - hashes(device.synced)
    written_there = hashes(device.remote) - hashes(device.synced)
    device.settle(fold, rounds=20)
    assert show(device.local) == show(device.synced) == show(device.remote)
    assert written_here <= hashes(device.local)
    assert written_there <= hashes(device.local)


@settings(max_examples=300, deadline=None)
@given(rows, rows, rows, st.randoms())
def test_the_order_of_what_is_dirty_says_nothing(local, synced, remote, chance):
    three: dict[str, Any] = {
        "local": build(local, dots=None, directories="ACEG"),
        "synced": build(synced, dots=1, directories="ACEG"),
        "remote": build(remote, dots=2, directories="ACEG"),
    }
    dirty = [node(id) for id in IDS]
    made = plan(**three, dirty=dirty)
    chance.shuffle(dirty)
    assert plan(**three, dirty=dirty) == made


@settings(max_examples=300, deadline=None)
@given(rows, rows, rows, st.sets(st.sampled_from(IDS)))
def test_part_of_what_is_dirty_gives_steps_that_can_be_done(local, synced, remote, some):
    """The engine plans for a bounded number of items at once."""
    device = Device(
        build(local, dots=None, directories="ACEG"),
        build(synced, dots=1, directories="ACEG"),
        build(remote, dots=2, directories="ACEG"),
    )
    made = plan(local=device.local, synced=device.synced, remote=device.remote, dirty={node(id) for id in some})
    for step in made.steps:
        device.execute(step)
    assert not device.aside
    device.check()


loose_rows = st.lists(
    st.tuples(st.sampled_from(IDS), st.sampled_from([*IDS, ""]), st.sampled_from("xyz"), st.integers(0, 7)),
    unique_by=lambda row: row[0],
    max_size=10,
)


@settings(max_examples=500, deadline=None)
@given(rows, loose_rows, loose_rows)
def test_rows_that_are_no_tree_end_too(local, synced, remote):
    """Where only part of a plan was recorded, parents may be missing in synced, or stand under their children."""
    three: dict[str, Any] = {"local": build(local, dots=None, directories=None)}
    for name, drawn in (("synced", synced), ("remote", remote)):
        three[name] = MemoryTree()
        for id, parent, word, content in drawn:
            above = node(parent) if parent else ROOT
            three[name].put(Item(node(id), above, word, DIRECTORY if content % 2 else FILES[content // 2]))
    made = plan(**three, dirty=[node(id) for id in IDS])
    assert plan(**three, dirty=[node(id) for id in IDS]) == made


moves = st.lists(st.tuples(st.sampled_from(IDS), st.sampled_from([*IDS, ""]), st.sampled_from("xyz")), max_size=12)


@settings(max_examples=500, deadline=None)
@given(rows, moves)
def test_any_moves_can_be_done_and_authored(drawn, wanted):
    """Swaps, circles, inversions, and moves in depth: only renames, and every act alone leaves a tree."""
    before = build(drawn, dots=1, directories="ABCDEFG")
    after = MemoryTree({item.id: item for item in before.items()})
    for id, parent, name in wanted:
        move(after, node(id), node(parent) if parent else ROOT, name)
    # To exchange names, which one move alone cannot do.
    for (one, _, _), (other, _, _) in zip(wanted[::2], wanted[1::2], strict=False):
        exchange(after, node(one), node(other))
    local = MemoryTree({item.id: bare(item) for item in before.items()})
    device = Device(local, MemoryTree({i.id: i for i in before.items()}), after)
    made = device.plan()
    assert {type(step).__name__ for step in made.steps} <= {"Rename"}
    assert not made.acts
    device.run(made)
    assert show(device.local) == show(after)

    there = plan(local=local_of(after), synced=before, remote=before, dirty={item.id for item in before.items()})
    assert not there.steps
    replay = {item.id: item.parent for item in before.items()}
    for act in there.acts:
        assert isinstance(act, Move)
        replay[act.base.id] = act.parent
        here, seen = act.base.id, set()
        while here != ROOT:
            assert here not in seen, "an act alone puts a directory into itself"
            seen.add(here)
            here = replay[here]


def local_of(tree: MemoryTree) -> MemoryTree:
    return MemoryTree({item.id: bare(item) for item in tree.items()})


def is_under(tree: MemoryTree, id, above) -> bool:
    while id != ROOT:
        if id == above:
            return True
        item = tree.item(id)
        assert item is not None
        id = item.parent
    return False


def move(tree: MemoryTree, id, parent, name) -> None:
    item, above = tree.item(id), tree.item(parent)
    if item is None or (parent != ROOT and (above is None or not above.is_directory)):
        return
    if tree.child(parent, name) is None and not is_under(tree, parent, id):
        tree.put(Item(id, parent, name, item.content, item.members))


def exchange(tree: MemoryTree, one, other) -> None:
    a, b = tree.item(one), tree.item(other)
    if a is None or b is None or one == other:
        return
    places = {one: (b.parent, b.name), other: (a.parent, a.name)}
    if b.parent == one or a.parent == other:  # turned inside out
        top, below = (a, b) if b.parent == one else (b, a)
        if not below.is_directory or tree.child(below.id, below.name) is not None:
            return
        places = {below.id: (top.parent, top.name), top.id: (below.id, below.name)}
    elif is_under(tree, one, other) or is_under(tree, other, one):
        return
    for item in (a, b):
        tree.drop(item.id)
    for item in (a, b):
        tree.put(Item(item.id, *places[item.id], item.content, item.members))


# --- A plain fold: edits and moves beat removals, of two edits both are kept, who is there first has the name.


def fold(device: Device, acts: tuple[Act, ...]) -> None:
    remote = device.remote
    for act in acts:
        match act:
            case Create(item):
                revive(device, item.parent)
                there = remote.item(item.id)
                if there is not None and not there.content.same_bytes(item.content):
                    copy(device, item)
                else:
                    place(device, item.id, item.parent, item.name, item.content)
            case Edit(base, content) | Touch(base, content):
                edit(device, base, content)
            case Move(base, parent, name):
                now = remote.item(base.id)
                revive(device, parent)
                if now is None:
                    place(device, base.id, parent, name, base.content)
                elif (now.parent, now.name) == (base.parent, base.name) and not is_under(remote, parent, base.id):
                    remote.drop(base.id)
                    place(device, base.id, parent, name, now.content)
            case Remove(_, subtree):
                for item in reversed(subtree):
                    now = remote.item(item.id)
                    if now is None or (now.parent, now.name) != (item.parent, item.name):
                        continue
                    if now.content.same_bytes(item.content) and not list(remote.children(item.id)):
                        remote.drop(item.id)


def revive(device: Device, id) -> None:
    if id == ROOT or device.remote.item(id) is not None:
        return
    item = device.synced.item(id)
    assert item is not None
    revive(device, item.parent)
    place(device, id, item.parent, item.name, item.content)


def place(device: Device, id, parent, name: str, content: Content) -> None:
    there = device.remote.child(parent, name)
    while there is not None and there.id != id:
        name += "'"
        there = device.remote.child(parent, name)
    device.fresh += 1
    device.remote.put(with_dots(Item(id, parent, name, content), device.fresh))


def edit(device: Device, base: Item, content: Content) -> None:
    now = device.remote.item(base.id)
    if now is None:
        revive(device, base.parent)
        place(device, base.id, base.parent, base.name, content)
    elif now.content.same_bytes(base.content) or now.content.same_bytes(content):
        device.remote.drop(base.id)
        place(device, base.id, now.parent, now.name, content)
    elif not content.same_bytes(base.content):
        copy(device, Item(base.id, now.parent, now.name, content))


def copy(device: Device, item: Item) -> None:
    device.fresh += 1
    place(device, node(f"copy{device.fresh}"), item.parent, f"{item.name}~", item.content)


def test_a_path_of_the_tests_own_trees_is_well_formed():
    tree = build([("A", 0, "x", 0), ("B", 1, "y", 1)], dots=1, directories="A")
    assert path_of(tree, node("B")) == "x/y"


@settings(max_examples=500, deadline=None)
@given(rows, rows, rows, st.sampled_from(IDS))
def test_what_is_excluded_is_never_removed(local, synced, remote, id):
    """Scans leave out what is excluded; the fold drops every act."""
    device = Device(
        build(local, dots=None, directories="ACEG"),
        build(synced, dots=1, directories="ACEG"),
        build(remote, dots=2, directories="ACEG"),
    )
    path = path_of(device.remote, node(id)) or path_of(device.synced, node(id)) or "x"
    meant = Apart(
        follow([exclusion_of(path, synced=device.synced)], local=device.local, remote=device.remote).exclusions
    )
    for item in list(device.local.items()):
        is_new_there = device.synced.item(item.id) is None and device.remote.item(item.id) is not None
        if is_new_there or meant.holds(device.local, item):
            device.local.drop(item.id)
    for _ in IDS:  # what stood in those
        for item in list(device.local.items()):
            if path_of(device.local, item.id) is None:
                device.local.drop(item.id)
    device.disk = Disk(device.local)
    left = {item.id for item in device.synced.items() if meant.holds(device.synced, item)}  # unseen, as the agent notes
    for _ in range(20):
        meant = Apart(follow(meant.exclusions, local=device.local, remote=device.remote).exclusions)
        made = device.plan(apart=meant, mistrusted=lambda item: item.id in left)
        for act in made.acts:  # what was moved out of it may be, as anything that stands here
            assert not isinstance(act, Remove) or not left & {item.id for item in (act.base, *act.subtree)}
        device.run(made)
