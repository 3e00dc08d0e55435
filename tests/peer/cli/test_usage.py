"""Wrong usage, help, and what is not in this version."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
import typer

from peer.cli import SECTIONS, app
from peer.commands import later
from peer.commands.manual import describe
from protocol.errors import UserError
from tests.peer.cli.conftest import PATIENCE_S, Kin, environment

ROOT = Path(__file__).resolve().parents[3]
# fmt: off
CONTRACT = {
    "init", "link-code", "link", "recover", "add", "get", "remove", "folders", "run", "stop", "sync", "wait", "status",
    "offline", "online", "lan", "conflicts", "approve", "undo", "exclude", "share", "unshare", "history", "restore",
    "snapshot", "devices", "revoke", "doctor", "service", "host",
}
# fmt: on


def commands():
    return typer.main.get_command(app).commands  # type: ignore[attr-defined]


def test_every_command_of_the_contract_is_there_with_help_and_example():
    assert {name for name, each in commands().items() if not each.hidden} == CONTRACT
    for name in sorted(CONTRACT):
        assert commands()[name].help, name
        assert f"kin {name}" in commands()[name].epilog, name


def test_the_manual_is_the_one_that_the_commands_write():
    current = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
    assert current == describe(typer.main.get_command(app), SECTIONS), "kin manual > docs/commands.md"


@pytest.mark.parametrize("name", [name for name, _, _ in later.COMMANDS])
def test_what_is_not_in_this_version_refuses_whatever_it_is_given(name):
    with pytest.raises(UserError) as error:
        app([name, "docs", "--to", "x", "-q"], standalone_mode=False)
    assert (error.value.exit_code, str(error.value)) == (2, "not in this version")


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["frobnicate"], "No such command 'frobnicate'"),
        (["get", "docs"], "Missing argument 'PATH'"),
        (["status", "--frob"], "No such option: --frob"),
        (["wait", "--timeout", "soon"], "'--timeout'"),
        (["wait", "--timeout", "-1"], "'--timeout'"),
        (["sync", "--timeout", "inf"], "--timeout"),
        (["init", "--device", "Laptop"], "Missing option '--user'"),
        (["conflicts", "--keep", "a", "--drop", "b"], "give one of --keep and --drop"),
        (["exclude", "--remove"], "name the path"),
        (
            ["service", "restart"],
            "'install|remove': 'restart' is not one of 'install', 'remove'. See: kin service --help",
        ),
        (["stauts"], "Did you mean 'status'? See: kin --help"),
        (["host", "--listen", "here"], "'here' is not HOST:PORT"),
        (["recover", "--recovery-file", "words"], "not in this version"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(place, arguments, line):
    done = Kin(place / "none")(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert line in done.stderr


def test_wrong_usage_with_json_is_one_object_and_nothing_else(place):
    done = Kin(place / "none")("status", "--json", "--frob")
    assert (done.returncode, done.stderr) == (2, "")
    assert json.loads(done.stdout) == {"version": 1, "error": {"code": "usage", "text": done_text(done)}}


def done_text(done: subprocess.CompletedProcess[str]) -> str:
    text = json.loads(done.stdout)["error"]["text"]
    assert "--frob" in text
    return str(text)


@pytest.mark.parametrize("option", ["--version", "--help"])
def test_the_program_speaks_wherever_it_is_started_from(place, option):
    """A folder that holds a peer/ of its own must not be taken for the program's."""
    (place / "peer").mkdir()
    (place / "peer" / "__init__.py").write_text("raise SystemExit('the wrong one')\n")
    command = [sys.executable, "-P", "-m", "peer.cli", option]
    done = subprocess.run(command, cwd=place, capture_output=True, text=True, env=environment(), check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("kin " if option == "--version" else "Usage: kin ")
    assert "\x1b" not in done.stdout


def test_the_agent_holds_nothing_of_the_command_line():
    code = "import peer.commands.run, peer.host, structlog, sys; print(*{'typer', 'rich', 'sqlalchemy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


@pytest.mark.parametrize(
    ("settings", "env", "line"),
    [
        ("lgo = 'debug'", {}, "no setting is called 'lgo'"),
        ("log = 'loud'", {}, "log in "),
        ("log =", {}, "settings.toml"),
        ("", {"KIN_LOG": "loud"}, "KIN_LOG is 'loud'"),
        ("", {"KIN_LAN_INTERFACES": "eth0"}, "KIN_LAN_INTERFACES"),
        ("event_loop = 'uvloop'\nlan_interfaces = '127.0.0.1'", {}, "not a list"),
    ],
)
def test_a_setting_that_is_not_understood_is_named(kin, settings, env, line):
    (kin.home / "settings.toml").write_text(settings)
    done = kin("folders", **env)
    assert done.returncode == 2
    assert line in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_completes_commands_and_names_of_folders(kin, shell):
    kin.agent()
    assert kin("add", "/somewhere/photos").returncode == 0
    typed = f"kin --home {kin.home} get pho"
    env = {
        "_KIN_COMPLETE": f"complete_{shell}",
        "COMP_WORDS": typed,
        "COMP_CWORD": "4",
        "_TYPER_COMPLETE_ARGS": typed,
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
    }
    done = subprocess.run(kin.command()[:4], capture_output=True, text=True, env=environment(**env), check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "photos" in done.stdout


INTERRUPT = """
import signal, subprocess, sys, time
child = subprocess.Popen(sys.argv[2:])
time.sleep(float(sys.argv[1]))
child.send_signal(signal.SIGINT)
print(child.wait())
"""


@pytest.mark.parametrize("delay_s", [0.0, 0.005, 0.01, 0.02, 0.03, 0.05, 0.08, 0.12, 0.2])
def test_ctrl_c_while_a_command_starts_shows_no_traceback(place, delay_s):
    script = Path(sysconfig.get_path("scripts")) / "kin"
    done = subprocess.run(
        [sys.executable, "-I", "-c", INTERRUPT, str(delay_s), str(script), "--home", str(place / "home"), "status"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert "Traceback" not in done.stderr
    assert "KeyboardInterrupt" not in done.stderr
    assert int(done.stdout.splitlines()[-1]) in {1, 130, -signal.SIGINT}
