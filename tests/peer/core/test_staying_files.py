"""Files that are to go, and stay until another one has the bytes that they hold."""

from __future__ import annotations

from tests.peer.core.test_planner import plan_of
from tests.peer.core.trees import names, node


def test_what_holds_the_bytes_that_another_is_to_get_goes_once_that_has_them():
    before = {"f": ("f", "1"), "c": ("f (conflict)", "2")}
    kept, done = {"f": ("f", "2")}, {"f": ("f", "2"), "c": ("f (conflict)", "2")}
    assert names(plan_of(before, before, kept).steps) == ["Replace f"]
    assert not plan_of(before, before, kept, busy=[node("f")]).steps
    assert names(plan_of(done, done, kept).steps) == ["Delete f (conflict)"]
    assert names(plan_of(before, before, {"f": ("f", "3")}).steps) == ["Delete f (conflict)", "Replace f"]
    # Who is to have its place or to leave its own would wait for it, and it for them.
    taken = {"f": ("f (conflict)", "2")}
    assert names(plan_of(before, before, taken).steps) == [
        "Delete f (conflict)",
        "Rename f -> f (conflict)",
        "Replace f (conflict)",
    ]
