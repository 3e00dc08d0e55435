"""One suite for every watcher of a root: inotify, and the one of a simulated disk in any weather that it can promise it in."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import shutil
import time
from collections import Counter

import pytest
from blake3 import blake3

from peer.core.hints import Hints
from peer.disk.files import LinuxFileSystem
from peer.disk.roots import Root, RootGuard
from peer.disk.scanner import scan
from peer.disk.watcher import InotifyWatcher
from protocol.effects import DiskEvent, DiskEventKind
from protocol.ids import FolderId
from simulations.disk import SimDisk
from simulations.disk_door import SimFiles
from simulations.user_files import UserFiles
from simulations.watcher import SimWatchers, Weather

K = DiskEventKind
WAIT_S = 5.0
FOLDER = FolderId(b"f" * 32)


class RealRoot:
    """A root on the machine's disk, and a person who works there."""

    def __init__(self, tmp_path):
        self.path = str(tmp_path / "f")
        os.mkdir(self.path)
        self.fs = LinuxFileSystem()
        self.watchers = InotifyWatcher

    def at(self, path):
        return os.path.normpath(os.path.join(self.path, path))

    def write(self, path, data=b""):
        os.makedirs(os.path.dirname(self.at(path)), exist_ok=True)
        with open(self.at(path), "wb") as file:
            file.write(data)

    def mkdir(self, path):
        os.mkdir(self.at(path))

    def rename(self, path, new_path):
        os.rename(self.at(path), self.at(new_path))

    def remove(self, path):
        os.unlink(self.at(path))

    def remove_tree(self, path):
        shutil.rmtree(self.at(path))

    def link(self, path, target):
        os.symlink(self.at(target), self.at(path))

    def names(self):
        """Return all paths, a directory's with "/" at its end."""
        found = set()
        for at, directories, files in os.walk(self.path):
            if at == self.path:
                directories.remove(".kinfolder")
            above = os.path.relpath(at, self.path) + "/"
            above = "" if above == "./" else above
            found |= {above + name for name in files} | {above + name + "/" for name in directories}
        return found


class SimulatedRoot:
    """The same on a simulated disk."""

    path = "/home/f"

    def __init__(self, _, weather=Weather(), seed=0):  # noqa: B008 - nothing changes it
        self.disk = SimDisk(random.Random(seed), time.time_ns)
        self.user = UserFiles(self.disk)
        self.user.make_directories(self.path)
        self.fs = SimFiles(self.disk)
        self.half_told = Counter[bytes]()
        self.watchers = SimWatchers(self.disk, random.Random(seed), weather, half_told=self.half_told)

    def at(self, path):
        return os.path.normpath(os.path.join(self.path, path))

    def write(self, path, data=b""):
        self.user.write(self.at(path), data, parents=True)

    def mkdir(self, path):
        self.user.make_directory(self.at(path))

    def rename(self, path, new_path):
        self.user.rename(self.at(path), self.at(new_path))

    def remove(self, path):
        self.user.remove(self.at(path))

    def remove_tree(self, path):
        self.user.remove_tree(self.at(path))

    def link(self, path, target):
        self.user.make_link(self.at(path), self.at(target))

    def names(self):
        tree = self.disk.tree(self.path, without=".kinfolder")
        return {path + "/" * (one.mode >> 12 == 4) for path, one in tree.items()}


@pytest.fixture(params=[RealRoot, SimulatedRoot])
def root(request, tmp_path):
    made = request.param(tmp_path)
    RootGuard(made.fs, made.path, FOLDER).mark()
    return made


def watched(test):
    """Run a coroutine ``test(watcher, root)`` with a watcher that has seen its root."""

    def run(root):
        async def main():
            watcher = root.watchers(root.path)
            try:
                await until(watcher, lambda e: e.kind is K.APPEARED and not e.directory)
                await test(watcher, root)
            finally:
                watcher.close()

        asyncio.run(main())

    run.__name__, run.__doc__ = test.__name__, test.__doc__
    return run


async def until(watcher, is_last):
    """Return all events up to one; fail after some seconds without it."""
    seen = []
    async with asyncio.timeout(WAIT_S):
        while True:
            for event in await watcher.get():
                seen.append(event)
                if is_last(event):
                    return seen


def told(events):
    return {(event.kind, event.directory, event.name) for event in events}


@watched
async def test_files(watcher, root):
    """Creation, change, move and removal are told with their directory, name and kind."""
    root.write("f", b"1")
    root.rename("f", "g")
    root.remove("g")
    events = await until(watcher, lambda e: e.kind is K.DELETED)
    assert {(K.CREATED, "", "f"), (K.MODIFIED, "", "f"), (K.MOVED_FROM, "", "f"), (K.MOVED_TO, "", "g")} <= told(events)
    cookies = {event.cookie for event in events if event.kind in {K.MOVED_FROM, K.MOVED_TO}}
    assert len(cookies) == 1
    assert cookies != {0}


@watched
async def test_what_the_engine_does_is_told_too(watcher, root):
    """A watcher does not know who acts; that the engine knows its own work is the engine's business."""
    handle = root.fs.open_root(root.path)
    root.fs.make_directory(handle, "d", 0o777)
    root.write("a", b"1")
    root.write("b", b"2")
    root.fs.exchange(handle, "a", handle, "b")
    root.fs.close(handle)
    root.write("last")
    events = await until(watcher, lambda e: e.name == "last")
    assert {(K.CREATED, "", "d"), (K.MOVED_FROM, "", "a"), (K.MOVED_TO, "", "b")} <= told(events)
    assert {(K.MOVED_FROM, "", "b"), (K.MOVED_TO, "", "a")} <= told(events)
    assert [e.is_directory for e in events if e.name == "d"] == [True]


@watched
async def test_new_trees_appear_and_are_watched(watcher, root):
    """What is made in a directory before its watch stands is covered by its appearance, what comes after by events."""
    root.write("a/b/c/f", b"1")
    await until(watcher, lambda e: (e.kind, e.directory) == (K.APPEARED, "a"))
    root.write("a/b/c/late", b"1")
    await until(watcher, lambda e: (e.kind, e.directory, e.name) == (K.CREATED, "a/b/c", "late"))


@watched
async def test_a_renamed_tree_is_watched_under_its_new_path(watcher, root):
    root.write("a/b/f", b"1")
    await until(watcher, lambda e: e.kind is K.APPEARED and e.directory == "a")
    root.rename("a", "z")
    root.write("z/b/g", b"1")
    events = await until(watcher, lambda e: e.name == "g")
    assert (K.CREATED, "z/b", "g") in told(events)
    assert [e.is_directory for e in events if e.kind is K.MOVED_TO] == [True]


@watched
async def test_a_tree_moved_away_is_not_watched_any_more(watcher, root):
    root.write("a/b/f", b"1")
    await until(watcher, lambda e: e.kind is K.APPEARED and e.directory == "a")
    root.rename("a", "../outside")
    await until(watcher, lambda e: e.kind is K.MOVED_FROM)
    root.write("../outside/b/f", b"private")
    root.write("last")
    events = await until(watcher, lambda e: e.name == "last")
    assert not [event for event in events if event.name == "f"]


@watched
async def test_a_tree_moved_here_appears(watcher, root):
    root.write("../outside/b/f", b"1")
    root.rename("../outside", "a")
    await until(watcher, lambda e: (e.kind, e.directory) == (K.APPEARED, "a"))
    root.write("a/b/g", b"1")
    await until(watcher, lambda e: (e.kind, e.directory, e.name) == (K.CREATED, "a/b", "g"))


@watched
async def test_odd_names_do_not_stop_it(watcher, root):
    names = [os.fsdecode(raw) for raw in (b"\xff\xfe", b"a\nb", b"\xc3\xa9", b" ", b"\x01", b"-" * 255)]
    for name in names:
        root.write(name)
    root.mkdir(os.fsdecode(b"d\xff\n"))
    events = await until(watcher, lambda e: e.kind is K.APPEARED)
    assert set(names) <= {event.name for event in events}


@watched
async def test_our_own_directory_is_silent(watcher, root):
    root.mkdir(".kinfolder/tmp/x")
    root.write(".kinfolder/tmp/y")
    root.write("last")
    events = await until(watcher, lambda e: e.name == "last")
    assert told(events) <= {(K.CREATED, "", "last"), (K.MODIFIED, "", "last")}


@watched
async def test_a_link_to_a_directory_is_not_followed(watcher, root):
    root.mkdir("../outside")
    root.link("l", "../outside")
    root.write("../outside/x")
    root.write("last")
    events = await until(watcher, lambda e: e.name == "last")
    assert "x" not in {event.name for event in events}


@watched
async def test_a_root_that_is_moved_away_is_told(watcher, root):
    root.rename("../f", "../moved")
    await until(watcher, lambda e: e.kind is K.ROOT_GONE)
    waiting = asyncio.create_task(watcher.get())
    async with asyncio.timeout(WAIT_S):
        while not watcher.is_gone:  # noqa: ASYNC110 - the watcher has no event for it
            await asyncio.sleep(0)
    waiting.cancel()


@watched
async def test_a_root_that_stands_again_at_once_is_watched_again(watcher, root):
    root.rename("../f", "../moved")
    root.mkdir("../f")
    events = await until(watcher, lambda e: e.kind is K.APPEARED and not e.directory)
    assert K.ROOT_GONE in {event.kind for event in events}
    root.write("d/f")
    await until(watcher, lambda e: (e.kind, e.directory) == (K.APPEARED, "d"))


@watched
async def test_who_waits_until_it_has_caught_up_has_heard_everything(watcher, root):
    heard = []

    async def listen():
        while True:
            heard.extend(await watcher.get())

    listening = asyncio.create_task(listen())
    await asyncio.sleep(0)
    root.write("f")
    await watcher.caught_up(WAIT_S)
    assert (K.CREATED, "", "f") in told(heard)
    await watcher.caught_up(WAIT_S)
    listening.cancel()


def test_ignored_directories_are_not_watched(root):
    root.mkdir("node_modules")
    root.mkdir("node_modules/deep")
    root.mkdir("src")

    async def main():
        watcher = root.watchers(root.path, is_ignored=lambda path, is_dir: "node_modules" in path)
        await until(watcher, lambda e: e.kind is K.APPEARED)
        root.rename("src", "node_modules/src")
        root.write("node_modules/x")
        root.write("node_modules/src/x")
        root.write("last")
        events = await until(watcher, lambda e: e.name == "last")
        assert (K.MOVED_FROM, "", "src") in told(events)
        assert not [event for event in events if event.directory.startswith("node_modules")]
        watcher.close()

    asyncio.run(main())


# Hints and scans together.


def known_tree(known):
    found: set[str] = set()

    def walk(path):
        for name in known.get(path, {}):
            below = f"{path}/{name}" if path else name
            if below in known:
                found.add(below + "/")
                walk(below)
            else:
                found.add(below)

    walk("")
    return found


async def churn(root):
    for n in range(30):
        root.write(f"t{n}/x/f{n}", b"%d" % n)
        await asyncio.sleep(0)
        if n % 3 == 0:
            root.rename(f"t{n}", f"t{n}-moved")
        if n % 5 == 0:
            root.remove_tree(f"t{n}-moved" if n % 3 == 0 else f"t{n}")
        if n % 7 == 0:
            root.write(f"t{n}-moved/late" if n % 3 == 0 else f"t{n}/late", b"late")
        await asyncio.sleep(0)
    root.write("end")


class Looker:
    """Scans where hints say, and keeps what it saw."""

    def __init__(self, root, hints):
        self.known: dict[str, dict[str, int]] = {}
        self._root = root
        self._hints = hints

    def look(self, now_s):
        found = self._hints.due(now_s)
        if found is None:
            return
        if found.full:
            self.known.clear()
        opened = RootGuard(self._root.fs, self._root.path, FOLDER).open()
        assert isinstance(opened, Root)
        with opened:
            for listing in scan(opened, None if found.full else found.spots, unsettled=found.unsettled):
                assert listing.problem in {"", "changing"}
                self.known[listing.path] = {s.name: s.fingerprint.inode for s in listing.sightings}


async def follow(root):
    """Churn, and look where the watcher hints until what is known is what is there."""
    watcher, hints = root.watchers(root.path), Hints()
    looker = Looker(root, hints)
    loop = asyncio.get_running_loop()
    churning = asyncio.create_task(churn(root))
    waiting = asyncio.create_task(watcher.get())
    async with asyncio.timeout(20):
        while not (churning.done() and known_tree(looker.known) == root.names()):
            deadline_s = hints.next_deadline()
            timeout_s = None if deadline_s is None else max(0.0, deadline_s - loop.time())
            await asyncio.wait({waiting}, timeout=timeout_s)
            if waiting.done():
                for event in waiting.result():
                    hints.handle(event, loop.time())
                waiting = asyncio.create_task(watcher.get())
            looker.look(loop.time())
    waiting.cancel()
    watcher.close()


def test_hints_and_scans_find_everything_that_happens(root):
    """A churn of trees, moves and removals; the listings of hinted places alone give what is there in the end."""
    asyncio.run(follow(root))


# Weather.


def weathered(weather, seed=0):
    root = SimulatedRoot(None, weather, seed)
    RootGuard(root.fs, root.path, FOLDER).mark()
    return root


BEARABLE = {
    "late, repeated and merged": Weather(late_s=0.02, repeated=0.5, merged=0.5),
    "overflows and a short queue": Weather(overflows=0.3, queue_max=20),
}


@pytest.mark.parametrize("weather", BEARABLE.values(), ids=BEARABLE)
def test_hints_find_everything_in_weather_that_is_told(weather):
    asyncio.run(follow(weathered(weather)))


async def all_events(root, act):
    """Return what a watcher tells of some acts, in the end."""
    watcher = root.watchers(root.path)
    await until(watcher, lambda e: e.kind is K.APPEARED)
    act(root)
    events: list[DiskEvent] = []
    with contextlib.suppress(TimeoutError):
        while True:
            async with asyncio.timeout(0.05):
                events += await watcher.get()
    watcher.close()
    return events


def busy(root):
    for n in range(100):
        root.write(f"d{n % 3}-{n}" if n % 2 else f"f{n}", b"x")
    for n in range(0, 100, 2):
        root.rename(f"f{n}", f"g{n}")


def test_events_are_lost_in_bad_weather():
    fine = asyncio.run(all_events(weathered(Weather()), busy))
    bad = asyncio.run(all_events(weathered(Weather(lost=0.5)), busy))
    assert 0 < len(bad) < len(fine)


def test_files_of_which_is_told_that_they_went_elsewhere_and_not_to_where_are_counted():
    root = weathered(Weather(lost=0.5))
    root.mkdir("d")
    for n in range(100):
        root.write(f"f{n}", str(n).encode())
    root.mkdir("e")

    def move(root):
        for n in range(100):
            root.rename(f"f{n}", f"d/f{n}" if n % 2 else f"g{n}")
        root.rename("e", "d/e")

    events = asyncio.run(all_events(root, move))
    went = {event.name: event.cookie for event in events if event.kind is K.MOVED_FROM}
    came = {event.cookie for event in events if event.kind is K.MOVED_TO}
    half = [n for n in range(1, 100, 2) if f"f{n}" in went and went[f"f{n}"] not in came]
    assert 0 < len(half) < 50
    assert root.half_told == {blake3(str(n).encode()).digest(): 1 for n in half}


def test_directories_mix_but_each_keeps_its_order():
    def act(root):
        root.mkdir("a")
        root.mkdir("b")

    def fill(root):
        for n in range(20):
            root.write(f"a/{n}", b"x")
            root.write(f"b/{n}", b"x")

    async def main():
        root = weathered(Weather(mixes_directories=True), seed=4)
        act(root)
        return await all_events(root, fill)

    events = [event for event in asyncio.run(main()) if event.kind is K.CREATED]
    for directory in ("a", "b"):
        assert [event.name for event in events if event.directory == directory] == [str(n) for n in range(20)]
    assert [event.directory for event in events] != ["a", "b"] * 20


def test_the_same_seed_makes_the_same_weather():
    weather = Weather(lost=0.2, repeated=0.2, merged=0.2, mixes_directories=True)
    one, two = (asyncio.run(all_events(weathered(weather, seed=7), busy)) for _ in range(2))
    assert one == two
    assert one != asyncio.run(all_events(weathered(weather, seed=8), busy))


def test_the_limit_of_watches_is_told_once():
    async def main():
        root = weathered(Weather(watches_max=3))
        for n in range(5):
            root.mkdir(f"d{n}")
        watcher = root.watchers(root.path)
        events = await until(watcher, lambda e: e.kind is K.APPEARED)
        root.write("e/f")
        root.write("last")
        return events, await until(watcher, lambda e: e.name == "last")

    first, later = asyncio.run(main())
    assert [event.kind for event in first] == [K.DEGRADED, K.APPEARED]
    assert K.DEGRADED not in {event.kind for event in later}


def test_a_killed_process_hears_nothing_more():
    root = weathered(Weather())

    async def main():
        watcher = root.watchers(root.path)
        await until(watcher, lambda e: e.kind is K.APPEARED)
        root.watchers.kill()

    asyncio.run(main())
    assert root.disk.observers == []
