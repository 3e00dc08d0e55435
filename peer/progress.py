"""How far a transfer is, for people: counts, rate and time left, as text.

Rule 1: time is an argument; nothing here looks at a clock.
Rule 2: a line shows what is known; a total that is not known yet is left out.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol

LINE_S: Final = 5.0
"""Between two lines of progress where no terminal shows bars."""
RATE_S: Final = 15.0
"""The rate is that of the last so many seconds."""
PHASES: Final = {
    "scan": "looking at",
    "hash": "reading",
    "upload": "sending",
    "download": "fetching",
    "apply": "writing",
}


@dataclass(frozen=True)
class Progress:
    """One report of how far a phase of a folder is."""

    phase: str
    folder: str
    bytes_done: int = 0
    bytes_total: int = 0
    files_done: int = 0
    files_total: int = 0

    @classmethod
    def read(cls, report: dict[str, Any]) -> Progress | None:
        """Return what a report says, None if it is not one of progress."""
        if "phase" not in report:
            return None
        counts = {}
        for name in ("bytes_done", "bytes_total", "files_done", "files_total"):
            value = report.get(name, 0)
            counts[name] = value if isinstance(value, int) and value > 0 else 0
        return cls(str(report["phase"]), str(report.get("folder", "")), **counts)

    @property
    def title(self) -> str:
        """What is being done, to which folder."""
        return f"{PHASES.get(self.phase, self.phase)} {self.folder}".rstrip()


class Show(Protocol):
    """Shows progress to a person."""

    def update(self, progress: Progress) -> None:
        """Take note of a report."""

    def close(self) -> None:
        """Show nothing more, and leave the terminal as it was."""


class Silence:
    """Shows nothing."""

    def update(self, progress: Progress) -> None:
        """Take note of a report."""

    def close(self) -> None:
        """Nothing was shown."""


class Meter:
    """Measures the rate of one phase from its reports."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, int]] = deque()

    def update(self, bytes_done: int, now_s: float) -> None:
        """Take note of a count at a moment."""
        if self._samples and bytes_done < self._samples[-1][1]:
            self._samples.clear()  # the phase began anew
        self._samples.append((now_s, bytes_done))
        while len(self._samples) > 2 and self._samples[0][0] < now_s - RATE_S:
            self._samples.popleft()

    @property
    def bytes_per_s(self) -> float:
        """The newest rate, 0 while it is not known."""
        if len(self._samples) < 2:
            return 0.0
        (start_s, start), (end_s, end) = self._samples[0], self._samples[-1]
        return (end - start) / (end_s - start_s) if end_s > start_s else 0.0


class Lines:
    """Plain lines, one every few seconds, for logs and pipes."""

    def __init__(self, write: Callable[[str], None], clock: Callable[[], float]) -> None:
        """Make one that writes whole lines with ``write``; ``clock`` gives seconds."""
        self._write = write
        self._clock = clock
        self._last_s = clock()
        self._meters: dict[tuple[str, str], Meter] = {}

    def update(self, progress: Progress) -> None:
        """Take note of a report, and write a line when it is time for one."""
        now_s = self._clock()
        meter = self._meters.setdefault((progress.phase, progress.folder), Meter())
        meter.update(progress.bytes_done, now_s)
        if now_s - self._last_s >= LINE_S:
            self._last_s = now_s
            self._write(line(progress, meter.bytes_per_s))

    def close(self) -> None:
        """Nothing is left to undo."""


def line(progress: Progress, bytes_per_s: float) -> str:
    """Return one line: ``sending docs: 1.2 of 3.4 GB, 12 of 80 files, 31 MB/s, 70 s left``."""
    parts = []
    if progress.bytes_total:
        parts.append(f"{size(progress.bytes_done)} of {size(progress.bytes_total)}")
    elif progress.bytes_done:
        parts.append(size(progress.bytes_done))
    if progress.files_total:
        parts.append(f"{progress.files_done:,} of {count(progress.files_total, 'file')}")
    elif progress.files_done:
        parts.append(count(progress.files_done, "file"))
    if bytes_per_s >= 1:
        parts.append(f"{size(int(bytes_per_s))}/s")
        if progress.bytes_total > progress.bytes_done:
            parts.append(f"{duration((progress.bytes_total - progress.bytes_done) / bytes_per_s)} left")
    return f"{progress.title}: {', '.join(parts)}" if parts else progress.title


def size(count_bytes: int) -> str:
    """Return a number of bytes as people read it: ``999 B``, ``3.4 KB``, ``12 MB``; powers of 1,000."""
    amount = float(count_bytes)
    for unit in ("B", "KB", "MB", "GB", "TB"):
        if amount < 999.5 or unit == "TB":
            break
        amount /= 1000
    else:  # pragma: no cover - the loop always breaks
        unit = "TB"
    return f"{amount:.1f} {unit}" if unit != "B" and amount < 9.95 else f"{amount:,.0f} {unit}"


def duration(seconds: float) -> str:
    """Return a time as people read it: ``8 s``, ``3 min``, ``2 h``, ``5 days``."""
    for limit, divisor, unit in ((99.5, 1, "s"), (99.5 * 60, 60, "min"), (48 * 3600, 3600, "h")):
        if seconds < limit:
            return f"{seconds / divisor:.0f} {unit}"
    return f"{seconds / 86400:,.0f} days"


def count(number: int, noun: str, nouns: str | None = None) -> str:
    """Return ``1 file`` or ``1,234 files``."""
    return f"{number:,} {noun if number == 1 else nouns or noun + 's'}"
