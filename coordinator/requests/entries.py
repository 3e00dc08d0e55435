"""Requests about a folder's log: registering, pins and receipts, pulling, giving back what was lost."""

from __future__ import annotations

from typing import Final, NamedTuple

from coordinator.core.authority import Authority
from coordinator.core.ordering import Ordering, Wait
from coordinator.failures import Refused, behind, no_such_folder
from coordinator.service import Coordinator, Moved, moved
from coordinator.session import Session
from coordinator.store.ledger import FolderLedger
from coordinator.store.repository import Repository
from protocol import limits
from protocol import messages as m
from protocol.chains import Role
from protocol.entries import Entry, parse_entry
from protocol.errors import KinfolderError, LimitExceededError, ProtocolError, UnavailableError
from protocol.grants import ReceiptFor, open_receipt
from protocol.history import verify_checkpoint
from protocol.ids import AccountId, ChunkId, DeviceId, EntryHash, FolderId, Pseudonym, StorageNodeId, storage_node_id

ENTRIES_A_REQUEST_MAX: Final = 512
REFUSALS_A_REQUEST_MAX: Final = 16
RECEIPTS_A_REQUEST_MAX: Final = 256
CHUNKS_A_SEGMENT_MAX: Final = 2 * limits.SEGMENT_ROWS_MAX
_NO_ENTRY: Final = EntryHash(bytes(32))


class Received(NamedTuple):
    """An entry as it came: parsed, or why it cannot be."""

    data: bytes
    entry: Entry | None
    refused: str


def _receive(data: bytes, folder: FolderId) -> Received:
    try:
        entry = parse_entry(data)
    except KinfolderError as error:
        return Received(data, None, error.code)
    if entry.header.folder != folder:
        return Received(data, None, "protocol")
    return Received(data, entry, "")


async def register(coordinator: Coordinator, session: Session, message: m.RegisterEntries) -> m.Message:
    """Register entries and order those that are ready."""
    if len(message.entries) > ENTRIES_A_REQUEST_MAX:
        raise LimitExceededError("entries of a request", ENTRIES_A_REQUEST_MAX)
    coordinator.verify_known(message.known)
    received = [_receive(data, message.folder) for data in message.entries]

    def run(repository: Repository) -> tuple[m.EntryStates, list[Moved]] | KinfolderError:
        if message.known is not None and repository.folders.head(message.folder) is None:
            # The folder is lost as a whole; its device holds the proof that it was here.
            return behind() if message.known.checkpoint.folder == message.folder else no_such_folder()
        ledger, authority = coordinator.open_folder(repository, message.folder, session.account)
        error = coordinator.check_known(repository, ledger.head, message.known)
        if error is not None:
            return error
        ledger.prefetch(one.entry for one in received if one.entry is not None)
        ordering = Ordering(ledger, authority)
        refused = _register_all(ordering, received)
        states = tuple(_state(ledger, one, code) for one, code in zip(received, refused, strict=True))
        number = authority.control.number_of(session.device)
        own_seq = ledger.newest_of(number)[0] if number is not None else 0
        return m.EntryStates(states, own_seq), moved(ledger, authority)

    outcome = await coordinator.database.write(run)
    if isinstance(outcome, KinfolderError):
        raise outcome
    states, news = outcome
    coordinator.publish(news)
    return states


def _register_all(ordering: Ordering, received: list[Received]) -> list[str]:
    """Register entries in order; after many that were refused the rest is not looked at, so that forging stays cheap to us."""
    codes: list[str] = []
    left = REFUSALS_A_REQUEST_MAX
    for one in received:
        if one.entry is None:
            codes.append(one.refused)
        elif left == 0:
            codes.append("limit")
        else:
            codes.append(ordering.register(one.entry, one.data))
            left -= bool(codes[-1])
    return codes


def _state(ledger: FolderLedger, received: Received, refused: str) -> m.EntryState:
    if received.entry is None:
        return m.EntryState(_NO_ENTRY, 0, None, refused)
    record = None if refused else ledger.find(received.entry.hash)
    if record is None:
        return m.EntryState(received.entry.hash, 0, None, refused)
    return m.EntryState(record.hash, record.position, record.void, "")


async def pin_segments(coordinator: Coordinator, session: Session, message: m.PinSegments) -> m.Message:
    """Take note of segments and their chunks; what waits for one that is durable already is ordered."""
    for one in message.segments:
        _check_segment(one)

    def run(repository: Repository) -> list[Moved]:
        ledger, authority = coordinator.open_folder(repository, message.folder, session.account, Role.WRITER)
        if ledger.head.is_behind:
            raise behind()
        durable = repository.chunks.declare(message.folder, ledger.head.pseudonym, message.segments, coordinator.quorum)
        if durable:
            Ordering(ledger, authority).release(Wait.SEGMENT, durable)
        return moved(ledger, authority)

    coordinator.publish(await coordinator.database.write(run))
    return m.Ok()


def _check_segment(one: m.PinnedSegment) -> None:
    if len(one.chunks) > CHUNKS_A_SEGMENT_MAX:
        raise LimitExceededError("chunks of a segment", CHUNKS_A_SEGMENT_MAX)
    for ref in (one.segment, *one.chunks):
        if len(ref.id) != 32 or not 0 < ref.length <= limits.SEALED_CHUNK_BYTES_MAX:
            raise ProtocolError("a segment names a bad chunk")


class Held(NamedTuple):
    """Chunks that a receipt proves a node to hold."""

    number: int
    item: ReceiptFor
    pseudonym: Pseudonym
    node: StorageNodeId


def check_receipts(coordinator: Coordinator, receipts: tuple[ReceiptFor, ...]) -> list[Held]:
    """Return what receipts prove.

    Raises:
        ProtocolError, BadSignatureError: One is malformed or not signed by the node that it names.
        AccessDeniedError: One is of no node of this coordinator.
    """
    if len(receipts) > RECEIPTS_A_REQUEST_MAX:
        raise LimitExceededError("receipts of a request", RECEIPTS_A_REQUEST_MAX)
    held: list[Held] = []
    for item in receipts:
        receipt = open_receipt(item)
        node = coordinator.registry.get(storage_node_id(receipt.node))
        if node is None:
            raise Refused("access_denied", "a receipt is of no storage node of this coordinator")
        if any(len(ref.id) != 32 or not 0 <= ref.length <= limits.SEALED_CHUNK_BYTES_MAX for ref in item.chunks):
            raise ProtocolError("a receipt names a bad chunk")
        held.append(Held(node.number, item, receipt.pseudonym, node.node))
    return held


class _Noted(NamedTuple):
    """What came of receipts."""

    moved: list[Moved]
    copies: list[tuple[Pseudonym, dict[ChunkId, int]]]
    """How many copies that stay there now are of each chunk, for each receipt."""
    fresh: list[tuple[StorageNodeId, int]]
    """How many bytes more nodes now hold."""


async def take_receipts(
    coordinator: Coordinator, folder: FolderId, account: AccountId | None, held: list[Held]
) -> None:
    """Write down which nodes hold which chunks; what waited for them is ordered, what is thin is looked at soon.

    Raises:
        KinfolderError: See :func:`_note_receipts`, and the database's.
    """
    noted = await coordinator.database.write(
        lambda repository: _note_receipts(coordinator, repository, folder, account, held)
    )
    for pseudonym, counts in noted.copies:  # not before it is committed: repair would not find it, and forget it
        coordinator.repair.note_thin(pseudonym, counts)
    for node, size in noted.fresh:
        coordinator.repair.note_stored(node, size)
    coordinator.publish(noted.moved)


def _note_receipts(
    coordinator: Coordinator,
    repository: Repository,
    folder: FolderId,
    account: AccountId | None,
    held: list[Held],
) -> _Noted:
    """Write down which nodes hold which chunks of a folder, and order what thereby became durable.

    Raises:
        AccessDeniedError: The account is no member of the folder.
        Refused: The folder's log is behind, or a receipt is for another folder.
        UnavailableError: A receipt is of a node that is out of service.
    """
    registry = coordinator.registry
    ledger, authority = coordinator.open_folder(repository, folder, account)
    if ledger.head.is_behind:
        raise behind()
    ready: set[ChunkId] = set()
    copies = []
    fresh = []
    for one in held:
        if one.pseudonym != ledger.head.pseudonym:
            raise Refused("access_denied", "a receipt is for another folder")
        if registry.is_retired(one.node) or registry.closing == one.node:
            raise UnavailableError("a storage node goes out of service: store this again, on another one")
        counts, size = repository.chunks.add_locations(one.pseudonym, one.item.chunks, one.number)
        fresh.append((one.node, size))
        ready.update(chunk for chunk, count in counts.items() if count >= coordinator.quorum)
        copies.append((one.pseudonym, dict.fromkeys(counts, 0) if registry.is_leaving(one.node) else counts))
    if ready:
        Ordering(ledger, authority).release(Wait.CHUNK, ready)
    return _Noted(moved(ledger, authority), copies, fresh)


async def add_receipts(coordinator: Coordinator, session: Session, message: m.AddReceipts) -> m.Message:
    """Take receipts of storage nodes; what waited for them is ordered."""
    held = check_receipts(coordinator, message.receipts)
    await take_receipts(coordinator, message.folder, session.account, held)
    return m.Ok()


async def pull(coordinator: Coordinator, session: Session, message: m.Pull) -> m.Message:
    """Return log items after a position, with the head as it was when they were read, and what they lead to."""
    items_max = max(1, min(message.items_max, limits.PULL_ITEMS_MAX))

    def read(repository: Repository) -> m.Pulled:
        head = coordinator.member_head(repository, message.folder, session.account)
        items = repository.folders.items(message.folder, message.after, items_max, limits.PULL_BYTES_MAX)
        reached = None
        if items and items[-1].position < head.position:
            reached = coordinator.checkpoint(repository.folders.head_at(head, items[-1].position))
        return m.Pulled(tuple(items), coordinator.checkpoint(head), reached)

    return await coordinator.database.read(read)


async def pull_registered(coordinator: Coordinator, session: Session, message: m.PullRegistered) -> m.Message:
    """Return entries that are registered and neither ordered nor void."""

    def read(repository: Repository) -> m.Registered:
        coordinator.member_head(repository, message.folder, session.account)
        entries, more = repository.folders.pending(
            message.folder, message.after, limits.PULL_ITEMS_MAX, limits.PULL_BYTES_MAX
        )
        return m.Registered(tuple(entries), more)

    return await coordinator.database.read(read)


async def get_own_seq(coordinator: Coordinator, session: Session, message: m.GetOwnSeq) -> m.Message:
    """Return the newest entry under a device number, also where it came back with a log and one before it did not."""

    def read(repository: Repository) -> m.OwnSeq:
        coordinator.member_head(repository, message.folder, session.account)
        return m.OwnSeq(*repository.folders.highest_of(message.folder, message.device))

    return await coordinator.database.read(read)


async def repush(coordinator: Coordinator, session: Session, message: m.RepushLog) -> m.Message:
    """Take back items that this coordinator ordered and lost."""
    from coordinator.restore import restore

    verify_checkpoint(message.checkpoint, coordinator.log_key)
    coordinator.publish(await restore(coordinator, session, message))
    return m.Ok()


async def give_up(coordinator: Coordinator, session: Session, message: m.GiveUp) -> m.Message:
    """Make void what a device registered, if nobody holds its contents; devices that have them on their disks record them anew.

    What a node holds that is away now, nobody knows: then nothing is given up.
    """
    if len(message.entries) > ENTRIES_A_REQUEST_MAX:
        raise LimitExceededError("entries of a request", ENTRIES_A_REQUEST_MAX)

    def run(repository: Repository) -> list[Moved]:
        ledger, authority = coordinator.open_folder(repository, message.folder, session.account, Role.WRITER)
        if ledger.head.is_behind:
            raise behind()
        if all(place.online for place in coordinator.registry.places(coordinator.clock.monotonic_s())):
            lost = [one for one in message.entries if _is_lost(repository, ledger, authority, session.device, one)]
            Ordering(ledger, authority).give_up(lost)
        return moved(ledger, authority)

    coordinator.publish(await coordinator.database.write(run))
    return m.Ok()


def _is_lost(
    repository: Repository, ledger: FolderLedger, authority: Authority, device: DeviceId, hash: EntryHash
) -> bool:
    """Tell whether an entry of a device waits for what no node is known to hold."""
    record = ledger.find(hash)
    enrolment = None if record is None else authority.control.enrolment(record.device)
    if record is None or not record.is_pending or enrolment is None or enrolment.device != device:
        return False
    chunks = set(ledger.pending(hash).header.pins)
    for segment in tuple(chunks):
        chunks |= {ref.id for ref in repository.chunks.segment_chunks(ledger.head.folder, segment) or ()}
    counts = repository.chunks.counts(ledger.head.pseudonym, chunks)
    return any(not counts.get(chunk) for chunk in chunks)
