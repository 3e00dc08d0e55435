"""Random users between any two effects of random steps, with power cuts, on disks of every kind: what a user saved is there."""

from __future__ import annotations

import errno
import random

import pytest

from peer.disk.applier import Applier
from peer.disk.outcomes import Done
from peer.disk.recovery import empty_trash, recover
from peer.disk.walk import DiskError
from simulations.disk_door import SimFiles
from simulations.disk_faults import SeededFaults
from simulations.disk_hooks import Crashed
from simulations.power import cut_power
from tests.peer.disk.test_applier_power import KINDS, SimFolder
from tests.peer.disk.test_applier_random import PATHS, User, steps_for

SEEDS = 25
NEVER = 1 << 30


class SimUser(User):
    """The same user on a simulated disk."""

    def __init__(self, folder, chance):
        super().__init__(folder, chance)
        self._user = folder.user

    def _let_go(self, path):
        full = self._folder.at(path)
        self.owed.discard(self._user.read(full))
        self._own_links.add(self._user.stat(full).inode)

    def _write(self, path):
        token, full = self._token(), self._folder.at(path)
        if self._user.exists(full):
            self._let_go(path)
            self._own_links.discard(self._user.stat(full).inode)
        self._user.write(full, token)
        self.owed.add(token)

    def _save(self, path):
        token, full = self._token(), self._folder.at(path)
        if not self._user.is_directory(full.rpartition("/")[0]):
            raise NotADirectoryError
        if self._user.exists(full):
            self._let_go(path)
        self._user.write(self._folder.at("saving"), token)
        self._user.rename(self._folder.at("saving"), full)
        self.owed.add(token)

    def _remove(self, path):
        self._let_go(path)
        self._user.remove(self._folder.at(path))

    def _move(self, path):
        self._user.rename_new(self._folder.at(path), self._folder.at(self._chance.choice(PATHS)))

    def _move_directory(self, _):
        here, there = self._chance.sample(["d", "y", "z", "d/e", "e"], 2)
        self._user.rename_new(self._folder.at(here), self._folder.at(there))

    def _remove_directory(self, _):
        self._user.remove_directory(self._folder.at(self._chance.choice(["d", "y", "z", "d/e", "e"])))

    def _open_file(self, path):
        full = self._folder.at(path)
        if not self._user.exists(full) or self._user.is_directory(full):
            raise OSError(errno.ENOENT, "nothing to open")
        self._open.append(self._user.open(full))

    def _close(self, file):
        was, token = file.read(), self._token()
        file.truncate(0)
        file.write(token)
        if file.inode.links:
            self.owed.discard(was)
            self.owed.add(token)
        else:
            assert file.inode.number in self._own_links, "the last link of an open file was removed by us"
        file.close()


class Run:
    """One folder, one user, one list of steps, and what befalls them."""

    def __init__(self, kind, seed, *, faults=0.0):
        self.chance = random.Random(seed)
        self.folder = SimFolder(KINDS[kind], seed)
        for n, path in enumerate(PATHS[:5]):
            self.folder.write(path, b"synced %d" % n)
        self.user = SimUser(self.folder, self.chance)
        self.folder.begin()
        self.eagerness = self.chance.choice([0.02, 0.1, 0.3])
        self.fatal = self.chance.randrange(1, 120) if self.chance.random() < 0.7 else NEVER
        if faults:
            self.folder.disk.hooks.fault = SeededFaults(self.chance, share=faults)

    def _before(self, call):
        hooks = self.folder.disk.hooks
        if hooks.effects >= self.fatal:
            self.folder.process.kill()
        elif self.chance.random() < self.eagerness:
            self.user.act()

    def go(self):
        """Carry the steps out, perhaps not to the end; return how many were done."""
        folder, done = self.folder, 0
        seen = folder.seen()
        steps, data = steps_for(self.chance, seen)
        staged = folder.stage(data)
        folder.disk.hooks.effects = 0
        folder.disk.hooks.before = self._before
        try:
            with folder.open() as root:
                applier = Applier(root, folder.journal, folder.clock, folder.entropy, local=seen, staged=staged)
                for group in applier.apply(steps):
                    done += sum(isinstance(outcome, Done) for outcome in group)
                empty_trash(root, folder.journal, before_ms=1 << 60)
        except Crashed:
            pass
        except DiskError:
            assert folder.disk.hooks.fault is not None
        folder.disk.hooks.before = folder.disk.hooks.fault = None
        self.user.act()
        return done

    def restart(self, *, is_cut):
        """End the process, or the whole machine, and let the next one recover."""
        folder = self.folder
        folder.process.kill()
        if is_cut:
            self.user.leave()
            cut_power(folder.disk, self.chance, spares_users=True)
        folder.fs = folder.process = SimFiles(folder.disk)
        for _ in range(3):
            with folder.open() as root:
                recover(root, folder.journal)
                empty_trash(root, folder.journal, before_ms=1 << 60)
            self.user.leave()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("is_cut", [False, True], ids=["killed", "cut"])
def test_what_a_user_saved_is_there_in_the_end(kind, is_cut):
    done = 0
    for seed in range(SEEDS):
        run = Run(kind, seed)
        done += run.go()
        run.restart(is_cut=is_cut)
        there = {data for path, data in run.folder.tree().items() if not path.endswith("/")}
        assert run.user.owed <= there, (seed, run.user.owed - there, run.user.history)
        assert all(data.startswith((b"user ", b"synced ", b"remote ", b"->x")) for data in there), (seed, there)
        assert [name for name in run.folder.hidden() if not name.startswith("tmp/")] == [], seed
        assert not list(run.folder.journal.rows()), seed
    assert done > 10
