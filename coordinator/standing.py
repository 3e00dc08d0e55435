"""A storage node as people are told of it: what the database says of it and of its retirement."""

from __future__ import annotations

from typing import NamedTuple

from coordinator.store.nodes import StorageNode
from coordinator.store.repository import Repository
from coordinator.store.retirements import Retirement


class Standing(NamedTuple):
    """One storage node, and its retirement if it was asked for."""

    node: StorageNode
    retirement: Retirement | None

    @property
    def state(self) -> str:
        """``in_service``, ``retiring`` or ``retired``."""
        if self.retirement is None:
            return "in_service"
        return "retired" if self.retirement.is_over else "retiring"

    @property
    def name(self) -> str:
        """What people call it by."""
        return self.node.node.hex()[:16]


def standings(repository: Repository) -> list[Standing]:
    """Return all storage nodes by their numbers."""
    retirements = repository.retirements.all()
    return [Standing(node, retirements.get(node.node)) for node in repository.nodes.all()]


def size_text(count_bytes: float) -> str:
    """Return a size as people read it."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if count_bytes < 1000:
            return f"{count_bytes:.0f} {unit}" if unit == "bytes" else f"{count_bytes:.1f} {unit}"
        count_bytes /= 1000
    return f"{count_bytes:.1f} TB"


def what_is_left(retirement: Retirement) -> str:
    """Return in words what still depends on a node."""
    if not retirement.counted_ms:
        return "not yet counted"
    chunks = retirement.chunks_left
    return f"{chunks:,} chunk{'' if chunks == 1 else 's'} ({size_text(retirement.bytes_left)}) left"
