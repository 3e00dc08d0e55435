"""Chunks to and from storage nodes: batches, several nodes, each answer checked.

A put goes to one node, which forwards it, so the device sends each chunk once. Where that node is away or a replica
fails, the next nodes by preference are asked until the write quorum holds the batch. A get asks one node after the
other for what is still missing.

Rule 1: a receipt counts only after its signature, its node and its batch were checked.
Rule 2: a chunk counts only if its BLAKE3 is its id; a node that sends other bytes is asked last from then on.
Rule 3: at most :data:`BATCHES_IN_FLIGHT` batches are on the way, whatever the caller wants.
Rule 4: a node's URL, certificate and bytes are its own word: whatever is wrong with them is a failure of that node, costs
    a bounded time and a bounded number of bytes, and leads to no other host.
Rule 5: what came of a chunk before its transfer was cut is kept (:mod:`peer.store.parts`), and the next request asks for the
    rest, of whichever node. It counts under rule 2 as a whole; where that fails, all of it is asked for anew.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Final

import structlog

from peer.net.grants import Allowance, Grants
from peer.store.parts import Parts
from protocol import chunk_api as api
from protocol import limits
from protocol.chunks import check_chunk
from protocol.effects import ChunkNodes, ChunkReply, ChunkRequest, Clock, Processor
from protocol.errors import (
    AccessDeniedError,
    CorruptChunkError,
    FullError,
    KinfolderError,
    NoQuorumError,
    NoSourceError,
    ProtocolError,
    UnavailableError,
)
from protocol.grants import ChunkRef, Operation, Receipt, ReceiptFor, Signed, Statement, open_receipt, open_signed
from protocol.ids import ChunkId, FolderId, StorageNodeId, storage_node_id
from protocol.messages import NodeAddress

BATCHES_IN_FLIGHT: Final = 4
CONNECT_S: Final = 5.0
STALLED_S: Final = 30.0
SLOWEST_BYTES_PER_S: Final = 16 * limits.KIB
"""A request may take ``STALLED_S``, and beyond it as long as its bytes take at this rate; as storage nodes have it."""
NO_QUORUM: Final = "the write quorum is not there"
AVOID_S: Final = 30.0
PROBE_S: Final = 1.0
PROBED_MAX: Final = 64
"""Nodes that are asked at once whether they are there."""
READ_BYTES: Final = 1 << 20

_FAILURES: Final = (TimeoutError, OSError, ValueError, KinfolderError)
"""What a node can cause."""

log = structlog.get_logger("chunk_client")


class ChunkClient:
    """One device's way to all storage nodes."""

    def __init__(self, nodes: ChunkNodes, grants: Grants, clock: Clock, processor: Processor, parts: Parts) -> None:
        self._nodes = nodes
        self._grants = grants
        self._clock = clock
        self._processor = processor
        self._parts = parts
        self._slots = asyncio.Semaphore(BATCHES_IN_FLIGHT)
        self._avoid: dict[StorageNodeId, float] = {}
        self._gets = 0
        self.sent_bytes = 0
        """Sealed bytes handed to storage nodes by this process; each batch counts once, however often it is forwarded."""
        self.received_bytes = 0

    async def close(self) -> None:
        """Close all connections."""
        await self._nodes.close()

    async def tidy(self) -> None:
        """Remove beginnings of chunks that nobody asked for again."""
        await self._processor.run(self._parts.sizes)

    async def put(
        self, folder: FolderId, chunks: Sequence[tuple[ChunkRef, bytes | bytearray]]
    ) -> tuple[ReceiptFor, ...]:
        """Store a batch and return the receipts of at least a write quorum of nodes.

        Raises:
            NoQuorumError: Too few nodes took it.
            UnavailableError: The coordinator cannot be asked for a grant.
        """
        refs = [ref for ref, _ in chunks]
        size = sum(ref.length for ref in refs)
        async with self._slots:
            allowance = await self._grants.get(folder, Operation.PUT, size=size, chunks=len(refs))
            granted = allowance.granted
            waiting = self._by_preference(granted.nodes)
            receipts: dict[StorageNodeId, ReceiptFor] = {}
            full: set[StorageNodeId] = set()
            while waiting and len(receipts) < granted.quorum:
                targets = waiting[: granted.replicas - len(receipts)]
                reply = await self._put_once(allowance, targets, chunks, refs, full)
                receipts |= reply
                # Where nothing came back, only the node that was asked is known to fail; replicas that are missed
                # although the quorum stands are made up for by the coordinator.
                waiting = waiting[len(targets) if reply else 1 :]
            if len(receipts) < granted.quorum:
                self._grants.forget(folder)
                raise NoQuorumError(
                    f"{len(receipts)} of {granted.quorum} storage nodes took the bytes: "
                    + (f"{len(full)} without room, which takes a larger disk or another node" if full else NO_QUORUM)
                )
            self.sent_bytes += size
            return tuple(receipts.values())

    async def get(self, folder: FolderId, ids: Sequence[ChunkId]) -> AsyncGenerator[tuple[ChunkId, bytes], None]:
        """Yield the chunks of a batch as they arrive, each checked against its id, in any order.

        Raises:
            NoSourceError: Some of them no node has; the others were yielded.
            UnavailableError: The coordinator cannot be asked for a grant.
        """
        missing = dict.fromkeys(ids)
        async with self._slots:
            allowance = await self._grants.get(folder, Operation.GET, size=0, chunks=len(ids))
            self._gets += 1
            waiting = self._spread(self._by_preference(allowance.granted.nodes), allowance.granted.replicas)
            anew = False
            while waiting and missing:
                wanted = [api.ChunkFrom(id, 0) for id in missing] if anew else await self._wanted(missing)
                is_false = False
                try:
                    async with contextlib.aclosing(self._get_from(allowance, waiting[0], wanted)) as found:
                        async for id, data in found:
                            if data is None:
                                is_false = True
                                continue
                            del missing[id]
                            yield id, data
                except _FAILURES as error:
                    self._blame(waiting[0], error)
                    is_false = False
                # A beginning that proved false need not be this node's: once more, and from the first byte.
                anew = is_false and not anew
                if not anew:
                    waiting.pop(0)
        if missing:
            self._grants.forget(folder)
            raise NoSourceError(f"{len(missing)} chunks are on no storage node that can be reached")

    async def _wanted(self, ids: Collection[ChunkId]) -> list[api.ChunkFrom]:
        """Return what to ask for: of each chunk what no part of it holds."""
        sizes = await self._processor.run(self._parts.sizes)
        return [api.ChunkFrom(id, sizes.get(id, 0)) for id in ids]

    async def have(self, folder: FolderId, refs: Sequence[ChunkRef]) -> tuple[tuple[ReceiptFor, ...], set[ChunkId]]:
        """Ask the nodes that should hold a batch which of it they do; return their receipts, and what a write quorum holds.

        A node that does not answer counts as one that holds nothing.

        Raises:
            UnavailableError: The coordinator cannot be asked for a grant.
        """
        async with self._slots:
            allowance = await self._grants.get(folder, Operation.HAVE, size=0, chunks=len(refs))
            granted = allowance.granted
            receipts: list[ReceiptFor] = []
            holders: Counter[ChunkId] = Counter()
            for node in self._by_preference(granted.nodes)[: granted.replicas]:
                try:
                    receipt = await self._have_of(allowance, node, refs)
                except _FAILURES as error:
                    self._blame(node, error)
                    continue
                if receipt is not None:
                    receipts.append(receipt)
                    holders.update({chunk.id for chunk in receipt.chunks})
        return tuple(receipts), {id for id, count in holders.items() if count >= granted.quorum}

    async def all_tell(self, folder: FolderId, refs: Sequence[ChunkRef]) -> bool:
        """Whether every node that may hold chunks of a folder tells which of these it does; else nobody knows what is nowhere.

        Raises:
            UnavailableError: The coordinator cannot be asked for a grant.
        """
        async with self._slots:
            allowance = await self._grants.get(folder, Operation.HAVE, size=0, chunks=len(refs))
            try:
                for node in allowance.granted.nodes:
                    await self._have_of(allowance, node, refs)
            except _FAILURES:
                return False
        return True

    async def answering(self, nodes: Sequence[NodeAddress]) -> int:
        """Return how many nodes answer at all, for when nobody else can tell; of very many, the first are asked."""
        return sum(await asyncio.gather(*(self._answers(node) for node in nodes[:PROBED_MAX])))

    # --- One node

    async def _answers(self, node: NodeAddress) -> bool:
        nothing = Signed(b"", b"")
        try:
            async with asyncio.timeout(PROBE_S), self._ask(node, ChunkRequest(api.HAVE_PATH, nothing, nothing, b"")):
                return True  # it refuses, and so it is there
        except _FAILURES:
            return False

    async def _have_of(self, allowance: Allowance, node: NodeAddress, refs: Sequence[ChunkRef]) -> ReceiptFor | None:
        proof = self._grants.state(allowance, Operation.HAVE, [node.id], [ChunkRef(ref.id, 0) for ref in refs])
        request = ChunkRequest(api.HAVE_PATH, allowance.grant, proof, api.encode_ids([ref.id for ref in refs]))
        async with asyncio.timeout(STALLED_S), self._ask(node, request) as reply:
            data = await _read(reply)
            if reply.status != 200:
                raise api.decode_failure(data)
        receipt = api.decode_have_reply(data).receipt
        if receipt is not None:
            open_receipt(receipt, node.id)
            if not set(receipt.chunks) <= set(refs):
                raise ProtocolError("a storage node's receipt is for other chunks than it was asked for")
        return receipt

    async def _put_once(
        self,
        allowance: Allowance,
        targets: Sequence[NodeAddress],
        chunks: Sequence[tuple[ChunkRef, bytes | bytearray]],
        refs: Sequence[ChunkRef],
        full: set[StorageNodeId],
    ) -> dict[StorageNodeId, ReceiptFor]:
        """Send a batch to the first target, which forwards it to the others; return the good receipts by node.

        Those that have no room are added to ``full``.
        """
        first = targets[0]
        proof = self._grants.state(allowance, Operation.PUT, [t.id for t in targets], refs)
        statement = open_signed(proof, Statement)
        by_id = {t.id: t for t in targets}
        good: dict[StorageNodeId, ReceiptFor] = {}
        try:
            request = ChunkRequest(api.PUT_PATH, allowance.grant, proof, _body(chunks, refs), forward=len(targets) > 1)
            size = sum(ref.length for ref in refs)
            async with (
                asyncio.timeout(STALLED_S + size / SLOWEST_BYTES_PER_S),
                self._ask(first, request) as reply,
            ):
                data = await _read(reply)
                if reply.status != 200:
                    raise api.decode_failure(data)
            told = api.decode_put_reply(data)
            for item, node in zip(told.receipts, _nodes_of(told.receipts), strict=True):
                if node in by_id:
                    api.check_receipt(item, node=node, statement=statement)
                    good[node] = item
            for node, code in told.failed:
                if node in by_id:
                    self._blame(by_id[node], UnavailableError(code))
                    full |= {node} if code == FullError.code else set()
        except _FAILURES as error:
            self._blame(first, error)
            full |= {first.id} if isinstance(error, FullError) else set()
            if isinstance(error, AccessDeniedError):
                self._grants.forget_all()
        return good

    async def _get_from(
        self, allowance: Allowance, node: NodeAddress, wanted: Sequence[api.ChunkFrom]
    ) -> AsyncGenerator[tuple[ChunkId, bytes | None], None]:
        """Yield the chunks that a node gives; None: with its beginning it was none, and it should be asked for as a whole."""
        proof = self._grants.state(allowance, Operation.GET, [node.id], [ChunkRef(one.id, 0) for one in wanted])
        request = ChunkRequest(api.GET_PATH, allowance.grant, proof, api.encode_wanted(wanted))
        async with contextlib.AsyncExitStack() as stack:
            async with asyncio.timeout(STALLED_S):
                reply = await stack.enter_async_context(self._ask(node, request))
            if reply.status != 200:
                async with asyncio.timeout(STALLED_S):
                    raise api.decode_failure(await _read(reply))
            reader = api.GetReader(wanted)
            try:
                async with contextlib.aclosing(self._chunks(reply, reader)) as chunks:
                    async for chunk in chunks:
                        yield chunk
            finally:
                if (unfinished := reader.break_off()) is not None:
                    one, data = unfinished
                    await self._processor.run(self._parts.keep, one.id, one.offset, data)

    async def _chunks(
        self, reply: ChunkReply, reader: api.GetReader
    ) -> AsyncGenerator[tuple[ChunkId, bytes | None], None]:
        corrupt = False
        async with contextlib.aclosing(_pieces(reply)) as pieces:
            async for piece in pieces:
                for one, data in reader.feed(piece):
                    if data is None:
                        continue
                    try:
                        whole = await self._whole(one, data)
                    except CorruptChunkError:
                        if one.offset:
                            yield one.id, None
                        else:
                            corrupt = True
                        continue
                    self.received_bytes += len(data)
                    yield one.id, whole
        reader.finish()
        if corrupt:
            raise CorruptChunkError("a storage node sent other bytes than it was asked for")

    async def _whole(self, one: api.ChunkFrom, data: bytes) -> bytes:
        """Return a chunk of which this came; the part that it goes on from is used up, for good or for nothing.

        Raises:
            CorruptChunkError: It is not the one that its id names.
        """
        if one.offset:
            data = await self._processor.run(self._parts.take, one.id) + data
        await self._check(data, one.id)
        return data

    async def _check(self, data: bytes, id: ChunkId) -> None:
        if len(data) < READ_BYTES // 8:
            check_chunk(data, id)
        else:
            await self._processor.run(check_chunk, data, id)

    # --- Nodes

    def _by_preference(self, nodes: Sequence[NodeAddress]) -> list[NodeAddress]:
        """Order nodes as the coordinator does, those that failed us lately last."""
        now = self._clock.monotonic_s()
        return sorted(nodes, key=lambda n: (self._avoid.get(n.id, 0.0) > now, not n.online))

    def _spread(self, nodes: list[NodeAddress], replicas: int) -> list[NodeAddress]:
        """Have each batch begin at another replica, so that several sources serve one download."""
        now = self._clock.monotonic_s()
        good = [n for n in nodes[:replicas] if n.online and self._avoid.get(n.id, 0.0) <= now]
        if not good:
            return nodes
        turn = self._gets % len(good)
        return good[turn:] + good[:turn] + [n for n in nodes if n not in good]

    def _blame(self, node: NodeAddress, error: BaseException) -> None:
        self._avoid[node.id] = self._clock.monotonic_s() + AVOID_S
        log.info("storage node failed", node=node.id.hex()[:8], error=type(error.__cause__ or error).__name__)

    def _ask(self, node: NodeAddress, request: ChunkRequest) -> AbstractAsyncContextManager[ChunkReply]:
        return self._nodes.ask(node, request, connect_s=CONNECT_S, silent_s=STALLED_S)


async def _read(reply: ChunkReply) -> bytes:
    """Return a short reply.

    Raises:
        ProtocolError: It is not short.
    """
    data = bytearray()
    while piece := await reply.read():
        data += piece
        if len(data) > api.REPLY_BYTES_MAX:
            raise ProtocolError("a storage node's reply is too long")
    return bytes(data)


async def _pieces(reply: ChunkReply) -> AsyncGenerator[bytes, None]:
    """Yield a long reply as it arrives; only the time spent waiting for the node counts, not that of whoever takes it.

    Raises:
        UnavailableError: The connection broke; all that had come was yielded.
        TimeoutError: It is slower than any node may be.
    """
    loop = asyncio.get_running_loop()
    left_s = STALLED_S
    while True:
        began_s = loop.time()
        async with asyncio.timeout(left_s):
            piece = await reply.read()
        if not piece:
            return
        left_s += len(piece) / SLOWEST_BYTES_PER_S - (loop.time() - began_s)
        yield piece


async def _body(
    chunks: Sequence[tuple[ChunkRef, bytes | bytearray]], refs: Sequence[ChunkRef]
) -> AsyncIterator[bytes | bytearray]:
    """Yield a put's body: small chunks joined, large ones as they are."""
    joined = bytearray(api.encode_refs(refs))
    for _, data in chunks:
        if len(joined) + len(data) > READ_BYTES:
            yield joined
            joined = bytearray()
        joined += data
    yield joined


def _nodes_of(receipts: Sequence[ReceiptFor]) -> list[StorageNodeId]:
    return [storage_node_id(open_signed(item.receipt, Receipt).node) for item in receipts]
