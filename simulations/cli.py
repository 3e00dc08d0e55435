"""The simulator's command, ``kin-sim``: histories, and cases on virtual time or with real processes."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from simulations.cases.grammar import load
from simulations.commands import crash, run
from simulations.plan import cli as plan

if TYPE_CHECKING:
    from simulations.cases.runner import Outcome

    Run = Callable[[Sequence[Mapping[str, Any]], Callable[[Outcome], None]], list[Outcome]]

EXIT_DONE: Final = 0
EXIT_FAILED: Final = 1
EXIT_USAGE: Final = 2
EXIT_INTERRUPTED: Final = 130
SEEDS_MAX: Final = 10_000


def main() -> None:
    """Answer one command line."""
    parser = argparse.ArgumentParser(
        prog="kin-sim",
        description="Run the real coordinator, devices and storage nodes: on virtual time from one seed, or as"
        " processes on this disk.",
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    plan.add_to(commands)
    run.add_arguments(commands.add_parser("run", help="random histories on virtual time, each from its seed"))
    crash.add_to(commands)
    cases = commands.add_parser("cases", help="scenarios from files, on virtual time")
    cases.add_argument("files", nargs="+", metavar="FILE", type=Path, help="cases, as a JSON list")
    cases.add_argument("--only", metavar="ID", action="append", default=[], help="this case alone; may be repeated")
    cases.add_argument("--real", action="store_true", help="real processes on a real disk instead")
    cases.add_argument("--seeds", metavar="N", type=_count, default=1, help="run each case so often in each order")
    cases.add_argument("--full-size", action="store_true", help="have large contents be as large as a case says")
    cases.add_argument("--json", action="store_true", help="print one JSON object")
    commands.add_parser("capacity", help="the capacity model (not in this version)")
    options, rest = parser.parse_known_args()
    if options.command in {"cases", "crash", "plan", "run"} and rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if options.command == "plan":
        sys.exit(plan.main(options))
    if options.command == "crash":
        sys.exit(crash.run(options))
    if options.command == "run":
        sys.exit(run.run(options))
    if options.command == "cases":
        from simulations.cases.runner import run_real, run_virtual

        if options.real and (options.seeds > 1 or options.full_size):
            parser.error("--seeds and --full-size are for virtual time: real processes take no seed")
        way = run_real if options.real else partial(run_virtual, seeds=options.seeds, full_size=options.full_size)
        sys.exit(run_cases(options.files, options.only, way, as_json=options.json))
    sys.stderr.write(f"kin-sim: {options.command}: not in this version\n")
    sys.exit(EXIT_USAGE)


def _count(text: str) -> int:
    count = int(text)
    if not 1 <= count <= SEEDS_MAX:
        raise argparse.ArgumentTypeError(f"a number from 1 to {SEEDS_MAX:,}")
    return count


def run_cases(files: list[Path], only: list[str], run: Run, *, as_json: bool) -> int:
    """Run the cases of some files, print a line for each and then totals, and return the exit code."""
    try:
        raw = [case for file in files for case in load(file)]
    except (OSError, ValueError) as error:
        sys.stderr.write(f"kin-sim: {error}\n")
        return EXIT_USAGE
    if unknown := sorted(set(only) - {case["id"] for case in raw}):
        sys.stderr.write(f"kin-sim: no case {unknown[0]} in these files\n")
        return EXIT_USAGE

    def show(outcome: Outcome) -> None:
        if not as_json:
            reason = f": {outcome.reason}" if outcome.reason else ""
            print(f"{outcome.verdict:8}{outcome.label} ({outcome.seconds:.1f} s){reason}", flush=True)

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # either way all processes are ended first
    try:
        outcomes = run([case for case in raw if not only or case["id"] in only], show)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    totals = Counter(outcome.verdict for outcome in outcomes)
    counts = {verdict: totals[verdict] for verdict in ("pass", "fail", "skipped")}
    if as_json:
        print(json.dumps({"version": 1, "cases": [outcome._asdict() for outcome in outcomes], "totals": counts}))
    else:
        print(", ".join(f"{count} {verdict}" for verdict, count in counts.items()))
    return EXIT_FAILED if totals["fail"] else EXIT_DONE


if __name__ == "__main__":
    main()
