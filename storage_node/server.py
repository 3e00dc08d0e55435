"""Answers devices and other nodes: checks a request before a byte of its body is read, and streams in bounded memory.

Rule 1: no byte of a body is read before grant and statement are checked.
Rule 2: memory is taken from a budget before bytes are read; a slow client holds its own share and no more.
Rule 3: every refusal has the same shape; the cause stays here.
Rule 4: a receipt is signed when the store has said that all its chunks are durable, and not before.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from typing import Final

import structlog

from protocol import limits
from protocol.chunk_api import (
    ABSENT,
    GET_PATH,
    HAVE_PATH,
    LIST_BYTES_MAX,
    PUT_BODY_BYTES_MAX,
    PUT_PATH,
    STATUS,
    ChunkFrom,
    HaveReply,
    PutReader,
    PutReply,
    decode_ids,
    decode_proof,
    decode_wanted,
    encode_failure,
    encode_found,
)
from protocol.codec import encode
from protocol.effects import BrokenBodyError, ChunkAnswer, ChunkCall, Clock
from protocol.errors import (
    CorruptChunkError,
    FullError,
    KinfolderError,
    LimitExceededError,
    ProtocolError,
    SecurityError,
    UnavailableError,
)
from protocol.grants import ChunkRef, Operation, Receipt, ReceiptFor, batch_root, sign_body
from protocol.ids import ChunkId, DeviceId, Pseudonym
from storage_node.budget import ByteBudget, Lane
from storage_node.chunks.store import ChunkStore, Data
from storage_node.core.custody import Admitted, Custody
from storage_node.identity import Identity
from storage_node.replicas import QUEUE_BYTES_MAX, Forward, Replicas

log = structlog.get_logger("server")

READING_BYTES_MAX: Final = 16 * limits.MIB
"""Held by puts that are being received: the chunk that is not complete, and small ones that wait for company."""
FORWARDING_BYTES_MAX: Final = 16 * limits.MIB
"""The same for those that are handed on. They wait for other nodes and so have a budget of their own: if two nodes waited
for each other's room, neither would ever get on."""
PUTS_MAX: Final = 12
"""How many puts of either kind are read at once ..."""
PUTS_WAITING_MAX: Final = 32
"""... and how many may wait for that with what the socket brought along; the next one is told to come later."""
STORING_BYTES_MAX: Final = 16 * limits.MIB
"""Held by the store on the way to the disk."""
SENDING_BYTES_MAX: Final = 16 * limits.MIB
"""Held by gets on the way to the client."""
SLICE_BYTES: Final = 512 * limits.KIB
"""About as much goes to the store, or comes from it, at once."""
STALL_S: Final = 30.0
"""How long a client may send, or take, nothing at all."""
SLOWEST_BYTES_PER_S: Final = 16 * limits.KIB
"""A body that comes slower than this in the mean is broken off."""

_DONE: Final = 200

Respond = Callable[[ChunkCall, Admitted], Awaitable[ChunkAnswer | None]]


class ChunkServer:
    """Answers the requests of devices and of other nodes.

    Args:
        identity: Signs the receipts.
        store: Keeps the chunks.
        custody: Decides who may do what.
        replicas: The other nodes.
        clock: The time.
    """

    def __init__(
        self, *, identity: Identity, store: ChunkStore, custody: Custody, replicas: Replicas, clock: Clock
    ) -> None:
        self._identity = identity
        self._store = store
        self._custody = custody
        self._replicas = replicas
        self._clock = clock
        self._reading = Lane(READING_BYTES_MAX, PUTS_MAX, PUTS_WAITING_MAX)
        self._forwarding = Lane(FORWARDING_BYTES_MAX, PUTS_MAX, PUTS_WAITING_MAX)
        self._storing = ByteBudget(STORING_BYTES_MAX)
        self._sending = ByteBudget(SENDING_BYTES_MAX)
        self._answers: dict[str, tuple[Operation, int, Respond]] = {
            PUT_PATH: (Operation.PUT, PUT_BODY_BYTES_MAX, self._put),
            HAVE_PATH: (Operation.HAVE, LIST_BYTES_MAX, self._have),
            GET_PATH: (Operation.GET, LIST_BYTES_MAX, self._get),
        }

    def receipt(self, device: DeviceId, pseudonym: Pseudonym, chunks: tuple[ChunkRef, ...]) -> ReceiptFor:
        """Return a fresh receipt for chunks that are durable here."""
        body = Receipt(
            node=self._identity.sign_public,
            pseudonym=pseudonym,
            device=device,
            root=batch_root(chunks),
            count=len(chunks),
            time_ms=self._clock.now_ms(),
            hold_until_ms=0,
        )
        return ReceiptFor(sign_body(body, self._identity.sign_seed), chunks)

    async def answer(self, call: ChunkCall) -> ChunkAnswer | None:
        """Answer a request, whatever it is; None: the reply was sent in pieces."""
        try:
            return await self._answer(call)
        except KinfolderError as error:
            code = _code(error)
            log.info("refused", path=call.path if call.path in self._answers else "other", code=code, why=error.code)
            return _refusal(code)
        except BrokenBodyError:
            return _refusal(ProtocolError.code)
        except ConnectionError:
            # Nobody reads this answer any more; an error would only be told to nobody, with a traceback.
            return _refusal(UnavailableError.code)
        except Exception as error:  # whatever it is, the client gets a clean answer and the node goes on
            log.exception("a request failed", error=type(error).__name__)
            return _refusal("error")

    async def _answer(self, call: ChunkCall) -> ChunkAnswer | None:
        answer = self._answers.get(call.path)
        if answer is None:
            return _refusal("not_found")
        operation, body_bytes_max, respond = answer
        if call.body_bytes > body_bytes_max:
            raise LimitExceededError("body", body_bytes_max)
        admitted = self._custody.admit(
            decode_proof(call.grant),
            decode_proof(call.statement),
            operation,
            now_ms=self._clock.now_ms(),
            now_s=self._clock.monotonic_s(),
        )
        call.prove()
        return await respond(call, admitted)

    # --- put

    async def _put(self, call: ChunkCall, admitted: Admitted) -> ChunkAnswer | None:
        asked = admitted.statement
        kept = _Kept()
        try:
            if asked.bytes > (await self._store.stats()).free_bytes:
                raise FullError("the store is full")
            others = tuple(dict.fromkeys(node for node in asked.nodes if node != self._identity.node))
            forwards = others if call.forward else ()
            lane = self._forwarding if forwards else self._reading
            with _paused(call, is_needed=lane.is_full):
                async with lane.enter():
                    call.resume()
                    await call.go_on()
                    return await self._receive(call, admitted, forwards, kept)
        finally:
            self._custody.give_back(admitted, asked.bytes - kept.bytes, asked.count - kept.chunks)

    async def _receive(
        self, call: ChunkCall, admitted: Admitted, others: tuple[bytes, ...], kept: _Kept
    ) -> ChunkAnswer | None:
        grant = decode_proof(call.grant)
        statement = decode_proof(call.statement)
        forwards = [
            self._replicas.forward(node, grant, statement, admitted.statement)  # type: ignore[arg-type]
            for node in others
        ]
        writes: list[asyncio.Task[None]] = []
        try:
            chunks = await self._read_batch(call, admitted, forwards, writes, kept)
            for forward in forwards:
                forward.finish()
            failure: KinfolderError | None = None
            try:
                await asyncio.gather(*writes)
            except UnavailableError as error:
                if not forwards:
                    raise
                failure = error
            outcomes = await asyncio.gather(*(forward.outcome() for forward in forwards))
        except BaseException:
            for forward in forwards:
                forward.abandon()
            # What is on its way to the disk goes on, and counts as kept.
            await asyncio.gather(*writes, return_exceptions=True)
            raise
        own = [] if failure is not None else [self.receipt(admitted.device, admitted.pseudonym, chunks)]
        failed = [] if failure is None else [(self._identity.node, failure.code)]
        receipts = own + [outcome for outcome in outcomes if isinstance(outcome, ReceiptFor)]
        failed += [(f.node, outcome) for f, outcome in zip(forwards, outcomes, strict=True) if isinstance(outcome, str)]
        if failure is not None and not receipts:
            raise failure
        return _reply(encode(PutReply(tuple(receipts), tuple(failed))))

    async def _read_batch(
        self,
        call: ChunkCall,
        admitted: Admitted,
        forwards: list[Forward],
        writes: list[asyncio.Task[None]],
        kept: _Kept,
    ) -> tuple[ChunkRef, ...]:
        """Read a batch, hand its bytes on as they come, and give its chunks to the store in slices."""
        reader = PutReader(admitted.statement)
        budget = (self._forwarding if forwards else self._reading).bytes
        pieces: list[tuple[ChunkId, bytes]] = []
        size = held = 0
        try:
            async for data in _body(call, admitted.statement.bytes):
                for forward in forwards:
                    await forward.feed(data)
                # No name of ours may keep a chunk alive that the store is done with.
                for chunk, body in reader.feed(data):
                    pieces.append((chunk.id, body))
                    del body
                    size += chunk.length
                    if size >= SLICE_BYTES:
                        writes.append(await self._store_slice(admitted.pseudonym, pieces, size, kept))
                        pieces, size = [], 0
                for write in writes:
                    if write.done():
                        write.result()
                if not held and reader.chunks is not None:
                    wanted = _held_bytes(reader.chunks, len(forwards))
                    await budget.take(wanted)
                    held = wanted
            chunks = reader.finish()
            if pieces:
                writes.append(await self._store_slice(admitted.pseudonym, pieces, size, kept))
            return chunks
        finally:
            budget.give(held)

    async def _store_slice(
        self, pseudonym: Pseudonym, pieces: list[tuple[ChunkId, bytes]], size: int, kept: _Kept
    ) -> asyncio.Task[None]:
        """Begin to store a slice, once there is room for it in memory."""
        await self._storing.take(size)

        async def store() -> None:
            try:
                await self._store.put(pseudonym, pieces)
                kept.bytes += size
                kept.chunks += len(pieces)
            finally:
                self._storing.give(size)

        return asyncio.create_task(store())

    # --- have and get

    async def _have(self, call: ChunkCall, admitted: Admitted) -> ChunkAnswer | None:
        ids = decode_ids(await self._read_list(call), admitted.statement)
        held = await self._store.have(admitted.pseudonym, ids)
        return _reply(encode(HaveReply(self.receipt(admitted.device, admitted.pseudonym, held) if held else None)))

    async def _get(self, call: ChunkCall, admitted: Admitted) -> ChunkAnswer | None:
        wanted = decode_wanted(await self._read_list(call), admitted.statement)
        held = await self._store.have(admitted.pseudonym, [one.id for one in wanted])
        lengths = {ref.id: ref.length for ref in held}
        # A chunk counts whole wherever its answer begins: all of it is read and hashed.
        self._custody.charge(admitted, sum(lengths.get(one.id, 0) for one in wanted), 0)
        await call.begin()
        try:
            for part in _slices(wanted, lengths):
                size = sum(lengths.get(one.id, 0) for one in part)
                async with self._sending.hold(size), asyncio.timeout(STALL_S + size / SLOWEST_BYTES_PER_S):
                    await self._send(call, admitted.pseudonym, part)
            await call.end()
        except (KinfolderError, TimeoutError) as error:
            # The reply has begun: that it ends too early is all that can be said.
            call.abort()
            raise ConnectionAbortedError from error
        return None

    async def _send(self, call: ChunkCall, pseudonym: Pseudonym, wanted: tuple[ChunkFrom, ...]) -> None:
        """Read chunks and write them out; when this returns, no byte of them is held any more."""
        found = await self._store.get(pseudonym, [one.id for one in wanted])
        pairs = zip(wanted, found, strict=True)
        await _write(call, [piece for one, data in pairs for piece in encode_found(data, one.offset)])

    async def _read_list(self, call: ChunkCall) -> bytes:
        await call.go_on()
        data = bytearray()
        async for piece in _body(call, 0):
            data += piece
            if len(data) > LIST_BYTES_MAX:
                raise LimitExceededError("list of ids", LIST_BYTES_MAX)
        return bytes(data)


class _Kept:
    """What of a put is durable by now."""

    def __init__(self) -> None:
        self.bytes = 0
        self.chunks = 0


def _held_bytes(chunks: tuple[ChunkRef, ...], forwards: int) -> int:
    """Return what receiving a batch holds in memory at most: one chunk, a slice, and what other nodes have not taken."""
    size = sum(chunk.length for chunk in chunks)
    return min(size, max(chunk.length for chunk in chunks) + SLICE_BYTES) + forwards * min(size, QUEUE_BYTES_MAX)


@contextlib.contextmanager
def _paused(call: ChunkCall, *, is_needed: bool) -> Iterator[None]:
    """Take nothing of a body until it is resumed, or until the context ends: what waits must not fill buffers."""
    if is_needed:
        call.pause()
    try:
        yield
    finally:
        call.resume()


async def _body(call: ChunkCall, size: int) -> AsyncIterator[bytes]:
    """Yield a body as it comes; a client that is too slow breaks off.

    Raises:
        ProtocolError: Too slow.
        BrokenBodyError, ConnectionError: It ended before its end.
    """
    loop = asyncio.get_running_loop()
    end_s = loop.time() + STALL_S + size / SLOWEST_BYTES_PER_S
    while True:
        try:
            async with asyncio.timeout(min(STALL_S, max(0.0, end_s - loop.time()))):
                data = await call.read()
        except TimeoutError as error:
            raise ProtocolError("the body comes too slowly") from error
        if not data:
            return
        yield data


async def _write(call: ChunkCall, parts: Sequence[Data | memoryview]) -> None:
    """Write the parts of a reply: big ones as they are, small ones joined."""
    small: list[Data | memoryview] = []
    for part in parts:
        if len(part) < limits.CHUNK_BYTES_MIN:
            small.append(part)
            continue
        if small:
            await call.write(b"".join(small))
            small = []
        await call.write(part)
    if small:
        await call.write(b"".join(small))


def _slices(wanted: tuple[ChunkFrom, ...], lengths: dict[ChunkId, int]) -> list[tuple[ChunkFrom, ...]]:
    """Return what is wanted in runs whose chunks are about SLICE_BYTES together."""
    slices: list[tuple[ChunkFrom, ...]] = []
    begin, size = 0, 0
    for end, one in enumerate(wanted, 1):
        size += lengths.get(one.id, 0)
        if size >= SLICE_BYTES or end == len(wanted):
            slices.append(wanted[begin:end])
            begin, size = end, 0
    return slices


def _code(error: KinfolderError) -> str:
    """Return what a client is told: nothing about which check failed."""
    match error:
        case SecurityError():
            return "access_denied"
        case CorruptChunkError():
            return ProtocolError.code
        case _:
            return error.code if error.code in STATUS else "error"


def _refusal(code: str) -> ChunkAnswer:
    return ChunkAnswer(STATUS[code], encode_failure(code))


def _reply(body: bytes) -> ChunkAnswer:
    return ChunkAnswer(_DONE, body)


assert ABSENT > limits.SEALED_CHUNK_BYTES_MAX
