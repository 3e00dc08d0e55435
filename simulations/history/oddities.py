"""What people and programs do now and then: odd sizes, times and kinds of things, and what a device is to leave out.

Rule 1: what is tried with rules and exclusions concerns names that nobody else touches: who had what else removed stays clear.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from protocol import limits
from protocol.entries import Kind
from simulations.history import names
from simulations.history.commands import ask
from simulations.history.contents import block, content
from simulations.history.people import APART, GivenUp, Person
from simulations.situations.operations import RULES

_DAY_NS: Final = 86_400 * 1_000_000_000
_SAVES: Final = 8
_TRIES: Final = 5
_SPARSE_BYTES: Final = 1_200_000


async def append_unseen(person: Person) -> None:
    """Add to a file, and set its time back."""
    path = person.path(person.a_file())
    with person.acting(f"appends to {path} and sets its time back"):
        data = block(person.ledger.token())
        person.hands.keeping_mtime(path, lambda: person.hands.append(path, data))


async def put_older(person: Person) -> None:
    """Copy an older file over one, with its time."""
    path = person.a_file()
    at = person.path(path)
    with person.acting(f"copies an older file over {path}"):
        mtime_ns = person.hands.stat(at).mtime_ns
        person.hands.write(at, person.something_new())
        person.hands.set_mtime(at, mtime_ns - _DAY_NS)


async def write_size(person: Person) -> None:
    """Write a file that is just as long as a chunk, or a byte more or less."""
    path = person.a_place(names.file_name(person.chance))
    more = person.chance.choice((-1, 0, 1))
    with person.acting(f"writes {path}"):
        token = person.ledger.token()
        overhead = len(content(token, 0))
        person.hands.write(person.path(path), content(token, limits.CHUNK_BYTES_MIN + more - overhead))


async def write_sparse(person: Person) -> None:
    """Write a file that is mostly a hole."""
    path = person.a_place(names.file_name(person.chance))
    with person.acting(f"writes {path} with a hole"):
        person.hands.write(person.path(path), person.something_new()[:4_000])
        person.hands.truncate(person.path(path), _SPARSE_BYTES + person.ledger.token())


async def link_hard(person: Person) -> None:
    """Give a file a second name, and edit it by one of them."""
    path = person.a_file()
    new = f"{path}-{person.ledger.token()}"
    with person.acting(f"links {path} and {new}"):
        person.hands.link(person.path(path), person.path(new))
    await person.wait(5.0)
    with person.acting(f"edits {path} and {new}"):
        person.hands.write(person.path(new), person.something_new())
        names = person.hands.links(person.path(new))
    # Also a name that the product took aside for what came from elsewhere: it cannot know by which name it was written.
    (edit,) = person.ledger.actions[-1:]
    edit.made.update({content: max(0, names - edit.made[content]) for content in edit.came.values()})


async def remove_most(person: Person) -> None:
    """Remove more than half of all files."""
    files = [path for path, seen in person.tree().items() if seen.kind is Kind.FILE]
    if len(files) < 4:
        raise GivenUp("there are few")
    with person.acting("removes most files"):
        for path in files[: len(files) * 2 // 3]:
            person.hands.remove(person.path(path))


async def save_often(person: Person) -> None:
    """Save a file many times within two seconds."""
    path = person.a_file()
    for _ in range(_SAVES):
        with person.acting(f"saves {path}"):
            person.hands.write(person.path(path), content(person.ledger.token(), 40))
        await person.wait(0.3)


async def log(person: Person) -> None:
    """Add to a file again and again."""
    path = person.a_file()
    for _ in range(_SAVES):
        with person.acting(f"appends to {path}"):
            person.hands.append(person.path(path), block(person.ledger.token()))
        await person.wait(4.0)


async def rename_new(person: Person) -> None:
    """Write a file and give it another name before anybody can have it."""
    path, new = f"kiwi-n{person.ledger.token()}", f"kiwi-n{person.ledger.token()}.txt"
    with person.acting(f"writes {path}"):
        person.hands.create(person.path(path), person.something_new())
    await person.wait(0.1)
    with person.acting(f"renames {path} to {new}"):
        person.hands.rename_new(person.path(path), person.path(new))


async def move_out(person: Person) -> None:
    """Make a directory, move a file there, and remove where that was."""
    path = person.choose([path for path, seen in person.tree().items() if seen.kind is Kind.FILE and "/" in path])
    new = f"kiwi-n{person.ledger.token()}"
    with person.acting(f"makes directory {new}"):
        person.hands.make_directory(person.path(new))
    with person.acting(f"moves {path} there"):
        person.hands.rename(person.path(path), person.path(f"{new}/{path.rpartition('/')[2]}"))
    above = path.rpartition("/")[0]
    with person.acting(f"removes tree {above}"):
        person.hands.remove_tree(person.path(above))


async def turn_inside_out(person: Person) -> None:
    """Have a directory lie in one that lay in it."""
    tree = person.tree()
    inner = person.choose([path for path, seen in tree.items() if seen.kind is Kind.DIRECTORY and "/" in path])
    outer, between = inner.rpartition("/")[0], f"kiwi-n{person.ledger.token()}"
    with person.acting(f"moves {inner} out of {outer}"):
        person.hands.rename(person.path(inner), person.path(between))
    with person.acting(f"moves {outer} into it"):
        person.hands.rename(person.path(outer), person.path(f"{between}/{outer.rpartition('/')[2]}"))


async def same_bytes(person: Person) -> None:
    """Have two files of the same bytes, remove one, and write them a third time."""
    path = person.a_file()
    one, other = (f"kiwi-n{person.ledger.token()}" for _ in range(2))
    with person.acting(f"copies {path} to {one}"):
        person.hands.copy(person.path(path), person.path(one))
    await person.wait(3.0)
    there = person.tree().get(one)  # it may be a directory by now
    data = person.hands.read(person.path(one)) if there is not None and there.kind is Kind.FILE else b""
    if not data or not person.hands.exists(person.path(path)):
        raise GivenUp(one)
    with person.acting(f"removes {one}"):
        person.hands.remove(person.path(one))
    with person.acting(f"writes {other} with the same bytes"):
        person.hands.create(person.path(other), data)


async def put_ignored(person: Person) -> None:
    """Leave in a directory what never leaves this device."""
    path = person.a_directory(or_root=False)
    with person.acting(f"leaves a lock in {path}"):
        person.hands.write(person.path(f"{path}/.~lock.kiwi-{person.ledger.token()}#"), b"kiwi-lock")


async def other_letters(person: Person) -> None:
    """Give a file the same name in other letters, or have both."""
    path = person.a_file()
    above, slash, name = path.rpartition("/")
    new = f"{above}{slash}{name.swapcase()}"
    if person.device.disk.personality.folds_case or person.hands.exists(person.path(new)):
        with person.acting(f"removes {path}"):
            person.hands.remove(person.path(path))
        return
    with person.acting(f"writes {new}"):
        person.hands.create(person.path(new), person.something_new())


async def leave_out(person: Person) -> None:
    """Have a device leave a name out, make something there, and take the name up again."""
    path = f"{APART}-{person.ledger.token()}"
    at = person.path(path)
    await ask(person, "exclude", path=at, remove=False, free=False)
    try:
        await person.wait(3.0)
        with person.acting(f"writes {path}, which is left out"):
            person.hands.write(at, content(person.ledger.token(), 40))
        await person.wait(10.0)
    finally:
        await _take_up(person, at)


async def _take_up(person: Person, at: str) -> None:
    for _ in range(_TRIES):
        try:
            await ask(person, "exclude", path=at, remove=True, free=False)
        except GivenUp:
            await asyncio.sleep(10.0)
        else:
            return


async def ignore(person: Person) -> None:
    """Have a rule leave out what is synced, and take the rule away again."""
    path, rules = f"{APART}-{person.ledger.token()}", person.path(RULES)
    with person.acting(f"writes {path}"):
        person.hands.create(person.path(path), content(person.ledger.token(), 40))
    await person.wait(5.0)
    with person.acting(f"has {path} ignored"):
        if person.hands.exists(rules):
            raise GivenUp(RULES)
        person.hands.create(rules, f"/{path}\n".encode())
    person.ledger.ignored[person.number].add(path)
    try:
        await person.wait(10.0)
    finally:  # also on a machine that is off by then: nobody is to find rules at rest
        person.ledger.ignored[person.number].discard(path)
        with person.ledger.acting(person.device, person.number, "removes the rules"):
            if person.hands.exists(rules) and not person.hands.is_directory(rules):  # somebody made it a directory
                person.hands.remove(rules)


async def make_special(person: Person) -> None:
    """Have a program keep a FIFO in the folder for a while."""
    path = f"{APART}-{person.ledger.token()}"
    with person.acting(f"makes the FIFO {path}"):
        person.hands.make_fifo(person.path(path))
    try:
        await person.wait(10.0)
    finally:
        with person.ledger.acting(person.device, person.number, f"removes the FIFO {path}"):
            if person.hands.exists(person.path(path)):
                person.hands.remove(person.path(path))


ALL: Final[dict[str, Callable[[Person], Awaitable[None]]]] = {
    "append_unseen": append_unseen,
    "put_older": put_older,
    "write_size": write_size,
    "write_sparse": write_sparse,
    "link_hard": link_hard,
    "remove_most": remove_most,
    "save_often": save_often,
    "log": log,
    "rename_new": rename_new,
    "move_out": move_out,
    "turn_inside_out": turn_inside_out,
    "same_bytes": same_bytes,
    "put_ignored": put_ignored,
    "other_letters": other_letters,
    "leave_out": leave_out,
    "ignore": ignore,
    "make_special": make_special,
}
"""By name."""
WEIGHTS: Final = {"leave_out": 4, "put_ignored": 4}
"""How often those come of which much else must happen, too, beside 2 for each other."""
SIZES: Final = {
    "link_hard": 2,
    "save_often": _SAVES,
    "log": _SAVES,
    "rename_new": 2,
    "move_out": 3,
    "turn_inside_out": 2,
    "same_bytes": 3,
    "ignore": 3,
    "make_special": 2,
}
"""How many actions some come to."""
