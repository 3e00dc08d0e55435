"""What befalls servers and the network in a case: backups put back, connections cut, bytes changed behind a server's back.

Rule 1: a case that does this has servers of its own.
"""

from __future__ import annotations

import shutil
import struct
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from simulations.cases.grammar import Skipped, size_of
from simulations.cases.world import World

_PACK_HEADER_BYTES: Final = 56
_RECORD: Final = struct.Struct(">4sB3xI32s16s16x")
"""A record's header in a pack: magic, kind, length, chunk, reader (docs/storage_format.md)."""
_CHUNK_KIND: Final = 1


def _snapshot(world: World, step: Mapping[str, Any]) -> None:
    coordinator = world.site.cluster.coordinator
    coordinator.stop()
    shutil.copytree(world.site.cluster.root / "coordinator", world.place / f"coordinator-{step['name']}")
    coordinator.start()


def _restore(world: World, step: Mapping[str, Any]) -> None:
    cluster = world.site.cluster
    world.memory["before fault"] = {peer.name: world.tree(peer) for peer in world.peers.values()}
    cluster.coordinator.stop()
    shutil.rmtree(cluster.root / "coordinator")
    shutil.copytree(world.place / f"coordinator-{step['name']}", cluster.root / "coordinator")
    cluster.coordinator.start()


def _cut_after(world: World, step: Mapping[str, Any]) -> None:
    world.has_fault = True
    for meter in world.site.cluster.meters:
        meter.cut_after(size_of(step["bytes"]))


def _heal(world: World, step: Mapping[str, Any]) -> None:  # noqa: ARG001 - the signature of an operation
    world.has_fault = False
    for meter in world.site.cluster.meters:
        meter.mend()


class _Stored(NamedTuple):
    """A chunk's bytes in a pack."""

    pack: Path
    offset: int
    length: int


def _corrupt_chunk(world: World, step: Mapping[str, Any]) -> None:  # noqa: ARG001 - see _heal
    """Change a byte of the largest chunk in each node: a list of chunks is smaller than any content of a case.

    Raises:
        Skipped: Several files have contents there, so which is whose cannot be told.
    """
    if len(world.contents.whole) != 1:
        raise Skipped("which chunk is this file's cannot be told from outside")
    world.has_fault = True
    world.memory["corrupt"] = []
    for packs in world.site.cluster.root.glob("node*/packs"):
        found = max(_stored(packs), key=lambda each: each.length)
        world.memory["corrupt"].append(found)
        _flip(found)


def _repair_chunk(world: World, step: Mapping[str, Any]) -> None:  # noqa: ARG001 - see _heal
    """Set the bytes right; the nodes look at their packs anew, since they may have given the chunk up."""
    world.has_fault = False
    for node in world.site.cluster.nodes:
        node.stop()
    for each in world.memory["corrupt"]:
        _flip(each)
        for index in each.pack.parent.parent.glob("index.sqlite*"):
            index.unlink()
    for node in world.site.cluster.nodes:
        node.start()


def _stored(packs: Path) -> Iterator[_Stored]:
    for pack in sorted(packs.iterdir()):
        data = pack.read_bytes()
        offset = _PACK_HEADER_BYTES
        while offset + _RECORD.size <= len(data):
            magic, kind, length, _, _ = _RECORD.unpack_from(data, offset)
            if magic != b"KREC":
                break
            offset += _RECORD.size
            if kind == _CHUNK_KIND:
                yield _Stored(pack, offset, length)
                offset += length


def _flip(stored: _Stored) -> None:
    with open(stored.pack, "r+b") as file:
        file.seek(stored.offset + stored.length // 2)
        byte = file.read(1)[0]
        file.seek(-1, 1)
        file.write(bytes([byte ^ 0xFF]))


OPERATIONS: Final[Mapping[str, Callable[[World, Mapping[str, Any]], None]]] = {
    "snapshot": _snapshot,
    "restore": _restore,
    "cut_after": _cut_after,
    "heal": _heal,
    "corrupt_chunk": _corrupt_chunk,
    "repair_chunk": _repair_chunk,
}
