"""Invariant 9 by the ledger alone: what stands at more paths than somebody put it at."""

from __future__ import annotations

from contextlib import nullcontext

import pytest

from simulations.checks import contents
from tests.simulations.test_checks import COPY, breaks
from tests.simulations.test_ledger import Scene, of


@pytest.fixture
def scene():
    return Scene()


def test_9_a_content_stands_where_it_was_put_and_nowhere_else(scene):
    scene.act(0, ("write", "a.txt", b"one"))
    contents.check_identity(scene.ledger, 0, scene.tree(0))
    scene.come(0, "b.txt", b"one")
    with breaks(9):
        contents.check_identity(scene.ledger, 0, scene.tree(0))
    scene.ledger.restore(scene.ledger.actions[0], "b.txt")
    with breaks(9):
        contents.check_identity(scene.ledger, 0, scene.tree(0))
    scene.ledger.restore(scene.ledger.actions[0], "a.txt")
    contents.check_identity(scene.ledger, 0, scene.tree(0))


def test_9_a_file_of_whose_move_half_was_told_may_stand_twice(scene):
    scene.act(0, ("write", "a.txt", b"one"), ("write", "b.txt", b"two"))
    for path, data in (("c.txt", b"one"), ("d.txt", b"two")):
        scene.come(0, path, data)
    with breaks(9):
        contents.check_identity(scene.ledger, 0, scene.tree(0), {of(b"two"): 1})
    contents.check_identity(scene.ledger, 0, scene.tree(0), {of(b"one"): 1, of(b"two"): 1})
    scene.come(0, "e.txt", b"two")
    with breaks(9):
        contents.check_identity(scene.ledger, 0, scene.tree(0), {of(b"one"): 1, of(b"two"): 1})


def test_9_a_device_that_forgot_a_file_may_have_it_twice_once_somebody_moved_it(scene):
    scene.act(0, ("write", "a.txt", b"one"))
    scene.come(1, "a.txt", b"one")
    scene.ledger.forget(scene.world.devices[1], 1, {})
    scene.come(1, "b.txt", b"one")
    with breaks(9):
        contents.check_identity(scene.ledger, 1, scene.tree(1))
    scene.act(0, ("rename", "a.txt", "b.txt"))
    contents.check_identity(scene.ledger, 1, scene.tree(1))
    scene.come(1, "c.txt", b"one")
    with breaks(9):
        contents.check_identity(scene.ledger, 1, scene.tree(1))


def test_9_a_device_that_forgot_a_file_may_put_it_beside_an_older_version_of_it(scene):
    """The history 7000379: it had yet to hear of this one."""
    scene.act(0, ("write", "a.txt", b"one"))
    scene.come(1, "a.txt", b"one")
    scene.come(1, COPY, b"one")
    with breaks(9):
        contents.check_identity(scene.ledger, 1, scene.tree(1))
    scene.ledger.forget(scene.world.devices[1], 1, {})
    contents.check_identity(scene.ledger, 1, scene.tree(1))
    scene.come(1, f"b/{COPY}", b"one")
    with breaks(9):
        contents.check_identity(scene.ledger, 1, scene.tree(1))
    scene.act(0, ("write", "b.txt", b"two"))
    scene.ledger.rested(scene.world.devices)
    scene.come(1, "b.txt", b"two")
    scene.come(1, "b (conflict, device-1, 0123abcd).txt", b"two")
    scene.ledger.forget(scene.world.devices[1], 1, {})
    with breaks(9):  # everybody had heard of it
        contents.check_identity(scene.ledger, 1, scene.tree(1))


@pytest.mark.parametrize("rests", [False, True])
@pytest.mark.parametrize("place", ["b.txt", "c.txt"])
@pytest.mark.parametrize("rival", [0, 1])
def test_9_a_file_that_is_put_where_another_was_removed_may_be_a_version_of_that(scene, place, rests, rival):
    """The history 389: another moved it meanwhile."""
    scene.act(0, ("write", "a.txt", b"one"), ("write", "b.txt", b"two"))
    for path, data in (("a.txt", b"one"), ("b.txt", b"two")):
        scene.come(1, path, data)
    scene.ledger.rested(scene.world.devices)
    scene.act(1, ("remove", "b.txt"))
    if rests:
        scene.ledger.rested(scene.world.devices)
    scene.act(1, ("rename", "a.txt", place))
    if rival == 0:
        scene.act(0, ("rename", "a.txt", "d.txt"))
    scene.come(1, "d.txt", b"one")
    with breaks(9) if rests or rival == 1 or place == "c.txt" else nullcontext():
        contents.check_identity(scene.ledger, 1, scene.tree(1))


@pytest.mark.parametrize("since", [0, 1])
@pytest.mark.parametrize("method", ["rename", "link", "copy"])
def test_9_a_device_that_forgot_a_file_may_put_it_beside_the_one_that_had_its_name_at_the_backup(scene, method, since):
    """The history 529: it knows a file by its path alone, and others had given that another name."""
    scene.act(0, ("write", "a.txt", b"one"))
    scene.act(0, (method, "a.txt", "b.txt"))
    if method != "rename":
        scene.act(0, ("remove", "a.txt"))
    scene.ledger.rested(scene.world.devices)
    scene.act(0, ("write", "a.txt", b"two"))
    scene.ledger.rested(scene.world.devices)
    for path in ("a.txt", COPY):
        scene.come(1, path, b"two")
    with breaks(9):
        contents.check_identity(scene.ledger, 1, scene.tree(1))
    scene.ledger.forget(scene.world.devices[1], 1, {}, since)
    with breaks(9) if since or method == "copy" else nullcontext():
        contents.check_identity(scene.ledger, 1, scene.tree(1))


@pytest.mark.parametrize("runs", [True, False])
def test_9_a_file_may_be_renamed_before_a_killed_device_knows_that_it_placed_it(scene, runs):
    scene.act(0, ("write", "a.txt", b"one"))
    scene.come(1, "a.txt", b"one")
    scene.world.devices[1].is_cut_off = not runs
    scene.act(1, ("rename", "a.txt", "b.txt"))
    scene.come(0, "b.txt", b"one")
    with breaks(9) if runs else nullcontext():
        contents.check_identity(scene.ledger, 0, scene.tree(0))
