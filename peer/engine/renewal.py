"""Give a folder a new key once somebody lost the old one, and seal anew what waits under that (security 3.5).

Rule 1: whoever may write and sees that a folder's key is outdated renews it, unasked; so a renewal that was cut off is
    finished by any device that is left. Of two that do it at once the coordinator takes one.
Rule 2: an entry is sealed anew only while nobody was given it: the coordinator says up to where it has this device's.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec
import structlog

from peer.core.entry_sealing import open_entry, seal_entry
from peer.core.keys import FolderKeys
from peer.core.links import make_control_link, rotate_ops
from peer.engine.context import Context
from peer.engine.follower import Follower
from peer.net.coordinator_link import StaleError
from peer.store import folders
from peer.store.snapshots import drop_snapshot, note_snapshot
from protocol import messages as m
from protocol.chains import Role
from protocol.entries import AdmittedEntry, Entry, parse_entry
from protocol.errors import UnavailableError
from protocol.ids import EntryHash
from protocol.membership import ControlState

TRIES_MAX: Final = 20
log = structlog.get_logger("renewal")


def may_renew(context: Context, control: ControlState) -> bool:
    """Tell whether a folder's key is outdated and this account is to renew it."""
    role = control.role_of(context.account) or 0
    return role >= Role.WRITER and control.is_outdated(context.accounts)


async def append_epoch(context: Context, control: ControlState, epochs: Mapping[int, FolderKeys]) -> None:
    """Add an epoch for the devices that are left; a log that has grown meanwhile is left as it is.

    Args:
        context: Of this device, with the newest state of each member's account.
        control: The folder's newest control state, as far as it is known.
        epochs: The keys of its epochs.

    Raises:
        UnavailableError: The coordinator cannot be reached.
    """
    former = epochs[control.epoch.number]
    ops, _ = rotate_ops(control, former, context.accounts, hpke=context.hpke, entropy=context.entropy, lost=True)
    account = context.accounts(context.account)
    link = make_control_link(control, account, context.secrets, ops, now_ms=context.clock.now_ms())
    with contextlib.suppress(StaleError):
        await context.link.ask(m.AppendControlLink(control.id, link), m.Ok)


async def renew(context: Context, follower: Follower) -> bool:
    """Renew the key of a folder of this device, if it is outdated; tell whether it was.

    Raises:
        UnavailableError: The coordinator cannot be reached.
    """
    was_outdated = False
    for _ in range(TRIES_MAX):
        control = follower.control
        if control is None or not may_renew(context, control):
            return was_outdated
        was_outdated = True
        await context.accounts.refresh(context.account)
        await append_epoch(context, control, context.folder_keys(follower.record.key).epochs)
        await follower.follow()
    raise UnavailableError("the folder's members change too fast to renew its key")


async def seal_tail_anew(context: Context, follower: Follower) -> None:
    """Seal entries that the coordinator does not have yet under the folder's newest key, if theirs is not admitted any more.

    Each keeps its number, so nothing that builds on it changes but by its hash.

    Raises:
        UnavailableError: The coordinator cannot be reached.
    """
    key = follower.record.key

    def outdated(db: sqlite3.Connection) -> bool:
        control = follower.control
        return control is not None and any(not control.admits_epoch(e.header.epoch) for e, _ in folders.tail(db, key))

    if follower.control is None or follower.control.epoch_min == 1:
        return
    if await context.database.run(outdated):
        own = await context.link.ask(m.GetOwnSeq(follower.record.id, follower.record.number), m.OwnSeq)
        await context.database.run(lambda db: _seal_anew(db, context, follower, own))


def _seal_anew(db: sqlite3.Connection, context: Context, follower: Follower, own: m.OwnSeq) -> None:
    key, control = follower.record.key, follower.control
    assert control is not None
    waiting = [entry for entry, _ in folders.tail(db, key) if entry.header.seq > own.seq]
    if not waiting or waiting[0].header.seq != own.seq + 1 or waiting[0].header.previous != own.entry:
        return  # all is registered, or this device wrote more than it knows, which registering will tell
    if all(control.admits_epoch(entry.header.epoch) for entry in waiting):
        return
    log.info("entries are sealed anew", entries=len(waiting))
    follower.remote(db)  # their order may be another one then: what they show now is looked at again
    anew: dict[EntryHash, EntryHash] = {}
    for entry in waiting:
        folders.forget_tail(db, key, entry)
        drop_snapshot(db, key, entry.hash)
        data = _sealed(context, follower, control, entry, anew)
        fresh = parse_entry(data)
        folders.put_tail(db, key, fresh, data)
        anew[entry.hash] = fresh.hash
        payload = open_entry(fresh, context.folder_keys(key).entry_key(control.epoch.number))
        note_snapshot(db, key, AdmittedEntry(fresh.hash, context.device, fresh.header, payload), 0, payload.time_ms)
    follower.put_record(db, own_hash=anew[waiting[-1].hash])
    follower.rebuild(db)


def _sealed(
    context: Context, follower: Follower, control: ControlState, entry: Entry, anew: Mapping[EntryHash, EntryHash]
) -> bytes:
    """Return an entry under the newest key, with what it names of those sealed anew before it."""

    def named(hashes: Sequence[EntryHash]) -> tuple[EntryHash, ...]:
        return tuple(anew.get(hash, hash) for hash in hashes)

    ring = context.folder_keys(follower.record.key)
    payload = open_entry(entry, ring.entry_key(entry.header.epoch))
    seen = msgspec.structs.replace(payload.seen, unordered=named(payload.seen.unordered))
    header = msgspec.structs.replace(
        entry.header,
        epoch=control.epoch.number,
        control_head=control.head,
        previous=anew.get(entry.header.previous, entry.header.previous),
        needs=tuple(sorted(named(entry.header.needs))),
    )
    payload = msgspec.structs.replace(payload, seen=seen)
    return seal_entry(header, payload, ring.entry_key(header.epoch), context.secrets.sign_seed, context.entropy)
