"""The simulator's command, ``kin-sim``: cases run with real processes; virtual time comes with the simulator itself."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections import Counter
from pathlib import Path
from typing import Final

EXIT_DONE: Final = 0
EXIT_FAILED: Final = 1
EXIT_USAGE: Final = 2
EXIT_INTERRUPTED: Final = 130


def main() -> None:
    """Answer one command line."""
    parser = argparse.ArgumentParser(
        prog="kin-sim",
        description="Run the real coordinator, devices and storage nodes: on virtual time from one seed (not in this"
        " version), or as processes on this disk.",
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    commands.add_parser("run", help="random worlds (not in this version)")
    cases = commands.add_parser("cases", help="scenarios from files; on virtual time: not in this version")
    cases.add_argument("files", nargs="+", metavar="FILE", type=Path, help="cases, as a JSON list")
    cases.add_argument("--only", metavar="ID", action="append", default=[], help="this case alone; may be repeated")
    cases.add_argument("--real", action="store_true", help="real processes on a real disk")
    cases.add_argument("--json", action="store_true", help="print one JSON object")
    commands.add_parser("capacity", help="the capacity model (not in this version)")
    options, rest = parser.parse_known_args()
    if options.command == "cases" and rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if options.command == "cases" and options.real:
        sys.exit(run_cases(options.files, options.only, as_json=options.json))
    missing = "cases without --real" if options.command == "cases" else options.command
    sys.stderr.write(f"kin-sim: {missing}: not in this version\n")
    sys.exit(EXIT_USAGE)


def run_cases(files: list[Path], only: list[str], *, as_json: bool) -> int:
    """Run the cases of some files, print a line for each and then totals, and return the exit code."""
    from simulations.cases.grammar import load
    from simulations.cases.runner import Outcome, run_real, run_virtual

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
        outcomes = run_all([case for case in raw if not only or case["id"] in only], show)
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
