"""What somebody does who tries Kinfolder for the first time, and gets wrong: one clear line, and nothing spoilt by it."""

from __future__ import annotations

import http.server
import json
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from simulations.processes import STOP_S, Cluster, Device, command, environment
from tests.e2e.kit import Result, agents, ask, assert_no_tracebacks, folder_of, run, run_command, start_agent, until


class World(NamedTuple):
    cluster: Cluster
    laptop: Device
    root: Path


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with Cluster(tmp_path_factory.mktemp("new") / "cluster", nodes=0) as cluster:
        yield World(cluster, cluster.first_device("laptop"), cluster.root)
    assert_no_tracebacks(cluster)


def assert_one_line(result: Result, code: int, *named: str) -> None:
    """A command failed in one line that names these."""
    assert result.code == code, result
    assert len(result.err.strip().splitlines()) == 1, result
    for name in named:
        assert name in result.err, result


def names_of_devices(device: Device) -> list[str]:
    return [each["name"] for each in json.loads(run(device, "devices", "--json").out)["devices"]]


def test_a_device_that_has_no_place_for_its_keys_is_not_let_in_and_the_code_stays_good(
    world: World, tmp_path: Path
) -> None:
    showing = subprocess.Popen(
        command("peer.cli", "--home", str(world.laptop.home), "link-code", "--yes"),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    try:
        assert showing.stdout is not None
        code = showing.stdout.readline().strip()
        phone = Device(world.cluster, "phone", tmp_path / "phone")
        (tmp_path / "empty").write_text("")
        link = ("link", code, "--coordinator", world.cluster.url, "--device", "phone", "--yes")
        assert_one_line(run(phone, *link), 2, "keyring")
        assert_one_line(run(phone, *link, "--passphrase-file", str(tmp_path / "missing")), 1, "missing")
        assert_one_line(run(phone, *link, "--passphrase-file", str(tmp_path / "empty")), 1, "passphrase")
        assert showing.poll() is None
        assert run(phone, *link, "--no-keyring").code == 0
        showing.communicate(timeout=STOP_S)
        assert showing.returncode == 0
    finally:
        if showing.poll() is None:
            showing.kill()
            showing.communicate()
    assert sorted(names_of_devices(world.laptop)) == ["laptop", "phone"]


def test_an_invitation_is_not_used_by_who_has_no_place_for_his_keys(world: World, tmp_path: Path) -> None:
    eve = Device(world.cluster, "eve", tmp_path / "eve")
    token = world.cluster.invite()
    init = ("init", "--coordinator", world.cluster.url, "--invite", token, "--user", "eve", "--device", "x")
    words = ("--recovery-file", str(tmp_path / "words"))
    assert_one_line(run(eve, *init, *words), 2, "keyring")
    assert_one_line(run(eve, *init, *words, "--passphrase-file", str(tmp_path / "missing")), 1, "missing")
    assert not (tmp_path / "words").exists()
    assert run(eve, *init, *words, "--no-keyring").code == 0
    # From now on it is a device, which is said before anything else that would be wrong.
    assert_one_line(run(eve, *init), 1, "is a device already")
    assert_one_line(run(eve, "link", "nonsense", "--device", "x"), 1, "is a device already")
    start_agent(eve, tmp_path)
    assert_one_line(run(eve, *init, "--recovery-file", str(tmp_path / "others")), 1, "is a device already")
    eve.stop()


def test_an_empty_path_or_name_is_not_the_working_directory(world: World, tmp_path: Path) -> None:
    assert_one_line(run(world.laptop, "add", ""), 2, "PATH is empty")
    assert_one_line(run(world.laptop, "get", "x", ""), 2, "PATH is empty")
    assert_one_line(run(world.laptop, "get", "", str(tmp_path / "x")), 2, "FOLDER is empty")
    assert_one_line(run(world.laptop, "remove", ""), 2, "FOLDER is empty")


@pytest.mark.parametrize("name", ["", "a/b", "..", ".", " ", "two\nlines", "\x1b[2J"])
def test_a_name_that_no_path_can_begin_with_is_no_folders_name(world: World, tmp_path: Path, name: str) -> None:
    assert_one_line(run(world.laptop, "add", str(tmp_path / "x"), "--name", name), 2, "--name")
    assert not (tmp_path / "x").exists()


def test_kinfolders_own_data_becomes_no_folder(world: World, tmp_path: Path) -> None:
    for place in ("coordinator", "coordinator/below", "."):
        result = run(world.laptop, "add", str(world.root / place))
        assert result.code == 1, result
        assert len(result.err.strip().splitlines()) == 1, result
    assert_one_line(run(world.laptop, "add", str(world.root / "coordinator")), 1, "a coordinator's data")
    other = tmp_path / "other"
    other.mkdir(mode=0o700)
    for name in ("state.db", "lock"):
        (other / name).touch()
    assert_one_line(run(world.laptop, "add", str(other)), 1, "a device's state")
    assert_one_line(run(world.laptop, "add", str(tmp_path)), 1, str(other))
    folder = tmp_path / "good"
    assert run(world.laptop, "add", str(folder), "--name", "good").code == 0
    assert run(world.laptop, "remove", "good").code == 0
    assert_one_line(run(world.laptop, "get", "good", str(other / "in it")), 1, "a device's state")


def test_without_an_agent_status_says_that_it_tells_of_the_last_look(world: World, tmp_path: Path) -> None:
    folder = tmp_path / "docs"
    assert run(world.laptop, "add", str(folder), "--name", "docs").code == 0
    world.laptop.sync()
    (folder / "new").write_text("written since")
    result = run(world.laptop, "status")
    assert "Everything was in sync when last looked at" in result.out, result
    assert "no agent runs" in result.out
    state = json.loads(run(world.laptop, "status", "--json").out)
    assert "last looked at" in folder_of(state, "docs")["text"]
    with agents(world.root, world.laptop):
        text = until(lambda: folder_of(ask(world.laptop), "docs"), "the agent knows the folder")["text"]
        assert "last looked at" not in text
    assert run(world.laptop, "remove", "docs").code == 0


def test_what_cannot_be_reached_or_used_is_named_in_words(world: World, tmp_path: Path) -> None:
    other = Device(world.cluster, "other", tmp_path / "other")
    init = ("init", "--user", "eve", "--no-keyring", "--recovery-file", str(tmp_path / "words"))
    at = (*init, "--device", "x", "--invite", "x", "--coordinator")
    assert_one_line(run(other, *at, "ws://127.0.0.1:1"), 1, "ws://127.0.0.1:1", "nothing listens there")
    assert_one_line(run(other, *at, "wss://nowhere.invalid:1"), 1, "wss://nowhere.invalid:1", "name is not known")
    with http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as web:
        threading.Thread(target=web.handle_request, daemon=True).start()
        url = f"ws://127.0.0.1:{web.server_port}"
        assert_one_line(run(other, *at, url), 1, url, "something else")
    assert_one_line(run(other, *init, "--device", "x"), 2, "--invite")
    result = run(other, *init, "--device", "x", "--coordinator", world.cluster.url)
    assert (result.code, "--invite is missing" in result.err) == (2, True), result
    assert_one_line(run(other, *init, "--device", "x" * 300, "--coordinator", world.cluster.url), 2, "--device", "255")
    for program, *more in (
        ("peer.cli", "host"),
        ("coordinator.cli", "serve", "--listen", "127.0.0.1:0"),
        ("storage_node.cli", "serve", "--listen", "127.0.0.1:0", "--coordinator", world.cluster.url, "--invite", "x"),
    ):
        result = run_command(command(program, *more, "--data", "/etc/passwd"))
        assert result.code in {1, 2}, result
        assert_one_line(result, result.code, "--data", "/etc/passwd", "not a directory")
