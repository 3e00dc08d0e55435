"""Which item is which after what a user or an editor did, on a simulated disk with inodes; the acts are the planner's."""

from __future__ import annotations

import pytest

from peer.core.identify import Identification, Identified
from peer.core.matching import is_backup_name
from peer.core.tree import Item, MemoryTree
from protocol.entries import Kind
from simulations.plan.disk import MemoryDisk
from tests.peer.core.disks import Watcher, acts, disk_of, scanned
from tests.peer.core.trees import file

# --- What was done: (sentence, before, what, acts, files that had to be read)


def vim(disk: MemoryDisk) -> None:
    disk.write("4913", "")
    disk.remove("4913")
    disk.move("f", "f~")
    disk.write("f", "new")
    disk.remove("f~")


def office(disk: MemoryDisk) -> None:
    disk.write("~tmp", "new")
    disk.move("f", "bak")
    disk.move("~tmp", "f")
    disk.remove("bak")


def save_by_rename(disk: MemoryDisk) -> None:
    disk.write("tmp", "new")
    disk.move("tmp", "f")


def emacs(disk: MemoryDisk) -> None:
    disk.move("f", "f~")
    disk.write("f", "new")


def rotate(disk: MemoryDisk) -> None:
    disk.move("log.1", "log.2")
    disk.move("log", "log.1")
    disk.write("log", "4")


def reuse_inode(disk: MemoryDisk) -> None:
    number = disk.at("f").number
    disk.remove("f")
    disk.write("r", "xx")
    assert disk.at("r").number == number


def reuse_inodes(disk: MemoryDisk) -> None:
    numbers = [disk.at(path).number for path in ("D", "D/f", "D/g")]
    disk.remove("D")
    disk.mkdir("E")
    disk.write("E/f", "3")
    disk.write("E/g", "4")
    assert [disk.at(path).number for path in ("E", "E/f", "E/g")] == numbers


def invert(disk: MemoryDisk) -> None:
    disk.move("A/B", "B")
    disk.move("A", "B/A")


def each(*calls):
    """Do one call after the other: ("move", "f", "g")."""

    def do(disk: MemoryDisk) -> None:
        for name, *arguments in calls:
            getattr(disk, name)(*arguments)

    return do


def keep_mtime(disk: MemoryDisk, path: str, data: str) -> None:
    mtime = disk.at(path).mtime
    disk.write(path, data)
    disk.touch(path, mtime)


def replace_by_copy(disk: MemoryDisk) -> None:
    disk.mkdir("copy")
    disk.write("copy/f", "3")
    disk.write("copy/g", "2")
    disk.remove("D")
    disk.move("copy", "D")


def renew(disk: MemoryDisk) -> None:
    for number, (_, inode) in enumerate(disk.walk()):
        inode.number = 1_000 + number


DONE = [
    ("an edit in place", "f=1", each(("write", "f", "22")), ["Edit f"], "f"),
    ("18 an append that keeps the time", "f=1", lambda d: keep_mtime(d, "f", "12"), ["Edit f"], "f"),
    (
        "15 other bytes, same size and time: the change time tells",
        "f=1",
        lambda d: keep_mtime(d, "f", "2"),
        ["Edit f"],
        "f",
    ),
    (
        "16 an older file is copied over",
        "f=1",
        lambda d: (d.write("f", "0"), d.touch("f", 1_000_000_007)),
        ["Edit f"],
        "f",
    ),
    ("a touch is read, and is a touch", "f=1", each(("touch", "f")), ["Touch f"], "f"),
    ("a change of mode is a touch", "f=1", lambda d: d.chmod("f", executable=True), ["Touch f"], "f"),
    ("edited and back is nothing but a touch", "f=1", each(("write", "f", "2"), ("write", "f", "1")), ["Touch f"], "f"),
    ("20 truncated to nothing needs no reading", "f=1", each(("write", "f", "")), ["Edit f"], ""),
    ("a new file", "f=1", each(("write", "g", "1")), ["Create g"], "g"),
    (
        "25 a rename reads the file, which may have been written to as well",
        "f=1",
        each(("move", "f", "g")),
        ["Move f -> g"],
        "g",
    ),
    (
        "a rename into a directory made for it",
        "f=1",
        each(("mkdir", "D"), ("move", "f", "D/f")),
        ["Create D", "Move f -> f"],
        "D/f",
    ),
    ("30 a swap", "f=1 g=22", each(("swap", "f", "g")), ["Move g -> f", "Move f -> g"], "f g"),
    ("30 a swap of files of one size", "f=1 g=2", each(("swap", "f", "g")), ["Move g -> f", "Move f -> g"], "f g"),
    (
        "30 a swap across directories",
        "f=1 D/ D/g=2",
        each(("swap", "f", "D/g")),
        ["Move g -> f", "Move f -> g"],
        "D/g f",
    ),
    (
        "32 rotating logs",
        "log=1 log.1=2 log.2=3",
        rotate,
        ["Create log", "Move log -> log.1", "Move log.1 -> log.2", "Remove log.2"],
        "log log.1 log.2",
    ),
    ("33 one file moves over another", "f=1 g=2", each(("move", "f", "g")), ["Edit g", "Remove f"], "g"),
    (
        "48 a rename, and a new file at the old name",
        "f=1",
        each(("move", "f", "g"), ("write", "f", "2")),
        ["Create f", "Move f -> g"],
        "f g",
    ),
    ("49 renamed twice", "f=1", each(("move", "f", "g"), ("move", "g", "h")), ["Move f -> h"], "h"),
    ("50 renamed and back", "f=1", each(("move", "f", "g"), ("move", "g", "f")), [], "f"),
    ("51 an inode is used again", "f=1", reuse_inode, ["Create r", "Remove f"], "r"),
    (
        "52 a new file with the bytes and the inode of one that went: any mapping will do",
        "f=1 h=1",
        each(("remove", "f"), ("write", "k", "1")),
        ["Move f -> k", "Touch f"],
        "k",
    ),
    ("53 copied, then removed", "f=1", each(("write", "g", "1"), ("remove", "f")), ["Create g", "Remove f"], "g"),
    (
        "moved and written at once is a new file",
        "f=1",
        each(("move", "f", "g"), ("write", "g", "12")),
        ["Create g", "Remove f"],
        "g",
    ),
    (
        "removed and made again is an edit",
        "f=1",
        each(("remove", "f"), ("write", "x", ""), ("write", "f", "2")),
        ["Create x", "Edit f"],
        "f",
    ),
    ("71 a hard link is another file, not a move", "f=1", each(("link", "f", "g")), ["Create g"], "f g"),
    ("71 of two hard links one goes", "f=1", each(("link", "f", "g"), ("remove", "f")), ["Move f -> g"], "g"),
    ("91 vim saves", "f=1", vim, ["Edit f"], "f"),
    ("92 an office program saves", "f=1", office, ["Edit f"], "f"),
    ("94 a new file is renamed over the old one", "f=1", save_by_rename, ["Edit f"], "f"),
    (
        "94 or an old one that was synced meanwhile",
        "f=1 tmp=new",
        each(("move", "tmp", "f")),
        ["Edit f", "Remove tmp"],
        "f",
    ),
    ("Emacs keeps the old version beside it", "f=1", emacs, ["Create f~", "Edit f"], "f f~"),
    ("Emacs keeps it in place of an older one", "f=2 f~=1", emacs, ["Edit f", "Edit f~"], "f f~"),
    (
        "30 a file and its backup exchange their names",
        "f=2 f~=1",
        each(("swap", "f", "f~")),
        ["Move f~ -> f", "Move f -> f~"],
        "f f~",
    ),
    (
        "63 a directory in the place of a file",
        "f=1",
        each(("remove", "f"), ("mkdir", "f"), ("write", "f/g", "2")),
        ["Create f", "Create g", "Remove f"],
        "f/g",
    ),
    (
        "63 a file that moves into a directory of its name",
        "f=1",
        each(("move", "f", "g"), ("mkdir", "f"), ("move", "g", "f/f")),
        ["Create f", "Move f -> f"],
        "f/f",
    ),
    (
        "64 a file in the place of a directory",
        "D/ D/f=1",
        each(("remove", "D"), ("write", "D", "2")),
        ["Create D", "Remove D f"],
        "D",
    ),
    ("67 a link in the place of a file", "f=1", each(("remove", "f"), ("symlink", "f", "x")), ["Edit f"], ""),
    ("69 a link gets another target", "l->x", each(("remove", "l"), ("symlink", "l", "y")), ["Edit l"], ""),
    ("a link is renamed", "l->x", each(("move", "l", "m")), ["Move l -> m"], ""),
    ("62 an empty directory comes", "", each(("mkdir", "D")), ["Create D"], ""),
    ("62 an empty directory goes", "D/", each(("remove", "D")), ["Remove D"], ""),
    ("a tree goes", "D/ D/E/ D/E/f=1 D/g=2", each(("remove", "D")), ["Remove D E f g"], ""),
    ("37 a tree moves as one", "D/ D/E/ D/E/f=1 D/g=2", each(("move", "D", "X")), ["Move D -> X"], ""),
    ("a tree moves into another", "D/ D/f=1 X/ X/Y/", each(("move", "D", "X/Y/D")), ["Move D -> D"], ""),
    (
        "a tree moves, and things in it change",
        "D/ D/f=1 D/g=2",
        each(("move", "D", "X"), ("write", "X/f", "3"), ("move", "X/g", "X/h")),
        ["Move D -> X", "Move g -> h", "Edit f"],
        "X/f X/h",
    ),
    ("43 A/B is turned into B/A", "A/ A/B/ A/B/f=1 A/g=2", invert, ["Move B -> B", "Move A -> A"], ""),
    (
        "44 mkdir B; mv A/f B; rm A",
        "A/ A/f=1",
        each(("mkdir", "B"), ("move", "A/f", "B/f"), ("remove", "A")),
        ["Create B", "Move f -> f", "Remove A"],
        "B/f",
    ),
    (
        "45 a file moves out, then its directory goes",
        "D/ D/e/ D/e/f=1 D/g=2",
        each(("move", "D/e/f", "f"), ("remove", "D")),
        ["Move f -> f", "Remove D e g"],
        "f",
    ),
    (
        "47 D becomes E, and there is a new D",
        "D/ D/f=1",
        each(("move", "D", "E"), ("mkdir", "D")),
        ["Create D", "Move D -> E"],
        "",
    ),
    (
        "47 and it gets one file back",
        "D/ D/f=1 D/g=2",
        each(("move", "D", "E"), ("mkdir", "D"), ("move", "E/f", "D/f")),
        ["Create D", "Move D -> E", "Move f -> f"],
        "D/f",
    ),
    (
        "47 the same in another directory",
        "X/ X/D/ X/D/f=1 Z/",
        each(("move", "X/D", "Z/D"), ("mkdir", "X/D")),
        ["Create D", "Move D -> D"],
        "",
    ),
    (
        "51 a directory's inode is used again",
        "D/ D/f=1",
        each(("remove", "D"), ("mkdir", "E")),
        ["Create E", "Remove D f"],
        "",
    ),
    (
        "51 the inodes of a whole tree are used again, each for a file of the same name",
        "D/ D/f=1 D/g=2",
        reuse_inodes,
        ["Create E", "Create f", "Create g", "Remove D f g"],
        "E/f E/g",
    ),
    (
        "51 an empty directory's inode is used again",
        "D/",
        each(("remove", "D"), ("mkdir", "E")),
        ["Create E", "Remove D"],
        "",
    ),
    (
        "a directory moves with another one in it, both changed since",
        "D/ D/E/ D/E/f=1",
        each(("write", "D/E/g", "2"), ("write", "D/h", "3"), ("move", "D", "X")),
        ["Move D -> X", "Create h", "Create g"],
        "X/E/g X/h",
    ),
    (
        "an empty directory moves with what was put into it",
        "D/",
        each(("write", "D/f", "1"), ("move", "D", "E")),
        ["Move D -> E", "Create f"],
        "E/f",
    ),
    (
        "an empty directory moves after what was in it went",
        "D/ D/f=1",
        each(("remove", "D/f"), ("move", "D", "E")),
        ["Move D -> E", "Remove f"],
        "",
    ),
    (
        "two swaps across depths: what stands in the place of c is not c, which went below it",
        "c/ b/ b/b/ b/b/a/",
        each(("swap", "b", "c"), ("swap", "c/b", "b")),
        ["Move b -> b", "Create c", "Move c -> b", "Remove b"],
        "",
    ),
    ("two directories swap", "D/ D/f=1 E/ E/g=2", each(("swap", "D", "E")), ["Move E -> D", "Move D -> E"], ""),
    (
        "a directory is replaced by a copy of itself",
        "D/ D/f=1 D/g=2",
        replace_by_copy,
        ["Edit f", "Touch g"],
        "D/f D/g",
    ),
    ("122 everything is restored elsewhere: all inodes are new", "D/ D/f=1 g=2", renew, [], "D/f g"),
]


@pytest.mark.parametrize(("before", "what", "expected", "read"), [d[1:] for d in DONE], ids=[d[0] for d in DONE])
def test_what_was_done(before, what, expected, read):
    watcher = scanned(*before.split())
    what(watcher.disk)
    watcher.identify()
    watcher.check()
    assert acts(watcher) == expected
    assert sorted(watcher.disk.hashed) == read.split()
    assert (watcher.last.undecided, watcher.last.wanted, watcher.last.unread) == ((), (), ())
    watcher.disk.hashed.clear()
    assert watcher.identify() == Identified((), (), (), (), ())
    assert watcher.disk.hashed == []


def test_a_new_file_renamed_over_an_old_one_again_and_again():
    """A program that always writes the same temporary file, which was seen but never synced."""
    watcher = scanned("doc=1")
    watcher.disk.write("tmp", "2")
    watcher.identify()
    watcher.disk.move("tmp", "doc")
    watcher.disk.write("tmp", "3")
    watcher.identify()
    assert acts(watcher) == ["Create tmp", "Edit doc"]


# --- What proves that a file is the one that was hashed


def test_a_time_in_whole_seconds_proves_nothing_when_a_file_moves():
    """Archives set such times; with an inode used again, another file of one size would pass for the old one."""
    watcher = scanned("f=1")
    watcher.disk.touch("f", 1_600_000_000_000_000_000)
    watcher.identify()
    watcher.sync()
    watcher.disk.remove("f")
    watcher.disk.write("r", "2")
    watcher.disk.touch("r", 1_600_000_000_000_000_000)
    watcher.identify()
    watcher.check()
    assert watcher.disk.hashed == ["r"]
    assert acts(watcher) == ["Create r", "Remove f"]


def test_a_file_that_was_renamed_and_written_to_keeps_no_secret_behind_its_old_time():
    """The rename explains the change time; a program that restores size and modification time would go unseen for good."""
    watcher = scanned("f=1")
    mtime_ns = watcher.disk.list("").sightings[0].fingerprint.mtime_ns
    watcher.disk.move("f", "g")
    watcher.disk.write("g", "2")
    watcher.disk.touch("g", mtime_ns)
    watcher.identify()
    watcher.check()
    assert acts(watcher) == ["Create g", "Remove f"]


def test_a_file_that_came_along_with_its_directory_is_not_read():
    watcher = scanned("D/", "D/f=1")
    watcher.disk.touch("D/f", 1_600_000_000_000_000_000)
    watcher.identify()
    watcher.disk.hashed.clear()
    watcher.disk.move("D", "X")
    watcher.identify()
    assert watcher.disk.hashed == []


def test_a_file_written_while_it_was_hashed_is_read_again():
    watcher = scanned("f=1")
    watcher.disk.write("f", "2")
    found = Identification(local=watcher.local, synced=watcher.synced, entropy=watcher.entropy, full=True)
    found.observe(watcher.disk.list(""))
    hashed = watcher.disk.hash("f")._replace(settled=False)
    watcher.local.apply(found.result({"f": hashed}))
    watcher.disk.hashed.clear()
    watcher.identify()
    assert watcher.disk.hashed == ["f"]
    watcher.identify()
    assert watcher.disk.hashed == ["f"]


def test_the_row_holds_what_was_hashed_not_what_was_listed():
    watcher = scanned("f=1")
    watcher.disk.write("f", "2")
    found = Identification(local=watcher.local, synced=watcher.synced, entropy=watcher.entropy, full=True)
    found.observe(watcher.disk.list(""))
    watcher.disk.write("f", "333")
    watcher.local.apply(found.result({"f": watcher.disk.hash("f")}))
    watcher.check()


def test_times_that_the_disk_holds_less_exactly_are_no_touch():
    """17: the applier's row has the exact time beside the disk's own; only another time of the disk is another time."""
    watcher = scanned("f=1")
    item = watcher.local.paths()["f"]
    exact = Item(item.id, item.parent, "f", file("1", mtime=123, executable=True))
    watcher.local.put(exact)
    watcher.synced = MemoryTree({exact.id: exact})
    watcher.disk.link("f", "g")  # changes the change time of f, so that it is read
    watcher.disk.remove("g")
    watcher.identify()
    assert watcher.disk.hashed == ["f"]
    assert acts(watcher) == []


def test_a_file_written_while_it_was_hashed_proves_nothing_when_it_moves():
    watcher = scanned("f=1")
    watcher.disk.write("f", "2")
    found = Identification(local=watcher.local, synced=watcher.synced, entropy=watcher.entropy, full=True)
    found.observe(watcher.disk.list(""))
    hashed = watcher.disk.hash("f")._replace(settled=False)
    watcher.local.apply(found.result({"f": hashed}))
    mtime = watcher.disk.at("f").mtime
    watcher.disk.write("f", "3")
    watcher.disk.touch("f", mtime)
    watcher.disk.move("f", "g")
    watcher.identify()
    watcher.check()


# --- Ids


def test_what_is_not_synced_yet_keeps_its_id_too():
    watcher = Watcher(disk_of("D/", "D/f=1"))
    watcher.identify()
    before = watcher.ids()
    watcher.disk.write("D/f", "2")
    watcher.disk.move("D", "E")
    watcher.identify()
    assert watcher.ids() == {"E": before["D"], "E/f": before["D/f"]}


def test_109_rows_that_were_lost_are_found_again_by_their_path():
    """Also what is no longer ignored: its row went when it was ignored."""
    watcher = scanned("D/", "D/f=1", "g=2")
    before = watcher.ids()
    watcher.local = type(watcher.local)()
    watcher.disk.write("g", "22")
    watcher.identify()
    assert watcher.ids() == before
    assert acts(watcher) == ["Edit g"]


def test_a_lost_row_is_not_found_by_another_kind():
    watcher = scanned("f=1")
    watcher.local = type(watcher.local)()
    watcher.disk.remove("f")
    watcher.disk.mkdir("f")
    watcher.identify()
    assert acts(watcher) == ["Create f", "Remove f"]


def test_new_ids_are_drawn():
    drawn = []

    def entropy(count: int) -> bytes:
        drawn.append(count)
        return bytes([len(drawn)]) * count

    watcher = Watcher(disk_of("D/", "f=1"))
    found = Identification(local=watcher.local, synced=watcher.synced, entropy=entropy, full=True)
    for listing in watcher.disk.scan():
        found.observe(listing)
    result = found.result({"f": watcher.disk.hash("f")})
    assert drawn == [16, 16]
    assert {row.item.content.kind for row in result.puts} == {Kind.FILE, Kind.DIRECTORY}


@pytest.mark.parametrize("name", ["f~", "f.bak", "f.~1~"])
def test_names_under_which_editors_keep_the_old_version(name):
    assert is_backup_name(name, "f")
    assert not is_backup_name("g~", "f")
    assert not is_backup_name("f.1", "f")
