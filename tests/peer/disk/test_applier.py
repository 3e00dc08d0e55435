"""Steps on a real disk: what each does, and what it refuses to do."""

from __future__ import annotations

import os
import stat

import pytest
from msgspec.structs import replace

from peer.core.leftovers import kept_name
from peer.core.operations import Delete, Place, Rename, Replace, SetAttributes
from peer.core.tree import Content
from peer.disk.applier import Applier
from peer.disk.outcomes import Done, Failed, Mismatch
from peer.disk.recovery import empty_trash, recover
from protocol.entries import Kind
from tests.peer.disk.kit import WHEN_NS, Folder, LateWriter, item_at, without_exchange


@pytest.fixture(params=["exchange", "without exchange"])
def folder(request, tmp_path):
    folder = Folder(str(tmp_path / "f"))
    if request.param == "without exchange":
        folder.fs = without_exchange(folder.fs)
    return folder


def found(outcomes):
    return [
        outcome.found if isinstance(outcome, Mismatch) else outcome.reason if isinstance(outcome, Failed) else "done"
        for outcome in outcomes
    ]


def test_places_files_directories_and_links_with_time_and_mode(folder):
    d, f, x, link = (
        item_at("d", kind=Kind.DIRECTORY),
        item_at("d/f", b"one"),
        item_at("d/x", b"#!", executable=True),
        item_at("d/l", kind=Kind.LINK, target=b"f"),
    )
    outcomes = folder.apply([Place(i) for i in (d, f, x, link)], [(f, b"one"), (x, b"#!")])
    assert found(outcomes) == ["done"] * 4
    assert folder.tree() == {"d/": b"", "d/f": b"one", "d/x": b"#!", "d/l": b"->f"}
    mask = os.umask(0)
    os.umask(mask)
    assert stat.S_IMODE(os.stat(folder.at("d/f")).st_mode) == 0o666 & ~mask
    assert os.stat(folder.at("d/x")).st_mode & 0o100
    assert os.stat(folder.at("d/f")).st_mtime_ns == WHEN_NS
    seen = folder.seen()
    for outcome in outcomes:
        assert isinstance(outcome, Done)
        assert outcome.fingerprint is not None
    assert outcomes[1].fingerprint == seen.prints[seen["d/f"].id]
    assert folder.hidden() == []


def test_a_taken_name_is_never_overwritten(folder):
    folder.write("f", b"mine")
    item = item_at("f", b"theirs", id="other")
    assert found(folder.apply([Place(item)], [(item, b"theirs")])) == ["taken"]
    assert folder.tree() == {"f": b"mine"}


def test_a_name_that_a_user_has_freed_since_the_scan_waits_for_the_next_one(folder):
    """Else two items would stand at one place in the local tree, and no scan would find where the first one went."""
    folder.write("f", b"old")
    folder.write("h", b"other")
    seen = folder.seen()
    os.rename(folder.at("f"), folder.at("g"))
    link = item_at("f", kind=Kind.LINK, target=b"new", id="new")
    moved = replace(seen["h"], name="f")
    outcomes = folder.apply([Place(link), Rename(seen["h"], moved)], seen=seen, outside_links=True)
    assert found(outcomes) == ["unseen", "unseen"]
    assert folder.tree() == {"g": b"old", "h": b"other"}
    folder.apply([Place(link)], outside_links=True)
    assert folder.tree() == {"f": b"->new", "g": b"old", "h": b"other"}


def test_a_directory_that_a_user_has_emptied_since_the_scan_waits_for_the_next_one(folder):
    """Else what stood in it would hang in the air in the local tree, and no scan would find it where it is."""
    folder.write("D/f", b"moved")
    folder.write("D/g", b"removed elsewhere")
    seen = folder.seen()
    os.rename(folder.at("D/f"), folder.at("f"))
    link = item_at("D", kind=Kind.LINK, target=b"x")
    steps = [Delete(seen["D/f"]), Delete(seen["D/g"]), Delete(seen["D"])]
    assert found(folder.apply(steps, seen=seen)) == ["missing", "done", "unseen"]
    assert found(folder.apply([Replace(seen["D"], link)], seen=seen, outside_links=True)) == ["unseen"]
    assert folder.tree() == {"D/": b"", "f": b"moved"}
    assert found(folder.apply([Delete(seen["D"])])) == ["done"]


@pytest.mark.parametrize("aside", [False, True])
def test_a_name_that_steps_have_freed_is_free(folder, aside):
    folder.write("f", b"old")
    seen = folder.seen()
    f, g = seen["f"], replace(seen["f"], name="g")
    link = item_at("f", kind=Kind.LINK, target=b"new", id="new")
    freeing = [Rename(f, g, aside=True)] if aside else [Delete(f)]
    rest = [Rename(f, g, from_aside=True)] if aside else []
    folder.apply([*freeing, Place(link), *rest], seen=seen, outside_links=True)
    assert folder.tree() == ({"f": b"->new", "g": b"old"} if aside else {"f": b"->new"})


def test_replace_keeps_the_permissions_of_the_old_file_and_drops_special_bits(folder):
    folder.write("f", b"old")
    os.chmod(folder.at("f"), 0o4640)
    seen = folder.seen()
    item = item_at("f", b"newer", executable=True)
    (outcome,) = folder.apply([Replace(seen["f"], item)], [(item, b"newer")], seen)
    assert isinstance(outcome, Done)
    assert folder.tree() == {"f": b"newer"}
    assert stat.S_IMODE(os.stat(folder.at("f")).st_mode) == 0o750
    assert outcome.fingerprint == folder.seen().prints[item.id]
    assert len(folder.hidden()) == 1, "the displaced file waits in the trash"
    with folder.open() as root:
        assert empty_trash(root, folder.journal, before_ms=1 << 60).removed == 1
    assert folder.hidden() == []
    assert not list(folder.journal.rows())


KINDS = {
    "file": lambda path: item_at(path, b"new"),
    "directory": lambda path: item_at(path, kind=Kind.DIRECTORY),
    "link": lambda path: item_at(path, kind=Kind.LINK, target=b"inside"),
}


@pytest.mark.parametrize("old", KINDS)
@pytest.mark.parametrize("new", KINDS)
def test_any_kind_replaces_any_other(folder, old, new):
    if old == "file":
        folder.write("n", b"old")
    elif old == "directory":
        os.mkdir(folder.at("n"))
    else:
        os.symlink("nowhere", folder.at("n"))
    seen = folder.seen()
    item = KINDS[new]("n")
    outcomes = folder.apply([Replace(seen["n"], item)], [(item, b"new")] if new == "file" else [], seen)
    assert found(outcomes) == ["done"]
    assert folder.tree() == {"file": {"n": b"new"}, "directory": {"n/": b""}, "link": {"n": b"->inside"}}[new]
    with folder.open() as root:
        empty_trash(root, folder.journal, before_ms=1 << 60)
    assert folder.hidden() == []


def test_a_directory_that_holds_something_is_neither_replaced_nor_deleted(folder):
    folder.write("d/ignored", b"x")
    seen = folder.seen()
    item = item_at("d", b"new")
    assert found(folder.apply([Replace(seen["d"], item)], [(item, b"new")], seen)) == ["not_empty"]
    assert found(folder.apply([Delete(seen["d"])], seen=seen)) == ["occupied"]
    assert found(folder.apply([Delete(seen["d/ignored"]), Delete(seen["d"])], seen=seen)) == ["done", "done"]
    assert folder.tree() == {}


def test_a_directory_that_holds_what_nobody_has_seen_is_not_deleted(folder):
    os.mkdir(folder.at("d"))
    seen = folder.seen()
    folder.write("d/ignored", b"x")
    assert found(folder.apply([Delete(seen["d"])], seen=seen)) == ["not_empty"]
    assert folder.tree() == {"d/": b"", "d/ignored": b"x"}


def test_a_file_edited_since_the_scan_is_not_replaced_deleted_or_touched(folder):
    folder.write("f", b"old")
    seen = folder.seen()
    folder.write("f", b"edited")
    item = item_at("f", b"new")
    steps = [Replace(seen["f"], item), Delete(seen["f"]), SetAttributes(seen["f"], item_at("f", b"old"))]
    assert found(folder.apply(steps, [(item, b"new")], seen)) == ["changed"] * 3
    assert folder.tree() == {"f": b"edited"}
    assert not list(folder.journal.rows())


def test_a_file_that_was_only_touched_since_the_scan_is_replaced(folder):
    folder.write("f", b"old")
    seen = folder.seen()
    os.utime(folder.at("f"), ns=(1, 1))
    item = item_at("f", b"new")
    assert found(folder.apply([Replace(seen["f"], item)], [(item, b"new")], seen)) == ["done"]


def test_what_is_gone_is_a_mismatch(folder):
    folder.write("f", b"old")
    seen = folder.seen()
    os.unlink(folder.at("f"))
    item = item_at("f", b"new")
    moved = item_at("g", b"old", id="f")
    steps = [Replace(seen["f"], item), Delete(seen["f"]), Rename(seen["f"], moved)]
    assert found(folder.apply(steps, [(item, b"new")], seen)) == ["missing"] * 3


def test_delete_takes_files_links_and_then_their_directory(folder):
    folder.write("d/f", b"x")
    os.symlink("f", folder.at("d/l"))
    seen = folder.seen()
    assert found(folder.apply([Delete(seen[p]) for p in ("d/f", "d/l", "d")], seen=seen)) == ["done"] * 3
    assert folder.tree() == {}
    with folder.open() as root:
        assert empty_trash(root, folder.journal, before_ms=1 << 60, limit=1)[:3] == (1, (), 1)
        assert empty_trash(root, folder.journal, before_ms=1 << 60, limit=1)[:3] == (1, (), 0)
    assert folder.hidden() == []


def test_a_young_or_open_file_stays_in_the_trash(folder):
    folder.write("f", b"old")
    seen = folder.seen()
    writer = LateWriter(folder, "f")
    folder.apply([Delete(seen["f"])], seen=seen)
    with folder.open() as root:
        assert empty_trash(root, folder.journal, before_ms=0).left == 1
        assert empty_trash(root, folder.journal, before_ms=1 << 60).left == 1
    writer.write(b"late!")
    with folder.open() as root:
        emptied = empty_trash(root, folder.journal, before_ms=1 << 60)
    assert [os.path.dirname(path) for path in emptied.kept] == [""]
    assert list(folder.tree().values()) == [b"late!"]
    assert "(kept, " in next(iter(folder.tree()))


def test_what_a_program_has_open_for_writing_keeps_its_name(folder):
    folder.write("f", b"old")
    folder.write("g", b"old")
    seen = folder.seen()
    item = item_at("f", b"newer")
    steps = [Replace(seen["f"], item), Delete(seen["g"])]
    with open(folder.at("f"), "r+b"), open(folder.at("g"), "ab"):
        outcomes = folder.apply(steps, [(item, b"newer")], seen)
        assert [outcome.reason for outcome in outcomes] == ["locked", "locked"]
        assert folder.tree() == {"f": b"old", "g": b"old"}
    with open(folder.at("f"), "rb"), open(folder.at("g"), "rb"):
        assert found(folder.apply(steps, [(item, b"newer")], seen)) == ["done", "done"]
    assert folder.tree() == {"f": b"newer"}


def test_renames_files_and_directories_and_what_follows_finds_them(folder):
    folder.write("a/f", b"1")
    folder.write("g", b"2")
    seen = folder.seen()
    a = item_at("b", kind=Kind.DIRECTORY, id="a")
    new = item_at("a/new", b"3")
    inner = item_at("a/f", b"11")
    g = item_at("a/g", b"2", id="g")
    steps = [Rename(seen["a"], a), Place(new), Replace(seen["a/f"], inner), Rename(seen["g"], g), Delete(seen["g"])]
    outcomes = folder.apply(steps, [(new, b"3"), (inner, b"11")], seen)
    assert found(outcomes) == ["done"] * 5
    assert folder.tree() == {"b/": b"", "b/f": b"11", "b/new": b"3"}


def test_two_files_swap_their_names_by_way_of_aside(folder):
    folder.write("f", b"1")
    folder.write("g", b"22")
    seen = folder.seen()
    f, g = item_at("g", b"1", id="f"), item_at("f", b"22", id="g")
    steps = [Rename(seen["f"], f, aside=True), Rename(seen["g"], g), Rename(seen["f"], f, from_aside=True)]
    outcomes = folder.apply(steps, seen=seen)
    assert found(outcomes) == ["done"] * 3
    assert folder.tree() == {"f": b"22", "g": b"1"}
    assert outcomes[2].fingerprint is not None
    assert not list(folder.journal.rows())
    assert folder.hidden() == []


def test_two_directories_invert(folder):
    folder.write("a/b/f", b"1")
    seen = folder.seen()
    b = item_at("b", kind=Kind.DIRECTORY, id="a/b")
    a = item_at("b/a", kind=Kind.DIRECTORY, id="a")
    a = type(a)(a.id, seen["a/b"].id, "a", a.content)
    assert found(folder.apply([Rename(seen["a/b"], b), Rename(seen["a"], a)], seen=seen)) == ["done"] * 2
    assert folder.tree() == {"b/": b"", "b/a/": b"", "b/f": b"1"}


def test_what_is_left_aside_goes_back(folder):
    folder.write("d/f", b"1")
    folder.write("taken", b"x")
    seen = folder.seen()
    d = item_at("taken", kind=Kind.DIRECTORY, id="d")
    steps = [Rename(seen["d"], d, aside=True), Rename(seen["d"], d, from_aside=True)]
    assert found(folder.apply(steps, seen=seen)) == ["done", "taken"]
    assert folder.tree() == {"d/": b"", "d/f": b"1", "taken": b"x"}
    assert not list(folder.journal.rows())


def test_a_rename_needs_the_same_node_but_not_the_same_bytes(folder):
    folder.write("f", b"1")
    folder.write("g", b"1")
    seen = folder.seen()
    with open(folder.at("f"), "ab") as file:
        file.write(b"more")
    folder.write("other", b"other")
    os.rename(folder.at("other"), folder.at("g"))
    steps = [Rename(seen["f"], item_at("f2", b"1", id="f")), Rename(seen["g"], item_at("g2", b"1", id="g"))]
    outcomes = folder.apply(steps, seen=seen)
    assert found(outcomes) == ["done", "changed"]
    assert outcomes[0].fingerprint is None
    assert folder.tree() == {"f2": b"1more", "g": b"other"}


def test_a_rename_never_replaces(folder):
    folder.write("f", b"1")
    folder.write("g", b"2")
    seen = folder.seen()
    assert found(folder.apply([Rename(seen["f"], item_at("g", b"1", id="f"))], seen=seen)) == ["taken"]
    assert folder.tree() == {"f": b"1", "g": b"2"}


def test_attributes_alone(folder):
    folder.write("f", b"1")
    os.chmod(folder.at("f"), 0o640)
    seen = folder.seen()
    (outcome,) = folder.apply([SetAttributes(seen["f"], item_at("f", b"1", executable=True))], seen=seen)
    assert isinstance(outcome, Done)
    status = os.stat(folder.at("f"))
    assert (stat.S_IMODE(status.st_mode), status.st_mtime_ns) == (0o750, WHEN_NS)
    assert outcome.fingerprint == folder.seen().prints[seen["f"].id]


def test_attributes_that_are_as_they_shall_be_are_looked_at_alone(folder):
    folder.write("f", b"1")
    os.chmod(folder.at("f"), 0o2640)
    seen, before = folder.seen(), os.stat(folder.at("f"))
    (outcome,) = folder.apply([SetAttributes(seen["f"], seen["f"])], seen=seen)
    assert isinstance(outcome, Done)
    assert os.stat(folder.at("f")) == before
    assert outcome.fingerprint == seen.prints[seen["f"].id]
    os.rename(folder.at("f"), folder.at("g"))
    assert found(folder.apply([SetAttributes(seen["f"], seen["f"])], seen=seen)) == ["missing"]


def test_a_linked_parent_is_not_followed(folder, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "f").write_bytes(b"precious")
    folder.write("d/f", b"old")
    seen = folder.seen()
    os.unlink(folder.at("d/f"))
    os.rmdir(folder.at("d"))
    os.symlink(outside, folder.at("d"))
    n, f = item_at("d/n", b"new"), item_at("d/f", b"new")
    steps = [
        Place(n),
        Replace(seen["d/f"], f),
        Delete(seen["d/f"]),
        SetAttributes(seen["d/f"], f),
        Rename(seen["d/f"], item_at("x", b"old", id="d/f")),
        Place(item_at("d/dir", kind=Kind.DIRECTORY)),
        Place(item_at("d/l", kind=Kind.LINK, target=b"f")),
    ]
    assert found(folder.apply(steps, [(n, b"new"), (f, b"new")], seen)) == ["parent"] * 7
    assert sorted(os.listdir(outside)) == ["f"]
    assert (outside / "f").read_bytes() == b"precious"


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a/b", "../x", "a\0b", "x" * 256, "\ud800", ".kinfolder", ".KinFolder"]
)
def test_names_that_would_lead_elsewhere_are_refused(folder, name):
    """S46, S55."""
    item = item_at("f", b"x")
    bad = type(item)(item.id, item.parent, name, item.content)
    folder.write("g", b"y")
    seen = folder.seen()
    moved = type(item)(seen["g"].id, item.parent, name, seen["g"].content)
    assert found(folder.apply([Place(bad), Rename(seen["g"], moved)], [(item, b"x")], seen)) == ["name"] * 2
    assert folder.tree() == {"g": b"y"}


@pytest.mark.parametrize("target", [b"/etc/passwd", b"../x", b"a/../../x", b".."])
def test_links_that_leave_the_folder_are_not_made_unless_allowed(folder, target):
    """S47."""
    link = item_at("l", kind=Kind.LINK, target=target)
    assert found(folder.apply([Place(link)])) == ["name"]
    folder.write("f", b"x")
    seen = folder.seen()
    assert found(folder.apply([Replace(seen["f"], item_at("f", kind=Kind.LINK, target=target))], seen=seen)) == ["name"]
    assert found(folder.apply([Place(link)], outside_links=True)) == ["done"]
    assert folder.tree() == {"l": b"->" + target, "f": b"x"}


def test_a_stage_that_is_missing_or_was_changed_is_not_placed(folder):
    a, b = item_at("a", b"1"), item_at("b", b"2")
    staged = folder.stage([(b, b"2")])
    with open(folder.at(f".kinfolder/tmp/{staged[b.id].name}"), "ab") as file:
        file.write(b"x")
    with folder.open() as root:
        applier = Applier(root, folder.journal, folder.clock, folder.entropy, local=folder.seen(), staged=staged)
        (outcomes,) = applier.apply([Place(a), Place(b)])
    assert found(outcomes) == ["error", "error"]
    assert folder.tree() == {}


def test_many_steps_run_in_groups_in_order(folder):
    items = [item_at(f"f{i}", str(i).encode()) for i in range(2500)]
    seen = folder.seen()
    staged = folder.stage([(item, item.name[1:].encode()) for item in items])
    with folder.open() as root:
        applier = Applier(root, folder.journal, folder.clock, folder.entropy, local=seen, staged=staged)
        groups = list(applier.apply([Place(item) for item in items]))
    assert [len(group) for group in groups] == [2000, 500]
    assert [outcome.step for group in groups for outcome in group] == [Place(item) for item in items]
    assert len(folder.tree()) == 2500


def test_what_was_removed_after_it_was_replaced_stays_removed(folder):
    """Its older version may still lie in the trash when the process starts again."""
    folder.write("f", b"old")
    seen = folder.seen()
    item = item_at("f", b"newer")
    assert found(folder.apply([Replace(seen["f"], item)], [(item, b"newer")], seen)) == ["done"]
    os.unlink(folder.at("f"))
    with folder.open() as root:
        assert recover(root, folder.journal)[:3] == ((), (), ())
    assert folder.tree() == {}
    assert len(folder.hidden()) == 1


def test_what_is_written_to_a_file_after_it_was_replaced_does_not_take_its_name_back(folder):
    """Through another name or an open file: whoever wrote it had not seen what replaced it."""
    folder.write("f", b"old")
    os.link(folder.at("f"), folder.at("other"))
    seen = folder.seen()
    item = item_at("f", b"newer")
    assert found(folder.apply([Replace(seen["f"], item)], [(item, b"newer")], seen)) == ["done"]
    with open(folder.at("other"), "wb") as file:
        file.write(b"late")
    with folder.open() as root:
        back, (kept,), left, _ = recover(root, folder.journal)
    assert (back, left) == ((), ())
    assert folder.tree() == {"f": b"newer", "other": b"late", kept: b"late"}


def test_recover_of_a_quiet_folder_does_nothing(folder):
    with folder.open() as root:
        assert recover(root, folder.journal)[:3] == ((), (), ())


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("a", "a (kept, 01020304)"),
        ("a.tar.gz", "a (kept, 01020304).tar.gz"),
        (".bashrc", ".bashrc (kept, 01020304)"),
        ("x" * 255, "x" * 238 + " (kept, 01020304)"),
        ("é" * 127, "é" * 119 + " (kept, 01020304)"),
        ("aé" + "é" * 126, "aé" + "é" * 117 + " (kept, 01020304)"),
        ("a." + "y" * 250, "a." + "y" * 236 + " (kept, 01020304)"),
        ("\udcff.txt", "\udcff (kept, 01020304).txt"),
    ],
)
def test_names_for_what_is_kept_beside_fit_and_stay_whole(name, kept):
    assert kept_name(name, b"\1\2\3\4rest") == kept
    assert len(os.fsencode(kept)) <= 255


def test_a_content_of_another_kind_is_a_change(folder):
    folder.write("f", b"1")
    seen = folder.seen()
    os.unlink(folder.at("f"))
    os.mkfifo(folder.at("f"))
    item = item_at("f", b"new")
    steps = [Replace(seen["f"], item), Delete(seen["f"]), Rename(seen["f"], item_at("g", id="f"))]
    assert found(folder.apply(steps, [(item, b"new")], seen)) == ["changed"] * 3
    assert stat.S_ISFIFO(os.stat(folder.at("f")).st_mode)
    assert Content(Kind.FILE) != Content(Kind.DIRECTORY)
