"""Settings from options, environment and file, in this order."""

from __future__ import annotations

from pathlib import Path

import pytest

from peer.config import SETTINGS_BYTES_MAX, Settings, load_settings, resolve_home
from protocol.errors import UserError


def test_the_home_is_named_by_option_environment_or_platform():
    assert resolve_home("/a/../b", {"KIN_HOME": "/c"}) == Path("/b")
    assert resolve_home(None, {"KIN_HOME": "/c"}) == Path("/c")
    assert resolve_home(None, {"KIN_HOME": ""}).name == "kinfolder"
    assert resolve_home("here", {}) == Path.cwd() / "here"


def test_the_environment_wins_over_the_file_and_that_over_the_defaults(place):
    assert load_settings(place, {}) == Settings(place)
    (place / "settings.toml").write_text("log = 'debug'\nlan_interfaces = ['127.0.0.1', '::1']\n")
    assert load_settings(place, {}) == Settings(place, log="debug", lan_interfaces=("127.0.0.1", "::1"))
    environment = {"KIN_LOG": "warning", "KIN_LAN_INTERFACES": "10.0.0.1, 10.0.0.2", "KIN_PASSPHRASE_FILE": "/secret"}
    assert load_settings(place, environment) == Settings(
        place, log="warning", lan_interfaces=("10.0.0.1", "10.0.0.2"), passphrase_file=Path("/secret")
    )


def test_an_empty_variable_counts_as_none(place):
    assert load_settings(place, {"KIN_LOG": "", "KIN_LAN_INTERFACES": ""}) == Settings(place)


def test_a_settings_file_is_bounded(place):
    text = "#" * (SETTINGS_BYTES_MAX - 1) + "\n"
    (place / "settings.toml").write_text(text)
    assert load_settings(place, {}) == Settings(place)
    (place / "settings.toml").write_text(text + "#")
    with pytest.raises(UserError):
        load_settings(place, {})
