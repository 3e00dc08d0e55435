"""A database whose disk is full: who writes is told, and who asks beside him is answered."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import subprocess
import threading

import pytest

from peer.store.database import ThreadedDatabase
from peer.store.schema import SCHEMA
from protocol.errors import UserError

PATIENCE_S = 20.0


@pytest.fixture
def small(tmp_path):
    """A disk of four mebibytes."""
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("needs root to mount a small tmpfs")
    path = tmp_path / "small"
    path.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(path)], check=False).returncode:
        pytest.skip("this machine does not let us mount a tmpfs")
    yield path
    subprocess.run(["umount", "-l", str(path)], check=True)


def fill(path):
    """Take all the room there is."""
    with contextlib.suppress(OSError), open(path, "wb", buffering=0) as ballast:
        while ballast.write(bytes(4_096)):
            pass


def put(name, value):
    return lambda db: db.execute("INSERT INTO setting VALUES (?, ?)", (name, value)).rowcount


def names(db):
    return [row[0] for row in db.execute("SELECT name FROM setting ORDER BY name")]


@pytest.mark.parametrize("size", [pytest.param(9_000, id="at the commit"), pytest.param(40_000_000, id="before it")])
def test_who_only_reads_is_answered_though_others_of_his_commit_are_refused(small, size):
    async def main():
        database = ThreadedDatabase(small / "state.db", SCHEMA)
        await database.run(put("a", b"1"))
        fill(small / "ballast")
        held = threading.Event()
        first = asyncio.ensure_future(database.run(lambda _: held.wait(PATIENCE_S)))
        waiting = [database.run(work) for work in (names, put("b", bytes(size)), names, put("c", bytes(size)), names)]
        together = asyncio.gather(*waiting, return_exceptions=True)
        await asyncio.sleep(0)
        held.set()
        await first
        told = await together
        (small / "ballast").unlink()
        await database.run(put("d", b"1"))
        after = await database.run(names)
        await database.close()
        return told, after

    told, after = asyncio.run(main())
    assert [told[at] for at in (0, 2, 4)] == [["a"]] * 3
    assert all(isinstance(told[at], UserError) and told[at].code == "disk_full" for at in (1, 3)), told
    assert after == ["a", "d"]
