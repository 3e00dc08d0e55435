"""What only a simulated world can do to a case: at one point of a pass, behind a lock, before each effect.

Rule 1: what is hung onto a disk is taken off once it has happened, so that it happens once.
"""

from __future__ import annotations

import asyncio
import errno
import tempfile
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, cast

import msgspec

from peer.device import Device
from protocol import messages as m
from protocol.errors import ProtocolError
from simulations.cases import rename_matrix
from simulations.cases.grammar import Skipped
from simulations.cases.hands import Machine
from simulations.cases.real_disk import RealDisk
from simulations.cases.trees import CONTROL, STAGES
from simulations.delays import Delay
from simulations.devices import ROOT
from simulations.disk import SimDisk
from simulations.disk_hooks import Call, Fault
from simulations.inodes import Inode
from simulations.links import BYTES_PER_S
from simulations.loop import SECOND_NS
from simulations.watcher import FINE, Weather

if TYPE_CHECKING:
    from simulations.cases.virtual import VirtualHands, VirtualMachine

__all__ = ["BYTES_PER_S", "Board", "VirtualTricks"]

_DISPLACES: Final = frozenset({"exchange", "rename"})
_SYNCS: Final = frozenset({"sync", "sync_all"})
_LOCKED: Final = frozenset({"open_file", "read", "rename", "exchange", "unlink", "link"})

LOOK_S: Final = 0.1
Act = Callable[[], None]


class Board:
    """What is to happen when a process makes certain calls on one disk."""

    def __init__(self, disk: SimDisk) -> None:
        self._disk = disk
        self._note = disk.hooks.after
        self.locked: dict[int, Inode] = {}
        """What nobody but its user may touch, by number."""
        self._before: list[tuple[Callable[[Call], bool], Act]] = []
        self._after: list[tuple[Callable[[Call], bool], Act]] = []
        self._asked: list[tuple[Callable[[Call], bool], Act]] = []
        hooks = disk.hooks
        hooks.before, hooks.after, hooks.fault = self._on_before, self._on_after, self._on_any

    def before(self, is_meant: Callable[[Call], bool], act: Act) -> None:
        """Do something once, before a call that changes the disk."""
        self._before.append((is_meant, act))

    def after(self, is_meant: Callable[[Call], bool], act: Act) -> None:
        """Do something once, after one."""
        self._after.append((is_meant, act))

    def asked(self, is_meant: Callable[[Call], bool], act: Act) -> None:
        """Do something once, at any call."""
        self._asked.append((is_meant, act))

    def _on_before(self, call: Call) -> None:
        _act(self._before, call)

    def _on_after(self, call: Call) -> None:
        if self._note is not None:
            self._note(call)
        _act(self._after, call)

    def _on_any(self, call: Call) -> Fault | None:
        _act(self._asked, call)
        if self.locked and call.call in _LOCKED and not self.locked.keys().isdisjoint(_numbers(call)):
            return Fault(errno.EBUSY)
        return None


def _act(hung: list[tuple[Callable[[Call], bool], Act]], call: Call) -> None:
    for entry in [entry for entry in hung if entry[0](call)]:
        hung.remove(entry)
        entry[1]()


def _numbers(call: Call) -> set[int]:
    found = {call.inode.number}
    if call.other is not None:
        found.add(call.other.number)
    return found


class VirtualTricks:
    """A :class:`simulations.cases.hands.Tricks`."""

    def __init__(self, hands: VirtualHands) -> None:
        self._hands = hands

    def lock(self, machine: Machine, path: str) -> None:
        """Let no process of the product read or replace what stands at a path."""
        virtual = _of(machine)
        inode = virtual.machine.disk.at(path)
        assert inode is not None, f"nothing stands at {path} to be locked"
        virtual.board.locked[inode.number] = inode

    def unlock(self, machine: Machine, path: str) -> None:
        """End that."""
        virtual = _of(machine)
        inode = virtual.machine.disk.at(path)
        if inode is not None:
            virtual.board.locked.pop(inode.number, None)

    def at_point(self, machine: Machine, point: str, path: str, act: Act) -> None:
        """Do something once, when the product comes to a point of applying a file.

        ``A``: it begins to receive it, and did not look at what stands there. ``B``: it is about to move that away. ``C``: it
        did. ``D``: all is in place, and about to be made durable.

        Raises:
            Skipped: There is no such point.
        """
        board = _of(machine).board

        def displaces(call: Call) -> bool:
            return call.call in _DISPLACES and path in (call.path(), call.to_path())

        match point:
            case "A":
                stages = f"{machine.root}/{CONTROL}/{STAGES}/"
                board.before(lambda call: call.call == "open_file" and call.path().startswith(stages), act)
            case "B":
                board.before(displaces, act)
            case "C":
                board.after(displaces, act)
            case "D":
                board.after(displaces, lambda: board.before(lambda call: call.call in _SYNCS, act))
            case _:
                raise Skipped(f"there is no point {point} of applying a file")

    def during_scan(self, machine: Machine, act: Act) -> None:
        """Do something once, when the product looks for the first time at what is in the root."""
        _of(machine).board.asked(lambda call: call.call == "list" and call.inode.path() == ROOT, act)

    async def crash_in(self, machine: Machine, effect: int, method: str, /, **params: Any) -> int:
        """Run a command that crashes before its n-th effect (0: never), and return how many effects it had."""
        return await _of(machine).crash(method, params, effect)

    async def deafen(self, machine: Machine) -> None:
        """Have an agent run that has looked at everything, and from now on hears of nothing."""
        virtual = _of(machine)
        virtual.machine.weather = Weather(lost=1.0)
        await virtual.start()
        await virtual.machine.do(_quiet(virtual.machine.device))
        self._hands.world.network.go_offline(virtual.machine.name)

    async def scan(self, machine: Machine, path: str) -> None:
        """Have it look at one path."""
        device = _of(machine).machine.device
        for engine in device.engines.values():
            engine.observer.look_at([path])
            engine.wake()
        await _of(machine).machine.do(_quiet(device))

    async def apply_unseen(self, machine: Machine) -> None:
        """Have it apply all that is remote."""
        virtual = _of(machine)
        self._hands.world.network.go_online(virtual.machine.name)
        await virtual.machine.do(_applied(virtual.machine.device))

    async def end_deafness(self, machine: Machine) -> None:
        """End it."""
        virtual = _of(machine)
        await virtual.stop()
        virtual.machine.weather = FINE
        self._hands.world.network.go_online(virtual.machine.name)

    def advance(self, seconds: float) -> None:
        """Put all clocks forward."""
        for machine in self._hands.world.machines:
            machine.time.jump(int(seconds * SECOND_NS))

    def unmount(self, machine: Machine, path: str) -> None:
        """Let an empty directory of another disk stand at a path."""
        virtual = _of(machine)
        number = len(virtual.machine.disks) + 1
        virtual.machine.disk.mount(path, virtual.machine.make_disk(number=number))

    def reorder(self, machine: Machine) -> None:
        """Have the next batch of entries for a device arrive in reverse order."""
        link = self._hands.world.network.link(self._hands.world.coordinator.name, _of(machine).machine.name)

        def alter(data: bytes) -> list[bytes]:
            try:
                frame = m.decode_frame(data)
            except ProtocolError:
                return [data]
            body = frame.body
            if not isinstance(body, m.Pulled) or len(body.items) < 2:
                return [data]
            link.alter = None
            turned = msgspec.structs.replace(body, items=body.items[::-1])
            return [m.encode_frame(frame.id, turned, reply=frame.reply)]

        link.alter = alter

    def hold_entries(self, machine: Machine) -> asyncio.Event:
        """Have the next entries that a device sends be held back, with all after them; say when they are."""
        network, coordinator = self._hands.world.network, self._hands.world.coordinator.name
        name = _of(machine).machine.name
        link, held = network.link(name, coordinator), asyncio.Event()

        def alter(data: bytes) -> list[bytes]:
            try:
                frame = m.decode_frame(data)
            except ProtocolError:
                return [data]
            if isinstance(frame.body, m.RegisterEntries):
                link.alter = None
                network.clog(name, coordinator)
                held.set()
            return [data]

        link.alter = alter
        return held

    def release_entries(self, machine: Machine) -> None:
        """Let them go on."""
        self._hands.world.network.unclog(_of(machine).machine.name, self._hands.world.coordinator.name)

    def delay(self, machine: Machine, seconds: float) -> None:
        """Have all that goes to a device arrive so much later."""
        name = _of(machine).machine.name
        for other in self._hands.world.machines:
            if other.name != name:
                link = self._hands.world.network.link(other.name, name)
                more = int(seconds * SECOND_NS)
                link.delay = Delay(link.delay.least_ns + more, link.delay.mean_ns, link.delay.most_ns + more)

    def compare_renames(self) -> Sequence[str]:
        """Rename everything to everything, here and on a real file system; return where they differ."""
        with tempfile.TemporaryDirectory() as place:
            return rename_matrix.differences(
                (self._hands.machines[0].disk, f"{ROOT.rpartition('/')[0]}/matrix"), (RealDisk(), f"{place}/matrix")
            )


async def _quiet(device: Device) -> None:
    for engine in device.engines.values():
        await engine.quiet()


async def _applied(device: Device) -> None:
    await device.need_link()
    asked: set[int] = set()
    # A pass, but for its look at the disk; nobody is told when it is over.
    while not await device._is_settled(list(device.engines.values()), asked, patient=False):  # noqa: ASYNC110, SLF001
        await asyncio.sleep(LOOK_S)


def _of(machine: Machine) -> VirtualMachine:
    return cast("VirtualMachine", machine)
