"""How long things take: drawn, never measured."""

from __future__ import annotations

from math import log
from random import Random
from typing import Final, NamedTuple

MICROSECOND_NS: Final = 1_000
MILLISECOND_NS: Final = 1_000_000


class Delay(NamedTuple):
    """A distribution: at least so long, on the whole ``mean_ns`` longer with an exponential tail, never over the most."""

    least_ns: int
    mean_ns: int
    most_ns: int

    def draw(self, chance: Random) -> int:
        """Return a duration in nanoseconds."""
        if not self.mean_ns:
            return self.least_ns
        # What chance.expovariate(1) computes, without its detours: this is called thousands of times in a run.
        return min(self.most_ns, self.least_ns - int(log(1.0 - chance.random()) * self.mean_ns))


AT_ONCE_SHARE: Final = 0.75
"""How much of what a thread does is done before anything else happens, where nothing else is ready: whoever asked goes on
without a pause, which costs a run a great deal less."""
INSTANT: Final = Delay(0, 0, 0)
WORK: Final = Delay(20 * MICROSECOND_NS, 200 * MICROSECOND_NS, 50 * MILLISECOND_NS)
"""A job of a thread pool."""
COMMIT: Final = Delay(100 * MICROSECOND_NS, 2 * MILLISECOND_NS, 500 * MILLISECOND_NS)
"""A commit with its fsync."""
READ: Final = Delay(10 * MICROSECOND_NS, 50 * MICROSECOND_NS, 20 * MILLISECOND_NS)
"""A query."""
NEAR: Final = Delay(100 * MICROSECOND_NS, 300 * MICROSECOND_NS, 50 * MILLISECOND_NS)
"""One way within a local network."""
FAR: Final = Delay(10 * MILLISECOND_NS, 15 * MILLISECOND_NS, 2_000 * MILLISECOND_NS)
"""One way across the internet."""
