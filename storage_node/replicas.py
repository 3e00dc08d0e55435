"""The other storage nodes, as this one uses them: hand a batch on, pull chunks.

Rule 1: a node is who its pinned certificate says, or stands on this machine; the coordinator names both.
Rule 2: a slow or silent node costs a bounded time and a bounded number of bytes.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Final

from protocol import limits
from protocol.chunk_api import (
    GET_PATH,
    PUT_PATH,
    REPLY_BYTES_MAX,
    ChunkFrom,
    GetReader,
    check_receipt,
    decode_failure,
    decode_put_reply,
    encode_wanted,
)
from protocol.effects import ChunkNodes, ChunkReply, ChunkRequest
from protocol.errors import KinfolderError, ProtocolError, UnavailableError
from protocol.grants import ReceiptFor, Signed, Statement
from protocol.ids import ChunkId, StorageNodeId
from protocol.messages import NodeAddress

CONNECT_S: Final = 5.0
STALL_S: Final = 10.0
"""How long a node may take no byte, or give none, before it is left."""
DURABLE_S: Final = 30.0
"""How long it may take to answer once it has everything."""
QUEUE_BYTES_MAX: Final = 512 * limits.KIB


class Forward:
    """A batch on its way to one other node: fed as it arrives, answered with a receipt or a code.

    Args:
        node: The other node.
    """

    def __init__(self, node: StorageNodeId) -> None:
        self.node = node
        self.task: asyncio.Task[ReceiptFor] | None = None
        self._pieces: deque[bytes] = deque()
        self._queued = 0
        self._is_over = False
        self._is_abandoned = False
        self._changed = asyncio.Event()

    async def feed(self, data: bytes) -> None:
        """Hand bytes on; waits for a slow node for a while and then leaves it."""
        if self._is_abandoned or self.task is None or self.task.done():
            return
        self._pieces.append(data)
        self._queued += len(data)
        self._changed.set()
        try:
            async with asyncio.timeout(STALL_S):
                while self._queued > QUEUE_BYTES_MAX and not self.task.done():
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            self.abandon()

    def finish(self) -> None:
        """Say that the batch is complete."""
        self._is_over = True
        self._changed.set()

    def abandon(self) -> None:
        """Break it off: the node must not think that the batch is complete."""
        self._is_abandoned = True
        self._pieces.clear()
        self._queued = 0
        if self.task is not None:
            self.task.cancel()

    async def body(self) -> AsyncIterator[bytes]:
        """Yield what is fed."""
        while True:
            while self._pieces:
                data = self._pieces.popleft()
                yield data
                self._queued -= len(data)
                self._changed.set()
            if self._is_over:
                return
            self._changed.clear()
            await self._changed.wait()

    def woken(self, _: object) -> None:
        """Wake whoever feeds: the task ended."""
        self._changed.set()

    async def outcome(self) -> ReceiptFor | str:
        """Return the receipt, or the code of what went wrong."""
        if self.task is None:
            return "unknown_node"
        await asyncio.wait([self.task], timeout=DURABLE_S)
        if not self.task.done() or self.task.cancelled():
            self.abandon()
            return UnavailableError.code
        error = self.task.exception()
        if error is None:
            return self.task.result()
        return error.code if isinstance(error, KinfolderError) else KinfolderError.code


class Replicas:
    """The nodes that the coordinator knows, as they can be used.

    Args:
        door: The way to them.
    """

    def __init__(self, door: ChunkNodes) -> None:
        self._door = door
        self._nodes: dict[StorageNodeId, NodeAddress] = {}

    def learn(self, nodes: Sequence[NodeAddress]) -> None:
        """Take over the coordinator's list."""
        self._nodes = {node.id: node for node in nodes}

    def forward(self, node: StorageNodeId, grant: Signed, statement: Signed, asked: Statement) -> Forward:
        """Begin to hand a batch on."""
        forward = Forward(node)
        if node in self._nodes:
            forward.task = asyncio.create_task(self._put(forward, grant, statement, asked))
            forward.task.add_done_callback(forward.woken)
            # Whoever asks for the outcome hears of the error; whoever does not has abandoned it.
            forward.task.add_done_callback(lambda task: task.cancelled() or task.exception())
        return forward

    async def get(
        self, node: StorageNodeId, ids: Sequence[ChunkId], grant: Signed, statement: Signed
    ) -> AsyncGenerator[tuple[ChunkId, bytes], None]:
        """Yield those of the chunks that another node gives, unchecked.

        Raises:
            UnavailableError: It cannot be reached, or broke off.
            KinfolderError: It refused, or sent what is not the format.
        """
        wanted = [ChunkFrom(id, 0) for id in ids]
        reader = GetReader(wanted)
        async with self._ask(node, ChunkRequest(GET_PATH, grant, statement, encode_wanted(wanted)), STALL_S) as reply:
            await _check(reply)
            while data := await reply.read():
                for one, chunk in reader.feed(data):
                    if chunk is not None:
                        yield one.id, chunk
        reader.finish()

    async def _put(self, forward: Forward, grant: Signed, statement: Signed, asked: Statement) -> ReceiptFor:
        request = ChunkRequest(PUT_PATH, grant, statement, forward.body())
        # While a body is sent nothing is read: only the answer to one that is already there may not stall.
        async with self._ask(forward.node, request, None) as answer:
            await _check(answer)
            reply = decode_put_reply(await _read(answer))
        if len(reply.receipts) != 1:
            raise ProtocolError("another node sent no receipt")
        check_receipt(reply.receipts[0], node=forward.node, statement=asked)
        return reply.receipts[0]

    def _ask(
        self, node: StorageNodeId, request: ChunkRequest, silent_s: float | None
    ) -> AbstractAsyncContextManager[ChunkReply]:
        address = self._nodes.get(node)
        if address is None:
            raise UnavailableError("the coordinator does not know that node")
        return self._door.ask(address, request, connect_s=CONNECT_S, silent_s=silent_s)


async def _check(reply: ChunkReply) -> None:
    if reply.status != 200:
        raise decode_failure(await _read(reply))


async def _read(reply: ChunkReply) -> bytes:
    data = bytearray()
    while piece := await reply.read():
        data += piece
        if len(data) > REPLY_BYTES_MAX:
            raise ProtocolError("another node's reply is too long")
    return bytes(data)
