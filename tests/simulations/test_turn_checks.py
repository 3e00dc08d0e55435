"""What one person alone touched stands as he left it, whatever it is: invariants 1 and 3."""

from __future__ import annotations

import pytest

from simulations.checks.turns import check_turns
from simulations.history.ledger import Back, Decision
from tests.simulations.test_checks import breaks
from tests.simulations.test_ledger import Scene


@pytest.fixture
def scene():
    return Scene()


def check(scene, number=0, plain=(0, 1, 2)):
    """Check a device as if all had come to rest."""
    scene.ledger.rested(scene.world.devices)
    try:
        check_turns(scene.ledger, number, scene.tree(number), plain)
    finally:
        scene.ledger.epoch -= 1


MADE = {
    "link": (("make_link", "a", "none/77"), ("remove", "a")),
    "directory": (("make_directory", "a"), ("remove_directory", "a")),
    "empty file": (("create", "a"), ("remove", "a")),
    "file": (("write", "a", b"one"), ("remove", "a")),
}


@pytest.mark.parametrize("what", MADE)
def test_1_what_nobody_else_touched_is_there(scene, what):
    make, remove = MADE[what]
    scene.act(0, make)
    check(scene)
    with breaks(1):
        check(scene, 1)
    scene.act(0, remove)
    check(scene, 1)
    scene.world.devices[1].user.make_directory(scene.world.devices[1].path("a"))
    with breaks(3):
        check(scene, 1)


def test_1_its_mode_and_where_it_leads_are_those_that_it_was_given(scene):
    scene.act(0, ("write", "a", b"one"), ("make_link", "l", "x"))
    scene.act(0, ("set_mode", "a", 0o755))
    device = scene.world.devices[0]
    device.user.set_mode(device.path("a"), 0o644)
    with breaks(1):
        check(scene)
    device.user.set_mode(device.path("a"), 0o755)
    check(scene)
    device.user.remove(device.path("l"))
    device.user.make_link(device.path("l"), "y")
    with breaks(1):
        check(scene)


@pytest.mark.parametrize(
    "other",
    [
        ("write", "a", b"two"),
        ("write", "E/A", b"two"),
        ("make_link", "E/D", "x"),
        ("create", "a (conflict, device-1, 0123abcd)"),
        ("create", ".kinignore"),
    ],
)
def test_1_what_another_touched_by_any_name_is_judged_by_its_bytes_alone(scene, other):
    for number in (0, 1):
        for name in ("D", "E"):
            scene.world.devices[number].user.make_directory(scene.world.devices[number].path(name))
    scene.act(0, ("make_link", "D/a", "x"))
    scene.act(1, ("write", "D/b", b"two"))  # in one directory, they have nothing to do with each other
    scene.come(2, "D/b", b"two")
    with breaks(1):
        check(scene, 2)
    scene.act(1, other)
    check(scene, 2)


def test_1_who_moves_a_thing_has_to_do_with_all_that_happens_to_either_name(scene):
    scene.act(0, ("make_link", "a", "x"))
    scene.act(0, ("rename", "a", "b"))
    scene.act(0, ("rename", "b", "c"))
    with breaks(1):
        check(scene, 2)
    scene.act(1, ("write", "a", b"two"))
    check(scene, 2)


def test_1_who_gives_a_file_another_name_has_to_do_with_all_that_happens_to_the_first(scene):
    scene.come(0, "a", b"base")
    scene.come(1, "a", b"base")
    scene.come(2, "b", b"other")
    scene.act(0, ("link", "a", "b"))
    with breaks(1):
        check(scene, 2)
    scene.act(1, ("write", "a", b"other"))
    check(scene, 2)


def test_1_what_all_had_at_rest_and_nobody_touched_since_is_not_asked_again(scene):
    scene.act(0, ("make_link", "a", "x"))
    scene.ledger.rested(scene.world.devices)
    check(scene, 2)


def test_1_what_a_command_or_a_backup_may_have_done_is_judged_by_its_bytes_alone(scene):
    scene.act(0, ("make_link", "a", "x"))
    device = scene.world.devices[1]
    for method, path in (("restore", ""), ("resolve", "D/a"), ("undo", "")):
        with breaks(1):
            check(scene, 2)
        scene.ledger.ask(device, 1, method, path)
        check(scene, 2)
        scene.ledger.asked.clear()
    with breaks(1):
        check(scene, 2)
    check(scene, 2, plain=(1, 2))
    scene.ledger.backs[2] = Back(0, {}, False)
    check(scene, 2)
    scene.ledger.backs[2] = None
    before = scene.ledger.see(scene.world.devices[0], 0)
    scene.world.devices[0].user.remove(scene.world.devices[0].path("a"))
    scene.ledger.note_by_command(scene.world.devices[0], 0, "undoes", before, Decision({}, frozenset()), since_ns=0)
    check(scene, 2)


def test_who_takes_bytes_away_and_puts_them_elsewhere_has_moved_what_others_write_to(scene):
    for number in range(3):
        scene.come(number, "a", b"one")
    scene.ledger.rested(scene.world.devices)
    scene.act(1, ("write", "a", b"two"))
    scene.act(0, ("remove", "a"))
    scene.act(0, ("write", "b", b"one"))
    scene.come(2, "b", b"two")
    check(scene, 2)
    scene.act(0, ("write", "c", b"three"))
    with breaks(1):
        check(scene, 2)
