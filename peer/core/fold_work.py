"""The desk on which entries are folded: copies of the rows in work, and what of them must be judged or shown anew.

Rule 1: rows of values go to the state at once; rows of nodes and names, and items, are written once, by ``finish``.
Rule 2: sets in work keep the order in which things were put there, so that folding does the same on every run.
"""

from __future__ import annotations

from copy import copy

from peer.core.fold_state import FoldState, NameRow, NodeRow
from peer.core.tree import Item, ItemId
from protocol.ids import ROOT, Dot, NodeId

Group = tuple[ItemId, bytes]
"""A name in a directory of the tree: (item of the directory, key of the name)."""
_NO_NAME = NameRow()


class Work:
    """One call of the fold."""

    def __init__(self, state: FoldState) -> None:
        self.state = state
        self.former: dict[NodeId, tuple[Dot, NodeId]] = {}
        """Place in force, and its parent, of each node that the entry in work has placed anew."""
        self.to_judge: dict[NodeId, None] = {}
        """Nodes of which it must be asked anew which contents live."""
        self.to_list: dict[NodeId, None] = {}
        """Nodes that may have died, revived, moved or changed."""
        self.to_show: dict[Group, None] = {}
        """Names whose items must be made anew."""
        self.items: dict[ItemId, tuple[Group, Item | None]] = {}
        """What becomes of an item, and by whose doing; the tree is written at the end."""
        self.lost: dict[NodeId, None] = {}
        """Directory nodes that left the item which showed them; another one may show them by now."""
        self.without_parent: dict[ItemId, dict[bytes, None]] = {}
        """Names to be shown in directories that no item shows at the moment, or no more."""
        self._nodes: dict[NodeId, tuple[NodeRow | None, NodeRow]] = {}
        self._names: dict[NodeId, dict[bytes, tuple[NameRow | None, NameRow]]] = {}

    def node(self, id: NodeId) -> NodeRow:
        """Return a node's row to work on; a new one if it is not known."""
        pair = self._nodes.get(id)
        if pair is None:
            stored = self.state.nodes.get(id)
            fresh = NodeRow(id, family=id) if stored is None else copy(stored)
            pair = self._nodes[id] = (stored, fresh)
        return pair[1]

    def peek(self, id: NodeId) -> NodeRow | None:
        """Return a node's row to read, or None if it is not known."""
        pair = self._nodes.get(id)
        return self.state.nodes.get(id) if pair is None else pair[1]

    def family(self, id: NodeId) -> NodeId:
        """Return the node whose content register holds the contents of this one."""
        row = self.peek(id)
        return id if row is None else row.family

    def is_under(self, home: NodeId, node: NodeId) -> bool:
        """Tell whether ``home`` is ``node`` or was detached from it, directly or not."""
        while home != node:
            row = self.peek(home)
            if row is None or row.origin is None:
                return False
            home = row.origin
        return True

    def judge_family(self, node: NodeId) -> None:
        """Have the contents of a node judged anew, and those of all others in its family: some may have stood at it."""
        family = self.family(node)
        root = self.peek(family)
        for home in (node, family, *(() if root is None else root.homes)):
            self.to_judge[home] = None

    def name(self, directory: NodeId, key: bytes) -> NameRow:
        """Return a name's row to work on."""
        names = self._names.get(directory)
        if names is None:
            names = self._names[directory] = {}
        pair = names.get(key)
        if pair is None:
            stored = self.state.names.get((directory, key))
            fresh = NameRow() if stored is None else copy(stored)
            pair = names[key] = (stored, fresh)
        return pair[1]

    def nodes_of(self, directory: NodeId, key: bytes) -> tuple[NodeId, ...]:
        """Return the live nodes of one directory node that want this name."""
        names = self._names.get(directory)
        pair = None if names is None else names.get(key)
        row = self.state.names.get((directory, key)) if pair is None else pair[1]
        return () if row is None else row.nodes

    def keys_of(self, directory: NodeId) -> list[bytes]:
        """Return the keys of all names that a directory node has rows for."""
        keys = {key for key, _ in self.state.names.under(directory)}
        keys.update(self._names.get(directory, ()))
        return sorted(keys)

    def shown(self, directory: NodeId) -> ItemId | None:
        """Return the item that shows a node as a directory."""
        if directory == ROOT:
            return ROOT
        row = self.peek(directory)
        return None if row is None else row.shown

    def item(self, id: ItemId) -> Item | None:
        """Return an item as it will be."""
        change = self.items.get(id)
        return self.state.tree.item(id) if change is None else change[1]

    def finish(self) -> frozenset[ItemId]:
        """Write all rows in work; return the ids of the items that changed, appeared or vanished."""
        for id, (old_node, node) in self._nodes.items():
            if node != old_node:
                self.state.nodes.put(id, node)
        for directory, names in self._names.items():
            for key, (old_name, name) in names.items():
                if name == _NO_NAME:
                    if old_name is not None:
                        self.state.names.drop((directory, key))
                elif name != old_name:
                    self.state.names.put((directory, key), name)
        return self._finish_tree()

    def _finish_tree(self) -> frozenset[ItemId]:
        tree = self.state.tree
        changed: dict[ItemId, Item | None] = {}
        for id, (_, item) in self.items.items():
            old = tree.item(id)
            if old == item:
                continue
            changed[id] = item
            if old is not None and (item is None or item.parent != old.parent or item.name != old.name):
                tree.drop(id)
        for item in changed.values():
            if item is not None:
                tree.put(item)
        return frozenset(changed)
