"""What befalls servers and the network in a case: backups put back, connections cut, bytes changed behind a server's back.

Rule 1: a case that does this has servers of its own.
"""

from __future__ import annotations

import struct
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any, Final, NamedTuple

from simulations.cases.grammar import Skipped
from simulations.cases.hands import Packs
from simulations.cases.world import World

Step = Mapping[str, Any]
_PACK_HEADER_BYTES: Final = 56
_RECORD: Final = struct.Struct(">4sB3xI32s16s16x")
"""A record's header in a pack: magic, kind, length, chunk, reader (docs/storage_format.md)."""
_CHUNK_KIND: Final = 1


async def _snapshot(world: World, step: Step) -> None:
    await world.hands.keep_coordinator(step["name"])


async def _restore(world: World, step: Step) -> None:
    world.memory["before fault"] = {peer.name: world.tree(peer) for peer in world.peers.values()}
    await world.hands.put_back_coordinator(step["name"])


async def _cut_after(world: World, step: Step) -> None:
    world.has_fault = True
    world.hands.cut_after(world.peers[step["target"]].machine, world.size(step["bytes"]))


async def _heal(world: World, step: Step) -> None:  # noqa: ARG001 - the signature of an operation
    world.has_fault = False
    world.hands.heal()


async def _delay(world: World, step: Step) -> None:
    world.hands.tricks.delay(world.peers[step["target"]].machine, step["seconds"])


async def _reorder_journal_batch(world: World, step: Step) -> None:
    """Have the next batch of entries for a device arrive in reverse order.

    That is a log that contradicts itself, which a device must refuse: its next pass may fail and say so. The pass after it
    is shown the log as it is, and has to apply all of it; so a case sees one failing pass in its middle, and no harm.
    """
    world.memory[f"reordered:{step['target']}"] = True
    world.hands.tricks.reorder(world.peers[step["target"]].machine)


async def _reap_tombstones(world: World, step: Step) -> None:
    """Let the coordinator forget what it may of what was removed: that is nothing, since it keeps the whole log."""


class Stored(NamedTuple):
    """A chunk's bytes in a pack."""

    packs: Packs
    pack: str
    offset: int
    length: int


async def _corrupt_chunk(world: World, step: Step) -> None:  # noqa: ARG001 - see _heal
    """Change a byte of the largest chunk in each node: a list of chunks is smaller than any content of a case.

    Raises:
        Skipped: Several files have contents there, so which is whose cannot be told.
    """
    if len(world.contents.whole) != 1:
        raise Skipped("which chunk is this file's cannot be told from outside")
    world.has_fault = True
    world.memory["corrupt"] = []
    for packs in world.hands.packs():
        if chunks := list(stored(packs)):
            found = max(chunks, key=lambda each: each.length)
            world.memory["corrupt"].append(found)
            _flip(found)


async def _repair_chunk(world: World, step: Step) -> None:  # noqa: ARG001 - see _heal
    """Set the bytes right; the nodes look at their packs anew, since they may have given the chunk up."""
    world.has_fault = False
    for each in world.memory["corrupt"]:
        _flip(each)
    await world.hands.restart_nodes()


def stored(packs: Packs) -> Iterator[Stored]:
    """Yield the chunks of a storage node."""
    for pack in packs.disk.list(packs.path):
        path = f"{packs.path}/{pack}"
        data = packs.disk.read(path)
        offset = _PACK_HEADER_BYTES
        while offset + _RECORD.size <= len(data):
            magic, kind, length, _, _ = _RECORD.unpack_from(data, offset)
            if magic != b"KREC":
                break
            offset += _RECORD.size
            if kind == _CHUNK_KIND:
                yield Stored(packs, path, offset, length)
                offset += length


def _flip(chunk: Stored) -> None:
    at = chunk.offset + chunk.length // 2
    byte = chunk.packs.disk.read(chunk.pack)[at]
    with chunk.packs.disk.open(chunk.pack) as file:
        file.write(bytes([byte ^ 0xFF]), at)


OPERATIONS: Final[Mapping[str, Callable[[World, Step], Awaitable[None]]]] = {
    "snapshot": _snapshot,
    "restore": _restore,
    "cut_after": _cut_after,
    "heal": _heal,
    "delay": _delay,
    "reorder_journal_batch": _reorder_journal_batch,
    "corrupt_chunk": _corrupt_chunk,
    "repair_chunk": _repair_chunk,
    "reap_tombstones": _reap_tombstones,
}
