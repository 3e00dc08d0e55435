"""What a scan sees, what it refuses to conclude, and what it never touches."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import textwrap
import threading

import pytest
from blake3 import blake3

from peer.core.hints import Spot
from peer.disk.files import LinuxFileSystem
from peer.disk.scanner import COARSE_MS, RACY_MS, hash_files, scan
from peer.disk.walk import opened
from protocol.entries import Kind
from protocol.limits import DEPTH_MAX
from tests.peer.disk.kit import Folder, Wrapped, at_call

ROOT_DIR = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))


@pytest.fixture
def folder(tmp_path):
    return Folder(str(tmp_path / "f"))


def listings(folder, spots=None, *, fs=None, **options):
    """Return what a consumer knows after a scan: the last listing of each path."""
    with folder.open() as root:
        if fs is not None:
            root.fs = fs(root.fs)
        return {listing.path: listing for listing in scan(root, spots, **options)}


def names(listing):
    return [sighting.name for sighting in listing.sightings]


def problems(listing):
    return {sighting.name: sighting.problem for sighting in listing.sightings if sighting.problem}


def test_a_full_scan_sees_files_directories_and_links_but_not_our_own(folder):
    folder.write("d/e/f", b"abc")
    os.symlink("d", folder.at("l"))
    os.mkdir(folder.at("d/.kinfolder"))
    found = listings(folder)
    assert {path: names(listing) for path, listing in found.items()} == {
        "": ["d", "l"],
        "d": [".kinfolder", "e"],
        "d/.kinfolder": [],
        "d/e": ["f"],
    }
    (f,) = found["d/e"].sightings
    assert (f.kind, f.fingerprint.size, f.fingerprint.inode) == (Kind.FILE, 3, os.stat(folder.at("d/e/f")).st_ino)
    assert found[""].sightings[1].target == b"d"


@pytest.mark.parametrize("name", [b"\xff\xfe", b"a\nb", b"\xc3\xa9", b"e\xcc\x81", b" ", b"\x01", b"x" * 255, b"\\"])
def test_odd_names_are_names(folder, name):
    """Case 83."""
    with open(os.path.join(os.fsencode(folder.path), name), "wb"):
        pass
    found = listings(folder)
    assert [os.fsencode(n) for n in names(found[""])] == [name]
    assert not problems(found[""])


def test_fifos_and_sockets_are_reported_and_never_opened(folder):
    """Case 73."""
    os.mkfifo(folder.at("fifo"))
    folder.write("f", b"")

    def watch(fs):
        def before(name, args):
            assert not (name == "open_file" and args[1] == "fifo")

        return Wrapped(fs, before)

    found = listings(folder, fs=watch)
    assert [(s.name, s.kind, s.problem) for s in found[""].sightings] == [
        ("f", Kind.FILE, ""),
        ("fifo", None, "name"),
    ]


def test_a_reserved_name_in_another_case_is_a_problem(folder):
    """S55."""
    folder.write(".KinFolder/x", b"")
    found = listings(folder)
    assert problems(found[""]) == {".KinFolder": "name"}
    assert ".KinFolder" not in found


def test_ignored_names_are_neither_seen_nor_entered(folder):
    folder.write("src/a.o", b"")
    folder.write("src/a.c", b"")
    folder.write("build/x", b"")
    asked = []

    def is_ignored(path, is_directory):
        asked.append((path, is_directory))
        return path.endswith(".o") or (path == "build" and is_directory)

    found = listings(folder, is_ignored=is_ignored)
    assert {path: names(listing) for path, listing in found.items()} == {"": ["src"], "src": ["a.c"]}
    assert ("build", True) in asked
    assert not [path for path, _ in asked if path.startswith("build/")]
    assert not listings(folder, [Spot("build", recursive=True)], is_ignored=is_ignored)
    assert not listings(folder, [Spot(".kinfolder/tmp")])


def test_hinted_directories_alone_are_listed(folder):
    folder.write("a/x/f", b"")
    folder.write("b/y/f", b"")
    assert set(listings(folder, [Spot("a"), Spot("b", recursive=True)])) == {"a", "b", "b/y"}
    assert set(listings(folder, [Spot("a/x"), Spot("a", recursive=True), Spot("a")])) == {"a", "a/x"}
    assert set(listings(folder, [Spot("")])) == {""}


def test_a_hint_about_what_is_gone_lists_what_stands_above(folder):
    folder.write("a/f", b"")
    assert set(listings(folder, [Spot("a/b/c/d", recursive=True)])) == {"a"}
    os.symlink("/", folder.at("a/l"))
    assert set(listings(folder, [Spot("a/l/etc")])) == {"a"}


def test_unsettled_names_are_not_judged_whether_they_are_there_or_not(folder):
    folder.write("d/there", b"")
    folder.write("d/other", b"")
    found = listings(folder, unsettled={"d/there", "d/gone", "x/y"})
    assert problems(found["d"]) == {"there": "changing", "gone": "changing"}
    assert names(found["d"]) == ["gone", "other", "there"]


def test_a_thousand_levels_are_entered_to_the_limit_and_no_further(folder):
    """Case 88; the rest is reported by name."""
    here = os.open(folder.path, os.O_RDONLY)
    for _ in range(1000):
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    found = listings(folder)
    deepest = max(found, key=len)
    assert deepest.count("/") + 1 == DEPTH_MAX - 1
    assert problems(found[deepest]) == {"d": "name"}
    subprocess.run(["rm", "-rf", folder.at("d")], check=True)


def test_a_path_beyond_the_limit_is_a_problem(folder):
    here = os.open(folder.path, os.O_RDONLY)
    for _ in range(15):
        os.mkdir("x" * 255, dir_fd=here)
        below = os.open("x" * 255, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    for name in ("y" * 255, "z" * 250):
        os.close(os.open(name, os.O_CREAT | os.O_WRONLY, dir_fd=here))
    os.mkdir("w" * 255, dir_fd=here)
    below = os.open("w" * 255, os.O_RDONLY, dir_fd=here)
    os.close(os.open("f", os.O_CREAT | os.O_WRONLY, dir_fd=below))
    os.close(here)
    os.close(below)
    found = listings(folder)
    deepest = max(found, key=len)
    assert len(deepest) == 16 * 256 - 1
    assert problems(found[deepest]) == {"f": "name"}


def test_a_directory_that_changes_while_it_is_listed_is_listed_again(folder):
    """Case 56: names that move within a directory meanwhile are not missed."""
    for n in range(10):
        folder.write(f"d/f{n}", b"")

    def rename():
        os.rename(folder.at("d/f9"), folder.at("d/a"))

    found = listings(folder, fs=lambda fs: at_call(fs, "fstat", rename, turn=4))
    assert names(found["d"]) == sorted(["a", *(f"f{n}" for n in range(9))])
    assert not found["d"].problem


def test_a_directory_that_never_rests_is_changing(folder):
    folder.write("d/f", b"")
    left = [0]

    def churn(fs):
        def before(name, _):
            if name == "list":
                left[0] += 1
                os.rename(folder.at(f"d/{min(os.listdir(folder.at('d')))}"), folder.at(f"d/f{left[0]}"))

        inner = Wrapped(fs, before)

        def after_list(handle):
            yield from fs.list(handle)
            before("list", ())

        inner.__dict__["list"] = after_list
        return inner

    assert listings(folder, fs=churn)["d"].problem == "changing"


@pytest.mark.parametrize("turn", range(1, 40))
def test_what_moves_between_directories_during_a_scan_is_in_exactly_one_place(folder, turn):
    """Case 56, across directories: the listings of one scan are true at one instant."""
    for n in range(3):
        folder.write(f"a/x{n}/f{n}", b"")
        folder.write(f"z/y{n}/g{n}", b"")

    def move():
        os.rename(folder.at("z/y1"), folder.at("a/y1"))
        os.rename(folder.at("z/y2/g2"), folder.at("a/x0/g2"))

    moved = listings(folder, fs=lambda fs: at_call(fs, "open_directory", move, turn=turn))
    seen: list[str] = []

    def walk(path):
        for name in names(moved[path]):
            below = f"{path}/{name}" if path else name
            if below in moved:
                walk(below)
            else:
                seen.append(name)

    walk("")
    assert sorted(seen) == ["f0", "f1", "f2", "g0", "g1", "g2"]


def test_a_directory_swapped_for_a_link_during_the_scan_is_not_followed(folder, tmp_path):
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_bytes(b"")
    folder.write("d/f", b"")

    def swap():
        shutil.rmtree(folder.at("d"))
        os.symlink(tmp_path / "outside", folder.at("d"))

    with folder.open() as root:
        fs = root.fs
        root.fs = at_call(fs, "open_directory", swap, turn=1)
        every = list(scan(root))
    assert "secret" not in {s.name for listing in every for s in listing.sightings}
    last = {listing.path: listing for listing in every}
    assert [s.kind for s in last[""].sightings] == [Kind.LINK]
    assert last["d"].problem


@pytest.mark.parametrize("code", [errno.EACCES, errno.EIO])
@pytest.mark.parametrize("call", ["open_directory", "list", "fstat", "lstat", "read_link"])
@pytest.mark.parametrize("turn", [1, 2, 3])
def test_errors_are_problems_never_exceptions_and_never_empty(folder, code, call, turn):
    """Case 108."""
    folder.write("d/e/f", b"")
    os.symlink("x", folder.at("d/l"))

    def fail():
        raise OSError(code, "injected")

    found = listings(folder, fs=lambda fs: at_call(fs, call, fail, turn=turn))
    for path, expected in {"": ["d"], "d": ["e", "l"], "d/e": ["f"]}.items():
        if path in found and not found[path].problem:
            assert names(found[path]) == expected
        elif path not in found:
            above = path.rpartition("/")[0]
            above = above if above in found else ""
            assert found[above].problem or problems(found[above])


def test_a_full_scan_can_be_stopped_and_resumed_in_other_threads(folder):
    for n in range(20):
        folder.write(f"d{n}/f", b"")
    with folder.open() as root:
        steps = scan(root)
        seen = []
        while True:
            got: list[object] = []
            thread = threading.Thread(target=lambda got=got: got.append(next(steps, None)))
            thread.start()
            thread.join()
            if got[0] is None:
                break
            seen.append(got[0])
    assert len(seen) == 21


AS_NOBODY = """
    import sys, time
    from peer.disk.files import LinuxFileSystem
    from peer.disk.roots import RootGuard
    from peer.disk.scanner import hash_files, scan
    from protocol.ids import FolderId
    root = RootGuard(LinuxFileSystem(), sys.argv[1], FolderId(b"f" * 32)).open()
    for listing in scan(root):
        print("list", listing.path, listing.problem, [(s.name, s.problem) for s in listing.sightings])
    for hashed in hash_files(root, ["open", "closed", "dir/f", "exec/f"], now_ms=lambda: int(time.time() * 1000)):
        print("hash", hashed.path, hashed.problem)
"""


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("setpriv") is None, reason="needs root and setpriv")
def test_what_this_user_may_not_read_is_unreadable(tmp_path):
    """Case 108: root reads everything, so the scan runs as somebody else."""
    folder = Folder(str(tmp_path / "f"))
    folder.write("open", b"1")
    folder.write("closed", b"1")
    folder.write("dir/f", b"1")
    folder.write("exec/f", b"1")
    os.chmod(folder.at("closed"), 0)
    os.chmod(folder.at("dir"), 0)
    os.chmod(folder.at("exec"), 0o444)
    path = folder.path
    for one in (".kinfolder", ".kinfolder/folder", ""):
        os.chown(folder.at(one), 65534, 65534)
    while path != "/":
        os.chmod(path, os.stat(path).st_mode | 0o011)
        path = os.path.dirname(path)
    code = textwrap.dedent(AS_NOBODY)
    done = subprocess.run(
        [
            *["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"],
            sys.executable,
            "-P",
            "-c",
            code,
            folder.path,
        ],
        env={"PYTHONPATH": ROOT_DIR, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    if "Permission denied" in done.stderr and "python" in done.stderr:
        pytest.skip("another user cannot run this Python")
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        "list   [('closed', ''), ('dir', ''), ('exec', ''), ('open', '')]",
        "list dir unreadable []",
        "list exec  [('f', 'unreadable')]",
        "hash open ",
        "hash closed unreadable",
        "hash dir/f unreadable",
        "hash exec/f unreadable",
    ]


# ------------------------------------------------------------------------------------------------------- hashing


def hashed(folder, paths, *, fs=None, now_ms=1 << 60):
    with folder.open() as root:
        if fs is not None:
            root.fs = fs(root.fs)
        return list(hash_files(root, paths, now_ms=lambda: now_ms))


@pytest.mark.parametrize("size", [0, 1, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, 5_000_000])
def test_hashes_of_all_sizes(folder, size):
    """Case 21."""
    data = (bytes(range(251)) * (size // 251 + 1))[:size]
    folder.write("d/f", data)
    (found,) = hashed(folder, ["d/f"])
    assert (found.hash, found.problem, found.settled) == (blake3(data).digest(), "", True)
    assert found.fingerprint == listings(folder)["d"].sightings[0].fingerprint


def test_a_link_is_hashed_by_its_target_and_not_followed(folder):
    os.symlink("/etc/passwd", folder.at("l"))
    (found,) = hashed(folder, ["l"])
    assert (found.hash, found.target) == (blake3(b"/etc/passwd").digest(), b"/etc/passwd")


def test_what_is_no_file_or_gone_or_behind_a_link(folder):
    os.mkfifo(folder.at("fifo"))
    os.symlink("/etc", folder.at("l"))
    found = hashed(folder, ["fifo", "nothing", "no/f", "l/passwd"])
    assert [one.problem for one in found] == ["unreadable", "gone", "gone", "gone"]


def overwrite(folder, mode):
    with open(folder.at("f"), mode) as file:
        file.write(b"more")


def replace(folder, make):
    os.unlink(folder.at("f"))
    make(folder.at("f"))


def move_over(folder):
    folder.write("g", b"new")
    os.rename(folder.at("g"), folder.at("f"))


CHANGES = {
    "grows": lambda f: overwrite(f, "ab"),
    "shrinks": lambda f: os.truncate(f.at("f"), 10),
    "is written in place": lambda f: overwrite(f, "r+b"),
    "is replaced": move_over,
    "is removed": lambda f: os.unlink(f.at("f")),
    "becomes a FIFO": lambda f: replace(f, os.mkfifo),
    "becomes a link": lambda f: replace(f, lambda path: os.symlink("/etc/passwd", path)),
    "is touched": lambda f: os.utime(f.at("f"), ns=(1, 1)),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize(
    ("call", "turn"), [("open_file", 1), ("fstat", 1), ("read", 1), ("read", 2), ("fstat", 2), ("lstat", 2)]
)
def test_a_file_that_changes_while_it_is_read_has_the_hash_of_one_instant_or_none(folder, change, call, turn):
    """Case 13: the published version is the content at one instant, or there is none."""
    folder.write("f", b"x" * 3_000_000)
    (found,) = hashed(folder, ["f"], fs=lambda fs: at_call(fs, call, lambda: CHANGES[change](folder), turn=turn))
    if found.problem:
        assert (found.hash, found.problem) in {(b"", "changing"), (b"", "gone")}
    else:
        assert (call, turn) in {("open_file", 1), ("fstat", 1)}, "it changed after the first look into it"
        assert found.hash == blake3(folder.read("f")).digest()
        assert found.fingerprint == listings(folder)[""].sightings[0].fingerprint


def test_what_was_written_just_now_is_not_settled(folder):
    folder.write("f", b"x")
    written_ms = os.stat(folder.at("f")).st_ctime_ns // 1_000_000
    assert not hashed(folder, ["f"], now_ms=written_ms + 1)[0].settled
    assert hashed(folder, ["f"], now_ms=written_ms + RACY_MS + 1)[0].settled


def test_memory_is_bounded_and_descriptors_are_given_back(folder):
    folder.write("d/f", b"x")
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(50):
        listings(folder)
        hashed(folder, ["d/f", "nothing"])
    assert len(os.listdir("/proc/self/fd")) == before
    fs = LinuxFileSystem()
    root = fs.open_root(folder.path)
    with pytest.raises(OSError, match="within each other"), opened(fs, root, "/".join(["d"] * (DEPTH_MAX + 1))):
        pass
    fs.close(root)


class Coarse(LinuxFileSystem):
    """A disk whose time stamps are of whole seconds."""

    def lstat(self, parent, name):
        return self._coarse(super().lstat(parent, name))

    def fstat(self, handle):
        return self._coarse(super().fstat(handle))

    @staticmethod
    def _coarse(found):
        return found._replace(ctime_ns=found.ctime_ns - found.ctime_ns % 1_000_000_000)


def test_where_time_stamps_are_coarse_what_was_written_in_the_last_seconds_is_not_settled(folder):
    """It may be written again with the same size, and no time stamp would tell."""
    folder.write("f", b"x")
    written_ms = os.stat(folder.at("f")).st_ctime_ns // 1_000_000_000 * 1_000
    assert not hashed(folder, ["f"], fs=lambda _: Coarse(), now_ms=written_ms + COARSE_MS)[0].settled
    assert hashed(folder, ["f"], fs=lambda _: Coarse(), now_ms=written_ms + COARSE_MS + RACY_MS + 1)[0].settled
