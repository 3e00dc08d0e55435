"""Real processes on this machine: a coordinator, storage nodes and devices, started as a person would start them.

The demo, the end-to-end tests and the runner of conflict cases share this. Everything listens on loopback, lives under
one directory, and is ended by its process id.

Rule 1: commands are those of the contract; nothing here imports a service.
Rule 2: whatever was started is ended, also when the work in between fails.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, ClassVar, Final, Self

from simulations.wire import Meter

if TYPE_CHECKING:
    from simulations.launcher import Launcher

READY_S: Final = 60.0
STOP_S: Final = 20.0
COMMAND_S: Final = 600.0
_URL = re.compile(r"(wss?|https?)://\S+")
_MEASURE: Final = """
import os, subprocess, sys
child = subprocess.Popen(sys.argv[2:])
_, status, usage = os.wait4(child.pid, 0)
with open(sys.argv[1], "w") as file:
    file.write(str(usage.ru_maxrss))
sys.exit(os.waitstatus_to_exitcode(status) & 255)
"""
"""Runs a command and writes down its peak. A process begins with the peak of who starts it, so this one must be small."""


class CommandError(Exception):
    """A command ended with another exit code than it should."""

    def __init__(self, args: Sequence[str], code: int, output: str) -> None:
        super().__init__(f"{' '.join(args)} ended with {code}: {output.strip()[-2000:]}")
        self.code = code
        self.output = output


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment of every process: nothing that chooses what Python imports, LAN on loopback only."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "KIN_"))}
    return {**kept, "KIN_LAN_INTERFACES": "127.0.0.1", "PYTHONUNBUFFERED": "1", **(extra or {})}


def command(module: str, *args: str) -> list[str]:
    """Return how to start a console script of this installation, whatever the current directory holds."""
    return [sys.executable, "-P", "-m", module, *args]


def tethered(args: Sequence[str]) -> list[str]:
    """Return how to start what :func:`command` gave so that it dies with the thread that starts it (Linux)."""
    return command("peer.commands.tether", str(os.getpid()), *args[args.index("-m") + 1 :])


class Process:
    """One long-running process whose standard output is read until it says ``ready``."""

    def __init__(self, args: Sequence[str], log: Path, extra: Mapping[str, str] | None = None) -> None:
        self.args = list(args)
        self._extra = extra
        self._log = log
        self._child: subprocess.Popen[str] | None = None
        self.ready_line = ""

    @property
    def pid(self) -> int:
        """The process's id; 0 while it does not run."""
        return self._child.pid if self._child is not None and self._child.poll() is None else 0

    def start(self) -> Self:
        """Start it and wait until it is ready.

        Raises:
            CommandError: It ended, or said nothing in time.
        """
        with open(self._log, "ab") as log:
            self._child = subprocess.Popen(
                self.args,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=environment(self._extra),
                start_new_session=True,
            )
        assert self._child.stdout is not None
        self.ready_line = _wait_for_ready(self._child, self._child.stdout, self.args, self._log)
        return self

    @property
    def url(self) -> str:
        """The URL in the line that said ``ready``."""
        match = _URL.search(self.ready_line)
        if match is None:
            raise CommandError(self.args, 0, f"no URL in {self.ready_line!r}")
        return match.group(0).rstrip("/")

    def stop(self) -> None:
        """End it as a service manager would, and wait."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it as a power cut would: without another word."""
        self._end(signal.SIGKILL)

    def _end(self, how: signal.Signals) -> None:
        child, self._child = self._child, None
        if child is None:
            return
        if child.poll() is None:
            child.send_signal(how)
            try:
                child.wait(STOP_S)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
        if child.stdout is not None:
            child.stdout.close()

    def peak_memory_bytes(self) -> int:
        """Return the highest resident memory so far, in bytes (Linux)."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(re.search(r"VmHWM:\s+(\d+) kB", status).group(1)) * 1024  # type: ignore[union-attr]


def _wait_for_ready(child: subprocess.Popen[str], output: IO[str], args: Sequence[str], log: Path) -> str:
    deadline = time.monotonic() + READY_S
    while (left := deadline - time.monotonic()) > 0:
        if not _is_readable(output, left):
            break
        line = output.readline()
        if not line:
            child.wait()
            output.close()
            raise CommandError(args, child.returncode, log.read_text(errors="replace"))
        if "ready" in line:
            return line
    child.kill()
    child.wait()
    output.close()
    raise CommandError(args, -1, "was not ready in time: " + log.read_text(errors="replace"))


def _is_readable(output: IO[str], timeout_s: float) -> bool:
    poll = select.poll()  # select() knows only descriptors below 1,024
    poll.register(output, select.POLLIN)
    return bool(poll.poll(timeout_s * 1000))


class Device:
    """One device: a home, and commands on it."""

    def __init__(self, cluster: Cluster, name: str, home: Path) -> None:
        self._cluster = cluster
        self.name = name
        self.home = home
        self.agent: Process | None = None

    def kin(self, *args: str, check: bool = True, timeout_s: float = COMMAND_S) -> str:
        """Run one command on this device and return what it printed.

        Raises:
            CommandError: It ended with another code than 0 (unless ``check`` is off).
        """
        return self._cluster.run(command("peer.cli", "--home", str(self.home), *args), check=check, timeout_s=timeout_s)

    def measure(self, *args: str, timeout_s: float = COMMAND_S) -> int:
        """Run one command on this device and return the most resident memory that it needed, in bytes (Linux).

        Raises:
            CommandError: It ended with another code than 0.
        """
        peak = self._cluster.root / f"{self.name}.peak"
        args = tuple(command("peer.cli", "--home", str(self.home), *args))
        self._cluster.run([sys.executable, "-I", "-S", "-c", _MEASURE, str(peak), *args], timeout_s=timeout_s)
        return int(peak.read_text()) * 1024

    def spawn(self, *args: str) -> subprocess.Popen[bytes]:
        """Begin a command on this device; who asks for it ends it."""
        return subprocess.Popen(
            command("peer.cli", "--home", str(self.home), *args),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=environment(),
        )

    def json(self, *args: str) -> Any:
        """Run a command with ``--json`` and return its object."""
        return json.loads(self.kin(*args, "--json", check=False))

    def add(self, path: Path, name: str | None = None) -> None:
        """Make a directory a folder."""
        self.kin("add", str(path), *(("--name", name) if name else ()))

    def get(self, folder: str, path: Path) -> None:
        """Bring a folder here."""
        self.kin("get", folder, str(path))

    def sync(self, timeout_s: float = COMMAND_S) -> None:
        """One pass."""
        self.kin("sync", "--timeout", str(timeout_s), timeout_s=timeout_s + 30)

    def wait(self, timeout_s: float = COMMAND_S) -> None:
        """Wait until the agent has everything in sync."""
        self.kin("wait", "--timeout", str(timeout_s), timeout_s=timeout_s + 30)

    def start(self) -> Process:
        """Start the agent."""
        log = self._cluster.root / f"{self.name}.log"
        self.agent = self._cluster.keep(Process(command("peer.cli", "--home", str(self.home), "run"), log)).start()
        return self.agent

    def stop(self) -> None:
        """Stop the agent."""
        if self.agent is not None:
            self.agent.stop()

    def kill(self) -> None:
        """Kill the agent."""
        if self.agent is not None:
            self.agent.kill()


class Cluster:
    """A coordinator, storage nodes and devices under one directory; leaving the block ends all of them."""

    launcher: ClassVar[Launcher | None] = None
    """Where there is one, commands are started by it, instead of by an interpreter that loads all anew for each."""

    def __init__(
        self,
        root: Path,
        *,
        nodes: int = 3,
        replicas: int = 3,
        quorum: int = 2,
        metered: bool = False,
        tether: bool = False,
    ) -> None:
        """Describe it; entering the block starts it. With ``tether`` nothing outlives a killed process of ours."""
        self.root = root
        self._is_tethered = tether
        self._is_metered = metered
        self.meters: list[Meter] = []
        """If ``metered``: what stands before each storage node, in their order."""
        self._processes: list[Process] = []
        self._devices: dict[str, Device] = {}
        self.coordinator = self.keep(
            Process(
                command(
                    "coordinator.cli",
                    "serve",
                    "--data",
                    str(root / "coordinator"),
                    "--listen",
                    "127.0.0.1:0",
                    "--replicas",
                    str(replicas),
                    "--quorum",
                    str(quorum),
                ),
                root / "coordinator.log",
            )
        )
        self.nodes: list[Process] = []
        self._node_count = nodes

    def __enter__(self) -> Self:
        self.root.mkdir(parents=True, exist_ok=True)
        try:
            self.coordinator.start()
            self._pin_port(self.coordinator)
            for _ in range(self._node_count):
                self.add_node()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End every process."""
        for process in reversed(self._processes):
            with contextlib.suppress(ProcessLookupError):
                process.stop()
        for meter in self.meters:
            meter.close()

    def keep(self, process: Process) -> Process:
        """End this process with the others."""
        process.args = self._bound(process.args)
        self._processes.append(process)
        return process

    def _bound(self, args: Sequence[str]) -> list[str]:
        return tethered(args) if self._is_tethered and "-m" in args else list(args)

    @property
    def url(self) -> str:
        """The coordinator's URL."""
        return self.coordinator.url

    @staticmethod
    def _pin_port(process: Process) -> None:
        """Have a restart listen where the first start did: clients know that URL."""
        at = process.args.index("--listen") + 1
        process.args[at] = process.url.partition("://")[2]

    def invite(self, kind: str = "user") -> str:
        """Return a token."""
        args = ("invite", "--data", str(self.root / "coordinator"), "--for", kind)
        return self.run(command("coordinator.cli", *args)).split()[0]

    def add_node(self) -> Process:
        """Start one more storage node."""
        number = next(number for number in itertools.count(len(self.nodes) + 1) if not self._has_data(number))
        data = self.root / f"node{number}"
        args = command(
            "storage_node.cli",
            "serve",
            "--data",
            str(data),
            "--listen",
            "127.0.0.1:0",
            "--coordinator",
            self.url,
            "--invite",
            self.invite("storage"),
        )
        if self._is_metered:
            meter, listen = Meter(), _free_address()
            self.meters.append(meter)
            meter.stand_before(listen)
            args[args.index("--listen") + 1] = listen
            args += ["--advertise", f"http://{meter.address}"]
        node = self.keep(Process(args, self.root / f"node{number}.log"))
        self.nodes.append(node)
        return node.start()

    def _has_data(self, number: int) -> bool:
        """Whether a node had this directory before, also one that was taken out since."""
        return (self.root / f"node{number}" / "node.lock").exists() or (self.root / f"node{number}" / "packs").exists()

    def first_device(self, name: str, user: str = "alice") -> Device:
        """Make an account with its first device."""
        device = self._device(name)
        device.kin(
            "init",
            "--coordinator",
            self.url,
            "--invite",
            self.invite(),
            "--user",
            user,
            "--device",
            name,
            "--no-keyring",
            "--recovery-file",
            str(self.root / f"{user}.recovery"),
        )
        return device

    def link_device(self, existing: Device, name: str) -> Device:
        """Link a new device to an account by a code."""
        device = self._device(name)
        if self._launcher is not None:
            self._link_launched(self._launcher, existing, device)
            return device
        showing = subprocess.Popen(
            self._bound(command("peer.cli", "--home", str(existing.home), "link-code", "--yes")),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(),
        )
        try:
            assert showing.stdout is not None
            code = showing.stdout.readline().strip()
            if not code:
                raise CommandError(["link-code"], showing.wait(), showing.stderr.read() if showing.stderr else "")
            device.kin("link", code, "--coordinator", self.url, "--device", name, "--no-keyring", "--yes")
            _, errors = showing.communicate(timeout=STOP_S)  # closes both pipes
            if showing.returncode:
                raise CommandError(["link-code"], showing.returncode, errors)
        finally:
            if showing.poll() is None:
                showing.kill()
                showing.communicate()
        return device

    @property
    def _launcher(self) -> Launcher | None:
        return None if self._is_tethered else self.launcher

    def _link_launched(self, launcher: Launcher, existing: Device, device: Device) -> None:
        showing = launcher.spawn(["--home", str(existing.home), "link-code", "--yes"])
        try:
            code = showing.line(COMMAND_S).strip()
            if code:
                device.kin("link", code, "--coordinator", self.url, "--device", device.name, "--no-keyring", "--yes")
        except BaseException:
            showing.kill()
            raise
        finally:
            shown = showing.wait(STOP_S)
        if shown.code:
            raise CommandError(["link-code"], shown.code, shown.err)

    def _device(self, name: str) -> Device:
        device = Device(self, name, self.root / f"home-{name}")
        self._devices[name] = device
        return device

    def run(self, args: Sequence[str], *, check: bool = True, timeout_s: float = COMMAND_S) -> str:
        """Run a command to its end and return its standard output.

        Raises:
            CommandError: It failed, and ``check`` is on.
        """
        if self._launcher is not None and list(args[:3]) == command("")[:3]:
            result = self._launcher.run(args[4:], timeout_s, args[3])
            if check and result.code:
                raise CommandError(args, result.code, result.out + result.err)
            return result.out
        done = subprocess.run(
            self._bound(args),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            env=environment(),
            check=False,
        )
        if check and done.returncode:
            raise CommandError(args, done.returncode, done.stdout + done.stderr)
        return done.stdout


def _free_address() -> str:
    """Return HOST:PORT where nothing listens now."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        host, port = server.getsockname()
        return f"{host}:{port}"


def tree_of(root: Path) -> Iterator[tuple[str, bytes]]:
    """Yield (path, what is there) for everything under a root but Kinfolder's own directory, in a fixed order."""
    top = os.fsencode(root)
    waiting = [b""]
    while waiting:
        directory = waiting.pop()
        for name in sorted(os.listdir(os.path.join(top, directory))):
            if not directory and name == b".kinfolder":
                continue
            below = os.path.join(directory, name)
            path = os.path.join(top, below)
            if os.path.islink(path):
                yield os.fsdecode(below), b"<link>" + os.readlink(path)
            elif os.path.isdir(path):
                yield os.fsdecode(below), b"<dir>"
                waiting.append(below)
            else:
                with open(path, "rb") as file:
                    yield os.fsdecode(below), file.read()
