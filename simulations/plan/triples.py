"""Random triples of small trees, and what the planner promises for any of them.

A triple is planned, and the plan carried out on a disk of items by id, on which every step looks first. Four ways to draw:

- ``moved``: both sides are changed from one base, as users do;
- ``apart``: three trees that have nothing to do with each other;
- ``kinds``: as before, and an id may be a directory in one tree and a file in another, which identify never does;
- ``idle``: nothing happened on this side, so one plan with steps is enough.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Mapping
from typing import Final

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
from peer.core.tree import Content, Item, ItemId, Member, MemoryTree, Tree
from protocol.entries import Kind
from protocol.ids import ROOT, Dot, NodeId
from simulations.plan.checkers import Violation, check
from simulations.plan.device import step_subject
from simulations.plan.disk import hash_of
from simulations.plan.folding import PlainFold
from simulations.plan.spelling import spell, spell_tree

IDS: Final = tuple(NodeId(bytes([65 + number]) * 16) for number in range(10))
NAMES: Final = ("x", "y", "z")
ROUNDS_MAX: Final = 20
_DIRECTORY: Final = Content(Kind.DIRECTORY)
_FIRST: Final = (0, 2, 4, 6)
"""Which of the ids are directories, where ids keep their kind."""


def _file(text: str, mtime_ns: int = 0, *, executable: bool = False) -> Content:
    return Content(Kind.FILE, hash_of(text), len(text), mtime_ns, executable)


_FILES: Final = (
    _file("1"),
    _file("22"),
    _file("22", 5),
    _file("22", 5, executable=True),
    Content(Kind.LINK, hash_of("there"), 5, target=b"there"),
    *(_file(f"only {number}") for number in range(5)),
)


def with_dots(item: Item, seq: int) -> Item:
    """Return an item with one member, as if an entry of that number had written it."""
    member = Member(item.id, None, (Dot(1, seq, 0),), (Dot(1, seq, 1),))
    return Item(item.id, item.parent, item.name, item.content, (member,))


def bare(item: Item) -> Item:
    """Return an item as the local tree has it."""
    return Item(item.id, item.parent, item.name, item.content)


class Triple:
    """Three trees, of which the local one is the disk; steps and acts are carried out on them.

    Args:
        local: What is on the disk, without members.
        synced: The merge base.
        remote: What the folder holds.
    """

    def __init__(self, local: MemoryTree, synced: MemoryTree, remote: MemoryTree) -> None:
        self.local = local
        self.synced = synced
        self.remote = remote
        self.aside: dict[ItemId, Item] = {}
        self.destroyed: list[Content] = []
        self.seq = 1000
        self.keeps_kinds = True
        """Whether no id is a directory in one tree and a file in another."""
        self.trace: Callable[[str], None] | None = None

    def ids(self) -> list[ItemId]:
        """Return the ids of all items."""
        return list(dict.fromkeys(i.id for tree in (self.local, self.synced, self.remote) for i in tree.items()))

    def dirty(self) -> list[ItemId]:
        """Return what is not settled."""
        trees = {"local": self.local, "synced": self.synced, "remote": self.remote}
        return [id for id in self.ids() if not is_settled(id, **trees)]

    def plan(self, dirty: Collection[ItemId], busy: Collection[ItemId] = ()) -> Plan:
        """Plan."""
        return plan(local=self.local, synced=self.synced, remote=self.remote, dirty=dirty, busy=busy)

    def show(self) -> None:
        """Tell what the trees hold."""
        if self.trace is not None:
            for name in ("local", "synced", "remote"):
                self.trace(f"{name:6} {' '.join(spell_tree(getattr(self, name))) or 'empty'}")

    # --- Acts: as if authored

    def author(self, made: Plan) -> None:
        """Record the acts of a plan: ``synced`` then holds what the disk holds, with new dots."""
        above = {step.item.id: step.item.parent for step in made.steps if isinstance(step, Adopt)}
        for act in made.acts:
            self.seq += 1
            if self.trace is not None:
                self.trace(f"act    {spell(act)}")
            match act:
                case Create(item):
                    check(4, self.synced.item(item.id) is None, "{} of what is synced", act)
                    self.synced.put(with_dots(item, self.seq))
                case Edit(base, content) | Touch(base, content):
                    now = self._base(base.id)
                    self.synced.put(with_dots(Item(base.id, now.parent, now.name, content), self.seq))
                case Move(base, parent, name):
                    now = self._base(base.id)
                    above[base.id] = parent
                    if self.keeps_kinds:
                        self._check_climb(act, base.id, above)
                    self.synced.put(with_dots(Item(base.id, parent, name, now.content), self.seq))
                case Remove(_, subtree):
                    for item in subtree:
                        base, here = self._base(item.id), self.local.item(item.id)
                        is_gone = here is None or here.is_directory != base.is_directory
                        check(4, is_gone, "{}: {} is there", act, item.name)
                        self.synced.drop(item.id)

    def _check_climb(self, act: Act, id: ItemId, above: Mapping[ItemId, ItemId]) -> None:
        """No act alone puts a directory into itself, once what both sides did alike is recorded."""
        here, climbed = above[id], 0
        while here != ROOT and climbed < len(IDS):
            check(8, here != id, "{} puts it into itself", act)
            item = self.synced.item(here)
            here, climbed = above.get(here, ROOT if item is None else item.parent), climbed + 1

    def _base(self, id: ItemId) -> Item:
        item = self.synced.item(id)
        check(4, item is not None, "an act of what is not synced")
        assert item is not None
        return item

    # --- Steps

    def execute(self, step: Step) -> None:
        """Carry out a step; what it expects must be there."""
        if self.trace is not None:
            self.trace(f"step   {spell(step)}")
        match step:
            case Place(item):
                self._arrive(step, item)
            case Replace(expected, item) | SetAttributes(expected, item):
                self._expect(step, expected)
                if isinstance(step, Replace):
                    self._empty(step, expected)
                    self.destroyed.append(expected.content)
                else:
                    check(20, expected.content.same_bytes(item.content), "{} changes bytes", step)
                check(20, (item.parent, item.name) == (expected.parent, expected.name), "{} moves", step)
                self.local.put(bare(item))
                self.synced.put(item)
            case Rename():
                self._rename(step)
            case Delete(expected):
                self._expect(step, expected)
                self._empty(step, expected)
                if not expected.is_directory:
                    self.destroyed.append(expected.content)
                self.local.drop(expected.id)
                self.synced.drop(expected.id)
            case Adopt(item):
                self.synced.put(item)
            case Forget(base):
                check(20, self.synced.item(base.id) is not None, "{} of what is not synced", step)
                self.synced.drop(base.id)
            case Rekey(old, new):
                for tree in (self.local, self.synced):
                    _rekey(tree, old, new)

    def _rename(self, step: Rename) -> None:
        expected, item = step.expected, step.item
        if step.from_aside:
            check(20, expected.id in self.aside, "{} of what is not aside", step)
            del self.aside[expected.id]
        else:
            self._expect(step, expected, any_bytes=True)
            here = self.local.item(expected.id)
            assert here is not None
            self.local.drop(expected.id)
            if step.aside:
                self.aside[expected.id] = here
                return
        self._arrive(step, item)

    def _arrive(self, step: Step, item: Item) -> None:
        above, climbed = item.parent, 0
        while above != ROOT:
            there = self.aside.get(above) or self.local.item(above)
            check(20, there is not None and there.is_directory, "{}: there is no such directory", step)
            check(8, above != item.id and climbed < len(IDS) * 9, "{} puts it into itself", step)
            assert there is not None
            above, climbed = there.parent if above not in self.aside else ROOT, climbed + 1
        check(20, self.local.item(item.id) is None, "{}: it is there already", step)
        check(20, self.local.child(item.parent, item.name) is None, "{}: the name is taken", step)
        self.local.put(bare(item))
        self.synced.put(item)

    def _expect(self, step: Step, expected: Item, *, any_bytes: bool = False) -> None:
        here = self.local.item(expected.id)
        check(20, here is not None, "{}: it is not there", step)
        assert here is not None
        check(20, (here.parent, here.name) == (expected.parent, expected.name), "{}: it is elsewhere", step)
        same = here.content.same_bytes(expected.content) or (any_bytes and not here.is_directory)
        check(20, same, "{}: other bytes are there", step)

    def _empty(self, step: Step, expected: Item) -> None:
        check(20, next(self.local.children(expected.id), None) is None, "{}: something stands in it", step)


def _rekey(tree: MemoryTree, old: ItemId, new: ItemId) -> None:
    check(20, tree.item(new) is None, "a new id is taken")
    children, item = list(tree.children(old)), tree.item(old)
    if item is not None:
        tree.drop(old)
        tree.put(Item(new, item.parent, item.name, item.content, item.members))
    for child in children:
        tree.put(Item(child.id, new, child.name, child.content, child.members))


def is_under(tree: Tree, id: ItemId, above: ItemId) -> bool:
    """Tell whether an item is another one, or stands under it."""
    climbed = 0
    while id != ROOT and climbed < len(IDS) * 9:
        if id == above:
            return True
        item = tree.item(id)
        if item is None:
            return False
        id, climbed = item.parent, climbed + 1
    return False


# --- Drawing


def _draw_tree(chance: random.Random, most: int, seq: int, *, keep_kinds: bool) -> MemoryTree:
    tree, parents = MemoryTree(), [ROOT]
    for number in chance.sample(range(len(IDS)), most):
        above, name = chance.choice(parents), chance.choice(NAMES)
        if tree.child(above, name) is not None:
            continue
        is_directory = number in _FIRST if keep_kinds else chance.random() < 0.4
        content = _DIRECTORY if is_directory else chance.choice(_FILES)
        tree.put(with_dots(Item(IDS[number], above, name, content), seq))
        if is_directory:
            parents.append(IDS[number])
    return tree


def _change(tree: MemoryTree, chance: random.Random, count: int, seq: int) -> MemoryTree:
    """Return a tree as it is after a few changes; ids keep their kind."""
    tree = MemoryTree({item.id: item for item in tree.items()})
    for _ in range(count):
        items = list(tree.items())
        what = chance.randrange(5)
        directories = [ROOT, *(item.id for item in items if item.is_directory)]
        above, name = chance.choice(directories), chance.choice(NAMES)
        is_free = tree.child(above, name) is None
        if what == 0 or not items:
            unused = [number for number in range(len(IDS)) if tree.item(IDS[number]) is None]
            if unused and is_free:
                number = chance.choice(unused)
                content = _DIRECTORY if number in _FIRST else chance.choice(_FILES)
                tree.put(with_dots(Item(IDS[number], above, name, content), seq))
            continue
        item = chance.choice(items)
        if what == 1:
            for each in [each for each in items if is_under(tree, each.id, item.id)]:
                tree.drop(each.id)
        elif what == 2 and not item.is_directory:
            tree.put(with_dots(Item(item.id, item.parent, item.name, chance.choice(_FILES)), seq))
        elif what == 3:
            _exchange(tree, item, chance.choice(items), seq)
        elif is_free and not is_under(tree, above, item.id):
            tree.put(with_dots(Item(item.id, above, name, item.content), seq))
    return tree


def _exchange(tree: MemoryTree, one: Item, other: Item, seq: int) -> None:
    """Let two change places, or turn A/B into B/A."""
    if one.id == other.id:
        return
    places = {one.id: (other.parent, other.name), other.id: (one.parent, one.name)}
    top, below = (one, other) if other.parent == one.id else (other, one)
    if below.parent == top.id:
        if not below.is_directory or tree.child(below.id, below.name) is not None:
            return
        places = {below.id: (top.parent, top.name), top.id: (below.id, below.name)}
    elif is_under(tree, one.id, other.id) or is_under(tree, other.id, one.id):
        return
    for item in (one, other):
        tree.drop(item.id)
    for item in (one, other):
        tree.put(with_dots(Item(item.id, *places[item.id], item.content), seq))


def draw(seed: int) -> tuple[str, Triple, random.Random]:
    """Return the way in which a seed's triple was drawn, the triple, and chance for what is done with it."""
    chance = random.Random(seed)
    way = chance.choice(("moved", "moved", "moved", "moved", "apart", "kinds", "idle"))
    sizes = (1, 2, 3, 4, 5, 6, 8, 10)
    keep = way != "kinds"
    synced = _draw_tree(chance, chance.choice(sizes), 1, keep_kinds=keep)
    if way == "moved":
        here = _change(synced, chance, chance.randint(0, 4), 1)
        remote = _change(synced, chance, chance.randint(0, 4), 2)
    else:
        here = synced if way == "idle" else _draw_tree(chance, chance.choice(sizes), 1, keep_kinds=keep)
        remote = _draw_tree(chance, chance.choice(sizes), chance.choice((1, 2)), keep_kinds=keep)
    local = MemoryTree({item.id: bare(item) for item in here.items()})
    triple = Triple(local, synced, remote)
    triple.keeps_kinds = keep
    return way, triple, chance


# --- Playing


def play(seed: int, without: Collection[ItemId] = (), trace: Callable[[str], None] | None = None) -> str:
    """Plan the triple of a seed and carry it out until nothing is left; return the way in which it was drawn.

    Args:
        seed: Of the triple.
        without: Items to leave out, with all that stands in them.
        trace: Is told of the trees and of each operation.

    Raises:
        Violation: A promise is broken; the number says which. What the product itself raises counts as 0.
    """
    try:
        return _play(*draw(seed), without, trace)
    except Violation:
        raise
    except Exception as error:
        raise Violation(0, f"{type(error).__name__}: {error}") from error


def _play(
    way: str, triple: Triple, chance: random.Random, without: Collection[ItemId], trace: Callable[[str], None] | None
) -> str:
    triple.trace = trace
    for tree in (triple.local, triple.synced, triple.remote) if without else ():
        for item in [item for item in tree.items() if any(is_under(tree, item.id, id) for id in without)]:
            tree.drop(item.id)
    triple.show()
    written = [{i.content.hash for i in tree.items()} for tree in (triple.local, triple.remote)]
    known = {item.content.hash for item in triple.synced.items()}
    dirty = triple.dirty()
    if chance.random() < 0.25:
        _check_part(triple, dirty, chance)
    if trace is not None:
        trace("whole:")
    first = triple.plan(dirty)
    shuffled = chance.sample(dirty, len(dirty))
    check(2, triple.plan(shuffled) == first, "the order of what is dirty changes the plan")
    if way == "idle":
        check(4, not first.acts, "acts though nothing happened here")
    rounds = _settle(triple, first, PlainFold() if way in ("moved", "apart") else None)
    destroyed = {content.hash for content in triple.destroyed}
    if way == "idle":
        check(22, rounds <= 3, "{} rounds where one plan of steps is enough", rounds)  # new ids; steps; dots
    if way in ("moved", "apart"):
        kept = {item.content.hash for item in triple.local.items()}
        for side in written:
            lost = side - known - kept
            check(1, not lost, "lost: {}", lost)
    check(6, way != "moved" or destroyed <= known | written[1] | written[0], "unknown bytes were destroyed")
    return way


def _settle(triple: Triple, made: Plan, fold: PlainFold | None) -> int:
    """Carry out a plan, and plan again until nothing is left; return how often."""
    for count in range(ROUNDS_MAX):
        if not made.acts and not made.steps:
            check(20, not triple.dirty(), "nothing is planned, and something is left")
            _check_same(triple)
            return count
        safe = {item.content.hash for item in triple.synced.items()}
        before = len(triple.destroyed)
        triple.author(made)
        safe |= {item.content.hash for item in triple.synced.items()}
        for step in made.steps:
            triple.execute(step)
        check(20, not triple.aside, "something was left aside")
        for content in triple.destroyed[before:]:
            check(6, content.hash in safe, "a step destroys bytes that are not synced")
        if fold is not None:
            fold.take(triple.synced, triple.remote, made.acts)
        made = triple.plan(triple.dirty())
    check(22, holds=False, text="it does not come to rest")
    return ROUNDS_MAX


def _check_same(triple: Triple) -> None:
    synced = {item.id: item for item in triple.synced.items()}
    check(20, synced == {item.id: item for item in triple.remote.items()}, "synced is not remote")
    local = {item.id: item for item in triple.local.items()}
    same = local.keys() == synced.keys() and all(
        (here.parent, here.name) == (synced[id].parent, synced[id].name) and here.content.same(synced[id].content)
        for id, here in local.items()
    )
    check(20, same, "the disk is not what synced says")


def _check_part(triple: Triple, dirty: list[ItemId], chance: random.Random) -> None:
    """The agent plans for some items at once, while others are in transfer: the steps must be possible all the same."""
    copies = (MemoryTree({i.id: i for i in tree.items()}) for tree in (triple.local, triple.synced, triple.remote))
    part = Triple(*copies)
    part.trace = triple.trace
    if part.trace is not None:
        part.trace("at first in part, on copies:")
    busy = [id for id in dirty if chance.random() < 0.2]
    made = part.plan([id for id in dirty if id not in busy and chance.random() < 0.6], busy)
    if any(isinstance(step, Rekey) for step in made.steps):
        return
    for step in made.steps:
        check(20, step_subject(step) not in busy, "{} though it is in transfer", step)
    for step in made.steps:
        part.execute(step)
    check(20, not part.aside, "something was left aside by a plan in part")
    known = {item.content.hash for item in triple.synced.items()}
    for content in part.destroyed:
        check(6, content.hash in known, "a plan in part destroys bytes that are not synced")
