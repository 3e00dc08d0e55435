"""The folder's log, as the coordinator and each device have it: invariants 10, 12 and 13, and of 11 what entries say in clear.

Rule 1: read from their databases, and believed of nobody: what one shows is compared with what all showed before.
Rule 2: what an item's bytes must be, is written down here from docs/protocol.md; how the product computes it is not asked.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

import msgspec
from blake3 import blake3

from protocol.entries import Entry, parse_entry
from protocol.history import ItemKind
from simulations.checks.causality import author_of, check_header
from simulations.checks.violation import FORK_SAFETY, MONOTONE_JOURNAL, ROLLBACK_SAFETY, Violation
from simulations.databases import read_image
from simulations.devices import DeviceMachine
from simulations.servers import COORDINATOR, CoordinatorMachine
from simulations.world import World

_ROWS: Final = "SELECT position, chain, kind, data, time_ms FROM log WHERE position > {since} ORDER BY position"
_ENTRIES: Final = "SELECT device, seq, hash FROM entry WHERE position > 0"
_HEAD: Final = "SELECT coalesce(max(position), 0) FROM log"
_START: Final = bytes(32)
ALARMS: Final = frozenset(
    {
        "folder frozen",
        "stopped",
        "a folder's log has forked: the data directory was set back and written to",
    }
)
"""What is logged, as an error, by who finds that two histories were signed."""

Row = tuple[int, bytes, int, bytes, int]
Keeper = CoordinatorMachine | DeviceMachine
"""Who keeps a log."""


class Item(NamedTuple):
    """What stands at one position."""

    chain: bytes
    kind: int
    data: bytes
    time_ms: int


class Journals:
    """What was seen of the log so far, on all machines."""

    def __init__(self) -> None:
        self.log: list[Item] = []
        """By position from 1."""
        self.at: dict[tuple[int, int], Entry] = {}
        """The entries in it, by their author's number and their own."""
        self.entries: dict[tuple[int, int], bytes] = {}
        """By the author's number and the entry's: its hash, as the devices know it."""
        self.heads: dict[str, int] = {}
        """How far each machine had the log when it was last looked at."""
        self.applied: dict[str, int] = {}
        """Up to where each device had applied the log when it was last looked at."""
        self.lost: dict[bytes, Entry] = {}
        """Entries that were in the log, and that nobody has there any more since something was set back, by their hash."""
        self.void: set[bytes] = set()
        """Hashes of entries of which the log says that they will never be in it."""
        self.branches: dict[str, list[Item]] = {}
        """What stands in the log of a machine that shows another item than others do, where that may be; those that show the
        same share it."""
        self.may_fork = False
        """Whether a coordinator was set back while a device knew less than was known: it may be the first to tell it, and write."""
        self.set_back: set[str] = set()
        """Devices that lost what they knew: what only they had in their hands, of what they wrote, is gone."""

    def drop(self, head: int) -> None:
        """Forget what nobody holds any more."""
        for item in self.log[head:]:
            if item.kind == ItemKind.ENTRY:
                entry = parse_entry(item.data)
                place = (entry.header.device, entry.header.seq)
                self.lost[entry.hash] = entry
                del self.at[place]
                self.entries.pop(place, None)
        del self.log[head:]


def check(world: World, journals: Journals) -> None:
    """Invariants 10, 12 and 13: all that was ever in the log stands at its place everywhere, and nothing else.

    Positions follow one another, the chain fits, nobody shows another item at one than others do or than he did, no head
    goes back, and no author's number was used twice. What a coordinator had ordered and lost is in the log again.
    """
    _check_applied(world, journals)
    for machine in _keepers(world):
        rows = machine.rows(_ROWS.format(since=0))
        if len(rows) < journals.heads.get(machine.name, 0):
            text = f"{machine.name} was at {journals.heads[machine.name]}, and is at {len(rows)}"
            raise Violation(MONOTONE_JOURNAL, text)
        _take(journals, machine.name, rows)
    for device in world.devices:
        for number, seq, hash in device.rows(_ENTRIES):
            known = journals.entries.setdefault((number, seq), hash)
            if known != hash:
                raise Violation(MONOTONE_JOURNAL, f"{device.name} has another entry {seq} of author {number}")
    _check_lost(world, journals)


def follow(world: World, journals: Journals, *, everybody: bool = False) -> None:
    """Take in what is new in the logs of those who run, or of all, and check it."""
    _check_applied(world, journals)
    for machine in _keepers(world):
        if everybody or machine.is_running:
            since, head = journals.heads.get(machine.name, 0), _head(machine)
            if head < since:
                raise Violation(MONOTONE_JOURNAL, f"{machine.name} was at {since}, and is at {head}")
            _take(journals, machine.name, _rows(machine, since), since)


def _check_applied(world: World, journals: Journals) -> None:
    """Invariant 13: whatever the coordinator shows, no device goes back to an earlier state of the folder."""
    for device in world.devices:
        if device.is_running:
            before, now = journals.applied.get(device.name, 0), device.position
            if now < before:
                raise Violation(
                    ROLLBACK_SAFETY, f"{device.name} had applied the log up to {before}, and is at {now} again"
                )
            journals.applied[device.name] = now


@contextmanager
def going_back(world: World, journals: Journals, machine: Keeper, *, forgets: bool = True) -> Iterator[None]:
    """Have a machine put back to an earlier state: its head may be lower then, and what nobody holds any more is lost.

    ``forgets``: it does not know any more what it knew; else, files alone are put back.
    """
    follow(world, journals, everybody=True)
    had = journals.heads.get(COORDINATOR, 0)
    yield
    heads = {one.name: _head(one) for one in _keepers(world)}
    branch = journals.branches.pop(machine.name, None)
    back = (
        heads[machine.name] if branch is None else 0
    )  # it may be on another one now: all that it has is looked at again
    journals.heads[machine.name] = min(journals.heads.get(machine.name, 0), back)
    journals.drop(max(heads.values()))
    known = max(had, *heads.values())  # also what is on its way to a device just now
    behind = [device for device in world.devices if heads[device.name] < known]
    if machine is not world.coordinator:
        if forgets:
            journals.applied.pop(machine.name, None)
            journals.set_back.add(machine.name)
    elif behind and known > heads[COORDINATOR]:
        journals.may_fork = True


def is_forked(world: World) -> bool:
    """Tell whether two machines have another item at one position."""
    logs = [_rows(one) for one in _keepers(world)]
    longest = max(logs, key=len)
    return any(one != other for log in logs for one, other in zip(log, longest, strict=False))


def agrees(device: DeviceMachine, coordinator: CoordinatorMachine) -> bool:
    """Tell whether what a device knows of the log is what the coordinator has."""
    return all(one == other for one, other in zip(_rows(device), _rows(coordinator), strict=False))


def _keepers(world: World) -> list[Keeper]:
    return [world.coordinator, *world.devices]


def _rows(machine: Keeper, since: int = 0) -> list[Any]:
    query = _ROWS.format(since=since)
    return machine.rows(query) if machine.is_running else read_image(machine.kept_database, query)


def _head(machine: Keeper) -> int:
    rows = machine.rows(_HEAD) if machine.is_running else read_image(machine.kept_database, _HEAD)
    return int(rows[0][0])


def _take(journals: Journals, name: str, rows: list[Row], since: int = 0) -> None:
    positions = [row[0] for row in rows]
    if positions != list(range(since + 1, since + len(rows) + 1)):
        raise Violation(MONOTONE_JOURNAL, f"the positions in the log of {name} are {positions}")
    for position, chain, kind, data, time_ms in rows:
        item = Item(chain, kind, data, time_ms)
        log = journals.branches.get(name, journals.log)
        if position > len(log):
            _append(journals, log, name, position, item)
        elif log[position - 1] != item:
            if position <= journals.heads.get(name, 0):
                raise Violation(MONOTONE_JOURNAL, f"{name} has another item at position {position} than it had")
            if not journals.may_fork:
                raise Violation(FORK_SAFETY, f"{name} has another item at position {position} than others have")
            _branch_off(journals, log[: position - 1], name, item)
    journals.heads[name] = since + len(rows)


def _branch_off(journals: Journals, before: list[Item], name: str, item: Item) -> None:
    """Take in that a machine shows another item than others do, and perhaps the same one as another that does so."""
    grown = [*before, item]
    for branch in journals.branches.values():
        if branch[: len(grown)] == grown:
            journals.branches[name] = branch
            return
    journals.branches[name] = before
    _append(journals, before, name, len(grown), item)


def _append(journals: Journals, log: list[Item], name: str, position: int, item: Item) -> None:
    """Take in an item that nobody showed before; what authors did on a branch is not held against what they did elsewhere."""
    before = log[-1].chain if log else _START
    made = blake3(before + bytes([item.kind]) + _hash(item) + item.time_ms.to_bytes(8, "big")).digest()
    if made != item.chain:
        raise Violation(MONOTONE_JOURNAL, f"the chain of {name} does not lead to what it has at position {position}")
    if log is journals.log and item.kind == ItemKind.ENTRY:
        _append_entry(journals, position, parse_entry(item.data))
    elif log is journals.log and item.kind == ItemKind.VOID:
        journals.void.add(msgspec.msgpack.decode(item.data)[1])
    log.append(item)


def _append_entry(journals: Journals, position: int, entry: Entry) -> None:
    """Invariant 10: each author counts up by one, and each entry names the one before it by its hash."""
    header = entry.header
    if (header.device, header.seq) in journals.at:
        text = f"two entries {header.seq} of author {header.device}, the second at position {position}"
        raise Violation(MONOTONE_JOURNAL, text)
    for earlier, later in (
        (journals.at.get((header.device, header.seq - 1)), entry),
        (entry, journals.at.get((header.device, header.seq + 1))),
    ):
        if earlier is not None and later is not None and later.header.previous != earlier.hash:
            text = f"entry {later.header.seq} of author {header.device} follows another one than the log has"
            raise Violation(MONOTONE_JOURNAL, text)
    check_header(journals.at, position, header)
    journals.at[header.device, header.seq] = entry


def _hash(item: Item) -> bytes:
    """Return what names an item: the hash of what its author signed, of a void record that of its bytes."""
    if item.kind == ItemKind.VOID:
        return blake3(item.data).digest()
    signed = msgspec.msgpack.decode(item.data)[:-1]
    return blake3(b"".join(signed)).digest()


def _check_lost(world: World, journals: Journals) -> None:
    """Invariant 13: what a coordinator had ordered and lost is in the log again, unless its author lost it, too."""
    if journals.may_fork:
        return
    back = {entry.hash for entry in journals.at.values()}
    for hash, entry in journals.lost.items():
        if (
            hash not in back
            and hash not in journals.void
            and author_of(world.devices[0], entry) not in journals.set_back
        ):
            text = (
                f"entry {entry.header.seq} of author {entry.header.device} was in the log before the coordinator was set back,"
                " and is not again"
            )
            raise Violation(ROLLBACK_SAFETY, text)
