"""A root that is gone is missing, never empty; and what may not become a root at all."""

from __future__ import annotations

import os
import shutil
import stat
from typing import Any

import pytest

from peer.disk.files import LinuxFileSystem
from peer.disk.roots import Root, RootGuard, RootMissing, check_new_root
from peer.disk.walk import DiskError
from protocol.errors import UserError
from protocol.ids import FolderId
from tests.peer.disk.kit import FOLDER, Wrapped

OTHER = FolderId(b"o" * 32)


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "folder"
    path.mkdir()
    return str(path)


def guard(path, folder=FOLDER, holder="laptop"):
    return RootGuard(LinuxFileSystem(), path, folder, holder)


def state(path, **options):
    opened = guard(path, **options).open()
    if isinstance(opened, Root):
        opened.close()
        return "open"
    return opened.reason


def test_a_marked_root_opens_and_only_its_owner_may_look_into_ours(path):
    guard(path).mark()
    assert state(path) == "open"
    assert stat.S_IMODE(os.stat(os.path.join(path, ".kinfolder")).st_mode) == 0o700
    guard(path).mark()
    assert state(path) == "open"


def unmounted(path):
    shutil.rmtree(path)
    os.mkdir(path)


def swapped_for_a_link(path):
    os.rename(path, path + "2")
    os.symlink(path + "2", path)


def replaced_by_a_file(path):
    shutil.rmtree(path)
    with open(path, "w"):
        pass


def marker_is_a_link(path):
    shutil.copy(os.path.join(path, ".kinfolder/folder"), path + "-marker")
    os.unlink(os.path.join(path, ".kinfolder/folder"))
    os.symlink(path + "-marker", os.path.join(path, ".kinfolder/folder"))


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        (shutil.rmtree, "missing"),
        (unmounted, "unmarked"),
        (lambda path: guard(path).unmark(), "unmarked"),
        (swapped_for_a_link, "unreadable"),
        (replaced_by_a_file, "unreadable"),
        (marker_is_a_link, "unreadable"),
    ],
)
def test_what_is_not_the_root_any_more_is_missing(path, what, reason):
    """Case 74."""
    guard(path).mark()
    what(path)
    assert state(path) == reason


def test_another_folder_or_another_device_is_foreign(path):
    """Cases 117 and 123."""
    guard(path).mark()
    assert state(path, folder=OTHER) == "foreign"
    assert state(path, holder="desktop") == "foreign"
    with pytest.raises(UserError, match="belongs to another"):
        guard(path, folder=OTHER).mark()


def test_a_root_that_was_moved_to_another_disk_is_still_the_root(path):
    guard(path).mark()
    shutil.copytree(path, path + "2", symlinks=True)
    shutil.rmtree(path)
    os.rename(path + "2", path)
    assert state(path) == "open"


def test_marking_survives_a_crash_at_any_call(path):
    for n in range(100):
        left = [n]

        def before(*_, left=left):
            left[0] -= 1
            if left[0] < 0:
                raise KeyboardInterrupt

        door = Wrapped(LinuxFileSystem(), before)
        try:
            RootGuard(door, path, FOLDER, "laptop").mark()
        except KeyboardInterrupt:
            door.die()
            assert state(path) in {"open", "unmarked"}
            guard(path).mark()
            assert state(path) == "open"
            shutil.rmtree(os.path.join(path, ".kinfolder"))
        else:
            assert n > 10
            return


def test_unmarking_leaves_no_trace_but_keeps_what_lies_in_the_trash(path):
    guard(path).mark()
    guard(path).unmark()
    assert os.listdir(path) == []
    guard(path).mark()
    with open(os.path.join(path, ".kinfolder/trash/x"), "w"):
        pass
    guard(path).unmark()
    assert os.listdir(os.path.join(path, ".kinfolder/trash")) == ["x"]
    with pytest.raises(DiskError):
        guard(path).unmark()


def test_hidden_directories_are_made_when_they_are_missing(path):
    guard(path).mark()
    os.rmdir(os.path.join(path, ".kinfolder/tmp"))
    opened = guard(path).open()
    assert not isinstance(opened, RootMissing)
    with opened as root:
        assert root.hidden("tmp") == root.hidden("tmp")
    assert os.path.isdir(os.path.join(path, ".kinfolder/tmp"))


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("/", "root of the file system"),
        ("home", "home directory"),
        ("", "home directory"),
        ("home/kin", "its own state"),
        ("home/kin/below", "its own state"),
        ("home/docs", "folder already"),
        ("home/docs/below", "lie in each other"),
        ("home/above", "lie in each other"),
        ("home/link", "folder already"),
        ("home/file", "is a file"),
        ("home/foreign/below/deep", "a folder already"),
        ("home/pictures/.kinfolder/x", "keeps for itself"),
        ("home/pictures/.KinFolder", "keeps for itself"),
    ],
)
def test_what_may_not_become_a_root(tmp_path, path, says):
    """Security 4.2."""
    home = tmp_path / "home"
    for one in ("kin", "docs", "above/inner", "foreign/.kinfolder", "foreign/below", "pictures"):
        (home / one).mkdir(parents=True)
    (home / "file").write_bytes(b"")
    (home / "foreign/.kinfolder/folder").write_bytes(b"")
    (home / "link").symlink_to(home / "docs")
    with pytest.raises(UserError, match=says):
        check_new_root(
            path if path == "/" else str(tmp_path / path),
            state=[str(home / "kin")],
            roots=[str(home / "docs"), str(home / "above/inner")],
            user_home=str(home),
        )


def test_what_may_become_a_root(tmp_path):
    home = tmp_path / "home"
    (home / "docs").mkdir(parents=True)
    (home / "link").symlink_to(home / "new")
    options: dict[str, Any] = {"state": [str(home / ".kin")], "roots": [str(home / "docs")], "user_home": str(home)}
    for path in ("home/pictures", "home/docs2", "other", "home/link", "home/.kin2"):
        real = check_new_root(str(tmp_path / path), **options)
        assert os.path.isabs(real)
    assert check_new_root(str(home / "link"), **options) == os.path.realpath(home / "new")


def test_network_mounts_need_consent(tmp_path, monkeypatch):
    monkeypatch.setattr("peer.disk.roots._mounted_as", lambda path: "nfs4")
    options: dict[str, Any] = {"state": [], "roots": [], "user_home": str(tmp_path / "home")}
    with pytest.raises(UserError, match="network mount"):
        check_new_root(str(tmp_path / "x"), **options)
    assert check_new_root(str(tmp_path / "x"), allow_network=True, **options)
