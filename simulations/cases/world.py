"""The world of one run of a case: devices of one account with one folder, each a home and a root on this disk.

Rule 1: a device changes only by commands of the contract, each a process; no agent runs but where a step asks for one.
Rule 2: what each pass changed is noted, since much of what is judged is what did not change.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import signal
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

from simulations.cases import state
from simulations.cases.contents import Contents
from simulations.cases.grammar import Case, Skipped
from simulations.cases.trees import Reader, difference, is_below, without
from simulations.launcher import Launched, Launcher, Result
from simulations.processes import Cluster

COMMAND_S: Final = 300.0
READY_S: Final = 60.0
FAULT_SYNC_S: Final = 10.0
"""How long a pass may try, once something was broken on purpose."""
ROUNDS_MAX: Final = 10
FRESH: Final = "fresh"
_DEFECT: Final = re.compile(r"Traceback \(most recent call last\)|was never awaited|Task was destroyed")
_COPY: Final = re.compile(r" \(conflict, .*, [0-9a-f]{8}\)")
_NOT_HERE: Final = "not in this version"
_DONE, _TIME_OVER, _NEEDS_PERSON = 0, 3, 4


class Failed(Exception):
    """What was expected did not come; the text says what."""


class Site:
    """Servers and a launcher, for many accounts."""

    def __init__(self, root: Path, *, metered: bool = False) -> None:
        """Make one that is not started; everything lives below ``root``."""
        root.mkdir(parents=True, exist_ok=True)
        self.root = root
        self.cluster = Cluster(root / "servers", nodes=1, replicas=1, quorum=1, metered=metered)
        self._launcher = Launcher(root)
        self._open = contextlib.ExitStack()
        self._lock = threading.Lock()
        self._accounts = 0
        self._missing: dict[str, bool] = {}

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as opening:
            opening.enter_context(self._launcher)
            opening.enter_context(self.cluster)
            self._open = opening.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def spawn(self, home: Path, *args: str) -> Launched:
        """Begin a command on a device."""
        return self._launcher.spawn(["--home", str(home), *args])

    def kin(self, home: Path, *args: str, timeout_s: float = COMMAND_S) -> Result:
        """Run a command on a device.

        Raises:
            Failed: It showed a traceback, or did not end in time.
            Skipped: The product says that it is not in this version.
        """
        try:
            result = self.spawn(home, *args).wait(timeout_s)
        except TimeoutError:
            raise Failed(f"kin {args[0]} did not end in {timeout_s:g} s") from None
        return checked(result, args)

    def has(self, *command: str) -> bool:
        """Whether the product has a command, or an option of one; it is asked once."""
        asked = " ".join(command)
        if asked not in self._missing:
            result = self.spawn(self.root / "nobody", *command).wait(COMMAND_S)
            self._missing[asked] = _NOT_HERE in result.err
        return not self._missing[asked]

    def require(self, *command: str) -> None:
        """Skip the case if the product has no such command.

        Raises:
            Skipped: It has none.
        """
        if not self.has(*command):
            raise Skipped(f"kin {' '.join(command)}: not in this version")

    def account(self) -> Account:
        """Return a new account, without devices."""
        with self._lock:
            self._accounts += 1
            return Account(self, f"user{self._accounts}")


def checked(result: Result, args: Sequence[str]) -> Result:
    """Return a result that holds no defect.

    Raises:
        Failed: It showed a traceback.
        Skipped: The product says that this is not in this version.
    """
    if _DEFECT.search(result.err):
        raise Failed(f"kin {' '.join(args)}: {result.err[-1500:]}")
    if result.code == 2 and _NOT_HERE in result.err:
        raise Skipped(f"kin {args[0]}: not in this version")
    return result


def must(result: Result, what: str) -> Result:
    """Return a result that is done.

    Raises:
        Failed: It has another exit code.
    """
    if result.code != _DONE:
        raise Failed(f"{what} ended with {result.code}: {(result.err or result.out).strip()[-400:]}")
    return result


class Account:
    """A user with devices, which come as cases ask for them and serve many cases."""

    def __init__(self, site: Site, user: str) -> None:
        self.site = site
        self.user = user
        self._homes: dict[str, Path] = {}
        self._number = 0
        self._forgotten: set[str] = set()
        self.folders = 0
        """How many it has had, for their names."""

    def home(self, name: str) -> Path:
        """Return the home of a device of that name, linked now if it is new."""
        if name not in self._homes:
            self._homes[name] = self._link(name) if self._homes else self._init(name)
        return self._homes[name]

    def forget(self, name: str) -> None:
        """Have the next home of that name be a new device."""
        shutil.rmtree(self._homes.pop(name), ignore_errors=True)
        self._forgotten.add(name)

    def _new_home(self, name: str) -> Path:
        self._number += 1
        return self.site.root / f"{self.user}-{self._number}-{name}"

    def _init(self, name: str) -> Path:
        home, cluster = self._new_home(name), self.site.cluster
        words = ("--recovery-file", str(home) + ".recovery")
        who = ("--user", self.user, "--device", name, "--no-keyring")
        where = ("--coordinator", cluster.url, "--invite", cluster.invite())
        must(self.site.kin(home, "init", *where, *who, *words), "kin init")
        return home

    def _link(self, name: str) -> Path:
        home, existing = self._new_home(name), next(iter(self._homes.values()))
        showing = self.site.spawn(existing, "link-code", "--yes")
        code = showing.line(READY_S).strip()
        called = f"{name} {self._number}" if name in self._forgotten else name  # an account has each name once
        where = ("--coordinator", self.site.cluster.url, "--device", called, "--no-keyring", "--yes")
        try:
            must(self.site.kin(home, "link", code, *where), "kin link")
        finally:
            shown = showing.wait(READY_S)
        must(shown, "kin link-code")
        return home


class Peer:
    """A device as a case sees it."""

    def __init__(self, name: str, home: Path, place: Path) -> None:
        self.name = name
        self.home = home
        self.root = place / "root"
        self.outside = place / "outside"
        self.is_offline = False
        self.is_stopped = False
        self.has_folder = False
        self.agent: Launched | None = None
        self.excluded: set[str] = set()
        """Paths that stay off this device."""
        self.made: dict[str, str] = {}
        """What steps made here and none took away since: path to what a tree says of it."""
        self.last: dict[str, tuple[int, int, int]] = {}
        """Size, inode and mtime of the last file at a path, before a step changed it."""

    @property
    def is_active(self) -> bool:
        """Whether it takes part in ``*``."""
        return not self.is_offline and not self.is_stopped


class Pass(NamedTuple):
    """One ``kin sync`` of one device."""

    device: str
    result: Result
    ordered: bool
    """Whether the log grew beyond what any device had."""
    changed: bool
    """Whether the device's tree changed."""
    lost: frozenset[str]
    """Paths that were there before it, and not after."""


class World:
    """One run of one case."""

    def __init__(self, account: Account, case: Case, order: Sequence[str], place: Path, seed: str) -> None:
        """Make the devices; nothing is on their disks yet."""
        self.site, self.account = account.site, account
        self.case = case
        self.order = tuple(order)
        self.place = place
        self.seed = seed
        account.folders += 1
        self.folder = f"f{account.folders}"
        self.contents = Contents()
        self.reader = Reader()
        self.peers: dict[str, Peer] = {}
        self.given: set[str] = set()
        """Every name that a step gave to an entry, wherever."""
        self.removed: set[str] = set()
        """Every path that a step deleted or moved away, on any device."""
        self.passes: list[Pass] = []
        self.sync_steps: list[tuple[int, int]] = []
        """Which passes each ``sync`` step made since a user last did something."""
        self.model_of = ""
        """The device whose tree is what all others must come to hold."""
        self.due: set[str] = set()
        """Devices on which something happened, or for which an entry was ordered, since their last pass."""
        self.head = 0
        self.has_fault = False
        self.variables: dict[str, str] = {}
        """What steps set, such as ``chain_root``."""
        self.put_back: list[tuple[Path, int]] = []
        """Permissions to restore after the case."""
        self.planted: list[tuple[Path, bytes, int]] = []
        """Files outside the roots: path, bytes, mtime."""
        self.memory: dict[str, Any] = {}
        """What operations keep for one another."""
        for name in case.devices:
            self.join(name)

    def join(self, name: str) -> Peer:
        """Return a device of that name with an empty root and no folder."""
        place = self.place / name
        place.mkdir(parents=True, exist_ok=True)
        self.peers[name] = Peer(name, self.account.home(name), place)
        self.due.add(name)
        return self.peers[name]

    # --- Commands

    def kin(self, peer: Peer, *args: str, timeout_s: float = COMMAND_S) -> Result:
        """Run a command on a device."""
        return self.site.kin(peer.home, *args, timeout_s=timeout_s)

    def json(self, peer: Peer, *args: str) -> Any:
        """Return the object that a command with ``--json`` prints."""
        return json.loads(self.kin(peer, *args, "--json").out)

    def status(self, peer: Peer) -> Any:
        """Return what the device says of the folder."""
        folders = self.json(peer, "status", "--all")["folders"]
        found = [folder for folder in folders if folder["name"] == self.folder]
        if not found:
            raise Failed(f"kin status of {peer.name} names no folder")
        return found[0]

    def add(self, peer: Peer) -> None:
        """Make the device's root the case's folder."""
        must(self.kin(peer, "add", str(peer.root), "--name", self.folder), "kin add")
        peer.has_folder = True

    def get(self, peer: Peer) -> None:
        """Bring the folder to the device's root, whatever lies there."""
        must(self.kin(peer, "get", self.folder, str(peer.root)), "kin get")
        peer.has_folder = True

    # --- Agents

    def start_agent(self, peer: Peer) -> None:
        """Have the device's agent run."""
        if peer.agent is None:
            peer.agent = self.site.spawn(peer.home, "run")
            line = peer.agent.line(READY_S)
            if "ready" not in line:
                raise Failed(f"the agent of {peer.name} was not ready: {line!r}")

    def stop_agents(self) -> None:
        """End every agent, as a service manager would."""
        for peer in self.peers.values():
            self.stop_agent(peer)

    def stop_agent(self, peer: Peer, how: int = signal.SIGTERM) -> None:
        """End a device's agent, if it runs."""
        agent, peer.agent = peer.agent, None
        if agent is not None:
            agent.signal(how)
            result = agent.wait(READY_S)
            if how == signal.SIGTERM:
                must(checked(result, ("run",)), f"the agent of {peer.name}")

    def kill_agent(self, peer: Peer) -> None:
        """End a device's agent as a power cut would."""
        self.stop_agent(peer, signal.SIGKILL)

    # --- Passes

    def tree(self, peer: Peer) -> dict[str, str]:
        """Return what stands on a device now."""
        return self.reader.tree(peer.root)

    def sync(self, peer: Peer) -> Pass:
        """Do one pass of a device.

        Raises:
            Failed: It ended as no pass may.
        """
        before = self.tree(peer)
        made = self._note(peer, before, self._run_pass(peer))
        self._judge_exit(made)
        return made

    def begin(self, peer: Peer) -> Begun:
        """Begin a pass in the background."""
        return Begun(self, peer)

    def finish(self, peer: Peer, before: dict[str, str], result: Result) -> Pass:
        """Note a pass that has ended in the background."""
        made = self._note(peer, before, checked(result, ("sync",)))
        self._judge_exit(made)
        return made

    def _run_pass(self, peer: Peer) -> Result:
        """Do a pass; where it needs a person, do what that person would, and repeat it."""
        result = self.kin(peer, *self.sync_args)
        if result.code != _NEEDS_PERSON or "guard" in self.case.expectation:
            return result
        told = self.status(peer)
        if told["held"]:  # deletions by steps are meant
            must(self.kin(peer, "approve", self.folder), "kin approve")
        elif told["state"] == "missing":  # another directory stands there: bring the folder to it
            must(self.kin(peer, "remove", self.folder), "kin remove")
            self.get(peer)
        else:
            return result
        return self.kin(peer, *self.sync_args)

    @property
    def is_obstructed(self) -> bool:
        """Whether a fault, or a file that a program holds open, may keep a pass from its end."""
        return self.has_fault or any(key.startswith("transaction:") for key in self.memory)

    @property
    def sync_args(self) -> tuple[str, ...]:
        """The command of a pass."""
        return ("sync", "--timeout", str(FAULT_SYNC_S if self.is_obstructed else COMMAND_S / 2))

    def _note(self, peer: Peer, before: dict[str, str], result: Result) -> Pass:
        after, head = self.tree(peer), state.head(peer.home)
        is_clean = result.code == _DONE or before == after
        self.due -= {peer.name} if is_clean else set()
        if head > self.head:
            self.due |= {name for name in self.peers if name != peer.name}
        lost = frozenset(path for path in before if path not in after)
        made = Pass(peer.name, result, head > self.head, before != after, lost)
        self.head = max(self.head, head)
        self.passes.append(made)
        return made

    def _judge_exit(self, made: Pass) -> None:
        if made.result.code in {_DONE, _NEEDS_PERSON} or self.is_obstructed:
            return
        raise Failed(f"sync of {made.device} ended with {made.result.code}: {made.result.err.strip()[-300:]}")

    def active(self, names: Iterable[str] | None = None) -> list[Peer]:
        """Return the devices that are neither offline nor stopped, in the order of ``*``."""
        chosen = self.order if names is None else tuple(names)
        rest = [name for name in self.peers if name not in chosen] if names is None else []
        return [self.peers[name] for name in (*chosen, *rest) if self.peers[name].is_active]

    def settle(self) -> None:
        """Bring all to rest: passes of those devices on which, or for which, something happened, in turn.

        A pass of a device for which nothing happened since its last one is left for the end, where all make one.

        Raises:
            Failed: They do not come to rest.
        """
        self.stop_agents()
        for _ in range(ROUNDS_MAX):
            for peer in self.active():
                if peer.name in self.due:
                    self.sync(peer)
            if not any(peer.name in self.due for peer in self.active()):
                return
        raise Failed(f"no rest after {ROUNDS_MAX} rounds")

    def is_at_rest(self) -> str:
        """Do one more pass of each device; return what it changed, nothing if all stayed as it was."""
        trees = {peer.name: self.tree(peer) for peer in self.active()}
        passes = [self.sync(peer) for peer in self.active()]
        found = [f"{made.device} ordered entries" for made in passes if made.ordered]
        for peer in self.active():
            if changed := difference(trees[peer.name], self.tree(peer)):
                found.append(f"{peer.name} changed: {changed}")
        return "; ".join(found)

    # --- What a user did

    def note_hand(self, peer: Peer, before: dict[str, str]) -> None:
        """Remember what a step of the user changed on a device."""
        after = self.tree(peer)
        self.due.add(peer.name)
        for path in before:
            if path not in after:
                self.removed.add(path)
                peer.made.pop(path, None)
        for path, kind in after.items():
            if before.get(path) != kind:
                peer.made[path] = kind
            name = path.rpartition("/")[2]
            if path not in before and not _COPY.search(name):  # a pass in the background may have made it meanwhile
                self.given.add(name)

    def shared_tree(self, peer: Peer) -> dict[str, str]:
        """Return a device's tree without what is excluded on any device."""
        excluded = set().union(*(each.excluded for each in self.peers.values()))
        return without(self.tree(peer), excluded)

    def is_excluded(self, peer: Peer, path: str) -> bool:
        """Whether a path stays off a device."""
        return any(is_below(path, top) for top in peer.excluded)

    def named_paths(self) -> set[str]:
        """Return the paths that steps name, which random changes leave alone."""
        return {str(step["path"]) for step in (*self.case.setup, *self.case.steps) if "path" in step}

    def check_model(self) -> None:
        """Compare every device with the one that random changes were made on.

        Raises:
            Failed: One differs.
        """
        model = self.tree(self.peers[self.model_of])
        for peer in self.peers.values():
            if found := difference(model, self.tree(peer)):
                raise Failed(f"{peer.name} is not what the model is: {found}")

    def copies(self, peer: Peer) -> list[str]:
        """Return the conflict copies on a device: entries with names that no step gave, the topmost only."""
        found: list[str] = []
        for path in self.tree(peer):
            if path.rpartition("/")[2] not in self.given and not any(is_below(path, top) for top in found):
                found.append(path)
        return found

    def close(self) -> None:
        """Have the devices forget the folder, and remove what lies on the disk."""
        for path, mode in self.put_back:
            with contextlib.suppress(OSError):
                path.chmod(mode)
        for peer in self.peers.values():
            if peer.agent is not None:
                peer.agent.kill()
                peer.agent.wait(READY_S)
        forgetting = [
            self.site.spawn(peer.home, "remove", self.folder) for peer in self.peers.values() if peer.has_folder
        ]
        try:
            for each in forgetting:
                must(each.wait(COMMAND_S), "kin remove")
        finally:
            shutil.rmtree(self.place, ignore_errors=True)


class Begun:
    """A pass that runs in the background."""

    def __init__(self, world: World, peer: Peer) -> None:
        self.peer = peer
        self._world = world
        self.before = world.tree(peer)
        """The device's tree when it began."""
        self.command = world.site.spawn(peer.home, *world.sync_args)

    def finish(self) -> Pass:
        """Wait for its end; what another device did meanwhile may have come too late for it."""
        self._world.due |= set(self._world.peers)
        made = self._world.finish(self.peer, self.before, self.command.wait(COMMAND_S))
        self._world.due.add(self.peer.name)
        return made
