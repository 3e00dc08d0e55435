"""``kin-sim run``: histories from seeds, each lived through twice and compared; what does not hold is told with how to repeat it."""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from simulations.history.runs import Result

EXIT_DONE: Final = 0
EXIT_FAILED: Final = 1
EXIT_USAGE: Final = 2
EXIT_INTERRUPTED: Final = 130
SEEDS: Final = 10
JOBS_MAX: Final = 256
SEED_MAX: Final = 1 << 63
COMMAND: Final = "kin-sim run --seed"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the command takes."""
    parser.add_argument("--seeds", type=_at_least(1), default=SEEDS, metavar="N", help=f"how many (default: {SEEDS})")
    parser.add_argument("--first", type=_at_least(0), default=0, metavar="N", help="the first seed (default: 0)")
    parser.add_argument("--seed", type=_at_least(0), metavar="N", help="this seed alone, with all that happened")
    parser.add_argument("--jobs", type=_at_least(1), default=1, metavar="N", help="how many at once (default: 1)")
    parser.add_argument("--once", action="store_true", help="do not repeat each history to compare its trace")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def _at_least(least: int) -> Any:
    def number(text: str) -> int:
        value = int(text)
        if not least <= value <= SEED_MAX:
            raise argparse.ArgumentTypeError(f"must be from {least} to {SEED_MAX}")
        return value

    return number


def run(options: argparse.Namespace) -> int:
    """Run the histories that were asked for and return the exit code."""
    alone = options.seed is not None
    seeds = [options.seed] if alone else range(options.first, options.first + options.seeds)
    began = time.monotonic()
    results: list[Result] = []
    try:
        for result in _results(seeds, jobs=min(options.jobs, JOBS_MAX), once=options.once):
            results.append(result)
            if not options.json:
                _tell(result, alone=alone)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    totals = _totals(results, time.monotonic() - began)
    if options.json:
        print(json.dumps({"version": 1, "histories": [_row(one) for one in results], "totals": totals}))
    else:
        print(_summary(totals))
    return EXIT_FAILED if totals["failed"] else EXIT_DONE


def _results(seeds: Sequence[int], *, jobs: int, once: bool) -> Iterator[Result]:
    """Yield what came of each seed, in their order."""
    from simulations.history import runs

    live = runs.live if once else runs.live_twice
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
    print(f"{verdict:6}seed {options.seed} ({told})", flush=True)
    if result.failure or alone:
        for line in options.lines():
            print(f"      {line}")
    if alone:
        for event in result.events:
            print(f"      {event}")
        print(f"      done: {', '.join(f'{name} {count}' for name, count in result.counts.items())}")
    if result.failure:
        for line in result.failure.split("\n"):
            print(f"      {line}")
        print(f"      again: {COMMAND} {options.seed}", flush=True)


def _row(result: Result) -> dict[str, Any]:
    row = result._asdict()
    row["options"] = result.options._asdict() | {"schedule": result.options.schedule.value}
    row["events"] = list(result.events) if result.failure else []
    row["again"] = f"{COMMAND} {result.options.seed}"
    return row


def _totals(results: Sequence[Result], elapsed_s: float) -> dict[str, Any]:
    cpu_s = sum(result.cpu_s for result in results) or 1e-9
    invariants = Counter(result.invariant for result in results if result.failure)
    return {
        "histories": len(results),
        "failed": sum(bool(result.failure) for result in results),
        "invariants": {str(number): count for number, count in sorted(invariants.items())},
        "seconds": round(elapsed_s, 3),
        "cpu_seconds": round(cpu_s, 3),
        "histories_a_second": round(len(results) / cpu_s, 3),
        "actions_a_second": round(sum(result.actions for result in results) / cpu_s, 1),
        "steps_a_second": round(sum(result.steps for result in results) / cpu_s, 1),
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
