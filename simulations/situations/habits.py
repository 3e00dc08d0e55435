"""Situations that one user makes alone: how programs save, how things get their names, what kinds of things there are.

Rule 1: a program is known by what it leaves on the disk step by step, and not by who says that he is one.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from typing import Final

from protocol import limits
from protocol.entries import Kind
from simulations.checks.names import is_copy, is_local
from simulations.history.ledger import EMPTY
from simulations.loop import SECOND_NS
from simulations.situations import pairs
from simulations.situations.operations import Operation, Tree, What, is_below, last_name
from simulations.situations.pairs import Evidence, Judge, creates, edits, fills, moves, moves_directory, removes
from simulations.situations.record import Did, Record

_QUICKLY_NS: Final = 20 * SECOND_NS
_AT_ONCE_NS: Final = 2 * SECOND_NS
SAVES: Final = 8
"""So many saves one after the other are many."""
MANY: Final = 3
LONG_BYTES: Final = 200
SPARSE_BYTES: Final = 500_000
DAY_NS: Final = 86_400 * SECOND_NS
HARD: Final = frozenset('\\:*?"<>|')
"""What Windows forbids in names."""
SIZES: Final = frozenset(
    size + more
    for size in (0, limits.CHUNK_BYTES_MIN, limits.CHUNK_BYTES_MEAN)
    for more in (-1, 0, 1)
    if size + more >= 0
)
ODD_TIMES_NS: Final = (1_000_000_000, 4_000_000_000_000_000_000)
"""Before the first and after the second is no time of today."""


def _new(record: Record) -> Iterator[Did]:
    """Yield whatever got a name."""
    yield from record.of(What.CREATE, What.MOVE)


def _by_name(judge: object) -> Judge:
    assert callable(judge)

    def named(record: Record) -> Iterator[Evidence]:
        for did in _new(record):
            if judge(last_name(did.op.to)):
                yield (did,)

    return named


def _folds(record: Record) -> bool:
    return any(record.personality(number).folds_case for number in range(record.devices))


# --- Contents and times


def _unseen(op: Operation) -> bool:
    return (
        edits(op)
        and op.old is not None
        and op.new is not None
        and op.old.size == op.new.size
        and (op.old.mtime_ns == op.new.mtime_ns)
    )


def unseen(record: Record) -> Iterator[Evidence]:
    """Find bytes that changed, with neither size nor time (15)."""
    return ((did,) for did in record.did if _unseen(did.op))


def older(record: Record) -> Iterator[Evidence]:
    """Find an older file in the place of a newer one (16)."""
    for did in record.did:
        op = did.op
        if edits(op) and op.old is not None and op.new is not None and op.new.mtime_ns < op.old.mtime_ns:
            yield (did,)


def odd_times(record: Record) -> Iterator[Evidence]:
    """Find times far from today (17)."""
    early, late = ODD_TIMES_NS
    for did in record.of(What.TOUCH):
        if did.op.new is not None and not early < did.op.new.mtime_ns < late:
            yield (did,)


def appended_unseen(record: Record) -> Iterator[Evidence]:
    """Find a file that is longer, with the time that it had (18)."""
    for did in record.did:
        op = did.op
        if edits(op) and op.old and op.new and op.new.size > op.old.size and op.new.mtime_ns == op.old.mtime_ns:
            yield (did,)


def sizes(record: Record) -> Iterator[Evidence]:
    """Find files at the limits of chunks, or of many chunks (21)."""
    for did in record.did:
        new = did.op.new
        if pairs.changes_bytes(did.op) and new is not None and new.content != EMPTY:
            yield from [(did,)] if new.size in SIZES or new.size > 2 * limits.CHUNK_BYTES_MIN else []


def sparse(record: Record) -> Iterator[Evidence]:
    """Find a file most of which is a hole (72)."""
    for did in record.did:
        new = did.op.new
        if new is not None and new.kind is Kind.FILE and new.size >= SPARSE_BYTES and new.holes > new.size // 2:
            yield (did,)


def hard_links(record: Record) -> Iterator[Evidence]:
    """Find a file of two names that was edited (71)."""
    return ((did,) for did in record.of(What.EDIT, kind=Kind.FILE) if did.op.new is not None and did.op.new.links > 1)


def same_inode(record: Record) -> Iterator[Evidence]:
    """Find a file that went, and a new one with the number that it had (51)."""
    for gone in record.of(What.REMOVE, kind=Kind.FILE):
        for later in record.after(gone):
            new = later.op.new
            if creates(later.op) and new and gone.op.old and new.number == gone.op.old.number:
                yield gone, later


def same_bytes(record: Record) -> Iterator[Evidence]:
    """Find a file that went where another held the same bytes, and one that came with them (52)."""
    for gone in record.of(What.REMOVE, kind=Kind.FILE):
        content = gone.op.old.content if gone.op.old else EMPTY
        if content == EMPTY or not any(seen.content == content for seen in gone.deed.after.values()):
            continue
        for later in record.did:
            is_after = later.deed.device == gone.deed.device and abs(later.deed.number - gone.deed.number) < _NEAR
            if is_after and creates(later.op) and later.op.new and later.op.new.content == content:
                yield gone, later


_NEAR: Final = 40


# --- Names


def case_change(record: Record) -> Iterator[Evidence]:
    """Find a name in other letters, with a disk for which it is the same (77)."""
    for did in record.of(What.MOVE):
        if did.op.path != did.op.to and did.op.path.casefold() == did.op.to.casefold() and _folds(record):
            yield (did,)


def case_pair(record: Record) -> Iterator[Evidence]:
    """Find two names that differ in letters alone, with a disk for which they are the same (78)."""
    if _folds(record):
        for deed in record.deeds:
            if _is_pair(deed.after, str.casefold):
                yield (deed,)


def case_pair_removed(record: Record) -> Iterator[Evidence]:
    """Find one of two such names removed (79)."""
    if _folds(record):
        for did in record.of(What.REMOVE):
            if any(path != did.op.path and path.casefold() == did.op.path.casefold() for path in did.deed.after):
                yield (did,)


def _nfc(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def both_forms(record: Record) -> Iterator[Evidence]:
    """Find one name in two forms of Unicode side by side (81)."""
    for deed in record.deeds:
        if _is_pair(deed.after, _nfc):
            yield (deed,)
    for number, trees in enumerate(record.rests):
        if any(_is_pair(tree, _nfc) for tree in trees):
            yield (f"rest {number}",)


def _is_pair(tree: Tree, fold: object) -> bool:
    assert callable(fold)
    names = [path for path in tree if not path.isascii() or fold is str.casefold]
    return len({fold(path) for path in names}) < len(names)


def forbidden_elsewhere(name: str) -> bool:
    """Tell whether other systems cannot have a name (82)."""
    return (
        not HARD.isdisjoint(name)
        or name.split(".", 1)[0].casefold() in {"con", "nul", "aux", "prn"}
        or (name.endswith(".") and name.strip(".") != "")
    )


def raw(name: str) -> bool:
    """Tell whether a name is no text, or holds what no terminal shows (83)."""
    return any("\udc80" <= letter <= "\udcff" or letter < " " or letter > "\uffff" for letter in name)


def long(name: str) -> bool:
    """Tell whether a mark for a copy would not fit behind a name (84)."""
    return len(name.encode(errors="surrogateescape")) > LONG_BYTES


def like_ours(name: str) -> bool:
    """Tell whether a name is one that the product gives (85)."""
    return is_copy(name) or ".kinfolder" in name


def padded(name: str) -> bool:
    """Tell whether a name begins or ends in a space or ends in a dot (86)."""
    return name != name.strip(" ") or name.endswith(".")


def never_synced(name: str) -> bool:
    """Tell whether a name stays on one device by what it is (89)."""
    return is_local(name) or name in {".DS_Store", "Thumbs.db", "desktop.ini"}


def ignored_later(record: Record) -> Iterator[Evidence]:
    """Find a rule of ``.kinignore`` for what stood there before (90)."""
    for did in record.did:
        if did.op.to != ".kinignore" or did.op.new is None or not did.op.new.text:
            continue
        rules = [line.removeprefix("/").rstrip("/") for line in did.op.new.text.splitlines()]
        if any(last_name(path) in rules or path in rules for path in did.deed.before):
            yield (did,)


# --- Kinds of things


def empty_directory(record: Record) -> Iterator[Evidence]:
    """Find an empty directory that was made or went (62)."""
    for did in record.of(What.CREATE, What.REMOVE, kind=Kind.DIRECTORY):
        tree = did.deed.after if did.op.what is What.CREATE else did.deed.before
        if not any(is_below(path, did.op.path) for path in tree):
            yield (did,)


def odd_link(record: Record) -> Iterator[Evidence]:
    """Find a link that leads nowhere, out of the folder, or to itself (70)."""
    for did in record.did:
        new = did.op.new
        if new is not None and new.kind is Kind.LINK and did.op.what in {What.CREATE, What.EDIT, What.RETYPE}:
            target = new.content.decode(errors="replace")
            if target.startswith(("/", "..")) or target == last_name(did.op.to) or target not in did.deed.after:
                yield (did,)


def special(record: Record) -> Iterator[Evidence]:
    """Find what is neither file, directory nor link (73)."""
    return ((did,) for did in record.of(What.CREATE) if did.op.kind is None)


# --- Moves in series


def rotation(record: Record) -> Iterator[Evidence]:
    """Find names that pass what they hold on to the next (32)."""
    for deed in record.deeds:
        chained = [op for op in deed.operations if op.what is What.MOVE]
        for op in chained:
            if any(other.path == op.to and other.to != op.path for other in chained):
                yield (deed,)


def turned_inside_out(record: Record) -> Iterator[Evidence]:
    """Find a directory that now lies in one that had lain in it (43)."""
    for did in record.of(What.MOVE, kind=Kind.DIRECTORY):
        for later in record.after(did):
            if (
                moves_directory(later.op)
                and is_below(did.op.path, later.op.path)
                and (is_below(later.op.to, did.op.to))
            ):
                yield did, later


def moved_out_then_removed(record: Record) -> Iterator[Evidence]:
    """Find a directory that was made, a file moved into it, and where that had been, removed (44)."""
    for made in record.of(What.CREATE, kind=Kind.DIRECTORY):
        for moved in record.after(made):
            if not (moves(moved.op) and is_below(moved.op.to, made.op.path)):
                continue
            for gone in record.after(moved):
                if pairs.removes_directory(gone.op) and is_below(moved.op.path, gone.op.path):
                    yield made, moved, gone


def made_anew(record: Record) -> Iterator[Evidence]:
    """Find a directory that was moved, and a new one of its name (47)."""
    for did in record.of(What.MOVE, kind=Kind.DIRECTORY):
        for later in record.after(did):
            if pairs.makes_directory(later.op) and later.op.path == did.op.path:
                yield did, later


def moved_at_once(record: Record) -> Iterator[Evidence]:
    """Find a new file that got another name before anybody else had it (49)."""
    for did in record.of(What.CREATE, kind=Kind.FILE):
        for later in record.after(did):
            if (
                moves(later.op)
                and later.op.path == did.op.path
                and later.op.old
                and did.op.new
                and (later.op.old.content == did.op.new.content != EMPTY)
            ):
                soonest = min(
                    (one.time_ns for one in record.placed(did.op.new.content, did.deed.device)), default=1 << 62
                )
                if later.deed.time_ns < soonest and later.deed.time_ns - did.deed.time_ns < _QUICKLY_NS:
                    yield did, later


def moved_back(record: Record) -> Iterator[Evidence]:
    """Find a file that got another name and its old one again while somebody could hear of neither (50)."""
    for did in record.of(What.MOVE, kind=Kind.FILE):
        for later in record.after(did):
            if (
                moves(later.op)
                and later.op.path == did.op.to
                and later.op.to == did.op.path
                and any(
                    record.is_cut_off(number, did.deed.time_ns) and record.is_cut_off(number, later.deed.time_ns)
                    for number in range(record.devices)
                )
            ):
                yield did, later


# --- How programs save


def _saves_as_vim(record: Record) -> Iterator[tuple[Did, Did, Did]]:
    for moved in record.of(What.MOVE, kind=Kind.FILE):
        if moved.op.to != moved.op.path + "~":
            continue
        for made in record.after(moved):
            if not (pairs.changes_bytes(made.op) and made.op.path == moved.op.path):
                continue
            for gone in record.after(made):
                if removes(gone.op) and gone.op.path == moved.op.to:
                    yield moved, made, gone


def vim(record: Record) -> Iterator[Evidence]:
    """Find a save by moving the old file aside, writing a new one, and removing the old one (91)."""
    return iter(_saves_as_vim(record))


def _saves_as_office(record: Record) -> Iterator[tuple[Did, Did, Did]]:
    for aside in record.of(What.MOVE, kind=Kind.FILE):
        for placed in record.after(aside):
            is_one = moves(placed.op) and placed.op.to == aside.op.path and placed.op.path != aside.op.to
            if not is_one or placed.deed.time_ns - aside.deed.time_ns > _QUICKLY_NS:
                continue
            for gone in record.after(placed):
                if removes(gone.op) and gone.op.path == aside.op.to:
                    yield aside, placed, gone


def office(record: Record) -> Iterator[Evidence]:
    """Find a save by writing beside, moving the old file away and the new one there (92)."""
    return iter(_saves_as_office(record))


def office_and_edit(record: Record) -> Iterator[Evidence]:
    """Find such a save while another edited the file (93)."""
    for aside, placed, gone in _saves_as_office(record):
        for other in record.of(What.EDIT, kind=Kind.FILE):
            if fills(other.op) and pairs.same(aside.op, other.op) and record.concurrent(aside, other):
                yield aside, placed, gone, other


def over(record: Record) -> Iterator[Evidence]:
    """Find a new file moved over an old one (94)."""
    for did in record.of(What.MOVE, kind=Kind.FILE):
        if did.op.over is not None and is_local(did.op.path):
            yield (did,)


def often(record: Record) -> Iterator[Evidence]:
    """Find many saves of one file at once (97)."""
    return _often(record, _AT_ONCE_NS, fills)


def for_ever(record: Record) -> Iterator[Evidence]:
    """Find a file that only gets longer, again and again (99)."""

    def grows(op: Operation) -> bool:
        return edits(op) and op.old is not None and op.new is not None and op.new.size > op.old.size and not op.is_anew

    return _often(record, 600 * SECOND_NS, grows)


def _often(record: Record, within_ns: int, is_one: object) -> Iterator[Evidence]:
    assert callable(is_one)
    found: dict[tuple[int, str], list[Did]] = {}
    for did in record.did:
        if is_one(did.op):
            found.setdefault((did.deed.device, did.op.path), []).append(did)
    for dids in found.values():
        for first, last in zip(dids, dids[SAVES - 1 :], strict=False):
            if last.deed.time_ns - first.deed.time_ns <= within_ns:
                yield first, last


def many_old(record: Record) -> Iterator[Evidence]:
    """Find many files that came at once, all older than a day (100)."""
    for deed in record.deeds:
        old = [
            op
            for op in deed.operations
            if creates(op) and op.new is not None and op.new.mtime_ns < deed.wall_ns - DAY_NS // 2
        ]
        if len(old) >= MANY:
            yield (deed,)


def saved_from_memory(record: Record) -> Iterator[Evidence]:
    """Find a save by a program that had read an older version than the one in whose place it came (24)."""
    for opened in record.opened:
        for did in record.of(What.EDIT, kind=Kind.FILE):
            if (
                did.deed.device == opened.device
                and did.deed.time_ns > opened.time_ns
                and did.op.path == opened.path
                and did.op.old is not None
                and did.op.old.content not in {opened.content, EMPTY}
                and any(
                    one.device == opened.device
                    and one.is_placed
                    and one.content == did.op.old.content
                    and one.time_ns > opened.time_ns
                    for one in record.strokes
                )
            ):
                yield opened, did


def mass(record: Record) -> Iterator[Evidence]:
    """Find more than half of all files gone at once (75)."""
    for deed in record.deeds:
        files = [path for path, seen in deed.before.items() if seen.kind is Kind.FILE]
        kept = {seen.content for seen in deed.after.values()}
        gone = [path for path in files if path not in deed.after and deed.before[path].content not in kept]
        if len(files) >= MANY and len(gone) * 2 > len(files):
            yield (deed,)


def overflow(record: Record) -> Iterator[Evidence]:
    """Find a watcher that lost something just after its user had acted (98)."""
    for loss in record.losses:
        for deed in record.by_device[loss.device]:
            if deed.operations and 0 <= loss.time_ns - deed.time_ns < _QUICKLY_NS:
                yield deed, loss


def steady(record: Record) -> Iterator[Evidence]:
    """Find two who wrote one file, after which all came to rest and nothing moved (23)."""
    for one, other in pairs.concurrent_conflicts(record):
        if len(record.rests) > max(one.deed.epoch, other.deed.epoch):
            yield one, other


def three_versions(record: Record) -> Iterator[Evidence]:
    """Find quick edits, the first of which another device was receiving when the last was made (10)."""
    for device in record.by_device:
        changed = [Did(deed, op) for deed in device for op in deed.operations if fills(op)]
        for one, last in zip(changed, changed[2:], strict=False):
            if one.op.path != last.op.path or last.deed.time_ns - one.deed.time_ns > _QUICKLY_NS:
                continue
            content = one.op.new.content if one.op.new else EMPTY
            if any(stroke.began_ns < last.deed.time_ns for stroke in record.placed(content, one.deed.device)):
                yield one, last


JUDGES: Final[dict[int, Judge]] = {
    10: three_versions,
    15: unseen,
    16: older,
    17: odd_times,
    18: appended_unseen,
    21: sizes,
    23: steady,
    24: saved_from_memory,
    32: rotation,
    43: turned_inside_out,
    44: moved_out_then_removed,
    47: made_anew,
    49: moved_at_once,
    50: moved_back,
    51: same_inode,
    52: same_bytes,
    62: empty_directory,
    70: odd_link,
    71: hard_links,
    72: sparse,
    73: special,
    75: mass,
    77: case_change,
    78: case_pair,
    79: case_pair_removed,
    81: both_forms,
    82: _by_name(forbidden_elsewhere),
    83: _by_name(raw),
    84: _by_name(long),
    85: _by_name(like_ours),
    86: _by_name(padded),
    89: _by_name(never_synced),
    90: ignored_later,
    91: vim,
    92: office,
    93: office_and_edit,
    94: over,
    97: often,
    98: overflow,
    99: for_ever,
    100: many_old,
}
