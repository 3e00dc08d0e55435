"""Names as the checks know them: which stay on one device, and which the product made up for a conflict.

Rule 1: written down from the documents, not taken from the product.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice
from typing import Final

_LOCAL: Final = re.compile(r"\.goutputstream-.*|~.*\.tmp|~\$.*|\.~lock\..*#")
_COPY: Final = re.compile(r"(.*) \(conflict, [^()]+, [0-9a-f]{8,32}\)(\.[^/]*)?", re.DOTALL)
_KEPT: Final = re.compile(r"(.*) \(kept, [0-9a-f]{8}\)(\..*)?", re.DOTALL)
_CUT_CHARS: Final = 100
"""So much of a name that was too long for a mark is still there."""
MARKS_MAX: Final = 8
"""So many marks are taken off a name."""


def is_local(path: str) -> bool:
    """Tell whether a path stays on its device by its name or that of a directory above it."""
    return any(_LOCAL.fullmatch(part) for part in path.split("/"))


def is_copy(name: str) -> bool:
    """Tell whether a name is one that the product gives to a conflict copy, or to a second one of the same name."""
    return _COPY.fullmatch(name) is not None


def wanted(name: str) -> str:
    """Return the name that somebody gave, of one to which the product added marks."""
    *_, last = _unmarked(name)
    return last


def _unmarked(name: str) -> Iterator[str]:
    """Yield a name, the one that the product would have added its last mark to, and so on."""
    for _ in range(MARKS_MAX + 1):
        yield name
        found = _COPY.fullmatch(name) or _KEPT.fullmatch(name)
        if found is None:
            break
        name = found[1] + (found[2] or "")


def is_made_of(name: str, given: set[str]) -> bool:
    """Tell whether a name is one that somebody gave, or one that the product made of such a one."""
    if name in given:
        return True
    return any(
        plain in given or any(one[:_CUT_CHARS] == plain[:_CUT_CHARS] for one in given if len(one) > _CUT_CHARS)
        for plain in islice(_unmarked(name), 1, None)
    )
