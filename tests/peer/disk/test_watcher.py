"""Real inotify, beyond :mod:`tests.contracts.test_watchers`: its watches, its limits, its descriptor."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import shutil

import asyncinotify
import pytest

from peer.disk.watcher import InotifyWatcher
from protocol.effects import DiskEvent, DiskEventKind
from tests.peer.disk.kit import Folder

K = DiskEventKind
WAIT_S = 5.0


@pytest.fixture
def folder(tmp_path):
    return Folder(str(tmp_path / "f"))


def watched(test):
    """Run a coroutine ``test(watcher, folder)`` with a watcher that has seen its root."""

    def run(folder):
        async def main():
            watcher = InotifyWatcher(folder.path)
            try:
                await until(watcher, lambda e: e.kind is K.APPEARED and not e.directory)
                await test(watcher, folder)
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
async def test_new_trees_appear_and_are_watched(watcher, folder):
    """What is made in a directory before its watch stands is covered by its appearance, what comes after by events."""
    for n in range(50):
        folder.write(f"a{n}/b/c/f", b"1")
    seen: set[str] = set()
    async with asyncio.timeout(WAIT_S):
        while not {f"a{n}" for n in range(50)} <= seen:
            seen |= {event.directory for event in await watcher.get() if event.kind is K.APPEARED}
    folder.write("a7/b/c/late", b"1")
    await until(watcher, lambda e: (e.kind, e.directory, e.name) == (K.CREATED, "a7/b/c", "late"))
    assert watcher.watches == 151


@watched
async def test_a_renamed_tree_keeps_its_watches_under_its_new_path(watcher, folder):
    folder.write("a/b/f", b"1")
    await until(watcher, lambda e: e.kind is K.APPEARED and e.directory == "a")
    os.rename(folder.at("a"), folder.at("z"))
    folder.write("z/b/g", b"1")
    events = await until(watcher, lambda e: e.name == "g")
    assert (K.CREATED, "z/b", "g") in told(events)
    assert [e.is_directory for e in events if e.kind is K.MOVED_TO] == [True]
    assert watcher.watches == 3


@watched
async def test_a_tree_moved_away_is_not_watched_any_more(watcher, folder):
    folder.write("a/b/f", b"1")
    await until(watcher, lambda e: e.kind is K.APPEARED and e.directory == "a")
    os.rename(folder.at("a"), folder.path + "-outside")
    await until(watcher, lambda e: e.kind is K.MOVED_FROM)
    folder.write("../f-outside/b/f", b"private")
    folder.write("last", b"")
    events = await until(watcher, lambda e: e.name == "last")
    assert not [event for event in events if event.name == "f"]
    assert watcher.watches == 1


@watched
async def test_removed_directories_give_their_watches_back(watcher, folder):
    folder.write("a/b/f", b"1")
    await until(watcher, lambda e: e.kind is K.APPEARED and e.directory == "a")
    shutil.rmtree(folder.at("a"))
    await until(watcher, lambda e: (e.kind, e.name) == (K.DELETED, "a"))
    assert watcher.watches == 1


@watched
async def test_whoever_closes_it_leaves_the_loop_alone_with_the_next_descriptor(watcher, folder):
    """The number of its descriptor may be another file's at once, before a cancelled wait has ended."""
    waiting = asyncio.create_task(until(watcher, lambda _: False))
    while not watcher._is_idle:  # noqa: ASYNC110 - the watcher has no event for it
        await asyncio.sleep(0)
    fd = watcher._inotify.fd
    waiting.cancel()
    watcher.close()
    ends = os.pipe()
    try:
        assert fd == ends[0]
        read = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().add_reader(fd, lambda: read.set_result(os.read(fd, 1)))
        with contextlib.suppress(asyncio.CancelledError):
            await waiting
        os.write(ends[1], b"x")
        async with asyncio.timeout(WAIT_S):
            assert await read == b"x"
    finally:
        asyncio.get_running_loop().remove_reader(fd)
        for end in ends:
            os.close(end)


def test_ignored_directories_are_not_watched(folder):
    os.makedirs(folder.at("node_modules/deep"))
    os.makedirs(folder.at("src"))

    async def main():
        watcher = InotifyWatcher(folder.path, is_ignored=lambda path, is_dir: "node_modules" in path)
        await until(watcher, lambda e: e.kind is K.APPEARED)
        assert watcher.watches == 2
        os.rename(folder.at("src"), folder.at("node_modules/src"))
        folder.write("node_modules/x", b"")
        folder.write("last", b"")
        events = await until(watcher, lambda e: e.name == "last")
        assert (K.MOVED_FROM, "", "src") in told(events)
        assert not [event for event in events if event.directory.startswith("node_modules")]
        assert watcher.watches == 1
        watcher.close()

    asyncio.run(main())


def test_the_limit_of_watches_is_told_once_and_the_rest_goes_on(folder, monkeypatch):
    """Case 98: what cannot be watched is left to scans."""
    for n in range(20):
        os.mkdir(folder.at(f"d{n}"))
    left = [5]
    add = asyncinotify.Inotify.add_watch

    def limited(self, path, mask):
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.ENOSPC, "no more watches")
        return add(self, path, mask)

    monkeypatch.setattr(asyncinotify.Inotify, "add_watch", limited)

    async def main():
        watcher = InotifyWatcher(folder.path)
        events = await until(watcher, lambda e: e.kind is K.APPEARED)
        assert [e.kind for e in events] == [K.DEGRADED, K.APPEARED]
        os.mkdir(folder.at("more"))
        folder.write("last", b"")
        events = await until(watcher, lambda e: e.name == "last")
        assert K.DEGRADED not in {event.kind for event in events}
        watcher.close()

    asyncio.run(main())


def test_no_instance_left_is_a_degraded_watcher_that_waits(folder, monkeypatch):
    def refuse(*_args, **_kwargs):
        raise OSError(errno.EMFILE, "too many instances")

    monkeypatch.setattr("peer.disk.watcher.Inotify", refuse)

    async def main():
        watcher = InotifyWatcher(folder.path)
        assert await watcher.get() == (DiskEvent(K.DEGRADED),)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await watcher.get()
        watcher.close()

    asyncio.run(main())


def queued_events_max():
    with open("/proc/sys/fs/inotify/max_queued_events") as file:
        return int(file.read())


@watched
async def test_an_overflow_is_told_and_everything_is_watched_again(watcher, folder):
    """Case 98."""
    most = queued_events_max()
    folder.write("a", b"")
    folder.write("b", b"")
    for _ in range(most // 4 + 100):
        os.rename(folder.at("a"), folder.at("c"))
        os.rename(folder.at("b"), folder.at("a"))
        os.rename(folder.at("c"), folder.at("b"))
    os.mkdir(folder.at("unheard"))
    events = await until(watcher, lambda e: e.kind is K.APPEARED and not e.directory)
    assert K.OVERFLOW in {event.kind for event in events}
    folder.write("unheard/f", b"")
    await until(watcher, lambda e: (e.directory, e.name) == ("unheard", "f"))
