"""The commands on real devices, with the servers of a real ``kin host``: what the doubles of the other tests stand for."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from protocol.invitations import parse_invitation
from tests.peer.cli.conftest import PATIENCE_S, environment
from tests.peer.cli.test_host import lines_until_ready

FOLDER_KEYS = {
    *("id", "name", "path", "role", "state", "position", "files", "bytes", "upload", "download", "conflicts", "held"),
    *("unsynced_total", "unsynced"),
}
STATUS_KEYS = {"version", "device", "user", "agent", "network", "lan", "storage", "in_sync", "folders"}


def start(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "peer.cli", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(KIN_LAN_INTERFACES="127.0.0.1"),
    )


def kin(home: Path, *arguments: str) -> str:
    """Run a command to its end, which must be a good one, and return its output."""
    process = start("--home", str(home), *arguments)
    output, problem = process.communicate(timeout=2 * PATIENCE_S)
    assert process.returncode == 0, (arguments, process.returncode, output, problem)
    return output


@pytest.fixture
def invitation(place):
    """Return an invitation to a home server."""
    host = start("host", "--data", str(place / "host"), "--listen", "127.0.0.1:0")
    yield lines_until_ready(host)[-2]
    host.terminate()
    host.communicate(timeout=PATIENCE_S)


def test_two_devices_share_a_folder(place, invitation):
    laptop, phone = place / "laptop", place / "phone"
    words = str(place / "words")
    kin(
        laptop,
        "init",
        "--invite",
        invitation,
        "--user",
        "anna",
        "--device",
        "Laptop",
        "--recovery-file",
        words,
        "--no-keyring",
    )
    (place / "docs").mkdir()
    (place / "docs" / "a.txt").write_text("from the laptop\n")
    kin(laptop, "add", str(place / "docs"))
    assert kin(laptop, "sync", "--timeout", "30") == "In sync\n"

    agent = start("--home", str(laptop), "run")
    assert agent.stdout is not None
    assert "ready" in agent.stdout.readline()
    showing = start("--home", str(laptop), "link-code", "--yes")
    assert showing.stdout is not None
    code = showing.stdout.readline().strip()
    url = parse_invitation(invitation).url
    kin(phone, "link", code, "--coordinator", url, "--device", "Phone", "--no-keyring", "--yes")
    assert "Phone is now a device of this account" in showing.communicate(timeout=PATIENCE_S)[1]
    kin(phone, "get", "docs", str(place / "copy"))
    assert kin(phone, "sync", "--timeout", "30") == "In sync\n"
    assert (place / "copy" / "a.txt").read_text() == "from the laptop\n"

    (place / "copy" / "b.txt").write_text("from the phone\n")
    assert kin(phone, "sync", "--timeout", "30") == "In sync\n"
    assert kin(laptop, "wait", "--timeout", "30") == "In sync\n"
    assert (place / "docs" / "b.txt").read_text() == "from the phone\n"

    (place / "docs" / "b.txt").unlink()
    assert kin(laptop, "wait", "--timeout", "30") == "In sync\n"
    assert kin(phone, "sync", "--timeout", "30") == "In sync\n"
    assert not (place / "copy" / "b.txt").exists()
    assert not list((place / "copy" / ".kinfolder" / "trash").iterdir())
    (place / "docs" / "b.txt").write_text("from the laptop\n")
    assert kin(laptop, "wait", "--timeout", "30") == "In sync\n"

    status = json.loads(kin(laptop, "status", "--json"))
    assert status.keys() >= STATUS_KEYS
    assert (status["agent"], status["in_sync"], status["folders"][0]["files"]) == ("running", True, 2)
    assert status["folders"][0].keys() >= FOLDER_KEYS
    devices = json.loads(kin(laptop, "devices", "--json"))["devices"]
    assert {each["name"] for each in devices} == {"Laptop", "Phone"}
    assert "Everything is in sync" in kin(laptop, "status")
    kin(laptop, "stop")
    assert agent.communicate(timeout=PATIENCE_S) == ("", "")
    assert agent.returncode == 0
