"""What a check says when something is that must not be."""

from __future__ import annotations

from typing import NamedTuple

from simulations.history.ledger import Action
from simulations.mishaps import SimulationError


class Invariant(NamedTuple):
    """What must hold, by the number that it has in docs/simulation.md."""

    number: int
    name: str


NO_LOST_UPDATE = Invariant(1, "no lost update")
CONVERGENCE = Invariant(2, "convergence")
NO_RESURRECTION = Invariant(3, "no resurrection")
NO_INVENTION = Invariant(4, "no invention")
CONFLICT_EXACTNESS = Invariant(5, "conflict exactness")
DESTRUCTION = Invariant(6, "destructive operations")
ATOMIC_VISIBILITY = Invariant(7, "atomic visibility")
TREE_VALIDITY = Invariant(8, "tree validity")
IDENTITY = Invariant(9, "identity")
MONOTONE_JOURNAL = Invariant(10, "monotone journal")
CAUSALITY = Invariant(11, "causality")
FORK_SAFETY = Invariant(12, "fork safety")
ROLLBACK_SAFETY = Invariant(13, "rollback safety")
CONFIDENTIALITY = Invariant(15, "confidentiality")
DURABILITY = Invariant(16, "durability")
REACHABILITY = Invariant(17, "chunk reachability")
NO_LEAK = Invariant(19, "no leak")
ROWS = Invariant(20, "database, disk and journal agree")
IDEMPOTENCE = Invariant(21, "idempotence")
LIVENESS = Invariant(22, "quiescence and liveness")
COST = Invariant(23, "cost")
SNAPSHOTS = Invariant(24, "snapshot reproducibility")
BOUNDED = Invariant(25, "bounded memory")
BRAKE = Invariant(26, "mass-change guard")
LOCAL_SAFETY = Invariant(27, "local safety")
DETERMINISM = Invariant(28, "determinism")


class Violation(SimulationError):
    """An invariant does not hold.

    Args:
        invariant: Which.
        text: What was found.
        actions: The actions of the ledger that are involved, at most two.
    """

    def __init__(self, invariant: Invariant, text: str, *actions: Action) -> None:
        lines = [f"invariant {invariant.number} ({invariant.name}): {text}", *(f"  {action}" for action in actions)]
        super().__init__("\n".join(lines))
        self.invariant = invariant
        self.text = text
        self.actions = actions
