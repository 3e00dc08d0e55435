"""What each user really did, and had seen before: the truth that histories are checked against.

Each content that a user writes is a token that no other write has, so that what became of it can be told from the final
trees alone. Where a user copies a file or writes old bytes again, the token is counted once more.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from protocol.ids import NodeId
from simulations.plan.disk import hash_of


class Chain(NamedTuple):
    """The nodes whose removal takes a content along."""

    own: frozenset[NodeId]
    """The file's, and those of the directories that went with it."""
    wide: frozenset[NodeId]
    """With those of all directories that it stood in: where a user did several things between two looks, it may be told
    that it went with any of them."""

    def joined(self, other: Chain) -> Chain:
        """Return both together."""
        return Chain(self.own | other.own, self.wide | other.wide)


class Done:
    """One thing that a user did."""

    def __init__(
        self,
        number: int,
        device: int,
        op: str,
        path: str,
        *,
        wrote: tuple[str, ...],
        killed: Iterable[tuple[str, Chain]],
        tops: frozenset[NodeId],
        touched: frozenset[str],
        saw: Mapping[int, int],
        since: int,
    ) -> None:
        self.number = number
        self.device = device
        self.op = op
        self.path = path
        self.wrote = wrote
        self.killed: dict[str, Chain] = {}
        """Contents that he took off his disk, each with its chain."""
        self.times = Counter[str]()
        """How often."""
        for token, chain in killed:
            self.killed[token] = self.killed[token].joined(chain) if token in self.killed else chain
            self.times[token] += 1
        self.tops = tops
        """What he moved, by the nodes behind it."""
        self.touched = touched
        """Contents that he moved."""
        self.saw = saw
        """By device: up to which of its entries his disk had shown."""
        self.since = since
        """The number of the last entry of his device before."""
        self.is_mixed = False
        """Whether he did more before his device looked at everything."""
        self.is_joined = False
        """Whether he did more before his device had recorded all, so that a removal may be told as part of a larger one."""
        self.until: int | None = None
        """The number of the last entry that may record it; None: his device never came to peace afterwards."""

    def __str__(self) -> str:
        """Spell it for a person."""
        parts = [f"#{self.number} device {self.device}: {self.op} {self.path}"]
        if self.wrote:
            parts.append(f"wrote {' '.join(self.wrote)}")
        if self.killed:
            parts.append(f"gone: {' '.join(sorted(self.killed))}")
        return ", ".join(parts)


class Ledger:
    """All that users did, in the order in which it happened."""

    def __init__(self) -> None:
        self.done: list[Done] = []
        self.wrote: Counter[str] = Counter()
        """How often each token was written, copies included."""
        self.kills: defaultdict[str, list[Done]] = defaultdict(list)
        self.ends: defaultdict[str, list[tuple[Done, Chain]]] = defaultdict(list)
        """How each token went: by whom, with which chain. What a file held before an edit goes with it once more."""
        self._before: defaultdict[str, set[str]] = defaultdict(set)
        self.moves: list[Done] = []
        self.shared: set[str] = set()
        """Tokens that stood at a path which several nodes had, or were moved over another file: they may multiply."""
        self.merged: set[str] = set()
        """Tokens of which a disk showed one file for several nodes: all of these go with it, under whatever name."""
        self.names: set[str] = set()
        self.tokens = 0

    def token(self) -> str:
        """Return a content that nobody has written yet."""
        self.tokens += 1
        return f"t{self.tokens}"

    def note(
        self,
        device: int,
        op: str,
        path: str,
        *,
        saw: Mapping[int, int],
        since: int,
        wrote: Iterable[str] = (),
        killed: Iterable[tuple[str, Chain]] = (),
        tops: frozenset[NodeId] = frozenset(),
        touched: Iterable[str] = (),
        names: Iterable[str] = (),
    ) -> Done:
        """Write down what a user has done."""
        done = Done(
            len(self.done),
            device,
            op,
            path,
            wrote=tuple(wrote),
            killed=killed,
            tops=tops,
            touched=frozenset(touched),
            saw=saw,
            since=since,
        )
        self.done.append(done)
        for token in done.wrote:
            hash_of(token)  # so that it can be told from its hash
        self.wrote.update(done.wrote)
        self.names.update(names)
        for token, chain in done.killed.items():
            self.kills[token].append(done)
            for each in (token, *sorted(self._before[token])):
                self.ends[each].append((done, chain))
        if op in {"edit", "save"} and done.wrote:
            self._before[done.wrote[0]].update(*({token} | self._before[token] for token in done.killed))
        if done.tops:
            self.moves.append(done)
        return done

    def join(self, window: Sequence[Done]) -> None:
        """Count as moved what a user removed and wrote again elsewhere before his device looked.

        The new file may have the inode of the old one, and then nothing tells both from a move: any mapping will do.
        """
        for done in window:
            chains = [other.killed[token] for other in window for token in done.wrote if token in other.killed]
            nodes = done.tops.union(*(chain.own for chain in chains if chain.own))
            if done.op in {"copy", "create"} and nodes != done.tops:
                if not done.tops:
                    self.moves.append(done)
                done.tops = nodes

    def times_gone(self, token: str) -> int:
        """Return how often a token was taken off a disk."""
        return sum(done.times[token] for done in self.kills[token])

    def writers(self, token: str) -> list[Done]:
        """Return who wrote a token."""
        return [done for done in self.done if token in done.wrote]


def happened_before(one: Done, other: Done) -> bool:
    """Tell whether a user had surely seen what another did, or is the same one, later."""
    if one.device == other.device:
        return one.number < other.number
    return one.until is not None and other.saw.get(one.device, 0) >= one.until


def are_concurrent(one: Done, other: Done) -> bool:
    """Tell whether neither had surely seen the other."""
    return one is not other and not happened_before(one, other) and not happened_before(other, one)
