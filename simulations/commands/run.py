"""``kin-sim run``: histories from seeds, each lived through twice and compared; what does not hold is told with how to repeat it."""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from simulations.commands import failures

if TYPE_CHECKING:
    from simulations.history.runs import Result
    from simulations.history.script import Script

EXIT_DONE: Final = 0
EXIT_FAILED: Final = 1
EXIT_USAGE: Final = 2
EXIT_INTERRUPTED: Final = 130
SEEDS: Final = 10
JOBS_MAX: Final = 256
SEED_MAX: Final = 1 << 63
MINUTES_MAX: Final = 60 * 24 * 7
FULL_STORIES: Final = 20
"""Histories with a page of their own in a report, beside those that fail."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the command takes."""
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--seeds", type=_seeds, metavar="N|A..B", help=f"how many from the first on, or these (default: {SEEDS})"
    )
    which.add_argument("--seed", type=_at_least(0), metavar="N", help="this seed alone, with all that happened")
    which.add_argument("--history", type=Path, metavar="FILE", help="a history from a file, with all that happened")
    parser.add_argument("--first", type=_at_least(0), default=0, metavar="N", help="the first seed (default: 0)")
    parser.add_argument("--minutes", type=_minutes, metavar="M", help="as many seeds as fit into this time")
    parser.add_argument("--jobs", type=_at_least(1), default=1, metavar="N", help="how many at once (default: 1)")
    parser.add_argument("--once", action="store_true", help="do not repeat each history to compare its trace")
    parser.add_argument("--coverage", action="store_true", help="tell which situations were reached how often")
    parser.add_argument("--report", type=Path, metavar="DIR", help="write pages there that show what happened")
    parser.add_argument(
        "--shrink",
        type=_at_least(0),
        default=failures.SHRINK_S,
        metavar="S",
        help=f"seconds for making a failing history smaller; 0: do not (default: {failures.SHRINK_S})",
    )
    parser.add_argument(
        "--keep", type=Path, metavar="DIR", help="where traces and histories of failures go (default: a temporary one)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def _at_least(least: int) -> Any:
    def number(text: str) -> int:
        value = int(text)
        if not least <= value <= SEED_MAX:
            raise argparse.ArgumentTypeError(f"must be from {least} to {SEED_MAX}")
        return value

    return number


def _seeds(text: str) -> int | range:
    first, dots, last = text.partition("..")
    if not dots:
        return int(_at_least(1)(text))
    found = range(_at_least(0)(first), _at_least(0)(last) + 1)
    if not found:
        raise argparse.ArgumentTypeError(f"{text} is no range of seeds, such as 0..99")
    return found


def _minutes(text: str) -> float:
    value = float(text)
    if not 0 < value <= MINUTES_MAX:
        raise argparse.ArgumentTypeError(f"must be above 0, and at most {MINUTES_MAX}")
    return value


def run(options: argparse.Namespace) -> int:
    """Run the histories that were asked for and return the exit code."""
    try:
        return _run(options)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except OSError as error:
        sys.stderr.write(f"kin-sim run: {error.filename or ''}: {error.strerror or error}\n")
        return EXIT_USAGE


def _run(options: argparse.Namespace) -> int:
    from simulations.history.script import BadScriptError

    began = time.monotonic()
    alone = options.seed is not None or options.history is not None
    results: list[Result] = []
    told: list[failures.Told] = []
    teller = failures.Teller(options.keep, shrink_s=options.shrink)
    try:
        for history, result in _played(options, began):
            results.append(result)
            if not options.json:
                _tell(result, alone=alone)
            if result.failure:
                told.append(teller.explain(history, result))
                if not options.json:
                    print("\n".join(f"      {line}" for line in told[-1].lines()), flush=True)
    except BadScriptError as error:
        sys.stderr.write(f"kin-sim run: {error}\n")
        return EXIT_USAGE
    totals = _totals(results, time.monotonic() - began)
    if options.report is not None:
        from simulations.report.pages import write_report

        index = write_report(options.report, results, told, totals, history=_script(options), full=FULL_STORIES)
        if not options.json:
            print(f"report: {index}")
    if options.json:
        rows = [_row(one, told) for one in results]
        print(json.dumps({"version": 1, "histories": rows, "totals": totals}))
    else:
        if options.coverage:
            _tell_coverage(results)
        print(_summary(totals))
    return EXIT_FAILED if totals["failed"] else EXIT_DONE


def _script(options: argparse.Namespace) -> Script | None:
    from simulations.history.script import read

    return None if options.history is None else read(options.history)


def _played(options: argparse.Namespace, began_s: float) -> Iterator[tuple[Script, Result]]:
    """Yield each history that was asked for, with what came of it."""
    from simulations.history import runs

    history = _script(options)
    if history is not None:
        how = runs.outcome if options.once else runs.play_twice
        yield history, how(history, observes=True)
        return
    if options.seed is not None:
        seeds: Sequence[int] = [options.seed]
    elif isinstance(options.seeds, range):
        seeds = options.seeds
    else:
        seeds = range(options.first, options.first + (options.seeds or SEEDS))
    until_s = None if options.minutes is None else began_s + options.minutes * 60
    observes = options.seed is not None or options.coverage or options.json or options.report is not None
    live = partial(runs.live if options.once else runs.live_twice, observes=observes)
    for result in _results(live, seeds, jobs=min(options.jobs, JOBS_MAX), until_s=until_s):
        yield runs.script_of(result.options.seed), result


def _results(
    live: Callable[[int], Result], seeds: Sequence[int], *, jobs: int, until_s: float | None
) -> Iterator[Result]:
    """Yield what came of each seed, in their order; where there is a time, of more seeds until that is over."""
    from simulations.history import runs

    if until_s is not None:
        seeds_on = count(seeds[0])
        while time.monotonic() < until_s:
            some = [next(seeds_on) for _ in range(jobs)]
            yield from _results(live, some, jobs=jobs, until_s=None)
        return
    if jobs == 1 or len(seeds) == 1:
        yield from map(live, seeds)
        return
    runs.prepare(seeds)  # once, for all processes
    with multiprocessing.get_context("fork").Pool(jobs) as pool:
        yield from pool.imap(live, seeds)


def _tell(result: Result, *, alone: bool) -> None:
    options = result.options
    verdict = "fail" if result.failure else "pass"
    told = f"{result.actions} actions, {result.steps} steps, {result.virtual_s:.0f} s in {result.cpu_s:.2f} s"
    reached = f"; {len(result.situations)} situations" if result.is_observed else ""
    print(f"{verdict:6}seed {options.seed} ({told}{reached})", flush=True)
    if result.failure or alone:
        for line in options.lines():
            print(f"      {line}")
    if alone:
        from simulations.situations.catalogue import WORDS

        for event in result.events:
            print(f"      {event}")
        print(f"      done: {', '.join(f'{name} {count}' for name, count in result.counts.items())}")
        for number, evidence in result.situations.items():
            print(f"      situation {number}, {WORDS[number]}: {evidence}")
    if result.failure:
        for line in result.failure.split("\n"):
            print(f"      {line}")
        print("      making it smaller ...", flush=True)


def _row(result: Result, told: Sequence[failures.Told]) -> dict[str, Any]:
    row = result._asdict()
    row["options"] = result.options._asdict() | {"schedule": result.options.schedule.value}
    row["events"] = list(result.events) if result.failure else []
    row["played"] = [event._asdict() for event in result.played] if result.failure else []
    row["situations"] = {str(number): evidence for number, evidence in result.situations.items()}
    row["again"] = f"{failures.COMMAND} {result.options.seed}"
    row["smaller"] = next((one.as_json() for one in told if one.result is result), None)
    return row


def counts_of(results: Sequence[Result]) -> Counter[int]:
    """Return by situation, how many histories reached it."""
    return Counter(number for result in results for number in result.situations)


def _tell_coverage(results: Sequence[Result]) -> None:
    from simulations.situations.catalogue import coverage_lines

    for line in coverage_lines(counts_of(results), len(results)):
        print(line)
    for name, times in sorted(sum((Counter(result.counts) for result in results), Counter[str]()).items()):
        print(f"{times:6}  {name}")


def _totals(results: Sequence[Result], elapsed_s: float) -> dict[str, Any]:
    from simulations.situations.catalogue import NOT_REACHED, SEEDS_MIN, WORDS, covered

    cpu_s = sum(result.cpu_s for result in results) or 1e-9
    invariants = Counter(result.invariant for result in results if result.failure)
    counts = counts_of(results)
    return {
        "histories": len(results),
        "failed": sum(bool(result.failure) for result in results),
        "invariants": {str(number): count for number, count in sorted(invariants.items())},
        "seconds": round(elapsed_s, 3),
        "cpu_seconds": round(cpu_s, 3),
        "histories_a_second": round(len(results) / cpu_s, 3),
        "actions_a_second": round(sum(result.actions for result in results) / cpu_s, 1),
        "steps_a_second": round(sum(result.steps for result in results) / cpu_s, 1),
        "situations": {
            "known": len(WORDS),
            "least": SEEDS_MIN,
            "covered": len(covered(counts)),
            "counts": {str(number): counts[number] for number in WORDS if number not in NOT_REACHED},
            "not_reached": {str(number): reason for number, reason in NOT_REACHED.items()},
        },
        "done": dict(sorted(sum((Counter(result.counts) for result in results), Counter[str]()).items())),
    }


def _summary(totals: dict[str, Any]) -> str:
    return (
        f"{totals['histories']} histories, {totals['failed']} failed; on one core, a repetition not counted:"
        f" {totals['histories_a_second']:.2f} histories, {totals['actions_a_second']:.0f} actions and"
        f" {totals['steps_a_second']:.0f} steps a second"
    )


def main(arguments: Sequence[str]) -> int:
    """Answer a command line of its own, for processes that need no other command."""
    parser = argparse.ArgumentParser(prog="kin-sim run")
    add_arguments(parser)
    return run(parser.parse_args(arguments))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
