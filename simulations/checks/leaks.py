"""What is left over at rest, on the disks and in the databases of all machines: the half of invariant 19 that can be checked.

Rule 1: looked for is what something that went on leaves behind: unfinished files, rows of what is over, waits for what came.
Rule 2: whether nodes keep chunks that nothing needs any more is not looked for: nothing takes them away yet.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection
from types import MappingProxyType
from typing import Final

from simulations.checks.names import is_local
from simulations.checks.violation import NO_LEAK, Violation
from simulations.devices import CONTROL, ROOT, DeviceMachine
from simulations.disk import Standing
from simulations.servers import DATA
from simulations.world import World

_HIDDEN: Final = ("aside", "tmp", "trash")
_DEVICE_ROWS: Final = ("spool", "swap", "intent", "tail", "foreign_tail", "held")
"""Tables that hold what is under way."""
_WAITS: Final = """
    WITH RECURSIVE waiting(id) AS (
        SELECT id FROM obstacle UNION SELECT below.id FROM fold_item AS below JOIN waiting ON below.parent = waiting.id)
    SELECT id FROM waiting"""
"""What waits until the disk can take its name, or that of a directory above it."""
_DIRTY: Final = f"SELECT id FROM dirty WHERE id NOT IN ({_WAITS})"  # noqa: S608 - words of our own
_LOCAL: Final = "SELECT id, parent, name FROM local_item"
_WITHOUT_ORDER: Final = (
    "SELECT count(*) FROM entry WHERE position = 0"
    " AND NOT EXISTS (SELECT 1 FROM log WHERE kind = 3 AND instr(data, entry.hash) > 0)"
)
"""Entries that stand in no log; a void one (3) keeps its number."""
_ORPHANS: Final = (
    # A directory that is kept for what is not synced stands here alone: it is in the folder no more.
    "SELECT count(*) FROM obstacle WHERE reason <> 'kept' AND id NOT IN (SELECT id FROM fold_item)",
    "SELECT count(*) FROM obstacle WHERE reason = 'kept' AND id NOT IN (SELECT id FROM synced_item)",
    "SELECT count(*) FROM obstacle WHERE reason = 'kept' AND id IN (SELECT id FROM fold_item)",
    "SELECT count(*) FROM unseen WHERE id NOT IN (SELECT id FROM synced_item)",
    _WITHOUT_ORDER,
    "SELECT count(*) FROM snapshot WHERE position = 0",
)
_COORDINATOR_ROWS: Final = MappingProxyType(
    {
        "pending": "SELECT count(*) FROM pending",
        "waits": "SELECT count(*) FROM waits WHERE kind <> 1 OR waiter NOT IN (SELECT segment FROM segments WHERE NOT durable)",
    }
)
"""A segment may wait for a chunk (1) though no entry waits for the segment: its contents were written over while they were sent.
It is left there as its chunks are left at the nodes."""
_PARTS_MAX: Final = 8
"""Beginnings of chunks that a device keeps for a day."""
_PACK: Final = re.compile(r"packs|packs/[0-9]{8}\.pack")


def check(world: World, put_back: Collection[str] = ()) -> None:
    """Invariant 19: at rest, nothing is left of what was under way.

    Args:
        world: In which everything is at rest.
        put_back: Devices that went back to a backup: of what that brought into a root's hidden directories, their databases
            may know nothing, and so it stays.

    Raises:
        Violation: Something is left.
    """
    for device in world.devices:
        left = [*([] if device.name in put_back else _hidden(device)), *_begun(device), *_rows_left(device)]
        if left:
            raise Violation(NO_LEAK, f"{device.name} is at rest, and left over are {', '.join(left)}")
    for table, query in _COORDINATOR_ROWS.items():
        (count,) = world.coordinator.rows(query)[0]
        if count:
            raise Violation(NO_LEAK, f"all are at rest, and {count} rows of {table} are left at the coordinator")
    for node in world.nodes:
        strays = [path for path in node.disk.tree(DATA) if not _PACK.fullmatch(path)]
        if strays:
            raise Violation(NO_LEAK, f"{node.name} holds {strays[0]}, which is no pack")


def _hidden(device: DeviceMachine) -> list[str]:
    """Return what lies in a root's hidden directories, but for what waits until the disk can take a name."""
    waits = {id.hex() for (id,) in device.rows(_WAITS)}
    found = [(name, path) for name in _HIDDEN for path in _standing(device, f"{ROOT}/{CONTROL}/{name}")]
    return [f"{CONTROL}/{name}/{path}" for name, path in found if path.rpartition("-")[2] not in waits]


def _begun(device: DeviceMachine) -> list[str]:
    home = device.home.tree()
    spooled = [path for path, one in home.items() if path.startswith("spool/") and one.data]
    parts = [path for path in home if path.startswith("parts/")]
    return spooled + parts[_PARTS_MAX:]


def _standing(device: DeviceMachine, path: str) -> dict[str, Standing]:
    return device.disk.tree(path) if device.disk.at(path) is not None else {}


def _rows_left(device: DeviceMachine) -> list[str]:
    queries = [f"SELECT count(*) FROM {table}" for table in _DEVICE_ROWS]  # noqa: S608 - names of our own
    counts = [(query, device.rows(query)[0][0]) for query in (*queries, *_ORPHANS)]
    dirty = [id for (id,) in device.rows(_DIRTY) if not _is_kept(device, id)]
    return [f"{count} rows ({query})" for query, count in (*counts, (_DIRTY, len(dirty))) if count]


def _is_kept(device: DeviceMachine, id: bytes) -> bool:
    """Tell whether an item is a directory that was removed elsewhere, and stays for what waits in it or never leaves."""
    rows = {row[0]: (row[1], os.fsdecode(row[2])) for row in device.rows(_LOCAL)}
    path, at = "", id
    while at in rows:
        at, name = rows[at]
        path = f"{name}/{path}"
    waits, live = ({one for (one,) in device.rows(query)} for query in (_WAITS, "SELECT id FROM fold_item"))
    below = [one for one, (parent, _) in rows.items() if parent == id]
    is_all_kept = all(one in waits or _is_kept(device, one) for one in below)
    holds = below or any(is_local(name) for name in _standing(device, f"{ROOT}/{path.rstrip('/')}"))
    return id in rows and id not in live and is_all_kept and bool(holds)
