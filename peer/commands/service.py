"""``service``: the agent as a unit of systemd's user manager, one for each home.

Rule 1: installing twice, or removing what is not there, changes nothing and is no error.
Rule 2: the unit's bounds take nothing from the agent that the folders need: their files may lie anywhere.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from blake3 import blake3

from peer.api.client import Agent
from peer.commands.session import Session
from peer.config import Settings, load_settings, resolve_home
from peer.store.home import DATABASE
from peer.store.keyfile import Lock, lock_of
from protocol.errors import UserError

SYSTEMCTL_S_MAX: Final = 60.0
NAME: Final = "kinfolder"

UNIT: Final = """\
[Unit]
Description=Kinfolder: keeps folders the same on all of your devices
After=network-online.target
StartLimitIntervalSec=300
StartLimitBurst=10

[Service]
Type=exec
ExecStart={command}
Restart=on-failure
RestartSec=5
RestartPreventExitStatus=2
TimeoutStopSec=45
LimitCORE=0
NoNewPrivileges=yes
LockPersonality=yes
RestrictRealtime=yes
RestrictNamespaces=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
SystemCallArchitectures=native

[Install]
WantedBy=default.target
"""
"""Only bounds that need no view of the files of its own: folders may lie anywhere, also on disks mounted later."""


def install(session: Session) -> None:
    """Have systemd start this home's agent when its user logs in, and now.

    Raises:
        UserError: There is no device, no user manager, an agent runs already, or its keys need a person.
    """
    settings = session.settings
    path, unit = unit_path(settings.home), unit_text(settings.home)
    if not (settings.home / DATABASE).exists():
        raise UserError(f"{settings.home}: no device here; make one with kin init, or kin link", code="no_device")
    _check_keys(settings)
    _check_manager(settings)
    known = path.exists() and path.read_text(encoding="utf-8") == unit
    if known and _systemctl("is-active", "--quiet", path.name) == 0:
        session.terminal.say(f"The service {path.name} is installed and running already")
        return
    agent = Agent.dial(settings.home)
    if agent is not None and _systemctl("is-active", "--quiet", path.name) != 0:
        agent.close()
        raise UserError("an agent runs already, started by hand: kin stop ends it, then install the service")
    if not known:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(unit, encoding="utf-8")
    for arguments in (("daemon-reload",), ("enable", path.name), ("restart", path.name)):
        if _systemctl(*arguments):
            raise UserError(
                f"systemctl --user {' '.join(arguments)} failed; 'systemctl --user status {path.name}' says why"
            )
    session.terminal.say(f"The service {path.name} is installed and running; it starts when you log in")
    session.terminal.note("To have it run while you are logged out: loginctl enable-linger")


def remove(session: Session) -> None:
    """End the service and forget its unit; files and device stay.

    Raises:
        UserError: The unit is there, and no user manager answers.
    """
    path = unit_path(session.settings.home)
    if not path.exists():
        session.terminal.say(f"The service {path.name} is not installed")
        return
    _check_manager(session.settings)
    _systemctl("disable", "--now", path.name)
    path.unlink(missing_ok=True)
    _systemctl("daemon-reload")
    session.terminal.say(f"The service {path.name} is removed; kin run starts the agent by hand")


def unit_path(home: Path, environment: Mapping[str, str] | None = None) -> Path:
    """Return where a home's unit stands; the default home's has the plain name."""
    environment = os.environ if environment is None else environment
    base = environment.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    is_default = home == resolve_home(None, {})
    name = NAME if is_default else f"{NAME}-{blake3(os.fsencode(home)).hexdigest()[:8]}"
    return Path(base) / "systemd" / "user" / f"{name}.service"


def unit_text(home: Path) -> str:
    """Return a home's unit."""
    return UNIT.format(command=" ".join(_quoted(word) for word in _command(home)))


def _command(home: Path) -> tuple[str, ...]:
    """Return what starts a home's agent, wherever it is started: kin itself need not be on anybody's PATH."""
    return sys.executable, "-P", "-m", "peer.cli", "--home", str(home), "run"


def _quoted(word: str) -> str:
    """Return a word of a command line as systemd reads it (systemd.service(5), "Command lines")."""
    if any(ord(character) < 0x20 for character in word):
        raise UserError("the home's path holds a control character, which no unit can name")
    for special, escaped in (("\\", "\\\\"), ('"', '\\"'), ("%", "%%"), ("$", "$$")):
        word = word.replace(special, escaped)
    return f'"{word}"'


def _check_keys(settings: Settings) -> None:
    """A service has nobody to ask for a passphrase."""
    file = load_settings(settings.home, {}).passphrase_file  # what this shell's environment says, no service sees
    if lock_of(settings.home) is Lock.PASSPHRASE and file is None:
        raise UserError(
            f"the keys are under a passphrase, and a service cannot ask for it: name a file of yours that holds it, as "
            f"passphrase_file in {settings.home / 'settings.toml'}"
        )


def _check_manager(settings: Settings) -> None:
    if shutil.which("systemctl") is not None and _systemctl("show-environment") == 0:
        return
    run = shlex.join(_command(settings.home))
    raise UserError(f"systemd's user manager does not answer here: have your session or your init start this: {run}")


def _systemctl(*arguments: str) -> int:
    """Run ``systemctl --user`` and return its exit code; 1 if it does not end."""
    try:
        done = subprocess.run(
            ["systemctl", "--user", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=SYSTEMCTL_S_MAX,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return 1
    return done.returncode
