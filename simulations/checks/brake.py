"""What others lost by a mass change that nobody saw and nobody confirmed, or by a root that was away: invariant 26."""

from __future__ import annotations

from collections.abc import Sequence

from simulations.checks.names import is_local
from simulations.checks.violation import BRAKE, Violation
from simulations.history.ledger import Tree


def check(what: str, before: Sequence[Tree], after: Sequence[Tree], *, but: int) -> None:
    """Invariant 26: until a person has said that it is meant, no other device loses or replaces anything by it.

    Args:
        what: Happened on a device.
        before: What all showed.
        after: What all show now.
        but: The device on which it happened.

    Raises:
        Violation: Another shows something else than before.
    """
    for number, (old, new) in enumerate(zip(before, after, strict=True)):
        if number != but:
            for path, seen in old.items():
                if not is_local(path) and new.get(path) != seen:
                    raise Violation(BRAKE, f"{what} on device-{but}, and device-{number} loses {path}")
