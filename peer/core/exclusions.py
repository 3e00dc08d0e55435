"""What a person keeps off one device: paths, and the items that stood there, wherever they move.

Rule 1: an exclusion is no removal. Nothing that is excluded is ever an act, and nothing of the folder is brought to it.
Rule 2: plans ask by ids: an item is excluded with the directory and the name that were excluded, whatever their path is
    now, and with the node that stood there, whatever it is called now. Only the scanner asks by paths.
Rule 3: what the folder moves stays excluded at its new place; what lies on this disk stays excluded where it lies.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

import msgspec

from peer.core.tree import Item, ItemId, Tree, find, path_of
from protocol.ids import ROOT, copy_id

EXCLUSIONS_MAX: Final = 1_000
"""That a person may name in one folder: each is looked up whenever something is planned."""


class Exclusion(msgspec.Struct, frozen=True):
    """One excluded path."""

    path: str
    """From the root, "/" between parts, as it is now."""
    parent: ItemId | None = None
    """The directory above it; None if no tree knows one."""
    nodes: tuple[ItemId, ...] = ()
    """What stood there in the folder when it was last looked up."""

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.rpartition("/")[2]


class Apart:
    """The exclusions of one folder on one device, ready to be asked."""

    def __init__(self, exclusions: Iterable[Exclusion] = ()) -> None:
        self.exclusions: tuple[Exclusion, ...] = tuple(sorted(exclusions, key=lambda each: each.path))
        self.paths = frozenset(each.path for each in self.exclusions)
        self._places = frozenset((each.parent, each.name) for each in self.exclusions)
        self._nodes = frozenset(node for each in self.exclusions for node in each.nodes)

    def __bool__(self) -> bool:
        return bool(self.exclusions)

    def above(self, path: str) -> str | None:
        """Return the excluded path that is this one or holds it; None if none does."""
        if not self.paths:
            return None
        end = path.find("/")
        while end >= 0:
            if path[:end] in self.paths:
                return path[:end]
            end = path.find("/", end + 1)
        return path if path in self.paths else None

    def covers(self, path: str) -> bool:
        """Tell whether a path of this disk is excluded."""
        return self.above(path) is not None

    def holds(self, tree: Tree, item: Item) -> bool:
        """Tell whether an item of a tree is excluded, itself or with a directory above it."""
        if not self.exclusions:
            return False
        here: Item | None = item
        climbed: set[ItemId] = set()
        while here is not None and here.id not in climbed:
            if (here.parent, here.name) in self._places or not self._nodes.isdisjoint(_keys(here)):
                return True
            climbed.add(here.id)
            here = None if here.parent == ROOT else tree.item(here.parent)
        return False


NOTHING_APART: Final = Apart()
"""Of a device that has all."""


def exclusion_of(path: str, *, synced: Tree) -> Exclusion:
    """Return the exclusion of a path that a person names: of what he sees there, though the folder may have moved it."""
    item = find(synced, path)
    return Exclusion(path) if item is None else Exclusion(path, item.parent, _keys(item))


class Followed(NamedTuple):
    """Exclusions as they are now."""

    exclusions: tuple[Exclusion, ...]
    vacated: frozenset[str]
    """Paths whose item the folder has moved away; of no use any more if nothing lies there on the disk."""


def follow(exclusions: Iterable[Exclusion], *, local: Tree, remote: Tree) -> Followed:
    """Return exclusions with the paths that they have now, and new ones where the folder has moved what is excluded.

    Args:
        exclusions: As they were.
        local: What the last scan saw: where directories stand on this disk.
        remote: What the folded log describes.
    """
    found: dict[str, Exclusion] = {}
    moved: dict[ItemId, Item] = {}
    left: dict[str, list[ItemId]] = {}
    for each in exclusions:
        parent, path = _anchor(each, local, remote)
        at = None if parent is None else remote.child(parent, each.name)
        nodes = () if at is None else _keys(at)
        for node in each.nodes:
            item = remote.item(node) if node not in nodes else None
            if item is not None:
                moved[item.id] = item
                left.setdefault(path, []).append(node)
        found[path] = Exclusion(path, parent, tuple(sorted({*nodes, *(found[path].nodes if path in found else ())})))
    vacated = {path for path in left if not found[path].nodes}
    for item in moved.values():
        place = Exclusion(path_of(remote, item.id) or item.name, item.parent, tuple(sorted(_keys(item))))
        if Apart(found.values()).holds(remote, item):
            continue
        parent, path = _anchor(place, local, remote)
        found[path] = Exclusion(path, parent, place.nodes)
    return Followed(tuple(found[path] for path in sorted(found)), frozenset(vacated))


def _anchor(exclusion: Exclusion, local: Tree, remote: Tree) -> tuple[ItemId | None, str]:
    """Return the directory above an exclusion, by its id where that is known, and the path that it has on this disk."""
    above = exclusion.path.rpartition("/")[0]
    if not above:
        return ROOT, exclusion.path
    if exclusion.parent is not None and exclusion.parent != ROOT:
        for tree in (local, remote):
            item = tree.item(exclusion.parent)
            path = None if item is None or not item.is_directory else path_of(tree, exclusion.parent)
            if path is not None:
                return exclusion.parent, f"{path}/{exclusion.name}"
    for tree in (local, remote):
        item = find(tree, above)
        if item is not None and item.is_directory:
            return item.id, exclusion.path
    return exclusion.parent, exclusion.path


def _keys(item: Item) -> tuple[ItemId, ...]:
    """Return the ids by which an item is known, whichever of its nodes comes first."""
    return tuple(dict.fromkeys((item.id, *_members(item))))


def _members(item: Item) -> Iterator[ItemId]:
    for member in item.members:
        yield member.node if member.copy is None else copy_id(member.node, member.copy)
