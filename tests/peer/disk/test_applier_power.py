"""The power fails at every effect of a step, on disks that keep what they like: old or new under each name, never a part."""

from __future__ import annotations

import itertools
import random

import pytest

from peer.disk.applier import Applier
from peer.disk.journal import MemoryJournal
from peer.disk.recovery import empty_trash, recover
from peer.disk.roots import Root, RootGuard, RootMissing
from peer.disk.stages import stage_bytes
from protocol.entries import Kind
from simulations.disk import SimDisk
from simulations.disk_door import SimFiles
from simulations.disk_hooks import Crashed
from simulations.personalities import PERSONALITIES, PLAIN, SECOND_NS, Order
from simulations.power import cut_power
from simulations.user_files import UserFiles
from tests.peer.disk.kit import FOLDER, Counting, Folder, Ticks
from tests.peer.disk.test_applier_races import SCENARIOS, check, settle_all

CUTS = 3
KINDS = {
    "ordered": PLAIN,
    "weak": PERSONALITIES["weak"],
    "ordered without exchange": PLAIN._replace(can_exchange=False),
    "weak without exchange": PLAIN._replace(can_exchange=False, order=Order.WEAK),
    "by link": PERSONALITIES["by-link"],
}


class SimFolder(Folder):
    """A marked root on a simulated disk; all that is there to begin with is durable."""

    def __init__(self, personality, seed=0):
        ticks = itertools.count(1_800_000_000 * SECOND_NS, 1_000)
        self.path = "/home/f"
        self.disk = SimDisk(random.Random(seed), lambda: next(ticks), personality=personality)
        self.user = UserFiles(self.disk)
        self.user.make_directories(self.path)
        self.fs = self.process = SimFiles(self.disk)
        RootGuard(self.fs, self.path, FOLDER).mark()
        self.journal = MemoryJournal()
        self.entropy = Counting()
        self.clock = Ticks()

    def write(self, path, data):
        self.user.write(self.at(path), data, parents=True)

    def read(self, path):
        return self.user.read(self.at(path))

    def tree(self):
        found = {}
        for path, one in self.disk.tree(self.path, without=".kinfolder").items():
            if one.kind is Kind.DIRECTORY:
                found[path + "/"] = b""
            else:
                found[path] = b"->" + one.data if one.kind is Kind.LINK else one.data
        return found

    def hidden(self):
        return sorted(
            path
            for path, one in self.disk.tree(f"{self.path}/.kinfolder").items()
            if "/" in path and (one.kind is not Kind.DIRECTORY or path.count("/"))
        )

    def begin(self):
        """Make all that is there durable, and count effects from here on."""
        with self.open() as root:
            self.fs.sync_all(root.handle)
        self.disk.hooks.effects = 0

    def stop_at(self, effect):
        """Let the process end just before an effect."""

        def before(_):
            if self.disk.hooks.effects > effect:
                self.process.kill()

        self.disk.hooks.before = before

    def restart(self, chance):
        """Cut the power, and let another process find what is left."""
        self.process.kill()
        cut_power(self.disk, chance)
        self.disk.hooks.before = None
        self.fs = self.process = SimFiles(self.disk)


def run(folder, steps, data, seen):
    """Carry steps out to the end; tell whether it came."""
    try:
        with folder.open() as root:
            staged = {item.id: stage_bytes(root, item, bytes_) for item, bytes_ in data}
            applier = Applier(root, folder.journal, folder.clock, folder.entropy, local=seen, staged=staged)
            list(applier.apply(steps(seen)))
            recover(root, folder.journal)
            empty_trash(root, folder.journal, before_ms=1 << 60)
    except Crashed:
        return False
    return True


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", SCENARIOS)
def test_the_power_fails_at_every_effect(name, kind):
    """Case 104."""
    for effect in itertools.count():
        ended = True
        for seed in range(CUTS):
            folder = SimFolder(KINDS[kind])
            steps, data, expected = SCENARIOS[name](folder)
            seen = folder.seen()
            folder.begin()
            folder.stop_at(effect)
            ended = run(folder, steps, data, seen)
            folder.restart(random.Random(seed))
            settle_all(folder)
            check(folder, expected, f"cut {seed} at effect {effect}", recovered=True)
            assert [entry for entry in folder.hidden() if not entry.startswith("tmp/")] == []
            assert not list(folder.journal.rows())
        if ended:
            assert effect > 4
            return


@pytest.mark.parametrize("kind", KINDS)
def test_the_power_fails_while_a_root_is_marked(kind):
    """A root is marked, or it can be marked again; once marking has returned it stays."""
    for effect in itertools.count():
        ended = True
        for seed in range(CUTS):
            folder = SimFolder(KINDS[kind])
            folder.user.remove_tree(folder.at(".kinfolder"))
            handle = folder.fs.open_root(folder.path)
            folder.fs.sync_all(handle)
            folder.disk.hooks.effects = 0
            folder.stop_at(effect)
            try:
                RootGuard(folder.fs, folder.path, FOLDER).mark()
            except Crashed:
                ended = False
            folder.restart(random.Random(seed))
            found = RootGuard(folder.fs, folder.path, FOLDER).open()
            assert isinstance(found, Root) or not ended
            if isinstance(found, RootMissing):
                RootGuard(folder.fs, folder.path, FOLDER).mark()
                assert isinstance(RootGuard(folder.fs, folder.path, FOLDER).open(), Root)
        if ended:
            return
