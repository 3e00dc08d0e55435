"""What all devices share: entries that are registered, ordered after any delay, or void; without a coordinator.

Rule 1: an entry is ordered once all that it needs is; which of several comes next is chance, as it is where storage decides.
Rule 2: what needs a void entry is void, too; so is all that a device signed and did not get ordered when it is taken out.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple

from blake3 import blake3

from protocol.entries import AdmittedEntry
from protocol.ids import EntryHash


@lru_cache(maxsize=1 << 14)
def hash_of_entry(device: int, seq: int) -> EntryHash:
    """Return what stands for the hash of an entry: it sorts like one."""
    return EntryHash(blake3(b"%d %d" % (device, seq)).digest())


class LogItem(NamedTuple):
    """What has a position."""

    entry: AdmittedEntry
    is_void: bool = False


class Log:
    """The log of one folder."""

    def __init__(self) -> None:
        self.items: list[LogItem] = []
        self.signed: dict[EntryHash, AdmittedEntry] = {}
        """Every entry that some device has signed."""
        self.registered: dict[EntryHash, AdmittedEntry] = {}
        """Known to all who ask, in the order in which they came, and neither ordered nor void."""
        self.ordered: set[EntryHash] = set()
        self.voids: set[EntryHash] = set()
        self.lost: set[EntryHash] = set()
        """Signed by a device that was taken out, and never handed in."""

    def register(self, entries: Iterable[AdmittedEntry]) -> None:
        """Take entries from their author, in his order."""
        for entry in entries:
            if entry.hash in self.ordered or entry.hash in self.voids or entry.hash in self.registered:
                continue
            self.registered[entry.hash] = entry
            if not self.voids.isdisjoint(entry.header.needs):
                self._make_void(entry.hash)

    def order(self, chance: random.Random, most: int) -> int:
        """Order up to so many entries; return how many there were."""
        for count in range(most):
            ready = [hash for hash, entry in self.registered.items() if self.ordered.issuperset(entry.header.needs)]
            if not ready:
                return count
            hash = ready[0] if len(ready) == 1 else chance.choice(ready)
            self.items.append(LogItem(self.registered.pop(hash)))
            self.ordered.add(hash)
        return most

    def make_void(self, hash: EntryHash) -> None:
        """Decide that a registered entry is never ordered, nor what needs it."""
        self._make_void(hash)

    def _make_void(self, hash: EntryHash) -> None:
        work = [hash]
        while work:
            each = work.pop(0)
            entry = self.registered.pop(each, None)
            if entry is None:
                continue
            self.items.append(LogItem(entry, is_void=True))
            self.voids.add(each)
            work += [other for other, one in self.registered.items() if each in one.header.needs]

    def take_out(self, device: int) -> None:
        """Take a device out: what it signed and is not ordered, never will be."""
        for hash in [hash for hash, entry in self.registered.items() if entry.header.device == device]:
            self._make_void(hash)
        self.lost |= {
            hash
            for hash, entry in self.signed.items()
            if entry.header.device == device and hash not in self.ordered and hash not in self.voids
        }

    def counts(self, device: int, first: int, last: int) -> bool:
        """Tell whether all entries of a device from one number to another are ordered."""
        return all(hash_of_entry(device, seq) in self.ordered for seq in range(first, last + 1))
