"""Serve other devices from this disk: who may connect, what may be asked, how much of it at once.

Rule 1: a connection counts after its certificate was found in an account's chain; until then it has
    :data:`protocol.limits.LAN_HANDSHAKE_S_MAX` seconds and a place among few.
Rule 2: every request is judged anew: the device is active, its account a member of the folder.
Rule 3: one request of a connection is answered at a time, and few of all of them, so memory does not depend on who asks.
Rule 4: who takes bytes too slowly loses the connection.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Final, Protocol

import structlog
import zstandard

from peer.core.lan import LanDevice
from peer.engine.tasks import end
from peer.lan.doors import Knock, LanNetwork, Listening, Stream, Trusted
from protocol import lan, limits
from protocol.effects import Clock, Processor
from protocol.errors import AccessDeniedError, KinfolderError, ProtocolError
from protocol.ids import ChunkId, FolderId
from protocol.lan import Encoding, End, GetChunks, GetSegments, Greeting, Part, Parts, Refused, Request, Wanted

GREETING_S: Final = 5.0
FRAME_S: Final = 10.0
"""A frame that has begun must be complete within this time."""
STALLED_S: Final = 10.0
SLOWEST_BYTES_PER_S: Final = 256 * limits.KIB
ANSWERS_MAX: Final = 6
"""Answered at once; each holds a chunk or a MiB of small ones, raw and compressed."""
ACCEPT_PAUSE_S: Final = 0.2
"""After the system had no room for one more connection."""
_PROBE_BYTES: Final = 16 * limits.KIB

log = structlog.get_logger("lan")


class Shelf(Protocol):
    """What one folder holds on this disk; :class:`peer.engine.holdings.Holdings`."""

    def chunks(self, wanted: Sequence[Wanted]) -> AsyncGenerator[list[tuple[Wanted, bytes]], None]:
        """Yield chunks that are here."""

    def segments(self, ids: Sequence[ChunkId]) -> AsyncGenerator[tuple[ChunkId, bytes], None]:
        """Yield sealed segments that can be made here."""


class LanServer:
    """Listens and answers.

    Args:
        shelf: Gives a folder's holdings to a device that may read it; None for all else.
        clock: The time.
        processor: Compresses.
        network: Where to listen.
    """

    def __init__(
        self,
        shelf: Callable[[LanDevice, FolderId], Shelf | None],
        clock: Clock,
        processor: Processor,
        network: LanNetwork,
    ) -> None:
        self._shelf = shelf
        self._clock = clock
        self._processor = processor
        self._network = network
        self._trust: Trusted | None = None
        self._listening: list[Listening] = []
        self._tasks: dict[asyncio.Task[None], None] = {}
        self._handshakes = 0
        self._open: dict[Stream, LanDevice] = {}
        self._answers = asyncio.Semaphore(ANSWERS_MAX)
        self.port = 0
        self.sent_bytes = 0
        """Bytes of chunks and segments that were sent over the LAN."""

    def trust(self, trust: Trusted) -> None:
        """Let in these devices from now on, and no others; who is in and may not be any more is cut off."""
        self._trust = trust
        for stream, device in list(self._open.items()):
            if device not in trust.allowed.values():
                stream.close()

    def listen(self, addresses: Sequence[str], port: int) -> None:
        """Listen on these addresses, under one port.

        Raises:
            OSError: None of them can be listened on.
        """
        failure: OSError | None = None
        for address in addresses:
            try:
                listening = self._network.listen(address, self.port or port)
            except OSError as error:
                failure = error
                continue
            self.port = listening.port
            self._listening.append(listening)
            self._begin(self._accept(listening))
        if not self._listening:
            raise failure or OSError("there is no address to listen on")

    async def close(self) -> None:
        """End every connection, and listen no more."""
        for stream in list(self._open):
            stream.close()
        await end(self._tasks)
        for listening in self._listening:
            listening.close()
        self._listening, self.port = [], 0

    def _begin(self, work: asyncio._CoroutineLike[None]) -> None:
        task = asyncio.create_task(work, name="lan-server")
        self._tasks[task] = None
        task.add_done_callback(self._tasks.pop)

    async def _accept(self, listening: Listening) -> None:
        while True:
            try:
                knock = await listening.accept()
            except OSError:
                await asyncio.sleep(ACCEPT_PAUSE_S)
                continue
            is_full = len(self._open) + self._handshakes >= limits.LAN_CONNECTIONS_MAX
            if self._trust is None or is_full or self._handshakes >= limits.LAN_HANDSHAKES_MAX:
                knock.close()
                continue
            self._handshakes += 1
            self._begin(self._welcome(knock, self._trust))

    async def _welcome(self, knock: Knock, trust: Trusted) -> None:
        """Find out who it is, and serve him."""
        stream: Stream | None = None
        try:
            try:
                stream = await self._let_in(knock, trust)
            finally:
                self._handshakes -= 1
            await self._serve(self._open[stream], stream)
        except (KinfolderError, OSError, TimeoutError) as error:
            log.debug("a connection on the LAN ended", error=type(error).__name__)
        finally:
            if stream is not None:
                stream.close()
                del self._open[stream]

    async def _let_in(self, knock: Knock, trust: Trusted) -> Stream:
        """Find out who it is, and count his connection as open.

        Raises:
            KinfolderError, OSError, TimeoutError: He may not be here.
        """
        stream, device = await knock.open(trust)
        try:
            async with asyncio.timeout(GREETING_S):
                frame = await stream.read_frame()
                if frame.id != 0 or not isinstance(frame.body, Greeting) or frame.body.version < 1:
                    raise ProtocolError("a device on the LAN does not greet")
                await stream.write_frame(0, Greeting(lan.LAN_VERSION))
            # What was true when the handshake began may not be so any more.
            if self._trust is None or device not in self._trust.allowed.values():
                raise AccessDeniedError("a device lost its access")
            if list(self._open.values()).count(device) >= limits.LAN_CONNECTIONS_PER_DEVICE_MAX:
                raise AccessDeniedError("a device has too many connections")
        except BaseException:
            stream.close()
            raise
        self._open[stream] = device
        return stream

    # --- Answering

    async def _serve(self, device: LanDevice, stream: Stream) -> None:
        left, at_s = float(limits.LAN_REQUESTS_BURST), self._clock.monotonic_s()
        while True:
            await stream.wait_readable()
            async with asyncio.timeout(FRAME_S):
                frame = await stream.read_frame()
            now_s = self._clock.monotonic_s()
            left = min(limits.LAN_REQUESTS_BURST, left + (now_s - at_s) * limits.LAN_REQUESTS_PER_S) - 1
            at_s = now_s
            if left < 0:
                await asyncio.sleep(-left / limits.LAN_REQUESTS_PER_S)
            if not isinstance(frame.body, GetChunks | GetSegments):
                raise ProtocolError("a device asks what only answers say")
            lan.check_request(frame.body)
            shelf = self._shelf(device, frame.body.folder)
            if shelf is None:
                await stream.write_frame(frame.id, Refused("folder"))
                continue
            async with self._answers:
                await self._answer(stream, frame.id, frame.body, shelf)

    async def _answer(self, stream: Stream, id: int, request: Request, shelf: Shelf) -> None:
        is_near = stream.is_loopback
        loop = asyncio.get_running_loop()
        budget_s = STALLED_S
        async with contextlib.aclosing(_groups(request, shelf)) as groups:
            async for found in groups:
                if isinstance(request, GetChunks) and not is_near:
                    packed = await self._processor.run(_pack_all, found)
                else:
                    packed = [(index, Encoding.RAW, data) for index, data in found]
                began_s = loop.time()
                async with asyncio.timeout(budget_s):
                    parts = tuple(Part(index, encoding, len(data)) for index, encoding, data in packed)
                    await stream.write_frame(id, Parts(parts))
                    if len(packed) > 1:
                        await stream.write(b"".join(data for _, _, data in packed))
                    else:
                        await stream.write(packed[0][2])
                size = sum(part.length for part in parts)
                self.sent_bytes += size
                budget_s = min(STALLED_S, budget_s + size / SLOWEST_BYTES_PER_S - (loop.time() - began_s))
        async with asyncio.timeout(STALLED_S):
            await stream.write_frame(id, End())


async def _groups(request: Request, shelf: Shelf) -> AsyncGenerator[list[tuple[int, bytes]], None]:
    """Yield what is here, each with its number in the request, once each."""
    if isinstance(request, GetChunks):
        numbers = {wanted: number for number, wanted in enumerate(request.chunks)}
        async with contextlib.aclosing(shelf.chunks(list(numbers))) as groups:
            async for group in groups:
                if group:
                    yield [(numbers[wanted], data) for wanted, data in group]
        return
    places = {segment: number for number, segment in enumerate(request.ids)}
    async with contextlib.aclosing(shelf.segments(list(places))) as segments:
        async for segment, data in segments:
            yield [(places[segment], data)]


def _pack_all(found: Sequence[tuple[int, bytes]]) -> list[tuple[int, Encoding, bytes]]:
    return [(index, *_pack(data)) for index, data in found]


def _pack(raw: bytes) -> tuple[Encoding, bytes]:
    """Return how a chunk travels: compressed where a look at its middle says that this is worth while."""
    if len(raw) > _PROBE_BYTES:
        start = (len(raw) - _PROBE_BYTES) // 2
        probe = zstandard.ZstdCompressor(level=1).compress(raw[start : start + _PROBE_BYTES])
        if len(probe) > _PROBE_BYTES * 7 // 8:
            return Encoding.RAW, raw
    packed = zstandard.ZstdCompressor(level=1).compress(raw)
    return (Encoding.ZSTD, packed) if len(packed) < len(raw) * 7 // 8 else (Encoding.RAW, raw)
