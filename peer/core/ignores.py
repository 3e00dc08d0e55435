"""Which paths of a folder stay on the device they are on: built-in rules, then those of ``.kinignore``.

Rule 1: ``.kinignore`` has the syntax of gitignore; the last rule that fits a path decides, and what lies in an ignored
directory is ignored. What cannot be read as a rule is reported and has no effect.
Rule 2: a rule is no deletion. What was synced and is now ignored stays, here and elsewhere, and is left alone from then on.
Rule 3: bounded: the file comes from anyone who may write to the folder.
Rule 4: what was kept beside its name (:mod:`peer.core.leftovers`) is ignored where it was before: it was moved by nobody.
"""

from __future__ import annotations

import re
from itertools import groupby
from typing import Final, NamedTuple

from peer.core.globs import translate
from peer.core.leftovers import unmarked
from protocol.entries import is_reserved
from protocol.errors import ProtocolError

IGNORE_FILE: Final = ".kinignore"
IGNORE_FILE_BYTES_MAX: Final = 64 * 1024
"""What goes beyond is left out, by whole lines, and reported."""
IGNORE_RULES_MAX: Final = 1_000
_REMEMBERED_MAX: Final = 10_000

BUILT_IN: Final[tuple[tuple[str, str], ...]] = (
    (".~lock.*#", "LibreOffice: the document is open on this device"),
    ("~$*", "Microsoft Office: the document is open on this device"),
    ("~*.tmp", "Microsoft Office: half of a save"),
    ("lu[0-9]*.tmp", "LibreOffice: half of a save"),
    (".goutputstream-*", "GLib, so GNOME's editors: half of a save"),
    (".*.sw[nop]", "Vim: what is being edited on this device; elsewhere it would look like a crash"),
    (".#*", "Emacs: the file is being edited on this device; a link that leads nowhere"),
    ("#*#", "Emacs: what is not saved yet"),
    (".fuse_hidden*", "FUSE: a deleted file that a program still has open"),
    (".nfs[0-9a-f]*", "NFS: a deleted file that a program still has open"),
    (".DS_Store", "macOS: how a window of the Finder looked"),
    ("Icon\r", "macOS: a folder's picture, which is not in the file's bytes"),
    ("[Tt]humbs.db", "Windows: small pictures, made anew everywhere"),
    ("ehthumbs.db", "Windows: small pictures, made anew everywhere"),
    ("[Dd]esktop.ini", "Windows: how a folder is shown on this computer"),
    ("/.Trash-*/", "Linux: the trash of a disk whose top directory is the folder"),
    ("/.Trashes/", "macOS: the trash of a disk"),
    ("/.Spotlight-V100/", "macOS: the search index of a disk"),
    ("/.fseventsd/", "macOS: the journal of a disk"),
    ("/$RECYCLE.BIN/", "Windows: the trash of a disk"),
    ("/System Volume Information/", "Windows: restore points of a disk"),
)
"""(pattern, reason). ``.kinignore`` can take each back, as in ``!desktop.ini``. Not here, since people keep data in them:
``*.tmp``, ``*.bak``, ``*~``, hidden files, ``.git``."""


class Problem(NamedTuple):
    """A line that has no effect."""

    line: int
    """From 1; 0 for the file as a whole."""
    text: str


class _Effect(NamedTuple):
    """What a rule does, apart from its pattern."""

    ignores: bool
    only_name: bool
    """Matched against the last part of the path alone."""
    only_directories: bool


class Ignores:
    """The rules of one folder on one device."""

    def __init__(self, data: bytes = b"") -> None:
        """Read the rules.

        Args:
            data: What ``.kinignore`` holds; of a large file at least one byte more than ``IGNORE_FILE_BYTES_MAX``.
        """
        self._remembered: dict[str, bool] = {"": False}
        problems: list[Problem] = []
        rules = [_rule(pattern) for pattern, _ in BUILT_IN]
        for number, line in enumerate(_lines(data, problems), 1):
            pattern = _strip(line)
            if not pattern or pattern.startswith("#"):
                continue
            if len(rules) - len(BUILT_IN) == IGNORE_RULES_MAX:
                problems.append(Problem(number, f"more than {IGNORE_RULES_MAX} rules"))
                break
            try:
                rules.append(_rule(pattern))
            except ProtocolError as error:
                problems.append(Problem(number, str(error)))
        neighbours = groupby(reversed(rules), key=lambda rule: rule[0])
        self._rules: list[tuple[_Effect, re.Pattern[str]]] = [
            (effect, re.compile("|".join(regex for _, regex in some))) for effect, some in neighbours
        ]
        """The last first, those of one effect in one expression."""
        self.problems: tuple[Problem, ...] = tuple(problems)
        """Lines without effect, for the user."""

    def is_ignored(self, path: str, is_directory: bool) -> bool:  # noqa: FBT001 - the shape that scanner and planner call
        """Tell whether a path stays out of the folder.

        Args:
            path: From the root, "/" between parts; nothing needs to be there.
            is_directory: Rules with a slash at the end fit directories only.
        """
        above, _, name = path.rpartition("/")
        ignored = self._remembered.get(above)
        if ignored is None:
            ignored = self.is_ignored(above, True)
            if len(self._remembered) >= _REMEMBERED_MAX:
                self._remembered = {"": False}
            self._remembered[above] = ignored
        if ignored or (not above and _is_ours(name)) or self._decide(path, name, is_directory):
            return True
        before = unmarked(path)
        return before != path and self.is_ignored(before, is_directory)

    def _decide(self, path: str, name: str, is_directory: bool) -> bool:  # noqa: FBT001 - see is_ignored
        for (ignores, only_name, only_directories), regex in self._rules:
            if (is_directory or not only_directories) and regex.fullmatch(name if only_name else path) is not None:
                return ignores
        return False


def _rule(pattern: str) -> tuple[_Effect, str]:
    ignores = not pattern.startswith("!")
    pattern = pattern if ignores else pattern[1:]
    only_directories = pattern.endswith("/")
    pattern = pattern[:-1] if only_directories else pattern
    if not pattern:
        raise ProtocolError("no name")
    only_name = "/" not in pattern and pattern != "**"
    regex = translate(f"/{pattern}" if only_name else pattern)
    return _Effect(ignores, only_name, only_directories), f"(?:{regex})"


def _is_ours(name: str) -> bool:
    return is_reserved(name.encode(errors="surrogateescape"))


def _lines(data: bytes, problems: list[Problem]) -> list[str]:
    if len(data) > IGNORE_FILE_BYTES_MAX:
        data = data[: data.rfind(b"\n", 0, IGNORE_FILE_BYTES_MAX) + 1]
        problems.append(Problem(0, f"only the first {IGNORE_FILE_BYTES_MAX} bytes are read"))
    text = data.removeprefix(b"\xef\xbb\xbf").decode(errors="surrogateescape")
    return [line.removesuffix("\r") for line in text.split("\n")]


def _strip(line: str) -> str:
    """Take off blanks at the end, but for one behind a backslash."""
    stripped = line.rstrip(" ")
    backslashes = len(stripped) - len(stripped.rstrip("\\"))
    return stripped + " " if backslashes % 2 and stripped != line else stripped
