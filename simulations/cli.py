"""The simulator's command, ``kin-sim``: its three commands are named here and come with the simulator itself."""

from __future__ import annotations

import argparse
import sys

EXIT_USAGE = 2


def main() -> None:
    """Answer one command line."""
    parser = argparse.ArgumentParser(
        prog="kin-sim",
        description="Run the real coordinator, devices and storage nodes on virtual time, from one seed.",
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, text in (
        ("run", "random worlds (not in this version)"),
        ("cases", "scenarios from a file (not in this version)"),
        ("capacity", "the capacity model (not in this version)"),
    ):
        commands.add_parser(name, help=text)
    options, _ = parser.parse_known_args()
    sys.stderr.write(f"kin-sim: {options.command}: not in this version\n")
    sys.exit(EXIT_USAGE)


if __name__ == "__main__":
    main()
