"""Look many rows up by their keys in few statements: each statement costs more than the row that it finds."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from typing import Any, Final

TOGETHER_MAX: Final = 256
"""Keys to a statement; a power of two."""


def together(db: sqlite3.Connection, query: str, first: tuple[Any, ...], keys: Sequence[bytes]) -> Iterator[Any]:
    """Yield the rows of a query for all of these keys; nothing may be written to its table meanwhile.

    Args:
        db: The database.
        query: Ends in ``IN``.
        first: Values of what it asks for before the keys.
        keys: What the last of its columns may be, each once.
    """
    for start in range(0, len(keys), TOGETHER_MAX):
        part = keys[start : start + TOGETHER_MAX]
        again = (part[-1] for _ in range(_PLACES[len(part)] - len(part)))
        yield from db.execute(f"{query} {_LISTS[len(part)]}", (*first, *part, *again))


_PLACES: Final = [1 << (count - 1).bit_length() for count in range(1 + TOGETHER_MAX)]
"""By the number of keys, of how many a statement asks: powers of two, so that SQLite compiles few statements."""
_LISTS: Final = [f"({','.join('?' * places)})" for places in _PLACES]
