"""Users who work while everything around them is killed, and a ledger of what they saved.

Each content carries a token of its own. Every act of a user is one system call whose effect is known exactly: what a save
displaced or a removal took is looked at afterwards, outside of the folder, so the ledger never guesses who saw what.

Rule 1: a token is alive from the moment its save returned until a user's own act displaced that very content.
Rule 2: every content names its length and its hash, so a torn one is known wherever it turns up.
"""

from __future__ import annotations

import ctypes
import os
import random
import re
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from hashlib import blake2b
from pathlib import Path

from simulations.processes import tree_of

_LIBC = ctypes.CDLL(None, use_errno=True)
_AT_FDCWD = -100
_NOREPLACE, _EXCHANGE = 1, 2
_HEAD = re.compile(rb"token ([\w-]+) (\d+) ([0-9a-f]{16})\n")
_HEAD_BYTES = 80


def rename(old: Path, new: Path, how: int = _NOREPLACE) -> None:
    """Rename without replacing, or exchange two names, in one call."""
    if _LIBC.renameat2(_AT_FDCWD, os.fsencode(old), _AT_FDCWD, os.fsencode(new), how):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(new))


def content_of(token: str, size: int) -> bytes:
    """Return a content of this many bytes at least that carries a token."""
    filler = random.Random(token).randbytes(max(0, size - _HEAD_BYTES))
    digest = blake2b(token.encode() + filler, digest_size=8).hexdigest()
    return f"token {token} {len(filler)} {digest}\n".encode() + filler


def token_of(data: bytes) -> str | None:
    """Return a content's token, or None if it is not whole."""
    head = _HEAD.match(data)
    if head is None:
        return None
    filler = data[head.end() :]
    digest = blake2b(head[1] + filler, digest_size=8).hexdigest()
    return head[1].decode() if (len(filler), digest) == (int(head[2]), head[3].decode()) else None


class Ledger:
    """What all users of one folder saved, and what of it none of them took away."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._number = 0
        self.alive: set[str] = set()
        self.ever: set[str] = set()
        self.acts: list[str] = []
        """What happened, for the reader of a failed test."""

    def token(self, user: str) -> str:
        """Return a token that nobody had."""
        with self._lock:
            self._number += 1
            self.ever.add(token := f"{user}-{self._number}")
            return token

    def saved(self, token: str, act: str) -> None:
        """A save returned."""
        with self._lock:
            self.alive.add(token)
            self.acts.append(f"{time.monotonic():.3f} {act} [{token}]")

    def taken(self, token: str | None, act: str) -> None:
        """A user's act displaced this content."""
        with self._lock:
            self.alive.discard(token or "")
            self.acts.append(f"{time.monotonic():.3f} {act} took [{token}]")

    def check(self, root: Path, *, once: bool = True) -> None:
        """Say what of the ledger a settled tree does not hold, and what it holds that nobody wrote.

        Args:
            root: Of the tree.
            once: Whether everything must stand there once only. A file that was just put in place when its device was
                killed, and that its user then renamed before the restart, is there twice: nobody knows it was the same.

        Raises:
            AssertionError: With what was lost, torn or invented.
        """
        places: dict[str, list[str]] = defaultdict(list)
        torn = []
        for path, data in tree_of(root):
            if data == b"<dir>":
                continue
            token = token_of(data)
            if token is None:
                torn.append(path)
            else:
                places[token].append(path)
        assert not torn, f"torn: {torn}"
        lost = sorted(self.alive - set(places))
        assert not lost, f"lost: {[self.story(token) for token in lost]}"
        assert set(places) <= self.ever
        twice = sorted(token for token, paths in places.items() if len(paths) > 1)
        assert not (once and twice), f"twice: {[self.story(token) + places[token] for token in twice]}"

    def story(self, token: str) -> list[str]:
        """Return every act that names a token."""
        return [act for act in self.acts if f"[{token}]" in act] or [token]


class User(threading.Thread):
    """Somebody who works in one device's folder until told to stop."""

    def __init__(self, name: str, root: Path, ledger: Ledger, seed: int, *, large_bytes: int = 1_500_000) -> None:
        super().__init__(name=name, daemon=True)
        self._root = root
        self._desk = root.parent / f"desk-{name}"
        self._desk.mkdir(exist_ok=True)
        self._ledger = ledger
        self._chance = random.Random(seed)
        self._large_bytes = large_bytes
        self._over = threading.Event()
        self._count = 0
        self.error: BaseException | None = None

    def run(self) -> None:
        """Act, pause, act."""
        try:
            while not self._over.wait(self._chance.expovariate(12.0)):
                self.act()
        except BaseException as error:  # noqa: BLE001 - raised again by finish
            self.error = error

    def finish(self) -> None:
        """Stop working.

        Raises:
            BaseException: What went wrong in between.
        """
        self._over.set()
        self.join()
        if self.error is not None:
            raise self.error

    def act(self) -> None:
        """Do one thing; what is not there any more when the call is made is left alone."""
        acts: list[tuple[int, Callable[[], None]]] = [
            (5, self._create),
            (5, self._save_over),
            (3, self._write_in_place),
            (3, self._rename),
            (2, self._remove),
            (1, self._make_directory),
            (1, self._rename_directory),
        ]
        act = self._chance.choices([act for _, act in acts], [weight for weight, _ in acts])[0]
        try:
            act()
        except (FileNotFoundError, FileExistsError, NotADirectoryError, IsADirectoryError):
            pass
        except OSError as error:
            if error.errno not in {22, 39}:  # into itself, or not empty
                raise

    def _paths(self) -> Iterator[Path]:
        for directory, names, files in os.walk(self._root):
            names[:] = [name for name in names if name != ".kinfolder"]
            yield from (Path(directory, name) for name in files)

    def _files(self) -> list[Path]:
        return sorted(self._paths())

    def _directories(self) -> list[Path]:
        found = [self._root]
        for directory, names, _ in os.walk(self._root):
            names[:] = [name for name in names if name != ".kinfolder"]
            found += [Path(directory, name) for name in names]
        return sorted(found)

    def _fresh(self, kind: str = "f") -> str:
        self._count += 1
        return f"{kind}{self._count}-{self.name}"

    def _size(self) -> int:
        return self._chance.choice([200, 1_000, 3_000, 3_500, 60_000, self._large_bytes])

    def _draft(self, size: int) -> tuple[Path, str]:
        token = self._ledger.token(self.name)
        draft = self._desk / self._fresh("draft")
        draft.write_bytes(content_of(token, size))
        return draft, token

    def _create(self) -> None:
        draft, token = self._draft(self._size())
        target = self._chance.choice(self._directories()) / self._fresh()
        rename(draft, target)
        self._ledger.saved(token, f"{self.name} created {target.name}")

    def _save_over(self) -> None:
        """Save as most programs do: the new file takes the old one's name."""
        if files := self._files():
            target = self._chance.choice(files)
            draft, token = self._draft(self._size())
            rename(draft, target, _EXCHANGE)
            self._ledger.saved(token, f"{self.name} saved {target.name}")
            self._taken(draft, f"{self.name} saved {target.name}")

    def _write_in_place(self) -> None:
        """Write into a small file as it stands; one call, so there is no state in between."""
        if files := self._files():
            target = self._chance.choice(files)
            with open(target, "r+b", buffering=0) as file:
                old = file.read(4_096)
                seen = token_of(old)
                if seen is None or len(old) < 150 or os.fstat(file.fileno()).st_size != len(old):
                    return
                token = self._ledger.token(self.name)
                data = content_of(token, len(old))
                data = content_of(token, len(old) + _HEAD_BYTES - len(data) + len(old) - _HEAD_BYTES)
                if len(data) != len(old):
                    return
                os.pwrite(file.fileno(), data, 0)
                self._ledger.saved(token, f"{self.name} wrote into {target.name}")
                self._ledger.taken(seen, f"{self.name} wrote into {target.name}")

    def _rename(self) -> None:
        if files := self._files():
            source = self._chance.choice(files)
            target = self._chance.choice(self._directories()) / self._fresh("m")
            rename(source, target)
            self._ledger.acts.append(f"{time.monotonic():.3f} {self.name} renamed {source.name} to {target.name}")

    def _remove(self) -> None:
        if files := self._files():
            source = self._chance.choice(files)
            taken = self._desk / self._fresh("taken")
            rename(source, taken)
            self._taken(taken, f"{self.name} removed {source.name}")

    def _make_directory(self) -> None:
        (self._chance.choice(self._directories()) / self._fresh("d")).mkdir()

    def _rename_directory(self) -> None:
        directories = self._directories()
        if len(directories) > 2:
            source, target = self._chance.choice(directories[1:]), self._chance.choice(directories)
            rename(source, target / self._fresh("e"))

    def _taken(self, path: Path, act: str) -> None:
        self._ledger.taken(token_of(path.read_bytes()), act)
        path.unlink()


class Reader(threading.Thread):
    """Looks at everything under users' names, again and again: nothing there may ever be half-written."""

    def __init__(self, *roots: Path) -> None:
        super().__init__(name="reader", daemon=True)
        self._roots = roots
        self._over = threading.Event()
        self.looked = 0
        self.torn: list[str] = []

    def run(self) -> None:
        """Read files until told to stop."""
        while not self._over.wait(0.02):
            for root in self._roots:
                for directory, names, files in os.walk(root):
                    names[:] = [name for name in names if name != ".kinfolder"]
                    for name in files:
                        if self._over.is_set():
                            return
                        self._look(Path(directory, name))

    def _look(self, path: Path) -> None:
        try:
            data = path.read_bytes()
        except OSError:
            return
        self.looked += 1
        # A small file may have been written to while it was read.
        if token_of(data) is None and (len(data) > 4_096 or token_of(path.read_bytes()) is None):
            self.torn.append(f"{path}: {len(data)} bytes, {data[:80]!r}")

    def finish(self) -> None:
        """Stop, and say what was torn."""
        self._over.set()
        self.join()
        assert not self.torn, self.torn
