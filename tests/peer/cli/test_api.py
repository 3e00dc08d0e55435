"""The agent's socket: who may speak, what is refused, and what outlives whom."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys

import pytest

from peer.api import lines, sockets
from tests.peer.cli.conftest import PATIENCE_S, Kin, wait_for


def dial(kin: Kin) -> socket.socket:
    channel = sockets.dial(kin.home)
    assert channel is not None
    channel.settimeout(PATIENCE_S)
    return channel


def converse(kin: Kin, data: bytes) -> list[dict]:
    with dial(kin) as channel:
        try:
            channel.sendall(data)
            channel.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # it has answered and gone before it was told everything
        with channel.makefile("rb") as replies:
            return [json.loads(line) for line in replies]


def request(method: str, **params: object) -> bytes:
    return lines.encode({"version": 1, "method": method, "params": params})


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"garbage\n", "request"),
        (b"\n", "request"),
        (b"\xff\xfe\n", "request"),
        (b"[1]\n", "request"),
        (b"[" * 100_000 + b"\n", "request"),
        (b"{}\n", "request"),
        (b'{"version":1,"method":"status","params":{"all":true},"more":1}\n', "request"),
        (b'{"version":2,"method":"status","params":{}}\n', "version"),
        (b'{"version":true,"method":"status","params":{}}\n', "version"),
        (b'{"version":1,"method":["status"],"params":{}}\n', "method"),
        (request("__init__"), "method"),
        (request("run"), "method"),
        (request("add", path=1, name=None), "params"),
        (request("add", path="/x"), "params"),
        (request("sync", timeout=True), "params"),
        (request("status", all=1), "params"),
        (request("status", all=False, more=1), "params"),
        (b"x" * (lines.REQUEST_BYTES_MAX + 1) + b"\n", "limit"),
        (b'{"version":1', "request"),
    ],
)
def test_what_is_no_request_gets_one_error(served, data, code):
    (reply,) = converse(served, data)
    assert reply["error"]["code"] == code
    assert reply["error"]["exit"] == 2
    assert "Traceback" not in (served.home / "kin.log").read_text()


def test_a_line_at_the_limit_is_read(served):
    line = request("status", all=False).rstrip(b"\n")
    line += b" " * (lines.REQUEST_BYTES_MAX - len(line)) + b"\n"
    replies = converse(served, line)
    assert "result" in replies[-1]


def test_progress_comes_before_the_one_result(served):
    *before, last = converse(served, request("get", folder="docs", path="/somewhere/docs"))
    assert [set(each) for each in before] == [{"progress"}]  # the newest of its kind
    assert before[0]["progress"]["bytes_done"] == 3_000_000
    assert last["result"]["name"] == "docs"
    converse(served, request("remove", folder="docs", everywhere=False))


def test_an_answer_that_nobody_asked_for_is_refused(kin):
    kin.agent()
    assert kin("add", "endless").returncode == 0
    (*_, reply) = converse(kin, request("sync", timeout=None) + b'{"answer":{"id":"1","yes":true}}\n')
    assert reply["error"]["code"] == "request"
    wait_for(kin.home / "sync.cancelled")


def test_the_socket_is_for_its_user_alone(served):
    found = (served.home / lines.SOCKET_NAME).stat()
    assert stat.S_ISSOCK(found.st_mode)
    assert stat.S_IMODE(found.st_mode) == 0o600
    assert stat.S_IMODE(served.home.stat().st_mode) == 0o700


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be somebody else")
def test_another_user_is_refused_even_where_modes_let_it_in(kin, place):
    kin.agent()
    for path, mode in ((place, 0o755), (kin.home, 0o755), (kin.home / lines.SOCKET_NAME, 0o666)):
        path.chmod(mode)
    code = (
        "import os, socket, sys\n"
        "os.setgid(65534); os.setuid(65534)\n"
        "channel = socket.socket(socket.AF_UNIX)\n"
        "channel.connect(sys.argv[1])\n"
        "print(channel.recv(1000).decode())\n"
    )
    command = [sys.executable, "-I", "-c", code, str(kin.home / lines.SOCKET_NAME)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=True)
    assert json.loads(done.stdout)["error"]["code"] == "access_denied"


def test_a_client_that_goes_away_cancels_what_can_be_cancelled(kin):
    kin.agent()
    assert kin("add", "endless").returncode == 0
    with dial(kin) as channel:
        channel.sendall(request("wait", timeout=None))
        wait_for(kin.home / "syncing")
    wait_for(kin.home / "wait.cancelled")
    with dial(kin) as channel:
        channel.sendall(request("add", path="/somewhere/slow", name="slow"))
    while "slow" not in json.dumps(converse(kin, request("folders"))):
        pass  # what records something is finished all the same
    assert not (kin.home / "add.cancelled").exists()


def test_connections_are_bounded(kin):
    kin.agent()
    idle = [dial(kin) for _ in range(lines.CONNECTIONS_MAX)]
    (reply,) = converse(kin, b"")
    assert reply["error"]["code"] == "busy"
    for each in idle:
        each.close()
    while "error" in (reply := converse(kin, request("folders"))[-1]):
        assert reply["error"]["code"] == "busy"


def test_a_home_with_a_long_path_works(place):
    home = place
    while len(os.fsencode(home)) < 150:
        home = home / ("d" * 40)
    home.parent.mkdir(parents=True)
    kin = Kin(home)
    kin.make_device()
    kin.agent()
    assert kin("status").returncode == 0
    assert kin("stop").returncode == 0
    assert not (home / lines.SOCKET_NAME).exists()
    kin.end()


def test_an_agent_that_was_killed_leaves_nothing_in_the_way(kin):
    first = kin.agent()
    first.kill()
    first.wait()
    assert (kin.home / lines.SOCKET_NAME).exists()
    assert kin("folders").returncode == 0
    kin.agent()
    assert kin("wait", "--timeout", "5").returncode == 0


def test_a_second_agent_on_a_home_exits_1_with_one_line(kin):
    kin.agent()
    second = kin.start_agent()
    output, problem = second.communicate(timeout=PATIENCE_S)
    assert (second.returncode, output) == (1, "")
    assert problem == f"kin: an agent runs already for {kin.home}\n"
    assert kin("status").returncode == 0


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_agent_cleanly(kin, number, loop):
    agent = kin.agent(KIN_EVENT_LOOP=loop)
    assert kin("add", "endless").returncode == 0
    waiting = kin.start("wait")
    wait_for(kin.home / "syncing")
    agent.send_signal(number)
    assert agent.communicate(timeout=PATIENCE_S) == ("", "")
    assert agent.returncode == 0
    _, problem = waiting.communicate(timeout=PATIENCE_S)
    assert (waiting.returncode, problem) == (1, "kin: the agent stopped before wait was done\n")
    assert not (kin.home / lines.SOCKET_NAME).exists()


def test_stop_returns_once_the_agent_has_gone(kin):
    agent = kin.agent()
    assert kin("stop").stdout == "The agent has stopped\n"
    assert agent.wait(1) == 0


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_agent_leaves_no_core(kin):
    agent = kin.agent()
    with open(f"/proc/{agent.pid}/limits", encoding="ascii") as limits:
        (line,) = [each for each in limits if each.startswith("Max core file size")]
    assert line.split()[4:6] == ["0", "0"]
