"""Mailboxes: two devices that do not trust the coordinator exchange a few messages to link one to an account.

Rule 1: a mailbox has one opener and at most one joiner, ever; it ends after ten minutes or when one side ends it.
Rule 2: messages for a side that is not there yet wait, a bounded number of them.
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
_DIGITS_MIN: Final = 1_000


class Mailbox(msgspec.Struct):
    """One mailbox; the sides are session numbers."""

    number: int
    expires_s: float
    opener: int
    joiner: int | None = None
    was_joined: bool = False
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
        numbers = max(_DIGITS_MIN, 10 * (len(self._open) + 1))
        number = 0
        while not number or number in self._open:
            number = int.from_bytes(self._entropy(8), "big") % numbers
        box = self._open[number] = Mailbox(number, now_s + limits.LINK_MAILBOX_S, session)
        return box

    def join(self, session: int, number: int, now_s: float) -> Mailbox:
        """Take the other side of a mailbox.

        Raises:
            AccessDeniedError: There is none of this number, or it was joined before.
        """
        self.expire(now_s)
        box = self._open.get(number)
        if box is None or box.was_joined:
            raise AccessDeniedError("there is no such code, or it was used or is too old")
        box.joiner = session
        box.was_joined = True
        return box

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
            return box.opener
        if not box.was_joined:
            if len(box.waiting) >= WAITING_MAX:
                raise LimitExceededError("waiting linking messages", WAITING_MAX)
            box.waiting.append(data)
        return box.joiner

    def close(self, session: int, number: int, now_s: float) -> int | None:
        """End a mailbox and return the other side, if there is one.

        Raises:
            AccessDeniedError: The session has no part in such a mailbox.
        """
        box = self._of(session, number, now_s)
        del self._open[number]
        return box.opener if session == box.joiner else box.joiner

    def leave(self, session: int) -> list[tuple[int, int]]:
        """End all mailboxes of a session that is gone; return (other side, number) for each that had one."""
        mine = [box for box in self._open.values() if session in (box.opener, box.joiner)]
        told: list[tuple[int, int]] = []
        for box in mine:
            del self._open[box.number]
            other = box.opener if session == box.joiner else box.joiner
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
