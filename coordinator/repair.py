"""Keep every chunk on as many nodes as it should be on.

A chunk is *thin* while fewer nodes that stay hold it than there should be copies. Chunks whose receipts just came are
looked at after a pause, since their sender is usually about to bring the other receipts; all chunks are looked at when
nodes came, went for good or go out of service, lost chunks, or the number of copies was raised.

Rule 1: the work is bounded: pages of chunks, few orders at a time, each of at most one batch.
Rule 2: an order that fails is no loss: the chunk is still thin at the next look.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Final, NamedTuple

import structlog

from coordinator.core import placement
from coordinator.store.chunks import Location
from coordinator.store.repository import Repository
from protocol import limits
from protocol import messages as m
from protocol.errors import KinfolderError, ProtocolError
from protocol.grants import ChunkRef, Operation, open_receipt
from protocol.ids import ChunkId, Pseudonym, StorageNodeId, storage_node_id

if TYPE_CHECKING:
    from coordinator.service import Coordinator

PAUSE_S: Final = 10.0
RECHECK_S: Final = 60.0
PAGE: Final = 2_000
THIN_MAX: Final = 50_000
ORDERS_AT_ONCE: Final = 4
ORDER_S: Final = 120.0

log = structlog.get_logger("coordinator")


class Order(NamedTuple):
    """Which node is to pull from which."""

    target: StorageNodeId
    source: StorageNodeId
    pseudonym: Pseudonym


class Repair:
    """The background work; see the module."""

    def __init__(self, coordinator: Coordinator) -> None:
        self.pause_s = PAUSE_S
        self._coordinator = coordinator
        self._wanted = asyncio.Event()
        self._sweep = False
        self._hurry = asyncio.Event()
        self.is_busy = False
        """Whether it works just now."""
        self._thin: dict[tuple[Pseudonym, ChunkId], None] = {}
        self._gone: frozenset[StorageNodeId] = frozenset()
        self._round = 0

    def want_sweep(self, *, at_once: bool = False) -> None:
        """Look at all chunks soon; at once where nothing else is about to come."""
        self._sweep = True
        self._wanted.set()
        if at_once:
            self._hurry.set()

    def note_thin(self, pseudonym: Pseudonym, counts: Mapping[ChunkId, int]) -> None:
        """Look soon at those of these chunks that too few nodes hold; their receipts must be committed."""
        replicas = self._coordinator.replicas
        for chunk, count in counts.items():
            if count >= replicas:
                self._thin.pop((pseudonym, chunk), None)
            elif len(self._thin) < THIN_MAX:
                self._thin[pseudonym, chunk] = None
            else:
                self._sweep = True
        if self._thin:
            self._wanted.set()

    async def run(self) -> None:
        """Repair for ever."""
        while True:
            try:
                async with asyncio.timeout(RECHECK_S):
                    await self._wanted.wait()
            except TimeoutError:
                pass
            else:
                await self._pause()
            self.is_busy = True
            self._hurry.clear()
            self._wanted.clear()
            try:
                await self.once()
            except KinfolderError as error:
                log.warning("repair has to wait", code=error.code)
            finally:
                self.is_busy = False

    async def _pause(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.pause_s):
                await self._hurry.wait()

    async def once(self) -> int:
        """Look at what may be thin and have it copied; return how many copies were made."""
        coordinator = self._coordinator
        now_s = coordinator.clock.monotonic_s()
        gone = frozenset(n.node for n in coordinator.registry.all() if coordinator.registry.is_gone(n.node, now_s))
        sweep, self._sweep = self._sweep or gone != self._gone, False
        self._gone = gone
        self._round += 1
        if sweep:
            self._thin.clear()
            return await self._sweep_all()
        thin = list(self._thin)[:PAGE]
        for key in thin:
            self._thin.pop(key, None)
        if self._thin:
            self._wanted.set()

        def find(repository: Repository) -> list[Location]:
            found = (repository.chunks.find(*key) for key in thin)
            return [location for location in found if location is not None]

        locations = await coordinator.database.read(find)
        return await self._repair(locations)

    async def _sweep_all(self) -> int:
        made = 0
        after = (b"", b"")

        def read(repository: Repository) -> list[Location]:
            return repository.chunks.page(after, PAGE)

        while True:
            page = await self._coordinator.database.read(read)
            if not page:
                return made
            after = (page[-1].pseudonym, page[-1].chunk)
            made += await self._repair(page)

    async def _repair(self, locations: Iterable[Location]) -> int:
        orders = self._orders(locations)
        slots = asyncio.Semaphore(ORDERS_AT_ONCE)

        async def carry_out(order: Order, chunks: list[ChunkRef]) -> int:
            async with slots:
                try:
                    return await self._carry_out(order, chunks)
                except KinfolderError as error:
                    log.warning("a copy was not made", node=order.target[:8].hex(), code=error.code)
                    self.note_thin(order.pseudonym, dict.fromkeys((ref.id for ref in chunks), 0))
                    return 0

        done = await asyncio.gather(
            *(carry_out(order, batch) for order, chunks in orders.items() for batch in _batches(chunks))
        )
        if sum(done):
            log.info("copied chunks", count=sum(done))
        return sum(done)

    def _orders(self, locations: Iterable[Location]) -> dict[Order, list[ChunkRef]]:
        """Decide who copies what from whom."""
        coordinator = self._coordinator
        registry = coordinator.registry
        now_s = coordinator.clock.monotonic_s()
        by_number = {node.number: registry.place(node) for node in registry.all()}
        usable = [place for place in registry.places(now_s) if place.online]
        free_bytes = {node.node: node.free_bytes for node in registry.all()}
        orders: defaultdict[Order, list[ChunkRef]] = defaultdict(list)
        for location in locations:
            there = [by_number[number] for number in location.nodes if number in by_number]
            held = [place for place in there if registry.counts(place.id, now_s)]
            if any(registry.is_leaving(place.id) for place in there):
                held = [place for place in held if not registry.is_away(place.id, now_s)]
            sources = [place for place in there if place.online]
            missing = coordinator.replicas - len(held)
            if missing <= 0 or not sources:
                continue
            group = placement.group(location.pseudonym)
            roomy = [place for place in usable if free_bytes[place.id] >= location.length]
            targets = placement.spread(placement.rank(group, roomy), missing, held)
            source = sources[self._round % len(sources)]
            for target in targets:
                order = Order(target.id, source.id, location.pseudonym)
                orders[order].append(ChunkRef(location.chunk, location.length))
        return orders

    async def _carry_out(self, order: Order, chunks: list[ChunkRef]) -> int:
        from coordinator.requests.entries import check_receipts, take_receipts
        from coordinator.requests.storage import make_grant

        coordinator = self._coordinator
        number = coordinator.registry.session(order.target)
        session = None if number is None else coordinator.sessions.get(number)
        node = coordinator.registry.get(order.target)
        if session is None or node is None:
            return 0
        size = sum(ref.length for ref in chunks)
        grant = make_grant(coordinator, order.pseudonym, node.sign, Operation.GET, size, len(chunks))
        reply = await session.ask(m.Replicate(order.pseudonym, order.source, tuple(chunks), grant), ORDER_S)
        if not isinstance(reply, m.Replicated):
            raise ProtocolError("a storage node answered something else")
        held = check_receipts(coordinator, reply.receipts)
        if any(storage_node_id(open_receipt(one.item).node) != order.target for one in held):
            raise ProtocolError("a storage node handed in another's receipt")
        folder = await coordinator.database.read(lambda repository: repository.folders.of_pseudonym(order.pseudonym))
        if folder is None or not held:
            return 0
        await take_receipts(coordinator, folder, None, held)
        return sum(len(one.item.chunks) for one in held)


def _batches(chunks: list[ChunkRef]) -> Iterable[list[ChunkRef]]:
    batch: list[ChunkRef] = []
    size = 0
    for ref in chunks:
        if batch and (len(batch) >= limits.BATCH_CHUNKS_MAX or size + ref.length > limits.BATCH_BYTES_MAX):
            yield batch
            batch, size = [], 0
        batch.append(ref)
        size += ref.length
    if batch:
        yield batch
