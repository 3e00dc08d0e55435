"""What becomes of a directory that is to go and cannot, since something in it is not synced, once another is to have its name.

Rule 1: it gives the name up to whatever comes, and gets one beside it (``name (kept, 1a2b3c4d)``), with all in it.
Rule 2: it is no other directory for that: on this device alone, and still to go, which it does once what keeps it has left.
Rule 3: as long as nothing else is to have its name, it keeps it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from types import MappingProxyType
from typing import Final

import msgspec

from peer.core.conflicts import bytes_of, text_of
from peer.core.steps import same_place
from peer.core.tree import Item, ItemId, Tree
from protocol import limits

_DIGEST_BYTES: Final = 4
_MARK: Final = " (kept, "
_MARKED: Final = re.compile(r" \(kept, [0-9a-f]{8}\)")
NOTHING_DISPLACED: Final[Mapping[ItemId, Item]] = MappingProxyType({})


def with_above(kept: Iterable[ItemId], local: Tree) -> frozenset[ItemId]:
    """Return directories that could not be removed, since something in them is not synced, with all that they stand in."""
    found: set[ItemId] = set()
    for id in kept:
        here = local.item(id)
        while here is not None and here.id not in found:
            found.add(here.id)
            here = local.item(here.parent)
    return frozenset(found)


def displaced(
    kept: Iterable[ItemId], *, local: Tree, synced: Tree, remote: Tree, wanted: Collection[ItemId] = ()
) -> dict[ItemId, Item]:
    """Return which directories give up their names, each as it then stands.

    Args:
        kept: What may have to, as :func:`with_above` returns it.
        local: What stands on this device.
        synced: What both sides held when they last agreed.
        remote: What the folder holds.
        wanted: Items whose place another is to have under another spelling.
    """
    found: dict[ItemId, Item] = {}
    for id in sorted(kept):
        here, base = local.item(id), synced.item(id)
        if here is not None and base is not None and _gives_way(here, base, remote, wanted):
            name = _free_name(here, local, remote)
            if name:
                found[id] = msgspec.structs.replace(base, name=name)
    return found


def _gives_way(here: Item, base: Item, remote: Tree, wanted: Collection[ItemId]) -> bool:
    """Tell whether a directory is where it was synced and to go, and another is to have its place."""
    want = remote.item(here.id)
    if not here.is_directory or not same_place(here, base) or (want is not None and same_place(here, want)):
        return False
    return here.id in wanted or remote.child(here.parent, here.name) is not None


def _free_name(here: Item, local: Tree, remote: Tree) -> str:
    names = (kept_name(here.name, here.id[turn:]) for turn in range(len(here.id) - _DIGEST_BYTES + 1))
    free = (n for n in names if local.child(here.parent, n) is None and remote.child(here.parent, n) is None)
    return next(free, "")


def kept_name(name: str, id: bytes) -> str:
    """Return the name beside ``name`` under which what is a user's is kept, at most 255 bytes long."""
    stem, dot, extension = name[1:].partition(".")
    stem, extension = name[:1] + stem, dot + extension
    mark = f"{_MARK}{id[:_DIGEST_BYTES].hex()})"
    room = limits.NAME_BYTES_MAX - len(mark)
    raw_extension = bytes_of(extension)
    if len(raw_extension) > room // 2:
        stem, raw_extension = name, b""
    raw = bytes_of(stem)[: room - len(raw_extension)]
    while _ends_torn(raw):
        raw = raw[:-1]
    return text_of(raw.rstrip(b" ")) + mark + text_of(raw_extension)


def unmarked(path: str) -> str:
    """Return a path as it was before anything in it was kept beside its name."""
    return path if _MARK not in path else _MARKED.sub("", path)


def _ends_torn(raw: bytes) -> bool:
    try:
        raw.decode()
    except UnicodeDecodeError as error:
        return error.reason == "unexpected end of data"
    return False
