"""The steps of a case, one after the other: passes, devices that come and go, faults; files are in other modules.

Rule 1: what cannot be done here raises ``Skipped`` with the reason before anything is judged.
"""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatch
from typing import Any, ClassVar, Final

from simulations.cases import breakage, files, series, state
from simulations.cases.files import Step
from simulations.cases.grammar import ACTORS, Case, Skipped
from simulations.cases.judgement import Judge
from simulations.cases.trees import is_below
from simulations.cases.world import Begun, Failed, Peer, World, must

ONLY_SIMULATED: Final = frozenset(
    {
        "advance_time", "hook_during_sync", "lock_file", "unlock_file", "rename_matrix", "reorder_journal_batch",
        "sync_with_injection", "unmount_subtree",
    }
)  # fmt: skip
_NEEDS: Final[Mapping[str, str]] = {
    "acl": "the runner does not share between users yet",
    "nested_share": "the runner does not share between users yet",
    "multi_folder": "the runner gives each case one folder",
    "fs:constant_mtime": "only the simulator has a file system without times",
    "fs:short_path_limit:B": "only the simulator has a file system with short paths",
    "file_lock": "Linux has no lock that keeps others from opening a file",
    "quota": "the coordinator has no limit of stored bytes",
    "gc": "storage nodes collect no garbage",
    "feature:atomic_dirs": "the product takes no directory as one value",
}
_PRESENT: Final = frozenset(
    {"symlink", "fault:network", "fault:coordinator_rollback", "fault:crash", "fault:storage_corrupt"}
)
_OWN_ACCOUNT: Final = frozenset(
    {"tamper_db", "snapshot_state", "restore_state", "restore_disk", "clone_as", "join_empty", "wipe_folder_and_rejoin"}
)
_COMMANDS: Final[Mapping[str, tuple[str, ...]]] = {
    "set_ignore": ("exclude",),
    "set_ignore_dir": ("exclude",),
    "drop_local_copy": ("exclude",),
    "sync_dry_run": ("sync", "--dry-run"),
}


def check_known(case: Case) -> None:
    """Skip a case that nobody here can run.

    Raises:
        Skipped: It needs, or does, what cannot be done here.
    """
    for need in case.needs:
        if need.startswith("case_insensitive_fs"):
            raise Skipped("needs a file system that folds case")
        if need not in _PRESENT:
            raise Skipped(_NEEDS.get(need, f"unknown capability {need}"))
    for step in (*case.setup, *case.steps):
        op = step["op"]
        if op in ONLY_SIMULATED or "$every_step" in step.values():
            raise Skipped(f"{op}: only the simulator can do this")
        if op not in KNOWN:
            raise Skipped(f"{op}: the runner cannot do this")


def needs_own_servers(case: Case) -> bool:
    """Whether a case breaks or measures the servers, so that no other may use them."""
    return "transfers" in case.expectation or any(step["op"] in breakage.OPERATIONS for step in case.steps)


def needs_own_account(case: Case) -> bool:
    """Whether a case leaves its devices unfit for another."""
    return any(step["op"] in _OWN_ACCOUNT for step in case.steps)


class Stepper:
    """Does the steps of one case in one world."""

    def __init__(self, world: World, judge: Judge) -> None:
        self._world = world
        self._judge = judge
        self._begun: dict[str, Begun] = {}
        self._loop: tuple[threading.Thread, list[BaseException]] | None = None
        self._looping = threading.Event()

    def set_up(self) -> None:
        """Make the folder on the first device with what the setup says, and bring it to all others."""
        world = self._world
        for step in (*world.case.setup, *world.case.steps):
            if step["op"] in _COMMANDS:
                world.site.require(*_COMMANDS[step["op"]])
        if "guard" in world.case.expectation:
            world.site.require("approve")
        first = world.peers[world.case.first]
        world.add(first)
        for step in world.case.setup:
            self._by_hand(first, step)
        world.sync(first)
        for peer in world.peers.values():
            if peer is not first:
                world.get(peer)
        world.settle()
        self._judge.note_setup()

    def run(self) -> None:
        """Do all steps, then judge what is judged before anything else happens."""
        for number, written in enumerate(self._world.case.steps):
            step = {key: self._variable(value) for key, value in written.items()}
            if number == len(self._world.case.steps) - 1:
                self._judge.note_before_last()
            self._do(step)
        self._join_loop()
        self._world.stop_agents()
        for begun in self._begun.values():
            begun.finish()

    def _variable(self, value: Any) -> Any:
        if isinstance(value, str):
            for name, chosen in self._world.variables.items():
                value = value.replace(f"${name}", chosen)
        return value

    def _do(self, step: Step) -> None:
        op, world = step["op"], self._world
        if op in files.OPERATIONS or op in series.OPERATIONS:
            world.sync_steps.clear()
        if op == "rename_loop":
            self._begin_loop(step)
            return
        if op != "sync_random_during":
            self._join_loop()
        if step["device"] in ACTORS - {"OWNER"} and step["device"] not in world.peers:
            breakage.OPERATIONS[op](world, step)
            world.due |= set(world.peers)
            return
        peers = (
            world.active()
            if step["device"] == "*"
            else [world.peers[each] for each in world.case.named(step["device"])]
        )
        if op in self.syncs:
            self.syncs[op](self, peers, step)
            return
        for peer in peers:
            self._by_hand(peer, step)

    def _by_hand(self, peer: Peer, step: Step) -> None:
        """Do an operation of one device, and note what it changed."""
        op, world = step["op"], self._world
        before = world.tree(peer)
        if peer.name in self._begun and op == "write" and step["path"] in before.keys() - self._begun[peer.name].before:
            raise Skipped(f"{peer.name} had received {step['path']} before the step: this machine is too quick for it")
        work = files.OPERATIONS.get(op) or series.OPERATIONS.get(op)
        if work is not None:
            work(world, peer, step)
            world.note_hand(peer, before)
        else:
            _DEVICES[op](world, peer, step)
            world.due.add(peer.name)

    # --- Loops beside passes

    def _begin_loop(self, step: Step) -> None:
        peer, errors = self._world.peers[step["device"]], list[BaseException]()
        self._looping.clear()

        def work() -> None:
            try:
                series.rename_loop(self._world, peer, step)
            except (Failed, Skipped, OSError) as error:
                errors.append(error)
            finally:
                self._looping.set()

        thread = threading.Thread(target=work, name="loop")
        thread.start()
        self._loop = thread, errors

    def _join_loop(self) -> None:
        if self._loop is not None:
            (thread, errors), self._loop = self._loop, None
            thread.join()
            if errors:
                raise errors[0]

    # --- Passes

    def _sync(self, peers: Sequence[Peer], step: Step) -> None:  # noqa: ARG002 - the signature of a step
        world = self._world
        world.stop_agents()
        first = len(world.passes)
        for peer in peers:
            world.sync(peer)
        world.sync_steps.append((first, len(world.passes)))

    def _settle(self, peers: Sequence[Peer], step: Step) -> None:  # noqa: ARG002 - see _sync
        self._world.settle()

    def _sync_concurrent(self, peers: Sequence[Peer], step: Step) -> None:
        delays = {peer.name: float(step.get(f"delay_{peer.name}_s", 0)) for peer in peers}
        earliest = min(delays.values())
        started_s = time.monotonic()
        begun = []
        for peer in sorted(peers, key=lambda each: delays[each.name]):
            time.sleep(max(0.0, started_s + delays[peer.name] - earliest - time.monotonic()))
            begun.append(self._world.begin(peer))
        for each in begun:
            each.finish()

    def _sync_start(self, peers: Sequence[Peer], step: Step) -> None:  # noqa: ARG002 - see _sync
        for peer in peers:
            self._begun[peer.name] = self._world.begin(peer)

    def _sync_finish(self, peers: Sequence[Peer], step: Step) -> None:  # noqa: ARG002 - see _sync
        for peer in peers:
            self._begun.pop(peer.name).finish()

    def _sync_random_during(self, peers: Sequence[Peer], step: Step) -> None:  # noqa: ARG002 - see _sync
        for peer in peers:
            series.sync_at_random(self._world, peer, self._looping)
        self._join_loop()

    def _append_alternating(self, peers: Sequence[Peer], step: Step) -> None:
        series.append_alternating(self._world, list(peers), step)

    def _check(self, peers: Sequence[Peer], step: Step) -> None:
        keys = {key: value for key, value in step.items() if key not in {"op", "phase", "device"}}
        self._judge.check(keys, peers)

    def _wait(self, peers: Sequence[Peer], step: Step) -> None:  # noqa: ARG002 - see _sync
        time.sleep(step["seconds"])

    def _dry_run(self, peers: Sequence[Peer], step: Step) -> None:  # noqa: ARG002 - see _sync
        for peer in peers:
            must(self._world.kin(peer, "sync", "--dry-run"), "kin sync --dry-run")

    syncs: ClassVar[Mapping[str, Callable[..., None]]] = {
        "sync": _sync,
        "sync_or_start": _sync,
        "settle": _settle,
        "sync_concurrent": _sync_concurrent,
        "sync_start": _sync_start,
        "sync_finish": _sync_finish,
        "sync_random_during": _sync_random_during,
        "append_alternating": _append_alternating,
        "check": _check,
        "wait_virtual": _wait,
        "sync_dry_run": _dry_run,
    }
    """Operations that are passes, or go on beside them."""


# --- Devices


def _disable_watch(world: World, peer: Peer, step: Step) -> None:
    """No agent runs, so nothing is watched; a pass of ours cannot be made to apply before it scans."""


def _offline(world: World, peer: Peer, step: Step) -> None:  # noqa: ARG001 - the signature of an operation
    must(world.kin(peer, "offline"), "kin offline")
    peer.is_offline = True


def _online(world: World, peer: Peer, step: Step) -> None:  # noqa: ARG001 - see _offline
    must(world.kin(peer, "online"), "kin online")
    peer.is_offline = False


def _stop(world: World, peer: Peer, step: Step) -> None:  # noqa: ARG001 - see _offline
    world.stop_agent(peer)
    peer.is_stopped = True


def _start(world: World, peer: Peer, step: Step) -> None:  # noqa: ARG001 - see _offline
    peer.is_stopped = False


def _wipe_db(world: World, peer: Peer, step: Step) -> None:  # noqa: ARG001 - see _offline
    """The device forgets the folder, and gets it again over the files that lie there."""
    must(world.kin(peer, "remove", world.folder), "kin remove")
    world.get(peer)


def _tamper_db(world: World, peer: Peer, step: Step) -> None:  # noqa: ARG001 - see _offline
    if step["kind"] != "drop_3_rows_add_2":
        raise Skipped(f"tamper_db: unknown kind {step['kind']}")
    state.drop_and_add_rows(peer.home, drop=3, add=2)


def _join_empty(world: World, peer: Peer, step: Step) -> None:
    shutil.rmtree(peer.root, ignore_errors=True)
    _join_nonempty(world, peer, step)


def _join_nonempty(world: World, peer: Peer, step: Step) -> None:  # noqa: ARG001 - see _offline
    must(world.kin(peer, "remove", world.folder), "kin remove")
    world.account.forget(peer.name)
    peer.home = world.account.home(peer.name)
    world.get(peer)


def _snapshot_state(world: World, peer: Peer, step: Step) -> None:
    world.stop_agent(peer)
    _copy_state(world, peer, step["name"])


def _copy_state(world: World, peer: Peer, name: str) -> None:
    for kind, source in (("home", peer.home), ("root", peer.root)):
        target = world.place / f"kept-{peer.name}-{name}-{kind}"
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(source, target, symlinks=True, ignore=lambda _, names: [n for n in names if n == "agent.sock"])


def _put_back(world: World, peer: Peer, name: str, *, home: bool, root: bool) -> None:
    for kind, target, wanted in (("home", peer.home, home), ("root", peer.root, root)):
        if wanted:
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree(world.place / f"kept-{peer.name}-{name}-{kind}", target, symlinks=True)


def _restore_state(world: World, peer: Peer, step: Step) -> None:
    world.stop_agent(peer)
    name, scope = step["name"], step["scope"]
    match scope:
        case "files+db":
            _put_back(world, peer, name, home=True, root=True)
        case "db_only":
            _put_back(world, peer, name, home=True, root=False)
            shutil.rmtree(peer.root)
            peer.root.mkdir()
        case "files_only":
            _put_back(world, peer, name, home=False, root=True)
            _wipe_db(world, peer, step)
        case _:
            raise Skipped(f"restore_state: unknown scope {scope}")


# --- What stays off a device


def _set_ignore(world: World, peer: Peer, step: Step) -> None:
    """Have just these paths excluded on the device."""
    wanted = {path for path in world.tree(peer) if any(_matches(path, each) for each in step["patterns"])}
    wanted = {path for path in wanted if not any(path != top and is_below(path, top) for top in wanted)}
    for path in sorted(peer.excluded - wanted):
        must(world.kin(peer, "exclude", str(peer.root / path), "--remove"), "kin exclude --remove")
    for path in sorted(wanted - peer.excluded):
        must(world.kin(peer, "exclude", str(peer.root / path)), "kin exclude")
    peer.excluded = wanted


def _matches(path: str, pattern: str) -> bool:
    return fnmatch(path, pattern[1:]) if pattern.startswith("/") else fnmatch(path.rpartition("/")[2], pattern)


def _exclude(world: World, peer: Peer, step: Step) -> None:
    must(world.kin(peer, "exclude", str(peer.root / step["path"])), "kin exclude")
    peer.excluded.add(step["path"])


_DEVICES: Final[Mapping[str, Callable[[World, Peer, Step], None]]] = {
    "disable_watch": _disable_watch,
    "offline": _offline,
    "online": _online,
    "stop": _stop,
    "start": _start,
    "wipe_db": _wipe_db,
    "tamper_db": _tamper_db,
    "join_empty": _join_empty,
    "wipe_folder_and_rejoin": _join_empty,
    "join_nonempty": _join_nonempty,
    "snapshot_state": _snapshot_state,
    "restore_state": _restore_state,
    "set_ignore": _set_ignore,
    "set_ignore_dir": _exclude,
    "drop_local_copy": _exclude,
}


KNOWN: Final = frozenset(
    {*files.OPERATIONS, *series.OPERATIONS, *Stepper.syncs, *_DEVICES, *breakage.OPERATIONS, "rename_loop"}
)
