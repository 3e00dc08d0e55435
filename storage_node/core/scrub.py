"""What to verify next: a pass over all chunks at a bounded rate, for ever.

Rule 1: pure; ``handle(event, now) -> command`` with :meth:`Scrub.next_deadline`.
Rule 2: reading never exceeds SCRUB_BYTES_PER_S and SCRUB_CHUNKS_PER_S in the mean, and a pass never starts sooner than
        PASS_S_MIN after the one before it.
Rule 3: a pass begins at a random id and goes round, so short lives of the process still reach everything.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from protocol import limits
from protocol.grants import ChunkRef
from protocol.ids import ChunkId

SCRUB_BYTES_PER_S: Final = 8 * limits.MIB
SCRUB_CHUNKS_PER_S: Final = 200
STEP_CHUNKS_MAX: Final = 16
PASS_S_MIN: Final = 24 * 3600.0
FIRST_S: Final = 60.0
"""A node that has just started serves first."""


class Look(NamedTuple):
    """Command: verify the next chunks after this id."""

    after: ChunkId | None
    chunks_max: int


class Scrub:
    """Says when to verify what.

    Args:
        start: A random id where the first pass begins.
        now_s: Monotonic time.
    """

    def __init__(self, start: ChunkId, now_s: float) -> None:
        self._start = start
        self._after: ChunkId | None = start
        self._is_second_half = False
        self._due_s = now_s + FIRST_S
        self._pass_began_s = self._due_s
        self.passes = 0
        """How often everything was verified."""

    def next_deadline(self) -> float:
        """Return when :meth:`due` has something to say."""
        return self._due_s

    def due(self, now_s: float) -> Look | None:
        """Return what to verify now; the shell answers with :meth:`looked`."""
        return Look(self._after, STEP_CHUNKS_MAX) if now_s >= self._due_s else None

    def looked(self, chunks: Sequence[ChunkRef], now_s: float) -> None:
        """Take in which chunks were verified: fewer than asked for means that there are no more after them."""
        seconds = max(sum(c.length for c in chunks) / SCRUB_BYTES_PER_S, len(chunks) / SCRUB_CHUNKS_PER_S)
        self._due_s = now_s + seconds
        last = chunks[-1].id if chunks else None
        if self._is_second_half and (last is None or last >= self._start or len(chunks) < STEP_CHUNKS_MAX):
            self._end_pass(now_s)
        elif len(chunks) < STEP_CHUNKS_MAX:
            self._after, self._is_second_half = None, True
        else:
            self._after = last

    def _end_pass(self, now_s: float) -> None:
        self.passes += 1
        self._after, self._is_second_half = self._start, False
        self._due_s = max(now_s, self._pass_began_s + PASS_S_MIN)
        self._pass_began_s = self._due_s
