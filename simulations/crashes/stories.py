"""Short stories of two devices, each about one thing that must be whole, whichever machine ends in the middle of it.

Rule 1: what comes before is at rest when the story begins; what it does is all that can be cut.
Rule 2: a story decides nothing by chance, so that the same effect is the same in every telling.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Final, NamedTuple

from simulations.history import commands
from simulations.history.contents import LARGE, content
from simulations.history.people import GivenUp, Person

SMALL: Final = 700
_LATER_S: Final = 20.0
_FILES: Final = 6
_AGAIN_S: Final = 3.0
"""After which whoever's machine ended asks once more."""

Part = Callable[[Person, Person], Awaitable[None]]


class Story(NamedTuple):
    """What one is about."""

    before: Part
    """What both people did before, and what everybody has."""
    act: Part
    """What is cut."""
    is_small: bool = False
    """Whether a second crash, in the recovery from the first, is tried at each of its steps, too."""


def _write(person: Person, path: str, size: int = SMALL) -> None:
    with person.acting(f"writes {path}"):
        person.hands.write(person.path(path), content(person.ledger.token(), size), parents=True)


def _move(person: Person, path: str, to: str) -> None:
    with person.acting(f"moves {path} to {to}"):
        person.hands.rename(person.path(path), person.path(to))


def _remove(person: Person, path: str) -> None:
    with person.acting(f"removes {path}"):
        person.hands.remove(person.path(path))


def _remove_tree(person: Person, path: str) -> None:
    with person.acting(f"removes directory {path}"):
        person.hands.remove_tree(person.path(path))


async def _insist(person: Person, method: str, **params: Any) -> None:
    """Ask until it is done, or refused by an agent that did not end meanwhile."""
    lives = -1
    while lives != person.device.lives:
        lives = person.device.lives
        with suppress(GivenUp):
            await commands.ask(person, method, **params)
            return
        await asyncio.sleep(_AGAIN_S)


async def _nothing(_: Person, __: Person) -> None:
    """Begin with an empty folder."""


async def _one_file(one: Person, _: Person) -> None:
    _write(one, "kiwi-a")


async def _two_files(one: Person, _: Person) -> None:
    _write(one, "kiwi-a")
    _write(one, "kiwi-b")


async def _a_directory(one: Person, _: Person) -> None:
    for number in range(_FILES):
        _write(one, f"kiwi-D/kiwi-{number}")


async def _two_versions(one: Person, _: Person) -> None:
    _write(one, "kiwi-a")
    await commands.sync(one)
    await asyncio.sleep(_LATER_S)
    _write(one, "kiwi-a")


async def _a_conflict(one: Person, other: Person) -> None:
    await _one_file(one, other)
    await commands.sync(one)
    await commands.sync(other)
    await _edit_both(one, other)


async def _create(one: Person, _: Person) -> None:
    _write(one, "kiwi-a")


async def _create_large(one: Person, _: Person) -> None:
    _write(one, "kiwi-large", LARGE)


async def _edit(one: Person, _: Person) -> None:
    _write(one, "kiwi-a")


async def _edit_both(one: Person, other: Person) -> None:
    _write(one, "kiwi-a")
    _write(other, "kiwi-a")


async def _edit_and_remove(one: Person, other: Person) -> None:
    _write(one, "kiwi-a")
    _remove(other, "kiwi-a")


async def _move_both(one: Person, other: Person) -> None:
    _move(one, "kiwi-a", "kiwi-one")
    _move(other, "kiwi-a", "kiwi-other")


async def _rename_directory(one: Person, _: Person) -> None:
    _move(one, "kiwi-D", "kiwi-E")


async def _rename_and_fill(one: Person, other: Person) -> None:
    _move(one, "kiwi-D", "kiwi-E")
    _write(other, "kiwi-D/kiwi-new")


async def _remove_directory(one: Person, _: Person) -> None:
    _remove_tree(one, "kiwi-D")


async def _swap(one: Person, _: Person) -> None:
    with one.acting("swaps kiwi-a and kiwi-b"):
        one.hands.rename(one.path("kiwi-a"), one.path("kiwi-between"))
        one.hands.rename(one.path("kiwi-b"), one.path("kiwi-a"))
        one.hands.rename(one.path("kiwi-between"), one.path("kiwi-b"))


async def _file_to_directory(one: Person, _: Person) -> None:
    with one.acting("puts a directory in the place of kiwi-a"):
        one.hands.remove(one.path("kiwi-a"))
        one.hands.write(one.path("kiwi-a/kiwi-inside"), content(one.ledger.token(), SMALL), parents=True)


async def _work_alone(one: Person, other: Person) -> None:
    await commands.ask(other, "offline")
    _write(one, "kiwi-a")
    _write(other, "kiwi-a")
    _move(other, "kiwi-b", "kiwi-c")
    await commands.sync(one)
    await commands.ask(other, "online")


async def _restore(one: Person, _: Person) -> None:
    await commands.bring_back(one, "kiwi-a", int(_LATER_S * 500))


async def _snapshot(one: Person, _: Person) -> None:
    _write(one, "kiwi-b")
    await commands.snapshot(one)


async def _exclude(one: Person, other: Person) -> None:
    _write(other, "kiwi-D/kiwi-new")
    path = one.path("kiwi-D")
    with suppress(GivenUp):
        await commands.ask(one, "exclude", path=path, remove=False, free=False)
        await commands.sync(one)
    await _insist(one, "exclude", path=path, remove=True, free=False)


async def _decide(one: Person, _: Person) -> None:
    [row] = (await commands.ask(one, "conflicts"))["conflicts"]
    await commands.decide(one, row, keep=True)


STORIES: Final = {
    "create": Story(_nothing, _create, is_small=True),
    "create-large": Story(_nothing, _create_large),
    "edit": Story(_one_file, _edit, is_small=True),
    "conflict": Story(_one_file, _edit_both, is_small=True),
    "edit-and-remove": Story(_one_file, _edit_and_remove),
    "move-both": Story(_one_file, _move_both),
    "rename-directory": Story(_a_directory, _rename_directory),
    "rename-and-fill": Story(_a_directory, _rename_and_fill),
    "remove-directory": Story(_a_directory, _remove_directory),
    "swap": Story(_two_files, _swap),
    "file-to-directory": Story(_one_file, _file_to_directory),
    "work-alone": Story(_two_files, _work_alone),
    "restore": Story(_two_versions, _restore),
    "snapshot": Story(_one_file, _snapshot),
    "exclude": Story(_a_directory, _exclude),
    "decide": Story(_a_conflict, _decide),
}
