"""Decide what one sync pass must do.

Rule 1: pure. No clock, disk, network, randomness or logging here.
Rule 2: total. Every pair of changes has exactly one row in ``DECISIONS``.
Rule 3: safe. No row discards content that exists on one side only: where both sides changed, this side's change becomes
an act first, and the fold decides what the folder then looks like. Nothing is merged here.
Rule 4: local. What is not dirty costs nothing, but for the parents of what is, and what stands in its way.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from enum import Enum
from types import MappingProxyType
from typing import Final, NamedTuple

from peer.core.brake import Held, Waiting
from peer.core.exclusions import NOTHING_APART, Apart
from peer.core.leftovers import NOTHING_DISPLACED
from peer.core.operations import (
    Act,
    Adopt,
    Create,
    Edit,
    Forget,
    Move,
    Place,
    Plan,
    Remove,
    Replace,
    SetAttributes,
    Step,
    Touch,
)
from peer.core.ordering import Shift, ordered, possible
from peer.core.refusals import NO_REFUSALS, Refusals, SpelledTree
from peer.core.rekeying import find_rekeys
from peer.core.steps import fill_step, move_step, same_place
from peer.core.tree import Item, ItemId, Tree, path_of
from protocol.entries import Kind
from protocol.ids import ROOT, copy_id


class Side(Enum):
    """One side of an item against ``synced``."""

    ABSENT = "in neither"
    NEW = "here, but not in synced"
    SAME = "as in synced"
    CHANGED = "at another place, or with other content"
    GONE = "in synced, but not here"


class Decision(Enum):
    """What follows for an item."""

    NOTHING = "nothing is there"
    RECORD = "the disk is as it shall be: record newer dots, if there are any"
    ACT = "the user did something: it becomes an entry"
    JOIN = "both sides did something: if it was the same, record it; else it is an act"
    STEP = "the folder changed: so shall the disk"
    FORGET = "neither side holds it any more"


DECISIONS: Final[Mapping[tuple[Side, Side], Decision]] = MappingProxyType(
    {
        # (local, remote), each against synced; what is in synced is neither absent nor new on any side.
        (Side.ABSENT, Side.ABSENT): Decision.NOTHING,
        (Side.ABSENT, Side.NEW): Decision.STEP,
        (Side.NEW, Side.ABSENT): Decision.ACT,
        (Side.NEW, Side.NEW): Decision.JOIN,
        (Side.SAME, Side.SAME): Decision.RECORD,
        (Side.SAME, Side.CHANGED): Decision.STEP,
        (Side.SAME, Side.GONE): Decision.STEP,
        (Side.CHANGED, Side.SAME): Decision.ACT,
        (Side.CHANGED, Side.CHANGED): Decision.JOIN,
        (Side.CHANGED, Side.GONE): Decision.ACT,
        (Side.GONE, Side.SAME): Decision.ACT,
        (Side.GONE, Side.CHANGED): Decision.ACT,
        (Side.GONE, Side.GONE): Decision.FORGET,
    }
)

Excluded = Callable[[str, bool], bool]
"""(path, whether it is a directory) -> whether it is ignored here. What is under such a directory is, too."""


def side_of(item: Item | None, base: Item | None) -> Side:
    """Return how an item of one tree differs from the same item of ``synced``."""
    if base is None:
        return Side.ABSENT if item is None else Side.NEW
    if item is None:
        return Side.GONE
    return Side.SAME if same_place(item, base) and item.content.same(base.content) else Side.CHANGED


def is_settled(id: ItemId, *, local: Tree, synced: Tree, remote: Tree) -> bool:
    """Tell whether nothing remains to be done for an item, so that it need not stay dirty."""
    base, want = synced.item(id), remote.item(id)
    return side_of(local.item(id), base) in (Side.SAME, Side.ABSENT) and base == want


def plan(
    *,
    local: Tree,
    synced: Tree,
    remote: Tree,
    dirty: Collection[ItemId],
    excluded: Excluded | None = None,
    apart: Apart | None = None,
    mistrusted: Callable[[Item], bool] | None = None,
    held: Held | None = None,
    busy: Collection[ItemId] = (),
    refusals: Refusals = NO_REFUSALS,
    displaced: Mapping[ItemId, Item] = NOTHING_DISPLACED,
) -> Plan:
    """Return the operations that bring this device and the folder to the same content.

    The synced tree is the merge base: a side that differs from it is the side that changed. After the operations are
    done, plan again: an item that changed on both sides needs an act first, and what an act or a file in the way holds
    up is planned once that is settled (:func:`is_settled`).

    Args:
        local: What the last scan saw on this device, identified.
        synced: What both sides held when they last agreed.
        remote: What the folded log describes.
        dirty: The items that may differ in any two trees. Nothing else is looked at, but for what these need.
        excluded: What this device leaves alone: it is neither removed, nor changed, nor brought here. Its rows stay.
        apart: What a person keeps off this device: left alone likewise, and what the folder moves there leaves this disk.
        mistrusted: Synced items whose absence proves no removal (just no longer excluded, a restored device, an undone
            removal): they are forgotten, so that they come back.
        held: What of this device's changes waits for a person: it is no act, and is not undone either.
        busy: Items that are in transfer, or wait since the disk refused them: nothing is done about them now, nor what
            depends on it.
        refusals: What follows from names that this disk refused.
        displaced: Directories that are to go and cannot, as they stand once they have given up their names.

    Returns:
        Operations in a fixed order, so the same trees give the same plan everywhere. The acts are one unit. The steps
        can be carried out as they stand: what changes places comes first, what needs bytes last, in any order.
    """
    ids = sorted(dirty)
    if not ids:
        return Plan((), ())
    rekeys = find_rekeys(local=local, synced=synced, remote=remote, dirty=ids, apart=apart, busy=busy)
    if rekeys:
        return Plan((), rekeys)
    stands = SpelledTree(local, refusals.taken) if refusals.taken else local
    planning = _Planning(
        stands, synced, remote, excluded, apart or NOTHING_APART, mistrusted, held, busy, refusals, displaced
    )
    for id in ids:
        planning.look(id)
    return Plan(tuple(planning.acts()), tuple(planning.steps()))


def missing_copies(base: Item | None, want: Item | None, *, local: Tree, remote: Tree) -> Iterator[Item]:
    """Yield the conflict copies of what a file holds here that do not stand here yet: until they do, it is not replaced.

    Args:
        base: The file as synced.
        want: As the folder has it now.
        local: What stands on this device.
        remote: What the folder holds.
    """
    if base is None or want is None or base.is_directory:
        return
    for member in base.members:
        for dot in member.content if member.copy is None else ():
            copy = remote.item(copy_id(member.node, dot))
            if copy is not None and local.item(copy.id) is None:
                yield copy


class _View(NamedTuple):
    """One item in the three trees."""

    id: ItemId
    local: Item | None
    synced: Item | None
    remote: Item | None

    def decision(self) -> Decision:
        decision = DECISIONS[side_of(self.local, self.synced), side_of(self.remote, self.synced)]
        if decision is not Decision.JOIN:
            return decision
        assert self.local is not None
        assert self.remote is not None
        if self.synced is None:
            # Its own id, and no base: a crash fell between the change of the disk and its record.
            return Decision.RECORD if self.local.content.same_bytes(self.remote.content) else Decision.ACT
        return Decision.RECORD if side_of(self.local, self.remote) is Side.SAME else Decision.ACT

    @property
    def is_gone_here(self) -> bool:
        """Whether what was synced is off this disk. A directory never becomes a file: that is another item."""
        return self.synced is not None and (self.local is None or self.local.is_directory != self.synced.is_directory)


class _Planning:
    """One pass: look at what is dirty, and at what it leads to, then name acts and steps."""

    def __init__(
        self,
        local: Tree,
        synced: Tree,
        remote: Tree,
        excluded: Excluded | None,
        apart: Apart,
        mistrusted: Callable[[Item], bool] | None,
        held: Held | None,
        busy: Collection[ItemId],
        refusals: Refusals,
        displaced: Mapping[ItemId, Item],
    ) -> None:
        self._local = local
        self._synced = synced
        self._remote = remote
        self._excluded = excluded
        self._apart = apart
        self._mistrusted = mistrusted
        self._held = held
        self._evicted, self._doubted = refusals.evicted, refusals.doubted
        self._anchored = refusals.anchored
        self._displaced = displaced
        self._busy = busy
        self._seen: set[ItemId] = {ROOT, *busy}
        self._acting: list[_View] = []
        self._views: dict[ItemId, _View] = {}
        self._tops: dict[ItemId, ItemId | None] = {ROOT: None}
        self._removed: set[ItemId] = set()
        self._removed_along: set[ItemId] = set()
        self._records: list[Step] = []
        self._forgotten: list[Item] = []
        self._shifts: dict[ItemId, Shift] = {}
        self._changed: list[_View] = []
        self._uncopied: set[ItemId] = set()
        """Items whose bytes here are to stand in a conflict copy, which does not stand here yet."""

    # --- Looking

    def look(self, id: ItemId) -> None:
        """Decide about an item, and about those that it leads to."""
        work = [id]
        while work:
            id = work.pop()
            if id not in self._seen:
                self._seen.add(id)
                work.extend(self._decide(self._view(id)))

    def _view(self, id: ItemId) -> _View:
        view = self._views.get(id)
        if view is None:
            view = _View(id, self._local.item(id), self._synced.item(id), self._remote.item(id))
            self._views[id] = view
        return view

    def _decide(self, view: _View) -> Iterator[ItemId]:
        """File an item under what is to be done, and yield what must be looked at for its sake."""
        decision = view.decision()
        if decision is Decision.ACT:
            yield from self._decide_act(view)
        elif self._departs(view):
            yield from self._decide_departure(view)
        elif decision is Decision.STEP and not self._is_out_of_bounds(view):
            self._changed.append(view)
            yield from self._decide_step(view)
        elif decision is Decision.RECORD and view.remote != view.synced and view.remote is not None:
            yield from self._decide_record(view, view.remote)
        elif decision is Decision.FORGET and view.synced is not None and not self._is_excluded(view):
            # No act, also where a conflict copy holds what went: it may be a step that a crash cut short that took it.
            self._forgotten.append(view.synced)

    def _decide_act(self, view: _View) -> Iterator[ItemId]:
        if view.is_gone_here and view.synced is not None:
            top = self._gone_above(view.synced.parent) or view.id
            if self._mistrusted is not None and self._mistrusted(view.synced):
                if not self._is_excluded(view) or self._comes_here(view):
                    self._forgotten.append(view.synced)
            elif self._is_held(view.id, Waiting.REMOVAL):
                pass
            elif view.local is not None or not self._is_excluded(self._view(top)):
                self._removed.add(top)
        elif view.local is not None and not self._is_excluded(view):
            self._acting.append(view)
            yield view.local.parent
            if view.synced is None or not same_place(view.local, view.synced):
                # What stood there has given up the name: told without that, both would want it.
                gave_way = self._synced.child(view.local.parent, view.local.name)
                if gave_way is not None:
                    yield gave_way.id

    def _decide_record(self, view: _View, want: Item) -> Iterator[ItemId]:
        """Record what is there already. Where there was no base, the folder's attributes are taken over.

        A file that became one with another node is looked at once more: if it was taken away, and no scan has told yet,
        that other node was never on this disk, and its content is not what was removed.
        """
        here = view.local
        if (
            here is not None
            and view.synced is not None
            and want.content.kind is Kind.FILE
            and _joins(view.synced, want)
        ):
            self._records.append(SetAttributes(here, want))
        elif here is None or view.synced is not None:
            self._records.append(Adopt(want))
        elif not self._stands_in_folder(here.parent):
            yield here.parent
        elif not same_place(here, want):
            self._records.append(Adopt(Item(want.id, here.parent, here.name, want.content, want.members)))
        else:
            same = here.content.same(want.content)
            self._records.append(Adopt(want) if same else SetAttributes(here, want))

    def _decide_step(self, view: _View) -> Iterator[ItemId]:
        source, target = view.synced, view.remote
        for copy in self._missing_copies(view):
            self._uncopied.add(view.id)
            yield copy
        if target is not None and (
            target.parent in self._doubted or (source is not None and self._stays(source, target))
        ):
            return
        key = path_of(self._remote, view.id) if target is not None else path_of(self._synced, view.id)
        target = target or self._displaced.get(view.id)
        self._shifts[view.id] = shift = Shift(key or "", source, target)
        if target is not None:
            yield target.parent
            occupant = self._local.child(target.parent, target.name)
            if occupant is not None:
                yield occupant.id
        if shift.is_removal and source is not None and source.is_directory:
            yield from (child.id for child in self._local.children(view.id))

    def _stays(self, source: Item, target: Item) -> bool:
        is_there = source.id in self._anchored or same_place(source, target)
        return is_there and source.is_directory == target.is_directory

    def _missing_copies(self, view: _View) -> Iterator[ItemId]:
        """Yield the conflict copies of what an item holds here that are still to come."""
        copies = missing_copies(view.synced, view.remote, local=self._local, remote=self._remote)
        yield from (copy.id for copy in copies if not self._is_hidden(self._remote, copy))

    def _departs(self, view: _View) -> bool:
        """Tell whether the folder has moved something to where this device is not to have it, or cannot."""
        return (
            bool(self._apart or self._evicted)
            and view.local is not None
            and view.remote is not None
            and side_of(view.local, view.synced) is Side.SAME
            and not self._is_excluded(view)
            and (self._apart.holds(self._remote, view.remote) or self._is_evicted(view.remote))
        )

    def _is_evicted(self, item: Item | None) -> bool:
        while item is not None and item.id not in self._evicted:
            item = self._remote.item(item.parent)
        return item is not None

    def _decide_departure(self, view: _View) -> Iterator[ItemId]:
        """Take it off this disk; what is changed in it becomes an act first, and then goes too."""
        assert view.synced is not None
        key = path_of(self._synced, view.id) or ""
        self._shifts[view.id] = Shift(key, view.synced, self._displaced.get(view.id))
        if view.synced.is_directory:
            yield from (child.id for child in self._local.children(view.id))

    def _is_held(self, id: ItemId, what: Waiting) -> bool:
        waiting = None if self._held is None else self._held(id)
        return waiting in (what, Waiting.RETURN)

    def _is_excluded(self, view: _View) -> bool:
        tree, item = (self._local, view.local) if view.local is not None else (self._synced, view.synced)
        return item is not None and self._is_hidden(tree, item)

    def _is_out_of_bounds(self, view: _View) -> bool:
        """Tell whether a step would change something excluded, or bring it here."""
        return self._is_excluded(view) or (view.remote is not None and self._is_hidden(self._remote, view.remote))

    def _comes_here(self, view: _View) -> bool:
        return view.remote is not None and not self._is_hidden(self._remote, view.remote)

    def _is_hidden(self, tree: Tree, item: Item) -> bool:
        if self._apart.holds(tree, item):
            return True
        if self._excluded is None:
            return False
        path = path_of(tree, item.id)
        return path is not None and self._excluded(path, item.is_directory)

    # --- Acts

    def acts(self) -> Iterator[Act]:
        """Yield the acts: what came or moved, parents first; what was written; at last what was removed."""
        made: set[ItemId] = set()
        written: list[Act] = []
        for view in sorted(self._acting, key=self._height):
            base, item = view.synced, view.local
            assert item is not None
            if not self._stands_in_folder(item.parent, made):
                continue  # its parent cannot be recorded yet; nor then can this
            if base is None:
                made.add(item.id)
                yield Create(item)
                continue
            if not same_place(item, base):
                yield Move(base, item.parent, item.name)
            if not item.content.same_bytes(base.content):
                if not self._is_held(item.id, Waiting.REWRITE):
                    written.append(Edit(base, item.content))
            elif not item.content.same(base.content):
                written.append(Touch(base, item.content))
        yield from written
        for id in sorted(self._removed, key=lambda id: path_of(self._synced, id) or ""):
            base = self._synced.item(id)
            if base is not None and id not in self._removed_along:
                yield Remove(base, tuple(self._gone_subtree(base)))

    def _height(self, view: _View) -> tuple[int, str]:
        """Sort parents before children: so no move, taken alone, puts a directory into itself."""
        path = path_of(self._local, view.id) or ""
        return path.count("/"), path

    def _stands_in_folder(self, id: ItemId, made: Collection[ItemId] = ()) -> bool:
        if id == ROOT or id in made:
            return True
        item = self._synced.item(id) or self._remote.item(id)
        return item is not None and item.is_directory

    def _gone_above(self, id: ItemId) -> ItemId | None:
        """Return the highest directory, from ``id`` upwards, that went with all between; None if ``id`` stands."""
        trail: dict[ItemId, None] = {}
        while id not in self._tops:
            view = self._view(id)
            if view.synced is None or view.remote is None or id in trail or not self._went(view):
                self._tops[id] = None
            else:
                trail[id] = None
                id = view.synced.parent
        top = self._tops[id]
        for each in reversed(trail):
            top = self._tops[each] = top or each
        return top

    def _went(self, view: _View) -> bool:
        if not view.is_gone_here or self._is_held(view.id, Waiting.REMOVAL):
            return False
        return self._mistrusted is None or view.synced is None or not self._mistrusted(view.synced)

    def _gone_subtree(self, base: Item) -> Iterator[Item]:
        """Yield what went with an item, parents first: not what was moved out before."""
        work = [base]
        while work:
            item = work.pop()
            self._removed_along.add(item.id)
            yield item
            if item.is_directory:
                children = [c for c in self._synced.children(item.id) if self._went(self._view(c.id))]
                work.extend(c for c in reversed(children) if c.id not in self._removed_along)

    # --- Steps

    def steps(self) -> Iterator[Step]:
        """Yield the steps: records, then changes of places, at last what needs bytes."""
        yield from self._records
        yield from (Forget(item) for item in self._forgotten if item.id not in self._removed_along)
        staying = self._staying()
        shifts = possible({id: shift for id, shift in self._shifts.items() if id not in staying}, self._local)
        for motion, id in ordered(shifts, self._local):
            yield move_step(motion, shifts[id])
        yield from self._filling(shifts)

    def _staying(self) -> set[ItemId]:
        """Return the files that are to go, and hold bytes that another one here is still to get: until then, they stay.

        So it is with a conflict copy that somebody made the file. Who is to get them stays where it is, or the one would wait
        for the place of the other.
        """
        going = {
            id: shift.source.content.hash
            for id, shift in self._shifts.items()
            if shift.target is None and shift.source is not None and shift.source.content.kind is Kind.FILE
        }
        if not going:
            return set()
        hashes = set(going.values())
        files = (view.id for view in self._changed if view.id not in self._shifts and view.id not in self._uncopied)
        awaited = {hash for id in (*files, *self._busy) if (hash := self._awaited(id)) in hashes}
        return {id for id, hash in going.items() if hash in awaited}

    def _awaited(self, id: ItemId) -> bytes | None:
        """Return the hash of what a file that stands here is still to get."""
        want = self._remote.item(id)
        if want is None or want.content.kind is not Kind.FILE:
            return None
        here = self._local.item(id)
        is_awaited = here is not None and not here.is_directory and not here.content.same_bytes(want.content)
        return want.content.hash if is_awaited else None

    def _filling(self, shifts: Mapping[ItemId, Shift]) -> Iterator[Step]:
        """Yield what changes contents: attributes, then bytes that replace others, then new files."""
        steps = []
        for view in sorted(self._changed, key=lambda view: path_of(self._remote, view.id) or ""):
            if view.remote is not None:
                step = fill_step(view.synced, view.remote, moves=view.id in shifts)
                # What is displaced is nowhere else on this device, and its entry may still become void.
                is_held = isinstance(step, Replace) and view.id in self._uncopied
                steps += [] if step is None or is_held else [step]
        for kind in (SetAttributes, Replace, Place):
            yield from (step for step in steps if isinstance(step, kind))


def _joins(base: Item, want: Item) -> bool:
    """Tell whether nodes stand behind an item now that did not before."""
    return not {member.node for member in want.members} <= {member.node for member in base.members}
