"""What an action cost, in entries of the log and in bytes to storage nodes: invariant 23; and of 22, what rest costs."""

from __future__ import annotations

from typing import Final, NamedTuple

from protocol.entries import parse_entry
from protocol.history import ItemKind
from simulations.checks.violation import COST, LIVENESS, Violation
from simulations.world import World

ENTRIES_MAX: Final = 1
CHANGES_MAX: Final = 2
"""For a name or the attributes of one item, however much is in it."""
_LOG: Final = "SELECT kind, data FROM log"


class Spent(NamedTuple):
    """What was spent until some moment."""

    entries: int
    changes: int
    """In them."""
    sent_bytes: int
    """From devices to storage nodes."""


def spent(world: World) -> Spent:
    """Return what was spent until now."""
    entries = [parse_entry(data) for kind, data in world.coordinator.rows(_LOG) if kind == ItemKind.ENTRY]
    links = [world.network.link(device.name, node.name) for device in world.devices for node in world.nodes]
    changes = sum(len(entry.header.changes) for entry in entries)
    return Spent(len(entries), changes, sum(link.carried_bytes for link in links))


def check(what: str, before: Spent, after: Spent) -> None:
    """Invariant 23: one item's name or attributes cost an entry, and no byte of a content.

    Args:
        what: Somebody did in between, and nobody anything else.
        before: It.
        after: Everybody had it.

    Raises:
        Violation: It cost more.
    """
    entries, changes, sent = (now - then for now, then in zip(after, before, strict=True))
    if entries > ENTRIES_MAX or changes > CHANGES_MAX or sent:
        raise Violation(COST, f"{what} cost {entries} entries of {changes} changes and {sent} bytes to storage nodes")


def check_nothing(before: Spent, after: Spent) -> None:
    """Invariant 22: whoever looks at everything again at rest writes no entry, and sends nothing to storage nodes.

    Args:
        before: Everybody looked.
        after: It.

    Raises:
        Violation: Something was spent.
    """
    entries, _, sent = (now - then for now, then in zip(after, before, strict=True))
    if entries or sent:
        text = f"looking again at rest cost {entries} entries and {sent} bytes to storage nodes"
        raise Violation(LIVENESS, text)
