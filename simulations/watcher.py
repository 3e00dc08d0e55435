"""A watcher on a simulated disk: what people and the engine do there becomes hints, late, out of order, or never.

Rule 1: it keeps the promises of :class:`protocol.effects.Watcher` that no weather may break: the root appears first, a root
    that went is told, and after an overflow everything appears anew.
Rule 2: all else is weather, drawn from a seed: scans must find what no hint told.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter, deque
from collections.abc import Callable
from random import Random
from typing import Final, NamedTuple

from peer.disk.walk import CONTROL, join
from protocol import limits
from protocol.effects import DiskEvent, DiskEventKind, IsIgnored
from simulations.disk import Happening, SimDisk
from simulations.inodes import Directory, File, Inode

WATCHES_MAX: Final = 1 << 30
QUEUE_MAX: Final = 16_384
ALL: Final = "all that it has not told"
SOME: Final = "an event"
"""What a watcher may lose."""
"""What Linux keeps by default."""
_KEPT: Final = frozenset(
    {DiskEventKind.OVERFLOW, DiskEventKind.DEGRADED, DiskEventKind.ROOT_GONE, DiskEventKind.APPEARED}
)


class Weather(NamedTuple):
    """How badly a watcher does; as made without arguments, as well as inotify."""

    late_s: float = 0.0
    """The longest time from an event until it is told."""
    lost: float = 0.0
    """How many of all events are never told, from 0 to 1."""
    repeated: float = 0.0
    """How many are told twice."""
    merged: float = 0.0
    """How many of those after another event of their directory come as one hint to look at that directory."""
    mixes_directories: bool = False
    """Whether events of different directories change their order."""
    overflows: float = 0.0
    """How many of all batches are lost with a notice."""
    queue_max: int = QUEUE_MAX
    watches_max: int = WATCHES_MAX
    """So many directories can be watched."""


FINE: Final = Weather()


class SimWatcher:
    """Watches one root.

    Args:
        disk: The machine's main disk.
        path: The root.
        is_ignored: Directories to leave out, by path from the root; ``.kinfolder`` always is.
        chance: What the weather is drawn from.
        weather: How badly it does.
        half_told: Counts the contents of files of which it told that they went, and lost to which other directory.
    """

    def __init__(
        self,
        disk: SimDisk,
        path: str,
        *,
        chance: Random,
        weather: Weather = FINE,
        is_ignored: IsIgnored | None = None,
        half_told: Counter[bytes] | None = None,
        on_loss: Callable[[str], None] | None = None,
    ) -> None:
        self._disk = disk
        self._on_loss = on_loss
        self._path = path
        self._is_ignored = is_ignored
        self._chance = chance
        self._weather = weather
        self._half_told = Counter[bytes]() if half_told is None else half_told
        self._moving: dict[int, bytes] = {}
        """By the number of its move: what a file held that came to another name, until that is told or lost."""
        self._went: dict[int, str] = {}
        """By the number of a move of which it was told that something went: from which directory."""
        self._root: Directory | None = None
        self._begins = True
        self._is_gone = self._is_degraded = self._is_closed = False
        self._watched: set[Directory] = set()
        """Asked, never gone through: its order is that of addresses."""
        self._to_watch: deque[Directory] = deque()
        self._ready: deque[DiskEvent] = deque()
        self._woken: asyncio.Future[None] | None = None
        self._idle: list[asyncio.Future[None]] = []
        """Who waits for it to have told everything."""
        self._is_waiting = False
        self._on: SimDisk | None = None
        """Whose changes it hears of: the disk that holds the root."""

    @property
    def is_gone(self) -> bool:
        """Whether the root was not there when it was to be watched: this watcher is over, whatever stands there since."""
        return self._is_gone

    @property
    def is_closed(self) -> bool:
        """Whether nobody wants to hear of anything any more."""
        return self._is_closed

    @property
    def watches(self) -> int:
        """How many directories are watched, gone ones included."""
        return len(self._watched)

    async def get(self) -> tuple[DiskEvent, ...]:
        """Wait until something happened and return what the weather lets through of it."""
        while True:
            if self._begins:
                self._begin()
            self._follow()
            if self._ready:
                events = self._told()
                if events:
                    await asyncio.sleep(0)
                    return events
                continue
            await self._wait()

    async def _wait(self) -> None:
        self._is_waiting = True
        for one in self._idle:
            if not one.done():
                one.set_result(None)
        self._idle.clear()
        self._woken = asyncio.get_running_loop().create_future()
        try:
            await self._woken
        finally:
            self._is_waiting = False
            self._woken = None
        if self._weather.late_s:
            await asyncio.sleep(self._chance.random() * self._weather.late_s)

    async def caught_up(self, timeout_s: float) -> None:
        """Wait until all that has happened up to now was returned by :meth:`get`, or the time is over."""
        if self._is_waiting and self._woken is not None and not self._woken.done():
            return
        if self._is_closed or self._is_gone or self._root is None:
            return
        idle = asyncio.get_running_loop().create_future()
        self._idle.append(idle)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await idle

    def close(self) -> None:
        """Stop; a waiting :meth:`get` is cancelled by its caller."""
        self._is_closed = True
        self._forget()
        self._begins = False

    # --- What is watched

    def _forget(self) -> None:
        if self._on is not None:
            self._on.observers.remove(self._happened)
            self._on = None
        self._root = None
        self._watched.clear()
        self._to_watch.clear()

    def _begin(self) -> None:
        self._begins = False
        found = self._disk.at(self._path)
        if not isinstance(found, Directory):
            self._is_gone = True
            self._ready.append(DiskEvent(DiskEventKind.ROOT_GONE))
            return
        self._root, self._on = found, found.disk
        found.disk.observers.append(self._happened)
        self._watch(found, "")
        self._ready.append(DiskEvent(DiskEventKind.APPEARED, is_directory=True))

    def _watch(self, directory: Directory, path: str) -> None:
        """Watch a directory and all below it."""
        left = [(directory, path)]
        while left:
            here, at = left.pop()
            if at and self._leaves_out(at):
                continue
            if len(self._watched) >= self._weather.watches_max and here not in self._watched:
                self._degrade()
                return
            self._watched.add(here)
            left += [(inode, join(at, name)) for name, inode in here.entries.values() if isinstance(inode, Directory)]

    def _unwatch(self, directory: Directory) -> None:
        """Watch a directory that came to be left out no more, and nothing below it."""
        left = [directory]
        while left:
            here = left.pop()
            self._watched.discard(here)
            left += [inode for _, inode in here.entries.values() if isinstance(inode, Directory)]

    def _leaves_out(self, path: str) -> bool:
        return (
            path == CONTROL
            or path.count("/") >= limits.DEPTH_MAX
            or (self._is_ignored is not None and self._is_ignored(path, True))
        )

    def _degrade(self) -> None:
        if not self._is_degraded:
            self._is_degraded = True
            self._ready.append(DiskEvent(DiskEventKind.DEGRADED))

    def _follow(self) -> None:
        """Watch what is new, and say that it appeared."""
        while self._to_watch:
            directory = self._to_watch.popleft()
            path = self._path_of(directory)
            if path is None or not path:
                continue
            self._watch(directory, path)
            if directory in self._watched:
                self._ready.append(DiskEvent(DiskEventKind.APPEARED, path, is_directory=True))

    def _path_of(self, inode: Inode) -> str | None:
        """Return the path from the root; None for what is not below it any more."""
        parts: list[str] = []
        here: Inode | None = inode
        while here is not self._root:
            if here is None:
                return None
            parts.append(here.name)
            here = here.parent
        return "/".join(reversed(parts))

    # --- What happens

    def _happened(self, happening: Happening) -> None:
        kind, directory, name, inode, cookie = happening
        if inode is self._root and kind in {DiskEventKind.DELETED, DiskEventKind.MOVED_FROM}:
            self._forget()
            self._begins = True
            self._queue(DiskEvent(DiskEventKind.ROOT_GONE))
            return
        if directory not in self._watched or (directory is self._root and name == CONTROL):
            return
        above = self._path_of(directory)
        if above is None:
            return
        is_directory = isinstance(inode, Directory)
        if self._is_ignored is not None and self._is_ignored(join(above, name), is_directory):
            if isinstance(inode, Directory):
                self._unwatch(inode)
            return
        if self._weather.lost and kind is DiskEventKind.MOVED_TO and isinstance(inode, File):
            self._moving[cookie] = inode.digest()
        self._queue(DiskEvent(kind, above, name, is_directory, cookie))
        if isinstance(inode, Directory):
            if kind is DiskEventKind.DELETED:
                self._watched.discard(inode)
            elif kind in {DiskEventKind.CREATED, DiskEventKind.MOVED_TO} and inode not in self._watched:
                self._to_watch.append(inode)

    def _queue(self, event: DiskEvent) -> None:
        if len(self._ready) >= self._weather.queue_max:
            self._overflow()
        elif not self._ready or self._ready[-1] != event:
            self._ready.append(event)
        if self._woken is not None and not self._woken.done():
            self._woken.set_result(None)

    def _overflow(self) -> None:
        """Lose all events, and with them the knowledge of what is watched."""
        if self._on_loss is not None:
            self._on_loss(ALL)
        self._forget()
        self._begins = True
        self._ready.clear()
        self._ready.append(DiskEvent(DiskEventKind.OVERFLOW))

    # --- Weather

    def _told(self) -> tuple[DiskEvent, ...]:
        """Return what is ready, as the weather leaves it."""
        weather, draw = self._weather, self._chance.random
        if weather.overflows and self._root is not None and draw() < weather.overflows:
            self._overflow()
        events = list(self._ready)
        self._ready.clear()
        if weather.lost or weather.repeated or weather.merged:
            events = self._mangled(events)
        return tuple(self._mixed(events) if weather.mixes_directories else events)

    def _mangled(self, events: list[DiskEvent]) -> list[DiskEvent]:
        weather, draw = self._weather, self._chance.random
        found: list[DiskEvent] = []
        told: set[str] = set()
        for event in events:
            if event.kind in _KEPT:
                found.append(event)
            elif draw() < weather.lost:
                self._lose(event)
                if self._on_loss is not None:
                    self._on_loss(SOME)
                continue
            elif event.directory in told and draw() < weather.merged:
                found.append(DiskEvent(DiskEventKind.APPEARED, event.directory, is_directory=True))
            else:
                found += [event] * (2 if draw() < weather.repeated else 1)
                told.add(event.directory)
                if event.kind is DiskEventKind.MOVED_FROM:
                    self._went[event.cookie] = event.directory
        return found

    def _lose(self, event: DiskEvent) -> None:
        content = self._moving.pop(event.cookie, None) if event.kind is DiskEventKind.MOVED_TO else None
        if content is not None and self._went.get(event.cookie, event.directory) != event.directory:
            self._half_told[content] += 1

    def _mixed(self, events: list[DiskEvent]) -> list[DiskEvent]:
        """Return the events in another order, those of one directory in theirs, and none across what concerns all."""
        queues: dict[str, deque[DiskEvent]] = {}
        found: list[DiskEvent] = []
        for event in events:
            if event.kind in _KEPT:
                found += self._drained(queues)
                found.append(event)
            else:
                queues.setdefault(event.directory, deque()).append(event)
        return found + self._drained(queues)

    def _drained(self, queues: dict[str, deque[DiskEvent]]) -> list[DiskEvent]:
        found = []
        while queues:
            directory = self._chance.choice(list(queues))
            found.append(queues[directory].popleft())
            if not queues[directory]:
                del queues[directory]
        return found


class SimWatchers:
    """Begins to watch roots on one machine: :class:`protocol.effects.Watchers`.

    Args:
        disk: Its main disk.
        chance: What the weather is drawn from.
        weather: How badly they do.
        half_told: As of :class:`SimWatcher`.
        on_loss: Called when one loses something, with :data:`ALL` or :data:`SOME`.
    """

    def __init__(
        self,
        disk: SimDisk,
        chance: Random,
        weather: Weather = FINE,
        *,
        half_told: Counter[bytes] | None = None,
        on_loss: Callable[[str], None] | None = None,
    ) -> None:
        self._disk = disk
        self._half_told = half_told
        self._chance = chance
        self._weather = weather
        self._on_loss = on_loss
        self._watching: list[SimWatcher] = []

    def __call__(self, path: str, *, is_ignored: IsIgnored | None = None) -> SimWatcher:
        """Return what watches one root."""
        watcher = SimWatcher(
            self._disk,
            path,
            chance=self._chance,
            weather=self._weather,
            is_ignored=is_ignored,
            half_told=self._half_told,
            on_loss=self._on_loss,
        )
        self._watching = [one for one in self._watching if not one.is_closed]
        self._watching.append(watcher)
        return watcher

    def kill(self) -> None:
        """End all of them, with their process."""
        for watcher in self._watching:
            watcher.close()
        self._watching.clear()
