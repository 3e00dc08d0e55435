"""Random users between any two calls of random steps, with kills: what a user wrote and did not remove is there in the end."""

from __future__ import annotations

import os
import random

import pytest

from peer.core.operations import Delete, Place, Rename, Replace, SetAttributes, Step
from peer.disk.applier import Applier
from peer.disk.files import LinuxFileSystem
from peer.disk.outcomes import Done
from peer.disk.recovery import empty_trash, recover
from protocol.entries import Kind
from tests.peer.disk.kit import Folder, Fuse, FusedJournal, Killed, Wrapped, item_at, without_exchange

PATHS = ["a", "b", "d/a", "d/b", "d/e/a", "new", "d/new", "y/a", "z/b", "moved2"]


class User:
    """Saves, moves and removes, and remembers what must not be lost."""

    def __init__(self, folder, chance):
        self._folder = folder
        self._chance = chance
        self._count = 0
        self._open = []
        self._own_links = set()
        self.owed: set[bytes] = set()
        """What was written and neither overwritten nor removed by the user since."""
        self.history: list[str] = []

    def act(self):
        path = self._chance.choice(PATHS)
        files = [self._write, self._save, self._remove, self._move, self._open_file, self._write_late]
        action = self._chance.choice([*files, *files, self._move_directory, self._remove_directory])
        try:
            action(path)
        except OSError:
            return
        self.history.append(f"{action.__name__} {path}")

    def _token(self):
        self._count += 1
        return b"user %d " % self._count + b"." * self._chance.randrange(3)

    def _let_go(self, path):
        """The user sees what is at a path and gives it up."""
        with open(self._folder.at(path), "rb") as file:
            self.owed.discard(file.read())
            self._own_links.add(os.fstat(file.fileno()).st_ino)

    def _write(self, path):
        token = self._token()
        full = self._folder.at(path)
        if os.path.exists(full):
            self._let_go(path)
            self._own_links.discard(os.stat(full).st_ino)
        with open(full, "wb") as file:
            file.write(token)
        self.owed.add(token)

    def _save(self, path):
        token = self._token()
        full = self._folder.at(path)
        if not os.path.isdir(os.path.dirname(full)):
            raise NotADirectoryError
        if os.path.exists(full):
            self._let_go(path)
        with open(self._folder.at("saving"), "wb") as file:
            file.write(token)
        os.rename(self._folder.at("saving"), full)
        self.owed.add(token)

    def _remove(self, path):
        self._let_go(path)
        os.unlink(self._folder.at(path))

    def _move(self, path):
        target = self._folder.at(self._chance.choice(PATHS))
        if os.path.exists(target):
            raise FileExistsError
        os.rename(self._folder.at(path), target)

    def _move_directory(self, _):
        here, there = self._chance.sample(["d", "y", "z", "d/e", "e"], 2)
        if os.path.exists(self._folder.at(there)):
            raise FileExistsError
        os.rename(self._folder.at(here), self._folder.at(there))

    def _remove_directory(self, _):
        os.rmdir(self._folder.at(self._chance.choice(["d", "y", "z", "d/e", "e"])))

    def _open_file(self, path):
        self._open.append(os.open(self._folder.at(path), os.O_RDWR))

    def _write_late(self, _):
        if self._open:
            self._close(self._open.pop())

    def _close(self, file):
        found = os.fstat(file)
        was = os.pread(file, 1000, 0)
        token = self._token()
        os.ftruncate(file, 0)
        os.pwrite(file, token, 0)
        if found.st_nlink:
            self.owed.discard(was)
            self.owed.add(token)
        else:
            assert found.st_ino in self._own_links, "the last link of an open file was removed by us"
        os.close(file)

    def leave(self):
        while self._open:
            self._close(self._open.pop())


def steps_for(chance, seen):
    """Return steps that a plan might hold, with the bytes they need."""
    steps: list[Step] = []
    data = []
    for n, (path, item) in enumerate(sorted(seen.by_path.items())):
        bytes_ = b"remote %d" % n
        if item.content.kind is not Kind.FILE:
            if path == "d" and chance.random() < 0.3:
                moved = item_at("z", kind=Kind.DIRECTORY, id="d")
                steps.append(Rename(item, moved, aside=chance.random() < 0.5))
                steps.append(Rename(item, moved, from_aside=True))
            elif chance.random() < 0.3:
                steps.append(Delete(item))
            continue
        match chance.randrange(6):
            case 0 | 1:
                kind = chance.choice([Kind.FILE, Kind.FILE, Kind.FILE, Kind.LINK, Kind.DIRECTORY])
                new = item_at(path, bytes_, kind=kind, target=b"x")
                steps.append(Replace(item, new))
                if kind is Kind.FILE:
                    data.append((new, bytes_))
            case 2:
                steps.append(Delete(item))
            case 3:
                moved = item_at(f"moved{n}", id=path)
                moved = type(moved)(item.id, moved.parent, moved.name, item.content)
                if chance.random() < 0.5:
                    steps.append(Rename(item, moved, aside=True))
                steps.append(Rename(item, moved, from_aside=True))
            case 4:
                steps.append(SetAttributes(item, item_at(path, id=path)))
            case _:
                pass
    for path in ("new", "d/new"):
        new = item_at(path, b"remote " + path.encode(), id="placed " + path)
        steps.append(Place(new))
        data.append((new, b"remote " + path.encode()))
    chance.shuffle(steps)
    steps.sort(key=_comes_out)
    return steps, data


def _comes_out(step):
    return isinstance(step, Rename) and step.from_aside


@pytest.mark.parametrize("block", range(5))
def test_what_a_user_wrote_is_there_in_the_end(tmp_path, block):
    """Invariants 1 and 3 of the architecture, on a real disk: nothing lost, nothing torn."""
    done = 0
    for seed in range(block * 20, block * 20 + 20):
        chance = random.Random(seed)
        folder = Folder(str(tmp_path / str(seed)), LinuxFileSystem())
        for n, path in enumerate(PATHS[:5]):
            folder.write(path, b"synced %d" % n)
        if chance.random() < 0.4:
            folder.fs = without_exchange(folder.fs)
        user = User(folder, chance)
        seen = folder.seen()
        steps, data = steps_for(chance, seen)
        staged = folder.stage(data)
        fuse = Fuse(chance.randrange(20, 400) if chance.random() < 0.5 else 1 << 30)
        eagerness = chance.choice([0.02, 0.1, 0.3])

        def before(*args, fuse=fuse, user=user, chance=chance, eagerness=eagerness):
            if chance.random() < eagerness:
                user.act()
            fuse.burn(*args)

        door = Wrapped(folder.fs, before)
        try:
            root = folder.open(door)
            journal = FusedJournal(folder.journal, fuse)
            applier = Applier(root, journal, folder.clock, folder.entropy, local=seen, staged=staged)
            for group in applier.apply(steps):
                done += sum(isinstance(outcome, Done) for outcome in group)
            empty_trash(root, journal, before_ms=1 << 60)
            root.close()
        except Killed:
            door.die()
        finally:
            user.act()
        for _ in range(2):
            with folder.open() as root:
                recover(root, folder.journal)
                empty_trash(root, folder.journal, before_ms=1 << 60)
            user.leave()
        with folder.open() as root:
            recover(root, folder.journal)
            empty_trash(root, folder.journal, before_ms=1 << 60)
        there = {data for path, data in folder.tree().items() if not path.endswith("/")}
        assert user.owed <= there, (seed, user.owed - there, user.history)
        assert all(data.startswith((b"user ", b"synced ", b"remote ", b"->x")) for data in there), (seed, there)
        assert not [name for name in folder.hidden() if not name.startswith("tmp/")], seed
        assert not list(folder.journal.rows())
    assert done > 20
