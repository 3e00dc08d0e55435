"""What one action did to a tree, as operations on what stands in it: told by two looks, and by no word of whoever acted.

Rule 1: a thing is who it was as long as its inode is: a rename is a move, whatever name it gets.
Rule 2: what goes with a directory above it is no operation of its own.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator, Mapping
from enum import Enum
from typing import Final, NamedTuple

from protocol.entries import Kind
from simulations.devices import CONTROL, ROOT, DeviceMachine
from simulations.inodes import Directory, File, Inode, Link

RULES: Final = ".kinignore"


class Standing(NamedTuple):
    """What stands at one path, with all that a look can tell."""

    kind: Kind | None
    content: bytes
    """The hash of a file's bytes, the target of a link."""
    executable: bool
    size: int
    mtime_ns: int
    number: int
    """Of the inode."""
    links: int
    inode: Inode
    holes: int = 0
    """Bytes of a file that were never written."""
    text: str = ""
    """What a file of rules says."""


Tree = Mapping[str, Standing]
"""By path from the folder's root."""


class What(Enum):
    """Kinds of operations."""

    CREATE = "create"
    EDIT = "edit"
    MOVE = "move"
    REMOVE = "remove"
    RETYPE = "retype"
    TOUCH = "touch"
    MODE = "mode"


class Operation(NamedTuple):
    """One change of a tree."""

    what: What
    path: str
    to: str
    """Where it stands afterwards: another path for a move alone."""
    old: Standing | None
    """What it was; None for what is new."""
    new: Standing | None
    """What it is; None for what is gone."""
    over: Standing | None = None
    """What a move took the place of."""
    is_anew: bool = False
    """Whether an edit put another inode there."""

    @property
    def kind(self) -> Kind | None:
        """What it is about: what there was, or else what there is."""
        some = self.old or self.new
        return None if some is None else some.kind


def look(device: DeviceMachine) -> dict[str, Standing]:
    """Return all that stands in a device's folder."""
    found: dict[str, Standing] = {}
    top = device.disk.at(ROOT)
    if isinstance(top, Directory):
        _collect(top, "", found)
    return found


def _collect(directory: Directory, prefix: str, found: dict[str, Standing]) -> None:
    for name, inode in directory.entries.values():
        if not prefix and name == CONTROL:
            continue
        path = prefix + name
        content = inode.digest() if isinstance(inode, File) else inode.target if isinstance(inode, Link) else b""
        executable = isinstance(inode, File) and bool(inode.mode & stat.S_IXUSR)
        holes = max(0, inode.size - inode.allocated) if isinstance(inode, File) else 0
        text = inode.data().decode(errors="replace") if name == RULES and isinstance(inode, File) else ""
        found[path] = Standing(
            inode.kind, content, executable, inode.size, inode.mtime_ns, inode.number, inode.links, inode, holes, text
        )
        if isinstance(inode, Directory):
            _collect(inode, path + "/", found)


def operations(before: Tree, after: Tree) -> tuple[Operation, ...]:
    """Return what was done between two looks, in the order of paths."""
    stood: dict[Inode, str] = {seen.inode: path for path, seen in reversed(list(before.items()))}
    stands: dict[Inode, list[str]] = {}
    for path, seen in after.items():
        stands.setdefault(seen.inode, []).append(path)
    return tuple(_left(before, after, stands)) + tuple(_came(before, after, stood, stands))


def _left(before: Tree, after: Tree, stands: Mapping[Inode, list[str]]) -> Iterator[Operation]:
    """Yield what became of all that stood there."""
    moved: dict[str, str] = {}
    removed: set[str] = set()
    for path, old in before.items():
        new = after.get(path)
        if new is not None and new.inode is old.inode:
            yield from _changed(path, path, old, new)
            continue
        above, slash, name = path.rpartition("/")
        places = [one for one in stands.get(old.inode, ()) if one not in before or before[one].inode is not old.inode]
        if places:
            moved[path] = places[0]
            if not (above in moved and places[0] == f"{moved[above]}{slash}{name}"):
                over = before.get(places[0])
                is_over = over is not None and over.inode not in stands
                yield Operation(What.MOVE, path, places[0], old, after[places[0]], over if is_over else None)
            yield from _changed(path, places[0], old, after[places[0]])
        elif new is None and old.inode not in stands:
            removed.add(path)
            if above not in removed:
                yield Operation(What.REMOVE, path, path, old, None)


def _changed(path: str, to: str, old: Standing, new: Standing) -> Iterator[Operation]:
    if old.content != new.content or (old.size != new.size and old.kind is Kind.FILE):
        yield Operation(What.EDIT, path, to, old, new)
    elif old.executable != new.executable:
        yield Operation(What.MODE, path, to, old, new)
    elif old.mtime_ns != new.mtime_ns and old.kind is Kind.FILE:
        yield Operation(What.TOUCH, path, to, old, new)


def _came(
    before: Tree, after: Tree, stood: Mapping[Inode, str], stands: Mapping[Inode, list[str]]
) -> Iterator[Operation]:
    """Yield what stands where something else stood, or nothing."""
    for path, new in after.items():
        old = before.get(path)
        if old is None:
            if new.inode not in stood or (new.links > 1 and stood[new.inode] in after):
                yield Operation(What.CREATE, path, path, None, new)
        elif old.inode is not new.inode:
            if old.kind is not new.kind:
                yield Operation(What.RETYPE, path, path, old, new)
            elif new.kind is Kind.DIRECTORY or old.content == new.content:
                continue
            elif new.inode not in stood or old.inode not in stands:  # what was exchanged is moved, and not edited
                yield Operation(What.EDIT, path, path, old, new, is_anew=new.inode not in stood)


def last_name(path: str) -> str:
    """Return the last part of a path."""
    return path.rpartition("/")[2]


def is_below(path: str, above: str) -> bool:
    """Tell whether a path leads into a directory."""
    return path.startswith(above + "/")
