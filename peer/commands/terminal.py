"""What a command says to a person or a script, and what it asks.

Rule 1: no byte of a name reaches a terminal as a command to it; what is not printable is shown as an escape.
Rule 2: results go to standard output, everything else to standard error; with ``--json`` one object and nothing else.
Rule 3: nothing is asked where standard input is not a terminal.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, Final, TextIO

from peer.progress import Lines, Progress, Show, Silence
from protocol.errors import EXIT_FAILED, EXIT_USAGE, KinfolderError, UserError

STYLES: Final = {"bold": "1", "dim": "2", "good": "32", "attention": "33", "bad": "31"}
_HARMLESS: Final = frozenset("\u00a0\u200c\u200d")
"""Not printable to Python, but at home in names: a space that does not break, and what joins emoji and letters."""


class Terminal:
    """Standard input, output and error of one command."""

    def __init__(self, *, as_json: bool, bars: Callable[[], Show] | None = None) -> None:
        """Make one for this process.

        Args:
            as_json: Print one JSON object and nothing else.
            bars: Makes progress bars on standard error; asked only where that is a terminal.
        """
        _open_missing_streams()
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")
        self.as_json = as_json
        self._bars = bars
        self._show: Show | None = None

    @property
    def can_ask(self) -> bool:
        """Whether a person is at standard input and sees what is asked."""
        return sys.stdin.isatty() and sys.stderr.isatty()

    def say(self, text: str = "", style: str | None = None) -> None:
        """Write one line of a result, at once."""
        if not self.as_json:
            _write(sys.stdout, text, style)

    def note(self, text: str, style: str | None = None) -> None:
        """Write one line about what goes on to standard error."""
        if not self.as_json:
            _write(sys.stderr, text, style)

    def warn(self, text: str) -> None:
        """Write one line that a person must see to standard error."""
        self.note(f"kin: {text}", "attention")

    def print_json(self, value: dict[str, Any]) -> None:
        """Write one JSON object, indented for people."""
        sys.stdout.write(json.dumps(value, indent=2 if sys.stdout.isatty() else None) + "\n")
        sys.stdout.flush()

    def fail(self, error: KinfolderError) -> int:
        """Show an error in one line, or as the JSON object, and return the process's exit code."""
        self.finish()
        exit_code = error.exit_code if isinstance(error, UserError) else EXIT_FAILED
        text = str(error) or error.code
        if self.as_json:
            with contextlib.suppress(OSError):
                self.print_json({"version": 1, "error": {"code": error.code, "text": text}})
                return exit_code
        # People are told on the other stream, and so are scripts where the disk behind their own is full.
        with contextlib.suppress(OSError):
            _write(sys.stderr, f"kin: {text}", "bad")
        return exit_code

    def report(self, report: dict[str, Any]) -> None:
        """Show what the device tells on its way: progress, a warning, or a code for another device."""
        if (progress := Progress.read(report)) is not None:
            if self._show is None:
                self._show = self._make_show()
            self._show.update(progress)
        elif "warning" in report:
            self.finish()
            self.warn(str(report["warning"]))
        elif "code" in report:
            self.say(str(report["code"]))
            where = "" if "@" in str(report["code"]) else " --coordinator URL"
            self.note(f"On the other device, within ten minutes: kin link CODE --device NAME{where}")

    def finish(self) -> None:
        """Take progress bars away."""
        if self._show is not None:
            self._show.close()
            self._show = None

    def confirm_digits(self, digits: str, name: str) -> bool:
        """Ask a person whether the device that joins, called ``name`` if that is known, shows these six digits too."""
        self.finish()
        if not self.can_ask:
            return False
        return self.is_yes(self.ask(self.question_about(digits, name)))

    @staticmethod
    def question_about(digits: str, name: str) -> str:
        """Return how people are asked to compare six digits."""
        who = f"{safe(name)} wants to join. Does it" if name else "Does the other device"
        return f"{who} show {safe(digits[:3])} {safe(digits[3:])} too? [y/N] "

    @staticmethod
    def is_yes(answer: str) -> bool:
        """Whether an answer agrees; everything but a plain yes does not."""
        return answer.strip().lower() in {"y", "yes"}

    def ask(self, question: str) -> str:
        """Return a line that a person typed.

        Raises:
            UserError: Nobody can be asked, or input ended.
        """
        if not self.can_ask:
            raise UserError("this asks a question, and standard input is not a terminal", exit_code=EXIT_USAGE)
        sys.stderr.write(question)
        sys.stderr.flush()
        line = sys.stdin.readline()
        if not line:
            sys.stderr.write("\n")
            raise UserError("no answer")
        return line.rstrip("\n")

    @contextlib.contextmanager
    def other_screen(self) -> Iterator[None]:
        """Show what is written to standard error on a page that a terminal forgets afterwards."""
        known = os.environ.get("TERM", "dumb") != "dumb"
        sys.stderr.write("\x1b[?1049h\x1b[H" if known else "")
        try:
            yield
        finally:
            sys.stderr.write("\x1b[?1049l" if known else "")
            sys.stderr.flush()

    def _make_show(self) -> Show:
        if self.as_json:
            return Silence()
        if self._bars is not None and sys.stderr.isatty() and os.environ.get("TERM", "dumb") != "dumb":
            return self._bars()
        return Lines(self.note, time.monotonic)


def _open_missing_streams() -> None:
    """Give a process that was started without standard streams the null device, so that no socket takes their place."""
    for descriptor, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free descriptor: this one
        if getattr(sys, name) is None:
            mode = "w" if descriptor else "r"
            setattr(sys, name, open(descriptor, mode, encoding="utf-8", closefd=False))  # noqa: SIM115 - open until the end


def drop_output() -> None:
    """Send what standard output still holds nowhere: its reader has gone, or its disk is full."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _write(stream: TextIO, text: str, style: str | None) -> None:
    shown = safe(text)
    if style is not None and _has_colour(stream):
        shown = f"\x1b[{STYLES[style]}m{shown}\x1b[0m"
    stream.write(shown + "\n")
    stream.flush()


def _has_colour(stream: TextIO) -> bool:
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM", "dumb") != "dumb"


def safe(text: str) -> str:
    """Return one line of text with every character that could command a terminal or mislead a reader as an escape."""
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() or character in _HARMLESS else _escape(character) for character in text
    )


def _escape(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # a byte that is not UTF-8, as os.fsdecode gives it
        return f"\\x{code - 0xDC00:02x}"
    return character.encode("unicode_escape").decode("ascii")
