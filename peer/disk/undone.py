"""Move files aside whose rewriting was undone: into ``.kinfolder/undone``, where nothing looks at them but their owner.

Rule 1: nothing is opened, read or written over; whatever stands at a name when it is moved lies aside afterwards.
Rule 2: what lies there is the user's: nothing of ours ever removes it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Final

from peer.disk.roots import Root
from peer.disk.walk import CONTROL, disk_error, is_gone, kind_of, opened, split
from protocol.effects import Handle
from protocol.entries import Kind

UNDONE: Final = "undone"


def place_of(batch: str) -> str:
    """Return the path from the root at which the files of one undoing lie."""
    return f"{CONTROL}/{UNDONE}/{batch}"


def move_aside(root: Root, batch: str, paths: Iterable[str]) -> None:
    """Move files, each to its own path under the batch's directory; one that is not there is passed over.

    A second one of the same path goes beside the first. Runs in the pool; durable when it returns.

    Raises:
        DiskError: It cannot be done; what was moved before lies aside.
    """
    touched: set[str] = set()
    try:
        for path in paths:
            directory, name = split(path)
            with _made(root, f"{batch}/{directory}".rstrip("/")) as aside:
                if _move(root, directory, name, aside):
                    touched.add(directory)
                    root.fs.sync(aside)
        for directory in sorted(touched):
            _sync(root, directory)
    except OSError as error:
        raise disk_error(error, writing=True) from error


def _sync(root: Root, directory: str) -> None:
    try:
        with opened(root.fs, root.handle, directory) as handle:
            root.fs.sync(handle)
    except OSError as error:
        if not is_gone(error):
            raise


def _move(root: Root, directory: str, name: str, aside: Handle) -> bool:
    try:
        with opened(root.fs, root.handle, directory) as parent:
            if kind_of(root.fs.lstat(parent, name).mode) is Kind.DIRECTORY:
                return False  # what stands in it was not rewritten
            for new in _names(name):
                try:
                    root.fs.rename(parent, name, aside, new)
                except FileExistsError:
                    continue
                return True
    except OSError as error:
        if not is_gone(error):
            raise
    return False


def _names(name: str) -> Iterator[str]:
    yield name
    for number in range(2, 1_000):
        yield f"{name}.{number}"


@contextmanager
def _made(root: Root, path: str) -> Iterator[Handle]:
    """Open a directory under ``.kinfolder/undone``, made where it is missing."""
    with ExitStack() as stack:
        here = root.hidden(UNDONE)
        for part in path.split("/"):
            try:
                root.fs.make_directory(here, part, 0o700)
                root.fs.sync(here)
            except FileExistsError:
                pass
            here = root.fs.open_directory(here, part)
            stack.callback(root.fs.close, here)
        yield here
