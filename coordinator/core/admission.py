"""Decide whether an entry may be registered, and later whether it may be ordered (security 3.9).

An entry is *registered* when its signature, its device's chain and its epoch are right, and *ordered* when its author may
still write, what it needs is ordered, what it pins is durable, and what it expects is so.

Rule 1: checks in order, each fails closed; the first that fails gives the answer.
Rule 2: only what is wrong with the signature, the author, the chain or the epoch is refused, and for a while what would be
too many entries that wait. Everything else is registered and made void with a reason, so that no entry ever blocks those
that its device signs after it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from coordinator.core.authority import Authority
from protocol import limits
from protocol.entries import Entry, Header, Register
from protocol.errors import BadSignatureError
from protocol.history import VoidReason
from protocol.ids import EntryHash, LinkHash, NodeId
from protocol.signing import verify
from protocol.versions import Vector

FULL: Final = "full"
"""Why an entry is refused that its device may hand in again later."""
FIRST: Final = (0, EntryHash(bytes(32)))
"""What a device number has registered before its first entry: sequence number and hash."""


def refusal(
    entry: Entry,
    authority: Authority,
    newest: tuple[int, EntryHash],
    is_control_link: Callable[[LinkHash], bool],
) -> str:
    """Return why a parsed entry may not be registered, or an empty string.

    Args:
        entry: As parsed; its folder is the authority's.
        authority: The folder's newest.
        newest: Sequence number and hash of the newest entry registered under its device number.
        is_control_link: Tells whether a link stands in the folder's control log.
    """
    header = entry.header
    key = authority.key_of(header.device)
    if key is None:
        return "access_denied"
    try:
        verify("entry", entry.header_bytes + entry.payload, entry.signature, key)
    except BadSignatureError:
        return "bad_signature"
    if not authority.counts(header.device, header.seq, entry.hash):
        return "access_denied"
    if header.seq > newest[0] + 1:
        return "gap"
    if header.seq <= newest[0] or header.previous != newest[1]:
        return "chain"
    if not authority.control.admits_epoch(header.epoch):
        # Its author did not know yet that somebody lost the key: he seals it anew.
        return "epoch"
    if header.control_head != authority.control.head and not is_control_link(header.control_head):
        return "control"
    return ""


def is_full(of_device: int, of_all: int) -> bool:
    """Tell whether no more entries may be registered until some of those that wait are ordered or void.

    Args:
        of_device: How many of the author's entries wait.
        of_all: How many of the folder's do.
    """
    return of_device >= limits.REGISTERED_PER_DEVICE_MAX or of_all >= limits.REGISTERED_PER_FOLDER_MAX


def defect(
    header: Header,
    registered: Callable[[int], int],
    vector: Callable[[NodeId, Register], Vector],
) -> VoidReason | None:
    """Return why an entry whose turn has come must become void all the same.

    Args:
        header: Of the entry.
        registered: Gives the highest sequence number registered under a device number.
        vector: Gives the summed-up history of a register.
    """
    claimed: dict[int, int] = {}
    for change in header.changes:
        for device, counter in change.vector:
            claimed[device] = max(counter, claimed.get(device, 0))
        for dot in change.base:
            claimed[dot.device] = max(dot.seq, claimed.get(dot.device, 0))
    if any(counter > registered(device) for device, counter in claimed.items()):
        return VoidReason.PRECONDITION
    if any(vector(expected.node, expected.register) != expected.vector for expected in header.expect):
        return VoidReason.PRECONDITION
    return None
