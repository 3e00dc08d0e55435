"""``kin-storage`` as people and scripts run it: real processes, killed at any instant."""

import asyncio
import contextlib
import os
import re
import signal
import sys
from types import SimpleNamespace

import aiohttp
import pytest

from protocol.ids import storage_node_id
from protocol.invitations import Invitation, format_invitation
from tests.storage_node.conftest import TOKEN, Answer, chunks_of, in_loop, refs_of

COMMAND = [sys.executable, "-P", "-m", "storage_node.cli", "serve"]


class Process:
    """One running node."""

    def __init__(self, process, url):
        self.process = process
        self.url = url

    async def kill(self):
        self.process.kill()
        await self.process.wait()


async def launch(*arguments, **environment):
    return await asyncio.create_subprocess_exec(
        *COMMAND,
        *map(str, arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "KIN_LOG": "warning", **environment},
    )


async def start(data, *arguments):
    process = await launch("--data", data, "--listen", "127.0.0.1:0", *arguments)
    line = (await process.stdout.readline()).decode()
    if "ready" not in line:
        raise AssertionError((await process.stderr.read()).decode())
    return Process(process, line.split()[-1])


async def run(*arguments):
    process = await launch(*arguments)
    out, err = await process.communicate()
    return process.returncode, out.decode(), err.decode()


@contextlib.asynccontextmanager
async def client_of(world, process, login):
    """A client for a node of which only the URL and the login are known."""
    node = SimpleNamespace(url=process.url, identity=SimpleNamespace(node=storage_node_id(login.sign)))
    async with aiohttp.ClientSession() as http:
        client = world.client(node)
        client.http = http
        yield client


@pytest.mark.parametrize("wait_for", [5, 80])
@in_loop
async def test_what_a_receipt_was_given_for_survives_kill_9_and_the_loss_of_the_index(world, tmp_path, wait_for):
    """Invariant 4, at instants that nobody chose: each round kills the node under load, the last without an index."""
    async with world:
        kept = []
        for round_ in range(2):
            process = await start(tmp_path / "data", "--coordinator", world.coordinator.url, "--invite", TOKEN)
            login = await world.coordinator.logins.get()
            async with client_of(world, process, login) as client:
                enough = asyncio.Event()

                async def put(worker, round_=round_, client=client, enough=enough):
                    for i in range(10_000):
                        salt = bytes([round_, worker]) + i.to_bytes(2, "big")
                        batch = chunks_of(40, 2000, salt) if worker % 3 else chunks_of(2, 700_000, salt)
                        try:
                            reply = await client.put(batch)
                        except (aiohttp.ClientError, OSError):
                            return
                        assert reply.receipts[0].chunks == refs_of(batch)
                        kept.append(batch)
                        if len(kept) >= wait_for * (round_ + 1):
                            enough.set()

                workers = [asyncio.create_task(put(worker)) for worker in range(6)]
                await enough.wait()
                await process.kill()
                await asyncio.gather(*workers)
        for path in (tmp_path / "data").glob("index.sqlite*"):
            path.unlink()
        process = await start(tmp_path / "data")
        async with client_of(world, process, await world.coordinator.logins.get()) as client:
            for batch in kept:
                held = await client.have([id for id, _ in batch])
                assert held is not None
                assert held.chunks == refs_of(batch)
            for batch in kept[-5:] + kept[:5]:
                assert await client.get([id for id, _ in batch]) == [body for _, body in batch]
        await process.kill()


@in_loop
async def test_a_node_stops_cleanly_and_starts_again_on_another_port(world, tmp_path):
    async with world:
        invitation = format_invitation(Invitation(world.coordinator.url, TOKEN, None))
        process = await start(tmp_path / "data", "--invite", invitation, "--zone", "attic")
        login = await world.coordinator.logins.get()
        assert re.fullmatch(r"http://127\.0\.0\.1:[1-9][0-9]*", process.url)
        assert (login.url, login.zone) == (process.url, "attic")
        chunks = chunks_of(3, 1000)
        async with client_of(world, process, login) as client:
            await client.put(chunks)
        for number in (signal.SIGTERM, signal.SIGINT):
            process.process.send_signal(number)
            _, err = await process.process.communicate()
            assert process.process.returncode == 0
            assert b"Traceback" not in err
            process = await start(tmp_path / "data", "--invite", "ignored-now")
            login = await world.coordinator.logins.get()
            assert login.url == process.url
        async with client_of(world, process, login) as client:
            assert await client.get([id for id, _ in chunks]) == [body for _, body in chunks]
        await process.kill()


@in_loop
async def test_one_process_to_a_directory(world, tmp_path):
    async with world:
        data = tmp_path / "data"
        process = await start(data, "--coordinator", world.coordinator.url, "--invite", TOKEN)
        assert oct(data.stat().st_mode)[-3:] == "700"
        assert {oct(path.stat().st_mode)[-2:] for path in data.rglob("*") if path.suffix != ".sqlite"} <= {"00", "44"}
        assert oct((data / "node.json").stat().st_mode)[-3:] == "600"
        code, out, err = await run("--data", data, "--listen", "127.0.0.1:0")
        assert (code, out) == (1, "")
        assert err == f"kin-storage: another storage node runs on {data}\n"
        await process.kill()


@in_loop
async def test_what_cannot_be_is_one_clear_line(world, tmp_path):
    async with world:
        url = world.coordinator.url
        data = tmp_path / "data"
        given = {"--data": data, "--listen": "127.0.0.1:0", "--coordinator": url, "--invite": TOKEN}
        cases = [
            ({"--invite": "wrong"}, 1, "the invitation is not valid"),
            ({"--backend": "s3://bucket"}, 2, "not in this version"),
            ({"--listen": "192.0.2.1:1"}, 1, "cannot listen"),
            ({"--data": "/proc/none"}, 1, "--data"),
        ]

        async def check(number, changes, code, text):
            options = given | {"--data": tmp_path / f"data{number}"} | changes
            words = [word for name, value in options.items() if value is not None for word in (name, value)]
            got, out, err = await run(*words)
            assert (got, out) == (code, ""), (changes, err)
            assert text in err.splitlines()[-1], (changes, err)
            assert "Traceback" not in err

        await asyncio.gather(*(check(i, *case) for i, case in enumerate(cases)))


@in_loop
async def test_a_node_that_was_killed_while_it_was_full_starts_full(world, tmp_path):
    async with world:
        options = ("--coordinator", world.coordinator.url, "--invite", TOKEN, "--limit", "1M")
        process = await start(tmp_path / "data", *options)
        login = await world.coordinator.logins.get()
        async with client_of(world, process, login) as client:
            await client.put(chunks_of(4, 200_000))
            with pytest.raises(Answer):
                await client.put(chunks_of(4, 200_000, b"x"))
            await process.kill()
        process = await start(tmp_path / "data", *options)
        async with client_of(world, process, await world.coordinator.logins.get()) as client:
            with pytest.raises(Answer) as caught:
                await client.put(chunks_of(4, 200_000, b"x"))
            assert caught.value.code == "full"
            assert len(await client.get([id for id, _ in chunks_of(4, 200_000)])) == 4
        await process.kill()
