"""Bring a database to the newest numbered migration; it runs at every start."""

from __future__ import annotations

import os
from typing import Final

from sqlalchemy import Connection, exc, text

from protocol.errors import UserError

NEWEST: Final = "0002"
"""The newest migration of ``migrations/versions``; a test holds it against the files."""


def current(connection: Connection) -> str | None:
    """Return the migration that a database is at, None for an empty one."""
    try:
        version: str | None = connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one_or_none()
    except exc.DBAPIError:
        return None
    return version


def migrate(connection: Connection) -> None:
    """Run what is missing, all of it in one transaction; a database at the newest migration costs one query.

    Raises:
        UserError: The database is of a newer version.
    """
    version = current(connection)
    if version == NEWEST:
        return
    if version is not None and version > NEWEST:
        raise UserError("the database is of a newer version of Kinfolder: update")
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", os.path.join(os.path.dirname(__file__), "migrations").replace("%", "%%"))
    config.attributes["connection"] = connection
    connection.exec_driver_sql("BEGIN IMMEDIATE")
    try:
        command.upgrade(config, "head")
        connection.exec_driver_sql("COMMIT")
    except BaseException:
        connection.exec_driver_sql("ROLLBACK")
        raise
