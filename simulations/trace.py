"""What happened in a simulated run, as one running digest and, if asked, as a record of the last events.

Rule 1: the digest holds what decides the course of a run: the time, the host, the event and the bytes it is about.
Rule 2: nothing of one process goes in: no address, no hash of an object, no counter that outlives a run.
Rule 3: memory is bounded, whatever happens.
Rule 4: what happens is put aside as it is and goes into the digest later, many things at once: there are thousands in a run.
"""

from __future__ import annotations

import marshal
from collections import deque
from hashlib import blake2b
from typing import Final, NamedTuple, TypeAlias
from zlib import crc32

_WAITING_MAX: Final = 512
_FORM: Final = 2
"""Of what marshal writes: the newest in which that depends on nothing but the values."""
_DIGEST_BYTES: Final = 16

Mixed: TypeAlias = int | str | bytes
"""What goes into a digest."""


class Event(NamedTuple):
    """One line of the record."""

    time_ns: int
    """True virtual time."""
    host: str
    """Who did it; "" for the world itself."""
    what: str
    """The kind of event, a few words that are the same for all of a kind."""
    text: str
    """To whom or to what."""
    size: int
    """Bytes that it is about."""
    check: int
    """CRC-32 of those bytes."""

    def __str__(self) -> str:
        """Return a line for a person."""
        about = f" [{self.size} bytes, {self.check:08x}]" if self.size else ""
        return f"{self.time_ns / 1e9:15.9f} {self.host or '-':12} {self.what} {self.text}{about}"


class Trace:
    """The digest of a run, and the last events of it.

    Args:
        events_max: How many events are kept to be read; 0 for none. The digest covers all of them in any case.
    """

    def __init__(self, events_max: int = 0) -> None:
        self._hash = blake2b(digest_size=_DIGEST_BYTES)
        self._waiting: list[tuple[Mixed, ...]] = []
        self._events: deque[Event] | None = deque(maxlen=events_max) if events_max else None
        self.count = 0
        """Events noted so far."""

    def note(
        self, time_ns: int, host: str, what: str, text: str = "", data: bytes | bytearray | memoryview = b""
    ) -> None:
        """Take in one event; ``data`` goes into the digest and is not kept."""
        self.count += 1
        size, check = len(data), crc32(data) if data else 0
        self.mix(time_ns, host, what, text, size, check)
        if self._events is not None:
            self._events.append(Event(time_ns, host, what, text, size, check))

    def mix(self, *values: Mixed) -> None:
        """Take values into the digest alone."""
        self._waiting.append(values)
        if len(self._waiting) >= _WAITING_MAX:
            self._hash.update(marshal.dumps(self._waiting, _FORM))
            self._waiting.clear()

    def digest(self) -> str:
        """Return the digest of all that was taken in so far; the trace may go on."""
        found = self._hash.copy()
        found.update(marshal.dumps(self._waiting, _FORM))
        return found.hexdigest()

    @property
    def events(self) -> tuple[Event, ...]:
        """The last events, oldest first."""
        return tuple(self._events or ())
