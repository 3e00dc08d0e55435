"""Checks of the log and of what entries say: each is shown what holds, then what does not."""

from __future__ import annotations

from contextlib import nullcontext
from functools import partial

import pytest
from blake3 import blake3
from msgspec.structs import replace

from protocol.entries import parse_entry
from protocol.history import ItemKind
from protocol.ids import Dot
from simulations.checks import at_rest, causality, journal
from simulations.checks.watch import Watch
from simulations.history.ledger import Ledger
from simulations.preparation import prepared
from simulations.world import World
from tests.builders import Author
from tests.protocol.chain_world import TestAccount, TestFolder
from tests.simulations.test_checks import breaks, sql


def logged(tamper, take=at_rest.check):
    """Write on one device, come to rest, tamper with something, and look at all logs for the first time."""

    async def story(world):
        ledger = Ledger(3)
        watch = Watch(world, ledger)
        first = world.devices[0]
        with ledger.acting(first, 0, "writes"):
            first.user.write(first.path("a.txt"), b"one")
        await world.settle()
        ledger.rested(world.devices)
        tamper(world, ledger, watch)
        await take(world, ledger, watch)

    World(1, prepared()).run(story)


def everywhere(query):
    def tamper(world, *_):
        for machine in (world.coordinator, *world.devices):
            machine.rows(query)

    return tamper


async def nothing(*_):
    pass


def lose_one(world, _, watch, *, but=()):
    """Let an entry of device-0 have been in the log."""
    (data,) = world.coordinator.rows(f"SELECT data FROM log WHERE kind = {ItemKind.ENTRY:d}")[-1]
    watch.journals.lost[bytes(32)] = parse_entry(data)
    watch.journals.set_back.update(but)


FRESH = {
    "an item came at another time than its chain says": (
        10,
        everywhere("UPDATE log SET time_ms = time_ms + 1 WHERE position = 2"),
    ),
    "one device has another item": (12, sql("device", "UPDATE log SET time_ms = 1 WHERE position = 2")),
    "an entry that was ordered is in the log no more": (13, lose_one),
}


@pytest.mark.parametrize("what", FRESH)
def test_the_log(what):
    number, tamper = FRESH[what]
    with breaks(number):
        logged(tamper)


@pytest.mark.parametrize("who", ["device-0", "device-1"])
def test_13_what_was_lost_with_its_author_may_stay_away(who):
    with nullcontext() if who == "device-0" else breaks(13):
        logged(partial(lose_one, but=[who]))


def test_13_who_has_his_files_put_back_alone_knows_what_he_wrote():
    async def story(world):
        journals = journal.Journals()
        one, two, _ = world.devices
        for device, forgets in ((one, False), (two, True)):
            device.kill()
            with journal.going_back(world, journals, device, forgets=forgets):
                pass
        assert journals.set_back == {"device-1"}

    World(1, prepared()).run(story)


def tell_otherwise(machine, *, more=0):
    """Let a machine's log say that all from its second item on came at another time, and have items after its last."""
    head, chain = machine.rows("SELECT max(position) FROM log")[0][0], machine.rows("SELECT chain FROM log")[0][0]
    for position in range(head + 1, head + 1 + more):
        made = f"SELECT folder, {position}, chain, {ItemKind.VOID}, data, time_ms FROM log WHERE position = {head}"
        machine.rows(f"INSERT INTO log (folder, position, chain, kind, data, time_ms) {made}")
    for position, kind, data in machine.rows("SELECT position, kind, data FROM log WHERE position > 1"):
        item = journal.Item(b"", kind, data, 1)
        chain = blake3(chain + bytes([kind]) + journal._hash(item) + (1).to_bytes(8, "big")).digest()
        machine.rows(f"UPDATE log SET time_ms = 1, chain = x'{chain.hex()}' WHERE position = {position}")


def test_12_a_fork_that_nobody_could_see_coming_is_judged_by_what_comes_of_it():
    def tamper(world, _, watch):
        watch.journals.may_fork = True
        tell_otherwise(world.devices[1])
        assert journal.is_forked(world)
        assert journal.agrees(world.devices[0], world.coordinator)
        assert not journal.agrees(world.devices[1], world.coordinator)

    logged(tamper)


def test_12_a_branch_may_go_on_beyond_the_other_and_is_checked_for_itself():
    def tamper(world, _, watch):
        watch.journals.may_fork = True
        journal.follow(world, watch.journals)
        watch.journals.heads.clear()
        for device in world.devices[1:]:
            tell_otherwise(device, more=2)
        journal.follow(world, watch.journals)
        first, second = (watch.journals.branches[device.name] for device in world.devices[1:])
        assert first is second
        assert len(first) == len(watch.journals.log) + 2
        world.devices[2].rows(f"UPDATE log SET time_ms = 2 WHERE position = {len(first)}")
        with breaks(10):
            journal.check(world, watch.journals)

    logged(tamper, nothing)


@pytest.mark.parametrize("behind", [False, True])
def test_12_who_is_set_back_below_all_others_can_be_told(behind):
    async def story(world):
        journals = journal.Journals()
        backup = world.coordinator.backup()
        if behind:
            world.network.go_offline("device-1")
            world.network.go_offline("device-2")
        first = world.devices[0]
        first.user.write(first.path("a.txt"), b"one")
        await (first.sync() if behind else world.settle())
        world.coordinator.kill()
        with journal.going_back(world, journals, world.coordinator):
            world.coordinator.restore(backup)
        assert journals.may_fork is behind
        head = journals.heads["device-0"]
        assert len(journals.log) == head > journals.heads["coordinator"]
        first.kill()
        with journal.going_back(world, journals, first):
            first.tamper(world.devices[1].kept_database)
        assert (len(journals.log) < head) is behind
        assert bool(journals.lost) is behind

    World(1, prepared()).run(story)


class Log:
    """What stands in a log that tests write, by author and number."""

    def __init__(self):
        account = TestAccount("anna")
        self.author = Author(TestFolder(account), account.device, 1)
        self.journals = journal.Journals()

    def append(self, *nodes, **how):
        journal._append_entry(self.journals, len(self.journals.at) + 1, parse_entry(self.author.entry(*nodes, **how)))


@pytest.mark.parametrize("how", [{"seq": 1}, {"previous": bytes(32)}])
def test_10_an_author_counts_up_and_names_the_entry_before(how):
    log = Log()
    log.append("a")
    log.append("b")
    with breaks(10):
        log.append("c", **how)


def test_11_an_entry_covers_itself_and_what_it_builds_on():
    log = Log()
    log.append("a")
    log.append(changes=[log.author.change("b", vector=((2, 9),))])
    log.append(changes=[log.author.change("a", [Dot(1, 1, 0)])])
    with breaks(11):
        log.append(changes=[log.author.change("b", [Dot(1, 2, 0)])], keep=False)
    with breaks(11):
        log.append(changes=[log.author.change("a", [Dot(2, 1, 0)])], keep=False)
    header = parse_entry(log.author.entry("c")).header
    causality.check_header(log.journals.at, 4, header)
    with breaks(11):
        causality.check_header(log.journals.at, 4, replace(header, changes=(replace(header.changes[0], vector=()),)))


def test_11_nobody_replaces_or_removes_what_never_stood_on_his_disk():
    async def story(world):
        ledger = Ledger(3)
        watch = Watch(world, ledger)
        one, two = world.devices[:2]
        with ledger.acting(one, 0, "writes"):
            one.user.write(one.path("a.txt"), b"one")
        await world.settle()
        ledger.contents[blake3(b"two").digest()] = 0
        two.user.write(two.path("a.txt"), b"two")
        await world.settle()
        journal.follow(world, watch.journals)
        causality.check(world, ledger, watch.journals.log, causality.Contents())
        ledger.put[1].clear()
        with breaks(11):
            causality.check(world, ledger, watch.journals.log, causality.Contents())

    World(1, prepared()).run(story)


def test_13_no_device_goes_back_to_an_earlier_state():
    def tamper(_, __, watch):
        watch.journals.applied["device-1"] = 99

    with breaks(13):
        logged(tamper)
