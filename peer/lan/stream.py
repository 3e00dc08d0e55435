"""Frames and long runs of bytes over one TLS connection, without a second copy of what is long.

The standard library's streams hold what was received until it is asked for. Here the bytes of a chunk are decrypted
straight into the buffer that asked for them, and reading pauses when nobody does.

Rule 1: at most :data:`SMALL_BYTES` wait unread, and :data:`UNSENT_BYTES_MAX` unsent, whatever the other side does.
Rule 2: whoever stops in the middle of a read or a write closes the stream: it is out of step from then on.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Final, cast

from protocol.errors import UnavailableError
from protocol.lan import LENGTH_BYTES, LanFrame, LanMessage, decode_lan_frame, encode_lan_frame, frame_length

SMALL_BYTES: Final = 64 * 1024
UNSENT_BYTES_MAX: Final = 512 * 1024
SLICE_BYTES: Final = 256 * 1024
"""As much is encrypted at once."""
KEEPALIVE_S: Final = (60, 20, 3)
"""Idle seconds before the kernel asks whether the other side is there, between questions, and how many."""


class LanStream(asyncio.BufferedProtocol):
    """One end of a connection."""

    def __init__(self) -> None:
        self._small = memoryview(bytearray(SMALL_BYTES))
        self._start = 0
        self._end = 0
        self._target: memoryview | None = None
        self._filled = 0
        self._is_paused = False
        self._news = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()
        self._transport: asyncio.Transport | None = None
        self.is_lost = False
        self.received_bytes = 0
        """Decrypted bytes of this connection so far: whether the other side is getting on is seen by it."""

    # --- What asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's has another base
        self._transport.set_write_buffer_limits(high=UNSENT_BYTES_MAX)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's
        """Tell whoever waits."""
        self.is_lost = True
        self._news.set()
        self._writable.set()

    def eof_received(self) -> None:
        """Close: neither side has more to say once the other has gone."""

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - asyncio's
        """Return where received bytes go."""
        if self._target is not None:
            return self._target[self._filled :]
        self._compact()
        return self._small[self._end :]

    def buffer_updated(self, nbytes: int) -> None:
        """Count what was received, and stop reading while nobody takes it."""
        self.received_bytes += nbytes
        if self._target is not None:
            self._filled += nbytes
            if self._filled == len(self._target):
                self._target = None
                self._news.set()
            return
        self._end += nbytes
        self._news.set()
        if self._end - self._start == SMALL_BYTES:
            self._pause()

    def pause_writing(self) -> None:
        """Hold whoever writes."""
        self._writable.clear()

    def resume_writing(self) -> None:
        """Let whoever writes go on."""
        self._writable.set()

    @property
    def is_loopback(self) -> bool:
        """Whether the other side is on this machine."""
        found = None if self._transport is None else self._transport.get_extra_info("peername")
        return found is not None and str(found[0]) in ("::1", "127.0.0.1")

    # --- Reading

    async def read_frame(self) -> LanFrame:
        """Return the next frame.

        Raises:
            UnavailableError: The connection was lost.
            ProtocolError, LimitExceededError: What came is no frame.
        """
        length = frame_length(await self.take(LENGTH_BYTES))
        return decode_lan_frame(await self.take(length))

    async def wait_readable(self) -> None:
        """Wait, however long, until something was received.

        Raises:
            UnavailableError: The connection was lost.
        """
        await self._fill(1)

    async def take(self, count: int) -> bytes:
        """Return the next few bytes, at most :data:`SMALL_BYTES`."""
        await self._fill(count)
        data = bytes(self._small[self._start : self._start + count])
        self._start += count
        return data

    async def read_into(self, target: memoryview) -> None:
        """Fill a buffer with the next bytes."""
        there = min(len(target), self._end - self._start)
        target[:there] = self._small[self._start : self._start + there]
        self._start += there
        if there == len(target):
            return
        self._target, self._filled = target, there
        self._resume()
        while self._target is not None:
            await self._wait()

    async def _fill(self, count: int) -> None:
        while self._end - self._start < count:
            self._resume()
            await self._wait()

    async def _wait(self) -> None:
        if self.is_lost:
            raise UnavailableError("the other device has gone")
        self._news.clear()
        await self._news.wait()

    def _compact(self) -> None:
        if self._start == self._end:
            self._start = self._end = 0
        elif self._end == SMALL_BYTES:
            rest = bytes(self._small[self._start : self._end])
            self._small[: len(rest)] = rest
            self._start, self._end = 0, len(rest)

    def _pause(self) -> None:
        if not self._is_paused and self._transport is not None:
            self._is_paused = True
            self._transport.pause_reading()

    def _resume(self) -> None:
        if self._is_paused and self._transport is not None and not self.is_lost:
            self._is_paused = False
            self._transport.resume_reading()

    # --- Writing

    async def write_frame(self, id: int, body: LanMessage) -> None:
        """Send a frame.

        Raises:
            UnavailableError: The connection was lost.
        """
        await self.write(encode_lan_frame(id, body))

    async def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send bytes, a slice at a time, as fast as the other side takes them."""
        view = memoryview(data)
        for start in range(0, len(view), SLICE_BYTES):
            await self._writable.wait()
            if self.is_lost or self._transport is None:
                raise UnavailableError("the other device has gone")
            self._transport.write(view[start : start + SLICE_BYTES])

    # --- The end

    def close(self) -> None:
        """End the connection at once."""
        if self._transport is not None:
            self._transport.abort()


def keep_alive(connection: socket.socket) -> None:
    """Have the kernel find out when the other machine has gone without a word; send small frames at once."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    names = ("TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT")
    for name, value in zip(names, KEEPALIVE_S, strict=True):
        if hasattr(socket, name):
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
