"""Whether a coordinator that contradicts itself has signed two histories, which freezes a folder, or only garbles one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import NoReturn

from blake3 import blake3

from peer.store.folders import FolderRecord
from protocol import limits
from protocol import messages as m
from protocol.chains import SignedLink
from protocol.codec import decode
from protocol.entries import parse_entry
from protocol.errors import ForkError, SecurityError
from protocol.history import CHAIN_START, Checkpoint, ItemKind, LogItem, next_chain

Ask = Callable[[m.Pull, type[m.Pulled]], Awaitable[m.Pulled]]


async def judge(ask: Ask, record: FolderRecord, checkpoint: Checkpoint) -> NoReturn:
    """Go through the whole log, of which the newest part does not follow on what this device knows.

    Nobody signed what lies between two heads. Only a log that leads to a signed one by another way than over the head that
    was signed before proves that there are two histories; a coordinator that garbles one may mend it.

    Args:
        ask: The coordinator.
        record: What this device knows of the folder.
        checkpoint: The head that the coordinator signed now.

    Raises:
        ForkError: There are two.
        SecurityError: What it shows leads nowhere.
        UnavailableError: It cannot be asked.
    """
    known = record.checkpoint
    position, chain, differs = 0, CHAIN_START, False
    while position < checkpoint.position:
        reply = await ask(m.Pull(record.id, position, limits.PULL_ITEMS_MAX), m.Pulled)
        items = reply.items[: checkpoint.position - position]
        if not items:
            raise SecurityError("the coordinator holds items back")
        for item in items:
            position += 1
            if item.position != position:
                raise SecurityError("the coordinator left a gap in the log")
            chain = chained(chain, item)
            if known is not None and position == known.checkpoint.position:
                differs = chain != known.checkpoint.chain
    if differs and chain == checkpoint.chain:
        raise ForkError("the coordinator signed two histories for one position")
    raise SecurityError("the coordinator shows another history than the one that it signed")


def chained(chain: bytes, item: LogItem) -> bytes:
    """Return what the chain J is after an item.

    Raises:
        ProtocolError: The item is malformed.
    """
    return next_chain(chain, item.kind, _hash(item), item.time_ms)


def _hash(item: LogItem) -> bytes:
    if item.kind is ItemKind.ENTRY:
        return parse_entry(item.data).hash
    if item.kind is ItemKind.CONTROL:
        return decode(item.data, SignedLink, bytes_max=limits.CONTROL_LINK_BYTES_MAX + 256, what="control link").hash
    return blake3(item.data).digest()
