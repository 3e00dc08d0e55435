"""``kin-sim run``: histories from seeds, each lived through twice and compared; what does not hold is told with how to repeat it."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from functools import partial
from itertools import count, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from simulations.commands import arguments, console, failures
from simulations.commands.console import EXIT_DONE, EXIT_FAILED, EXIT_INTERRUPTED, misused
from simulations.commands.tally import Tally
from simulations.commands.workers import JOBS_MAX, Workers

if TYPE_CHECKING:
    from simulations.history.runs import Result
    from simulations.history.script import Script
    from simulations.report.pages import Report

NAME: Final = "run"
SEEDS: Final = 10
MINUTES_MAX: Final = 60 * 24 * 7
FULL_STORIES: Final = 20
"""Histories with a page of their own in a report, beside those that fail."""

EXAMPLES: Final = """\
exit codes: 0 all held, 1 something did not, 2 usage, 130 interrupted"""


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to those of ``kin-sim``."""
    add_arguments(
        commands.add_parser(NAME, help="random histories on virtual time, each from its seed", epilog=EXAMPLES)
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the command takes."""
    seconds = arguments.number(0, MINUTES_MAX * 60)
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--seeds", type=_seeds, metavar="N|A..B", help=f"how many from the first on, or these (default: {SEEDS})"
    )
    which.add_argument("--seed", type=arguments.seed, metavar="N", help="this seed alone, with all that happened")
    which.add_argument("--history", type=Path, metavar="FILE", help="a history from a file, with all that happened")
    parser.add_argument("--first", type=arguments.seed, metavar="N", help="the first seed (default: 0)")
    parser.add_argument(
        "--minutes",
        type=_minutes,
        metavar="M",
        help="begin no history after this time; where nothing says how many: as many as fit into it",
    )
    parser.add_argument(
        "--jobs", type=arguments.number(1, JOBS_MAX), default=1, metavar="N", help="how many at once (default: 1)"
    )
    parser.add_argument("--once", action="store_true", help="do not repeat each history to compare its trace")
    parser.add_argument("--coverage", action="store_true", help="tell which situations were reached how often")
    parser.add_argument("--report", type=Path, metavar="DIR", help="write pages there that show what happened")
    parser.add_argument(
        "--shrink",
        type=seconds,
        default=failures.SHRINK_S,
        metavar="S",
        help=f"seconds for making a failing history smaller; 0: do not (default: {failures.SHRINK_S})",
    )
    parser.add_argument(
        "--keep", type=Path, metavar="DIR", help="where traces and histories of failures go (default: a temporary one)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def _seeds(text: str) -> int | range:
    return arguments.seeds(text) if ".." in text else arguments.number(1, arguments.SEED_MAX)(text)


def _minutes(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= MINUTES_MAX:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of minutes above 0, and at most {MINUTES_MAX:,}")
    return value


def run(options: argparse.Namespace) -> int:
    """Run the histories that were asked for and return the exit code."""
    from simulations.history.files import BadHistoryError, read

    if options.first is not None and (options.seed, options.history) != (None, None):
        return misused(NAME, "--first goes with --seeds N: one history is named by itself")
    if options.first is not None and isinstance(options.seeds, range):
        return misused(NAME, "--first goes with --seeds N: the first of --seeds A..B is A")
    try:
        history = None if options.history is None else read(options.history)
    except BadHistoryError as error:
        return misused(NAME, str(error))
    for name in ("keep", "report"):
        if wrong := _unusable(getattr(options, name)):
            return misused(NAME, f"--{name} {getattr(options, name)}: {wrong}")
    return _Run(options, history).run()


def _unusable(directory: Path | None) -> str:
    """Return why nothing can be written into a directory, which is made if it is missing; "" if it can."""
    if directory is None:
        return ""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):
            return ""
    except (FileExistsError, NotADirectoryError):
        return "is no directory"
    except OSError as error:
        return error.strerror or str(error)


class _Run:
    """One answer to the command.

    Args:
        options: What was asked for.
        history: What a file holds; None: histories come from seeds.
    """

    def __init__(self, options: argparse.Namespace, history: Script | None) -> None:
        self._options = options
        self._history = history
        self._is_alone = options.seed is not None or history is not None
        self._began_s = time.monotonic()
        self._tally = Tally()
        self._rows: list[dict[str, Any]] = []
        """Of all histories, for programs; nobody else asks for them."""
        self._teller = failures.Teller(options.keep, shrink_s=options.shrink, file=options.history)
        self._report = self._make_report()

    def _make_report(self) -> Report | None:
        if self._options.report is None:
            return None
        from simulations.report.pages import Report

        return Report(self._options.report, full=FULL_STORIES, history=self._history, file=self._options.history)

    def run(self) -> int:
        """Run all of it; return the exit code."""
        is_interrupted = False
        try:
            with closing(self._played()) as played:
                for history, result in played:
                    self._take(history, result)
        except KeyboardInterrupt:
            is_interrupted = True
            sys.stderr.write(f"\nkin-sim {NAME}: interrupted\n")
        totals = self._tally.totals(time.monotonic() - self._began_s)
        self._tell_end(totals | {"interrupted": is_interrupted})
        if is_interrupted:
            return EXIT_INTERRUPTED
        return EXIT_FAILED if totals["failed"] else EXIT_DONE

    def _played(self) -> Generator[tuple[Script, Result]]:
        """Yield each history that was asked for, with what came of it."""
        from simulations.history import runs

        options = self._options
        if self._history is not None:
            how = runs.outcome if options.once else runs.play_twice
            yield self._history, how(self._history, observes=True)
            return
        observes = self._is_alone or options.coverage or options.json or options.report is not None
        live = partial(runs.live if options.once else runs.live_twice, observes=observes)
        seeds = _asked(options)
        if isinstance(seeds, range) and options.jobs > 1 and len(seeds) > 1:
            runs.prepare(seeds)  # once, for all processes
        with Workers(1 if self._is_alone else options.jobs) as workers:
            for some in _portions(seeds, options.jobs, self._until_s):
                for result in workers.map(live, some):
                    yield runs.script_of(result.options.seed), result

    @property
    def _until_s(self) -> float | None:
        minutes = self._options.minutes
        return None if minutes is None else self._began_s + minutes * 60

    def _take(self, history: Script, result: Result) -> None:
        """Tell one history, and let go of it."""
        self._tally.add(result)
        if not self._options.json:
            _tell(result, alone=self._is_alone)
        told: failures.Told | None = None
        if result.failure:
            if self._options.shrink and not self._options.json:
                print("      making it smaller ...", flush=True)
            told = self._explain(history, result)
        if self._report is not None:
            self._report.add(result, told)
        if self._options.json:
            self._rows.append(self._row(result, told))

    def _explain(self, history: Script, result: Result) -> failures.Told | None:
        try:
            told = self._teller.explain(history, result)
        except OSError as error:  # the others are told all the same
            sys.stderr.write(f"kin-sim {NAME}: {error.filename or ''}: {error.strerror or error}\n")
            return None
        if not self._options.json:
            print("\n".join(f"      {line}" for line in told.lines(is_alone=self._is_alone)), flush=True)
        return told

    def _row(self, result: Result, told: failures.Told | None) -> dict[str, Any]:
        row = result._asdict()
        row["options"] = result.options._asdict() | {"schedule": result.options.schedule.value}
        row["events"] = list(result.events) if result.failure else []
        row["played"] = [event._asdict() for event in result.played] if result.failure else []
        row["situations"] = {str(number): evidence for number, evidence in result.situations.items()}
        row["again"] = failures.command(result, self._options.history)
        row["smaller"] = None if told is None else told.as_json()
        return row

    def _tell_end(self, totals: dict[str, Any]) -> None:
        if self._report is not None:
            index = self._report.end(self._tally, totals)
            if index is not None and not self._options.json:
                print(f"report: {index}")
        if self._options.json:
            print(json.dumps({"version": 1, "histories": self._rows, "totals": totals}))
            return
        if self._options.coverage:
            _tell_coverage(self._tally)
        print(_summary(totals))


def _asked(options: argparse.Namespace) -> range | count[int]:
    """Return the seeds that were asked for."""
    if options.seed is not None:
        return range(options.seed, options.seed + 1)
    if isinstance(options.seeds, range):
        return options.seeds
    first = options.first or 0
    if options.seeds is None and options.minutes is not None:
        return count(first)
    return range(first, first + (options.seeds or SEEDS))


def _portions(seeds: range | count[int], jobs: int, until_s: float | None) -> Iterator[Sequence[int]]:
    """Yield seeds: all, or where there is a time, some of them and some more, until that is over."""
    if until_s is None:
        assert isinstance(seeds, range)
        yield seeds
        return
    left = iter(seeds)
    while time.monotonic() < until_s and (some := list(islice(left, jobs))):
        yield some


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
            print(f"      {line}", flush=True)


def _tell_coverage(tally: Tally) -> None:
    from simulations.situations.catalogue import coverage_lines

    for line in coverage_lines(tally.situations, len(tally.rows)):
        print(line)
    for name, times in sorted(tally.done.items()):
        print(f"{times:6}  {name}")


def _summary(totals: dict[str, Any]) -> str:
    return (
        f"{totals['histories']} histories, {totals['failed']} failed; on one core, a repetition not counted:"
        f" {totals['histories_a_second']:.2f} histories, {totals['actions_a_second']:.0f} actions and"
        f" {totals['steps_a_second']:.0f} steps a second"
    )


def main(given: Sequence[str]) -> int:
    """Answer a command line of its own, for processes that need no other command."""
    parser = argparse.ArgumentParser(prog="kin-sim run")
    add_arguments(parser)
    options = parser.parse_args(given)
    return console.answer(NAME, lambda: run(options))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
