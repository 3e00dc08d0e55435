"""The demo leaves no process and no file behind, however it ends, and never shows a traceback."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.kit import PATIENCE_S, until


@pytest.fixture
def temporary(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    for pid in processes_in(tmp_path):
        os.kill(pid, signal.SIGKILL)
    shutil.rmtree(tmp_path, ignore_errors=True)


def demo(temporary: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "simulations.demo", "--large", "1"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(temporary)},
    )


def processes_in(temporary: Path) -> list[int]:
    """Return the processes whose command names a path under this directory."""
    found = []
    for each in Path("/proc").iterdir():
        if each.name.isdigit() and int(each.name) != os.getpid():
            try:
                command = (each / "cmdline").read_bytes()
            except OSError:
                continue
            if os.fsencode(temporary) in command:
                found.append(int(each.name))
    return found


def read_until(running: subprocess.Popen[str], text: str) -> None:
    assert running.stdout is not None
    for line in running.stdout:
        if text in line:
            return
    raise AssertionError(f"the demo ended before it said {text!r}")


def test_whoever_is_impatient_leaves_nothing_behind(temporary: Path) -> None:
    running = demo(temporary)
    read_until(running, "kin init")
    assert len(processes_in(temporary)) >= 4
    running.send_signal(signal.SIGTERM)
    until(lambda: ignores(running.pid, signal.SIGINT) or running.poll() is not None, "it cleans up")
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGTERM):
        running.send_signal(number)
    _, errors = running.communicate(timeout=PATIENCE_S)
    assert running.returncode == 130, errors
    assert errors.strip() == "kin demo: interrupted"
    until(lambda: not processes_in(temporary), "what was killed is gone")  # a child's child ends a moment later
    assert not list(temporary.glob("kin-demo-*"))


def ignores(pid: int, number: int) -> bool:
    """Tell whether a process ignores a signal."""
    status = Path(f"/proc/{pid}/status").read_text()
    mask = next(line for line in status.splitlines() if line.startswith("SigIgn"))
    return bool(int(mask.split()[1], 16) >> (number - 1) & 1)


def test_its_servers_die_with_it(temporary: Path) -> None:
    running = demo(temporary)
    read_until(running, "kin init")
    assert len(processes_in(temporary)) >= 4
    running.kill()
    running.communicate(timeout=PATIENCE_S)
    until(lambda: not processes_in(temporary), "all of its processes are gone")


def test_a_reader_that_goes_away_ends_it_quietly(temporary: Path) -> None:
    running = demo(temporary)
    assert running.stdout is not None
    assert running.stderr is not None
    assert "Kinfolder" in running.stdout.readline()
    running.stdout.close()
    errors = running.stderr.read()
    running.stderr.close()
    assert running.wait(PATIENCE_S) == 1
    assert errors == ""
    assert not processes_in(temporary)
    assert not list(temporary.glob("kin-demo-*"))
