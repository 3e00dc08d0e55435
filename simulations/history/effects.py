"""How often a trouble took effect: a cut that nothing meets is none, nor is a disk that is never full, nor a liar who says the truth.

Rule 1: it is told by whoever is in the trouble's way, and by no name: a link, a call of a disk, a process that ends.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final


class Effects:
    """Counts what met one trouble, while it lasts.

    Args:
        times: How often something met it already.
    """

    def __init__(self, times: int = 0) -> None:
        self._times = times
        self._readers: dict[Callable[[], int], None] = {}

    @property
    def times(self) -> int:
        """How often it took effect so far."""
        return self._times + sum(read() for read in self._readers)

    def add(self, times: int = 1) -> None:
        """Count what met it."""
        self._times += times

    def watch(self, read: Callable[[], int]) -> Callable[[], None]:
        """Count what something else counts, until the returned function is called; then, and later, nothing changes any more."""
        self._readers[read] = None

        def end() -> None:
            if read in self._readers:
                del self._readers[read]
                self._times += read()

        return end

    def end(self) -> None:
        """Let nothing more count of what is watched."""
        for read in list(self._readers):
            self._times += read()
        self._readers.clear()


ONCE: Final = Effects(1)
"""Of what takes effect as it is made."""
