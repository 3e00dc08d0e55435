"""Play many seeds, in one process or several, and tell what failed so that it can be played again."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, NamedTuple

from simulations.commands.workers import Workers
from simulations.plan import history, triples
from simulations.plan.checkers import TITLES, Violation
from simulations.plan.shrink import shrink, shrink_triple
from simulations.plan.spelling import spell_id

HISTORY: Final = "history"
TRIPLE: Final = "triple"
BOTH: Final = "both"
KINDS: Final = (BOTH, HISTORY, TRIPLE)
HISTORY_EVERY: Final = 20
"""Of both kinds, every 20th seed is a history, which takes some thirty times as long as a triple: so both get their share."""
FAILURES_MAX: Final = 5
"""A run ends with these: more would say the same, and each is made smaller first."""
_PIECE: Final = 128
"""Seeds that a process plays between two reports."""


class Failure(NamedTuple):
    """One seed that breaks an invariant."""

    kind: str
    seed: int
    invariant: int
    text: str
    """What does not hold."""
    options: str
    """What was drawn."""
    story: list[str]
    """What happens, as short as it could be made."""
    actions: list[str]
    """What users did that it is about."""

    @property
    def command(self) -> str:
        """The command that plays it again."""
        return f"kin-sim plan --kind {self.kind} --seed {self.seed} --trace"

    def as_json(self) -> dict[str, Any]:
        """Return it for programs."""
        return {**self._asdict(), "title": TITLES[self.invariant], "command": self.command}

    def lines(self) -> Iterator[str]:
        """Yield it for people."""
        yield f"{self.kind} {self.seed} breaks invariant {self.invariant}, {TITLES[self.invariant]}: {self.text}"
        yield f"  drawn: {self.options}"
        yield "  made smaller:"
        yield from (f"    {line}" for line in self.story)
        if self.actions:
            yield "  it is about:"
            yield from (f"    {line}" for line in self.actions)
        yield f"  again: {self.command}"


class Outcome:
    """What a run came to."""

    def __init__(self) -> None:
        self.histories = 0
        self.triples = 0
        self.seconds = 0.0
        self.reached: Counter[str] = Counter()
        self.failures: list[Failure] = []

    @property
    def trees(self) -> int:
        """How many random trees: of either kind."""
        return self.histories + self.triples

    @property
    def trees_per_s(self) -> float:
        """How fast."""
        return self.trees / self.seconds if self.seconds else 0.0

    def as_json(self) -> dict[str, Any]:
        """Return it for programs."""
        return {
            "version": 1,
            "trees": self.trees,
            "histories": self.histories,
            "triples": self.triples,
            "seconds": round(self.seconds, 3),
            "trees_per_s": round(self.trees_per_s, 1),
            "reached": dict(sorted(self.reached.items())),
            "failures": [failure.as_json() for failure in self.failures],
        }


class _Piece(NamedTuple):
    """What a process played."""

    histories: int
    triples: int
    reached: Counter[str]
    failed: list[tuple[str, int]]


def kind_of(seed: int, kind: str) -> str:
    """Return what a seed stands for."""
    if kind != BOTH:
        return kind
    return TRIPLE if seed % HISTORY_EVERY else HISTORY


def play(kind: str, seed: int, trace: Callable[[str], None] | None = None) -> Counter[str]:
    """Play one seed; return what it reached.

    Raises:
        Violation: An invariant does not hold.
    """
    if kind == TRIPLE:
        return Counter({f"{triples.play(seed, trace=trace)} triples": 1})
    return history.play(*history.draw(seed), trace).reached


def run(
    first: int,
    last: int,
    *,
    kind: str = BOTH,
    jobs: int = 1,
    failures_max: int = FAILURES_MAX,
    progress: Callable[[Outcome], None] | None = None,
) -> Outcome:
    """Play the seeds from one to another, both included.

    Args:
        first: The first seed.
        last: The last one.
        kind: One of :data:`KINDS`.
        jobs: Processes that play side by side.
        failures_max: Ends the run.
        progress: Is called now and then, with what there is so far.
    """
    outcome, began = Outcome(), time.monotonic()
    pieces = [(start, min(start + _PIECE, last + 1), kind) for start in range(first, last + 1, _PIECE)]
    for piece in _played(pieces, jobs):
        outcome.histories += piece.histories
        outcome.triples += piece.triples
        outcome.reached += piece.reached
        outcome.seconds = time.monotonic() - began
        for failed in piece.failed[: failures_max - len(outcome.failures)]:
            outcome.failures.append(explain(*failed))
        if progress is not None:
            progress(outcome)
        if len(outcome.failures) >= failures_max:
            break
    return outcome


def _played(pieces: Sequence[tuple[int, int, str]], jobs: int) -> Iterator[_Piece]:
    with Workers(jobs, how="spawn") as workers:
        yield from workers.map(_play_piece, pieces, in_order=False)


def _play_piece(piece: tuple[int, int, str]) -> _Piece:
    first, end, kind = piece
    counts: Counter[str] = Counter()
    reached: Counter[str] = Counter()
    failed: list[tuple[str, int]] = []
    for seed in range(first, end):
        which = kind_of(seed, kind)
        counts[which] += 1
        try:
            reached.update(play(which, seed))
        except Violation:
            failed.append((which, seed))
    return _Piece(counts[HISTORY], counts[TRIPLE], reached, failed)


# --- A failure


def explain(kind: str, seed: int) -> Failure:
    """Play a seed that fails once more, make it as small as it gets, and tell what happens in it."""
    try:
        play(kind, seed)
    except Violation as found:
        tell = _explain_triple if kind == TRIPLE else _explain_history
        return tell(seed, found)
    return Failure(kind, seed, 0, "it failed once, and not again: chance is not all from the seed", "", [], [])


def _explain_triple(seed: int, found: Violation) -> Failure:
    without = shrink_triple(seed, found.invariant)
    way, _, _ = triples.draw(seed)
    story: list[str] = []
    try:
        triples.play(seed, without, story.append)
    except Violation as smaller:
        found = smaller
    options = f"way={way}, without {' '.join(map(spell_id, without)) or 'nothing'}"
    return Failure(TRIPLE, seed, found.invariant, found.text, options, story, [])


def _explain_history(seed: int, found: Violation) -> Failure:
    options, actions = history.draw(seed)
    smaller, left = shrink(options, actions, found.invariant)
    story: list[str] = []
    try:
        history.play(smaller, left, story.append)
    except Violation as last:
        found = last
    drawn = f"{', '.join(f'{name}={value}' for name, value in options._asdict().items())}; {len(actions)} actions"
    if smaller != options:
        drawn += f"; made smaller: {', '.join(f'{name}={value}' for name, value in smaller._asdict().items())}"
    return Failure(HISTORY, seed, found.invariant, found.text, drawn, story, [str(done) for done in found.actions])
