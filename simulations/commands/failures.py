"""What is told of a history that fails: the actions involved, a trace, a smaller history, and how to see it again."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from simulations.printing import one_line

if TYPE_CHECKING:
    from simulations.history.runs import Result
    from simulations.history.script import Script

SHRINK_S: Final = 60
"""So long one failing history is made smaller, unless told otherwise."""
EVENTS_MAX: Final = 200_000
"""Of a trace that is kept."""


def command(result: Result, file: Path | None) -> str:
    """Return the command that plays a history again.

    Args:
        result: What came of it.
        file: That it was read from; None: it is that of its seed.
    """
    return f"kin-sim run --seed {result.options.seed}" if file is None else _play(file)


def _play(file: Path) -> str:
    return f"kin-sim run --history {quote(str(file))}"


class Told(NamedTuple):
    """What is told of a failure."""

    result: Result
    involved: tuple[str, ...]
    """The ledger's actions that it is about."""
    trace: Path
    history: Path
    """To be played again: the smaller one, if it was made smaller."""
    script: Script
    """What stands there."""
    smaller: Result
    """What comes of that."""
    tries: int
    """How often something smaller was played; 0: nobody tried."""
    whole: str
    """The command that plays the history as it was."""

    @property
    def again(self) -> str:
        """The command that plays the smaller history."""
        return _play(self.history)

    @property
    def is_smaller(self) -> bool:
        """Whether something could be left out, or made plainer."""
        now, was = self.smaller, self.result
        return bool(self.tries) and (now.played, now.options) != (was.played, was.options)

    def lines(self, *, is_alone: bool = False) -> Iterator[str]:
        """Yield it for people: nothing of what is told of each failing history already.

        Args:
            is_alone: Whether all that happened is told already, too.
        """
        for action in self.involved:
            yield f"about: {action}"
        yield f"trace: {self.trace}"
        if self.tries:
            was, now = len(self.result.played), len(self.smaller.played)
            yield f"made smaller: {now} of {was} events, after {self.tries} tries"
        if self.tries and (self.is_smaller or not is_alone):
            yield from (f"  {event}" for event in self.smaller.events)
        if self.smaller.failure != self.result.failure:
            yield from (f"  {line}" for line in self.smaller.failure.split("\n"))
        yield f"again: {self.whole}"
        if self.is_smaller:
            yield f"again, smaller: {self.again}"
        elif self.again != self.whole:
            yield f"again, from what is kept: {self.again}"

    def as_json(self) -> dict[str, Any]:
        """Return it for programs."""
        return {
            "involved": list(self.involved),
            "trace": str(self.trace),
            "history": str(self.history),
            "events": list(self.smaller.events) if self.is_smaller else [],
            "failure": self.smaller.failure,
            "tries": self.tries,
            "again": self.again,
        }


class Teller:
    """Explains failures.

    Args:
        keep: Where files go; None: into a directory of its own among the system's temporary ones, made when it is needed.
        shrink_s: How long one history is made smaller; 0: not at all.
        file: That the history was read from; None: histories come from seeds.
    """

    def __init__(self, keep: Path | None, *, shrink_s: float, file: Path | None = None) -> None:
        self._keep = keep
        self._shrink_s = shrink_s
        self._file = file

    def explain(self, history: Script, result: Result) -> Told:
        """Make a failing history smaller, and write it and its trace down.

        Raises:
            OSError: They cannot be written.
        """
        from simulations.history import files
        from simulations.history.runs import play
        from simulations.history.shrink import Smaller, shrink

        smaller = Smaller(history, result, 0)
        if self._shrink_s:
            smaller = shrink(history, result, seconds=self._shrink_s)
        if self._keep is None:
            self._keep = Path(tempfile.mkdtemp(prefix="kin-sim-"))
        name = f"seed-{history.options.seed}" if self._file is None else f"{self._file.stem}-again"
        trace, kept = self._keep / f"{name}.trace", self._keep / f"{name}.json"
        kept.write_text(files.write(smaller.history), encoding="utf-8")
        lived = play(smaller.history, events_max=EVENTS_MAX)
        with trace.open("w", encoding="utf-8", errors="backslashreplace") as file:
            file.writelines(f"{event}\n" for event in lived.trace.events)
        actions = lived.course.ledger.actions
        involved = tuple(one_line(str(actions[number])) for number in lived.result.involved)
        again = command(result, self._file)
        return Told(result, involved, trace, kept, smaller.history, lived.result, smaller.tries, again)
