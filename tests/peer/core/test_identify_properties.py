"""Whatever happens on a disk: the local tree says what is there, ids follow a ledger, and nothing unseen is removed."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from peer.core.identify import Identified
from simulations.plan.disk import MemoryDisk
from tests.peer.core.disks import Watcher

OPS = [
    "write",
    "edit",
    "mkdir",
    "move",
    "move",
    "move over",
    "remove",
    "swap",
    "save",
    "save by rename",
    "link",
    "symlink",
]
TICKS = [1_000_001, 1_000_000_000]
"""The second disk knows whole seconds only."""

ops = st.lists(
    st.tuples(st.sampled_from(OPS), st.integers(0, 30), st.integers(0, 30), st.sampled_from("abcd")), max_size=14
)


class World:
    """A disk, and a ledger of what each path truly is."""

    def __init__(self, tick_ns: int) -> None:
        self.disk = MemoryDisk(tick_ns=tick_ns)
        self.ledger: dict[str, int] = {}
        self._count = 0

    def _token(self) -> int:
        self._count += 1
        return self._count

    def _pick(self, number: int, *, files: bool = False) -> str | None:
        paths = [path for path, inode in self.disk.walk() if not (files and inode.is_directory)]
        return sorted(paths)[number % len(paths)] if paths else None

    def _free(self, number: int, name: str) -> str | None:
        directories = sorted(["", *(path for path, inode in self.disk.walk() if inode.is_directory)])
        above = directories[number % len(directories)]
        path = f"{above}/{name}" if above else name
        return None if self.disk.exists(path) else path

    def _relabel(self, old: str, new: str) -> None:
        for path in [path for path in self.ledger if path == old or path.startswith(f"{old}/")]:
            self.ledger[new + path[len(old) :]] = self.ledger.pop(path)

    def do(self, op: str, first: int, second: int, name: str) -> None:
        disk, ledger = self.disk, self.ledger
        free = self._free(second, name)
        path = self._pick(first, files=op in ("edit", "move over", "save", "save by rename", "link"))
        other = self._pick(second, files=op == "move over")
        if op in ("write", "mkdir", "symlink") and free is not None:
            {"write": disk.write, "mkdir": lambda p, _: disk.mkdir(p), "symlink": disk.symlink}[op](free, f"{first}")
            ledger[free] = self._token()
        if path is None:
            return
        nested = other is not None and (f"{path}/".startswith(f"{other}/") or f"{other}/".startswith(f"{path}/"))
        if op == "edit" and disk.at(path).kind.name == "FILE":
            disk.write(path, f"{first}{disk.at(path).data}"[:5])
        elif op == "move" and free is not None and not f"{free}/".startswith(f"{path}/"):
            disk.move(path, free)
            self._relabel(path, free)
        elif op == "move over" and other is not None and other != path:
            if disk.at(path) is disk.at(other):
                return  # rename(2) does nothing to two names of one file
            disk.move(path, other)
            del ledger[path]
        elif op == "remove":
            disk.remove(path)
            for each in [each for each in ledger if each == path or each.startswith(f"{path}/")]:
                del ledger[each]
        elif op == "swap" and other is not None and not nested and disk.at(path) is not disk.at(other):
            if disk.at(path).data == disk.at(other).data and not disk.at(path).is_directory:
                return
            disk.swap(path, other)
            self._relabel(path, ".swap")
            self._relabel(other, path)
            self._relabel(".swap", other)
        elif op == "save":
            disk.move(path, f"{path}.old")
            disk.write(path, f"{second}")
            disk.remove(f"{path}.old")
        elif op == "save by rename":
            disk.write(f"{path}.new", f"{second}")
            disk.move(f"{path}.new", path)
        elif op == "link" and free is not None:
            disk.link(path, free)
            ledger[free] = self._token()


@settings(max_examples=400, deadline=None)
@given(ops, st.sampled_from(TICKS))
def test_one_change_between_two_scans_is_identified_as_what_it_was(done, tick_ns):
    world = World(tick_ns)
    watcher = Watcher(world.disk)
    known: dict[int, bytes] = {}
    for op in done:
        world.do(*op)
        watcher.identify()
        watcher.check()
        ids = watcher.ids()
        for path, token in world.ledger.items():
            assert known.setdefault(token, ids[path]) == ids[path], f"{op}: {path} is not what it was"
        assert len(set(ids.values())) == len(ids)
        watcher.sync()


@settings(max_examples=400, deadline=None)
@given(st.lists(ops, max_size=4), st.sampled_from(TICKS), st.booleans())
def test_many_changes_between_two_scans_give_the_tree_that_is_there(rounds, tick_ns, is_synced):
    world = World(tick_ns)
    watcher = Watcher(world.disk)
    for done in rounds:
        for op in done:
            world.do(*op)
        watcher.identify()
        watcher.check()
        assert (watcher.last.undecided, watcher.last.wanted, watcher.last.unread) == ((), (), ())
        watcher.disk.hashed.clear()
        assert watcher.identify() == Identified((), (), (), (), ())
        assert not watcher.disk.hashed
        if is_synced:
            watcher.sync()


@settings(max_examples=400, deadline=None)
@given(st.lists(st.tuples(ops, st.sets(st.integers(0, 9)), st.booleans(), st.booleans()), max_size=4))
def test_partial_scans_lead_to_the_same_tree(rounds):
    """Looking again at what was undecided or wanted, as the engine does, ends; and a full scan finds little to add."""
    world = World(TICKS[0])
    watcher = Watcher(world.disk)
    for done, some, at_once, recursive in rounds:
        for op in done:
            world.do(*op)
        spots = {""} | {path for path, inode in world.disk.walk() if inode.is_directory and len(path) % 10 in some}
        settled = at_once
        for _ in range(12):
            found = watcher.identify(
                *sorted(path for path in spots if world.disk.exists(path) and world.disk.at(path).is_directory),
                settled=None if settled else [],
                recursive=recursive,
            )
            watcher.local.paths()
            more = {path.rpartition("/")[0] for path in found.undecided} | set(found.wanted)
            if more <= spots and settled:
                break
            spots |= more
            settled = True
        else:
            raise AssertionError("looks for ever")
    watcher.identify()
    watcher.check()


@settings(max_examples=400, deadline=None)
@given(ops, ops, st.sets(st.integers(0, 30), max_size=3))
def test_what_cannot_be_seen_stays(before, after, hidden):
    world = World(TICKS[0])
    watcher = Watcher(world.disk)
    for op in before:
        world.do(*op)
    watcher.identify()
    watcher.sync()
    old = watcher.local.paths()
    for op in after:
        world.do(*op)
    directories = sorted(path for path, inode in world.disk.walk() if inode.is_directory)
    world.disk.unreadable = {directories[number % len(directories)] for number in hidden} if directories else set()
    watcher.identify()
    now = {item.id: path for path, item in watcher.local.paths().items()}
    for path, item in old.items():
        above = old.get(path.rpartition("/")[0])
        if above is None or now.get(above.id) not in world.disk.unreadable:
            continue
        was = watcher.local.item(above.id)
        assert was is not None
        if now[above.id] == path.rpartition("/")[0] and not any(
            now[above.id].startswith(f"{u}/") for u in world.disk.unreadable
        ):
            assert item.id in now, f"{path} stood in a directory that cannot be read"
    world.disk.unreadable = set()
    watcher.identify()
    watcher.check()
