"""What scans of one folder leave out, and what that means for planning: an absence that nobody looked at proves nothing.

Rule 1: a synced item that no scan sees, since it is ignored or excluded, is written down as *unseen* before anything is
planned from its absence. It is never taken as removed, then or when the rule or the exclusion has gone.
Rule 2: what changed on this device while it was excluded, and comes back, is kept beside what the folder has.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

import msgspec

from peer.core.exclusions import Apart
from peer.core.planner import Excluded, Side, side_of
from peer.core.tree import Item, ItemId, Tree, path_of
from peer.store.exclusions import Unseen
from peer.store.trees import LocalTree, SyncedTree, remembered
from protocol.effects import Entropy
from protocol.ids import NODE_ID_BYTES, NodeId


class Sight:
    """One planning's view of what is left alone."""

    def __init__(self, db: sqlite3.Connection, folder: int, ignored: Excluded, apart: Apart, entropy: Entropy) -> None:
        self.apart = apart
        self._db = db
        self._folder = folder
        self._ignored = ignored
        self._entropy = entropy
        self._unseen = Unseen(db, folder)

    def sort_out_all(self) -> None:
        """As :meth:`sort_out`, for all that is dirty: under new rules, before any part of it is planned."""
        self.sort_out((NodeId(bytes(NODE_ID_BYTES)), NodeId(b"\xff" * NODE_ID_BYTES)))

    def sort_out(self, ids: Sequence[ItemId]) -> None:
        """Write down which items no scan sees, and take back those that scans see again. Before anything is planned.

        Args:
            ids: Sorted; all dirty items from the first to the last are looked at.
        """
        if not ids:
            return
        local, synced = LocalTree(self._db, self._folder), SyncedTree(self._db, self._folder)
        missing = list(self._unseen.missing(ids[0], ids[-1]))
        bases = remembered(synced, missing)
        for id in missing:
            base = bases.item(id)
            if base is None:
                continue
            apart = self.apart.holds(bases, base)
            if (apart or self._is_ignored(bases, base)) and self._unseen.why(id) is not apart:
                self._unseen.put(id, apart=apart)
        for id in self._unseen.known(ids[0], ids[-1]):
            here, base = local.item(id), synced.item(id)
            if base is None:
                self._unseen.drop(id)
            elif here is not None and not self.hides(local, here):
                if self._unseen.why(id) and not here.is_directory and not here.content.same_bytes(base.content):
                    self._set_apart(local, synced, here)
                self._unseen.drop(id)

    def _set_apart(self, local: LocalTree, synced: SyncedTree, here: Item) -> None:
        """Make what was written while it was excluded a file of its own, so that it and the folder's are both kept."""
        seen = local.fingerprint(here.id)
        assert seen is not None
        local.drop(here.id)
        local.put(msgspec.structs.replace(here, id=NodeId(self._entropy(NODE_ID_BYTES))), seen)
        synced.drop(here.id)

    def hides(self, tree: Tree, item: Item) -> bool:
        """Tell whether an item of a tree is ignored or excluded."""
        return self.apart.holds(tree, item) or self._is_ignored(tree, item)

    def _is_ignored(self, tree: Tree, item: Item) -> bool:
        path = path_of(tree, item.id)
        return path is not None and self._ignored(path, item.is_directory)

    def is_mistrusted(self, item: Item, synced: Tree, remote: Tree) -> bool:
        """Tell whether the absence of a synced item proves no removal."""
        if self.apart.holds(synced, item):
            return True
        if self._unseen.why(item.id) is None:
            return False
        want = remote.item(item.id)
        return not self._is_ignored(synced, item) or (want is not None and not self.hides(remote, want))

    def is_left_alone(self, id: ItemId, local: Tree, synced: Tree, remote: Tree) -> bool:
        """Tell whether an item stays as it is because its path is left out; under other rules all are planned anew."""
        here, base, want = local.item(id), synced.item(id), remote.item(id)
        if here is None:
            return self.hides(remote, want) if want is not None else base is not None and self.hides(synced, base)
        if self.hides(local, here):
            return True
        # What the folder gave a name that is ignored here keeps the old one; what it moved to an excluded place leaves.
        is_as_synced = side_of(here, base) is Side.SAME
        return is_as_synced and want is not None and not self.apart.holds(remote, want) and self.hides(remote, want)
