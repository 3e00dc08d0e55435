"""What steps are about to have stand under users' names, and which of it stands there after a crash.

Rule 1: what stands is told by its inode or by its bytes, never by its name alone; a directory by its name.
Rule 2: in doubt nothing came true: then the next scan takes what is there for the user's, and nothing is removed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from peer.core.observations import Fingerprint
from peer.core.operations import Place, Rename, Replace, SetAttributes, Step
from peer.core.tree import Content, Item, ItemId
from peer.disk.attributes import set_attributes
from peer.disk.journal import Intent, Standing
from peer.disk.outcomes import StopStep
from peer.disk.places import Places
from peer.disk.roots import Root
from peer.disk.swaps import is_expected, look
from peer.disk.walk import is_gone, join, kind_of, opened, split
from protocol.effects import Handle, Stat
from protocol.entries import Kind

_OWNER_EXECUTES = 0o100


class Intentions:
    """The intents of one group of steps, made before any of them is carried out."""

    def __init__(self, places: Places, as_user_knows: Callable[[str], str]) -> None:
        """Begin.

        Args:
            places: Where things are before the group.
            as_user_knows: Gives the path at which something stands after a crash, where it is hidden for a moment.
        """
        self._places = places
        self._known = as_user_knows
        self._made: dict[ItemId, str] = {}
        """Paths of directories that this group itself makes."""
        self.intents: list[Intent] = []

    def add(self, step: Step, mark: Fingerprint | None, aside: str = "") -> None:
        """Take a step that is ready to be carried out.

        Args:
            step: Of the group, after those before it.
            mark: How the file that will stand there looks before, if that is known.
            aside: Where it will lie until a later group gives it its name.
        """
        try:
            intent = self._intent(step, mark, aside)
        except StopStep:
            return  # it leads nowhere, and will do nothing
        if intent is not None:
            self.intents.append(intent)
            if intent.item.is_directory:
                self._made[intent.item.id] = intent.path

    def _intent(self, step: Step, mark: Fingerprint | None, aside: str) -> Intent | None:
        match step:
            case Place(item):
                return Intent(item, self._new_path(item), mark)
            case Replace(expected, item) if mark is not None:
                return Intent(item, self._known(self._places.path(expected)), mark, expected)
            case SetAttributes(expected, item):
                return Intent(item, self._known(self._places.path(expected)), None, expected)
            case Rename(expected, item) if mark is not None:
                old_path = aside or self._known(self._places.path(expected))
                return Intent(item, self._new_path(item), mark, expected, old_path)
            case _:
                return None

    def _new_path(self, item: Item) -> str:
        made = self._made.get(item.parent)
        return join(self._known(self._places.directory(item.parent)) if made is None else made, item.name)


def standing(root: Root, intents: Sequence[Intent]) -> tuple[list[Standing], list[Intent]]:
    """Return the intents that came true, in order, and those of which the disk does not tell now.

    One that was cut off half-way is finished.
    """
    found: list[Standing] = []
    unsure: list[Intent] = []
    for intent in intents:
        directory, name = split(intent.path)
        try:
            with opened(root.fs, root.handle, directory) as parent:
                seen = _stands(root, parent, name, intent)
        except StopStep:
            continue
        except OSError as error:
            if not is_gone(error):
                unsure.append(intent)
            continue
        if seen is not None:
            found.append(Standing(intent, Fingerprint(*seen).doubted()))
    return found, unsure


def _stands(root: Root, parent: Handle, name: str, intent: Intent) -> Stat | Fingerprint | None:
    found = look(root.fs, parent, name)
    if found is None or kind_of(found.mode) is not intent.item.content.kind:
        return None
    mark = intent.mark
    if intent.old_path:
        is_there = mark is not None and found.inode == mark.inode and not _is_at(root, intent.old_path, mark)
        return found if is_there else None
    if mark is None and intent.base is not None:
        return _with_attributes(root, parent, name, found, intent.base.content, intent.item.content)
    if mark is not None and found.inode == mark.inode and intent.item.content.kind is Kind.FILE:
        return mark._replace(device=found.device)  # what a user wrote to it since, the next scan sees
    return found if is_expected(root.fs, parent, name, found, intent.item.content, None) else None


def _is_at(root: Root, path: str, mark: Fingerprint) -> bool:
    directory, name = split(path)
    try:
        with opened(root.fs, root.handle, directory) as parent:
            found = look(root.fs, parent, name)
    except OSError as error:
        if is_gone(error):
            return False
        raise
    return found is not None and found.inode == mark.inode


def _with_attributes(root: Root, parent: Handle, name: str, found: Stat, old: Content, new: Content) -> Stat | None:
    """Return how a file with new attributes looks; None if it has not got any of them, or others."""
    is_executable = bool(found.mode & _OWNER_EXECUTES)
    time, mode = (found.mtime_ns == new.mtime_ns, is_executable == new.executable)
    if time and mode:
        return found if is_expected(root.fs, parent, name, found, new, None) else None
    began = (time or found.mtime_ns == old.mtime_ns) and (mode or is_executable == old.executable)
    if not began or (found.mtime_ns == old.mtime_ns and is_executable == old.executable):
        return None
    set_attributes(root.fs, parent, name, old, new, None)
    return root.fs.lstat(parent, name)
