"""What must hold in every history, by the numbers of the invariants: each function names what it checks.

The checks go by the ledger, the disks and the trees, never by what the product thinks of itself.

    1 no lost update      2 convergence         3 no resurrection    4 no invention      5 conflict exactness
    6 known bytes only    8 tree validity       9 identity          11 causality        20 rows = disk = fold
   21 idempotence        22 quiescence         23 cost of a directory's rename
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Final
from unicodedata import normalize

from peer.core.authoring import Draft
from peer.core.fold import fold, order_tail
from peer.core.fold_state import FoldState
from peer.core.memory_state import MemoryState, OverlayState
from peer.core.operations import Act, Adopt, Delete, Forget, Move, Place, Plan, Rekey, Step
from peer.core.tree import Content, Item, Tree, path_of
from protocol.entries import AdmittedEntry, Kind, Register
from protocol.ids import Dot, EntryHash, NodeId
from simulations.plan.device import Device, Watch, step_subject
from simulations.plan.disk import text_of_hash
from simulations.plan.ledger import Done, are_concurrent
from simulations.plan.local import walk
from simulations.plan.spelling import spell

if TYPE_CHECKING:
    from simulations.plan.history import World

TITLES: Final[Mapping[int, str]] = {
    0: "the product does not fail",
    1: "no lost update",
    2: "convergence",
    3: "no resurrection",
    4: "no invention",
    5: "conflict exactness",
    6: "destructive steps only take known bytes",
    8: "tree validity",
    9: "identity",
    11: "causality",
    20: "rows = disk = fold",
    21: "idempotence",
    22: "quiescence",
    23: "a directory's rename is one act",
}
_CONFLICT: Final = re.compile(r"(.*) \(conflict, D[0-9]+, [0-9a-f]{8,32}\)(.*)", re.DOTALL)


class Violation(AssertionError):
    """An invariant does not hold.

    Args:
        invariant: Its number, a key of :data:`TITLES`.
        text: What is wrong.
        actions: What users did that it is about.
    """

    def __init__(self, invariant: int, text: str, actions: Iterable[Done] = ()) -> None:
        super().__init__(text)
        self.invariant = invariant
        self.text = text
        self.actions = list(actions)
        self.world: World | None = None

    def __str__(self) -> str:
        """Name the invariant, too."""
        return f"invariant {self.invariant} ({TITLES[self.invariant]}): {self.text}"


def check(invariant: int, holds: object, text: str, *about: object, actions: Iterable[Done] = ()) -> None:
    """Say what is wrong, unless it holds.

    Args:
        invariant: A key of :data:`TITLES`.
        holds: Whether it holds.
        text: What is wrong, with "{}" for each of what follows; it is put together only then.
        about: What it is about.
        actions: What users did that it is about.

    Raises:
        Violation: It does not hold.
    """
    if not holds:
        raise Violation(invariant, text.format(*about) if about else text, actions)


def text_of(content: Content) -> str:
    """Return what a file or a link holds; "/" for a directory."""
    return "/" if content.kind is Kind.DIRECTORY else text_of_hash(content.hash)


# --- At every step


class Checks(Watch):
    """What is checked while devices work."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.holding: dict[bytes, list[EntryHash]] = {}
        """By the hash of a content: the entries that hold it."""

    def destroys(self, device: Device, content: Content, step: Step) -> None:
        """6: bytes are taken off a disk only if the folder's log or tail, as this device knows it, holds them."""
        replica, log = device.replica, device.replica.log
        known = any(
            hash in replica.own or hash in replica.foreign or (hash in replica.settled and hash in log.ordered)
            for hash in self.holding.get(content.hash, ())
        )
        check(6, known, "device {} takes {} off its disk: {}", device.number, text_of(content), type(step).__name__)

    def planned(self, device: Device, made: Plan) -> None:
        """22: what a device recorded alone brings no work back, but for directories that nothing holds any more.

        23: nothing is taken off a disk to be put there again as it was.
        """
        taken = {(step.expected.parent, step.expected.name): step for step in made.steps if isinstance(step, Delete)}
        for step in made.steps if taken else ():
            if isinstance(step, Place):
                old = taken.get((step.item.parent, step.item.name))
                is_anew = old is not None and old.expected.content.same_bytes(step.item.content)
                check(23, not is_anew, "device {} plans {} and {}", device.number, old, step)
        if self.world.is_plain(device):
            for step in made.steps:
                check(22, self._is_quiet(step), "device {} heard nothing and plans {}", device.number, step)

    def _is_quiet(self, step: Step) -> bool:
        """Tell whether a step may follow from what its own user did: equal bytes at one wanted name become one path."""
        if isinstance(step, Adopt | Forget | Rekey) or (isinstance(step, Delete) and step.expected.is_directory):
            return True
        item = getattr(step, "item", getattr(step, "expected", None))
        return item is not None and not item.is_directory and self.world.ledger.wrote[text_of(item.content)] != 1

    def recorded(self, device: Device, acts: Sequence[Act], draft: Draft) -> None:
        """11 and 23, and remember what entries hold."""
        for act in acts if self.world.is_traced else ():
            self.world.tell(device, f"act  {spell(act)}")
        entries = device.replica.tail if device.replica.foreign else device.replica.tail[-len(draft.entries) :]
        made = {entry.seq for entry in draft.entries}
        for entry in entries:
            if entry.header.device == device.number and entry.header.seq in made:
                self._note_contents(entry)
                self._check_causality(device, entry)
        self._note_shared(acts)
        moved = self.world.renaming.pop(device.number, None)
        if moved is not None and acts:
            is_one = len(acts) == 1 and isinstance(acts[0], Move)
            contents = [c for e in draft.entries for c in e.changes if c.register is Register.CONTENT]
            check(23, is_one and not contents, "device {} recorded {}", device.number, acts, actions=[moved])

    def _note_contents(self, entry: AdmittedEntry) -> None:
        for change, value in zip(entry.header.changes, entry.payload.values, strict=True):
            if change.register is Register.CONTENT:
                hash: bytes = getattr(value, "hash", b"")
                self.holding.setdefault(hash, []).append(entry.hash)

    def _note_shared(self, acts: Sequence[Act]) -> None:
        """What is written at a path of several nodes is written to each of them, and may part with them."""
        for act in acts:
            base = getattr(act, "base", None)
            content = getattr(act, "content", None)
            if base is not None and content is not None and len(base.members) > 1 and content.hash:
                self.world.ledger.shared.add(text_of_hash(content.hash))

    def _check_causality(self, device: Device, entry: AdmittedEntry) -> None:
        """11: an entry covers what its base covers, and replaces only what its user's disk has shown, or nobody sees."""
        state = device.replica.state
        for change in entry.header.changes:
            table = state.contents if change.register is Register.CONTENT else state.places
            vector = dict(change.vector)
            check(11, vector.get(device.number) == entry.header.seq, "{} does not count itself", change)
            for dot in change.base:
                row = table.get(dot)
                if row is None:
                    continue
                covered = all(vector.get(number, 0) >= counter for number, counter in row.vector)
                check(11, covered, "device {}: {} does not cover its base {}", device.number, change, row.vector)
                if change.register is Register.CONTENT:
                    self._check_seen(device, entry, dot)

    def _check_seen(self, device: Device, entry: AdmittedEntry, dot: Dot) -> None:
        row = device.replica.state.contents.get(dot)
        if row is None or row.value.kind is Kind.DIRECTORY:
            return
        text = text_of_hash(row.value.hash)
        if text in self.world.shown[device.number] or not text:
            return
        before = OverlayState(device.replica.ordered)
        for position, each in enumerate(device.replica.tail, start=device.replica.position + 1):
            if each.header.device != device.number or each.header.seq < entry.header.seq:
                fold(before, [each], position=position)
        live = {dot for item in walk(before.tree) for member in item.members for dot in member.content}
        check(11, dot not in live, "device {} replaces {}, which its disk never showed", device.number, text)

    def applied(self, device: Device, steps: Sequence[Step], *, is_fresh: bool) -> None:
        """20: on a disk that holds what the local tree says, every step can be carried out as it was planned."""
        for step in steps if self.world.is_traced else ():
            missed_it = device.hands.missed.get(step_subject(step), "")
            self.world.tell(device, f"step {spell(step)}{missed_it and f': {missed_it}'}")
        if is_fresh and device.is_true and not device.disk.folds_case:
            missed = device.hands.missed
            check(
                20, not missed, "device {} cannot carry out {} of {}", device.number, list(missed.values()), list(steps)
            )


# --- When everything has settled


def check_tree(tree: Tree, where: str) -> None:
    """8: one parent for each, no cycle, no two siblings of one name, nothing under what is no directory."""
    names: set[tuple[NodeId, str]] = set()
    for item in walk(tree):
        check(8, tree.item(item.id) == item, "{}: {} is listed and is not there", where, item.name)
        check(8, tree.child(item.parent, item.name) == item, "{}: {} is not found by its name", where, item.name)
        key = (item.parent, normalize("NFC", item.name))
        check(8, key not in names, "{}: {!r} is there twice", where, item.name)
        names.add(key)


def check_validity(world: World) -> None:
    """8: so it is on every device; and nothing hangs in the air."""
    for device in world.live:
        check_tree(device.replica.state.tree, f"device {device.number}")
        for tree in (device.local, device.synced):
            for item in tree.items():
                check(8, path_of(tree, item.id) is not None, "device {}: {} hangs in the air", device.number, item.name)


def check_convergence(world: World) -> None:
    """2: all hold the same tree, down to the nodes and values behind it."""
    first = list(walk(world.live[0].replica.state.tree))
    for device in world.live[1:]:
        other = list(walk(device.replica.state.tree))
        check(
            2, other == first, "devices {} and {}: {}", world.live[0].number, device.number, _difference(first, other)
        )


def _difference(one: Sequence[Item], other: Sequence[Item]) -> str:
    only = [item for item in one if item not in other], [item for item in other if item not in one]
    return " | ".join(
        "; ".join(f"{item.name} {item.content.hash[:4]!r} {item.members}" for item in each) for each in only
    )


def check_rows(world: World) -> None:
    """20: disk, local, synced and remote hold the same; where a disk refuses names, so do disk and local."""
    for device in world.live:
        shown = {path_of(device.local, item.id): text_of(item.content) for item in device.local.items()}
        disk = {path: "/" if inode.is_directory else inode.data for path, inode in device.disk.walk()}
        differing = set(shown.items()) ^ set(disk.items())
        check(20, not differing, "device {}: local is not the disk: {}", device.number, differing)
        if device.blocked:
            check(20, device.disk.folds_case, "device {} refuses a name for no reason", device.number)
            continue
        remote = list(walk(device.replica.state.tree))
        synced = list(walk(device.synced))
        check(20, synced == remote, "device {}: synced is not remote: {}", device.number, _difference(synced, remote))
        ghosts = {item.id for item in device.synced.items()} - {item.id for item in remote}
        check(20, not ghosts, "device {}: synced has rows of its own", device.number)
        for item in remote:
            row = device.local.item(item.id)
            same = row is not None and (row.parent, row.name) == (item.parent, item.name)
            held = row is not None and row.content.same(item.content)
            check(20, same and held, "device {}: local has {} for {}", device.number, row, item)
        check(20, not device.dirty, "device {} has work left", device.number)


def check_tokens(world: World) -> None:
    """1, 3, 4 and 5: what users wrote is there, once, and what they took away is not."""
    ledger = world.ledger
    items = list(walk(world.live[0].replica.state.tree))
    live = Counter(text_of(item.content) for item in items if not item.is_directory)
    live.pop("", None)
    for token in live:
        check(4, token in ledger.wrote, "{} is there, and nobody wrote it", token)
    for item in items:
        check_name(world, item)
    lost = Counter(token for done in ledger.done if world.is_lost(done) for token in done.wrote)
    for token, wrote in ledger.wrote.items():
        kills, times = ledger.kills[token], wrote - lost[token]
        if not live[token]:
            # The same bytes, written by several or where two names count as one, may be one value.
            is_shared = token in ledger.merged or len({done.device for done in ledger.writers(token)}) > 1
            is_gone = ledger.times_gone(token) >= (min(times, 1) if is_shared else times)
            check(
                1,
                is_gone,
                "{} is nowhere, written {} times, taken away {} times",
                token,
                times,
                ledger.times_gone(token),
                actions=ledger.writers(token) + kills,
            )
        elif times == 1 and token[0] == "t" and token not in ledger.shared and not world.log.voids:
            check(5, live[token] == 1, "{} is there {} times", token, live[token], actions=ledger.writers(token))
            if kills:
                check(3, _is_kept(world, token), "{} is there, though it was taken away", token, actions=kills)
                world.reached["kept by a concurrent move"] += 1


def _is_kept(world: World, token: str) -> bool:
    """Tell whether somebody who had not seen that a content was taken away moved it, or a directory that went with it."""
    ends = [(done, chain) for done, chain in world.ledger.ends[token] if not world.is_lost(done)]
    if all(world.is_lost(kill) for kill in world.ledger.kills[token]):
        return True
    for end, chain in ends:
        nodes = chain.wide if end.is_mixed or end.is_joined else chain.own
        for done in world.ledger.moves:
            if done.op == "save" and not done.is_mixed:
                continue  # a backup is a move only if something else became of what was saved
            if are_concurrent(done, end) and (done.tops & nodes or (not nodes and token in done.touched)):
                return True
    return False


def check_name(world: World, item: Item) -> None:
    """4: every name is one that a user gave, or made from one for a conflict copy, of which there is a reason."""
    name = item.name
    while name not in world.ledger.names and name not in world.kept:
        match = _CONFLICT.fullmatch(name)
        check(4, match is not None, "nobody called anything {!r}", item.name)
        assert match is not None
        name = match[1] + match[2]
        is_reason = world.options.names == "forms" or world.log.voids or world.has_concurrency
        check(5, is_reason, "{!r}, though all happened one after the other", item.name)


def check_identity(world: World) -> None:
    """9: a node, or a conflict copy of it, is at one place."""
    places: dict[tuple[NodeId, Dot | None], str] = {}
    for item in walk(world.live[0].replica.state.tree):
        for member in item.members:
            key = (member.node, member.copy)
            check(9, key not in places, "one node shows as {!r} and as {!r}", places.get(key), item.name)
            places[key] = item.name


def check_orders(world: World, chance: random.Random) -> None:
    """2 and 21: cut anywhere, given twice or in another order that needs allow, the log gives the same contents."""
    items = world.log.items
    entries = [item.entry for item in items if not item.is_void]
    tree = list(walk(world.live[0].replica.state.tree))
    if not world.log.voids:
        state = refold(entries, chance, is_shuffled=False)
        check(21, list(walk(state.tree)) == tree, "folded anew: {}", _difference(tree, list(walk(state.tree))))
        other = refold(entries, chance, is_shuffled=True)
        check_tree(other.tree, "another order")
        texts = ({text_of(item.content) for item in each} for each in (tree, walk(other.tree)))
        one, two = texts
        check(2, one - {"/"} == two - {"/"}, "another order keeps other contents: {}", (one ^ two) - {"/"})


def refold(entries: Sequence[AdmittedEntry], chance: random.Random, *, is_shuffled: bool) -> FoldState:
    """Fold entries cut anywhere, and from somewhere on as a tail on an overlay, of which some are given twice."""
    order = shuffled(entries, chance) if is_shuffled else list(entries)
    state: FoldState = MemoryState()
    end = chance.randint(0, len(order))
    edges = sorted({0, end, *(chance.randint(0, end) for _ in range(chance.choice((0, 2, end))))})
    for start, stop in pairwise(edges):
        fold(state, order[start:stop], position=start + 1)
    tail = order[end:]
    if is_shuffled:
        tail = order_tail({entry.hash for entry in order[:end]}, [*tail, *order[max(0, end - 2) :]])
        check(21, len(tail) == len(order) - end, "entries given twice are folded twice")
    overlay = OverlayState(state)
    fold(overlay, tail, position=end + 1)
    return overlay


def shuffled(entries: Sequence[AdmittedEntry], chance: random.Random) -> list[AdmittedEntry]:
    """Return the entries in another order that their needs allow."""
    left, order, known = list(entries), [], set[EntryHash]()
    while left:
        entry = chance.choice([each for each in left if known.issuperset(each.header.needs)])
        left.remove(entry)
        order.append(entry)
        known.add(entry.hash)
    return order


def check_restart(world: World, device: Device) -> None:
    """21: looking, planning and following once more changes nothing and writes nothing."""
    before = device.replica.seq, device.hands.changes, list(walk(device.replica.state.tree))
    replica = device.replica
    replica.near([item.entry for item in world.log.items])
    replica.rebuild()
    device.dirty |= {item.id for tree in (device.local, device.synced) for item in tree.items()}
    device.dirty |= {item.id for item in before[2]}
    device.looked_at = 0
    device.scan()  # directories look different once something was put into them
    device.looked_at = 0
    check(21, not device.scan(), "device {}: another look finds changes", device.number)
    device.blocked.clear()
    device.plan_some()
    after = replica.seq, device.hands.changes, list(walk(replica.state.tree))
    check(
        21,
        before == after,
        "device {}: a restart writes {} entries, changes {}",
        device.number,
        after[0] - before[0],
        after[1] - before[1],
    )


def check_shown(device: Device, wanted: Mapping[str, tuple[str, int, int]]) -> None:
    """5: where users take turns, every disk shows just what the last one left on hers."""
    shown = snapshot(device)
    differing = {
        path: (wanted.get(path), shown.get(path))
        for path in wanted.keys() | shown.keys()
        if wanted.get(path) != shown.get(path)
    }
    check(5, not differing, "device {} shows other than its user left: {}", device.number, differing)


def snapshot(device: Device) -> dict[str, tuple[str, int, int]]:
    """Return what a disk shows: by path its text, its mode, and the time of a file."""
    return {
        path: ("/", inode.mode, 0)
        if inode.is_directory
        else (inode.data, inode.mode, inode.mtime if inode.kind is Kind.FILE else 0)
        for path, inode in device.disk.walk()
    }
