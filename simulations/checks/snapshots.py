"""What a snapshot brings back, compared with what stood there when it was made: invariant 24."""

from __future__ import annotations

from protocol.entries import Kind
from simulations.checks.names import is_local, kept_for_local
from simulations.checks.violation import SNAPSHOTS, Violation
from simulations.history.ledger import Tree


def check_restored(name: str, then: Tree, now: Tree) -> None:
    """Invariant 24: paths, kinds, bytes, targets and the executable bit are those that everybody saw then.

    But for what stays on one device by its name, and directories that stood there for nothing else.

    Args:
        name: Of the snapshot.
        then: What stood in the folder when it was made, on a device that was at rest.
        now: What was brought back.

    Raises:
        Violation: It is something else.
    """
    kept = kept_for_local(then, {path for path, seen in then.items() if seen.kind is Kind.DIRECTORY}) - now.keys()
    was = {path: seen[:3] for path, seen in then.items() if not is_local(path) and path not in kept}
    came = {path: seen[:3] for path, seen in now.items()}
    for path in sorted(was.keys() | came.keys()):
        if was.get(path) != came.get(path):
            what = "is not what it was" if path in was and path in came else "is missing" if path in was else "is new"
            raise Violation(SNAPSHOTS, f"{path} {what} after a restore of snapshot {name}")
