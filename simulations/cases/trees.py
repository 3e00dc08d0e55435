"""What stands in a directory: paths, types, digests and link texts, read again only where something changed."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Final

from blake3 import blake3

DIRECTORY: Final = "<dir>"
CONTROL: Final = ".kinfolder"
STAGES: Final = "tmp"
"""In it: where the product puts files together."""

Tree = Mapping[str, str]
"""Path to ``<dir>``, ``<link:TEXT>``, or the digest of a file's bytes (:func:`simulations.cases.contents.digest_of`)."""


class Reader:
    """Reads trees; remembers the digest of a file for as long as nothing about it changes."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, int], tuple[tuple[int, int, int], str]] = {}

    def tree(self, root: str) -> dict[str, str]:
        """Return all below a root but Kinfolder's own directory, in order; nothing if there is no root."""
        return dict(sorted(self._walk(root, "")))

    def _walk(self, root: str, below: str) -> Iterator[tuple[str, str]]:
        try:
            with os.scandir(os.path.join(root, below)) as listing:
                entries = list(listing)
        except (FileNotFoundError, NotADirectoryError):
            return
        for entry in entries:
            if not below and entry.name == CONTROL:
                continue
            path = os.path.join(below, entry.name)
            if entry.is_symlink():
                yield path, f"<link:{os.readlink(entry.path)}>"
            elif entry.is_dir(follow_symlinks=False):
                yield path, DIRECTORY
                yield from self._walk(root, path)
            elif entry.is_file(follow_symlinks=False):
                yield path, self.digest(entry.path)
            else:
                yield path, "<other>"

    def digest(self, path: str) -> str:
        """Return the digest of a file."""
        found = os.lstat(path)
        key, seen = (found.st_dev, found.st_ino), (found.st_size, found.st_mtime_ns, found.st_ctime_ns)
        known = self._known.get(key)
        if known is not None and known[0] == seen:
            return known[1]
        digest = blake3().update_mmap(path).hexdigest()
        self._known[key] = seen, digest
        return digest


def is_file(kind: str) -> bool:
    """Whether an entry of a tree is a regular file."""
    return not kind.startswith("<")


def is_below(path: str, top: str) -> bool:
    """Whether a path is another one or stands below it."""
    return path == top or path.startswith(f"{top}/") or top == "."


def without(tree: Tree, tops: set[str]) -> dict[str, str]:
    """Return a tree without these paths and all below them."""
    return {path: kind for path, kind in tree.items() if not any(is_below(path, top) for top in tops)}


def difference(one: Tree, other: Tree) -> str:
    """Return the first few differences between two trees, for a person; nothing if they are equal."""
    found = [
        f"{path}: {one.get(path, 'missing')[:24]} / {other.get(path, 'missing')[:24]}"
        for path in sorted(set(one) | set(other))
        if one.get(path) != other.get(path)
    ]
    return "; ".join(found[:4]) + (f"; and {len(found) - 4} more" if len(found) > 4 else "")
