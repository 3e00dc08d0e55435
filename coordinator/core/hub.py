"""Who is connected, and who is to hear what.

Rule 1: news is a state, not an event: for each folder a session keeps the newest only, so what waits is bounded by the
number of its folders.
Rule 2: a session is a number that the shell gave.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import NamedTuple

import msgspec

from protocol import limits
from protocol.errors import LimitExceededError
from protocol.ids import AccountId, DeviceId, FolderId
from protocol.messages import FolderHead


class Presence(NamedTuple):
    """Who a session is."""

    account: AccountId
    device: DeviceId


class News(msgspec.Struct):
    """What a session has not been told yet."""

    heads: dict[FolderId, FolderHead] = msgspec.field(default_factory=dict)
    accounts: dict[AccountId, int] = msgspec.field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.heads or self.accounts)


class Hub:
    """Presence and news of all connected devices."""

    def __init__(self) -> None:
        self._presences: dict[int, Presence] = {}
        self._by_account: defaultdict[AccountId, dict[int, DeviceId]] = defaultdict(dict)
        self._news: dict[int, News] = {}

    def join(self, session: int, account: AccountId, device: DeviceId) -> list[int]:
        """Add a session; return the oldest ones of the same device that must go for it.

        Raises:
            LimitExceededError: The account has too many sessions.
        """
        mine = self._by_account[account]
        same = sorted(other for other, of in mine.items() if of == device)
        gone = same[: max(0, len(same) + 1 - limits.SOCKETS_PER_DEVICE_MAX)]
        if len(mine) - len(gone) >= limits.SOCKETS_PER_ACCOUNT_MAX:
            raise LimitExceededError("connections of an account", limits.SOCKETS_PER_ACCOUNT_MAX)
        self._presences[session] = Presence(account, device)
        self._news[session] = News()
        mine[session] = device
        return gone

    def leave(self, session: int) -> None:
        """Remove a session; nothing happens if it is gone."""
        presence = self._presences.pop(session, None)
        self._news.pop(session, None)
        if presence is None:
            return
        mine = self._by_account[presence.account]
        mine.pop(session, None)
        if not mine:
            del self._by_account[presence.account]

    def online(self, account: AccountId) -> set[DeviceId]:
        """Return the devices of an account that are connected."""
        return set(self._by_account.get(account, {}).values())

    def sessions(self, account: AccountId, device: DeviceId | None = None) -> list[int]:
        """Return the sessions of an account, or of one device of it."""
        mine = self._by_account.get(account, {})
        return sorted(session for session, of in mine.items() if device is None or of == device)

    def post_head(self, accounts: Iterable[AccountId], head: FolderHead) -> list[int]:
        """Keep a folder's new head for every session of these accounts; return those that had no news before."""
        woken: list[int] = []
        for session in self._of(accounts):
            news = self._news[session]
            if not news:
                woken.append(session)
            known = news.heads.get(head.checkpoint.checkpoint.folder)
            if known is None or _is_newer(head, known):
                news.heads[head.checkpoint.checkpoint.folder] = head
        return woken

    def post_account(self, accounts: Iterable[AccountId], account: AccountId, seq: int) -> list[int]:
        """Keep an account chain's new head for every session of these accounts; return those that had no news before."""
        woken: list[int] = []
        for session in self._of(accounts):
            news = self._news[session]
            if not news:
                woken.append(session)
            news.accounts[account] = max(seq, news.accounts.get(account, 0))
        return woken

    def take(self, session: int) -> News:
        """Return what a session has not been told yet, and count it as told."""
        if session not in self._news:
            return News()
        news = self._news[session]
        self._news[session] = News()
        return news

    def has_any(self, accounts: Iterable[AccountId]) -> bool:
        """Tell whether a session of one of these accounts is connected."""
        return any(account in self._by_account for account in accounts)

    def _of(self, accounts: Iterable[AccountId]) -> list[int]:
        return [session for account in accounts for session in self._by_account.get(account, ())]


def _is_newer(head: FolderHead, known: FolderHead) -> bool:
    new, old = head.checkpoint.checkpoint, known.checkpoint.checkpoint
    return (new.generation, new.position, head.registered) > (old.generation, old.position, known.registered)
