"""Worlds of real processes on this disk: servers, accounts and devices, each device a home and a root.

Rule 1: a device changes only by commands of the contract, each a process; no agent runs but where a step asks for one.
Rule 2: an account that came to harm is given up; the next case gets a new one.
Rule 3: a case that breaks or measures the servers has some of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import queue
import re
import shutil
import signal
import sqlite3
import tempfile
import threading
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Self, TypeVar

from simulations.cases.grammar import Case, Skipped
from simulations.cases.hands import LATER_NEEDS, LATER_OPERATIONS, Failed, Machine, Means, Packs, Told, Tricks
from simulations.cases.real_disk import RealDisk
from simulations.launcher import Launched, Launcher, Result, without_root_rights
from simulations.processes import Cluster

T = TypeVar("T")

COMMAND_S: Final = 300.0
READY_S: Final = 60.0
_DEFECT: Final = re.compile(r"Traceback \(most recent call last\)|was never awaited|Task was destroyed")
_NOT_HERE: Final = "not in this version"
_BREAKS_SERVERS: Final = frozenset({"snapshot", "restore", "cut_after", "heal", "corrupt_chunk", "repair_chunk"})
_MEASURED: Final = frozenset({"transfers", "no_content_transfer"})
_BREAKS_ACCOUNT: Final = frozenset(
    {
        "tamper_db", "snapshot_state", "restore_state", "restore_disk", "clone_as", "join_empty", "join_nonempty",
        "wipe_folder_and_rejoin", "register_dead_peers",
    }
)  # fmt: skip
_SIMULATED: Final = "only the simulator can do this"
MEANS: Final = Means(
    operations={
        **LATER_OPERATIONS,
        **dict.fromkeys(
            (
                "advance_time", "hook_during_sync", "lock_file", "unlock_file", "rename_matrix", "reorder_journal_batch",
                "sync_with_injection", "unmount_subtree", "delay", "scan_path", "upload_start", "upload_start_dedup",
                "upload_finish",
            ),
            _SIMULATED,
        ),
    },
    needs={
        **LATER_NEEDS,
        "fs:constant_mtime": "only the simulator has a file system without times",
        "fs:short_path_limit": "only the simulator has a file system with short paths",
        "case_insensitive_fs": "needs a file system that folds case",
        "fs:folds_forms": "only the simulator has a file system that takes normal forms for one",
        "fs:nfd": "only the simulator has a file system that decomposes names",
        "file_lock": "Linux has no lock that keeps others from opening a file",
        "every_step": "only the simulator can crash at every step",
    },
    present=frozenset(
        {
            "symlink", "multi_folder", "fault:network", "fault:coordinator_rollback", "fault:crash",
            "fault:storage_corrupt",
        }
    ),
)  # fmt: skip
_COMMANDS: Final[Mapping[str, Callable[[Mapping[str, Any]], tuple[str, ...]]]] = {
    "add": lambda given: ("add", given["path"], "--name", given["name"]),
    "get": lambda given: ("get", given["folder"], given["path"]),
    "remove": lambda given: ("remove", given["folder"]),
    "sync": lambda given: ("sync", "--timeout", f"{given['timeout']:g}"),
    "preview": lambda _: ("sync", "--dry-run"),
    "status": lambda _: ("status", "--all", "--json"),
    "approve": lambda given: ("approve", given["folder"]),
    "offline": lambda _: ("offline",),
    "online": lambda _: ("online",),
    "exclude": lambda given: ("exclude", given["path"], *(("--remove",) if given["remove"] else ())),
    "history": lambda given: ("history", given["path"], "--json"),
    "restore": lambda given: ("restore", given["path"], "--version", given["version"], "--to", given["to"]),
}


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
            Failed: It showed a traceback, did not end in time, or ended with another code than 0.
        """
        return _done(ended(self.spawn(home, *args), args, timeout_s), args)

    def account(self) -> Account:
        """Return a new account, without devices."""
        with self._lock:
            self._accounts += 1
            return Account(self, f"user{self._accounts}")


def ended(launched: Launched, args: Sequence[str], timeout_s: float = COMMAND_S) -> Result:
    """Wait for a command, and return how it ended if it shows no defect.

    Raises:
        Failed: It showed a traceback, or did not end in time.
        Skipped: The product says that this is not in this version.
    """
    try:
        result = launched.wait(timeout_s)
    except TimeoutError:
        raise Failed(f"kin {args[0]} did not end in {timeout_s:g} s") from None
    if _DEFECT.search(result.err):
        raise Failed(f"kin {' '.join(args)}: {result.err[-1500:]}")
    if result.code == 2 and _NOT_HERE in result.err:
        raise Skipped(f"kin {args[0]}: not in this version")
    return result


def _done(result: Result, args: Sequence[str]) -> Result:
    if result.code != 0:
        raise Failed(f"kin {args[0]} ended with {result.code}: {result.err.strip()[-300:]}")
    return result


class Account:
    """A user, whose devices are used for one case after the other, each with a folder of its own."""

    def __init__(self, site: Site, user: str) -> None:
        """Make one without devices."""
        self.site = site
        self.user = user
        self.folders = 0
        self._homes: dict[str, Path] = {}
        self._forgotten: set[str] = set()
        self._number = 0

    def home(self, name: str) -> Path:
        """Return the home of the device with this name, which is made if there is none."""
        if name not in self._homes:
            self._homes[name] = self._link(name) if self._homes else self._init(name)
        return self._homes[name]

    def forget(self, name: str) -> None:
        """Have the next home of that name be a new device."""
        shutil.rmtree(self._homes.pop(name), ignore_errors=True)
        self._forgotten.add(name)

    def copied_home(self, name: str, copy: str) -> Path:
        """Return another home that says that it is the same device."""
        home = self._new_home(copy)
        _copy(self._homes[name], home)
        return home

    def _new_home(self, name: str) -> Path:
        self._number += 1
        return self.site.root / f"{self.user}-{self._number}-{name}"

    def _init(self, name: str) -> Path:
        home, cluster = self._new_home(name), self.site.cluster
        words = ("--recovery-file", str(home) + ".recovery")
        who = ("--user", self.user, "--device", name, "--no-keyring")
        where = ("--coordinator", cluster.url, "--invite", cluster.invite())
        self.site.kin(home, "init", *where, *who, *words)
        return home

    def _link(self, name: str) -> Path:
        home, existing = self._new_home(name), next(iter(self._homes.values()))
        showing = self.site.spawn(existing, "link-code", "--yes")
        code = showing.line(READY_S).strip()
        called = f"{name} {self._number}" if name in self._forgotten else name  # an account has each name once
        where = ("--coordinator", self.site.cluster.url, "--device", called, "--no-keyring", "--yes")
        try:
            self.site.kin(home, "link", code, *where)
        finally:
            shown = showing.wait(READY_S)
        _done(shown, ("link-code",))
        return home


class RealMachine:
    """One device: a :class:`simulations.cases.hands.Machine`."""

    def __init__(self, account: Account, name: str, home: Path, place: Path) -> None:
        """Make one whose root is the empty directory ``place/root``, unless it is there already."""
        (place / "root").mkdir(parents=True, exist_ok=True)
        self.name = name
        self.disk = RealDisk()
        self.home = home
        self.root = str(place / "root")
        self.outside = str(place / "outside")
        self.has_folder = self.folds_case = self.decomposes = self.is_special = False
        self._account, self._place = account, place
        self._agent: Launched | None = None
        self._running: list[Launched] = []

    # --- Commands and processes

    async def kin(self, method: str, /, **params: Any) -> Told:
        """Run a command."""
        args = _COMMANDS[method](params)
        launched = self._account.site.spawn(self.home, *args)
        self._running.append(launched)
        try:
            result = await asyncio.to_thread(ended, launched, args)
        finally:
            self._running.remove(launched)
        printed = json.loads(result.out) if result.out.startswith("{") else {}
        return Told(result.code, result.err, printed)

    @property
    def has_agent(self) -> bool:
        """Whether its agent runs."""
        return self._agent is not None

    async def start(self) -> None:
        """Start its agent."""
        self._agent = self._account.site.spawn(self.home, "run")
        line = await asyncio.to_thread(self._agent.line, READY_S)
        if "ready" not in line:
            raise Failed(f"the agent of {self.name} was not ready: {line!r}")

    async def stop(self) -> None:
        """End its agent as a service manager would."""
        agent, self._agent = self._agent, None
        if agent is not None:
            agent.signal(signal.SIGTERM)
            _done(await asyncio.to_thread(ended, agent, ("run",), READY_S), ("run",))

    async def kill(self) -> None:
        """End whatever of it runs."""
        agent, self._agent = self._agent, None
        for each in self._running:
            each.kill()
        if agent is not None:
            agent.kill()
            await asyncio.to_thread(agent.wait, READY_S)

    def end(self) -> None:
        """End whatever of it still runs when a case is over."""
        for each in self._running:
            each.kill()
        if self._agent is not None:
            self._agent.kill()
            self._agent.wait(READY_S)
            self._agent = None

    # --- What it keeps

    @contextlib.contextmanager
    def database(self, *, writes: bool = False) -> Iterator[sqlite3.Connection]:
        """Open its database behind its back."""
        mode = "rw" if writes else "ro"
        connection = sqlite3.connect(f"file:{self.home / 'state.db'}?mode={mode}", uri=True)
        try:
            yield connection
            connection.commit()
        finally:
            connection.close()

    async def keep(self, name: str) -> None:
        """Copy its home and its user's files."""
        for kind, source in self._kept_parts(name):
            _copy(source, kind)

    async def put_back(self, name: str, *, home: bool, files: bool) -> None:
        """Go back to a copy."""
        for (kept, target), wanted in zip(self._kept_parts(name), (home, files), strict=True):
            if wanted:
                _copy(kept, target)

    def _kept_parts(self, name: str) -> tuple[tuple[Path, Path], tuple[Path, Path]]:
        kept = self._place / f"kept-{name}"
        return (kept / "home", self.home), (kept / "root", Path(self.root))

    async def become_new(self) -> None:
        """Be a new device of the account."""
        self._account.forget(self.name)
        self.home = self._account.home(self.name)
        self.has_folder = False

    def may_read_all(self) -> bool:
        """Tell whether commands run with the rights of root."""
        return without_root_rights() is None

    def remove_folder(self, folder: str) -> Launched | None:
        """Begin to forget a folder, so that the device can be used for another case."""
        return self._account.site.spawn(self.home, "remove", folder) if self.has_folder else None


def _copy(source: Path, target: Path) -> None:
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target, symlinks=True, ignore=lambda _, names: [n for n in names if n == "agent.sock"])


class RealHands:
    """One world: a :class:`simulations.cases.hands.Hands`."""

    scale = 1
    orders_scans = False

    def __init__(self, account: Account, place: Path) -> None:
        """Make one without devices; their files lie below ``place``."""
        account.folders += 1
        self.folder = f"f{account.folders}"
        self._account, self._place = account, place
        self._machines: list[RealMachine] = []

    async def devices(self, names: Sequence[str]) -> Sequence[RealMachine]:
        """Return devices of the account."""
        return [await self.join(name) for name in names]

    async def join(self, name: str) -> RealMachine:
        """Return one more device."""
        machine = RealMachine(self._account, name, self._account.home(name), self._place / name)
        self._machines.append(machine)
        return machine

    async def clone(self, machine: Machine, name: str) -> RealMachine:
        """Return a copy of a device."""
        place = self._place / name
        _copy(Path(machine.root), place / "root")
        home = self._account.copied_home(machine.name, name)
        made = RealMachine(self._account, name, home, place)
        made.has_folder = machine.has_folder
        self._machines.append(made)
        return made

    @property
    def tricks(self) -> Tricks:
        """There are none."""
        raise Skipped(_SIMULATED)

    # --- Servers and the network

    async def keep_coordinator(self, name: str) -> None:
        """Copy all that the coordinator keeps."""
        cluster = self._account.site.cluster
        cluster.coordinator.stop()
        _copy(cluster.root / "coordinator", self._place / f"coordinator-{name}")
        cluster.coordinator.start()

    async def put_back_coordinator(self, name: str) -> None:
        """Let it go back to that."""
        cluster = self._account.site.cluster
        cluster.coordinator.stop()
        _copy(self._place / f"coordinator-{name}", cluster.root / "coordinator")
        cluster.coordinator.start()

    def packs(self) -> Sequence[Packs]:
        """Return where the storage nodes keep chunks."""
        return [Packs(RealDisk(), str(each)) for each in sorted(self._account.site.cluster.root.glob("node*/packs"))]

    async def restart_nodes(self) -> None:
        """Have the nodes look at their packs anew."""
        nodes = self._account.site.cluster.nodes
        for node in nodes:
            node.stop()
        for index in self._account.site.cluster.root.glob("node*/index.sqlite*"):
            index.unlink()
        for node in nodes:
            node.start()

    def cut_after(self, machine: Machine, count: int) -> None:  # noqa: ARG002 - only one device of a case takes anything then
        """Cut all off once so many bytes have come from the nodes."""
        for meter in self._account.site.cluster.meters:
            meter.cut_after(count)

    def heal(self) -> None:
        """End that."""
        for meter in self._account.site.cluster.meters:
            meter.mend()

    def received_bytes(self) -> int:
        """Return how many bytes came from storage nodes, where these are metered."""
        return sum(meter.to_client for meter in self._account.site.cluster.meters)

    def close(self) -> None:
        """Have the devices forget the folder, and remove what lies on the disk."""
        for machine in self._machines:
            machine.end()
        forgetting = [launched for each in self._machines if (launched := each.remove_folder(self.folder))]
        try:
            for launched in forgetting:
                _done(ended(launched, ("remove",)), ("remove",))
        finally:
            shutil.rmtree(self._place, ignore_errors=True)


class RealWorlds:
    """Makes worlds for one case after the other; leaving the block ends all processes."""

    means = MEANS

    def __init__(self, root: Path) -> None:
        """Make one that is not started; everything lives below ``root``, which must not be a network file system."""
        self._root = root
        self._site = Site(root / "site")
        self._accounts: queue.SimpleQueue[Account] = queue.SimpleQueue()

    def __enter__(self) -> Self:
        self._site.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._site.__exit__()

    def run(self, case: Case, seed: str, story: Callable[[RealHands], Coroutine[Any, Any, T]]) -> T:  # noqa: ARG002 - real processes take no seed
        """Do something in a world of its own, and return what comes of it."""
        with contextlib.ExitStack() as stack:
            place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="case-", dir=self._root)))
            if needs_own_servers(case):
                account = stack.enter_context(Site(place / "site", metered=True)).account()
            elif needs_own_account(case):
                account = self._site.account()
            else:
                account = stack.enter_context(self._lent())
            hands = RealHands(account, place / "devices")
            stack.callback(hands.close)
            return asyncio.run(story(hands))

    @contextlib.contextmanager
    def _lent(self) -> Iterator[Account]:
        """Lend an account that other cases have used; it comes back only if all went well."""
        try:
            account = self._accounts.get_nowait()
        except queue.Empty:
            account = self._site.account()
        yield account
        self._accounts.put(account)


def needs_own_servers(case: Case) -> bool:
    """Whether a case breaks or measures the servers, so that no other may use them."""
    return bool(_MEASURED & set(case.expectation)) or any(step["op"] in _BREAKS_SERVERS for step in case.steps)


def needs_own_account(case: Case) -> bool:
    """Whether a case leaves its devices unfit for another."""
    return "multi_folder" in case.needs or any(step["op"] in _BREAKS_ACCOUNT for step in case.steps)
