"""Take back what this coordinator had ordered and lost: the same items at the same positions (security 3.9).

Rule 1: only what leads to a J that this coordinator signed is taken, and all of it at once.
Rule 2: nothing is judged anew: it was when it got its position.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from blake3 import blake3

from coordinator.core.authority import Authority
from coordinator.core.ordering import Ordering
from coordinator.core.staging import ITEMS_A_MESSAGE_MAX
from coordinator.failures import Refused, no_such_folder
from coordinator.service import Coordinator, Moved, moved
from protocol import limits, versions
from protocol import messages as m
from protocol.chains import SignedLink
from protocol.codec import decode
from protocol.entries import Entry, parse_entry
from protocol.errors import LimitExceededError, ProtocolError
from protocol.history import Checkpoint, ItemKind, LogItem, VoidRecord, next_chain
from protocol.membership import ControlState

if TYPE_CHECKING:
    from coordinator.session import Session
    from coordinator.store.ledger import FolderLedger
    from coordinator.store.repository import Repository

_LINK_BYTES_MAX: Final = limits.CONTROL_LINK_BYTES_MAX + limits.KIB


def _hash(item: LogItem) -> bytes:
    """Return what stands for an item in the chain."""
    if item.kind is ItemKind.ENTRY:
        return parse_entry(item.data).hash
    if item.kind is ItemKind.CONTROL:
        link: SignedLink = decode(item.data, SignedLink, bytes_max=_LINK_BYTES_MAX)
        return link.hash
    return blake3(item.data).digest()


def _reached(repository: Repository, session: Session, checkpoint: Checkpoint) -> int:
    """Return the position that a folder's log has reached; 0 for a folder that was lost as a whole.

    Raises:
        AccessDeniedError: The account is no member of the folder.
        Refused: The folder's log is of another generation.
    """
    head = repository.folders.head(checkpoint.folder)
    if head is None:
        position = 0
    elif repository.folders.role(checkpoint.folder, session.account) is None:
        raise no_such_folder()
    else:
        position = head.position
    if checkpoint.generation != (0 if head is None else head.generation):
        raise Refused("fork", "the log is of another generation")
    return position


async def restore(coordinator: Coordinator, session: Session, message: m.RepushLog) -> list[Moved]:
    """Take items back; the checkpoint's signature has been checked.

    A log too long for one message comes in several, in order, all with the checkpoint of the last; nothing is taken
    before that one is there.

    Raises:
        Refused: They do not lead to what was signed.
        AccessDeniedError: The account is no member of the folder.
        ProtocolError: They have a gap, or are malformed.
        LimitExceededError: They are too many, or too large.
        UnavailableError: Another folder is being given back.
    """
    checkpoint = message.checkpoint.checkpoint
    if len(message.items) > ITEMS_A_MESSAGE_MAX:  # before anything waits
        raise LimitExceededError("items of a log in a message", ITEMS_A_MESSAGE_MAX)
    after = await coordinator.database.read(lambda repository: _reached(repository, session, checkpoint))
    items = coordinator.staging.add(
        session.number,
        checkpoint.folder,
        message.items,
        after=after,
        end=checkpoint.position,
        now_s=coordinator.clock.monotonic_s(),
    )
    if not items:
        return []

    def run(repository: Repository) -> list[Moved]:
        from coordinator.requests.folders import empty_head

        folder = checkpoint.folder
        now_ms = coordinator.clock.now_ms()
        ledger = repository.ledger(folder, now_ms)
        if ledger is None:
            ledger = repository.new_folder(empty_head(coordinator, folder), now_ms)
        head = ledger.head
        fresh = [item for item in items if head.position < item.position <= checkpoint.position]
        if checkpoint.generation != head.generation:
            raise Refused("fork", "the log is of another generation")
        if not fresh:
            return []
        _check(fresh, head.position, head.chain, checkpoint.position, checkpoint.chain)
        control = None if head.control_seq < 0 else coordinator.authorities.folder(repository, head).control
        lookup = coordinator.authorities.lookup(repository)
        for item in fresh:
            control = _apply(ledger, item, control, lookup)
        if control is None:
            raise ProtocolError("the log does not begin with its genesis")
        repository.folders.set_members(folder, dict(control.members))
        authority = Authority(control, lookup)
        if authority.role_of(session.account) is None:
            raise Refused("access_denied", "there is no such folder for this account")
        if not head.is_behind:
            Ordering(ledger, authority).reconsider()
        return moved(ledger, authority)

    return await coordinator.database.write(run)


def _check(items: list[LogItem], position: int, chain: bytes, end: int, end_chain: bytes) -> None:
    for item in items:
        position += 1
        if item.position != position:
            raise ProtocolError("the items have a gap")
        chain = next_chain(chain, item.kind, _hash(item), item.time_ms)
    if position != end or chain != end_chain:
        raise Refused("fork", "the items are not those that this coordinator signed")


def _apply(ledger: FolderLedger, item: LogItem, control: ControlState | None, lookup: object) -> ControlState | None:
    match item.kind:
        case ItemKind.CONTROL:
            link: SignedLink = decode(item.data, SignedLink, bytes_max=_LINK_BYTES_MAX)
            control = ControlState(link, lookup) if control is None else control.extend([link], lookup)  # type: ignore[arg-type]
            ledger.append_control(link, item.time_ms)
        case ItemKind.ENTRY:
            _apply_entry(ledger, parse_entry(item.data), item)
        case ItemKind.VOID:
            void: VoidRecord = decode(item.data, VoidRecord, bytes_max=limits.KIB)
            ledger.restore_void(void, item.data, item.time_ms)
    return control


def _apply_entry(ledger: FolderLedger, entry: Entry, item: LogItem) -> None:
    ledger.restore_entry(entry, item.data, item.time_ms)
    for change in entry.header.changes:
        before = ledger.vector(change.node, change.register)
        merged = versions.merge((before, change.vector))
        ledger.set_vector(change.node, change.register, versions.trim(merged, entry.header.device))
