"""The journal: what the applier was about to do, so that a restart can finish, undo or recognize it.

A *swap* is what it was about to take from a user's name: put before the disk changes, done once nothing of it is left in
``.kinfolder``. An *intent* is what it was about to have stand under one: put before the disk changes, gone in the commit
that notes in the trees what stands there. The agent keeps both in its database; :class:`MemoryJournal` serves tests.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import IntEnum
from typing import NamedTuple, Protocol

import msgspec

from peer.core.observations import Fingerprint
from peer.core.tree import Content, Item, ItemId


class SwapKind(IntEnum):
    """Why something was taken from a user's name."""

    REPLACE = 1
    DELETE = 2
    ASIDE = 3
    """Only for a moment, between two renames; it goes back or on, never away."""


class Swap(msgspec.Struct, frozen=True, array_like=True):
    """One thing that lies, or is about to lie, in ``.kinfolder`` and may be the only place of what a user wrote."""

    id: bytes
    """16 random bytes; its name in ``.kinfolder/trash`` or ``aside`` is their hex."""
    kind: SwapKind
    path: str
    """Where it stands, or stood, under the user's name."""
    expected: Content
    """What the user's name is taken to hold: known to the log, and so not lost when it goes."""
    time_ms: int
    new: Fingerprint | None = None
    """Of what takes its place, where something does: it lies under the swap's name before and after an exchange undone."""
    checked: Fingerprint | None = None
    """How it looked in the trash once it was found to be what was expected; None: not looked at yet."""

    @property
    def name(self) -> str:
        """Its name in ``.kinfolder/trash`` or ``.kinfolder/aside``."""
        return self.id.hex()


class Intent(msgspec.Struct, frozen=True, array_like=True):
    """What a step is about to have stand under a user's name; without it, a restart would take it for the user's own."""

    item: Item
    """As the step wants it."""
    path: str
    """Where it will stand."""
    mark: Fingerprint | None = None
    """Of the file that will stand there, as it looks before; None: nobody can know it."""
    base: Item | None = None
    """What the step changes; None: it places something new."""
    old_path: str = ""
    """Where that stands before, if elsewhere."""


class Standing(NamedTuple):
    """An intent that came true."""

    intent: Intent
    fingerprint: Fingerprint
    """Of what stands there; its change time fits nothing, so the next scan reads it."""


class Journal(Protocol):
    """Keeps swaps and intents; every call is durable when it returns."""

    def begin(self, swaps: Sequence[Swap], intents: Sequence[Intent]) -> None:
        """Add swaps, and intents in place of those for their items; all or none.

        Intents of earlier groups may be dropped by it: what became of them is known.
        """

    def intents(self) -> Sequence[Intent]:
        """Return all intents in the order in which they were put."""

    def settled(self, intents: Sequence[Intent], standing: Sequence[Standing]) -> None:
        """Drop intents, and note in the trees those of them that came true; all or none."""

    def put(self, swaps: Sequence[Swap]) -> None:
        """Add rows, or replace those with their ids; all or none."""

    def done(self, ids: Sequence[bytes]) -> None:
        """Drop rows; an unknown id is no error."""

    def rows(self) -> Iterable[Swap]:
        """Return all rows in the order in which they were first put; rows may be dropped while they are read."""

    def checked(self, before_ms: int, limit: int, skip: int = 0) -> Sequence[Swap]:
        """Return at most ``limit`` rows that were checked and were taken up to this moment, the oldest first.

        Args:
            before_ms: Wall clock.
            limit: How many.
            skip: How many of the oldest to pass over.
        """

    def date_back(self, now_ms: int) -> None:
        """Have what was taken later than now count as taken now: the wall clock was wrong then, and was put right since.

        Args:
            now_ms: Wall clock.
        """

    def count(self, *, checked: bool) -> int:
        """Return how many rows there are that were checked, or were not."""


class MemoryJournal:
    """A journal that is lost with its process."""

    def __init__(self) -> None:
        self._rows: dict[bytes, Swap] = {}
        self._intents: dict[ItemId, Intent] = {}
        self.stood: list[Standing] = []
        """What was noted as standing."""

    def begin(self, swaps: Sequence[Swap], intents: Sequence[Intent]) -> None:
        """Add swaps and intents."""
        self.put(swaps)
        for intent in intents:
            self._intents.pop(intent.item.id, None)
            self._intents[intent.item.id] = intent

    def intents(self) -> Sequence[Intent]:
        """Return all intents."""
        return tuple(self._intents.values())

    def settled(self, intents: Sequence[Intent], standing: Sequence[Standing]) -> None:
        """Drop intents and keep what stands."""
        for intent in intents:
            self._intents.pop(intent.item.id, None)
        self.stood += standing

    def put(self, swaps: Sequence[Swap]) -> None:
        """Add or replace rows."""
        self._rows.update({swap.id: swap for swap in swaps})

    def done(self, ids: Sequence[bytes]) -> None:
        """Drop rows."""
        for id in ids:
            self._rows.pop(id, None)

    def rows(self) -> Iterable[Swap]:
        """Return all rows."""
        return tuple(self._rows.values())

    def checked(self, before_ms: int, limit: int, skip: int = 0) -> Sequence[Swap]:
        """Return checked rows, the oldest first."""
        found = [swap for swap in self._rows.values() if swap.checked is not None and swap.time_ms <= before_ms]
        return sorted(found, key=lambda swap: swap.time_ms)[skip : skip + limit]

    def date_back(self, now_ms: int) -> None:
        """Have what was taken later than now count as taken now."""
        late = [swap for swap in self._rows.values() if swap.time_ms > now_ms]
        self.put([msgspec.structs.replace(swap, time_ms=now_ms) for swap in late])

    def count(self, *, checked: bool) -> int:
        """Return how many rows there are."""
        return sum((swap.checked is not None) is checked for swap in self._rows.values())
