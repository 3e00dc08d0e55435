"""Requests about accounts: chains, devices, finding a user."""

from __future__ import annotations

from typing import Final

from coordinator.core.ordering import Ordering
from coordinator.failures import AccessDeniedError, UserError, stale
from coordinator.service import Coordinator, Moved, moved
from coordinator.session import Session
from coordinator.store.repository import Repository
from protocol import limits
from protocol import messages as m
from protocol.accounts import AccountState
from protocol.chains import AddDevice, RevokeDevice, SignedLink, parse_account_link
from protocol.errors import ProtocolError, RevokedError, UnavailableError
from protocol.ids import AccountId, DeviceId, Pseudonym

LINKS_A_PAGE: Final = 200
FOUND_MAX: Final = 1_000


def page_of(links: list[SignedLink], limit: int) -> tuple[tuple[SignedLink, ...], bool]:
    """Return as many links as fit into a message, and whether there were more."""
    taken: list[SignedLink] = []
    size = 0
    for link in links[:limit]:
        size += len(link.body) + 80
        if taken and size > limits.PULL_BYTES_MAX:
            break
        taken.append(link)
    return tuple(taken), len(taken) < len(links)


def _chain(repository: Repository, account: AccountId, after_seq: int) -> m.AccountChain:
    row = repository.accounts.find(account)
    if row is None:
        raise AccessDeniedError("there is no such account for this one")
    links, more = page_of(repository.accounts.links(account, after_seq, LINKS_A_PAGE + 1), LINKS_A_PAGE)
    return m.AccountChain(row.user, links, more)


async def get_chain(coordinator: Coordinator, session: Session, message: m.GetAccountChain) -> m.Message:
    """Return links of the caller's own chain, or of an account that it shares a folder with or has found by name."""

    def read(repository: Repository) -> m.AccountChain:
        mine = message.account == session.account or message.account in session.found
        if not mine and not repository.folders.share_a_folder(session.account, message.account):
            raise AccessDeniedError("there is no such account for this one")
        return _chain(repository, message.account, message.after_seq)

    return await coordinator.database.read(read)


async def find(coordinator: Coordinator, session: Session, message: m.FindAccount) -> m.Message:
    """Return the account of a user's name."""
    now_s = coordinator.clock.monotonic_s()
    if coordinator.finds.are_spent(session.account, now_s):
        raise UnavailableError("too many users were looked up: wait a minute")
    coordinator.finds.count(session.account, now_s)

    def read(repository: Repository) -> tuple[AccountId, m.AccountChain]:
        row = repository.accounts.find_user(message.user)
        if row is None:
            raise UserError("the coordinator knows no user of this name")
        return row.account, _chain(repository, row.account, -1)

    account, chain = await coordinator.database.read(read)
    if len(session.found) >= FOUND_MAX:
        session.found.clear()
    session.found.add(account)
    return chain


async def get_devices(coordinator: Coordinator, session: Session, _: m.GetDevices) -> m.Message:
    """Return when the devices of the caller's account were last seen."""

    def read(repository: Repository) -> tuple[AccountState, dict[DeviceId, int]]:
        account = session.account
        return coordinator.authorities.account(repository, account), repository.accounts.last_seen(account)

    state, seen = await coordinator.database.read(read)
    online = coordinator.hub.online(session.account)
    return m.Devices(
        tuple(m.DeviceSeen(device, seen.get(device, 0), device in online) for device in sorted(state.devices))
    )


async def append_link(coordinator: Coordinator, session: Session, message: m.AppendAccountLink) -> m.Message:
    """Add a link to the caller's own chain; a revocation takes effect before the reply."""
    op = parse_account_link(message.link).op
    account = session.account

    def append(repository: Repository) -> tuple[AccountState, list[AccountId], list[Moved]] | None:
        state = coordinator.authorities.account(repository, account)
        if state.seq_of(message.link.hash) is not None:
            return None
        link = parse_account_link(message.link)
        if link.account != account:
            raise AccessDeniedError("a device adds links to its own account's chain only")
        if link.previous != state.head:
            raise stale()
        if not state.is_active(session.device):
            raise RevokedError("this device was taken out of its account")
        state = state.extend([message.link])
        repository.accounts.append(account, state.seq, message.link)
        changed = _revoke(coordinator, repository, account, op) if isinstance(op, RevokeDevice) else []
        return state, repository.folders.companions(account), changed

    outcome = await coordinator.database.write(append)
    if outcome is None:
        return m.Ok()
    state, companions, changed = outcome
    coordinator.publish(changed)
    coordinator.publish_account({*companions, account}, account, state.seq)
    if isinstance(op, RevokeDevice):
        for number in coordinator.hub.sessions(account, op.device):
            other = coordinator.sessions.get(number)
            if other is not None:
                other.close("revoked")
        coordinator.tell_nodes()
    elif isinstance(op, AddDevice):
        coordinator.link_attempts.forgive(account)
    return m.Ok()


def _revoke(coordinator: Coordinator, repository: Repository, account: AccountId, op: RevokeDevice) -> list[Moved]:
    """Make void in every folder what a revoked device registered beyond its cut, and end its grants."""
    changed: list[Moved] = []
    pseudonyms: list[Pseudonym] = []
    for folder in repository.folders.folders_of(account):
        try:
            ledger, authority = coordinator.open_folder(repository, folder, None)
        except AccessDeniedError as error:
            raise ProtocolError("a folder of the account is missing") from error
        pseudonyms.append(ledger.head.pseudonym)
        if not ledger.head.is_behind and authority.control.is_enrolled(op.device):
            Ordering(ledger, authority).recheck_authors()
            changed += moved(ledger, authority)
    repository.nodes.revoke([(op.device, pseudonym) for pseudonym in pseudonyms], coordinator.clock.now_ms())
    return changed
