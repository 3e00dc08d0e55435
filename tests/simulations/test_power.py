"""Power cuts: what was made durable is there, all else may be, and no cut loses what nobody changed."""

from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest

from protocol.effects import Access
from simulations.disk_faults import failing
from simulations.inodes import BLOCK_BYTES, File
from simulations.personalities import PERSONALITIES, PLAIN, SECOND_NS
from simulations.power import cut_power
from tests.simulations.test_disk import Machine

ROOT = Path(__file__).resolve().parent.parent.parent
WEAK = PERSONALITIES["weak"]
BOTH = pytest.mark.parametrize("personality", [PLAIN, WEAK], ids=["ordered", "weak"])
SEEDS = range(150)


def cut(machine, seed, **options):
    """Cut the power and return all that stands in the folder."""
    machine.fs.kill()
    cut_power(machine.disk, Random(seed), **options)
    check(machine.disk)
    return {path: one.data for path, one in machine.disk.tree("/home/f").items()}


def check(disk):
    """The disk is in order again: each inode has one number and as many names as it says, and room is counted."""
    numbers, used = set(), 0
    names: dict[int, int] = {}
    left = [disk.root]
    found = {}
    while left:
        here = left.pop()
        for name, inode in here.entries.values():
            names[inode.number] = names.get(inode.number, 0) + 1
            found[inode.number] = inode
            assert found[inode.number] is inode
            if hasattr(inode, "entries"):
                assert (inode.parent, inode.name) == (here, name)
                left.append(inode)
    for number, inode in found.items():
        assert inode.links == names[number]
        used += inode.allocated if isinstance(inode, File) else 0
        numbers.add(number)
    assert disk.used_bytes == used
    assert not disk.pending
    assert not disk.dirty
    new = {disk.take_number() for _ in range(20)}
    assert len(new) == 20
    assert not new & numbers


def sync(fs, directory, name):
    file = fs.open_file(directory, name, Access.READ)
    fs.sync(file)
    fs.close(file)


def outcomes(personality, work, **options):
    """Return what the folder holds after a cut, for many seeds."""
    found = []
    for seed in SEEDS:
        machine = Machine(personality)
        machine.fs.sync_all(machine.root)
        work(machine)
        found.append(cut(machine, seed, **options))
    return found


@BOTH
def test_what_was_synced_is_there(personality):
    def work(machine):
        machine.put("a", b"whole" * 1000)
        sync(machine.fs, machine.root, "a")
        machine.fs.rename(machine.root, "a", machine.root, "b")
        machine.fs.sync(machine.root)
        machine.put("c", b"later")

    assert all(found["b"] == b"whole" * 1000 and "a" not in found for found in outcomes(personality, work))


@BOTH
def test_what_was_not_synced_is_there_or_torn_or_zeros_or_not_there(personality):
    def work(machine):
        machine.put("a", b"x" * 10_000)

    found = [one.get("a") for one in outcomes(personality, work)]
    assert None in found
    assert b"" in found
    assert b"x" * 10_000 in found
    assert bytes(10_000) in found
    assert any(one and b"x" in one and b"\0" in one for one in found), "torn"
    for one in found:
        assert one is None or set(one) <= {0, ord("x")}


@BOTH
def test_bytes_written_over_bytes_are_old_or_new_by_sector(personality):
    def work(machine):
        machine.put("a", b"o" * 8192)
        sync(machine.fs, machine.root, "a")
        machine.fs.sync(machine.root)
        file = machine.fs.open_file(machine.root, "a", Access.WRITE)
        machine.fs.write(file, b"n" * 4096, 1024)

    found = {one["a"] for one in outcomes(personality, work)}
    assert {b"o" * 8192, b"o" * 1024 + b"n" * 4096 + b"o" * 3072} < found
    for one in found:
        assert len(one) == 8192
        assert all(len(set(one[at : at + 512])) == 1 for at in range(0, 8192, 512))


def test_a_file_that_is_synced_keeps_its_name_where_names_have_an_order_and_else_perhaps_not():
    def work(machine):
        machine.put("a", b"1")
        sync(machine.fs, machine.root, "a")

    assert all(found == {"a": b"1"} for found in outcomes(PLAIN, work))
    weak = outcomes(WEAK, work)
    assert {} in weak
    assert {"a": b"1"} in weak


def test_ordered_names_survive_as_a_beginning_and_weak_ones_as_any_part():
    def work(machine):
        for name in "abc":
            machine.fs.make_directory(machine.root, name, 0o777)

    beginnings = [set(), {"a"}, {"a", "b"}, {"a", "b", "c"}]
    ordered = [set(found) for found in outcomes(PLAIN, work)]
    assert all(found in beginnings for found in ordered)
    assert all(beginning in ordered for beginning in beginnings)
    weak = [set(found) for found in outcomes(WEAK, work)]
    assert {"c"} in weak
    assert {"a", "c"} in weak


def test_a_directory_that_is_synced_keeps_its_names_but_perhaps_not_its_own():
    def work(machine):
        machine.fs.make_directory(machine.root, "d", 0o777)
        below = machine.fs.open_directory(machine.root, "d")
        machine.fs.make_directory(below, "e", 0o777)
        machine.fs.sync(below)

    assert all(set(found) == {"d", "d/e"} for found in outcomes(PLAIN, work))
    weak = [set(found) for found in outcomes(WEAK, work)]
    assert set() in weak
    assert {"d", "d/e"} in weak
    assert {"d"} not in weak


@BOTH
def test_a_rename_may_survive_without_the_bytes(personality):
    def work(machine):
        machine.put("tmp", b"new")
        machine.fs.rename(machine.root, "tmp", machine.root, "a")

    found = outcomes(personality, work)
    assert {"a": b""} in found
    assert {"a": b"new"} in found
    assert not any({"tmp", "a"} <= set(one) for one in found)


@BOTH
@pytest.mark.parametrize("block", range(3))
def test_no_cut_loses_or_doubles_a_durable_file_that_was_only_moved(personality, block):
    """Whatever is moved where, exchanged and put into directories that come and go: each file is there once, whole."""
    for seed in range(block * 50, block * 50 + 50):
        chance = Random(seed)
        machine = Machine(personality)
        contents = {bytes([65 + n]) * 100 for n in range(6)}
        for data in contents:
            machine.put(data[:1].decode(), data)
        machine.fs.sync_all(machine.root)
        machine.disk.pending.clear()
        for _ in range(60):
            jumble(machine, chance)
        found = cut(machine, seed)
        files = sorted(data for data in found.values() if data)
        assert files == sorted(contents), seed


def jumble(machine, chance):
    """Do one random thing that destroys no file."""
    user = machine.user
    paths = [f"/home/f/{path}" for path in machine.disk.tree("/home/f")]
    directories = ["/home/f", *[path for path in paths if user.is_directory(path)]]
    new = f"{chance.choice(directories)}/{chance.choice('abcdefgh')}"
    one, two = chance.choice(paths), chance.choice(paths)
    act = chance.choice(["make", "move", "move", "move", "exchange", "remove", "sync"])
    try:
        if act == "make":
            user.make_directory(new)
        elif act == "move":
            user.rename_new(one, new)
        elif act == "exchange":
            user.exchange(one, two)
        elif act == "remove":
            user.remove_directory(chance.choice(directories))
        elif chance.random() < 0.3:
            above = ""
            for part in chance.choice(directories).split("/"):
                above = f"{above}/{part}".replace("//", "/")
                user.sync(above)  # from the top, so that what holds a synced name is itself there
    except OSError:
        return


@BOTH
def test_a_sync_that_failed_once_and_then_succeeds_has_lost_the_bytes(personality):
    """What Linux does with a page that it could not write: it forgets that it is dirty."""

    def work(machine):
        machine.put("a", b"lost")
        machine.disk.hooks.fault = failing("sync", errno.EIO)
        with pytest.raises(OSError, match="5"):
            sync(machine.fs, machine.root, "a")
        sync(machine.fs, machine.root, "a")
        machine.fs.sync(machine.root)
        file = machine.fs.open_file(machine.root, "a", Access.WRITE)
        machine.fs.write(file, b"kept", 4)
        machine.fs.sync(file)
        assert machine.get("a") == b"lostkept"

    assert {found["a"] for found in outcomes(personality, work)} == {bytes(4) + b"kept"}


@BOTH
def test_attributes_may_be_lost_too(personality):
    modes = set()
    for seed in SEEDS:
        machine = Machine(personality)
        machine.put("a", b"1")
        machine.fs.sync_all(machine.root)
        machine.user.set_mode("/home/f/a", 0o600)
        machine.user.set_mtime("/home/f/a", SECOND_NS)
        cut(machine, seed)
        found = machine.user.stat("/home/f/a")
        modes.add((found.mode & 0o777, found.mtime_ns == SECOND_NS))
    assert modes == {(0o644, False), (0o600, False), (0o644, True), (0o600, True)}


@BOTH
def test_what_lay_long_enough_is_durable(personality):
    def work(machine):
        machine.put("a", b"1")
        machine.now_ns += 31 * SECOND_NS
        machine.put("b", b"2")

    found = outcomes(personality, work)
    assert all(one["a"] == b"1" for one in found)
    assert any("b" not in one for one in found)


@BOTH
def test_people_can_be_spared(personality):
    """So that a ledger of what they saved needs no footnotes."""

    def work(machine):
        machine.put("a", b"engine")
        machine.user.write("/home/f/u", b"user")
        machine.user.rename("/home/f/a", "/home/f/b")
        machine.put("c", b"engine")

    found = outcomes(personality, work, spares_users=True)
    assert all(one["u"] == b"user" and "b" in one and "a" not in one for one in found)
    assert any("c" not in one for one in found)


def test_a_name_that_was_taken_away_may_be_back_with_all_that_it_had():
    def work(machine):
        machine.put("a", b"1" * (BLOCK_BYTES + 10))
        machine.fs.sync_all(machine.root)
        machine.fs.unlink(machine.root, "a")
        machine.put("b", b"of the same number")

    for personality in (PLAIN, WEAK):
        found = outcomes(personality, work)
        back = [one for one in found if "a" in one]
        assert back
        assert all(one["a"] == b"1" * (BLOCK_BYTES + 10) and "b" not in one for one in back)


def test_the_same_seed_takes_the_same():
    def work(machine):
        for n in range(20):
            machine.put(f"f{n}", b"x" * 3000)
            machine.fs.rename(machine.root, f"f{n}", machine.root, f"g{n}")

    assert outcomes(WEAK, work) == outcomes(WEAK, work)


def test_three_processes_with_different_hashes_see_the_same():
    digests = set()
    for hash_seed in ("0", "1", "random"):
        done = subprocess.run(
            [sys.executable, "-m", "tests.simulations.disk_program"],
            cwd=ROOT,
            env={"PYTHONHASHSEED": hash_seed, "PATH": ""},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        digests.add(done.stdout)
    assert len(digests) == 1


def test_the_disk_goes_on_after_a_cut():
    for seed in SEEDS:
        machine = Machine(WEAK)
        machine.put("a", b"1")
        machine.put("b", b"2" * 100)
        cut(machine, seed)
        machine.fs = type(machine.fs)(machine.disk)
        machine.user.write("/home/f/new", b"3", parents=True)
        root = machine.fs.open_root("/home/f")
        machine.fs.sync_all(root)
        assert machine.get("new") == b"3"
        assert cut(machine, seed)["new"] == b"3"
