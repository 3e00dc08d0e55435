"""What people and programs do to a folder: on the disk alone, by paths, and written down in the ledger.

Each action draws what it does from its own seed, from what stands on the disk at that moment. So dropping one action from
a history leaves the others meaningful.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from peer.core.tree import find
from protocol.entries import Kind
from protocol.ids import NodeId
from simulations.plan.belongings import Belongings
from simulations.plan.device import Device
from simulations.plan.disk import Inode
from simulations.plan.ledger import Chain, Ledger

OLD_TIMES: Final = (1, 1_000_000_000, 4_000_000_000_000_000_000)
"""In 1970, shortly afterwards, and far in the future."""
COPIES_MAX: Final = 6

POOLS: Final[Mapping[str, tuple[str, ...]]] = {
    "few": ("a", "b", "c", "D"),
    "cases": ("a", "A", "b", "B", "d"),
    "forms": ("\u00e9", "e\u0301", "a", "b.txt", "b (conflict, D1, 00000000).txt"),
    "files": ("log", "log.1", "log.2", "f.txt", "f.txt~", "D"),
}


class User(Belongings):
    """One person at one device.

    Args:
        device: Hers.
        ledger: Of all.
        names: What she calls things.
        saw: What her disk has shown.
    """

    def __init__(self, device: Device, ledger: Ledger, names: tuple[str, ...], saw: Mapping[int, int]) -> None:
        super().__init__(device, ledger)
        self._names = names
        self._saw = saw

    def act(self, chance: random.Random) -> str:
        """Do something; return what, "" if there was nothing to do it with."""
        for _ in range(4):
            name, do = chance.choice(ACTIONS)
            path = do(self, chance)
            if path is not None:
                self._hint(path, chance)
                return f"{name} {path}"
        return ""

    def _hint(self, paths: str, chance: random.Random) -> None:
        """Let the watcher tell of it, unless it misses something."""
        if chance.random() < 0.8:
            hints = self._device.hints
            for path in paths.split(" -> "):
                hints.setdefault(path.rpartition("/")[0], False)
                inode = self._disk.find(path)
                if inode is not None and inode.is_directory:
                    hints[path] = True  # it came, or what is in it did

    # --- What is there

    def _look(self) -> tuple[dict[str, Inode], list[str], list[str]]:
        shown = dict(self._disk.walk())
        return (
            shown,
            [path for path, inode in shown.items() if not inode.is_directory],
            [path for path, inode in shown.items() if inode.is_directory],
        )

    def _free(self, directories: Iterable[str], *, beside: str = "") -> list[str]:
        """Return paths at which nothing stands, but for those under ``beside``."""
        found = []
        for above in ("", *directories):
            if beside and f"{above}/".startswith(f"{beside}/"):
                continue
            for name in self._names:
                path = f"{above}/{name}" if above else name
                if not self._disk.exists(path):
                    found.append(path)
        return found

    def _note(
        self,
        op: str,
        path: str,
        *,
        wrote: Iterable[str] = (),
        killed: Iterable[tuple[str, Chain]] = (),
        tops: frozenset[NodeId] = frozenset(),
        touched: Iterable[str] = (),
    ) -> None:
        self._ledger.note(
            self._device.number,
            op,
            path,
            saw=self._saw,
            since=self._device.replica.seq,
            wrote=[token for token in wrote if token],
            killed=killed,
            tops=tops,
            touched=touched,
            names=[part for each in path.split(" -> ") for part in each.split("/")],
        )

    # --- Writing

    def create(self, chance: random.Random, token: str | None = None) -> str | None:
        """Make a file."""
        free = self._free(self._look()[2])
        if not free:
            return None
        path = chance.choice(free)
        token = self._ledger.token() if token is None else token
        self._disk.write(path, token)
        self._note("create", path, wrote=[token])
        return path

    def create_same(self, chance: random.Random) -> str | None:
        """Make a file with bytes that others may make, too."""
        return self.create(chance, f"s{chance.randrange(2)}")

    def create_empty(self, chance: random.Random) -> str | None:
        """Make an empty file."""
        return self.create(chance, "")

    def mkdir(self, chance: random.Random) -> str | None:
        """Make a directory."""
        free = self._free(self._look()[2])
        if not free:
            return None
        path = chance.choice(free)
        self._disk.mkdir(path)
        self._note("mkdir", path)
        return path

    def mkdirs(self, chance: random.Random) -> str | None:
        """Unpack something: a directory with a few files."""
        path = self.mkdir(chance)
        for name in self._names[:3] if path is not None else ():
            if self._disk.exists(f"{path}/{name}"):
                continue  # by another spelling
            token = self._ledger.token()
            self._disk.write(f"{path}/{name}", token)
            self._note("create", f"{path}/{name}", wrote=[token])
        return path

    def edit(self, chance: random.Random) -> str | None:
        """Write a file in place; with the same size and time, if it comes so."""
        path = self._a_file(chance)
        if path is None:
            return None
        self._rewrite(path, self._ledger.token(), keep_time=chance.random() < 0.2)
        return path

    def _rewrite(self, path: str, token: str, *, keep_time: bool = False) -> None:
        inode = self._disk.at(path)
        killed = self._taken(path)
        mtime = inode.mtime
        if inode.kind is Kind.LINK:
            inode.data = token
            inode.ctime = self._disk.tick()
        else:
            self._disk.write(path, token)
        if keep_time:
            self._disk.touch(path, mtime)
        self._note("edit", path, wrote=[token], killed=killed)

    def revert(self, chance: random.Random) -> str | None:
        """Write bytes again that somebody wrote before."""
        path = self._a_file(chance)
        if path is None or not self._ledger.tokens:
            return None
        self._rewrite(path, f"t{chance.randint(1, self._ledger.tokens)}")
        return path

    def truncate(self, chance: random.Random) -> str | None:
        """Leave nothing in a file."""
        path = self._a_file(chance)
        if path is not None:
            self._rewrite(path, "")
        return path

    def save_anew(self, chance: random.Random) -> str | None:
        """Save as many editors do: write another file, and rename it over the old one."""
        path = self._a_file(chance)
        if path is None:
            return None
        token, killed = self._ledger.token(), self._taken(path)
        inode = self._disk.new(0o100644, token)
        directory = self._disk.at(path.rpartition("/")[0])
        name = self._disk.spelling(directory, path.rpartition("/")[2])
        assert name is not None
        self._disk.release(self._disk.unput(directory, name))
        self._disk.put(directory, name, inode)
        self._note("edit", path, wrote=[token], killed=killed)
        return path

    def save_with_backup(self, chance: random.Random) -> str | None:
        """Save as others do: put the old file aside as a backup, write a new one, and perhaps remove the backup."""
        path = self._a_file(chance)
        if path is None or self._disk.exists(f"{path}~"):
            return None
        token, killed = self._ledger.token(), self._taken(path)
        self._disk.move(path, f"{path}~")
        self._disk.write(path, token)
        if chance.random() < 0.5:
            self._disk.remove(f"{path}~")
            self._note("edit", path, wrote=[token], killed=killed)
        else:
            self._note("save", f"{path} -> {path}~", wrote=[token, *(each for each, _ in killed)], killed=killed)
        return path

    def touch(self, chance: random.Random) -> str | None:
        """Change attributes alone."""
        path = self._a_file(chance)
        if path is None or self._disk.at(path).kind is Kind.LINK:
            return None
        if chance.random() < 0.4:
            self._disk.chmod(path, executable=chance.random() < 0.5)
        else:
            self._disk.touch(path, chance.choice((None, *OLD_TIMES)))
        self._note("touch", path)
        return path

    def make_link(self, chance: random.Random) -> str | None:
        """Make a link."""
        free = self._free(self._look()[2])
        if not free:
            return None
        path, token = chance.choice(free), self._ledger.token()
        self._disk.symlink(path, token)
        self._note("link", path, wrote=[token])
        return path

    def change_kind(self, chance: random.Random) -> str | None:
        """Replace a file by a directory, or a directory by a file."""
        shown, files, directories = self._look()
        if not shown:
            return None
        path = chance.choice(files + directories)
        killed, was_directory = self._taken(path), shown[path].is_directory
        self._disk.remove(path)
        token = self._ledger.token() if was_directory else ""
        if was_directory:
            self._disk.write(path, token)
        else:
            self._disk.mkdir(path)
        self._note("replace", path, wrote=[token], killed=killed)
        return path

    def copy(self, chance: random.Random) -> str | None:
        """Copy a file or a tree."""
        shown, files, directories = self._look()
        if not shown:
            return None
        path = chance.choice(files + directories)
        free = self._free(directories, beside=path)
        if not free or len(self._texts(path)) > COPIES_MAX:
            return None
        to = chance.choice(free)
        wrote = list(self._copy(shown[path], to))
        self._note("copy", f"{path} -> {to}", wrote=wrote)
        return to

    def _copy(self, inode: Inode, to: str) -> Iterable[str]:
        if inode.is_directory:
            self._disk.mkdir(to)
            for name, below in list(inode.names.items()):
                yield from self._copy(below, f"{to}/{name}")
        elif inode.kind is Kind.LINK:
            self._disk.symlink(to, inode.data)
            yield inode.data
        else:
            self._disk.write(to, inode.data)
            yield inode.data

    # --- Moving

    def rename(self, chance: random.Random) -> str | None:
        """Move a file or a directory to a free place."""
        shown, files, directories = self._look()
        return self._move(chance, files + directories, directories) if shown else None

    def rename_directory(self, chance: random.Random) -> str | None:
        """Move a directory, also into another one."""
        directories = self._look()[2]
        return self._move(chance, directories, directories) if directories else None

    def _move(self, chance: random.Random, paths: list[str], directories: list[str]) -> str | None:
        path = chance.choice(paths)
        free = self._free(directories, beside=path)
        if not free:
            return None
        to = chance.choice(free)
        tops, touched = frozenset(self._ids(self._disk.at(path))), self._texts(path)
        self._share_if_over(to, touched)
        self._disk.move(path, to)
        self._note("move", f"{path} -> {to}", tops=tops, touched=touched)
        return f"{path} -> {to}"

    def _share_if_over(self, to: str, touched: Iterable[str]) -> None:
        """What takes a path that the last scan saw may count as an edit of what stood there."""
        if find(self._device.local, to) is not None:
            self._ledger.shared.update(touched)

    def move_over(self, chance: random.Random) -> str | None:
        """Move a file over another one."""
        files = self._look()[1]
        if len(files) < 2:
            return None
        path, to = chance.sample(files, 2)
        tops, touched, killed = frozenset(self._ids(self._disk.at(path))), self._texts(path), self._taken(to)
        self._ledger.shared.update(touched)
        self._disk.move(path, to)
        self._note("move", f"{path} -> {to}", tops=tops, touched=touched, killed=killed)
        return f"{path} -> {to}"

    def swap(self, chance: random.Random) -> str | None:
        """Let two files, or two directories, change names."""
        _, files, directories = self._look()
        kind = files if chance.random() < 0.6 else directories
        if len(kind) < 2:
            return None
        one, other = chance.sample(kind, 2)
        if f"{one}/".startswith(f"{other}/") or f"{other}/".startswith(f"{one}/"):
            return None
        tops = frozenset(self._ids(self._disk.at(one)) | self._ids(self._disk.at(other)))
        touched = self._texts(one) | self._texts(other)
        if f"{one}~" == other or f"{other}~" == one:
            self._ledger.shared |= touched  # it looks as if an editor had made a backup and written anew
        self._disk.swap(one, other)
        self._note("swap", f"{one} -> {other}", tops=tops, touched=touched)
        return f"{one} -> {other}"

    def rotate(self, chance: random.Random) -> str | None:
        """Rotate files as logs are: the last goes, each takes the name of the next, and a new first one begins."""
        _, files, directories = self._look()
        if not files:
            return None
        above = chance.choice(["", *directories])
        chain = [f"{above}/{name}".lstrip("/") for name in ("log", "log.1", "log.2")]
        there = [path for path in chain if path in files]
        if any(path in directories for path in chain) or not there:
            return None
        killed = self._taken(chain[2]) if chain[2] in files else []
        if chain[2] in files:
            self._disk.remove(chain[2])
        tops: set[NodeId] = set()
        touched: set[str] = set()
        for old, new in ((chain[1], chain[2]), (chain[0], chain[1])):
            if old in files:
                tops |= self._ids(self._disk.at(old))
                touched |= self._texts(old)
                self._disk.move(old, new)
        token = self._ledger.token()
        self._disk.write(chain[0], token)
        self._ledger.shared |= touched
        path = " -> ".join(chain)
        self._note("rotate", path, wrote=[token], killed=killed, tops=frozenset(tops), touched=touched)
        return path

    def invert(self, chance: random.Random) -> str | None:
        """Turn A/B into B/A."""
        inner = [path for path in self._look()[2] if "/" in path]
        if not inner:
            return None
        path = chance.choice(inner)
        above, name = path.rsplit("/", 1)
        top, place = above.rpartition("/")[2], above.rpartition("/")[0]
        aside = f"{place}/.aside".lstrip("/")
        inside = self._disk.at(path)
        if self._disk.spelling(inside, top) is not None:
            return None
        tops = frozenset(self._ids(inside) | self._ids(self._disk.at(above)))
        touched = self._texts(above)
        self._disk.move(path, aside)
        self._disk.move(above, f"{aside}/{top}")
        to = f"{place}/{name}".lstrip("/")
        if self._disk.exists(to):
            to = above
        self._disk.move(aside, to)
        self._note("invert", f"{path} -> {to}/{top}", tops=tops, touched=touched)
        return f"{path} -> {to}"

    # --- Removing

    def remove(self, chance: random.Random) -> str | None:
        """Remove a file, or a directory with all in it."""
        shown, files, directories = self._look()
        return self._remove(chance.choice(files + directories)) if shown else None

    def remove_tree(self, chance: random.Random) -> str | None:
        """Remove a directory with all in it."""
        directories = self._look()[2]
        return self._remove(chance.choice(directories)) if directories else None

    def _remove(self, path: str) -> str:
        killed = self._taken(path)
        self._disk.remove(path)
        self._note("remove", path, killed=killed)
        return path

    def move_out_and_remove(self, chance: random.Random) -> str | None:
        """Save one file out of a directory, and remove the rest."""
        _, files, directories = self._look()
        inner = [path for path in files if "/" in path]
        free = [path for path in self._free(()) if path not in directories]
        if not inner or not free:
            return None
        path, to = chance.choice(inner), chance.choice(free)
        tops, touched = frozenset(self._ids(self._disk.at(path))), self._texts(path)
        self._share_if_over(to, touched)
        self._disk.move(path, to)
        self._note("move", f"{path} -> {to}", tops=tops, touched=touched)
        return f"{path} -> {to} -> {self._remove(path.rsplit('/', 1)[0])}"

    # --- Choosing

    def _a_file(self, chance: random.Random) -> str | None:
        files = self._look()[1]
        return chance.choice(files) if files else None


Action = Callable[[User, random.Random], str | None]
_WEIGHTS: Final[tuple[tuple[Action, int], ...]] = (
    (User.create, 5),
    (User.create_same, 2),
    (User.create_empty, 1),
    (User.mkdir, 3),
    (User.mkdirs, 2),
    (User.edit, 7),
    (User.revert, 1),
    (User.truncate, 1),
    (User.save_anew, 2),
    (User.save_with_backup, 2),
    (User.touch, 2),
    (User.make_link, 1),
    (User.change_kind, 1),
    (User.copy, 2),
    (User.rename, 7),
    (User.rename_directory, 4),
    (User.move_over, 2),
    (User.swap, 2),
    (User.rotate, 1),
    (User.invert, 1),
    (User.remove, 3),
    (User.remove_tree, 2),
    (User.move_out_and_remove, 1),
)
ACTIONS: Final = tuple((do.__name__, do) for do, weight in _WEIGHTS for _ in range(weight))
