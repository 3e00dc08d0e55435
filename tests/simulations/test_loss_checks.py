"""Which contents may be gone: invariants 1 and 16, by the ledger alone."""

from __future__ import annotations

from random import Random

import pytest

from simulations.checks import contents
from simulations.devices import AWAY, ROOT
from tests.simulations.test_checks import breaks, lived
from tests.simulations.test_ledger import Scene, of


@pytest.fixture
def scene():
    return Scene()


def test_1_what_nobody_removed_must_be_there(scene):
    scene.act(0, ("write", "a.txt", b"one"))
    contents.check_loss(scene.ledger, 0, scene.tree(0))
    with breaks(1):
        contents.check_loss(scene.ledger, 1, scene.tree(1))
    scene.act(0, ("remove", "a.txt"))
    contents.check_loss(scene.ledger, 1, scene.tree(1))


def test_1_who_gives_a_file_a_name_that_stays_on_its_device_takes_it_from_the_others(scene):
    scene.act(0, ("write", "~1.tmp", b"one"))
    scene.act(0, ("rename", "~1.tmp", "a.txt"))
    with breaks(1):
        contents.check_loss(scene.ledger, 1, scene.tree(1))
    scene.act(0, ("rename", "a.txt", "~1.tmp"))
    contents.check_loss(scene.ledger, 1, scene.tree(1))


def test_1_what_somebody_put_there_again_after_all_that_removed_it_must_be_there(scene):
    scene.act(0, ("write", "a.txt", b"one"))
    scene.ledger.rested(scene.world.devices)
    scene.act(0, ("remove", "a.txt"))
    contents.check_loss(scene.ledger, 1, scene.tree(1))
    scene.act(1, ("write", "a.txt", b"one"))
    contents.check_loss(scene.ledger, 2, scene.tree(2))  # who wrote it knew nothing of the removal: it may be no change
    scene.act(0, ("write", "b.txt", b"one"))
    with breaks(1):
        contents.check_loss(scene.ledger, 2, scene.tree(2))
    scene.act(0, ("rename", "b.txt", "c.txt"))
    with breaks(1):
        contents.check_loss(scene.ledger, 2, scene.tree(2))
    scene.act(0, ("remove", "c.txt"))
    contents.check_loss(scene.ledger, 2, scene.tree(2))


def test_1_of_what_was_put_there_again_each_place_is_removed_anew(scene):
    scene.act(0, ("write", "a.txt", b"one"), ("make_directory", "D"))
    scene.act(0, ("copy", "a.txt", "b.txt"))
    scene.act(0, ("remove", "a.txt"), ("remove", "b.txt"))
    scene.act(0, ("write", "a.txt", b"one"), ("write", "b.txt", b"one"))
    scene.act(0, ("remove", "a.txt"))
    with breaks(1):
        contents.check_loss(scene.ledger, 2, scene.tree(2))
    scene.come(1, "b.txt", b"one")
    scene.come(1, "a.txt", b"one")
    scene.act(1, ("remove", "b.txt"))
    contents.check_loss(scene.ledger, 2, scene.tree(2))


def test_1_what_got_a_name_again_that_others_see_must_be_there(scene):
    scene.act(0, ("write", "a.txt", b"one"))
    scene.act(0, ("rename", "a.txt", "~1.tmp"))
    contents.check_loss(scene.ledger, 1, scene.tree(1))
    scene.act(0, ("rename", "~1.tmp", "a.txt"))
    with breaks(1):
        contents.check_loss(scene.ledger, 1, scene.tree(1))


def test_16_what_was_said_to_be_safe_must_be_there(scene):
    scene.act(0, ("write", "a.txt", b"one"))
    scene.ledger.acknowledge(scene.tree(0), 0)
    with breaks(16):
        contents.check_loss(scene.ledger, 1, scene.tree(1))


def test_1_says_nothing_of_what_stays_on_a_device_and_of_what_a_backup_took(scene):
    scene.act(0, ("write", "~1.tmp", b"one"), ("write", "b.txt", b"two"))
    scene.ledger.excused[next(iter(scene.ledger.contents))] = ""
    scene.ledger.excused.update(dict.fromkeys(scene.ledger.contents, "put back"))
    contents.check_loss(scene.ledger, 1, scene.tree(1))
    scene.ledger.excused.clear()
    with breaks(1):
        contents.check_loss(scene.ledger, 1, scene.tree(1))


def test_1_a_backup_takes_only_what_was_on_no_other_device(scene):
    one = of(b"one")
    scene.act(0, ("write", "a.txt", b"one"))
    assert scene.ledger.is_alone(0, one)
    scene.ledger.put[0][one] = 0
    assert scene.ledger.is_alone(0, one)
    scene.ledger.put[1][one] = 0
    assert not scene.ledger.is_alone(0, one), "a process of another device showed it"
    scene.ledger.put[1].clear()
    scene.come(1, "b.txt", b"one")
    scene.ledger.see(scene.world.devices[1], 1)
    assert not scene.ledger.is_alone(0, one), "another user saw it"
    scene.ledger.sights[1].clear()
    scene.ledger.acknowledged[one] = 0
    assert not scene.ledger.is_alone(0, one), "the device said that it is safe"
    scene.ledger.acknowledged.clear()
    scene.ledger.rested(scene.world.devices)
    assert not scene.ledger.is_alone(0, one), "all were at rest"
    scene.act(0, ("remove", "a.txt"))
    scene.ledger.sights[1].clear()
    scene.act(0, ("write", "a.txt", b"one"))
    assert scene.ledger.is_alone(0, one), "what all had was removed, and this is another"


def test_1_what_another_device_showed_is_not_excused_by_a_backup():
    async def act(course):
        course._keep_images(0)
        image, device = course.image, course.world.devices[0]
        person = course.person(0, Random(0))
        for name, content in (("a.txt", b"one"), ("b.txt", b"two")):
            with person.acting("writes"):
                person.hands.write(person.path(name), content)
        course.ledger.put[1][of(b"one")] = device.loop.now_ns
        await course.set_back(image, files=True, database=True)
        assert set(course.ledger.excused) == {of(b"two")}

    lived(act)


def test_3_a_backup_from_when_the_folder_was_away_removes_nothing():
    async def act(course):
        device, person = course.world.devices[0], course.person(0, Random(0))
        for name, content in (("a.txt", b"one"), ("b.txt", b"two")):
            with person.acting("writes"):
                person.hands.write(person.path(name), content)
            if name == "a.txt":
                device.user.rename(ROOT, AWAY)
                course._keep_images(0)
                device.user.rename(AWAY, ROOT)
        await course.set_back(course.image, files=True, database=False)
        assert not course.ledger.enders.get(of(b"one"))
        assert course.ledger.enders[of(b"two")]
        device.user.rename(AWAY, ROOT)

    lived(act)
