"""The real doors to time and chance."""

from __future__ import annotations

import os
import time


class SystemClock:
    """The machine's clock."""

    def now_ms(self) -> int:
        """Return the wall clock in milliseconds since 1970."""
        return time.time_ns() // 1_000_000

    def monotonic_s(self) -> float:
        """Return seconds since some moment of this process."""
        return time.monotonic()


def system_entropy(count: int, /) -> bytes:
    """Return this many bytes from the operating system."""
    return os.urandom(count)
