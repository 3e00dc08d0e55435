"""What this device wrote in a folder before it went back to a backup, as the coordinator knows it.

Who was put back knows less than it once wrote, and signs under a new number from then on.
"""

from __future__ import annotations

import sqlite3

from peer.engine.context import Context
from peer.engine.follower import Follower
from peer.store import folders
from protocol import messages as m
from protocol.entries import Entry, parse_entry
from protocol.errors import ProtocolError


async def is_set_back(context: Context, follower: Follower, lost_seq: int | None = None) -> bool:
    """Begin a new incarnation if this device has written more under its number than it knows; tell whether it did.

    So it does where an entry can never be registered, since a later one of this number stands in the log, which builds on
    what the coordinator lost of this device.

    Args:
        context: What all engines share.
        follower: Of the folder.
        lost_seq: The number of an entry that the coordinator refuses as it is.

    Raises:
        UnavailableError: The coordinator cannot be asked.
    """
    record = follower.record
    own = await context.link.ask(m.GetOwnSeq(record.id, record.number), m.OwnSeq)

    def operation(db: sqlite3.Connection) -> bool:
        known = folders.entry_hash_of(db, record.key, record.number, own.seq)
        is_lost = lost_seq is not None and own.seq >= lost_seq
        if own.seq == 0 or (known is not None and known[0] == own.entry and not is_lost):
            return False
        follower.begin_anew(db)
        follower.rebuild(db)
        return True

    return await context.database.run(operation)


async def earlier_entries(context: Context, follower: Follower) -> list[Entry]:
    """Return what this device registered under other numbers than its present one, and is not ordered yet.

    Raises:
        UnavailableError: The coordinator cannot be asked.
        KinfolderError: What it shows is malformed.
    """
    record, control = follower.record, follower.control
    newest = None if control is None else control.number_of(context.device)
    if control is None or newest is None or (newest == record.number and control.incarnation_of(context.device) == 1):
        return []
    found: list[Entry] = []
    after, more = 0, True
    while more:
        reply = await context.link.ask(m.PullRegistered(record.id, after), m.Registered)
        for counter, data in reply.entries:
            if counter <= after:
                raise ProtocolError("the coordinator counts registered entries backwards")
            after, entry = counter, parse_entry(data)
            enrolment = control.enrolment(entry.header.device)
            if enrolment is not None and enrolment.device == context.device and enrolment.number != record.number:
                found.append(entry)
        more = reply.more and bool(reply.entries)
    return found
