"""Taking a storage node out of service: what still depends on it, and whether the others can do without it.

Rule 1: a chunk depends on a leaving node until as many of the others as there should be copies hold it.
Rule 2: only nodes that stay and are up count as others; a node that leaves counts as a source while it is up.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import NamedTuple


class Holding(NamedTuple):
    """How much is held by just these nodes."""

    nodes: tuple[int, ...]
    chunks: int
    bytes: int


class Left(NamedTuple):
    """What depends on a leaving node."""

    chunks: int
    bytes: int
    alone: int
    """Chunks among these that no node which is up can give."""


class Member(NamedTuple):
    """A storage node as one that is to make up for another."""

    number: int
    online: bool
    away_s: float
    """How long it was not heard of; of no account while it is online."""
    free_bytes: int


class Shortage(NamedTuple):
    """Why the others cannot do without a node."""

    what: str
    """``nodes`` or ``bytes``."""
    needed: int
    there: int


def depends(nodes: Collection[int], leaving: int, others: Collection[int], replicas: int) -> bool:
    """Tell whether a chunk on these nodes depends on the one that leaves."""
    return leaving in nodes and sum(number in others for number in nodes) < replicas


def is_alone(nodes: Iterable[int], online: Collection[int]) -> bool:
    """Tell whether none of these nodes can give a chunk now."""
    return not any(number in online for number in nodes)


def count_left(
    holdings: Iterable[Holding], leaving: int, *, others: Collection[int], online: Collection[int], replicas: int
) -> Left:
    """Count what depends on a node.

    Args:
        holdings: All chunks, by the nodes that hold them.
        leaving: The node.
        others: Nodes whose copies count for what is to come.
        online: Nodes that can give chunks now.
        replicas: How many copies there should be.
    """
    left = [one for one in holdings if depends(one.nodes, leaving, others, replicas)]
    return Left(
        sum(one.chunks for one in left),
        sum(one.bytes for one in left),
        sum(one.chunks for one in left if is_alone(one.nodes, online)),
    )


def staying(members: Iterable[Member], *, is_served: bool, gone_after_s: float) -> list[Member]:
    """Return those of the nodes that may be counted on; without a running server nobody can know who is away."""
    return [one for one in members if not is_served or one.online or one.away_s <= gone_after_s]


def shortage(holdings: Iterable[Holding], leaving: int, others: Collection[Member], replicas: int) -> Shortage | None:
    """Return why these others cannot hold all copies without a node, None if they can."""
    if len(others) < replicas:
        return Shortage("nodes", replicas, len(others))
    numbers = {one.number for one in others}
    needed = sum(
        one.bytes * (replicas - sum(number in numbers for number in one.nodes))
        for one in holdings
        if depends(one.nodes, leaving, numbers, replicas)
    )
    free = sum(one.free_bytes for one in others)
    return Shortage("bytes", needed, free) if needed > free else None
