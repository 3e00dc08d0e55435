"""The people of a world, one at each device: what they look at, and how what they do is noted.

Rule 1: what somebody does by hand happens at one instant; what takes time is several actions, with a look before each.
Rule 2: an operation that the disk refuses is over, as it is for a person; what it did until then is in the ledger.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from random import Random
from typing import Final, TypeVar

from protocol.entries import Kind
from simulations.checks.names import is_local
from simulations.devices import ROOT, DeviceMachine
from simulations.history import names
from simulations.history.contents import LARGE, SIZES, content
from simulations.history.ledger import Ledger, Tree, look
from simulations.user_files import UserFiles

T = TypeVar("T")

APART: Final = "kiwi-apart"
"""So begins what one person tries something with, and what nobody else touches."""


class GivenUp(Exception):
    """Somebody cannot do what he wanted: the machine is off, or nothing is there to do it with."""


class Person:
    """Somebody who uses one device.

    Args:
        device: Which.
        number: Of the device.
        ledger: Of the history.
        chance: What he decides by.
    """

    def __init__(self, device: DeviceMachine, number: int, ledger: Ledger, chance: Random) -> None:
        self.device = device
        self.number = number
        self.ledger = ledger
        self.chance = chance

    @property
    def hands(self) -> UserFiles:
        """His way to the disk."""
        return self.device.user

    @contextmanager
    def acting(self, what: str) -> Iterator[Tree]:
        """Note what is done meanwhile; what the disk refuses ends it.

        Raises:
            GivenUp: The machine is off, the folder is away, or the disk refuses.
        """
        if not self.device.is_on or not self.hands.is_directory(ROOT):
            raise GivenUp(what)
        with self.ledger.acting(self.device, self.number, what) as tree:
            try:
                yield tree
            except OSError as error:
                raise GivenUp(f"{what}: {error}") from None

    async def wait(self, seconds_max: float) -> None:
        """Let some time pass."""
        await asyncio.sleep(self.chance.random() * seconds_max)

    # --- What he chooses

    def choose(self, among: Sequence[T]) -> T:
        """Return one of these.

        Raises:
            GivenUp: There is none.
        """
        if not among:
            raise GivenUp("nothing to choose from")
        return self.chance.choice(among)

    def tree(self) -> Tree:
        """Return what stands in the folder, but for what somebody has for himself, and for what stays on one device."""
        return {
            path: seen for path, seen in look(self.device).items() if not path.startswith(APART) and not is_local(path)
        }

    def a_file(self) -> str:
        """Return the path of a file that is there."""
        return self.choose([path for path, seen in self.tree().items() if seen.kind is Kind.FILE])

    def a_directory(self, *, or_root: bool = True) -> str:
        """Return the path of a directory that is there, "" for the root."""
        found = [path for path, seen in self.tree().items() if seen.kind is Kind.DIRECTORY]
        return self.choose(["", *found] if or_root else found)

    def anything(self) -> str:
        """Return the path of something that is there."""
        return self.choose(list(self.tree()))

    def a_place(self, name: str) -> str:
        """Return a path for a name in some directory that is not too deep."""
        directory = self.a_directory()
        if directory.count("/") + 1 >= names.DEPTH_MAX:
            directory = ""
        return f"{directory}/{name}" if directory else name

    def path(self, inside: str) -> str:
        """Return the absolute path of something in the folder."""
        return self.device.path(inside)

    def inside(self, path: str) -> str:
        """Return the path from the folder's root of an absolute one; "" of the root's own."""
        root = self.device.path("")
        return "" if path == root.rstrip("/") else path.removeprefix(root)

    def something_new(self) -> bytes:
        """Return a content that nobody wrote before."""
        size = LARGE if self.chance.random() < 0.02 else self.chance.choice(SIZES)
        return content(self.ledger.token(), size)
