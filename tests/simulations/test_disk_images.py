"""Disks that are put back, and disks that are copied."""

from __future__ import annotations

from random import Random

from simulations.disk import SimDisk
from simulations.disk_door import SimFiles
from simulations.disk_images import put_back, take_image
from simulations.personalities import PERSONALITIES
from simulations.power import cut_power
from simulations.user_files import UserFiles
from tests.simulations.test_disk import Machine
from tests.simulations.test_power import check


def furnished():
    machine = Machine()
    machine.user.write("/home/f/d/a", b"1" * 100_000, parents=True)
    machine.user.link("/home/f/d/a", "/home/f/b")
    machine.user.make_link("/home/f/l", "b")
    machine.user.make_fifo("/home/f/p")
    machine.user.truncate("/home/f/hole", 1 << 20)
    machine.user.set_mode("/home/f/d", 0o700)
    machine.fs.kill()
    return machine


def test_a_disk_that_is_put_back_is_as_it_was():
    machine = furnished()
    before, used = machine.disk.tree(), machine.disk.used_bytes
    image = take_image(machine.disk)
    machine.user.remove_tree("/home/f/d")
    machine.user.append("/home/f/b", b"2")
    machine.user.write("/home/f/new", b"3")
    version = machine.disk.version
    put_back(machine.disk, image)
    assert machine.disk.tree() == before
    assert machine.disk.used_bytes == used
    assert machine.disk.version > version
    machine.user.append("/home/f/b", b"2")
    assert machine.user.read("/home/f/d/a")[-1:] == b"2", "still one file of two names"
    put_back(machine.disk, image)
    cut_power(machine.disk, Random(0))
    assert machine.disk.tree() == before
    check(machine.disk)


def test_a_cloned_machine_goes_its_own_way():
    machine = furnished()
    clone = SimDisk(Random(0), lambda: machine.now_ns)
    put_back(clone, take_image(machine.disk))
    assert clone.tree() == machine.disk.tree()
    UserFiles(clone).append("/home/f/b", b"2")
    files = SimFiles(clone)
    root = files.open_root("/home/f")
    files.make_directory(root, "new", 0o777)
    assert machine.user.read("/home/f/b") == b"1" * 100_000
    assert machine.names() == ["b", "d", "hole", "l", "p"]
    numbers = [one.inode for one in clone.tree("/home/f").values()]
    assert len(numbers) == len(set(numbers)) + 1, "each has its own, but for the file of two names"


def test_a_disk_that_folds_names_finds_what_is_put_there_from_one_that_does_not():
    other = Machine(PERSONALITIES["mac"])
    put_back(other.disk, take_image(furnished().disk))
    assert other.user.read("/home/F/D/A") == b"1" * 100_000
    other.user.remove("/home/f/D/a")
    assert not other.user.exists("/home/f/d/a")
