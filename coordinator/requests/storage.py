"""Requests about storage: grants, the nodes, and what nodes report."""

from __future__ import annotations

from typing import Final

from coordinator.core import placement
from coordinator.failures import AccessDeniedError, no_such_folder
from coordinator.service import Coordinator
from coordinator.session import Session
from coordinator.store.repository import Repository
from protocol import limits
from protocol import messages as m
from protocol.chains import Role
from protocol.errors import LimitExceededError, ProtocolError
from protocol.grants import Grant, Operation, Signed, sign_body
from protocol.ids import Pseudonym

GRANT_BYTES_MAX: Final = 1 << 40
GRANT_CHUNKS_MAX: Final = 1 << 24
COPIES_A_REQUEST_MAX: Final = 4_096
LOST_CHUNKS_MAX: Final = 4_096
_ALL: Final = Operation.PUT | Operation.GET | Operation.HAVE


def make_grant(
    coordinator: Coordinator,
    pseudonym: Pseudonym,
    key: bytes,
    operations: Operation,
    bytes_max: int,
    chunks_max: int,
) -> Signed:
    """Return a signed grant for the holder of a signing key."""
    now_ms = coordinator.clock.now_ms()
    grant = Grant(
        id=coordinator.entropy(16),
        pseudonym=pseudonym,
        device=key,
        operations=operations,
        bytes_max=bytes_max,
        chunks_max=chunks_max,
        not_before_ms=now_ms,
        expires_ms=now_ms + limits.GRANT_S_MAX * 1000,
    )
    return sign_body(grant, coordinator.keys.token_seed)


async def get_grant(coordinator: Coordinator, session: Session, message: m.GetGrant) -> m.Message:
    """Return a grant for one of the caller's folders, and the nodes to use it at."""
    asked = message.operations
    if int(asked) & ~int(_ALL) or not asked:  # ~ of a flag drops the bits that it does not know
        raise ProtocolError("a grant is asked for unknown operations")
    if not 0 <= message.bytes_max <= GRANT_BYTES_MAX or not 0 <= message.chunks_max <= GRANT_CHUNKS_MAX:
        raise LimitExceededError("bytes of a grant", GRANT_BYTES_MAX)

    def read(repository: Repository) -> tuple[Pseudonym, Role | None]:
        head = repository.folders.head(message.folder)
        if head is None:
            raise no_such_folder()
        return head.pseudonym, repository.folders.role(message.folder, session.account)

    pseudonym, role = await coordinator.database.read(read)
    if role is None:
        raise no_such_folder()
    if asked & Operation.PUT and role < Role.WRITER:
        raise AccessDeniedError("a reader may not store")
    grant = make_grant(coordinator, pseudonym, session.sign_key, asked, message.bytes_max, message.chunks_max)
    registry = coordinator.registry
    places = placement.order(
        placement.group(pseudonym), registry.places(coordinator.clock.monotonic_s()), coordinator.replicas
    )
    if not asked & Operation.PUT:
        # A node that goes is a source as long as it is there, after all others.
        sources = [place for node in registry.leaving() if (place := registry.place(node)).online]
        places = [*places[: limits.PLACEMENT_NODES_MAX - len(sources)], *sources][: limits.PLACEMENT_NODES_MAX]
    nodes = tuple(registry.address(node) for place in places if (node := registry.get(place.id)) is not None)
    return m.Granted(grant, pseudonym, coordinator.replicas, coordinator.quorum, nodes)


async def get_storage(coordinator: Coordinator, _session: Session, _: m.GetStorage) -> m.Message:
    """Return how the storage stands."""
    return m.Storage(coordinator.replicas, coordinator.quorum, coordinator.registry.addresses())


async def get_copies(coordinator: Coordinator, session: Session, message: m.GetCopies) -> m.Message:
    """Return how many storage nodes hold chunks of a folder."""
    if len(message.chunks) > COPIES_A_REQUEST_MAX:
        raise LimitExceededError("chunks of a request", COPIES_A_REQUEST_MAX)

    def read(repository: Repository) -> m.Copies:
        head = coordinator.member_head(repository, message.folder, session.account)
        counts = repository.chunks.counts(head.pseudonym, message.chunks)
        return m.Copies(tuple(counts.get(chunk, 0) for chunk in message.chunks))

    return await coordinator.database.read(read)


async def node_report(coordinator: Coordinator, session: Session, message: m.NodeReport) -> m.Message:
    """Take what a node says of its room."""
    if not 0 <= message.free_bytes < 1 << 63 or not 0 <= message.stored_bytes < 1 << 63:
        raise ProtocolError("a node reports odd numbers")
    now_ms = coordinator.clock.now_ms()
    node = session.node
    coordinator.repair.take_report(node, message.stored_bytes)
    coordinator.registry.report(node, message.free_bytes, message.stored_bytes, now_ms)

    def write(repository: Repository) -> None:
        repository.nodes.change(
            node, free_bytes=message.free_bytes, stored_bytes=message.stored_bytes, last_seen_ms=now_ms
        )

    await coordinator.database.write(write)
    return m.Ok()


async def lost_chunks(coordinator: Coordinator, session: Session, message: m.LostChunks) -> m.Message:
    """Forget that a node holds chunks that it found damaged or missing, and have them copied anew."""
    if len(message.chunks) > LOST_CHUNKS_MAX:
        raise LimitExceededError("lost chunks of a report", LOST_CHUNKS_MAX)
    node = coordinator.registry.get(session.node)
    assert node is not None
    places = await coordinator.database.read(lambda repository: repository.chunks.where(message.chunks))
    lost = [(place.pseudonym, place.chunk) for place in places if node.number in place.nodes]
    if lost:
        await coordinator.database.write(lambda repository: repository.chunks.remove_locations(lost, node.number))
        coordinator.repair.want_sweep()
    return m.Ok()
