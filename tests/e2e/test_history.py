"""A coordinator that forgets, forks or forges: it is found out, and no file is lost for it."""

from __future__ import annotations

import random
import shutil
import sqlite3
from pathlib import Path

import pytest

from simulations.processes import Cluster, CommandError, Device, tree_of

DATABASE = "coordinator.sqlite"


def data(cluster: Cluster) -> Path:
    return cluster.root / "coordinator"


def back_up(cluster: Cluster) -> Path:
    cluster.coordinator.stop()
    backup = cluster.root / "backup"
    shutil.rmtree(backup, ignore_errors=True)
    shutil.copytree(data(cluster), backup)
    cluster.coordinator.start()
    return backup


def restore(cluster: Cluster, backup: Path) -> None:
    cluster.coordinator.stop()
    shutil.rmtree(data(cluster))
    shutil.copytree(backup, data(cluster))
    cluster.coordinator.start()


def folder_of(device: Device) -> dict[str, object]:
    found: dict[str, object] = device.json("status")["folders"][0]
    return found


def test_a_coordinator_set_back_is_given_back_what_it_lost(cluster: Cluster, pair: tuple[Device, Device]) -> None:
    a, b = pair
    one, two = cluster.root / "one", cluster.root / "two"
    (one / "before").write_text("before the backup")
    a.sync()
    backup = back_up(cluster)
    (one / "after").write_text("after the backup")
    (one / "before").write_text("edited after the backup")
    a.sync()
    restore(cluster, backup)
    a.sync()
    assert (one / "after").read_text() == "after the backup"
    assert (one / "before").read_text() == "edited after the backup"
    b.sync()
    assert dict(tree_of(two)) == dict(tree_of(one))
    assert any("set back" in line and " of work, " in line for line in a.json("status")["warnings"])
    assert not any("set back" in line for line in b.json("status")["warnings"])


def test_contents_stored_after_the_backup_are_used_again_after_it_was_put_back(
    cluster: Cluster, pair: tuple[Device, Device]
) -> None:
    """Of the log that is given back, of what was still unordered, and of a device and a folder that came in between."""
    a, b = pair
    one, two = cluster.root / "one", cluster.root / "two"
    (one / "before").write_bytes(random.Random(1).randbytes(300_000))
    a.sync()
    b.sync()
    backup = back_up(cluster)
    (one / "after").write_bytes(random.Random(2).randbytes(3_000_000))
    a.sync()
    b.sync()
    c = cluster.link_device(a, "newcomer")
    a.add(cluster.root / "made since", "made since")
    (cluster.root / "made since" / "file").write_text("in a folder that the backup does not know")
    a.sync()
    restore(cluster, backup)
    shutil.copy(one / "after", one / "a copy on the laptop")  # reuses what only the newer database knew
    (one / "grown").write_bytes((one / "after").read_bytes() + b"and some more")
    a.sync(timeout_s=60)
    shutil.copy(two / "after", two / "a copy on the desktop")
    (two / "new").write_text("written after the database was put back")
    b.sync(timeout_s=60)
    a.sync(timeout_s=60)
    assert dict(tree_of(one)) == dict(tree_of(two))
    assert {"after", "a copy on the laptop", "grown", "a copy on the desktop", "new"} <= dict(tree_of(one)).keys()
    c.get("work", cluster.root / "three")
    c.get("made since", cluster.root / "four")
    c.sync(timeout_s=60)
    assert dict(tree_of(cluster.root / "three")) == dict(tree_of(one))
    assert dict(tree_of(cluster.root / "four")) == dict(tree_of(cluster.root / "made since"))


def test_a_coordinator_that_forgot_where_contents_lie_is_told_again(
    cluster: Cluster, pair: tuple[Device, Device]
) -> None:
    """As after a backup that was taken between the receipts of contents and the entry that uses them."""
    a, b = pair
    one, two = cluster.root / "one", cluster.root / "two"
    (one / "file").write_bytes(random.Random(3).randbytes(600_000))
    a.sync()
    cluster.coordinator.stop()
    with sqlite3.connect(data(cluster) / DATABASE) as db:
        for table in ("chunks", "segments"):
            assert db.execute(f"DELETE FROM {table}").rowcount
    cluster.coordinator.start()
    shutil.copy(one / "file", one / "copy")
    a.sync(timeout_s=60)
    b.sync(timeout_s=60)
    assert dict(tree_of(one)) == dict(tree_of(two))
    with sqlite3.connect(data(cluster) / DATABASE) as db:
        assert db.execute("SELECT count(*) FROM chunks").fetchone()[0]


def test_two_histories_for_one_position_freeze_the_folder(cluster: Cluster, pair: tuple[Device, Device]) -> None:
    a, b = pair
    one, two = cluster.root / "one", cluster.root / "two"
    (one / "file").write_text("common")
    a.sync()
    b.sync()
    backup = back_up(cluster)
    (one / "file").write_text("the history that the laptop saw")
    a.sync()
    restore(cluster, backup)
    (two / "other").write_text("the history that the desktop saw")
    b.sync()
    (one / "unsent").write_text("written meanwhile")
    with pytest.raises(CommandError):
        a.sync()
    assert folder_of(a)["state"] == "frozen"
    assert "histor" in str(folder_of(a)["text"])
    assert [(row["path"], row["reason"]) for row in a.json("status")["folders"][0]["unsynced"]] == [
        ("unsent", "frozen")
    ]
    assert (one / "file").read_text() == "the history that the laptop saw"
    assert (one / "unsent").read_text() == "written meanwhile"
    assert not (one / "other").exists()


@pytest.mark.parametrize("place", ["payload", "header"])
def test_a_forged_entry_changes_nothing(cluster: Cluster, pair: tuple[Device, Device], place: str) -> None:
    a, b = pair
    one, two = cluster.root / "one", cluster.root / "two"
    (one / "file").write_text("signed by the laptop")
    a.sync()
    cluster.coordinator.stop()
    with sqlite3.connect(data(cluster) / DATABASE) as db:
        rows = db.execute("SELECT rowid, data FROM log ORDER BY position").fetchall()
        rowid, item = max(rows, key=lambda row: row[0])
        forged = bytearray(item)
        at = len(forged) - 200 if place == "payload" else 40
        forged[at] ^= 1
        db.execute("UPDATE log SET data = ? WHERE rowid = ?", (bytes(forged), rowid))
    cluster.coordinator.start()
    with pytest.raises(CommandError) as refused:
        b.sync()
    assert "history" in refused.value.output or "signed" in refused.value.output
    assert dict(tree_of(two)) == {}
    assert "Traceback" not in (b.home / "kin.log").read_text()


def test_a_folder_removed_and_got_again_is_written_to_again(cluster: Cluster, pair: tuple[Device, Device]) -> None:
    a, b = pair
    one, again = cluster.root / "one", cluster.root / "again"
    (one / "first").write_text("by the laptop")
    a.sync()
    (cluster.root / "two" / "second").write_text("by the desktop")
    b.sync()
    b.kin("remove", "work")
    b.get("work", again)
    b.sync()
    (again / "second").write_text("by the desktop, again")
    (again / "third").write_text("new")
    b.sync()
    a.sync()
    assert dict(tree_of(one)) == dict(tree_of(again))
    assert (one / "second").read_text() == "by the desktop, again"


def test_a_device_set_back_goes_on_under_a_new_number(cluster: Cluster, pair: tuple[Device, Device]) -> None:
    a, b = pair
    one, two = cluster.root / "one", cluster.root / "two"
    (one / "file").write_text("one")
    a.sync()
    backup = cluster.root / "home-backup"
    shutil.copytree(a.home, backup)
    (one / "file").write_text("two")
    (one / "later").write_text("later")
    a.sync()
    b.sync()
    shutil.rmtree(a.home)
    shutil.copytree(backup, a.home)
    (one / "file").write_text("three")
    (one / "newest").write_text("newest")
    a.sync()
    b.sync()
    a.sync()
    tree = dict(tree_of(one))
    assert tree == dict(tree_of(two))
    assert b"three" in tree.values()
    assert tree["later"] == b"later"
    assert tree["newest"] == b"newest"
