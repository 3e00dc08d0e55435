"""Mass changes in a log: whose entries belong together, what is much, and in which order they are found."""

from __future__ import annotations

import pytest

from peer.core.mass_changes import MARKS_MAX, PAUSE_MS, Mark, Recorded, came_back, marks_of, mass_changes
from protocol import codec
from protocol.entries import ContentValue, Kind, PlaceValue, Register, RemovalValue
from protocol.ids import ROOT, Dot
from tests.peer.core.entries import entry, node
from tests.peer.core.trees import tree

FILES = [f"f{number}" for number in range(10)]
SECOND = 1_000


class Log:
    """A log written from its beginning to its end."""

    def __init__(self) -> None:
        self._recorded: list[Recorded] = []
        self._directories: set[Dot] = set()
        self._seq = 0
        self._dot: dict[str, Dot] = {}

    def _add(self, time_ms, device, *written):
        self._recorded.append(Recorded(time_ms, entry(device, self._seq, *written)))

    def make(self, time_ms, *names, device=1, kind=Kind.FILE):
        for name in names:
            self._seq += 1
            place = (node(name), Register.PLACE, (), PlaceValue(ROOT, name.encode(), weak=False))
            self._add(time_ms, device, place, (node(name), Register.CONTENT, (), content(name, kind)))
            self._dot[name] = Dot(device, self._seq, 1)
            if kind is Kind.DIRECTORY:
                self._directories.add(self._dot[name])

    def remove(self, time_ms, *names, device=1):
        self._seq += 1
        self._add(
            time_ms,
            device,
            *[
                (node(n), Register.PLACE, (Dot(1, 1, 0),), RemovalValue((self._dot[n],), ROOT, n.encode(), bytes(16)))
                for n in names
            ],
        )

    def write(self, time_ms, *names, device=1, data="new"):
        self._seq += 1
        self._add(
            time_ms,
            device,
            *[(node(n), Register.CONTENT, (self._dot[n],), content(f"{data} {n}", Kind.FILE)) for n in names],
        )
        for index, name in enumerate(names):
            self._dot[name] = Dot(device, self._seq, index)

    def find(self, files):
        backwards = list(reversed(self._recorded))
        return list(mass_changes(backwards, files=files, is_file=lambda dot: dot not in self._directories))


def content(data, kind):
    return ContentValue(kind, None, data.encode(), len(data), 0, False, b"", "", ())


@pytest.fixture
def log():
    """Ten files, made long ago."""
    log = Log()
    log.make(0, *FILES)
    return log


LATER = 100 * PAUSE_MS


def names(change):
    return sorted(each.node.rstrip(b".").decode() for each in (*change.removed, *change.rewritten))


def test_more_than_half_of_what_was_there_is_found(log):
    log.remove(LATER, *FILES[:6])
    (found,) = log.find(files=4)
    assert names(found) == FILES[:6]
    assert (found.time_ms, found.rewritten) == (LATER, ())


def test_half_is_not(log):
    log.remove(LATER, *FILES[:5])
    assert log.find(files=5) == []


def test_directories_go_along_uncounted(log):
    log.make(SECOND, "D", kind=Kind.DIRECTORY)
    log.remove(LATER, "D", *FILES[:6])
    assert names(log.find(files=4)[0]) == ["D", *FILES[:6]]
    other = Log()
    other.make(0, *FILES)
    other.make(SECOND, *(f"d{n}" for n in range(6)), kind=Kind.DIRECTORY)
    other.remove(LATER, *(f"d{n}" for n in range(6)))
    assert other.find(files=10) == []


def test_parts_with_short_pauses_are_one_change_of_one_device(log):
    log.remove(LATER, *FILES[:3])
    log.make(LATER, "another's", device=2)
    log.remove(LATER + PAUSE_MS, *FILES[3:6])
    assert names(log.find(files=5)[0]) == FILES[:6]


def test_parts_with_long_pauses_or_of_two_devices_are_not(log):
    log.remove(LATER, *FILES[:3])
    log.remove(LATER + PAUSE_MS + 1, *FILES[3:6])
    assert log.find(files=4) == []
    two = Log()
    two.make(0, *FILES)
    two.remove(LATER, *FILES[:3])
    two.remove(LATER, *FILES[3:6], device=2)
    assert two.find(files=4) == []


def test_a_rewrite_goes_back_to_what_was_there_before_all_of_it(log):
    old = dict(log._dot)
    log.write(LATER, *FILES[:6], data="once")
    log.write(LATER + SECOND, *FILES[:6], data="twice")
    (found,) = log.find(files=10)
    assert names(found) == FILES[:6]
    assert {each.old for each in found.rewritten} == {old[name] for name in FILES[:6]}
    assert {each.new for each in found.rewritten} == {f"twice {name}".encode() for name in FILES[:6]}


def test_removals_and_rewrites_are_two_changes_the_newest_first(log):
    log.remove(LATER, *FILES[:6])
    log.make(LATER + SECOND, *(f"{name}'" for name in FILES[:6]), device=2)
    log._dot.update({name: log._dot[f"{name}'"] for name in FILES[:6]})
    log.write(LATER + 2 * SECOND, *FILES[:6])
    newest, older = log.find(files=10)
    assert newest.rewritten
    assert older.removed
    assert older.made_since == {(f"{name}'".encode(), f"{name}'".encode()) for name in FILES[:6]}
    assert newest.made_since == frozenset()


def test_what_was_made_afterwards_makes_no_mass_small(log):
    log.remove(LATER, *FILES[:6])
    log.make(2 * LATER, *(f"new {number}" for number in range(100)))
    assert names(log.find(files=104)[0]) == FILES[:6]


# Whether a removal was undone.


DIRECTORIES = {f"d{number}": (f"d{number}", "/") for number in range(3)}
WIDE = {f"f{number}": (f"d{number % 3}/f{number}", f"data {number}") for number in range(60)}


def test_a_removal_came_back_once_all_its_names_are_there_and_some_are_its_files():
    before = tree(DIRECTORIES | WIDE)
    files = [item for item in before.items() if not item.is_directory]
    marks = marks_of(files, before)
    assert len(marks) == MARKS_MAX
    assert all(mark.path.decode() in {path for path, _ in WIDE.values()} for mark in marks)
    assert came_back(marks, before)
    assert not came_back(marks, tree({}))
    for id, (path, _) in WIDE.items():
        rest = tree(DIRECTORIES | {other: WIDE[other] for other in WIDE if other != id})
        assert came_back(marks, rest) == all(mark.path != path.encode() for mark in marks)
    # Under the names of some, other files may stand by now; if all are others, somebody did something else.
    others = {id: (path, "other") for id, (path, _) in WIDE.items()}
    one = next(id for id, (path, _) in WIDE.items() if path.encode() == marks[0].path)
    assert came_back(marks, tree(DIRECTORIES | others | {one: WIDE[one]}))
    assert not came_back(marks, tree(DIRECTORIES | others))
    assert not came_back((), before)


def test_a_removal_is_noted_whatever_bytes_its_names_are_made_of():
    before = tree({"f": ("f\udcff.txt", "one"), "g": ("g.txt", "two")})
    marks = marks_of(list(before.items()), before)
    assert sorted(codec.decode(codec.encode(marks), tuple[Mark, ...], bytes_max=1_000)) == sorted(marks)
    assert came_back(marks, before)
