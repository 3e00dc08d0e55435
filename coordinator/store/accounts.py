"""Accounts: their chains, their users' names, and when their devices were last seen."""

from __future__ import annotations

import unicodedata
from typing import NamedTuple

from sqlalchemy import Connection, bindparam, select, update

from coordinator.store.schema import ACCOUNT_LINKS, ACCOUNTS, DEVICES
from coordinator.store.statements import Prepared, insert, upsert
from protocol.chains import SignedLink
from protocol.ids import AccountId, DeviceId, LinkHash


class AccountRow(NamedTuple):
    """An account as the coordinator lists it."""

    account: AccountId
    user: str
    seq: int
    head: LinkHash


def user_key(user: str) -> str:
    """Return what is unique about a user's name: two names that read alike are one."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", user).casefold())


_ROW = (ACCOUNTS.c.account, ACCOUNTS.c.user, ACCOUNTS.c.seq, ACCOUNTS.c.head)
_FIND = Prepared(select(*_ROW).where(ACCOUNTS.c.account == bindparam("account")))
_LINKS = Prepared(
    select(ACCOUNT_LINKS.c.body, ACCOUNT_LINKS.c.signature)
    .where(ACCOUNT_LINKS.c.account == bindparam("account"), ACCOUNT_LINKS.c.seq > bindparam("after"))
    .order_by(ACCOUNT_LINKS.c.seq)
    .limit(bindparam("most"))
)


class Accounts:
    """Access to accounts in one transaction."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def find(self, account: AccountId) -> AccountRow | None:
        """Return an account, None if there is none."""
        row = _FIND.run(self._connection, {"account": account}).fetchone()
        return None if row is None else AccountRow(*row)

    def find_user(self, user: str) -> AccountRow | None:
        """Return the account of a user's name."""
        row = self._connection.execute(select(*_ROW).where(ACCOUNTS.c.user_key == user_key(user))).one_or_none()
        return None if row is None else AccountRow(*row)

    def create(self, account: AccountId, user: str, genesis: SignedLink) -> None:
        """Make an account from its genesis link."""
        row = {"account": account, "user": user, "user_key": user_key(user), "seq": 0, "head": genesis.hash}
        insert(self._connection, ACCOUNTS, [row])
        self._add_link(account, 0, genesis)

    def append(self, account: AccountId, seq: int, link: SignedLink) -> None:
        """Add a checked link as the newest one."""
        self._add_link(account, seq, link)
        self._connection.execute(update(ACCOUNTS).where(ACCOUNTS.c.account == account).values(seq=seq, head=link.hash))

    def _add_link(self, account: AccountId, seq: int, link: SignedLink) -> None:
        row = {"account": account, "seq": seq, "body": link.body, "signature": link.signature}
        insert(self._connection, ACCOUNT_LINKS, [row])

    def links(self, account: AccountId, after_seq: int, limit: int) -> list[SignedLink]:
        """Return at most ``limit`` links after a sequence number, in order."""
        rows = _LINKS.run(self._connection, {"account": account, "after": after_seq, "most": limit})
        return [SignedLink(body, signature) for body, signature in rows]

    def saw(self, account: AccountId, device: DeviceId, now_ms: int) -> None:
        """Note that a device was here."""
        upsert(self._connection, DEVICES, [{"account": account, "device": device, "last_seen_ms": now_ms}])

    def last_seen(self, account: AccountId) -> dict[DeviceId, int]:
        """Return when each device of an account was last here."""
        rows = self._connection.execute(
            select(DEVICES.c.device, DEVICES.c.last_seen_ms).where(DEVICES.c.account == account)
        )
        return {DeviceId(device): seen for device, seen in rows}
