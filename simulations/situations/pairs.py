"""Situations in which two users, who had not seen what the other did, did two things about one place.

Rule 1: each is a pair of kinds of operations and how their places lie to each other; who of the two came first does not matter.
Rule 2: both began from one state: what they changed was the same file, by its content, or the same directory.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from protocol.entries import Kind
from simulations.checks.names import is_copy, is_local, wanted
from simulations.history.contents import LARGE
from simulations.history.ledger import EMPTY
from simulations.situations.operations import Operation, What, is_below, last_name
from simulations.situations.record import REPOSITORY, Did, Record

Evidence = tuple[object, ...]
Is = Callable[[Operation], bool]
Lies = Callable[[Operation, Operation], bool]
Judge = Callable[[Record], Iterator[Evidence]]


# --- Operations


def edits(op: Operation) -> bool:
    """Tell whether a file got other bytes."""
    return op.what is What.EDIT and op.kind is Kind.FILE


def fills(op: Operation) -> bool:
    """Tell whether a file got other bytes, and not none."""
    return edits(op) and op.new is not None and op.new.content != EMPTY


def creates(op: Operation) -> bool:
    """Tell whether a file is new."""
    return op.what is What.CREATE and op.kind is Kind.FILE


def makes_directory(op: Operation) -> bool:
    """Tell whether a directory is new."""
    return op.what is What.CREATE and op.kind is Kind.DIRECTORY


def removes(op: Operation) -> bool:
    """Tell whether a file is gone."""
    return op.what is What.REMOVE and op.kind is Kind.FILE


def removes_directory(op: Operation) -> bool:
    """Tell whether a directory is gone with all that was in it."""
    return op.what is What.REMOVE and op.kind is Kind.DIRECTORY


def moves(op: Operation) -> bool:
    """Tell whether a file stands elsewhere."""
    return op.what is What.MOVE and op.kind is Kind.FILE


def moves_directory(op: Operation) -> bool:
    """Tell whether a directory stands elsewhere."""
    return op.what is What.MOVE and op.kind is Kind.DIRECTORY


def marks(op: Operation) -> bool:
    """Tell whether a file's time or mode alone changed."""
    return op.what in {What.TOUCH, What.MODE}


def relinks(op: Operation) -> bool:
    """Tell whether a link leads elsewhere."""
    return op.what is What.EDIT and op.kind is Kind.LINK


def becomes(before: Kind, after: Kind) -> Is:
    """Return what tells whether something of one kind stands where one of another stood."""

    def judge(op: Operation) -> bool:
        is_so = op.what is What.RETYPE and op.old is not None and op.new is not None
        return is_so and (op.old and op.old.kind) is before and (op.new and op.new.kind) is after

    return judge


def writes_large(op: Operation) -> bool:
    """Tell whether a file of several chunks was written."""
    return (edits(op) or creates(op)) and op.new is not None and op.new.size >= LARGE


def empties(op: Operation) -> bool:
    """Tell whether nothing of a file is left."""
    return edits(op) and op.new is not None and op.new.content == EMPTY


def changes_bytes(op: Operation) -> bool:
    """Tell whether a file is new or has other bytes."""
    return edits(op) or creates(op)


# --- How places lie to each other


def same(one: Operation, other: Operation) -> bool:
    """Both were about one thing that neither had changed."""
    return one.path == other.path and (one.old and (one.old.kind, one.old.content)) == (
        other.old and (other.old.kind, other.old.content)
    )


def within(one: Operation, other: Operation) -> bool:
    """The second was about something in the first's directory."""
    return is_below(other.path, one.path)


def same_end(one: Operation, other: Operation) -> bool:
    """Both put something at one place, from different ones."""
    return one.to == other.to and one.path != other.path


def differing(lies: Lies) -> Lies:
    """Return what asks, too, whether the two came to different contents."""
    return lambda one, other: lies(one, other) and (one.new and one.new.content) != (other.new and other.new.content)


def differing_at_one_place(one: Operation, other: Operation) -> bool:
    """Both came to different contents at one place."""
    return differing(same)(one, other)


def equal(one: Operation, other: Operation) -> bool:
    """Both came to the same bytes at one place."""
    return same(one, other) and one.new is not None and other.new is not None and one.new.content == other.new.content


def elsewhere(one: Operation, other: Operation) -> bool:
    """Both moved one thing, to different places."""
    return same(one, other) and one.to != other.to


def into(one: Operation, other: Operation) -> bool:
    """The first moved something into the second's directory."""
    return is_below(one.to, other.path)


def crosswise(one: Operation, other: Operation) -> bool:
    """Each moved a directory into the other's."""
    return is_below(one.to, other.path) and is_below(other.to, one.path)


def deeply(one: Operation, other: Operation) -> bool:
    """As crosswise, one of them further down than the other."""
    return crosswise(one, other) and one.to.removeprefix(other.path + "/").count("/") >= 1


def _moves_over(one: Operation, other: Operation) -> bool:
    over, old = one.over, other.old
    return over is not None and old is not None and one.to == other.path and over.content == old.content


def _within_both(one: Operation, other: Operation) -> bool:
    return is_below(other.path, one.path) and is_below(other.to, one.path)


def _in_a_repository(one: Operation, other: Operation) -> bool:
    above = one.path.rpartition("/")[0]
    return REPOSITORY in above and above == other.path.rpartition("/")[0] and one.path != other.path


def _in_two_forms(one: Operation, other: Operation) -> bool:
    here, there = one.to, other.to
    return here != there and unicodedata.normalize("NFC", here) == unicodedata.normalize("NFC", there)


def _is_of_a_copy(one: Operation, _: Operation) -> bool:
    return is_copy(last_name(one.path))


def _both(*lies: Lies) -> Lies:
    return lambda one, other: all(lie(one, other) for lie in lies)


def _back_over(one: Operation, other: Operation) -> bool:
    """The first removed a conflict copy that the second moved over the file that it is a copy of."""
    above, slash, name = other.path.rpartition("/")
    return one.path == other.path and is_copy(name) and other.to == f"{above}{slash}{wanted(name)}"


def _escapes(one: Operation, other: Operation) -> bool:
    target = one.new.content if one.new is not None else b""
    return within(one, other) and (target.startswith((b"/", b"..")))


PAIRS: Final[dict[int, tuple[Is, Is, Lies]]] = {
    1: (fills, fills, differing(same)),
    2: (fills, fills, equal),
    3: (creates, creates, differing(same)),
    4: (creates, creates, equal),
    5: (fills, removes, same),
    9: (removes, marks, same),
    20: (empties, fills, same),
    25: (moves, fills, same),
    26: (moves, moves, elsewhere),
    27: (moves, removes, same),
    28: (moves, creates, lambda one, other: one.to == other.path),
    29: (moves, moves, same_end),
    33: (moves, edits, _moves_over),
    34: (moves_directory, removes_directory, same),
    35: (moves_directory, fills, within),
    36: (moves_directory, creates, within),
    37: (moves_directory, moves_directory, elsewhere),
    38: (moves_directory, moves, _within_both),
    39: (moves_directory, removes, within),
    40: (moves_directory, moves_directory, crosswise),
    42: (moves_directory, moves_directory, deeply),
    46: (moves_directory, removes_directory, into),
    57: (removes_directory, creates, within),
    58: (removes_directory, fills, within),
    63: (becomes(Kind.FILE, Kind.DIRECTORY), fills, same),
    64: (becomes(Kind.DIRECTORY, Kind.FILE), creates, within),
    65: (creates, makes_directory, lambda one, other: one.path == other.path),
    67: (becomes(Kind.FILE, Kind.LINK), fills, same),
    68: (becomes(Kind.DIRECTORY, Kind.LINK), lambda op: creates(op) or edits(op) or removes(op), _escapes),
    69: (relinks, relinks, differing(same)),
    76: (changes_bytes, changes_bytes, _in_a_repository),
    80: (changes_bytes, changes_bytes, _in_two_forms),
    151: (fills, fills, _both(_is_of_a_copy, differing(same))),
    152: (removes, moves, _back_over),
}
"""By number: what one did, what the other did, and how it lay to each other."""


def judge_pair(first: Is, second: Is, lies: Lies) -> Judge:
    """Return what finds such pairs."""

    def judge(record: Record) -> Iterator[Evidence]:
        for one, other in record.pairs:
            if first(one.op) and second(other.op) and lies(one.op, other.op) and not _is_half_a_save(one, other):
                yield one, other

    return judge


def _is_half_a_save(*dids: Did) -> bool:
    """Tell whether one of them is about a file that never leaves its device."""
    return any(is_local(did.op.path) and did.op.what is not What.MOVE for did in dids)


# --- Where one of the two did more than one thing


def followed(first: Is, then: Is, other: Is, lies: Lies, again: Lies) -> Judge:
    """Return what finds a pair of which one did another thing later, of which the other had not seen anything, either.

    Args:
        first: What one did.
        then: What he did later.
        other: What the other did.
        lies: How that lay to the first thing.
        again: How the later thing lay to the first.
    """

    def judge(record: Record) -> Iterator[Evidence]:
        for one, rival in record.pairs:
            if not (first(one.op) and other(rival.op) and lies(one.op, rival.op)):
                continue
            for later in record.after(one):
                is_back = (
                    later.op.new is not None
                    and rival.op.old is not None
                    and (later.op.new.content == rival.op.old.content)
                )  # what both began from shows on every disk, whether its return was seen or not
                if then(later.op) and again(one.op, later.op) and (is_back or record.concurrent(later, rival)):
                    yield one, later, rival

    return judge


def at_its_end(one: Operation, later: Operation) -> bool:
    """The later thing was about what the first had come to."""
    return later.path == one.to


def at_its_path(one: Operation, later: Operation) -> bool:
    """The later thing happened where the first had begun."""
    return later.to == one.path


def _back(one: Operation, later: Operation) -> bool:
    return (
        later.path == one.to
        and one.old is not None
        and later.new is not None
        and (later.new.content == one.old.content)
    )


def _its_directory(one: Operation, later: Operation) -> bool:
    return is_below(one.path, later.path) and not is_below(one.to, later.path)


def _is_anew(op: Operation) -> bool:
    return fills(op) and op.is_anew


def three_edits(record: Record) -> Iterator[Evidence]:
    """Find three users who edited one file (150)."""
    for one, other in record.pairs:
        if not (fills(one.op) and fills(other.op) and differing(same)(one.op, other.op)):
            continue
        for third, last in record.pairs:
            is_third = third is other and last.deed.device not in {one.deed.device, other.deed.device}
            if is_third and fills(last.op) and same(one.op, last.op) and record.concurrent(one, last):
                yield one, other, last


def three_cycle(record: Record) -> Iterator[Evidence]:
    """Find three users who moved three directories into each other, round and round (41)."""
    moved = list(record.of(What.MOVE, kind=Kind.DIRECTORY))
    for one in moved:
        for other in moved:
            if other is one or not is_below(one.op.to, other.op.path) or not record.concurrent(one, other):
                continue
            for third in moved:
                if (
                    is_below(other.op.to, third.op.path)
                    and is_below(third.op.to, one.op.path)
                    and record.concurrent(other, third)
                    and record.concurrent(one, third)
                ):
                    yield one, other, third


def both_make_a_directory(record: Record) -> Iterator[Evidence]:
    """Find two users who made one directory, each with something else in it (66)."""
    for one, other in record.pairs:
        if makes_directory(one.op) and makes_directory(other.op) and one.op.path == other.op.path:
            here, there = ([path for path in did.deed.after if is_below(path, did.op.path)] for did in (one, other))
            if here and there and here != there:
                yield one, other


def copied_and_removed(record: Record) -> Iterator[Evidence]:
    """Find who copied a file and removed the first one, while another edited it (53)."""
    for one, other in record.pairs:
        if not (removes(one.op) and fills(other.op) and same(one.op, other.op)):
            continue
        for did in record.did:
            is_copied = creates(did.op) and did.deed.device == one.deed.device and did.deed.number < one.deed.number
            if is_copied and did.op.new and one.op.old and did.op.new.content == one.op.old.content:
                yield did, one, other


def swapped(record: Record) -> Iterator[Evidence]:
    """Yield exchanges of two names (30)."""
    for deed in record.deeds:
        moved = [op for op in deed.operations if op.what is What.MOVE]
        for op in moved:
            if any(other.path == op.to and other.to == op.path for other in moved):
                yield (Did(deed, op),)


def swapped_and_edited(record: Record) -> Iterator[Evidence]:
    """Find an exchange of two names, one of which another edited (31)."""
    for (one,) in swapped(record):
        assert isinstance(one, Did)
        for other in record.of(What.EDIT):
            if fills(other.op) and same(one.op, other.op) and record.concurrent(one, other):
                yield one, other


def restructured(record: Record) -> Iterator[Evidence]:
    """Find two users who both exchanged names of the same things (55): no single move could come first."""
    found = [one for (one,) in swapped(record) if isinstance(one, Did)]
    for one in found:
        for other in record.of(What.MOVE):
            places = {other.op.path, other.op.to}
            is_met = not places.isdisjoint({one.op.path, one.op.to}) or any(
                is_below(place, one.op.path) or is_below(place, one.op.to) for place in sorted(places)
            )
            if is_met and record.concurrent(one, other):
                yield one, other


SERIES: Final[dict[int, Judge]] = {
    6: followed(fills, removes, fills, same, at_its_end),
    7: judge_pair(_is_anew, fills, differing(same)),
    19: followed(fills, fills, fills, same, _back),
    45: followed(moves, removes_directory, fills, same, _its_directory),
    48: followed(moves, changes_bytes, fills, same, at_its_path),
    61: followed(removes_directory, makes_directory, creates, within, at_its_path),
    30: swapped,
    31: swapped_and_edited,
    41: three_cycle,
    53: copied_and_removed,
    55: restructured,
    66: both_make_a_directory,
    150: three_edits,
}


def concurrent_conflicts(record: Record) -> Sequence[tuple[Did, Did]]:
    """Return the pairs of which a conflict copy can come."""
    first, second, lies = PAIRS[1]
    of_edits = [
        pair for pair in record.pairs if first(pair[0].op) and second(pair[1].op) and lies(pair[0].op, pair[1].op)
    ]
    first, second, lies = PAIRS[3]
    return of_edits + [
        pair for pair in record.pairs if first(pair[0].op) and second(pair[1].op) and lies(pair[0].op, pair[1].op)
    ]
