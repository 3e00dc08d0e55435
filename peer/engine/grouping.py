"""Cut transfers into groups that travel, and are recorded or put in place, together."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

from protocol import limits

GROUP_FILES_MAX: Final = 256
GROUP_BYTES_MAX: Final = 16 * limits.MIB
LARGE_BYTES: Final = 8 * limits.MIB


def groups(pairs: list[Any], size_of: Callable[[Any], int]) -> Iterable[list[Any]]:
    """Yield large files alone, small ones together."""
    group: list[Any] = []
    total = 0
    for pair in pairs:
        size = size_of(pair)
        if size >= LARGE_BYTES:
            yield [pair]
            continue
        if group and (len(group) == GROUP_FILES_MAX or total + size > GROUP_BYTES_MAX):
            yield group
            group, total = [], 0
        group.append(pair)
        total += size
    if group:
        yield group
