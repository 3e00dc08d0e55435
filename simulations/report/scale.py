"""Virtual time on paper: what happens at once is kept apart, and time in which nothing happens takes little room.

Rule 1: later is never higher up; between two moments with a place of their own, time is even.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from math import log10
from typing import Final

SECOND_NS: Final = 1_000_000_000
TOP: Final = 40.0
_ROW: Final = 17.0
"""Between two moments that each have a label."""
_PER_DECADE: Final = 9.0
_SHORTEST_NS: Final = 20_000_000
_IDLE: Final = 60.0
"""A gap that is drawn so high is marked as one."""


class Scale:
    """Where moments stand on a page.

    Args:
        labelled: Moments that need a row of their own.
        others: Moments that need a place.
    """

    def __init__(self, labelled: Iterable[int], others: Iterable[int]) -> None:
        rows = dict.fromkeys(others, True)
        wanted = dict.fromkeys(rows, 0)
        for time_ns in labelled:
            wanted[time_ns] = wanted.get(time_ns, 0) + 1
        self._times = sorted(wanted)
        self._places: list[float] = []
        y = TOP
        before_ns: int | None = None
        for time_ns in self._times:
            if before_ns is not None:
                y += _height(time_ns - before_ns, has_label=wanted[before_ns] > 0)
                y += _ROW * max(0, wanted[before_ns] - 1)
            self._places.append(y)
            before_ns = time_ns
        self.bottom = y + _ROW * (wanted[before_ns] if before_ns is not None else 1) + TOP
        self._seen: dict[int, int] = {}

    def place(self, time_ns: int) -> float:
        """Return where a moment stands, in pixels from the top."""
        times, places = self._times, self._places
        at = bisect_right(times, time_ns) - 1
        if at < 0:
            return TOP
        if at == len(times) - 1:
            return places[-1]
        share = (time_ns - times[at]) / (times[at + 1] - times[at])
        return places[at] + share * (places[at + 1] - places[at])

    def row(self, time_ns: int) -> float:
        """Return the next free row of a moment that has labels: several of one moment stand below each other."""
        taken = self._seen.get(time_ns, 0)
        self._seen[time_ns] = taken + 1
        return self.place(time_ns) + taken * _ROW

    def idle(self) -> list[tuple[float, int]]:
        """Return where long gaps stand, with how long they last in nanoseconds."""
        found = []
        for at in range(len(self._times) - 1):
            gap_ns = self._times[at + 1] - self._times[at]
            if gap_ns >= _GAP_NS:
                found.append(((self._places[at] + self._places[at + 1]) / 2 + 4, gap_ns))
        return found

    def ticks(self) -> list[tuple[float, int]]:
        """Return moments to be written at the side, with their places, none too near to another."""
        found: list[tuple[float, int]] = []
        for time_ns, y in zip(self._times, self._places, strict=True):
            if not found or y - found[-1][0] >= _IDLE:
                found.append((y, time_ns))
        return found


_GAP_NS: Final = 10 * SECOND_NS


def _height(gap_ns: int, *, has_label: bool) -> float:
    least = _ROW if has_label else 3.0
    if gap_ns <= _SHORTEST_NS:
        return least
    return least + _PER_DECADE * log10(gap_ns / _SHORTEST_NS)


def told(time_ns: int) -> str:
    """Return a moment or a duration for a person."""
    seconds = time_ns / SECOND_NS
    if seconds < 60:
        return f"{seconds:.3f} s"
    if seconds < 3_600:
        return f"{int(seconds // 60)} min {seconds % 60:.1f} s"
    minutes, left_s = divmod(seconds, 60)
    clock = f"{int(minutes // 60 % 24)}:{int(minutes % 60):02}:{left_s:04.1f}"
    return clock if seconds < 86_400 else f"{int(seconds // 86_400)} d {clock}"
