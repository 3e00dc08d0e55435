"""Requests and replies on channels: a head and a body each way, and bodies that can break off at any byte.

A frame is one byte of marks, the length of the head (4 bytes, big-endian), the head, and a piece of the body.

Rule 1: small pieces that are sent without a pause go as one frame.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Final

from protocol import limits
from protocol.effects import CLOSE_BROKEN, ChannelClosedError
from simulations.channels import End
from simulations.hosts import Host
from simulations.network import Network

PIECE_BYTES_MAX: Final = 256 * limits.KIB
CORKED_BYTES_MAX: Final = 8 * limits.KIB
"""So much of a body waits for what is sent in the same step."""
_PREFIX_BYTES: Final = 5


_HEAD: Final = 1
_LAST: Final = 2


class Exchange:
    """One side of an exchange; both sides send a head and a body, the one who asks first.

    Args:
        end: The channel, for this exchange alone.
    """

    def __init__(self, end: End) -> None:
        self._end = end
        self._corked_head: bytes | None = None
        self._corked = bytearray()
        self._uncork: asyncio.Handle | None = None
        self._head: bytes | None = None
        self._piece = b""
        self._is_whole = False
        self._is_sent = False

    async def send(
        self, data: bytes | bytearray | memoryview = b"", *, head: bytes | None = None, last: bool = False
    ) -> None:
        """Send a piece of this side's body, with the head before the first and a mark with the last.

        Raises:
            ChannelClosedError: It has ended.
        """
        if head is not None:
            self._corked_head = head
        self._corked += data
        if last or len(self._corked) > CORKED_BYTES_MAX or not self._end.takes(len(self._corked)):
            await self._flush(last=last)
        elif self._uncork is None:
            self._uncork = asyncio.get_running_loop().call_soon(self._flush_now)

    def _flush_now(self) -> None:
        self._uncork = None
        if self._end.takes(len(self._corked)):
            self._end.send_now(self._taken(), divide=_divide)

    async def _flush(self, *, last: bool = False) -> None:
        if self._uncork is not None:
            self._uncork.cancel()
            self._uncork = None
        while len(self._corked) > PIECE_BYTES_MAX:
            await self._end.send(self._taken(), divide=_divide)
        await self._end.send(self._taken(last=last), divide=_divide)
        self._is_sent = last

    def _taken(self, *, last: bool = False) -> bytes:
        """Return a frame of what waits, which then waits no more."""
        head, self._corked_head = self._corked_head, None
        piece, self._corked = self._corked[:PIECE_BYTES_MAX], self._corked[PIECE_BYTES_MAX:]
        marks = (_HEAD if head is not None else 0) | (_LAST if last else 0)
        return b"".join((bytes([marks]), len(head or b"").to_bytes(4, "big"), head or b"", piece))

    async def send_all(self, head: bytes, body: bytes | AsyncIterator[bytes | bytearray]) -> None:
        """Send a head and a whole body."""
        if isinstance(body, bytes):
            await self.send(body, head=head, last=True)
            return
        await self.send(head=head)
        async for piece in body:
            await self.send(piece)
        await self.send(last=True)

    async def head(self) -> bytes:
        """Return the other side's head.

        Raises:
            ChannelClosedError: It broke off before.
        """
        while self._head is None:
            await self._receive()
        return self._head

    async def read(self) -> bytes:
        """Return the next piece of the other side's body; nothing at the end.

        Raises:
            ChannelClosedError: It broke off; all that had come was returned before.
        """
        while not self._piece and not self._is_whole:
            await self._receive()
        piece, self._piece = self._piece, b""
        return piece

    async def read_all(self) -> bytes:
        """Return the other side's whole body."""
        pieces = bytearray()
        while piece := await self.read():
            pieces += piece
        return bytes(pieces)

    @property
    def is_done(self) -> bool:
        """Whether both bodies are whole, as far as this side sends and has received them."""
        return self._is_sent and self._is_whole

    @property
    def has_come(self) -> bool:
        """Whether the next piece of the other side's body is there, or its end is."""
        return bool(self._piece) or self._is_whole

    def part(self) -> None:
        """Leave an exchange that is done: whoever keeps connections keeps this one."""
        self._end.part()

    async def close(self) -> None:
        """End the exchange; what was sent still arrives."""
        if self._uncork is not None:
            with contextlib.suppress(ChannelClosedError):
                await self._flush()
        await self._end.close()

    def abort(self) -> None:
        """Break it off: the other side finds its body too short."""
        self._end.abort()

    async def _receive(self) -> None:
        try:
            frame = await self._end.receive()
        except ChannelClosedError as error:
            # However politely it ended, it ended too early.
            raise ChannelClosedError(CLOSE_BROKEN, error.reason) from error
        marks, head_bytes = frame[0], int.from_bytes(frame[1:_PREFIX_BYTES], "big")
        if marks & _HEAD:
            self._head = frame[_PREFIX_BYTES : _PREFIX_BYTES + head_bytes]
        self._piece = frame[_PREFIX_BYTES + head_bytes :]
        self._is_whole = bool(marks & _LAST)


async def ask(network: Network, host: Host, address: str) -> Exchange:
    """Begin an exchange with whoever listens at an address; see :meth:`simulations.network.Network.dial`."""
    return Exchange(await network.dial(host, address))


def _divide(frame: bytes, through: int) -> bytes:
    """Return the frame that arrives when only so many bytes of one get through: a head whole or not at all."""
    head_end = _PREFIX_BYTES + int.from_bytes(frame[1:_PREFIX_BYTES], "big")
    if through < head_end:
        return bytes(_PREFIX_BYTES)
    return bytes([frame[0] & ~_LAST]) + frame[1:through]


def body_start(message: bytes) -> int:
    """Return where, in a message of an exchange, the piece of the body begins."""
    return _PREFIX_BYTES + int.from_bytes(message[1:_PREFIX_BYTES], "big")
