"""The brake on mass changes: which of the changes that a look found wait until a person has said that they are meant.

A disk that was emptied, restored or encrypted behind our back looks like a user who removed or rewrote everything. What
the watcher saw happen under a running agent is somebody's act and passes; what a look merely found, and is much, waits.

Rule 1: pure. Who looked tells what was found; whoever asks carries out what is decided here.
Rule 2: only paths with nothing in their place now count as removed; what moved is where it moved to.
Rule 3: what waits is neither signed nor brought back, and everything else goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from enum import IntEnum
from typing import Final

import msgspec

from peer.core.operations import Act, Create, Edit, Remove
from peer.core.tree import ItemId

FILES_MAX: Final = 1_000
"""More files than this at once are a mass, however large the folder is."""
FOLDER_FILES_MIN: Final = 8
"""In a folder of at least so many files, more than half of them are a mass."""


class Waiting(IntEnum):
    """For what an item waits."""

    REMOVAL = 1
    """It is gone from this disk, and that is not said to anybody yet; nor does it come back."""
    REWRITE = 2
    """Its new bytes are not sent yet."""
    RETURN = 3
    """Its new bytes are on their way aside, so that the old ones can come back: neither is to be sent."""


Held = Callable[[ItemId], Waiting | None]
"""For what an item waits, if it does."""


class Found(msgspec.Struct, frozen=True):
    """A change of a synced item that a look found."""

    id: ItemId
    is_file: bool
    """A file or a link: what is counted. Directories go with what stood in them."""
    was_seen: bool
    """Whether the watcher saw it happen."""


def is_mass(files: int, of: int) -> bool:
    """Tell whether a change of so many files is one that a folder of so many files asks about first."""
    return files > FILES_MAX or (of >= FOLDER_FILES_MIN and 2 * files > of)


def files_that_matter(files: int) -> int:
    """Return up to how many files of a folder :func:`is_mass` tells apart, for who would rather not count all of them."""
    return max(2 * files, FOLDER_FILES_MIN)


def waiting_removals(found: Iterable[Found], *, held: int, of: int) -> Collection[ItemId]:
    """Return the removals that must wait.

    Args:
        found: What is gone, with nothing in its place.
        held: How many files wait as removed already. What is found gone beside them waits with them: a disk may go
            piece by piece.
        of: How many files the folder held.
    """
    unseen = [one for one in found if not one.was_seen]
    files = sum(one.is_file for one in unseen)
    if not files or not (held or is_mass(files, of)):
        return ()
    return [one.id for one in unseen]


def waiting_rewrites(found: Iterable[Found], *, of: int) -> Collection[ItemId]:
    """Return the rewrites that must wait; a few that are found while others wait go on.

    Args:
        found: What holds other bytes than were synced.
        of: How many files the folder holds.
    """
    unseen = [one.id for one in found if not one.was_seen and one.is_file]
    return unseen if is_mass(len(unseen), of) else ()


def is_held(act: Act, held: Held) -> bool:
    """Tell whether an act that was planned before waits by now."""
    if isinstance(act, Remove):
        return any(held(item.id) in {Waiting.REMOVAL, Waiting.RETURN} for item in (act.subtree or (act.base,)))
    if isinstance(act, Create):
        return held(act.item.id) is Waiting.RETURN
    return isinstance(act, Edit) and held(act.base.id) in {Waiting.REWRITE, Waiting.RETURN}
