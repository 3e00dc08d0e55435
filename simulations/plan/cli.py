"""``kin-sim plan``: what may be typed, what is printed, and the exit code."""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from typing import TYPE_CHECKING, Final

from simulations.commands import arguments
from simulations.commands.console import EXIT_DONE, EXIT_FAILED, misused
from simulations.commands.workers import JOBS_MAX

if TYPE_CHECKING:
    from simulations.plan.runner import Outcome

NAME: Final = "plan"
COUNT: Final = 10_000
SEEDS: Final = 1 << 40
PROGRESS_S: Final = 1.0

DESCRIPTION: Final = """\
Play what decides in a device alone (identify, planner, authoring, fold), on histories and trees drawn from seeds.

Every 20th seed is a history: 2 to 6 devices whose users do what people and programs do, with scans of parts, missed
events, transfers under way, entries ordered late, passed on near by, or void. The others are triples of small trees.
Each is checked against what users really did. Every failure comes with a shorter one, and with the command to see it."""
EXAMPLES: Final = """\
examples:
  kin-sim plan                         10,000 seeds that nobody played before
  kin-sim plan --count 1000000         a million; some 15 minutes on one core
  kin-sim plan --seeds 0..99999 --jobs 2
  kin-sim plan --kind history --seed 4711 --trace
                                       one history, told step by step
exit codes: 0 all held, 1 an invariant is broken, 2 usage, 130 interrupted"""


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to those of ``kin-sim``."""
    parser = commands.add_parser(
        NAME,
        help="identify, planner, authoring and fold alone, on random histories and trees",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--seeds", metavar="A..B", type=arguments.seeds, help="these, both included")
    which.add_argument(
        "--count",
        metavar="N",
        type=arguments.number(1, SEEDS),
        help=f"so many, from a fresh one on ({COUNT:,} if not told)",
    )
    which.add_argument("--seed", metavar="S", type=arguments.seed, help="this one alone")
    parser.add_argument("--kind", choices=("both", "history", "triple"), default="both", help="what seeds stand for")
    parser.add_argument(
        "--jobs", metavar="N", type=arguments.number(1, JOBS_MAX), default=1, help="processes side by side (1)"
    )
    parser.add_argument("--trace", action="store_true", help="with --seed: tell what happens")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def main(options: argparse.Namespace) -> int:
    """Do what was typed; return the exit code."""
    if options.trace and options.seed is None:
        return misused(NAME, "--trace tells one seed: name it with --seed")
    if options.trace and options.json:
        return misused(NAME, "--trace is for people: it goes without --json")
    if options.seed is not None:
        return _one(options.kind, options.seed, trace=options.trace, as_json=options.json)
    return _many(options)


def _one(kind: str, seed: int, *, trace: bool, as_json: bool) -> int:
    from simulations.plan.checkers import Violation
    from simulations.plan.history import draw
    from simulations.plan.runner import HISTORY, explain, kind_of, play

    which = kind_of(seed, kind)
    if trace and which == HISTORY and not as_json:
        print(", ".join(f"{name}={value}" for name, value in draw(seed)[0]._asdict().items()))
    try:
        play(which, seed, print if trace and not as_json else None)
    except Violation as found:
        failure = explain(which, seed)
        if as_json:
            print(json.dumps({"version": 1, "kind": which, "seed": seed, "failures": [failure.as_json()]}))
        else:
            print(found)
            print("\n".join(failure.lines()))
        return EXIT_FAILED
    if as_json:
        print(json.dumps({"version": 1, "kind": which, "seed": seed, "failures": []}))
    else:
        print(f"{which} {seed}: all holds")
    return EXIT_DONE


def _many(options: argparse.Namespace) -> int:
    from simulations.plan.runner import run

    seeds = options.seeds or _fresh(options.count or COUNT)
    first, last = seeds[0], seeds[-1]
    progress = _Progress(last - first + 1, as_json=options.json)
    if not options.json:
        print(f"seeds {first}..{last}", flush=True)
    outcome = run(first, last, kind=options.kind, jobs=options.jobs, progress=progress.show)
    progress.end()
    if options.json:
        print(json.dumps({**outcome.as_json(), "seeds": [first, last]}))
    else:
        _print(outcome)
    return EXIT_FAILED if outcome.failures else EXIT_DONE


def _fresh(count: int) -> range:
    first = random.SystemRandom().randrange(SEEDS)
    return range(first, first + count)


class _Progress:
    """One line on a terminal, and failures as they come."""

    def __init__(self, total: int, *, as_json: bool) -> None:
        self._total = total
        self._as_json = as_json
        self._told = 0
        self._next_s = 0.0
        self._is_shown = sys.stderr.isatty()

    def show(self, outcome: Outcome) -> None:
        """Tell what is new."""
        new, self._told = outcome.failures[self._told :], len(outcome.failures)
        if new and not self._as_json:
            self.end()
            for failure in new:
                print("\n".join(failure.lines()), flush=True)
        now = time.monotonic()
        if self._is_shown and now >= self._next_s:
            self._next_s = now + PROGRESS_S
            left_s = (self._total - outcome.trees) / max(outcome.trees_per_s, 1.0)
            text = (
                f"{outcome.trees:,} of {self._total:,} trees, {outcome.trees_per_s:,.0f} a second, {left_s:,.0f} s left"
            )
            sys.stderr.write(f"\r{text}\033[K")
            sys.stderr.flush()

    def end(self) -> None:
        """Take the line away."""
        if self._is_shown:
            sys.stderr.write("\r\033[K")
            sys.stderr.flush()


def _print(outcome: Outcome) -> None:
    print(
        f"{outcome.trees:,} trees in {outcome.seconds:.1f} s, {outcome.trees_per_s:,.0f} a second:"
        f" {outcome.histories:,} histories, {outcome.triples:,} triples"
    )
    print("reached: " + ", ".join(f"{what} {count:,}" for what, count in sorted(outcome.reached.items())))
    print(f"{len(outcome.failures)} failed" if outcome.failures else "all held")
