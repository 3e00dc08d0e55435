"""Version vectors: what a register's history covers, as a summary for the coordinator (architecture 2).

A vector is never the test of dominance between values; dots and bases are. It says which values may be concurrent.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum
from typing import TypeAlias

from protocol import limits
from protocol.errors import ProtocolError

Vector: TypeAlias = tuple[tuple[int, int], ...]
"""Pairs of (device number, counter), by rising device number, without zeros; the canonical form."""


class Order(Enum):
    """How two histories lie to each other."""

    EQUAL = "equal"
    BEFORE = "before"
    AFTER = "after"
    CONCURRENT = "concurrent"


def check(vector: Vector) -> None:
    """Refuse a vector that is not in canonical form or too long.

    Raises:
        ProtocolError: Not sorted, a duplicate, a number out of range, or more than 64 components.
    """
    if len(vector) > limits.VECTOR_COMPONENTS_MAX:
        raise ProtocolError("version vector has too many components")
    last = 0
    for device, counter in vector:
        if not last < device <= limits.DEVICE_NUMBER_MAX or not 0 < counter < 1 << 63:
            raise ProtocolError("version vector is not in canonical form")
        last = device


def merge(vectors: Iterable[Vector]) -> Vector:
    """Return the least vector that covers all of ``vectors``."""
    highest: dict[int, int] = {}
    for vector in vectors:
        for device, counter in vector:
            if counter > highest.get(device, 0):
                highest[device] = counter
    return tuple(sorted(highest.items()))


def bump(vector: Vector, device: int, counter: int) -> Vector:
    """Return ``vector`` with the component of ``device`` raised to ``counter``."""
    return merge((vector, ((device, counter),)))


def trim(vector: Vector, own: int) -> Vector:
    """Return at most 64 components: the own one and the highest counters; the log's position covers the others."""
    if len(vector) <= limits.VECTOR_COMPONENTS_MAX:
        return vector
    ranked = sorted(vector, key=lambda pair: (pair[0] != own, -pair[1], pair[0]))
    return tuple(sorted(ranked[: limits.VECTOR_COMPONENTS_MAX]))


def covers(left: Vector, right: Vector) -> bool:
    """Tell whether every component of ``right`` is at most that of ``left``."""
    high = dict(left)
    return all(counter <= high.get(device, 0) for device, counter in right)


def compare(left: Vector, right: Vector) -> Order:
    """Return how ``left`` lies to ``right``."""
    above, below = covers(left, right), covers(right, left)
    if above and below:
        return Order.EQUAL
    if above:
        return Order.AFTER
    return Order.BEFORE if below else Order.CONCURRENT
