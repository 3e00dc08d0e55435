"""What a user or a program does to files over a while: saves in a row, appends with agents, databases, loops.

Rule 1: what runs beside a pass is joined before the next step.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import sqlite3
import tempfile
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final

from simulations.cases.contents import DEFAULT_BYTES, Origin, content, digest_of
from simulations.cases.files import Step, alter, append_block, write
from simulations.cases.grammar import Skipped
from simulations.cases.hands import OpenFile
from simulations.cases.programs import fsx
from simulations.cases.trees import CONTROL, STAGES, is_file
from simulations.cases.world import Peer, World

RESTART_S_MAX: Final = 2.0
BETWEEN_S_MAX: Final = 0.5
_SUFFIXES: Final = ("", "-wal", "-shm")


async def office_save(world: World, peer: Peer, step: Step) -> None:
    """Save as an office program does, several times, while the agent runs."""
    await world.start_agent(peer)
    disk, path, times = peer.disk, peer.at(step["path"]), step["repeat"]
    directory = path.rpartition("/")[0]
    for number in range(1, times + 1):
        token = step["token"] if number == times else f"{step['token']}.{number}"
        disk.write(f"{directory}/~tmp", content(token))
        world.contents.note(token, digest_of(content(token)), Origin(peer.name, step["path"]), DEFAULT_BYTES)
        disk.rename(path, f"{directory}/bak")
        disk.rename(f"{directory}/~tmp", path)
        disk.remove(f"{directory}/bak")
    world.memory["saves"] = ("~tmp", "bak")


async def append_series(world: World, peer: Peer, step: Step) -> None:
    """Append blocks after these intervals, while all agents run."""
    for each in world.peers.values():
        await world.start_agent(each)
    for number, interval_s in enumerate(step["intervals"]):
        await asyncio.sleep(interval_s)
        append_block(world, peer, step["path"], f"{step['path']}#{number}")


async def append_alternating(world: World, peers: Sequence[Peer], step: Step) -> None:
    """Append in turn on several devices while their agents run; nobody waits."""
    for each in peers:
        await world.start_agent(each)
    for number in range(step["rounds"]):
        for each in peers:
            before = world.tree(each)
            with contextlib.suppress(FileNotFoundError):  # the agent may have the file aside for an instant
                append_block(world, each, step["path"], f"{each.name}#{number}")
            world.note_hand(each, before)


async def rewrite_n_times(world: World, peer: Peer, step: Step) -> None:
    """Write and sync, several times."""
    for number in range(step["n"]):
        before = world.tree(peer)
        write(world, peer, {"path": step["path"], "token": f"{step['path']}#{number}"})
        world.note_hand(peer, before)
        await world.sync(peer)


async def rename_loop(world: World, peer: Peer, step: Step) -> None:
    """Rename a path again and again, with a pass after each if the step says so."""
    path = step["path"]
    for number in range(step["times"]):
        before = world.tree(peer)
        target = f"{step['path']}-{number}"
        peer.disk.rename(peer.at(path), peer.at(target))
        path = target
        world.note_hand(peer, before)
        if step.get("sync_each"):
            await world.sync(peer)
        else:
            await asyncio.sleep(0)


async def sync_at_random(world: World, peer: Peer, looping: asyncio.Task[None]) -> None:
    """Do passes at random moments for as long as a loop runs."""
    rnd = random.Random(world.seed)
    while not looping.done():
        await asyncio.sleep(rnd.uniform(0, BETWEEN_S_MAX))
        await world.sync(peer)


async def random_alter(world: World, peer: Peer, step: Step) -> None:
    """Do rounds of seeded changes, with a settle after each but the last; the device is the model."""
    rnd = random.Random(world.seed)
    for number in range(step["rounds"]):
        if number:
            await world.settle()
            world.check_model()
        before = world.tree(peer)
        alter(world, peer, rnd, world.named_paths(), number)
        world.note_hand(peer, before)
        world.model_of = peer.name


async def sync_with_restarts(world: World, peer: Peer, step: Step) -> None:
    """Do one pass that is killed so many times, or while the other device's agent is killed."""
    rnd = random.Random(world.seed)
    sender = world.case.values.get("who") == "sender"
    other = next(each for each in world.peers.values() if each is not peer)
    begun = world.begin_pass(peer) if sender else None
    for _ in range(step["times"]):
        if sender:
            await world.start_agent(other)
            await asyncio.sleep(rnd.uniform(0, RESTART_S_MAX))
            await other.machine.kill()
        else:
            killed = asyncio.create_task(world.bare_pass(peer))
            await asyncio.sleep(rnd.uniform(0, RESTART_S_MAX))
            await peer.machine.kill()
            await killed
    if begun is not None:
        await begun.finish()
    await world.sync(peer)


# --- Databases


class _Program:
    """A program with a database, whose files appear on a device's disk as that program writes them.

    On a disk that is no real one it works beside: its files are carried over after each step.
    """

    def __init__(self, peer: Peer, path: str) -> None:
        self._peer, self._path = peer, path
        self._scratch = tempfile.TemporaryDirectory()
        self._held: dict[str, OpenFile] = {}
        place = os.path.join(self._scratch.name, "database")
        for suffix in _SUFFIXES[:2]:
            if peer.disk.exists(peer.at(path + suffix)):
                with open(place + suffix, "wb") as file:
                    file.write(peer.disk.read(peer.at(path + suffix)))
        self.connection = sqlite3.connect(place, check_same_thread=False)

    def write_through(self) -> None:
        """Have the disk hold what the program's files hold: each stays open, wherever its name has gone."""
        for suffix in _SUFFIXES:
            place = os.path.join(self._scratch.name, f"database{suffix}")
            if not os.path.exists(place):
                continue
            if suffix not in self._held:
                self._held[suffix] = self._peer.disk.open(self._peer.at(self._path + suffix))
            with open(place, "rb") as file:
                data = file.read()
            self._held[suffix].truncate(len(data))
            self._held[suffix].write(data, 0)

    def close(self) -> None:
        """Close the database, and remove what it keeps beside itself while it is open."""
        self.connection.close()
        self.write_through()
        for suffix, held in self._held.items():
            held.close()
            path = self._peer.at(self._path + suffix)
            if suffix and self._peer.disk.exists(path):
                self._peer.disk.remove(path)
        self._scratch.cleanup()


def sqlite_db(world: World, peer: Peer, step: Step) -> None:  # noqa: ARG001 - the signature of an operation
    """Make a database in WAL mode with a table of rows."""
    program = _Program(peer, step["path"])
    program.connection.execute("PRAGMA journal_mode = WAL")
    program.connection.execute("CREATE TABLE rows (device TEXT, number INTEGER)")
    rows = [(number,) for number in range(step["rows"])]
    program.connection.executemany("INSERT INTO rows VALUES ('setup', ?)", rows)
    program.connection.commit()
    program.close()


def sqlite_txn(world: World, peer: Peer, step: Step) -> None:
    """Insert rows marked with the device, commit and close."""
    sqlite_txn_open(world, peer, step)
    sqlite_txn_commit(world, peer, step)


def sqlite_txn_open(world: World, peer: Peer, step: Step) -> None:
    """Insert rows marked with the device, and keep the transaction open."""
    program = _Program(peer, step["path"])
    world.memory[f"transaction:{peer.name}"] = program
    rows = [(peer.name, number) for number in range(step["rows"])]
    program.connection.executemany("INSERT INTO rows VALUES (?, ?)", rows)
    program.write_through()


def sqlite_txn_commit(world: World, peer: Peer, step: Step) -> None:  # noqa: ARG001 - see sqlite_db
    """Commit the open transaction and close."""
    program = world.memory.pop(f"transaction:{peer.name}")
    program.connection.commit()
    program.write_through()
    program.close()


# --- What lies in the product's own directory


def _temp_directory(peer: Peer) -> str:
    directory = peer.at(f"{CONTROL}/{STAGES}")
    if not peer.disk.is_directory(directory):
        raise Skipped("the product keeps no directory of temp files in the root")
    return directory


def plant_temp(world: World, peer: Peer, step: Step) -> None:  # noqa: ARG001 - see sqlite_db
    """Leave what an interrupted download of a path leaves.

    Raises:
        Skipped: The product has no directory for that.
    """
    name = step.get("for_path", step.get("path", "")).replace("/", "-")
    peer.disk.write(f"{_temp_directory(peer)}/left-{name}", b"left over")


def inject_partial_temp(world: World, peer: Peer, step: Step) -> None:
    """Leave the first bytes of a path's content where the product receives it."""
    source = next(each for each in world.peers.values() if is_file(world.tree(each).get(step["path"], "<")))
    path, left = source.at(step["path"]), f"{_temp_directory(peer)}/left-{step['path']}"
    peer.disk.write(left, source.disk.read(path)[: world.size(step["bytes"])])
    peer.disk.set_mtime(left, source.disk.stat(path).mtime_ns)


OPERATIONS: Final[Mapping[str, Callable[[World, Peer, Step], Awaitable[None] | None]]] = {
    each.__name__: each
    for each in (
        office_save, append_series, rewrite_n_times, random_alter, sync_with_restarts, fsx, sqlite_db, sqlite_txn,
        sqlite_txn_open, sqlite_txn_commit, plant_temp, inject_partial_temp,
    )
}  # fmt: skip
