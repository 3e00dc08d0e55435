"""Take storage nodes out of service: have copied what depends on them, and let them go.

The command writes into the database that a node is to go; from then on all is done here, also after a restart.

Rule 1: a node's copies count until as many of the others as there should be copies hold what it holds, and are online.
Rule 2: a node is let go only when no chunk is written down as held by it, and no receipt of it can still come in.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Final

import structlog

from coordinator.core.retirement import Holding, Left, count_left
from coordinator.store.nodes import StorageNode
from coordinator.store.repository import Repository
from coordinator.store.statements import groups
from protocol import messages as m
from protocol.errors import KinfolderError
from protocol.ids import ChunkId, Pseudonym

if TYPE_CHECKING:
    from coordinator.service import Coordinator

COUNT_SHARE: Final = 10
"""Counting may take up one part in so many of the time."""
SWEEP_AGAIN_S: Final = 60.0
"""Where nothing came of a sweep, the next one waits so long."""
PAGE: Final = 2_000

log = structlog.get_logger("coordinator")


class Retirements:
    """The background work; see the module."""

    def __init__(self, coordinator: Coordinator) -> None:
        self._coordinator = coordinator
        self._swept: tuple[float, object] | None = None
        """When repair was last asked to look at everything, and how things stood then."""

    async def load(self) -> None:
        """Take from the database which nodes are going and which have gone; others are told when that is new."""
        coordinator = self._coordinator
        asked = (await coordinator.database.read(lambda repository: repository.retirements.all())).values()
        leaving = frozenset(one.node for one in asked if not one.is_over)
        retired = frozenset(one.node for one in asked if one.is_over)
        if not coordinator.registry.retire(leaving, retired):
            return
        for node in retired:
            session = coordinator.sessions.get(coordinator.registry.session(node) or 0)
            if session is not None:
                session.close("retired")
        for node in leaving:
            session = coordinator.sessions.get(coordinator.registry.session(node) or 0)
            if session is not None:
                session.post(m.NodeLeaves())
        coordinator.tell_nodes()

    async def run(self) -> None:
        """Look after retirements for ever."""
        clock = self._coordinator.clock
        while True:
            begin_s = clock.monotonic_s()
            try:
                await self.once()
            except KinfolderError as error:
                log.warning("retiring has to wait", code=error.code)
            await asyncio.sleep(max(self._coordinator.look_s, COUNT_SHARE * (clock.monotonic_s() - begin_s)))

    async def once(self) -> None:
        """Count what is left of each retirement, have it copied, and let go of the nodes on which nothing depends."""
        coordinator = self._coordinator
        await self.load()
        leaving = coordinator.registry.leaving()
        if not leaving:
            self._swept = None
            return
        holdings = await coordinator.database.read(lambda repository: repository.chunks.holdings())
        counted = [(node, self._count(node, holdings)) for node in leaving]
        now_ms = coordinator.clock.now_ms()

        def note(repository: Repository) -> None:
            for node, left in counted:
                repository.retirements.count(node.node, left, now_ms)

        await coordinator.database.write(note)
        for node, left in counted:
            if left.chunks == 0:
                await self._let_go(node, holdings)
        self._have_copied([left.chunks for _, left in counted if left.chunks > left.alone])

    def _count(self, node: StorageNode, holdings: list[Holding]) -> Left:
        registry = self._coordinator.registry
        online = {one.number for one in registry.all() if registry.is_online(one.node)}
        return count_left(
            holdings, node.number, others=self._others(), online=online, replicas=self._coordinator.replicas
        )

    def _others(self) -> frozenset[int]:
        """Return the nodes whose copies make up for those of a node that goes: they stay, and are there now.

        One that is away may be lost, and just after a start nobody knows since when.
        """
        registry, now_s = self._coordinator.registry, self._coordinator.clock.monotonic_s()
        return frozenset(
            one.number for one in registry.all() if registry.is_online(one.node) and registry.counts(one.node, now_s)
        )

    def _have_copied(self, left: list[int]) -> None:
        """Ask repair to look at everything: at once where something changed, else after a while."""
        coordinator = self._coordinator
        if not left or coordinator.repair.is_busy:
            return
        now_s = coordinator.clock.monotonic_s()
        standing = (left, self._others())
        if self._swept is None or self._swept[1] != standing or now_s - self._swept[0] >= SWEEP_AGAIN_S:
            self._swept = (now_s, standing)
            coordinator.repair.want_sweep(at_once=True)

    async def _let_go(self, node: StorageNode, holdings: list[Holding]) -> None:
        """Strike a node from all chunks, and note that it is out of service if it thereby holds nothing that counts."""
        coordinator = self._coordinator
        coordinator.registry.closing = node.node
        try:
            # Receipts of it that were taken until now stand in the database once this is through; no more are.
            await coordinator.database.write(lambda _: None)
            await self._strike(node.number, [one.nodes for one in holdings if node.number in one.nodes])
            holdings = await coordinator.database.read(lambda repository: repository.chunks.holdings())
            if any(node.number in one.nodes for one in holdings):
                return  # a receipt came in before, or another node lost a chunk or left: at the next look
            now_ms = coordinator.clock.now_ms()
            await coordinator.database.write(lambda repository: repository.retirements.end(node.node, now_ms))
            log.info("storage node retired", node=node.node[:8].hex())
            await self.load()
        finally:
            coordinator.registry.closing = None

    async def _strike(self, number: int, held: list[tuple[int, ...]]) -> None:
        coordinator = self._coordinator
        for group in groups(held):
            after = (b"", b"")
            while page := await coordinator.database.read(partial(_page, group, after)):
                after = page[-1]
                await coordinator.database.write(partial(_release, page, number, self._others(), coordinator.replicas))


def _page(
    held: list[tuple[int, ...]], after: tuple[bytes, bytes], repository: Repository
) -> list[tuple[Pseudonym, ChunkId]]:
    return repository.chunks.held_by(held, after, PAGE)


def _release(
    page: list[tuple[Pseudonym, ChunkId]],
    number: int,
    others: frozenset[int],
    replicas: int,
    repository: Repository,
) -> None:
    repository.chunks.release(page, number, others, replicas)
