"""A user who saves at the worst moment, and a process that is killed at any: neither loses a byte."""

from __future__ import annotations

import errno
import itertools
import os
import random
import threading
from functools import partial

import msgspec
import pytest

from peer.core.operations import Delete, Place, Rename, Replace, SetAttributes, Step
from peer.disk.applier import Applier
from peer.disk.files import LinuxFileSystem
from peer.disk.journal import MemoryJournal
from peer.disk.outcomes import Done, Failed, Mismatch
from peer.disk.recovery import empty_trash, recover
from peer.disk.stages import stage_bytes
from protocol.entries import Kind
from tests.peer.disk.kit import (
    Folder,
    Fuse,
    FusedJournal,
    Killed,
    LateWriter,
    Wrapped,
    at_call,
    item_at,
    without_exchange,
)

DOORS = {"exchange": lambda fs: fs, "without exchange": without_exchange}


@pytest.fixture(params=DOORS)
def folder(request, tmp_path):
    folder = Folder(str(tmp_path / "f"))
    folder.fs = DOORS[request.param](folder.fs)
    return folder


def save_in_place(folder, data):
    with open(folder.at("f"), "r+b") as file:
        file.truncate()
        file.write(data)


def save_by_rename(folder, data):
    with open(folder.at("saving"), "wb") as file:
        file.write(data)
    os.rename(folder.at("saving"), folder.at("f"))


SAVES = {"in place": save_in_place, "by rename": save_by_rename}


def contents(folder):
    return sorted(data for path, data in folder.tree().items() if not path.endswith("/"))


def settle_all(folder):
    """Restart: recover, then empty the trash completely."""
    with folder.open() as root:
        recover(root, folder.journal)
        empty_trash(root, folder.journal, before_ms=1 << 60)
    with folder.open() as root:
        recover(root, folder.journal)


@pytest.mark.parametrize("save", SAVES)
@pytest.mark.parametrize("call", ["lstat", "rename", "exchange", "fstat", "unlink"])
@pytest.mark.parametrize("turn", range(1, 7))
@pytest.mark.parametrize("step", ["replace", "delete", "attributes"])
def test_a_save_at_any_moment_survives(folder, save, call, turn, step):
    """Cases 12 and 60: the user saves between two calls of ours; the bytes are under some name afterwards."""
    folder.write("f", b"old")
    seen = folder.seen()
    item = item_at("f", b"their new one")
    staged = folder.stage([(item, b"their new one")])
    steps: dict[str, Step] = {
        "replace": Replace(seen["f"], item),
        "delete": Delete(seen["f"]),
        "attributes": SetAttributes(seen["f"], item_at("f", b"old")),
    }
    saved = []

    def act():
        try:
            SAVES[save](folder, b"mine!")
        except FileNotFoundError:
            return  # deleted already
        saved.append(b"mine!")

    with folder.open() as root:
        root.fs = at_call(root.fs, call, act, turn=turn)
        applier = Applier(root, folder.journal, folder.clock, folder.entropy, local=seen, staged=staged)
        ((outcome,),) = applier.apply([steps[step]])
    settle_all(folder)
    if saved:
        assert b"mine!" in contents(folder)
        assert not isinstance(outcome, Done) or outcome.fingerprint is None or folder.read("f") == b"mine!"
    assert set(contents(folder)) <= {b"mine!", b"old", b"their new one"}
    assert not [name for name in folder.hidden() if not name.startswith("tmp/")]
    if isinstance(outcome, Mismatch) and not outcome.kept and step == "replace":
        assert folder.read("f") in {b"mine!", b"old"}


@pytest.mark.parametrize("way", ["by rename", "removed"])
def test_who_saves_just_after_the_swap_has_not_seen_what_came(tmp_path, way):
    """What stands there then is no successor of the new version: the step is not done, and both are kept."""
    folder = Folder(str(tmp_path / "f"))
    folder.write("f", b"old")
    seen = folder.seen()
    item = item_at("f", b"new")
    staged = folder.stage([(item, b"new")])
    is_swapped: list[str] = []

    def before(name, _):
        if is_swapped == [name]:
            is_swapped.append("over")
            save_by_rename(folder, b"mine") if way == "by rename" else os.unlink(folder.at("f"))
        elif name == "exchange" and not is_swapped:
            is_swapped.append("lstat")  # the first call after it

    with folder.open() as root:
        root.fs = Wrapped(root.fs, before)
        applier = Applier(root, folder.journal, folder.clock, folder.entropy, local=seen, staged=staged)
        ((outcome,),) = applier.apply([Replace(seen["f"], item)])
    assert is_swapped[-1] == "over"
    assert isinstance(outcome, Mismatch)
    assert outcome.found == ("changed" if way == "by rename" else "missing")
    settle_all(folder)
    assert contents(folder) == ([b"mine"] if way == "by rename" else [])


def test_two_saves_in_one_swap_are_both_kept(folder):
    """The displaced file is not what was expected, and the user replaces ours before it can go back."""
    folder.write("f", b"old")
    seen = folder.seen()
    item = item_at("f", b"new")
    staged = folder.stage([(item, b"new")])
    with folder.open() as root:
        if folder.fs.__class__ is Wrapped:
            moments = {"rename": (1, b"first"), "lstat": (3, b"second")}
        else:
            moments = {"exchange": (1, b"first"), "lstat": (4, b"second")}
        for call, (turn, data) in moments.items():
            root.fs = at_call(root.fs, call, partial(save_by_rename, folder, data), turn=turn)
        applier = Applier(root, folder.journal, folder.clock, folder.entropy, local=seen, staged=staged)
        ((outcome,),) = applier.apply([Replace(seen["f"], item)])
    assert isinstance(outcome, Mismatch)
    settle_all(folder)
    assert {b"first", b"second"} >= set(contents(folder)) >= {b"second"}
    assert folder.read("f") == b"second" or outcome.kept


def test_an_editor_that_saves_all_the_time_never_loses_its_last_save(tmp_path):
    """Case 12, for real: a thread saves by rename while we replace."""
    folder = Folder(str(tmp_path / "f"))
    stop = threading.Event()
    lost: list[bytes] = []
    written: list[bytes] = []

    def edit():
        for n in itertools.count():
            if stop.is_set():
                return
            data = b"edit %d" % n
            save_by_rename(folder, data)
            written.append(data)

    folder.write("f", b"start")
    editor = threading.Thread(target=edit)
    editor.start()
    try:
        done = 0
        for turn in range(300):
            seen = folder.seen()
            if "f" not in seen.by_path:
                continue
            item = item_at("f", b"remote %d" % turn)
            (outcome,) = folder.apply([Replace(seen["f"], item)], [(item, b"remote %d" % turn)], seen)
            done += isinstance(outcome, Done)
    finally:
        stop.set()
        editor.join()
    settle_all(folder)
    last = written[-1]
    if last not in contents(folder):
        lost.append(last)
        assert folder.read("f").startswith(b"remote"), "only a replacement that had seen it may stand instead"
    assert not [data for data in contents(folder) if not data.startswith((b"edit ", b"remote ", b"start"))]


# ------------------------------------------------------------------------------------------------ killed at any call


def scenario_replace(folder):
    folder.write("d/f", b"old")
    item = item_at("d/f", b"newer")
    return lambda seen: [Replace(seen["d/f"], item)], [(item, b"newer")], {"d/f": {b"old", b"newer"}}


def scenario_place(folder):
    items = [item_at("d", kind=Kind.DIRECTORY), item_at("d/f", b"newer")]
    return lambda seen: [Place(item) for item in items], [(items[1], b"newer")], {"d/f": {None, b"newer"}}


def scenario_delete(folder):
    folder.write("f", b"old")
    return lambda seen: [Delete(seen["f"])], [], {"f": {None, b"old"}}


def scenario_rotation(folder):
    folder.write("f", b"1")
    folder.write("g", b"22")
    f, g = item_at("g", b"1", id="f"), item_at("f", b"22", id="g")

    def steps(seen):
        return [Rename(seen["f"], f, aside=True), Rename(seen["g"], g), Rename(seen["f"], f, from_aside=True)]

    return steps, [], {"both": {b"1", b"22"}}


def scenario_directory_aside(folder):
    folder.write("d/f", b"1")
    folder.write("e/f", b"22")
    d, e = item_at("e", kind=Kind.DIRECTORY, id="d"), item_at("d", kind=Kind.DIRECTORY, id="e")

    def steps(seen):
        return [Rename(seen["d"], d, aside=True), Rename(seen["e"], e), Rename(seen["d"], d, from_aside=True)]

    return steps, [], {"both": {b"1", b"22"}}


def scenario_kind(folder):
    folder.write("f", b"old")
    return (
        lambda seen: [Replace(seen["f"], item_at("f", kind=Kind.LINK, target=b"x"))],
        [],
        {"f": {b"old", b"->x"}},
    )


SCENARIOS = {
    "replace": scenario_replace,
    "place": scenario_place,
    "delete": scenario_delete,
    "rotation": scenario_rotation,
    "directories": scenario_directory_aside,
    "kind": scenario_kind,
}


def run_until(folder, fuse, steps, data, seen, *, then=None):
    """Run with a fuse in the door and in the journal; tell whether it ended by itself."""
    fs = Wrapped(folder.fs, fuse.burn)
    journal = FusedJournal(folder.journal, fuse)
    try:
        opened = folder.open(fs)
        if then is None:
            staged = {item.id: stage_bytes(opened, item, bytes_) for item, bytes_ in data}
            applier = Applier(opened, journal, folder.clock, folder.entropy, local=seen, staged=staged)
            list(applier.apply(steps(seen)))
        recover(opened, journal)
        empty_trash(opened, journal, before_ms=1 << 60)
        opened.close()
    except Killed:
        fs.die()
        return False
    return True


@pytest.mark.parametrize("name", SCENARIOS)
def test_killed_at_every_call_and_again_in_recovery(folder, name, tmp_path):
    """Cases 102 and 103: old or new under each name, never a part, never neither; a second kill in recovery included."""
    door = folder.fs
    for first in itertools.count():
        folder = Folder(str(tmp_path / f"{first}"), LinuxFileSystem())
        steps, data, expected = SCENARIOS[name](folder)
        folder.fs = door
        seen = folder.seen()
        ended = run_until(folder, Fuse(first), steps, data, seen)
        strict = door.__class__ is LinuxFileSystem
        check(folder, expected, f"after call {first}", recovered=strict and name in {"replace", "kind"})
        second = first * 7 % 23
        run_until(folder, Fuse(second), steps, data, seen, then="recover")
        check(folder, expected, f"after call {first}, {second}", recovered=strict and name in {"replace", "kind"})
        settle_all(folder)
        check(folder, expected, f"after recovery from {first}", recovered=True)
        assert [entry for entry in folder.hidden() if not entry.startswith("tmp/")] == []
        assert not list(folder.journal.rows())
        if ended:
            assert first > 5
            return


def check(folder, expected, moment, *, recovered):
    tree = folder.tree()
    if "both" in expected:
        assert set(contents(folder)) <= expected["both"], moment
        if recovered:
            assert set(contents(folder)) == expected["both"], moment
        return
    for path, allowed in expected.items():
        allowed_now = allowed
        if not recovered:
            # In the fallback without exchange the name is free for a moment, until recovery.
            allowed_now = {*allowed, None}
        assert tree.get(path) in allowed_now, moment
    assert set(contents(folder)) <= set().union(*expected.values()), moment


@pytest.mark.parametrize("save", SAVES)
def test_killed_at_every_call_after_a_user_saved_in_the_window(folder, save, tmp_path):
    """The user saved between look and swap, and then the process died: the save is under a name after the restart."""
    door = folder.fs
    for first in range(200):
        folder = Folder(str(tmp_path / f"{first}"), LinuxFileSystem())
        folder.write("f", b"old")
        folder.fs = door
        seen = folder.seen()
        item = item_at("f", b"newer")
        staged = folder.stage([(item, b"newer")])
        fuse = Fuse(first)
        saved: list[int] = []

        def act(folder=folder, saved=saved):
            SAVES[save](folder, b"mine!")
            saved.append(1)

        call = "exchange" if door.__class__ is LinuxFileSystem else "rename"
        fs = Wrapped(at_call(door, call, act), fuse.burn)
        ended = True
        try:
            opened = folder.open(fs)
            journal = FusedJournal(folder.journal, fuse)
            applier = Applier(opened, journal, folder.clock, folder.entropy, local=seen, staged=staged)
            list(applier.apply([Replace(seen["f"], item)]))
            opened.close()
        except Killed:
            fs.die()
            ended = False
        settle_all(folder)
        if saved:
            assert b"mine!" in contents(folder), f"killed at call {first}"
        assert set(contents(folder)) <= {b"old", b"newer", b"mine!"}
        if ended:
            assert saved
            return
    pytest.fail("it never ended")


def test_errors_of_the_disk_at_any_call_change_nothing_visible_or_everything(tmp_path):
    """Case 107: an error (EIO, ENOSPC, EROFS) at the n-th call is an outcome, never an exception and never a loss."""
    for code in (errno.EIO, errno.ENOSPC, errno.EROFS):
        for n in range(1, 60):
            folder = Folder(str(tmp_path / f"{code}-{n}"))
            folder.write("f", b"old")
            folder.write("g", b"gone")
            seen = folder.seen()
            item = item_at("f", b"newer")
            staged = folder.stage([(item, b"newer")])
            with folder.open() as root:
                left = [n]

                def before(name, _, left=left, code=code):
                    left[0] -= 1
                    if left[0] == 0 and name != "close":
                        raise OSError(code, "injected")

                root.fs = Wrapped(root.fs, before)
                for hidden in ("tmp", "trash", "aside"):
                    left[0] = 1000
                    root.hidden(hidden)
                left[0] = n
                applier = Applier(root, folder.journal, folder.clock, folder.entropy, local=seen, staged=staged)
                (outcomes,) = applier.apply([Replace(seen["f"], item), Delete(seen["g"])])
                over = left[0] > 0
            for outcome in outcomes:
                assert isinstance(outcome, Done | Failed | Mismatch)
            settle_all(folder)
            assert folder.tree().get("f") in {b"old", b"newer"}
            if isinstance(outcomes[0], Done):
                assert folder.read("f") == b"newer"
            if over:
                assert n > 10
                break
        else:
            pytest.fail("more calls than expected")


@pytest.mark.parametrize("how", ["between calls", "in a thread"])
def test_nothing_is_written_outside_while_a_directory_is_swapped_for_a_link(tmp_path, how):
    """S48: a directory and a link to the outside change places while we place, replace and delete."""
    folder = Folder(str(tmp_path / "f"))
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "victim").write_bytes(b"precious")
    folder.write("d/victim", b"old")
    os.symlink(outside, folder.at("l"))
    seen = folder.seen()
    fs = LinuxFileSystem()
    handle = fs.open_root(folder.path)
    chance = random.Random(48)
    stop = threading.Event()

    def swap():
        while not stop.is_set():
            fs.exchange(handle, "d", handle, "l")

    def before(*_):
        if chance.random() < 0.2:
            fs.exchange(handle, "d", handle, "l")

    victim = item_at("d/victim", b"new")
    items = [item_at(f"d/n{i}", b"x") for i in range(2000)]
    staged = folder.stage([(item, b"x") for item in items])
    thread = threading.Thread(target=swap)
    if how == "in a thread":
        thread.start()
    done = refused = 0
    try:
        for start in range(0, len(items), 100):
            staged |= folder.stage([(victim, b"new")])
            with folder.open() as root:
                if how == "between calls":
                    root.fs = Wrapped(root.fs, before)
                applier = Applier(root, folder.journal, folder.clock, folder.entropy, local=seen, staged=staged)
                steps: list[Step] = [Place(item) for item in items[start : start + 100]]
                steps += [Replace(seen["d/victim"], victim), Delete(seen["d/victim"])]
                for group in applier.apply(steps):
                    for outcome in group:
                        done += isinstance(outcome, Done)
                        refused += isinstance(outcome, Mismatch) and outcome.found == "parent"
    finally:
        stop.set()
        if how == "in a thread":
            thread.join()
        fs.close(handle)
    assert os.listdir(outside) == ["victim"]
    assert (outside / "victim").read_bytes() == b"precious"
    if how == "between calls":
        assert done > 100
        assert refused > 100


def test_a_write_hidden_by_our_own_time_stamp_is_found(folder):
    """A save of the same length between our look and our change of the time would look like our change alone."""
    folder.write("f", b"old")
    seen = folder.seen()
    with folder.open() as root:
        root.fs = at_call(root.fs, "set_attributes", lambda: save_in_place(folder, b"ald"))
        applier = Applier(root, folder.journal, folder.clock, folder.entropy, local=seen, staged={})
        ((outcome,),) = applier.apply([SetAttributes(seen["f"], item_at("f", b"old"))])
    assert isinstance(outcome, Mismatch)
    assert folder.read("f") == b"ald"


def test_a_save_in_the_moment_of_the_undo_is_kept_too(tmp_path):
    folder = Folder(str(tmp_path / "f"))
    folder.write("f", b"old")
    seen = folder.seen()
    item = item_at("f", b"new")
    staged = folder.stage([(item, b"new")])
    with folder.open() as root:
        root.fs = at_call(root.fs, "exchange", lambda: save_by_rename(folder, b"first"))
        root.fs = at_call(root.fs, "exchange", lambda: save_by_rename(folder, b"second"), turn=2)
        applier = Applier(root, folder.journal, folder.clock, folder.entropy, local=seen, staged=staged)
        ((outcome,),) = applier.apply([Replace(seen["f"], item)])
    settle_all(folder)
    assert isinstance(outcome, Mismatch)
    assert contents(folder) == [b"first", b"second"]
    assert outcome.kept in folder.tree()


def test_a_late_write_between_two_looks_of_the_trash_is_kept(tmp_path):
    """A program that had the file open writes and closes it while the trash is emptied."""
    for call in ("lstat", "open_file", "has_writer", "sync"):
        for turn in range(1, 4):
            folder = Folder(str(tmp_path / f"{call}{turn}"))
            folder.write("f", b"old")
            seen = folder.seen()
            late = [LateWriter(folder, "f")]
            folder.apply([Delete(seen["f"])], seen=seen)

            def act(late=late):
                while late:
                    late.pop().write(b"late!")

            with folder.open() as root:
                root.fs = at_call(root.fs, call, act, turn=turn)
                empty_trash(root, folder.journal, before_ms=1 << 60)
            act()
            settle_all(folder)
            assert contents(folder) == [b"late!"], (call, turn)


def test_a_late_write_to_what_was_replaced_under_a_directory_that_was_aside_is_kept(folder):
    """The row names the path that a user knows, never one in our own directory."""
    folder.write("d/f", b"old")
    seen = folder.seen()
    new, d = item_at("d/f", b"newer"), item_at("z", kind=Kind.DIRECTORY, id="d")
    steps = [Rename(seen["d"], d, aside=True), Replace(seen["d/f"], new), Rename(seen["d"], d, from_aside=True)]
    late = LateWriter(folder, "f")
    outcomes = folder.apply(steps, [(new, b"newer")], seen)
    assert all(isinstance(outcome, Done) for outcome in outcomes)
    late.write(b"late!")
    settle_all(folder)
    assert contents(folder) == [b"late!", b"newer"]
    assert folder.read("z/f") == b"newer"


def test_a_late_write_before_the_check_is_recorded_is_kept_too(folder):
    """Killed between swap and check, then written to: after the restart both have a name, also without an exchange."""
    folder.write("f", b"old")
    seen = folder.seen()
    item = item_at("f", b"newer")
    late = LateWriter(folder, "f")
    folder.apply([Replace(seen["f"], item)], [(item, b"newer")], seen)
    folder.journal.put([msgspec.structs.replace(row, checked=None) for row in folder.journal.rows()])
    late.write(b"late!")
    settle_all(folder)
    assert b"late!" in contents(folder)
    assert set(contents(folder)) <= {b"late!", b"newer"}


@pytest.mark.parametrize("step", ["replace", "delete"])
def test_bytes_that_changed_without_a_trace_are_kept(folder, step):
    """A write through a mapping, or one whose times were put back, looks like nothing: the bytes alone tell."""
    folder.write("f", b"mine!")
    seen = folder.seen()
    expected = item_at("f", b"older")
    seen.items[expected.id] = seen.by_path["f"] = (
        expected  # what was read before that write, with how the file looks now
    )
    item = item_at("f", b"newer")
    steps: dict[str, Step] = {"replace": Replace(expected, item), "delete": Delete(expected)}
    folder.apply([steps[step]], [(item, b"newer")] if step == "replace" else (), seen)
    settle_all(folder)
    assert b"mine!" in contents(folder)


def test_the_journal_is_written_before_the_disk_changes(tmp_path):
    folder = Folder(str(tmp_path / "f"))
    folder.write("f", b"old")
    seen = folder.seen()

    class Refusing(MemoryJournal):
        def begin(self, swaps, intents):
            raise RuntimeError("the database is gone")

    folder.journal = Refusing()
    item = item_at("f", b"new")
    with pytest.raises(RuntimeError):
        folder.apply([Replace(seen["f"], item)], [(item, b"new")], seen)
    assert folder.tree() == {"f": b"old"}


def test_what_a_user_took_away_after_it_was_replaced_does_not_come_back(folder):
    """A restart finds what was displaced still in the trash; that the name is free is the user's doing."""
    folder.write("f", b"old")
    seen = folder.seen()
    item = item_at("f", b"new")
    (outcome,) = folder.apply([Replace(seen["f"], item)], [(item, b"new")], seen)
    assert isinstance(outcome, Done)
    os.rename(folder.at("f"), folder.at("g"))
    settle_all(folder)
    assert folder.tree() == {"g": b"new"}
