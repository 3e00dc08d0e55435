"""Find the items that stand in two trees under two ids but are one thing.

An item's id is the node of its first member. So it changes when nodes of one name become one item, or fall apart; and
a device that joins with files already present has ids of its own for them until it knows whose they are.

Rule 1: nothing on the disk changes, so the two are taken for one only where no content can get lost by it.
Rule 2: directories of one path are one; files of one path only if they hold the same bytes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from peer.core.exclusions import NOTHING_APART, Apart
from peer.core.operations import Rekey
from peer.core.tree import Item, ItemId, Member, Tree
from protocol.ids import ROOT, NodeId, copy_id


def find_rekeys(
    *,
    local: Tree,
    synced: Tree,
    remote: Tree,
    dirty: Iterable[ItemId],
    apart: Apart | None = None,
    busy: Collection[ItemId] = (),
) -> tuple[Rekey, ...]:
    """Return the rows that must change their id before anything else is planned, parents before children.

    Args:
        local: What the last scan saw.
        synced: What both sides held when they last agreed.
        remote: What the folded log describes.
        dirty: The items to look at, sorted.
        apart: What a person keeps off this device: nothing that stands here becomes one of these.
        busy: Items that are left alone now. Only a dirty one is said to be one of these, and so has to wait.
    """
    search = _Search(local, synced, remote, apart or NOTHING_APART)
    ids = list(dirty)
    asked, waiting = set(ids), set(busy)
    # Planning an item leads to the directories above it, and these need not be among the dirty ones that are planned now.
    ids += _above(ids, (remote, local), busy)
    for id in ids:
        search.note_members(id)
    for id in ids:
        if synced.item(id) is not None:
            search.new_id(id)
    for id in ids:
        search.new_id(id)
        search.find_twin_of(id)
        search.find_recorded(id)
    found = (rekey for rekey in search.rekeys.items() if waiting.isdisjoint(rekey) or not asked.isdisjoint(rekey))
    return tuple(Rekey(old, new) for old, new in found)


def _above(ids: Iterable[ItemId], trees: Iterable[Tree], busy: Collection[ItemId]) -> list[ItemId]:
    """Return the directories above items, each once."""
    seen = {ROOT, *busy, *ids}
    found: list[ItemId] = []
    for tree in trees:
        for id in ids:
            item = tree.item(id)
            while item is not None and item.parent not in seen:
                seen.add(item.parent)
                found.append(item.parent)
                item = tree.item(item.parent)
    return found


class _Search:
    def __init__(self, local: Tree, synced: Tree, remote: Tree, apart: Apart) -> None:
        self._apart = apart
        self._local = local
        self._synced = synced
        self._remote = remote
        self._item_of: dict[ItemId, ItemId] = {}
        self._known: dict[ItemId, ItemId] = {ROOT: ROOT}
        self._taken: set[ItemId] = set()
        self.rekeys: dict[ItemId, ItemId] = {}

    def note_members(self, id: ItemId) -> None:
        item = self._remote.item(id)
        if item is not None:
            for member in item.members:
                self._item_of[_own_id(member)] = id

    def find_twin_of(self, id: ItemId) -> None:
        """Look at what stands on this disk where a new remote item wants to stand."""
        item = self._remote.item(id)
        if item is not None and self._is_free(id):
            here = self._local.child(item.parent, item.name)
            if here is not None and here.id != id:
                self.new_id(here.id)

    def find_recorded(self, id: ItemId) -> None:
        """Look at what stands on this disk where something was recorded under an id that nothing on it has."""
        base = self._synced.item(id)
        if base is not None and self._local.item(id) is None:
            here = self._local.child(base.parent, base.name)
            if here is not None and here.id != id:
                self.new_id(here.id)

    def new_id(self, id: ItemId) -> ItemId:
        """Return the id that an item of synced or local has in remote: its own, unless it must be rekeyed."""
        trail: list[Item] = []
        here = id
        climbed: set[ItemId] = set()
        while here not in self._known:
            item = self._synced.item(here) or self._local.item(here)
            # Between two records a parent may be missing in synced; then the way up leads through two trees, and may close.
            if item is None or here in climbed or self._remote.item(here) is not None:
                self._known[here] = here
                break
            climbed.add(here)
            trail.append(item)
            here = item.parent
        for item in reversed(trail):
            self._known[item.id] = self._match(item)
        return self._known[id]

    def _match(self, item: Item) -> ItemId:
        base = self._synced.item(item.id)
        found = self._by_record(item) if base is None else self._by_member(base)
        if found is None:
            found = self._by_place(item)
        if found is None or self._would_hide(item.id, found):
            return item.id
        self._taken.add(found)
        self.rekeys[item.id] = found
        return found

    def _would_hide(self, id: ItemId, found: ItemId) -> bool:
        here, there = self._local.item(id), self._remote.item(found)
        if here is None or there is None or not self._apart.holds(self._remote, there):
            return False
        return not self._apart.holds(self._local, here)

    def _by_member(self, base: Item) -> ItemId | None:
        for key in (base.id, *(_own_id(member) for member in base.members)):
            id = self._item_of.get(key)
            item = None if id is None else self._remote.item(id)
            if item is not None and self._is_free(item.id) and item.is_directory == base.is_directory:
                return item.id
        return None

    def _by_record(self, item: Item) -> ItemId | None:
        """Return what was recorded of an item of this disk if that has the id of another node of it.

        So it is where a conflict copy is changed behind which several nodes stand: another one may be the oldest then.
        """
        base = self._synced.child(item.parent, item.name)
        if base is None or base.is_directory != item.is_directory or self._local.item(base.id) is not None:
            return None
        is_one = base.id not in self._taken and any(_own_id(member) == item.id for member in base.members)
        return base.id if is_one else None

    def _by_place(self, item: Item) -> ItemId | None:
        twin = self._remote.child(self._known[item.parent], item.name)
        if twin is None or not self._is_free(twin.id) or not twin.content.same_bytes(item.content):
            return None
        return twin.id

    def _is_free(self, id: ItemId) -> bool:
        return id not in self._taken and self._synced.item(id) is None and self._local.item(id) is None


def _own_id(member: Member) -> NodeId:
    return member.node if member.copy is None else copy_id(member.node, member.copy)
