"""What people do by hand: write, copy, move, remove, and what else changes a folder at one instant."""

from __future__ import annotations

from typing import Final

from protocol.entries import Kind
from simulations.history import names
from simulations.history.contents import block, text, with_line
from simulations.history.people import GivenUp, Person

_MANY_MAX: Final = 8
_OLD_NS: Final = 86_400 * 1_000_000_000


async def create(person: Person) -> None:
    """Write a new file, or over one of that name."""
    path = person.a_place(names.file_name(person.chance))
    with person.acting(f"writes {path}"):
        person.hands.write(person.path(path), person.something_new())


async def edit(person: Person) -> None:
    """Write a file anew, in place."""
    path = person.a_file()
    with person.acting(f"edits {path}"):
        person.hands.write(person.path(path), person.something_new())


async def append(person: Person) -> None:
    """Add to a file."""
    path = person.a_file()
    with person.acting(f"appends to {path}"):
        person.hands.append(person.path(path), block(person.ledger.token()))


async def patch(person: Person) -> None:
    """Write in the middle of a file: its size stays."""
    path = person.a_file()
    with person.acting(f"patches {path}"):
        data = block(person.ledger.token())
        size = person.hands.stat(person.path(path)).size
        person.hands.write_at(person.path(path), data, person.chance.randrange(max(1, size - len(data))))


async def patch_unseen(person: Person) -> None:
    """Change a file, and set its time back."""
    path = person.path(person.a_file())
    with person.acting(f"patches {path} and sets its time back"):
        data = block(person.ledger.token())
        size = person.hands.stat(path).size
        if size < len(data):
            raise GivenUp(path)
        person.hands.keeping_mtime(path, lambda: person.hands.write_at(path, data, size - len(data)))


async def write_text(person: Person) -> None:
    """Write a text, or change a line of one."""
    path = person.a_place("kiwi-text.md")
    with person.acting(f"writes text {path}") as tree:
        token = person.ledger.token()
        if path in tree and person.hands.stat(person.path(path)).size:
            data = with_line(person.hands.read(person.path(path)), token, person.chance.random())
        else:
            data = text(token, 20)
        person.hands.write(person.path(path), data)


async def truncate(person: Person) -> None:
    """Leave nothing of a file, as an editor that crashes, and write it again a little later."""
    path = person.a_file()
    with person.acting(f"empties {path}"):
        person.hands.truncate(person.path(path), 0)
    await person.wait(3.0)
    with person.acting(f"writes {path} again"):
        person.hands.write(person.path(path), person.something_new())


async def make_directory(person: Person) -> None:
    """Make a directory, with something in it or not."""
    path = person.a_place(names.directory_name(person.chance))
    with person.acting(f"makes directory {path}"):
        person.hands.make_directory(person.path(path))
        if person.chance.random() < 0.6:
            person.hands.write(person.path(f"{path}/{names.file_name(person.chance)}"), person.something_new())


async def rename(person: Person) -> None:
    """Give something another name in its directory."""
    path = person.anything()
    above, slash, _ = path.rpartition("/")
    is_directory = person.hands.is_directory(person.path(path))
    new = names.directory_name(person.chance) if is_directory else names.file_name(person.chance)
    with person.acting(f"renames {path} to {new}"):
        person.hands.rename(person.path(path), person.path(f"{above}{slash}{new}"))


async def move(person: Person) -> None:
    """Move something to another directory."""
    path = person.anything()
    new = person.a_place(path.rpartition("/")[2])
    with person.acting(f"moves {path} to {new}"):
        person.hands.rename(person.path(path), person.path(new))


async def swap(person: Person) -> None:
    """Exchange the names of two files."""
    one, other = person.a_file(), person.a_file()
    if one == other:
        raise GivenUp(one)
    with person.acting(f"swaps {one} and {other}"):
        hands, between = person.hands, person.path("kiwi-between")
        if hands.exists(between):
            raise GivenUp(between)
        hands.rename(person.path(one), between)
        hands.rename(person.path(other), person.path(one))
        hands.rename(between, person.path(other))


async def copy(person: Person) -> None:
    """Copy something, with its times."""
    path = person.anything()
    new = person.a_place(person.chance.choice((path.rpartition("/")[2], names.file_name(person.chance))))
    if new == path or new.startswith(path + "/"):
        raise GivenUp(new)
    with person.acting(f"copies {path} to {new}"):
        person.hands.copy(person.path(path), person.path(new))


async def copy_in(person: Person) -> None:
    """Copy many files in, all older than what is there."""
    directory = person.a_place(names.directory_name(person.chance))
    count = person.chance.randint(3, _MANY_MAX)
    with person.acting(f"copies {count} files into {directory}"):
        hands = person.hands
        for number in range(count):
            path = person.path(f"{directory}/kiwi-{number}.jpg")
            hands.write(path, person.something_new(), parents=True)
            hands.set_mtime(path, hands.stat(path).mtime_ns - _OLD_NS)


async def remove(person: Person) -> None:
    """Remove a file or a link."""
    path = person.choose([path for path, seen in person.tree().items() if seen.kind is not Kind.DIRECTORY])
    with person.acting(f"removes {path}"):
        person.hands.remove(person.path(path))


async def remove_tree(person: Person) -> None:
    """Remove a directory with all that is in it."""
    path = person.a_directory(or_root=False)
    with person.acting(f"removes tree {path}"):
        person.hands.remove_tree(person.path(path))


async def write_again(person: Person) -> None:
    """Remove a file and write one of its name."""
    path = person.a_file()
    with person.acting(f"removes {path} and writes it"):
        person.hands.remove(person.path(path))
        person.hands.create(person.path(path), person.something_new())


async def change_kind(person: Person) -> None:
    """Put something of another kind at a path: a directory for a file, a file for a tree, a link for a file."""
    path = person.anything()
    with person.acting(f"changes what {path} is") as tree:
        hands, at, kind = person.hands, person.path(path), tree[path].kind
        hands.remove_tree(at)
        if kind is not Kind.FILE:
            hands.create(at, person.something_new())
        elif person.chance.random() < 0.5:
            hands.make_link(at, "kiwi-a.txt")
        else:
            hands.make_directory(at)
            hands.write(f"{at}/kiwi-a.txt", person.something_new())


async def respell(person: Person) -> None:
    """Give something the same name in other letters."""
    path = person.anything()
    above, slash, name = path.rpartition("/")
    new = f"{above}{slash}{names.respelled(name)}"
    with person.acting(f"respells {path}"):
        person.hands.rename(person.path(path), person.path(new))


async def odd_name(person: Person) -> None:
    """Write a file with a name that is hard on file systems."""
    path = person.a_place(names.file_name(person.chance, odd=True))
    with person.acting(f"writes {path}"):
        person.hands.write(person.path(path), person.something_new())


async def touch(person: Person) -> None:
    """Give a file another time and nothing else."""
    path = person.a_file()
    when_ns = person.chance.choice((0, 1_700_000_000_500_000_001, 4_100_000_000_000_000_000))
    with person.acting(f"touches {path}"):
        person.hands.set_mtime(person.path(path), when_ns)


async def set_executable(person: Person) -> None:
    """Make a file executable, or not any more."""
    path = person.a_file()
    with person.acting(f"changes the mode of {path}") as tree:
        person.hands.set_mode(person.path(path), 0o644 if tree[path].executable else 0o755)


async def make_link(person: Person) -> None:
    """Make a symbolic link, or let one lead elsewhere."""
    path = person.a_place("kiwi-link")
    target = person.chance.choice(
        ("kiwi-a.txt", "../kiwi-D", "/home/outside", "kiwi-link", f"none/{person.ledger.token()}")
    )
    with person.acting(f"links {path} to {target}"):
        if person.hands.exists(person.path(path)):
            person.hands.remove(person.path(path))
        person.hands.make_link(person.path(path), target)


async def edit_copy(person: Person) -> None:
    """Edit a conflict copy."""
    path = person.choose([path for path in person.tree() if " (conflict, " in path.rpartition("/")[2]])
    if person.hands.is_directory(person.path(path)):
        raise GivenUp(path)
    with person.acting(f"edits copy {path}"):
        person.hands.write(person.path(path), person.something_new())


async def put_over(person: Person) -> None:
    """Move a conflict copy over the file that it is a copy of."""
    path = person.choose([path for path in person.tree() if " (conflict, " in path.rpartition("/")[2]])
    above, slash, name = path.rpartition("/")
    stem, _, rest = name.partition(" (conflict, ")
    new = f"{above}{slash}{stem}{rest.partition(')')[2]}"
    with person.acting(f"moves copy {path} over {new}"):
        person.hands.rename(person.path(path), person.path(new))
