"""What a history left: actions with the trees around them, what processes did to users' names, lives of machines, faults.

Rule 1: nothing here comes from what the product says or keeps: disks, the network's own notes and those who make faults tell it.
Rule 2: whether somebody had seen something is told by what stood on his disk whenever he acted.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any, Final, NamedTuple

from protocol.entries import Kind
from simulations.history.effects import ONCE
from simulations.history.ledger import Asked, Opened
from simulations.personalities import PERSONALITIES, Personality
from simulations.situations.operations import Operation, Tree, What, is_below


class Deed(NamedTuple):
    """One action of a user."""

    number: int
    """In the ledger."""
    time_ns: int
    epoch: int
    """How often all devices had come to rest before it."""
    device: int
    what: str
    """In words, for whoever reads."""
    before: Tree
    after: Tree
    operations: tuple[Operation, ...]
    """None of what a command did: that takes time, and others act meanwhile."""
    wall_ns: int
    """What its device's clock showed."""

    def __str__(self) -> str:
        return f"#{self.number}"


class Did(NamedTuple):
    """One operation of an action."""

    deed: Deed
    op: Operation

    def __str__(self) -> str:
        return f"#{self.deed.number}"


class Stroke(NamedTuple):
    """What a process did to what stands under a user's name."""

    time_ns: int
    device: int
    path: str
    is_placed: bool
    """Whether it put something there; else it took away what stood there."""
    kind: Kind | None
    content: bytes
    began_ns: int
    """When its first bytes came to this disk, of what was placed; else when it was taken away."""

    def __str__(self) -> str:
        return (
            f"device-{self.device} {'places' if self.is_placed else 'takes'} {self.path} at {self.time_ns / 1e9:.3f} s"
        )


class Life(NamedTuple):
    """A machine's process begins or ends, or its machine is put back."""

    time_ns: int
    machine: str
    what: str
    """start, stop, crash, power, suspend, resume, restore, wipe."""
    lost: tuple[str, ...] = ()
    """Of power: paths that show something else since."""
    torn: tuple[str, ...] = ()
    """Of these: files whose names are there, and whose bytes are others."""

    def __str__(self) -> str:
        return f"{self.what} of {self.machine} at {self.time_ns / 1e9:.3f} s"


class Send(NamedTuple):
    """One message."""

    time_ns: int
    source: str
    target: str


class Loss(NamedTuple):
    """A watcher did not tell all that happened."""

    time_ns: int
    device: int
    what: str

    def __str__(self) -> str:
        return f"the watcher of device-{self.device} loses {self.what} at {self.time_ns / 1e9:.3f} s"


class Fault:
    """Something that was made to go wrong.

    Args:
        kind: By its name in the repertoire.
        began_ns: When.
    """

    def __init__(self, kind: str, began_ns: int) -> None:
        self.kind = kind
        self.began_ns = began_ns
        self.until_ns: int | None = None
        """When it was over; None for what has no duration."""
        self.text = ""
        self.machines: tuple[str, ...] = ()
        self.facts: Mapping[str, Any] = {}
        self.effects = ONCE

    @property
    def times(self) -> int:
        """How often it took effect."""
        return self.effects.times

    @property
    def end_ns(self) -> int:
        """When it was over, or began, if it took no time."""
        return self.began_ns if self.until_ns is None else self.until_ns

    def __str__(self) -> str:
        met = "" if self.times else "; nothing met it"
        return f"{self.kind} at {self.began_ns / 1e9:.3f} s ({self.text}{met})"


class Record:
    """All that one history left.

    Args:
        devices: How many there are.
        personalities: Of their file systems, by name.
    """

    def __init__(self, devices: int, personalities: tuple[str, ...]) -> None:
        self.devices = devices
        self.personalities = personalities
        self.deeds: list[Deed] = []
        self.asked: list[Asked] = []
        self.opened: list[Opened] = []
        self.strokes: list[Stroke] = []
        self.lives: list[Life] = []
        self.sends: list[Send] = []
        self.faults: list[Fault] = []
        self.losses: list[Loss] = []
        self.rests: list[list[Tree]] = []
        """What stood on each device whenever all had come to rest."""

    def personality(self, device: int) -> Personality:
        """Return what kind of file system a device has."""
        return PERSONALITIES[self.personalities[device]]

    # --- Actions

    @cached_property
    def did(self) -> list[Did]:
        """All operations, in order."""
        return [Did(deed, op) for deed in self.deeds for op in deed.operations]

    @cached_property
    def by_device(self) -> list[list[Deed]]:
        """The actions of each device's user, in order."""
        return [[deed for deed in self.deeds if deed.device == number] for number in range(self.devices)]

    def of(self, *whats: What, kind: Kind | None = None) -> Iterator[Did]:
        """Yield the operations of some kinds, on one kind of thing or on any."""
        for did in self.did:
            if did.op.what in whats and (kind is None or did.op.kind is kind):
                yield did

    def after(self, did: Did) -> Iterator[Did]:
        """Yield what the same user did later, or in the same action."""
        for later in self.did:
            if later.deed.device == did.deed.device and later.deed.number >= did.deed.number and later is not did:
                yield later

    def concurrent(self, one: Did, other: Did) -> bool:
        """Tell whether two operations of two users happened without either having seen the other."""
        first, second = (one, other) if one.deed.number < other.deed.number else (other, one)
        if first.deed.device == second.deed.device or first.deed.epoch != second.deed.epoch:
            return False
        return not any(
            _shows(deed.before, first.op)
            for deed in self.by_device[second.deed.device]
            if first.deed.number < deed.number <= second.deed.number
        )

    @cached_property
    def pairs(self) -> list[tuple[Did, Did]]:
        """All pairs of operations about one place that happened without having seen each other, in both orders."""
        found = []
        for at, one in enumerate(self.did):
            for other in self.did[at + 1 :]:
                if _meet(one.op, other.op) and self.concurrent(one, other):
                    found += [(one, other), (other, one)]
        return found

    # --- Processes and machines

    @cached_property
    def spans(self) -> dict[str, list[tuple[int, int]]]:
        """By machine, when it had no process."""
        found: dict[str, list[tuple[int, int]]] = {}
        ended: dict[str, int] = {}
        for life in self.lives:
            if life.what in {"stop", "crash"}:
                ended.setdefault(life.machine, life.time_ns)
            elif life.what == "start" and life.machine in ended:
                found.setdefault(life.machine, []).append((ended.pop(life.machine), life.time_ns))
        return found

    def is_down(self, machine: str, time_ns: int) -> bool:
        """Tell whether a machine had no process."""
        return any(began <= time_ns < until for began, until in self.spans.get(machine, ()))

    def of_kind(self, *kinds: str) -> Iterator[Fault]:
        """Yield the faults of some kinds that took effect."""
        return (fault for fault in self.made(*kinds) if fault.times)

    def made(self, *kinds: str) -> Iterator[Fault]:
        """Yield all faults of some kinds, whether anything met them or not: whoever was cut off was, though he said nothing."""
        return (fault for fault in self.faults if fault.kind in kinds)

    def sent(self, source: str, target: str, began_ns: int, until_ns: int) -> bool:
        """Tell whether a machine sent another something in a span of time."""
        return any(
            one.source == source and one.target == target and began_ns <= one.time_ns <= until_ns for one in self.sends
        )

    def is_cut_off(self, device: int, time_ns: int) -> bool:
        """Tell whether a device could talk to nobody: no process, no network, or its user had it stay offline."""
        name = f"device-{device}"
        if self.is_down(name, time_ns):
            return True
        if any(fault.began_ns <= time_ns <= fault.end_ns and name in fault.machines for fault in self.made("leave")):
            return True
        last = [one for one in self.asked if one.device == device and one.time_ns <= time_ns and one.method in _NETWORK]
        return bool(last) and last[-1].method == "offline"

    def placed(self, content: bytes, but: int) -> Iterator[Stroke]:
        """Yield where processes put a content on other devices than one."""
        return (one for one in self.strokes if one.is_placed and one.content == content and one.device != but)


REPOSITORY: Final = ".git"
_NETWORK: Final = frozenset({"online", "offline"})


def _meet(one: Operation, other: Operation) -> bool:
    """Tell whether two operations are about one place, or one is about something within the other's."""
    for here in (one.path, one.to):
        for there in (other.path, other.to):
            if here == there or is_below(here, there) or is_below(there, here) or _folded(here) == _folded(there):
                return True
            above = here.rpartition("/")[0]
            if REPOSITORY in above and above == there.rpartition("/")[0]:
                return True  # programs take all files there for one thing
    return False


def _folded(path: str) -> str:
    return unicodedata.normalize("NFC", path).casefold()


def _shows(tree: Tree, op: Operation) -> bool:
    """Tell whether a tree shows what an operation did."""
    if op.what is What.REMOVE:
        return op.path not in tree
    at = tree.get(op.to)
    if at is None or op.new is None or at.kind is not op.new.kind or at.content != op.new.content:
        return False
    if op.what is What.MOVE:
        return op.path not in tree
    if op.what is What.MODE:
        return at.executable == op.new.executable
    return op.what is not What.TOUCH or at.mtime_ns == op.new.mtime_ns
