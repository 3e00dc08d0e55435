"""What a kill left between the disk and the database is known by its intent, at whatever call it came."""

from __future__ import annotations

import itertools
import os

import pytest

from peer.core.operations import Place, Rename, Replace, SetAttributes
from peer.disk.applier import Applier
from peer.disk.journal import MemoryJournal
from peer.disk.recovery import recover
from protocol.entries import Kind
from tests.peer.disk.kit import WHEN_NS, Folder, Fuse, FusedJournal, Killed, Wrapped, item_at


def killed_at_every_call(tmp_path, prepare, data=()):
    """Yield a folder for each call at which the applier was killed, recovered, with what it looked like before."""
    for first in itertools.count():
        folder = Folder(str(tmp_path / f"{first}"))
        steps = prepare(folder)
        seen, staged, fuse = folder.seen(), folder.stage(data), Fuse(first)
        fs, ended = Wrapped(folder.fs, fuse.burn), True
        try:
            opened = folder.open(fs)
            journal = FusedJournal(folder.journal, fuse)
            applier = Applier(opened, journal, folder.clock, folder.entropy, local=seen, staged=staged)
            list(applier.apply(steps(seen)))
            opened.close()
        except Killed:
            fs.die()
            ended = False
        with folder.open() as root:
            assert not recover(root, folder.journal).left
        assert not folder.journal.intents()
        yield folder, {standing.intent.path: standing for standing in stood_in(folder)}
        if ended:
            return


def stood_in(folder):
    assert isinstance(folder.journal, MemoryJournal)
    return folder.journal.stood


def test_what_stands_is_noted_and_what_does_not_is_not(tmp_path):
    directory, items = item_at("d", kind=Kind.DIRECTORY), [item_at(f"d/{n}", b"%d" % n) for n in range(3)]
    link = item_at("l", kind=Kind.LINK, target=b"d/1")
    new = item_at("f", b"newer")

    def prepare(folder):
        folder.write("f", b"old")
        return lambda seen: [Place(directory), *map(Place, items), Place(link), Replace(seen["f"], new)]

    states = set()
    for folder, stood in killed_at_every_call(
        tmp_path, prepare, [*((i, b"%d" % n) for n, i in enumerate(items)), (new, b"newer")]
    ):
        tree = {path.rstrip("/"): data for path, data in folder.tree().items()}
        there = set(tree) - {"f"} | ({"f"} if tree["f"] == b"newer" else set())
        # A run that was not killed leaves its last intents to whoever notes its outcomes; the memory has none.
        assert set(stood) in (there, set())
        if there:
            assert set(stood) == there
        states.add(frozenset(stood))
    assert len(states) > 5


def test_a_file_that_its_user_wrote_to_after_the_kill_is_the_placed_one_still(tmp_path):
    """Its mark is that of the placed bytes, so that the next scan finds an edit of it and no other file."""
    item = item_at("f", b"placed")
    folder = Folder(str(tmp_path / "f"))
    folder.apply([Place(item)], [(item, b"placed")])
    with open(folder.at("f"), "r+b") as file:
        file.write(b"edited by its user")
    with folder.open() as root:
        assert recover(root, folder.journal).look_at == ("f",)
    (standing,) = stood_in(folder)
    assert (standing.intent.item, standing.fingerprint.size) == (item, len(b"placed"))


def test_another_file_at_the_name_is_its_user_s(tmp_path):
    item = item_at("f", b"placed")
    folder = Folder(str(tmp_path / "f"))
    folder.apply([Place(item)], [(item, b"placed")])
    os.rename(folder.at("f"), folder.at("g"))
    folder.write("f", b"another")
    with folder.open() as root:
        recover(root, folder.journal)
    assert not stood_in(folder)
    assert not folder.journal.intents()


def test_attributes_that_were_set_half_are_set_wholly(tmp_path):
    """Mode and time are two calls of the system: killed between them, a file has the one and not yet the other."""
    new = item_at("f", b"same", executable=True)
    folder = Folder(str(tmp_path / "f"))
    folder.write("f", b"same")
    os.chmod(folder.at("f"), 0o644)
    os.utime(folder.at("f"), ns=(0, 1_000_000_000))
    seen = folder.seen()

    def between(name, args):
        if name == "set_attributes":
            os.chmod(folder.at("f"), 0o755)
            raise Killed

    fs = Wrapped(folder.fs, between)
    with pytest.raises(Killed):
        list(
            Applier(folder.open(fs), folder.journal, folder.clock, folder.entropy, local=seen, staged={}).apply(
                [SetAttributes(seen["f"], new)]
            )
        )
    fs.die()
    with folder.open() as root:
        recover(root, folder.journal)
    assert (os.stat(folder.at("f")).st_mtime_ns, os.stat(folder.at("f")).st_mode & 0o777) == (WHEN_NS, 0o755)
    assert [standing.intent.item for standing in stood_in(folder)] == [new]


def test_attributes_that_were_not_set_or_set_by_the_user_are_left(tmp_path):
    new = item_at("f", b"same", executable=True)

    def prepare(folder):
        folder.write("f", b"same")
        os.chmod(folder.at("f"), 0o644)
        os.utime(folder.at("f"), ns=(0, 1_000_000_000))
        return lambda seen: [SetAttributes(seen["f"], new)]

    found = set()
    for folder, stood in killed_at_every_call(tmp_path, prepare):
        about = os.stat(folder.at("f"))
        is_new = (about.st_mtime_ns, bool(about.st_mode & 0o100)) == (WHEN_NS, True)
        assert is_new or (about.st_mtime_ns, bool(about.st_mode & 0o100)) == (1_000_000_000, False)
        assert bool(stood) == is_new
        found.add(is_new)
    assert found == {True, False}


@pytest.mark.parametrize("kind", [Kind.FILE, Kind.DIRECTORY])
def test_two_files_whose_names_are_exchanged_both_end_at_their_old_or_new_names(tmp_path, kind):
    """Whoever lies aside goes back, or on where the other has its old name already; never to a third name."""

    def prepare(folder):
        for name in ("f", "g"):
            folder.write(f"{name}/in" if kind is Kind.DIRECTORY else name, name.encode())

        def steps(seen):
            f, g = (
                type(seen[old])(seen[old].id, seen[old].parent, new, seen[old].content)
                for old, new in (("f", "g"), ("g", "f"))
            )
            return [Rename(seen["f"], f, aside=True), Rename(seen["g"], g), Rename(seen["f"], f, from_aside=True)]

        return steps

    ends = set()
    for folder, _ in killed_at_every_call(tmp_path, prepare):
        tree = {path: data for path, data in folder.tree().items() if not path.endswith("/")}
        assert len(tree) == 2
        assert {path[0] for path in tree} == {"f", "g"}, tree
        assert all(len(path.partition("/")[0]) == 1 for path in tree), tree
        ends.add(next(data for path, data in tree.items() if path[0] == "f"))
    assert ends == {b"f", b"g"}
