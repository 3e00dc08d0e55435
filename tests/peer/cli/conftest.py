"""Processes for the tests of the command line: ``kin`` on a device without an engine, and its agent."""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

DOUBLE = Path(__file__).with_name("double.py")
PATIENCE_S = 20.0


def environment(**more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("KIN_")}
    return kept | {"TERM": "xterm", "TZ": "UTC", "LC_ALL": "C.UTF-8"} | more


class Kin:
    """Commands on one home."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.agents: list[subprocess.Popen[str]] = []

    def make_device(self, **more: object) -> None:
        self.home.mkdir(mode=0o700)
        state = {"user": "anna", "device": "Laptop", "folders": [], **more}
        (self.home / "double.json").write_text(json.dumps(state))

    def command(self, *arguments: str | bytes) -> list[str | bytes]:
        return [sys.executable, "-P", str(DOUBLE), "kin", "--home", str(self.home), *arguments]

    def agent_command(self) -> list[str | bytes]:
        return [sys.executable, "-P", str(DOUBLE), "agent", str(self.home)]

    def __call__(self, *arguments: str | bytes, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*arguments),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            env=environment(**env),
            check=False,
        )

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.command(*arguments),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(),
        )

    def agent(self, **env: str) -> subprocess.Popen[str]:
        """Start the agent and return once it is ready."""
        agent = self.start_agent(**env)
        assert agent.stdout is not None
        assert "ready" in agent.stdout.readline()
        return agent

    def start_agent(self, **env: str) -> subprocess.Popen[str]:
        agent = subprocess.Popen(
            self.agent_command(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(**env),
        )
        self.agents.append(agent)
        return agent

    def end(self) -> None:
        for agent in self.agents:
            if agent.poll() is None:
                agent.kill()
            agent.communicate()


class Terminal:
    """A command with a terminal as its standard input, output and error."""

    def __init__(self, command: list[str | bytes], **env: str) -> None:
        self.master, slave = os.openpty()
        self.process = subprocess.Popen(
            command,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            env=environment(KIN_TEST_TERMINAL="1", **env),
        )
        os.close(slave)
        self.seen = ""

    def expect(self, text: str) -> str:
        """Return what is shown up to and with ``text``, and go on after it."""
        while text not in self.seen:
            assert self.read(), f"{text!r} is missing in {self.seen!r}"
        before, after = self.seen.split(text, 1)
        self.seen = after
        return before + text

    def read(self) -> bool:
        poll = select.poll()
        poll.register(self.master, select.POLLIN)
        readable = poll.poll(PATIENCE_S * 1000)
        try:
            data = os.read(self.master, 4096) if readable else b""
        except OSError:  # the last process has closed its end
            data = b""
        self.seen += data.decode(errors="replace")
        return bool(data)

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def end(self) -> tuple[int, str]:
        """Return the exit code and what was shown since the last ``expect``."""
        while self.read():
            pass
        code = self.process.wait(PATIENCE_S)
        os.close(self.master)
        return code, self.seen


def wait_for(path: Path) -> None:
    """Return once a file is there: another process makes it, so there is nothing to await."""
    deadline_s = time.monotonic() + PATIENCE_S
    while not path.exists():
        assert time.monotonic() < deadline_s, f"{path} does not come"
        select.select([], [], [], 0.01)


@pytest.fixture
def place():
    """Return an empty directory whose path is short enough for a socket."""
    path = Path(tempfile.mkdtemp(prefix="kin"))
    yield path
    shutil.rmtree(path)


@pytest.fixture
def kin(place):
    """Return commands on a home that is a device."""
    kin = Kin(place / "home")
    kin.make_device()
    yield kin
    kin.end()


@pytest.fixture(scope="module")
def served():
    """Return commands on a device whose agent runs, for tests that leave it as it is."""
    path = Path(tempfile.mkdtemp(prefix="kin"))
    kin = Kin(path / "home")
    kin.make_device()
    agent = kin.agent()
    yield kin
    agent.send_signal(signal.SIGTERM)
    output, problem = agent.communicate(timeout=PATIENCE_S)
    kin.end()
    shutil.rmtree(path)
    assert (agent.returncode, output, problem) == (0, "", "")
