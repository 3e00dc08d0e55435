"""What became of all that people wrote: invariants 1, 3, 4, 5, 9 and 16, by the ledger alone."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Mapping
from itertools import pairwise
from typing import Final

from peer.core.hints import DEBOUNCE_S
from protocol.entries import Kind
from simulations.checks.names import is_copy, is_kept, is_local, is_made_of, wanted
from simulations.checks.violation import (
    CONFLICT_EXACTNESS,
    DURABILITY,
    IDENTITY,
    NO_INVENTION,
    NO_LOST_UPDATE,
    NO_RESURRECTION,
    Violation,
)
from simulations.history.ledger import EMPTY, Action, Forgotten, Ledger, Tree, held

_NAMED: Final = 6
_UNLOOKED_NS: Final = int(DEBOUNCE_S * 1e9)
"""A device looks so long after it was told of a change, at what stands there by then."""
_CHANGES: Final = frozenset({"resolve", "restore", "undo", "approve"})
"""Commands that change files."""


def check_invention(ledger: Ledger, number: int, tree: Tree, *, respells: bool = False) -> None:
    """Invariant 4: every file's bytes and every part of every path come from an action, or are such a name with a mark.

    ``respells``: the disk shows names in another Unicode form than they were given.
    """
    given = {_one(name) for name in ledger.names} if respells else ledger.names
    for path, seen in tree.items():
        if seen.kind is Kind.FILE and seen.content not in ledger.contents and seen.content != EMPTY:
            raise Violation(NO_INVENTION, f"nobody ever wrote what {path} holds on device-{number}")
        name = path.rpartition("/")[2]
        if not is_made_of(_one(name) if respells else name, given):
            raise Violation(NO_INVENTION, f"nobody ever named anything {name!a} ({path!a} on device-{number})")


def check_loss(ledger: Ledger, number: int, tree: Tree) -> None:
    """Invariants 1 and 16: each content that anybody wrote is live, or somebody who had it before him removed or replaced it.

    Excused is what was on no device but one that was put back to an earlier state, before it said that all was safe.
    """
    live = held(tree)
    for content, first in ledger.contents.items():
        if content in live or content in ledger.replaced or content in ledger.excused:
            continue
        makers = ledger.makers[content]
        if all(is_local(path) for path in _paths_of(content, makers)):
            continue
        invariant = DURABILITY if content in ledger.acknowledged else NO_LOST_UPDATE
        raise Violation(
            invariant,
            f"{content.hex()[:6]} is not on device-{number}, and nobody who had it removed or replaced it",
            ledger.actions[first],
            *makers[1:][-1:],
        )


def check_resurrection(ledger: Ledger, number: int, tree: Tree) -> None:
    """Invariant 3: what somebody removed or replaced is live only if another, who did not know of that, or later, kept it.

    Whoever brought the content to a path keeps it: by writing it, copying it, restoring it, moving it or a directory above
    it. So does who moved another version of the same file, or a directory in which it came to be: a removal that is beaten by a
    move removes nothing. He did not know of the removal unless he did it before, on the same device or where the remover had seen it.
    A device that was put back to when it did not know the file, and was not at rest since, cannot tell what it removes: what
    it had handed in before is another's to it, and stays beside its own. Nor can it tell what others removed meanwhile.
    What it wrote over a file it hands in anew, beside all versions of that: the file is no more removed or replaced by who knew
    of none but those. And of a file whose two versions were removed at once by who had not seen the other's, the copy stays.
    So do bytes that were written through one name of a file when a step had just taken another name of it out of sight: they
    came after the step had looked, and are kept beside that name.
    """
    for path, seen in tree.items():
        if seen.kind is not Kind.FILE or seen.content == EMPTY or is_local(path):
            continue
        if seen.content in ledger.shared and is_kept(_last(path)):
            continue
        for ender in ledger.enders.get(seen.content, ()):
            keepers = [
                maker for maker in ledger.makers[seen.content] + ledger.restores_of(seen.content) if maker is not ender
            ]
            if (
                ledger.could_tell(ender, seen.content)
                and all(ledger.had_seen(ender, maker, seen.content) for maker in keepers)
                and not _is_moved_otherwise(ledger, ender, seen.content)
                and not _went_along(ledger, ender, seen.content)
                and not _met_a_removal(ledger, ender, path, seen.content)
                and not _was_handed_in_anew(ledger, ender, seen.content)
            ):
                raise Violation(
                    NO_RESURRECTION,
                    f"{path} holds {seen.content.hex()[:6]} on device-{number}, which was removed and kept by nobody",
                    ender,
                    keepers[-1] if keepers else ender,
                )


def check_identity(ledger: Ledger, number: int, tree: Tree, half_told: Mapping[bytes, int] | None = None) -> None:
    """Invariant 9: no content stands at more paths than actions put it at: by writing, by copying, by restoring.

    Excused is a device that was put back to when it did not know a file: it knows it again by its path alone, and takes it
    for a new one where somebody gave it another before all were at rest; and it puts it beside an older version of it, where
    it has yet to hear of this one, or beside the file that had its name at the backup and has another one now. So is a file
    that was renamed after its device had placed it and was killed in that moment, before it ran again (docs/acid.md). And
    so is each move of a file of which its device's watcher told that it went, and lost to where (``half_told``, by what the
    file held): to the device that is a removal, and a new file once it finds it.
    Where a user puts a file in the place of one that he had removed, his device may see nothing but a version of that one,
    as if he had moved it over it: what another made of the file without knowing that stands beside it.
    """
    for content, count in held(tree).items():
        makers = ledger.makers.get(content, [])
        made = sum(maker.made[content] for maker in makers) + len(ledger.restores_of(content))
        made += sum(
            any(maker.epoch == one.epoch and not one.could_tell(maker) for maker in makers[1:])
            for one in ledger.when_forgotten(content)
        )
        made += sum(maker.is_unseen and not maker.made[content] for maker in makers[1:])
        made += sum(_took_a_place(ledger, maker, content) for maker in makers[1:])
        made += (half_told or {}).get(content, 0)
        if count > max(made, 1):
            made += _put_beside(ledger, tree, content)
        if count > max(made, 1):
            paths = [path for path, seen in tree.items() if seen.content == content][:_NAMED]
            raise Violation(
                IDENTITY,
                f"{content.hex()[:6]} stands at {count} paths on device-{number}, and was put at {made}: {paths}",
                *makers[:2],
            )


def _took_a_place(ledger: Ledger, maker: Action, content: bytes) -> bool:
    """Tell whether somebody moved a file to where he had removed another since all were at rest, and a rival moved it, too."""
    emptied = any(
        one.device == maker.device
        and one.epoch == maker.epoch
        and path in one.left
        and one.left[path] is None
        and path in one.before
        and one.before[path].kind is Kind.FILE
        and one.before[path].content in one.gone
        for path in _paths_of(content, [maker])
        for one in ledger.actions[: maker.number]
    )
    return (
        emptied
        and not maker.made[content]
        and any(
            rival.device != maker.device
            and not rival.made[content]
            and not ledger.had_seen(
                max(maker, rival, key=lambda one: one.number), min(maker, rival, key=lambda one: one.number), content
            )
            for rival in ledger.makers[content]
        )
    )


def _put_beside(ledger: Ledger, tree: Tree, content: bytes) -> int:
    """Return how many conflict copies of a content devices may have made that forgot it.

    They did so before all were at rest, or it stands where another file stood at the backup: to them it is that file.
    """
    makers = ledger.makers.get(content, [])
    copies = [path for path, seen in tree.items() if seen.content == content and is_copy(_last(path))]
    unnamed = sum(not any(maker.came.get(path) == content for maker in makers) for path in copies)
    forgot = sum(
        bool(makers) and (one.epoch == makers[0].epoch or _has_a_name_of_another(ledger, makers, content, one))
        for one in ledger.when_forgotten(content)
    )
    return min(unnamed, forgot)


def _has_a_name_of_another(ledger: Ledger, makers: list[Action], content: bytes, forgotten: Forgotten) -> bool:
    """Tell whether a content was put where somebody had renamed another file since a device's backup."""
    return not forgotten.is_known and any(
        action.epoch >= forgotten.since and _is_renamed(action, path)
        for maker in makers
        for path, came in maker.came.items()
        if came == content
        for action in ledger.actions[: maker.number]
    )


def _is_renamed(action: Action, path: str) -> bool:
    """Tell whether somebody took a file's name away, and it has another one."""
    was, after = action.before.get(path), {**action.before, **action.left}
    if was is None or was.kind is not Kind.FILE:
        return False
    now = after[path]
    return (now is None or now.inode is not was.inode) and any(
        seen is not None and seen.inode is was.inode for seen in after.values()
    )


def check_copies(ledger: Ledger, number: int, tree: Tree) -> None:
    """Invariant 5: a file has a conflict's name only if two actions about its name, on two devices, knew nothing of each other.

    Or somebody put it beside a file with another spelling of its name: two such names are one. Excused is what stood on a
    device that was put back to an earlier state and knew nothing of it, and what was written over that there; to what its
    user did before that, it is another device.
    """
    for path, seen in tree.items():
        name = path.rpartition("/")[2]
        if seen.kind is not Kind.FILE or seen.content == EMPTY or not is_copy(name) or is_local(path):
            continue
        makers = ledger.makers.get(seen.content, [])
        versions = _versions(ledger, seen.content)
        if any(not ledger.could_tell(maker, one) for maker in makers for one in versions):
            continue
        if any(ledger.stood_at_a_backup(maker, put) for maker in makers for put in _paths_of(seen.content, [maker])):
            continue
        places = [path, *(put for one in versions for put in _places(ledger, one))]
        if not any(_has_rival(ledger, maker, [*places, *_given_up(ledger, maker, seen.content)]) for maker in makers):
            raise Violation(CONFLICT_EXACTNESS, f"{path} on device-{number} is the copy of no conflict", *makers[:2])


def _last(path: str) -> str:
    return path.rpartition("/")[2]


def _paths_of(content: bytes, makers: list[Action]) -> list[str]:
    """Return all paths at which somebody put a content."""
    return [path for maker in makers for path, came in maker.came.items() if came == content]


def _one(name: str) -> str:
    """Return what all spellings of a name have in common."""
    return unicodedata.normalize("NFC", name)


def _versions(ledger: Ledger, content: bytes) -> list[bytes]:
    """Return a content and all that somebody wrote it over, and so on: that may be one file."""
    done = [content]
    for version in done:
        for maker in ledger.makers.get(version, ()):
            before = (_stood(ledger, maker, path) for path, came in maker.came.items() if came == version)
            done += [one for one in dict.fromkeys(before) if one is not None and one not in done]
    return done


def _stood(ledger: Ledger, maker: Action, path: str) -> bytes | None:
    """Return what had stood at a path before an action, also where a program had just moved it away or emptied it."""
    seen = maker.before.get(path)
    if seen is not None and seen.content != EMPTY:
        return seen.content if seen.kind is Kind.FILE else None
    for action in reversed(ledger.actions[: maker.number]):
        if action.device == maker.device and path in action.came:
            return action.came[path]
        if action.device == maker.device and path in action.before and action.before[path].content != EMPTY:
            return action.before[path].content if action.before[path].kind is Kind.FILE else None
    return None


def _is_moved_otherwise(ledger: Ledger, ender: Action, content: bytes) -> bool:
    """Tell whether somebody moved another version of a file and had not seen that this one was removed."""
    mine = set(_versions(ledger, content))
    for version in ledger.contents:
        movers = [one for one in ledger.makers.get(version, ()) if _has_moved(one, version)]
        movers += [one for one in ledger.actions if _has_taken_a_name(one, version)]
        is_moved = any(one is not ender and not ledger.had_seen(ender, one, version) for one in movers)
        if is_moved and not mine.isdisjoint(_versions(ledger, version)):
            return True
    return False


def _went_along(ledger: Ledger, ender: Action, content: bytes) -> bool:
    """Tell whether somebody moved a directory in which a removed file lay, and whoever removed it had not seen that.

    A directory is known by its own names, whatever stood above it on either disk. He had not seen it where no directory stood
    at its new place; and where it was moved later, by who had had it since before the removal, which two names that were
    exchanged do not tell.
    """
    lay = [path.split("/")[:-1] for path in _lay(ledger, ender, content)]
    above = _all_names(ledger, {part for parts in lay for part in parts})
    directories = {path for path, seen in ender.before.items() if seen.kind is Kind.DIRECTORY}
    return any(
        one.device != ender.device
        and one.epoch == ender.epoch
        and any(
            was.rpartition("/")[2] in above
            and (new not in directories or (one.number > ender.number and ledger.had_directory(one, was, ender)))
            for was, new in one.moved
        )
        for one in ledger.actions
    )


def _lay(ledger: Ledger, ender: Action, content: bytes) -> list[str]:
    """Return where a content lay when its user removed it, or so shortly before that its device cannot have looked since.

    To that device it went from there, with all that went with it.
    """
    since_ns = ender.time_ns - _UNLOOKED_NS
    return [
        path
        for one in ledger.actions[: ender.number + 1]
        if one.device == ender.device and one.epoch == ender.epoch and (one is ender or one.time_ns > since_ns)
        for path, seen in one.before.items()
        if seen.content == content
    ]


def _all_names(ledger: Ledger, names: set[str]) -> set[str]:
    """Return these names of directories, and whatever else somebody called a directory of such a name."""
    found = set(names)
    renames = {(_last(was), _last(new)) for action in ledger.actions for was, new in action.moved}
    while more := {name for pair in renames if not found.isdisjoint(pair) for name in pair} - found:
        found |= more
    return found


def _met_a_removal(ledger: Ledger, ender: Action, path: str, content: bytes) -> bool:
    """Tell whether a conflict's copy was removed, or is all that stands, of a file that two removed, each another version of it.

    The folder holds the file, or that copy, no more when the second removal is found: it may as well be a step of the agent
    that a crash cut short after it took the file away, and that must not take along what holds those bytes now.
    """
    name = _one(wanted(_last(path)))
    lay = [was for was, seen in ender.before.items() if seen.content == content and _one(wanted(_last(was))) == name]
    mine = [was for was in lay if is_copy(_last(path)) or is_copy(_last(was))]
    return any(
        one.device != ender.device
        and one.epoch == ender.epoch
        and _last(its) in one.touched
        and its in one.before
        and its not in one.came
        and one.before[its].kind in (Kind.FILE, Kind.LINK)
        and one.before[its].content != content
        for one in ledger.actions
        for was in mine
        for its in {was, was.removesuffix(_last(was)) + wanted(_last(was))}
    )


def _was_handed_in_anew(ledger: Ledger, ender: Action, content: bytes) -> bool:
    """Tell whether a device that was put back since all were at rest holds a version of a file that it cannot know to be one.

    To all others that is written at once with what they did, and replaces nothing; and who removes a file that another writes
    to removes nothing.
    """
    return any(
        one.epoch == ender.epoch and not one.is_known and content in _versions(ledger, version)[1:]
        for (_, version), one in ledger.forgotten.items()
    )


def _has_moved(action: Action, content: bytes) -> bool:
    """Tell whether a content went from a path to another, also to that of another file."""
    return any(seen.content == content and _last(path) in action.touched for path, seen in action.before.items())


def _has_taken_a_name(action: Action, content: bytes) -> bool:
    """Tell whether somebody took one of its names from a file that has others: who gave it another one has renamed it so."""
    if content in action.gone:
        return False
    stood = [(path, seen.inode) for path, seen in action.before.items() if seen.content == content]
    names = Counter(inode for _, inode in stood)
    return any(names[inode] > 1 and _last(path) in action.touched for path, inode in stood)


def _given_up(ledger: Ledger, maker: Action, content: bytes) -> list[str]:
    """Return the paths that directories had on a device in whose place its user put a file: others may write there as yet."""
    placed = [maker.before.get(path) for path in _paths_of(content, [maker])]
    inodes = [seen.inode for seen in placed if seen is not None and seen.kind is Kind.DIRECTORY]
    return [
        was
        for one in ledger.actions[: maker.number]
        if inodes and one.device == maker.device
        for was, _ in one.moved
        if one.before[was].inode in inodes
    ]


def _has_rival(ledger: Ledger, maker: Action, places: list[str]) -> bool:
    names = {_one(wanted(_last(put))) for put in places}
    above = {_one(wanted(one)) for one in _all_names(ledger, {_last(put.rpartition("/")[0]) for put in places})}
    if any(is_copy(_last(path)) for path in maker.came):
        return True  # somebody gave it that name, or edited what had it
    for rival in ledger.actions:
        if not _touches(rival, names, above):
            continue
        if _is_respelled(rival, names):
            return True
        earlier, later = sorted((rival, maker), key=lambda action: action.number)
        if rival.device == maker.device:
            if ledger.forgot_between(earlier, later):
                return True
            if _is_brought_together(ledger, rival, maker, names) or _comes_back(ledger, rival, maker):
                return True
            continue
        if not _knew(ledger, later, earlier):
            return True
    asked = ledger.asked_meanwhile(maker, _CHANGES)
    return any(not path or _one(wanted(_last(path))) in names for path in asked)


def _is_brought_together(ledger: Ledger, rival: Action, maker: Action, names: set[str]) -> bool:
    """Tell whether files of one name, which one user put into two directories, may be in one, since another moved a directory.

    He gave it the name of the other, where nobody had seen that yet who put the later of them.
    """
    mine, its = (
        {_last(path.rpartition("/")[0]) for path in one.came if _one(wanted(_last(path))) in names}
        for one in (maker, rival)
    )
    pairs = {frozenset((one, other)) for one in mine for other in its if one != other}
    later = max(maker, rival, key=lambda action: action.number)
    return any(
        frozenset((_last(was), _last(new))) in pairs
        for one in ledger.actions
        if one.device != maker.device and one.epoch >= later.epoch
        for was, new in one.moved
    )


def _comes_back(ledger: Ledger, mover: Action, maker: Action) -> bool:
    """Tell whether a directory that one user moved away, before he put files into a new one of that name, may stand there again.

    He moved it into another that others moved into this one, in one move or several: one of all these moves is none.
    """
    if mover.number > maker.number:
        return False
    new_ones = {_last(path.rpartition("/")[0]) for path in maker.came}
    went = [
        (_last(was), set(new.split("/")[:-1]))
        for one in ledger.actions
        if one.device != mover.device and one.epoch == mover.epoch
        for was, new in one.moved
    ]
    for was, new in mover.moved:
        above = set(new.split("/")[:-1])
        while more := {name for one, into in went if one in above for name in into} - above:
            above |= more
        if _last(was) in new_ones and _last(was) in above:
            return True
    return False


def _touches(action: Action, names: set[str], above: set[str]) -> bool:
    """Tell whether an action did something to one of these names in a directory of one of those, or below it.

    To a directory, also what is written below it is an edit.
    """
    for path in {**action.left, **action.came}:
        parts = [_one(wanted(part)) for part in ("", *path.split("/"))]
        if any(part in names and parent in above for parent, part in pairwise(parts)):
            return True
    return False


def _places(ledger: Ledger, content: bytes) -> list[str]:
    """Return all paths at which a content was put, or seen."""
    seen = [path for sights in ledger.sights for path, one in sights if one == content]
    return [*_paths_of(content, ledger.makers.get(content, [])), *seen]


def _is_respelled(action: Action, names: set[str]) -> bool:
    """Tell whether an action put something beside what has another spelling of its name, which is one of these."""
    put = [path for path in action.came if _one(_last(path)) in names and not path.isascii()]
    beside = [*action.came, *(path for path in action.before if _last(path) not in action.touched)]
    return any(path != other and _one(path) == _one(other) for path in put for other in beside)


def _knew(ledger: Ledger, later: Action, earlier: Action) -> bool:
    """Tell whether who did the later action surely had seen all that the earlier one brought; of a removal nobody is sure."""
    if ledger.is_hidden(earlier, later):
        return False
    if earlier.epoch < later.epoch:
        return True
    return bool(earlier.came) and all(ledger.had_seen(later, earlier, content) for content in earlier.came.values())
