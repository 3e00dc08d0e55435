"""A trouble counts only where something met it: a link that carries nothing is not cut in effect, nor is a disk full that has room."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest

from simulations.history import mischief, runs, troubles
from simulations.history.course import Course
from simulations.history.effects import Effects
from simulations.history.options import FAULTS_MIN
from simulations.history.people import GivenUp
from simulations.history.script import Event, What
from simulations.preparation import prepared
from simulations.world import World

SEED = 4


def test_what_is_watched_counts_until_its_end():
    seen: Counter[str] = Counter()
    effects = Effects()
    over = effects.watch(lambda: seen["one"])
    effects.watch(lambda: seen["other"])
    effects.add()
    seen.update(one=2, other=3)
    assert effects.times == 6
    over()
    over()
    seen.update(one=100)
    assert effects.times == 6
    seen.update(other=1)
    effects.end()
    seen.update(other=100)
    assert effects.times == 7


def in_a_course(story, *, begins=False):
    """Do something in a history in which nothing else happens."""
    script = runs.script_of(SEED)
    script = script._replace(events=(), is_drawn=False, options=script.options._replace(devices=3))

    async def tell(world):
        await story(Course(world, script))

    World(1, prepared()).run(tell, begins=begins)


async def calm(course):
    course._is_calm.set()
    for task in course._later:
        await task


@pytest.mark.parametrize("make", [troubles.cut, troubles.clog])
def test_a_way_on_which_nothing_is_sent_is_shut_to_nobody(make):
    async def story(course):
        made = await make(course, Random(3))
        assert made.effects.times == 0
        links = [course.world.network.link(*way) for way in made.facts["ways"]]
        links[0].arrival_ns(10)
        assert made.effects.times == 10
        await calm(course)
        links[0].arrival_ns(10)
        assert made.effects.times == 10
        assert set(made.facts["until_ns"]) == set(made.facts["ways"])

    in_a_course(story)


@pytest.mark.parametrize("make", [troubles.half_open, troubles.set_back_coordinator, troubles.set_back_device])
def test_what_can_take_no_effect_is_not_made(make):
    async def story(course):
        with pytest.raises(GivenUp):
            await make(course, Random(1))

    in_a_course(story)


def test_a_coordinator_goes_back_only_from_what_it_has_ordered_since():
    async def story(course):
        course._keep_images(0)
        with pytest.raises(GivenUp):
            await troubles.set_back_coordinator(course, Random(1))
        person = course.people[0]
        with person.acting("writes"):
            person.hands.write(person.path("kiwi-a"), b"kiwi")
        await person.device.sync(60.0)
        made = await troubles.set_back_coordinator(course, Random(1))
        assert made.facts["since_ns"] < course.world.loop.now_ns

    in_a_course(story, begins=True)


@pytest.mark.parametrize(("files", "database"), [(True, False), (False, True)])
def test_a_device_goes_back_only_from_what_is_otherwise_since(files, database):
    async def story(course):
        course._keep_images(0)
        image, person = course.image, course.people[0]
        facts = await course.set_back(image, files=files, database=False)
        assert (facts["files"], facts["database"]) == (False, False)
        with person.acting("writes"):
            person.hands.write(person.path("kiwi-a"), b"kiwi")
        await person.device.sync(60.0)
        facts = await course.set_back(image, files=files, database=database)
        assert (facts["files"], facts["database"]) == (files, database)

    in_a_course(story, begins=True)


def test_a_crash_counts_once_it_comes():
    async def story(course):
        made = await troubles.crash_soon(course, Random(1))
        machine = next(one for one in course.world.machines if one.name == made.machines[0])
        assert made.effects.times == 0
        host = machine.host
        host.crash_at = host.effects + 1
        host.on_crash()
        assert made.effects.times == 1
        assert not machine.is_running

    in_a_course(story, begins=True)


def test_a_full_disk_counts_what_found_no_room():
    async def story(course):
        made = await mischief.fill_disk(course, Random(1))
        device = next(one for one in course.world.devices if one.name == made.machines[0])
        disk = next(one for one in device.disks if one.capacity_bytes < 1 << 40)
        assert made.effects.times == 0
        disk.refused += 2
        assert made.effects.times == 2
        await calm(course)
        disk.refused += 2
        assert made.effects.times == 2

    in_a_course(story)


def test_messages_count_that_came_twice():
    async def story(course):
        made = await mischief.repeat(course, Random(1))
        assert made.effects.times == 0
        with pytest.raises(GivenUp):
            await mischief.repeat(course, Random(1))
        course.world.network.link(made.machines[0], "coordinator").repeats -= 1
        assert made.effects.times == 1

    in_a_course(story)


def test_a_history_of_faults_that_nothing_meets_gets_others(monkeypatch):
    """A device goes back once in a history, or twice."""
    options = runs.options_of(SEED)._replace(troubles=(("set_back_device", 1),), restarts=False)
    monkeypatch.setattr(runs, "options_of", lambda _: options)
    result = runs.live(SEED)
    assert not result.failure, result.failure
    assert result.faults >= FAULTS_MIN
    assert {"kill", "cut_power"} & result.counts.keys()


def test_a_trouble_lasts_as_long_as_its_own_end():
    """Not as long as that of a machine which would not start, and is started again while another trouble is made."""
    script = runs.script_of(SEED)
    events = [Event(0, What.TROUBLE, 0.5, "kill"), Event(1, What.TROUBLE, 0.5, "jump_clock")]
    lived = runs.play(script._replace(events=tuple(events), is_drawn=False), observes=True)
    kill, jump = lived.record.faults
    assert (kill.kind, jump.kind) == ("kill", "jump_clock")
    assert kill.until_ns is not None
    assert jump.until_ns is None
