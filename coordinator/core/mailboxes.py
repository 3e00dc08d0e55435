"""Mailboxes: two devices that do not trust the coordinator exchange a few messages to link one to an account.

Rule 1: a mailbox has one opener and at most one joiner that ever sends or gets a message; it ends after ten minutes or
when one side ends it.
Rule 2: a joiner that did neither has tried nothing: when it leaves, or after a minute, another may join in its stead.
Rule 3: messages for a side that is not there yet wait, a bounded number of them.
"""

from __future__ import annotations

from typing import Final

import msgspec

from protocol import limits
from protocol.effects import Entropy
from protocol.errors import AccessDeniedError, LimitExceededError, UnavailableError

WAITING_MAX: Final = 16
OPEN_MAX: Final = 10_000
OPEN_PER_SESSION_MAX: Final = 4
NUMBER_MIN: Final = 100_000
NUMBER_MAX: Final = 999_999
SILENT_S: Final = 60.0
"""So long may a joiner that says nothing keep others out."""


class Mailbox(msgspec.Struct):
    """One mailbox; the sides are session numbers."""

    number: int
    expires_s: float
    opener: int
    joiner: int | None = None
    joined_s: float = 0.0
    is_used: bool = False
    """Whether a message has gone from one side to the other, either way; this joiner is then the last one."""
    was_tried: bool = False
    """Whether the joiner has said something: that is an attempt at the code."""
    waiting: list[bytes] = msgspec.field(default_factory=list)
    """From the opener, until somebody joins."""


class Mailboxes:
    """All open mailboxes."""

    def __init__(self, entropy: Entropy) -> None:
        self._entropy = entropy
        self._open: dict[int, Mailbox] = {}

    def open(self, session: int, now_s: float) -> Mailbox:
        """Open a mailbox.

        Raises:
            LimitExceededError: This session has too many open.
            UnavailableError: There are too many altogether.
        """
        self.expire(now_s)
        if sum(box.opener == session for box in self._open.values()) >= OPEN_PER_SESSION_MAX:
            raise LimitExceededError("open mailboxes of a device", OPEN_PER_SESSION_MAX)
        if len(self._open) >= OPEN_MAX:
            raise UnavailableError("too many devices are being linked just now")
        number = 0
        while not number or number in self._open:
            number = NUMBER_MIN + int.from_bytes(self._entropy(8), "big") % (NUMBER_MAX - NUMBER_MIN + 1)
        box = self._open[number] = Mailbox(number, now_s + limits.LINK_MAILBOX_S, session)
        return box

    def join(self, session: int, number: int, now_s: float) -> Mailbox:
        """Take the other side of a mailbox.

        Raises:
            AccessDeniedError: There is none of this number, or it was joined before.
        """
        self.expire(now_s)
        box = self._open.get(number)
        if box is None or box.is_used or (box.joiner is not None and now_s - box.joined_s < SILENT_S):
            raise AccessDeniedError("there is no such code, or it was used or is too old")
        box.joiner, box.joined_s = session, now_s
        box.is_used = bool(box.waiting)
        return box

    def try_once(self, session: int, number: int, now_s: float) -> bool:
        """Tell whether what a session has just sent was a joiner's first message, an attempt at the code; tell it once.

        Raises:
            AccessDeniedError: The session has no part in such a mailbox.
        """
        box = self._of(session, number, now_s)
        is_first = session == box.joiner and not box.was_tried
        box.was_tried = box.was_tried or is_first
        return is_first

    def send(self, session: int, number: int, data: bytes, now_s: float) -> int | None:
        """Return the session that gets a message, None if it waits for the other side.

        Raises:
            AccessDeniedError: The session has no part in such a mailbox.
            LimitExceededError: The message is too long, or too many wait.
        """
        box = self._of(session, number, now_s)
        if len(data) > limits.LINK_MESSAGE_BYTES_MAX:
            raise LimitExceededError("linking message", limits.LINK_MESSAGE_BYTES_MAX)
        if session == box.joiner:
            box.is_used = True
            return box.opener
        if box.joiner is None:
            if len(box.waiting) >= WAITING_MAX:
                raise LimitExceededError("waiting linking messages", WAITING_MAX)
            box.waiting.append(data)
            return None
        box.is_used = True
        return box.joiner

    def close(self, session: int, number: int, now_s: float) -> int | None:
        """End a mailbox and return the other side, if there is one; a joiner that tried nothing only leaves it.

        Raises:
            AccessDeniedError: The session has no part in such a mailbox.
        """
        return self._end(self._of(session, number, now_s), session)

    def _end(self, box: Mailbox, session: int) -> int | None:
        if session == box.joiner and not box.is_used:
            box.joiner = None
            return None
        del self._open[box.number]
        return box.opener if session == box.joiner else box.joiner

    def is_idle(self, session: int) -> bool:
        """Tell whether a session joined a mailbox and tried nothing."""
        return any(box.joiner == session and not box.is_used for box in self._open.values())

    def leave(self, session: int) -> list[tuple[int, int]]:
        """End all mailboxes of a session that is gone; return (other side, number) for each that had one.

        One that it joined without a word is there for another.
        """
        mine = [box for box in self._open.values() if session in (box.opener, box.joiner)]
        told: list[tuple[int, int]] = []
        for box in mine:
            other = self._end(box, session)
            if other is not None:
                told.append((other, box.number))
        return told

    def opener(self, number: int) -> int | None:
        """Return the session that opened a mailbox, None if there is none."""
        box = self._open.get(number)
        return None if box is None else box.opener

    def expire(self, now_s: float) -> None:
        """Forget mailboxes that are too old."""
        for number in [box.number for box in self._open.values() if box.expires_s <= now_s]:
            del self._open[number]

    def _of(self, session: int, number: int, now_s: float) -> Mailbox:
        self.expire(now_s)
        box = self._open.get(number)
        if box is None or session not in (box.opener, box.joiner):
            raise AccessDeniedError("there is no such mailbox")
        return box
