"""Keep every chunk on as many nodes as it should be on.

A chunk is *thin* while fewer nodes that stay hold it than there should be copies. Chunks whose receipts just came are
looked at after a pause, since their sender is usually about to bring the other receipts; all chunks are looked at when
nodes came, went for good or go out of service, lost chunks, or the number of copies was raised.

A node never deletes. One that says that it stores less than it should hold is *doubted*: it has a new disk, or an older
one back. It is ordered to copy all that it should hold from others, and answers for what it holds as for what it copies.

Rule 1: the work is bounded: pages of chunks, few orders at a time, each of at most one batch.
Rule 2: an order that fails is no loss: the chunk is still thin at the next look.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

import structlog

from coordinator.core import placement
from coordinator.core.placement import Place
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
        self._online: frozenset[StorageNodeId] = frozenset()
        """Nodes that were connected when all chunks were last looked at."""
        self._least: dict[StorageNodeId, int] = {}
        """How many bytes they are counted for."""
        self._floor: dict[StorageNodeId, int] = {}
        """For how many they were counted at their last login or report: so many they must store at least."""
        self._doubted: dict[StorageNodeId, int] = {}
        """With how many bytes they said that they store."""
        self._believed: dict[StorageNodeId, int] = {}
        """Nodes that answered for all that they should hold, with the session in which they did."""
        self._unasked: dict[StorageNodeId, None] = {}
        """Doubted nodes that could not be asked for everything this time."""
        self._has_failed = False
        """Whether that was for another reason than that others are away."""
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

    def note_stored(self, node: StorageNodeId, size: int) -> None:
        """Count a node for so many bytes more."""
        self._least[node] = self._least.get(node, 0) + size

    def take_login(self, node: StorageNodeId) -> None:
        """Expect of a node that logs in all that it was counted for; then have all chunks looked at."""
        self._floor[node] = self._least.get(node, 0)
        self.want_sweep()

    def take_report(self, node: StorageNodeId, stored_bytes: int) -> None:
        """Take what a node says that it stores: all that it was counted for when it said so before, or more."""
        floor, self._floor[node] = self._floor.get(node, 0), self._least.get(node, 0)
        if stored_bytes < self._doubted.get(node, floor):
            log.warning("a storage node has less than it should hold", node=node[:8].hex())
            self._doubted[node] = stored_bytes
            self.want_sweep()

    async def run(self) -> None:
        """Repair for ever."""
        await self._count()
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

    async def _count(self) -> None:
        """Count nodes for what they hold as the coordinator starts: a sweep comes later, and what is added until then is not all.

        What is added while the database is read may be missing: so much less is expected of them.
        """
        coordinator = self._coordinator
        try:
            held = await coordinator.database.read(lambda repository: repository.chunks.holdings())
        except KinfolderError as error:
            log.warning("what nodes hold was not counted", code=error.code)
            return
        sizes: Counter[int] = Counter()
        for one in held:
            sizes.update(dict.fromkeys(one.nodes, one.bytes))
        for node in coordinator.registry.all():
            self._least[node.node] = max(self._least.get(node.node, 0), sizes[node.number])

    async def _pause(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.pause_s):
                await self._hurry.wait()

    async def once(self) -> int:
        """Look at what may be thin and have it copied; return how many copies were made."""
        coordinator = self._coordinator
        now_s = coordinator.clock.monotonic_s()
        gone = frozenset(n.node for n in coordinator.registry.all() if coordinator.registry.is_gone(n.node, now_s))
        online = frozenset(n.node for n in coordinator.registry.all() if coordinator.registry.is_online(n.node))
        is_open = bool(self._doubted) and (self._has_failed or online != self._online)
        sweep, self._sweep = self._sweep or gone != self._gone or is_open, False
        self._gone = gone
        self._round += 1
        if sweep:
            self._thin.clear()
            self._online = online
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
        self._unasked.clear()
        self._has_failed = False
        doubted = {node: stored for node, stored in self._doubted.items() if node in self._online}
        sizes: Counter[int] = Counter()

        def read(repository: Repository) -> list[Location]:
            return repository.chunks.page(after, PAGE)

        while page := await self._coordinator.database.read(read):
            after = (page[-1].pseudonym, page[-1].chunk)
            for location in page:
                sizes.update(dict.fromkeys(location.nodes, location.length))
            made += await self._repair(page)
        self._judge(doubted, sizes)
        return made

    def _judge(self, doubted: Mapping[StorageNodeId, int], sizes: Mapping[int, int]) -> None:
        """Believe those doubted nodes that were asked for all they should hold, and note how much others must store."""
        registry = self._coordinator.registry
        for node, stored_bytes in doubted.items():
            session = registry.session(node)
            if session is not None and node not in self._unasked and self._doubted[node] == stored_bytes:
                del self._doubted[node]
                self._believed[node] = session
                self._least[node] = self._floor[node] = 0
                self.want_sweep()  # what it does not hold was not copied elsewhere yet
        for one in registry.all():
            # Whoever was believed once may hold a chunk of two folders, which is stored once.
            is_believed = one.node in self._believed and self._believed[one.node] == registry.session(one.node)
            if not is_believed:
                self._least[one.node] = max(self._least.get(one.node, 0), sizes.get(one.number, 0))

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
                    self._fail(order)
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
            sources = self._sources(there)
            for place in there:
                if place.id in self._doubted:
                    self._ask_for(place, location, [other for other in there if other != place], orders)
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

    def _sources(self, there: Iterable[Place]) -> list[Place]:
        """Return from whom to copy: who is doubted only where nobody else is there."""
        online = [place for place in there if place.online]
        return [place for place in online if place.id not in self._doubted] or online

    def _ask_for(
        self, place: Place, location: Location, others: Sequence[Place], orders: dict[Order, list[ChunkRef]]
    ) -> None:
        """Have a doubted node copy what it should hold; of what nobody else has, nobody can say more than it said."""
        registry, now_s = self._coordinator.registry, self._coordinator.clock.monotonic_s()
        sources = self._sources(others)
        if place.online and sources:
            order = Order(place.id, sources[self._round % len(sources)].id, location.pseudonym)
            orders[order].append(ChunkRef(location.chunk, location.length))
        elif not place.online or any(not registry.is_gone(other.id, now_s) for other in others):
            self._unasked[place.id] = None

    def _fail(self, order: Order) -> None:
        """Note that an order was not carried out."""
        if order.target in self._doubted:
            self._unasked[order.target] = None
            self._has_failed = True

    async def _carry_out(self, order: Order, chunks: list[ChunkRef]) -> int:
        from coordinator.requests.entries import check_receipts, take_receipts
        from coordinator.requests.storage import make_grant

        coordinator = self._coordinator
        number = coordinator.registry.session(order.target)
        session = None if number is None else coordinator.sessions.get(number)
        node = coordinator.registry.get(order.target)
        if session is None or node is None:
            self._fail(order)
            return 0
        size = sum(ref.length for ref in chunks)
        grant = make_grant(coordinator, order.pseudonym, node.sign, Operation.GET, size, len(chunks))
        reply = await session.ask(m.Replicate(order.pseudonym, order.source, tuple(chunks), grant), ORDER_S)
        if not isinstance(reply, m.Replicated):
            raise ProtocolError("a storage node answered something else")
        held = check_receipts(coordinator, reply.receipts)
        if any(storage_node_id(open_receipt(one.item).node) != order.target for one in held):
            raise ProtocolError("a storage node handed in another's receipt")
        there = {ref.id for one in held for ref in one.item.chunks}
        left = [ref.id for ref in chunks if ref.id not in there]
        if order.target in self._doubted:
            lost = [(order.pseudonym, chunk) for chunk in left]
            await coordinator.database.write(lambda repository: repository.chunks.remove_locations(lost, node.number))
        else:  # what the source gave was not whole: another one is asked, or the same one again
            self.note_thin(order.pseudonym, dict.fromkeys(left, 0))
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
