"""What a person keeps off one device: who is meant, wherever it moves, and what is planned about it."""

from __future__ import annotations

from typing import Any

import pytest

from peer.core.exclusions import Apart, Exclusion, follow
from peer.core.operations import Plan
from peer.core.planner import plan
from peer.core.tree import MemoryTree
from protocol.ids import ROOT
from tests.peer.core.trees import Device, names, node, tree

D = "/"
BEFORE = {"D": ("D", D), "f": ("D/f", "1"), "g": ("g", "1")}


def apart(path: str, remote: MemoryTree, local: MemoryTree | None = None) -> Apart:
    return Apart(follow([Exclusion(path)], local=local or MemoryTree(), remote=remote).exclusions)


def plan_of(local: Any, synced: Any, remote: Any, path: str = "D", **options: Any) -> Plan:
    three: dict[str, Any] = {"local": tree(local, dots=None), "synced": tree(synced), "remote": tree(remote)}
    meant = apart(path, three["synced"], three["local"])
    ids = {item.id for each in three.values() for item in each.items()}
    options.setdefault("mistrusted", lambda item: meant.holds(three["synced"], item))
    return plan(**three, dirty=ids, apart=meant, **options)


HERE = {"g": ("g", "1")}


@pytest.mark.parametrize(
    ("what", "remote", "acts", "steps"),
    [
        ("as it was", BEFORE, [], []),
        ("edited elsewhere", {**BEFORE, "f": ("D/f", "2")}, [], []),
        ("removed elsewhere", HERE, [], []),
        ("something new in it", {**BEFORE, "n": ("D/n", "3")}, [], []),
        ("renamed elsewhere, with something new in it", {**BEFORE, "D": ("E", D), "f": ("E/f", "1"), "n": ("E/n", "3")}, [], []),
        ("a file moved out of it", {**BEFORE, "f": ("f", "1")}, [], ["Forget f"]),
        ("a file moved into it", {**BEFORE, "g": ("D/g", "1")}, [], ["Delete g"]),
        ("a file edited and moved into it", {**BEFORE, "g": ("D/g", "2")}, [], ["Delete g"]),
        ("the file beside it edited", {**BEFORE, "g": ("g", "2")}, [], ["Replace g"]),
    ],
)  # fmt: skip
def test_what_is_excluded_is_left_alone(what, remote, acts, steps):
    made = plan_of(HERE, BEFORE, remote)
    assert (names(made.acts), names(made.steps)) == (acts, steps), what


def test_what_lies_here_in_it_is_no_act():
    local = {"D": ("D", D), "f": ("D/f", "edited"), "n": ("D/n", "new"), "g": ("g", "1")}
    assert plan_of(local, BEFORE, BEFORE) == Plan((), ())


def test_a_directory_that_moves_into_it_leaves_from_below_and_what_changed_in_it_is_told_first():
    before = {**BEFORE, "X": ("X", D), "h": ("X/h", "1")}
    here = {"g": ("g", "1"), "X": ("X", D), "h": ("X/h", "1")}
    there = {**before, "X": ("D/X", D), "h": ("D/X/h", "1")}
    assert names(plan_of(here, before, there).steps) == ["Delete h", "Delete X"]
    made = plan_of({**here, "h": ("X/h", "2")}, before, there)
    assert (names(made.acts), names(made.steps)) == (["Edit h"], [])
    made = plan_of({**here, "n": ("X/n", "2")}, before, there)
    assert (names(made.acts), names(made.steps)) == (["Create n"], ["Delete h"])


def test_removing_here_what_is_around_it_does_not_remove_it():
    before = {"P": ("P", D), "D": ("P/D", D), "f": ("P/D/f", "1"), "h": ("P/h", "1")}
    assert names(plan_of({}, before, before, "P/D").acts) == ["Remove P h"]


def test_without_base_it_never_comes_here():
    assert plan_of(HERE, HERE, BEFORE) == plan_of(HERE, HERE, {**BEFORE, "n": ("D/n", "1")}) == Plan((), ())


def test_a_device_that_excludes_comes_to_rest_and_has_all_but_that():
    three = {"local": tree(HERE, dots=None), "synced": tree(BEFORE), "remote": tree({**BEFORE, "g": ("D/g", "2"), "f": ("f", "1")})}  # fmt: skip
    meant = apart("D", three["synced"])
    device = Device(**three)
    for _ in range(5):
        device.run(device.plan(apart=meant, mistrusted=lambda item: meant.holds(device.synced, item)))
    assert set(device.disk.show()) == {"f"}


# --- Following


def paths(found: Any) -> dict[str, tuple[str, ...]]:
    return {each.path: tuple(id.rstrip(b".").decode() for id in each.nodes) for each in found.exclusions}


def test_a_path_is_bound_to_what_stands_there_in_the_folder():
    found = follow([Exclusion("D"), Exclusion("none"), Exclusion("D/f")], local=MemoryTree(), remote=tree(BEFORE))
    assert paths(found) == {"D": ("D",), "D/f": ("f",), "none": ()}
    assert [each.parent for each in found.exclusions] == [ROOT, node("D"), ROOT]


def test_it_follows_the_directories_above_it_on_this_disk_first():
    remote = tree({"P": ("Q", D), "D": ("Q/D", D)})
    bound = [Exclusion("P/D", node("P"), (node("D"),))]
    assert paths(follow(bound, local=tree({"P": ("P", D)}), remote=remote)) == {"P/D": ("D",)}
    assert paths(follow(bound, local=tree({"P": ("Q", D)}), remote=remote)) == {"Q/D": ("D",)}
    assert paths(follow(bound, local=MemoryTree(), remote=remote)) == {"Q/D": ("D",)}


def test_what_the_folder_moves_stays_excluded_there_and_its_old_path_is_told():
    bound = [Exclusion("D", ROOT, (node("D"),))]
    found = follow(bound, local=MemoryTree(), remote=tree({"D": ("E", D), "f": ("E/f", "1")}))
    assert paths(found) == {"D": (), "E": ("D",)}
    assert found.vacated == {"D"}
    # Something else has its name now: that is excluded too, as the person named it.
    found = follow(bound, local=MemoryTree(), remote=tree({"D": ("E", D), "N": ("D", D)}))
    assert (paths(found), found.vacated) == ({"D": ("N",), "E": ("D",)}, frozenset())
    # It moved into another excluded directory: that is enough.
    both = [*bound, Exclusion("X", ROOT, (node("X"),))]
    found = follow(both, local=MemoryTree(), remote=tree({"X": ("X", D), "D": ("X/D", D)}))
    assert paths(found) == {"D": (), "X": ("X",)}


def test_what_was_removed_elsewhere_keeps_its_path():
    found = follow([Exclusion("D", ROOT, (node("D"),))], local=MemoryTree(), remote=MemoryTree())
    assert (paths(found), found.vacated) == ({"D": ()}, frozenset())


def test_following_twice_changes_nothing():
    once = follow([Exclusion("D", ROOT, (node("D"),))], local=MemoryTree(), remote=tree({"D": ("E", D)}))
    again = follow(once.exclusions, local=MemoryTree(), remote=tree({"D": ("E", D)}))
    assert (again.exclusions, again.vacated) == (once.exclusions, frozenset())


def test_paths_of_a_disk():
    meant = Apart([Exclusion("a/b"), Exclusion("c")])
    assert [path for path in ("a", "a/b", "a/b/x", "a/bc", "b", "c", "c/d/e", "cd") if meant.covers(path)] == [
        *("a/b", "a/b/x", "c", "c/d/e"),
    ]
    assert meant.above("c/d/e") == "c"
    assert not Apart().covers("a")
    assert not Apart()
