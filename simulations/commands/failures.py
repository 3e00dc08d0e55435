"""What is told of a history that fails: the actions involved, a trace, a smaller history, and how to see it again."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from simulations.history.runs import Result
    from simulations.history.script import Script

COMMAND: Final = "kin-sim run --seed"
SHRINK_S: Final = 60
"""So long one failing history is made smaller, unless told otherwise."""
EVENTS_MAX: Final = 200_000
"""Of a trace that is kept."""


class Told(NamedTuple):
    """What is told of a failure."""

    result: Result
    involved: tuple[str, ...]
    """The ledger's actions that it is about."""
    trace: Path
    history: Path
    """To be played again: the smaller one."""
    smaller: Result
    """What comes of that."""
    tries: int

    @property
    def again(self) -> str:
        """The command that plays the smaller history."""
        return f"kin-sim run --history {self.history}"

    def lines(self) -> Iterator[str]:
        """Yield it for people."""
        for action in self.involved:
            yield f"about: {action}"
        yield f"trace: {self.trace}"
        was, now = len(self.result.played), len(self.smaller.played)
        yield f"made smaller: {now} of {was} events, after {self.tries} tries"
        yield from (f"  {event}" for event in self.smaller.events)
        yield from (f"  {line}" for line in self.smaller.failure.split("\n"))
        yield f"again: {COMMAND} {self.result.options.seed}"
        yield f"again, smaller: {self.again}"

    def as_json(self) -> dict[str, Any]:
        """Return it for programs."""
        return {
            "involved": list(self.involved),
            "trace": str(self.trace),
            "history": str(self.history),
            "events": list(self.smaller.events),
            "failure": self.smaller.failure,
            "tries": self.tries,
            "again": self.again,
        }


class Teller:
    """Explains failures.

    Args:
        keep: Where files go; None: into a directory of its own among the system's temporary ones, made when it is needed.
        shrink_s: How long one history is made smaller; 0: not at all.
    """

    def __init__(self, keep: Path | None, *, shrink_s: float) -> None:
        self._keep = keep
        self._shrink_s = shrink_s

    def explain(self, history: Script, result: Result) -> Told:
        """Make a failing history smaller, and write it and its trace down.

        Raises:
            OSError: They cannot be written.
        """
        from simulations.history import script
        from simulations.history.runs import play
        from simulations.history.shrink import Smaller, shrink

        smaller = Smaller(history, result, 0)
        if self._shrink_s:
            smaller = shrink(history, result, seconds=self._shrink_s)
        if self._keep is None:
            self._keep = Path(tempfile.mkdtemp(prefix="kin-sim-"))
        self._keep.mkdir(parents=True, exist_ok=True)
        name = f"seed-{history.options.seed}"
        trace, kept = self._keep / f"{name}.trace", self._keep / f"{name}.json"
        kept.write_text(script.write(smaller.history), encoding="utf-8")
        lived = play(smaller.history, events_max=EVENTS_MAX)
        with trace.open("w", encoding="utf-8", errors="backslashreplace") as file:
            file.writelines(f"{event}\n" for event in lived.trace.events)
        actions = lived.course.ledger.actions
        involved = tuple(str(actions[number]) for number in lived.result.involved)
        return Told(result, involved, trace, kept, lived.result, smaller.tries)
