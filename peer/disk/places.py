"""Where the items of a run of steps are on the disk, while the steps themselves move them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from peer.core.observations import Fingerprint
from peer.core.tree import Item, ItemId
from peer.disk.outcomes import StopStep
from peer.disk.walk import join, split
from protocol import limits
from protocol.ids import ROOT


class Local(Protocol):
    """What a run of steps needs of the local tree, as the last scan left it."""

    def item(self, id: ItemId) -> Item | None:
        """Return the item, or None."""

    def fingerprint(self, id: ItemId) -> Fingerprint | None:
        """Return how the item looked when its content was hashed, or None."""

    def child(self, parent: ItemId, name: str) -> Item | None:
        """Return the item that stands where a step brings another one, or None."""

    def children(self, parent: ItemId) -> Iterable[Item]:
        """Return what stands in a directory that a step takes away."""


class Places:
    """The local tree with what this run has done so far laid over it."""

    def __init__(self, local: Local) -> None:
        self._local = local
        self._moved: dict[ItemId, tuple[ItemId, str]] = {}
        self._aside: dict[ItemId, str] = {}
        self._gone: set[ItemId] = set()
        self._paths: dict[ItemId, str] = {ROOT: ""}

    def directory(self, id: ItemId) -> str:
        """Return the path of a directory.

        Raises:
            StopStep: It is on no known way from the root.
        """
        path = self._paths.get(id)
        if path is None:
            path = self._paths[id] = self._find(id)
        return path

    def _find(self, id: ItemId) -> str:
        parts: list[str] = []
        while id not in self._aside and id != ROOT:
            place = self._moved.get(id)
            if place is None:
                item = self._local.item(id)
                if item is None:
                    raise StopStep("parent")
                place = item.parent, item.name
            parts.append(place[1])
            id = place[0]
            if len(parts) > limits.DEPTH_MAX:
                raise StopStep("parent")
        if id in self._aside:
            parts.append(self._aside[id])
        return "/".join(reversed(parts))

    def where(self, item: Item) -> tuple[str, str]:
        """Return (path of the directory, name) at which an item of the local tree stands now."""
        if item.id in self._aside:
            return split(self._aside[item.id])
        parent, name = self._moved.get(item.id, (item.parent, item.name))
        return self.directory(parent), name

    def path(self, item: Item) -> str:
        """Return the path at which an item of the local tree stands now."""
        return join(*self.where(item))

    def is_claimed(self, item: Item) -> bool:
        """Tell whether something else stood where an item is to stand when that was last looked at.

        Unless this run has taken it from there, only a scan can tell where a user has moved it: once another thing has its
        place, it would be two things there.
        """
        other = self._local.child(item.parent, item.name)
        return other is not None and other.id != item.id and not self._has_left(other)

    def is_occupied(self, item: Item) -> bool:
        """Tell whether anything stood in a directory when that was last looked at, and was not taken from there since.

        A user has moved it then: only a scan can tell whereto, as long as its row leads to a directory.
        """
        return any(not self._has_left(child) for child in self._local.children(item.id))

    def _has_left(self, item: Item) -> bool:
        return item.id in self._moved or item.id in self._aside or item.id in self._gone

    def move(self, item: Item, old: ItemId | None = None) -> None:
        """Note that an item now stands where it says; ``old`` is its id in the local tree, if that is another."""
        self._moved[item.id] = (item.parent, item.name)
        if old is not None and old != item.id:
            self._gone.add(old)
        self._aside.pop(item.id, None)
        if item.is_directory:
            self._paths = {ROOT: ""}

    def put_aside(self, id: ItemId, path: str) -> None:
        """Note that an item now stands at a path of our own."""
        self._aside[id] = path
        self._paths = {ROOT: ""}

    def drop(self, id: ItemId) -> None:
        """Note that an item stands nowhere any more."""
        self._gone.add(id)

    def back(self, id: ItemId) -> None:
        """Note that an item that was aside stands at its old place again."""
        self._aside.pop(id, None)
        self._paths = {ROOT: ""}
