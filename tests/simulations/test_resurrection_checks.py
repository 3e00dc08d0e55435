"""Which contents may come back though somebody removed them: invariant 3, by the ledger alone."""

from __future__ import annotations

from contextlib import nullcontext

import pytest

from simulations.checks import contents
from tests.simulations.test_checks import COPY, breaks
from tests.simulations.test_ledger import Scene, of


@pytest.fixture
def scene():
    return Scene()


def test_3_what_was_removed_stays_away_unless_somebody_kept_it(scene):
    scene.act(0, ("write", "a.txt", b"one"))
    scene.come(1, "a.txt", b"one")
    scene.ledger.rested(scene.world.devices)
    scene.act(0, ("remove", "a.txt"))
    contents.check_resurrection(scene.ledger, 0, scene.tree(0))
    with breaks(3):
        contents.check_resurrection(scene.ledger, 1, scene.tree(1))
    scene.act(1, ("rename", "a.txt", "b.txt"))
    contents.check_resurrection(scene.ledger, 1, scene.tree(1))


def test_3_who_moves_another_version_of_a_file_keeps_the_file(scene):
    scene.act(0, ("write", "a.txt", b"base"))
    scene.come(1, "a.txt", b"base")
    scene.come(2, "a.txt", b"base")
    scene.ledger.rested(scene.world.devices)
    scene.act(0, ("write", "a.txt", b"one"))
    scene.come(1, "a.txt", b"one")
    scene.act(1, ("remove", "a.txt"))
    scene.act(2, ("write", "a.txt", b"two"))
    with breaks(3):
        contents.check_resurrection(scene.ledger, 0, scene.tree(0))
    scene.act(2, ("copy", "a.txt", "c.txt"))
    with breaks(3):
        contents.check_resurrection(scene.ledger, 0, scene.tree(0))
    scene.act(2, ("write", "b.txt", b"other"))
    scene.act(2, ("rename", "a.txt", "b.txt"))
    contents.check_resurrection(scene.ledger, 0, scene.tree(0))


def test_3_who_takes_a_name_from_a_file_that_has_others_moves_it(scene):
    for number in range(3):
        scene.come(number, "a.txt", b"base")
    scene.act(0, ("write", "d.txt", b"first"))
    scene.ledger.rested(scene.world.devices)
    scene.act(1, ("link", "a.txt", "b.txt"), ("write", "c.txt", b"base"))
    scene.act(0, ("write", "a.txt", b"one"))
    scene.act(0, ("remove", "a.txt"))
    scene.come(1, "d.txt", b"one")
    with breaks(3):
        contents.check_resurrection(scene.ledger, 1, scene.tree(1))
    scene.act(1, ("remove", "c.txt"))
    with breaks(3):  # that is another file
        contents.check_resurrection(scene.ledger, 1, scene.tree(1))
    scene.act(1, ("remove", "a.txt"))
    contents.check_resurrection(scene.ledger, 1, scene.tree(1))


def test_3_who_moves_a_directory_that_another_calls_otherwise_keeps_what_is_in_it(scene):
    scene.act(0, ("make_directory", "D"), ("write", "D/a.txt", b"one"))
    scene.come(1, "D/b.txt", b"two")
    scene.come(2, "d/a.txt", b"one")
    scene.ledger.rested(scene.world.devices)
    scene.come(2, "E", b"a file of that name")
    scene.act(2, ("remove_tree", "d"))
    scene.act(1, ("rename", "D", "E"))
    with breaks(3):
        contents.check_resurrection(scene.ledger, 0, scene.tree(0))
    scene.act(0, ("rename", "D", "between"), ("rename", "between", "d"))
    contents.check_resurrection(scene.ledger, 0, scene.tree(0))


@pytest.mark.parametrize(
    ("is_shared", "name", "stays"),
    [(True, "a (kept, 0123abcd).txt", True), (True, "c.txt", False), (False, "a (kept, 0123abcd).txt", False)],
)
def test_3_what_was_written_through_another_name_of_what_a_step_took_away_is_kept_beside_it(
    scene, is_shared, name, stays
):
    scene.act(0, ("write", "a.txt", b"base"), ("link", "a.txt", "b.txt"))
    hands, place = scene.world.devices[0].user, scene.world.devices[0].path
    if is_shared:
        hands.make_directories(place(".kinfolder/trash"))
        hands.rename(place("a.txt"), place(".kinfolder/trash/1"))
    else:
        hands.remove(place("a.txt"))
    scene.act(0, ("append", "b.txt", b" and more"))
    scene.act(0, ("remove", "b.txt"))
    scene.come(1, name, b"base and more")
    with nullcontext() if stays else breaks(3):
        contents.check_resurrection(scene.ledger, 1, scene.tree(1))


def test_3_who_exchanges_the_names_of_directories_keeps_what_was_removed_from_one_elsewhere(scene):
    for number in range(2):
        scene.come(number, "D/b.txt", b"two")
        scene.come(number, "E/c.txt", b"three")
    scene.act(0, ("write", "D/a.txt", b"one"))
    scene.ledger.see(scene.world.devices[1], 1)
    scene.act(0, ("remove_tree", "D"), ("make_directory", "D"), ("write", "D/new", b"new"))
    scene.come(2, "E/a.txt", b"one")
    scene.come(1, "D2/c.txt", b"five")
    swap = (("rename", "D2", "between"), ("rename", "E", "D2"), ("rename", "between", "E"))
    scene.act(1, *swap)
    with breaks(3):  # a directory of another name
        contents.check_resurrection(scene.ledger, 2, scene.tree(2))
    swap = (("rename", "D", "between"), ("rename", "E", "D"), ("rename", "between", "E"))
    scene.act(1, *swap)
    contents.check_resurrection(scene.ledger, 2, scene.tree(2))


def test_3_who_exchanges_the_names_of_directories_that_came_after_a_removal_keeps_nothing(scene):
    scene.act(0, ("make_directory", "D"), ("write", "D/a.txt", b"one"), ("make_directory", "E"))
    scene.act(0, ("remove_tree", "D"), ("make_directory", "D"), ("write", "D/new", b"new"))
    scene.come(1, "D/new", b"new")
    scene.come(1, "E/c.txt", b"three")
    scene.come(2, "E/a.txt", b"one")
    scene.act(1, ("rename", "D", "between"), ("rename", "E", "D"), ("rename", "between", "E"))
    with breaks(3):
        contents.check_resurrection(scene.ledger, 2, scene.tree(2))


def test_3_of_a_file_that_two_removed_in_two_versions_the_copy_stays(scene):
    """The history 5000338."""
    for number in range(2):
        scene.come(number, "a.txt", b"base")
    scene.act(0, ("write", "a.txt", b"one"))
    scene.act(1, ("write", "a.txt", b"two"))
    scene.act(0, ("remove", "a.txt"))
    scene.come(2, COPY, b"one")
    scene.come(1, "b.txt", b"one")
    with breaks(3):  # the other version is still there
        contents.check_resurrection(scene.ledger, 2, scene.tree(2))
    scene.act(1, ("remove", "a.txt"))
    contents.check_resurrection(scene.ledger, 2, scene.tree(2))
    with breaks(3):  # under a name that is no conflict's
        contents.check_resurrection(scene.ledger, 1, scene.tree(1))


def test_3_of_a_file_that_another_removed_the_copy_that_somebody_removed_may_be_it_again(scene):
    for number in range(2):
        scene.come(number, "a.txt", b"base")
    scene.act(0, ("write", "a.txt", b"one"))
    scene.act(1, ("write", "a.txt", b"two"))
    scene.ledger.see(scene.world.devices[0], 0)
    scene.world.devices[0].user.rename(scene.world.devices[0].path("a.txt"), scene.world.devices[0].path(COPY))
    scene.act(0, ("remove", COPY))
    scene.come(2, "a.txt", b"one")
    with breaks(3):  # the other version is still there
        contents.check_resurrection(scene.ledger, 2, scene.tree(2))
    scene.act(1, ("remove", "a.txt"), ("make_directory", "a.txt"))
    contents.check_resurrection(scene.ledger, 2, scene.tree(2))
    scene.come(2, "b.txt", b"one")
    with breaks(3):
        contents.check_resurrection(scene.ledger, 2, scene.tree(2))


def test_3_what_was_removed_as_soon_as_it_was_moved_out_of_a_directory_comes_back_in_that(scene):
    for number in range(2):
        scene.come(number, "D/a.txt", b"base")
    scene.act(1, ("rename", "D", "E"))
    scene.act(0, ("write", "D/b.txt", b"one"))
    scene.act(0, ("rename", "D/b.txt", "b.txt"), ("remove_tree", "D"))
    scene.come(2, "E/b.txt", b"one")
    pause_ns = scene.world.loop.now_ns + 60_000_000
    moved = scene.ledger.actions[-1]
    scene.act(0, ("remove", "b.txt"))
    contents.check_resurrection(scene.ledger, 2, scene.tree(2))
    (ender,) = scene.ledger.enders[of(b"one")]
    assert ender.number == moved.number + 1
    scene.ledger.actions[-1] = late = ender._replace(time_ns=pause_ns)
    scene.ledger.enders[of(b"one")] = [late]
    with breaks(3):  # its device looked meanwhile: it was removed for itself
        contents.check_resurrection(scene.ledger, 2, scene.tree(2))


@pytest.mark.parametrize("both", [False, True])
def test_3_who_moved_a_file_as_another_did_keeps_it_where_only_the_other_move_was_seen(scene, both):
    for number in range(3):
        scene.come(number, "a.txt", b"one")
    scene.ledger.rested(scene.world.devices)
    scene.act(0, ("rename", "a.txt", "b.txt"))
    if both:
        scene.act(1, ("rename", "a.txt", "b.txt"))
    user, path = scene.world.devices[2].user, scene.world.devices[2].path
    user.rename(path("a.txt"), path("b.txt"))
    scene.act(2, ("remove", "b.txt"))
    scene.come(2, "b.txt", b"one")
    with nullcontext() if both else breaks(3):
        contents.check_resurrection(scene.ledger, 2, scene.tree(2))


def test_3_what_stays_on_its_device_was_removed_nowhere_else(scene):
    scene.act(0, ("write", "a", b"lock"))
    scene.act(0, ("remove", "a"))
    scene.come(1, ".~lock.b#", b"lock")
    contents.check_resurrection(scene.ledger, 1, scene.tree(1))
    scene.come(1, "b", b"lock")
    with breaks(3):
        contents.check_resurrection(scene.ledger, 1, scene.tree(1))


def test_3_a_device_that_forgot_what_it_has_cannot_tell_what_it_removes(scene):
    scene.act(0, ("write", "a.txt", b"one"))
    scene.come(1, "a.txt", b"one")
    scene.ledger.forget(scene.world.devices[0], 0, {})
    scene.act(0, ("write", "a.txt", b"two"))
    contents.check_resurrection(scene.ledger, 1, scene.tree(1))
    scene.come(1, COPY, b"two")
    contents.check_copies(scene.ledger, 1, scene.tree(1))
    scene.ledger.forgotten.clear()
    with breaks(3):
        contents.check_resurrection(scene.ledger, 1, scene.tree(1))
    with breaks(5):
        contents.check_copies(scene.ledger, 1, scene.tree(1))


def test_3_a_device_that_forgot_what_it_has_brings_back_what_another_removed_meanwhile(scene):
    scene.act(0, ("write", "a.txt", b"one"))
    scene.come(1, "a.txt", b"one")
    scene.ledger.rested(scene.world.devices)
    scene.act(0, ("remove", "a.txt"))
    with breaks(3):
        contents.check_resurrection(scene.ledger, 1, scene.tree(1))
    scene.ledger.forget(scene.world.devices[1], 1, {})
    contents.check_resurrection(scene.ledger, 1, scene.tree(1))


def test_3_what_a_device_knew_at_rest_before_its_backup_others_can_remove(scene):
    scene.act(0, ("write", "a.txt", b"one"))
    scene.come(1, "a.txt", b"one")
    scene.ledger.rested(scene.world.devices)
    known = scene.ledger.known(1, scene.tree(1))
    assert list(known) == ["a.txt"]
    device = scene.world.devices[1]
    time_ns = device.user.stat(device.path("a.txt")).mtime_ns
    device.user.set_mtime(device.path("a.txt"), 1)
    assert not scene.ledger.known(1, scene.tree(1))
    device.user.set_mtime(device.path("a.txt"), time_ns)
    scene.act(0, ("remove", "a.txt"))
    scene.ledger.forget(scene.world.devices[1], 1, known)
    with breaks(3):
        contents.check_resurrection(scene.ledger, 1, scene.tree(1))
    # Its own user's work before all are at rest again stands beside the folder's.
    scene.act(1, ("write", "a.txt", b"two"))
    scene.come(1, COPY, b"two")
    contents.check_copies(scene.ledger, 1, scene.tree(1))


def test_3_what_a_device_that_was_put_back_had_written_over_is_not_removed_by_who_did_not_know_of_that(scene):
    scene.act(0, ("write", "a.txt", b"one"))
    for number in (1, 2):
        scene.come(number, "a.txt", b"one")
    scene.ledger.rested(scene.world.devices)
    scene.act(0, ("remove", "a.txt"))
    scene.act(1, ("write", "a.txt", b"two"))
    with breaks(3):
        contents.check_resurrection(scene.ledger, 2, scene.tree(2))
    scene.ledger.forget(scene.world.devices[1], 1, {})
    contents.check_resurrection(scene.ledger, 2, scene.tree(2))
    scene.ledger.rested(scene.world.devices)
    scene.act(2, ("remove", "a.txt"))
    scene.come(2, "a.txt", b"one")
    with breaks(3):
        contents.check_resurrection(scene.ledger, 2, scene.tree(2))


def test_3_a_backup_brings_back_what_was_removed_long_before(scene):
    scene.act(0, ("write", "a.txt", b"one"))
    scene.act(0, ("remove", "a.txt"))
    scene.ledger.rested(scene.world.devices)
    scene.come(1, "a.txt", b"one")
    with breaks(3):
        contents.check_resurrection(scene.ledger, 1, scene.tree(1))
    scene.ledger.forget(scene.world.devices[1], 1, {})
    contents.check_resurrection(scene.ledger, 1, scene.tree(1))


def test_3_at_rest_a_device_knows_again(scene):
    scene.act(0, ("write", "a.txt", b"one"))
    scene.come(1, "a.txt", b"one")
    scene.ledger.forget(scene.world.devices[0], 0, {})
    scene.ledger.rested(scene.world.devices)
    scene.act(0, ("write", "a.txt", b"two"))
    with breaks(3):
        contents.check_resurrection(scene.ledger, 1, scene.tree(1))


@pytest.mark.parametrize(
    ("inside", "brings"), [("", True), ("D", True), ("D/a.txt", True), ("D/a", False), ("E", False)]
)
def test_3_who_restores_something_keeps_what_was_there_and_nothing_else(scene, inside, brings):
    scene.act(0, ("make_directory", "D"), ("make_directory", "E"), ("write", "D/a.txt", b"one"))
    scene.come(1, "D/a.txt", b"one")
    scene.ledger.rested(scene.world.devices)
    scene.act(0, ("remove", "D/a.txt"))
    restores = scene.act(2, ("write", "other.txt", b"two"))
    scene.ledger.restore(restores, inside)
    with nullcontext() if brings else breaks(3):
        contents.check_resurrection(scene.ledger, 1, scene.tree(1))
