"""What follows from the registers: which moves cannot be, and which contents live.

Rule 1: all changes of an entry are applied before anything is judged, so turning A/B into B/A is no cycle.
Rule 2: a move that would close a cycle stays in its register and counts; only its node stays where it was (F9).
Rule 3: a content dies when a removal names its body, unless the removal is beaten or cancelled by a move (F6 to F8).
"""

from __future__ import annotations

from peer.core.fold_state import ContentRow, NodeRow, PlaceRow
from peer.core.fold_work import Work
from peer.core.lineage import is_ancestor, load
from peer.core.registers import stand
from protocol.ids import ROOT, NodeId


def keep_off_cycles(work: Work) -> None:
    """Let the nodes that an entry would hang under themselves stay where they were until they are placed again."""
    moved = list(work.former)
    if any(work.node(id).parent != work.former[id][1] for id in moved):
        while circling := [id for id in moved if _is_on_cycle(work, id)]:
            for id in circling:
                stand(work.node(id), load(work.state.places, work.former[id][0]))
            moved = [id for id in moved if id not in circling]
    work.former.clear()


def _is_on_cycle(work: Work, id: NodeId) -> bool:
    seen: set[NodeId] = set()
    here = id
    while here != ROOT and here not in seen:
        seen.add(here)
        row = work.peek(here)
        if row is None or row.at is None:
            return False
        here = row.parent
        if here == id:
            return True
    return False


def judge(work: Work) -> None:
    """Decide for every node to be judged which of its contents live."""
    court = _Court(work)
    for id in work.to_judge:
        node = work.node(id)
        node.live = tuple(row.dot for row in visible(work, node) if not court.is_removed(row, id))
        work.to_list[id] = None
    work.to_judge.clear()


def visible(work: Work, node: NodeRow) -> list[ContentRow]:
    """Return the contents of a node that count, removed or not: not merely touched or changed back (F10)."""
    rows = [load(work.state.contents, dot) for dot in node.contents]
    hidden = {dot for dot, _ in node.reverts}
    return [row for row in rows if not row.replaced and row.dot not in hidden]


class _Court:
    """Judges removals, and remembers what it found about whole acts."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._state = work.state
        self._cancelled: dict[tuple[bytes, NodeId], bool] = {}

    def is_removed(self, content: ContentRow, home: NodeId) -> bool:
        """Tell whether a removal that holds took a content away that shows at ``home``."""
        removals = self._state.removed.get(content.body) or ()
        return any(self._takes(load(self._state.places, dot), content, home) for dot in removals)

    def _takes(self, removal: PlaceRow, content: ContentRow, home: NodeId) -> bool:
        if removal.node == home:
            return not removal.beaten and not self._is_cancelled(removal)
        if not self._stood_at(removal.node, content, home) or self._is_cancelled(removal):
            return False
        # The content was detached meanwhile: only a move of what it became beats the removal, and only of somebody who
        # had not seen it; one who had seen it and detached the content all the same keeps it (F8).
        if self._was_seen(removal, home):
            return False
        node = self._work.peek(home)
        return node is None or not node.free

    def _stood_at(self, node: NodeId, content: ContentRow, home: NodeId) -> bool:
        """Tell whether who removed a node had a content there that shows at ``home``.

        It was detached from that node meanwhile; or it had followed there what it replaced, and others, who did not know
        that node, detached it from where it was written. Of a touched value only the first counts: the bytes that it
        touched may have stood at both.
        """
        if self._work.is_under(home, node):
            return True
        return content.dot == content.body and self._work.family(home) == self._work.family(node)

    def _is_cancelled(self, removal: PlaceRow) -> bool:
        """Tell whether a move beat the removal, by the same act, of a directory that this was in."""
        first = (removal.removal, removal.parent)
        found = self._cancelled.get(first)
        if found is None:
            found = self._cancelled[first] = self._is_kept(*first)
        return found

    def _is_kept(self, act: bytes, directory: NodeId) -> bool:
        todo, seen = [directory], set[NodeId]()
        while todo:
            above = todo.pop()
            if above in seen:
                continue
            seen.add(above)
            for dot in self._state.acts.get((act, above)) or ():
                removal = load(self._state.places, dot)
                if removal.beaten:
                    return True
                todo.append(removal.parent)
        return False

    def _was_seen(self, removal: PlaceRow, home: NodeId) -> bool:
        """Tell whether who detached ``home``, or what it was detached from, knew a removal."""
        here = home
        while here != removal.node:
            node = self._work.peek(here)
            if node is None or node.origin is None:
                return False
            for dot in node.saw:
                if dot == removal.dot or is_ancestor(self._state.places, removal, load(self._state.places, dot)):
                    return True
            here = node.origin
        return False
