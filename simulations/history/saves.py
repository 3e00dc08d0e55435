"""How programs save: what stands on the disk between the first and the last call of one save.

Rule 1: between two steps others may do what they like; a step that is refused ends the save, as it does for a program.
"""

from __future__ import annotations

from typing import Final

from simulations.history import names
from simulations.history.people import Person

_STEP_S: Final = 0.05
_TURNS: Final = 3
_TURN_S: Final = 1.0


async def over(person: Person) -> None:
    """Write beside and move over, as gedit and most programs do."""
    path = person.a_file()
    above, slash, _ = path.rpartition("/")
    beside = person.path(f"{above}{slash}.goutputstream-{person.ledger.token()}")
    with person.acting(f"writes beside {path}"):
        person.hands.write(beside, person.something_new())
    await person.wait(_STEP_S)
    with person.acting(f"saves {path} by a rename"):
        person.hands.rename(beside, person.path(path))


async def vim(person: Person) -> None:
    """Move the old one to ``f~``, write a new one, remove the old one."""
    path = person.a_file()
    at = person.path(path)
    with person.acting(f"begins to save {path} as Vim does"):
        person.hands.rename(at, at + "~")
    await person.wait(_STEP_S)
    with person.acting(f"writes {path} as Vim does"):
        person.hands.write(at, person.something_new())
    await person.wait(_STEP_S)
    with person.acting(f"removes {path}~"):
        person.hands.remove(at + "~")


async def emacs(person: Person) -> None:
    """Keep the old one as ``f~`` and write a new one."""
    path = person.a_file()
    at = person.path(path)
    with person.acting(f"saves {path} and keeps {path}~"):
        person.hands.rename(at, at + "~")
        person.hands.create(at, person.something_new())


async def office(person: Person, path: str = "") -> None:
    """Write a temporary file, move the old one away, the new one there, remove the old one."""
    path = path or person.a_file()
    above, slash, _ = path.rpartition("/")
    at, new = person.path(path), person.path(f"{above}{slash}~{person.ledger.token()}.tmp")
    old = person.path(f"{above}{slash}kiwi-{person.ledger.token()}.bak")
    with person.acting(f"writes what {path} is to be, as Office does"):
        person.hands.write(new, person.something_new())
    await person.wait(_STEP_S)
    with person.acting(f"moves {path} away, as Office does"):
        person.hands.rename(at, old)
    await person.wait(_STEP_S)
    with person.acting(f"puts {path} in place, as Office does"):
        person.hands.rename_new(new, at)
    await person.wait(_STEP_S)
    with person.acting(f"removes what {path} was, as Office does"):
        person.hands.remove(old)


async def slowly(person: Person) -> None:
    """Write a file piece by piece and hold it open meanwhile."""
    path = person.a_place(names.file_name(person.chance))
    data = person.something_new()
    middle = len(data) // 2
    with person.acting(f"begins to write {path}"):
        file = person.hands.open(person.path(path))
        try:
            if file.inode.size:
                file.truncate(0)
            file.write(data[:middle])
        except OSError:
            file.close()
            raise
    try:
        await person.wait(5.0)
        if not person.device.is_on:
            return  # the machine's end closed it
        with person.acting(f"goes on writing {path}"):
            try:
                file.write(data[middle:])
                whole = file.inode.digest()
            finally:
                file.close()
    finally:
        file.close()  # also where the folder is away
    person.ledger.wrote(whole)


async def rotate(person: Person) -> None:
    """Move logs away by number and begin a new one, a few times: the second time there is one to move, the third time two."""
    for turn in range(_TURNS):
        if turn:
            await person.wait(_TURN_S)
        with person.acting("rotates logs") as tree:
            for number in (2, 1):
                if f"kiwi-log.{number}" in tree:
                    person.hands.rename(person.path(f"kiwi-log.{number}"), person.path(f"kiwi-log.{number + 1}"))
            if "kiwi-log" in tree:
                person.hands.rename(person.path("kiwi-log"), person.path("kiwi-log.1"))
            person.hands.write(person.path("kiwi-log"), person.something_new())
