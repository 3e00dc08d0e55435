"""The home server: two servers started, kept running, and never left behind."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from peer.host import Address, data_place, parse_address, reachable_host
from protocol.errors import UserError
from protocol.invitations import parse_invitation
from tests.peer.cli.conftest import PATIENCE_S, environment, wait_for

CODE = """
import sys
from pathlib import Path
from peer.host import Programs, run_host
double = "tests.peer.cli.server_double"
sys.exit(run_host(Path(sys.argv[1]), "127.0.0.1:0", Programs(double, double)))
"""


def start(data: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-P", "-c", CODE, str(data)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )


def lines_until_ready(host: subprocess.Popen[str]) -> list[str]:
    assert host.stdout is not None
    lines: list[str] = []
    while not (lines and "ready" in lines[-1]):
        line = host.stdout.readline()
        assert line, host.communicate()[1]
        lines.append(line.rstrip("\n"))
    return lines


def gone(pid: int) -> bool:
    """Whether a process ends: it is not our child, so there is only asking."""
    deadline_s = time.monotonic() + PATIENCE_S
    while Path(f"/proc/{pid}").exists():
        if time.monotonic() > deadline_s:
            return False
        select.select([], [], [], 0.01)
    return True


def pids(data: Path) -> list[int]:
    return [int((data / name / "pid").read_text()) for name in ("coordinator", "storage")]


def starts(data: Path, name: str) -> list[str]:
    return (data / name / "starts").read_text().splitlines()


def test_it_starts_both_prints_an_invitation_and_stops_both(place):
    host = start(place / "data")
    lines = lines_until_ready(host)
    assert lines[-2] == "kin+ws://127.0.0.1:1/#user"
    assert lines[-1].startswith("kin host: ready, ws://127.0.0.1:")
    assert "--replicas 1 --quorum 1" in starts(place / "data", "coordinator")[0]
    assert "--invite kin+ws://127.0.0.1:1/#storage" in starts(place / "data", "storage")[0]
    children = pids(place / "data")
    host.send_signal(signal.SIGTERM)
    output, problem = host.communicate(timeout=PATIENCE_S)
    assert (host.returncode, output) == (0, "")
    assert sorted(problem.splitlines()) == ["coordinator: something happened", "storage node: something happened"]
    assert all(map(gone, children))

    host = start(place / "data")
    lines_until_ready(host)
    assert "--invite" not in starts(place / "data", "storage")[1], "the token was used at the first start"
    assert "--coordinator ws://127.0.0.1:" in starts(place / "data", "storage")[1]
    host.send_signal(signal.SIGINT)
    host.communicate(timeout=PATIENCE_S)
    assert host.returncode == 0


def test_with_the_real_servers_it_gives_an_invitation_that_can_be_read(place):
    command = [sys.executable, "-P", "-m", "peer.host", str(place / "data"), "127.0.0.1:0"]
    host = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment())
    *_, invitation, ready = lines_until_ready(host)
    url = parse_invitation(invitation).url
    assert ready == f"kin host: ready, {url}"
    host.terminate()
    host.communicate(timeout=PATIENCE_S)
    assert host.returncode == 0


def test_a_server_that_dies_is_started_again_where_it_was(place):
    host = start(place / "data")
    lines_until_ready(host)
    before = pids(place / "data")
    os.kill(before[1], signal.SIGKILL)
    assert host.stderr is not None
    while "the storage node is ready again" not in (line := host.stderr.readline()):
        assert line
        if "ended" in line:
            assert line == "the storage node ended (SIGKILL); starting it again in 0.5 s\n"
    after = pids(place / "data")
    assert (after[0], gone(before[1])) == (before[0], True)
    first, second = starts(place / "data", "storage")
    assert first == second
    host.terminate()
    host.communicate(timeout=PATIENCE_S)
    assert all(map(gone, after))


@pytest.mark.skipif(sys.platform != "linux", reason="the parent-death signal is Linux's")
def test_nothing_is_left_when_it_is_killed(place):
    host = start(place / "data")
    lines_until_ready(host)
    children = pids(place / "data")
    host.kill()
    host.communicate(timeout=PATIENCE_S)
    assert all(map(gone, children))


@pytest.mark.parametrize("name", ["coordinator", "storage"])
def test_a_server_that_does_not_start_ends_it_with_one_line_and_leaves_nothing(place, name):
    data = place / "data"
    data.mkdir()
    (data / f"{name}.fail").touch()
    host = start(data)
    output, problem = host.communicate(timeout=PATIENCE_S)
    title = "storage node" if name == "storage" else name
    assert (host.returncode, output) == (1, "")
    assert problem.splitlines()[-1] == f"kin: the {title} does not start: this port is taken"
    if name == "storage":
        assert gone(int((data / "coordinator" / "pid").read_text()))


def test_a_second_one_on_the_same_data_exits_1(place):
    host = start(place / "data")
    wait_for(place / "data" / "host.lock")
    lines_until_ready(host)
    second = start(place / "data")
    _, problem = second.communicate(timeout=PATIENCE_S)
    assert (second.returncode, problem) == (1, f"kin: {place / 'data'}: a home server runs here already\n")
    host.terminate()
    host.communicate(timeout=PATIENCE_S)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:0", Address("127.0.0.1", 0)),
        ("[::1]:80", Address("::1", 80)),
        ("a.example:65535", Address("a.example", 65535)),
    ],
)
def test_an_address_is_read_and_written(text, address):
    assert parse_address(text) == address
    assert str(address) == text


@pytest.mark.parametrize("text", ["", "host", "host:", ":80", "::1:80", "host:65536", "a b:1", "ws://a:1"])
def test_what_is_no_address_is_refused(text):
    with pytest.raises(UserError):
        parse_address(text)


def test_a_server_for_all_interfaces_is_known_by_one_of_them():
    assert reachable_host("192.168.1.5") == "192.168.1.5"
    assert reachable_host("0.0.0.0") not in {"0.0.0.0", ""}


def test_the_data_has_a_place_of_its_own(place):
    assert data_place(str(place)) == place
    assert data_place(None).name == "kinfolder-host"
