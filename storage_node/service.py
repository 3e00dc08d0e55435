"""A storage node: its parts put together, started, kept running and stopped."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from functools import partial
from typing import Final

import msgspec
import structlog
from blake3 import blake3

from protocol import limits
from protocol import messages as m
from protocol.chunk_api import check_refs, ids_root
from protocol.effects import ChunkListener, ChunkNodes, Clock, Dialer, Entropy, Processor
from protocol.errors import EXIT_USAGE, KinfolderError, UnavailableError, UserError
from protocol.grants import ChunkRef, Grant, Operation, Statement, open_signed, sign_body
from protocol.ids import ChunkId, device_id
from storage_node.chunks.index import OpenDatabase
from storage_node.chunks.pack_files import PackDisk
from storage_node.chunks.packs import PackStore
from storage_node.chunks.store import ChunkStore
from storage_node.config import Settings
from storage_node.core.custody import Custody
from storage_node.core.scrub import Scrub
from storage_node.identity import Coordinator, Identity, IdentityStore, make_identity, private_key_pem
from storage_node.link import Contact, Duties, HeardClock, Link, Presence
from storage_node.replicas import Replicas
from storage_node.server import SLICE_BYTES, ChunkServer

log = structlog.get_logger("node")

_DATABASE: Final = "index.sqlite"
_PACKS: Final = "packs"


class Doors(msgspec.Struct, frozen=True):
    """The node's doors to the world."""

    clock: Clock
    entropy: Entropy
    processor: Processor
    disk: PackDisk
    open_database: OpenDatabase
    identity: IdentityStore
    dialer: Dialer
    nodes: ChunkNodes
    listener: ChunkListener


class StorageNode:
    """One node, for one data directory.

    Args:
        settings: How to run.
        doors: The world.
        store: Where chunks lie; None: in packs of the data directory.
    """

    def __init__(self, settings: Settings, doors: Doors, store: ChunkStore | None = None) -> None:
        self._settings = settings
        self._doors = doors
        self._given_store = store
        self._clock = HeardClock(doors.clock)
        self._tasks: list[asyncio.Task[None]] = []
        self.url = ""
        """Where it is found; known once it has started."""

    async def start(self) -> None:
        """Listen, and log in; at the first start return only when the coordinator has admitted the node.

        Raises:
            UserError: Something that a person can mend.
            CorruptStateError: The node's own files are damaged.
        """
        settings, doors = self._settings, self._doors
        identity = doors.identity.load()
        if identity is None:
            identity = make_identity(doors.entropy)
            doors.identity.save(identity)
        self.identity = identity
        contact = _contact(settings, identity)
        self.store: ChunkStore
        if self._given_store is not None:
            self.store = self._given_store
        else:
            self.store = await doors.processor.run(_open_store, settings, doors)
        self.custody = Custody(identity.node)
        if identity.coordinator is not None:
            self.custody.token_key = identity.coordinator.token_key
        self.custody.miss(doors.clock.monotonic_s())
        self.replicas = Replicas(doors.nodes)
        self.server = ChunkServer(
            identity=identity, store=self.store, custody=self.custody, replicas=self.replicas, clock=self._clock
        )
        await self._listen()
        duties = Duties(
            welcome=self._welcome,
            broken=lambda: self.custody.miss(doors.clock.monotonic_s()),
            report=self._report,
            replicate=self.replicate,
            lost=self.store.lost,
            leave=self._leave,
            retire=self._retire,
        )
        presence = Presence(
            self.url, identity.certificate if settings.is_tls else b"", settings.zone or identity.node.hex()
        )
        self.link = Link(
            contact,
            identity,
            presence,
            duties,
            dialer=doors.dialer,
            clock=doors.clock,
            entropy=doors.entropy,
            heard=self._clock,
        )
        is_first_start = identity.coordinator is None
        linked = asyncio.create_task(self.link.run(is_first_start=is_first_start))
        self._tasks = [linked, asyncio.create_task(self._scrub())]
        if is_first_start:
            admitted = asyncio.create_task(self.link.admitted.wait())
            await asyncio.wait([linked, admitted], return_when=asyncio.FIRST_COMPLETED)
            admitted.cancel()
            if linked.done():
                linked.result()

    async def stop(self) -> None:
        """Finish what runs, for a bounded time, and let go of everything."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._doors.listener.stop()
        await self._doors.nodes.close()
        if hasattr(self, "store"):
            await self.store.close()

    async def replicate(self, order: m.Replicate) -> m.Replicated:
        """Copy chunks from another node, as the coordinator ordered.

        Raises:
            KinfolderError: The order cannot be, or the source or the disk failed.
        """
        check_refs(order.chunks)
        given = open_signed(order.grant, Grant, self.custody.token_key)
        device = device_id(self.identity.sign_public)
        wanted = tuple(dict.fromkeys(chunk.id for chunk in order.chunks))
        held = {ref.id: ref for ref in await self.store.have(order.pseudonym, wanted)}
        missing = tuple(id for id in wanted if id not in held)
        if missing:
            asked = Statement(
                grant=given.id,
                operation=Operation.GET,
                nodes=(order.source,),
                root=ids_root(missing),
                count=len(missing),
                bytes=0,
                time_ms=self._clock.now_ms(),
            )
            statement = sign_body(asked, self.identity.sign_seed)
            pieces: list[tuple[ChunkId, bytes]] = []
            async with contextlib.aclosing(self.replicas.get(order.source, missing, order.grant, statement)) as found:
                async for id, data in found:
                    # A node that sends other bytes costs this chunk only.
                    if await self._doors.processor.run(_has_id, id, data):
                        pieces.append((id, data))
                        held[id] = ChunkRef(id, len(data))
                    if sum(len(data) for _, data in pieces) >= SLICE_BYTES:
                        await self.store.put(order.pseudonym, pieces)
                        pieces = []
            await self.store.put(order.pseudonym, pieces)
        chunks = tuple(held[id] for id in wanted if id in held)
        log.info("chunks were copied", wanted=len(wanted), held=len(chunks))
        return m.Replicated((self.server.receipt(device, order.pseudonym, chunks),) if chunks else ())

    async def _listen(self) -> None:
        identity, is_tls = self.identity, self._settings.is_tls
        url = await self._doors.listener.start(
            self.server.answer,
            certificate=identity.certificate if is_tls else b"",
            key_pem=private_key_pem(identity.tls_seed) if is_tls else b"",
        )
        self.url = self._settings.advertise or url

    async def _welcome(self, coordinator: Coordinator, welcome: m.NodeWelcome) -> None:
        if self.identity.coordinator is None:
            self.identity = msgspec.structs.replace(self.identity, coordinator=coordinator)
            await self._doors.processor.run(self._doors.identity.save, self.identity)
        self.custody.token_key = coordinator.token_key
        self.custody.revoke(welcome.revoked, self._clock.now_ms())
        self.custody.hear()
        self.replicas.learn(welcome.nodes)

    def _leave(self, is_leaving: bool) -> None:  # noqa: FBT001  # the one thing that is told
        self.custody.is_leaving = is_leaving

    def _retire(self) -> None:
        self.custody.is_retired = True

    async def _report(self) -> m.NodeReport:
        stats = await self.store.stats()
        return m.NodeReport(free_bytes=stats.free_bytes, stored_bytes=stats.stored_bytes)

    async def _scrub(self) -> None:
        clock = self._doors.clock
        scrub = Scrub(ChunkId(self._doors.entropy(32)), clock.monotonic_s())
        while True:
            await asyncio.sleep(max(0.0, scrub.next_deadline() - clock.monotonic_s()))
            look = scrub.due(clock.monotonic_s())
            if look is None:
                continue
            chunks: Sequence[ChunkRef] = ()
            try:
                chunks = await self.store.iterate(look.after, look.chunks_max)
                if await self.store.verify([chunk.id for chunk in chunks]):
                    self.link.tell_lost()
            except KinfolderError as error:
                log.warning("the scrub pauses", code=error.code)
            scrub.looked(chunks, clock.monotonic_s())


def _contact(settings: Settings, identity: Identity) -> Contact:
    pinned = identity.coordinator
    url = settings.coordinator_url or (pinned.url if pinned is not None else "")
    if not url:
        raise UserError(
            "--coordinator URL, or --invite with a whole invitation, is needed at the first start", exit_code=EXIT_USAGE
        )
    return Contact(url, settings.fingerprint if pinned is None else pinned.certificate_sha256, settings.token)


def _open_store(settings: Settings, doors: Doors) -> PackStore:
    try:
        above = doors.disk.open_root(str(settings.data))
        try:
            with contextlib.suppress(FileExistsError):
                doors.disk.make_directory(above, _PACKS, 0o700)
            doors.disk.sync(above)  # what is durable in a directory is lost with the directory's own name
        finally:
            doors.disk.close(above)
        return PackStore(
            str(settings.data / _PACKS),
            disk=doors.disk,
            open_database=doors.open_database,
            processor=doors.processor,
            entropy=doors.entropy,
            limit_bytes=settings.limit_bytes,
        )
    except OSError as error:
        raise UnavailableError(f"the data directory cannot be used: {error.strerror}") from error


def _has_id(id: ChunkId, data: bytes) -> bool:
    return blake3(data).digest() == id


def system_doors(settings: Settings) -> Doors:
    """Return the machine's own doors, for a node with these settings."""
    from storage_node.doors import SystemClock, SystemDisk, SystemEntropy, ThreadProcessor, open_database
    from storage_node.http_nodes import HttpNodes
    from storage_node.identity import IdentityFile
    from storage_node.listener import HttpListener
    from storage_node.websocket import WebSocketDialer

    return Doors(
        clock=SystemClock(),
        entropy=SystemEntropy(),
        processor=ThreadProcessor(),
        disk=SystemDisk(),
        open_database=partial(open_database, settings.data / _DATABASE),
        identity=IdentityFile(settings.data),
        dialer=WebSocketDialer(),
        nodes=HttpNodes(),
        listener=HttpListener(settings),
    )


assert SLICE_BYTES <= limits.BATCH_BYTES_MAX
