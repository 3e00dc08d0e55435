"""The coordinator without its sockets: state shared by all sessions, and what several kinds of requests need.

Rule 1: whatever appends to a folder's log reads, decides and writes in one transaction, and tells others after it.
Rule 2: memory holds nothing that a restart may not forget.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Collection, Iterable
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

import structlog

from coordinator import failures
from coordinator.authorities import Authorities
from coordinator.core.authority import Authority
from coordinator.core.hub import Hub
from coordinator.core.limiter import Attempts
from coordinator.core.mailboxes import Mailboxes
from coordinator.core.ordering import Ordering, Wait
from coordinator.core.staging import Staging
from coordinator.keys import ServerKeys
from coordinator.registry import Registry
from coordinator.repair import Repair
from coordinator.retirements import Retirements
from coordinator.store.database import Database
from coordinator.store.folders import Head
from coordinator.store.ledger import FolderLedger
from coordinator.store.repository import Repository
from protocol import limits
from protocol import messages as m
from protocol.chains import Role
from protocol.effects import Clock, Entropy
from protocol.errors import KinfolderError
from protocol.history import Checkpoint, SignedCheckpoint, sign_checkpoint, verify_checkpoint
from protocol.ids import AccountId, FolderId

if TYPE_CHECKING:
    from coordinator.session import Session

LOOK_S: Final = 1.0
FINDS_PER_MINUTE_MAX: Final = 60
CLOCK_SET_S: Final = limits.CLOCK_SKEW_S_MAX / 2
"""By so much the wall clock may be set before all sessions begin anew."""

log = structlog.get_logger("coordinator")


class Moved(NamedTuple):
    """A folder whose head or registered entries changed, and who is to hear of it."""

    head: Head
    members: tuple[AccountId, ...]
    registered: int = 0
    """The highest registration counter of an entry that is neither ordered nor void; 0: there is none."""


class Coordinator:
    """Everything that sessions share; see the module."""

    def __init__(
        self,
        *,
        database: Database,
        keys: ServerKeys,
        clock: Clock,
        entropy: Entropy,
        copies: tuple[int, int] = (3, 2),
        open_registration: bool = False,
        look_s: float | None = None,
    ) -> None:
        """Make one.

        Args:
            database: Where everything is kept; closed by :meth:`stop`.
            keys: Its secrets.
            clock: The world's.
            entropy: The world's.
            copies: Replicas and write quorum, where no command has set them yet.
            open_registration: Whether an account can be made without an invitation.
            look_s: Between looks whether another command has changed the database; as usual if None.
        """
        self.database = database
        self.keys = keys
        self.log_key = keys.log_public()
        self.token_key = keys.token_public()
        self.clock = clock
        self.entropy = entropy
        self.open_registration = open_registration
        self.replicas, self.quorum = copies
        self.authorities = Authorities()
        self.hub = Hub()
        self.mailboxes = Mailboxes(entropy)
        self.staging = Staging()
        self.registry = Registry(clock.monotonic_s())
        self.sessions: dict[int, Session] = {}
        self.failures = Attempts(limits.FAILED_LOGINS_PER_MINUTE_AND_ADDRESS_MAX, 60)
        self.link_attempts = Attempts(limits.LINK_ATTEMPTS_PER_HOUR_AND_ACCOUNT_MAX, 3600)
        self.finds = Attempts(FINDS_PER_MINUTE_MAX, 60)
        self.repair = Repair(self)
        self.retirements = Retirements(self)
        self.look_s = LOOK_S if look_s is None else look_s
        self._next_session = 0
        self._clock_ahead_s = self._ahead_s()
        self._tasks: dict[asyncio.Task[None], None] = {}

    # --- Life

    async def start(self) -> None:
        """Read what stands in the database and begin the background work."""
        first = (self.replicas, self.quorum)

        def begin(repository: Repository) -> None:
            if repository.settings.copies() is None:
                repository.settings.set_copies(*first)
            repository.nodes.all_offline()

        await self.database.write(begin)
        await self.refresh()
        await self.recheck_quorum()
        self.registry.load(await self.database.read(lambda repository: repository.nodes.all()))
        await self.retirements.load()
        self.spawn(self._refresh_forever)
        self.spawn(self.repair.run)
        self.spawn(self.retirements.run)

    async def stop(self) -> None:
        """End the background work and close the database."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        with contextlib.suppress(KinfolderError):
            await self.database.write(lambda repository: repository.nodes.all_offline())
        await self.database.close()

    def spawn(self, work: Callable[[], Awaitable[None]]) -> None:
        """Run something in the background; what it raises is logged."""

        async def run() -> None:
            try:
                await work()
            except KinfolderError as error:
                log.warning("background work failed", code=error.code, text=str(error))

        task = asyncio.get_running_loop().create_task(run())
        self._tasks[task] = None
        task.add_done_callback(self._tasks.pop)

    async def refresh(self) -> None:
        """Read the settings again: other commands may have changed them."""
        copies = await self.database.read(lambda repository: repository.settings.copies())
        if copies is not None and copies != (self.replicas, self.quorum):
            is_lower = copies[1] < self.quorum
            self.replicas, self.quorum = copies
            self.repair.want_sweep()
            if is_lower:
                await self.recheck_quorum()

    async def recheck_quorum(self) -> None:
        """Order what waits for more copies than there need to be now that a person lowered the quorum."""
        for folder in await self.database.read(lambda repository: repository.chunks.waiting_folders()):
            self.publish(await self.database.write(partial(self._recheck, folder)))

    def _recheck(self, folder: FolderId, repository: Repository) -> list[Moved]:
        ledger, authority = self.open_folder(repository, folder, None)
        if ledger.head.is_behind:
            return []
        waited = repository.chunks.waited_for(folder)
        counts = repository.chunks.counts(ledger.head.pseudonym, waited)
        ready = [chunk for chunk, count in counts.items() if count >= self.quorum]
        Ordering(ledger, authority).release(Wait.CHUNK, ready)
        return moved(ledger, authority)

    async def _refresh_forever(self) -> None:
        while True:
            await asyncio.sleep(self.look_s)
            self.check_clock()
            with contextlib.suppress(KinfolderError):
                await self.refresh()

    def check_clock(self) -> None:
        """End all sessions if the wall clock was set: the others judge grants by what it showed when they logged in."""
        ahead_s = self._ahead_s()
        set_by_s = ahead_s - self._clock_ahead_s
        if abs(set_by_s) > CLOCK_SET_S:
            log.warning("the clock was set: everybody logs in anew", seconds=round(set_by_s))
            self._clock_ahead_s = ahead_s
            for session in list(self.sessions.values()):
                session.close("the clock was set")

    def _ahead_s(self) -> float:
        return self.clock.now_ms() / 1000 - self.clock.monotonic_s()

    def new_session_number(self) -> int:
        """Return a number that no session had before."""
        self._next_session += 1
        return self._next_session

    # --- What requests need

    def open_folder(
        self, repository: Repository, folder: FolderId, account: AccountId | None, least: Role = Role.READER
    ) -> tuple[FolderLedger, Authority]:
        """Return a folder's records and authority within a transaction.

        Args:
            repository: Of the transaction.
            folder: Which.
            account: Who asks; None: the coordinator itself.
            least: The role that the account must have.

        Raises:
            AccessDeniedError: There is no such folder for the account.
        """
        ledger = repository.ledger(folder, self.clock.now_ms())
        if ledger is None:
            raise failures.no_such_folder()
        authority = self.authorities.folder(repository, ledger.head)
        if account is not None and (authority.role_of(account) or 0) < least:
            if authority.role_of(account) is None:
                raise failures.no_such_folder()
            raise failures.AccessDeniedError(f"a {Role(authority.role_of(account) or 1).name.lower()} may not do this")
        return ledger, authority

    def member_head(self, repository: Repository, folder: FolderId, account: AccountId) -> Head:
        """Return the head of a folder for one of its members.

        Raises:
            AccessDeniedError: There is no such folder for the account.
        """
        head = repository.folders.head(folder)
        if head is None or repository.folders.role(folder, account) is None:
            raise failures.no_such_folder()
        return head

    def check_known(self, repository: Repository, head: Head, known: SignedCheckpoint | None) -> KinfolderError | None:
        """Compare a checkpoint that a device holds with the log; return why nothing may be appended, if so.

        It returns the error so that the caller can commit what was learnt: a higher position that was once signed here.
        """
        if known is not None:
            checkpoint = known.checkpoint
            if checkpoint.folder != head.folder or checkpoint.generation > head.generation:
                return failures.ProtocolError("the checkpoint is another log's")
            if checkpoint.generation == head.generation:
                if checkpoint.position > max(head.position, head.signed_position):
                    repository.folders.sign_up_to(head.folder, checkpoint.position)
                    return failures.behind()
                if 0 < checkpoint.position <= head.position:
                    chain = head.chain
                    if checkpoint.position != head.position:
                        chain = repository.folders.chain_at(head.folder, checkpoint.position)
                    if chain != checkpoint.chain:
                        log.error("a folder's log has forked: the data directory was set back and written to")
                        return failures.Refused("fork", "the coordinator has signed another history of this folder")
        return failures.behind() if head.is_behind else None

    def verify_known(self, known: SignedCheckpoint | None) -> None:
        """Check that a checkpoint is this coordinator's own.

        Raises:
            BadSignatureError: It is not.
        """
        if known is not None:
            verify_checkpoint(known, self.log_key)

    def checkpoint(self, head: Head) -> SignedCheckpoint:
        """Sign a folder's head."""
        return sign_checkpoint(
            Checkpoint(head.generation, head.folder, head.position, head.chain, head.control_head, self.clock.now_ms()),
            self.keys.log_seed,
        )

    def folder_head(self, head: Head, registered: int) -> m.FolderHead:
        """Return a folder's head as devices are told it."""
        return m.FolderHead(self.checkpoint(head), registered)

    # --- Telling others

    def publish(self, moved: Iterable[Moved]) -> None:
        """Tell the connected devices of all members that folders moved."""
        for head, members, registered in moved:
            if self.hub.has_any(members):
                self.wake(self.hub.post_head(members, self.folder_head(head, registered)))

    def publish_account(self, companions: Collection[AccountId], account: AccountId, seq: int) -> None:
        """Tell the connected devices of these accounts that an account's chain has grown."""
        self.wake(self.hub.post_account(companions, account, seq))

    def wake(self, sessions: Iterable[int]) -> None:
        """Let sessions look for news."""
        for number in sessions:
            session = self.sessions.get(number)
            if session is not None:
                session.wake()

    def tell_nodes(self) -> None:
        """Tell all connected storage nodes who the others are and whose grants ended."""

        async def tell() -> None:
            welcome = await self.welcome()
            for number in self.registry.sessions():
                session = self.sessions.get(number)
                if session is not None:
                    session.post(welcome)

        self.spawn(tell)

    async def welcome(self) -> m.NodeWelcome:
        """Return what a storage node is told when it logs in and whenever that changes."""
        since_ms = self.clock.now_ms() - 1000 * (limits.GRANT_S_MAX + 2 * limits.CLOCK_SKEW_S_MAX)
        revoked = await self.database.write(lambda repository: repository.nodes.revoked(since_ms))
        return m.NodeWelcome(self.registry.addresses(), tuple(revoked))


Handler = Callable[["Coordinator", "Session", m.Message], Awaitable[m.Message]]


def moved(ledger: FolderLedger, authority: Authority) -> list[Moved]:
    """Write a folder's records and return whom to tell what."""
    ledger.flush()
    if not ledger.has_changed:
        return []
    return [Moved(ledger.head, tuple(authority.control.members), ledger.newest_pending())]
