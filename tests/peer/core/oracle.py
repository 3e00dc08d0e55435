"""Translate the executable model of the fold, which lies beside the checkout, into entries for the real one.

The model (``../shared/foldmodel``) is plain and slow and has no bytes: its nodes and contents are strings, and a dot is
(device letter, sequence number) with at most one change to a register in an entry. Here each of its entries becomes an
:class:`AdmittedEntry`, and both trees are brought into one form that does not depend on how a suffix is spelt.
"""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

from peer.core.conflicts import text_of
from peer.core.fold import fold, order_tail
from peer.core.fold_state import FoldState
from peer.core.memory_state import MemoryState, OverlayState
from peer.core.tree import Item
from protocol.entries import (
    AdmittedEntry,
    Change,
    ContentValue,
    DetachValue,
    Header,
    Kind,
    Payload,
    PlaceValue,
    Register,
    RemovalValue,
    Seen,
    Value,
)
from protocol.ids import ROOT, DeviceId, Dot, EntryHash, FolderId, LinkHash, NodeId, copy_id

MODEL = Path(__file__).resolve().parents[3].parent / "shared" / "foldmodel"
Tree = tuple[Any, ...]


def load_model() -> dict[str, ModuleType]:
    """Return the model's modules by name."""
    modules = {}
    for name in ("fold", "device", "check", "cases"):
        spec = importlib.util.spec_from_file_location(name, MODEL / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        if name == "fold":
            module.__dict__["tie"] = lambda node: node
        hidden, sys.modules[name] = sys.modules.get(name), module
        exec(compile(_as_ours((MODEL / f"{name}.py").read_text()), spec.origin or name, "exec"), module.__dict__)
        modules[name] = module
        if name == "fold":
            module.__dict__["Fold"].beaten = _beaten
            module.__dict__["Fold"].removes = _removes
        if hidden is not None:
            modules[f"hidden {name}"] = hidden
    for name in ("fold", "device", "check", "cases"):
        del sys.modules[name]
        if f"hidden {name}" in modules:
            sys.modules[name] = modules[f"hidden {name}"]
    return modules


def _beaten(self: Any, node: str, removal: Any) -> bool:
    """A removal stays beaten when somebody who had seen both it and the move removes the node later."""
    register = self.place[node].values()
    others = [x for x in register if x.kind == "R" and x is not removal and removal.dot not in x.anc]
    return any(
        move.kind == "P"
        and move.dot not in removal.anc
        and removal.dot not in move.anc
        and not any(move.dot in other.anc for other in others)
        for move in register
    )


def _removes(self: Any, node: str, removal: Any, cancelled: bool, beaten: bool, home: str, value: Any) -> bool:
    """A removal takes what it names from the whole family, though others detached it where it never stood for its author."""
    if node == home:
        return not cancelled and not beaten
    if cancelled or not (home.startswith(f"{node}/") or value.body == value.dot):
        return False
    above = home
    while above != node and "/" in above:
        if removal.dot in self.saw.get(above, ()):
            return False
        above = above.rsplit("/", 1)[0]
    register = self.place[home].values()
    removals = [x for x in register if x.kind == "R"]
    return not any(p.kind == "P" and not any(p.dot in x.anc for x in removals) for p in register)


def _as_ours(source: str) -> str:
    """Let the model do as we do where its notes leave the choice.

    Ties between places of one entry are broken by their kind, then by the ids that its nodes have here; and a removal is
    told of which value it is asked.
    """
    ours = "'PKR'.index(self.at[n].kind), tie(n)"
    tied = source.replace("(pos, 0, n)", f"(pos, 0, {ours})").replace("(pos, i, n)", f"(pos, i, {ours})")
    return tied.replace("self.removes(m, r, c, b, n)", "self.removes(m, r, c, b, n, v)")


@contextmanager
def ties_broken_by(model: dict[str, ModuleType], translation: Translation) -> Iterator[None]:
    """Let the model fold entries of one translation."""
    model["fold"].__dict__["tie"] = translation.node
    yield
    model["fold"].__dict__["tie"] = lambda node: node


class UntranslatableError(Exception):
    """The model gave one dot to two values of one register."""


def device_number(letter: str) -> int:
    return ord(letter) - 64


def root_of(node: str) -> str:
    return node.split("/", maxsplit=1)[0]


class Translation:
    """The entries of one of the model's histories."""

    def __init__(self, entries: Any) -> None:
        self.by_id = {entry.id: entry for entry in entries}
        self.places: dict[tuple[Any, str], int] = {}
        self.contents: dict[tuple[Any, str], int] = {}
        for entry in entries:
            for index, change in enumerate(entry.changes):
                table, key = {
                    "C": (self.contents, root_of(change[1])),
                    "X": ({}, ""),
                }.get(change[0], (self.places, change[1]))
                if (entry.id, key) in table:
                    raise UntranslatableError
                table[entry.id, key] = index
        self.entries = {entry.id: self._entry(entry) for entry in entries}

    def hash(self, id: Any) -> EntryHash:
        return EntryHash(hashlib.sha256(repr(id).encode()).digest())

    def node(self, name: str) -> NodeId:
        if name == "root":
            return ROOT
        node = NodeId(name.split("/", maxsplit=1)[0].encode().ljust(16, b"\0"))
        for part in name.split("/")[1:]:
            device, seq = part.split(".")
            node = copy_id(node, self.content((device, int(seq)), name))
        return node

    def place(self, id: Any, node: str) -> Dot:
        return Dot(device_number(id[0]), id[1], self.places[id, node])

    def content(self, id: Any, node: str) -> Dot:
        return Dot(device_number(id[0]), id[1], self.contents[id, root_of(node)])

    def _entry(self, entry: Any) -> AdmittedEntry:
        changes: list[Change] = []
        values: list[Value] = []
        for change in entry.changes:
            name = change[1]
            register, value = self._value(change)
            if register is Register.CONTENT:
                base = {self.content(id, name) for id in change[2]}
            else:
                held = change[3] if register is Register.DETACH else change[2]
                base = {self.place(id, name) for id in held}
            changes.append(Change(self.node(name), register, tuple(sorted(base)), ()))
            values.append(value)
        header = Header(
            version=1,
            folder=FolderId(bytes(32)),
            epoch=0,
            control_head=LinkHash(bytes(32)),
            device=device_number(entry.id[0]),
            seq=entry.id[1],
            previous=EntryHash(bytes(32)),
            needs=tuple(sorted(self.hash(id) for id in entry.needs)),
            expect=(),
            replaces=(),
            batch=None,
            changes=tuple(changes),
            pins=(),
            source=None,
            payload_hash=bytes(32),
        )
        payload = Payload(Seen(0, 0, bytes(32), ()), (), entry.id[0], 0, "", (), tuple(values))
        return AdmittedEntry(self.hash(entry.id), DeviceId(bytes(32)), header, payload)

    def _value(self, change: Any) -> tuple[Register, Value]:
        kind, name = change[:2]
        if kind == "X":
            return Register.DETACH, DetachValue(self.content(change[2], name))
        if kind == "C":
            token, body = change[3:]
            node_kind = Kind.DIRECTORY if token == "DIR" else Kind.FILE
            value = ContentValue(
                kind=node_kind,
                body=None if body is None else self.content(body, name),
                hash=b"" if token == "DIR" else token.encode().ljust(32, b"\0"),
                size=0,
                mtime_ns=0,
                executable=False,
                target=b"",
                chunker="",
                spans=(),
            )
            return Register.CONTENT, value
        if kind == "R":
            named, (parent, last), removal = change[3:]
            bodies = tuple(sorted(self.content(id, name) for id in named))
            id = hashlib.sha256(repr(removal).encode()).digest()[:16]
            return Register.PLACE, RemovalValue(bodies, self.node(parent), last.encode(), id)
        parent, last = change[3]
        return Register.PLACE, PlaceValue(self.node(parent), last.encode(), kind == "K")


def real_fold(translation: Translation, ordered: Any, tail: Any, *, cuts: Any = ()) -> FoldState:
    """Fold the translated entries: the ordered ones in pieces, the tail on an overlay."""
    state: FoldState = MemoryState()
    entries = [translation.entries[entry.id] for entry in ordered]
    edges = [0, *sorted(cuts), len(entries)]
    for start, end in pairwise(edges):
        fold(state, entries[start:end], position=start + 1)
    known = {entry.hash for entry in entries}
    tail_entries = order_tail(known, [translation.entries[entry.id] for entry in tail])
    if tail_entries:
        state = OverlayState(state)
        fold(state, tail_entries, position=len(entries) + 1)
    return state


def real_tree(state: FoldState, parent: NodeId = ROOT) -> Tree:
    """Return the remote tree in the common form."""
    return tuple(sorted((_real_item(state, item) for item in state.tree.children(parent)), key=repr))


def _real_item(state: FoldState, item: Item) -> Tree:
    first = None
    wanted = set()
    for member in item.members:
        node = state.nodes.get(member.node)
        assert node is not None
        wanted.add(text_of(node.name))
    if item.name not in wanted:
        first = item.name.split(", ")[1]
    token = "DIR" if item.is_directory else item.content.hash.rstrip(b"\0").decode()
    below = real_tree(state, item.id) if item.is_directory else ()
    members = tuple(sorted((m.node, m.copy or (), tuple(sorted(m.content)), m.place) for m in item.members))
    return (tuple(sorted(wanted)), first, token, members, below)


def model_tree(translation: Translation, folded: Any) -> Tree:
    """Return the model's tree in the common form."""
    below: dict[str, list[str]] = {}
    for path in folded.view:
        below.setdefault(path.rsplit("/", 1)[0], []).append(path)

    def under(prefix: str) -> Tree:
        return tuple(sorted((item(path) for path in below.get(prefix, ())), key=repr))

    def item(path: str) -> Tree:
        shown = folded.view[path]
        name = path.rsplit("/", 1)[1]
        wanted = {folded.at[node].value[1] for node, _, _ in shown.members}
        author = None
        if name not in wanted:
            author = name.split("~")[-1].split(".")[0]
        members = tuple(
            sorted(
                (
                    translation.node(node),
                    () if copy is None else translation.content(copy, node),
                    tuple(sorted(translation.content(dot, node) for dot in dots)),
                    tuple(sorted(translation.place(dot, node) for dot in folded.place_dots(node))),
                )
                for node, copy, dots in shown.members
            )
        )
        return (tuple(sorted(wanted)), author, shown.token, members, under(path) if shown.kind == "d" else ())

    return under("")
