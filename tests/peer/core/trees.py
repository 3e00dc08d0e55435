"""Small trees for tests of the planner: written as paths, executed on a file system of dicts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from blake3 import blake3

from peer.core.operations import (
    Act,
    Adopt,
    Create,
    Delete,
    Edit,
    Forget,
    Move,
    Place,
    Plan,
    Rekey,
    Remove,
    Rename,
    Replace,
    SetAttributes,
    Step,
    Touch,
)
from peer.core.planner import is_settled, plan
from peer.core.tree import Content, Item, ItemId, Member, MemoryTree, path_of
from protocol.entries import Kind
from protocol.ids import ROOT, Dot, NodeId

DIRECTORY = Content(Kind.DIRECTORY)


def node(name: str) -> NodeId:
    """Return an id that can be read in a failed test."""
    return NodeId(name.encode().ljust(16, b".")[:16])


def file(data: str, *, mtime: int = 0, executable: bool = False) -> Content:
    return Content(Kind.FILE, blake3(data.encode()).digest(), len(data), mtime, executable)


def link(target: str) -> Content:
    return Content(Kind.LINK, blake3(target.encode()).digest(), len(target), target=target.encode())


def content_of(text: str | Content) -> Content:
    """Read "/" as a directory, "->x" as a link, anything else as a file's data."""
    if isinstance(text, Content):
        return text
    if text == "/":
        return DIRECTORY
    return link(text[2:]) if text.startswith("->") else file(text)


def tree(spec: Mapping[str, tuple[str, str | Content]], *, dots: int | None = 1) -> MemoryTree:
    """Build a tree from ``{id: (path, content)}``; parents stand before children."""
    result = MemoryTree()
    paths: dict[str, ItemId] = {"": ROOT}
    for name, (path, content) in spec.items():
        above, _, last = path.rpartition("/")
        id = node(name)
        paths[path] = id
        result.put(with_dots(Item(id, paths[above], last, content_of(content)), dots))
    return result


def with_dots(item: Item, dots: int | None) -> Item:
    members = () if dots is None else (Member(item.id, None, (Dot(1, dots, 0),), (Dot(1, dots, 1),)),)
    return Item(item.id, item.parent, item.name, item.content, members)


def bare(item: Item) -> Item:
    return Item(item.id, item.parent, item.name, item.content)


def show(tree: MemoryTree) -> dict[str, tuple[str, Content]]:
    """Return what a tree holds: path -> (id, content)."""
    shown = {}
    for item in tree.items():
        path = path_of(tree, item.id)
        assert path is not None, f"{item} hangs in the air"
        assert path not in shown, f"{path} is there twice"
        content = item.content
        shown[path] = (item.id.rstrip(b".").decode(), DIRECTORY if content.kind is Kind.DIRECTORY else content)
    return shown


class Disk:
    """A file system of dicts: directories are dicts, a file or a link is its content."""

    def __init__(self, local: MemoryTree) -> None:
        self.root: dict[str, object] = {}
        self.aside: dict[str, object] = {}
        self.destroyed: list[Content] = []

        def fill(directory: dict[str, object], id: ItemId) -> None:
            for item in local.children(id):
                entry: object = {} if item.is_directory else item.content
                directory[item.name] = entry
                if isinstance(entry, dict):
                    fill(entry, item.id)

        fill(self.root, ROOT)

    def directory(self, path: str) -> dict[str, object]:
        here = self.root
        for part in path.split("/") if path else ():
            found = here[part]
            assert isinstance(found, dict), f"{path} is no directory"
            here = found
        return here

    def show(self) -> dict[str, Content]:
        shown = {}

        def walk(directory: dict[str, object], prefix: str) -> None:
            for name, entry in directory.items():
                if isinstance(entry, dict):
                    shown[prefix + name] = DIRECTORY
                    walk(entry, f"{prefix}{name}/")
                else:
                    assert isinstance(entry, Content)
                    shown[prefix + name] = entry

        walk(self.root, "")
        return shown


class Device:
    """Three trees and a disk; carries out steps as an applier would, looking before each."""

    def __init__(self, local: MemoryTree, synced: MemoryTree, remote: MemoryTree) -> None:
        self.local = local
        self.synced = synced
        self.remote = remote
        self.disk = Disk(local)
        self.aside: dict[ItemId, object] = {}
        self.destroyed: list[Content] = []
        self.fresh = 1000
        self.placed = 0

    def all_ids(self) -> set[ItemId]:
        return {item.id for tree in (self.local, self.synced, self.remote) for item in tree.items()}

    def dirty(self) -> set[ItemId]:
        trees = {"local": self.local, "synced": self.synced, "remote": self.remote}
        return {id for id in self.all_ids() if not is_settled(id, **trees)}

    def plan(self, **options: Any) -> Plan:
        return plan(local=self.local, synced=self.synced, remote=self.remote, dirty=self.dirty(), **options)

    # --- Acts: as if authored. ``synced`` then holds what local holds, with new dots.

    def author(self, act: Act) -> None:
        self.fresh += 1
        match act:
            case Create(item):
                assert self.synced.item(item.id) is None
                self.synced.put(with_dots(item, self.fresh))
            case Edit(base, content) | Touch(base, content):
                now = self.synced.item(base.id)
                assert now is not None
                self.synced.put(with_dots(Item(base.id, now.parent, now.name, content), self.fresh))
            case Move(base, parent, name):
                now = self.synced.item(base.id)
                assert now is not None
                self.synced.put(with_dots(Item(base.id, parent, name, now.content), self.fresh))
            case Remove(_, subtree):
                for item in subtree:
                    assert self.synced.item(item.id) is not None
                    self.synced.drop(item.id)

    # --- Steps

    def execute(self, step: Step) -> None:
        match step:
            case Place(item):
                directory, name = self._at(item)
                assert name not in directory, f"{name} is taken"
                directory[name] = {} if item.is_directory else item.content
                self.placed += not item.is_directory
                self._both(item)
            case Replace(expected, item):
                directory, name = self._at(expected)
                assert directory[name] == expected.content
                self.destroyed.append(expected.content)
                directory[name] = item.content
                self._both(item)
            case SetAttributes(expected, item):
                directory, name = self._at(expected)
                assert directory[name] == expected.content
                assert expected.content.same_bytes(item.content)
                directory[name] = item.content
                self._both(item)
            case Rename():
                self._rename(step)
            case Delete(expected):
                directory, name = self._at(expected)
                if expected.is_directory:
                    assert directory[name] == {}, f"{name} is not empty"
                else:
                    assert directory[name] == expected.content
                    self.destroyed.append(expected.content)
                del directory[name]
                self.local.drop(expected.id)
                self.synced.drop(expected.id)
            case Adopt(item):
                self.synced.put(item)
            case Forget(base):
                assert self.synced.item(base.id) is not None
                self.synced.drop(base.id)
            case Rekey(old, new):
                for tree in (self.local, self.synced):
                    self._rekey(tree, old, new)

    def _rename(self, step: Rename) -> None:
        assert not (step.aside and step.from_aside)
        if step.from_aside:
            entry = self.aside.pop(step.expected.id)
        else:
            directory, name = self._at(step.expected)
            entry = directory[name]
            if step.expected.is_directory:
                assert isinstance(entry, dict)
            else:
                assert entry == step.expected.content
            del directory[name]
        if step.aside:
            self.aside[step.expected.id] = entry
            return
        directory, name = self._at(step.item)  # fails if the new parent lies in what is moved
        assert name not in directory
        directory[name] = entry
        self._both(step.item)

    @staticmethod
    def _rekey(tree: MemoryTree, old: ItemId, new: ItemId) -> None:
        children = list(tree.children(old))
        item = tree.item(old)
        if item is not None:
            assert tree.item(new) is None
            tree.drop(old)
            tree.put(Item(new, item.parent, item.name, item.content, item.members))
        for child in children:
            tree.put(Item(child.id, new, child.name, child.content, child.members))

    def _both(self, item: Item) -> None:
        self.local.put(bare(item))
        self.synced.put(item)

    def _at(self, item: Item) -> tuple[dict[str, object], str]:
        """Resolve a place by ids, also within what lies aside."""
        names: list[str] = []
        here = item.parent
        while here != ROOT and here not in self.aside:
            above = self.local.item(here)
            assert above is not None, f"the parent of {item} is not here"
            names.append(above.name)
            here = above.parent
        start = self.disk.root if here == ROOT else self.aside[here]
        for name in reversed(names):
            assert isinstance(start, dict)
            start = start[name]
        assert isinstance(start, dict)
        return start, item.name

    def run(self, todo: Plan, fold: Callable[[Device, tuple[Act, ...]], None] | None = None) -> None:
        """Carry out a plan: record its acts, let the fold take them, make its steps."""
        for act in todo.acts:
            self.author(act)
        for step in todo.steps:
            self.execute(step)
        assert not self.aside, "something was left aside"
        if fold is not None:
            fold(self, todo.acts)
        self.check()

    def check(self) -> None:
        """The disk is what ``local`` says."""
        shown = {path: content for path, (_, content) in show(self.local).items()}
        assert self.disk.show() == shown

    def settle(self, fold: Callable[[Device, tuple[Act, ...]], None] | None = None, rounds: int = 12) -> int:
        """Plan and act until nothing is left; return the number of rounds."""
        for count in range(rounds):
            todo = self.plan()
            if not todo.acts and not todo.steps:
                assert not self.dirty()
                return count
            self.run(todo, fold)
        raise AssertionError("does not come to rest")


def names(operations: Iterable[Act | Step]) -> list[str]:
    """Spell operations so that a table can be read: ``Move f -> g``."""
    result = []
    for op in operations:
        kind = type(op).__name__
        match op:
            case Create(item) | Place(item) | Adopt(item):
                result.append(f"{kind} {item.name}")
            case Edit(base, _) | Touch(base, _) | Forget(base):
                result.append(f"{kind} {base.name}")
            case Move(base, _, name):
                result.append(f"{kind} {base.name} -> {name}")
            case Remove(base, subtree):
                result.append(f"{kind} {base.name}" + "".join(f" {item.name}" for item in subtree[1:]))
            case Replace(_, item) | SetAttributes(_, item):
                result.append(f"{kind} {item.name}")
            case Rename(expected, item, aside, from_aside):
                way = " aside" if aside else " back" if from_aside else ""
                result.append(f"{kind} {expected.name} -> {item.name}{way}")
            case Delete(expected):
                result.append(f"{kind} {expected.name}")
            case Rekey(old, new):
                result.append(f"{kind} {old.rstrip(b'.').decode()} -> {new.rstrip(b'.').decode()}")
    return result
