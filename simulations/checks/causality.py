"""What entries say that they build on, compared with the log and with what stood on their authors' disks: invariant 11.

Rule 1: who had seen what is what stood under a name on his disk (:class:`simulations.history.ledger.Ledger`, and each call of
    a process); what a device had received and not shown counts as not seen.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from peer.core.entry_sealing import open_entry
from protocol import versions
from protocol.entries import ContentValue, Entry, Header, Kind, Payload, Register, RemovalValue, parse_entry
from protocol.errors import KinfolderError
from protocol.history import ItemKind
from protocol.ids import Dot
from simulations.checks.violation import CAUSALITY, Violation
from simulations.devices import DeviceMachine
from simulations.history.ledger import EMPTY, Ledger
from simulations.world import World

_ENTRIES: Final = f"SELECT data FROM log WHERE kind = {ItemKind.ENTRY:d}"  # noqa: S608 - a number of our own
_FOLDER: Final = 1
"""The number of the folder in a device's database."""


def check_header(at: Mapping[tuple[int, int], Entry], position: int, header: Header) -> None:
    """Invariant 11, of an entry that comes into the log: what it builds on is there already, and its vectors cover that.

    Args:
        at: The entries before it, by author and number.
        position: Where it stands.
        header: Its own.

    Raises:
        Violation: It covers less than it builds on, or something that is not there, or not itself.
    """
    who = f"entry {header.seq} of author {header.device} at position {position}"
    for change in header.changes:
        if dict(change.vector).get(header.device) != header.seq:
            raise Violation(CAUSALITY, f"{who} does not count itself among what it covers")
        for dot in change.base:
            before = at.get((dot.device, dot.seq))
            if before is None:
                raise Violation(
                    CAUSALITY, f"{who} builds on entry {dot.seq} of author {dot.device}, which is not before it"
                )
            base = before.header.changes[dot.index]
            if change.register is not Register.DETACH and not versions.covers(change.vector, base.vector):
                raise Violation(CAUSALITY, f"{who} builds on {dot}, and does not cover what that covers")


class Contents:
    """The contents that entries wrote, by dot, and which of them each author replaced or removed.

    Entries come in the order of the log.
    """

    def __init__(self) -> None:
        self.hashes: dict[Dot, bytes] = {}
        """Of files that are not empty."""
        self.position = 0
        """Up to here all was taken in."""

    def add(self, entry: Entry, values: Iterable[object]) -> dict[Dot, bytes]:
        """Take in an entry; return the contents of files that it replaces or removes, by their dots."""
        ended: dict[Dot, bytes] = {}
        for index, (change, value) in enumerate(zip(entry.header.changes, values, strict=True)):
            if isinstance(value, RemovalValue):
                ended.update(self._known(value.removed))
            elif isinstance(value, ContentValue):
                ended.update((dot, hash) for dot, hash in self._known(change.base) if hash != value.hash)
                if value.kind is Kind.FILE and value.hash != EMPTY:
                    self.hashes[entry.dot(index)] = value.hash
        return ended

    def _known(self, dots: Iterable[Dot]) -> list[tuple[Dot, bytes]]:
        return [(dot, self.hashes[dot]) for dot in dots if dot in self.hashes]


class Known:
    """The contents of files that are in the log, as far as each device has it."""

    def __init__(self) -> None:
        self._written: dict[bytes, frozenset[bytes]] = {}
        """By the hash of an item's bytes: what an entry wrote. Each device that has it has the same."""

    def holds(self, device: DeviceMachine, content: bytes) -> bool:
        """Tell whether an entry in the log of a device that runs wrote a content."""
        return any(content in self._of(device, data) for (data,) in device.rows(_ENTRIES))

    def _of(self, device: DeviceMachine, data: bytes) -> frozenset[bytes]:
        if data not in self._written:
            payload = _open(device, parse_entry(data))
            values = () if payload is None else payload.values
            self._written[data] = frozenset(value.hash for value in values if isinstance(value, ContentValue))
        return self._written[data]


def check(world: World, ledger: Ledger, log: Sequence[tuple[bytes, int, bytes, int]], contents: Contents) -> None:
    """Invariant 11: whatever an entry replaces or removes once stood on the disk of the device that wrote it.

    Args:
        world: In which everything runs.
        ledger: What stood on whose disk.
        log: The items, by position from 1.
        contents: What was known before.

    Raises:
        Violation: Something never stood there.
    """
    shown = [_shown(ledger, number) for number in range(len(world.devices))]
    names = [device.name for device in world.devices]
    for position, (_, kind, data, _) in enumerate(log, start=1):
        if position <= contents.position or kind != ItemKind.ENTRY:
            continue
        entry = parse_entry(data)
        payload = _open(world.devices[0], entry)
        if payload is None:
            continue
        number = names.index(payload.label)
        for dot, hash in contents.add(entry, payload.values).items():
            if hash not in shown[number]:
                text = f"{payload.label} replaces or removes {hash.hex()[:6]} ({tuple(dot)}) at {position}, and never had it"
                raise Violation(CAUSALITY, text, *ledger.makers.get(hash, ())[:1])
    contents.position = max(contents.position, len(log))


def _shown(ledger: Ledger, number: int) -> set[bytes]:
    """Return all contents that ever stood on a device's disk where its user could see them."""
    seen = {content for _, content in ledger.sights[number]}
    own = {content for action in ledger.actions if action.device == number for content in action.came.values()}
    return {*ledger.put[number], *seen, *own}


def author_of(device: DeviceMachine, entry: Entry) -> str:
    """Return the name of the device that wrote an entry, as another that runs reads it; "" if that breaks the format."""
    payload = _open(device, entry)
    return "" if payload is None else payload.label


def _open(device: DeviceMachine, entry: Entry) -> Payload | None:
    """Return what is sealed in an entry; None if that breaks the format, as which it counts on every device."""
    try:
        return open_entry(entry, device.device.context.folder_keys(_FOLDER).entry_key(entry.header.epoch))
    except KinfolderError:
        return None
