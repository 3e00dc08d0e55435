"""Names as the checks know them: which stay on one device, and which the product made up for a conflict.

Rule 1: written down from the documents, not taken from the product.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from typing import Final

_LOCAL: Final = re.compile(r"\.goutputstream-.*|~.*\.tmp|~\$.*|\.~lock\..*#")
_COPY: Final = re.compile(r"(.*) \(conflict, [^()]+, [0-9a-f]{8,32}\)(\.[^/]*)?", re.DOTALL)
_KEPT: Final = re.compile(r"(.*) \(kept, [0-9a-f]{8}\)(\..*)?", re.DOTALL)
_MARKS_MAX: Final = 8
_CUT_CHARS: Final = 100
"""So much of a name that was too long for a mark is still there."""


def is_local(path: str) -> bool:
    """Tell whether a path stays on its device by its name or that of a directory above it."""
    return any(_LOCAL.fullmatch(part) for part in path.split("/"))


def kept_for_local(paths: Iterable[str], directories: Collection[str]) -> set[str]:
    """Return the directories that hold something that stays on its device, and else nothing but such directories.

    One that was removed elsewhere stays here for what is in it.

    Args:
        paths: All that stand on a device.
        directories: Those of them that are directories.
    """
    below: dict[str, list[str]] = {}
    for path in paths:
        below.setdefault(path.rpartition("/")[0], []).append(path)
    kept: set[str] = set()
    for path in sorted(directories, key=lambda path: -path.count("/")):
        if path in below and not is_local(path) and all(is_local(one) or one in kept for one in below[path]):
            kept.add(path)
    return kept


def is_copy(name: str) -> bool:
    """Tell whether a name is one that the product gives to a conflict copy, or to a second one of the same name."""
    return _COPY.fullmatch(name) is not None


def is_kept(name: str) -> bool:
    """Tell whether a name is one that the product gives to bytes that it could not put back at theirs."""
    return _KEPT.fullmatch(name) is not None


def wanted(name: str) -> str:
    """Return the name that somebody gave, of one to which the product added marks."""
    for _ in range(_MARKS_MAX):
        name = _without_mark(name)
    return name


def _without_mark(name: str) -> str:
    """Return a name without the last mark in it."""
    found = _COPY.fullmatch(name) or _KEPT.fullmatch(name)
    return name if found is None else found[1] + (found[2] or "")


def is_made_of(name: str, given: set[str]) -> bool:
    """Tell whether a name is one that somebody gave, or one that the product made of such a one."""
    if name in given:
        return True
    plain = _without_mark(name)  # one by one: somebody may have given a name with a mark
    while plain != name:
        if plain in given or any(one[:_CUT_CHARS] == plain[:_CUT_CHARS] for one in given if len(one) > _CUT_CHARS):
            return True
        name, plain = plain, _without_mark(plain)
    return False
