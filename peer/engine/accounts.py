"""The account chains that this device has checked, kept up to date from the coordinator.

Rule 1: a chain only ever grows; a coordinator that shows a shorter or another one is refused.
Rule 2: a state is stored after it was checked, never before.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

import structlog

from peer.net.coordinator_link import CoordinatorLink, Session
from peer.store import folders
from peer.store.database import Database
from protocol import messages as m
from protocol.chains import SignedLink
from protocol.errors import ProtocolError, SecurityError
from protocol.ids import AccountId
from protocol.membership import AccountState

ROUNDS_MAX: Final = 1_000
log = structlog.get_logger("accounts")


class AccountBook:
    """Gives account states; call it like a function for one that is known."""

    def __init__(self, database: Database, link: CoordinatorLink) -> None:
        self._database = database
        self._link = link
        self._states: dict[AccountId, AccountState] = {}
        self._lock = asyncio.Lock()
        self.on_change: Callable[[], None] = lambda: None
        """Called when an account's chain has grown."""

    def __call__(self, account: AccountId) -> AccountState:
        """Return the newest state that this device has checked; KeyError if there is none."""
        return self._states[account]

    def known(self) -> list[AccountState]:
        """Return every state, by account id."""
        return [state for _, state in sorted(self._states.items())]

    async def load(self) -> None:
        """Read and check again what the database holds.

        Raises:
            SecurityError: The stored chain does not hold.
        """
        ids = await self._database.run(
            lambda db: [AccountId(row[0]) for row in db.execute("SELECT DISTINCT account FROM account_link")]
        )
        for account in ids:
            links = await self._database.run(lambda db, account=account: folders.account_links(db, account))  # type: ignore[misc]
            self._states[account] = AccountState.replay(links, account=account)

    async def put(self, state: AccountState, first_seq: int, links: list[SignedLink]) -> None:
        """Keep links that were just checked and lead to ``state``."""
        await self._database.run(lambda db: folders.put_account_links(db, state.id, first_seq, links))
        self._states[state.id] = state
        self.on_change()

    async def refresh(self, account: AccountId) -> AccountState:
        """Ask the coordinator for newer links, check them and return the newest state.

        Raises:
            UnavailableError: The coordinator cannot be asked.
            SecurityError, ProtocolError: It shows a chain that does not hold.
        """
        async with self._lock:
            for _ in range(ROUNDS_MAX):
                state = self._states.get(account)
                reply = await self._link.ask(
                    m.GetAccountChain(account, -1 if state is None else state.seq), m.AccountChain
                )
                links = list(reply.links)
                if state is None:
                    if not links:
                        raise SecurityError("the coordinator does not know an account that a folder names")
                    newer = AccountState.replay(links, account=account)
                    await self.put(newer, 0, links)
                elif links:
                    newer = state.extend(links)
                    await self.put(newer, state.seq + 1, links)
                if not reply.more:
                    return self._states[account]
            raise ProtocolError("the coordinator shows an endless account chain")

    async def meet(self, session: Session, account: AccountId) -> None:
        """Compare this account's own chain with the coordinator's as a session begins: take what is new, give back what is lost.

        Raises:
            UnavailableError: The session broke.
            SecurityError, ProtocolError: It shows another chain, or one that does not hold.
        """
        async with self._lock:
            state = self._states[account]
            for _ in range(ROUNDS_MAX):
                reply = await session.ask(m.GetAccountChain(account, state.seq - 1), m.AccountChain)
                if not reply.links:
                    await self._give_back(session, state)
                    return
                if reply.links[0].hash != state.head:
                    raise SecurityError("the coordinator shows another chain of this account than it did before")
                links = list(reply.links[1:])
                if links:
                    newer = state.extend(links)
                    await self.put(newer, state.seq + 1, links)
                    state = newer
                if not reply.more:
                    return

    async def _give_back(self, session: Session, state: AccountState) -> None:
        """Append the links of a chain that the coordinator once had and lost: it was set back."""
        links = await self._database.run(lambda db: folders.account_links(db, state.id))
        there: list[SignedLink] = []
        while True:
            reply = await session.ask(m.GetAccountChain(state.id, len(there) - 1), m.AccountChain)
            there += reply.links
            if not reply.more or not reply.links or len(there) > len(links):
                break
        if there != links[: len(there)]:
            raise SecurityError("the coordinator shows another chain of this account than it did before")
        log.warning("the coordinator had lost links of the account's chain", links=len(links) - len(there))
        for link in links[len(there) :]:
            await session.ask(m.AppendAccountLink(link), m.Ok)
