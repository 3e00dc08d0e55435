"""Whatever a case does to a world, and how it looks at it: the interface before real processes and before virtual time.

Rule 1: nothing here knows a case; nothing in the other modules knows whose hands these are.
Rule 2: what only one kind of world can do is in :class:`Tricks`; who has none is asked for none.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, Final, NamedTuple, Protocol, Self

from protocol.effects import Stat
from simulations.cases.grammar import Case

Json = dict[str, Any]
NEEDS_PERSON: Final = 4


class Failed(Exception):
    """What was expected did not come; the text says what."""


class Told(NamedTuple):
    """How a command ended."""

    code: int
    """Its exit code; below 0: it was killed."""
    text: str
    """What it said was wrong."""
    result: Json
    """What it printed as an object, or nothing."""


def must(told: Told, what: str) -> Told:
    """Return what a command told that had to end well.

    Raises:
        Failed: It did not.
    """
    if told.code != 0:
        raise Failed(f"{what} ended with {told.code}: {told.text.strip()[-300:]}")
    return told


# --- Files


class OpenFile(Protocol):
    """A file that a program holds open for writing."""

    def write(self, data: bytes, offset: int | None = None, /) -> None:
        """Write bytes at a position, at the end if none is given."""

    def truncate(self, size: int, /) -> None:
        """Give it another size."""

    def close(self) -> None:
        """Close it."""

    def __enter__(self) -> Self:
        """Hold it."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        """Close it."""


class UserDisk(Protocol):
    """What people and their programs do on a disk; paths are absolute, a link at the end of one is not followed.

    All raise ``OSError`` as Linux does.
    """

    def exists(self, path: str, /) -> bool:
        """Tell whether anything stands at a path, also a link that leads nowhere."""

    def stat(self, path: str, /) -> Stat:
        """Return what stands at a path."""

    def is_directory(self, path: str, /) -> bool:
        """Tell whether a directory stands at a path, not a link to one."""

    def read(self, path: str, /) -> bytes:
        """Return the bytes of a file."""

    def list(self, path: str, /) -> list[str]:
        """Return the names in a directory, sorted."""

    def open(self, path: str, /) -> OpenFile:
        """Open a file for writing, made if it is missing."""

    def write(self, path: str, data: bytes, /) -> None:
        """Let a file hold these bytes: the same inode, emptied first."""

    def append(self, path: str, data: bytes, /) -> None:
        """Add bytes at the end of a file, made if it is missing."""

    def truncate(self, path: str, size: int, /) -> None:
        """Give a file another size."""

    def make_directory(self, path: str, /) -> None:
        """Make a directory."""

    def make_directories(self, path: str, /) -> None:
        """Make a directory and those above it that are missing."""

    def make_link(self, path: str, target: str, /) -> None:
        """Make a symbolic link."""

    def rename(self, path: str, new_path: str, /) -> None:
        """Move, as the system call of that name does."""

    def link(self, path: str, new_path: str, /) -> None:
        """Give a file a second name."""

    def copy(self, path: str, new_path: str, /) -> None:
        """Copy a file or a tree, with times and permissions."""

    def remove(self, path: str, /) -> None:
        """Remove a file or a link."""

    def remove_tree(self, path: str, /) -> None:
        """Remove a file, a link, or a directory with all that is in it."""

    def set_mtime(self, path: str, mtime_ns: int, /) -> None:
        """Set the time of modification of a file or directory."""

    def set_mode(self, path: str, mode: int, /) -> None:
        """Set the permission bits."""

    def tree(self, root: str, /) -> dict[str, str]:
        """Return what stands below a directory but for Kinfolder's own, as :data:`simulations.cases.trees.Tree`."""

    def digest(self, path: str, /) -> str:
        """Return what the content of a file is compared by (:func:`simulations.cases.contents.digest_of`)."""

    def now_ns(self) -> int:
        """Return the clock that files are stamped with."""


# --- Devices


class Machine(Protocol):
    """One device."""

    name: str
    disk: UserDisk
    root: str
    """Where its user keeps the folder."""
    outside: str
    """A directory beside that."""
    has_folder: bool
    folds_case: bool
    """Whether names are one on its disk that differ by case alone."""
    is_special: bool
    """Whether its disk cannot hold every name that Linux can."""
    decomposes: bool
    """Whether names show decomposed on its disk, however they were given."""

    async def kin(self, method: str, /, **params: Any) -> Told:
        """Run a command: by its agent if one runs, else as a process of its own.

        Args:
            method: As :data:`peer.api.backend.METHODS` names it.
            params: As there.

        Raises:
            Failed: It showed a defect, or did not end.
            Skipped: The product says that it is not in this version.
        """

    @property
    def has_agent(self) -> bool:
        """Whether its agent runs."""

    async def start(self) -> None:
        """Start its agent."""

    async def stop(self) -> None:
        """End its agent in good order."""

    async def kill(self) -> None:
        """End whatever process of it runs, at this instant."""

    def database(self, *, writes: bool = False) -> AbstractContextManager[sqlite3.Connection]:
        """Open what it knows behind its back, while no process of it runs; it is closed at the end of the block."""

    async def keep(self, name: str, /) -> None:
        """Copy its home and its user's files."""

    async def put_back(self, name: str, /, *, home: bool, files: bool) -> None:
        """Go back to a copy; without ``files``, or with files alone, the rest stays."""

    async def become_new(self) -> None:
        """Forget its home and be a new device of the account, with no folder; the files stay."""

    def may_read_all(self) -> bool:
        """Tell whether its commands run with rights that no permission stops."""


class Packs(NamedTuple):
    """Where a storage node keeps chunks."""

    disk: UserDisk
    path: str


class Tricks(Protocol):
    """What only a simulated world can do."""

    def lock(self, machine: Machine, path: str, /) -> None:
        """Let no process of the product read or replace what stands at a path."""

    def unlock(self, machine: Machine, path: str, /) -> None:
        """End that."""

    def at_point(self, machine: Machine, point: str, path: str, act: Callable[[], None], /) -> None:
        """Do something once, when the product comes to a point of applying a file."""

    def during_scan(self, machine: Machine, act: Callable[[], None], /) -> None:
        """Do something once, in the product's next scan."""

    async def crash_in(self, machine: Machine, effect: int, method: str, /, **params: Any) -> int:
        """Run a command that crashes before its n-th effect (0: never), and return how many effects it had."""

    async def deafen(self, machine: Machine, /) -> None:
        """Have a device's agent run that has looked at everything, and from now on hears of nothing, nor of the network."""

    async def scan(self, machine: Machine, path: str, /) -> None:
        """Have such an agent look at one path, relative to the root."""

    async def apply_unseen(self, machine: Machine, /) -> None:
        """Have such an agent apply all that is remote."""

    async def end_deafness(self, machine: Machine, /) -> None:
        """End such an agent."""

    def advance(self, seconds: float, /) -> None:
        """Put all clocks forward."""

    def unmount(self, machine: Machine, path: str, /) -> None:
        """Let an empty directory of another disk stand at a path."""

    def reorder(self, machine: Machine, /) -> None:
        """Have the next batch of entries for a device arrive in reverse order."""

    def delay(self, machine: Machine, seconds: float, /) -> None:
        """Have all that goes to a device arrive so much later."""

    def hold_entries(self, machine: Machine, /) -> asyncio.Event:
        """Have the next entries that a device sends be held back, with all after them; say when they are."""

    def release_entries(self, machine: Machine, /) -> None:
        """Let them go on."""

    def compare_renames(self) -> Sequence[str]:
        """Rename everything to everything, here and on a real file system; return where they differ."""


class Hands(Protocol):
    """One world, for one run of a case."""

    folder: str
    """The name of the case's folder."""
    orders_scans: bool
    """Whether it can have a device apply what is remote before it scans."""
    scale: int
    """By how much large contents are smaller here than the case says; links are slower by as much."""

    async def devices(self, names: Sequence[str], /) -> Sequence[Machine]:
        """Return devices of one account, their roots empty."""

    async def join(self, name: str, /) -> Machine:
        """Return one more device, with an empty root and no folder."""

    async def clone(self, machine: Machine, name: str, /) -> Machine:
        """Return one more device, with copies of another one's home and files."""

    @property
    def tricks(self) -> Tricks:
        """What it can do beyond that.

        Raises:
            Skipped: Nothing.
        """

    # --- Servers and the network

    async def keep_coordinator(self, name: str, /) -> None:
        """Copy all that the coordinator keeps."""

    async def put_back_coordinator(self, name: str, /) -> None:
        """Let it go back to that."""

    def packs(self) -> Sequence[Packs]:
        """Return where the storage nodes keep chunks."""

    async def restart_nodes(self) -> None:
        """End the storage nodes, have them forget what they know of their packs, and start them."""

    def cut_after(self, machine: Machine, count: int, /) -> None:
        """Cut a device off once so many bytes of contents have come to it."""

    def heal(self) -> None:
        """End that."""

    def received_bytes(self) -> int:
        """Return how many bytes came from storage nodes so far."""


NO_ACCOUNTS: Final = "other accounts: not in this version"
NO_QUOTA: Final = "quota: the coordinator has no limit of stored bytes"
NO_COLLECTION: Final = "garbage collection: storage nodes collect no garbage"
NO_ATOMIC_DIRECTORIES: Final = "atomic directories: the product takes no directory as one value"
NO_GROUPS: Final = "open databases captured as a group: not in this version"
LATER: Final = frozenset({NO_ACCOUNTS, NO_QUOTA, NO_COLLECTION, NO_ATOMIC_DIRECTORIES, NO_GROUPS})
"""Why a case is skipped for want of something that the product does not have yet."""
LATER_NEEDS: Final[Mapping[str, str]] = {
    "acl": NO_ACCOUNTS,
    "nested_share": NO_ACCOUNTS,
    "quota": NO_QUOTA,
    "gc": NO_COLLECTION,
    "feature:atomic_dirs": NO_ATOMIC_DIRECTORIES,
}
LATER_OPERATIONS: Final[Mapping[str, str]] = {
    **dict.fromkeys(("acl_grant", "acl_grant_twice", "acl_revoke"), NO_ACCOUNTS),
    **dict.fromkeys(("gc_mark", "gc_sweep"), NO_COLLECTION),
    "set_quota": NO_QUOTA,
    "revert_local": "no command gives up what is only on this device",
}


class Means(NamedTuple):
    """What a kind of world cannot do, with the reason."""

    operations: Mapping[str, str]
    needs: Mapping[str, str]
    """By what :attr:`simulations.cases.grammar.Case.needs` says; others than these and those in ``present`` are unknown."""
    present: frozenset[str]
    """Needs that are met, without the device that they may name."""


def lacks(case: Case, means: Means) -> str:
    """Return why a case cannot be run with these means; nothing if it can."""
    for need in case.needs:
        kind = need.rpartition(":")[0] if need.rpartition(":")[2] in {*case.devices, "*"} else need
        if kind not in means.present:
            return means.needs.get(kind, f"unknown capability {need}")
    for step in (*case.setup, *case.steps):
        if step["op"] in means.operations:
            return means.operations[step["op"]]
    return ""
