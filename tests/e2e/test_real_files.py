"""Files as people and their programs leave them, between two devices whose agents run all the time."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import sqlite3
import stat
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest

from peer.engine.observer import RULES_REST_S
from protocol.ids import ROOT
from simulations.processes import Cluster, Device, tree_of
from tests.e2e.kit import ask, assert_no_tracebacks, folder_of, reasons, settle, start_agent, until


class World(NamedTuple):
    cluster: Cluster
    a: Device
    b: Device
    one: Path
    two: Path

    def settle(self) -> None:
        settle(self.a, self.b)

    def assert_same(self) -> dict[str, bytes]:
        self.settle()
        one, two = dict(tree_of(self.one)), dict(tree_of(self.two))
        assert one == two
        return one

    def position(self) -> int:
        return int(folder_of(ask(self.a), "work")["position"]["head"])


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with Cluster(tmp_path_factory.mktemp("real") / "cluster") as cluster:
        a = cluster.first_device("laptop")
        a.add(cluster.root / "one", "work")
        b = cluster.link_device(a, "desktop")
        a.sync()
        b.get("work", cluster.root / "two")
        try:
            start_agent(a, cluster.root)
            start_agent(b, cluster.root)
            settle(a, b)
            yield World(cluster, a, b, cluster.root / "one", cluster.root / "two")
        finally:
            a.stop()
            b.stop()
        assert_no_tracebacks(cluster)


# --- What stands in a folder


ODD_NAMES = [
    b"\xff\xfe not UTF-8",
    b"with\nnewline",
    b"\x01\x1b[31mcontrol",
    b" spaces ",
    b"-rf",
    b"x" * 255,
    "u\u0308 decomposed".encode(),
    "\N{FAMILY} emoji".encode(),
    b'a:b*?<>|"\\',
    b"CON",
    b"trailing.",
    b"~home",
    b"$(true)",
]


def test_odd_names_arrive_as_they_are(world: World) -> None:
    for number, name in enumerate(ODD_NAMES):
        with open(os.path.join(os.fsencode(world.one), name), "wb") as file:
            file.write(b"%d" % number)
    os.mkdir(os.path.join(os.fsencode(world.one), b"dir \xe9"))
    with open(os.path.join(os.fsencode(world.one), b"dir \xe9", b"\x80"), "wb") as file:
        file.write(b"below")
    world.assert_same()
    assert set(ODD_NAMES) <= set(os.listdir(os.fsencode(world.two)))
    for name in ODD_NAMES:
        os.unlink(os.path.join(os.fsencode(world.two), name))
    assert not {os.fsdecode(name) for name in ODD_NAMES} & set(world.assert_same())


def test_two_spellings_of_one_name_are_both_kept(world: World) -> None:
    (world.one / "\u00fc").write_bytes(b"composed")
    (world.one / "u\u0308").write_bytes(b"decomposed")
    tree = world.assert_same()
    assert sorted(tree[name] for name in tree if name[0] in "u\u00fc") == [b"composed", b"decomposed"]
    for name in [name for name in tree if name[0] in "u\u00fc"]:
        (world.two / name).unlink()
    world.assert_same()


def test_directories_links_and_the_executable_bit_arrive(world: World) -> None:
    (world.one / "empty" / "nested").mkdir(parents=True)
    (world.one / "run.sh").write_bytes(b"#!/bin/sh\n")
    (world.one / "run.sh").chmod(0o755)
    targets = {"dangling": "no/where", "absolute": "/etc/hostname", "loop1": "loop2", "loop2": "loop1", "up": "../../x"}
    targets |= {"self": "self", "directory": "empty", "odd": "a\nb\udcff"}
    for name, target in targets.items():
        (world.one / name).symlink_to(target)
    world.assert_same()
    assert (world.two / "empty" / "nested").is_dir()
    assert os.access(world.two / "run.sh", os.X_OK)
    assert {name: os.readlink(world.two / name) for name in targets} == targets
    (world.two / "run.sh").chmod(0o644)
    (world.two / "empty" / "nested").rmdir()
    (world.two / "dangling").unlink()
    (world.two / "dangling").symlink_to("some/where/else")
    world.assert_same()
    assert not (world.one / "run.sh").stat().st_mode & stat.S_IXUSR
    assert list((world.one / "empty").iterdir()) == []
    assert os.readlink(world.one / "dangling") == "some/where/else"


def test_what_is_neither_file_nor_directory_nor_link_is_named_and_nothing_waits_for_it(world: World) -> None:
    os.mkfifo(world.one / "fifo")
    with socket.socket(socket.AF_UNIX) as bound:
        here = os.open(world.one, os.O_PATH)
        try:
            bound.bind(f"/proc/self/fd/{here}/socket")
        finally:
            os.close(here)
        (world.one / "beside").write_bytes(b"beside a fifo")
        result = ask(world.a, "wait", timeout=60)
        assert result["exit"] == 4
        assert [line.partition(": ")[0] for line in sorted(result["remains"])] == ["work/fifo", "work/socket"]
        assert all("neither file, directory nor link" in line for line in result["remains"])
        assert reasons(world.a, "work") == {"fifo": "name", "socket": "name"}
        settle(world.b)
        assert (world.two / "beside").read_bytes() == b"beside a fifo"
        assert not (world.two / "fifo").exists()
    (world.one / "fifo").unlink()
    (world.one / "socket").unlink()
    world.assert_same()


def test_hard_links_are_files_of_their_own_and_an_edit_shows_in_both(world: World) -> None:
    (world.one / "name1").write_bytes(b"one file, two names\n")
    os.link(world.one / "name1", world.one / "name2")
    world.assert_same()
    with open(world.one / "name1", "ab") as file:
        file.write(b"edited through the first name\n")
    tree = world.assert_same()
    assert tree["name1"] == tree["name2"] == b"one file, two names\nedited through the first name\n"
    (world.one / "name1").unlink()
    assert "name1" not in world.assert_same()
    assert (world.two / "name2").read_bytes().endswith(b"first name\n")


def test_file_times_ten_years_off_are_kept_and_cause_nothing(world: World) -> None:
    now_ns = time.time_ns()
    ten_years_ns = 10 * 365 * 86_400 * 10**9
    times = {"past": now_ns - ten_years_ns, "future": now_ns + ten_years_ns, "epoch": 0, "before": -(10**9) * 86_400}
    for name, time_ns in times.items():
        (world.one / name).write_bytes(name.encode())
        os.utime(world.one / name, ns=(time_ns, time_ns))
    world.assert_same()
    assert {name: (world.two / name).stat().st_mtime_ns for name in times} == times
    before = world.position()
    (world.two / "future").write_bytes(b"edited in the present\n")
    tree = world.assert_same()
    assert tree["future"] == b"edited in the present\n"
    assert world.position() == before + 1
    assert not [name for name in tree if "conflict" in name]


# --- .kinignore


def test_ignored_files_never_leave_and_a_new_rule_deletes_nothing(world: World) -> None:
    (world.one / ".kinignore").write_text("# ours\n*.secret\nbuild/\n!keep.secret\n")
    for path in ("a.secret", "keep.secret", "plain", "build/out", "deep/build/out", "deep/b.secret", "deep/plain"):
        (world.one / "ignoring" / path).parent.mkdir(parents=True, exist_ok=True)
        (world.one / "ignoring" / path).write_text(path)
    world.settle()
    seen = {
        path for path in dict(tree_of(world.two)) if (path.startswith("ignoring/") and "." in path) or "build" in path
    }
    assert seen == {"ignoring/keep.secret"}
    assert (world.two / "ignoring" / "deep" / "plain").read_text() == "deep/plain"
    assert (world.two / ".kinignore").read_bytes() == (world.one / ".kinignore").read_bytes()
    assert ask(world.a)["in_sync"]

    # A rule for what is synced: it stays on both devices, and no longer follows.
    with open(world.one / ".kinignore", "a") as file:
        file.write("plain\n")
    world.settle()
    for root in (world.one, world.two):
        assert (root / "ignoring" / "plain").read_text() == "plain"
        assert (root / "ignoring" / "deep" / "plain").read_text() == "deep/plain"
    (world.one / "ignoring" / "plain").write_text("edited while ignored")
    (world.one / "ignoring" / "deep" / "plain").unlink()
    world.settle()
    assert (world.two / "ignoring" / "plain").read_text() == "plain"
    assert (world.two / "ignoring" / "deep" / "plain").read_text() == "deep/plain"
    assert ask(world.a)["in_sync"]
    assert ask(world.b)["in_sync"]


def test_a_directory_that_goes_elsewhere_stays_where_something_ignored_is_in_it(world: World) -> None:
    (world.one / ".kinignore").write_text("*.mine\n")
    (world.one / "leaving").mkdir()
    (world.one / "leaving" / "shared").write_text("shared")
    world.settle()
    (world.two / "leaving" / "only.mine").write_text("of the desktop alone")
    world.settle()
    (world.one / "leaving" / "shared").unlink()
    (world.one / "leaving").rmdir()
    world.settle()
    assert (world.two / "leaving" / "only.mine").read_text() == "of the desktop alone"
    assert not (world.two / "leaving" / "shared").exists()
    (world.two / "leaving" / "only.mine").unlink()
    (world.one / ".kinignore").unlink()
    world.assert_same()


def test_a_rule_that_goes_lets_its_files_follow_again(world: World) -> None:
    (world.one / ".kinignore").write_text("*.late\nsub/\n")
    (world.one / "sub").mkdir()
    (world.one / "sub" / "held").write_text("held")
    (world.one / "x.late").write_text("late")
    (world.one / "was here").write_text("synced before it is ignored")
    world.settle()
    assert not (world.two / "sub").exists()
    assert not (world.two / "x.late").exists()
    # What is removed while it is ignored is removed on this device alone, also when the rule has gone.
    (world.one / ".kinignore").write_text("*.late\nsub/\nwas here\n")
    world.settle()
    (world.one / "was here").unlink()
    world.settle()
    (world.one / ".kinignore").unlink()
    world.assert_same()
    assert (world.one / "was here").read_text() == "synced before it is ignored"
    assert (world.two / "sub" / "held").read_text() == "held"
    assert (world.two / "x.late").read_text() == "late"


def test_rules_that_an_editor_empties_for_a_moment_stay_in_force(world: World) -> None:
    """The agent looks at once at what is beside a rule file that is being saved, and must not take it for empty."""
    (world.one / ".kinignore").write_text("*.private\n")
    (world.one / "my.private").write_text("private")
    world.settle()
    longest_s = 0.0
    for _ in range(5):
        began_s = time.monotonic()
        os.rename(world.one / ".kinignore", world.one / ".kinignore~")
        (world.one / "seen").write_text(str(os.urandom(4)))
        until(lambda: same(world.one / "seen", world.two / "seen"), "the other file follows")
        os.rename(world.one / ".kinignore~", world.one / ".kinignore")
        longest_s = max(longest_s, time.monotonic() - began_s)
    world.settle()
    # On a machine so busy that rules were away for longer than a moment, they had gone indeed.
    assert longest_s > RULES_REST_S / 2 or not (world.two / "my.private").exists()
    (world.one / ".kinignore").unlink()
    (world.one / "my.private").unlink()
    world.assert_same()


def same(one: Path, two: Path) -> bool:
    return two.exists() and two.read_bytes() == one.read_bytes()


# --- Editors


def save_in_place(path: Path, data: bytes) -> None:
    with open(path, "r+b") as file:
        file.truncate()
        file.write(data)


def save_like_vim(path: Path, data: bytes) -> None:
    """``writebackup`` with ``backupcopy=no``: a probe, the old file renamed away, a new one written, the old removed."""
    probe = path.parent / "4913"
    probe.write_bytes(b"")
    probe.unlink()
    backup = path.with_name(path.name + "~")
    path.rename(backup)
    path.write_bytes(data)
    backup.unlink()


def save_like_gedit(path: Path, data: bytes) -> None:
    """GLib: a temporary beside it, renamed over it."""
    temporary = path.parent / ".goutputstream-AB12CD"
    temporary.write_bytes(data)
    temporary.rename(path)


def save_like_office(path: Path, data: bytes) -> None:
    """A lock file, the new content beside it, the old file renamed away, the new one renamed to it, the old removed."""
    lock = path.with_name("~$" + path.name)
    lock.write_bytes(b"owner")
    temporary, old = path.with_name("~WRD0000.tmp"), path.with_name("~WRL0001.tmp")
    temporary.write_bytes(data)
    path.rename(old)
    temporary.rename(path)
    old.unlink()
    lock.unlink()


def save_by_removing(path: Path, data: bytes) -> None:
    path.unlink()
    path.write_bytes(data)


SAVES = [save_in_place, save_like_vim, save_like_gedit, save_like_office, save_by_removing]


@pytest.mark.parametrize("save", SAVES, ids=lambda save: save.__name__)
def test_a_save_is_one_edit_on_the_other_device(world: World, save) -> None:
    name = f"{save.__name__}.txt"
    (world.one / name).write_bytes(b"first\n")
    world.assert_same()
    watcher = Watcher(world.two, name)
    for turn in range(2):
        before = world.position()
        data = b"%s %d\n" % (save.__name__.encode(), turn)
        save(world.one / name, data)
        until(partial(same, world.one / name, world.two / name), "the edit arrives")
        world.assert_same()
        assert world.position() == before + 1
    watcher.stop()
    assert not watcher.missed, "the file was away on the other device"
    assert watcher.names <= {name}, "a half of a save was seen on the other device"


def save_like_vim_in_place(path: Path, data: bytes) -> None:
    """``backupcopy=yes``: a swap file all the while, a copy of the old file beside it, the file itself written anew."""
    swap, backup = path.with_name(f".{path.name}.swp"), path.with_name(f"{path.name}~")
    swap.write_bytes(b"b0VIM")
    shutil.copy2(path, backup)
    save_in_place(path, data)
    backup.unlink()
    swap.unlink()


def save_like_vim_with_backup(path: Path, data: bytes) -> None:
    """``backup``: the old file is renamed to the backup's name and stays there."""
    backup = path.with_name(f"{path.name}~")
    backup.unlink(missing_ok=True)
    path.rename(backup)
    path.write_bytes(data)


def save_like_emacs(path: Path, data: bytes) -> None:
    """A lock that is a link to nowhere, what is not saved yet, a backup at the first save, later ones in place."""
    lock, unsaved = path.with_name(f".#{path.name}"), path.with_name(f"#{path.name}#")
    lock.symlink_to("anna@laptop.1234:1700000000")
    unsaved.write_bytes(data)
    backup = path.with_name(f"{path.name}~")
    if not backup.exists():
        path.rename(backup)
    path.write_bytes(data)
    unsaved.unlink()
    lock.unlink()


def save_like_libreoffice(path: Path, data: bytes) -> None:
    """A lock file while it is open, the new content in a temporary beside it, renamed over it."""
    lock, temporary = path.with_name(f".~lock.{path.name}#"), path.with_name("lu48213abc.tmp")
    lock.write_bytes(b",anna,laptop,;")
    temporary.write_bytes(data)
    temporary.rename(path)
    lock.unlink()


def save_like_excel(path: Path, data: bytes) -> None:
    """Names of eight digits, which no rule can know: the new file, the old one renamed away, both renamed, the old removed."""
    lock = path.with_name(f"~${path.name}")
    lock.write_bytes(b"owner")
    new, old = path.with_name("5D3B2A00"), path.with_name("7F21C0DE.tmp")
    new.write_bytes(data)
    path.rename(old)
    new.rename(path)
    old.unlink()
    lock.unlink()


def save_like_jetbrains(path: Path, data: bytes) -> None:
    new, old = path.with_name(f"{path.name}___jb_tmp___"), path.with_name(f"{path.name}___jb_old___")
    new.write_bytes(data)
    path.rename(old)
    new.rename(path)
    old.unlink()


def save_like_kde(path: Path, data: bytes) -> None:
    """QSaveFile, and with it most of KDE."""
    temporary = path.with_name(f"{path.name}.qXvR1s")
    temporary.write_bytes(data)
    temporary.rename(path)


def save_like_rsync(path: Path, data: bytes) -> None:
    temporary = path.with_name(f".{path.name}.q8Zt2a")
    temporary.write_bytes(data)
    os.utime(temporary, ns=(0, 1_600_000_000 * 10**9 + len(data)))
    temporary.rename(path)


def save_like_a_browser(path: Path, data: bytes) -> None:
    """An empty file that takes the name, the bytes beside it, renamed over it."""
    path.write_bytes(b"")
    part = path.with_name(f"{path.name}.part")
    part.write_bytes(data)
    part.rename(path)


MORE_SAVES = [
    *(save_like_vim_in_place, save_like_vim_with_backup, save_like_emacs, save_like_libreoffice, save_like_excel),
    *(save_like_jetbrains, save_like_kde, save_like_rsync, save_like_a_browser),
]
BACKUPS = {f"{save.__name__}.txt~" for save in (save_like_vim_with_backup, save_like_emacs)}


def nodes_of(device: Device) -> dict[str, bytes]:
    """Return the node behind each name in the root, as a device has it."""
    with contextlib.closing(sqlite3.connect(f"{(device.home / 'state.db').as_uri()}?mode=ro", uri=True)) as db:
        rows = db.execute("SELECT name, id FROM synced_item WHERE parent = ?", (ROOT,))
        return {os.fsdecode(name): bytes(id) for name, id in rows}


def test_programs_save_in_many_ways_and_each_is_an_edit_of_the_same_node(world: World) -> None:
    """Not a removal and a new file, so its versions stay together; and no half of a save is ever seen elsewhere."""
    names = {save: f"{save.__name__}.txt" for save in MORE_SAVES}
    for name in names.values():
        (world.one / name).write_bytes(b"first\n")
    world.assert_same()
    before = nodes_of(world.b)
    watchers = [Watcher(world.two, name) for name in names.values()]
    for turn in range(2):
        for save, name in names.items():
            save(world.one / name, b"%s %d\n" % (name.encode(), turn))
        until(lambda: all(same(world.one / name, world.two / name) for name in names.values()), "the edits arrive")
    tree = world.assert_same()
    for watcher in watchers:
        watcher.stop()
    after = nodes_of(world.b)
    assert {name: after[name] for name in names.values()} == {name: before[name] for name in names.values()}
    assert {name: tree[name] for name in BACKUPS} == {
        "save_like_emacs.txt~": b"first\n",
        "save_like_vim_with_backup.txt~": b"save_like_vim_with_backup.txt 0\n",
    }
    assert not any(watcher.missed for watcher in watchers), "a file was away on the other device"
    assert {name for watcher in watchers for name in watcher.names} <= {*names.values(), *BACKUPS}


def test_an_office_save_and_an_edit_elsewhere_are_one_copy(world: World) -> None:
    (world.one / "report.docx").write_bytes(b"before")
    world.assert_same()
    ask(world.b, "offline")
    (world.two / "report.docx").write_bytes(b"of the desktop")
    until(lambda: reasons(world.b, "work"), "the edit is seen")
    save_like_office(world.one / "report.docx", b"of the laptop")
    settle(world.a)
    ask(world.b, "online")
    tree = {name: data for name, data in world.assert_same().items() if name.startswith("report")}
    assert tree.pop("report.docx") == b"of the laptop"
    assert list(tree.values()) == [b"of the desktop"]
    assert all("(conflict, desktop, " in name for name in tree)


def test_a_download_that_takes_long_is_renamed_and_not_sent_again(world: World) -> None:
    (world.one / "film.mkv.crdownload").write_bytes(b"half of a film")
    world.assert_same()
    node = nodes_of(world.b)["film.mkv.crdownload"]
    (world.one / "film.mkv.crdownload").rename(world.one / "film.mkv")
    tree = world.assert_same()
    assert "film.mkv.crdownload" not in tree
    assert nodes_of(world.b)["film.mkv"] == node


class Watcher:
    """Looks all the time whether a file stands at its name, and what else turns up beside it."""

    def __init__(self, root: Path, name: str) -> None:
        self.missed = False
        self.names: set[str] = set()
        self._root = root
        self._name = name
        self._before = set(os.listdir(root)) - {name}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look)
        self._thread.start()

    def _look(self) -> None:
        while not self._stop.wait(0.002):
            self.missed = self.missed or not (self._root / self._name).exists()
            self.names |= set(os.listdir(self._root)) - self._before

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()
