"""From paths to what stands there, through links and mounted disks, as Linux goes."""

from __future__ import annotations

import errno
import os
from typing import Final

from simulations.disk_calls import Calls, failed
from simulations.inodes import Directory, Inode, Link

LINKS_MAX: Final = 40


def resolve(calls: Calls, root: Directory, path: str, *, follows_last: bool = True) -> Inode:
    """Return what stands at an absolute path.

    Raises:
        OSError: ENOENT, ENOTDIR, EACCES, ELOOP.
    """
    here: Inode = root
    left = _parts(path)
    links = 0
    while left:
        if not isinstance(here, Directory):
            raise failed(errno.ENOTDIR, path)
        part = left.pop()
        if part == "..":
            here = _above(here)
            continue
        found = calls.get(here, part)
        if isinstance(found, Link) and (left or follows_last):
            links += 1
            if links > LINKS_MAX:
                raise failed(errno.ELOOP, path)
            target = os.fsdecode(found.target)
            left += _parts(target)
            here = root if target.startswith("/") else here
        else:
            here = found
    return here


def place(calls: Calls, root: Directory, path: str) -> tuple[Directory, str]:
    """Return the directory in which a path's last name stands, and that name.

    Raises:
        OSError: As :func:`resolve`.
    """
    above, _, name = path.rstrip("/").rpartition("/")
    directory = resolve(calls, root, above)
    if not isinstance(directory, Directory):
        raise failed(errno.ENOTDIR, path)
    return directory, name


def _parts(path: str) -> list[str]:
    """Return the names of a path, the first one last."""
    return [part for part in path.split("/") if part not in {"", "."}][::-1]


def _above(directory: Directory) -> Directory:
    if directory.parent is not None:
        return directory.parent
    return directory if directory.under is None or directory.under.parent is None else directory.under.parent
