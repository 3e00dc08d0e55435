"""From live nodes to items with names: the last step of the fold (architecture 3).

Only names that an entry concerns are made anew: nodes are listed by (directory, name), so a directory's other names are
never looked at. Directories of one name are one item; files of one name and content likewise; the rest is suffixed.

Rule 1: who stands first in the log has the plain name; order decides nothing else.
Rule 2: an item has the id of its oldest node (or of the copy of it), so acting on an item does not change its id.
Rule 3: a suffixed node is labelled by the author of its place, a conflict copy by the author of its value (F5).
"""

from __future__ import annotations

from typing import NamedTuple

from peer.core.conflicts import conflict_names, name_key, text_of
from peer.core.fold_state import ContentRow, NodeRow
from peer.core.fold_work import Group, Work
from peer.core.judgement import visible
from peer.core.tree import Content, Item, ItemId, Member
from protocol.entries import ContentValue, Kind
from protocol.ids import ROOT, Dot, NodeId, copy_id


class Candidate(NamedTuple):
    """One content of one node, to be shown under the name that the node wants."""

    node: NodeRow
    number: int
    """0 for the node's first content; the others are its conflict copies."""
    rows: tuple[ContentRow, ...]
    """Values of equal content; of a directory none, if it lives only by what stands in it."""
    is_directory: bool
    id: ItemId
    """Of an item that shows only this."""

    @property
    def copy(self) -> Dot | None:
        """The value to detach before this copy is changed; None for what is no copy."""
        return self.rows[0].dot if self.number else None

    @property
    def rank(self) -> tuple[int, int, int, NodeId]:
        """Who has the plain name: by the position of the place in force, nodes before their copies.

        Within one entry, what was moved there goes before what the entry removed and another's edit keeps.
        """
        return self.node.since, self.number, self.node.kind, self.node.id

    @property
    def age(self) -> tuple[int, int, NodeId]:
        """Who of several behind one item lends it his id."""
        return self.node.born, self.number, self.node.id

    @property
    def member(self) -> Member:
        """The candidate as an item lists it."""
        return Member(self.node.id, self.copy, tuple(sorted(row.dot for row in self.rows)), self.node.places)


# --- Listing


def list_nodes(work: Work) -> None:
    """Bring the lists of names up to date with who lives where, upwards as far as liveness changes."""
    todo = list(work.to_list)
    work.to_list.clear()
    while todo:
        id = todo.pop()
        if id == ROOT:
            continue
        node = work.node(id)
        wanted = (node.parent, name_key(node.name)) if node.at is not None and node.is_alive else None
        listed = node.listed
        if wanted != listed:
            node.listed = wanted
            if listed is not None:
                row = work.name(*listed)
                row.nodes = tuple(each for each in row.nodes if each != id)
                _count_kid(work, listed[0], -1, todo)
                _ask_to_show(work, listed)
            if wanted is not None:
                row = work.name(*wanted)
                row.nodes = tuple(sorted((*row.nodes, id)))
                _count_kid(work, wanted[0], 1, todo)
        if wanted is not None:
            _ask_to_show(work, wanted)


def _count_kid(work: Work, parent: NodeId, by: int, todo: list[NodeId]) -> None:
    if parent == ROOT:
        return
    node = work.node(parent)
    before = node.kids
    node.kids += by
    if (before > 0) != (node.kids > 0):
        todo.append(parent)


def _ask_to_show(work: Work, place: tuple[NodeId, bytes]) -> None:
    item = work.shown(place[0])
    if item is not None:
        work.to_show[item, place[1]] = None


# --- Showing


def show(work: Work) -> None:
    """Make the items of every name that an entry concerned, and of what stands in directories that became others."""
    while True:
        if work.to_show:
            group = next(iter(work.to_show))
            del work.to_show[group]
            directories = _nodes_behind(work, group[0])
            if directories:
                _show_name(work, group, directories)
            else:
                work.without_parent.setdefault(group[0], {})[group[1]] = None
        elif work.lost:
            id, _ = work.lost.popitem()
            _hide_if_lost(work, work.node(id))
        elif work.without_parent:
            parent, keys = work.without_parent.popitem()
            for key in keys:
                _show_name(work, (parent, key), ())
        else:
            return


def candidates(work: Work, node: NodeRow) -> list[Candidate]:
    """Return what one node shows: its first content, and each other one as a conflict copy.

    A directory goes first and lives also by what stands in it, so that nothing in it can be hidden by a file's content.
    """
    classes: list[list[ContentRow]] = []
    directories: list[ContentRow] = []
    live = set(node.live)
    is_directory = node.kids > 0
    for row in visible(work, node):
        if row.value.kind is Kind.DIRECTORY:
            directories.append(row)
            is_directory = is_directory or row.dot in live
        elif row.dot in live:
            for known in classes:
                if _content_key(known[0]) == _content_key(row):
                    known.append(row)
                    break
            else:
                classes.append([row])
    found = [Candidate(node, 0, tuple(directories), is_directory=True, id=node.id)] if is_directory else []
    for rows in classes:
        id = _copy_item(work, node.id, rows[0].dot) if found else node.id
        found.append(Candidate(node, len(found), tuple(rows), is_directory=False, id=id))
    return found


def _copy_item(work: Work, node: NodeId, dot: Dot) -> ItemId:
    """Return the id of the item that shows a copy: another one, if somebody gave that id to a node of his own."""
    id = copy_id(node, dot)
    while (taken := work.peek(id)) is not None and taken.at is not None and taken.origin is None:
        id = copy_id(id, dot)
    return id


def _content_key(row: ContentRow) -> tuple[Kind, bytes]:
    return row.value.kind, row.value.hash


def _show_name(work: Work, group: Group, directories: tuple[NodeId, ...]) -> None:
    """Make the items of one name anew; ``directories`` are the nodes behind the directory's item, none if it is gone."""
    parent, key = group
    by_content: dict[tuple[Kind, bytes], list[Candidate]] = {}
    for directory in directories:
        for id in work.nodes_of(directory, key):
            for each in candidates(work, work.node(id)):
                content = (Kind.DIRECTORY, b"") if each.is_directory else _content_key(each.rows[0])
                by_content.setdefault(content, []).append(each)
    row = work.name(parent, key)
    naming = _Naming(work, group, directories)
    items: dict[ItemId, Item] = {}
    for members in sorted(by_content.values(), key=lambda each: min(one.rank for one in each)):
        members.sort(key=lambda each: each.age)
        first = min(members, key=lambda each: each.rank)
        id = members[0].id
        name = naming.suffixed(first, id) if items else first.node.name
        items[id] = Item(id, parent, text_of(name), _content(members), tuple(each.member for each in members))
    naming.finish(row.suffixes)
    _replace_items(work, group, row.items, items)
    if bool(row.items) != bool(items):
        for claimant, _ in row.claims:
            work.to_show[parent, claimant] = None
    row.items, row.suffixes = tuple(items), naming.keys
    for item in items.values():
        if item.is_directory:
            for member in item.members:
                _set_shown(work, work.node(member.node), item.id)


def _nodes_behind(work: Work, parent: ItemId) -> tuple[NodeId, ...]:
    if parent == ROOT:
        return (ROOT,)
    item = work.item(parent)
    if item is None or not item.is_directory:
        return ()
    return tuple(member.node for member in item.members if work.shown(member.node) == parent)


def _content(members: list[Candidate]) -> Content:
    """Return what an item holds; of equal contents the attributes that came last."""
    if members[0].is_directory:
        return Content(Kind.DIRECTORY)
    value: ContentValue = max((row for each in members for row in each.rows), key=lambda row: row.order).value
    return Content(value.kind, value.hash, value.size, value.mtime_ns, value.executable, value.target)


def _replace_items(work: Work, group: Group, old: tuple[ItemId, ...], new: dict[ItemId, Item]) -> None:
    """Write a name's items; one that another name has taken over meanwhile is left to it."""
    for id in old:
        change = work.items.get(id)
        before = work.state.tree.item(id) if change is None or change[0] != group else change[1]
        if before is not None and before.is_directory:
            kept = {member.node for member in new[id].members} if id in new and new[id].is_directory else set()
            work.lost.update((member.node, None) for member in before.members if member.node not in kept)
        if id not in new and (change is None or change[0] == group):
            work.items[id] = (group, None)
    for id, item in new.items():
        work.items[id] = (group, item)
        if item.is_directory:
            for key in work.without_parent.pop(id, ()):
                work.to_show[id, key] = None


def _set_shown(work: Work, node: NodeRow, item: ItemId | None) -> None:
    """Remember which item shows a directory node; what stands in it follows."""
    before = node.shown
    if before == item:
        return
    node.shown = item
    for key in work.keys_of(node.id):
        for each in (before, item):
            if each is not None:
                work.to_show[each, key] = None


def _hide_if_lost(work: Work, node: NodeRow) -> None:
    """Let a directory node that left a name show nowhere, unless another item shows it."""
    item = None if node.shown is None else work.item(node.shown)
    if item is None or not item.is_directory or all(member.node != node.id for member in item.members):
        _set_shown(work, node, None)


class _Naming:
    """Finds names for what cannot have the one it wants, and keeps the claims on such names.

    A name is contested if a node wants it or another item claims it; then all who claim it take their next one. So who
    came first does not matter, and when the other leaves, the first name is taken again.
    """

    def __init__(self, work: Work, group: Group, directories: tuple[NodeId, ...]) -> None:
        self._work = work
        self._parent, self._key = group
        self._directories = directories
        self._claimed: set[tuple[bytes, ItemId]] = set()

    @property
    def keys(self) -> tuple[bytes, ...]:
        """Keys of all names that are claimed."""
        return tuple(sorted({key for key, _ in self._claimed}))

    def suffixed(self, first: Candidate, id: ItemId) -> bytes:
        """Return the first name for an item that nobody contests, and claim it and those before it."""
        dot = first.node.at if first.number == 0 else first.rows[0].dot
        entry = None if dot is None else self._work.state.entries.get((dot.device, dot.seq))
        names = conflict_names(first.node.name, "" if entry is None else entry.label, id)
        while True:
            name = next(names)
            key = name_key(name)
            self._claim(key, id)
            others = [claim for claim in self._work.name(self._parent, key).claims if claim != (self._key, id)]
            if not others and not any(self._work.nodes_of(each, key) for each in self._directories):
                return name

    def _claim(self, key: bytes, id: ItemId) -> None:
        self._claimed.add((key, id))
        row = self._work.name(self._parent, key)
        if (self._key, id) not in row.claims:
            self._tell(row.claims)
            row.claims = tuple(sorted((*row.claims, (self._key, id))))

    def finish(self, before: tuple[bytes, ...]) -> None:
        """Give up the claims of before that were not made again."""
        for key in before:
            row = self._work.name(self._parent, key)
            kept = tuple(claim for claim in row.claims if claim[0] != self._key or (key, claim[1]) in self._claimed)
            if kept != row.claims:
                row.claims = kept
                self._tell(kept)

    def _tell(self, claims: tuple[tuple[bytes, ItemId], ...]) -> None:
        for key, _ in claims:
            self._work.to_show[self._parent, key] = None
