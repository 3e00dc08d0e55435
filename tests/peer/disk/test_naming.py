"""Names on file systems that hold fewer of them than Linux's own: kept in the folder, never changed, and told."""

from __future__ import annotations

import errno
import os
import unicodedata
from typing import Any, Final, Literal

import pytest

from peer.core.operations import Place, Rename
from peer.disk.files import LinuxFileSystem
from peer.disk.recovery import recover
from protocol.effects import Access, Handle, Stat
from protocol.entries import Kind
from tests.peer.disk.kit import Folder, Fuse, FusedJournal, Killed, Wrapped, item_at
from tests.peer.disk.test_applier import found

FORBIDDEN: Final = frozenset('\\:*?"<>|')


class Narrow(LinuxFileSystem):
    """A disk as other systems format them: some characters are no part of a name, and many names count as the same."""

    def __init__(self, *, form: Literal["NFC", "NFD"] | None = None, strips: bool = True) -> None:
        self._form = form
        self._strips = strips

    def _spelled(self, parent: Handle, name: str) -> str:
        """Return how a name is stored: as one that is there and counts as the same, else as the disk would write it."""
        if any(character in FORBIDDEN for character in name):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        name = name.rstrip(". ") if self._strips else name
        name = unicodedata.normalize(self._form, name) if self._form else name
        there = {each.casefold(): each for each in os.listdir(parent)}
        return there.get(name.casefold(), name)

    def open_directory(self, parent: Handle, name: str) -> Handle:
        return super().open_directory(parent, self._spelled(parent, name))

    def open_file(self, parent: Handle, name: str, access: Access) -> Handle:
        return super().open_file(parent, self._spelled(parent, name), access)

    def lstat(self, directory: Handle, name: str) -> Stat:
        return super().lstat(directory, self._spelled(directory, name))

    def make_directory(self, parent: Handle, name: str, mode: int) -> None:
        super().make_directory(parent, self._spelled(parent, name), mode)

    def rename(self, parent: Handle, name: str, new_parent: Handle, new_name: str) -> None:
        super().rename(parent, self._spelled(parent, name), new_parent, self._spelled(new_parent, new_name))

    def unlink(self, parent: Handle, name: str) -> None:
        super().unlink(parent, self._spelled(parent, name))


@pytest.fixture
def narrow(tmp_path):
    return Folder(str(tmp_path / "f"), Narrow())


def place(folder: Folder, *paths: str, kind: Kind = Kind.FILE) -> list[str]:
    items = [item_at(path, path.encode(), kind=kind) for path in paths]
    contents = [(item, path.encode()) for item, path in zip(items, paths, strict=True)] if kind is Kind.FILE else []
    outcomes: list[str] = found(folder.apply([Place(item) for item in items], contents))
    return outcomes


@pytest.mark.parametrize("kind", [Kind.FILE, Kind.DIRECTORY])
def test_what_the_disk_cannot_hold_is_refused_by_name_and_all_else_goes_on(narrow, kind):
    names = ["a:b", "good", "what?", "dot.", "space ", "tab\\", "also good", "GOOD"]
    assert place(narrow, *names, kind=kind) == ["name", "done", "name", "name", "name", "name", "done", "name"]
    assert {path.rstrip("/") for path in narrow.tree()} == {"good", "also good"}
    refused = 6 if kind is Kind.FILE else 0
    assert len(narrow.hidden()) == refused, "only what was received, and waits for another try"


def test_of_two_spellings_one_is_there_and_the_other_is_told(narrow):
    narrow.write("f", b"mine")
    assert place(narrow, "F") == ["name"]
    assert place(narrow, "f") == ["taken"]
    assert narrow.tree() == {"f": b"mine"}


def test_a_disk_that_writes_names_in_another_form_holds_each_once(tmp_path):
    composed, decomposed = "\u00fc", "u\u0308"
    other = Folder(str(tmp_path / "nfd"), Narrow(form="NFD"))
    assert place(other, composed, decomposed, "plain") == ["done", "taken", "done"]
    assert place(other, "PLAIN", composed.upper()) == ["name", "name"]
    assert set(other.tree()) == {decomposed, "plain"}
    exact = Folder(str(tmp_path / "exact"))
    assert place(exact, composed, decomposed, "dot.", "space ", "a:b") == ["done"] * 5
    assert exact.hidden() == []


@pytest.mark.parametrize("path", ["f", "d/f", "d"])
def test_another_spelling_of_the_same_name_is_taken_over(narrow, path):
    narrow.write("d/f", b"in d")
    narrow.write("f", b"f")
    seen = narrow.seen()
    before = set(narrow.tree())
    directory, _, name = path.rpartition("/")
    there = item_at(f"{directory}/{name.upper()}" if directory else name.upper(), id=path)
    item = seen[path].__class__(seen[path].id, seen[path].parent, there.name, seen[path].content)
    assert found(narrow.apply([Rename(seen[path], item)], seen=seen)) == ["done"]
    after = set(narrow.tree())
    assert len(after) == len(before)
    assert {each.casefold() for each in after} == {each.casefold() for each in before}
    assert after != before
    assert narrow.hidden() == []
    assert not list(narrow.journal.rows())


def test_a_file_that_is_respelled_is_never_lost(tmp_path):
    """Killed at every call: it has one of its two names in the end."""
    for after in range(200):
        folder = Folder(str(tmp_path / str(after)), Narrow())
        folder.write("f", b"precious")
        seen = folder.seen()
        item = seen["f"].__class__(seen["f"].id, seen["f"].parent, "F", seen["f"].content)
        fuse = Fuse(after)
        inner, folder.fs = folder.fs, Wrapped(folder.fs, fuse.burn)
        journal, folder.journal = folder.journal, FusedJournal(folder.journal, fuse)
        try:
            done: Any = folder.apply([Rename(seen["f"], item)], seen=seen)
        except Killed:
            folder.fs.die()
            done = None
        folder.fs, folder.journal = inner, journal
        with folder.open() as root:
            assert not recover(root, folder.journal).left
        assert list(folder.tree().values()) == [b"precious"]
        assert set(folder.tree()) <= {"f", "F"}
        if done is not None:
            assert folder.tree() == {"F": b"precious"}
            return
    raise AssertionError("it never came to an end")
