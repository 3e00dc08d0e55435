"""A device that was taken out of the account: it reads and writes nothing more, and the others go on."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable
from pathlib import Path

from peer.config import KeyOptions
from peer.device import Device as OpenDevice
from peer.revoking import _append
from protocol.entries import parse_entry
from protocol.errors import KinfolderError, RevokedError
from protocol.grants import ChunkRef
from protocol.history import ItemKind
from protocol.ids import ChunkId
from simulations.processes import Cluster, Device, tree_of
from tests.e2e import kit

KEYS = KeyOptions(no_keyring=True)


def third(cluster: Cluster, a: Device) -> tuple[Device, Path]:
    """Link a phone that has the folder too."""
    phone, root = cluster.link_device(a, "Phone"), cluster.root / "three"
    phone.get("work", root)
    phone.sync()
    return phone, root


def epochs_of(cluster: Cluster) -> list[int]:
    """Return the epochs of all entries in the logs at the coordinator, folder by folder in order."""
    with sqlite3.connect(f"file:{cluster.root}/coordinator/coordinator.sqlite?mode=ro", uri=True) as db:
        query = "SELECT data FROM log WHERE kind = ? ORDER BY folder, position"
        return [parse_entry(data).header.epoch for (data,) in db.execute(query, (int(ItemKind.ENTRY),))]


async def all_epochs(device: Device) -> dict[str, int]:
    """Return the number of the newest epoch of each folder of the account, as the coordinator has them."""
    from peer.folder_commands import remote_folders

    opened = await OpenDevice.open(device.home, keys=KEYS)
    try:
        await opened.need_link()
        return {remote.name: remote.control.epoch.number for remote in await remote_folders(opened)}
    finally:
        await opened.close()


def test_a_lost_device_is_out_at_once_and_the_others_go_on(cluster: Cluster, pair: tuple[Device, Device]) -> None:
    a, b = pair
    one, two = cluster.root / "one", cluster.root / "two"
    phone, three = third(cluster, a)
    b.add(cluster.root / "elsewhere", "elsewhere")  # a folder that the revoking device does not have
    with kit.agents(cluster.root, a, b, phone):
        (three / "before").write_text("by the phone, before")
        kit.settle(phone, a, b)
        said = a.kin("revoke", "Phone")
        assert "Phone was taken out of the account" in said
        (one / "after").write_text("what the phone must never read")
        kit.settle(a, b)
        assert (two / "after").exists()
        assert (two / "before").read_text() == "by the phone, before"
        (three / "after on the phone").write_text("its own")
        refused = kit.run(phone, "sync")
        assert (refused.code, refused.out) == (1, "")
        assert "taken out of the account" in refused.err
        assert len(refused.err.strip().splitlines()) == 1
        state = kit.ask(phone)
        assert any("taken out" in line for line in state["warnings"])
        assert (state["taken_out"], state["in_sync"]) == (True, False)
        assert [(row["state"], "taken out" in row["text"]) for row in state["folders"]] == [("stopped", True)]
        checked = kit.run(phone, "doctor")
        assert (checked.code, "account: this device (Phone) was taken out of the account" in checked.out) == (1, True)
        for told in (checked.out, kit.run(phone, "status").out):
            assert not any(word in told for word in ("in between", "does not hold", "cannot be reached", "in sync"))
        assert not (three / "after").exists()
        assert (three / "after on the phone").read_text() == "its own"
        rows = {row["name"]: row for row in kit.ask(b, "devices")["devices"]}
        assert rows["Phone"]["revoked"]
        assert not rows["Phone"]["online"]
        assert rows["laptop"]["revoked"] is None
        kit.settle(b, a)
    assert dict(tree_of(one)) == dict(tree_of(two))
    assert asyncio.run(all_epochs(b)) == {"work": 2, "elsewhere": 2}
    found = epochs_of(cluster)
    assert found == sorted(found)
    assert set(found) == {1, 2}
    again = kit.run(a, "revoke", "Phone")
    assert (again.code, "is out of the account already" in again.out) == (0, True)
    alone = kit.run(phone, "status")
    assert "taken out of the account" in alone.text
    assert "in sync" not in alone.out
    assert kit.run(phone, "doctor").out.count("taken out") == 1
    kit.assert_no_tracebacks(cluster)


def test_what_was_written_without_the_network_is_sealed_anew(cluster: Cluster, pair: tuple[Device, Device]) -> None:
    a, b = pair
    one, two = cluster.root / "one", cluster.root / "two"
    third(cluster, a)
    (one / "file").write_text("as it was")
    (one / "gone").write_text("removed without the network")
    a.sync()
    with kit.agents(cluster.root, b):
        (two / "enrols").write_text("so that it has a number")
        kit.settle(b)
        kit.ask(b, "offline")
        (two / "file").rename(two / "renamed")
        (two / "gone").unlink()
        kit.until(lambda: tail_of(b) and all(r == "offline" for r in kit.reasons(b, "work").values()), "it is recorded")
        a.kin("revoke", "Phone")
        (one / "more").write_text("by the laptop")
        a.sync()
        kit.ask(b, "online")
        kit.settle(b)
        a.sync()
        expected = {"enrols": b"so that it has a number", "renamed": b"as it was", "more": b"by the laptop"}
        assert dict(tree_of(one)) == dict(tree_of(two)) == expected
    assert "begins a new incarnation" not in (b.home / "kin.log").read_text()
    assert "sealed anew" in (cluster.root / "desktop.log").read_text() + (b.home / "kin.log").read_text()
    kit.assert_no_tracebacks(cluster)


def tail_of(device: Device) -> int:
    """Return how many entries wait for the coordinator."""
    with sqlite3.connect(f"file:{device.home}/state.db?mode=ro", uri=True) as db:
        return int(db.execute("SELECT count(*) FROM tail").fetchone()[0])


def test_any_device_that_is_left_finishes_what_was_cut_off(cluster: Cluster, pair: tuple[Device, Device]) -> None:
    a, b = pair
    phone, _ = third(cluster, a)
    a.add(cluster.root / "only here", "only here")

    async def cut_off() -> None:
        """Add the link to the chain, as ``kin revoke`` does first, and do no more."""
        opened = await OpenDevice.open(a.home, keys=KEYS)
        try:
            await opened.need_link()
            state = opened.accounts(opened.record.account)
            target = next(id for id, one in state.devices.items() if id not in (opened.record.device, *others))
            await _append(opened, state, target)
        finally:
            await opened.close()

    others = {bytes.fromhex(b.json("status")["device"]["id"])}
    asyncio.run(cut_off())
    kit.until(lambda: "taken out" in kit.run(phone, "sync").err, "the phone is out")
    with kit.agents(cluster.root, b):
        kit.until(lambda: asyncio.run(all_epochs(a)) == {"work": 2, "only here": 2}, "both keys are renewed")
    kit.assert_no_tracebacks(cluster)


def test_a_thief_with_keys_and_a_grant_gets_nothing_more(cluster: Cluster, pair: tuple[Device, Device]) -> None:
    """S27 for a device of one's own, and S24: what he holds was good a moment ago."""
    a, _ = pair
    one = cluster.root / "one"
    phone, three = third(cluster, a)
    (three / "enrols").write_bytes(b"x" * 9000)
    phone.sync()

    async def steal() -> None:
        thief = await OpenDevice.open(phone.home, keys=KEYS)
        try:
            await thief.need_link()
            engine = next(iter(thief.engines.values()))
            refs = await thief.context.database.run(refs_of)
            _, there = await thief.chunks.have(engine.record.id, refs)
            assert there == {ref.id for ref in refs}
            await asyncio.to_thread(a.kin, "revoke", "Phone")
            await refused(lambda: thief.chunks.have(engine.record.id, refs))
            await told_that_it_is_out(thief)
        finally:
            await thief.close()

    asyncio.run(steal())
    (one / "new").write_text("not for the thief")
    a.sync()
    assert sorted(dict(tree_of(one))) == ["enrols", "new"]
    kit.assert_no_tracebacks(cluster)


def refs_of(db: sqlite3.Connection) -> list[ChunkRef]:
    """Return the chunks that a device put or opened."""
    import msgspec

    from peer.core.chunk_sealing import Row

    rows = [msgspec.msgpack.decode(row[0], type=Row) for row in db.execute("SELECT row FROM chunk")]
    return [ChunkRef(ChunkId(row.id), row.length) for row in rows]


async def refused(ask: Callable[[], Awaitable[tuple[object, set[ChunkId]]]]) -> None:
    """Within a moment no node answers to the grant that it took before."""
    async with asyncio.timeout(kit.PATIENCE_S):
        while True:
            try:
                _, there = await ask()
            except KinfolderError:
                return
            if not there:
                return
            await asyncio.sleep(kit.LOOK_S)


async def told_that_it_is_out(thief: OpenDevice) -> None:
    """The session ends, and no other begins."""
    await thief.coordinator.close()
    try:
        await thief.coordinator.connect_once()
    except RevokedError:
        return
    raise AssertionError("a device that was taken out logged in")
