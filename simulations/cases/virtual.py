"""Worlds on virtual time: the real code of servers and devices in this process, from a prepared image and a seed.

Rule 1: a command is a process of its own that opens the home, does one thing by the product's own method, and ends.
Rule 2: large contents are made smaller and links slower by the same factor, so that all takes as long as the case means
    (docs/decisions/smaller-contents-on-virtual-time.md).
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from typing import Any, Final, TypeVar, cast
from zlib import crc32

from peer import folder_commands
from peer.api.backend import METHODS
from peer.device import Device
from protocol.errors import EXIT_FAILED, EXIT_USAGE, KinfolderError, UserError
from simulations.cases import tricks
from simulations.cases.grammar import MIB, Case, Skipped, size_of
from simulations.cases.hands import LATER_NEEDS, LATER_OPERATIONS, Json, Machine, Means, Packs, Told
from simulations.cases.virtual_disk import VirtualDisk
from simulations.databases import image_of, open_image
from simulations.devices import FILES, FOLDER, HOME, ROOT, DeviceImage, DeviceMachine
from simulations.loop import Schedule
from simulations.machines import MachineGone
from simulations.mishaps import swept
from simulations.personalities import PLAIN, Personality
from simulations.preparation import any_place, link, prepared
from simulations.servers import DATA, CoordinatorImage
from simulations.world import World

T = TypeVar("T")

KILLED: Final = -9
CONTENT_BYTES_MAX: Final = 24 * MIB
"""Of all that the steps of a case write, about: more than that is made smaller."""
_FILE_SYSTEMS: Final[Mapping[str, Personality]] = {
    "case_insensitive_fs": Personality(folds_case=True),
    "fs:nfd": Personality(stores_nfd=True),
    "fs:folds_forms": Personality(folds_forms=True),
    "fs:constant_mtime": Personality(mtime_step_ns=1 << 62),
    "fs:short_path_limit": Personality(path_chars_max=260),
}
"""By need; for the device that it names, or for all."""
MEANS: Final = Means(
    operations=LATER_OPERATIONS,
    needs=LATER_NEEDS,
    present=frozenset(
        {
            "symlink", "multi_folder", "file_lock", "every_step", "fault:network", "fault:coordinator_rollback",
            "fault:crash", "fault:storage_corrupt", *_FILE_SYSTEMS,
        }
    ),
)  # fmt: skip


class VirtualMachine:
    """One device: a :class:`simulations.cases.hands.Machine`."""

    root = ROOT
    outside = f"{FILES}/outside"

    def __init__(self, hands: VirtualHands, name: str, machine: DeviceMachine, *, has_folder: bool) -> None:
        self.name = name
        self.machine = machine
        self.disk = VirtualDisk(machine.disk)
        self.has_folder = has_folder
        self.folds_case = machine.disk.personality.folds_case
        self.is_special = machine.disk.personality != PLAIN
        self.decomposes = machine.disk.personality.stores_nfd
        self._hands = hands
        self._kept: dict[str, DeviceImage] = {}
        self._turn = asyncio.Lock()
        """Who has the home open."""
        self._has_agent = False
        self.board = tricks.Board(machine.disk)
        """What is to happen when the product comes to some point."""

    # --- Commands and processes

    async def kin(self, method: str, /, **params: Any) -> Told:
        """Run a command."""
        return await self._told(method, lambda device: _call(device, method, params))

    async def _told(self, method: str, work: Callable[[Device], Awaitable[Json]], crash_at: int = 0) -> Told:
        try:
            result = await self.ask(method, work, crash_at)
        except KinfolderError as error:
            code = error.exit_code if isinstance(error, UserError) else EXIT_FAILED
            if code == EXIT_USAGE and "not in this version" in str(error):
                raise Skipped(f"kin {method}: not in this version") from error
            return Told(code, str(error), {})
        except MachineGone:
            return Told(KILLED, "was killed", {})
        return Told(int(result.get("exit", 0)), "; ".join(result.get("remains", ())), result)

    async def ask(self, method: str, work: Callable[[Device], Awaitable[T]], crash_at: int = 0) -> T:
        """Have the agent, or else a process of its own, do something as a command of this name."""
        if self.has_agent:
            return await self.machine.do(_coroutine(work(self.machine.device)))
        chosen = METHODS[method]
        async with self._turn:
            return await self.machine.command(work, online=chosen.online, keeps=not chosen.rehearsal, crash_at=crash_at)

    async def crash(self, method: str, params: Json, effect: int) -> int:
        """Run a command that crashes before its n-th effect (0: never); return how many effects it had."""
        await self._told(method, lambda device: _call(device, method, params), effect)
        return self.machine.host.effects

    @property
    def has_agent(self) -> bool:
        """Whether its agent runs."""
        return self._has_agent and self.machine.is_running

    async def start(self) -> None:
        """Start its agent."""
        await self._turn.acquire()
        self._has_agent = True
        await self.machine.start()

    async def stop(self) -> None:
        """End its agent in good order."""
        with contextlib.suppress(MachineGone):
            await self.machine.stop()
        self._agent_ended()

    async def kill(self) -> None:
        """End whatever of it runs."""
        if self.machine.is_running:
            self.machine.kill()
        self._agent_ended()

    def _agent_ended(self) -> None:
        if self._has_agent:
            self._has_agent = False
            self._turn.release()

    # --- What it keeps

    @contextlib.contextmanager
    def database(self, *, writes: bool = False) -> Iterator[sqlite3.Connection]:
        """Open what it knows behind its back."""
        connection = open_image(self.machine.kept_database)
        with contextlib.closing(connection):
            yield connection
            if writes:
                self.machine.tamper(image_of(connection))

    async def keep(self, name: str) -> None:
        """Copy its home and its user's files."""
        self._kept[name] = self.machine.image()

    async def put_back(self, name: str, *, home: bool, files: bool) -> None:
        """Go back to a copy."""
        self.machine.restore(self._kept[name], files=files, database=home)

    async def become_new(self) -> None:
        """Be a new device of the account."""
        await self._hands.link(self.machine)
        self.has_folder = False

    def may_read_all(self) -> bool:
        """Tell whether permissions do not count: they do."""
        return False


class VirtualHands:
    """One world: a :class:`simulations.cases.hands.Hands`."""

    folder = FOLDER
    orders_scans = True

    def __init__(self, world: World, case: Case, scale: int) -> None:
        self.world = world
        self.scale = scale
        self.machines: list[VirtualMachine] = []
        self._case = case
        self._spare = world.devices[-1]
        self._spare_is_free = True
        self._coordinators: dict[str, CoordinatorImage] = {}
        self._was_cut: list[str] = []
        self._linked = 0
        self._tricks = tricks.VirtualTricks(self)

    async def devices(self, names: Sequence[str]) -> Sequence[VirtualMachine]:
        """Return the devices of the image; where each directory is to be a folder, those without one."""
        machines = self.world.devices[1:] if is_parted(self._case) else self.world.devices
        for machine in machines if is_parted(self._case) else ():
            machine.user.make_directories(ROOT)
        return [
            self._take(name, each, has_folder=not is_parted(self._case))
            for name, each in zip(names, machines, strict=False)
        ]

    def _take(self, name: str, machine: DeviceMachine, *, has_folder: bool) -> VirtualMachine:
        made = VirtualMachine(self, name, machine, has_folder=has_folder)
        self.machines.append(made)
        return made

    async def join(self, name: str) -> VirtualMachine:
        """Return one more device: the spare one, or one that is linked now."""
        machine = self._spare
        if not self._spare_is_free:
            machine = self.world.add_device(None)
            self._slow_down()
            await self.link(machine)
        self._spare_is_free = False
        return self._take(name, machine, has_folder=False)

    async def link(self, machine: DeviceMachine) -> None:
        """Make a machine a new device of the account, whose home is empty."""
        for name in machine.user.list(HOME):
            machine.user.remove_tree(f"{HOME}/{name}")
        spare = next((each for each in self.machines if each.machine is self._spare), None)

        async def show(report: Callable[[Json], None]) -> None:
            async def work(device: Device) -> Json:
                return await device.call("link_code", {"yes": True}, report)

            await (self._spare.command(work) if spare is None else spare.ask("link_code", work))

        self._linked += 1
        keys, database = await link(show, machine, f"{machine.name}-{self._linked}")  # no name is given twice
        machine.keys = keys
        machine.tamper(database)

    async def clone(self, machine: Machine, name: str) -> VirtualMachine:
        """Return a copy of a device."""
        source = cast("VirtualMachine", machine)
        made = self.world.add_device(source.machine.image(), source.machine.disk.personality)
        self._slow_down()
        return self._take(name, made, has_folder=source.has_folder)

    @property
    def tricks(self) -> tricks.VirtualTricks:
        """What only a simulated world can do."""
        return self._tricks

    # --- Servers and the network

    async def keep_coordinator(self, name: str) -> None:
        """Copy all that the coordinator keeps."""
        self._coordinators[name] = self.world.coordinator.backup()

    async def put_back_coordinator(self, name: str) -> None:
        """Let it go back to that."""
        coordinator = self.world.coordinator
        await coordinator.stop()
        coordinator.restore(self._coordinators[name])
        await coordinator.start()

    def packs(self) -> Sequence[Packs]:
        """Return where the storage nodes keep chunks."""
        return [Packs(VirtualDisk(node.disk), f"{DATA}/packs") for node in self.world.nodes]

    async def restart_nodes(self) -> None:
        """Have the nodes look at their packs anew."""
        for node in self.world.nodes:
            await node.stop()
            node.forget_index()
            await node.start()

    def cut_after(self, machine: Machine, count: int) -> None:
        """Cut a device off once so many bytes of contents have come to it."""
        name = cast("VirtualMachine", machine).machine.name
        for node in self.world.nodes:
            self.world.network.cut_after(node.name, name, count)
            self.world.network.link(node.name, name).on_cut = lambda: self._cut(name)

    def _cut(self, name: str) -> None:
        self._was_cut.append(name)
        for node in self.world.nodes:
            self.world.network.reset(node.name, name)
        self.world.network.go_offline(name)

    def heal(self) -> None:
        """End that."""
        self.world.network.calm()

    def received_bytes(self) -> int:
        """Return how many bytes came from storage nodes to devices."""
        network = self.world.network
        return sum(
            network.link(node.name, device.name).carried_bytes
            for node in self.world.nodes
            for device in self.world.devices
        )

    def _slow_down(self) -> None:
        """Have all links be as much slower as contents are smaller."""
        if self.scale == 1:
            return
        names = [machine.name for machine in self.world.machines]
        for one in names:
            for other in names:
                if one != other:
                    self.world.network.link(one, other).bytes_per_s = tricks.BYTES_PER_S // self.scale

    async def begin(self) -> None:
        """Start the servers; devices have no process but for their commands."""
        self._slow_down()
        await self.world.coordinator.start()
        await asyncio.gather(*(node.start() for node in self.world.nodes))


class VirtualWorlds:
    """Makes worlds for one case after the other."""

    means = MEANS

    def __init__(self, *, full_size: bool = False) -> None:
        """Make one; ``full_size``: all contents are as large as the cases say."""
        self._full_size = full_size

    def run(self, case: Case, seed: str, story: Callable[[VirtualHands], Coroutine[Any, Any, T]]) -> T:
        """Do something in a world of its own, and return what comes of it."""
        with swept():
            return self._run(case, seed, story)

    def _run(self, case: Case, seed: str, story: Callable[[VirtualHands], Coroutine[Any, Any, T]]) -> T:
        others = 1 if is_parted(case) else 0  # the one that has the folder of the image, and does nothing
        image = prepared(others + len(case.devices) + 1, 1, spare=len(case.devices) + 1 if others else 1)
        number = crc32(seed.encode())
        world = World(
            number,
            image,
            schedule=Schedule.SHUFFLED if number % 2 else Schedule.FIFO,
            personalities=[*[PLAIN] * others, *(personality_of(case, name) for name in case.devices)],
        )
        for step in case.steps:
            for event in EXPECTED_ERRORS.get(step["op"], ()):
                world.may_log(event)
        found: list[T] = []

        async def main(world: World) -> None:
            hands = VirtualHands(world, case, 1 if self._full_size else scale_of(case))
            await hands.begin()
            found.append(await story(hands))

        world.run(main, begins=False)
        return found[0]


EXPECTED_ERRORS: Final[Mapping[str, Sequence[str]]] = {
    "corrupt_chunk": ("a chunk is damaged",),
    "reorder_journal_batch": ("stopped",),
}
"""What the product logs where a case breaks something on purpose, by operation."""


def is_parted(case: Case) -> bool:
    """Whether each directory in a device's root is a folder of its own."""
    return "multi_folder" in case.needs


def personality_of(case: Case, device: str) -> Personality:
    """Return what kind of file system a case gives a device."""
    for need in case.needs:
        kind, _, name = need.rpartition(":")
        if kind in _FILE_SYSTEMS and name in {device, "*"}:
            return _FILE_SYSTEMS[kind]
        if need in _FILE_SYSTEMS:
            return _FILE_SYSTEMS[need]
    return PLAIN


def scale_of(case: Case) -> int:
    """Return by how much a case's contents are to be smaller."""
    total = 0
    for step in (*case.setup, *case.steps):
        size = step.get("size", 0)
        if isinstance(size, str) and ("chunk" in size or "(" in size):
            continue
        total += size_of(size) * int(step.get("count", 1))
    return max(1, -(-total // CONTENT_BYTES_MAX))


async def _call(device: Device, method: str, params: Json) -> Json:
    match method:
        case "add":
            return await folder_commands.add(device, params["path"], params["name"], place=any_place)
        case "get":
            return await folder_commands.get(device, params["folder"], params["path"], place=any_place)
        case _:
            return await device.call(method, params, lambda _: None)


async def _coroutine(awaitable: Awaitable[T]) -> T:
    return await awaitable
