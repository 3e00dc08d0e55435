"""The steps of a case, one after the other: passes, devices that come and go, faults; files are in other modules.

Rule 1: what cannot be done here raises ``Skipped`` with the reason before anything is judged.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from fnmatch import fnmatch
from typing import Any, ClassVar, Final

from simulations.cases import breakage, files, mysteries, programs, series, state, tricky
from simulations.cases.files import Step
from simulations.cases.grammar import ACTORS, Case, Skipped
from simulations.cases.hands import Failed, Means, lacks, must
from simulations.cases.judgement import Judge
from simulations.cases.trees import is_below
from simulations.cases.world import Begun, Peer, World


def check_known(case: Case, means: Means) -> None:
    """Skip a case that nobody here can run.

    Raises:
        Skipped: It needs, or does, what cannot be done here.
    """
    if reason := lacks(case, means):
        raise Skipped(reason)
    for step in (*case.setup, *case.steps):
        if step["op"] not in KNOWN:
            raise Skipped(f"{step['op']}: the runner cannot do this")


_AFTER_SETUP: Final = "as after the setup"


class Stepper:
    """Does the steps of one case in one world."""

    def __init__(self, world: World, judge: Judge) -> None:
        self._world = world
        self._judge = judge
        self._begun: dict[str, Begun] = {}
        self._loops: list[asyncio.Task[None]] = []
        """What runs beside the steps of a phase."""
        self._phase: Any = None

    async def set_up(self) -> None:
        """Make the folder on the first device with what the setup says, and bring it to all others."""
        world = self._world
        first = world.peers[world.case.first]
        if not first.machine.has_folder:
            await world.add(first)
        for step in world.case.setup:
            await self._by_hand(first, step)
        await world.sync(first)
        for peer in world.peers.values():
            if not peer.machine.has_folder:
                await world.get(peer)
        await world.settle()
        if any(step["op"] == "restore_disk" for step in world.case.steps):
            for peer in world.peers.values():
                await peer.machine.keep(_AFTER_SETUP)
        self._judge.note_setup()

    async def run(self) -> None:
        """Do all steps, then judge what is judged before anything else happens."""
        for written in self._world.case.steps:
            if written["op"] == "scan_path":
                for name in self._world.case.named(written["device"]):
                    await self._world.deafen(self._world.peers[name], applies=False)
        for number, written in enumerate(self._world.case.steps):
            step = {key: self._variable(value) for key, value in written.items()}
            if number == len(self._world.case.steps) - 1:
                self._judge.note_before_last()
            await self._do(step)
        await self._join_loops()
        await self._world.stop_agents()
        for begun in self._begun.values():
            await begun.finish()

    def _variable(self, value: Any) -> Any:
        if isinstance(value, str):
            for name, chosen in self._world.variables.items():
                value = value.replace(f"${name}", chosen)
        return value

    async def _do(self, step: Step) -> None:
        op, world = step["op"], self._world
        if op in files.OPERATIONS or op in series.OPERATIONS:
            world.sync_steps.clear()
        if step["phase"] != self._phase or op == "settle":
            await self._join_loops()
        self._phase = step["phase"]
        if step["device"] in ACTORS - {"OWNER"} and step["device"] not in world.peers:
            await self._by_actor(step)
            return
        peers = (
            world.active()
            if step["device"] == "*"
            else [world.peers[each] for each in world.case.named(step["device"])]
        )
        if op in self.syncs:
            await self.syncs[op](self, peers, step)
            return
        for peer in peers:
            if op in LOOPS:
                self._loops.append(asyncio.create_task(LOOPS[op](world, peer, step)))
            else:
                await self._by_hand(peer, step)

    async def _by_actor(self, step: Step) -> None:
        """Do an operation of the environment."""
        work = breakage.OPERATIONS.get(step["op"])
        if work is None:
            raise Skipped(f"{step['op']}: not an operation of {step['device']}")
        await work(self._world, step)
        self._world.due |= set(self._world.peers)

    async def _by_hand(self, peer: Peer, step: Step) -> None:
        """Do an operation of one device, and note what it changed."""
        op, world = step["op"], self._world
        before = world.tree(peer)
        if peer.name in self._begun and op == "write" and step["path"] in before.keys() - self._begun[peer.name].before:
            raise Skipped(f"{peer.name} had received {step['path']} before the step: this machine is too quick for it")
        work = files.OPERATIONS.get(op) or series.OPERATIONS.get(op)
        if work is not None:
            working = work(world, peer, step)
            if working is not None:
                await working
            world.note_hand(peer, before)
        else:
            await _DEVICES[op](world, peer, step)
            world.due.add(peer.name)

    async def _join_loops(self) -> None:
        """Wait for what runs beside the steps of a phase."""
        loops, self._loops = self._loops, []
        for loop in loops:
            await loop

    # --- Passes

    async def _sync(self, peers: Sequence[Peer], step: Step) -> None:  # noqa: ARG002 - the signature of a step
        world = self._world
        await world.stop_agents()
        first = len(world.passes)
        for peer in peers:
            await world.sync(peer)
        world.sync_steps.append((first, len(world.passes)))

    async def _settle(self, peers: Sequence[Peer], step: Step) -> None:  # noqa: ARG002 - see _sync
        await self._world.settle()

    async def _sync_concurrent(self, peers: Sequence[Peer], step: Step) -> None:
        delays = {peer.name: float(step.get(f"delay_{peer.name}_s", 0)) for peer in peers}
        earliest = min(delays.values())
        loop = asyncio.get_running_loop()
        started_s = loop.time()
        begun = []
        for peer in sorted(peers, key=lambda each: delays[each.name]):
            await asyncio.sleep(max(0.0, started_s + delays[peer.name] - earliest - loop.time()))
            begun.append(self._world.begin_pass(peer))
        for each in begun:
            await each.finish()

    async def _sync_start(self, peers: Sequence[Peer], step: Step) -> None:  # noqa: ARG002 - see _sync
        for peer in peers:
            self._begun[peer.name] = self._world.begin_pass(peer)

    async def _sync_finish(self, peers: Sequence[Peer], step: Step) -> None:  # noqa: ARG002 - see _sync
        for peer in peers:
            await self._begun.pop(peer.name).finish()

    async def _sync_random_during(self, peers: Sequence[Peer], step: Step) -> None:  # noqa: ARG002 - see _sync
        for loop in self._loops:
            for peer in peers:
                await series.sync_at_random(self._world, peer, loop)
        await self._join_loops()

    async def _sync_during(self, peers: Sequence[Peer], step: Step) -> None:  # noqa: ARG002 - see _sync
        for loop in self._loops:
            for peer in peers:
                await programs.sync_during(self._world, peer, loop)
        await self._join_loops()

    async def _upload_start(self, peers: Sequence[Peer], step: Step) -> None:
        for peer in peers:
            await self._by_hand(peer, {**step, "op": "write"})
            held = self._world.hands.tricks.hold_entries(peer.machine)
            self._begun[peer.name] = begun = self._world.begin_pass(peer)
            if not await begun.comes_to(held):
                raise Failed(f"the pass of {peer.name} ended before it sent an entry")

    async def _upload_finish(self, peers: Sequence[Peer], step: Step) -> None:
        for peer in peers:
            self._world.hands.tricks.release_entries(peer.machine)
        await self._sync_finish(peers, step)

    async def _mysteries_generator(self, peers: Sequence[Peer], step: Step) -> None:
        await mysteries.generate(self._world, peers, step)

    async def _append_alternating(self, peers: Sequence[Peer], step: Step) -> None:
        await series.append_alternating(self._world, peers, step)

    async def _check(self, peers: Sequence[Peer], step: Step) -> None:
        keys = {key: value for key, value in step.items() if key not in {"op", "phase", "device"}}
        await self._judge.check(keys, peers)

    async def _wait(self, peers: Sequence[Peer], step: Step) -> None:  # noqa: ARG002 - see _sync
        await asyncio.sleep(step["seconds"])

    async def _dry_run(self, peers: Sequence[Peer], step: Step) -> None:  # noqa: ARG002 - see _sync
        for peer in peers:
            must(await self._world.kin(peer, "preview"), "kin sync --dry-run")

    syncs: ClassVar[Mapping[str, Callable[..., Awaitable[None]]]] = {
        "sync": _sync,
        "sync_or_start": _sync,
        "settle": _settle,
        "sync_concurrent": _sync_concurrent,
        "sync_start": _sync_start,
        "sync_finish": _sync_finish,
        "sync_random_during": _sync_random_during,
        "sync_during": _sync_during,
        "upload_start": _upload_start,
        "upload_start_dedup": _upload_start,
        "upload_finish": _upload_finish,
        "append_alternating": _append_alternating,
        "mysteries_generator": _mysteries_generator,
        "check": _check,
        "wait_virtual": _wait,
        "sync_dry_run": _dry_run,
    }
    """Operations that are passes, or go on beside them."""


# --- Devices


async def _offline(world: World, peer: Peer, step: Step) -> None:  # noqa: ARG001 - the signature of an operation
    must(await world.kin(peer, "offline"), "kin offline")
    peer.is_offline = True


async def _online(world: World, peer: Peer, step: Step) -> None:  # noqa: ARG001 - see _offline
    must(await world.kin(peer, "online"), "kin online")
    peer.is_offline = False


async def _start_agent(world: World, peer: Peer, step: Step) -> None:  # noqa: ARG001 - see _offline
    await world.start_agent(peer)


async def _stop(world: World, peer: Peer, step: Step) -> None:  # noqa: ARG001 - see _offline
    await world.stop_agent(peer)
    peer.is_stopped = True


async def _start(world: World, peer: Peer, step: Step) -> None:  # noqa: ARG001 - see _offline
    peer.is_stopped = False


async def _wipe_db(world: World, peer: Peer, step: Step) -> None:  # noqa: ARG001 - see _offline
    """The device forgets the folder, and gets it again over the files that lie there."""
    await world.remove(peer)
    await world.get(peer)


async def _tamper_db(world: World, peer: Peer, step: Step) -> None:
    if step["kind"] != "drop_3_rows_add_2":
        raise Skipped(f"tamper_db: unknown kind {step['kind']}")
    await world.stop_agent(peer)
    with peer.machine.database(writes=True) as database:
        state.drop_and_add_rows(database, drop=3, add=2)


async def _join_empty(world: World, peer: Peer, step: Step) -> None:
    world.memory.setdefault(f"downloads:{peer.name}", []).append(world.tree(peer))
    peer.disk.remove_tree(peer.root)
    peer.disk.make_directories(peer.root)
    await _join_nonempty(world, peer, step)


async def _join_nonempty(world: World, peer: Peer, step: Step) -> None:  # noqa: ARG001 - see _offline
    await world.stop_agent(peer)
    await world.remove(peer)
    await peer.machine.become_new()
    await world.get(peer)


async def _snapshot_state(world: World, peer: Peer, step: Step) -> None:
    await world.stop_agent(peer)
    await peer.machine.keep(step["name"])


async def _restore_state(world: World, peer: Peer, step: Step) -> None:
    await world.stop_agent(peer)
    name, scope = step["name"], step["scope"]
    match scope:
        case "files+db":
            await peer.machine.put_back(name, home=True, files=True)
        case "db_only":
            await peer.machine.put_back(name, home=True, files=False)
            peer.disk.remove_tree(peer.root)
            peer.disk.make_directories(peer.root)
        case "files_only":
            await peer.machine.put_back(name, home=False, files=True)
            await _wipe_db(world, peer, step)
        case _:
            raise Skipped(f"restore_state: unknown scope {scope}")


async def _restore_disk(world: World, peer: Peer, step: Step) -> None:
    """The whole disk goes back to how it was after the setup."""
    if (step["scope"], step["age"]) != ("all", "old"):
        raise Skipped(f"restore_disk: unknown scope {step['scope']} or age {step['age']}")
    await world.stop_agent(peer)
    await peer.machine.put_back(_AFTER_SETUP, home=True, files=True)


async def _clone_as(world: World, peer: Peer, step: Step) -> None:
    await world.clone(peer, step["name"])


async def _register_dead_peers(world: World, peer: Peer, step: Step) -> None:
    """The account has more devices, none of which ever runs."""
    for number in range(step["count"]):
        await world.hands.join(f"dead-{peer.name}-{number}")


# --- What stays off a device


async def _set_ignore(world: World, peer: Peer, step: Step) -> None:
    """Have just these paths excluded on the device."""
    wanted = {path for path in world.tree(peer) if any(_matches(path, each) for each in step["patterns"])}
    wanted = {path for path in wanted if not any(path != top and is_below(path, top) for top in wanted)}
    for path in sorted(peer.excluded - wanted):
        await world.exclude(peer, path, remove=True)
    for path in sorted(wanted - peer.excluded):
        await world.exclude(peer, path)
    peer.excluded = wanted


def _matches(path: str, pattern: str) -> bool:
    return fnmatch(path, pattern[1:]) if pattern.startswith("/") else fnmatch(path.rpartition("/")[2], pattern)


async def _exclude(world: World, peer: Peer, step: Step) -> None:
    if "crash_at" in step:
        params = {"path": peer.at(step["path"]), "remove": False, "free": False}
        world.effects = await world.hands.tricks.crash_in(peer.machine, world.crash_effect, "exclude", **params)
    else:
        await world.exclude(peer, step["path"])
    peer.excluded.add(step["path"])


_DEVICES: Final[Mapping[str, Callable[[World, Peer, Step], Awaitable[None]]]] = {
    **tricky.OPERATIONS,
    "offline": _offline,
    "online": _online,
    "start_agent": _start_agent,
    "stop": _stop,
    "start": _start,
    "wipe_db": _wipe_db,
    "tamper_db": _tamper_db,
    "join_empty": _join_empty,
    "wipe_folder_and_rejoin": _join_empty,
    "join_nonempty": _join_nonempty,
    "snapshot_state": _snapshot_state,
    "restore_state": _restore_state,
    "restore_disk": _restore_disk,
    "clone_as": _clone_as,
    "register_dead_peers": _register_dead_peers,
    "set_ignore": _set_ignore,
    "set_ignore_dir": _exclude,
    "drop_local_copy": _exclude,
}


LOOPS: Final[Mapping[str, Callable[[World, Peer, Step], Coroutine[Any, Any, None]]]] = {
    "rename_loop": series.rename_loop,
    "write_slow": programs.write_slow,
}
"""Operations that begin and go on beside the other steps of their phase."""
KNOWN: Final = frozenset(
    {*files.OPERATIONS, *series.OPERATIONS, *Stepper.syncs, *_DEVICES, *breakage.OPERATIONS, *LOOPS}
)
