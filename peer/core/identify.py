"""Turn what a scan saw into the local tree: which item is which, wherever it moved.

Rule 1: pure and lazy. Only what differs from the rows of the local tree is kept; the rest costs one comparison.
Rule 2: a file whose inode lives on under another name, with the same content, moved there. Otherwise the item of a path
is what stands at that path, however it got there: so saving by writing anew and renaming is an edit.
Rule 3: a file is removed only if its directory was seen, without a problem, and it is not in it.
Rule 4: any difference of the fingerprint is a reason to read. Content is only taken over from what cannot be another file.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping
from typing import Final, NamedTuple, Protocol

import msgspec
from blake3 import blake3

from peer.core.directories import Changed, Directories, LocalTree, Loose, Lost, Row, join
from peer.core.matching import Matching
from peer.core.observations import Fingerprint, Listing, Sighting
from peer.core.tree import Content, Item, ItemId, Tree
from protocol.entries import Kind
from protocol.ids import NODE_ID_BYTES, ROOT, NodeId

__all__ = ["HashResult", "Identification", "Identified", "LocalTree", "Row"]

_EMPTY: Final = blake3(b"").digest()
"""Stands for the change time in the row of a file that was written just before it was read, so that it is read again."""
_OWNER_EXECUTES: Final = 0o100


class HashResult(Protocol):
    """What reading one file gave."""

    @property
    def hash(self) -> bytes:
        """BLAKE3 of the bytes."""

    @property
    def fingerprint(self) -> Fingerprint:
        """Of the very bytes that were hashed."""

    @property
    def problem(self) -> str:
        """Not empty: it could not be read, or did not stand still."""

    @property
    def settled(self) -> bool:
        """Whether the fingerprint proves that nothing was written since."""


class Identified(msgspec.Struct, frozen=True):
    """How the local tree changes."""

    puts: tuple[Row, ...]
    """New and changed rows, parents before children."""
    drops: tuple[ItemId, ...]
    """Rows of what is gone, sorted."""
    undecided: tuple[str, ...]
    """Paths to look at again, with the directories that hold them: this scan could not tell, so their rows stay."""
    wanted: tuple[str, ...]
    """Directories to list, with all below them: they appeared in a scan that did not go into them."""
    unread: tuple[tuple[str, str], ...]
    """(path, problem) of files that are there but not taken in, because their content is not known."""
    hides: bool = False
    """Whether a look at everything left out directories in which something that it missed may stand."""


class _Reading(NamedTuple):
    hash: bytes
    fingerprint: Fingerprint


class Identification:
    """One scan: :meth:`observe` each listing, hash what :meth:`requests` names, then take the :meth:`result`."""

    def __init__(
        self,
        *,
        local: LocalTree,
        synced: Tree,
        entropy: Callable[[int], bytes],
        full: bool,
        settled: Container[str] | None = None,
        moved: Container[str] = (),
    ) -> None:
        """Begin.

        Args:
            local: The rows as they were before the scan. They must not change until the result is there.
            synced: To find again what stood at a path whose local row is lost.
            entropy: Random bytes for new ids.
            full: Whether all directories are listed, so that what has no listing is not there.
            settled: Paths that may be taken as removed or moved by this scan; None: all that it has seen. The others
                come back as undecided. Directories that moved are always decided.
            moved: Paths from which something surely went elsewhere in the folder. What this scan does not see there comes
                back as undecided, too.
        """
        self._local = local
        self._synced = synced
        self._entropy = entropy
        self._full = full
        self._settled = settled
        self._moved = moved
        self._found = Directories(
            local, synced, self._new_id, full=full, is_decided=self._is_decided, has_moved=moved.__contains__
        )
        self._lost: dict[tuple[int, int], list[Lost]] = {}
        self._loose: list[Loose] = []
        self._waiting: list[Loose] = []
        self._undecided: set[str] = set()
        self._unread: dict[str, str] = {}
        self._judged = False

    def _new_id(self) -> NodeId:
        return NodeId(self._entropy(NODE_ID_BYTES))

    def _is_decided(self, path: str) -> bool:
        return self._settled is None or path in self._settled

    # --- Looking

    def observe(self, listing: Listing) -> None:
        """Take in a listing: a directory after its parent. A second listing of a path replaces the first.

        In a partial scan the parent's listing may be missing; then the directory is taken for the one that was there.
        """
        assert not self._judged, "all listings come before the first request"
        self._found.observe(listing)

    def requests(self) -> tuple[str, ...]:
        """Return the paths of the files to hash, sorted, once all listings are there."""
        self._judge()
        paths = [loose.path for loose in self._loose if self._known_hash(loose) is None]
        paths += [changed.path for changed in self._found.changed if _plain_hash(changed.sighting) is None]
        return tuple(sorted(paths))

    def _judge(self) -> None:
        if self._judged:
            return
        self._judged = True
        self._found.judge()
        for lost in sorted(self._found.lost, key=lambda lost: lost.path):
            self._lost.setdefault(_inode(lost.row.fingerprint), []).append(lost)
        for loose in sorted(self._found.loose, key=lambda loose: loose.path):
            elsewhere = self._unseen_holder(loose)
            if elsewhere is None:
                self._loose.append(loose)
            else:
                self._waiting.append(loose)
                self._undecided.add(elsewhere)

    def _unseen_holder(self, loose: Loose) -> str | None:
        """Return where else this file may still be, or may have come from, if this scan has not seen that place."""
        inode = _inode(loose.sighting.fingerprint)
        if inode in self._lost:
            return None
        for item, fingerprint in self._local.holders(*inode):
            if item.is_directory:
                continue
            if self._is_changing(item):
                return loose.path
            if item.parent in self._found.listed:
                continue
            path = self._path_of(item)
            if self._found.is_blind(path):  # nobody can see whether it is still there: the content tells
                self._lost.setdefault(inode, []).append(Lost(Row(item, fingerprint), path, decided=True))
            elif not self._full:
                return path
        return None

    def _is_changing(self, item: Item) -> bool:
        """Tell whether a row, or a directory above it that nobody listed, is not to be judged yet."""
        here: Item | None = item
        while here is not None:
            if self._found.kept.get(here.id) == "changing":
                return True
            here = None if here.parent in self._found.listed else self._local.item(here.parent)
        return False

    def _path_of(self, item: Item) -> str:
        """Return the path of a row, by where its directories are now."""
        names = [item.name]
        while item.parent != ROOT:
            if item.parent in self._found.claimed:
                return join(self._found.claimed[item.parent], "/".join(reversed(names)))
            above = self._local.item(item.parent)
            if above is None:
                break
            names.append(above.name)
            item = above
        return "/".join(reversed(names))

    def _known_hash(self, loose: Loose) -> bytes | None:
        """Return the hash of what need not be read: an empty file, a link, or a file that came along with its directory.

        A file that was renamed itself is read: that changed its change time, and a program that restores the
        modification time may have written to it too.
        """
        plain = _plain_hash(loose.sighting)
        if plain is not None:
            return plain
        now = loose.sighting.fingerprint
        for lost in self._lost.get(_inode(now), ()):
            was, kind = lost.row.fingerprint, lost.row.item.content.kind
            if kind is Kind.FILE and (was.size, was.mtime_ns, was.ctime_ns) == (now.size, now.mtime_ns, now.ctime_ns):
                return lost.row.item.content.hash
        return None

    # --- Deciding

    def result(self, hashes: Mapping[str, HashResult]) -> Identified:
        """Return how the local tree changes.

        Args:
            hashes: For each request, by path. What is missing counts as unreadable.
        """
        self._judge()
        found = self._found
        readings = self._read(hashes)
        matching = Matching(
            self._loose,
            self._lost,
            {path: reading.hash for path, reading in readings.items()},
            is_synced=lambda id: self._synced.item(id) is not None,
        )
        self._hold_back(matching, readings)
        puts = dict(found.puts)
        puts.update(self._changes(readings))
        puts.update(self._arrivals(matching, readings))
        drops = {lost.row.item.id for lost in (*found.dropped, *found.lost)}
        drops.difference_update(row.item.id for row in puts.values())
        kept = [*matching.kept, *found.kept]
        if kept or found.undecided or self._undecided:
            self._withhold(puts, drops, kept)
        return Identified(
            tuple(row for _, row in sorted(puts.items())),
            tuple(sorted(drops)),
            tuple(sorted(self._undecided | found.undecided)),
            tuple(sorted(found.wanted)),
            tuple(sorted(self._unread.items())),
            found.hides,
        )

    def _read(self, hashes: Mapping[str, HashResult]) -> dict[str, _Reading]:
        """Return by path what each loose or changed file holds, as far as it could be read."""
        readings: dict[str, _Reading] = {}
        known: list[tuple[Loose | Changed, bytes | None]] = [(each, self._known_hash(each)) for each in self._loose]
        known += [(each, _plain_hash(each.sighting)) for each in self._found.changed]
        for each, hash in known:
            now = each.sighting.fingerprint
            if hash is not None:
                readings[each.path] = _Reading(hash, now)
                continue
            result = hashes.get(each.path)
            if result is None or result.problem or _inode(result.fingerprint) != _inode(now):
                self._unread[each.path] = "changing" if result is None else result.problem or "changing"
                continue
            seen = result.fingerprint if result.settled else result.fingerprint.doubted()
            readings[each.path] = _Reading(result.hash, seen)
        return readings

    def _hold_back(self, matching: Matching, readings: Mapping[str, _Reading]) -> None:
        """Leave alone what cannot be told yet; :meth:`_withhold` finds what depends on it."""
        for loose in self._waiting:
            matching.hold(loose)
        for loose in self._loose:
            lost = matching.row_of.get(loose.path)
            was = self._lost.get(_inode(loose.sighting.fingerprint), ())
            if loose.path not in readings:
                matching.hold(loose)
                for candidate in was:
                    matching.keep(candidate.row.item.id)
            elif lost is not None and not lost.decided:
                matching.hold(loose)
                matching.keep(lost.row.item.id)
                self._undecided.add(lost.path)
            elif any(not each.decided and matching.stands_at(each.row.item.id) is None for each in was):
                matching.hold(loose)  # one file was moved over another: either both ends are told, or none
        seen = {_inode(loose.sighting.fingerprint) for loose in self._loose}
        for lost in self._found.lost:
            id = lost.row.item.id
            has_gone_on = lost.path in self._moved and _inode(lost.row.fingerprint) not in seen
            if (has_gone_on or not lost.decided) and id not in matching.file_of and matching.stands_at(id) is None:
                matching.keep(id)
                self._undecided.add(lost.path)
        self._undecided |= matching.held - self._unread.keys()
        self._unread.update((path, "unreadable") for path in self._found.refused)

    def _changes(self, readings: Mapping[str, _Reading]) -> Iterable[tuple[str, Row]]:
        for changed in self._found.changed:
            reading = readings.get(changed.path)
            if reading is not None:
                item = changed.row.item
                content = _content(changed.sighting, reading, changed.row)
                yield changed.path, Row(Item(item.id, item.parent, item.name, content), reading.fingerprint)

    def _arrivals(self, matching: Matching, readings: Mapping[str, _Reading]) -> Iterable[tuple[str, Row]]:
        taken: set[ItemId] = set(matching.file_of)
        for loose in self._loose:
            if loose.path in matching.held:
                continue
            reading = readings[loose.path]
            parent = self._found.ids[loose.directory]
            lost = matching.row_of.get(loose.path)
            was = lost.row if lost is not None else loose.own
            if was is not None and (lost is not None or was.item.id not in taken):
                id = was.item.id
            else:
                id = self._id_for(parent, loose.sighting.name, taken)
            taken.add(id)
            content = _content(loose.sighting, reading, was if was is not None and was.item.id == id else None)
            yield loose.path, Row(Item(id, parent, loose.sighting.name, content), reading.fingerprint)

    def _id_for(self, parent: ItemId, name: str, taken: Container[ItemId]) -> ItemId:
        """Return the id of a file that is new here: that of a synced one at this path whose row is lost, or a new one."""
        item = self._synced.child(parent, name)
        if item is not None and not item.is_directory and item.id not in taken and self._local.item(item.id) is None:
            return item.id
        return self._new_id()

    def _withhold(self, puts: dict[str, Row], drops: set[ItemId], kept: Iterable[ItemId]) -> None:
        """Take back what does not fit beside rows that stay: two at one place, or one whose directory is gone."""
        for id in kept:
            self._keep_above(id, drops)
        while True:
            placed = {row.item.id for row in puts.values()}
            misfits = [path for path, row in puts.items() if not self._fits(row.item, placed, drops)]
            if not misfits:
                return
            for path in misfits:
                self._undecided.add(path)
                self._keep_above(puts.pop(path).item.id, drops)

    def _fits(self, item: Item, placed: Container[ItemId], drops: Container[ItemId]) -> bool:
        there = self._local.child(item.parent, item.name)
        if there is not None and there.id != item.id and there.id not in drops and there.id not in placed:
            return False
        if item.parent == ROOT or item.parent in placed:
            return True
        return item.parent not in drops and self._local.item(item.parent) is not None

    def _keep_above(self, id: ItemId, drops: set[ItemId]) -> None:
        drops.discard(id)
        item = self._local.item(id)
        while item is not None and item.parent in drops:
            drops.discard(item.parent)
            item = self._local.item(item.parent)


def _inode(fingerprint: Fingerprint) -> tuple[int, int]:
    return fingerprint.device, fingerprint.inode


def _plain_hash(sighting: Sighting) -> bytes | None:
    """Return the hash of a link or of an empty file, which need not be read."""
    if sighting.kind is Kind.LINK:
        return blake3(sighting.target).digest()
    return None if sighting.fingerprint.size else _EMPTY


def _content(sighting: Sighting, reading: _Reading, was: Row | None) -> Content:
    """Return what an item holds now. Attributes that look as before are as before, even where the disk is less exact."""
    if sighting.kind is Kind.LINK:
        return Content(Kind.LINK, reading.hash, len(sighting.target), target=sighting.target)
    now = reading.fingerprint
    mtime_ns, executable = now.mtime_ns, bool(now.mode & _OWNER_EXECUTES)
    if was is not None and was.item.content.kind is Kind.FILE:
        if was.fingerprint.mtime_ns == now.mtime_ns:
            mtime_ns = was.item.content.mtime_ns
        if was.fingerprint.mode == now.mode:
            executable = was.item.content.executable
    return Content(Kind.FILE, reading.hash, now.size, mtime_ns, executable)
