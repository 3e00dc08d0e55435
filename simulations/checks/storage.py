"""What the storage nodes really hold, of all that the folder's log needs: invariant 17.

Rule 1: what lies in their packs counts, byte for byte; what a node or the coordinator says of it is not asked.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from protocol.chunks import check_chunk
from protocol.entries import parse_entry
from protocol.errors import KinfolderError
from protocol.history import ItemKind
from protocol.ids import ChunkId
from simulations.checks.violation import REACHABILITY, Violation
from simulations.inodes import File
from simulations.servers import DATA, NodeMachine
from simulations.world import World
from storage_node.chunks.records import PACK_HEADER_BYTES, RECORD_HEADER_BYTES, Kind, decode_pack_header, scan

_LOG: Final = "SELECT position, kind, data FROM log ORDER BY position"
_SEGMENTS: Final = "SELECT segment, chunks FROM segments"
_REF_BYTES: Final = 36
_ID_BYTES: Final = 32
_PACKS: Final = f"{DATA}/packs"


class Needs(NamedTuple):
    """What the log needs."""

    chunks: dict[ChunkId, int]
    """Every chunk that is known, with the position of the first entry that needs it."""
    unknown: dict[ChunkId, int]
    """Those segments of which the coordinator does not know the chunks: it was set back, and is not told again yet."""


def needed(world: World) -> Needs:
    """Return what the log needs; the coordinator must run."""
    segments: dict[bytes, bytes] = dict(world.coordinator.rows(_SEGMENTS))
    found: dict[ChunkId, int] = {}
    unknown: dict[ChunkId, int] = {}
    for position, kind, data in world.coordinator.rows(_LOG):
        pins = parse_entry(data).header.pins if kind == ItemKind.ENTRY else ()
        for segment in pins:
            found.setdefault(segment, position)
            chunks = segments.get(segment)
            if chunks is None:
                unknown.setdefault(segment, position)
                continue
            for at in range(0, len(chunks), _REF_BYTES):
                found.setdefault(ChunkId(chunks[at : at + _ID_BYTES]), position)
    return Needs(found, unknown)


def held_by(node: NodeMachine) -> frozenset[ChunkId]:
    """Return the chunks that are whole in a node's packs."""
    found: set[ChunkId] = set()
    packs = node.disk.tree(_PACKS)
    for name in packs:
        inode = node.disk.at(f"{_PACKS}/{name}")
        if isinstance(inode, File) and name.endswith(".pack"):
            found |= _whole(inode.data(), int(name.removesuffix(".pack")))
    return frozenset(found)


def _whole(data: bytes, number: int) -> set[ChunkId]:
    secret = decode_pack_header(data[:PACK_HEADER_BYTES])
    found: set[ChunkId] = set()
    if secret is None:
        return found
    records = scan(
        lambda offset, count: data[offset : offset + count],
        pack=number,
        secret=secret,
        start=PACK_HEADER_BYTES,
        size=len(data),
    )
    for record in records:
        if record.kind is Kind.CHUNK:
            try:
                check_chunk(data[record.offset + RECORD_HEADER_BYTES : record.end], record.id)
            except KinfolderError:
                continue
            found.add(record.id)
    return found


def check_reachability(world: World, copies: int) -> None:
    """Invariant 17: each chunk of each entry in the log lies whole on at least so many nodes.

    Where more than one copy is asked for, the coordinator must know of all chunks, too.

    Raises:
        Violation: One does not.
    """
    holders = [held_by(node) for node in world.nodes]
    needs = needed(world)
    for segment, position in needs.unknown.items():
        if copies > 1:
            text = (
                f"the coordinator does not know the chunks of {segment.hex()[:8]}, which the entry at {position} needs"
            )
            raise Violation(REACHABILITY, text)
    for chunk, position in needs.chunks.items():
        count = sum(chunk in holder for holder in holders)
        if count < copies:
            text = f"{chunk.hex()[:8]}, which the entry at {position} needs, is on {count} nodes, not on {copies}"
            raise Violation(REACHABILITY, text)
