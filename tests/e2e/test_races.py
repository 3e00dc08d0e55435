"""What a user does while a transfer is under way is never taken for what the transfer expected."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

import peer.device
from peer.config import KeyOptions
from simulations.processes import Cluster, Device, Process, tree_of
from tests.e2e.test_many_devices import until


@contextmanager
def stopped(process: Process) -> Iterator[None]:
    """Have a process stand still, as a machine does that is asleep."""
    os.kill(process.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(process.pid, signal.SIGCONT)


def test_an_edit_made_while_a_newer_version_is_fetched_is_kept(cluster: Cluster, pair: tuple[Device, Device]) -> None:
    a, b = pair
    one, two = cluster.root / "one", cluster.root / "two"
    (one / "doc.txt").write_text("version 1\n")
    a.sync()
    agent = b.start()
    b.wait()
    assert (two / "doc.txt").read_text() == "version 1\n"
    (one / "doc.txt").write_text("version 2, by the laptop\n")
    with stopped(agent):
        a.sync()
    with stopped(cluster.nodes[0]), stopped(cluster.nodes[1]), stopped(cluster.nodes[2]):

        def reasons() -> list[str]:
            return [row["reason"] for row in b.json("status")["folders"][0]["unsynced"]]

        until(lambda: reasons() == ["transferring"], "the download did not begin")
        (two / "doc.txt").write_text("an edit by the desktop meanwhile\n")
        # The agent's own look at the edit comes before the download's end: its row is then newer than the plan.
        until(lambda: local_size(b) == len("an edit by the desktop meanwhile\n"), "the edit was not seen")
    b.wait()
    a.sync()
    b.wait()
    tree = dict(tree_of(one))
    assert tree == dict(tree_of(two))
    assert sorted(tree.values()) == [b"an edit by the desktop meanwhile\n", b"version 2, by the laptop\n"]


def local_size(device: Device) -> int:
    """Return the size of the one file of a device's folder as its last scan saw it."""
    import sqlite3

    import msgspec

    with sqlite3.connect(f"file:{device.home / 'state.db'}?mode=ro", uri=True) as db:
        rows = db.execute("SELECT content FROM local_item WHERE name = ?", (b"doc.txt",)).fetchall()
    return int(msgspec.msgpack.decode(rows[0][0])[2])


def test_jobs_that_enrol_and_follow_at_once_do_it_once(cluster: Cluster, pair: tuple[Device, Device]) -> None:
    """A number taken again would begin its sequence anew under entries that were signed; items folded twice, differ."""
    a, b = pair
    for number in range(20):
        (cluster.root / "one" / f"f{number}").write_text(f"{number}")
    a.sync()

    async def on_b() -> None:
        device = await peer.device.Device.open(b.home, keys=KeyOptions(no_keyring=True))
        try:
            await device.need_link()
            (engine,) = device.engines.values()
            follower, recorder = engine.follower, engine._recorder
            assert sorted(await asyncio.gather(follower.follow(), follower.follow())) == [False, True]
            await asyncio.gather(recorder.enrol(), recorder.enrol())
            assert follower.record.number
            await device.context.database.run(lambda db: follower.put_record(db, own_seq=3))
            await recorder.enrol()
            assert follower.record.own_seq == 3
            await device.context.database.run(lambda db: follower.put_record(db, own_seq=0))
        finally:
            await device.close()

    asyncio.run(on_b())
    b.sync()
    assert dict(tree_of(cluster.root / "one")) == dict(tree_of(cluster.root / "two"))


def test_an_agent_that_is_stopped_while_it_changes_the_disk_ends(cluster: Cluster, pair: tuple[Device, Device]) -> None:
    a, b = pair
    one = cluster.root / "one"
    for number in range(1_500):
        (one / f"f{number}").write_text(f"{number}")
    a.sync()
    b.sync()
    for number in range(1_500):
        (one / f"f{number}").unlink()
    a.kin("sync", check=False)  # nobody saw them go
    a.kin("approve", "work")
    a.sync()
    agent = b.start()
    trash = cluster.root / "two" / ".kinfolder" / "trash"
    until(lambda: any(trash.iterdir()), "nothing was removed")
    agent.stop()
    assert "Traceback" not in (b.home / "kin.log").read_text()
    b.sync()
    assert dict(tree_of(cluster.root / "two")) == {}


def test_what_an_agent_put_in_place_before_it_was_stopped_is_no_user_s_file(
    cluster: Cluster, pair: tuple[Device, Device]
) -> None:
    """Else it would come back after its removal, and stand as a copy beside its next edit."""
    a, b = pair
    one, two = cluster.root / "one", cluster.root / "two"
    for number in range(600):
        (one / f"f{number}").write_text(f"old {number}")
    a.sync()
    agent = b.start()
    until(lambda: any(two.glob("f*")), "nothing arrived")
    agent.stop()
    for number in range(600):
        if number % 2:
            (one / f"f{number}").unlink()
        else:
            (one / f"f{number}").write_text(f"new {number}")
    a.sync()
    b.sync()
    a.sync()
    expected = {f"f{number}": f"new {number}".encode() for number in range(0, 600, 2)}
    assert dict(tree_of(one)) == dict(tree_of(two)) == expected
