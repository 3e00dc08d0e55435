"""The simulated disk against Linux itself: the same random calls, and everything that can be seen must be the same."""

from __future__ import annotations

import errno
import os
import random
import shutil
import stat
import tempfile
import time
from contextlib import contextmanager

import pytest

from peer.disk.files import LinuxFileSystem
from protocol.effects import Access
from simulations.disk import USER, SimDisk
from simulations.disk_door import SimFiles

NAMES = ["a", "b", "c", "d", "é", "x" * 255]
BAD_NAMES = ["", ".", "..", "a/b", "x" * 256, "\ud800"]
MODES = [0o000, 0o100, 0o200, 0o300, 0o400, 0o500, 0o600, 0o700, 0o644, 0o755, 0o070, 0o4755, 0o1777]
ON_FILES = frozenset({"write", "truncate", "read", "mtime", "writer"})
KINDS = [
    kind
    for kind, weight in {
        "mkdir": 3,
        "create": 3,
        "rename": 3,
        "exchange": 2,
        "opendir": 2,
        "write": 2,
        "close": 2,
        **dict.fromkeys(["link", "openread", "openwrite", "unlink", "rmdir", "lstat", "readlink"], 1),
        **dict.fromkeys(["truncate", "read", "mode", "mtime", "sync", "writer"], 1),
    }.items()
    for _ in range(weight)
]
CALLS = 250
SEEDS = 6
EXACT_SEEDS = 1
TMPFS = "/dev/shm"
COARSE_CLOCK = 5
"""Linux's number of the clock that stamps files."""


@contextmanager
def as_user(uid):
    """Let this process have the rights of a user, where it is root."""
    if os.geteuid() != 0 or uid == 0:
        yield
        return
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def real_path(tmp_path):
    """A directory on tmpfs if there is one, else in the temporary directory."""
    path = tempfile.mkdtemp(dir=TMPFS) if os.path.isdir(TMPFS) else str(tmp_path / "fuzz")
    os.makedirs(path, exist_ok=True)
    os.chmod(path, 0o755)
    before = os.umask(0o022)
    yield path
    os.umask(before)
    for at, directories, _ in os.walk(path):
        for name in directories:
            os.chmod(os.path.join(at, name), 0o700)
    shutil.rmtree(path)


class Side:
    """One of the two disks, with what is open there: the same things at the same places."""

    def __init__(self, fs, path):
        self.fs = fs
        self.opened = [fs.open_root(path)]
        self.before = {}

    def do(self, call):
        """Return what a call did: its result, or its error's number."""
        try:
            return call(self.fs, self.opened)
        except OSError as error:
            return f"E{errno.errorcode[error.errno or 0]}"

    def kinds(self):
        """Return which of what is open are directories, and which are none."""
        found: tuple[list[int], list[int]] = ([], [])
        for number, handle in enumerate(self.opened):
            if handle is not None:
                found[not stat.S_ISDIR(self.fs.fstat(handle).mode)].append(number)
        return found

    def look(self):
        """Return all that stands there, and which of it was changed since the last look, by its time stamps."""
        found: dict[str, object] = {}
        times: dict[str, tuple[int, int]] = {}
        self._look(self.opened[0], "", found, times)
        for number, handle in enumerate(self.opened):
            if handle is not None:
                self._note(f"#{number}", self.fs.fstat(handle), found, times)
        changed = {
            path: (times[path][0] != self.before[path][0], times[path][1] != self.before[path][1])
            for path in times
            if path in self.before and times[path] != self.before[path]
        }
        self.before = times
        return found, changed

    def _note(self, path, seen, found, times):
        size = 0 if stat.S_ISDIR(seen.mode) else seen.size
        found[path] = (stat.S_IFMT(seen.mode), stat.S_IMODE(seen.mode), size)
        times[path] = (seen.mtime_ns, seen.ctime_ns)

    def _look(self, directory, path, found, times):
        try:
            listed = sorted(self.fs.list(directory))
        except OSError as error:
            found[path + "/"] = errno.errorcode[error.errno or 0]
            return
        for name, seen in listed:
            if seen is None:
                found[path + "/" + name] = "unseen"
                continue
            self._note(path + "/" + name, seen, found, times)
            if stat.S_ISDIR(seen.mode):
                try:
                    below = self.fs.open_directory(directory, name)
                except OSError as error:
                    found[path + "/" + name + "/"] = errno.errorcode[error.errno or 0]
                    continue
                self._look(below, path + "/" + name, found, times)
                self.fs.close(below)

    def contents(self):
        """Return the bytes of all open files."""
        found = []
        for handle in self.opened:
            if handle is not None and stat.S_ISREG(self.fs.fstat(handle).mode):
                buffer = memoryview(bytearray(min(self.fs.fstat(handle).size, 1 << 20)))
                count = self.fs.read(handle, buffer, 0)
                found.append(bytes(buffer[:count]))
        return found

    def close(self):
        for handle in self.opened:
            if handle is not None:
                self.fs.close(handle)


def opening(open_it):
    def call(fs, opened):
        opened.append(open_it(fs, opened))
        return "opened"

    return call


def closing(number):
    def call(fs, opened):
        fs.close(opened[number])
        opened[number] = None
        return "closed"

    return call


def reading(at, size, offset):
    def call(fs, opened):
        buffer = memoryview(bytearray(size))
        return bytes(buffer[: fs.read(opened[at], buffer, offset)])

    return call


def drawn(rng, side):
    """Return a description of a random call and the call itself."""
    directories, files = side.kinds()
    recent = [0, *directories[-5:]]
    one, two = rng.choice(recent), rng.choice(recent)
    name = rng.choice(NAMES if rng.random() < 0.97 else BAD_NAMES)
    other = rng.choice(NAMES if rng.random() < 0.97 else BAD_NAMES)
    kind = rng.choice(KINDS)
    if files and (kind in ON_FILES or rng.random() < 0.03):
        one = rng.choice(files[-8:] if rng.random() < 0.9 else recent)
        name = other = "a"
    match kind:
        case "mkdir":
            mode = rng.choice([0o777, 0o777, 0o700, *MODES])
            return (kind, one, name, mode), lambda fs, o: fs.make_directory(o[one], name, mode)
        case "link":
            target = rng.choice([b"a", b"", b"../b", b"x" * 4095, b"x" * 4096, b"a\0b"])
            return (kind, one, name, target[:9]), lambda fs, o: fs.make_link(o[one], name, target)
        case "create" | "openread" | "openwrite":
            access = {"create": Access.CREATE, "openread": Access.READ, "openwrite": Access.WRITE}[kind]
            return (kind, one, name), opening(lambda fs, o: fs.open_file(o[one], name, access))
        case "opendir":
            return (kind, one, name), opening(lambda fs, o: fs.open_directory(o[one], name))
        case "rename":
            return (kind, one, name, two, other), lambda fs, o: fs.rename(o[one], name, o[two], other)
        case "exchange":
            return (kind, one, name, two, other), lambda fs, o: fs.exchange(o[one], name, o[two], other)
        case "unlink":
            return (kind, one, name), lambda fs, o: fs.unlink(o[one], name)
        case "rmdir":
            return (kind, one, name), lambda fs, o: fs.remove_directory(o[one], name)
        case "lstat":
            return (kind, one, name), lambda fs, o: stat.S_IFMT(fs.lstat(o[one], name).mode)
        case "readlink":
            return (kind, one, name), lambda fs, o: fs.read_link(o[one], name)
        case "write":
            data = rng.randbytes(rng.choice([0, 1, 100, 70_000]))
            offset = rng.choice([0, 0, 50, 65_500, 200_000, -1])
            return (kind, one, len(data), offset), lambda fs, o: fs.write(o[one], data, offset)
        case "truncate":
            size = rng.choice([0, 1, 60, 65_536, 65_600, 300_000, -1, 1 << 62, 1 << 70])
            return (kind, one, size), lambda fs, o: fs.truncate(o[one], size)
        case "read":
            size, offset = rng.choice([0, 10, 70_000]), rng.choice([0, 40, 65_530, 1 << 40])
            return (kind, one, size, offset), reading(one, size, offset)
        case "mode":
            mode = rng.choice([0o755, 0o700, *MODES])
            return (kind, one, mode), lambda fs, o: fs.set_attributes(o[one], mode=mode)
        case "mtime":
            when = rng.choice([0, 1_700_000_000_123_456_789, 1 << 100])
            return (kind, one, when), lambda fs, o: fs.set_attributes(o[one], mtime_ns=when)
        case "sync":
            return (kind, one), lambda fs, o: fs.sync(o[one])
        case "writer":
            return (kind, one), lambda fs, o: fs.has_writer(o[one])
        case _:
            one = rng.choice([*directories[-5:], *files[-8:], 0])
            return (kind, one), closing(one) if one else (lambda fs, o: None)


@pytest.mark.parametrize("uid", [USER, 0])
def test_every_call_comes_out_as_on_linux(real_path, uid):
    if os.geteuid() != 0 and uid == 0:
        pytest.skip("only root has root's rights")
    for seed in range(SEEDS):
        path = os.path.join(real_path, str(seed))
        os.mkdir(path)
        if os.geteuid() == 0:
            os.chown(path, uid, -1)
        disk = SimDisk(random.Random(seed), time.time_ns)
        real, simulated = Side(LinuxFileSystem(), path), Side(SimFiles(disk, uid=uid), "/")
        disk.root.owner = uid
        with as_user(uid):
            compare(random.Random(seed), real, simulated, exactly=seed < EXACT_SEEDS)
        real.close()
        simulated.close()


def wait_for_a_tick():
    """Wait until what changes now gets another time stamp than what changed before."""
    before = time.clock_gettime_ns(COARSE_CLOCK)
    while time.clock_gettime_ns(COARSE_CLOCK) == before:
        pass


def compare(rng, real, simulated, *, exactly):
    done = []
    assert real.look() == simulated.look()
    for _ in range(CALLS):
        what, call = drawn(rng, real)
        if exactly:
            wait_for_a_tick()
        expected, found = real.do(call), simulated.do(call)
        done.append((what, expected, found))
        if found != expected:
            pytest.fail(show(done))
        there, here = real.look(), simulated.look()
        assert here[0] == there[0], show(done)
        if exactly:
            assert here[1] == there[1], show(done)
        else:  # within one tick of its clock Linux may give two changes one time
            for path, changed in there[1].items():
                is_here = here[1].get(path, (False, False))
                assert is_here == tuple(map(max, is_here, changed)), (path, show(done))
        assert simulated.contents() == real.contents(), show(done)


def show(done):
    return "\n".join(str(one).replace("x" * 255, "x*255").replace("x" * 256, "x*256")[:200] for one in done[-12:])
