"""Random histories of a few devices: what is drawn from a seed, how it is played, and how everything settles at the end.

Each action has a seed of its own, so a history stays meaningful when others are dropped from it.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from peer.core.tree import Item
from protocol.entries import AdmittedEntry
from simulations.plan.checkers import (
    Checks,
    Violation,
    check,
    check_convergence,
    check_identity,
    check_orders,
    check_restart,
    check_rows,
    check_shown,
    check_tokens,
    check_validity,
    snapshot,
    text_of,
)
from simulations.plan.device import Device
from simulations.plan.ledger import Done, Ledger, are_concurrent
from simulations.plan.local import walk
from simulations.plan.log import Log
from simulations.plan.users import POOLS, User

ROUNDS_MAX: Final = 16
"""Within which a device, and then all of them, must come to rest."""
_SEEDS: Final = 1 << 40


class Options(NamedTuple):
    """What is drawn once for a history."""

    devices: int
    folding: tuple[int, ...]
    """Numbers of the devices whose disk folds case."""
    names: str
    """Which names users give: a key of ``POOLS``."""
    turns: bool
    """Whether users take turns: then no conflict may arise at all."""
    voids: bool
    """Whether entries may become void, and a device be taken out."""
    busy: float
    """How much users do, against what devices do."""
    late: float = 0.3
    """How many transfers end only later."""


class Action(NamedTuple):
    """One thing that happens."""

    kind: str
    device: int
    seed: int


class World:
    """Devices, what they share, and the checks."""

    def __init__(self, options: Options, trace: Callable[[str], None] | None = None) -> None:
        self.options = options
        self.log = Log()
        self.ledger = Ledger()
        self.reached: Counter[str] = Counter()
        self.checks = Checks(self)
        self.alone: set[int] = set()
        """Devices that were at peace and have heard nothing since."""
        self.renaming: dict[int, Done] = {}
        """Devices at which nothing has happened since peace but the rename of one directory."""
        self.shown: defaultdict[int, set[str]] = defaultdict(set)
        """Contents that a disk has ever shown."""
        self.saw: defaultdict[int, dict[int, int]] = defaultdict(dict)
        self._window: defaultdict[int, list[Done]] = defaultdict(list)
        """What a user has done since everything was looked at."""
        self._open: defaultdict[int, list[Done]] = defaultdict(list)
        """What a user has done since his device had recorded all."""
        self._trace = trace
        self._has_raced = False
        self.devices = [
            Device(number, self.log, self.checks, folds_case=number in options.folding, late=options.late)
            for number in range(1, options.devices + 1)
        ]

    @property
    def live(self) -> list[Device]:
        """The devices that were not taken out."""
        return [device for device in self.devices if not device.is_out]

    @property
    def kept(self) -> set[str]:
        """Names under which devices kept what they could not put where it was to go."""
        return {name for device in self.devices for name in device.hands.kept}

    @property
    def has_concurrency(self) -> bool:
        """Whether any two users did something without having seen what the other did."""
        done = self.ledger.done
        return any(are_concurrent(one, other) for i, one in enumerate(done) for other in done[:i])

    def is_lost(self, done: Done) -> bool:
        """Tell whether what a user did went with his device, before it was ordered."""
        device = self.devices[done.device - 1]
        if not device.is_out:
            return False
        return done.until is None or not self.log.counts(done.device, done.since + 1, done.until)

    # --- Playing

    def step(self, action: Action) -> None:
        """Let one action happen."""
        chance = random.Random(action.seed)
        devices = self.live
        device = devices[action.device % len(devices)]
        device.replica.chance.seed(action.seed ^ device.number)
        what = getattr(self, f"do_{action.kind}")(device, chance)
        if self._trace is not None:
            self._trace(f"{action.kind:7} device {device.number}  {what or ''}")
        self._note_peace(device)

    def _note_peace(self, device: Device) -> None:
        if device.is_out or not device.is_at_peace:
            return
        number, replica = device.number, device.replica
        self.saw[number] = replica.vector(range(1, len(self.devices) + 1), self.saw[number])
        for done in self._open[number]:
            done.until = replica.seq
        self._open[number].clear()
        self.alone.add(number)

    def is_plain(self, device: Device) -> bool:
        """Tell whether what a device records follows from what its user did since peace, one thing at a time."""
        is_mixed = any(done.is_mixed or done.is_joined for done in self._open[device.number])
        return device.number in self.alone and not is_mixed and self.options.names != "forms"

    def tell(self, device: Device, line: str) -> None:
        """Trace what a device does."""
        if self._trace is not None:
            self._trace(f"{'':10}{device.number}  {line}")

    @property
    def is_traced(self) -> bool:
        """Whether anybody reads along."""
        return self._trace is not None

    def _heard(self, device: Device) -> None:
        self.alone.discard(device.number)
        self.renaming.pop(device.number, None)

    def _show(self, device: Device) -> None:
        self.shown[device.number].update(inode.data for _, inode in device.disk.walk())

    def do_user(self, device: Device, chance: random.Random) -> str:
        """A user does something; where they take turns, all see it then."""
        if self.options.turns:
            self.settle()
        at_peace = device.number in self.alone and device.is_at_peace
        first = len(self.ledger.done)
        self.ledger.merged |= {text_of(item.content) for item in device.synced.items() if len(item.members) > 1}
        user = User(device, self.ledger, POOLS[self.options.names], self.saw[device.number])
        what = user.act(chance)
        done = self.ledger.done[first:]
        if device.is_true:
            self._window[device.number].clear()
        self._window[device.number] += done
        if len(self._window[device.number]) > 1 or self._has_raced:
            for each in self._window[device.number]:
                each.is_mixed = True
                self.ledger.shared |= each.touched  # which of them is which is anybody's guess then
            self.ledger.join(self._window[device.number])
        if self._open[device.number]:
            for each in (*self._open[device.number], *done):
                each.is_joined = True
        self._open[device.number] += done
        device.is_unscanned = True
        self._show(device)
        self.renaming.pop(device.number, None)
        if at_peace and what.startswith("rename_directory"):
            self.renaming[device.number] = self.ledger.done[-1]
        if self.options.turns:
            wanted = snapshot(device)
            self.settle()
            for other in self.live:
                check_shown(other, wanted)
        return what

    def do_race(self, device: Device, chance: random.Random) -> str:
        """A user does something while everything is looked at."""
        said: list[str] = []
        self._has_raced = True
        self.alone.discard(device.number)  # it holds more than was scanned
        device.scan(chance, meanwhile=lambda: said.append(self.do_user(device, chance)))
        self._has_raced = False
        return "".join(said)

    def do_scan(self, device: Device, chance: random.Random) -> None:
        """Look everywhere."""
        device.scan(chance)

    def do_look(self, device: Device, chance: random.Random) -> None:
        """Look where the watcher says."""
        device.scan(chance, whole=False)

    def do_plan(self, device: Device, chance: random.Random) -> None:
        """Plan, for some items, and act."""
        device.plan_some(chance)
        self._show(device)

    def do_finish(self, device: Device, chance: random.Random) -> None:
        """Let some transfers end."""
        device.finish(chance)
        self._show(device)

    def do_retry(self, device: Device, _: random.Random) -> None:
        """Try again what a disk refused."""
        device.blocked.clear()

    def do_push(self, device: Device, chance: random.Random) -> None:
        """Hand entries in."""
        own = list(device.replica.own.values())
        self.log.register(own[: chance.choice((1, 3, len(own)))])

    def do_order(self, _: Device, chance: random.Random) -> None:
        """Order some entries, whichever are ready."""
        self.log.order(chance, chance.randint(1, 5))

    def do_pull(self, device: Device, chance: random.Random) -> None:
        """Follow the log, up to its end or not."""
        last, position = len(self.log.items), device.replica.position
        if device.replica.pull(max(position, chance.choice((last, last, chance.randint(0, last))))):
            self._heard(device)

    def do_near(self, device: Device, chance: random.Random) -> None:
        """Take what a near device registered, before it is ordered."""
        other = chance.choice(self.live)
        entries = [entry for entry in self.log.registered.values() if entry.header.device == other.number]
        if chance.random() < 0.3:
            entries = entries[: chance.randint(0, len(entries))]
        self._take_near(device, entries)

    def _take_near(self, device: Device, entries: Sequence[AdmittedEntry]) -> None:
        if device.replica.near(entries):
            self._heard(device)

    def do_meet(self, device: Device, chance: random.Random) -> None:
        """Come near another one, hear what it has recorded just now, and follow it at once."""
        own = list(chance.choice(self.live).replica.own.values())
        self.log.register(own)
        self._take_near(device, [entry for entry in own if entry.hash in self.log.registered])
        self.do_plan(device, chance)

    def do_haste(self, device: Device, chance: random.Random) -> str:
        """A user does something after his device has looked, and before it does what others did."""
        if self.options.turns:
            return self.do_user(device, chance)
        device.scan()
        if device.replica.pull(len(self.log.items)):
            self._heard(device)
        what = self.do_user(device, chance)
        self.do_plan(device, chance)
        return what

    def do_work(self, device: Device, _: random.Random) -> None:
        """Follow, look everywhere, plan, act: a turn of the loop in which nothing is left over."""
        if device.replica.pull(len(self.log.items)):
            self._heard(device)
        device.finish()
        device.scan()
        for _pass in range(3):
            device.plan_some()
        self.log.register(device.replica.own.values())
        self._show(device)

    def do_void(self, _: Device, chance: random.Random) -> str:
        """Make a registered entry void."""
        if not self.log.registered:
            return "nothing"
        entry = chance.choice(list(self.log.registered.values()))
        self.log.make_void(entry.hash)
        return f"{entry.header.device}.{entry.header.seq}"

    def do_out(self, device: Device, _: random.Random) -> str:
        """Take a device out of the folder."""
        if len(self.live) < 3:
            return "nobody"
        device.is_out = True
        self.log.take_out(device.number)
        return "is out"

    def do_settle(self, _device: Device, _chance: random.Random) -> None:
        """Let everything be ordered and applied everywhere."""
        self.settle()

    # --- Settling

    def settle(self) -> None:
        """Let everything settle; then all must hold the same.

        Raises:
            Violation: It does not settle, or something else does not hold.
        """
        for count in range(ROUNDS_MAX + 1):
            before = self._marks()
            for device in self.live:
                if not device.is_at_peace:
                    self._rest(device)
                self.log.register(device.replica.own.values())
            self.log.order(random.Random(count), _SEEDS)
            for device in self.live:
                if device.replica.pull(len(self.log.items)):
                    self._heard(device)
            if before == self._marks():
                break
        else:
            raise Violation(22, f"entries and changes after {ROUNDS_MAX} rounds")
        check(22, not self.log.registered, "entries that can never be ordered")
        for device in self.live:
            check(22, not device.replica.own, "device {} has a tail left", device.number)
            self._note_peace(device)
        check_validity(self)
        check_convergence(self)
        check_rows(self)

    def _rest(self, device: Device) -> None:
        if device.rest(ROUNDS_MAX) > ROUNDS_MAX:
            raise Violation(22, f"device {device.number} does not come to rest: {device.replica.seq} entries")
        self._show(device)
        self._note_peace(device)

    def _marks(self) -> tuple[object, ...]:
        return len(self.log.items), [(d.replica.seq, d.hands.changes, d.replica.position) for d in self.live]

    def finish(self, chance: random.Random) -> None:
        """Check all that can be told at the end.

        Raises:
            Violation: Something does not hold.
        """
        self.settle()
        check_identity(self)
        check_tokens(self)
        check_orders(self, chance)
        for device in self.live:
            check_restart(self, device)
        items: list[Item] = list(walk(self.live[0].replica.state.tree))
        self.reached["histories"] += 1
        self.reached["entries"] += len(self.log.items)
        self.reached["actions of users"] += len(self.ledger.done)
        self.reached["voids"] += len(self.log.voids)
        self.reached["conflict copies"] += any("(conflict, " in item.name for item in items)
        self.reached["merged paths"] += any(len(item.members) > 1 for item in items)


def draw(seed: int) -> tuple[Options, list[Action]]:
    """Return what a seed stands for."""
    chance = random.Random(seed)
    devices = chance.choice((2, 2, 2, 3, 3, 3, 4, 6))
    turns = chance.random() < 0.2
    names = chance.choice(("few", "few", "few", "files", "cases", "forms"))
    turns = turns and names != "forms"  # where two names count as one, one of them is another user's surprise
    folding = tuple(n for n in range(1, devices + 1) if names == "cases" and not turns and chance.random() < 0.5)
    voids = not turns and chance.random() < 0.3
    options = Options(
        devices, folding, names, turns, voids, chance.choice((0.3, 0.5, 0.7)), chance.choice((0.1, 0.3, 0.7))
    )
    actions: list[Action] = []

    def add(kind: str, device: int) -> None:
        actions.append(Action(kind, device, chance.randrange(_SEEDS)))

    if chance.random() < 0.6:
        for _ in range(chance.randint(1, 5)):
            add("user", 0)
        add("settle", 0)
    for _ in range(chance.choice((4, 8, 12, 20)) if turns else chance.choice((6, 12, 20, 40))):
        device = chance.randrange(devices)
        add("user" if chance.random() < options.busy else chance.choice(_KINDS), device)
        if chance.random() < 0.1:
            add("work", device)
        if voids and chance.random() < 0.12:
            add("out" if chance.random() < 0.1 else "void", device)
        if chance.random() < 0.03:
            add("settle", device)
    return options, actions


_KINDS: Final[Sequence[str]] = (
    *("work",) * 4,
    *("scan",) * 2,
    *("look",) * 2,
    "race",
    *("plan",) * 3,
    "finish",
    "retry",
    *("push",) * 2,
    *("order",) * 2,
    *("pull",) * 3,
    *("near",) * 2,
    *("meet",) * 3,
    *("haste",) * 3,
)


def play(options: Options, actions: Sequence[Action], trace: Callable[[str], None] | None = None) -> World:
    """Let actions happen, and everything settle; return the world afterwards.

    Raises:
        Violation: Something does not hold. What the product itself raises counts as such, under the number 0.
    """
    world = World(options, trace)
    try:
        for action in actions:
            world.step(action)
        world.finish(random.Random(len(actions)))
    except Violation as found:
        found.world = world
        raise
    except Exception as error:
        failed = Violation(0, f"{type(error).__name__}: {error}")
        failed.world = world
        raise failed from error
    return world
