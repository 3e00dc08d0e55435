"""What a device is told from outside: its home, the environment and the settings file, as frozen values.

Rule 1: a command's option wins over the environment, the environment over ``settings.toml``, and that over the default.
Rule 2: a setting that is not understood is an error that names it, never ignored.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from protocol import limits
from protocol.errors import EXIT_USAGE, UserError

SETTINGS_NAME: Final = "settings.toml"
LOG_NAME: Final = "kin.log"
LOG_LEVELS: Final = ("debug", "info", "warning")
EVENT_LOOPS: Final = ("auto", "uvloop", "asyncio")
SETTINGS_BYTES_MAX: Final = 64 * 1024


@dataclass(frozen=True)
class KeyOptions:
    """How the device's keys are locked and unlocked (contract, "Keys")."""

    no_keyring: bool = False
    """Leave the system's keyring alone."""
    passphrase_file: Path | None = None
    """Its first line is the passphrase that seals the keys."""
    ask: Callable[[str], str] | None = None
    """Ask a person for a passphrase, with this prompt; in the main thread. None where nobody can be asked."""


@dataclass(frozen=True)
class Settings:
    """Everything that one process of a device is told from outside."""

    home: Path
    """Absolute; holds one device's state."""
    log: str = "info"
    passphrase_file: Path | None = None
    lan_interfaces: tuple[str, ...] | None = None
    """Addresses that LAN discovery and exchange are limited to; None: all interfaces."""
    lan_port: int = 0
    """Where this device listens for others on the LAN; 0: a free port at each start."""
    spool_bytes: int = limits.SPOOL_BYTES_MAX
    """The most that may wait on this disk for storage; a share of the free disk bounds it too. 0: no spool."""
    event_loop: str = "auto"
    """``auto`` is uvloop where it is installed."""

    @property
    def log_path(self) -> Path:
        """The log of the agent and of the commands that do its work."""
        return self.home / LOG_NAME


def resolve_home(option: str | None, environment: Mapping[str, str] | None = None) -> Path:
    """Return the home that ``--home``, else ``KIN_HOME``, else the platform names, as an absolute path."""
    environment = os.environ if environment is None else environment
    named = option or environment.get("KIN_HOME")
    if named:
        return Path(os.path.abspath(os.path.expanduser(named)))
    import platformdirs

    return platformdirs.user_data_path("kinfolder", appauthor=False)


def load_settings(home: Path, environment: Mapping[str, str] | None = None) -> Settings:
    """Return the settings of this home under this environment.

    Raises:
        UserError: The file or a variable holds something else than the settings described here.
    """
    environment = os.environ if environment is None else environment
    values: dict[str, Any] = {"home": home}
    for name, value in _read_file(home / SETTINGS_NAME).items():
        check = _CHECKS.get(name)
        if check is None:
            raise _refused(f"{home / SETTINGS_NAME}: no setting is called {name!r}; there are {', '.join(_CHECKS)}")
        values[name] = check(value, f"{name} in {home / SETTINGS_NAME}")
    for variable, name in _VARIABLES.items():
        if text := environment.get(variable):
            listed = name == "lan_interfaces"
            values[name] = _CHECKS[name](text.split(",") if listed else text, variable)
    return Settings(**values)


def key_options(settings: Settings, *, no_keyring: bool = False, passphrase_file: str | None = None) -> KeyOptions:
    """Return how to open this device's keys; a person is asked only where standard input is a terminal."""
    file = Path(os.path.abspath(passphrase_file)) if passphrase_file else settings.passphrase_file
    return KeyOptions(
        no_keyring=no_keyring, passphrase_file=file, ask=_ask if sys.stdin is not None and sys.stdin.isatty() else None
    )


def _ask(prompt: str) -> str:
    import getpass

    # An event loop takes Ctrl-C as a task for later; while a person is asked, it must end the question.
    taken = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return getpass.getpass(prompt)
    except EOFError:
        raise UserError("no passphrase was given") from None
    finally:
        signal.signal(signal.SIGINT, taken)


def _refused(text: str) -> UserError:
    return UserError(text, exit_code=EXIT_USAGE, code="settings")


def _read_file(path: Path) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            data = file.read(SETTINGS_BYTES_MAX + 1)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from error
    import tomllib

    try:
        if len(data) > SETTINGS_BYTES_MAX:
            raise ValueError(f"it is longer than {SETTINGS_BYTES_MAX} bytes")
        return tomllib.loads(data.decode())
    except ValueError as error:
        raise _refused(f"{path}: {error}") from error


def _one_of(choices: tuple[str, ...]) -> Callable[[Any, str], str]:
    def check(value: Any, where: str) -> str:
        if value not in choices:
            raise _refused(f"{where} is {value!r}; it can be {', '.join(choices)}")
        return str(value)

    return check


def _path(value: Any, where: str) -> Path:
    if not isinstance(value, str) or not value:
        raise _refused(f"{where} is not a path")
    return Path(os.path.abspath(os.path.expanduser(value)))


def _addresses(value: Any, where: str) -> tuple[str, ...]:
    import ipaddress

    if not isinstance(value, list):
        raise _refused(f"{where} is not a list of addresses")
    try:
        return tuple(str(ipaddress.ip_address(str(item).strip())) for item in value)
    except ValueError as error:
        raise _refused(f"{where}: {error}") from error


def _port(value: Any, where: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 16:
        raise _refused(f"{where} is no port: 0 to 65535")
    return value


def _bytes(value: Any, where: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= limits.SPOOL_BYTES_MAX:
        raise _refused(f"{where} is no number of bytes: 0 to {limits.SPOOL_BYTES_MAX}")
    return value


_CHECKS: Final[dict[str, Callable[[Any, str], Any]]] = {
    "log": _one_of(LOG_LEVELS),
    "passphrase_file": _path,
    "lan_interfaces": _addresses,
    "lan_port": _port,
    "spool_bytes": _bytes,
    "event_loop": _one_of(EVENT_LOOPS),
}
_VARIABLES: Final = {
    "KIN_LOG": "log",
    "KIN_PASSPHRASE_FILE": "passphrase_file",
    "KIN_LAN_INTERFACES": "lan_interfaces",
    "KIN_EVENT_LOOP": "event_loop",
}
