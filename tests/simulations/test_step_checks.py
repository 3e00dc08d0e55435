"""What is checked at each call and message: nothing may be done that breaks an invariant at once."""

from __future__ import annotations

import asyncio
from contextlib import nullcontext
from functools import partial

import pytest

from protocol.effects import Access
from simulations.checks import load
from simulations.checks.watch import WatchedTrace
from simulations.devices import FILES, ROOT
from simulations.history.contents import CANARY
from simulations.history.ledger import look
from tests.simulations.test_checks import breaks, checked


def stray(world, *_):
    files = world.devices[0].files
    files.make_directory(files.open_root(FILES), "elsewhere", 0o777)


def destroy(world, ledger, _):
    first = world.devices[0]
    world.network.go_offline(first.name)
    with ledger.acting(first, 0, "writes"):
        first.user.write(first.path("only.txt"), b"only here")
        assert first.is_running
    first.files.unlink(first.files.open_root(ROOT), "only.txt")


def destroy_what_another_shows(world, ledger, _):
    others = world.devices[1]
    world.network.go_offline(others.name)
    others.user.write(others.path("only.txt"), b"only here")
    ledger.acknowledge(look(others), 0)
    destroy(world, ledger, _)


def begin(world, ledger, *, is_seen):
    """Let a process begin a file that holds what somebody wrote elsewhere, and give that up."""
    first, files = world.devices[0], world.devices[0].files
    world.network.go_offline(first.name)
    with ledger.acting(first, 0, "writes"):
        first.user.write(first.path("only.txt"), b"only here")
        assert first.is_running
    tmp = files.open_directory(files.open_directory(files.open_root(ROOT), ".kinfolder"), "tmp")
    handle = files.open_file(tmp, "begun", Access.CREATE)
    files.write(handle, b"only here", 0)
    if is_seen:
        files.rename(tmp, "begun", files.open_root(ROOT), "shown.txt")
        files.rename(files.open_root(ROOT), "shown.txt", tmp, "begun")
    first.user.remove(first.path("only.txt"))
    files.unlink(tmp, "begun")


def cut_short(world, ledger, _):
    first = world.devices[0]
    world.network.go_offline(first.name)
    with ledger.acting(first, 0, "writes"):
        first.user.write(first.path("only.txt"), b"only here")
    handle = first.files.open_file(first.files.open_root(ROOT), "only.txt", Access.WRITE)
    first.files.truncate(handle, 4)


def show_half(world, *_):
    files = world.devices[0].files
    handle = files.open_file(files.open_root(ROOT), "half.txt", Access.CREATE)
    files.write(handle, b"half of", 0)


def begin_under_its_name(world, *_):
    """Put a whole content under a name at one instant, though in two steps."""
    files = world.devices[0].files
    handle = files.open_file(files.open_root(ROOT), "whole.txt", Access.CREATE)
    files.write(handle, b"one", 0)


def show_empty(world, ledger, _, *, has_empty=False):
    files, ledger.has_empty = world.devices[0].files, has_empty
    tmp = files.open_directory(files.open_directory(files.open_root(ROOT), ".kinfolder"), "tmp")
    files.close(files.open_file(tmp, "new", Access.CREATE))
    files.rename(tmp, "new", files.open_root(ROOT), "empty.txt")


def say_in_clear(world, *_):
    world.loop.note("send", "device-0>coordinator", b"...." + CANARY)


def behind(take):
    """Let the coordinator know less than a device, of which a process takes something then."""

    def tamper(world, _, watch):
        watch.guard_rollback = True
        world.coordinator.rows("DELETE FROM log WHERE position > 1")
        files = world.devices[0].files
        root = files.open_root(ROOT)
        take(files, root, files.open_directory(files.open_directory(root, ".kinfolder"), "trash"))

    return tamper


def exchange(files, root, trash, *, is_first):
    files.close(files.open_file(trash, "new", Access.CREATE))
    ends = [(root, "b.txt"), (trash, "new")]
    files.exchange(*ends[not is_first], *ends[is_first])


def open_many(world, *args):
    files = world.devices[0].files
    for _ in range(load.HANDLES_MAX + 1):
        files.open_root(ROOT)
    files.make_directory(files.open_root(ROOT), "kiwi-D", 0o777)


def dial_many(world, *args):
    device = world.devices[0]
    for _ in range(load.BATCHES + len(world.nodes) + 1):
        world.loop.spawn(device.host, world.network.dial(device.host, world.nodes[0].url))


STEPS = {
    "the coordinator is behind, and a device removes a file": (
        13,
        behind(lambda files, root, _: files.unlink(root, "b.txt")),
    ),
    "the coordinator is behind, and a device removes a link": (
        13,
        behind(lambda files, root, _: files.unlink(root, "link")),
    ),
    "the coordinator is behind, and a device removes a directory": (
        13,
        behind(lambda files, root, _: files.remove_directory(root, "E")),
    ),
    "the coordinator is behind, and a device exchanges a file for another": (
        13,
        behind(partial(exchange, is_first=True)),
    ),
    "the coordinator is behind, and a device exchanges another for a file": (
        13,
        behind(partial(exchange, is_first=False)),
    ),
    "a process has hundreds of files open": (25, open_many),
    "a device asks nodes for many things at once": (25, dial_many),
    "a process works outside the folder": (27, stray),
    "the only copy is removed": (6, destroy),
    "what is in no log is removed, though another shows it": (6, destroy_what_another_shows),
    "the only copy is cut short": (7, cut_short),
    "half a file is shown": (7, show_half),
    "a file is begun under its name": (7, begin_under_its_name),
    "an empty file is shown, and nobody ever made one": (7, show_empty),
    "a name is sent in clear": (15, say_in_clear),
}


def test_7_an_empty_file_may_be_shown_where_somebody_made_one():
    checked(partial(show_empty, has_empty=True), WatchedTrace(), again=False)


@pytest.mark.parametrize("is_seen", [False, True])
def test_6_only_a_file_that_no_user_saw_is_a_process_s_own(is_seen):
    with breaks(6) if is_seen else nullcontext():
        checked(lambda world, ledger, _: begin(world, ledger, is_seen=is_seen), WatchedTrace(), again=False)


@pytest.mark.parametrize("both", [False, True])
def test_6_what_stands_on_the_same_disk_once_more_may_go_there_once(both):
    def act(world, ledger, _):
        first, files = world.devices[0], world.devices[0].files
        world.network.go_offline(first.name)
        with ledger.acting(first, 0, "writes"):
            for name in ("one.txt", "two.txt"):
                first.user.write(first.path(name), b"only here")
        files.unlink(files.open_root(ROOT), "one.txt")
        if both:
            files.unlink(files.open_root(ROOT), "two.txt")

    with breaks(6) if both else nullcontext():
        checked(act, WatchedTrace(), again=False)


@pytest.mark.parametrize("what", STEPS)
def test_at_each_step(what):
    number, tamper = STEPS[what]

    async def act(world, *args):
        tamper(world, *args)
        await asyncio.sleep(1)

    with breaks(number):
        checked(act, WatchedTrace())
