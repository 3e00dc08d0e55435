"""Which steps are made durable together, and how: one ``syncfs`` serves hundreds of files, one ``fsync`` a few."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from typing import Final

from peer.core.operations import Delete, Place, Rename, Replace, SetAttributes, Step
from peer.core.tree import ItemId
from peer.disk.roots import Root
from peer.disk.walk import is_gone, opened
from protocol import limits
from protocol.effects import Access
from protocol.entries import Kind

GROUP_STEPS_MAX: Final = 2_000
GROUP_BYTES_MAX: Final = 64 * limits.MIB
"""What one ``syncfs`` is used for. It also writes what other programs left unwritten, so a larger file, which is a group
by itself, is flushed alone."""
SYNC_EACH_MAX: Final = 8
"""Up to so many files or directories are flushed one by one."""


def groups(steps: Iterable[Step]) -> Iterator[list[Step]]:
    """Cut a run of steps into groups.

    Within a group no path changes that a later step of it relies on before it is carried out: a directory moves in a group
    by itself, and an item that was renamed is changed further in the next one.
    """
    group: list[Step] = []
    size = 0
    moved: set[ItemId] = set()
    for step in steps:
        alone, bytes_, id = _is_alone(step), _bytes(step), _changed(step)
        full = len(group) >= GROUP_STEPS_MAX or size + bytes_ > GROUP_BYTES_MAX or id in moved
        if group and (alone or full):
            yield group
            group, size, moved = [], 0, set()
        group.append(step)
        size += bytes_
        if isinstance(step, Rename):
            moved.add(step.expected.id)
        if alone:
            yield group
            group, size, moved = [], 0, set()
    if group:
        yield group


def _is_alone(step: Step) -> bool:
    match step:
        case Rename(expected):
            return expected.is_directory
        case Replace(expected, item):
            return expected.is_directory or item.is_directory
        case _:
            return False


def _bytes(step: Step) -> int:
    match step:
        case Place(item) | Replace(_, item) if item.content.kind is Kind.FILE:
            return item.content.size
        case _:
            return 0


def _changed(step: Step) -> ItemId | None:
    match step:
        case Replace(expected) | SetAttributes(expected) | Rename(expected) | Delete(expected):
            return expected.id
        case _:
            return None


def flush_stages(root: Root, stages: Collection[tuple[str, int]]) -> None:
    """Make finished stages durable.

    Args:
        root: Opened.
        stages: (name in ``.kinfolder/tmp``, size).

    Raises:
        OSError: The disk refuses.
    """
    if not stages:
        return
    if len(stages) > SYNC_EACH_MAX:
        root.fs.sync_all(root.handle)
        return
    tmp = root.hidden("tmp")
    for name, _ in stages:
        try:
            handle = root.fs.open_file(tmp, name, Access.READ)
        except OSError:
            root.fs.sync_all(root.handle)  # a link or a directory
            return
        try:
            root.fs.sync(handle)
        finally:
            root.fs.close(handle)


def flush_names(root: Root, directories: Collection[str], *, swapped: bool) -> None:
    """Make the names in these directories durable, and with ``swapped`` those in the trash and aside.

    Raises:
        OSError: The disk refuses.
    """
    if not directories:
        return
    if len(directories) > SYNC_EACH_MAX:
        root.fs.sync_all(root.handle)
        return
    for path in sorted(directories):
        try:
            with opened(root.fs, root.handle, path) as handle:
                root.fs.sync(handle)
        except OSError as error:
            if not is_gone(error):
                raise
            root.fs.sync_all(root.handle)
            return
    if swapped:
        for name in ("trash", "aside"):
            root.fs.sync(root.hidden(name))
