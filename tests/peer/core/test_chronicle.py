"""What became of a path, by the registers alone: the same as what folding each prefix of the log shows."""

from __future__ import annotations

import random

import pytest

from peer.core.chronicle import Chronicle, Event, Subject, ever_at
from peer.core.fold import fold
from peer.core.memory_state import MemoryState
from peer.core.tree import find, path_of
from tests.peer.core.devices import Device, Log, token_of, walk
from tests.peer.core.worlds import World, history


class One:
    """One device whose entries are ordered as it makes them."""

    def __init__(self) -> None:
        self.log = Log()
        self.device = Device(1, self.log)

    def do(self, act: str, *args: str | int) -> None:
        """Act, and have it ordered at once."""
        getattr(self.device, act)(*args)
        self.log.order(random.Random(1), 1_000)
        self.device.pull(len(self.log.ordered))
        self.device.apply()

    def versions(self, path: str) -> list[Event]:
        state = self.device.ordered_state
        rows = [row for entry in self.log.ordered for i in range(9) if (row := state.places.get(entry.dot(i)))]
        item = find(state.tree, path)
        subjects = [] if item is None else [Subject(each.node, each.content) for each in item.members]
        return Chronicle(state).of_path(path, subjects, ever_at(rows, path))

    def told(self, path: str) -> list[tuple[str, str]]:
        return [(event.change, event.path) for event in reversed(self.versions(path))]


@pytest.fixture
def one() -> One:
    return One()


def test_each_of_200_versions_is_one_row(one):
    one.do("create", "f", "t0")
    for number in range(1, 200):
        one.do("edit", "f", f"t{number}")
    versions = one.versions("f")
    assert [event.position for event in versions] == list(range(200, 0, -1))
    assert {event.change for event in versions[:-1]} == {"edited"}
    assert versions[-1].change == "created"


def test_it_follows_renames_of_the_file_and_of_what_it_is_in(one):
    one.do("create", "a", "DIR")
    one.do("create", "a/f", "t1")
    one.do("move", "a/f", "a/g")
    one.do("move", "a", "b")
    one.do("touch", "b/g", 7)
    told = [("created", "a/f"), ("renamed", "a/g"), ("renamed", "b/g"), ("attributes", "b/g")]
    assert one.told("b/g") == told
    assert one.told("a/g") == told[:3]
    assert one.told("a/f") == told[:2]


def test_a_removed_file_has_a_history_which_goes_on_when_it_is_made_anew(one):
    one.do("create", "d", "DIR")
    one.do("create", "d/f", "t1")
    one.do("remove", "d")
    assert one.told("d/f") == [("created", "d/f"), ("removed", "d/f")]
    one.do("create", "d", "DIR")
    one.do("create", "d/f", "t1")
    assert one.told("d/f") == [("created", "d/f"), ("removed", "d/f"), ("restored", "d/f")]
    assert one.told("d") == [("created", "d"), ("removed", "d"), ("restored", "d")]
    one.do("edit", "d/f", "t2")
    one.do("edit", "d/f", "t1")
    assert one.told("d/f")[-2:] == [("edited", "d/f"), ("restored", "d/f")]


def test_an_empty_file_that_was_removed_and_is_back_was_restored(one):
    one.do("create", "f", "")
    one.do("remove", "f")
    one.do("create", "f", "")
    assert one.told("f") == [("created", "f"), ("removed", "f"), ("restored", "f")]


def test_who_stood_there_before_counts_until_he_left(one):
    one.do("create", "log", "t1")
    one.do("move", "log", "log.1")
    one.do("create", "log", "t2")
    one.do("edit", "log.1", "t3")
    assert one.told("log") == [("created", "log"), ("renamed", "log.1"), ("created", "log")]
    assert one.told("log.1") == [("created", "log"), ("renamed", "log.1"), ("edited", "log.1")]
    assert one.told("never") == []


def test_a_path_is_where_folding_the_prefix_shows_it():
    """For every item of random histories of one device, at every position."""
    for seed in range(12):
        chance, one = random.Random(seed), One()
        for number in range(30):
            random_act(one, chance, number)
        chronicle = Chronicle(one.device.ordered_state)
        prefix = MemoryState()
        for position, entry in enumerate(one.log.ordered, start=1):
            fold(prefix, [entry], position=position)
            for item in walk(prefix.tree):
                assert chronicle.path(item.id, position) == path_of(prefix.tree, item.id), (seed, position)


def test_a_file_that_was_made_anew_is_found_without_folding(one):
    one.do("create", "d", "DIR")
    one.do("create", "d/f", "t1")
    one.do("edit", "d/f", "t2")
    one.do("remove", "d/f")
    one.do("create", "d/f", "t3")
    one.do("move", "d/f", "g")
    state = one.device.ordered_state
    rows = [row for entry in one.log.ordered for i in range(9) if (row := state.places.get(entry.dot(i)))]
    chronicle, current = Chronicle(state), find(state.tree, "g")
    found = [chronicle.file_at("d/f", ever_at(rows, "d/f"), None, position) for position in range(1, 7)]
    assert [item and token_of(item.content) for item in found] == [None, "t1", "t2", None, "t3", None]
    assert current is not None
    then = chronicle.file_at("g", ever_at(rows, "g"), current.id, 5)
    assert then is not None
    assert (then.name, token_of(then.content)) == ("f", "t3")
    assert [item.name for item in chronicle.way_to(then, 5)] == ["d"]


def test_a_file_found_without_folding_is_what_folding_finds():
    """In random histories of several devices, wherever it says that it is sure."""
    sure = asked = 0
    for seed in range(40):
        world = World(3)
        for act in history(seed)[1]:
            world.step(act)
        world.settle()
        entries = world.log.ordered
        whole, prefix = MemoryState(), MemoryState()
        fold(whole, entries, position=1)
        rows = [row for entry in entries for i in range(200) if (row := whole.places.get(entry.dot(i)))]
        chronicle = Chronicle(whole)
        for position, entry in enumerate(entries, start=1):
            fold(prefix, [entry], position=position)
            for item in walk(prefix.tree):
                path = path_of(prefix.tree, item.id) or ""
                found = chronicle.file_at(path, ever_at(rows, path), None, position)
                asked += not item.is_directory
                sure += found is not None
                if found is not None:
                    assert (found.id, found.content) == (item.id, item.content), (seed, position, path)
    assert sure > asked / 10


def random_act(one: One, chance: random.Random, number: int) -> None:
    items = one.device.paths()
    folders = ["", *(path for path, item in items.items() if item.is_directory)]
    files = [path for path, item in items.items() if not item.is_directory]
    above = chance.choice(folders)
    fresh = f"{above}/n{number}".lstrip("/")
    match chance.choice(["create", "create", "mkdir", "edit", "move", "movedir", "remove"]):
        case "edit" if files:
            one.do("edit", chance.choice(files), f"t{number}")
        case "move" if files:
            one.do("move", chance.choice(files), fresh)
        case "movedir" if len(folders) > 2:
            source = chance.choice(folders[1:])
            if source != above and not above.startswith(source + "/"):
                one.do("move", source, fresh)
        case "remove" if len(items) > 6:
            one.do("remove", chance.choice(sorted(items)))
        case "mkdir":
            one.do("create", fresh, "DIR")
        case _:
            one.do("create", fresh, f"t{number}")
