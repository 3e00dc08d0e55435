"""One suite for every door to a disk: the machine's own, and the simulated one."""

from __future__ import annotations

import errno
import os
import stat
import threading
import time
from random import Random

import pytest

from peer.disk.files import LinuxFileSystem
from protocol.effects import Access
from simulations.disk import SimDisk
from simulations.disk_door import SimFiles
from simulations.user_files import UserFiles


class RealDisk:
    """The machine's disk below a temporary directory."""

    def __init__(self, path):
        self.path = str(path)

    def door(self):
        return LinuxFileSystem()

    def make_fifo(self, name):
        os.mkfifo(os.path.join(self.path, name))


class SimulatedDisk:
    """A directory of a simulated disk."""

    path = "/home/folder"

    def __init__(self, _):
        self._disk = SimDisk(Random(1), time.time_ns)
        self._user = UserFiles(self._disk)
        self._user.make_directories(self.path)

    def door(self):
        return SimFiles(self._disk)

    def make_fifo(self, name):
        self._user.make_fifo(f"{self.path}/{name}")


@pytest.fixture(params=[RealDisk, SimulatedDisk])
def disk(request, tmp_path):
    return request.param(tmp_path)


@pytest.fixture
def fs(disk):
    return disk.door()


@pytest.fixture
def root(disk, fs):
    handle = fs.open_root(disk.path)
    yield handle
    fs.close(handle)


def put(fs, parent, name, data=b""):
    file = fs.open_file(parent, name, Access.CREATE)
    fs.write(file, data, 0)
    fs.close(file)


def get(fs, parent, name):
    file = fs.open_file(parent, name, Access.READ)
    try:
        buffer = memoryview(bytearray(fs.fstat(file).size))
        assert fs.read(file, buffer, 0) == len(buffer)
        return bytes(buffer)
    finally:
        fs.close(file)


def names(fs, directory):
    return sorted(named.name for named in fs.list(directory))


def refuses(code):
    return pytest.raises(OSError, match=rf"\[Errno {code}\]")


BAD_NAMES = ["", ".", "..", "a/b", "/", "/etc", "a\0b", "\ud800"]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_only_single_names_are_taken(fs, root, name):
    """S46: a name that leads elsewhere reaches no call of the system."""
    put(fs, root, "f")
    calls = [
        lambda: fs.open_directory(root, name),
        lambda: fs.open_file(root, name, Access.READ),
        lambda: fs.open_file(root, name, Access.CREATE),
        lambda: fs.lstat(root, name),
        lambda: fs.make_directory(root, name, 0o777),
        lambda: fs.make_link(root, name, b"x"),
        lambda: fs.read_link(root, name),
        lambda: fs.rename(root, name, root, "g"),
        lambda: fs.rename(root, "f", root, name),
        lambda: fs.exchange(root, "f", root, name),
        lambda: fs.exchange(root, name, root, "f"),
        lambda: fs.unlink(root, name),
        lambda: fs.remove_directory(root, name),
    ]
    for call in calls:
        with pytest.raises(OSError) as caught:  # either of two numbers
            call()
        assert caught.value.errno in {errno.EINVAL, errno.EILSEQ}
    assert names(fs, root) == ["f"]


@pytest.mark.parametrize("name", ["a", "é", "a\nb", " ", "\udcff\udcfe", "x" * 255, "\\", "a:b", "...", "~", "-rf"])
def test_every_other_name_is_held(fs, root, name):
    put(fs, root, name, b"data")
    assert names(fs, root) == [name]
    assert get(fs, root, name) == b"data"
    with refuses(errno.EEXIST):
        fs.open_file(root, name, Access.CREATE)
    fs.unlink(root, name)
    assert names(fs, root) == []


def test_a_name_beyond_255_bytes_is_refused(fs, root):
    with refuses(errno.ENAMETOOLONG):
        fs.open_file(root, "x" * 256, Access.CREATE)


def test_links_are_never_followed(fs, root, disk):
    fs.make_directory(root, "d", 0o777)
    put(fs, root, "f", b"x")
    fs.make_link(root, "ld", b"d")
    fs.make_link(root, "lf", b"f")
    for call in (
        lambda: fs.open_directory(root, "ld"),
        lambda: fs.open_file(root, "lf", Access.READ),
        lambda: fs.open_file(root, "lf", Access.WRITE),
    ):
        with pytest.raises(OSError) as caught:  # either of two numbers
            call()
        assert caught.value.errno in {errno.ELOOP, errno.ENOTDIR}
    assert fs.read_link(root, "lf") == b"f"
    assert stat.S_ISLNK(fs.lstat(root, "lf").mode)
    with pytest.raises(OSError) as caught:  # either of two numbers
        fs.open_root(os.path.join(disk.path, "ld"))
    assert caught.value.errno in {errno.ELOOP, errno.ENOTDIR}


def test_a_fifo_never_blocks(fs, root, disk):
    disk.make_fifo("fifo")
    opened = threading.Event()

    def open_it():
        fs.close(fs.open_file(root, "fifo", Access.READ))
        opened.set()

    thread = threading.Thread(target=open_it, daemon=True)
    thread.start()
    assert opened.wait(5)


def test_bytes_are_written_and_read_at_positions(fs, root):
    file = fs.open_file(root, "f", Access.CREATE)
    fs.truncate(file, 10)
    fs.write(file, b"end", 7)
    fs.write(file, memoryview(b"start"), 0)
    buffer = memoryview(bytearray(20))
    assert fs.read(file, buffer, 0) == 10
    assert bytes(buffer[:10]) == b"start\0\0end"
    assert fs.read(file, buffer[:3], 6) == 3
    assert fs.read(file, buffer, 10) == 0
    fs.truncate(file, 2)
    assert fs.fstat(file).size == 2
    fs.sync(file)
    fs.sync_all(file)
    fs.close(file)
    assert get(fs, root, "f") == b"st"


def test_times_and_modes(fs, root):
    file = fs.open_file(root, "f", Access.CREATE)
    for when in (1_700_000_000_123_456_789, 0, 4_000_000_000_000_000_001):
        fs.set_attributes(file, mtime_ns=when)
        assert fs.fstat(file).mtime_ns == when
    before = fs.fstat(file)
    fs.set_attributes(file, mode=0o640)
    after = fs.fstat(file)
    assert stat.S_IMODE(after.mode) == 0o640
    assert after.mtime_ns == before.mtime_ns
    with pytest.raises(OSError):  # which number is the system's choice
        fs.set_attributes(file, mtime_ns=1 << 100)
    fs.close(file)


def test_stat_tells_one_file_from_another(fs, root):
    put(fs, root, "f", b"1")
    put(fs, root, "g", b"1")
    f, g = fs.lstat(root, "f"), fs.lstat(root, "g")
    assert f.inode != g.inode
    assert f.device == g.device == fs.fstat(root).device
    listed = {named.name: named.stat for named in fs.list(root)}
    assert listed == {"f": f, "g": g}
    with refuses(errno.ENOENT):
        fs.lstat(root, "h")


def test_a_rename_keeps_the_file_and_changes_the_directory(fs, root):
    fs.make_directory(root, "d", 0o777)
    put(fs, root, "f", b"1")
    d = fs.open_directory(root, "d")
    before, above = fs.lstat(root, "f"), fs.fstat(root)
    fs.rename(root, "f", d, "g")
    after = fs.lstat(d, "g")
    assert (after.inode, after.size, after.mtime_ns, after.mode) == (
        before.inode,
        before.size,
        before.mtime_ns,
        before.mode,
    )
    assert (fs.fstat(root).mtime_ns, fs.fstat(root).ctime_ns) > (above.mtime_ns, above.ctime_ns)
    assert names(fs, root) == ["d"]
    fs.close(d)


def make(fs, root, name, kind):
    if kind == "file":
        put(fs, root, name, name.encode())
    elif kind == "link":
        fs.make_link(root, name, name.encode())
    else:
        fs.make_directory(root, name, 0o777)


KINDS = ["file", "link", "directory"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("other", KINDS)
def test_a_rename_never_replaces(fs, root, kind, other):
    make(fs, root, "a", kind)
    make(fs, root, "b", other)
    before = (fs.lstat(root, "a"), fs.lstat(root, "b"))
    with refuses(errno.EEXIST):
        fs.rename(root, "a", root, "b")
    assert (fs.lstat(root, "a"), fs.lstat(root, "b")) == before
    with refuses(errno.ENOENT):
        fs.rename(root, "nothing", root, "c")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("other", KINDS)
def test_an_exchange_keeps_both(fs, root, kind, other):
    make(fs, root, "a", kind)
    make(fs, root, "b", other)
    a, b = fs.lstat(root, "a"), fs.lstat(root, "b")
    fs.exchange(root, "a", root, "b")
    assert (fs.lstat(root, "a").inode, fs.lstat(root, "b").inode) == (b.inode, a.inode)
    with refuses(errno.ENOENT):
        fs.exchange(root, "a", root, "nothing")


def test_a_directory_cannot_move_into_itself(fs, root):
    fs.make_directory(root, "d", 0o777)
    d = fs.open_directory(root, "d")
    with pytest.raises(OSError):  # which number is the system's choice
        fs.rename(root, "d", d, "e")
    assert names(fs, root) == ["d"]
    fs.close(d)


def test_removal(fs, root):
    fs.make_directory(root, "d", 0o777)
    d = fs.open_directory(root, "d")
    put(fs, d, "f")
    with refuses(errno.ENOTEMPTY):
        fs.remove_directory(root, "d")
    with refuses(errno.ENOTDIR):
        fs.remove_directory(d, "f")
    with pytest.raises(OSError) as caught:  # either of two numbers
        fs.unlink(root, "d")
    assert caught.value.errno in {errno.EISDIR, errno.EPERM}
    fs.unlink(d, "f")
    fs.remove_directory(root, "d")
    assert names(fs, root) == []
    fs.close(d)


def test_an_open_directory_stays_the_same_when_its_name_moves(fs, root):
    fs.make_directory(root, "d", 0o777)
    d = fs.open_directory(root, "d")
    fs.rename(root, "d", root, "e")
    put(fs, d, "f")
    e = fs.open_directory(root, "e")
    assert names(fs, e) == ["f"]
    fs.close(d)
    fs.close(e)


def test_a_listing_can_be_repeated(fs, root):
    for n in range(300):
        put(fs, root, f"f{n}")
    assert len(list(fs.list(root))) == 300
    assert next(iter(fs.list(root))).stat is not None
    assert len(list(fs.list(root))) == 300


def test_a_writer_is_noticed(fs, root):
    put(fs, root, "f", b"x")
    reader = fs.open_file(root, "f", Access.READ)
    assert not fs.has_writer(reader)
    writer = fs.open_file(root, "f", Access.WRITE)
    assert fs.has_writer(reader)
    fs.close(writer)
    assert not fs.has_writer(reader)
    fs.close(reader)


def test_free_bytes_is_a_number(fs, root):
    assert fs.free_bytes(root) > 0


def test_holes_hold_no_bytes(fs, root):
    file = fs.open_file(root, "f", Access.CREATE)
    fs.truncate(file, 64 << 20)
    assert fs.held_bytes(file) < 1 << 20
    fs.write(file, b"x" * (2 << 20), 8 << 20)
    assert 2 << 20 <= fs.held_bytes(file) < 4 << 20
    fs.close(file)
