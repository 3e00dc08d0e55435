"""What many histories come to, added up one by one: nothing is kept of a history but what is told of it later."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from simulations.history.runs import Result


class Row(NamedTuple):
    """What a list of histories tells of one."""

    seed: int
    failure: str
    """In a line; empty if all held."""
    devices: int
    actions: int
    faults: int
    situations: int
    virtual_s: float
    cpu_s: float


def row_of(result: Result) -> Row:
    """Return what a list tells of a history."""
    return Row(
        result.options.seed,
        result.failure.partition("\n")[0],
        result.options.devices,
        result.actions,
        result.faults,
        len(result.situations),
        result.virtual_s,
        result.cpu_s,
    )


class Tally:
    """The sums of the histories of one run."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.invariants: Counter[int] = Counter()
        """By number, how many histories broke one; 0 for failures of another kind."""
        self.situations: Counter[int] = Counter()
        """By number, how many histories came through one."""
        self.done: Counter[str] = Counter()
        """How often each kind of action was done and each fault made."""
        self._actions = 0
        self._steps = 0
        self._cpu_s = 0.0

    def add(self, result: Result) -> None:
        """Take in one history."""
        self.rows.append(row_of(result))
        self.situations.update(result.situations.keys())
        self.done.update(result.counts)
        self._actions += result.actions
        self._steps += result.steps
        self._cpu_s += result.cpu_s
        if result.failure:
            self.invariants[result.invariant] += 1

    def totals(self, elapsed_s: float) -> dict[str, Any]:
        """Return what all come to, for programs."""
        from simulations.situations.catalogue import NOT_REACHED, SEEDS_MIN, WORDS, covered

        cpu_s = self._cpu_s or 1e-9
        return {
            "histories": len(self.rows),
            "failed": self.invariants.total(),
            "invariants": {str(number): count for number, count in sorted(self.invariants.items())},
            "seconds": round(elapsed_s, 3),
            "cpu_seconds": round(self._cpu_s, 3),
            "histories_a_second": round(len(self.rows) / cpu_s, 3),
            "actions_a_second": round(self._actions / cpu_s, 1),
            "steps_a_second": round(self._steps / cpu_s, 1),
            "situations": {
                "known": len(WORDS),
                "least": SEEDS_MIN,
                "covered": len(covered(self.situations)),
                "counts": {str(number): self.situations[number] for number in WORDS if number not in NOT_REACHED},
                "not_reached": {str(number): reason for number, reason in NOT_REACHED.items()},
            },
            "done": dict(sorted(self.done.items())),
        }
