"""Settings of a coordinator and the tokens of its invitations."""

from __future__ import annotations

from typing import NamedTuple

from blake3 import blake3
from sqlalchemy import Connection, bindparam, select, update

from coordinator.store.schema import SETTINGS, TOKENS
from coordinator.store.statements import Prepared, upsert

_SELECT_SETTING = Prepared(select(SETTINGS.c.value).where(SETTINGS.c.key == bindparam("key")))


class Token(NamedTuple):
    """What an invitation allows."""

    purpose: str
    """``user`` or ``storage``."""
    operator: str
    """Who runs the nodes that use it; empty: each token is an operator of its own."""
    uses_left: int


def token_hash(token: str) -> bytes:
    """Return what stands in the database for a token, so that the database lets nobody in."""
    return blake3(b"kinfolder/token/v1\x00" + token.encode()).digest()


class Settings:
    """Access to settings and tokens in one transaction."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def get(self, key: str) -> str | None:
        """Return a setting, None if it was never set."""
        value: str | None = _SELECT_SETTING.value(self._connection, {"key": key})
        return value

    def put(self, key: str, value: str) -> None:
        """Set a setting."""
        upsert(self._connection, SETTINGS, [{"key": key, "value": value}])

    def copies(self) -> tuple[int, int] | None:
        """Return (replicas, write quorum), None before they were first set."""
        value = self.get("copies")
        if value is None:
            return None
        replicas, quorum = value.split()
        return int(replicas), int(quorum)

    def set_copies(self, replicas: int, quorum: int) -> None:
        """Set replicas and write quorum."""
        self.put("copies", f"{replicas} {quorum}")

    def add_token(self, token: str, purpose: str, operator: str, uses: int, now_ms: int) -> None:
        """Add an invitation's token."""
        row = {
            "hash": token_hash(token),
            "purpose": purpose,
            "operator": operator,
            "uses_left": uses,
            "created_ms": now_ms,
        }
        upsert(self._connection, TOKENS, [row])

    def token(self, token: str) -> Token | None:
        """Return what a token allows, None if there is no such token."""
        row = self._connection.execute(
            select(TOKENS.c.purpose, TOKENS.c.operator, TOKENS.c.uses_left).where(TOKENS.c.hash == token_hash(token))
        ).one_or_none()
        return None if row is None else Token(*row)

    def use_token(self, token: str) -> None:
        """Count one use of a token."""
        self._connection.execute(
            update(TOKENS).where(TOKENS.c.hash == token_hash(token)).values(uses_left=TOKENS.c.uses_left - 1)
        )
