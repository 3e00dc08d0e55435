"""What follows where a disk refuses a name, for instance since it takes two spellings for one.

Rule 1: as long as nothing else is to have it, an item keeps the name that it had before the one that is refused; what is
    written to it elsewhere is written to it here.
Rule 2: where something else is to have it, the item leaves this disk, with all in it, as anything that it has no name for.
Rule 3: which names a disk takes for one is not known; that it refused one, and another stands there that differs in case or
    form alone, is. Where that one is to go elsewhere, it goes first.
Rule 4: what is to stand in a directory whose name may be refused waits until the directory is there.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from types import MappingProxyType
from typing import Final, NamedTuple
from unicodedata import normalize

from peer.core.steps import same_place
from peer.core.tree import Item, ItemId, Tree

Place = tuple[ItemId, str]


class Refusals(NamedTuple):
    """What a plan must know of them."""

    evicted: frozenset[ItemId] = frozenset()
    """Items that leave this disk, with all in them."""
    taken: Mapping[Place, ItemId] = MappingProxyType({})
    """By place, which item has it under another spelling, and is to give it up."""
    doubted: frozenset[ItemId] = frozenset()
    """Items that do not stand here and may be refused again: nothing is brought into them in the same pass."""
    anchored: frozenset[ItemId] = frozenset()
    """Items that keep the place that they have for now, whatever the folder says; their contents follow."""


NO_REFUSALS: Final = Refusals()


class SpelledTree:
    """A tree in which some places are taken by what stands there under another spelling."""

    def __init__(self, tree: Tree, taken: Mapping[Place, ItemId]) -> None:
        self._tree = tree
        self._taken = taken

    def item(self, id: ItemId) -> Item | None:
        """Return the item, or None; the root is no item."""
        return self._tree.item(id)

    def child(self, parent: ItemId, name: str) -> Item | None:
        """Return the item that has this place, or None."""
        id = self._taken.get((parent, name))
        return self._tree.child(parent, name) if id is None else self._tree.item(id)

    def children(self, parent: ItemId) -> Iterator[Item]:
        """Yield the items of a directory, by name."""
        return self._tree.children(parent)


def judge(
    refused: Collection[ItemId],
    dirty: Collection[ItemId],
    busy: Collection[ItemId] = (),
    resting: Collection[ItemId] = (),
    *,
    local: Tree,
    synced: Tree,
    remote: Tree,
) -> Refusals:
    """Return what follows from refused names.

    Args:
        refused: Items whose name this disk refused when it was last tried.
        dirty: The items that are planned: they may be to go into refused ones.
        busy: Items about which nothing is done now.
        resting: Items whose name this disk refused, and which are not tried again now.
        local: What stands on this device.
        synced: What both sides held when they last agreed.
        remote: What the folder holds.
    """
    anchored = frozenset(id for id in resting if local.item(id) is not None and synced.item(id) is not None)
    if not refused:
        return NO_REFUSALS._replace(anchored=anchored) if anchored else NO_REFUSALS
    absent = {id for id in refused if local.item(id) is None}
    homeless = {id for id in dirty if _is_within(remote, id, absent)} if absent else set()
    evicted = frozenset(id for id in homeless.union(refused) if _is_evicted(id, local, synced, remote))
    lasting = {*refused, *busy}
    taken = {
        place: here.id
        for place, here in _spelled(set(refused) - evicted, local, remote)
        if here.id not in lasting and _leaves(here, synced, remote)
    }
    hopeful = {want.id for want in map(remote.item, refused) if want is not None and (want.parent, want.name) in taken}
    doubted = frozenset(absent - hopeful)
    return Refusals(evicted, taken, doubted, anchored)


def _is_evicted(id: ItemId, local: Tree, synced: Tree, remote: Tree) -> bool:
    """Tell whether something else has the name that an item had. What its user changed here is an act first."""
    here, base, want = local.item(id), synced.item(id), remote.item(id)
    if here is None or base is None or want is None or same_place(here, want):
        return False
    if not (same_place(here, base) and here.content.same(base.content)):
        return False
    heir = remote.child(here.parent, here.name)
    return heir is not None and heir.id != id


def _is_within(tree: Tree, id: ItemId, above: Collection[ItemId]) -> bool:
    item = tree.item(id)
    while item is not None and item.parent not in above:
        item = tree.item(item.parent)
    return item is not None


def _spelled(refused: Collection[ItemId], local: Tree, remote: Tree) -> Iterator[tuple[Place, Item]]:
    """Yield the places that refused items are to have, with what stands there under another spelling."""
    wanted: dict[ItemId, list[Item]] = {}
    for id in sorted(refused):
        want = remote.item(id)
        if want is not None and local.child(want.parent, want.name) is None:
            wanted.setdefault(want.parent, []).append(want)
    for parent, wants in wanted.items():
        standing = {_folded(here.name): here for here in local.children(parent)}
        for want in wants:
            here = standing.get(_folded(want.name))
            if here is not None:
                yield (parent, want.name), here


def _leaves(here: Item, synced: Tree, remote: Tree) -> bool:
    """Tell whether an item is to go elsewhere, or away."""
    want = remote.item(here.id)
    return synced.item(here.id) is not None if want is None else not same_place(want, here)


def _folded(name: str) -> str:
    return normalize("NFC", normalize("NFC", name).casefold())
