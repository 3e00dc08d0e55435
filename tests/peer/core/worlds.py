"""Random histories of a few devices, and what must hold in each: the checks of conflicts 4 that a fold can show.

Every choice of an action comes from its own seed, so that a history stays meaningful when others are dropped from it.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from peer.core.fold import fold, order_tail
from peer.core.fold_state import FoldState
from peer.core.memory_state import MemoryState, OverlayState
from peer.core.tree import Item, find, path_of
from protocol.entries import AdmittedEntry
from protocol.ids import ROOT, EntryHash
from tests.peer.core.devices import Device, Done, Log, token_of, walk

NAMES = "abcD"
OPS = (
    *["create"] * 2,
    "mkdir",
    *["edit"] * 3,
    *["mv"] * 3,
    "rm",
    "touch",
    "over",
    *["odd"] * 2,
    "same",
    "invert",
    *["mvd"] * 2,
    "rmd",
)
KINDS = ("user", "lan", "push", "pull", "apply", "sync", "tree")


class Action(NamedTuple):
    kind: str
    device: int
    seed: int


class World:
    """Devices, what they share, and the checks."""

    def __init__(self, count: int) -> None:
        self.log = Log()
        self.devices = [Device(number + 1, self.log) for number in range(count)]
        self.registered: set[EntryHash] = set()
        self.reached: Counter[str] = Counter()

    def step(self, action: Action) -> None:
        chance = random.Random(action.seed)
        device = self.devices[action.device % len(self.devices)]
        match action.kind:
            case "user":
                self._user(device, chance)
            case "lan":
                self._lan(device, chance)
            case "push":
                self._order(chance, chance.randint(0, 4))
            case "pull":
                last = len(self.log.ordered)
                device.pull(max(device.position, chance.choice([last, chance.randint(0, last)])))
                if chance.random() < 0.8:
                    device.apply()
            case "sync":
                self.settle()
            case "tree":
                self._base_tree(device, chance)
            case "apply":
                device.apply()
        check_tree(device.state)

    def settle(self) -> None:
        """Let everything be ordered and pulled by all: they hold the same, and nothing is left to order."""
        self._order(random.Random(1), 1 << 30)
        assert len(self.log.ordered) == len(self.log.entries), "silence: entries that can never be ordered"
        for device in self.devices:
            device.pull(len(self.log.ordered))
            device.apply()
            assert not device.tail, "silence: a tail is left"
            assert list(walk(device.synced)) == list(walk(self.devices[0].synced)), "convergence"

    def _order(self, chance: random.Random, most: int) -> None:
        self.log.order(chance, most)

    def _lan(self, device: Device, chance: random.Random) -> None:
        other = chance.choice(self.devices)
        share = chance.choice([1, 1, 0.6])
        known = sorted(hash for hash in device.held if hash in self.log.entries)
        other.receive([self.log.entries[hash] for hash in known if chance.random() < share])
        if chance.random() < 0.8:
            other.apply()

    def _base_tree(self, device: Device, chance: random.Random) -> None:
        for path, token in [(p, "DIR") for p in ("a", "b", "a/D", "a/D/c")] + [
            (p, "") for p in ("c", "a/b", "a/c", "a/D/a", "b/a")
        ]:
            above = path.rpartition("/")[0]
            parent = find(device.synced, above) if above else None
            possible = not above or (parent is not None and parent.is_directory)
            if possible and find(device.synced, path) is None and chance.random() < 0.85:
                device.create(path, token or self.log.token())

    # --- What a user does

    def _user(self, device: Device, chance: random.Random) -> None:
        shown = device.paths()
        paths = sorted(shown)
        directories = [path for path in paths if shown[path].is_directory]
        files = [path for path in paths if not shown[path].is_directory]
        free = [
            path
            for path in (f"{above}/{name}".lstrip("/") for above in ["", *directories] for name in NAMES)
            if path not in shown
        ]
        op = chance.choice(OPS)
        if op == "odd":
            odd = [p for p in paths if "conflict" in p.rsplit("/", 1)[-1] or len(shown[p].members) > 1]
            if odd:
                self.reached["act on a copy or a merged path"] += 1
                paths, files = odd, [p for p in odd if not shown[p].is_directory]
            op = chance.choice(["edit", "mv", "rm", "mv", "over"])
        current = device.is_current
        match op:
            case "create" | "mkdir" | "same" if free:
                path = chance.choice(free)
                token = {"mkdir": "DIR", "same": "s" + path[-1]}.get(op) or self.log.token()
                device.create(path, token)
                self._echo(device, current, path, token)
            case "edit" if files:
                path, token = chance.choice(files), self.log.token()
                device.edit(path, token)
                self._echo(device, current, path, token)
            case "touch" if files:
                path = chance.choice(files)
                device.touch(path, chance.randrange(1, 1000))
                self._echo(device, current, path, token_of(shown[path].content))
            case "mv" | "over" if paths:
                path = chance.choice(paths)
                over = op == "over" and not shown[path].is_directory and len(files) > 1
                targets = [other for other in files if other != path] if over else free
                self._move(device, current, path, targets, chance, over=over)
            case "mvd" if directories:
                path = chance.choice(directories)
                above = [other for other in directories if not f"{other}/".startswith(f"{path}/")]
                targets = [to for to in free if to.rpartition("/")[0] in above]
                self._move(device, current, path, targets, chance, over=False)
            case "rm" if paths:
                self._remove(device, current, chance.choice(paths))
            case "rmd" if directories:
                self._remove(device, current, chance.choice(directories))
            case "invert":
                inner = [p for p in directories if "/" in p and f"{p}/{p.rpartition('/')[2]}" not in shown]
                if inner:
                    device.invert(chance.choice(inner))
                    self.reached["inversion"] += 1
                    self._echo(device, current)

    def _move(
        self, device: Device, current: bool, path: str, targets: Sequence[str], chance: random.Random, *, over: bool
    ) -> None:
        targets = [to for to in targets if not f"{to}/".startswith(f"{path}/")]
        if targets:
            to = chance.choice(targets)
            token = token_of(device.paths()[path].content)
            device.move(path, to, over=over)
            self._echo(device, current, to, token)

    def _remove(self, device: Device, current: bool, path: str) -> None:
        device.remove(path)
        assert find(device.synced, path) is None, f"echo: {path} was removed and is still there"
        self._echo(device, current)

    def _echo(self, device: Device, current: bool, path: str = "", token: str = "") -> None:
        """The disk shows what the user did; and so does the fold, item by item, if it showed what the disk held."""
        if path:
            item = find(device.synced, path)
            assert item is not None, f"echo: nothing at {path}"
            assert token_of(item.content) == token, f"echo: {token_of(item.content)} at {path}, not {token}"
        if current:
            shown, held = list(walk(device.state.tree)), list(walk(device.synced))
            if shown != held:
                self._check_hollow(device, shown, held)

    @staticmethod
    def _check_hollow(device: Device, shown: Sequence[Item], held: Sequence[Item]) -> None:
        """A directory whose own content was removed goes with the last that stood in it (foldmodel, reading 9)."""
        paths = {path_of(device.synced, item.id): token_of(item.content) for item in held}
        left = {path_of(device.state.tree, item.id): token_of(item.content) for item in shown}
        gone = {path: token for path, token in paths.items() if path not in left}
        assert set(gone.values()) <= {"DIR"}, f"echo: {gone} is gone"
        assert left == {path: token for path, token in paths.items() if path not in gone}, "echo: other names"

    # --- At the end

    def finish(self) -> None:
        self.settle()
        state = self.devices[0].state
        live = Counter(token_of(item.content) for item in walk(state.tree) if not item.is_directory)
        self._check_tokens(live)
        for seed in range(3):
            other, _ = refold(self.log.ordered, random.Random(seed))
            tokens = {token_of(item.content) for item in walk(other.tree) if not item.is_directory}
            assert tokens == set(live), f"order keeps: {tokens ^ set(live)}"
        items = list(walk(state.tree))
        self.reached["copies or suffixes"] += any("conflict" in item.name for item in items)
        self.reached["merged paths"] += any(len(item.members) > 1 for item in items)
        self.reached["entries"] += len(self.log.ordered)

    def _check_tokens(self, live: Counter[str]) -> None:
        ledger = self.log.ledger
        kills: dict[str, list[Done]] = defaultdict(list)
        wrote: dict[str, Done] = {}
        line: dict[str, set[str]] = defaultdict(set)
        for done in ledger:
            for token in done.killed:
                kills[token].append(done)
            for token in done.wrote:
                wrote.setdefault(token, done)
                if done.op == "edit":
                    line[token] |= done.killed.union(*(line[each] for each in done.killed))
        merged = {token for done in ledger if done.through_merge and done.op == "edit" for token in done.wrote}
        assert set(live) <= set(wrote), f"invention: {set(live) - set(wrote)}"
        for token in wrote:
            assert live[token] or kills[token], f"lost update: {token} is nowhere, and nobody replaced or removed it"
            if token[0] != "t" or token in merged or not live[token]:
                continue
            assert live[token] == 1, f"exactness: {token} shows {live[token]} times"
            if kills[token]:
                kept = any(
                    _concurrent(done, kill)
                    and (done.touched & ({token} | line[token]) or (done.op == "move" and done.nodes & kill.nodes))
                    for done in ledger
                    if done.op in ("move", "edit")
                    for kill in kills[token]
                )
                assert kept, f"resurrection: {token} was replaced or removed, and nothing was concurrent"
                self.reached["kept by a concurrent move"] += 1


def _concurrent(one: Done, other: Done) -> bool:
    return one is not other and not one.entries & other.saw and not other.entries & one.saw


def check_tree(state: FoldState) -> None:
    """The tree is one: every item can be reached, by its name, and stands in a directory."""
    for item in walk(state.tree):
        assert state.tree.item(item.id) == item
        assert state.tree.child(item.parent, item.name) == item
        parent = None if item.parent == ROOT else state.tree.item(item.parent)
        assert item.parent == ROOT or (parent is not None and parent.is_directory)


def shuffled(entries: Sequence[AdmittedEntry], chance: random.Random) -> list[AdmittedEntry]:
    """Return the entries in another order that their needs allow."""
    left, order, known = list(entries), [], set[EntryHash]()
    while left:
        entry = chance.choice([each for each in left if known.issuperset(each.header.needs)])
        left.remove(entry)
        order.append(entry)
        known.add(entry.hash)
    return order


def refold(
    entries: Sequence[AdmittedEntry], chance: random.Random, base: FoldState | None = None
) -> tuple[FoldState, list[AdmittedEntry]]:
    """Fold the entries in another order, cut anywhere, and from somewhere on as a tail on an overlay."""
    order = shuffled(entries, chance)
    state: FoldState = MemoryState() if base is None else base
    end = chance.randint(0, len(order))
    edges = sorted({0, end, *(chance.randint(0, end) for _ in range(chance.choice([0, 2, end])))})
    for start, stop in pairwise(edges):
        fold(state, order[start:stop], position=start + 1)
    tail = order_tail({entry.hash for entry in order[:end]}, order[end:])
    overlay = OverlayState(state)
    fold(overlay, tail, position=end + 1)
    return overlay, order[:end] + tail


def history(seed: int) -> tuple[int, list[Action]]:
    """Return a random number of devices and what happens to them."""
    chance = random.Random(seed)
    count = chance.choice([2, 2, 3, 4])
    network = chance.choice([0.1, 0.3, 0.6])

    def seed_of() -> int:
        return chance.randrange(10**9)

    if chance.random() < 0.6:
        actions = [Action("tree", 0, seed_of()), Action("sync", 0, 0)]
    else:
        actions = [Action("user", chance.randrange(count), seed_of()) for _ in range(3)]
    for _ in range(chance.choice([8, 16, 30, 50])):
        kinds = ["lan", "lan", "push", "push", "pull", "pull", "apply"]
        kind = "user" if chance.random() < 1 - network else chance.choice(kinds)
        actions.append(Action(kind, chance.randrange(count), seed_of()))
        if chance.random() < 0.05:
            actions += [Action(each, device, seed_of()) for each in ("push", "pull") for device in range(count)]
    return count, actions


def play(count: int, actions: Sequence[Action]) -> World:
    """Let the actions happen, checking after each; return the world after everything settled."""
    world = World(count)
    for action in actions:
        world.step(action)
    world.finish()
    return world
