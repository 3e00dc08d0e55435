"""Ask other devices for chunks and segments: one connection to each, several requests on the way, each answer checked.

Rule 1: what is yielded has the hash that was asked for; a device that sends anything else is left alone for a while.
Rule 2: time counts only while something is asked for: a device that sends nothing for :data:`STALLED_S`, or less than
    :data:`SLOWEST_BYTES_PER_S` in the mean, is left alone for a while, and all that it owed is asked for elsewhere.
Rule 3: nobody is asked about a folder that his account is not a member of.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Collection, Sequence
from typing import Final, NamedTuple, TypeAlias, TypeVar

import structlog
from blake3 import blake3

from peer.core.chunk_sealing import decompress
from peer.core.lan import LanDevice, avoid_s
from peer.engine.tasks import end
from peer.lan.doors import Stream
from protocol import lan, limits
from protocol.chunks import check_chunk
from protocol.effects import Clock, Processor
from protocol.errors import CorruptChunkError, KinfolderError, ProtocolError, UnavailableError
from protocol.ids import ChunkId, FolderId
from protocol.lan import End, GetChunks, GetSegments, Greeting, Parts, Refused, Request, Wanted

STALLED_S: Final = 6.0
SLOWEST_BYTES_PER_S: Final = limits.MIB
LOOK_S: Final = 0.25
"""Between looks whether a device that was asked gets on."""
ASKED_MAX: Final = 3
"""How many devices are asked for the same things before the storage nodes are."""
REQUESTS_MAX: Final = 6
"""On the way at once, to all devices together; each is for at most :data:`protocol.limits.LAN_REQUEST_BYTES_MAX`."""
NOT_HERE_S: Final = 30.0
"""How long a device that does not have a folder is not asked for it again."""
IN_POOL_BYTES: Final = 128 * limits.KIB
"""From this size on, a chunk is unpacked and hashed in the pool."""

T = TypeVar("T")
log = structlog.get_logger("lan")


class Found(NamedTuple):
    """One thing that was asked for, checked."""

    number: int
    """Which, in the request."""
    data: bytes | bytearray


Group: TypeAlias = list[tuple[lan.Part, bytearray]]


class _Asked:
    """A request on its way."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self.bytes = sum(one.length for one in request.chunks) if isinstance(request, GetChunks) else 0
        self.answers: asyncio.Queue[Group | KinfolderError | None] = asyncio.Queue(maxsize=2)
        """Parts as they came together; None: the answer is complete."""
        self.is_gone = False
        """Nobody waits for it any more."""
        if isinstance(request, GetChunks):
            self.open: dict[int, int | None] = {i: one.length for i, one in enumerate(request.chunks)}
        else:
            self.open = dict.fromkeys(range(len(request.ids)))


class PeerConnection:
    """One connection on which this device asks."""

    def __init__(self, device: LanDevice, address: str, stream: Stream, clock: Clock) -> None:
        self.device = device
        self.address = address
        self.received_bytes = 0
        self._stream = stream
        self._clock = clock
        self._next_id = 1
        self._asked: dict[int, _Asked] = {}
        self._slots = asyncio.Semaphore(limits.LAN_REQUESTS_IN_FLIGHT_MAX)
        self._reader: asyncio.Task[None] | None = None
        self._watch: asyncio.Task[None] | None = None
        self._not_here: dict[FolderId, float] = {}
        self.closed = asyncio.Event()

    async def greet(self) -> None:
        """Greet, and begin to read answers.

        Raises:
            KinfolderError: The other side is none of ours, or speaks otherwise.
        """
        await self._stream.write_frame(0, Greeting(lan.LAN_VERSION))
        frame = await self._stream.read_frame()
        if frame.id != 0 or not isinstance(frame.body, Greeting) or frame.body.version < 1:
            raise ProtocolError("a device on the LAN does not greet")
        self._reader = asyncio.create_task(self._read(), name="lan-reader")

    @property
    def pending_bytes(self) -> int:
        """How much is on its way."""
        return sum(asked.bytes for asked in self._asked.values())

    def may_have(self, folder: FolderId) -> bool:
        """Whether the device did not just say that it has no such folder."""
        return self._not_here.get(folder, 0.0) <= self._clock.monotonic_s()

    async def ask(self, request: Request) -> AsyncGenerator[Group, None]:
        """Send a request and yield the parts of its answer as they come; not checked but for their lengths.

        Raises:
            KinfolderError: The device has gone, stalls, or answers what it must not.
        """
        async with self._slots:
            if self.closed.is_set():
                raise UnavailableError("the device has gone")
            id, self._next_id = self._next_id, self._next_id + 1
            await self._stream.write_frame(id, request)
            # Nothing came between writing and this, so requests are remembered in the order in which they were sent.
            self._asked[id] = asked = _Asked(request)
            if self._watch is None:
                self._watch = asyncio.create_task(self._look(), name="lan-watch")
            try:
                while (answer := await asked.answers.get()) is not None:
                    if isinstance(answer, KinfolderError):
                        raise answer
                    yield answer
            finally:
                # Where nobody wants the rest, it is read and dropped, so that later answers can be told apart.
                asked.is_gone = True
                while not asked.answers.empty():
                    asked.answers.get_nowait()

    async def _read(self) -> None:
        """Read answers until the connection ends."""
        failure: KinfolderError = UnavailableError("the device has gone")
        try:
            while True:
                frame = await self._stream.read_frame()
                asked = self._asked.get(frame.id)
                # Answers come in the order asked.
                if asked is None or frame.id != next(iter(self._asked)):
                    raise ProtocolError("an answer to nothing that was asked")
                match frame.body:
                    case Parts():
                        await self._take_parts(asked, frame.body)
                    case End():
                        await self._answer(asked, None)
                        del self._asked[frame.id]
                    case Refused(code):
                        if code == "folder":
                            self._not_here[asked.request.folder] = self._clock.monotonic_s() + NOT_HERE_S
                        await self._answer(asked, None)
                        del self._asked[frame.id]
                    case _:
                        raise ProtocolError("a message that is no answer")
        except KinfolderError as error:
            failure = error
        finally:
            self.closed.set()
            self._stream.close()
            for asked in self._asked.values():
                _fail(asked, failure)
            self._asked.clear()

    async def _take_parts(self, asked: _Asked, parts: Parts) -> None:
        lan.check_parts(parts, asked.open)
        group: Group = []
        for part in parts.parts:
            del asked.open[part.index]
            data = bytearray(part.length)
            await self._stream.read_into(memoryview(data))
            self.received_bytes += part.length
            group.append((part, data))
        await self._answer(asked, group)

    @staticmethod
    async def _answer(asked: _Asked, answer: Group | None) -> None:
        while not asked.is_gone:
            # Whoever asked may be slower than the LAN: reading waits for him, and with it the other side.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_S):
                    await asked.answers.put(answer)
                    return

    async def _look(self) -> None:
        """End the connection if what was asked for comes too slowly."""
        left_s, at_s, seen = STALLED_S, self._clock.monotonic_s(), self._stream.received_bytes
        while self._asked and not self.closed.is_set():
            await asyncio.sleep(LOOK_S)
            now_s, count = self._clock.monotonic_s(), self._stream.received_bytes
            if any(asked.answers.full() for asked in self._asked.values()):
                left_s = STALLED_S  # it is this side that is slow
            left_s = min(STALLED_S, left_s + (count - seen) / SLOWEST_BYTES_PER_S - min(now_s - at_s, 4 * LOOK_S))
            at_s, seen = now_s, count
            if left_s <= 0:
                log.info("a device on the LAN stalls", device=self.device.device.hex()[:8])
                for asked in self._asked.values():
                    _fail(asked, UnavailableError("the device stalls"))
                self.close()
        self._watch = None

    def close(self) -> None:
        """End the connection; whoever waits for an answer is told."""
        self._stream.close()
        self.closed.set()

    async def wait_closed(self) -> None:
        """Wait until nothing of it runs any more."""
        self.close()
        await end([task for task in (self._reader, self._watch) if task is not None])


def _fail(asked: _Asked, failure: KinfolderError) -> None:
    while asked.answers.full():
        asked.answers.get_nowait()
    asked.answers.put_nowait(failure)


class LanClient:
    """Gets things from whichever connected devices have them.

    Args:
        clock: The time.
        processor: Hashes what is large.
        may_read: Whether a device's account is a member of a folder.
    """

    def __init__(self, clock: Clock, processor: Processor, may_read: Callable[[LanDevice, FolderId], bool]) -> None:
        self._clock = clock
        self._processor = processor
        self._may_read = may_read
        self.peers: dict[LanDevice, PeerConnection] = {}
        self._slots = asyncio.Semaphore(REQUESTS_MAX)
        self._failures: dict[LanDevice, int] = {}
        self._avoid: dict[LanDevice, float] = {}
        self.received_bytes = 0
        """Bytes of chunks and segments that came over the LAN, as they stood on the wire, and were good."""

    def is_avoided(self, device: LanDevice) -> bool:
        """Whether a device failed lately."""
        return self._avoid.get(device, 0.0) > self._clock.monotonic_s()

    async def chunks(
        self, folder: FolderId, wanted: Sequence[Wanted]
    ) -> AsyncGenerator[tuple[Wanted, bytes | bytearray], None]:
        """Yield those raw chunks that some device has, in any order."""
        for part in _parts(wanted):
            async for index, data in self._from_any(folder, part, lambda some: GetChunks(folder, some)):
                yield part[index], data

    async def segments(
        self, folder: FolderId, ids: Sequence[ChunkId]
    ) -> AsyncGenerator[tuple[ChunkId, bytes | bytearray], None]:
        """Yield those sealed segments that some device has, in any order."""
        for start in range(0, len(ids), limits.LAN_REQUEST_SEGMENTS_MAX):
            part = ids[start : start + limits.LAN_REQUEST_SEGMENTS_MAX]
            async for index, data in self._from_any(folder, part, lambda some: GetSegments(folder, some)):
                yield part[index], data

    async def _from_any(
        self, folder: FolderId, wanted: Sequence[T], ask: Callable[[tuple[T, ...]], Request]
    ) -> AsyncGenerator[Found, None]:
        """Ask one device after the other for what is still missing."""
        missing = dict.fromkeys(range(len(wanted)))
        tried: set[LanDevice] = set()
        while missing and len(tried) < ASKED_MAX and (peer := self._next_to_ask(folder, tried)) is not None:
            tried.add(peer.device)
            asked = list(missing)
            async with (
                self._slots,
                contextlib.aclosing(self._get(peer, ask(tuple(wanted[i] for i in asked)))) as answer,
            ):
                async for found in answer:
                    del missing[asked[found.number]]
                    yield Found(asked[found.number], found.data)

    def _next_to_ask(self, folder: FolderId, tried: Collection[LanDevice]) -> PeerConnection | None:
        """Return the device with the least on its way among those that may have something."""
        waiting = [
            peer
            for device, peer in self.peers.items()
            if device not in tried
            and not peer.closed.is_set()
            and peer.may_have(folder)
            and not self.is_avoided(device)
            and self._may_read(device, folder)
        ]
        return min(waiting, key=lambda peer: (peer.pending_bytes, peer.received_bytes), default=None)

    async def _get(self, peer: PeerConnection, request: Request) -> AsyncGenerator[Found, None]:
        """Yield what a device has of what is asked for, checked; blame it for what is wrong."""
        try:
            async with contextlib.aclosing(peer.ask(request)) as answers:
                async for group in answers:
                    size = sum(len(data) for _, data in group)
                    if size < IN_POOL_BYTES:
                        good = _check(request, group)
                    else:
                        good = await self._processor.run(_check, request, group)
                    self.received_bytes += size
                    for found in good:
                        yield found
        except KinfolderError as error:
            self.blame(peer.device, error)
            peer.close()
        else:
            self._failures.pop(peer.device, None)

    def blame(self, device: LanDevice, error: KinfolderError) -> None:
        """Leave a device alone for a while; longer each time in a row, and at once longest for what no honest one does."""
        is_false = isinstance(error, CorruptChunkError | ProtocolError)
        self._failures[device] = count = self._failures.get(device, 0) + (8 if is_false else 1)
        self._avoid[device] = self._clock.monotonic_s() + avoid_s(count)
        log.info("a device on the LAN failed", device=device.device.hex()[:8], error=type(error).__name__)


def _check(request: Request, group: Group) -> list[Found]:
    """Return parts as what was asked for.

    Raises:
        CorruptChunkError: One is something else.
    """
    good = []
    for part, data in group:
        if isinstance(request, GetSegments):
            check_chunk(data, request.ids[part.index])
            good.append(Found(part.index, bytes(data)))
            continue
        wanted = request.chunks[part.index]
        raw = bytes(decompress(data, wanted.length)) if part.encoding is lan.Encoding.ZSTD else data
        if blake3(raw).digest() != wanted.hash:
            raise CorruptChunkError("a device on the LAN sent other bytes than it was asked for")
        good.append(Found(part.index, raw))
    return good


def _parts(wanted: Sequence[Wanted]) -> list[list[Wanted]]:
    """Return what is wanted in parts that one request may ask for."""
    parts: list[list[Wanted]] = []
    size = 0
    for one in dict.fromkeys(wanted):
        if (
            not parts
            or size + one.length > limits.LAN_REQUEST_BYTES_MAX
            or len(parts[-1]) == limits.LAN_REQUEST_CHUNKS_MAX
        ):
            parts.append([])
            size = 0
        parts[-1].append(one)
        size += one.length
    return parts
