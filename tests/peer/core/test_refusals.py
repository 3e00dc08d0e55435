"""What a plan makes of names that the disk refused, as tables of small trees."""

from __future__ import annotations

from typing import Any

from peer.core.planner import plan
from peer.core.refusals import judge
from tests.peer.core.trees import DIRECTORY, names, node, tree


def refuse(local, synced, remote, refused, resting="") -> list[str]:
    three: dict[str, Any] = {"local": tree(local, dots=None), "synced": tree(synced), "remote": tree(remote)}
    refusals = judge([node(name) for name in refused], [*map(node, remote)], (), [*map(node, resting)], **three)
    made = plan(**three, dirty={item.id for each in three.values() for item in each.items()}, refusals=refusals)
    return names(made.acts) + names(made.steps)


def test_what_cannot_have_its_new_name_keeps_the_old_one_until_another_is_to_have_it():
    before, moved = {"f": ("f", "1")}, {"f": ("g:", "1")}
    heir = {**moved, "h": ("f", "2")}
    assert refuse(before, before, moved, "f") == ["Rename f -> g:"]
    assert refuse(before, before, heir, "f") == ["Delete f", "Place f"]
    assert refuse(before, before, heir, "") == ["Rename f -> g:", "Place f"]
    assert refuse({"f": ("f", "3")}, before, heir, "f") == ["Edit f"]
    assert refuse({}, {}, heir, "f") == ["Place f", "Place g:"]


def test_a_directory_that_cannot_have_its_new_name_goes_with_all_in_it():
    before = {"D": ("D", DIRECTORY), "f": ("D/f", "1")}
    after = {"D": ("E:", DIRECTORY), "f": ("E:/f", "1"), "G": ("D", DIRECTORY)}
    assert refuse(before, before, after, "D") == ["Delete f", "Delete D", "Place D"]


def test_what_is_to_go_where_no_place_is_leaves_once_another_is_to_have_its_name():
    before = {"f": ("f", "1")}
    there = {"D": ("d:", DIRECTORY), "f": ("d:/f", "1")}
    assert refuse(before, before, there, "D") == ["Place d:"]
    assert refuse(before, before, {**there, "h": ("f", "2")}, "D") == ["Place d:", "Delete f", "Place f"]


def test_nothing_is_brought_into_a_directory_whose_name_may_be_refused_before_it_is_there():
    there = {"D": ("d", DIRECTORY), "E": ("d/e", DIRECTORY), "f": ("d/e/f", "1")}
    assert refuse({}, {}, there, "") == ["Place d", "Place e", "Place f"]
    assert refuse({}, {}, there, "D") == ["Place d"]
    before = {"D": ("b", DIRECTORY)}
    assert refuse(before, before, there, "D") == ["Rename b -> d", "Place e", "Place f"]


def test_what_has_a_refused_name_in_another_spelling_goes_first_where_it_is_to_go():
    before = {"D": ("DIR", DIRECTORY), "f": ("DIR/f", "1")}
    within = {"E": ("dir", DIRECTORY), "D": ("dir/DIR", DIRECTORY), "f": ("dir/DIR/f", "1")}
    assert refuse(before, before, within, "") == ["Place dir", "Rename DIR -> DIR"]
    assert refuse(before, before, within, "E") == ["Rename DIR -> DIR aside", "Place dir", "Rename DIR -> DIR back"]
    assert refuse(before, before, {**before, "E": ("dir", DIRECTORY)}, "E") == ["Place dir"]


def test_what_is_in_a_removed_directory_of_a_refused_name_moves_into_the_new_one():
    before = {"D": ("DIR", DIRECTORY), "f": ("DIR/f", "1")}
    after = {"E": ("dir", DIRECTORY), "f": ("dir/f", "1")}
    assert refuse(before, before, after, "E") == [
        "Rename f -> f aside",
        "Delete DIR",
        "Place dir",
        "Rename f -> f back",
    ]


def test_what_keeps_its_old_name_gets_what_was_written_to_it_and_is_still_its_users():
    before, after = {"f": ("f", "1")}, {"f": ("g:", "2")}
    assert refuse(before, before, after, "f") == ["Rename f -> g:", "Replace g:"]
    assert refuse(before, before, after, "", "f") == ["Replace f"]
    assert refuse(before, before, {"f": ("g:", "1")}, "", "f") == []
    assert refuse({"f": ("f", "3")}, before, after, "", "f") == ["Edit f"]
    assert refuse({"f": ("h", "1")}, before, after, "", "f") == ["Move f -> h"]
    assert refuse({}, {}, after, "", "f") == ["Place g:"]
