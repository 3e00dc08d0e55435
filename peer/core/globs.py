"""Patterns of gitignore as regular expressions that cannot be made slow.

A pattern comes from anyone who may write to the folder, a name too. The usual translation of ``*a*b*c`` tries every way to
share a name among the stars; here each star takes the first place where what follows it fits and never goes back
(``(?>...)``), which finds a match whenever there is one, since only the last part is tied to an end. So a match costs at
most about the product of both lengths.

Source: https://git-scm.com/docs/gitignore, and wildmatch.c of git for what it leaves open.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from protocol.errors import ProtocolError

_NAMED_CLASSES: Final = {
    "alnum": "a-zA-Z0-9",
    "alpha": "a-zA-Z",
    "blank": r"\ \t",
    "digit": "0-9",
    "lower": "a-z",
    "punct": r"!-\/:-@\[-`{-~",
    "space": r"\ \t\n\r\f\v",
    "upper": "A-Z",
    "xdigit": "0-9A-Fa-f",
}


def translate(glob: str) -> str:
    """Return the regular expression that fully matches the paths that a pattern names, but for its ``!`` and last slash.

    Args:
        glob: With a slash at its beginning or within it, it is tied to the root; else it fits at any depth.

    Raises:
        ProtocolError: It can match nothing: an open bracket, a reversed range, a backslash at its end.
    """
    parts = glob.removeprefix("/").split("/")
    if "/" not in glob:
        parts.insert(0, "**")
    runs: list[list[str]] = [[]]
    for part in parts:
        if part == "**":
            if runs[-1] or len(runs) == 1:
                runs.append([])
        else:
            runs[-1].append(_part(part))
    first, *others = ["/".join(run) for run in runs]
    if not others:
        return first
    *middle, last = others
    regex = f"{first}/" if first else ""
    regex += "".join(f"(?>(?:[^/]+/)*?{run}/)" for run in middle)
    regex += rf"(?:[^/]+/)*?{last}\Z" if last else "(?s:.+)"
    return regex


def _part(part: str) -> str:
    """Translate what stands between two slashes; it must be followed by a slash or the end."""
    if not part:
        raise ProtocolError("an empty name")
    chunks = [""]
    for piece in _tokens(part):
        if piece == "*":
            chunks.append("")
        else:
            chunks[-1] += piece
    first, *others = chunks
    if not others:
        return first
    *middle, last = others
    regex = first + "".join(f"(?>[^/]*?{chunk})" for chunk in middle if chunk)
    if not first and not any(middle) and not last:
        return "[^/]+"
    return rf"{regex}(?>[^/]*{last}(?=/|\Z))"


def _tokens(part: str) -> Iterator[str]:
    """Yield a regular expression for each character to match, and ``*`` for a star."""
    i = 0
    while i < len(part):
        c = part[i]
        i += 1
        if c == "*":
            yield "*"
        elif c == "?":
            yield "[^/]"
        elif c == "[":
            token, i = _bracket(part, i)
            yield token
        elif c == "\\":
            if i == len(part):
                raise ProtocolError("a backslash at the end")
            yield re.escape(part[i])
            i += 1
        else:
            yield re.escape(c)


def _bracket(part: str, i: int) -> tuple[str, int]:
    """Translate a set of characters; ``i`` stands behind its ``[``."""
    negated = part[i : i + 1] in ("!", "^")
    i += negated
    body, start = "", i
    while i < len(part) and (part[i] != "]" or i == start):
        if part.startswith("[:", i) and (end := part.find(":]", i)) > 0:
            name = part[i + 2 : end]
            if name not in _NAMED_CLASSES:
                raise ProtocolError("an unknown class of characters")
            body += _NAMED_CLASSES[name]
            i = end + 2
            continue
        low, i = _one(part, i)
        if part[i : i + 1] == "-" and part[i + 1 : i + 2] not in ("", "]"):
            high, i = _one(part, i + 1)
            if high < low:
                raise ProtocolError("a reversed range")
            body += f"{re.escape(low)}-{re.escape(high)}"
        else:
            body += re.escape(low)
    if i >= len(part):
        raise ProtocolError("an open bracket")
    return f"(?!/)[{'^' if negated else ''}{body}]", i + 1


def _one(part: str, i: int) -> tuple[str, int]:
    if part[i] == "\\" and i + 1 < len(part):
        i += 1
    return part[i], i + 1
