"""Bad input of every kind: a clear line that names the thing, everything else goes on, nothing is lost, never a traceback."""

from __future__ import annotations

import http.client
import json
import os
import random
import shutil
import socket
import sqlite3
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from websockets.exceptions import ConnectionClosed, WebSocketException
from websockets.sync.client import connect

from peer.api.lines import REQUEST_BYTES_MAX
from protocol import limits
from protocol import messages as m
from simulations.processes import Cluster, Device, command, environment, tree_of
from tests.e2e.kit import (
    Result,
    Tap,
    add_tapped_node,
    agents,
    ask,
    assert_no_tracebacks,
    by_servers_alone,
    folder_of,
    reasons,
    restart,
    run,
    run_command,
    settle,
    shifted,
    start_agent,
    until,
    without_root_rights,
)

TEN_YEARS_S = 10 * 365 * 86_400


class World(NamedTuple):
    cluster: Cluster
    a: Device
    b: Device
    one: Path
    two: Path
    taps: list[Tap]

    def assert_same(self) -> dict[str, bytes]:
        """Both agents come to one state, and both disks hold the same."""
        settle(self.a, self.b)
        one, two = dict(tree_of(self.one)), dict(tree_of(self.two))
        assert one == two
        return one

    def follows(self, name: str) -> None:
        """Everything goes on: a new file arrives."""
        (self.one / name).write_text(name)
        self.assert_same()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with Cluster(tmp_path_factory.mktemp("bad") / "cluster", nodes=0) as cluster:
        taps = [add_tapped_node(cluster) for _ in range(3)]
        a = cluster.first_device("laptop")
        a.add(cluster.root / "one", "work")
        b = cluster.link_device(a, "desktop")
        (cluster.root / "one" / "first").write_text("first")
        a.sync()
        b.get("work", cluster.root / "two")
        with agents(cluster.root, a, b):
            by_servers_alone(a, b)
            world = World(cluster, a, b, cluster.root / "one", cluster.root / "two", taps)
            world.assert_same()
            yield world
    assert_no_tracebacks(cluster)


def assert_one_line(result: Result, code: int, *named: str) -> None:
    """A command failed in one line that names these."""
    assert result.code == code, result
    assert len(result.err.strip().splitlines()) == 1, result
    for name in named:
        assert name in result.err, result


# --- Tokens


def test_a_wrong_or_used_token_is_named_and_leaves_nothing(world: World, tmp_path: Path) -> None:
    device = Device(world.cluster, "stranger", tmp_path / "home")
    words = tmp_path / "words"
    name = ("--user", "eve", "--device", "x", "--no-keyring", "--recovery-file", str(words))
    init = ["init", "--coordinator", world.cluster.url, *name]
    for token in ("wrong", "\u20ac"):
        result = run(device, *init, "--invite", token)
        assert result.code in {1, 2}, result
        assert "token" in result.err.splitlines()[-1] or "invit" in result.err.splitlines()[-1], result
        assert not words.exists()
    # The home is free for another try.
    assert run(device, *init, "--invite", world.cluster.invite()).code == 0
    other = Device(world.cluster, "other", tmp_path / "other")
    used = json.loads(run(device, "status", "--json").out)
    assert used["user"] == "eve"
    node = ("serve", "--data", str(tmp_path / "node"), "--listen", "127.0.0.1:0", "--coordinator", world.cluster.url)
    assert_one_line(run_command([*command("storage_node.cli"), *node, "--invite", "wrong"]), 1, "invitation")
    for bad in ("ws://example.org:1", "ws://127.0.0.1:1"):
        result = run(other, "init", "--coordinator", bad, *name, "--invite", "x")
        assert result.code in {1, 2}, result
        assert bad.partition("://")[2] in result.err or bad in result.err, result
    world.follows("after wrong tokens")


# --- Frames


def garbage(chance: random.Random) -> Iterator[bytes]:
    yield b""
    yield b"\0" * 10_000
    yield b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
    yield b"GET / HTTP/1.1\r\n" + b"X: " + b"y" * 200_000 + b"\r\n\r\n"
    yield b"POST /v1/get HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999\r\n\r\nx"
    yield b"POST /v1/put HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFF\r\nx"
    yield b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + chance.randbytes(500)
    for size in (1, 100, 100_000):
        yield chance.randbytes(size)


def send(address: tuple[str, int], data: bytes) -> None:
    """Send bytes and let the server hang up, or hang up on it."""
    with socket.create_connection(address, 10) as client:
        client.settimeout(0.3)
        try:
            client.sendall(data)
            while client.recv(1 << 16):
                pass
        except (TimeoutError, OSError):
            pass


def send_frame(url: str, data: str | bytes) -> None:
    """Send a message once the server greets us: an address that has too many connections open is turned away."""
    until(lambda: _is_sent(url, data), "the server takes one more connection")


def _is_sent(url: str, data: str | bytes) -> bool:
    with connect(url, compression=None, proxy=None, max_size=None) as client:
        try:
            client.recv(timeout=10)
        except ConnectionClosed:
            return False
        try:
            client.send(data)
            while True:
                client.recv(timeout=0.3)
        except (TimeoutError, WebSocketException, OSError):
            pass
    return True


def frames(chance: random.Random) -> Iterator[str | bytes]:
    yield "text"
    yield b""
    yield b"\xc1"
    yield b"\x91" * 200_000  # arrays in arrays
    yield m.encode_frame(1, m.GetStorage())  # nobody has logged in
    yield m.encode_frame(2, m.GetHeads())
    yield bytes(limits.MESSAGE_BYTES_MAX + 1)
    yield bytes(40 << 20)
    for size in (10, 1_000, 60_000):
        yield chance.randbytes(size)


def test_garbage_on_the_servers_ports_stops_nobody(world: World) -> None:
    chance = random.Random(3)
    host, _, port = world.cluster.url.partition("://")[2].rpartition(":")
    addresses = [(host, int(port))] + [tap._target for tap in world.taps if tap._target is not None]
    threads = [threading.Thread(target=send, args=(address, data)) for address in addresses for data in garbage(chance)]
    threads += [threading.Thread(target=send_frame, args=(world.cluster.url, data)) for data in frames(chance)]
    for thread in threads:
        thread.start()
    world.follows("while garbage arrives")
    for thread in threads:
        thread.join()
    for path in ("/v1/put", "/v1/get", "/v1/have", "/", "/../etc/passwd", "/metrics"):
        client = http.client.HTTPConnection(*addresses[1])
        client.request("POST", path, body=b"x" * 1000, headers={"X-Kinfolder-Grant": "!", "X-Kinfolder-Statement": "!"})
        assert 400 <= client.getresponse().status < 500
        client.close()
    world.follows("after garbage")


def test_garbage_on_the_agents_socket_stops_nobody(world: World) -> None:
    chance = random.Random(4)
    lines = [
        b"\n",
        b"{}\n",
        b"[" * 100_000 + b"\n",
        b"\xff\xfe\n",
        b'{"version":1,"method":"exec","params":{}}\n',
        b'{"version":1,"method":"add","params":{"path":1,"name":null}}\n',
        b'{"version":1,"method":"add","params":{"path":"\\u0000","name":null}}\n',
        b'{"version":99,"method":"status","params":{"all":true}}\n',
        b"x" * (REQUEST_BYTES_MAX + 1000) + b"\n",
        chance.randbytes(1000) + b"\n",
        b"no end",
    ]
    for line in lines:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(20)
            client.connect(str(world.a.home / "agent.sock"))
            try:
                client.sendall(line)
                client.shutdown(socket.SHUT_WR)
            except OSError:
                continue  # the agent had heard enough
            answer = b""
            try:
                while data := client.recv(1 << 16):
                    answer += data
            except ConnectionError:
                pass
        if answer:
            assert set(json.loads(answer.splitlines()[-1])) == {"error"}, (line[:60], answer)
    world.follows("after garbage on the socket")


# --- The device's own files


def flip_a_page(database: Path) -> None:
    size = database.stat().st_size
    with open(database, "r+b") as file:
        for page in range(1, size // 4096, 2):
            file.seek(page * 4096)
            file.write(os.urandom(2048))


def overwrite(database: Path) -> None:
    database.write_bytes(os.urandom(50_000))


@pytest.mark.parametrize("damage", [flip_a_page, overwrite], ids=lambda damage: damage.__name__)
def test_a_damaged_database_is_named_and_costs_no_file(world: World, damage: Callable[[Path], None]) -> None:
    world.b.stop()
    saved = world.cluster.root / "saved-home"
    shutil.copytree(world.b.home, saved)
    before = dict(tree_of(world.two))
    try:
        for extra in world.b.home.glob("state.db-*"):
            extra.unlink()
        damage(world.b.home / "state.db")
        for args in (("sync",), ("run",)):
            assert_one_line(run(world.b, *args), 1, str(world.b.home / "state.db"), "damaged")
        answer = json.loads(run(world.b, "status", "--json").out)
        assert answer["error"]["code"] == "corrupt_state"
        (world.one / f"during {damage.__name__}").write_text("the other device goes on")
        settle(world.a)
        assert dict(tree_of(world.two)) == before
    finally:
        shutil.rmtree(world.b.home)
        saved.rename(world.b.home)
        start_agent(world.b, world.cluster.root)
    world.assert_same()


def test_damaged_keys_are_named(world: World) -> None:
    world.b.stop()
    keys = next(path for path in world.b.home.iterdir() if path.name.startswith("keys"))
    good = keys.read_bytes()
    try:
        for bad in (b"", b"{", good[: len(good) // 2], os.urandom(500)):
            keys.write_bytes(bad)
            result = run(world.b, "status")
            assert_one_line(result, 1, "key")
    finally:
        keys.write_bytes(good)
        start_agent(world.b, world.cluster.root)
    world.follows("after damaged keys")


def test_a_damaged_row_stops_one_folder_or_the_device_in_words(world: World) -> None:
    """The file is a good database, and what one row says is nonsense."""
    world.b.stop()
    saved = world.cluster.root / "saved-home"
    shutil.copytree(world.b.home, saved)
    try:
        database = sqlite3.connect(world.b.home / "state.db")
        database.execute("UPDATE synced_item SET content = x'c1ff'")
        database.execute("UPDATE local_item SET content = x'c1ff'")
        database.commit()
        database.close()
        for args in (("status",), ("sync", "--timeout", "20")):
            result = run(world.b, *args)
            assert result.code == 1, result
            assert "damaged" in result.text, result
    finally:
        shutil.rmtree(world.b.home)
        saved.rename(world.b.home)
        start_agent(world.b, world.cluster.root)
    world.follows("after a damaged row")


# --- Storage that is damaged, or lies


def packs_of(world: World, number: int) -> list[Path]:
    return [path for path in (world.cluster.root / f"node{number}" / "packs").rglob("*") if path.is_file()]


def fetch_anew(world: World) -> None:
    """Bring the folder to another place on the second device, with all its bytes from the nodes."""
    settle(world.b)
    world.b.kin("remove", "work")
    shutil.rmtree(world.two)
    world.b.get("work", world.two)
    world.assert_same()


@pytest.mark.parametrize("honest", [0, 1, 2])
def test_nodes_that_send_other_bytes_are_found_out(world: World, honest: int) -> None:
    for number, tap in enumerate(world.taps):
        tap.change = None if number == honest else flip
    try:
        fetch_anew(world)
    finally:
        for tap in world.taps:
            tap.change = None


def flip(data: bytes) -> bytes:
    """Change one byte of what a reply carries, far from where its parts begin."""
    changed = bytearray(data)
    for at in range(200, len(data) - 40, 997):
        if b"\r\n" not in data[at - 100 : at + 40]:
            changed[at] ^= 1
    return bytes(changed)


def test_where_no_node_sends_the_right_bytes_the_file_waits_and_the_rest_goes_on(world: World) -> None:
    chance = random.Random(6)
    try:
        ask(world.b, "offline")
        (world.one / "lied about").write_bytes(chance.randbytes(300_000))
        settle(world.a)
        for tap in world.taps:
            tap.change = flip
        ask(world.b, "online")
        until(lambda: reasons(world.b, "work").get("lied about") == "no_source", "it says why the file waits")
        assert not (world.two / "lied about").exists()
        result = run(world.b, "wait", "--timeout", "1")
        assert_one_line(result, 3, "work/lied about", "waits for a storage node that has its bytes")
    finally:
        for tap in world.taps:
            tap.change = None
    world.assert_same()
    assert "lied about" in dict(tree_of(world.two))


def test_damaged_packs_of_one_node_cost_nothing(world: World) -> None:
    chance = random.Random(5)
    (world.one / "packed").write_bytes(chance.randbytes(600_000))
    world.assert_same()
    for pack in packs_of(world, 1):
        with open(pack, "r+b") as file:
            for at in range(500, pack.stat().st_size, 700):
                file.seek(at)
                file.write(b"\xee")
    fetch_anew(world)


# --- Clocks


@pytest.mark.parametrize("seconds", [TEN_YEARS_S, -TEN_YEARS_S], ids=["ahead", "behind"])
def test_a_device_whose_clock_is_ten_years_off_syncs_and_is_told(world: World, seconds: int) -> None:
    world.b.stop()
    start_agent(world.b, world.cluster.root, launch=shifted("peer.commands.run", seconds, str(world.b.home)))
    try:
        (world.two / f"by a wrong clock {seconds}").write_bytes(os.urandom(50_000))
        (world.one / f"to a wrong clock {seconds}").write_bytes(os.urandom(50_000))
        tree = world.assert_same()
        assert not [name for name in tree if "conflict" in name]
        state = ask(world.b)
        assert any("10 years apart" in warning for warning in state["warnings"]), state["warnings"]
        assert not ask(world.a)["warnings"][1:]
        result = run(world.b, "status")
        assert "10 years apart" in result.out
    finally:
        world.b.stop()
        start_agent(world.b, world.cluster.root)
    (world.two / f"by a wrong clock {seconds}").write_bytes(b"edited with a right clock")
    world.assert_same()
    assert (world.one / f"by a wrong clock {seconds}").read_bytes() == b"edited with a right clock"


def test_a_storage_node_whose_clock_is_ten_years_off_serves(world: World) -> None:
    nodes = world.cluster.nodes
    kept = [list(node.args) for node in nodes]
    try:
        for number, seconds in ((0, TEN_YEARS_S), (1, -TEN_YEARS_S)):
            nodes[number].stop()
            nodes[number].args = shifted("storage_node.cli", seconds, *kept[number][4:])
            restart(nodes[number])
        nodes[2].stop()
        (world.two / "kept by wrong clocks").write_bytes(os.urandom(100_000))
        world.assert_same()
    finally:
        for node, args in zip(nodes, kept, strict=True):
            node.stop()
            node.args = args
            restart(node)
    world.follows("after wrong clocks")


# --- Roots


def move_away(root: Path, aside: Path) -> None:
    root.rename(aside)


def replace_by_an_empty_directory(root: Path, aside: Path) -> None:
    """What a mount point is when its disk is not mounted."""
    root.rename(aside)
    root.mkdir()


def replace_by_another_folder(root: Path, aside: Path) -> None:
    root.rename(aside)
    shutil.copytree(aside, root)
    (root / ".kinfolder" / "folder").write_text("another\n")
    for path in root.iterdir():
        if path.is_file():
            path.unlink()


@pytest.mark.parametrize("take", [move_away, replace_by_an_empty_directory, replace_by_another_folder])
def test_a_missing_root_removes_nothing_anywhere(world: World, take: Callable[[Path, Path], None]) -> None:
    before = world.assert_same()
    aside = world.cluster.root / "aside"
    take(world.two, aside)
    try:
        (world.one / "while it is away").write_text(take.__name__)
        result = run(world.b, "wait", "--timeout", "30")
        assert_one_line(result, 4, "work: ", str(world.two))
        folder = folder_of(ask(world.b), "work")
        assert folder["state"] == "missing"
        assert str(world.two) in folder["text"]
        settle(world.a)
        assert set(dict(tree_of(world.one))) == {*before, "while it is away"}
        # From a fresh start it is the same, and without an agent.
        world.b.stop()
        if take is replace_by_an_empty_directory:
            assert_one_line(run(world.b, "sync"), 4, "work: ", str(world.two))
            state = json.loads(run(world.b, "status", "--json").out)
            assert folder_of(state, "work")["state"] == "missing"
        start_agent(world.b, world.cluster.root)
        assert ask(world.b, "wait", timeout=30)["exit"] == 4
    finally:
        if world.two.exists():
            shutil.rmtree(world.two)
        aside.rename(world.two)
    tree = world.assert_same()
    assert set(tree) == {*before, "while it is away"}
    (world.one / "while it is away").unlink()
    world.assert_same()


# --- Files that cannot be read or written


def test_what_cannot_be_read_is_named_and_the_rest_goes_on(world: World) -> None:
    prefix = without_root_rights()
    if prefix is None:
        pytest.skip("nothing here takes root's rights away")
    world.b.stop()
    start_agent(world.b, world.cluster.root, prefix=prefix)
    closed, directory = world.two / "closed file", world.two / "closed directory"
    try:
        directory.mkdir()
        (directory / "inside").write_text("inside")
        (world.two / "was open").write_text("was open")
        world.assert_same()
        closed.write_text("nobody may read this")
        for path in (closed, directory, world.two / "was open"):
            path.chmod(0o000)
        (world.two / "beside").write_text("beside")
        result = run(world.b, "wait", "--timeout", "30")
        assert result.code == 4, result
        assert "work/closed file: cannot be read" in result.err
        found = reasons(world.b, "work")
        assert found["closed file"] == found["closed directory"] == "unreadable"
        settle(world.a)
        assert (world.one / "beside").read_text() == "beside"
        assert (world.one / "closed directory" / "inside").read_text() == "inside"
        assert (world.one / "was open").read_text() == "was open"
        assert not (world.one / "closed file").exists()
    finally:
        for path in (closed, directory, world.two / "was open"):
            if path.exists():
                path.chmod(0o755 if path.is_dir() else 0o644)
    world.assert_same()
    assert (world.one / "closed file").read_text() == "nobody may read this"
    world.b.stop()
    start_agent(world.b, world.cluster.root)


def test_a_rule_file_that_cannot_be_read_lets_nothing_leave(world: World) -> None:
    prefix = without_root_rights()
    if prefix is None:
        pytest.skip("nothing here takes root's rights away")
    rules = world.two / ".kinignore"
    rules.write_text("*.private\n")
    (world.two / "x.private").write_text("stays here")
    settle(world.b, world.a)
    rules.chmod(0o000)
    world.b.stop()
    start_agent(world.b, world.cluster.root, prefix=prefix)
    try:
        (world.two / "other").write_text("waits with the rest")
        result = run(world.b, "wait", "--timeout", "30")
        assert_one_line(result, 4, ".kinignore cannot be read")
        settle(world.a)
        assert not (world.one / "x.private").exists()
    finally:
        rules.chmod(0o644)
        world.b.stop()
        start_agent(world.b, world.cluster.root)
    settle(world.b, world.a)
    assert (world.one / "other").exists()
    assert not (world.one / "x.private").exists()
    (world.two / "x.private").unlink()
    rules.unlink()
    world.assert_same()


# --- Commands


def test_a_second_agent_and_unknown_things_are_refused_in_one_line(world: World, tmp_path: Path) -> None:
    assert_one_line(run(world.a, "run"), 1, str(world.a.home))
    assert_one_line(run(world.a, "get", "nothing", str(tmp_path / "x")), 1, "nothing", "work")
    assert_one_line(run(world.a, "remove", "nothing"), 1, "nothing", "work")
    assert_one_line(run(world.a, "remove", "one"), 1, "one")
    assert_one_line(run(world.a, "add", str(world.one / "below")), 1, str(world.one))
    assert_one_line(run(world.a, "add", "/"), 1, "root of the file system")
    assert_one_line(run(world.a, "add", str(world.a.home / "x")), 1, "own state")
    (tmp_path / "file").write_text("a file")
    assert_one_line(run(world.a, "add", str(tmp_path / "file")), 1, "is a file")
    nobody = Device(world.cluster, "nobody", tmp_path / "no" / "home")
    assert_one_line(run(nobody, "status"), 1, "no device")
    assert_one_line(run(nobody, "sync"), 1, "no device")
    unknown = subprocess.run(
        [*command("peer.cli"), "--home", str(world.a.home), "frobnicate"],
        capture_output=True,
        env=environment(),
        check=False,
    )
    assert unknown.returncode == 2
