"""What the devices' databases say, compared with their disks: invariant 20.

Rule 1: the rows are read as they lie there; how the product reads them is not asked.
"""

from __future__ import annotations

import os
from typing import Any, Final

import msgspec

from protocol.entries import Kind
from simulations.checks.names import is_local
from simulations.checks.violation import ROWS, TREE_VALIDITY, Violation
from simulations.devices import DeviceMachine
from simulations.history.ledger import Seen, Tree
from simulations.world import World

_LOCAL: Final = "SELECT id, parent, name, content FROM local_item"
_SYNCED: Final = "SELECT id, parent, name, content FROM synced_item"
_LEFT: Final = ("SELECT count(*) FROM tail", "SELECT count(*) FROM intent", "SELECT count(*) FROM foreign_tail")
_PARTS_MAX: Final = 200

Row = tuple[bytes, bytes, bytes, bytes]


def check(world: World, trees: list[Tree]) -> None:
    """Invariant 20: what the database says was seen, and what it says is synced, is what stands on the disk.

    Compared are paths, kinds, hashes and the executable bit. Left out is what stays on the device by its name.
    """
    for device, tree in zip(world.devices, trees, strict=True):
        shown = {path: seen for path, seen in tree.items() if not is_local(path)}
        _compare(device, "local", device.rows(_LOCAL), shown)
        if not device.disk.personality.changes_names:
            _compare(device, "synced", device.rows(_SYNCED), shown)
        for query in _LEFT:
            (count,) = device.rows(query)[0]
            if count:
                raise Violation(ROWS, f"{device.name} is at rest, and {count} rows are left: {query}")


def _compare(device: DeviceMachine, table: str, rows: list[Any], shown: Tree) -> None:
    known = {_as_shown(device, path): content for path, content in _paths(device, table, rows).items()}
    for path in sorted(shown.keys() | known.keys()):
        seen, row = shown.get(path), known.get(path)
        if seen is None or row is None:
            where = "its rows" if seen is None else "the disk"
            raise Violation(ROWS, f"{path} is only in {where} ({table} tree of {device.name})")
        if not _agrees(seen, row):
            raise Violation(ROWS, f"{path} is another on the disk than in the {table} tree of {device.name}")


def _as_shown(device: DeviceMachine, path: str) -> str:
    """Return how a path of rows shows on a disk that keeps names in another Unicode form."""
    personality = device.disk.personality
    return "/".join(map(personality.stored, path.split("/"))) if personality.stores_nfd else path


def _paths(device: DeviceMachine, table: str, rows: list[Row]) -> dict[str, Any]:
    """Return the contents of rows by path; each row is on one way from the root (invariant 8)."""
    items = {id: (parent, os.fsdecode(name), content) for id, parent, name, content in rows}
    found: dict[str, Any] = {}
    for id, (_, _, content) in items.items():
        parts: list[str] = []
        at = id
        while at in items:
            parts.append(items[at][1])
            at = items[at][0]
            if len(parts) > _PARTS_MAX:
                raise Violation(TREE_VALIDITY, f"a cycle in the {table} tree of {device.name}")
        if any(at):
            raise Violation(TREE_VALIDITY, f"{parts[0]} has no parent in the {table} tree of {device.name}")
        path = "/".join(reversed(parts))
        if path in found:
            raise Violation(TREE_VALIDITY, f"{path} stands twice in the {table} tree of {device.name}")
        found[path] = msgspec.msgpack.decode(content)
    return found


def _agrees(seen: Seen, content: Any) -> bool:
    kind, hash, _, _, executable, target = content
    if seen.kind is not Kind(kind):
        return False
    if seen.kind is Kind.FILE:
        return bool(hash == seen.content and executable == seen.executable)
    return seen.kind is Kind.DIRECTORY or bool(target == seen.content)
