"""Account and control states, replayed from the database and kept while they are in use.

Rule 1: a kept state is used only if its head is the one that stands in the database now; so nothing that was rolled back
is ever used.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Final, Generic, TypeVar

from coordinator.core.authority import Authority
from coordinator.store.folders import Head
from coordinator.store.repository import Repository
from protocol.accounts import AccountState
from protocol.errors import CorruptStateError, KinfolderError
from protocol.ids import AccountId, FolderId
from protocol.limits import ACCOUNT_CHAIN_LINKS_MAX
from protocol.membership import Accounts, ControlState

STATES_KEPT_MAX: Final = 1_024

K = TypeVar("K")
V = TypeVar("V")


class _Kept(Generic[K, V]):
    """The most recently used values; used from several threads."""

    def __init__(self) -> None:
        self._values: OrderedDict[K, V] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: K) -> V | None:
        with self._lock:
            value = self._values.get(key)
            if value is not None:
                self._values.move_to_end(key)
            return value

    def put(self, key: K, value: V) -> None:
        with self._lock:
            self._values[key] = value
            self._values.move_to_end(key)
            if len(self._values) > STATES_KEPT_MAX:
                self._values.popitem(last=False)


class Authorities:
    """Gives account states and folder authorities as they stand in a transaction."""

    def __init__(self) -> None:
        self._accounts: _Kept[AccountId, AccountState] = _Kept()
        self._folders: _Kept[FolderId, ControlState] = _Kept()

    def account(self, repository: Repository, account: AccountId) -> AccountState:
        """Return an account's newest state.

        Raises:
            KeyError: There is no such account.
        """
        row = repository.accounts.find(account)
        if row is None:
            raise KeyError(account)
        state = self._accounts.get(account)
        if state is not None and state.head == row.head:
            return state
        try:
            if state is not None and state.seq < row.seq:
                try:
                    state = state.extend(repository.accounts.links(account, state.seq, ACCOUNT_CHAIN_LINKS_MAX))
                except KinfolderError:
                    state = None
            if state is None or state.head != row.head:
                state = AccountState.replay(
                    repository.accounts.links(account, -1, ACCOUNT_CHAIN_LINKS_MAX), account=account
                )
        except KinfolderError as error:
            raise CorruptStateError("an account's chain in the database does not hold") from error
        self._accounts.put(account, state)
        return state

    def lookup(self, repository: Repository) -> Accounts:
        """Return a function from accounts to states that asks for each once; good for one transaction."""
        known: dict[AccountId, AccountState] = {}

        def find(account: AccountId) -> AccountState:
            if account not in known:
                known[account] = self.account(repository, account)
            return known[account]

        return find

    def folder(self, repository: Repository, head: Head) -> Authority:
        """Return a folder's newest authority."""
        accounts = self.lookup(repository)
        state = self._folders.get(head.folder)
        if state is None or state.head != head.control_head:
            state = self._replay(repository, head, state, accounts)
            self._folders.put(head.folder, state)
        return Authority(state, accounts)

    def _replay(
        self, repository: Repository, head: Head, kept: ControlState | None, accounts: Accounts
    ) -> ControlState:
        try:
            if kept is not None and kept.seq < head.control_seq:
                try:
                    state = kept.extend(repository.folders.control_links(head.folder, kept.seq), accounts)
                except KinfolderError:
                    state = None
                if state is not None and state.head == head.control_head:
                    return state
            return ControlState.replay(repository.folders.control_links(head.folder, -1), accounts, folder=head.folder)
        except KinfolderError as error:
            raise CorruptStateError("a folder's control log in the database does not hold") from error
