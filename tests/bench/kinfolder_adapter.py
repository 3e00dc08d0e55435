"""Kinfolder as a system of peerbench: ``python3 peerbench.py run --adapter-file tests/bench/kinfolder_adapter.py``.

Two agents with their default settings, as two machines of one user would run them. The servers stand outside the
counted processes, as they would on a third machine.

Rule 1: standard library and the contract's commands only; peerbench runs this with whatever Python it has.
Rule 2: whatever was started is ended, by its process id.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import re
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

peerbench: Any = importlib.import_module("adapters")

ROOT: Final = Path(__file__).resolve().parents[2]
BIN: Final = ROOT / ".venv" / "bin"
READY_S: Final = 60.0
LOOK_S: Final = 0.05
_URL: Final = re.compile(r"(wss?|https?)://[^\s/]+:(\d+)")
_INVITATION: Final = re.compile(r"kin\+ws\S+")


class Server:
    """A process that says ``ready``, and all that it printed until then."""

    def __init__(self, command: Sequence[object], log: Any, env: dict[str, str]) -> None:
        """Start it and wait until it is ready."""
        self._process = subprocess.Popen(
            [str(each) for each in command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, env=env
        )
        self.said = ""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.said += line.decode()
            if b"ready" in line:
                return
        raise RuntimeError(f"{command[0]} ended: {self.said[-500:]}")

    @property
    def ports(self) -> list[int]:
        """The ports of the URLs that it printed, each once, in their order."""
        return list(dict.fromkeys(int(port) for _, port in _URL.findall(self.said)))

    @property
    def url(self) -> str:
        """The first URL that it printed."""
        found = _URL.search(self.said)
        assert found is not None
        return found.group()

    def stop(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()


class Kinfolder(peerbench.Adapter):  # type: ignore[misc] # peerbench has no types, and is not here when this is checked
    """Two agents and servers beside them."""

    ignore = (".kinfolder",)
    version_cmd: Sequence[str] = (str(BIN / "kin"), "--version")
    notice_s = 1.0

    def __init__(self, home: str) -> None:
        """Start the servers, and make one account with a folder on two devices."""
        super().__init__(home)
        self.env.update(KIN_LAN_INTERFACES="127.0.0.1", PYTHONUNBUFFERED="1")
        self.servers: list[Server] = []
        self.ports: list[int] = []
        try:
            url, invitation = self.serve()
            self._join(url, invitation)
        except BaseException:
            self._stop_servers()
            raise

    def serve(self) -> tuple[str, str]:
        """Start the servers; return the coordinator's URL and an invitation."""
        raise NotImplementedError

    def launch(self, *command: object) -> Server:
        """Start one server."""
        server = Server(command, self.log, self.env)
        self.servers.append(server)
        return server

    def _join(self, url: str, invitation: str) -> None:
        words = self.home / "words.txt"
        self._kin("a", "init", "--invite", invitation, "--user", "u", "--device", "a", "--no-keyring",
                  "--recovery-file", words)  # fmt: skip
        showing = subprocess.Popen(
            self._command("a", "link-code", "--yes"),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self.log,
            env=self.env,
        )
        assert showing.stdout is not None
        with showing.stdout:
            code = showing.stdout.readline().decode().strip()
            self._kin("b", "link", code, "--coordinator", url, "--device", "b", "--no-keyring", "--yes")
        if showing.wait():
            raise RuntimeError(f"link-code ended with {showing.returncode}")
        self._kin("a", "add", self.dir_a, "--name", "bench")
        self._kin("a", "sync")
        self._kin("b", "get", "bench", self.dir_b)
        self._kin("b", "sync")

    def _command(self, device: str, *args: object) -> list[str]:
        return [str(BIN / "kin"), "--home", str(self.home / f"kin-{device}"), *(str(each) for each in args)]

    def _kin(self, device: str, *args: object) -> str:
        """Run a command that no measurement counts."""
        done = subprocess.run(
            self._command(device, *args),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self.log,
            env=self.env,
            check=True,
        )
        return done.stdout.decode()

    def status(self, device: str) -> dict[str, Any]:
        """Return what the device's agent says."""
        found: dict[str, Any] = json.loads(self._kin(device, "status", "--json"))
        return found

    def start(self) -> None:
        """Start both agents, and learn which ports they listen on."""
        super().start()
        for device in ("a", "b"):
            self._until(lambda which=device: self._is_running(which), READY_S)  # type: ignore[misc] # a default binds it
        self.settle()
        self.ports = [*self.ports, *self._ports_of_agents()]

    def _ports_of_agents(self) -> list[int]:
        """Return the ports on which the two agents listen."""
        return sorted({port for each in ("a", "b") for port in listening(self.tree([self.procs[each].pid]))})

    def start_a(self) -> None:
        """Start the agent of device A."""
        self._run("a")

    def start_b(self) -> None:
        """Start the agent of device B."""
        self._run("b")

    def _run(self, device: str) -> None:
        self.spawn(device, self._command(device, "run"))

    def _is_running(self, device: str) -> bool:
        try:
            state = self.status(device)
        except subprocess.CalledProcessError:
            return False  # the home is taken and its agent not ready yet
        return bool(state["agent"] == "running" and state["network"] == "online")

    @staticmethod
    def _until(condition: Callable[[], bool], limit_s: float) -> None:
        end_s = time.monotonic() + limit_s
        while not condition():
            if time.monotonic() > end_s:
                raise RuntimeError("kinfolder: no answer in time")
            time.sleep(LOOK_S)

    def settle(self) -> None:
        """Wait until both devices have all that the other has."""
        for device in ("a", "b", "a"):
            self._kin(device, "wait", "--timeout", "240")

    def wait_idle_a(self) -> bool:
        """Wait until A has scanned its folder and is in sync."""
        self._kin("a", "wait", "--timeout", "240")
        return True

    def pause(self) -> None:
        """Cut A off; it goes on watching its folder."""
        self._kin("a", "offline")

    def resume(self) -> None:
        """Let A use the network again."""
        self._kin("a", "online")

    def stop(self) -> None:
        """End the agents and the servers."""
        super().stop()
        self._stop_servers()

    def _stop_servers(self) -> None:
        while self.servers:
            self.servers.pop().stop()


def listening(processes: Sequence[int]) -> set[int]:
    """Return the TCP ports on which these processes listen (Linux)."""
    sockets = set()
    for process in processes:
        with contextlib.suppress(OSError):
            for each in os.scandir(f"/proc/{process}/fd"):
                with contextlib.suppress(OSError):
                    sockets.add(os.readlink(each.path))
    ports = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            part = line.split()
            if part[3] == "0A" and f"socket:[{part[9]}]" in sockets:  # 0A: LISTEN
                ports.add(int(part[1].rpartition(":")[2], 16))
    return ports


@peerbench.adapter("kinfolder")
class Hosted(Kinfolder):
    """Kinfolder with what kin host gives: one coordinator, one storage node, one copy."""

    settings = "kin host: 1 replica, quorum 1; the agents' settings are the defaults"

    def serve(self) -> tuple[str, str]:
        """Start a home server.

        Counted are the ports of the agents and of the coordinator. The storage node's stands for the agents' while
        these listen on none: then all contents travel by it.
        """
        host = self.launch(BIN / "kin", "host", "--data", self.home / "host", "--listen", "127.0.0.1:0")
        self.ports, self._storage = host.ports[:1], host.ports[1:]
        invitation = _INVITATION.search(host.said)
        assert invitation is not None
        return host.url, invitation.group()

    def _ports_of_agents(self) -> list[int]:
        return super()._ports_of_agents() or self._storage


@peerbench.adapter("kinfolder-3")
class Replicated(Kinfolder):
    """Kinfolder with three storage nodes, three copies, a quorum of two."""

    settings = "3 nodes, 3 replicas, quorum 2; the agents' settings are the defaults; all ports counted"

    def serve(self) -> tuple[str, str]:
        """Start a coordinator and three storage nodes; every port counts."""
        data = self.home / "coordinator"
        coordinator = self.launch(
            BIN / "kin-coordinator", "serve", "--data", data, "--listen", "127.0.0.1:0",
            "--replicas", "3", "--quorum", "2",
        )  # fmt: skip
        self.ports = coordinator.ports[:1]
        for number in range(3):
            node = self.launch(
                BIN / "kin-storage", "serve", "--data", self.home / f"node{number}", "--listen", "127.0.0.1:0",
                "--invite", self._invite(data, "storage"),
            )  # fmt: skip
            self.ports += node.ports[:1]
        return coordinator.url, self._invite(data, "user")

    def _invite(self, data: Path, kind: str) -> str:
        command = [str(BIN / "kin-coordinator"), "invite", "--data", str(data), "--for", kind, "--url"]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=self.log, env=self.env, check=True)
        return done.stdout.decode().split()[-1]
