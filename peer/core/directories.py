"""Tell which directory is which, and what in each is not as it was: the first half of :mod:`peer.core.identify`.

A directory is recognised by its inode, since only one name can lead to it; where a new directory stands in the place of an
old one that is nowhere else, it is the old one.

Rule 1: a listing is compared once, against the rows of one directory, and only what differs is kept.
Rule 2: what a listing with a problem may hide has not vanished, nor has anything below it.
Rule 3: a later listing of a path replaces an earlier one, and all that was believed because of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final, NamedTuple, Protocol

from peer.core.observations import Fingerprint, Listing, Sighting
from peer.core.tree import Content, Item, ItemId, Tree, path_of
from protocol.entries import Kind
from protocol.ids import ROOT

DIRECTORY: Final = Content(Kind.DIRECTORY)


class Row(NamedTuple):
    """A row of the local tree."""

    item: Item
    fingerprint: Fingerprint


class LocalTree(Tree, Protocol):
    """The local tree with how each item looked when it was last taken in."""

    def rows(self, parent: ItemId) -> Iterable[tuple[Item, Fingerprint]]:
        """Return the rows of a directory."""

    def holders(self, device: int, inode: int) -> Iterable[tuple[Item, Fingerprint]]:
        """Return the rows that were seen with this inode: several for hard links, or where inodes were used again."""


class Lost(NamedTuple):
    """A row whose file is not at its path any more."""

    row: Row
    path: str
    decided: bool
    """Whether it may be taken as removed or moved now."""


class Loose(NamedTuple):
    """A file or link at a path where it did not stand before."""

    sighting: Sighting
    directory: str
    own: Row | None
    """The row of the file or link that stood at this path."""

    @property
    def path(self) -> str:
        """From the root."""
        return join(self.directory, self.sighting.name)


class Changed(NamedTuple):
    """A file or link that is still where it was, but looks different."""

    sighting: Sighting
    directory: str
    row: Row

    @property
    def path(self) -> str:
        """From the root."""
        return join(self.directory, self.sighting.name)


class _Below(NamedTuple):
    """A directory in a listing."""

    sighting: Sighting
    row: Row | None
    """The directory row at this place."""

    @property
    def is_in_place(self) -> bool:
        return self.row is not None and same_inode(self.row.fingerprint, self.sighting.fingerprint)


class _Seen:
    """What one listing says. Most say that nothing is new, so nothing is kept for them."""

    __slots__ = (
        "below",
        "changed",
        "id",
        "is_moved",
        "is_new",
        "kept",
        "listing",
        "loose",
        "lost",
        "moves_along",
        "own",
        "waiting",
    )

    def __init__(self) -> None:
        self.id: ItemId | None = None
        self.is_new = False
        self.is_moved = False
        self.moves_along = False
        """Whether it, or one above it, moved."""
        self.own: _Below | None = None
        """As its parent's listing shows it; None for the root, and where the parent was not listed."""
        self.listing: Listing | None = None
        """Kept until it is known which directory this is."""
        self.below: dict[str, _Below] | None = None
        self.loose: Sequence[tuple[Sighting, Row | None]] = ()
        self.lost: Sequence[Row] = ()
        self.changed: Sequence[tuple[Sighting, Row]] = ()
        self.kept: Sequence[tuple[Row, str]] = ()
        self.waiting: Sequence[Sighting] = ()
        """What stands at names that are not to be judged yet."""

    def find(self, name: str) -> _Below | None:
        """Return the directory of this name in the listing."""
        return None if self.below is None else self.below.get(name)


class Directories:
    """Collects the listings of one scan."""

    def __init__(
        self,
        local: LocalTree,
        synced: Tree,
        new_id: Callable[[], ItemId],
        *,
        full: bool,
        is_decided: Callable[[str], bool],
        has_moved: Callable[[str], bool],
    ) -> None:
        self._local = local
        self._synced = synced
        self._new_id = new_id
        self._full = full
        self._is_decided = is_decided
        self._has_moved = has_moved
        self._seen: dict[str, _Seen | None] = {}
        """None: it is there but nothing below it can be told."""
        self._blind: set[str] = set()
        self._elsewhere: set[tuple[int, int]] = set()
        self._waiting: dict[tuple[int, int], str] = {}
        """What stands somewhere, at a name that is not to be judged yet: it is not gone, whatever it was."""
        self._left: set[str] = set()
        """Directories in which nothing is to be judged yet."""
        self._compared: set[ItemId] = set()
        self._standing: set[ItemId] = set()
        self.claimed: dict[ItemId, str] = {}
        """Directories that are there, and where."""
        self.ids: dict[str, ItemId] = {"": ROOT}
        """By path: every directory that was listed or is new."""
        self.puts: list[tuple[str, Row]] = []
        self.kept: dict[ItemId, str] = {}
        """Rows about which this scan says nothing, and the problem with each."""
        self.lost: list[Lost] = []
        self.loose: list[Loose] = []
        self.changed: list[Changed] = []
        self.dropped: list[Lost] = []
        self.undecided: set[str] = set()
        self.wanted: set[str] = set()
        self.refused: set[str] = set()
        """Directories that stand at another place as well, as a bind mount shows them."""
        self.listed: set[ItemId] = set()
        self.hides = False
        """Whether something is missing that may stand in a directory which was not to be looked at yet."""

    # --- First: as the listings come

    def observe(self, listing: Listing) -> None:
        """Take in one listing; that of a directory after that of its parent."""
        self._seen.pop(listing.path, None)
        self._blind.discard(listing.path)
        if listing.problem:
            self._seen[listing.path] = None
            self._blind.add(listing.path)
            return
        seen = self._look(listing)
        if seen is not None:
            self._seen[listing.path] = seen

    def is_blind(self, path: str) -> bool:
        """Tell whether a directory above a path could not be read."""
        return any(path.startswith(f"{blind}/") for blind in self._blind)

    def _look(self, listing: Listing) -> _Seen | None:
        seen = _Seen()
        above, _, name = listing.path.rpartition("/")
        if not listing.path:
            seen.id = ROOT
        elif above in self._seen:
            parent = self._seen[above]
            if parent is None:
                return None
            if parent.listing is not None:
                seen.listing = listing
                return seen
            below = parent.find(name)
            if below is None:
                return None
            if not self._recognise(seen, below, listing, is_late=False):
                seen.listing = listing
            seen.moves_along = seen.is_moved or parent.moves_along
        else:
            seen.id = None if self._full else self._id_at(listing)
            if seen.id is None:
                return None
        if seen.listing is None:
            self._compare(seen, listing)
        return seen

    def _id_at(self, listing: Listing) -> ItemId | None:
        """Return which directory stood at the path of a listing that came without its parent's."""
        here: ItemId = ROOT
        for part in listing.path.split("/"):
            item = self._local.child(here, part)
            if item is None or not item.is_directory:
                self.wanted.add(listing.path.rpartition("/")[0])
                return None
            here = item.id
        if listing.inode is not None and all(item.id != here for item, _ in self._local.holders(*listing.inode)):
            self.wanted.add(listing.path.rpartition("/")[0])
            return None
        return here

    def _recognise(self, seen: _Seen, below: _Below, listing: Listing, *, is_late: bool) -> bool:
        """Find out which directory was listed; False if that depends on what all the other listings show."""
        seen.own = below
        moved = None if below.is_in_place else self._moved_here(below.sighting, listing)
        if below.is_in_place and below.row is not None:
            seen.id = below.row.item.id
        elif moved is not None:
            seen.id, seen.is_moved = moved, True
        elif below.row is not None or (not is_late and next(self._same_inode(below.sighting), None) is not None):
            return False
        else:
            seen.is_new = True
        return True

    def _moved_here(self, sighting: Sighting, listing: Listing | None) -> ItemId | None:
        """Return the directory that had this inode, unless the inode was only used again.

        A move leaves a directory's modification time alone; if that is another, what is in it must tell, or the watcher
        that it went elsewhere.
        """
        for item, fingerprint in self._same_inode(sighting):
            if fingerprint.mtime_ns == sighting.fingerprint.mtime_ns or self._has_gone(item.id):
                return item.id
            if listing is not None and self._holds_what_stood_in(item.id, sighting, listing):
                return item.id
        return None

    def _same_inode(self, sighting: Sighting) -> Iterator[tuple[Item, Fingerprint]]:
        """Yield the directories that had the inode of one that is seen."""
        holders = self._local.holders(sighting.fingerprint.device, sighting.fingerprint.inode)
        return ((item, fingerprint) for item, fingerprint in holders if item.is_directory)

    def _has_gone(self, id: ItemId) -> bool:
        """Tell whether the watcher told that a directory went elsewhere."""
        return self._has_moved(path_of(self._local, id) or "")

    def _holds_what_stood_in(self, id: ItemId, sighting: Sighting, listing: Listing) -> bool:
        """Tell whether what stands in a directory stood in another one, and was not written since: then both are one.

        An inode alone says nothing: where a tree is removed and another one is made, those of all that was in it may be
        used again in the same order, and under the same names. Where nothing stood in it or does, its own times must tell
        that it was renamed: one that was just made was changed at that moment, and not afterwards.
        """
        if not listing.sightings or next(iter(self._local.rows(id)), None) is None:
            return sighting.fingerprint.ctime_ns > sighting.fingerprint.mtime_ns
        work = [(id, listing)]
        while work:
            id, listing = work.pop()
            there = {_inode(each.fingerprint): each for each in listing.sightings}
            for child, was in self._local.rows(id):
                now = there.get(_inode(was))
                if now is None or now.kind is not child.content.kind:
                    continue
                if (was.mtime_ns, was.size) == (now.fingerprint.mtime_ns, now.fingerprint.size):
                    return True
                below = self._seen.get(join(listing.path, now.name)) if child.is_directory else None
                if below is not None and below.listing is not None:
                    work.append((child.id, below.listing))
        return False

    def _compare(self, seen: _Seen, listing: Listing) -> None:
        """Sort what differs from the rows of the directory. This is where a scan of a million files spends its time."""
        known = [] if seen.id is None else list(self._local.rows(seen.id))
        rows = {row[0].name: row for row in known}
        doubled = [] if len(rows) == len(known) else _doubled(known, rows, listing)
        below: dict[str, _Below] = {}
        odd: list[tuple[Sighting, Row | None]] = []
        for sighting in listing.sightings:
            found = rows.pop(sighting.name, None)
            if found is None:
                odd.append((sighting, None))
            elif found[1] != sighting.fingerprint or sighting.problem:
                odd.append((sighting, Row(*found)))
            elif sighting.kind is Kind.DIRECTORY:
                below[sighting.name] = _Below(sighting, Row(*found))
        lost = [Row(*row) for row in (*rows.values(), *doubled)]
        if odd:
            self._sort(seen, odd, below, lost)
        seen.below, seen.lost = below or None, lost or ()

    @staticmethod
    def _sort(
        seen: _Seen, odd: Iterable[tuple[Sighting, Row | None]], below: dict[str, _Below], lost: list[Row]
    ) -> None:
        seen.kept, seen.changed, seen.loose = kept, changed, loose = [], [], []
        seen.waiting = [each for each, _ in odd if each.problem == "changing" and each.kind is not None]
        for sighting, row in odd:
            if sighting.problem:
                if row is not None:
                    kept.append((row, sighting.problem))
            elif sighting.kind is Kind.DIRECTORY:
                entry = _Below(sighting, row if row is not None and row.item.is_directory else None)
                below[sighting.name] = entry
                if row is not None and not entry.is_in_place:
                    lost.append(row)
            elif sighting.kind is None:
                lost.extend(() if row is None else (row,))
            elif row is not None and not row.item.is_directory and same_inode(row.fingerprint, sighting.fingerprint):
                changed.append((sighting, row))
            else:
                lost.extend(() if row is None else (row,))
                loose.append((sighting, None if row is None or row.item.is_directory else row))

    # --- Then: when all listings are there

    def judge(self) -> None:
        """Decide which directory is which, and fill the public attributes."""
        paths = sorted(self._seen)
        for path in paths:
            self._confirm(path)
        for path, seen in self._seen.items():
            if seen is not None:
                self.kept.update((row.item.id, problem) for row, problem in seen.kept)
                self._compared.update(() if seen.id is None else (seen.id,))
                self._waiting.update((_inode(one.fingerprint), join(path, one.name)) for one in seen.waiting)
        self._elsewhere = {_inode(fingerprint) for fingerprint in self._out_of_place()}
        for moved in (False, True):
            for path in paths:
                seen = self._seen.get(path)
                if seen is not None and seen.id is not None and seen.moves_along is moved:
                    self._claim(path, seen)
        for path in paths:
            seen = self._seen.get(path)
            if seen is not None:
                self._settle(path, seen)
        self.hides = self._full and bool(self.lost) and any(map(_hides, self._seen.values()))
        if self._left:  # what is missing elsewhere may stand in these, which was not known when that was looked at
            self.lost = [lost._replace(decided=lost.decided and self._is_nowhere(lost.row)) for lost in self.lost]
        if self.wanted or self.hides:  # what is missing here may stand there
            self.lost = [lost._replace(decided=False) for lost in self.lost]
        for lost in self.lost[:]:
            if lost.row.item.is_directory:
                self._lose_directory(lost)
        self.lost = [lost for lost in self.lost if not lost.row.item.is_directory]

    def _out_of_place(self) -> Iterator[Fingerprint]:
        """Yield every directory that is not where it was, and note those that are."""
        for seen in self._seen.values():
            if seen is not None and seen.listing is not None:
                yield from (s.fingerprint for s in seen.listing.sightings if s.kind is Kind.DIRECTORY)
            elif seen is not None and seen.below is not None:
                for below in seen.below.values():
                    if not below.is_in_place:
                        yield below.sighting.fingerprint
                    elif below.row is not None:
                        self._standing.add(below.row.item.id)

    def _parent_of(self, path: str) -> tuple[_Seen | None, str]:
        above, _, name = path.rpartition("/")
        return self._seen.get(above), name

    def _confirm(self, path: str) -> None:
        """Forget a listing whose directory has been replaced or has vanished since, says its parent's last listing."""
        seen = self._seen[path]
        parent, name = self._parent_of(path)
        if seen is None or not path:
            pass
        elif parent is None:
            if path.rpartition("/")[0] in self._seen or self._full:
                self._seen[path] = None
        elif parent.listing is None:
            below = parent.find(name)
            own = seen.own
            if below is None or (own and not same_inode(own.sighting.fingerprint, below.sighting.fingerprint)):
                self._seen[path] = None

    def _claim(self, path: str, seen: _Seen) -> None:
        """Let a directory be at one place only: where it stood, if two are seen."""
        assert seen.id is not None
        if seen.moves_along and self._parent_of(path)[0] is None:
            self._leave_below(path, seen)
        elif seen.is_moved and not self._may_have_left(seen.id):
            self._wait_for(path, seen, seen.id)
        elif self.claimed.setdefault(seen.id, path) != path:
            self._seen[path] = None
            self.refused.add(path)

    def _wait_for(self, path: str, seen: _Seen, id: ItemId) -> None:
        """Leave a directory alone until the place that it may have come from was looked at."""
        self._leave(path, seen)
        self.undecided |= {path, path_of(self._local, id) or ""}

    def _leave(self, path: str, seen: _Seen) -> None:
        """Judge nothing that stands in a directory; it is not gone either, wherever it stood before."""
        self._seen[path] = None
        self._left.add(path)
        there = [one.sighting for one in (seen.below or {}).values()] + [sighting for sighting, _ in seen.loose]
        there += () if seen.listing is None else seen.listing.sightings
        self._waiting.update((_inode(one.fingerprint), join(path, one.name)) for one in there if one.kind is not None)

    def _leave_below(self, path: str, seen: _Seen) -> None:
        """Let what stands below a directory share its fate, of which nothing is told."""
        self._seen[path] = None
        if path.rpartition("/")[0] in self._left:
            self._leave(path, seen)

    def _may_have_left(self, id: ItemId) -> bool:
        """Tell whether a directory's old place was looked at, so that it may be taken as moved away from it."""
        if id in self.kept:
            return False
        item = self._local.item(id)
        while not self._full and item is not None and item.parent not in self._compared:
            if item.parent == ROOT or item.parent in self._standing:
                return False
            item = self._local.item(item.parent)
        return True

    def _settle(self, path: str, seen: _Seen) -> None:
        """Take over what a listing says, now that every inode has been seen."""
        above, _, name = path.rpartition("/")
        if above in self._seen and self._seen[above] is None:
            self._leave_below(path, seen)
            return
        if seen.listing is not None and not self._settle_late(path, seen):
            return
        if seen.is_new:
            seen.id = self._id_for(self.ids[above], name)
            self.claimed[seen.id] = path
        assert seen.id is not None
        self.ids[path] = seen.id
        self.listed.add(seen.id)
        if seen.own is not None:
            was = seen.own.row
            if was is None or was.item.id != seen.id or was.fingerprint != seen.own.sighting.fingerprint:
                self._put(path, seen.id, seen.own.sighting)
        self._take(path, seen)

    def _settle_late(self, path: str, seen: _Seen) -> bool:
        """Find out which directory this is that stands where another one stood."""
        parent, name = self._parent_of(path)
        listing = seen.listing
        assert parent is not None
        assert listing is not None
        below = parent.find(name)
        if below is None:
            self._seen[path] = None
            return False
        seen.listing = None
        known = self._recognise(seen, below, listing, is_late=True)
        if seen.is_moved and seen.id is not None and not self._may_have_left(seen.id):
            self._wait_for(path, seen, seen.id)
            return False
        if seen.is_moved and seen.id in self.claimed:
            known, seen.id, seen.is_moved = False, None, False
        if not known:
            row = below.row
            if row is None or row.item.id in self.claimed or _inode(row.fingerprint) in self._elsewhere:
                seen.is_new = True
            elif not self._is_decided(path) or self._has_moved(path):
                self._wait_for(path, seen, row.item.id)
                return False
            else:
                seen.id = row.item.id
        if seen.id is not None:
            self.claimed[seen.id] = path
        self._compare(seen, listing)
        return True

    def _id_for(self, parent: ItemId, name: str) -> ItemId:
        """Return the id of a directory that is new here: that of a synced one at this path whose row is lost, or a new one."""
        item = self._synced.child(parent, name)
        if item is not None and item.is_directory and item.id not in self.claimed and self._local.item(item.id) is None:
            return item.id
        return self._new_id()

    def _put(self, path: str, id: ItemId, sighting: Sighting) -> None:
        parent = self.ids[path.rpartition("/")[0]]
        self.puts.append((path, Row(Item(id, parent, sighting.name, DIRECTORY), sighting.fingerprint)))

    def _take(self, path: str, seen: _Seen) -> None:
        self.loose.extend(Loose(sighting, path, own) for sighting, own in seen.loose)
        self.changed.extend(Changed(sighting, path, row) for sighting, row in seen.changed)
        for row in seen.lost:
            below = join(path, row.item.name)
            self.lost.append(Lost(row, below, self._is_decided(below) and self._is_nowhere(row)))
        for name, entry in (seen.below or {}).items():
            below = join(path, name)
            if self._seen.get(below) is None:
                self._take_unlisted(below, entry)

    def _take_unlisted(self, path: str, below: _Below) -> None:
        """Take in a directory that was seen in its parent but not listed."""
        above, _, name = path.rpartition("/")
        if below.is_in_place and below.row is not None:
            self.claimed.setdefault(below.row.item.id, path)
            return
        if path in self.undecided or path in self.refused:
            return
        id = self._moved_here(below.sighting, None)
        if path not in self._blind:
            self.wanted.add(path)
        if id is None and not self._may_be_old(below):
            id = self._id_for(self.ids[above], name)
            is_told = True
        else:
            is_told = id is not None and id not in self.claimed and self._may_have_left(id)
        if id is None or not is_told:
            self.undecided.add(path)
            if below.row is not None:
                self.kept[below.row.item.id] = "changing"
            return
        self.claimed[id] = path
        self.ids[path] = id
        self._put(path, id, below.sighting)

    def _may_be_old(self, below: _Below) -> bool:
        """Tell whether a look into a directory may show that it is one that was here before."""
        holders = self._local.holders(below.sighting.fingerprint.device, below.sighting.fingerprint.inode)
        found = [item.id for item, _ in holders if item.is_directory]
        self.kept.update((id, "changing") for id in found if id not in self.claimed)
        return bool(found) or below.row is not None

    def _lose_directory(self, lost: Lost) -> None:
        """Take all that stood in a vanished directory as lost, but for what is seen elsewhere."""
        if lost.row.item.id in self.claimed or lost.row.item.id in self.kept:
            return
        if not lost.decided or self._has_moved(lost.path):
            self.undecided.add(lost.path)
            return
        work = [lost]
        while work:
            here = work.pop()
            self.dropped.append(here)
            for item, fingerprint in self._local.rows(here.row.item.id):
                row, path = Row(item, fingerprint), join(here.path, item.name)
                below = Lost(row, path, decided=self._is_nowhere(row))
                if not item.is_directory:
                    self.lost.append(below)
                elif not below.decided:
                    self.undecided.add(path)
                    self.kept[item.id] = "changing"
                elif item.id not in self.claimed and item.id not in self.kept:
                    work.append(below)

    def _is_nowhere(self, row: Row) -> bool:
        """Tell whether nothing that waits is what a row was; else both places are to be looked at together."""
        there = self._waiting.get(_inode(row.fingerprint))
        if there is not None:
            self.undecided.add(there)
        return there is None


def join(directory: str, name: str) -> str:
    """Return the path of a name in a directory."""
    return f"{directory}/{name}" if directory else name


def _hides(seen: _Seen | None) -> bool:
    """Tell whether one of these names is a directory into which nobody looked, since it is not to be judged yet."""
    return seen is not None and any(one.kind is Kind.DIRECTORY for one in seen.waiting)


def _doubled(
    known: Iterable[tuple[Item, Fingerprint]], rows: dict[str, tuple[Item, Fingerprint]], listing: Listing
) -> list[tuple[Item, Fingerprint]]:
    """Return the rows that share their name with another one and are not what stands there; the others stay in ``rows``.

    A step was carried out at a name, and another, which was to take away what stood there, was not: its user had done that.
    """
    there = {sighting.name: sighting.fingerprint for sighting in listing.sightings}
    for row in known:
        name = row[0].name
        if name in there and same_inode(row[1], there[name]):
            rows[name] = row
    standing = {row[0].id for row in rows.values()}
    return [row for row in known if row[0].id not in standing]


def _inode(fingerprint: Fingerprint) -> tuple[int, int]:
    return fingerprint.device, fingerprint.inode


def same_inode(one: Fingerprint, other: Fingerprint) -> bool:
    """Tell whether both are, or were, one file."""
    return one.inode == other.inode and one.device == other.device
