"""The folder's log, as the coordinator and each device have it: invariant 10.

Rule 1: read from their databases, and believed of nobody: what one shows is compared with what all showed before.
"""

from __future__ import annotations

from typing import Final

from simulations.checks.violation import MONOTONE_JOURNAL, Violation
from simulations.world import World

_DEVICES: Final = "SELECT position, chain, kind, data FROM log WHERE position > {since} ORDER BY position"
_COORDINATOR: Final = "SELECT position, chain, kind, data FROM log WHERE position > {since} ORDER BY position"
_ENTRIES: Final = "SELECT device, seq, hash FROM entry WHERE position > 0"


class Journals:
    """What was seen of the log so far, on all machines."""

    def __init__(self) -> None:
        self.log: list[tuple[bytes, int, bytes]] = []
        """By position from 1: the chain there, the kind, the bytes."""
        self.entries: dict[tuple[int, int], bytes] = {}
        """By the author's number and the entry's: its hash."""
        self.heads: dict[str, int] = {}


def check(world: World, journals: Journals) -> None:
    """Invariant 10: positions follow one another, nobody shows another item or chain at one, and no head goes back.

    A coordinator that was set back shows less for a while; at rest it shows all again. No author's number was used for two
    entries that are in the log.
    """
    _check_log("the coordinator", world.coordinator.rows(_COORDINATOR.format(since=0)), journals)
    for device in world.devices:
        _check_log(device.name, device.rows(_DEVICES.format(since=0)), journals)
        for number, seq, hash in device.rows(_ENTRIES):
            known = journals.entries.setdefault((number, seq), hash)
            if known != hash:
                raise Violation(MONOTONE_JOURNAL, f"{device.name} has another entry {seq} of author {number}")


def _check_log(name: str, rows: list[tuple[int, bytes, int, bytes]], journals: Journals) -> None:
    positions = [row[0] for row in rows]
    if positions != list(range(1, len(rows) + 1)):
        raise Violation(MONOTONE_JOURNAL, f"the positions in the log of {name} are {positions}")
    if len(rows) < journals.heads.get(name, 0):
        raise Violation(MONOTONE_JOURNAL, f"{name} was at {journals.heads[name]}, and is at {len(rows)}")
    journals.heads[name] = len(rows)
    for position, chain, kind, data in rows:
        item = (chain, kind, data)
        if position > len(journals.log):
            journals.log.append(item)
        elif journals.log[position - 1] != item:
            raise Violation(MONOTONE_JOURNAL, f"{name} has another item at position {position} than others had")
