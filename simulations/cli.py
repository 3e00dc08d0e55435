"""The simulator's command, ``kin-sim``: trees, histories, crashes, and cases on virtual time or with real processes."""

from __future__ import annotations

import argparse
import sys
from typing import Final

from simulations.commands import cases, console, crash, run
from simulations.plan import cli as plan

COMMANDS: Final = {"plan": plan.main, "run": run.run, "crash": crash.run, "cases": cases.run}


def main() -> None:
    """Answer one command line."""
    parser = argparse.ArgumentParser(
        prog="kin-sim",
        description="Run the real coordinator, devices and storage nodes: on virtual time from one seed, or as"
        " processes on this disk.",
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    plan.add_to(commands)
    run.add_to(commands)
    crash.add_to(commands)
    cases.add_to(commands)
    commands.add_parser("capacity", help="the capacity model (not in this version)")
    options, rest = parser.parse_known_args()
    if options.command not in COMMANDS:
        sys.exit(console.misused(options.command, "not in this version"))
    if rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    sys.exit(console.answer(options.command, lambda: COMMANDS[options.command](options)))


if __name__ == "__main__":
    main()
