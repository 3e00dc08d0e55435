"""What the devices' databases say, compared with their disks: invariant 20."""

from __future__ import annotations

from simulations.checks.violation import ROWS, Violation
from simulations.history.ledger import Tree
from simulations.world import World


def check(world: World, trees: list[Tree]) -> None:
    """Invariant 20."""
