"""What became of a step."""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from peer.core.observations import Fingerprint
from peer.core.operations import Step


class Done(msgspec.Struct, frozen=True):
    """The disk holds it, durably."""

    step: Step
    fingerprint: Fingerprint | None = None
    """Of exactly the content that the step put there; None: hash it again before relying on it (and for a deletion)."""


class Mismatch(msgspec.Struct, frozen=True):
    """The disk did not hold what the step expects: observe and plan again. Nothing that a user wrote is lost."""

    step: Step
    found: str
    """``missing``, ``changed``, ``taken``, ``not_empty``; ``occupied``: what the last scan saw in it is to go first; ``parent``:
    a directory above is gone or is a link; ``unseen``: what the last scan saw there has left it, and only a scan can tell
    whereto."""
    kept: str = ""
    """Path at which a user's bytes lie now that could not go back to their own name."""


class Failed(msgspec.Struct, frozen=True):
    """The disk refused; the step may be tried again later. Nothing under a user's name has changed."""

    step: Step
    reason: str
    """A code of the contract: disk_full, unreadable, read_only, locked, name, error."""
    text: str


Outcome: TypeAlias = Done | Mismatch | Failed


class StopStep(Exception):  # carries a result from deep within a step, it is no error
    """Ends a step with a mismatch."""

    def __init__(self, found: str, kept: str = "") -> None:
        super().__init__(found)
        self.found = found
        self.kept = kept
