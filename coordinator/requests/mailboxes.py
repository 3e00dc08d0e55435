"""Requests about mailboxes, by which a new device is linked."""

from __future__ import annotations

from coordinator.failures import AccessDeniedError
from coordinator.requests.opening import check_attempts, count_failure, count_idle
from coordinator.service import Coordinator
from coordinator.session import Kind, Session
from protocol import messages as m
from protocol.errors import UnavailableError


async def open(coordinator: Coordinator, session: Session, _: m.OpenMailbox) -> m.Message:  # noqa: A001  # its request
    """Open a mailbox for a device that is in; refused after too many linkings that came to nothing."""
    now_s = coordinator.clock.monotonic_s()
    if coordinator.link_attempts.are_spent(session.account, now_s):
        raise UnavailableError("too many codes of this account were tried in vain: wait an hour")
    return m.MailboxOpened(coordinator.mailboxes.open(session.number, now_s).number)


async def join(coordinator: Coordinator, session: Session, message: m.JoinMailbox) -> m.Message:
    """Let a new device, not logged in, take the other side of a mailbox."""
    now_s = coordinator.clock.monotonic_s()
    check_attempts(coordinator, session, b"code")
    try:
        box = coordinator.mailboxes.join(session.number, message.number, now_s)
    except AccessDeniedError:
        count_failure(coordinator, session, b"code")
        raise
    session.kind = Kind.MAILBOX
    for data in box.waiting:
        session.post(m.MailboxMessage(box.number, data))
    box.waiting.clear()
    return m.Ok()


async def send(coordinator: Coordinator, session: Session, message: m.MailboxSend) -> m.Message:
    """Hand a message to the other side."""
    now_s = coordinator.clock.monotonic_s()
    other = coordinator.mailboxes.send(session.number, message.number, message.data, now_s)
    if coordinator.mailboxes.try_once(session.number, message.number, now_s):
        opener = coordinator.sessions.get(coordinator.mailboxes.opener(message.number) or 0)
        if opener is not None:
            # Forgiven when a device is added; whoever only guesses codes runs out.
            coordinator.link_attempts.count(opener.account, now_s)
    target = None if other is None else coordinator.sessions.get(other)
    if target is not None:
        target.post(m.MailboxMessage(message.number, message.data))
    return m.Ok()


async def close(coordinator: Coordinator, session: Session, message: m.CloseMailbox) -> m.Message:
    """End a mailbox, and tell the other side."""
    count_idle(coordinator, session)
    other = coordinator.mailboxes.close(session.number, message.number, coordinator.clock.monotonic_s())
    target = None if other is None else coordinator.sessions.get(other)
    if target is not None:
        target.post(m.CloseMailbox(message.number))
    return m.Ok()
