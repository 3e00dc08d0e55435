"""Make a list smaller for as long as it is still enough: delta debugging.

Source: Zeller and Hildebrandt 2002, "Simplifying and isolating failure-inducing input".
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def minimise(items: list[T], is_enough: Callable[[list[T]], bool]) -> list[T]:
    """Return a part of a list, in its order, that is still enough, and from which no single item can be left out.

    Args:
        items: Enough as a whole.
        is_enough: Is asked of parts.
    """
    size = max(1, len(items) // 2)
    while True:
        start, is_smaller = 0, False
        while start < len(items):
            rest = items[:start] + items[start + size :]
            if is_enough(rest):
                items, is_smaller = rest, True
            else:
                start += size
        if size == 1 and not is_smaller:
            return items
        size = max(1, size // 2)
