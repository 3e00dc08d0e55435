"""Who watches a history and writes down what it leaves: the ledger's actions, the disks, the network's notes, the faults.

Rule 1: it draws no chance, takes no time and changes nothing: a history is the same with and without it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from protocol.entries import Kind
from simulations.devices import CONTROL, ROOT, DeviceMachine
from simulations.disk_hooks import Call, joined
from simulations.history.ledger import Action, Ledger
from simulations.inodes import File, Inode, Link
from simulations.situations.operations import Standing, look, operations
from simulations.situations.record import Deed, Life, Loss, Record, Send, Stroke
from simulations.world import World

HEARD: Final = frozenset({"send", "start", "stop", "crash", "power", "suspend", "resume", "restore", "wipe"})
"""Notes of the trace that it takes in."""
_BEGINS: Final = frozenset({"write", "open_file", "truncate"})


class Observer:
    """Watches one history.

    Args:
        world: That it happens in.
        ledger: Of the history.
        personalities: Of the devices' file systems, by name.
    """

    def __init__(self, world: World, ledger: Ledger, personalities: tuple[str, ...]) -> None:
        self.record = Record(len(world.devices), personalities)
        self.record.asked, self.record.opened = ledger.asked, ledger.opened
        self._world = world
        self._ledger = ledger
        self._looks: dict[int, tuple[int, dict[str, Standing]]] = {}
        self._began: dict[Inode, int] = {}
        self._standing: dict[str, dict[str, Standing]] = {}
        """What stood on a device when its process ended last."""
        self._ended: dict[str, str] = {}
        """What happened last to each machine."""
        self._devices = {device.name: device for device in world.devices}
        ledger.on_look = self._look
        for number, device in enumerate(world.devices):
            device.disk.hooks.after = joined(device.disk.hooks.after, self._stroke(number))
            device.on_loss = self._loss(number)

    # --- What it is told

    def act(self, action: Action) -> None:
        """Take in an action, just after it."""
        looked_ns, before = self._looks[action.device]
        after = look(self._world.devices[action.device])
        by_hand = looked_ns == action.time_ns
        self.record.deeds.append(
            Deed(
                action.number,
                action.time_ns,
                action.epoch,
                action.device,
                action.what,
                before,
                after,
                operations(before, after) if by_hand else (),
                self._world.devices[action.device].time.wall_ns(action.time_ns),
            )
        )

    def hear(self, time_ns: int, what: str, text: str) -> None:
        """Take in a note of the trace, one of :data:`HEARD`."""
        if what == "send":
            source, _, target = text.partition(">")
            self.record.sends.append(Send(time_ns, source, target))
            return
        name = text.split(" ", 1)[0]
        if what == "crash" and self._ended.get(name) == "stop":
            return  # that is how a process ends that was stopped
        self._ended[name] = what
        device = self._devices.get(name)
        lost: tuple[str, ...] = ()
        torn: tuple[str, ...] = ()
        if device is not None and what == "crash":
            self._standing[name] = look(device)
        elif device is not None and what == "power":
            before, after = self._standing.get(name, {}), look(device)
            lost = tuple(path for path, seen in before.items() if not _is_same(seen, after.get(path)))
            torn = tuple(path for path in lost if path in after and before[path].kind is after[path].kind is Kind.FILE)
        self.record.lives.append(Life(time_ns, name, what, lost, torn))

    def _look(self, device: DeviceMachine, number: int) -> None:
        tree = look(device)
        self._looks[number] = device.loop.now_ns, tree
        rests, epoch = self.record.rests, self._ledger.epoch
        if epoch > len(rests) and number == 0:
            rests.append([])
        if rests and epoch == len(rests) and len(rests[-1]) == number:
            rests[-1].append(tree)

    def _loss(self, number: int) -> Callable[[str], None]:
        def heard(what: str) -> None:
            self.record.losses.append(Loss(self._world.loop.now_ns, number, what))

        return heard

    # --- What processes do

    def _stroke(self, number: int) -> Callable[[Call], None]:
        def heard(call: Call) -> None:
            if call.call in _BEGINS:
                if _inside(call.inode.path()) is None:
                    self._began.setdefault(call.inode, self._world.loop.now_ns)
                return
            for path, inode, is_placed in _strokes(call):
                self._note(number, path, inode, is_placed=is_placed)

        return heard

    def _note(self, number: int, path: str, inode: Inode, *, is_placed: bool) -> None:
        now_ns = self._world.loop.now_ns
        content = inode.digest() if isinstance(inode, File) else inode.target if isinstance(inode, Link) else b""
        began_ns = self._began.pop(inode, now_ns) if is_placed else now_ns
        self.record.strokes.append(Stroke(now_ns, number, path, is_placed, inode.kind, content, began_ns))


def _strokes(call: Call) -> list[tuple[str, Inode, bool]]:
    """Return what a call put under users' names, and what it took away from there."""
    here, there = _inside(call.path()), _inside(call.to_path())
    found: list[tuple[str | None, Inode | None, bool]] = []
    match call.call:
        case "rename" | "link":
            found = [(here, call.inode if call.call == "rename" else None, False), (there, call.inode, True)]
        case "exchange":
            found = [(here, call.inode, False), (there, call.other, False)]
            found += [(here, call.other, True), (there, call.inode, True)]
        case "unlink" | "remove_directory":
            found = [(here, call.inode, False)]
        case "make_directory" | "make_link":
            found = [(here, call.inode, True)]
    return [(path, inode, placed) for path, inode, placed in found if path is not None and inode is not None]


def _inside(path: str) -> str | None:
    """Return a path from the folder's root; None for what users do not see."""
    if not path.startswith(ROOT + "/"):
        return None
    inside = path.removeprefix(ROOT + "/")
    return None if inside == CONTROL or inside.startswith(CONTROL + "/") else inside


def _is_same(seen: Standing, now: Standing | None) -> bool:
    return now is not None and now.kind is seen.kind and (now.content == seen.content or seen.kind is Kind.DIRECTORY)
