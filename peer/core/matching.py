"""Find the files that moved: rows that lost their path, and files at paths where they did not stand before.

Rule 1: a move needs the same inode and the same content. An inode alone is used again for other files.
Rule 2: where a path holds a file again and the old one is nowhere else, it is an edit, and what was renamed over it is
gone from where it was: editors save so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from peer.core.directories import Loose, Lost
from peer.core.tree import ItemId


class Matching:
    """Pairs of rows and files."""

    def __init__(
        self,
        loose: Sequence[Loose],
        lost: Mapping[tuple[int, int], Sequence[Lost]],
        hashes: Mapping[str, bytes],
        *,
        is_synced: Callable[[ItemId], bool],
    ) -> None:
        """Pair what belongs together.

        Args:
            loose: Sorted by path.
            lost: By inode, sorted by path.
            hashes: What the loose ones hold, by path; those that could not be read are missing.
            is_synced: Whether a row was ever synced; one that was not has no identity worth keeping.
        """
        self._is_synced = is_synced
        self._hashes = hashes
        self._at: dict[ItemId, Loose] = {each.own.item.id: each for each in loose if each.own is not None}
        """By row: what stands now at the path of the row."""
        self.row_of: dict[str, Lost] = {}
        """By path: the row that moved there."""
        self.file_of: dict[ItemId, Loose] = {}
        """By row: the file that it moved to."""
        self.held: set[str] = set()
        self.kept: set[ItemId] = set()
        for each in loose:
            if each.path in hashes:
                self._pair(each, lost.get(_inode_of(each), ()), hashes[each.path])
        self._prefer_edits(list(self.row_of))

    def _pair(self, loose: Loose, candidates: Iterable[Lost], hash: bytes) -> None:
        best: Lost | None = None
        for lost in candidates:
            item = lost.row.item
            if item.id in self.file_of or item.content.kind is not loose.sighting.kind or item.content.hash != hash:
                continue
            if self._is_backup(loose, lost):
                continue
            if best is None or item.name == loose.sighting.name != best.row.item.name:
                best = lost
        if best is not None:
            self.row_of[loose.path] = best
            self.file_of[best.row.item.id] = loose

    def _is_backup(self, loose: Loose, lost: Lost) -> bool:
        """Tell whether an editor put the old file aside, and wrote the new one under its name."""
        new = self._at.get(lost.row.item.id)
        return (
            new is not None
            and lost.path.rpartition("/")[0] == loose.directory
            and is_backup_name(loose.sighting.name, lost.row.item.name)
            and not self._came_from(new, loose)
        )

    def _came_from(self, loose: Loose, other: Loose) -> bool:
        """Tell whether a file is the one that stood at the path of another: then somebody exchanged their names."""
        own = other.own
        if own is None or (own.fingerprint.device, own.fingerprint.inode) != _inode_of(loose):
            return False
        return own.item.content.kind is loose.sighting.kind and own.item.content.hash == self._hashes.get(loose.path)

    def _prefer_edits(self, work: list[str]) -> None:
        """Undo the pairs that are better understood as an edit of what stood at the path."""
        while work:
            path = work.pop()
            lost = self.row_of.get(path)
            if lost is None:
                continue
            own = self.file_of[lost.row.item.id].own
            if own is None or own.item.id in self.file_of:
                continue
            behind = self._at.get(lost.row.item.id)
            if behind is not None and self._is_synced(lost.row.item.id):
                continue  # a chain of renames, such as log -> log.1 -> log.2, whose last one is overwritten
            del self.row_of[path]
            del self.file_of[lost.row.item.id]
            if behind is not None:
                work.append(behind.path)

    def hold(self, loose: Loose) -> None:
        """Leave a path as it was, and its row."""
        self.held.add(loose.path)
        if loose.own is not None:
            self.kept.add(loose.own.item.id)

    def keep(self, id: ItemId) -> None:
        """Leave a row as it was."""
        self.kept.add(id)

    def stands_at(self, id: ItemId) -> Loose | None:
        """Return the file that stands now at the path of a row."""
        return self._at.get(id)


def is_backup_name(name: str, original: str) -> bool:
    """Tell whether editors name the old version of a file so that they are about to write: ``f~``, ``f.~2~``, ``f.bak``."""
    return name in (f"{original}~", f"{original}.bak") or (name.startswith(f"{original}.~") and name.endswith("~"))


def _inode_of(loose: Loose) -> tuple[int, int]:
    fingerprint = loose.sighting.fingerprint
    return fingerprint.device, fingerprint.inode
