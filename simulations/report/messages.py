"""The messages of a run, as a diagram needs them: who sent what to whom, when it left and when it came.

Rule 1: only what kind of message it is, is read; what it carries is sealed anyway.
"""

from __future__ import annotations

from collections import deque
from typing import Final, NamedTuple
from zlib import crc32

from protocol import messages as m
from protocol.errors import KinfolderError
from simulations.checks.watch import DEVICE, WatchedTrace
from simulations.servers import COORDINATOR

MESSAGES_MAX: Final = 200_000
"""More are counted, and not drawn."""
ENTRIES: Final = "entries"
CHUNKS: Final = "chunks"
NEAR: Final = "near"
TALK: Final = "talk"
_ENTRIES: Final = (m.RegisterEntries, m.EntryStates, m.Pulled, m.Registered, m.RepushLog, m.GiveUp)


class Sent(NamedTuple):
    """One message."""

    time_ns: int
    source: str
    target: str
    kind: str
    """One of the names above."""
    name: str
    """Of the message, or of what it belongs to."""
    size: int


class Message(NamedTuple):
    """One message, with when it came."""

    sent: Sent
    arrived_ns: int | None
    """None: never."""


class PictureTrace(WatchedTrace):
    """A trace that keeps all messages."""

    def __init__(self, events_max: int = 0) -> None:
        super().__init__(events_max)
        self.left_out = 0
        """Messages beyond the limit."""
        self._sent: list[Sent] = []
        self._arrived: dict[int, int] = {}
        self._under_way: dict[tuple[str, int, int], deque[int]] = {}

    def note(
        self, time_ns: int, host: str, what: str, text: str = "", data: bytes | bytearray | memoryview = b""
    ) -> None:
        """Take in one event."""
        if what == "send":
            if len(self._sent) < MESSAGES_MAX:
                source, _, target = text.partition(">")
                kind, name = _read(source, target, data)
                self._under_way.setdefault((text, len(data), crc32(data)), deque()).append(len(self._sent))
                self._sent.append(Sent(time_ns, source, target, kind, name, len(data)))
            else:
                self.left_out += 1
        elif what == "deliver":
            waiting = self._under_way.get((text, len(data), crc32(data)))
            if waiting:
                self._arrived[waiting.popleft()] = time_ns
        super().note(time_ns, host, what, text, data)

    @property
    def messages(self) -> list[Message]:
        """All that was sent, in order."""
        return [Message(sent, self._arrived.get(number)) for number, sent in enumerate(self._sent)]


def _read(source: str, target: str, data: bytes | bytearray | memoryview) -> tuple[str, str]:
    """Return what kind of message it is, and its name."""
    if COORDINATOR in (source, target):
        try:
            body = m.decode_frame(bytes(data)).body
        except KinfolderError:
            return TALK, "?"
        return ENTRIES if isinstance(body, _ENTRIES) else TALK, type(body).__name__
    if source.startswith(DEVICE) and target.startswith(DEVICE):
        return NEAR, "LAN"
    return CHUNKS, "chunks"
