"""What a user or a program does to files over a while: saves in a row, appends with agents, databases, loops.

Rule 1: what runs beside a pass is joined before the next step.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from simulations.cases.contents import DEFAULT_BYTES, Origin, content, digest_of
from simulations.cases.files import Step, alter, append_block, place, write
from simulations.cases.grammar import Skipped
from simulations.cases.trees import is_file
from simulations.cases.world import Peer, World

LOOP_S_MAX: Final = 600.0
RESTART_S_MAX: Final = 2.0


def office_save(world: World, peer: Peer, step: Step) -> None:
    """Save as an office program does, several times, while the agent runs."""
    world.start_agent(peer)
    path, times = step["path"], step["repeat"]
    directory = place(peer, path).parent
    for number in range(1, times + 1):
        token = step["token"] if number == times else f"{step['token']}.{number}"
        (directory / "~tmp").write_bytes(content(token))
        world.contents.note(token, digest_of(content(token)), Origin(peer.name, path), DEFAULT_BYTES)
        os.rename(place(peer, path), directory / "bak")
        os.rename(directory / "~tmp", place(peer, path))
        (directory / "bak").unlink()
    world.memory["saves"] = ("~tmp", "bak")


def append_series(world: World, peer: Peer, step: Step) -> None:
    """Append blocks after these intervals, while all agents run."""
    for each in world.peers.values():
        world.start_agent(each)
    for number, interval_s in enumerate(step["intervals"]):
        time.sleep(interval_s)
        append_block(world, peer, step["path"], f"{step['path']}#{number}")


def append_alternating(world: World, peers: list[Peer], step: Step) -> None:
    """Append in turn on several devices while their agents run; nobody waits."""
    for each in peers:
        world.start_agent(each)
    for number in range(step["rounds"]):
        for each in peers:
            before = world.tree(each)
            with contextlib.suppress(FileNotFoundError):  # the agent may have the file aside for an instant
                append_block(world, each, step["path"], f"{each.name}#{number}")
            world.note_hand(each, before)


def rewrite_n_times(world: World, peer: Peer, step: Step) -> None:
    """Write and sync, several times."""
    for number in range(step["n"]):
        before = world.tree(peer)
        write(world, peer, {"path": step["path"], "token": f"{step['path']}#{number}"})
        world.note_hand(peer, before)
        world.sync(peer)


def rename_loop(world: World, peer: Peer, step: Step) -> None:
    """Rename a path again and again, with a pass after each if the step says so."""
    path = step["path"]
    for number in range(step["times"]):
        before = world.tree(peer)
        target = f"{step['path']}-{number}"
        os.rename(place(peer, path), place(peer, target))
        path = target
        world.note_hand(peer, before)
        if step.get("sync_each"):
            world.sync(peer)


def sync_at_random(world: World, peer: Peer, looping: threading.Event) -> None:
    """Do passes at random moments for as long as a loop runs."""
    rnd = random.Random(world.seed)
    while not looping.wait(rnd.uniform(0, 0.5)):
        world.sync(peer)


def random_alter(world: World, peer: Peer, step: Step) -> None:
    """Do rounds of seeded changes, with a settle after each but the last; the device is the model."""
    rnd = random.Random(world.seed)
    for number in range(step["rounds"]):
        if number:
            world.settle()
            world.check_model()
        before = world.tree(peer)
        alter(world, peer, rnd, world.named_paths(), number)
        world.note_hand(peer, before)
        world.model_of = peer.name


def sync_with_restarts(world: World, peer: Peer, step: Step) -> None:
    """Do one pass that is killed so many times, or while the other device's agent is killed."""
    rnd = random.Random(world.seed)
    sender = world.case.values.get("who") == "sender"
    other = next(each for each in world.peers.values() if each is not peer)
    begun = world.begin(peer) if sender else None
    for _ in range(step["times"]):
        if sender:
            world.start_agent(other)
            time.sleep(rnd.uniform(0, RESTART_S_MAX))
            world.kill_agent(other)
        else:
            killed = world.site.spawn(peer.home, *world.sync_args)
            time.sleep(rnd.uniform(0, RESTART_S_MAX))
            killed.kill()
            killed.wait(LOOP_S_MAX)
    if begun is not None:
        begun.finish()
    world.sync(peer)


# --- Databases


def sqlite_db(world: World, peer: Peer, step: Step) -> None:  # noqa: ARG001 - the signature of an operation
    """Make a database in WAL mode with a table of rows."""
    with contextlib.closing(sqlite3.connect(place(peer, step["path"]))) as database:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("CREATE TABLE rows (device TEXT, number INTEGER)")
        database.executemany("INSERT INTO rows VALUES ('setup', ?)", [(number,) for number in range(step["rows"])])
        database.commit()


def sqlite_txn(world: World, peer: Peer, step: Step) -> None:
    """Insert rows marked with the device, commit and close."""
    sqlite_txn_open(world, peer, step)
    sqlite_txn_commit(world, peer, step)


def sqlite_txn_open(world: World, peer: Peer, step: Step) -> None:
    """Insert rows marked with the device, and keep the transaction open."""
    database = sqlite3.connect(place(peer, step["path"]), check_same_thread=False)
    world.memory[f"transaction:{peer.name}"] = database
    rows = [(peer.name, number) for number in range(step["rows"])]
    database.executemany("INSERT INTO rows VALUES (?, ?)", rows)


def sqlite_txn_commit(world: World, peer: Peer, step: Step) -> None:  # noqa: ARG001 - see sqlite_db
    """Commit the open transaction and close."""
    database = world.memory.pop(f"transaction:{peer.name}")
    with contextlib.closing(database):
        database.commit()


# --- What lies in the product's own directory


def plant_temp(world: World, peer: Peer, step: Step) -> None:
    """Leave what an interrupted download of a path leaves.

    Raises:
        Skipped: The product has no directory for that.
    """
    name = step.get("for_path", step.get("path", "")).replace("/", "-")
    directory = peer.root / ".kinfolder" / "tmp"
    if not directory.is_dir():
        raise Skipped("the product keeps no directory of temp files in the root")
    (directory / f"left-{name}").write_bytes(b"left over")
    world.memory.setdefault("temp", []).append(directory)


def inject_partial_temp(world: World, peer: Peer, step: Step) -> None:
    """Leave the first bytes of a path's content where the product receives it."""
    source = next(
        each.root / step["path"] for each in world.peers.values() if is_file(world.tree(each).get(step["path"], "<"))
    )
    directory = peer.root / ".kinfolder" / "tmp"
    if not directory.is_dir():
        raise Skipped("the product keeps no directory of temp files in the root")
    from simulations.cases.grammar import size_of

    with open(source, "rb") as whole, open(directory / f"left-{step['path']}", "wb") as part:
        part.write(whole.read(size_of(step["bytes"])))
        shutil.copystat(source, part.name)


OPERATIONS: Final[Mapping[str, Callable[[World, Peer, Step], Any]]] = {
    each.__name__: each
    for each in (
        office_save, append_series, rewrite_n_times, random_alter, sync_with_restarts, sqlite_db,
        sqlite_txn, sqlite_txn_open, sqlite_txn_commit, plant_temp, inject_partial_temp,
    )
}  # fmt: skip
