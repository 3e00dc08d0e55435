"""What the arguments of all commands may be: numbers and ranges of seeds, told in words where they are something else.

Rule 1: an argument that would change nothing is wrong usage, and said to be.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Final

SEED_MAX: Final = 1 << 63


def number(least: int, most: int) -> Callable[[str], int]:
    """Return what reads a number from one to another, both included."""

    def read(text: str) -> int:
        if not (text.isascii() and text.isdecimal() and least <= int(text) <= most):
            raise argparse.ArgumentTypeError(f"{text!r} is no number from {least} to {most:,}")
        return int(text)

    return read


seed: Final = number(0, SEED_MAX)


def seeds(text: str) -> range:
    """Read seeds from one to another, both included."""
    first, dots, last = text.partition("..")
    if not dots or not _is_seed(first) or not _is_seed(last) or int(first) > int(last):
        raise argparse.ArgumentTypeError(f"{text!r} is no range of seeds, such as 0..99")
    return range(int(first), int(last) + 1)


def _is_seed(text: str) -> bool:
    return text.isascii() and text.isdecimal() and int(text) <= SEED_MAX
