"""Turn acts of the user into the entries of one operation (architecture 2 and 3).

The author folds his own entry before it is signed. A path that would change its name though nobody renamed it is kept;
a content that would come back though this disk had seen it go is replaced.

Rule 1: acts given together are one operation: admitted together, and judged after the last of them.
Rule 2: an act renames nothing but what the user renamed (foldmodel, F4), and brings nothing back that he did not have.
Rule 3: after it, ``synced`` holds just what the disk holds, with the dots of the values just written.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Final

import msgspec
from msgspec.structs import replace

from peer.core.act_writer import ActWriter
from peer.core.conflicts import bytes_of
from peer.core.drafts import DraftEntry, Key, as_admitted
from peer.core.fold import fold
from peer.core.fold_state import FoldState
from peer.core.memory_state import OverlayState
from peer.core.operations import Act, Create, Move, Remove
from peer.core.tree import Item, ItemId, Member, Tree
from protocol.entries import ContentValue, Register, SegmentKey
from protocol.ids import ROOT, Dot, NodeId, copy_id

__all__ = ["Draft", "DraftEntry", "author", "split_acts"]

AFTER_ALL: Final = 1 << 40
"""A position behind every real one: where the author's own entry is tried."""
_TRIES_MAX: Final = 4
"""Keeping a name can, in rare histories, change another one."""


class Draft(msgspec.Struct, frozen=True):
    """One operation, ready to be signed."""

    entries: tuple[DraftEntry, ...]
    """One, or the parts of a batch; none if nothing was to be written."""
    synced: tuple[Item, ...]
    """Items as this device's disk holds them now: to be put into ``synced`` together with recording the entries."""
    dropped: tuple[ItemId, ...]
    """Ids that ``synced`` no longer has; to be dropped first."""
    trial: OverlayState | None
    """``state`` with the entries folded, over it; None if that was not tried to the end."""
    changed: tuple[ItemId, ...]
    """The items that differ in ``trial``."""


def author(
    acts: Sequence[Act],
    *,
    synced: Tree,
    state: FoldState,
    device: int,
    seq: int,
    contents: Mapping[ItemId, ContentValue],
    entropy: Callable[[int], bytes],
    segments: Sequence[SegmentKey] = (),
    label: str = "",
    position: int = AFTER_ALL,
) -> Draft:
    """Return the entries that record acts, and what ``synced`` is after them.

    Args:
        acts: One operation. Each is about another item, but for a :class:`Move` and an edit of the same one.
        synced: What the disk held when this device and the log last agreed.
        state: The fold of everything that this device knows; it is read, never written.
        device: This device's number in the folder.
        seq: Sequence number of the first entry.
        contents: By item, the content of every file that was created or edited and is not empty; spans count ``segments``.
        entropy: Draws random bytes, for the ids of removals and of a batch.
        segments: One table for all of ``contents``.
        label: The name of this device, as the entries will carry it.
        position: Where the first entry is tried: behind all that ``state`` holds.

    Raises:
        LocalProtocolError: A file's content is not among ``contents``.
        LimitExceededError: The acts are more than one batch can hold.
    """
    writer = ActWriter(synced, state, contents, segments, entropy)
    for act in acts:
        writer.write(act)
    batch_id = cache(lambda: entropy(16))
    entries = writer.sheet.entries(device, seq, batch_id)
    trial, changed = None, list[ItemId]()
    for _ in range(_TRIES_MAX):
        before = writer.sheet.version
        trial, changed = _mend(writer, entries, device, label, position)
        if writer.sheet.version == before:
            break
        entries = writer.sheet.entries(device, seq, batch_id)
        trial = None
    return _draft(writer, entries, device, trial, changed)


def split_acts(acts: Sequence[Act]) -> tuple[tuple[Act, ...], tuple[Act, ...]]:
    """Return the acts that must be one operation, to be recorded first, and those that may follow in any pieces.

    Moves and removals belong together, since they give up names to one another, with the directories made for them and
    with edits of what was moved. The others, in the order given, depend on nothing but parents that come before.
    """
    made = {act.item.id: act.item for act in acts if isinstance(act, Create)}
    tied: set[ItemId] = set()
    for act in acts:
        if isinstance(act, Move | Remove):
            tied.add(act.base.id)
        above = act.parent if isinstance(act, Move) else ROOT
        while above in made and above not in tied:
            tied.add(above)
            above = made[above].parent
    first: list[Act] = []
    rest: list[Act] = []
    for act in acts:
        subject = act.item if isinstance(act, Create) else act.base
        (first if subject.id in tied else rest).append(act)
    return tuple(first), tuple(rest)


# --- The author's own fold


def _mend(
    writer: ActWriter, entries: Sequence[DraftEntry], device: int, label: str, position: int
) -> tuple[OverlayState, list[ItemId]]:
    """Fold the entries on an overlay, and plan what keeps them from changing more than the user did (rule 2)."""
    state, trial = writer.state, OverlayState(writer.state)
    changed = sorted(
        fold(trial, [as_admitted(entry, device=device, label=label) for entry in entries], position=position)
    )
    shown: dict[tuple[NodeId, Dot], tuple[Item, Member]] = {}
    for id in changed:
        item = state.tree.item(id)
        if item is not None:
            shown.update(((member.node, dot), (item, member)) for member in item.members for dot in member.content)
    dots = {dot for _, dot in shown}
    for id in changed:
        item = trial.tree.item(id)
        for member in () if item is None else item.members:
            was = next((shown[member.node, dot] for dot in member.content if (member.node, dot) in shown), None)
            if item is not None and was is not None:
                _keep_name(writer, trial, member, item, *was)
            for dot in member.content:
                if dot not in dots and state.contents.get(dot) is not None:
                    _replace_revived(writer, member.node, dot)
    return trial, changed


def _keep_name(writer: ActWriter, trial: FoldState, member: Member, new: Item, old: Item, shown: Member) -> None:
    """Keep a node or a copy where it showed, unless the user placed it or it would stay there anyway."""
    node, placed = writer.state.nodes.get(member.node), trial.nodes.get(member.node)
    if node is None or placed is None:
        return
    goes_along = shown.copy is not None and node.parent != placed.parent
    if old.name == new.name and not goes_along:
        return
    held = shown._replace(place=node.places)
    if shown.copy is None:
        if not writer.sheet.places(member.node):
            writer.place(held, node.parent, bytes_of(old.name), weak=True)
    elif not writer.sheet.places(copy_id(member.node, shown.copy)):
        for dot in shown.content:
            if dot in member.content:
                writer.detach(held, dot, node.parent, bytes_of(old.name), weak=True)
    item = writer.synced.item(old.id)
    if item is not None and item.id not in writer.gone and held in item.members:
        writer.bases.setdefault(item.id, item)


def _replace_revived(writer: ActWriter, node: NodeId, revived: Dot) -> None:
    """Replace a content that a move of its node would bring back, if this disk has shown that it was gone.

    A move of a detached node beats removals by its old name (F8); whoever moves it need not have missed them.
    """
    for base in writer.bases.values():
        if base != writer.state.tree.item(base.id):
            continue  # what this device has only received says nothing about what its user has seen
        for member in base.members:
            held = {member.node: member.content} if member.copy is None else {}
            if member.copy is not None:
                held = {copy_id(member.node, dot): (dot,) for dot in member.content}
            if node in held and writer.synced.item(copy_id(node, revived)) is None:
                writer.replace_also(base.id, node, held[node], revived)


# --- The outcome


def _draft(
    writer: ActWriter,
    entries: tuple[DraftEntry, ...],
    device: int,
    trial: OverlayState | None,
    changed: Sequence[ItemId],
) -> Draft:
    """Return the entries with what ``synced`` is after them."""
    dots = writer.sheet.dots(entries, device)
    items: dict[ItemId, Item] = {}
    dropped = dict(writer.gone)
    for base in writer.bases.values():
        members = _members_after(writer, base, dots)
        item = replace(writer.now.get(base.id, base), id=_id_of(members[0]), members=tuple(members))
        if item.id != base.id:
            dropped[base.id] = None
        items[item.id] = item
    for id, item in writer.now.items():
        if id not in writer.bases:
            place, content = dots[id, Register.PLACE], dots[id, Register.CONTENT]
            items[id] = replace(item, members=(Member(id, None, (content,), (place,)),))
    return Draft(entries, tuple(items.values()), tuple(dropped), trial, tuple(changed))


def _members_after(writer: ActWriter, base: Item, dots: Mapping[Key, Dot]) -> list[Member]:
    """Return what stands behind an item now, the oldest node first, as the fold orders it."""
    found: list[Member] = []
    for member in base.members:
        kept: list[Dot] = []
        for dot in member.content:
            copy = copy_id(member.node, dot)
            if member.copy is not None and writer.sheet.detaches(copy):
                content = dots.get((copy, Register.CONTENT), dot)
                found.append(Member(copy, None, (content,), (dots[copy, Register.PLACE],)))
            else:
                kept.append(dot)
        if kept or not member.content:
            written = dots.get((member.node, Register.CONTENT)) if member.copy is None else None
            placed = dots.get((member.node, Register.PLACE))
            found.append(
                member._replace(
                    content=tuple(kept) if written is None else (written,),
                    place=member.place if placed is None else (placed,),
                )
            )
    return sorted(found, key=lambda each: _age(writer.state, each.node, dots))


def _age(state: FoldState, node: NodeId, dots: Mapping[Key, Dot]) -> tuple[int, int, int]:
    """Return what sorts as the fold sorts nodes by their first place: those of before, then those of this draft."""
    known = state.nodes.get(node)
    if known is not None and known.at is not None:
        return 0, known.born, 0
    placed = dots.get((node, Register.PLACE))
    return (1, 0, 0) if placed is None else (1, placed.seq, placed.index)


def _id_of(member: Member) -> ItemId:
    return member.node if member.copy is None else copy_id(member.node, member.copy)
