"""Watch a root by inotify: hints where to look, nothing more (:mod:`peer.core.hints` says when).

Rule 1: a new directory is reported as appeared once it and all below it are watched, so that nothing made in between is
    missed.
Rule 2: directories are reached by descriptor and watched through it; no link is followed.
Rule 3: what cannot be watched is reported once, and never stops the rest.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import errno
import fcntl
import os
import termios
from collections import deque
from collections.abc import Callable
from typing import Final

from asyncinotify import Event, Inotify, Mask, Watch

from peer.disk.walk import CONTROL, join
from protocol import limits
from protocol.effects import DiskEvent, DiskEventKind, IsIgnored

_MASK: Final = (
    Mask.CREATE
    | Mask.MODIFY
    | Mask.CLOSE_WRITE
    | Mask.ATTRIB
    | Mask.DELETE
    | Mask.MOVE
    | Mask.DELETE_SELF
    | Mask.MOVE_SELF
    | Mask.ONLYDIR
)
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
CATCH_UP_S: Final = 0.005
_SLICE: Final = 64
"""Directories that are watched before other tasks get their turn."""
_EVENTS_MAX: Final = 4096
"""Events that are taken before other tasks get their turn."""
# Plain numbers: sets of flags are slow, and events come by the thousand.
_CREATE: Final = int(Mask.CREATE)
_DELETE: Final = int(Mask.DELETE)
_MOVED_FROM: Final = int(Mask.MOVED_FROM)
_MOVED_TO: Final = int(Mask.MOVED_TO)
_ATTRIB: Final = int(Mask.ATTRIB)
_IGNORED: Final = int(Mask.IGNORED)
_UNMOUNT: Final = int(Mask.UNMOUNT)
_OVERFLOW: Final = int(Mask.Q_OVERFLOW)
_ISDIR: Final = int(Mask.ISDIR)
_SELF: Final = int(Mask.IGNORED | Mask.UNMOUNT | Mask.DELETE_SELF | Mask.MOVE_SELF)
_KINDS: Final = (
    (_CREATE, DiskEventKind.CREATED),
    (_DELETE, DiskEventKind.DELETED),
    (_MOVED_FROM, DiskEventKind.MOVED_FROM),
    (_MOVED_TO, DiskEventKind.MOVED_TO),
    (int(Mask.MODIFY | Mask.CLOSE_WRITE | Mask.ATTRIB), DiskEventKind.MODIFIED),
)


class _Spot:
    """A watched directory; its path follows from its parents, so a renamed tree keeps its watches."""

    __slots__ = ("below", "name", "parent", "watch")

    def __init__(self, name: str, parent: _Spot | None, watch: Watch) -> None:
        self.name = name
        self.parent = parent
        self.watch = watch
        self.below: dict[str, _Spot] = {}

    def path(self) -> str:
        parts = []
        here = self
        while here.parent is not None:
            parts.append(here.name)
            here = here.parent
        return "/".join(reversed(parts))


class InotifyWatcher:
    """Watches one root and all directories below it that are not ignored."""

    def __init__(self, path: str, *, is_ignored: IsIgnored | None = None) -> None:
        """Prepare to watch; the watches are set by the first :meth:`get`.

        Args:
            path: The root; absolute, without links in it.
            is_ignored: Directories to leave out, by path from the root; ``.kinfolder`` always is.
        """
        self._path = path
        self._is_ignored = is_ignored
        self._spots: dict[int, _Spot] = {}
        self._ready: deque[DiskEvent] = deque()
        self._to_add: deque[tuple[_Spot | None, str, bool]] = deque()
        self._appeared: list[_Spot] = []
        self._moving: dict[int, _Spot] = {}
        self._device = -1
        self._is_degraded = False
        self._is_gone = False
        self._is_idle = False
        """Whether nothing is left to read or to report but what the system still holds."""
        self._was_idle = False
        self._is_read = False
        """Whether all that the system held was read, though not yet returned."""
        self._times_read = 0
        """How often all that the system held was read and returned."""
        self._inotify: Inotify | None = None
        self._end_wait: Callable[[], object] = bool
        """Takes the descriptor out of the event loop, where it waits there."""
        self._start()

    def _start(self) -> None:
        try:
            self._inotify = Inotify(cache_size=256, sync_timeout=0)
        except OSError:
            self._degrade()  # this user has too many instances
        else:
            self._to_add.append((None, "", True))

    @property
    def is_gone(self) -> bool:
        """Whether the root was not there when it was to be watched: this watcher is over, whatever stands there since."""
        return self._is_gone

    @property
    def watches(self) -> int:
        """How many directories are watched."""
        return len(self._spots)

    async def get(self) -> tuple[DiskEvent, ...]:
        """Wait until something happened; first of all, once everything is watched, the root appears."""
        if self._is_read:
            self._is_read = False
            self._times_read += 1
        while True:
            for _ in range(_SLICE):
                if not self._to_add:
                    break
                self._add(*self._to_add.popleft())
            if not self._to_add:
                for spot in self._appeared:
                    self._emit(DiskEvent(DiskEventKind.APPEARED, spot.path(), is_directory=True))
                self._appeared.clear()
            if self._ready:
                events = tuple(self._ready)
                self._ready.clear()
                await asyncio.sleep(0)
                return events
            if self._to_add:
                await asyncio.sleep(0)
                continue
            if self._inotify is None or self._is_gone:
                self._is_idle = True
                await asyncio.get_running_loop().create_future()  # nothing will ever come: wait to be cancelled
            else:
                await self._read(self._inotify)

    async def caught_up(self, timeout_s: float) -> None:
        """Wait until all that has happened up to now was returned by :meth:`get`, or the time is over.

        What comes meanwhile is not waited for, nor the beginning: before all is watched, something may go unseen anyway.
        """
        before = self._times_read
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while self._inotify is not None and self._was_idle and self._times_read < before + 2:
                    if self._is_idle and not _unread(self._inotify.fd):
                        return
                    await asyncio.sleep(CATCH_UP_S)

    def close(self) -> None:
        """Give all watches back; whoever waits in :meth:`get` is to be cancelled, before or after."""
        self._end_wait()  # before its number can be another file's
        if self._inotify is not None:
            self._inotify.close()
            self._inotify = None
        self._spots.clear()
        self._to_add.clear()
        self._appeared.clear()
        self._moving.clear()

    # ------------------------------------------------------------------------------------------------- events

    async def _read(self, inotify: Inotify) -> None:
        event = inotify.sync_get()
        if event is None:
            self._is_idle = self._was_idle = True
            try:
                await self._readable(inotify.fd)
            finally:
                self._is_idle = False
            event = inotify.sync_get()
        taken = 0
        while event is not None:
            self._take(event)
            taken += 1
            if self._inotify is not inotify:
                return  # begun anew
            if taken == _EVENTS_MAX:
                return
            event = inotify.sync_get()
        self._is_read = True
        for spot in self._moving.values():  # moved to where nothing is watched
            self._drop(spot)
        self._moving.clear()

    async def _readable(self, fd: int) -> None:
        loop = asyncio.get_running_loop()
        readable = loop.create_future()

        def end_wait() -> None:
            self._end_wait = bool
            loop.remove_reader(fd)

        loop.add_reader(fd, _wake, readable)
        self._end_wait = end_wait
        try:
            await readable
        finally:
            self._end_wait()

    def _take(self, event: Event) -> None:
        mask = int(event.mask)
        if mask & _OVERFLOW:
            self._emit(DiskEvent(DiskEventKind.OVERFLOW))
            self.close()  # with the events, knowledge of new and gone directories was lost
            self._start()
            return
        watch = event.watch
        spot = None if watch is None else self._spots.get(watch.wd)
        if spot is None:
            return
        if mask & _SELF:
            self._take_self(spot, mask)
            return
        if event.name is None:
            return  # attributes of the directory itself: its parent says so too
        name = str(event.name)
        if spot.parent is None and name == CONTROL:
            return
        directory = spot.path()
        is_directory = bool(mask & _ISDIR)
        path = join(directory, name)
        if self._is_ignored is not None and self._is_ignored(path, is_directory):
            self._leave(spot, name, mask)
            return
        for bits, kind in _KINDS:
            if mask & bits:
                self._emit(DiskEvent(kind, directory, name, is_directory, event.cookie))
                break
        if is_directory:
            self._follow(spot, name, mask, event.cookie)

    def _take_self(self, spot: _Spot, mask: int) -> None:
        if spot.parent is None:
            self._emit(DiskEvent(DiskEventKind.ROOT_GONE))
            self.close()
            self._start()  # another directory may stand there already
            return
        if mask & _UNMOUNT:
            self._emit(DiskEvent(DiskEventKind.MODIFIED, spot.parent.path(), spot.name, is_directory=True))
        if mask & _IGNORED:
            self._forget(spot)

    def _follow(self, spot: _Spot, name: str, mask: int, cookie: int) -> None:
        """Keep the tree of watches like the tree of directories."""
        if mask & _MOVED_FROM:
            moved = spot.below.pop(name, None)
            if moved is not None:
                self._moving[cookie] = moved
        elif mask & _MOVED_TO:
            moved = self._moving.pop(cookie, None)
            if moved is None:
                self._to_add.append((spot, name, True))
                return
            replaced = spot.below.pop(name, None)
            if replaced is not None:
                self._drop(replaced)
            moved.name, moved.parent = name, spot
            spot.below[name] = moved
        elif mask & (_CREATE | _ATTRIB) and name not in spot.below:
            self._to_add.append((spot, name, True))
        elif mask & _DELETE and name in spot.below:
            self._drop(spot.below.pop(name))

    def _leave(self, spot: _Spot, name: str, mask: int) -> None:
        """Stop watching a directory that was moved to an ignored name."""
        if mask & (_MOVED_FROM | _DELETE) and name in spot.below:
            self._drop(spot.below.pop(name))

    # ------------------------------------------------------------------------------------------------- watches

    def _add(self, parent: _Spot | None, name: str, is_new: bool) -> None:  # noqa: FBT001  # queued as a tuple
        """Watch a directory, report it, and queue those below it."""
        path = "" if parent is None else join(parent.path(), name)
        if self._inotify is None or (path and self._leaves_out(path)):
            return
        if parent is not None and self._spots.get(parent.watch.wd) is not parent:
            return  # the directory above is gone, or somewhere else and watched anew
        handle = -1
        try:
            handle = self._open(path)
            device = os.fstat(handle).st_dev
            if parent is None:
                self._device = device
            elif device != self._device:
                return  # another disk, mounted here: the scanner does not enter it either
            watch = self._inotify.add_watch(f"/proc/self/fd/{handle}/.", _MASK)
            spot = self._spots.get(watch.wd)
            if spot is None:
                spot = self._spots[watch.wd] = _Spot(name, parent, watch)
            elif spot.parent is not None and spot.parent.below.get(spot.name) is spot:
                del spot.parent.below[spot.name]  # it was moved here, and we heard of the new place first
            spot.name, spot.parent = name, parent
            if parent is not None:
                parent.below[name] = spot
            if is_new:
                self._appeared.append(spot)
            with os.scandir(handle) as entries:
                self._to_add.extend(
                    (spot, entry.name, False) for entry in entries if entry.is_dir(follow_symlinks=False)
                )
        except OSError as error:
            self._fail(error, is_root=parent is None)
        finally:
            if handle >= 0:
                os.close(handle)

    def _leaves_out(self, path: str) -> bool:
        return (
            path == CONTROL
            or path.count("/") >= limits.DEPTH_MAX
            or (self._is_ignored is not None and self._is_ignored(path, True))
        )

    def _open(self, path: str) -> int:
        here = os.open(self._path, _DIRECTORY)
        for part in path.split("/") if path else ():
            try:
                below = os.open(part, _DIRECTORY, dir_fd=here)
            finally:
                os.close(here)
            here = below
        return here

    def _fail(self, error: OSError, *, is_root: bool) -> None:
        if is_root:
            self._is_gone = True
            self._emit(DiskEvent(DiskEventKind.ROOT_GONE))
        elif error.errno in {errno.ENOSPC, errno.ENOMEM, errno.EMFILE, errno.ENFILE}:
            self._degrade()  # the limit of watches; what is watched stays so
            self._to_add.clear()
        # Anything else: gone again, or not to be read; the scan will say which.

    def _degrade(self) -> None:
        if not self._is_degraded:
            self._is_degraded = True
            self._emit(DiskEvent(DiskEventKind.DEGRADED))

    def _drop(self, spot: _Spot) -> None:
        """Remove the watches of a directory and of all below it."""
        for one in (*_all_below(spot), spot):
            if self._spots.pop(one.watch.wd, None) is not None and self._inotify is not None:
                try:
                    self._inotify.rm_watch(one.watch)
                except OSError:
                    continue  # the kernel removed it with its directory

    def _forget(self, spot: _Spot) -> None:
        self._spots.pop(spot.watch.wd, None)
        if spot.parent is not None and spot.parent.below.get(spot.name) is spot:
            del spot.parent.below[spot.name]

    def _emit(self, event: DiskEvent) -> None:
        if not self._ready or self._ready[-1] != event:
            self._ready.append(event)


def _unread(fd: int) -> bool:
    """Tell whether the system holds events that were not read."""
    count = array.array("i", [0])
    try:
        fcntl.ioctl(fd, termios.FIONREAD, count)
    except OSError:
        return False
    return count[0] > 0


def _wake(readable: asyncio.Future[None]) -> None:
    if not readable.done():
        readable.set_result(None)


def _all_below(spot: _Spot) -> list[_Spot]:
    found = list(spot.below.values())
    for one in found:
        found.extend(one.below.values())
    return found
