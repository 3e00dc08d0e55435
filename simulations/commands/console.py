"""What all commands share: exit codes, what may be printed, and how one ends that is interrupted or that nobody reads any more.

Rule 1: whatever a name holds, it is printed: what a terminal or a file cannot take is escaped.
"""

from __future__ import annotations

import io
import os
import signal
import sys
from collections.abc import Callable
from typing import Final

EXIT_DONE: Final = 0
EXIT_FAILED: Final = 1
EXIT_USAGE: Final = 2
EXIT_INTERRUPTED: Final = 130


def answer(name: str, command: Callable[[], int]) -> int:
    """Do what a command is to do, and return the exit code: also of one that Ctrl-C or SIGTERM ends, or whose reader has gone.

    Args:
        name: Of the command, for whoever reads errors.
        command: Returns the exit code if nothing of that happens.
    """
    escape()
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)  # either way all processes are ended first
    try:
        code = command()
        sys.stdout.flush()
    except KeyboardInterrupt:
        sys.stderr.write(f"\nkin-sim {name}: interrupted\n")
        return EXIT_INTERRUPTED
    except BrokenPipeError:  # whoever read has gone, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_INTERRUPTED
    finally:
        signal.signal(signal.SIGTERM, before)
    return code


def escape() -> None:
    """Have what an encoding cannot say be escaped, as a name that is no UTF-8, in every locale alike."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def misused(name: str, text: str) -> int:
    """Say in a line what is wrong about what was asked for, and return the exit code of that."""
    sys.stderr.write(f"kin-sim {name}: {text}\n")
    return EXIT_USAGE
