"""A program on a simulated disk that prints a digest of all it saw: run by a test in several processes."""

import random

from blake3 import blake3

from protocol.effects import Access
from simulations.disk import SimDisk
from simulations.disk_door import SimFiles
from simulations.disk_faults import SeededFaults
from simulations.disk_hooks import Call
from simulations.personalities import PERSONALITIES
from simulations.power import cut_power
from simulations.user_files import UserFiles


def main() -> None:
    """Work, fail and lose power on disks of every kind."""
    hasher = blake3()
    for number, name in enumerate(PERSONALITIES):
        chance = random.Random(number)
        disk = SimDisk(random.Random(number), lambda: 1_800_000_000_000_000_000, personality=PERSONALITIES[name])
        UserFiles(disk).make_directories("/home/f")
        disk.hooks.fault = SeededFaults(random.Random(number), share=0.05, calls=["rename", "sync", "write", "unlink"])
        disk.hooks.after = lambda call: _note(hasher, call)
        for _ in range(5):
            files = SimFiles(disk)
            work(files, disk, chance)
            files.kill()
            cut_power(disk, chance)
            hasher.update(repr(disk.tree()).encode())
    print(hasher.hexdigest())


def _note(hasher: blake3, call: Call) -> None:
    hasher.update(f"{call.call} {call.path()} {call.to_path()} {call.offset}".encode() + call.data)


def work(files: SimFiles, disk: SimDisk, chance: random.Random) -> None:
    """Do random things, as a process and as a person."""
    user = UserFiles(disk)
    for _ in range(60):
        try:
            root = files.open_root("/home/f")
            one, two = chance.choice("abcdefÄé"), chance.choice("abcdefÄé")
            match chance.randrange(7):
                case 0:
                    file = files.open_file(root, one, Access.CREATE)
                    files.write(file, chance.randbytes(3000), 0)
                    files.sync(file)
                case 1:
                    files.make_directory(root, one, 0o777)
                case 2:
                    files.rename(root, one, files.open_directory(root, two), one)
                case 3:
                    files.exchange(root, one, root, two)
                case 4:
                    files.unlink(root, one)
                case 5:
                    user.append(f"/home/f/{one}", b"user")
                case _:
                    for _ in files.list(root):
                        files.sync(root)
                        break
        except OSError:
            continue


if __name__ == "__main__":
    main()
