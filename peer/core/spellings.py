"""Which known name it is that a disk shows in another Unicode form than it was given.

Some file systems keep all names decomposed, or all composed. There a file that another device named is listed under another
spelling, and still opens under its own. Rule 1: what is known by a name keeps that name, wherever its directory has moved;
only what nobody knows is named as the disk shows it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from peer.core.conflicts import bytes_of, name_key
from peer.core.observations import Listing
from peer.core.tree import ItemId, Tree
from protocol.ids import ROOT


class Spellings:
    """The names of one scan of such a disk; a directory's listing comes after its parent's."""

    def __init__(self, trees: Sequence[Tree], standing: Callable[[tuple[int, int]], ItemId | None]) -> None:
        """Begin.

        Args:
            trees: Where names are known; the first one counts most.
            standing: Returns the directory that has a (device, inode), also where it has moved.
        """
        self._trees = trees
        self._standing = standing
        self._paths: dict[str, str] = {}
        """Known paths of directories whose shown ones differ."""

    def respelled(self, listing: Listing) -> Listing:
        """Return a listing with known names in place of other spellings of them."""
        path = self._path(listing.path)
        sightings = listing.sightings
        if not all(sighting.name.isascii() for sighting in sightings):
            directory = None if listing.inode is None else self._standing(listing.inode)
            directory = self._at(path) if directory is None else directory
            names = [self._known(directory, sighting.name) for sighting in sightings]
            for sighting, name in zip(sightings, names, strict=True):
                if name != sighting.name or path != listing.path:
                    self._paths[_join(listing.path, sighting.name)] = _join(path, name)
            sightings = tuple(
                sighting if name == sighting.name else msgspec.structs.replace(sighting, name=name)
                for sighting, name in zip(sightings, names, strict=True)
            )
            sightings = tuple(sorted(sightings, key=lambda sighting: sighting.name))
        if path == listing.path and sightings is listing.sightings:
            return listing
        return msgspec.structs.replace(listing, path=path, sightings=sightings)

    def _path(self, shown: str) -> str:
        if shown.isascii():
            return shown
        if shown not in self._paths:
            above, _, name = shown.rpartition("/")
            path = self._path(above)
            self._paths[shown] = _join(path, self._known(self._at(path), name))
        return self._paths[shown]

    def _at(self, path: str) -> ItemId | None:
        here: ItemId | None = ROOT
        for part in path.split("/") if path else ():
            found = (None if here is None else tree.child(here, part) for tree in self._trees)
            here = next((item.id for item in found if item is not None), None)
        return here

    def _known(self, directory: ItemId | None, name: str) -> str:
        if directory is None or name.isascii():
            return name
        key = name_key(bytes_of(name))
        for tree in self._trees:
            if tree.child(directory, name) is not None:
                return name
            for item in tree.children(directory):
                if not item.name.isascii() and name_key(bytes_of(item.name)) == key:
                    return item.name
        return name


def _join(directory: str, name: str) -> str:
    return f"{directory}/{name}" if directory else name
