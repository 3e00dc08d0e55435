"""Files whose rewriting is undone lie aside afterwards, whatever they are and whatever lies there already."""

from __future__ import annotations

import os

import pytest

from peer.disk.files import LinuxFileSystem
from peer.disk.roots import Root, RootGuard
from peer.disk.undone import move_aside, place_of
from tests.peer.disk.kit import FOLDER


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "folder"
    (path / "d" / "e").mkdir(parents=True)
    for name in ("f", "d/f", "d/e/f"):
        (path / name).write_text(f"rewritten {name}")
    RootGuard(LinuxFileSystem(), str(path), FOLDER, "laptop").mark()
    return path


def move(path, *paths, batch="batch"):
    root = RootGuard(LinuxFileSystem(), str(path), FOLDER, "laptop").open()
    assert isinstance(root, Root)
    with root:
        move_aside(root, batch, paths)


def aside(path, batch="batch"):
    top = path / place_of(batch)
    return {str(found.relative_to(top)): found.read_text() for found in top.rglob("*") if found.is_file()}


def test_each_file_lies_at_its_own_path(path):
    move(path, "f", "d/e/f")
    assert aside(path) == {"f": "rewritten f", "d/e/f": "rewritten d/e/f"}
    assert not (path / "f").exists()
    assert (path / "d" / "f").exists()


def test_what_is_not_there_or_is_a_directory_is_passed_over(path):
    move(path, "gone", "nowhere/f", "d", "f")
    assert aside(path) == {"f": "rewritten f"}
    assert (path / "d" / "e" / "f").exists()


def test_nothing_that_lies_there_is_written_over(path):
    move(path, "f")
    (path / "f").write_text("again")
    move(path, "f")
    assert aside(path) == {"f": "rewritten f", "f.2": "again"}


def test_no_link_is_followed(path, tmp_path):
    os.rename(path / "d", tmp_path / "outside")
    (path / "d").symlink_to(tmp_path / "outside")
    (path / "link").symlink_to(tmp_path / "outside" / "f")
    move(path, "d/f", "link")
    assert (tmp_path / "outside" / "f").read_text() == "rewritten d/f"
    assert os.readlink(path / place_of("batch") / "link") == str(tmp_path / "outside" / "f")


def test_a_folder_that_is_forgotten_keeps_what_lies_aside(path):
    move(path, "f")
    RootGuard(LinuxFileSystem(), str(path), FOLDER, "laptop").unmark()
    assert aside(path) == {"f": "rewritten f"}
