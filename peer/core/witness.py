"""What the watcher saw happen, by name, until a scan asks: whether a change was somebody's act under a running agent.

Rule 1: pure. Events go in, in their order; times play no part.
Rule 2: a witness that forgot, or never heard, says no: then the change counts as found by a scan.
Rule 3: bounded: what comes when :data:`NAMES_MAX` names are kept is not remembered.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from protocol.effects import DiskEvent, DiskEventKind

NAMES_MAX: Final = 100_000


class _Names:
    """Names by directory, each with the turn in which it was noted."""

    def __init__(self) -> None:
        self._below: dict[str, dict[str, int]] = {}
        self.count = 0

    def add(self, directory: str, name: str, turn: int) -> None:
        names = self._below.setdefault(directory, {})
        self.count += name not in names
        names[name] = turn

    def drop(self, directory: str, name: str) -> None:
        names = self._below.get(directory)
        if names is not None and names.pop(name, None) is not None:
            self.count -= 1
            if not names:
                del self._below[directory]

    def drop_below(self, directory: str) -> None:
        self.count -= len(self._below.pop(directory, ()))

    def drop_before(self, turn: int, directories: Collection[str] | None, but: Collection[str]) -> None:
        for directory in list(self._below) if directories is None else directories:
            for name, at in list(self._below.get(directory, {}).items()):
                if at < turn and (f"{directory}/{name}" if directory else name) not in but:
                    self.drop(directory, name)

    def holds(self, path: str) -> bool:
        """Tell whether a path, or a directory above it, is among them."""
        while path:
            directory, _, name = path.rpartition("/")
            if name in self._below.get(directory, ()):
                return True
            path = directory
        return False


class Witness:
    """Remembers which names vanished and which were written to."""

    def __init__(self) -> None:
        self._gone = _Names()
        self._written = _Names()
        self._adrift = _Names()
        """Of those that vanished: directories of which nothing was told of where they went."""
        self._moving: dict[int, tuple[str, str]] = {}
        """By the number of a move: what of ``_adrift`` it is about."""
        self._turn = 0

    def handle(self, event: DiskEvent) -> None:
        """Take note of an event."""
        match event.kind:
            case DiskEventKind.DELETED | DiskEventKind.MOVED_FROM:
                if event.is_directory:  # what vanished in it before went with it
                    path = f"{event.directory}/{event.name}" if event.directory else event.name
                    self._gone.drop_below(path)
                    self._written.drop_below(path)
                self._written.drop(event.directory, event.name)
                self._note(self._gone, event)
                self._note_move(event)
            case DiskEventKind.CREATED | DiskEventKind.MOVED_TO | DiskEventKind.MODIFIED:
                if event.is_directory and event.kind is DiskEventKind.MODIFIED:
                    return  # its attributes: nothing in it was written to
                self._gone.drop(event.directory, event.name)
                self._note(self._written, event)
                if event.kind is DiskEventKind.MOVED_TO and event.cookie in self._moving:
                    self._adrift.drop(*self._moving.pop(event.cookie))
            case DiskEventKind.ROOT_GONE:
                self.forget()
            case _:
                pass

    def _note(self, names: _Names, event: DiskEvent) -> None:
        if event.name and self._gone.count + self._written.count < NAMES_MAX:
            names.add(event.directory, event.name, self._turn)

    def _note_move(self, event: DiskEvent) -> None:
        self._adrift.drop(event.directory, event.name)
        if event.kind is DiskEventKind.MOVED_FROM and event.is_directory and len(self._moving) < NAMES_MAX:
            self._note(self._adrift, event)
            self._moving[event.cookie] = event.directory, event.name

    def saw_go(self, path: str) -> bool:
        """Tell whether the watcher saw this name vanish, or a directory above it."""
        return self._gone.holds(path)

    def saw_written(self, path: str) -> bool:
        """Tell whether the watcher saw something written at this name, or put there, or a directory above it put there."""
        return self._written.holds(path)

    def heard_of(self, path: str) -> bool:
        """Tell whether the watcher told of anything that happened to this name, or to a directory above it.

        Half of a directory's move is nothing: it may be where nobody watches yet, and a tree is worth a look for it.
        """
        return (self._gone.holds(path) or self._written.holds(path)) and not self._adrift.holds(path)

    def forget(self) -> None:
        """Forget everything: what happened before says nothing about what stands at the root now."""
        self._gone, self._written, self._adrift = _Names(), _Names(), _Names()
        self._moving.clear()

    def turn(self) -> int:
        """Begin a scan; return what :meth:`settle` takes once its outcome is recorded."""
        self._turn += 1
        return self._turn

    def settle(self, turn: int, directories: Collection[str] | None = None, but: Collection[str] = ()) -> None:
        """Forget what was noted before a scan that has judged it.

        Args:
            turn: Of the scan.
            directories: Those that it listed; None: all.
            but: Paths that it could not judge yet.
        """
        self._gone.drop_before(turn, directories, but)
        self._written.drop_before(turn, directories, but)
        self._adrift.drop_before(turn, directories, but)
        if not self._adrift.count:
            self._moving.clear()
