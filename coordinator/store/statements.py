"""Statements: those that every table needs, and those that every request runs, spelt once for SQLite.

Rule 1: what every request runs goes to SQLite as text that was made once: to have SQLAlchemy run it costs several times what
    SQLite takes.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from itertools import islice
from typing import Any, Final, TypeVar

from sqlalchemy import Connection, Table, bindparam
from sqlalchemy.dialects import sqlite
from sqlalchemy.sql.expression import ClauseElement

K = TypeVar("K")

KEYS_A_QUERY_MAX: Final = 500


def raw(connection: Connection) -> sqlite3.Connection:
    """Return SQLite's own connection."""
    found = connection.connection.driver_connection
    assert isinstance(found, sqlite3.Connection)
    return found


class Prepared:
    """A statement of which the text is made once.

    Args:
        statement: Its parameters are named. Where a list of values is wanted, it says ``column.in_([KEYS])``.
        columns: Of an insert.
    """

    def __init__(self, statement: ClauseElement, columns: Sequence[str] | None = None) -> None:
        compiled = statement.compile(dialect=_DIALECT, column_keys=columns)
        self._text = str(compiled)
        self._fixed = {name: value for name, value in compiled.params.items() if value is not None}
        self._texts: dict[int, str] = {}

    def run(self, connection: Connection, values: Mapping[str, object]) -> sqlite3.Cursor:
        """Run it; a cursor that is not read to its end should be closed."""
        return raw(connection).execute(self._text, {**self._fixed, **values})

    def run_for(self, connection: Connection, keys: Sequence[object], values: Mapping[str, object]) -> sqlite3.Cursor:
        """Run it for a list of keys, at most :data:`KEYS_A_QUERY_MAX` of them."""
        text = self._texts.get(len(keys))
        if text is None:
            names = ", ".join(f":{_KEYS}_{number}" for number in range(len(keys)))
            text = self._texts[len(keys)] = self._text.replace(f"(:{_KEYS})", f"({names})")
        numbered = {f"{_KEYS}_{number}": key for number, key in enumerate(keys)}
        return raw(connection).execute(text, {**self._fixed, **values, **numbered})

    def run_each(self, connection: Connection, rows: Sequence[Mapping[str, object]]) -> None:
        """Run it once for each row of values."""
        raw(connection).executemany(self._text, [{**self._fixed, **row} for row in rows] if self._fixed else rows)

    def value(self, connection: Connection, values: Mapping[str, object]) -> Any:
        """Return the first column of the first row, None if there is no row."""
        row = self.run(connection, values).fetchone()
        return None if row is None else row[0]


_DIALECT: Final = sqlite.dialect(paramstyle="named")
_KEYS: Final = "keys"
KEYS: Final[Any] = bindparam(_KEYS)
"""Stands for a list of values in a :class:`Prepared`."""


@cache
def _upsert_statement(table: Table, columns: tuple[str, ...]) -> Prepared:
    statement = sqlite.insert(table)
    keys = [column.name for column in table.primary_key]
    rest = {column.name: statement.excluded[column.name] for column in table.columns if column.name not in keys}
    if not rest:
        return Prepared(statement.on_conflict_do_nothing(index_elements=keys), columns)
    return Prepared(statement.on_conflict_do_update(index_elements=keys, set_=rest), columns)


@cache
def _insert_statement(table: Table, columns: tuple[str, ...]) -> Prepared:
    return Prepared(table.insert(), columns)


def upsert(connection: Connection, table: Table, rows: Sequence[dict[str, Any]]) -> None:
    """Write whole rows, new ones or in place of those with the same key."""
    if rows:
        _upsert_statement(table, tuple(rows[0])).run_each(connection, rows)


def insert(connection: Connection, table: Table, rows: Sequence[dict[str, Any]]) -> None:
    """Write new rows."""
    if rows:
        _insert_statement(table, tuple(rows[0])).run_each(connection, rows)


def groups(keys: Iterable[K]) -> Iterator[list[K]]:
    """Yield the keys in lists short enough for one query."""
    rest = iter(keys)
    while group := list(islice(rest, KEYS_A_QUERY_MAX)):
        yield group
