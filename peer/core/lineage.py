"""Ancestry of register values by links, so that its cost does not grow with the history.

A value's ``up`` leads to that value of its base which came first in the order of names; along these links each register
is a forest, and ``jump`` pointers find an ancestor of a given depth, or where two lines part, in O(log n) steps
(Myers 1983). A value with a base of several has further ancestors; ``merge`` leads from one such value to the next, so
what is exact costs extra only for real merges.

Rule 1: links lead to values folded earlier; a value is complete when it is written and never changes.
Rule 2: two values of one register are compared where their lines part: the line whose value came first goes first.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple, TypeVar

from peer.core.fold_state import Lineage, Table
from protocol.errors import CorruptStateError
from protocol.ids import Dot

Row = TypeVar("Row", bound=Lineage)


class Links(NamedTuple):
    """Where a new value hangs."""

    up: Dot | None
    jump: Dot | None
    depth: int
    jump_depth: int
    merge: Dot | None


NO_LINKS = Links(None, None, 0, 0, None)


def load(table: Table[Dot, Row], dot: Dot | None) -> Row:
    """Return a row that another row names.

    Raises:
        CorruptStateError: It is not there.
    """
    row = None if dot is None else table.get(dot)
    if row is None:
        raise CorruptStateError(f"the folded state lacks the value {dot}")
    return row


def links(table: Table[Dot, Row], dot: Dot, bases: Sequence[Row]) -> Links:
    """Return the links of a new value with this base, which may be empty."""
    if not bases:
        return NO_LINKS
    up = bases[0]
    for other in bases[1:]:
        if goes_before(table, other, up):
            up = other
    jump, jump_depth = up.dot, up.depth
    if up.jump is not None:
        over = load(table, up.jump)
        if over.jump is not None and up.depth - up.jump_depth == up.jump_depth - over.jump_depth:
            jump, jump_depth = over.jump, over.jump_depth
    return Links(up.dot, jump, up.depth + 1, jump_depth, dot if len(bases) > 1 else up.merge)


def climb(table: Table[Dot, Row], row: Row, depth: int) -> Row:
    """Return the ancestor of ``row`` at this depth, not below its own, along ``up``."""
    while row.depth > depth:
        row = load(table, row.jump if row.jump_depth >= depth else row.up)
    return row


def _parting(table: Table[Dot, Row], left: Row, right: Row) -> tuple[Row, Row]:
    """Return the two rows at which the lines of two different values of one depth begin to differ."""
    while left.up != right.up:
        if left.jump != right.jump:
            left, right = load(table, left.jump), load(table, right.jump)
        else:
            left, right = load(table, left.up), load(table, right.up)
    return left, right


def goes_before(table: Table[Dot, Row], left: Row, right: Row) -> bool:
    """Tell whether ``left`` goes before ``right`` in the order of names (rule 2); an ancestor goes before."""
    depth = min(left.depth, right.depth)
    here, there = climb(table, left, depth), climb(table, right, depth)
    if here.dot == there.dot:
        return left.depth < right.depth
    here, there = _parting(table, here, there)
    return here.order < there.order


def is_ancestor(table: Table[Dot, Row], old: Row, new: Row) -> bool:
    """Tell whether ``new`` replaced ``old``, directly or not."""
    if old.order >= new.order:
        return False
    if old.dot in new.base:
        return True
    seen: set[Dot] = set()
    todo = [new]
    while todo:
        tip = todo.pop()
        if tip.depth >= old.depth and climb(table, tip, old.depth).dot == old.dot:
            return True
        todo.extend(_other_tips(table, tip, seen, since=old.order))
    return False


def _other_tips(table: Table[Dot, Row], tip: Row, seen: set[Dot], *, since: int) -> Iterator[Row]:
    """Yield what the merges on the line of ``tip`` replaced beside that line, as far as it is not older than ``since``."""
    merge = tip.merge
    while merge is not None and merge not in seen:
        row = load(table, merge)
        if row.order <= since:
            return
        seen.add(merge)
        for dot in row.base:
            if dot != row.up:
                side = load(table, dot)
                if side.order >= since:
                    yield side
        merge = load(table, row.up).merge


def _meeting(table: Table[Dot, Row], left: Row, right: Row) -> Row | None:
    """Return the last row that the lines of both have, or None."""
    depth = min(left.depth, right.depth)
    left, right = climb(table, left, depth), climb(table, right, depth)
    if left.dot == right.dot:
        return left
    left, right = _parting(table, left, right)
    return None if left.up is None else load(table, left.up)


def last_common(table: Table[Dot, Row], left: Row, right: Row) -> list[Row]:
    """Return the last common ancestors of two values of which neither replaced the other: none, one, or several.

    Every ancestor of a value is on the line of one of its tips, so each last common one is where two tips' lines meet.
    """
    first = _meeting(table, left, right)
    if left.merge is None and right.merge is None:
        return [] if first is None else [first]
    since = -1 if first is None else first.order
    found: dict[Dot, Row] = {}
    for one in _tips(table, left, first, since):
        for other in _tips(table, right, first, since):
            common = _meeting(table, one, other)
            if common is not None:
                found[common.dot] = common
    return [row for row in found.values() if not any(is_ancestor(table, row, other) for other in found.values())]


def _tips(table: Table[Dot, Row], row: Row, first: Row | None, since: int) -> list[Row]:
    """Return ``row`` and the ends of all other lines that its ancestors are on, but for those that ``first`` has too."""
    seen: set[Dot] = set()
    tips: list[Row] = []
    todo = [row]
    while todo:
        tip = todo.pop()
        tips.append(tip)
        merge = tip.merge
        while merge is not None and merge not in seen:
            seen.add(merge)
            at = load(table, merge)
            if first is not None and at.order <= since and (at.dot == first.dot or is_ancestor(table, at, first)):
                break
            todo.extend(load(table, dot) for dot in at.base if dot != at.up)
            merge = load(table, at.up).merge
    return tips


def beyond(
    table: Table[Dot, Row], heads: Sequence[Row], known: Sequence[Row], *, above: Row | None = None
) -> Iterator[Row]:
    """Yield every value among ``heads`` and their ancestors that is neither in ``known`` nor an ancestor of one of it.

    Only what lies beyond the point where the histories part is walked; with ``above``, only what replaced that value.
    """
    seen: set[Dot] = {row.dot for row in known}
    todo = list(heads)
    while todo:
        row = todo.pop()
        if row.dot in seen:
            continue
        seen.add(row.dot)
        if any(is_ancestor(table, row, end) for end in known):
            continue
        if above is not None and not is_ancestor(table, above, row):
            continue
        yield row
        todo.extend(load(table, dot) for dot in row.base)
