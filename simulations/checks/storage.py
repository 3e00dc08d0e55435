"""What the storage nodes really hold: of all that the folder's log needs (17), and of what they gave receipts for (16).

Rule 1: what lies in their packs counts, byte for byte; what a node or the coordinator says of it is not asked.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from protocol.chunks import check_chunk
from protocol.entries import parse_entry
from protocol.errors import KinfolderError
from protocol.history import ItemKind
from protocol.ids import ChunkId
from simulations.checks.violation import DURABILITY, REACHABILITY, Violation
from simulations.inodes import Change, Fate, File
from simulations.servers import DATA, NodeMachine
from simulations.world import World
from storage_node.chunks.records import PACK_HEADER_BYTES, RECORD_HEADER_BYTES, Kind, decode_pack_header, scan

_LOG: Final = "SELECT position, kind, data FROM log ORDER BY position"
_SEGMENTS: Final = "SELECT segment, chunks FROM segments"
_NODE: Final = "SELECT number FROM storage_nodes WHERE node = x'{node}'"
_TOLD: Final = "SELECT chunk, nodes FROM chunks"
_NUMBER_BYTES: Final = 2
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
    return frozenset(chunk.id for number, pack in _packs(node) for chunk in _whole(pack.data(), number))


class _Chunk(NamedTuple):
    """A whole chunk, and where its record lies in a pack."""

    id: ChunkId
    offset: int
    end: int


def _packs(node: NodeMachine) -> Iterator[tuple[int, File]]:
    for name in node.disk.tree(_PACKS):
        inode = node.disk.at(f"{_PACKS}/{name}")
        if isinstance(inode, File) and name.endswith(".pack"):
            yield int(name.removesuffix(".pack")), inode


def _whole(data: bytes, number: int) -> Iterator[_Chunk]:
    secret = decode_pack_header(data[:PACK_HEADER_BYTES])
    if secret is None:
        return
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
            yield _Chunk(record.id, record.offset, record.end)


def check_durability(world: World) -> None:
    """Invariant 16: of what the coordinator has a node's receipt for, a power cut at this instant would take nothing.

    The coordinator must run. A node that may have lost what it gave receipts for, and may be getting it again, is left out.

    Raises:
        Violation: It would take something.
    """
    for node in world.nodes:
        at_risk = set() if node.may_lack else _at_risk(node)
        told = at_risk and at_risk & _told(world, node)
        if told:
            text = f"{node.name} gave a receipt for {min(told).hex()[:8]}, which is not durable there"
            raise Violation(DURABILITY, text)


def _at_risk(node: NodeMachine) -> set[ChunkId]:
    """Return the chunks that are whole in a node's packs, and would not all be after a power cut."""
    found: set[ChunkId] = set()
    durable: set[ChunkId] = set()
    for number, pack in _packs(node):
        is_named = not any(pack in change.inodes() for change in node.disk.pending)
        changes = [one for one in pack.pending if one.is_bytes and one.fate is not Fate.DURABLE]
        if is_named and not changes:
            continue
        for chunk in _whole(pack.data(), number):
            touched = any(_reaches(change, chunk) for change in changes)
            (durable if is_named and not touched else found).add(chunk.id)
    return found - durable


def _reaches(change: Change, chunk: _Chunk) -> bool:
    """Tell whether a change of a pack is of what a chunk's record lies in, or cut the pack before it."""
    if change.data is None:
        return change.size is not None and change.size < chunk.end
    return change.offset < chunk.end and chunk.offset < change.offset + len(change.data)


def _told(world: World, node: NodeMachine) -> set[ChunkId]:
    """Return the chunks for which the coordinator has a node's receipt."""
    assert node.identity is not None
    numbers = world.coordinator.rows(_NODE.format(node=node.identity.node.hex()))
    if not numbers:
        return set()
    packed = numbers[0][0].to_bytes(_NUMBER_BYTES, "big")
    return {
        ChunkId(chunk)
        for chunk, nodes in world.coordinator.rows(_TOLD)
        if packed in {nodes[at : at + _NUMBER_BYTES] for at in range(0, len(nodes), _NUMBER_BYTES)}
    }


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
