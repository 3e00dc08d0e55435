"""People of a history: what they leave behind where they cannot end what they began."""

from __future__ import annotations

import asyncio
from random import Random

import pytest

from simulations.devices import AWAY, ROOT
from simulations.history import commands, oddities, saves
from simulations.history.ledger import Ledger, look
from simulations.history.people import GivenUp, Person
from simulations.preparation import prepared
from simulations.world import World
from tests.simulations.test_ledger import Scene, of


def test_a_program_that_cannot_go_on_holds_nothing_open():
    """The history 7000146: the folder was away, and nobody but that program could ever have let go of the file."""

    async def story(world):
        device = world.devices[0]
        person = Person(device, 0, Ledger(3), Random(1))
        writing = asyncio.create_task(saves.slowly(person))
        await asyncio.sleep(0)
        (name,) = [path for path in look(device) if path.startswith("kiwi")]
        file = device.disk.at(f"{ROOT}/{name}")
        assert file.writers
        device.user.rename(ROOT, AWAY)
        with pytest.raises(GivenUp):
            await writing
        assert not file.writers
        device.user.rename(AWAY, ROOT)

    World(1, prepared()).run(story)


def test_who_would_write_the_same_again_gives_up_where_it_is_no_file_any_more():
    """The history 7000375."""

    async def story(world):
        device = world.devices[0]
        person = Person(device, 0, Ledger(3), Random(1))
        device.user.write(device.path("a.txt"), b"one")
        writing = asyncio.create_task(oddities.same_bytes(person))
        await asyncio.sleep(0)
        (copy,) = [path for path in look(device) if path.startswith("kiwi")]
        device.user.remove(device.path(copy))
        device.user.make_directory(device.path(copy))
        with pytest.raises(GivenUp):
            await writing

    World(1, prepared()).run(story)


def test_who_takes_rules_away_leaves_what_is_a_directory_by_then():
    async def story(world):
        device = world.devices[0]
        ignoring = asyncio.create_task(oddities.ignore(Person(device, 0, Ledger(3), Random(1))))
        rules = device.path(".kinignore")
        await asyncio.sleep(6.0)
        device.user.remove(rules)
        device.user.make_directory(rules)
        await ignoring
        assert device.user.is_directory(rules)

    World(1, prepared()).run(story)


def test_who_drops_a_copy_drops_what_it_is_by_then():
    """The history 7000560."""
    scene = Scene()
    for number in range(2):
        scene.come(number, "a.txt", b"one")
        scene.come(number, "b.txt", b"two")
    scene.act(0, ("write", "a.txt", b"three"))
    scene.act(0, ("write", "b.txt", b"four"))
    person = Person(scene.world.devices[1], 1, scene.ledger, Random(1))
    scene.ledger.put[1] = {of(b"three"): 7, of(b"four"): 7}
    assert commands.newer(person, frozenset([of(b"one")]), 7) == {of(b"three")}
    assert not commands.newer(person, frozenset([of(b"one")]), 8), "it came before"
    scene.come(1, "a.txt", b"three")
    assert not commands.newer(person, frozenset([of(b"one")]), 7), "it stands there yet"


def test_a_restore_that_was_refused_brings_nothing_back():
    async def story(world):
        device, ledger = world.devices[0], Ledger(3)
        person = Person(device, 0, ledger, Random(1))
        with person.acting("writes"):
            person.hands.write(person.path("a.txt"), b"one")
        await device.sync()
        with pytest.raises(GivenUp):
            await commands.bring_back(person, "b.txt", 0)
        device.kill()
        with pytest.raises(GivenUp):
            await commands.bring_back(person, "", 0)
        assert not ledger.restores
        await device.start()
        await commands.bring_back(person, "", 0)
        (restore,) = ledger.restores
        assert restore.contents == {of(b"one")}
        assert [asked.path for asked in ledger.asked] == ["b.txt", "", ""]

    World(1, prepared()).run(story)
