"""Each command, with and without an agent: what it prints, as what it exits, and what it leaves."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time

import pytest

from tests.peer.cli.conftest import Kin, wait_for

INIT = ("init", "--coordinator", "ws://127.0.0.1:9", "--user", "anna", "--device", "Laptop")


def test_without_a_device_every_command_says_so(place):
    kin = Kin(place / "none")
    for command, code in (("status", 1), ("sync", 1), ("wait", 5), ("stop", 5)):
        done = kin(command)
        assert (done.returncode, done.stdout) == (code, "")
        assert "no device here" in done.stderr
    assert not kin.home.exists()


def test_without_an_agent_commands_open_the_home_themselves(kin):
    assert kin("add", "docs", "--name", "papers").stdout == f"{os.getcwd()}/docs is the folder papers\n"
    done = kin("folders", "--json")
    assert done.stdout.count("\n") == 1
    assert [each["name"] for each in json.loads(done.stdout)["folders"]] == ["papers", "away"]
    done = kin("status", "--json")
    assert json.loads(done.stdout)["agent"] == "stopped"
    done = kin("link-code", "--yes")
    assert (done.returncode, done.stdout) == (0, "7-amber-lion-tree\n")
    done = kin("sync")
    assert (done.returncode, done.stdout, done.stderr) == (0, "In sync\n", "")
    assert kin("offline").returncode == 0
    done = kin("sync")
    assert (done.returncode, done.stderr) == (1, "kin: this device is offline; kin online ends it\n")
    assert kin("online").returncode == 0


def test_lan_shows_what_was_found_and_is_switched(served):
    assert served("lan").stdout.splitlines() == [
        "1 device found on this network",
        "  Pho\\x1bne at 192.168.1.7",
        "  from devices 2.0 MB, to devices 0 B",
        "  from storage nodes 5 B, to storage nodes 7 B",
    ]
    assert json.loads(served("lan", "--json").stdout)["found"][0]["address"] == "192.168.1.7"
    assert served("lan", "off").stdout == "Other devices are not looked for on this network; kin lan on does\n"
    assert json.loads(served("lan", "--json").stdout)["enabled"] is False
    assert served("lan", "on").returncode == 0
    assert served("lan", "sideways").returncode == 2


def test_lan_is_switched_without_an_agent_too(kin):
    assert "while the agent runs" in kin("lan").stdout
    assert kin("lan", "off").returncode == 0
    assert json.loads(kin("lan", "--json").stdout)["enabled"] is False


def test_wait_needs_an_agent_and_gives_one_that_starts_ten_seconds(kin):
    done = kin("stop")
    assert (done.returncode, done.stdout) == (5, "")
    waiting = kin.start("wait", "--timeout", "5")
    kin.agent()
    output, problem = waiting.communicate(timeout=20)
    assert (waiting.returncode, output, problem) == (0, "In sync\n", "")


def test_with_an_agent_every_command_answers(served):
    assert served("folders").stdout.splitlines()[-1].split() == [
        *("away", "not", "on", "this", "device"),
        *("kin", "get", "away", "PATH", "reader", "2", "members"),
    ]
    done = served("get", "docs", "/somewhere/docs")
    assert (done.returncode, done.stdout) == (0, "/somewhere/docs is the folder docs\n")
    assert served("remove", "docs", "--everywhere").returncode == 0
    done = served("conflicts")
    assert done.stdout.splitlines() == [
        "docs/a.txt",
        "  also as a (conflict, Laptop, 1a2b3c4d).txt (anna on Laptop, 2026-01-02 03:04, 12 B)",
    ]
    done = served("devices")
    assert [line.split("  ")[0] for line in done.stdout.splitlines()] == ["Laptop", "Phone", "Lost"]
    done = served("status")
    assert "the agent is running" in done.stdout
    assert "there is 1 copy of everything" in done.stdout
    assert "15 items: has a bad name" in done.stdout
    assert "and 10 more" in done.stdout
    assert "and 10 more" not in served("status", "--all").stdout


def test_what_a_person_says_of_a_mass_change(served):
    assert served("approve", "docs").stdout == "docs: the change of 1,200 files passes\n"
    done = served("approve", "photos")
    assert (done.returncode, done.stderr) == (1, "kin: no change of photos waits to be approved\n")
    done = served("undo", "docs")
    assert done.stdout.splitlines() == [
        "docs: the change that waited is dropped; 2 files come back",
        "  what had been written instead lies in /docs/.kinfolder/undone/2026 docs; delete it when you need it no more",
    ]
    assert "as soon as they can be fetched" in done.stderr
    assert served("undo", "photos").stdout == "photos: the change of 2026-01-02 03:04 is undone; 2 files came back\n"


def test_a_dry_run_is_shown_in_words(served):
    assert served("sync", "--dry-run").stdout.splitlines() == [
        "docs:",
        "  rename here: a -> b",
        "  send: c (3.0 KB)",
        "  and 5 more",
        "rest: nothing to do",
    ]
    assert json.loads(served("sync", "--dry-run", "--json").stdout)["folders"][0]["plan"][1]["bytes"] == 3_000


@pytest.mark.parametrize("command", ["status", "folders", "conflicts", "devices"])
def test_json_is_exactly_one_object(served, command):
    done = served(command, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.isascii()
    assert done.stdout.count("\n") == 1
    assert json.loads(done.stdout)["version"] == 1


def test_names_reach_scripts_as_they_are_and_people_as_escapes(served):
    row = json.loads(served("status", "--json").stdout)["folders"][0]["unsynced"][0]
    assert os.fsencode(row["path"]) == b"b\xff\x1b[2J.txt0"
    done = served("status", LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0")
    assert "\\xff\\x1b[2J.txt0" in done.stdout
    assert done.stdout.isascii()
    assert "\x1b" not in done.stdout


def test_a_path_that_is_not_utf8_reaches_the_device_unchanged(kin):
    assert kin("add", b"/somewhere/b\xff").returncode == 0
    path = json.loads(kin("folders", "--json").stdout)["folders"][0]["path"]
    assert os.fsencode(path) == b"/somewhere/b\xff"


@pytest.mark.parametrize(
    ("folder", "code", "said"),
    [
        ("docs", 0, ""),
        ("endless", 3, "kin: not in sync: time is over: 1 file of endless to send\n"),
        ("held", 4, "kin: not in sync: held: 12 deletions wait for you\n  a\\x1b[31m.txt\n"),
    ],
)
def test_sync_and_wait_exit_as_the_device_says(kin, folder, code, said):
    kin.agent()
    assert kin("add", folder).returncode == 0
    for command in ("sync", "wait"):
        done = kin(command, "--timeout", "5")
        assert (done.returncode, done.stderr) == (code, said)
        assert done.stdout == ("In sync\n" if code == 0 else "")


def test_a_long_list_of_what_is_not_in_sync_is_cut(kin):
    kin.agent()
    assert kin("add", "many").returncode == 0
    done = kin("wait", "--timeout", "5")
    lines = done.stderr.splitlines()
    assert (done.returncode, lines[0], len(lines)) == (3, "kin: not in sync: file 0", 11)
    assert lines[-1] == "  and 1,490 more (kin status --all)"
    assert len(json.loads(kin("wait", "--timeout", "5", "--json").stdout)["remains"]) == 1_000


def test_errors_of_the_device_are_one_line_with_their_exit_code(served):
    done = served("add", "quorum")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "kin: 1 of 2 storage nodes can be reached\n"


@pytest.mark.parametrize("with_agent", [True, False])
def test_a_defect_is_one_line_that_names_the_log_and_no_traceback(kin, with_agent):
    if with_agent:
        kin.agent()
    done = kin("add", "crash")
    log = kin.home / "kin.log"
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"kin: add failed: KeyError: 'a row' (log: {log})\n"
    assert "Traceback" not in log.read_text()
    assert "add failed: KeyError: 'a row'" in log.read_text()
    assert log.stat().st_mode & 0o777 == 0o600


def test_a_defect_leaves_its_traceback_in_the_log_when_asked_for(kin):
    assert kin("add", "crash", KIN_LOG="debug").stderr.count("\n") == 1
    assert "Traceback" in (kin.home / "kin.log").read_text()


def test_init_without_a_terminal_needs_places_for_the_words_and_the_key(place):
    kin = Kin(place / "home")
    done = kin(*INIT)
    assert done.returncode == 2
    assert "--recovery-file" in done.stderr
    words = place / "words"
    done = kin(*INIT, "--recovery-file", str(words))
    assert done.returncode == 2
    assert "--no-keyring" in done.stderr
    done = kin(*INIT, "--recovery-file", str(words), "--no-keyring")
    assert (done.returncode, done.stderr) == (0, "kin: the key lies open in the home\n")
    assert words.exists()
    assert kin.home.stat().st_mode & 0o777 == 0o700
    assert kin("folders").returncode == 0


def test_init_takes_the_passphrase_file_of_the_environment(place):
    kin = Kin(place / "home")
    done = kin(*INIT, "--recovery-file", str(place / "words"), KIN_PASSPHRASE_FILE=str(place / "secret"))
    assert (done.returncode, done.stderr) == (0, "")


def test_linking_without_a_terminal_needs_yes_on_both_sides(kin, place):
    new = Kin(place / "new")
    for done in (kin("link-code"), new("link", "7-amber-lion-tree", "--device", "Phone")):
        assert done.returncode == 2
        assert "--yes" in done.stderr
    done = new("link", "7-amber-lion-tree", "--device", "Phone", "--yes")
    assert (done.returncode, done.stdout) == (0, "Phone is now a device of anna\n")


@pytest.mark.parametrize("with_agent", [True, False])
def test_an_interrupted_command_is_cancelled_and_exits_130(kin, with_agent):
    agent = kin.agent() if with_agent else None
    assert kin("add", "endless").returncode == 0
    syncing = kin.start("sync")
    wait_for(kin.home / "syncing")
    syncing.send_signal(signal.SIGINT)
    output, problem = syncing.communicate(timeout=20)
    assert (syncing.returncode, output, problem) == (130, "", "")
    wait_for(kin.home / "sync.cancelled")
    if agent is not None:
        assert kin("folders").returncode == 0


def test_a_reader_that_goes_away_is_no_defect(served):
    done = subprocess.run(
        ["/bin/sh", "-c", '"$@" | true', "sh", *served.command("status")], capture_output=True, text=True, check=False
    )
    assert done.stderr == ""


@pytest.mark.parametrize("command", [("folders",), ("status", "--json")])
def test_a_full_disk_behind_the_output_is_one_line(served, command):
    with open("/dev/full", "w", encoding="utf-8") as full:
        done = subprocess.run(
            served.command(*command),
            stdout=full,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
            check=False,
        )
    assert done.returncode == 1
    assert "No space left" in done.stderr
    assert done.stderr.count("\n") == 1


def test_commands_wait_for_each_other_on_one_home(kin):
    slow = kin.start("add", "slow")
    wait_for(kin.home / "lock")
    started_s = time.monotonic()
    assert kin("add", "docs").returncode == 0
    assert time.monotonic() - started_s < 5
    assert slow.wait(20) == 0
    slow.communicate()
    names = {each["name"] for each in json.loads(kin("folders", "--json").stdout)["folders"]}
    assert names == {"slow", "docs", "away"}
