"""What lies in ``.kinfolder``: finish or undo what a crash cut off, and let go what was verified.

Rule 1: nothing is unlinked that is not known to be in the log; what is not known gets a user's name again.
Rule 2: every function here may be cut off at any call and be run again.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection
from typing import Final, NamedTuple

import msgspec

from peer.core.observations import Fingerprint
from peer.disk.intents import standing
from peer.disk.journal import Journal, Swap, SwapKind
from peer.disk.roots import Root
from peer.disk.swaps import Swaps, has_writer, is_ours, look
from peer.disk.walk import CONTROL, disk_error, kind_of, opened, split
from protocol.effects import Handle, Stat
from protocol.entries import Kind

TRASH_SLICE: Final = 1_000
"""How many things of the trash are looked at in one go."""


class Settled(NamedTuple):
    """What became of one swap."""

    row: Swap | None
    """What the journal must hold of it; None: nothing of it is left."""
    back: str = ""
    """The path at which something stands again."""
    kept: str = ""
    """The path at which a user's bytes lie that could not go back to their own name."""


class Recovered(NamedTuple):
    """What :func:`recover` did."""

    back: tuple[str, ...]
    kept: tuple[str, ...]
    left: tuple[str, ...]
    """Paths of swaps that could not be settled now, a later call may: what is missing there was removed by no user."""
    look_at: tuple[str, ...] = ()
    """Paths at which something was to stand that nobody noted yet; what does stand there as intended is noted now."""


class Emptied(NamedTuple):
    """What :func:`empty_trash` did."""

    removed: int
    kept: tuple[str, ...]
    left: int
    """Swaps that wait: too young, not checked, or a process still has the file open for writing."""
    stuck: int = 0
    """How many of those were looked at just now and must wait: what a next call skips."""
    more: bool = False
    """Whether there are others that are old enough."""


def is_unfinished(journal: Journal) -> bool:
    """Tell whether, while nothing is being applied, a swap has not come to its end or an intent has not."""
    return journal.count(checked=False) > 0 or bool(journal.intents())


def recover(root: Root, journal: Journal) -> Recovered:
    """Settle every swap and intent; to be called before the first scan after a start, and where one is unfinished.

    Raises:
        DiskError: The hidden directories cannot be used.
    """
    swaps = Swaps(root)
    back, kept, left = [], [], []
    onward = {intent.old_path: intent.path for intent in journal.intents()}
    stuck = set()
    for swap in list(journal.rows()):
        try:
            settled = settle(swaps, swap, onward.get(aside_path(swap), ""))
        except OSError:
            left.append(swap.path)
            stuck |= {swap.path, aside_path(swap)}
            continue
        record(root, journal, swap, settled)
        back += [settled.back] if settled.back else []
        kept += [settled.kept] if settled.kept else []
    return Recovered(tuple(back), tuple(kept), tuple(left), _settle_intents(root, journal, stuck))


def _settle_intents(root: Root, journal: Journal, stuck: Collection[str]) -> tuple[str, ...]:
    """Have the trees say what stands as intended; return the paths of all intents that were looked at."""
    intents = [intent for intent in journal.intents() if intent.path not in stuck and intent.old_path not in stuck]
    if not intents:
        return ()
    found, unsure = standing(root, intents)
    if found:
        try:
            root.fs.sync_all(root.handle)
        except OSError as error:
            raise disk_error(error, writing=True) from error
    journal.settled([intent for intent in intents if intent not in unsure], found)
    return tuple(intent.path for intent in intents)


def record(root: Root, journal: Journal, swap: Swap, settled: Settled) -> None:
    """Write down what became of a swap, once the disk has it durably.

    Raises:
        DiskError: The disk refuses.
    """
    if settled.row == swap:
        return
    if settled.back or settled.kept:
        try:
            root.fs.sync_all(root.handle)
        except OSError as error:
            raise disk_error(error, writing=True) from error
    if settled.row is None:
        journal.done([swap.id])
    else:
        journal.put([settled.row])


def aside_path(swap: Swap) -> str:
    """Return the path at which an item lies between two renames."""
    return f"{CONTROL}/aside/{swap.name}"


def settle(swaps: Swaps, swap: Swap, onward: str = "") -> Settled:
    """Bring one swap to its end: everything a user may miss has a user's name, the rest is checked and waits.

    Args:
        swaps: Of the root.
        swap: The one.
        onward: Where what is aside was to go, if it cannot go back since its old name has been given on already.

    Raises:
        OSError: It stays as it is.
    """
    hidden = "aside" if swap.kind is SwapKind.ASIDE else "trash"
    found = look(swaps.fs, swaps.root.hidden(hidden), swap.name)
    if found is None:
        return Settled(None)
    if swap.new is not None and is_ours(found, swap.new):
        return Settled(_checked(swap, found))
    directory, name = split(swap.path)
    try:
        with opened(swaps.fs, swaps.root.handle, directory) as parent:
            if hidden == "aside":
                return _settle_aside(swaps, swap, parent, name, onward)
            return _settle_trash(swaps, swap, parent, name, found)
    except (FileNotFoundError, NotADirectoryError):
        if hidden == "trash" and _is_known(swaps, swap, found):
            return Settled(_checked(swap, found))
    return Settled(None, kept=swaps.keep_beside(hidden, swap))


def _settle_aside(swaps: Swaps, swap: Swap, parent: Handle, name: str, onward: str) -> Settled:
    aside = swaps.root.hidden("aside")
    try:
        swaps.fs.rename(aside, swap.name, parent, name)
    except FileExistsError:
        directory, new_name = split(onward)
        with contextlib.suppress(FileExistsError, FileNotFoundError, NotADirectoryError):
            if onward:
                with opened(swaps.fs, swaps.root.handle, directory) as new_parent:
                    swaps.fs.rename(aside, swap.name, new_parent, new_name)
                return Settled(None, back=onward)
        return Settled(None, kept=swaps.keep_beside("aside", swap))
    return Settled(None, back=swap.path)


def _settle_trash(swaps: Swaps, swap: Swap, parent: Handle, name: str, found: Stat) -> Settled:
    if _is_known(swaps, swap, found):
        if swap.kind is SwapKind.REPLACE and swap.checked is None and look(swaps.fs, parent, name) is None:
            # Taken away and not replaced yet: left so, the next scan would find a removal that no user made.
            # Once it was checked, the new file had its place, and an empty place is somebody's removal.
            swaps.fs.rename(swaps.root.hidden("trash"), swap.name, parent, name)
            return Settled(None, back=swap.path)
        return Settled(_checked(swap, found))
    if swap.checked is not None:
        # Written to after it was replaced. What replaced it is in the log by now and another's: it keeps the name, or
        # the next scan would find an edit by somebody who had seen it.
        return Settled(None, kept=swaps.keep_beside("trash", swap))
    kept = swaps.undo(swap, parent, name, swap.new)
    left = look(swaps.fs, swaps.root.hidden("trash"), swap.name)
    return Settled(None if left is None else _checked(swap, left), back="" if kept else swap.path, kept=kept)


def _is_known(swaps: Swaps, swap: Swap, found: Stat) -> bool:
    """Tell whether what lies in the trash is what was verified there, or else what was expected."""
    if swap.checked is not None and found[1:] == swap.checked[1:]:  # the device's number may differ after a restart
        return True
    if not swaps.is_expected(swap, found):
        return False
    return kind_of(found.mode) is not Kind.DIRECTORY or swaps.is_empty(swaps.root.hidden("trash"), swap.name)


def _checked(swap: Swap, found: Stat) -> Swap:
    return msgspec.structs.replace(swap, checked=Fingerprint(*found))


def empty_trash(
    root: Root, journal: Journal, *, before_ms: int, limit: int = TRASH_SLICE, skip: int = 0, sure: bool = False
) -> Emptied:
    """Unlink what was verified in the trash, the oldest first, each looked at once more.

    Args:
        root: Opened, its marker checked.
        journal: Names what lies in the trash.
        before_ms: Only what was taken before this moment (wall clock).
        limit: How many are looked at, so that one call stays short.
        skip: How many of the oldest are passed over, since they were found to be stuck just now.
        sure: Leave what the file system cannot tell to have no writer; its age is all that speaks for it.

    Raises:
        DiskError: The disk refuses.
    """
    swaps = Swaps(root)
    done: list[bytes] = []
    kept: list[str] = []
    stuck = 0
    rows = journal.checked(before_ms, limit, skip)
    for swap in rows:
        if swap.kind is SwapKind.ASIDE:
            stuck += 1
            continue
        try:
            gone = _let_go(swaps, swap, sure=sure)
            if not gone:
                kept.append(swaps.keep_beside("trash", swap))
            done.append(swap.id)
        except (OSError, _StillOpen):
            stuck += 1
    if done:
        try:
            root.fs.sync(root.hidden("trash"))
            if kept:
                root.fs.sync_all(root.handle)
        except OSError as error:
            raise disk_error(error, writing=True) from error
        journal.done(done)
    left = journal.count(checked=True) + journal.count(checked=False)
    return Emptied(len(done) - len(kept), tuple(kept), left, stuck, more=len(rows) == limit)


class _StillOpen(Exception):  # a result from within a loop, it is no error
    pass


def _let_go(swaps: Swaps, swap: Swap, *, sure: bool) -> bool:
    """Remove one thing from the trash; False: it is not what was verified, and a user's."""
    fs, trash = swaps.fs, swaps.root.hidden("trash")
    found = look(fs, trash, swap.name)
    if found is None:
        return True
    kind = kind_of(found.mode)
    if kind is Kind.FILE:
        is_open = has_writer(fs, trash, swap.name)
        if is_open or (sure and is_open is None):
            raise _StillOpen
        found = fs.lstat(trash, swap.name)  # only now: whoever had it open may have written before closing it
        # Read once more: a program may change bytes and leave size and times as they were, or write through a mapping
        # that its first write has marked already. What cannot be had again goes by its hash alone.
        is_known = (swap.new is not None and is_ours(found, swap.new)) or swaps.is_expected(swap, found)
    else:
        is_known = _is_known(swaps, swap, found)
    if not is_known:
        return False
    if kind is Kind.DIRECTORY:
        try:
            fs.remove_directory(trash, swap.name)
        except OSError:
            return False
    else:
        fs.unlink(trash, swap.name)
    return True
