"""What the machine's own disk adds to :mod:`tests.contracts.test_file_systems`: old kernels."""

from __future__ import annotations

import errno

import pytest

import peer.disk.files as files
from peer.disk.files import LinuxFileSystem
from protocol.effects import Access


def refuses(code):
    return pytest.raises(OSError, match=rf"\[Errno {code}\]")


def make(fs, root, name, kind):
    if kind == "link":
        fs.make_link(root, name, b"target")
    elif kind == "directory":
        fs.make_directory(root, name, 0o777)
    else:
        fs.close(fs.open_file(root, name, Access.CREATE))


@pytest.mark.parametrize("kind", ["file", "link", "directory"])
def test_where_the_kernel_has_no_flags_a_rename_still_never_replaces(tmp_path, monkeypatch, kind):
    """An old kernel or a file system without renameat2: a hard link and an unlink."""

    def refuse(*_):
        raise OSError(errno.EINVAL, "no flags")

    monkeypatch.setattr(files, "_rename", refuse)
    fs = LinuxFileSystem()
    root = fs.open_root(str(tmp_path))
    make(fs, root, "a", kind)
    make(fs, root, "b", "file")
    inode = fs.lstat(root, "a").inode
    with refuses(errno.EEXIST):
        fs.rename(root, "a", root, "b")
    fs.rename(root, "a", root, "c")
    assert sorted(named.name for named in fs.list(root)) == ["b", "c"]
    assert fs.lstat(root, "c").inode == inode
    with refuses(errno.EINVAL):
        fs.exchange(root, "b", root, "c")
    fs.close(root)
