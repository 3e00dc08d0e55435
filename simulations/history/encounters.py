"""What two or three people do to one thing at the same instant, none of them knowing of the others.

Rule 1: it begins from what all of them have; where there is nothing of the kind, one makes it, and all wait until they have it.
Rule 2: what each does is noted as an action of its own, as if it had come to be by chance.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from itertools import pairwise
from random import Random
from typing import TYPE_CHECKING, Final, NamedTuple

from protocol.entries import Kind
from simulations.checks.names import is_copy, is_local, wanted
from simulations.history import names, saves
from simulations.history.commands import ask
from simulations.history.contents import LARGE, content
from simulations.history.people import GivenUp, Person

if TYPE_CHECKING:
    from simulations.history.course import Course

_TRIES: Final = 3
_SPREADS_S: Final = 6.0
_OPEN_S: Final = 20.0


class Subject(NamedTuple):
    """What an encounter is about."""

    paths: tuple[str, ...]
    """Of what all have."""
    new: str
    """A path at which nothing stands."""
    other: str
    """Another one."""
    data: bytes
    """A content that is new to all."""


Act = Callable[[Person, Subject], None]


class Encounter(NamedTuple):
    """Who does what to what."""

    needs: Callable[[list[Person]], list[tuple[str, ...]]]
    """What all have that it could be about."""
    makes: Callable[[Person, Random], None]
    """Makes such a thing."""
    acts: tuple[Act, ...]
    """What each does."""

    @property
    def size(self) -> int:
        """How many actions it comes to, about, with the one that makes what it is about."""
        return sum(1 + (act in _TWO) for act in self.acts) + (self.needs is not nothing)


async def meet(course: Course, chance: Random, kind: Encounter) -> None:
    """Have people do what an encounter is made of.

    Raises:
        GivenUp: They cannot: machines are off, or nothing came to all of them.
    """
    numbers = [number for number, device in enumerate(course.world.devices) if device.is_on]
    if len(numbers) < len(kind.acts):
        raise GivenUp("too few machines are on")
    people = [course.person(number, chance) for number in chance.sample(numbers, len(kind.acts))]
    found = kind.needs(people)
    if not found:
        kind.makes(people[0], chance)
        found = await _spread(people, kind)
    ledger = course.ledger
    paths = chance.choice(found)
    above = paths[0].rpartition("/")[0] if paths else ""
    new, other = (f"{above}/{name}" if above else name for name in chance.sample(names.FRESH, 2))
    taken = {path for person in people for path in person.tree()}
    if new in taken or other in taken:
        new, other = (f"kiwi-n{ledger.token()}", f"kiwi-n{ledger.token()}")
    subject = Subject(paths, new, other, content(ledger.token(), 40))
    for person, act in zip(people, kind.acts, strict=True):
        act(person, subject)


async def _spread(people: list[Person], kind: Encounter) -> list[tuple[str, ...]]:
    """Wait until what one made has come to all.

    Raises:
        GivenUp: It does not.
    """
    for _ in range(_TRIES):
        await asyncio.sleep(_SPREADS_S)
        found = kind.needs(people)
        if found:
            return found
    raise GivenUp("nothing came to all of them")


# --- What all have


def _common(people: list[Person], kind: Kind) -> list[str]:
    """Return the paths at which all have the same thing."""
    first, *others = [person.tree() for person in people]
    return [
        path
        for path, seen in first.items()
        if seen.kind is kind
        and not is_local(path)
        and all(path in tree and tree[path].kind is kind and tree[path].content == seen.content for tree in others)
    ]


def a_file(people: list[Person]) -> list[tuple[str, ...]]:
    """Find files that all have."""
    return [(path,) for path in _common(people, Kind.FILE) if people[0].tree()[path].inode.size]


def two_files(people: list[Person]) -> list[tuple[str, ...]]:
    """Find two files that all have."""
    found = a_file(people)
    return [one + other for one, other in pairwise(found)]


def a_copy(people: list[Person]) -> list[tuple[str, ...]]:
    """Find a conflict copy that all have, with the file that it is a copy of."""
    found: list[tuple[str, ...]] = []
    for (path,) in a_file(people):
        above, slash, name = path.rpartition("/")
        if is_copy(name):
            found.append((path, f"{above}{slash}{wanted(name)}"))
    return found


def a_link(people: list[Person]) -> list[tuple[str, ...]]:
    """Find a link that all have."""
    return [(path,) for path in _common(people, Kind.LINK)]


def a_tree(people: list[Person]) -> list[tuple[str, ...]]:
    """Find a directory that all have, with a file in it."""
    files = [path for (path,) in a_file(people)]
    return [(path.rpartition("/")[0], path) for path in files if "/" in path and path.rpartition("/")[0].count("/") < 2]


def two_directories(people: list[Person]) -> list[tuple[str, ...]]:
    """Find two directories that all have, neither in the other."""
    found = [path for path in _common(people, Kind.DIRECTORY) if path.count("/") < 2]
    return [(one, other) for one in found for other in found if one < other and not other.startswith(one + "/")]


def three_directories(people: list[Person]) -> list[tuple[str, ...]]:
    """Find three directories that all have, at the top."""
    found = [path for path in _common(people, Kind.DIRECTORY) if "/" not in path]
    return [tuple(found[:3])] if len(found) >= 3 else []


def nothing(_: list[Person]) -> list[tuple[str, ...]]:
    """Need nothing."""
    return [()]


def deep_directories(people: list[Person]) -> list[tuple[str, ...]]:
    """Find two directories, each with one in it."""
    found = _common(people, Kind.DIRECTORY)
    tops = [path for path in found if "/" not in path and any(one.startswith(path + "/") for one in found)]
    inner = {top: next(one for one in found if one.startswith(top + "/") and one.count("/") == 1) for top in tops}
    return [(one, inner[one], other, inner[other]) for one in tops for other in tops if one < other]


# --- How it comes to be


def _write(person: Person, path: str, data: bytes) -> None:
    with person.acting(f"writes {path}"):
        person.hands.write(person.path(path), data, parents=True)


def _write_all(person: Person, paths: Iterable[str]) -> None:
    with person.acting("makes files"):
        for path in paths:
            person.hands.write(person.path(path), content(person.ledger.token(), 40), parents=True)


def make_file(person: Person, chance: Random) -> None:
    """Make a file."""
    _write(person, chance.choice(names.FILES), content(person.ledger.token(), 40))


def make_files(person: Person, chance: Random) -> None:
    """Make two files."""
    _write_all(person, chance.sample(names.FILES, 2))


def make_tree(person: Person, chance: Random) -> None:
    """Make a directory with a file in it, or two."""
    _write_all(person, [f"{names.directory_name(chance)}/{name}" for name in chance.sample(names.FILES, 2)])


def make_directories(person: Person, _: Random) -> None:
    """Make some directories, each with one in it."""
    with person.acting("makes directories"):
        for name in names.DIRECTORIES:
            person.hands.make_directories(person.path(f"{name}/{name}-in"))


def make_repository(person: Person, _: Random) -> None:
    """Make a directory such as programs keep versions in."""
    _write_all(person, [f"{names.REPOSITORY}/{name}" for name in ("kiwi-HEAD", "kiwi-index")])


def make_link(person: Person, _: Random) -> None:
    """Make a link."""
    with person.acting("links kiwi-link to kiwi-a.txt"):
        person.hands.make_link(person.path("kiwi-link"), "kiwi-a.txt")


# --- What they do


def edit(person: Person, about: Subject) -> None:
    """Write it anew."""
    _write(person, about.paths[-1], person.something_new())


def edit_first(person: Person, about: Subject) -> None:
    """Write the first one anew."""
    _write(person, about.paths[0], content(person.ledger.token(), 40))


def edit_second(person: Person, about: Subject) -> None:
    """Write the second one anew."""
    _write(person, about.paths[1], content(person.ledger.token(), 40))


def edit_alike(person: Person, about: Subject) -> None:
    """Write what the others write."""
    _write(person, about.paths[-1], about.data)


def edit_much(person: Person, about: Subject) -> None:
    """Write much."""
    _write(person, about.paths[-1], content(person.ledger.token(), LARGE))


def edit_and_back(person: Person, about: Subject) -> None:
    """Write it anew, and write what it was."""
    before = person.hands.read(person.path(about.paths[-1]))
    edit(person, about)
    _write(person, about.paths[-1], before)


def edit_and_remove(person: Person, about: Subject) -> None:
    """Write it anew, and remove it."""
    edit_first(person, about)
    remove(person, about)


def write_again(person: Person, about: Subject) -> None:
    """Remove it and write one of its name."""
    path = person.path(about.paths[-1])
    with person.acting(f"removes {about.paths[-1]} and writes it"):
        person.hands.remove(path)
        person.hands.create(path, content(person.ledger.token(), 40))


def empty(person: Person, about: Subject) -> None:
    """Leave nothing of it."""
    with person.acting(f"empties {about.paths[-1]}"):
        person.hands.truncate(person.path(about.paths[-1]), 0)


def touch(person: Person, about: Subject) -> None:
    """Give it another time."""
    with person.acting(f"touches {about.paths[-1]}"):
        person.hands.set_mtime(person.path(about.paths[-1]), 1_700_000_000_000_000_001)


def remove(person: Person, about: Subject) -> None:
    """Remove it."""
    with person.acting(f"removes {about.paths[0]}"):
        person.hands.remove_tree(person.path(about.paths[0]))


def remove_second(person: Person, about: Subject) -> None:
    """Remove the second."""
    with person.acting(f"removes {about.paths[1]}"):
        person.hands.remove_tree(person.path(about.paths[1]))


def create(person: Person, about: Subject) -> None:
    """Make a new file."""
    _write(person, about.new, content(person.ledger.token(), 40))


def create_alike(person: Person, about: Subject) -> None:
    """Make a new file with what the others write."""
    _write(person, about.new, about.data)


def create_directory(person: Person, about: Subject) -> None:
    """Make a new directory with a file of its own."""
    _write(person, f"{about.new}/kiwi-{person.number}.txt", content(person.ledger.token(), 40))


def create_inside(person: Person, about: Subject) -> None:
    """Make a new file in it."""
    _write(person, f"{about.paths[0]}/kiwi-new-{person.ledger.token()}.txt", content(person.ledger.token(), 40))


def _move(person: Person, path: str, to: str) -> None:
    with person.acting(f"moves {path} to {to}"):
        person.hands.rename(person.path(path), person.path(to))


def move(person: Person, about: Subject) -> None:
    """Move it."""
    _move(person, about.paths[0], about.new)


def move_elsewhere(person: Person, about: Subject) -> None:
    """Move it to another place."""
    _move(person, about.paths[0], about.other)


def move_second(person: Person, about: Subject) -> None:
    """Move the second one to where others move the first."""
    _move(person, about.paths[1], about.new)


def move_over(person: Person, about: Subject) -> None:
    """Move the first over the second."""
    _move(person, about.paths[0], about.paths[1])


def move_and_write(person: Person, about: Subject) -> None:
    """Move it and write a new one of its name."""
    move(person, about)
    _write(person, about.paths[0], content(person.ledger.token(), 40))


def move_inside(person: Person, about: Subject) -> None:
    """Move the file within the directory."""
    _move(person, about.paths[1], f"{about.paths[0]}/kiwi-moved-{person.ledger.token()}")


def move_out_and_remove(person: Person, about: Subject) -> None:
    """Move the file out and remove the directory."""
    _move(person, about.paths[1], f"kiwi-out-{person.ledger.token()}")
    remove(person, about)


def move_and_make(person: Person, about: Subject) -> None:
    """Move the directory and make a new one of its name."""
    move(person, about)
    with person.acting(f"makes directory {about.paths[0]}"):
        person.hands.make_directory(person.path(about.paths[0]))


def remove_and_make(person: Person, about: Subject) -> None:
    """Remove the directory and make a new one of its name."""
    remove(person, about)
    with person.acting(f"makes directory {about.paths[0]}"):
        person.hands.make_directory(person.path(about.paths[0]))


def into(source: int, target: int) -> Act:
    """Return what moves one of several into another."""

    def act(person: Person, about: Subject) -> None:
        path = about.paths[source]
        _move(person, path, f"{about.paths[target]}/{path.rpartition('/')[2]}")

    return act


def _turn(make: Callable[[Person, str], None]) -> Act:
    """Return what puts something of another kind in its place."""

    def act(person: Person, about: Subject) -> None:
        with person.acting(f"changes what {about.paths[0]} is"):
            person.hands.remove_tree(person.path(about.paths[0]))
            make(person, person.path(about.paths[0]))

    return act


to_directory = _turn(lambda person, at: person.hands.make_directory(at))
to_file = _turn(lambda person, at: person.hands.create(at, content(person.ledger.token(), 40)))
to_link = _turn(lambda person, at: person.hands.make_link(at, "kiwi-b.txt"))
to_link_outside = _turn(lambda person, at: person.hands.make_link(at, "/home/outside"))


def relink(person: Person, about: Subject) -> None:
    """Let a link lead elsewhere."""
    to = f"kiwi-{person.ledger.token()}"
    with person.acting(f"links {about.paths[0]} to {to}"):
        person.hands.remove(person.path(about.paths[0]))
        person.hands.make_link(person.path(about.paths[0]), to)


def swap(person: Person, about: Subject) -> None:
    """Exchange the names of two."""
    one, other = (person.path(path) for path in about.paths[:2])
    with person.acting(f"swaps {about.paths[0]} and {about.paths[1]}"):
        between = person.path(f"kiwi-between-{person.ledger.token()}")
        person.hands.rename(one, between)
        person.hands.rename(other, one)
        person.hands.rename(between, other)


def copy_and_remove(person: Person, about: Subject) -> None:
    """Copy it and remove the first one."""
    with person.acting(f"copies {about.paths[0]} to {about.new}"):
        person.hands.copy(person.path(about.paths[0]), person.path(about.new))
    remove(person, about)


def write_composed(person: Person, _: Subject) -> None:
    """Write a name in one form of Unicode."""
    _write(person, names.NFC, content(person.ledger.token(), 40))


def write_decomposed(person: Person, _: Subject) -> None:
    """Write it in the other."""
    _write(person, names.NFD, content(person.ledger.token(), 40))


def in_repository(name: str) -> Act:
    """Return what writes one file of a directory such as programs keep versions in."""
    return lambda person, _: _write(person, f"{names.REPOSITORY}/{name}", content(person.ledger.token(), 40))


_TWO: Final = frozenset(
    {
        copy_and_remove,
        edit_and_back,
        edit_and_remove,
        move_and_make,
        move_and_write,
        move_out_and_remove,
        remove_and_make,
    }
)
"""What comes to two actions."""


def _repository(people: list[Person]) -> list[tuple[str, ...]]:
    return [(path,) for path in _common(people, Kind.DIRECTORY) if path == names.REPOSITORY]


ALL: Final = {
    "both_edit": Encounter(a_file, make_file, (edit, edit)),
    "both_edit_alike": Encounter(a_file, make_file, (edit_alike, edit_alike)),
    "both_edit_much": Encounter(a_file, make_file, (edit_much, edit_much)),
    "three_edit": Encounter(a_file, make_file, (edit, edit, edit)),
    "both_create": Encounter(nothing, make_file, (create, create)),
    "both_create_alike": Encounter(nothing, make_file, (create_alike, create_alike)),
    "edit_and_remove": Encounter(a_file, make_file, (edit, remove)),
    "edit_then_remove_and_edit": Encounter(a_file, make_file, (edit_and_remove, edit)),
    "write_again_and_edit": Encounter(a_file, make_file, (write_again, edit)),
    "remove_and_touch": Encounter(a_file, make_file, (remove, touch)),
    "edit_back_and_edit": Encounter(a_file, make_file, (edit_and_back, edit)),
    "empty_and_edit": Encounter(a_file, make_file, (empty, edit)),
    "move_and_edit": Encounter(a_file, make_file, (move, edit)),
    "both_move": Encounter(a_file, make_file, (move, move_elsewhere)),
    "move_and_remove": Encounter(a_file, make_file, (move, remove)),
    "move_and_create": Encounter(a_file, make_file, (move, create)),
    "both_move_to_one": Encounter(two_files, make_files, (move, move_second)),
    "swap_and_edit": Encounter(two_files, make_files, (swap, edit_first)),
    "swap_and_swap": Encounter(two_files, make_files, (swap, swap)),
    "swap_directories": Encounter(two_directories, make_directories, (swap, into(0, 1))),
    "move_over_and_edit": Encounter(two_files, make_files, (move_over, edit_second)),
    "move_write_and_edit": Encounter(a_file, make_file, (move_and_write, edit)),
    "copy_remove_and_edit": Encounter(a_file, make_file, (copy_and_remove, edit)),
    "move_tree_and_remove": Encounter(a_tree, make_tree, (move, remove)),
    "move_tree_and_edit": Encounter(a_tree, make_tree, (move, edit)),
    "move_tree_and_create": Encounter(a_tree, make_tree, (move, create_inside)),
    "both_move_tree": Encounter(a_tree, make_tree, (move, move_elsewhere)),
    "move_tree_and_inside": Encounter(a_tree, make_tree, (move, move_inside)),
    "move_tree_and_remove_inside": Encounter(a_tree, make_tree, (move, remove_second)),
    "move_tree_and_make": Encounter(a_tree, make_tree, (move_and_make, create_inside)),
    "move_out_and_edit": Encounter(a_tree, make_tree, (move_out_and_remove, edit)),
    "into_each_other": Encounter(two_directories, make_directories, (into(0, 1), into(1, 0))),
    "round_and_round": Encounter(three_directories, make_directories, (into(0, 1), into(1, 2), into(2, 0))),
    "deep_into_each_other": Encounter(deep_directories, make_directories, (into(0, 3), into(2, 1))),
    "into_and_remove": Encounter(two_directories, make_directories, (into(0, 1), remove_second)),
    "remove_tree_and_create": Encounter(a_tree, make_tree, (remove, create_inside)),
    "remove_tree_and_edit": Encounter(a_tree, make_tree, (remove, edit)),
    "remove_make_and_create": Encounter(a_tree, make_tree, (remove_and_make, create_inside)),
    "to_directory_and_edit": Encounter(a_file, make_file, (to_directory, edit)),
    "to_file_and_create": Encounter(a_tree, make_tree, (to_file, create_inside)),
    "to_link_and_edit": Encounter(a_file, make_file, (to_link, edit)),
    "outside_and_create": Encounter(a_tree, make_tree, (to_link_outside, create_inside)),
    "file_and_directory": Encounter(nothing, make_file, (create, create_directory)),
    "both_make_directory": Encounter(nothing, make_file, (create_directory, create_directory)),
    "both_relink": Encounter(a_link, make_link, (relink, relink)),
    "in_repository": Encounter(_repository, make_repository, (in_repository("kiwi-HEAD"), in_repository("kiwi-index"))),
    "two_forms": Encounter(nothing, make_file, (write_composed, write_decomposed)),
    "both_edit_copy": Encounter(a_copy, make_file, (edit_first, edit_first)),
    "remove_copy_and_put_over": Encounter(a_copy, make_file, (remove, move_over)),
}
"""By name, what happens without a word of anybody to anybody."""


# --- What takes a while


async def remove_while_away(course: Course, chance: Random) -> None:
    """Have two people remove one file while a third is not there."""
    first, second, third = _people(course, chance, 3)
    [(path,), *_] = a_file([first, second, third]) or [_missing()]
    await ask(third, "offline")
    try:
        for person in (first, second):
            remove(person, Subject((path,), "", "", b""))
        await third.wait(10.0)
    finally:
        await ask(third, "online")


async def there_and_back(course: Course, chance: Random) -> None:
    """Have somebody give a file another name and its old one again while another is not there."""
    first, second = _people(course, chance, 2)
    [(path,), *_] = a_file([first, second]) or [_missing()]
    await ask(second, "offline")
    try:
        between = f"kiwi-n{course.ledger.token()}"
        _move(first, path, between)
        await first.wait(2.0)
        _move(first, between, path)
    finally:
        await ask(second, "online")


async def save_from_memory(course: Course, chance: Random) -> None:
    """Have a program read a file, and save what it makes of that after another's edit has come."""
    first, second = _people(course, chance, 2)
    [(path,), *_] = a_file([first, second]) or [_missing()]
    read = first.tree()[path].content
    course.ledger.open(first.device, first.number, path, read)
    _write(second, path, content(course.ledger.token(), 40))
    for _ in range(int(_OPEN_S)):
        await asyncio.sleep(1.0)
        seen = first.tree().get(path)
        if seen is not None and seen.content != read:
            break
    if first.device.is_on:
        _write(first, path, content(course.ledger.token(), 40))


async def edit_during_save(course: Course, chance: Random) -> None:
    """Have somebody edit a file while another saves it as Office does."""
    first, second = _people(course, chance, 2)
    [(path,), *_] = a_file([first, second]) or [_missing()]
    saving = asyncio.create_task(saves.office(first, path))
    _write(second, path, content(course.ledger.token(), 40))
    await saving


def _people(course: Course, chance: Random, count: int) -> list[Person]:
    numbers = [number for number, device in enumerate(course.world.devices) if device.is_on]
    if len(numbers) < count:
        raise GivenUp("too few machines are on")
    return [course.person(number, chance) for number in chance.sample(numbers, count)]


def _missing() -> tuple[str, ...]:
    raise GivenUp("nothing that all of them have")


LONG: Final[dict[str, tuple[Callable[[Course, Random], Awaitable[None]], int]]] = {
    "remove_while_away": (remove_while_away, 2),
    "there_and_back": (there_and_back, 2),
    "save_from_memory": (save_from_memory, 2),
    "edit_during_save": (edit_during_save, 5),
}
"""By name, with how many actions it comes to."""
