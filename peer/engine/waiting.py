"""Why an item waits, in the reason codes of the contract, and how far transfers are."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import msgspec

from peer.core.tree import ItemId

OF_NETWORK: Final = frozenset(
    {"no_quorum", "no_source", "spool_full", "unavailable", "no_coordinator", "behind", "access_denied"}
)
AWAITED: Final = "awaited"
"""What another device has signed, and nobody gives yet: it comes once it is ordered."""
DISK_FULL: Final = "disk_full"
CODES: Final = {AWAITED: "no_source", "occupied": "queued", "unavailable": "no_coordinator", "behind": "no_coordinator"}
RETRY_S_MIN: Final = 0.5
RETRY_S_MAX: Final = 60.0
LASTING: Final = frozenset({"name", "disk_full", "locked", "read_only", "unreadable"})
"""What stays so until somebody does something about this disk, or about the item."""
REASONS: Final = frozenset(
    [
        "changing",
        "queued",
        "transferring",
        "no_coordinator",
        "no_quorum",
        "offline",
        "no_source",
        "unreadable",
        "name",
        DISK_FULL,
        "locked",
        "held",
        "frozen",
        "read_only",
        "quota",
        "spool_full",
        "error",
    ]
)


class Blocked(msgspec.Struct):
    """Why an item waits, and until when."""

    reason: str
    until_s: float
    failures: int
    text: str = ""
    """What failed, in words."""

    def is_due(self, now_s: float) -> bool:
        """Whether it is tried again now. A name is at once, when the plan knows that it was refused."""
        return self.until_s <= now_s or (self.reason == "name" and self.failures == 1)


class Waits(NamedTuple):
    """What a plan must know of what waits."""

    leave: frozenset[ItemId] = frozenset()
    """What is in transfer, or waits for its time."""
    refused: frozenset[ItemId] = frozenset()
    """What is tried again though this disk refused its name."""
    nameless: frozenset[ItemId] = frozenset()
    """Of what is left alone, that of which this disk refused the name."""
    kept: frozenset[ItemId] = frozenset()
    """Directories that are to go and cannot, since something in them is not synced."""


def longer(before: Blocked | None, reason: str, now_s: float) -> Blocked:
    """Return how long to wait once more, each time twice as long."""
    failures = 1 if before is None else before.failures + 1
    pause = min(RETRY_S_MAX, RETRY_S_MIN * 2 ** min(failures, 12))
    return Blocked(reason, now_s + pause, failures)


class Progress(msgspec.Struct):
    """What transfers have to do and have done, since there was last nothing to do."""

    files: int = 0
    files_done: int = 0
    bytes: int = 0
    bytes_done: int = 0


def told(folder: str, **phases: Progress) -> Iterator[dict[str, Any]]:
    """Yield how far each phase is that has anything to do."""
    for phase, state in phases.items():
        if state.files:
            yield {
                "phase": phase,
                "folder": folder,
                "bytes_done": state.bytes_done,
                "bytes_total": state.bytes,
                "files_done": state.files_done,
                "files_total": state.files,
            }
