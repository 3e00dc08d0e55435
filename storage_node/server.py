"""The HTTP shell: checks a request before a byte of its body is read, streams, and answers in the words of the protocol.

Rule 1: no byte of a body is read before grant and statement are checked.
Rule 2: memory is taken from a budget before bytes are read; a slow client holds its own share and no more.
Rule 3: every refusal has the same shape; the cause stays here.
Rule 4: a receipt is signed when the store has said that all its chunks are durable, and not before.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Final

import structlog
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.web_protocol import RequestPayloadError

from protocol import limits
from protocol.chunk_api import (
    ABSENT,
    CONTENT_TYPE,
    FORWARD_HEADER,
    GET_PATH,
    GRANT_HEADER,
    HAVE_PATH,
    LIST_BYTES_MAX,
    PUT_BODY_BYTES_MAX,
    PUT_PATH,
    STATEMENT_HEADER,
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
from protocol.effects import Clock
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
from storage_node.connections import GuardedServer, paused, resume, send_continue
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

Answer = Callable[[web.BaseRequest, Admitted], Awaitable[web.StreamResponse]]


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
        self._answers: dict[str, tuple[Operation, int, Answer]] = {
            PUT_PATH: (Operation.PUT, PUT_BODY_BYTES_MAX, self._put),
            HAVE_PATH: (Operation.HAVE, LIST_BYTES_MAX, self._have),
            GET_PATH: (Operation.GET, LIST_BYTES_MAX, self._get),
        }
        self.http = GuardedServer(self._handle)
        """What accepts connections; a factory of asyncio protocols."""

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

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        try:
            return await self._answer(request)
        except KinfolderError as error:
            code = _code(error)
            log.info(
                "refused", path=request.path if request.path in self._answers else "other", code=code, why=error.code
            )
            return _refusal(code)
        except (RequestPayloadError, HttpProcessingError):
            return _refusal(ProtocolError.code)
        except ConnectionError:
            # Nobody reads this answer any more; an error would only be told to nobody, with a traceback.
            return _refusal(UnavailableError.code)
        except Exception as error:  # whatever it is, the client gets a clean answer and the node goes on
            log.exception("a request failed", error=type(error).__name__)
            return _refusal("error")

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        answer = self._answers.get(request.path)
        if answer is None or request.method != "POST" or request.query_string:
            return _refusal("not_found")
        operation, body_bytes_max, respond = answer
        if (request.content_length or 0) > body_bytes_max:
            raise LimitExceededError("body", body_bytes_max)
        admitted = self._custody.admit(
            decode_proof(request.headers.get(GRANT_HEADER)),
            decode_proof(request.headers.get(STATEMENT_HEADER)),
            operation,
            now_ms=self._clock.now_ms(),
            now_s=self._clock.monotonic_s(),
        )
        self.http.prove(request)
        return await respond(request, admitted)

    # --- put

    async def _put(self, request: web.BaseRequest, admitted: Admitted) -> web.StreamResponse:
        asked = admitted.statement
        kept = _Kept()
        try:
            if asked.bytes > (await self._store.stats()).free_bytes:
                raise FullError("the store is full")
            others = tuple(dict.fromkeys(node for node in asked.nodes if node != self._identity.node))
            forwards = others if request.headers.get(FORWARD_HEADER) == "1" else ()
            lane = self._forwarding if forwards else self._reading
            async with paused(request, is_needed=lane.is_full), lane.enter():
                resume(request)
                await send_continue(request, request.writer)
                return await self._receive(request, admitted, forwards, kept)
        finally:
            self._custody.give_back(admitted, asked.bytes - kept.bytes, asked.count - kept.chunks)

    async def _receive(
        self, request: web.BaseRequest, admitted: Admitted, others: tuple[bytes, ...], kept: _Kept
    ) -> web.StreamResponse:
        grant = decode_proof(request.headers[GRANT_HEADER])
        statement = decode_proof(request.headers[STATEMENT_HEADER])
        forwards = [
            self._replicas.forward(node, grant, statement, admitted.statement)  # type: ignore[arg-type]
            for node in others
        ]
        writes: list[asyncio.Task[None]] = []
        try:
            chunks = await self._read_batch(request, admitted, forwards, writes, kept)
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
        request: web.BaseRequest,
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
            async for data in _body(request, admitted.statement.bytes):
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

    async def _have(self, request: web.BaseRequest, admitted: Admitted) -> web.StreamResponse:
        ids = decode_ids(await self._read_list(request), admitted.statement)
        held = await self._store.have(admitted.pseudonym, ids)
        return _reply(encode(HaveReply(self.receipt(admitted.device, admitted.pseudonym, held) if held else None)))

    async def _get(self, request: web.BaseRequest, admitted: Admitted) -> web.StreamResponse:
        wanted = decode_wanted(await self._read_list(request), admitted.statement)
        held = await self._store.have(admitted.pseudonym, [one.id for one in wanted])
        lengths = {ref.id: ref.length for ref in held}
        # A chunk counts whole wherever its answer begins: all of it is read and hashed.
        self._custody.charge(admitted, sum(lengths.get(one.id, 0) for one in wanted), 0)
        response = web.StreamResponse(headers={"Content-Type": CONTENT_TYPE})
        response.enable_chunked_encoding()
        await response.prepare(request)
        try:
            for part in _slices(wanted, lengths):
                size = sum(lengths.get(one.id, 0) for one in part)
                async with self._sending.hold(size), asyncio.timeout(STALL_S + size / SLOWEST_BYTES_PER_S):
                    await self._send(response, admitted.pseudonym, part)
            await response.write_eof()
        except (KinfolderError, TimeoutError) as error:
            # The reply has begun: that it ends too early is all that can be said.
            if request.transport is not None:
                request.transport.abort()
            raise ConnectionAbortedError from error
        return response

    async def _send(self, response: web.StreamResponse, pseudonym: Pseudonym, wanted: tuple[ChunkFrom, ...]) -> None:
        """Read chunks and write them out; when this returns, no byte of them is held any more."""
        found = await self._store.get(pseudonym, [one.id for one in wanted])
        pairs = zip(wanted, found, strict=True)
        await _write(response, [piece for one, data in pairs for piece in encode_found(data, one.offset)])

    async def _read_list(self, request: web.BaseRequest) -> bytes:
        await send_continue(request, request.writer)
        data = bytearray()
        async for piece in _body(request, 0):
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


async def _body(request: web.BaseRequest, size: int) -> AsyncIterator[bytes]:
    """Yield a body as it comes; a client that is too slow breaks off.

    Raises:
        ProtocolError: Too slow, or the body is no HTTP.
    """
    loop = asyncio.get_running_loop()
    end_s = loop.time() + STALL_S + size / SLOWEST_BYTES_PER_S
    while True:
        try:
            async with asyncio.timeout(min(STALL_S, max(0.0, end_s - loop.time()))):
                data = await request.content.readany()
        except TimeoutError as error:
            raise ProtocolError("the body comes too slowly") from error
        if not data:
            return
        yield data


async def _write(response: web.StreamResponse, parts: Sequence[Data | memoryview]) -> None:
    """Write the parts of a reply: big ones as they are, small ones joined."""
    small: list[Data | memoryview] = []
    for part in parts:
        if len(part) < limits.CHUNK_BYTES_MIN:
            small.append(part)
            continue
        if small:
            await response.write(b"".join(small))
            small = []
        await response.write(part)
    if small:
        await response.write(b"".join(small))


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


def _refusal(code: str) -> web.Response:
    return web.Response(status=STATUS[code], body=encode_failure(code), headers={"Content-Type": CONTENT_TYPE})


def _reply(body: bytes) -> web.Response:
    return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE})


assert ABSENT > limits.SEALED_CHUNK_BYTES_MAX
