"""How results stand on a page: columns, and moments in local time."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from datetime import datetime

from peer.commands.terminal import Terminal, safe


def write_table(terminal: Terminal, rows: Sequence[Sequence[str]], indent: str = "") -> None:
    """Write rows of equal length with their columns aligned."""
    shown = [[safe(cell) for cell in row] for row in rows]
    widths = [max(map(_width, column)) for column in zip(*shown, strict=True)]
    for row in shown:
        cells = [cell + " " * (width - _width(cell)) for cell, width in zip(row, widths, strict=True)]
        terminal.say((indent + "  ".join(cells)).rstrip())


def moment(text: str | None) -> str:
    """Return an RFC 3339 moment as local date and time, to the minute."""
    if not text:
        return "never"
    try:
        return datetime.fromisoformat(text).astimezone().strftime("%Y-%m-%d %H:%M")
    except ValueError:
        return text


def _width(text: str) -> int:
    """Return how many columns of a terminal a text takes."""
    return sum(
        0 if unicodedata.combining(character) else 2 if unicodedata.east_asian_width(character) in "WF" else 1
        for character in text
    )
