"""When to look where: a watcher's events become scans (architecture 5, Observe).

Edits, creations and moves of directories are looked at at once. A name that vanished, or that a file was moved to, is held
for one second: editors save by removing and renaming, and only what stands there afterwards is what the user meant. Until
then the name is *unsettled*: a scan that comes by for another reason leaves it out.

What went together with the directory that it stood in is no half of a save: nobody saves into a directory that is gone. It
waits only until the removal has come to rest.

So is a new file with a name that programs give to the half of a save, or of a download: mostly it is gone by then.

Rule 1: pure; times are seconds of a clock that never goes back.
Rule 2: hints decide when to look, never what is there. Losing all of them costs time, not truth.
Rule 3: names are released together, so that the two ends of a move, or of a chain of moves, are judged by one scan.
Rule 4: bounded: too many hints become one full scan.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from typing import Final, NamedTuple

import msgspec

from protocol.effects import DiskEvent, DiskEventKind

DEBOUNCE_S: Final = 0.05
"""What "at once" means: events of one act come together."""
HOLD_S: Final = 1.0
GONE_S: Final = 0.25
"""How long a removed directory's names are held after the last removal, if nothing takes its place."""
HOLD_S_MAX: Final = 10.0
"""Where names never stop moving: from then on each is released after its own second."""
GAP_S_MAX: Final = 2.0
"""A directory that changes all the time is looked at ever less often, down to this."""
SPOTS_MAX: Final = 1_000
HELD_MAX: Final = 10_000
_RECENT_MAX: Final = 1_000
_TAKES_A_PLACE: Final = frozenset({DiskEventKind.CREATED, DiskEventKind.MOVED_TO, DiskEventKind.APPEARED})


_TEMPORARY: Final = re.compile(
    r".*\.(?:te?mp|part|partial|crdownload|opdownload|download|filepart)"  # of many programs; browsers, transfers
    r"|.*___jb_(?:tmp|old)___"  # JetBrains
    r"|.*~"  # backups of Vim, Emacs and others; some live no longer than a save
    r"|\..+\.[0-9A-Za-z]{6}"  # rsync, and mkstemp beside the file
    r"|.+\.(?=[0-9A-Za-z]*[A-Z])(?=[0-9A-Za-z]*[a-z])[0-9A-Za-z]{6}"  # QSaveFile: KDE
    r"|[0-9A-F]{8}"  # Excel
    r"|sed[0-9A-Za-z]{6}"
    r"|4913",  # Vim tries whether it may write here
    re.DOTALL,
)


def is_temporary_name(name: str) -> bool:
    """Tell whether programs give such names to what they rename or remove in a moment. It costs a second, nothing else."""
    return _TEMPORARY.fullmatch(name) is not None


class Spot(NamedTuple):
    """Where to look."""

    path: str
    recursive: bool = False


class Look(msgspec.Struct, frozen=True):
    """One scan to make."""

    full: bool
    """Everywhere; ``spots`` is empty then."""
    spots: tuple[Spot, ...]
    unsettled: frozenset[str]
    """Paths that are not to be judged yet."""
    moved: frozenset[str] = frozenset()
    """Where something stood that moved to another of the spots: if this scan does not find it there, it has moved on."""


class _Dirty(NamedTuple):
    due_s: float
    recursive: bool
    gap_s: float


class Hints:
    """Collects events and tells when which directories are to be scanned."""

    def __init__(self) -> None:
        self._dirty: dict[str, _Dirty] = {}
        self._recent: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._held: dict[str, float] = {}
        self._gone: dict[str, float] = {}
        """As ``_held``: names that went with the directory that they stood in, and that directory."""
        self._held_first_s = 0.0
        self._held_last_s = 0.0
        self._left: set[str] = set()
        """Of ``_held``: those from which a file went to another name."""
        self._arrived: dict[str, str] = {}
        """By that other name, for as long as it was not removed there: the one that it went from."""
        self._released: set[str] = set()
        """Of ``_left``: those to be looked at now."""
        self._moving: dict[int, str] = {}
        self._moved: list[tuple[str, str]] = []
        """Directories that moved, from and to, until both ends are looked at."""
        self._full_s: float | None = None

    def handle(self, event: DiskEvent, now_s: float) -> None:
        """Take note of an event."""
        path = f"{event.directory}/{event.name}" if event.directory and event.name else event.directory or event.name
        if path in self._gone and event.kind in _TAKES_A_PLACE:
            self._held |= self._gone  # a save of a whole directory, after all
            self._gone.clear()
        match event.kind, event.is_directory:
            case DiskEventKind.CREATED, False if is_temporary_name(event.name):
                self._hold(path, now_s)
            case ((DiskEventKind.CREATED | DiskEventKind.MODIFIED), _):
                self._mark(event.directory, now_s)
            case DiskEventKind.APPEARED, _:
                self._mark(path, now_s, recursive=True)
            case DiskEventKind.MOVED_FROM, _:
                self._hold(path, now_s)
                if len(self._moving) < HELD_MAX:
                    self._moving[event.cookie] = path
            case DiskEventKind.MOVED_TO, True:
                self._move_directory(self._moving.pop(event.cookie, None), path, now_s)
                self._mark(event.directory, now_s)
            case DiskEventKind.MOVED_TO, _:
                self._hold(path, now_s)
                old = self._moving.pop(event.cookie, None)
                if old in self._held:
                    self._left.add(old)
                    self._arrived[path] = old
            case DiskEventKind.DELETED, _:
                self._hold(path, now_s)
                self._left.discard(self._arrived.pop(path, ""))
                if event.is_directory:
                    self._go(path)
            case _:  # lost events, lost watches, a lost root
                self._mark_all(now_s + DEBOUNCE_S)

    def _move_directory(self, old: str | None, new: str, now_s: float) -> None:
        self._mark(new, now_s, recursive=True)
        if old is None:
            return
        self._held.pop(old, None)
        self._mark(_parent(old), now_s)
        below = f"{old}/"
        for held in (self._held, self._gone):
            for path in [path for path in held if path.startswith(below)]:
                held[new + path[len(old) :]] = held.pop(path)
        self._left = {_after(path, old, new) for path in self._left}
        self._arrived = {_after(one, old, new): _after(other, old, new) for one, other in self._arrived.items()}
        for path in [path for path in self._dirty if path.startswith(below)]:
            self._dirty[new + path[len(old) :]] = self._dirty.pop(path)
        self._moved = [(_after(one, old, new), _after(other, old, new)) for one, other in self._moved]
        self._moved.append((old, new))
        if len(self._moved) > SPOTS_MAX:
            self._mark_all(now_s + DEBOUNCE_S)

    def _mark(self, path: str, now_s: float, *, recursive: bool = False) -> None:
        if self._full_s is not None and self._full_s <= now_s + DEBOUNCE_S:
            return
        known = self._dirty.get(path)
        if known is not None:
            self._dirty[path] = known._replace(recursive=known.recursive or recursive)
            return
        due_s, gap_s = now_s + DEBOUNCE_S, DEBOUNCE_S
        if path in self._recent:
            last_s, last_gap_s = self._recent[path]
            if now_s - last_s < 2 * last_gap_s:
                gap_s = min(2 * last_gap_s, GAP_S_MAX)
                due_s = max(due_s, last_s + gap_s)
        self._dirty[path] = _Dirty(due_s, recursive, gap_s)
        if len(self._dirty) > SPOTS_MAX:
            self._mark_all(now_s + DEBOUNCE_S)

    def _mark_all(self, due_s: float) -> None:
        self._full_s = due_s if self._full_s is None else min(self._full_s, due_s)
        self._dirty.clear()
        self._moved.clear()

    def _go(self, directory: str) -> None:
        below = f"{directory}/"
        for path in [path for path in self._held if path == directory or path.startswith(below)]:
            self._gone[path] = self._held.pop(path)

    def _hold(self, path: str, now_s: float) -> None:
        if not self._held and not self._gone:
            self._held_first_s = now_s
        self._held_last_s = now_s
        self._held.pop(path, None)  # the oldest stands first
        self._held[path] = now_s + HOLD_S
        if len(self._held) + len(self._gone) > HELD_MAX:
            self._held.clear()
            self._gone.clear()
            self._left.clear()
            self._arrived.clear()
            self._moving.clear()
            self._full_s = None
            self._mark_all(now_s + HOLD_S)

    def due(self, now_s: float) -> Look | None:
        """Return the scan to make now, if any, and forget its hints; events that come later ask for another one."""
        self._released.clear()
        self._release(now_s)
        if self._full_s is not None and self._full_s <= now_s:
            self._full_s = None
            self._dirty.clear()
            self._moved.clear()
            return Look(full=True, spots=(), unsettled=self._unsettled)
        ready = {path: dirty for path, dirty in self._dirty.items() if dirty.due_s <= now_s}
        if not ready:
            return None
        moved = self._join_ends(ready, now_s)
        for path, dirty in ready.items():
            self._dirty.pop(path, None)
            self._recent[path] = (now_s, dirty.gap_s)
            self._recent.move_to_end(path)
        while len(self._recent) > _RECENT_MAX:
            self._recent.popitem(last=False)
        spots = tuple(Spot(path, dirty.recursive) for path, dirty in sorted(ready.items()))
        return Look(full=False, spots=spots, unsettled=self._unsettled, moved=frozenset(moved | self._released))

    def _join_ends(self, ready: dict[str, _Dirty], now_s: float) -> set[str]:
        """Look at both ends of a directory's move at once, also through a chain of moves: one alone is a removal.

        Returns:
            The old ends.
        """
        names: set[str] = set()
        olds: set[str] = set()
        while True:
            seen = [
                (old, new)
                for old, new in self._moved
                if old in names or any(_is_covered(end, ready) for end in (_parent(old), _parent(new), new))
            ]
            if not seen:
                return olds
            for old, new in seen:
                self._moved.remove((old, new))
                names |= {old, new}
                olds.add(old)
                for end, recursive in ((_parent(old), False), (_parent(new), False), (new, True)):
                    known = ready.get(end) or self._dirty.get(end) or _Dirty(now_s, recursive, DEBOUNCE_S)
                    ready[end] = known._replace(recursive=known.recursive or recursive)

    def untold(self, *, moved: bool = False) -> frozenset[str]:
        """Return the names that a scan may miss without their being gone: what became of them is still to be looked at.

        A scan asks this of what it has missed, once all was told that happened before: it may have come between a move and
        the news of it, and have seen neither end.

        Args:
            moved: Only those that surely stand elsewhere now, since the scan is to decide about all others.
        """
        olds = (old for old, _ in self._moved)
        return frozenset((*self._left, *olds) if moved else (*self._held, *self._gone, *olds))

    @property
    def _unsettled(self) -> frozenset[str]:
        return frozenset((*self._held, *self._gone))

    def _release(self, now_s: float) -> None:
        if not (self._held or self._gone) or now_s < self._release_s():
            return
        at_rest = now_s >= self._held_last_s + self._rest_s
        held = {**self._held, **self._gone}
        for path in [path for path, until_s in held.items() if at_rest or until_s <= now_s]:
            self._held.pop(path, None)
            self._gone.pop(path, None)
            self._arrived.pop(path, None)
            if path in self._left:
                self._left.discard(path)
                self._released.add(path)
            parent = _parent(path)
            recursive = parent in self._dirty and self._dirty[parent].recursive
            self._dirty[parent] = _Dirty(now_s, recursive, DEBOUNCE_S)
        if not self._held and not self._gone:
            self._moving.clear()
        if len(self._dirty) > SPOTS_MAX:
            self._mark_all(now_s)

    @property
    def _rest_s(self) -> float:
        """How long nothing more may vanish or move until all are released."""
        return HOLD_S if self._held else GONE_S

    def _release_s(self) -> float:
        oldest_s = min(next(iter(held.values())) for held in (self._held, self._gone) if held)
        return min(self._held_last_s + self._rest_s, max(self._held_first_s + HOLD_S_MAX, oldest_s))

    def next_deadline(self) -> float | None:
        """Return when :meth:`due` should be asked next, or None while there is nothing to wait for."""
        times = [dirty.due_s for dirty in self._dirty.values()]
        if self._held or self._gone:
            times.append(self._release_s())
        if self._full_s is not None:
            times.append(self._full_s)
        return min(times, default=None)

    @property
    def wants_everything(self) -> bool:
        """Whether a full scan is to be made: until then it is not known any more what moved."""
        return self._full_s is not None

    def look_everywhere(self, now_s: float) -> None:
        """Ask for a full scan, since something happened of which no event told."""
        self._mark_all(now_s + DEBOUNCE_S)

    def clear(self) -> None:
        """Forget all hints, since a full scan begins that sees every name and decides at once."""
        self._dirty.clear()
        self._held.clear()
        self._gone.clear()
        self._left.clear()
        self._arrived.clear()
        self._moving.clear()
        self._moved.clear()
        self._full_s = None


class Settled:
    """Which names a scan may take as gone: all but those of which the watcher has more, or should have, to tell."""

    def __init__(self, heard: Callable[[str], bool] | None) -> None:
        """``heard``: tells whether the watcher told of a name; None: that does not matter."""
        self._heard = heard
        self.untold: frozenset[str] = frozenset()
        """See :meth:`Hints.untold`."""
        self.waits = False
        """Whether all is looked at in a moment: what was told before is forgotten then, and a part decides nothing."""
        self.unheard: set[str] = set()
        """What was asked for and can be told only by a look at everything."""

    def __contains__(self, path: object) -> bool:
        if self._heard is not None and isinstance(path, str) and (self.waits or not self._heard(path)):
            self.unheard.add(path)
            return False
        # What is told of a name in a directory that went elsewhere is told under where that is now.
        return isinstance(path, str) and self.untold.isdisjoint((path, *_parents(path)))


def _after(path: str, old: str, new: str) -> str:
    """Return where a path leads after a directory above it has moved."""
    return new + path[len(old) :] if path.startswith(f"{old}/") else path


def _is_covered(path: str, spots: Mapping[str, _Dirty]) -> bool:
    """Tell whether a scan of these spots lists a directory."""
    if path in spots:
        return True
    while path:
        path = _parent(path)
        if path in spots and spots[path].recursive:
            return True
    return False


def _parents(path: str) -> Iterator[str]:
    """Yield the directories above a path but for the root, the nearest first."""
    while path := _parent(path):
        yield path


def _parent(path: str) -> str:
    return path.rpartition("/")[0]
