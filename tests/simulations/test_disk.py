"""What only a simulated disk can do: people beside processes, hooks, errors, kinds of file systems, room that ends."""

from __future__ import annotations

import errno
import itertools
import stat
from random import Random

import pytest

from protocol.effects import Access
from protocol.entries import Kind
from simulations.disk import SimDisk
from simulations.disk_door import SimFiles
from simulations.disk_faults import ERRORS, SeededFaults, any_of, failing, reading_short
from simulations.disk_hooks import Crashed
from simulations.personalities import PERSONALITIES, PLAIN, SECOND_NS
from simulations.user_files import UserFiles

START_NS = 1_700_000_000 * SECOND_NS + 5


class Machine:
    """A disk with its clock, a person and a process."""

    def __init__(self, personality=PLAIN, seed=0, **options):
        self.now_ns = START_NS
        self.disk = SimDisk(Random(seed), lambda: self.now_ns, personality=personality, **options)
        self.user = UserFiles(self.disk)
        self.user.make_directories("/home/f")
        self.fs = SimFiles(self.disk)
        self.root = self.fs.open_root("/home/f")

    def put(self, name, data=b"", fs=None):
        fs = fs or self.fs
        file = fs.open_file(self.root, name, Access.CREATE)
        fs.write(file, data, 0)
        fs.close(file)

    def get(self, name):
        return self.user.read(f"/home/f/{name}")

    def names(self):
        return self.user.list("/home/f")


@pytest.fixture
def machine():
    return Machine()


def refuses(code):
    return pytest.raises(OSError, match=rf"\[Errno {code}\]")


# People.


def test_people_work_by_path_beside_processes(machine):
    user, fs = machine.user, machine.fs
    user.write("/home/f/a/b.txt", b"one", parents=True)
    user.append("/home/f/a/b.txt", b" two")
    user.write_at("/home/f/a/b.txt", b"ONE", 0)
    a = fs.open_directory(machine.root, "a")
    file = fs.open_file(a, "b.txt", Access.READ)
    buffer = memoryview(bytearray(100))
    assert bytes(buffer[: fs.read(file, buffer, 0)]) == b"ONE two"
    user.rename("/home/f/a", "/home/f/z")
    user.make_link("/home/f/l", "z/b.txt")
    assert user.read("/home/f/l") == b"ONE two"
    user.truncate("/home/f/l", 3)
    assert fs.fstat(file).size == 3
    user.copy("/home/f/z", "/home/f/y")
    user.remove_tree("/home/f/z")
    assert machine.names() == ["l", "y"]
    assert fs.fstat(file).size == 3, "open, though it has no name"
    assert not user.exists("/home/f/z/b.txt")
    with refuses(errno.ENOENT):
        user.read("/home/f/l")


def test_a_save_over_a_name_replaces_the_file_at_once(machine):
    machine.user.write("/home/f/a", b"old")
    machine.user.write("/home/f/a.tmp", b"new")
    before = machine.user.stat("/home/f/a").inode
    machine.user.rename("/home/f/a.tmp", "/home/f/a")
    assert (machine.names(), machine.get("a")) == (["a"], b"new")
    assert machine.user.stat("/home/f/a").inode != before
    machine.user.make_directory("/home/f/d")
    for path, new_path, code in (
        ("/home/f/a", "/home/f/d", errno.EISDIR),
        ("/home/f/d", "/home/f/a", errno.ENOTDIR),
        ("/home/f", "/home/f/d/x", errno.EINVAL),
        ("/home/f/d", "/home/f", errno.ENOTEMPTY),
    ):
        with refuses(code):
            machine.user.rename(path, new_path)


def test_two_names_are_one_file(machine):
    machine.user.write("/home/f/a", b"1")
    machine.user.link("/home/f/a", "/home/f/b")
    machine.user.append("/home/f/b", b"2")
    assert machine.get("a") == b"12"
    machine.user.remove("/home/f/a")
    assert machine.get("b") == b"12"
    assert machine.user.stat("/home/f/b").size == 2


def test_a_program_that_holds_a_file_open_is_a_writer(machine):
    with machine.user.open("/home/f/a") as file:
        handle = machine.fs.open_file(machine.root, "a", Access.READ)
        assert machine.fs.has_writer(handle) is True
        machine.user.remove("/home/f/a")
        file.write(b"to nowhere")
    assert machine.fs.has_writer(handle) is False
    assert machine.fs.fstat(handle).size == 10


def test_permissions_are_those_of_a_user(machine):
    user, fs = machine.user, machine.fs
    user.write("/home/f/secret/x", b"1", parents=True)
    user.set_mode("/home/f/secret", 0o300)
    with refuses(errno.EACCES):
        fs.open_directory(machine.root, "secret")
    user.set_mode("/home/f/secret", 0o400)
    listed = list(fs.list(fs.open_directory(machine.root, "secret")))
    assert [(named.name, named.stat) for named in listed] == [("x", None)]
    user.set_mode("/home/f", 0o500)
    with refuses(errno.EACCES):
        machine.put("new")
    user.set_mode("/home/f", 0o700)
    user.write("/home/f/theirs", b"1")
    UserFiles(machine.disk, uid=0).set_owner("/home/f/theirs", 0)
    handle = fs.open_file(machine.root, "theirs", Access.READ)
    with refuses(errno.EPERM):
        fs.set_attributes(handle, mode=0o600)
    with refuses(errno.EACCES):
        fs.open_file(machine.root, "theirs", Access.WRITE)
    assert fs.has_writer(handle) is None


def test_the_tree_shows_everything_and_stays_as_it_was(machine):
    machine.user.write("/home/f/d/a", b"1", parents=True)
    machine.user.make_link("/home/f/l", b"d/a")
    machine.user.make_fifo("/home/f/p")
    machine.user.write("/home/f/.kinfolder/x", b"", parents=True)
    tree = machine.disk.tree("/home/f", without=".kinfolder")
    assert {path: (one.kind, one.data) for path, one in tree.items()} == {
        "d": (Kind.DIRECTORY, b""),
        "d/a": (Kind.FILE, b"1"),
        "l": (Kind.LINK, b"d/a"),
        "p": (None, b""),
    }
    version = machine.disk.version
    assert machine.disk.tree("/home/f", without=".kinfolder") == tree
    assert machine.disk.version == version
    machine.user.append("/home/f/d/a", b"2")
    assert tree["d/a"].data == b"1"
    assert machine.disk.tree("/home/f")["d/a"].hash != tree["d/a"].hash
    assert machine.disk.version > version


# Time.


def test_times_are_of_the_clock_and_no_two_changes_have_the_same(machine):
    machine.put("a", b"1")
    first = machine.user.stat("/home/f/a")
    assert START_NS <= first.mtime_ns < START_NS + 1000
    machine.user.append("/home/f/a", b"2")
    assert machine.user.stat("/home/f/a").mtime_ns > first.mtime_ns
    machine.now_ns -= 10 * SECOND_NS
    machine.user.append("/home/f/a", b"3")
    assert machine.user.stat("/home/f/a").mtime_ns < first.mtime_ns


def test_the_engine_sees_what_keeps_its_time_by_the_time_of_change(machine):
    machine.put("a", b"1")
    before = machine.user.stat("/home/f/a")
    machine.user.keeping_mtime("/home/f/a", lambda: machine.user.write_at("/home/f/a", b"2", 0))
    after = machine.user.stat("/home/f/a")
    assert (after.mtime_ns, after.size, after.inode) == (before.mtime_ns, before.size, before.inode)
    assert after.ctime_ns != before.ctime_ns


# Hooks.


def test_effects_are_counted_and_people_are_not(machine):
    before = machine.disk.hooks.effects
    machine.user.write("/home/f/u", b"1")
    machine.fs.lstat(machine.root, "u")
    assert machine.disk.hooks.effects == before
    machine.put("a", b"1")
    machine.fs.rename(machine.root, "a", machine.root, "b")
    machine.fs.sync(machine.root)
    assert machine.disk.hooks.effects == before + 4
    with refuses(errno.ENOENT):
        machine.fs.unlink(machine.root, "nothing")
    assert machine.disk.hooks.effects == before + 4


def test_a_guard_sees_what_a_call_is_about_to_destroy(machine):
    seen = []
    machine.disk.hooks.before = lambda call: seen.append((call.call, call.path(), call.to_path(), call.destroyed()))
    machine.put("a", b"12345")
    file = machine.fs.open_file(machine.root, "a", Access.WRITE)
    machine.fs.write(file, b"x", 1)
    machine.fs.truncate(file, 2)
    machine.fs.truncate(file, 9)
    machine.fs.rename(machine.root, "a", machine.root, "b")
    machine.fs.unlink(machine.root, "b")
    assert seen == [
        ("open_file", "/home/f/a", "", None),
        ("write", "/home/f/a", "", None),
        ("write", "/home/f/a", "", b"12345"),
        ("truncate", "/home/f/a", "", b"1x345"),
        ("truncate", "/home/f/a", "", None),
        ("rename", "/home/f/a", "/home/f/b", None),
        ("unlink", "/home/f/b", "", b"1x" + bytes(7)),
    ]


def test_a_process_can_be_killed_at_every_effect():
    """What is done stays, what was under way is not done, and nothing is done after it."""

    def work(machine):
        machine.put("a", b"1")
        machine.fs.rename(machine.root, "a", machine.root, "b")
        machine.fs.make_directory(machine.root, "d", 0o777)
        machine.fs.unlink(machine.root, "b")

    states = []
    for fatal in itertools.count(1):
        machine = Machine()

        def before(_, machine=machine, fatal=fatal):
            if machine.disk.hooks.effects == fatal:
                machine.fs.kill()

        machine.disk.hooks.before = before
        try:
            work(machine)
        except Crashed:
            pass
        else:
            break
        for call in (
            lambda: machine.fs.lstat(machine.root, "a"),  # noqa: B023 - called here
            lambda: machine.fs.close(machine.root),  # noqa: B023
            lambda: machine.fs.open_root("/home/f"),  # noqa: B023
        ):
            with pytest.raises(Crashed):
                call()
        assert machine.fs.handles == 0
        states.append({path: one.data for path, one in machine.disk.tree("/home/f").items()})
    assert states == [{}, {"a": b""}, {"a": b"1"}, {"b": b"1"}, {"b": b"1", "d": b""}]


def test_a_machine_counts_effects_and_may_end_before_any(machine):
    class Gone(BaseException):
        pass

    class Life:
        count = 0

        def effect(self):
            self.count += 1
            if self.count >= 3:
                fs.kill()
                raise Gone

    life = Life()
    fs = SimFiles(machine.disk, life=life)
    root = fs.open_root("/home/f")
    fs.close(fs.open_file(root, "a", Access.CREATE))
    fs.rename(root, "a", root, "b")
    for _ in range(2):
        with pytest.raises(Gone):
            fs.unlink(root, "b")
    with pytest.raises(Gone):
        fs.lstat(root, "b")
    assert machine.names() == ["b"]


def test_what_a_killed_process_had_open_gives_its_room_back(machine):
    machine.put("a", b"x" * 1000)
    machine.fs.open_file(machine.root, "a", Access.WRITE)
    machine.user.remove("/home/f/a")
    assert machine.disk.used_bytes == 1000
    machine.fs.kill()
    assert machine.disk.used_bytes == 0


# Errors.


def test_chosen_errors_come_where_they_were_asked_for(machine):
    machine.put("a", b"1234")
    machine.disk.hooks.fault = any_of(
        failing("lstat", errno.EIO, under="/home/f/a", turn=2), failing("unlink", errno.EBUSY), reading_short(2)
    )
    machine.fs.lstat(machine.root, "a")
    with refuses(errno.EIO):
        machine.fs.lstat(machine.root, "a")
    machine.fs.lstat(machine.root, "a")
    with refuses(errno.EBUSY):
        machine.fs.unlink(machine.root, "a")
    file = machine.fs.open_file(machine.root, "a", Access.READ)
    assert machine.fs.read(file, memoryview(bytearray(4)), 0) == 2
    machine.fs.unlink(machine.root, "a")
    assert machine.names() == []


def test_seeded_errors_change_nothing_but_where_the_answer_is_late():
    late = 0
    for seed in range(200):
        machine = Machine()
        machine.put("a", b"1")
        faults = SeededFaults(Random(seed), share=1.0, most=1, calls=["rename"], late_share=0.5)
        machine.disk.hooks.fault = faults
        with pytest.raises(OSError) as caught:
            machine.fs.rename(machine.root, "a", machine.root, "b")
        assert caught.value.errno in ERRORS["rename"]
        late += machine.names() == ["b"]
        assert len(machine.names()) == 1
        assert faults.left == 0
        machine.fs.make_directory(machine.root, "d", 0o777)
    assert 50 < late < 150


def test_a_read_only_disk_takes_nothing(machine):
    machine.put("a", b"1")
    machine.disk.is_read_only = True
    for call in (
        lambda: machine.put("b"),
        lambda: machine.fs.unlink(machine.root, "a"),
        lambda: machine.fs.open_file(machine.root, "a", Access.WRITE),
        lambda: machine.user.write("/home/f/a", b"2"),
    ):
        with refuses(errno.EROFS):
            call()
    assert machine.get("a") == b"1"


def test_a_full_disk_takes_as_much_as_there_is_room():
    machine = Machine(capacity_bytes=100_000)
    file = machine.fs.open_file(machine.root, "a", Access.CREATE)
    machine.fs.truncate(file, 1 << 40)  # a hole takes no room
    assert machine.fs.free_bytes(file) == 100_000
    with refuses(errno.ENOSPC):
        machine.fs.write(file, b"x" * 150_000, 0)
    assert machine.fs.free_bytes(file) == 0
    buffer = memoryview(bytearray(150_000))
    machine.fs.read(file, buffer, 0)
    assert bytes(buffer) == b"x" * 100_000 + bytes(50_000)
    machine.fs.write(file, b"y" * 100_000, 0)
    machine.fs.close(file)
    machine.fs.unlink(machine.root, "a")
    assert machine.fs.free_bytes(machine.root) == 100_000


# Other disks.


def test_another_disk_can_be_mounted_and_taken_away():
    machine = Machine()
    stick = SimDisk(Random(0), lambda: machine.now_ns, number=2)
    machine.user.make_directory("/home/f/stick")
    machine.disk.mount("/home/f/stick", stick)
    machine.user.write("/home/f/stick/a", b"1")
    machine.put("b", b"2")
    there = machine.fs.open_directory(machine.root, "stick")
    assert machine.fs.lstat(machine.root, "stick").device == 2
    listed = [(named.name, named.stat and named.stat.device) for named in machine.fs.list(machine.root)]
    assert sorted(listed) == [("b", 1), ("stick", 2)]
    for call in (machine.fs.rename, machine.fs.exchange):
        with refuses(errno.EXDEV):
            call(machine.root, "b", there, "a")
    with refuses(errno.EBUSY):
        machine.fs.remove_directory(machine.root, "stick")
    with refuses(errno.EBUSY):
        machine.fs.rename(machine.root, "stick", machine.root, "c")
    machine.user.move("/home/f/b", "/home/f/stick/b")
    assert machine.user.list("/home/f/stick") == ["a", "b"]
    assert machine.user.read("/home/f/stick/../stick/b") == b"2"
    machine.disk.unmount("/home/f/stick")
    assert machine.user.list("/home/f/stick") == []
    assert set(stick.tree()) == {"a", "b"}


# Kinds of file systems.


@pytest.mark.parametrize("name", ["mac", "old-mac", "stick"])
def test_case_is_kept_and_folded(name):
    machine = Machine(PERSONALITIES[name])
    machine.put("Readme", b"1")
    assert machine.names() == ["Readme"]
    assert machine.get("README") == b"1"
    with refuses(errno.EEXIST):
        machine.put("readme")
    with refuses(errno.EEXIST):
        machine.fs.rename(machine.root, "Readme", machine.root, "README")
    machine.user.rename("/home/f/readme", "/home/f/README")
    assert (machine.names(), machine.get("readme")) == (["README"], b"1")
    machine.fs.unlink(machine.root, "ReadMe")
    assert machine.names() == []


def test_forms_are_one_name_or_changed():
    composed, decomposed = "u\u0308".encode().decode(), "\u00fc"
    for name, shown in (("mac", decomposed), ("old-mac", composed)):
        machine = Machine(PERSONALITIES[name])
        machine.put(decomposed, b"1")
        assert machine.names() == [shown]
        assert machine.get(composed) == machine.get(decomposed) == b"1"
        with refuses(errno.EILSEQ):
            machine.put("\udcff")
    machine = Machine()
    machine.put(composed)
    machine.put(decomposed)
    assert len(machine.names()) == 2


def test_a_stick_takes_few_names_and_no_links():
    machine = Machine(PERSONALITIES["stick"])
    for name in ("a:b", "what?", "...", "\udcff"):
        with pytest.raises(OSError) as caught:
            machine.put(name)
        assert caught.value.errno in {errno.EINVAL, errno.EILSEQ}
    machine.put("end. .")
    assert machine.names() == ["end"]
    with refuses(errno.EPERM):
        machine.fs.make_link(machine.root, "l", b"end")
    with refuses(errno.EINVAL):
        machine.fs.exchange(machine.root, "end", machine.root, "end")
    machine.put("x" * 200)
    machine.fs.make_directory(machine.root, "y" * 200, 0o777)
    below = machine.fs.open_directory(machine.root, "y" * 200)
    with refuses(errno.ENAMETOOLONG):
        machine.fs.open_file(below, "z" * 100, Access.CREATE)


@pytest.mark.parametrize("name", PERSONALITIES)
def test_times_are_as_exact_as_the_disk(name):
    personality = PERSONALITIES[name]
    machine = Machine(personality)
    machine.now_ns += 123_456_789
    machine.put("a", b"1")
    file = machine.fs.open_file(machine.root, "a", Access.READ)
    machine.fs.set_attributes(file, mtime_ns=START_NS + 3 * SECOND_NS + 77)
    found = machine.fs.fstat(file)
    assert found.mtime_ns % personality.mtime_step_ns == 0
    assert found.ctime_ns % personality.ctime_step_ns == 0
    assert abs(found.mtime_ns - START_NS - 3 * SECOND_NS) <= 2 * SECOND_NS


def test_numbers_of_inodes_come_again_or_never():
    for personality, comes_again in ((PLAIN, True), (PERSONALITIES["mac"], False)):
        machine = Machine(personality)
        machine.put("a")
        number = machine.user.stat("/home/f/a").inode
        machine.fs.unlink(machine.root, "a")
        machine.put("b")
        assert (machine.user.stat("/home/f/b").inode == number) is comes_again


def test_a_rename_by_link_shows_both_names_between_its_two_steps():
    machine = Machine(PERSONALITIES["by-link"])
    machine.put("a", b"1")
    seen = []
    machine.disk.hooks.after = lambda call: seen.append((call.call, machine.names()))
    machine.fs.rename(machine.root, "a", machine.root, "b")
    assert seen == [("link", ["a", "b"]), ("unlink", ["b"])]
    machine.fs.make_directory(machine.root, "d", 0o777)
    machine.fs.rename(machine.root, "d", machine.root, "e")
    assert seen[-1] == ("rename", ["b", "e"])


def test_listings_come_in_another_order_each_time_and_the_same_for_a_seed():
    def orders(seed):
        machine = Machine(seed=seed)
        for n in range(8):
            machine.put(str(n))
        return [[named.name for named in machine.fs.list(machine.root)] for _ in range(5)]

    assert len({tuple(order) for order in orders(1)}) > 1
    assert orders(1) == orders(1)
    assert orders(1) != orders(2)


def test_the_door_of_a_storage_node_makes_private_files(machine):
    fs = SimFiles(machine.disk, new_file=0o600)
    root = fs.open_root("/home/f")
    fs.close(fs.open_file(root, "pack", Access.CREATE))
    assert stat.S_IMODE(fs.lstat(root, "pack").mode) == 0o600
