"""Requests about folders: making them, their control logs and heads."""

from __future__ import annotations

from typing import Final

from coordinator.core.authority import Authority
from coordinator.core.ordering import Ordering
from coordinator.failures import AccessDeniedError, behind, stale
from coordinator.requests.accounts import LINKS_A_PAGE, page_of
from coordinator.service import Coordinator, Moved, moved
from coordinator.session import Session
from coordinator.store.folders import Head
from coordinator.store.repository import Repository
from protocol import messages as m
from protocol.chains import NO_LINK, parse_control_link
from protocol.errors import CorruptStateError, ProtocolError
from protocol.history import CHAIN_START
from protocol.ids import AccountId, DeviceId, FolderId
from protocol.membership import ControlState

FOLDERS_A_PAGE: Final = 200
HEADS_MAX: Final = 2_000


def empty_head(coordinator: Coordinator, folder: FolderId) -> Head:
    """Return the head of a folder before its first item."""
    return Head(
        folder=folder,
        pseudonym=coordinator.keys.pseudonym(folder),
        generation=0,
        position=0,
        chain=CHAIN_START,
        time_ms=0,
        control_seq=-1,
        control_head=NO_LINK,
        registered=0,
        signed_position=0,
    )


async def create(coordinator: Coordinator, session: Session, message: m.CreateFolder) -> m.Message:
    """Make a folder: its genesis link takes position 1 of its log."""
    link = parse_control_link(message.link)
    if link.account != session.account:
        raise AccessDeniedError("a folder is made by its owner")
    now_ms = coordinator.clock.now_ms()

    def make(repository: Repository) -> tuple[Head, list[Moved]]:
        folder = FolderId(message.link.hash)
        head = repository.folders.head(folder)
        if head is not None:
            return coordinator.member_head(repository, folder, session.account), []
        control = ControlState(message.link, coordinator.authorities.lookup(repository), fresh=True)
        ledger = repository.new_folder(empty_head(coordinator, folder), now_ms)
        ledger.append_control(message.link)
        repository.folders.set_members(folder, dict(control.members))
        ledger.flush()
        return ledger.head, [Moved(ledger.head, tuple(control.members))]

    head, news = await coordinator.database.write(make)
    coordinator.publish(news)
    return m.FolderCreated(head.pseudonym, coordinator.checkpoint(head))


async def append_link(coordinator: Coordinator, session: Session, message: m.AppendControlLink) -> m.Message:
    """Add a link to a folder's control log: it takes a position, and what its losers registered becomes void."""
    link = parse_control_link(message.link)
    if link.folder != message.folder:
        raise ProtocolError("the control link is another folder's")

    def append(repository: Repository) -> tuple[list[Moved], bool]:
        ledger, before = coordinator.open_folder(repository, message.folder, session.account)
        if repository.folders.has_control_link(message.folder, message.link.hash):
            return [], False
        if ledger.head.is_behind:
            raise behind()
        if link.previous != before.control.head:
            raise stale()
        lookup = coordinator.authorities.lookup(repository)
        control = before.control.extend([message.link], lookup, fresh=True)
        ledger.append_control(message.link)
        repository.folders.set_members(message.folder, dict(control.members))
        lost = [one for one, role in before.control.members.items() if (control.role_of(one) or 0) < role]
        after = Authority(control, lookup)
        if lost:
            Ordering(ledger, after).recheck_authors()
            revoked = [
                (device, ledger.head.pseudonym)
                for account in lost
                if control.role_of(account) is None
                for device in _devices(coordinator, repository, account)
            ]
            repository.nodes.revoke(revoked, coordinator.clock.now_ms())
        news = moved(ledger, after)
        # The former members hear of it too: that is how they learn that they are out.
        return [Moved(one.head, tuple({*one.members, *before.control.members}), one.registered) for one in news], bool(
            lost
        )

    news, has_lost = await coordinator.database.write(append)
    coordinator.publish(news)
    if has_lost:
        coordinator.tell_nodes()
    return m.Ok()


def _devices(coordinator: Coordinator, repository: Repository, account: AccountId) -> list[DeviceId]:
    try:
        return list(coordinator.authorities.account(repository, account).active_devices)
    except KeyError as error:
        raise CorruptStateError("the account of a member is missing") from error


async def list_folders(coordinator: Coordinator, session: Session, message: m.ListFolders) -> m.Message:
    """Return a page of the folders that the caller's account is a member of."""
    heads = await coordinator.database.read(
        lambda repository: repository.folders.heads_of(session.account, message.after, FOLDERS_A_PAGE + 1)
    )
    page = heads[:FOLDERS_A_PAGE]
    return m.Folders(
        tuple(m.FolderInfo(head.folder, head.pseudonym, coordinator.checkpoint(head)) for head in page),
        len(heads) > len(page),
    )


async def get_control_log(coordinator: Coordinator, session: Session, message: m.GetControlLog) -> m.Message:
    """Return control links of a folder."""

    def read(repository: Repository) -> m.ControlLog:
        coordinator.member_head(repository, message.folder, session.account)
        links = repository.folders.control_links(message.folder, message.after_seq, LINKS_A_PAGE + 1)
        return m.ControlLog(*page_of(links, LINKS_A_PAGE))

    return await coordinator.database.read(read)


async def get_heads(coordinator: Coordinator, session: Session, _: m.GetHeads) -> m.Message:
    """Return the heads of all folders of the caller's account."""

    def read(repository: Repository) -> tuple[list[Head], dict[FolderId, int]]:
        heads = repository.folders.heads_of(session.account, b"", HEADS_MAX)
        return heads, repository.folders.newest_pending(head.folder for head in heads)

    heads, registered = await coordinator.database.read(read)
    return m.Heads(tuple(coordinator.folder_head(head, registered.get(head.folder, 0)) for head in heads))
