"""What a plan makes of directories that stay for what is in them and not synced, as tables of small trees."""

from __future__ import annotations

from typing import Any

import pytest

from peer.core.leftovers import displaced, kept_name, with_above
from peer.core.planner import plan
from peer.core.refusals import judge
from tests.peer.core.trees import DIRECTORY, names, node, tree

KEPT = {name: kept_name(name, node(name)) for name in "DE"}
D, E, F = ("D", DIRECTORY), ("D/E", DIRECTORY), ("D/E/f", "1")


def keep(local, synced, remote, kept, refused="") -> list[str]:
    """Return what is planned where these directories were found to hold what is not synced."""
    three: dict[str, Any] = {"local": tree(local, dots=None), "synced": tree(synced), "remote": tree(remote)}
    dirty = {item.id for each in three.values() for item in each.items()}
    staying = with_above([node(name) for name in kept], three["local"])
    refusals = judge([node(name) for name in refused], dirty, **three)
    gone = displaced(staying, **three, wanted=set(refusals.taken.values()))
    blocked = staying - gone.keys()
    return names(plan(**three, dirty=dirty - blocked, busy=blocked, refusals=refusals, displaced=gone).steps)


@pytest.mark.parametrize(
    ("told", "before", "after", "kept", "expected"),
    [
        ("nobody wants its name: it keeps it", {"D": D}, {}, "D", []),
        ("a file is to have it", {"D": D}, {"g": ("D", "2")}, "D", [f"Rename D -> {KEPT['D']}", "Place D"]),
        ("a directory is: then it is that one", {"D": D}, {"G": ("D", DIRECTORY)}, "D", ["Rekey D -> G"]),
        (
            "it holds one that is kept",
            {"D": D, "E": E},
            {"g": ("D", "2")},
            "E",
            [f"Rename D -> {KEPT['D']}", "Place D"],
        ),
        ("it is not to go: another waits", {"D": D}, {"D": D}, "D", []),
        (
            "it moves, with what is in it",
            {"D": D},
            {"D": ("X", DIRECTORY), "g": ("D", "2")},
            "",
            ["Rename D -> X", "Place D"],
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_kept_directory_gives_up_its_name_to_what_is_to_have_it(told, before, after, kept, expected):
    assert keep(before, before, after, kept) == expected, told


def test_what_is_in_it_and_goes_on_goes_on():
    """It was to take the directory's own name, and waited for that to leave."""
    before = {"D": D, "E": E, "f": F}
    after = {"f": ("D", "1")}
    assert keep(before, before, after, "E") == [f"Rename D -> {KEPT['D']}", "Rename f -> D"]


def test_the_name_beside_its_own_is_one_that_nobody_has_or_is_to_have():
    beside, third = KEPT["D"], kept_name("D", node("D")[1:])
    before = {"D": D}
    assert keep(before, before, {"g": ("D", "2"), "h": (beside, "3")}, "D") == [
        f"Rename D -> {third}",
        "Place D",
        f"Place {beside}",
    ]


def test_another_spelling_is_the_same_name_where_the_disk_says_so():
    before = {"D": D}
    after = {"g": ("d", "2")}
    assert keep(before, before, after, "D") == ["Place d"]
    assert keep(before, before, after, "D", refused="g") == [f"Rename D -> {KEPT['D']}", "Place d"]


def test_what_its_user_moved_or_made_again_stays_where_he_put_it():
    before, after = {"D": D}, {"g": ("D", "2")}
    assert keep({"D": ("X", DIRECTORY)}, before, after, "D") == ["Place D"]
    assert keep({"D": D}, {}, after, "D") == []
