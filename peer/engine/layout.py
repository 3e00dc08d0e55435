"""Find an old item and lay out how the disk shall look; all of it runs in the database's thread, in small steps.

Rule 1: a path means what stood there then; if nothing did, what stands there now or last, wherever it stood then.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Final

import msgspec

from peer.core.brake import Waiting
from peer.core.chronicle import Chronicle, ever_at
from peer.core.fold_state import PlaceRow, Version
from peer.core.leftovers import kept_name
from peer.core.operations import Adopt, Forget, Place, Rekey, Rename, Replace, Step
from peer.core.planner import Excluded, plan
from peer.core.reversion import Frame, LaidOut, OldTree, lay_out
from peer.core.tree import Content, Item, ItemId, Member, Tree, find, path_of
from peer.engine.context import Context
from peer.engine.downloader import ToFetch
from peer.engine.follower import Follower
from peer.engine.past import Past
from peer.engine.recorder import Recorder, stored_of
from peer.store import held
from peer.store.fold_store import places_named
from peer.store.trees import LocalTree, SyncedTree
from protocol.entries import Kind
from protocol.errors import UserError
from protocol.ids import NODE_ID_BYTES, ROOT, NodeId

LAID_TOGETHER: Final = 1_000


class NotThereError(UserError):
    """Nothing stood at a path at that moment."""

    def __init__(self, path: str) -> None:
        super().__init__(f"{path} was not there then: 'kin history' shows its versions", code="no_version")


def nodes_ever_at(db: sqlite3.Connection, follower: Follower, path: str) -> list[NodeId]:
    """Return the nodes that may ever have stood at a path, by the log and by the tail."""
    state = follower.remote(db)
    names = [os.fsencode(part) for part in path.split("/")]
    stored: Iterable[PlaceRow] = places_named(db, follower.record.key, names)
    return ever_at([*stored, *state.own_places()], path)


def old_file(db: sqlite3.Connection, follower: Follower, path: str, position: int) -> list[Item]:
    """Return the file that a path meant right after an ordered entry, after the directories that it stood in.

    Empty, where that is not sure without folding the log.
    """
    chronicle = Chronicle(follower.remote(db))
    here = find(LocalTree(db, follower.record.key), path)
    nodes = nodes_ever_at(db, follower, path)
    item = chronicle.file_at(path, nodes, None if here is None else here.id, position)
    return [] if item is None else [*chronicle.way_to(item, position), item]


def find_content(db: sqlite3.Connection, past: Past, follower: Follower, member: Member) -> Version | None:
    """Return where the bytes of an old item lie."""
    dot = member.content[0]
    return past.state.content(member.node, dot) or follower.remote(db).content(member.node, dot)


class Layout:
    """One restore in the making: an old state, a path, and the tree that shall be."""

    def __init__(
        self, context: Context, follower: Follower, recorder: Recorder, past: Past, excluded: Excluded
    ) -> None:
        self._context = context
        self._follower = follower
        self._recorder = recorder
        self._past = past
        self._excluded = excluded
        self._frame: Frame | None = None
        self._spared: set[ItemId] = set()
        """Names that were given to what could not be recorded."""
        self.ids: list[ItemId] = []
        """All items that may have to change."""

    # --- Finding

    def find_old(self, db: sqlite3.Connection, path: str) -> Item | None:
        """Return the old item that a path means, None for the whole folder.

        Raises:
            NotThereError: There was none.
        """
        tree = self._past.state.tree
        if not path:
            return None
        found = find(tree, path)
        if found is not None:
            return found
        here = find(LocalTree(db, self._follower.record.key), path)
        ids = [here.id] if here is not None else nodes_ever_at(db, self._follower, path)
        found_items = [item for id in ids if (item := tree.item(id)) is not None]
        if not found_items:
            raise NotThereError(path)
        return max(found_items, key=lambda item: self._since(item.id))

    def _since(self, id: ItemId) -> int:
        row = self._past.state.nodes.get(id)
        return 0 if row is None else row.since

    # --- Laying out

    async def lay_out(self, path: str, target: str) -> None:
        """Lay out what stood at ``path`` so that it stands at ``target``; what stands there now is what may change.

        Raises:
            NotThereError: Nothing stood there.
            UserError: It cannot stand there now.
        """
        run = self._context.database.run
        self._past.clear_laid()
        pairs = await run(lambda db: self._begin(db, path, target))
        while await run(lambda _: self._lay_some(pairs)):
            pass
        self.ids = await run(lambda _: self._all_ids())

    def _begin(self, db: sqlite3.Connection, path: str, target: str) -> Iterator[tuple[Item, Item]]:
        local = LocalTree(db, self._follower.record.key)
        top = self.find_old(db, path)
        if top is None and not target:
            self._frame = Frame(local, ROOT, self._spared, self._missing(db))
            return lay_out(OldTree(self._past.state.tree, None), self._frame, ROOT, "", self._new_id)
        if self._excluded(target, top is None or top.is_directory):
            raise UserError(f"{target} is left alone on this device: .kinignore names it; --to brings it elsewhere")
        here = find(local, target)
        self._frame = Frame(local, None if here is None else here.id, self._spared, self._missing(db))
        directory, _, name = target.rpartition("/")
        parent = self._parent_of(local, SyncedTree(db, self._follower.record.key), directory)
        if top is None:
            top = Item(ROOT, parent, name, Content(Kind.DIRECTORY))
        return lay_out(OldTree(self._past.state.tree, top), self._frame, parent, name, self._new_id)

    def _missing(self, db: sqlite3.Connection) -> Callable[[ItemId], Item | None]:
        """Return what gives an item whose removal waits for a person, so that nobody was told of it."""
        key = self._follower.record.key
        synced = SyncedTree(db, key)
        return lambda id: synced.item(id) if held.waiting(db, key, id) is Waiting.REMOVAL else None

    def _parent_of(self, local: Tree, synced: Tree, directory: str) -> ItemId:
        """Return the directory in which the top shall stand, made anew where it is gone."""
        assert self._frame is not None
        parent: ItemId = ROOT
        for part in directory.split("/") if directory else ():
            item = local.child(parent, part)
            if item is None:
                was = synced.child(parent, part)
                waits = was is not None and self._frame.awaits(was.id, parent, part, is_directory=True)
                id = was.id if was is not None and waits else self._new_id()
                item = Item(id, parent, part, Content(Kind.DIRECTORY))
                self._past.laid.put(item)
            elif not item.is_directory:
                raise UserError(f"{directory} is no directory any more: --to brings it elsewhere")
            parent = item.id
        return parent

    def _new_id(self) -> ItemId:
        return NodeId(self._context.entropy(NODE_ID_BYTES))

    def _lay_some(self, pairs: Iterator[tuple[Item, Item]]) -> bool:
        with self._past.together():
            some = list(islice(pairs, LAID_TOGETHER))
            for item, _ in some:
                self._past.laid.put(item)
        return bool(some)

    def _all_ids(self) -> list[ItemId]:
        assert self._frame is not None
        return sorted({*self._past.laid_ids(), *self._frame.ids()})

    # --- What is to be done

    def to_fetch(self, db: sqlite3.Connection, ids: Sequence[ItemId]) -> list[ToFetch]:
        """Return which of these files need bytes that do not stand in their place."""
        local = LocalTree(db, self._follower.record.key)
        found: list[ToFetch] = []
        for id in ids:
            item, here = self._past.laid.item(id), local.item(id)
            if item is None or item.content.kind is not Kind.FILE or self._is_out_of_bounds(item):
                continue
            if here is not None and here.content.same_bytes(item.content):
                continue
            member = item.members[0]
            version = find_content(db, self._past, self._follower, member)
            if version is not None:
                old = path_of(local, id) if here is not None else self._recorder.same_here(db, item, local)
                found.append(ToFetch(item, stored_of(version.value, version.segments), old or ""))
        return found

    def _is_out_of_bounds(self, item: Item) -> bool:
        assert self._frame is not None
        path = path_of(LaidOut(self._past.laid, self._frame), item.id)
        return path is None or self._excluded(path, item.is_directory)

    def unrecorded(self, db: sqlite3.Connection, ids: Sequence[ItemId]) -> list[Step]:
        """Return steps that give a name of its own to what would be displaced and is in no entry yet."""
        key = self._follower.record.key
        local, synced = LocalTree(db, key), SyncedTree(db, key)
        steps: list[Step] = []
        assert self._frame is not None
        for id in ids:
            here, base, item = local.item(id), synced.item(id), self._past.laid.item(id)
            if here is None or here.is_directory or (base is not None and base.content.same_bytes(here.content)):
                continue
            if not self._frame.holds(id) or (item is not None and item.content.same_bytes(here.content)):
                continue
            path = path_of(local, id)
            if path is None or self._excluded(path, False):
                continue
            kept = self._new_id()
            self._spared.add(kept)
            steps.append(Rename(here, Item(kept, here.parent, kept_name(here.name, kept), here.content)))
        return steps

    def steps(self, db: sqlite3.Connection, ids: Sequence[ItemId]) -> list[Step]:
        """Return what brings the disk to the tree that shall be."""
        assert self._frame is not None
        local = LocalTree(db, self._follower.record.key)
        made = plan(
            local=local,
            synced=local,
            remote=LaidOut(self._past.laid, self._frame),
            dirty=ids,
            excluded=self._excluded,
        )
        return [self._with_members(step) for step in made.steps if not isinstance(step, Adopt | Forget | Rekey)]

    def _with_members(self, step: Step) -> Step:
        if not isinstance(step, Place | Replace):
            return step
        laid = self._past.laid.item(step.item.id)
        members = () if laid is None else laid.members
        return msgspec.structs.replace(step, item=msgspec.structs.replace(step.item, members=members))


def pieces(ids: Sequence[ItemId], most: int) -> Iterator[Sequence[ItemId]]:
    """Yield ids in parts."""
    for start in range(0, len(ids), most):
        yield ids[start : start + most]
