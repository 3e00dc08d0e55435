"""What ``rename(2)`` does for every kind of source and target, on one disk and on another."""

from __future__ import annotations

import errno
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple

from simulations.cases.hands import UserDisk

Make = Callable[[UserDisk, str], None]


class Outcome(NamedTuple):
    """What came of one rename."""

    code: str
    """The name of its errno; empty if it was done."""
    tree: Mapping[str, str]


def _file(disk: UserDisk, path: str) -> None:
    disk.write(path, b"a file " + path.rpartition("/")[2].encode())


def _empty(disk: UserDisk, path: str) -> None:
    disk.make_directory(path)


def _full(disk: UserDisk, path: str) -> None:
    disk.make_directory(path)
    disk.write(f"{path}/inner", path.rpartition("/")[2].encode())


def _link(disk: UserDisk, path: str) -> None:
    disk.make_link(path, f"leads-from-{path.rpartition('/')[2]}")


def _nothing(disk: UserDisk, path: str) -> None:
    """Have nothing stand there."""


SOURCES: Final[Mapping[str, Make]] = {"file": _file, "directory": _full, "empty directory": _empty, "link": _link}
TARGETS: Final[Mapping[str, Make | None]] = {
    "missing": _nothing,
    "file": _file,
    "empty directory": _empty,
    "full directory": _full,
    "link": _link,
    "itself": None,
    "hard link of itself": None,
}
CELLS: Final = tuple(itertools.product(SOURCES, TARGETS))


def outcome(disk: UserDisk, place: str, source: str, target: str) -> Outcome:
    """Rename one kind of thing to another in a new directory; return what came of it."""
    disk.make_directories(place)
    old, new = f"{place}/old", f"{place}/new"
    SOURCES[source](disk, old)
    make = TARGETS[target]
    code = ""
    try:
        if make is not None:
            make(disk, new)
        elif target == "itself":
            new = old
        else:
            disk.link(old, new)
        disk.rename(old, new)
    except OSError as error:
        code = errno.errorcode[error.errno or 0]
    return Outcome(code, disk.tree(place))


def differences(one: tuple[UserDisk, str], other: tuple[UserDisk, str]) -> Sequence[str]:
    """Do all of them on two disks, each below a path; return where they differ."""
    found = []
    for number, (source, target) in enumerate(CELLS):
        outcomes = [outcome(disk, f"{place}/{number}", source, target) for disk, place in (one, other)]
        if outcomes[0] != outcomes[1]:
            found.append(f"{source} to {target}: {outcomes[0]} / {outcomes[1]}")
    return found
