"""Which storage nodes are to hold a chunk (architecture 7).

A *group* is a folder's pseudonym and a bucket; all chunks of a group go to the same nodes. Nodes are ranked for a group by
rendezvous hashing (Thaler and Ravishankar, 1998), so adding or losing a node moves only what it must.

Rule 1: copies lie with distinct operators and in distinct zones whenever there are any.
Rule 2: the same group and nodes give the same answer everywhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from blake3 import blake3

from protocol import limits
from protocol.ids import Pseudonym, StorageNodeId


class Place(NamedTuple):
    """A storage node as placement sees it."""

    id: StorageNodeId
    operator: str
    zone: str
    online: bool


def group(pseudonym: Pseudonym, bucket: int = 0) -> bytes:
    """Return the name of a folder's group."""
    return blake3(b"kinfolder/group/v1\x00" + pseudonym + bucket.to_bytes(4, "big")).digest()


def rank(group: bytes, places: Iterable[Place]) -> list[Place]:
    """Return the nodes by falling preference of a group, whatever their operators and zones."""
    return sorted(places, key=lambda place: blake3(place.id, key=group).digest())


def spread(ranked: Sequence[Place], count: int, held: Sequence[Place] = ()) -> list[Place]:
    """Return up to ``count`` of the ranked nodes, each as far from those before it as there are nodes for it.

    Args:
        ranked: Candidates by falling preference.
        count: How many to choose.
        held: Nodes that hold a copy already: not chosen, and kept away from.
    """
    chosen: list[Place] = []
    rest = [place for place in ranked if place not in held]
    operators = {place.operator for place in held}
    zones = {place.zone for place in held}
    while rest and len(chosen) < count:
        best = min(rest, key=lambda place: (place.operator in operators, place.zone in zones))
        rest.remove(best)
        chosen.append(best)
        operators.add(best.operator)
        zones.add(best.zone)
    return chosen


def order(group: bytes, places: Sequence[Place], replicas: int) -> list[Place]:
    """Return the nodes in the order in which a client should use them.

    The first ``replicas`` are those that are to hold the group's chunks; the others follow by rank, the ones that are
    online first. At most PLACEMENT_NODES_MAX.
    """
    ranked = rank(group, places)
    preferred = spread(ranked, replicas)
    rest = [place for place in ranked if place not in preferred]
    rest.sort(key=lambda place: not place.online)
    return [*preferred, *rest][: limits.PLACEMENT_NODES_MAX]


def sharing(places: Sequence[Place]) -> bool:
    """Tell whether two of these nodes have one operator or lie in one zone."""
    return len({p.operator for p in places}) < len(places) or len({p.zone for p in places}) < len(places)
