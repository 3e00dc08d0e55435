"""The command line as people and service managers use it: real processes, killed at any moment, on full disks."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Self

import pytest

from protocol import messages as m
from protocol.invitations import parse_invitation
from tests.builders import Author, hash_of
from tests.coordinator.client import Client, device, new_user, storage_node
from tests.coordinator.conftest import run
from tests.protocol.chain_world import TestAccount, TestFolder

COMMAND = [sys.executable, "-P", "-m", "coordinator"]
ROOT = Path(__file__).resolve().parent.parent.parent


def environment(**more: str) -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "KIN_LOG")} | more


def kin(*words: str, **options) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *words],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        **options,
    )


class Process:
    """A server as a process; it is killed at the end if it still runs."""

    def __init__(self, data: str, *words: str, listen: str = "127.0.0.1:0") -> None:
        self.process = subprocess.Popen(
            [*COMMAND, "serve", "--data", data, "--listen", listen, *words],
            cwd=ROOT,
            env=environment(KIN_LOG="info"),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        self.line = self.process.stdout.readline()
        found = re.search(r"ready at (wss?://\S+)", self.line)
        self.url = found[1] if found else ""

    def end(self, number: int = signal.SIGTERM) -> tuple[int, str]:
        """Send a signal; return the exit code and what was logged."""
        self.process.send_signal(number)
        _, logged = self.process.communicate(timeout=20)
        return self.process.returncode, logged

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()


@pytest.fixture
def data(tmp_path) -> str:
    return str(tmp_path / "data")


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["serve", "--listen", "127.0.0.1:0", "--database", "postgresql://h/d"], 2, "not in this version"),
        (["serve", "--listen", "127.0.0.1:0", "--broker", "nats://h"], 2, "not in this version"),
        (["serve", "--listen", "nowhere"], 2, "HOST:PORT"),
        (["serve", "--listen", "0.0.0.0:0"], 2, "--advertise"),
        (["serve", "--listen", "127.0.0.1:0", "--replicas", "1"], 2, "quorum"),
        (["serve", "--listen", "0.0.0.0:0", "--advertise", "ws://h:1"], 2, "wss"),
        (["serve", "--listen", "192.0.2.1:0"], 1, "cannot listen"),
        (["copies", "2", "3"], 2, "quorum"),
        (["invite", "--uses", "0"], 2, "uses"),
        (["invite", "--for", "nobody"], 2, "user or storage"),
        (["invite", "--operator", "me"], 2, "storage"),
        (["invite", "--url"], 1, "first start"),
        (["serve"], 2, "--listen"),
    ],
)
def test_each_error_is_one_clear_line(data, words, code, says):
    done = kin(words[0], "--data", data, *words[1:])
    assert (done.returncode, done.stdout) == (code, "")
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_the_data_directory_must_be_one(tmp_path):
    (tmp_path / "file").touch()
    done = kin("invite", "--data", str(tmp_path / "file" / "x"))
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1


def test_a_server_lives_from_ready_to_sigterm(data):
    """Invited before the first start and beside it; a second server is refused; copies and nodes work beside it."""
    token = kin("invite", "--data", data).stdout.strip()
    with Process(data, "--replicas", "2", "--quorum", "1") as server:
        assert server.url.startswith("ws://127.0.0.1:")
        second = kin("serve", "--data", data, "--listen", "127.0.0.1:0")
        assert second.returncode == 1
        assert "another coordinator runs" in second.stderr
        invitation = parse_invitation(kin("invite", "--data", data, "--for", "storage", "--url").stdout.strip())
        assert (invitation.url, invitation.fingerprint) == (server.url, None)

        async def main():
            alice = TestAccount("alice")
            client = await new_user(server.url, alice, token)
            node, _ = await storage_node(server.url, "n", invitation.token, zone="attic")
            storage = await client.ask(m.GetStorage(), m.Storage)
            assert (storage.replicas, storage.quorum) == (2, 1)
            listed = json.loads(kin("nodes", "--data", data, "--json").stdout)
            assert listed["version"] == 1
            assert [(n["online"], n["zone"]) for n in listed["nodes"]] == [(True, "attic")]
            assert kin("copies", "--data", data, "1", "1").returncode == 0
            for _ in range(200):
                storage = await client.ask(m.GetStorage(), m.Storage)
                if storage.replicas == 1:
                    break
                await asyncio.sleep(0.05)
            assert (storage.replicas, storage.quorum) == (1, 1)
            await node.close()

        run(main)
        code, logged = server.end()
    assert code == 0
    assert "Traceback" not in logged
    assert token not in logged
    assert "alice" not in logged
    assert "offline since" in kin("nodes", "--data", data).stdout
    assert not (Path(data) / "coordinator.sqlite-wal").exists()
    modes = {path.name: path.stat().st_mode & 0o777 for path in Path(data).iterdir()}
    assert set(modes.values()) == {0o600}
    assert Path(data).stat().st_mode & 0o777 == 0o700


def test_the_settings_of_the_first_start_stay(data):
    with Process(data, "--replicas", "2", "--quorum", "2") as server:
        server.end(signal.SIGINT)
    with Process(data) as server:
        assert server.end()[0] == 0
    assert json.loads(kin("nodes", "--data", data, "--json").stdout)["replicas"] == 2


def test_keys_that_are_gone_are_not_made_anew(data):
    """Another key would be another server to everybody: it says what is missing instead."""
    with Process(data) as server:
        server.end()
    os.remove(Path(data) / "server.keys")
    done = kin("serve", "--data", data, "--listen", "127.0.0.1:0")
    assert done.returncode == 1
    assert "server.keys is missing" in done.stderr


def test_what_was_acknowledged_survives_a_kill(data):
    """Killed under load, again and again: every entry that was acknowledged is there, each log whole."""
    token = kin("invite", "--data", data, "--uses", "9").stdout.strip()
    accounts = [TestAccount(f"user{i}") for i in range(3)]
    folders = [TestFolder(account) for account in accounts]
    writers = [Author(folder, account.device, 1) for account, folder in zip(accounts, folders, strict=True)]
    acknowledged: list[dict[bytes, int]] = [{} for _ in accounts]

    async def load(client: Client, i: int) -> None:
        try:
            for number in range(10_000):
                batch = [writers[i].entry(f"{number}-{j}") for j in range(8)]
                states = await client.register(folders[i].id, batch)
                acknowledged[i].update((s.entry, s.position) for s in states.states)
                assert all(s.position for s in states.states)
        except (ConnectionError, TimeoutError, OSError):
            pass

    async def one_life(url: str, server: Process, first: bool) -> None:
        clients = []
        for account, folder in zip(accounts, folders, strict=True):
            client = await (new_user(url, account, token) if first else device(url, account))
            if first:
                await client.create(folder.links[0])
            clients.append(client)
        for i, client in enumerate(clients):
            after = 0
            while (pulled := await client.pull(folders[i].id, after)).items:
                assert pulled.items[0].position == after + 1
                after = pulled.items[-1].position
            held = await client.ask(m.GetOwnSeq(folders[i].id, 1), m.OwnSeq)
            assert after >= max(acknowledged[i].values(), default=1)
            writers[i].seq, writers[i].previous = held.seq, held.entry
        tasks = [asyncio.create_task(load(client, i)) for i, client in enumerate(clients)]
        await asyncio.sleep(0.4)
        server.process.send_signal(signal.SIGKILL)
        await asyncio.gather(*tasks)

    for life in range(3):
        with Process(data) as server:
            run(lambda server=server, life=life: one_life(server.url, server, first=life == 0))
    assert all(len(one) > 16 for one in acknowledged)
    with Process(data) as server:

        async def check():
            for i, account in enumerate(accounts):
                client = await device(server.url, account)
                for hash, position in list(acknowledged[i].items())[::7]:
                    item = (await client.pull(folders[i].id, position - 1, 1)).items[0]
                    assert (item.position, hash_of(item.data)) == (position, hash)

        run(check)
        assert server.end()[0] == 0


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 3 MiB."""
    path = tmp_path / "small"
    path.mkdir()
    mount = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(path)], capture_output=True, check=False
    )
    if mount.returncode:
        pytest.skip("needs the right to mount a small file system")
    yield path
    subprocess.run(["umount", "-l", str(path)], check=False)


def test_a_full_disk_is_told_and_survived(small_disk):
    data = str(small_disk / "data")
    token = kin("invite", "--data", data, "--uses", "9").stdout.strip()
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(1 << 20))
    with Process(data) as server:

        async def main():
            alice = TestAccount("alice")
            client = await new_user(server.url, alice, token)
            folder = TestFolder(alice)
            await client.create(folder.links[0])
            author = Author(folder, alice.device, 1)
            kept: list[bytes] = []
            for number in range(100):
                batch = (author.entry(f"{number}", payload=os.urandom(60_000)),)
                reply = await client.start(m.RegisterEntries(folder.id, None, batch))
                if isinstance(reply, m.Failure):
                    assert reply == m.Failure("unavailable", "the coordinator's disk is full")
                    break
                kept += batch
            else:
                pytest.fail("the disk was never full")
            assert (await client.pull(folder.id, 0, 1)).items  # it reads on
            assert await client.refused(m.RegisterEntries(folder.id, None, batch)) == "unavailable"
            ballast.unlink()
            states = await client.register(folder.id, batch)
            assert states.states[0].position == len(kept) + 2

        run(main)
        code, logged = server.end()
    assert code == 0
    assert "Traceback" not in logged


def test_a_disk_that_is_full_at_the_start_is_one_line(small_disk):
    data = str(small_disk / "data")
    os.mkdir(data)
    with open(small_disk / "ballast", "wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    done = kin("serve", "--data", data, "--listen", "127.0.0.1:0")
    assert done.returncode == 1
    assert "full" in done.stderr or "No space" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("words", [("nodes",), ("copies", "1", "1"), ("retire", "abcd")])
def test_a_directory_without_a_coordinator_is_refused_and_stays_as_it_is(tmp_path, words):
    command, *more = words
    for data in (tmp_path, tmp_path / "missing"):
        done = kin(command, "--data", str(data), *more)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
        assert str(data) in done.stderr
    assert not list(tmp_path.iterdir())


def test_an_invitation_is_made_where_nothing_else_lies(tmp_path):
    host = tmp_path / "host"
    inner = host / "coordinator"
    assert kin("invite", "--data", str(inner)).returncode == 0
    (host / "host.json").write_text("{}")
    done = kin("invite", "--data", str(host))
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert f"--data {inner}" in done.stderr
    assert f"--data {inner}" in kin("nodes", "--data", str(host)).stderr
    assert sorted(each.name for each in host.iterdir()) == ["coordinator", "host.json"]
    assert kin("nodes", "--data", str(inner)).returncode == 0
