"""What stands behind the files on a disk: contents, and the nodes by which other devices know them."""

from __future__ import annotations

from collections.abc import Iterator

from peer.core.tree import ItemId, path_of
from protocol.ids import NodeId, copy_id
from simulations.plan.device import Device
from simulations.plan.disk import DEVICE, Inode
from simulations.plan.ledger import Chain, Ledger


class Belongings:
    """The disk of one device, as the ledger needs to know it.

    Args:
        device: Whose disk it is.
        ledger: Is told what may multiply.
    """

    def __init__(self, device: Device, ledger: Ledger) -> None:
        self._device = device
        self._disk = device.disk
        self._ledger = ledger

    def _ids(self, inode: Inode) -> set[NodeId]:
        """Return the nodes behind what stands at an inode, as far as this device knows."""
        found: set[NodeId] = set()
        for item, _ in self._device.local.holders(DEVICE, inode.number):
            found |= self._nodes(item.id)
        return found

    def _nodes(self, id: ItemId) -> set[NodeId]:
        synced = self._device.synced.item(id)
        found = {id}
        for member in () if synced is None else synced.members:
            found.add(member.node)
            if member.copy is not None:
                found.add(copy_id(member.node, member.copy))
        return found

    def _taken(self, path: str) -> list[tuple[str, Chain]]:
        """Return each content at a path and below it that goes now, with the nodes whose removal takes it along."""
        found = list(self._contents(path, self._disk.at(path), set()))
        for was in self._moved_from(path):
            # What stands there now may count as an edit of what went.
            self._ledger.shared |= self._texts(was)
        return found

    def _contents(self, path: str, inode: Inode, above: set[NodeId]) -> Iterator[tuple[str, Chain]]:
        chain = above | self._ids(inode)
        if inode.is_directory:
            for name, below in inode.names.items():
                yield from self._contents(f"{path}/{name}", below, chain)
        elif inode.data:
            for _ in range(self._count(inode)):
                yield inode.data, Chain(frozenset(chain), frozenset(chain | self._above(inode)))

    def _count(self, inode: Inode) -> int:
        """Return how many nodes stand behind a file: all go with it."""
        items = (self._device.synced.item(item.id) for item, _ in self._device.local.holders(DEVICE, inode.number))
        return max((len(item.members) for item in items if item is not None), default=1)

    def _above(self, inode: Inode) -> set[NodeId]:
        """Return the directories that a file stood in when it was last looked at."""
        local, found = self._device.local, set[NodeId]()
        for item, _ in local.holders(DEVICE, inode.number):
            above = local.item(item.parent)
            while above is not None:
                found |= self._nodes(above.id)
                above = local.item(above.parent)
        return found

    def _moved_from(self, path: str) -> Iterator[str]:
        """Yield where things at a path and below it stood when they were last looked at, if something else is there now."""
        local, top = self._device.local, self._disk.at(path)
        below = [(path, top)]
        if top.is_directory:
            below += self._disk.walk(path)
        for here, inode in below:
            for item, _ in local.holders(DEVICE, inode.number):
                was = path_of(local, item.id)
                if was is not None and was != here and self._disk.exists(was):
                    yield was

    def _texts(self, path: str) -> set[str]:
        return {token for token, _ in self._contents(path, self._disk.at(path), set())}
