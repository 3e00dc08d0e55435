"""A plain fold for triples of trees: edits and moves beat removals, of two edits both are kept, who is there first has the name."""

from __future__ import annotations

from collections.abc import Iterable

from peer.core.operations import Act, Create, Edit, Move, Remove, Touch
from peer.core.tree import Content, Item, ItemId, Member, MemoryTree
from protocol.ids import ROOT, Dot, NodeId


class PlainFold:
    """What other devices would make of a device's acts, simply."""

    def __init__(self) -> None:
        self._seq = 5000
        self._synced = MemoryTree()
        self._remote = MemoryTree()

    def take(self, synced: MemoryTree, remote: MemoryTree, acts: Iterable[Act]) -> None:
        """Fold acts into ``remote``.

        Args:
            synced: As it is after the acts were recorded.
            remote: Is changed.
            acts: In the order of the plan.
        """
        self._synced, self._remote = synced, remote
        for act in acts:
            match act:
                case Create(item):
                    self._create(item)
                case Edit(base, content) | Touch(base, content):
                    self._edit(base, content)
                case Move(base, parent, name):
                    self._move(base, parent, name)
                case Remove(_, subtree):
                    self._remove(subtree)

    def _create(self, item: Item) -> None:
        self._revive(item.parent)
        there = self._remote.item(item.id)
        if there is not None and not there.content.same_bytes(item.content):
            self._copy(item)
        else:
            self._place(item.id, item.parent, item.name, item.content)

    def _move(self, base: Item, parent: ItemId, name: str) -> None:
        now = self._remote.item(base.id)
        self._revive(parent)
        if now is None:
            self._place(base.id, parent, name, base.content)
        elif (now.parent, now.name) == (base.parent, base.name) and not self._is_under(parent, base.id):
            self._remote.drop(base.id)
            self._place(base.id, parent, name, now.content)

    def _remove(self, subtree: tuple[Item, ...]) -> None:
        for item in reversed(subtree):
            now = self._remote.item(item.id)
            if now is None or (now.parent, now.name) != (item.parent, item.name):
                continue
            if now.content.same_bytes(item.content) and next(self._remote.children(item.id), None) is None:
                self._remote.drop(item.id)

    def _edit(self, base: Item, content: Content) -> None:
        now = self._remote.item(base.id)
        if now is None:
            self._revive(base.parent)
            self._place(base.id, base.parent, base.name, content)
        elif now.content.same_bytes(base.content) or now.content.same_bytes(content):
            self._remote.drop(base.id)
            self._place(base.id, now.parent, now.name, content)
        elif not content.same_bytes(base.content):
            self._copy(Item(base.id, now.parent, now.name, content))

    def _copy(self, item: Item) -> None:
        self._seq += 1
        self._place(NodeId(b"copy%012d" % self._seq), item.parent, f"{item.name}~", item.content)

    def _revive(self, id: ItemId) -> None:
        if id == ROOT or self._remote.item(id) is not None:
            return
        item = self._synced.item(id)
        assert item is not None
        self._revive(item.parent)
        self._place(id, item.parent, item.name, item.content)

    def _place(self, id: ItemId, parent: ItemId, name: str, content: Content) -> None:
        there = self._remote.child(parent, name)
        while there is not None and there.id != id:
            name += "'"
            there = self._remote.child(parent, name)
        self._seq += 1
        member = Member(id, None, (Dot(2, self._seq, 0),), (Dot(2, self._seq, 1),))
        self._remote.put(Item(id, parent, name, content, (member,)))

    def _is_under(self, id: ItemId, above: ItemId) -> bool:
        while id != ROOT:
            if id == above:
                return True
            item = self._remote.item(id)
            if item is None:
                return False
            id = item.parent
        return False
