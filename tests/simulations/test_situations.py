"""The observer: what it makes of what users did, and that it takes two who had seen each other's work for no conflict."""

import pytest

from protocol.entries import Kind
from simulations.history.effects import Effects
from simulations.history.ledger import Ledger
from simulations.preparation import prepared
from simulations.situations import catalogue
from simulations.situations.observer import Observer
from simulations.situations.operations import What
from simulations.situations.record import Fault, Life, Loss, Record, Send, Stroke
from simulations.watcher import ALL
from simulations.world import World

BASE = {"f": b"kiwi-one", "g": b"kiwi-two", "D/f": b"kiwi-three", "E/f": b"kiwi-four"}


def record_of(*acts, seen=()):
    """Return what a history leaves in which no agent runs.

    Each act is the number of a device and what its user does there; after those numbered in ``seen``, every other user's
    disk is made to show it, as if an agent had brought it.
    """
    found = []

    async def story(world):
        ledger = Ledger(len(world.devices))
        observer = Observer(world, ledger, ("plain",) * len(world.devices))
        ledger.on_action = observer.act
        for device in world.devices:
            for path, data in BASE.items():
                device.user.write(device.path(path), data, parents=True)
        ledger.rested(world.devices)
        for number, (who, act) in enumerate(acts):
            device = world.devices[who]
            with ledger.acting(device, who, f"does {number}"):
                act(device.user, device.path)
            if number in seen:
                for other in world.devices:
                    if other is not device:
                        act(other.user, other.path)
        found.append(observer.record)

    World(1, prepared()).run(story, begins=False)
    return found[0]


def reached(*acts, seen=()):
    return set(catalogue.reached(record_of(*acts, seen=seen)))


def edit(path, data=b"kiwi-edit"):
    return lambda user, at: user.write(at(path), data)


def move(path, to):
    return lambda user, at: user.rename(at(path), at(to))


def remove(path):
    return lambda user, at: user.remove_tree(at(path))


def make(path):
    return lambda user, at: user.make_directory(at(path))


def save(user, at):
    user.write(at(".goutputstream-1"), b"kiwi-new")
    user.rename(at(".goutputstream-1"), at("f"))


def swap(user, at):
    user.rename(at("f"), at("h"))
    user.rename(at("g"), at("f"))
    user.rename(at("h"), at("g"))


def turn_to_directory(user, at):
    user.remove(at("f"))
    user.make_directory(at("f"))


PAIRS = [
    (1, edit("f"), edit("f", b"kiwi-other")),
    (2, edit("f"), edit("f")),
    (3, edit("n"), edit("n", b"kiwi-other")),
    (4, edit("n"), edit("n")),
    (5, edit("f"), remove("f")),
    (9, remove("f"), lambda user, at: user.set_mtime(at("f"), 7)),
    (20, lambda user, at: user.truncate(at("f"), 0), edit("f")),
    (25, move("f", "n"), edit("f")),
    (26, move("f", "n"), move("f", "m")),
    (27, move("f", "n"), remove("f")),
    (28, move("f", "n"), edit("n")),
    (29, move("f", "n"), move("g", "n")),
    (31, swap, edit("f")),
    (33, move("f", "g"), edit("g")),
    (34, move("D", "N"), remove("D")),
    (35, move("D", "N"), edit("D/f")),
    (36, move("D", "N"), edit("D/n")),
    (37, move("D", "N"), move("D", "M")),
    (38, move("D", "N"), move("D/f", "D/n")),
    (39, move("D", "N"), remove("D/f")),
    (40, move("D", "E/D"), move("E", "D/E")),
    (46, move("D", "E/D"), remove("E")),
    (57, remove("D"), edit("D/n")),
    (58, remove("D"), edit("D/f")),
    (63, turn_to_directory, edit("f")),
    (65, edit("n"), make("n")),
]


@pytest.mark.parametrize(("number", "one", "other"), PAIRS)
def test_two_who_had_not_seen_each_other(number, one, other):
    assert number in reached((0, one), (1, other))
    assert number in reached((0, other), (1, one))


@pytest.mark.parametrize(("number", "one", "other"), PAIRS)
def test_one_alone_is_none_of_them(number, one, other):
    if number != 20:
        assert number not in reached((0, one))
    assert number not in reached((0, other))


@pytest.mark.parametrize(
    ("number", "one", "other"), [pair for pair in PAIRS if pair[0] in {1, 3, 36, 58, 38} and pair[0] != 58]
)
def test_who_had_seen_the_first_is_in_no_conflict(number, one, other):
    try:
        found = reached((0, one), (1, other), seen=(0,))
    except FileNotFoundError:
        return  # what he meant is not there any more
    assert number not in found


def test_what_is_of_an_earlier_rest_is_no_conflict():
    record = record_of((0, edit("f")), (1, edit("f", b"kiwi-other")))
    first, second = record.deeds
    record.deeds[1] = second._replace(epoch=first.epoch + 1)
    assert 1 not in catalogue.reached(record)


def test_a_save_by_rename_is_an_edit():
    found = reached((0, save), (1, edit("f")))
    assert {1} <= found
    [operation] = [op for op in record_of((0, save)).deeds[0].operations if op.path == "f"]
    assert operation.what is What.EDIT


def test_an_exchange_of_names_is_no_edit():
    record = record_of((0, swap))
    assert [op.what for op in record.deeds[0].operations] == [What.MOVE, What.MOVE]
    assert 30 in catalogue.reached(record)


def test_what_goes_with_its_directory_is_no_operation_of_its_own():
    [operation] = record_of((0, move("D", "N"))).deeds[0].operations
    assert (operation.what, operation.path, operation.to) == (What.MOVE, "D", "N")
    [operation] = record_of((0, remove("D"))).deeds[0].operations
    assert (operation.what, operation.path) == (What.REMOVE, "D")


def test_three_who_edit_one_file():
    found = reached((0, edit("f")), (1, edit("f", b"kiwi-b")), (2, edit("f", b"kiwi-c")))
    assert 150 in found
    assert 150 not in reached((0, edit("f")), (1, edit("f", b"kiwi-b")), (0, edit("f", b"kiwi-c")))


def test_a_fault_is_told_by_its_kind_and_what_it_was():
    record = record_of((0, edit("f")))
    fault = Fault("set_back_device", 1)
    fault.machines, fault.facts = ("device-1",), {"files": True, "database": True}
    record.faults.append(fault)
    assert {114} <= set(catalogue.reached(record))
    fault.facts = {"files": True, "database": False}
    assert 114 not in catalogue.reached(record)
    assert 116 in catalogue.reached(record)


def test_a_fault_that_nothing_met_is_no_situation():
    record = record_of((0, edit("f")))
    kinds = {"lie": 142, "spoil": 135, "garble": 144, "rot": 135, "hide_root": 74, "reset": 154, "fail_disk": 108}
    for kind in kinds:
        fault = Fault(kind, 0)
        fault.machines, fault.effects = ("device-1",), Effects()
        record.faults.append(fault)
    assert not set(kinds.values()) & set(catalogue.reached(record))
    for fault in record.faults:
        fault.effects.add()
    assert set(kinds.values()) <= set(catalogue.reached(record))


def fault_of(kind, machine, until_ns=None, **facts):
    fault = Fault(kind, 0)
    fault.machines, fault.facts, fault.until_ns = (machine,), facts, until_ns
    return fault


def test_a_watcher_counts_that_lost_something_after_an_action():
    record = record_of((0, edit("f")))
    assert 98 not in catalogue.reached(record)
    record.losses.append(Loss(record.deeds[0].time_ns, 1, ALL))
    assert 98 not in catalogue.reached(record)
    record.losses.append(Loss(record.deeds[0].time_ns, 0, ALL))
    assert 98 in catalogue.reached(record)


def test_a_clock_counts_that_its_user_acted_by():
    record = record_of((0, edit("f")), (1, edit("f", b"kiwi-other")))
    record.faults = [fault_of("jump_clock", "node-0"), fault_of("jump_clock", "device-2")]
    assert not {111, 120} & set(catalogue.reached(record))
    record.faults = [fault_of("jump_clock", "device-0")]
    assert 111 in catalogue.reached(record)
    assert 120 not in catalogue.reached(record), "no clock shows another time"
    record.deeds[0] = record.deeds[0]._replace(wall_ns=record.deeds[0].wall_ns + 20 * 366 * 86_400 * 1_000_000_000)
    assert 120 in catalogue.reached(again(record))


def again(record):
    """Return a record of the same, of which nothing was asked yet."""
    other = Record(record.devices, record.personalities)
    other.deeds, other.faults, other.sends = record.deeds, record.faults, record.sends
    return other


def test_a_way_counts_as_shut_to_who_sent_something_on_it():
    record = record_of((0, edit("f")))
    way, back = ("coordinator", "device-1"), ("device-1", "coordinator")
    fault = fault_of("cut", "device-1", until_ns=9)
    fault.facts = {"ways": [way], "until_ns": {way: 9}}
    record.faults = [fault]
    assert not {143, 155} & set(catalogue.reached(record))
    record.sends = [Send(5, *way)]
    assert 155 not in catalogue.reached(record)
    record.sends.append(Send(6, *back))
    assert 155 in catalogue.reached(record)
    record.sends = [Send(10, *way), Send(11, *back)]
    assert 155 not in catalogue.reached(record), "it was open again"


def test_a_cut_of_power_counts_that_took_what_a_process_had_placed():
    record = record_of((0, edit("f")))
    record.strokes.append(Stroke(5, 1, "g", True, Kind.FILE, b"kiwi", 4))
    record.lives.append(Life(6, "device-1", "power"))
    assert 104 not in catalogue.reached(record)
    record.lives.append(Life(7, "device-1", "power", ("g",)))
    assert 104 not in catalogue.reached(record), "its name is gone, too"
    record.lives.append(Life(7, "device-1", "power", ("h",), ("h",)))
    assert 104 not in catalogue.reached(record), "nobody wrote it"
    record.lives.append(Life(7, "device-1", "power", ("g",), ("g",)))
    assert 104 in catalogue.reached(record)


def test_a_lost_disk_counts_that_held_something():
    record = record_of((0, edit("f")))
    record.faults = [fault_of("lose_a_disk", "node-0", packs=0)]
    assert 136 not in catalogue.reached(record)
    record.faults = [fault_of("lose_a_disk", "node-0", packs=1)]
    assert 136 in catalogue.reached(record)


def test_two_large_versions_count_that_both_were_sent():
    large = [edit("f", bytes([number]) * 3_000_000) for number in range(2)]
    record = record_of((0, large[0]), (1, large[1]))
    time_ns = record.deeds[1].time_ns
    assert 22 not in catalogue.reached(record)
    record.sends = [Send(time_ns + 1, "device-0", "node-0")]
    assert 22 not in catalogue.reached(record)
    record.sends.append(Send(time_ns + 1, "device-1", "node-0"))
    assert 22 in catalogue.reached(record)


def test_each_situation_is_recognised_or_has_a_reason():
    assert list(catalogue.WORDS) == list(range(1, 158))
    assert set(catalogue.JUDGES) | set(catalogue.NOT_REACHED) == set(catalogue.WORDS)
    assert not set(catalogue.JUDGES) & set(catalogue.NOT_REACHED)
    assert [number for numbers in catalogue.SECTIONS.values() for number in numbers] == list(catalogue.WORDS)


def test_coverage_is_what_enough_histories_came_through():
    counts = {1: 10, 2: 9}
    assert catalogue.covered(counts) == [1]
    lines = list(catalogue.coverage_lines(counts, 12))
    assert lines[0] == "situations: 1 of 157 reached in 10 or more of 12 histories"
    assert len(lines) == 158
