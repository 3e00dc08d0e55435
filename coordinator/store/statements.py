"""Statements that every table needs and that each database engine spells in its own way."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from itertools import islice
from typing import Any, Final, TypeVar

from sqlalchemy import Connection, Executable, Table
from sqlalchemy.dialects import sqlite

K = TypeVar("K")

KEYS_A_QUERY_MAX: Final = 500


@cache
def _upsert_statement(table: Table) -> Executable:
    statement = sqlite.insert(table)
    keys = [column.name for column in table.primary_key]
    rest = {column.name: statement.excluded[column.name] for column in table.columns if column.name not in keys}
    if not rest:
        return statement.on_conflict_do_nothing(index_elements=keys)
    return statement.on_conflict_do_update(index_elements=keys, set_=rest)


@cache
def _insert_statement(table: Table) -> Executable:
    return table.insert()


def upsert(connection: Connection, table: Table, rows: Sequence[dict[str, Any]]) -> None:
    """Write whole rows, new ones or in place of those with the same key."""
    if rows:
        connection.execute(_upsert_statement(table), rows)


def insert(connection: Connection, table: Table, rows: Sequence[dict[str, Any]]) -> None:
    """Write new rows."""
    if rows:
        connection.execute(_insert_statement(table), rows)


def groups(keys: Iterable[K]) -> Iterator[list[K]]:
    """Yield the keys in lists short enough for one query."""
    rest = iter(keys)
    while group := list(islice(rest, KEYS_A_QUERY_MAX)):
        yield group
