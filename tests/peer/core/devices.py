"""Devices that act on paths through the real authoring and the real fold, and a ledger of what their users did.

Contents are tokens, unique for each write, so that what became of each can be told from the final trees alone.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from blake3 import blake3
from msgspec.structs import replace

from peer.core.authoring import Draft, author
from peer.core.drafts import as_admitted
from peer.core.fold import fold, order_tail
from peer.core.fold_state import FoldState
from peer.core.memory_state import MemoryState, OverlayState
from peer.core.operations import Act, Create, Edit, Move, Remove, Touch
from peer.core.tree import Content, Item, ItemId, MemoryTree, Tree, find, path_of
from protocol.entries import AdmittedEntry, Kind
from protocol.ids import ROOT, EntryHash, NodeId

DIRECTORY = Content(Kind.DIRECTORY)


def file_of(token: str, mtime_ns: int = 0) -> Content:
    """Return an empty-bodied content whose hash says which token it is."""
    return Content(Kind.FILE, token.encode().ljust(32, b"\0"), 0, mtime_ns)


def token_of(content: Content) -> str:
    return "DIR" if content.kind is Kind.DIRECTORY else content.hash.rstrip(b"\0").decode()


class Done(NamedTuple):
    """One line of the ledger."""

    device: int
    entries: frozenset[EntryHash]
    op: str
    path: str
    saw: frozenset[EntryHash]
    killed: frozenset[str]
    wrote: frozenset[str]
    touched: frozenset[str]
    nodes: frozenset[NodeId]
    through_merge: bool


class Log:
    """What all devices share: the entries, their order as far as it is known, and the ledger."""

    def __init__(self) -> None:
        self.entries: dict[EntryHash, AdmittedEntry] = {}
        self.ordered: list[AdmittedEntry] = []
        self.ledger: list[Done] = []
        self.tokens = 0

    def token(self) -> str:
        self.tokens += 1
        return f"t{self.tokens}"

    def order(self, chance: random.Random, most: int) -> None:
        """Put up to ``most`` entries into the order, each as soon as its needs are there."""
        known = {entry.hash for entry in self.ordered}
        for _ in range(most):
            ready = sorted(
                hash
                for hash, entry in self.entries.items()
                if hash not in known and known.issuperset(entry.header.needs)
            )
            if not ready:
                return
            hash = chance.choice(ready)
            self.ordered.append(self.entries[hash])
            known.add(hash)


class Device:
    """One device, its knowledge, and a disk that always holds what ``synced`` says."""

    def __init__(self, number: int, log: Log) -> None:
        self.number, self.log = number, log
        self.seq = 0
        self.position = 0
        self.tail: dict[EntryHash, AdmittedEntry] = {}
        self.ordered_state: FoldState = MemoryState()
        self.state: FoldState = OverlayState(self.ordered_state)
        self.synced = MemoryTree()
        self.known: set[EntryHash] = set()
        self.held: list[EntryHash] = []
        """All that the fold has."""
        self.seen: set[EntryHash] = set()
        """What the disk has shown, and so the user."""

    # --- Receiving

    def receive(self, entries: Iterable[AdmittedEntry]) -> None:
        """Take unordered entries from another device."""
        self.tail.update((entry.hash, entry) for entry in entries if entry.hash not in self.known)
        self._refold()

    def pull(self, position: int) -> None:
        """Take the order up to a position."""
        new = self.log.ordered[self.position : position]
        if new:
            fold(self.ordered_state, new, position=self.position + 1)
            self.position += len(new)
            self.known.update(entry.hash for entry in new)
        self._refold()

    def _refold(self) -> None:
        self.tail = {hash: entry for hash, entry in self.tail.items() if hash not in self.known}
        self.state = OverlayState(self.ordered_state)
        tail = order_tail(self.known, self.tail.values())
        fold(self.state, tail, position=self.position + 1)
        self.held = [*self.known, *(entry.hash for entry in tail)]

    def apply(self) -> None:
        """Let the disk hold what the fold says."""
        self.synced = MemoryTree({item.id: item for item in walk(self.state.tree)})
        self.seen.update(self.held)

    @property
    def is_current(self) -> bool:
        """Whether the disk holds what this device knows."""
        return list(walk(self.synced)) == list(walk(self.state.tree))

    # --- Looking

    def paths(self) -> dict[str, Item]:
        return {path_of(self.synced, item.id) or "": item for item in walk(self.synced)}

    def subtree(self, item: Item) -> list[Item]:
        return [item, *walk(self.synced, item.id)]

    # --- Acting

    def create(self, path: str, token: str) -> Draft:
        parent, name = self._place(path)
        id = NodeId(blake3(f"{self.number} {self.seq} {path}".encode()).digest()[:16])
        content = DIRECTORY if token == "DIR" else file_of(token)
        wrote = () if token == "DIR" else (token,)
        return self.act([Create(Item(id, parent, name, content))], "create", path, wrote=wrote)

    def edit(self, path: str, token: str) -> Draft:
        item = self._item(path)
        old = token_of(item.content)
        return self.act([Edit(item, file_of(token))], "edit", path, killed=(old,), wrote=(token,), touched=(old,))

    def touch(self, path: str, mtime_ns: int) -> Draft:
        item = self._item(path)
        token = token_of(item.content)
        return self.act([Touch(item, file_of(token, mtime_ns))], "touch", path, touched=(token,))

    def move(self, path: str, to: str, *, over: bool = False) -> Draft:
        item = self._item(path)
        parent, name = self._place(to)
        acts: list[Act] = [Move(item, parent, name)]
        killed: tuple[str, ...] = ()
        if over:
            target = self._item(to)
            acts.insert(0, Remove(target, (target,)))
            killed = (token_of(target.content),)
        return self.act(acts, "move", f"{path} -> {to}", killed=killed, touched=self._tokens(item))

    def remove(self, path: str) -> Draft:
        item = self._item(path)
        tokens = self._tokens(item)
        return self.act([Remove(item, tuple(self.subtree(item)))], "remove", path, killed=tokens, touched=tokens)

    def invert(self, path: str) -> Draft:
        """Turn A/B into B/A in one operation."""
        inner = self._item(path)
        outer = self._item(path.rsplit("/", 1)[0])
        acts = [Move(inner, outer.parent, outer.name), Move(outer, inner.id, inner.name)]
        return self.act(acts, "move", path, touched=self._tokens(outer))

    def act(
        self,
        acts: Sequence[Act],
        op: str,
        path: str,
        *,
        killed: Iterable[str] = (),
        wrote: Iterable[str] = (),
        touched: Iterable[str] = (),
    ) -> Draft:
        """Author the acts, record them, and fold them."""
        nodes = frozenset(
            member.node
            for act in acts
            if not isinstance(act, Create)
            for item in self.subtree(act.base)
            for member in item.members
        )
        through_merge = any(not isinstance(act, Create) and len(act.base.members) > 1 for act in acts)
        position = self.position + len(self.held) + 1
        draft = author(
            acts,
            synced=self.synced,
            state=self.state,
            device=self.number,
            seq=self.seq + 1,
            contents={},
            entropy=self._entropy,
            label=f"D{self.number}",
            position=position,
        )
        saw = frozenset(self.seen)
        made = [self._sign(draft, index) for index in range(len(draft.entries))]
        self.seq += len(made)
        for entry in made:
            self.log.entries[entry.hash] = self.tail[entry.hash] = entry
        if draft.trial is None:
            fold(self.state, made, position=position)
        else:
            draft.trial.hand_down()
            for entry in made:
                at = (entry.header.device, entry.header.seq)
                row = self.state.entries.get(at)
                assert row is not None
                self.state.entries.put(at, replace(row, hash=entry.hash))
        self.held += [entry.hash for entry in made]
        self.seen.update(entry.hash for entry in made)
        for id in draft.dropped:
            self.synced.drop(id)
        for item in draft.synced:
            self.synced.put(item)
        if made:
            hashes = frozenset(entry.hash for entry in made)
            line = Done(
                self.number,
                hashes,
                op,
                path,
                saw,
                frozenset(killed),
                frozenset(wrote),
                frozenset(touched),
                nodes,
                through_merge,
            )
            self.log.ledger.append(line)
        return draft

    def _sign(self, draft: Draft, index: int) -> AdmittedEntry:
        entry = as_admitted(draft.entries[index], device=self.number, label=f"D{self.number}")
        needs = {hash_of(dot.device, dot.seq) for dot in draft.entries[index].needs}
        header = entry.header
        fields = {name: getattr(header, name) for name in header.__struct_fields__}
        fields["needs"] = tuple(sorted(needs))
        return AdmittedEntry(hash_of(header.device, header.seq), entry.author, type(header)(**fields), entry.payload)

    def _entropy(self, count: int) -> bytes:
        return blake3(f"{self.number} {self.seq}".encode()).digest(count)

    def _item(self, path: str) -> Item:
        item = find(self.synced, path)
        assert item is not None, path
        return item

    def _place(self, path: str) -> tuple[ItemId, str]:
        above, _, name = path.rpartition("/")
        return (self._item(above).id if above else ROOT), name

    def _tokens(self, item: Item) -> tuple[str, ...]:
        return tuple(token_of(each.content) for each in self.subtree(item) if not each.is_directory)


def hash_of(device: int, seq: int) -> EntryHash:
    return EntryHash(blake3(f"{device} {seq}".encode()).digest())


def walk(tree: Tree, parent: ItemId = ROOT) -> Iterator[Item]:
    """Yield all items under a directory, parents first, by name."""
    for item in tree.children(parent):
        yield item
        if item.is_directory:
            yield from walk(tree, item.id)
