"""What the end-to-end tests share: quick questions to an agent, waiting for a condition, results of commands, no tracebacks.

Rule 1: nothing here sleeps for a fixed time before it looks.
Rule 2: an agent of these tests logs all it can, so that a traceback nobody sees is found.
"""

from __future__ import annotations

import contextlib
import re
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar

from peer.api.client import Agent
from simulations import launcher
from simulations.processes import Cluster, Device, Process, command, environment
from simulations.wire import Meter

T = TypeVar("T")
PATIENCE_S: Final = 60.0
LOOK_S: Final = 0.05
DEBUG: Final = {"KIN_LOG": "debug"}
_DEFECT: Final = re.compile(
    r"Traceback \(most recent call last\)|never retrieved|was never awaited|Task was destroyed|\.py\", line \d+"
)


class Result(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def text(self) -> str:
        """All that it said."""
        return self.out + self.err


def run(device: Device, *args: str, timeout_s: float = 120.0, prefix: Sequence[str] = ()) -> Result:
    """Run a command of a device, whatever its exit code; it never shows a traceback, nor more than it must."""
    return run_command([*prefix, *command("peer.cli", "--home", str(device.home), *args)], timeout_s=timeout_s)


def run_command(args: Sequence[str], *, timeout_s: float = 120.0) -> Result:
    """Run any command of ours."""
    done = subprocess.run(
        args,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=timeout_s,
        env=environment(DEBUG),
        check=False,
    )
    result = Result(done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace"))
    assert not _DEFECT.search(result.text), result.text
    return result


def start_agent(device: Device, root: Path, *, prefix: Sequence[str] = (), launch: Sequence[str] = ()) -> Process:
    """Start a device's agent with its most talkative log, under another program if ``prefix`` names one."""
    args = [*prefix, *(launch or command("peer.cli", "--home", str(device.home), "run"))]
    device.agent = Process(args, root / f"{device.name}.log", DEBUG).start()
    return device.agent


@contextlib.contextmanager
def agents(root: Path, *devices: Device) -> Iterator[None]:
    """Run agents for a while."""
    try:
        for device in devices:
            start_agent(device, root)
        yield
    finally:
        for device in devices:
            device.stop()


def ask(device: Device, method: str = "status", **params: Any) -> Any:
    """Ask a running agent without starting a process for it."""
    agent = Agent.dial(device.home)
    assert agent is not None, f"no agent of {device.name} runs"
    try:
        if method == "status":
            params = {"all": True, **params}
        return agent.call(method, params, report=lambda _: None, confirm=lambda _, __: False, timeout_s=PATIENCE_S)
    finally:
        agent.close()


def settle(*devices: Device, timeout_s: float = PATIENCE_S) -> None:
    """Have agents bring everything in sync, the first one last once more."""
    for device in (*devices, devices[0]):
        result = ask(device, "wait", timeout=timeout_s)
        assert result["exit"] == 0, result


def by_servers_alone(*devices: Device) -> None:
    """Have agents exchange nothing directly, also after a restart, where a test is about what servers do."""
    for device in devices:
        ask(device, "lan", switch="off")


def folder_of(state: Any, name: str) -> Any:
    """Return one folder of a status object."""
    return next(folder for folder in state["folders"] if folder["name"] == name)


def reasons(device: Device, name: str) -> dict[str, str]:
    """Return why each file of a folder is not in sync, by path."""
    return {row["path"]: row["reason"] for row in folder_of(ask(device), name)["unsynced"]}


def until(look: Callable[[], T], what: str, patience_s: float = PATIENCE_S) -> T:
    """Look until there is something true, and return it."""
    deadline = time.monotonic() + patience_s
    while True:
        found = look()
        if found:
            return found
        assert time.monotonic() < deadline, f"it did not come to this: {what}; last seen: {found!r}"
        time.sleep(LOOK_S)


def logs_of(cluster: Cluster) -> Iterator[Path]:
    """Yield every log of every process."""
    yield from cluster.root.glob("*.log")
    yield from cluster.root.glob("home-*/kin.log*")


def assert_no_tracebacks(cluster: Cluster) -> None:
    """No process ever printed or logged a traceback."""
    for log in logs_of(cluster):
        found = _DEFECT.search(log.read_text(errors="replace"))
        if found is not None:
            text = log.read_text(errors="replace")
            raise AssertionError(f"{log}: {text[max(0, found.start() - 500) : found.end() + 3000]}")


def restart(process: Process) -> None:
    """Start a server again that was stopped or killed, where it was."""
    process.start()


# --- Without the rights that root has

without_root_rights = launcher.without_root_rights


# --- Between the processes


class Tap(Meter):
    """A meter that keeps all bytes, each direction of each connection apart, and may change what servers answer."""

    def __init__(self) -> None:
        self.streams: list[tuple[bool, bytearray]] = []
        """(whether to the server, the bytes) for each connection."""
        self.change: Callable[[bytes], bytes] | None = None
        """What becomes of each piece of an answer."""
        super().__init__()

    def _pass_on(self, source: socket.socket, sink: socket.socket, up: bool) -> None:
        kept = bytearray()
        self.streams.append((up, kept))
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                kept += data
                change = self.change
                sink.sendall(data if up or change is None else change(data))
        for each in (source, sink):
            self._close(each)
            with self._lock:
                self._sockets.discard(each)

    def received(self) -> list[bytes]:
        """Return what clients sent to the server, one piece for each connection."""
        return [bytes(data) for up, data in self.streams if up]


def free_port() -> int:
    """Return a port on which nothing listens now."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def add_tapped_node(cluster: Cluster, *more: str, launch: Sequence[str] = ()) -> Tap:
    """Start one more storage node that everybody reaches through a tap."""
    number = len(cluster.nodes) + 1
    tap, listen = Tap(), f"127.0.0.1:{free_port()}"
    tap.stand_before(listen)
    cluster.meters.append(tap)
    args = [
        *(launch or command("storage_node.cli")),
        "serve",
        "--data",
        str(cluster.root / f"node{number}"),
        "--listen",
        listen,
        "--coordinator",
        cluster.url,
        "--invite",
        cluster.invite("storage"),
        "--advertise",
        f"http://{tap.address}",
        *more,
    ]
    cluster.nodes.append(cluster.keep(Process(args, cluster.root / f"node{number}.log", DEBUG)).start())
    return tap


def shifted(module: str, seconds: int, *args: str) -> list[str]:
    """Return a command of ours whose process sees a wall clock that is this far off; the disk's is the machine's."""
    program = (
        "import runpy, sys, time\n"
        "real, real_ns = time.time, time.time_ns\n"
        f"time.time = lambda: real() + {seconds}\n"
        f"time.time_ns = lambda: real_ns() + {seconds} * 10**9\n"
        f"sys.argv = [{module!r}, *sys.argv[1:]]\n"
        f"runpy.run_module({module!r}, run_name='__main__', alter_sys=True)\n"
    )
    python = command("x")[0]
    return [python, "-P", "-c", program, *args]
