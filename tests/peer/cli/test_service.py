"""``kin service``: the unit that is written, and what systemd is asked, by a stand-in for ``systemctl``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

import pytest

from peer.commands import service
from peer.commands.service import unit_path, unit_text
from peer.commands.session import Session
from peer.commands.terminal import Terminal
from peer.config import KeyOptions, resolve_home
from peer.core.keys import AccountKeys, DeviceSecrets
from peer.store.keyfile import KeyStore
from protocol.errors import UserError

SYSTEMCTL = """#!/bin/sh
shift
echo "$1" "$2" >> "$KEEP/asked"
case "$1" in
is-active) test -e "$KEEP/active" ;;
restart) touch "$KEEP/active" ;;
disable) rm -f "$KEEP/active" ;;
show-environment) test ! -e "$KEEP/broken" ;;
esac
"""


class Machine(NamedTuple):
    root: Path
    home: Path

    @property
    def session(self) -> Session:
        return Session(str(self.home), Terminal(as_json=False))

    @property
    def unit(self) -> Path:
        return unit_path(self.home)

    def asked(self) -> list[str]:
        """Return what was done since the last time, by the word that says what."""
        path = self.root / "asked"
        lines = path.read_text().splitlines() if path.exists() else []
        path.write_text("")
        return [line.split()[0] for line in lines if not line.startswith(("is-active", "show-environment"))]


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "systemctl").write_text(SYSTEMCTL)
    (tmp_path / "bin" / "systemctl").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("KEEP", str(tmp_path))
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    (home / "state.db").touch(0o600)
    return Machine(tmp_path, home)


def give_keys(home: Path, options: KeyOptions) -> None:
    secrets = DeviceSecrets.create(os.urandom)
    KeyStore.create(
        home, secrets, AccountKeys(bytes(32), {1: bytes(32)}), options, warn=lambda _: None, find_vault=lambda: None
    )


def test_a_unit_starts_this_home_and_names_it_as_systemd_reads_it():
    unit = unit_text(Path('/a "b"/50%/$x\\y'))
    (line,) = [line for line in unit.splitlines() if line.startswith("ExecStart=")]
    assert line.endswith('"--home" "/a \\"b\\"/50%%/$$x\\\\y" "run"')
    assert "Restart=on-failure" in unit
    # Nothing that hides or protects files: folders may lie anywhere.
    assert not [word for word in ("ProtectHome", "ProtectSystem", "PrivateTmp", "ReadOnly", "UMask") if word in unit]
    with pytest.raises(UserError, match="control character"):
        unit_text(Path("/a\nExecStart=/bin/false"))


def test_each_home_has_a_unit_of_its_own():
    there = {"XDG_CONFIG_HOME": "/c"}
    assert unit_path(resolve_home(None, {}), there) == Path("/c/systemd/user/kinfolder.service")
    assert len({unit_path(Path(name), there) for name in ("/one", "/two")}) == 2


def test_installing_and_removing_twice_is_as_once(machine, capsys):
    give_keys(machine.home, KeyOptions(no_keyring=True))
    service.install(machine.session)
    assert machine.asked() == ["daemon-reload", "enable", "restart"]
    assert machine.unit.read_text() == unit_text(machine.home)
    service.install(machine.session)
    assert machine.asked() == []
    machine.unit.write_text("of an older version")
    service.install(machine.session)
    assert machine.asked() == ["daemon-reload", "enable", "restart"]
    assert machine.unit.read_text() == unit_text(machine.home)
    service.remove(machine.session)
    assert machine.asked() == ["disable", "daemon-reload"]
    assert not machine.unit.exists()
    service.remove(machine.session)
    assert machine.asked() == []
    assert "is not installed" in capsys.readouterr().out


def test_without_a_user_manager_it_says_what_to_start(machine):
    give_keys(machine.home, KeyOptions(no_keyring=True))
    (machine.root / "broken").touch()
    with pytest.raises(UserError, match=r"-m peer\.cli --home .*home run") as error:
        service.install(machine.session)
    assert error.value.exit_code == 1
    assert not machine.unit.exists()


def test_a_passphrase_must_be_in_a_file_that_the_service_finds(machine, monkeypatch):
    secret = machine.root / "secret"
    secret.write_text("a long passphrase\n")
    give_keys(machine.home, KeyOptions(passphrase_file=secret))
    monkeypatch.setenv("KIN_PASSPHRASE_FILE", str(secret))
    with pytest.raises(UserError, match=r"passphrase_file in .*settings\.toml"):
        service.install(machine.session)
    assert machine.asked() == []
    (machine.home / "settings.toml").write_text(f'passphrase_file = "{secret}"\n')
    service.install(machine.session)
    assert machine.asked() == ["daemon-reload", "enable", "restart"]


def test_a_home_without_a_device_gets_no_unit(machine):
    (machine.home / "state.db").unlink()
    with pytest.raises(UserError, match="no device here"):
        service.install(machine.session)
    assert not machine.unit.exists()
