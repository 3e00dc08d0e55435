"""What a process holds at once, as far as the world sees it: invariant 25.

Rule 1: the bounds do not depend on how many files there are, how large they are and how long it runs.
Rule 2: bytes on a channel are bounded by the channel's window, so what is counted are channels, open files and tasks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from simulations.checks.violation import BOUNDED, Violation
from simulations.devices import DeviceMachine
from simulations.loop import SimLoop
from simulations.machines import Machine
from simulations.network import Network

BATCHES: Final = 4
"""What a device sends to storage nodes, or has them send, at once; beside that it may ask each whether it is there."""
HANDLES_MAX: Final = 400
"""Files and directories that a device has open: of a group of 256 files that are put in place, of transfers and scans."""
HANDLES_AT_REST: Final = 2
TASKS: Final = 9
TASKS_EACH: Final = 3
"""Of a process that has nothing to do: so many, and so many more for each machine that it may be connected to."""
_NODES: Final = "http://"


def find_channels(network: Network, name: str, nodes: int) -> Violation | None:
    """Invariant 25: a device has a few channels to storage nodes at a time, however much it has to send."""
    count = network.open_from(name, _NODES)
    if count > BATCHES + nodes:
        return Violation(BOUNDED, f"{name} has {count} channels to storage nodes open at once")
    return None


def find_handles(device: DeviceMachine) -> Violation | None:
    """Invariant 25: a device has a few files open at a time, however many there are."""
    if device.files.handles > HANDLES_MAX:
        return Violation(BOUNDED, f"{device.name} has {device.files.handles} files and directories open at once")
    return None


def check_rest(loop: SimLoop, machines: Sequence[Machine]) -> None:
    """Invariant 25: at rest, a process has as many tasks and files open as one that has done nothing yet.

    Raises:
        Violation: It has more.
    """
    for machine in machines:
        tasks = loop.tasks_of(machine.host)
        if len(tasks) > TASKS + TASKS_EACH * len(machines):
            names = sorted(task.get_name() for task in tasks)
            raise Violation(BOUNDED, f"{machine.name} has {len(tasks)} tasks at rest: {names}")
        if isinstance(machine, DeviceMachine) and machine.files.handles > HANDLES_AT_REST:
            raise Violation(BOUNDED, f"{machine.name} has {machine.files.handles} files open at rest")
