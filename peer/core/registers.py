"""What a change does to the registers: which values stand unreplaced, and what removals and detaches did to them.

Values are never taken away. Each function here brings the heads of one register, and the few facts about its history
that judging needs, up to date with one new value.

Rule 1: a change replaces exactly the values that its base names, and what these replaced (foldmodel, F1).
Rule 2: what a removal removed stays removed; only a concurrent move that no removal has seen cancels it (F6, F7).
Rule 3: a value that was detached belongs to the node it became, and so does what has its whole base there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from msgspec.structs import replace

from peer.core.fold_state import ContentRow, NodeRow, PlaceKind, PlaceRow, Table
from peer.core.fold_work import Work
from peer.core.lineage import Row, beyond, goes_before, is_ancestor, last_common, links, load
from protocol.entries import Change, ContentValue, DetachValue, Kind, PlaceValue, RemovalValue, SegmentKey
from protocol.ids import Dot, NodeId, copy_id

ORDER_BITS: Final = 22
"""Lower bits of a value's order: its number among the changes folded at one position (a batch has at most 4,096,000)."""


def _named(work: Work, table: Table[Dot, Row], change: Change) -> Iterator[Row]:
    """Yield the values that a change names as its base; a void one stands for its own base."""
    for dot in change.base:
        row = table.get(dot)
        if row is not None:
            yield row
        else:
            for below in work.state.standing(dot):
                row = table.get(below)
                if row is not None:
                    yield row


# --- Places


def write_place(work: Work, dot: Dot, order: int, change: Change, value: PlaceValue | RemovalValue) -> None:
    """Add a value to a node's place register."""
    places = work.state.places
    node = work.node(change.node)
    bases = _place_bases(work, change)
    base = tuple(row.dot for row in bases)
    kind = PlaceKind.REMOVAL
    removal = b""
    if isinstance(value, RemovalValue):
        removal = value.removal
    else:
        kind = PlaceKind.KEEP if value.weak else PlaceKind.MOVE
    up, jump, depth, jump_depth, merge = links(places, dot, bases)
    row = PlaceRow(
        dot,
        order,
        base,
        change.vector,
        up,
        jump,
        depth,
        jump_depth,
        merge,
        node.id,
        kind,
        value.parent,
        value.name,
        removal,
    )
    places.put(dot, row)
    if node.at is None:
        node.born = order
        _claim_id(work, node)
    else:
        work.former.setdefault(node.id, (node.at, node.parent))
    node.places = _heads_after(node.places, base, dot)
    stand(node, row if len(node.places) == 1 else in_force(places, node.places))
    if kind is PlaceKind.MOVE:
        _note_move(work, node, row)
    elif isinstance(value, RemovalValue):
        _note_removal(work, node, row, value)
    work.to_list[node.id] = None


def _claim_id(work: Work, node: NodeRow) -> None:
    """Have a conflict copy shown under another id, if somebody gives its id to a node of his own."""
    item = work.state.tree.item(node.id) if node.origin is None else None
    if item is not None:
        work.to_list[item.members[0].node] = None


def stand(node: NodeRow, row: PlaceRow) -> None:
    """Have a node stand where this value says."""
    node.at, node.kind, node.parent, node.name = row.dot, row.kind, row.parent, row.name
    node.since = row.order >> ORDER_BITS


def in_force(places: Table[Dot, PlaceRow], dots: Iterable[Dot]) -> PlaceRow:
    """Return the value in force among unreplaced ones: moves, then keeps, then removals; of these the first in order."""
    rows = [load(places, dot) for dot in dots]
    best = rows[0]
    for row in rows[1:]:
        if row.kind < best.kind or (row.kind == best.kind and goes_before(places, row, best)):
            best = row
    return best


def _place_bases(work: Work, change: Change) -> list[PlaceRow]:
    """Return what a change of a node's place builds on."""
    found: dict[Dot, PlaceRow] = {}
    for row in _named(work, work.state.places, change):
        if row.node == change.node:
            found[row.dot] = row
    return list(found.values())


def _heads_after(heads: tuple[Dot, ...], base: tuple[Dot, ...], dot: Dot) -> tuple[Dot, ...]:
    if not heads or heads == base:
        return (dot,)
    return tuple(sorted([head for head in heads if head not in base] + [dot]))


def _note_move(work: Work, node: NodeRow, row: PlaceRow) -> None:
    """Let a new move beat the removals that it has not seen, if no older move of its line does so already."""
    places = work.state.places
    if any(free in row.base or is_ancestor(places, load(places, free), row) for free in node.free):
        return
    if not node.free:
        work.to_judge[node.id] = None
    node.free += (row.dot,)
    todo, seen = list(node.removals), set[Dot]()
    while todo:
        dot = todo.pop()
        removal = load(places, dot)
        if dot in seen or is_ancestor(places, removal, row):
            continue
        seen.add(dot)
        if not removal.beaten:
            _turn(work, removal)
        todo.extend(removal.below)


def _note_removal(work: Work, node: NodeRow, row: PlaceRow, value: RemovalValue) -> None:
    """Remember what a removal removes, and whether moves that nobody removed beat it and the others."""
    state = work.state
    for body in _named_bodies(work, value):
        state.removed.put(body, (*(state.removed.get(body) or ()), row.dot))
    act = (value.removal, node.id)
    state.acts.put(act, (*(state.acts.get(act) or ()), row.dot))
    unseen = _link_removals(work, node, row)
    node.free = _oldest_free(work, node)
    if node.free:
        _turn(work, load(state.places, row.dot))
    for removal in unseen:
        if removal.beaten and not _is_beaten(work, node, removal):
            _turn(work, removal)
    work.judge_family(node.id)


def _named_bodies(work: Work, value: RemovalValue) -> Iterable[Dot]:
    """Yield the bodies that a removal names; a void one stands for those it was made from."""
    for named in value.removed:
        yield named
        if work.state.voids.get(named) is not None:
            for dot in work.state.standing(named):
                row = work.state.contents.get(dot)
                if row is not None:
                    yield row.body


def _link_removals(work: Work, node: NodeRow, row: PlaceRow) -> list[PlaceRow]:
    """Link a removal to the latest ones that it has seen; return those that it has not."""
    places = work.state.places
    below: list[Dot] = []
    unseen: dict[Dot, PlaceRow] = {}
    todo, looked = list(node.removals), set[Dot]()
    while todo:
        dot = todo.pop()
        if dot in looked:
            continue
        looked.add(dot)
        other = load(places, dot)
        if is_ancestor(places, other, row):
            below.append(dot)
        else:
            unseen[dot] = other
            todo.extend(other.below)
    node.removals = (*(dot for dot in node.removals if dot in unseen), row.dot)
    if below:
        places.put(row.dot, replace(row, below=tuple(sorted(below))))
    return list(unseen.values())


def _oldest_free(work: Work, node: NodeRow) -> tuple[Dot, ...]:
    """Return the moves that no removal has seen, but for those that build on another of them."""
    if not node.free or (len(node.places) == 1 and node.places == node.removals):
        return ()
    places = work.state.places
    removals = [load(places, dot) for dot in node.removals]
    moves: list[PlaceRow] = []
    todo, seen = list(node.places), set[Dot]()
    while todo:
        row = load(places, todo.pop())
        if row.dot in seen or row.kind is PlaceKind.REMOVAL or any(is_ancestor(places, row, end) for end in removals):
            continue
        seen.add(row.dot)
        if row.kind is PlaceKind.MOVE:
            moves.append(row)
        todo.extend(row.base)
    oldest: list[PlaceRow] = []
    for row in sorted(moves, key=lambda each: each.order):
        if not any(is_ancestor(places, other, row) for other in oldest):
            oldest.append(row)
    return tuple(row.dot for row in oldest)


def _is_beaten(work: Work, node: NodeRow, removal: PlaceRow) -> bool:
    """Tell whether a move that is concurrent to a removal beats it.

    A move beats nothing once who had not seen the removal has removed what he moved. Who had seen both and then removed
    the node said by that what he removed; it does not bring to life again what the first removal took with it.
    """
    places = work.state.places
    others: list[PlaceRow] = []
    todo, looked = list(node.removals), {removal.dot}
    while todo:
        dot = todo.pop()
        if dot in looked:
            continue
        looked.add(dot)
        other = load(places, dot)
        if is_ancestor(places, removal, other):
            todo.extend(other.below)
        else:
            others.append(other)
    return any(
        move.kind is PlaceKind.MOVE and not any(is_ancestor(places, move, other) for other in others)
        for move in beyond(places, [load(places, dot) for dot in node.places], [removal])
        if not is_ancestor(places, removal, move)
    )


def _turn(work: Work, removal: PlaceRow) -> None:
    """Turn a removal from standing to beaten or back; of a directory, that decides about its whole subtree."""
    work.state.places.put(removal.dot, replace(removal, beaten=not removal.beaten))
    work.judge_family(removal.node)
    node = work.node(removal.node)
    kinds = [load(work.state.contents, dot).value.kind for dot in node.contents]
    if node.kids or not kinds or Kind.DIRECTORY in kinds:
        for below, _ in work.state.acts.under(removal.removal):
            work.judge_family(below)


# --- Contents


def write_content(
    work: Work, dot: Dot, order: int, change: Change, value: ContentValue, segments: tuple[SegmentKey, ...]
) -> None:
    """Add a value to the content register of a node's family."""
    contents = work.state.contents
    node = work.node(change.node)
    root = work.node(node.family)
    bases = _content_bases(work, change, node.family)
    body = value.body or dot
    up, jump, depth, jump_depth, merge = links(contents, dot, bases)
    row = ContentRow(
        dot,
        order,
        tuple(each.dot for each in bases),
        change.vector,
        up,
        jump,
        depth,
        jump_depth,
        merge,
        node.id,
        _follow(work, node.id, bases),
        body,
        value,
        segments,
    )
    contents.put(dot, row)
    if body != dot and _is_replaced(work, root, row, bases):
        row = replace(row, replaced=True)
        contents.put(dot, row)
    for each in bases:
        _take_head(work, each)
    if root.touches:
        root.touches = tuple(each for each in root.touches if each not in row.base)
        _replace_touched(work, root, row)
    if body != dot and not row.replaced:
        root.touches += (dot,)
    _give_head(work, row)


def same_bytes(one: ContentRow, other: ContentRow) -> bool:
    """Tell whether two values are one content: equal body or equal hash, whatever their attributes."""
    if one.value.kind is not other.value.kind:
        return False
    return one.body == other.body or one.value.hash == other.value.hash


def _content_bases(work: Work, change: Change, family: NodeId) -> list[ContentRow]:
    found: dict[Dot, ContentRow] = {}
    for row in _named(work, work.state.contents, change):
        if row.node == change.node or work.family(row.node) == family:
            found[row.dot] = row
    return list(found.values())


def _follow(work: Work, node: NodeId, bases: Sequence[ContentRow]) -> NodeId:
    """Return where a value written to ``node`` belongs: to a node detached from it, if its whole base is there."""
    homes = {row.home for row in bases}
    if len(homes) == 1:
        home = homes.pop()
        if home != node and work.is_under(home, node):
            return home
    return node


def _take_head(work: Work, row: ContentRow) -> bool:
    """Take a value off the heads of its home; tell whether it was one."""
    home = work.node(row.home)
    if row.dot not in home.contents:
        return False
    home.contents = tuple(dot for dot in home.contents if dot != row.dot)
    home.reverts = tuple(pair for pair in home.reverts if row.dot not in pair)
    work.to_judge[home.id] = None
    return True


def _give_head(work: Work, row: ContentRow) -> None:
    """Put a value among the heads of its home, in its order."""
    contents = work.state.contents
    home = work.node(row.home)
    others = [load(contents, dot) for dot in home.contents]
    at = next((i for i, other in enumerate(others) if goes_before(contents, row, other)), len(others))
    home.contents = (*home.contents[:at], row.dot, *home.contents[at:])
    for other in others:
        if not same_bytes(row, other):
            home.reverts += _reverts(work, row, other)
    work.to_judge[home.id] = None


def _reverts(work: Work, one: ContentRow, other: ContentRow) -> tuple[tuple[Dot, Dot], ...]:
    """Return which of two concurrent values, if any, holds again the bytes from which both were made (F10)."""
    common = last_common(work.state.contents, one, other)
    if common and all(same_bytes(row, one) for row in common):
        return ((one.dot, other.dot),)
    if common and all(same_bytes(row, other) for row in common):
        return ((other.dot, one.dot),)
    return ()


def _heads(work: Work, root: NodeRow) -> list[ContentRow]:
    """Return all unreplaced values of a family."""
    heads: list[ContentRow] = []
    for home in (root.id, *root.homes):
        node = work.peek(home)
        heads.extend(load(work.state.contents, dot) for dot in (() if node is None else node.contents))
    return heads


def _is_replaced(work: Work, root: NodeRow, row: ContentRow, bases: Sequence[ContentRow]) -> bool:
    """Tell whether somebody concurrent replaced the bytes that a new value only touches."""
    contents = work.state.contents
    if len(bases) == 1 and bases[0].body == row.body:
        home = work.peek(bases[0].home)
        if home is not None and bases[0].dot in home.contents:
            return bases[0].replaced
    body = contents.get(row.body)
    if body is None:
        return False
    return any(other.body != row.body for other in beyond(contents, _heads(work, root), [row], above=body))


def _replace_touched(work: Work, root: NodeRow, row: ContentRow) -> None:
    """Hide values that only touched bytes which a new value replaces."""
    contents = work.state.contents
    for dot in root.touches:
        touch = load(contents, dot)
        body = contents.get(touch.body)
        if body is not None and touch.body != row.body and is_ancestor(contents, body, row):
            contents.put(dot, replace(touch, replaced=True))
            root.touches = tuple(each for each in root.touches if each != dot)
            work.to_judge[touch.home] = None


# --- Detached copies


def detach(work: Work, change: Change, value: DetachValue) -> None:
    """Make one value of a node a node of its own."""
    copy = work.node(copy_id(change.node, value.dot))
    if copy.origin is None:
        if copy.contents or copy.homes:
            return  # somebody gave this id to a node of its own: there is nothing to become it
        copy.origin, copy.family = change.node, work.family(change.node)
        work.node(copy.family).homes += (copy.id,)
    known = {row.dot for row in _place_bases(work, change)}
    copy.saw = tuple(sorted(known.union(copy.saw)))
    row = work.state.contents.get(value.dot)
    if row is not None and work.family(row.node) == copy.family:
        _bring_home(work, row)
    work.judge_family(copy.id)


def _bring_home(work: Work, row: ContentRow) -> None:
    """Move a value that was just detached, and what follows it, to where they belong now."""
    contents = work.state.contents
    followers: list[ContentRow] = []
    home = work.peek(row.home)
    if home is None or row.dot not in home.contents:
        root = work.node(work.family(row.node))
        followers = sorted(beyond(contents, _heads(work, root), [row], above=row), key=lambda each: each.order)
    for each in (row, *followers):
        target = _home_now(work, each)
        if target == each.home:
            continue
        was_head = _take_head(work, each)
        moved = replace(each, home=target)
        contents.put(each.dot, moved)
        if was_head:
            _give_head(work, moved)


def _home_now(work: Work, row: ContentRow) -> NodeId:
    home = row.node
    if not _is_detached(work, home, row.dot):
        home = _follow(work, home, [load(work.state.contents, dot) for dot in row.base])
    while _is_detached(work, home, row.dot):
        home = copy_id(home, row.dot)
    return home


def _is_detached(work: Work, node: NodeId, dot: Dot) -> bool:
    copy = work.peek(copy_id(node, dot))
    return copy is not None and copy.origin is not None
