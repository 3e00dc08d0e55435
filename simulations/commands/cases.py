"""``kin-sim cases``: scenarios from files, on virtual time or with real processes, a line for each and totals."""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from simulations.cases.grammar import BadCasesError, load
from simulations.commands import arguments
from simulations.commands.console import EXIT_DONE, EXIT_FAILED, misused

if TYPE_CHECKING:
    from simulations.cases.runner import Outcome

    Run = Callable[[Sequence[Mapping[str, Any]], Callable[[Outcome], None]], list[Outcome]]

SEEDS_MAX: Final = 10_000
NAME: Final = "cases"


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to those of ``kin-sim``."""
    parser = commands.add_parser(NAME, help="scenarios from files, on virtual time")
    parser.add_argument("files", nargs="+", metavar="FILE", type=Path, help="cases, as a JSON list")
    parser.add_argument("--only", metavar="ID", action="append", default=[], help="this case alone; may be repeated")
    parser.add_argument("--real", action="store_true", help="real processes on a real disk instead")
    parser.add_argument(
        "--seeds",
        metavar="N",
        type=arguments.number(1, SEEDS_MAX),
        default=1,
        help="run each case so often in each order",
    )
    parser.add_argument("--full-size", action="store_true", help="have large contents be as large as a case says")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(options: argparse.Namespace) -> int:
    """Run what was asked for and return the exit code."""
    if options.real and (options.seeds > 1 or options.full_size):
        return misused(NAME, "--seeds and --full-size are for virtual time: real processes take no seed")
    from simulations.cases.runner import run_real, run_virtual

    way = run_real if options.real else partial(run_virtual, seeds=options.seeds, full_size=options.full_size)
    return run_cases(options.files, options.only, way, as_json=options.json)


def run_cases(files: list[Path], only: list[str], run: Run, *, as_json: bool) -> int:
    """Run the cases of some files, print a line for each and then totals, and return the exit code."""
    try:
        raw = [case for file in files for case in load(file)]
    except BadCasesError as error:
        return misused(NAME, str(error))
    if not raw:
        return misused(NAME, f"no cases in {', '.join(map(str, files))}")
    if unknown := sorted(set(only) - {case["id"] for case in raw}):
        return misused(NAME, f"no case {unknown[0]} in these files")

    def show(outcome: Outcome) -> None:
        if not as_json:
            reason = f": {outcome.reason}" if outcome.reason else ""
            print(f"{outcome.verdict:8}{outcome.label} ({outcome.seconds:.1f} s){reason}", flush=True)

    outcomes = run([case for case in raw if not only or case["id"] in only], show)
    totals = Counter(outcome.verdict for outcome in outcomes)
    counts = {verdict: totals[verdict] for verdict in ("pass", "fail", "skipped")}
    if as_json:
        print(json.dumps({"version": 1, "cases": [outcome._asdict() for outcome in outcomes], "totals": counts}))
    else:
        print(", ".join(f"{count} {verdict}" for verdict, count in counts.items()))
    if len(outcomes) == totals["skipped"]:
        sys.stderr.write("kin-sim cases: nothing was checked\n")
    return EXIT_FAILED if totals["fail"] else EXIT_DONE
